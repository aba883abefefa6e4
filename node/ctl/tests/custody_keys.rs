//! `stele key approve` and `stele key share`: what is done for a custody key away from its signer.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use stele_evidence::{Approval, PolicyKey};
use stele_hsm::custody::{CustodyKey, ShareHolder};

/// Runs `stele` in a directory; its JSON, or the code of its error.
fn stele(directory: &Path, words: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stele"));
    command.args(["-o", "json"]).args(words).current_dir(directory);
    let Output { status, stdout, stderr } = command.output().unwrap();
    if status.success() {
        return Ok(serde_json::from_slice(&stdout).unwrap());
    }
    let error: Value = serde_json::from_slice(&stderr).unwrap_or_default();
    Err(error["error"].as_str().map_or_else(|| String::from_utf8_lossy(&stderr).into_owned(), str::to_owned))
}

fn openssl(directory: &Path, words: &[&str]) {
    let output = Command::new("openssl").args(words).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const VALUE: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

#[test]
fn a_release_is_approved_with_a_key_here_or_by_openssl_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let pcr = format!("11={VALUE}");
    let made = stele(at, &["key", "generate", "--out", "policy.key"]).unwrap();
    let public = made["public_key"].as_str().unwrap().to_owned();
    let approve = ["key", "approve", "--release", "1.2", "--pcr", &pcr];
    let with = |more: &[&str]| stele(at, &[&approve[..], more].concat());
    with(&["--key", "policy.key", "--out", "1.2.json"]).unwrap();
    let key = PolicyKey::from_hex(&public).unwrap();
    let approval = Approval::parse(&fs::read(at.join("1.2.json")).unwrap()).unwrap();
    approval.verify(&key).unwrap();

    // The same key, in the hands of OpenSSL.
    with(&["--message", "message"]).unwrap();
    openssl(at, &["dgst", "-sha256", "-sign", "policy.key", "-out", "message.sig", "message"]);
    with(&["--signature", "message.sig", "--policy-key", &public, "--out", "other.json"]).unwrap();
    let other = Approval::parse(&fs::read(at.join("other.json")).unwrap()).unwrap();
    other.verify(&key).unwrap();
    assert_eq!(other.pcrs, approval.pcrs);
    // A signature over something else, or of somebody else, is found before it is carried anywhere.
    fs::write(at.join("message"), b"another").unwrap();
    openssl(at, &["dgst", "-sha256", "-sign", "policy.key", "-out", "message.sig", "message"]);
    let refused = with(&["--signature", "message.sig", "--policy-key", &public, "--out", "third.json"]);
    assert_eq!(refused.unwrap_err(), "approval_foreign");
    assert!(!at.join("third.json").exists());
    assert_eq!(
        with(&["--signature", "message.sig", "--policy-key", "02", "--out", "third.json"]).unwrap_err(),
        "policy_key_malformed"
    );
    stele(at, &["key", "generate", "--suite", "eddsa", "--out", "ed.key"]).unwrap();
    assert_eq!(with(&["--key", "ed.key", "--out", "third.json"]).unwrap_err(), "policy_key_malformed");
    let twice = ["--pcr", &pcr, "--key", "policy.key", "--out", "third.json"];
    assert_eq!(with(&twice).unwrap_err(), "approval_pcrs");
    let beyond = format!("24={VALUE}");
    assert_eq!(with(&["--pcr", &beyond, "--key", "policy.key", "--out", "third.json"]).unwrap_err(), "approval_pcrs");
}

/// The recipe of docs/signer.md, run as it stands there.
#[test]
fn a_shell_approves_what_the_command_approves() {
    const MANUAL: &str = include_str!("../../../docs/signer.md");
    let (_, recipe) = MANUAL.split_once("```sh\n").unwrap();
    let (recipe, _) = recipe.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let public =
        stele(at, &["key", "generate", "--out", "policy.key"]).unwrap()["public_key"].as_str().unwrap().to_owned();
    let output = Command::new("bash").args(["-euc", recipe]).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let approval = Approval::parse(&fs::read(at.join("approval.json")).unwrap()).unwrap();
    assert_eq!(approval.pcrs.keys().copied().collect::<Vec<_>>(), [4, 11]);
    approval.verify(&PolicyKey::from_hex(&public).unwrap()).unwrap();
}

#[test]
fn a_policy_with_one_value_of_each_pcr_is_approved_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    stele(at, &["key", "generate", "--out", "policy.key"]).unwrap();
    let rule = |values: &[&str]| {
        let allowed: Vec<Value> = values.iter().map(|value| serde_json::json!({ "value": value })).collect();
        serde_json::json!({ "bank": "sha256", "pcrs": [{ "pcr": 11, "allowed": allowed }] }).to_string()
    };
    let other = VALUE.replace("01", "02");
    fs::write(at.join("one.json"), rule(&[VALUE])).unwrap();
    fs::write(at.join("two.json"), rule(&[VALUE, &other])).unwrap();
    let approve = |policy: &str| {
        let words =
            ["key", "approve", "--release", "1.2", "--policy", policy, "--key", "policy.key", "--out", "out.json"];
        stele(at, &words)
    };
    approve("one.json").unwrap();
    assert_eq!(approve("two.json").unwrap_err(), "approval_pcrs");
}

#[test]
fn a_holder_gives_a_share_on_and_finds_a_damaged_one() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let custody = CustodyKey::generate().unwrap();
    let holder = |name: &str| {
        let file = format!("{name}.key");
        let made = stele(at, &["key", "generate", "--out", &file]).unwrap();
        ShareHolder { name: name.into(), public_key: made["public_key"].as_str().unwrap().into() }
    };
    let holders = [holder("anna"), holder("boris")];
    let shares = custody.split(2, &holders, None).unwrap();
    for share in &shares {
        let text = serde_json::to_string_pretty(share).unwrap();
        fs::write(at.join(format!("{}.json", share.holder())), text).unwrap();
    }
    let recovering = CustodyKey::generate().unwrap();
    let recipient = hex::encode(recovering.public_key());
    let give = |name: &str, out: &str| {
        let (file, key) = (format!("{name}.json"), format!("{name}.key"));
        stele(at, &["key", "share", &file, "--key", &key, "--for", &recipient, "--out", out])
    };
    let shown = stele(at, &["key", "share", "anna.json", "--key", "anna.key"]).unwrap();
    assert_eq!((shown["holder"].as_str(), shown["share"].as_u64()), (Some("anna"), Some(1)));
    let given = ["anna", "boris"].map(|name| {
        let out = format!("{name}.given");
        give(name, &out).unwrap();
        let share: stele_hsm::custody::SealedShare = serde_json::from_slice(&fs::read(at.join(out)).unwrap()).unwrap();
        share.open(&recovering).unwrap()
    });
    assert_eq!(*CustodyKey::join(&given).unwrap().secret(), *custody.secret());
    assert_eq!(give("anna", "anna.given").unwrap_err(), "already_exists");
    assert_eq!(stele(at, &["key", "share", "anna.json", "--key", "boris.key"]).unwrap_err(), "share_foreign");
    let damaged = fs::read_to_string(at.join("anna.json")).unwrap().replace("\"anna\"", "\"olga\"");
    fs::write(at.join("anna.json"), damaged).unwrap();
    assert_eq!(give("anna", "again.given").unwrap_err(), "share_damaged");
    fs::write(at.join("anna.json"), "{}").unwrap();
    assert_eq!(give("anna", "again.given").unwrap_err(), "share_malformed");
}
