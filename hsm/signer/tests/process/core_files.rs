//! What a kernel writes of a signer that is killed: no core, and so no key.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use stele_hsm::tpm::{TpmDevice, TpmSealed};

use crate::{
    host::{Backing, Host},
    ledger::vote,
};

/// The only epoch key of a signer that does not run: 32 bytes that are nowhere else.
fn canary(host: &Host) -> Vec<u8> {
    let sealed = fs::read_dir(host.path("state/epochs")).unwrap().next().unwrap().unwrap().path();
    let device = TpmDevice::open(&host.swtpm.as_ref().unwrap().tcti()).unwrap();
    TpmSealed::open(&device, &sealed).unwrap().to_vec()
}

/// Whether bytes hold the canary: as it is sealed, as arithmetic keeps it (least significant byte first), or as text.
fn holds(bytes: &[u8], canary: &[u8]) -> bool {
    let reversed: Vec<u8> = canary.iter().rev().copied().collect();
    let forms = [canary, &reversed, hex::encode(canary).as_bytes()].map(<[u8]>::to_vec);
    forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form))
}

/// Core files that the kernel left in a directory.
fn cores(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let is_core = |name: &str| name == "core" || name.starts_with("core.");
    let cores = entries.filter(|entry| is_core(&entry.file_name().to_string_lossy()));
    cores.map(|entry| fs::read(entry.path()).unwrap()).collect()
}

/// A process that keeps the canary in memory and protects nothing, killed like the signer. Its core files.
fn control(canary: &[u8]) -> (bool, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec dd bs=4096 of=echo 2> /dev/null"]).current_dir(directory.path());
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(canary).unwrap();
    // It has read the canary as soon as it has written it, and waits for more.
    while !fs::read(directory.path().join("echo")).is_ok_and(|echo| echo == canary) {
        assert!(process.try_wait().unwrap().is_none(), "dd ended");
        thread::sleep(Duration::from_millis(5));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), Signal::QUIT).unwrap();
    let ended = process.wait().unwrap();
    drop(stdin);
    (ended.core_dumped(), cores(directory.path()))
}

/// The memory of a process that may be written, as its core would have it.
fn memory(process: u32) -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut file = File::open(format!("/proc/{process}/mem"))?;
    let mut memory = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        file.seek(SeekFrom::Start(from))?;
        // Pages that went away meanwhile hold nothing.
        if file.read_exact(&mut part).is_ok() {
            memory.extend(part);
        }
    }
    Ok(memory)
}

/// Every file below a directory.
fn files(directory: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn no_core_and_no_file_holds_the_epoch_key_of_a_signer_that_is_killed() {
    let mut host = Host::made(Backing::Tpm);
    let canary = canary(&host);
    // What is looked for is found where nothing is protected, or nothing can be said.
    let (dumped, found) = control(&canary);
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if found.is_empty() {
        println!("cores of this machine go elsewhere ({}), or nowhere: none can be searched", pattern.trim());
    } else {
        assert!(found.iter().any(|core| holds(core, &canary)), "the control's core does not hold the canary");
    }
    host.shell = Some("ulimit -c unlimited");
    host.start();
    let [epoch] = &host.runtime.block_on(host.socket().epoch_signers()).unwrap()[..] else { panic!("one") };
    vote(&host, epoch, 5, 9).unwrap();
    // The key is in memory in clear, so a core would hold it; who is not root may not look.
    match memory(host.pid()) {
        Ok(memory) => {
            assert!(rustix::process::getuid().is_root(), "its memory is open to its own user");
            assert!(holds(&memory, &canary), "the key is not where a core would have it");
        }
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
    }
    let ended = host.signal(Signal::QUIT);
    assert_eq!(ended.signal(), Some(3));
    assert!(!ended.core_dumped(), "a core was dumped");
    assert!(dumped || found.is_empty(), "the kernel says that it dumps none");
    assert!(cores(&host.path(".")).is_empty() && cores(&host.path("state")).is_empty(), "a core was written");
    let mut left = Vec::new();
    files(&host.path("."), &mut left);
    assert!(left.len() > 5, "sealed keys, guards and log: {}", left.len());
    assert!(!left.iter().any(|file| holds(file, &canary)), "a file holds the key");
}
