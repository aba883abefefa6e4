//! What it signs, for whom, and what it refuses.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use stele_hsm::{
    Signer as _, SignerKind, SoftwareSigner, Step,
    remote::wire::{Role, VERSION},
};
use stele_types::{EpochCertificate, Hash, Height, NetworkId};

use crate::{
    host::{Backing, Host, genesis},
    ledger::{certify, checkpoint, sign_checkpoint, sign_checkpoint_bytes, sign_receipt, validator, vote, vote_in},
    requests::sign_peer_binding,
};

#[test]
fn every_kind_is_signed_by_the_key_that_is_for_it() {
    let network = genesis().network();
    for (backing, validator, seal) in [
        (Backing::Tpm, SignerKind::Tpm, SignerKind::Tpm),
        (Backing::TpmAndToken, SignerKind::Tpm, SignerKind::Pkcs11),
        (Backing::Files, SignerKind::Software, SignerKind::Software),
    ] {
        let host = Host::running(backing);
        let (long_term, sealer) = (host.signer(Role::Validator, validator), host.signer(Role::Seal, seal));
        vote(&host, &long_term, 5, 9).unwrap();
        sign_checkpoint(&host, &sealer, 7, 1).unwrap();
        sign_receipt(&host, &sealer, network).unwrap();
        let bind = |signer: &dyn stele_hsm::Signer| {
            let _runtime = host.runtime.enter();
            sign_peer_binding(signer, &signer.public_key().sec1_compressed)
        };
        bind(&long_term).unwrap();
        let [epoch] = &host.runtime.block_on(host.socket().epoch_signers()).unwrap()[..] else { panic!("one") };
        vote(&host, epoch, 6, 9).unwrap();
        let last = host.runtime.block_on(long_term.last_vote()).unwrap().unwrap();
        assert_eq!(
            (last.height, last.round, last.step),
            (6, 0, Step::Prevote),
            "one guard for all keys of the validator"
        );
        // Each with the other's key.
        for error in [
            vote(&host, &sealer, 7, 9).unwrap_err(),
            sign_checkpoint(&host, &long_term, 8, 1).unwrap_err(),
            sign_receipt(&host, &long_term, network).unwrap_err(),
            sign_checkpoint(&host, epoch, 8, 1).unwrap_err(),
            bind(epoch).unwrap_err(),
        ] {
            assert_eq!((error.code(), error.is_retryable()), ("signer_key", false), "{error}");
        }
    }
}

#[test]
fn guards_are_the_signers_and_their_codes_cross_the_socket() {
    let mut host = Host::running(Backing::Tpm);
    let (long_term, sealer) = (host.signer(Role::Validator, SignerKind::Tpm), host.signer(Role::Seal, SignerKind::Tpm));
    let signed = vote(&host, &long_term, 5, 9).unwrap();
    let other = host.signer(Role::Validator, SignerKind::Tpm);
    assert_eq!(vote(&host, &other, 5, 9).unwrap(), signed, "the same vote, asked by another connection");
    let refused = vote(&host, &other, 5, 8).unwrap_err();
    assert!(refused.is_double_sign() && refused.is_guard_refusal() && !refused.is_retryable(), "{refused}");
    assert_eq!(vote(&host, &other, 4, 8).unwrap_err().code(), "regression");
    host.runtime.block_on(other.abstain(9)).unwrap();
    assert_eq!(vote(&host, &other, 9, 8).unwrap_err().code(), "regression");
    sign_checkpoint(&host, &sealer, 7, 1).unwrap();
    assert_eq!(sign_checkpoint(&host, &sealer, 6, 1).unwrap_err().code(), "checkpoint_regression");
    assert_eq!(sign_checkpoint(&host, &sealer, 7, 2).unwrap_err().code(), "checkpoint_fork");
    // What it remembers outlives it.
    host.kill();
    host.start();
    assert!(vote(&host, &long_term, 5, 8).unwrap_err().is_guard_refusal());
    assert_eq!(sign_checkpoint(&host, &sealer, 7, 2).unwrap_err().code(), "checkpoint_fork");
}

