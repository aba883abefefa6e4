//! Keys from making to signing, guards included, and every way in which a token goes away.

use std::{fs, path::PathBuf, process::Command, thread};

use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use sha2::{Digest as _, Sha256};
use stele_hsm::{
    Signer, SignerKind,
    pkcs11::{Pkcs11Options, Pkcs11Signer, Pkcs11Token},
};
use zeroize::Zeroizing;

use crate::{
    requests::{
        create_guards, open_guards, sign_checkpoint, sign_epoch_certificate, sign_peer_binding, sign_receipt, sign_vote,
    },
    softhsm::{PIN, open, options, pkcs11_tool, run, with_token},
};

#[test]
fn a_key_signs_every_kind_and_tools_see_it() {
    with_token("keys::a_key_signs_every_kind_and_tools_see_it", |directory| {
        let token = open();
        Pkcs11Signer::generate(&token, "checkpoint").unwrap();
        assert_eq!(Pkcs11Signer::generate(&token, "checkpoint").unwrap_err().code(), "token_key_exists");
        create_guards(directory);
        let (votes, checkpoints) = open_guards(directory);
        let signer = Pkcs11Signer::open(&token, "checkpoint").unwrap();
        let signer = signer.with_vote_guard(votes).with_checkpoint_guard(checkpoints);
        sign_vote(&signer, 5, 9).unwrap();
        sign_checkpoint(&signer, 100, 1).unwrap();
        sign_epoch_certificate(&signer).unwrap();
        sign_receipt(&signer, 1).unwrap();
        let public_key = signer.public_key().sec1_compressed.clone();
        sign_peer_binding(&signer, &public_key).unwrap();
        assert_eq!(sign_peer_binding(&signer, &[2; 33]).unwrap_err().code(), "malformed_request");
        SignerKind::Pkcs11.require_built().unwrap();
        let listed = pkcs11_tool(&["--list-objects"]);
        assert!(listed.contains("Private Key Object; EC") && listed.contains("label:      checkpoint"), "{listed}");
        assert!(listed.contains("never extractable"), "{listed}");
        // SoftHSM signs digests alone.
        let digest = Sha256::digest(b"signed by the tool");
        let (message, signature) = (directory.join("message"), directory.join("signature"));
        fs::write(&message, digest).unwrap();
        let files = ["--input-file", message.to_str().unwrap(), "--output-file", signature.to_str().unwrap()];
        pkcs11_tool(&[&["--sign", "--mechanism", "ECDSA", "--label", "checkpoint"][..], &files].concat());
        let signed = Signature::from_slice(&fs::read(signature).unwrap()).unwrap();
        let key = VerifyingKey::from_public_key_der(&signer.public_key().spki_der).unwrap();
        key.verify(b"signed by the tool", &signed).unwrap();
    });
}

#[test]
fn guards_refuse_what_contradicts_and_repeat_what_was_signed() {
    with_token("keys::guards_refuse_what_contradicts_and_repeat_what_was_signed", |directory| {
        let token = open();
        Pkcs11Signer::generate(&token, "validator").unwrap();
        create_guards(directory);
        let guarded = || {
            let (votes, checkpoints) = open_guards(directory);
            Pkcs11Signer::open(&token, "validator").unwrap().with_vote_guard(votes).with_checkpoint_guard(checkpoints)
        };
        let signer = guarded();
        let (vote, checkpoint) = (sign_vote(&signer, 5, 9).unwrap(), sign_checkpoint(&signer, 100, 1).unwrap());
        drop(signer);
        let signer = guarded();
        assert_eq!(sign_vote(&signer, 5, 9).unwrap(), vote);
        assert_eq!(sign_checkpoint(&signer, 100, 1).unwrap(), checkpoint);
        assert_eq!(sign_vote(&signer, 5, 8).unwrap_err().code(), "double_sign");
        assert_eq!(sign_checkpoint(&signer, 100, 2).unwrap_err().code(), "checkpoint_fork");
        assert_eq!(signer.figures().guard_refusals, 2);
        let unguarded = Pkcs11Signer::open(&token, "validator").unwrap();
        assert_eq!(sign_vote(&unguarded, 6, 9).unwrap_err().code(), "guard_missing");
    });
}

#[test]
fn sessions_sign_in_parallel() {
    with_token("keys::sessions_sign_in_parallel", |_| {
        let token = open();
        let signer = Pkcs11Signer::generate(&token, "validator").unwrap();
        thread::scope(|scope| {
            for root in 0..8 {
                let signer = &signer;
                scope.spawn(move || (0..20).for_each(|_| assert!(sign_receipt(signer, root).is_ok())));
            }
        });
        assert_eq!(signer.figures().custody_receipts_signed, 160);
        assert!((2..=4).contains(&token.figures().sessions), "{:?}", token.figures());
    });
}

