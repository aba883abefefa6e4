//! What happens when something goes.

use std::{fs, thread, time::Duration};

use stele_hsm::{SignerKind, remote::wire::Role};

use crate::{
    host::{Backing, Host},
    ledger::{sign_checkpoint, vote},
};

#[test]
fn a_signer_that_was_killed_is_missed_at_once_and_found_again() {
    let mut host = Host::running(Backing::Tpm);
    let long_term = host.signer(Role::Validator, SignerKind::Tpm);
    let signed = vote(&host, &long_term, 5, 9).unwrap();
    host.kill();
    let started = std::time::Instant::now();
    let error = vote(&host, &long_term, 6, 9).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("signer_away", true));
    assert!(started.elapsed() < Duration::from_secs(1), "missed at once");
    host.start();
    thread::sleep(Duration::from_millis(150));
    assert_eq!(vote(&host, &long_term, 5, 9).unwrap(), signed, "the guard remembers");
    vote(&host, &long_term, 6, 9).unwrap();
}

#[test]
fn a_tpm_that_is_away_is_told_and_found_again() {
    let mut host = Host::running(Backing::Tpm);
    let long_term = host.signer(Role::Validator, SignerKind::Tpm);
    vote(&host, &long_term, 5, 9).unwrap();
    host.swtpm.as_mut().unwrap().power_off();
    let error = vote(&host, &long_term, 6, 9).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("tpm_lost", true));
    // Keys in memory need no TPM.
    let epochs = host.runtime.block_on(host.socket().epoch_signers()).unwrap();
    vote(&host, &epochs[0], 6, 9).unwrap();
    host.swtpm.as_mut().unwrap().power_on();
    thread::sleep(Duration::from_millis(150));
    vote(&host, &long_term, 7, 9).unwrap();
}

#[test]
fn an_old_copy_of_the_disk_and_a_second_one_are_refused() {
    let mut host = Host::made(Backing::Tpm);
    host.copy_state("state", "old");
    host.start();
    host.copy_state("state", "running");
    host.kill();
    host.copy_state("state", "kept");
    host.copy_state("old", "state");
    let (status, said) = host.refuse();
    assert!(status == 4 && said.contains("tpm_epoch_mismatch"), "{status}: {said}");
    // The disk itself goes on, and after an end in order a copy from meanwhile is old, too.
    host.copy_state("kept", "state");
    host.start();
    assert!(host.signal(rustix::process::Signal::TERM).success());
    for copy in ["kept", "running"] {
        host.copy_state("state", "now");
        host.copy_state(copy, "state");
        assert_eq!(host.refuse().0, 4, "{copy}");
        host.copy_state("now", "state");
    }
    host.start();
}

#[test]
fn a_state_directory_that_others_may_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::made(Backing::Files);
    fs::set_permissions(host.path("state"), fs::Permissions::from_mode(0o750)).unwrap();
    let (status, said) = host.refuse();
    assert!(status == 1 && said.contains("chmod 700"), "{said}");
}

#[test]
fn a_second_signer_of_the_same_keys_does_not_start() {
    let mut host = Host::running(Backing::Files);
    let (status, said) = host.refuse();
    assert!(status == 1 && said.contains("guard_held"), "{status}: {said}");
    host.kill();
    // What a killed signer leaves is replaced, and nothing else is.
    host.start();
    host.kill();
    fs::remove_file(host.path("signer.sock")).unwrap();
    fs::write(host.path("signer.sock"), "a file").unwrap();
    assert!(host.refuse().1.contains("is no socket"));
}

#[test]
fn nothing_is_made_by_a_start() {
    for lost in ["validator.votes", "seal.checkpoints", "network", "validator.key", "seal.key", "tpm.epoch"] {
        let host = Host::made(Backing::Tpm);
        fs::remove_file(host.path("state").join(lost)).unwrap();
        let (status, said) = host.refuse();
        assert_eq!(status, 1, "{lost}: {said}");
        assert!(!host.path("state").join(lost).exists(), "{lost} was made");
    }
}

#[test]
fn it_ends_in_order_and_leaves_no_socket() {
    let mut host = Host::running(Backing::TpmAndToken);
    let sealer = host.signer(Role::Seal, SignerKind::Pkcs11);
    sign_checkpoint(&host, &sealer, 7, 1).unwrap();
    assert!(host.signal(rustix::process::Signal::TERM).success());
    assert!(!host.path("signer.sock").exists());
}

#[test]
fn no_secret_leaves_by_a_core_dump_the_swap_or_the_log() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut host = Host::made(Backing::Files);
    // A control: here a process that is killed like that leaves a core, or nothing can be said.
    let mut control = std::process::Command::new("sh");
    let control = control.args(["-c", "ulimit -c unlimited; kill -QUIT $$"]).current_dir(host.path("state")).status();
    let dumps = control.unwrap().core_dumped();
    host.shell = Some("ulimit -c unlimited");
    host.start();
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim().to_owned();
    assert!(!rustix::process::getuid().is_root() || locked != "0 kB", "memory is not locked: {locked}");
    // Rust's own handler takes a SIGSEGV that somebody sent for an accident, and goes on.
    let ended = host.signal(rustix::process::Signal::QUIT);
    assert_eq!(ended.signal(), Some(3));
    assert!(!ended.core_dumped(), "a core was dumped");
    if !dumps {
        println!("this machine dumps no cores at all: only the limit was tested");
    }
    let key = fs::read_to_string(host.path("state/validator.key")).unwrap();
    let secret = key.lines().find(|line| !line.starts_with("---")).unwrap();
    assert!(!host.log().contains(secret));
}