#[test]
fn a_certificate_is_given_to_a_key_of_its_own_and_to_no_other() {
    let host = Host::running(Backing::Tpm);
    let long_term = host.signer(Role::Validator, SignerKind::Tpm);
    let [epoch] = &host.runtime.block_on(host.socket().epoch_signers()).unwrap()[..] else { panic!("one") };
    let public_key =
        |signer: &dyn stele_hsm::Signer| signer.public_key().sec1_compressed.as_slice().try_into().unwrap();
    let own = EpochCertificate {
        network: genesis().network(),
        validator: validator(&host),
        public_key: public_key(epoch),
        from_height: Height(1),
        until_height: Height(1_000),
        pcr_policy: Hash::default(),
        signature: [0; 64],
    };
    certify(&host, &long_term, &own).unwrap();
    // Whoever has the node's process brings a key of their own, which no guard judges.
    let stranger = SoftwareSigner::ephemeral().unwrap();
    for refused in [
        EpochCertificate { public_key: public_key(&stranger), ..own.clone() },
        EpochCertificate { public_key: public_key(&long_term), ..own.clone() },
        EpochCertificate { network: NetworkId([9; 32]), ..own.clone() },
        EpochCertificate { network: NetworkId::default(), ..own.clone() },
        EpochCertificate { until_height: Height(1_000_001), ..own.clone() },
        EpochCertificate { validator: stele_types::ValidatorId([9; 32]), ..own.clone() },
    ] {
        let error = certify(&host, &long_term, &refused).unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("malformed_request", false), "{error}");
    }
}

#[test]
fn what_is_of_another_network_is_not_signed() {
    let host = Host::running(Backing::Files);
    let kind = SignerKind::Software;
    let (long_term, sealer) = (host.signer(Role::Validator, kind), host.signer(Role::Seal, kind));
    let other = NetworkId([9; 32]);
    let foreign = checkpoint(other, 7, 1);
    // A header that only loose readers take for one of this network.
    let loose = crate::requests::checkpoint_bytes(7, 1);
    for error in [
        vote_in(&host, &long_term, other, 5, 9).unwrap_err(),
        sign_checkpoint_bytes(&host, &sealer, (7, 1), &foreign).unwrap_err(),
        sign_checkpoint_bytes(&host, &sealer, (7, 1), &loose).unwrap_err(),
        sign_receipt(&host, &sealer, other).unwrap_err(),
    ] {
        assert_eq!(error.code(), "malformed_request", "{error}");
    }
    // Nothing of it stands in a guard.
    assert_eq!(host.runtime.block_on(long_term.last_vote()).unwrap(), None);
    sign_checkpoint(&host, &sealer, 7, 2).unwrap();
}

#[test]
fn keys_that_were_made_are_told_again_and_a_guard_that_was_lost_is_made_again() {
    let mut host = Host::made(Backing::Tpm);
    assert_eq!(host.program(&["keys"]).unwrap(), fs::read_to_string(host.path("node-keys.json")).unwrap());
    // A path that cannot be written costs nothing: keys are made afterwards.
    let other = Host::configured(Backing::Files);
    assert!(other.program(&["init", "--out", "/nowhere/keys.json"]).unwrap_err().contains("/nowhere/keys.json"));
    other.program(&["init"]).unwrap();
    assert!(host.program(&["guard", "--from-height", "9"]).is_err(), "the guard is there");
    fs::remove_file(host.path("state/validator.votes")).unwrap();
    fs::remove_file(host.path("state/seal.checkpoints")).unwrap();
    host.program(&["guard", "--from-height", "9"]).unwrap();
    host.program(&["guard", "--from-size", "70"]).unwrap();
    host.start();
    let (long_term, sealer) = (host.signer(Role::Validator, SignerKind::Tpm), host.signer(Role::Seal, SignerKind::Tpm));
    assert_eq!(vote(&host, &long_term, 8, 9).unwrap_err().code(), "regression");
    vote(&host, &long_term, 9, 9).unwrap();
    assert_eq!(sign_checkpoint(&host, &sealer, 69, 1).unwrap_err().code(), "checkpoint_fork");
    assert_eq!(sign_checkpoint(&host, &sealer, 68, 1).unwrap_err().code(), "checkpoint_regression");
    sign_checkpoint(&host, &sealer, 70, 1).unwrap();
}

#[test]
fn keys_are_made_once_and_serve_one_network() {
    let host = Host::configured(Backing::Tpm);
    let (status, said) = host.refuse();
    assert!(status == 1 && said.contains("No such file"), "{status}: {said}");
    host.program(&["init", "--out", &host.shown("node-keys.json")]).unwrap();
    let (_, said) = host.refuse();
    assert!(said.contains("stele-signer adopt"), "{said}");
    assert!(host.program(&["init"]).unwrap_err().contains("never replaced"));
    fs::write(host.path("genesis.cbor"), b"no genesis").unwrap();
    assert!(host.program(&["adopt", "--genesis", &host.shown("genesis.cbor")]).unwrap_err().contains("no genesis"));
    fs::write(host.path("genesis.cbor"), genesis().to_bytes()).unwrap();
    let network = host.program(&["adopt", "--genesis", &host.shown("genesis.cbor")]).unwrap();
    assert_eq!(network.trim(), genesis().network().to_hex());
    // A power cut between guard and name of the network.
    fs::remove_file(host.path("state/network")).unwrap();
    host.program(&["adopt", "--genesis", &host.shown("genesis.cbor")]).unwrap();
    assert!(host.program(&["adopt", "--genesis", &host.shown("genesis.cbor")]).unwrap_err().contains("one network"));
}

