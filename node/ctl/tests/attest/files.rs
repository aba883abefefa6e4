//! `stele attest verify`: files alone.

use stele_evidence::EvidencePackage;
use stele_evidence::package::PackageEncoding;

use crate::node::{LOG_SIZE, Node, codes, judged, ran, run, stele};

const NONCE: [u8; 32] = [0x11; 32];

#[test]
fn a_package_is_judged_in_every_encoding_and_as_a_folder() {
    let node = Node::boot();
    let (policy, nonce) = (node.policy(), hex::encode(NONCE));
    let name = node.identity().attestation_key_name.to_hex();
    let package = node.package(NONCE);
    let beliefs = ["--policy", &policy, "--nonce", &nonce, "--attestation-key-name", &name];
    let mut names = Vec::new();
    for (number, encoding) in PackageEncoding::ALL.into_iter().enumerate() {
        names.push(node.file(&format!("package.{number}"), &package.encode(encoding).unwrap()));
    }
    std::fs::create_dir(node.directory.path().join("folder")).unwrap();
    run(node.directory.path(), &["tar", "-xf", "package.1", "-C", "folder"]).unwrap();
    // What a recipe leaves behind, and what others keep there.
    node.file("folder/ak.pem", b"");
    names.push(node.path("folder"));
    for name in &names {
        let words = [&["verify", name.as_str()][..], &beliefs].concat();
        let (code, verdict) = judged(&words);
        assert_eq!((code, &verdict["passed"]), (0, &true.into()), "{verdict:#}");
        let trust: Vec<_> =
            verdict["keys"].as_array().unwrap().iter().map(|key| key["trust"].as_str().unwrap()).collect();
        assert_eq!(trust, ["unproven", "quoted", "certified"]);
        assert_eq!((&verdict["head"]["log_size"], &verdict["head"]["key"]), (&LOG_SIZE.into(), &"seal".into()));
        let (code, text) = ran(&stele(&words));
        assert_eq!(code, 0);
        for said in
            ["The evidence has passed", &format!("log size               {LOG_SIZE}"), "certified", "4, 7, 9, 11"]
        {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}

#[test]
fn what_speaks_against_a_package_is_told_with_its_code_and_exit_code() {
    let node = Node::boot();
    let (policy, nonce) = (node.policy(), hex::encode(NONCE));
    let name = node.identity().attestation_key_name.to_hex();
    let file = node.file("package.tar", &node.package(NONCE).to_tar().unwrap());
    let beliefs = ["--policy", policy.as_str(), "--nonce", &nonce, "--attestation-key-name", &name];
    let verify = |file: &str, more: &[&str]| judged(&[&["verify", file][..], &beliefs, more].concat());
    let (code, first) = verify(&file, &[]);
    assert_eq!(code, 0);
    let (code, verdict) = verify(&file, &["--keys-proven"]);
    assert_eq!((code, codes(&verdict)), (4, vec!["key_unproven"]));
    assert_eq!(verdict["reasons"][0]["key"], "custody");
    // An older quote than the verdict before, and a verdict that is none.
    let previous = node.file("verdict.json", first.to_string().as_bytes());
    let later = node.file("later.tar", &node.package(NONCE).to_tar().unwrap());
    let (code, second) = verify(&later, &["--previous", &previous]);
    assert_eq!((code, &second["facts"]["resets_since_previous"]), (0, &0.into()));
    let previous = node.file("second.json", second.to_string().as_bytes());
    assert_eq!(codes(&verify(&file, &["--previous", &previous]).1), ["clock_went_back"]);
    let failed = node.file("failed.json", br#"{"passed":false}"#);
    let words = [&["verify", file.as_str()][..], &beliefs, &["--previous", &failed]].concat();
    let (code, text) = ran(&stele(&words));
    assert!(code == 1 && text.starts_with("error[verdict_not_passed]"), "{text}");
    // Another nonce, another key, another log, and bytes that are no package.
    let other = "22".repeat(32);
    let words = ["verify", file.as_str(), "--policy", &policy, "--nonce", &other, "--attestation-key-name", &name];
    assert_eq!(codes(&judged(&words).1), ["qualifying_data_differs", "nonce_differs"]);
    let stranger = format!("000b{}", "33".repeat(32));
    let words = ["verify", file.as_str(), "--policy", &policy, "--nonce", &nonce, "--attestation-key-name", &stranger];
    let (_, verdict) = judged(&words);
    assert_eq!(codes(&verdict), ["attestation_key_other"; 3], "the platform, the quoted and the certified key");
    assert_eq!(verdict["keys"][2]["trust"], "refused");
    let mut changed = node.package(NONCE);
    let log = changed.event_log.as_mut().unwrap();
    let image = stele_evidence::HashAlgorithm::Sha256.digest(&[b"node.efi"]);
    let at = log.windows(32).position(|window| window == image.as_bytes()).unwrap();
    log[at] ^= 1;
    let tampered = node.file("tampered.tar", &changed.to_tar().unwrap());
    let (code, verdict) = verify(&tampered, &[]);
    assert_eq!((code, codes(&verdict)), (4, vec!["event_log_differs"]));
    assert!(verdict["reasons"][0]["difference"].as_str().unwrap().contains("node image"), "{verdict:#}");
    let cut = node.file("cut.tar", &node.package(NONCE).to_tar().unwrap()[..3000]);
    let (code, verdict) = verify(&cut, &[]);
    assert_eq!((code, codes(&verdict)), (4, vec!["package_truncated"]));
    let (code, text) = ran(&stele(&[&["verify", cut.as_str()][..], &beliefs].concat()));
    assert!(code == 4 && text.contains("package_truncated: the evidence package is cut short"), "{text}");
}

#[test]
fn what_is_missing_or_no_policy_is_no_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let package = write("package", "");
    let (nonce, name) = ("00".repeat(32), format!("000b{}", "00".repeat(32)));
    let verify = |policy: &str, nonce: &str, name: &str| {
        ran(&stele(&["verify", &package, "--policy", policy, "--nonce", nonce, "--attestation-key-name", name]))
    };
    for (text, code) in [
        ("{", "policy_malformed"),
        (r#"{"bank":"sha256","pcrs":[]}"#, "policy_pins_nothing"),
        (r#"{"bank":"sha1","pcrs":[{"pcr":4,"allowed":[]}]}"#, "policy_bank_broken"),
    ] {
        let (exit, said) = verify(&write("policy.json", text), &nonce, &name);
        assert!(exit == 1 && said.starts_with(&format!("error[{code}]")), "{said}");
    }
    let (exit, said) = verify("none", &nonce, &name);
    assert!(exit == 1 && said.starts_with("error[file_missing]"), "{said}");
    for (nonce, name) in [("00", name.as_str()), (&nonce, "000b"), (&nonce, "zz")] {
        assert_eq!(verify("none", nonce, name).0, 2);
    }
    assert_eq!(ran(&stele(&["verify", &package, "--policy", "none", "--nonce", &nonce])).0, 2, "enrolment or name");
    assert_eq!(EvidencePackage::decode(b"").unwrap_err().code(), "package_truncated");
}