/// Another user of the token in this process logs out: every session's login ends with it.
#[test]
fn a_login_that_ended_is_made_anew() {
    with_token("keys::a_login_that_ended_is_made_anew", |_| {
        // With one session the request that finds the login ended is the one that had it.
        let options = Pkcs11Options { sessions: 1, ..options() };
        let token = Pkcs11Token::open(&options, &Zeroizing::new(PIN.into())).unwrap();
        let signer = Pkcs11Signer::generate(&token, "validator").unwrap();
        for round in 0..3 {
            sign_receipt(&signer, round).unwrap();
            let module = cryptoki::context::Pkcs11::new(&options.module).unwrap();
            let slot = module.get_slots_with_initialized_token().unwrap()[0];
            module.open_ro_session(slot).unwrap().logout().unwrap();
        }
        sign_receipt(&signer, 3).unwrap();
        assert_eq!(signer.figures().failures, 0);
        assert!(token.figures().losses == 3, "{:?}", token.figures());
    });
}

/// The key is gone from the token, as when it was pulled or another was put in, and comes back.
#[test]
fn a_token_that_lost_its_key_is_told_and_found_again() {
    with_token("keys::a_token_that_lost_its_key_is_told_and_found_again", |directory| {
        let token = open();
        let signer = Pkcs11Signer::generate(&token, "validator").unwrap();
        sign_receipt(&signer, 1).unwrap();
        let tokens = fs::read_dir(directory.join("tokens")).unwrap().next().unwrap().unwrap().path();
        let away = directory.join("away");
        fs::create_dir(&away).unwrap();
        let objects: Vec<PathBuf> = fs::read_dir(&tokens).unwrap().map(|entry| entry.unwrap().path()).collect();
        let objects: Vec<&PathBuf> = objects
            .iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "object") && !path.ends_with("token.object"))
            .collect();
        let move_all = |out: bool| {
            for path in &objects {
                let other = away.join(path.file_name().unwrap());
                let (from, to) = if out { (*path, &other) } else { (&other, *path) };
                if from.exists() {
                    fs::rename(from, to).unwrap();
                }
            }
        };
        move_all(true);
        let error = sign_receipt(&signer, 2).unwrap_err();
        assert_eq!(error.code(), "token_lost");
        assert!(error.is_retryable());
        move_all(false);
        // SoftHSM looks at its files again when it begins anew.
        cryptoki::context::Pkcs11::new(options().module).unwrap().finalize().unwrap();
        sign_receipt(&signer, 2).unwrap();
    });
}

#[test]
fn wrong_pins_labels_and_modules_are_told_apart() {
    with_token("keys::wrong_pins_labels_and_modules_are_told_apart", |_| {
        let open = |options: &Pkcs11Options, pin: &str| {
            Pkcs11Token::open(options, &Zeroizing::new(pin.into())).map(drop).map_err(|error| error.code())
        };
        assert_eq!(open(&options(), "654321"), Err("token_pin"));
        assert_eq!(open(&Pkcs11Options { token: "other".into(), ..options() }, "123456"), Err("token_lost"));
        assert_eq!(open(&Pkcs11Options { module: "/no/such.so".into(), ..options() }, "123456"), Err("token_module"));
        assert_eq!(open(&options(), "123456"), Ok(()));
        let token = crate::softhsm::open();
        assert_eq!(Pkcs11Signer::open(&token, "absent").unwrap_err().code(), "token_key_missing");
        assert_eq!(Pkcs11Signer::open(&token, "").unwrap_err().code(), "malformed_request");
    });
}

#[test]
fn a_key_that_can_be_taken_out_is_refused() {
    with_token("keys::a_key_that_can_be_taken_out_is_refused", |_| {
        let words = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "loose", "--extractable"];
        pkcs11_tool(&words);
        let token = open();
        assert_eq!(Pkcs11Signer::open(&token, "loose").unwrap_err().code(), "token_key_extractable");
    });
}

/// Two tokens of one label: signing with either could be signing with the wrong one.
#[test]
fn an_ambiguous_label_is_refused() {
    with_token("keys::an_ambiguous_label_is_refused", |_| {
        let mut make = Command::new("softhsm2-util");
        make.args(["--init-token", "--free", "--label", "node", "--so-pin", "87654321", "--pin", "123456"]);
        run(&mut make, "softhsm2-util", "softhsm2");
        let refused = Pkcs11Token::open(&options(), &Zeroizing::new("123456".into())).unwrap_err();
        assert_eq!(refused.code(), "token_refused");
        assert!(refused.to_string().contains("two tokens"), "{refused}");
    });
}