#[test]
fn epoch_keys_come_and_go_while_it_runs_and_lie_sealed() {
    let mut host = Host::running(Backing::Tpm);
    let socket = host.socket();
    let made = host.runtime.block_on(socket.make_epoch_key()).unwrap();
    vote(&host, &made, 5, 9).unwrap();
    let names: Vec<String> = fs::read_dir(host.path("state/epochs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.ends_with(".sealed")), "{names:?}");
    host.kill();
    host.start();
    vote(&host, &made, 6, 9).unwrap();
    let key = made.public_key().sec1_compressed.as_slice().try_into().unwrap();
    host.runtime.block_on(socket.retire_epoch_key(key)).unwrap();
    host.runtime.block_on(socket.retire_epoch_key(key)).unwrap();
    assert_eq!(vote(&host, &made, 7, 9).unwrap_err().code(), "signer_key");
    let epochs = || host.runtime.block_on(socket.epoch_signers()).unwrap().len();
    assert_eq!(epochs(), 1);
    for _ in 1..16 {
        host.runtime.block_on(socket.make_epoch_key()).unwrap();
    }
    assert_eq!(host.runtime.block_on(socket.make_epoch_key()).unwrap_err().code(), "epoch_keys_full");
    assert_eq!(epochs(), 16);
    // What a power cut left is removed, what is damaged is left out, and a key in a plain file beside a TPM is not taken.
    host.kill();
    fs::write(host.path("state/epochs/half.partial"), "").unwrap();
    fs::write(host.path("state/epochs/damaged.sealed"), "").unwrap();
    host.start();
    assert!(!host.path("state/epochs/half.partial").exists());
    assert_eq!(host.runtime.block_on(host.socket().epoch_signers()).unwrap().len(), 16);
    assert!(host.log().contains("left out"), "{}", host.log());
    host.kill();
    fs::write(host.path("state/epochs/other.key"), "x").unwrap();
    assert!(host.refuse().1.contains("epoch_key_unsealed"));
}

#[test]
fn other_users_are_turned_away() {
    let mut host = Host::made(Backing::Files);
    host.configure(Backing::Files, "65534, \"nobody\"");
    host.start();
    // Its own user may look; another may not.
    assert!(host.program(&["status"]).is_ok());
    if rustix::process::getuid().is_root() {
        let stranger = host.program_as("daemon", &["status"]).unwrap_err();
        assert!(stranger.contains("signer_away"), "{stranger}");
        assert!(host.log().contains("turned away"), "{}", host.log());
    } else {
        println!("not root: no other user was tried");
    }
    host.kill();
    host.configure(Backing::Files, "\"no-such-user\"");
    assert!(host.refuse().1.contains("no user no-such-user"));
}

#[test]
fn whoever_sends_nonsense_is_cut_off_and_others_are_served() {
    let host = Host::running(Backing::Files);
    let long_term = host.signer(Role::Validator, SignerKind::Software);
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let cut_off = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(host.path("signer.sock")).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too: it had not read everything.
        drop(stream.read_to_end(&mut answer));
        answer
    };
    assert!(cut_off(&u32::MAX.to_be_bytes()).is_empty());
    assert!(cut_off(&frame(b"")).is_empty());
    assert!(cut_off(&frame(b"\xff\xff\xff")).is_empty());
    assert!(cut_off(&frame(&[0x82, 0x01, 0x82, 0x18, 0x63, 0x80])).is_empty(), "an unknown request");
    assert!(cut_off(&frame(&[0x82, 0x01, 0x82, 0x00, 0x80])[..6]).is_empty(), "half a frame");
    assert!(!cut_off(&frame(&[0x82, 0x01, 0x82, 0x00, 0x80])).is_empty(), "a request");
    // Idle connections up to the bound, and beyond.
    let idle: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(host.path("signer.sock")).unwrap()).collect();
    vote(&host, &long_term, 5, 9).unwrap();
    drop(idle);
    let description = host.runtime.block_on(host.socket().describe()).unwrap();
    assert_eq!(description.version, VERSION);
    let status: serde_json::Value = serde_json::from_str(&host.program(&["status"]).unwrap()).unwrap();
    assert_eq!(status["keys"].as_array().unwrap().len(), 3, "{status}");
}
