//! The shell recipe, with the tools of others and nothing of ours.

use stele_evidence::EvidencePackage;
use stele_evidence::package::KeyProof;

use crate::node::{Node, run, stele};

const NONCE: [u8; 32] = [0x11; 32];

type Change<'a> = &'a dyn Fn(&mut EvidencePackage);

#[test]
fn the_recipe_passes_a_package_and_finds_every_change() {
    let node = Node::boot();
    let printed = stele(&["recipe"]).stdout;
    node.file("check.sh", &printed);
    let (nonce, predicted) = (hex::encode(NONCE), node.predicted());
    let name = node.identity().attestation_key_name.to_hex();
    let folder = node.directory.path();
    let check = |package: &EvidencePackage| {
        node.file("package.tar", &package.to_tar().unwrap());
        run(folder, &["bash", "check.sh", "package.tar", &nonce, &name, &predicted])
    };
    let good = node.package(NONCE);
    let said = check(&good).unwrap();
    for line in [
        "boot event log replayed",
        "PCRs 4,7,9,11 are as predicted",
        "keys/validator is in the same TPM",
        "the machine vouches for keys/seal",
        "nothing shows where keys/custody is",
        "PASS",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let image = stele_evidence::HashAlgorithm::Sha256.digest(&[b"node.efi"]);
    let changes: [(&str, Change<'_>); 13] = [
        ("nonce", &|package| package.nonce[5] ^= 1),
        ("checkpoint", &|package| package.sig_structure.push(0)),
        ("quote", &|package| package.quote_message[60] ^= 1),
        ("signature", &|package| *package.quote_signature.last_mut().unwrap() ^= 1),
        ("value", &|package| package.pcrs[132 + 4 + 4 + 2 + 4 * 66] ^= 1),
        ("attestation key", &|package| *package.attestation_key.last_mut().unwrap() ^= 1),
        ("log", &|package| {
            let log = package.event_log.as_mut().unwrap();
            let at = log.windows(32).position(|window| window == image.as_bytes()).unwrap();
            log[at] ^= 1;
        }),
        ("quoted key", &|package| package.keys[1].spki[40] ^= 1),
        ("certified key", &|package| package.keys[2].spki[40] ^= 1),
        ("certified area", &|package| change_certification(package, |_, _, public| public[7] ^= 2)),
        ("certified key and area", &|package| {
            package.keys[2].spki[40] ^= 1;
            let byte = package.keys[2].spki[40];
            change_certification(package, |_, _, public| {
                let at = public.len() - 66 + 40 - 27;
                public[at] = byte;
            });
        }),
        ("certification", &|package| change_certification(package, |message, _, _| *message.last_mut().unwrap() ^= 1)),
        ("its signature", &|package| {
            change_certification(package, |_, signature, _| *signature.last_mut().unwrap() ^= 1);
        }),
    ];
    for (what, change) in changes {
        let mut changed = good.clone();
        change(&mut changed);
        check(&changed).expect_err(what);
    }
    // Another release, another node, and a package that somebody else unpacked.
    let other = node.file("other", format!("11 {}\n", "00".repeat(32)).as_bytes());
    check(&good).unwrap();
    run(folder, &["bash", "check.sh", "package.tar", &nonce, &name, &other]).unwrap_err();
    let stranger = format!("000b{}", "00".repeat(32));
    run(folder, &["bash", "check.sh", "package.tar", &nonce, &stranger, &predicted]).unwrap_err();
    std::fs::create_dir(folder.join("files")).unwrap();
    run(folder, &["tar", "-xf", "package.tar", "-C", "files"]).unwrap();
    let said = run(folder, &["bash", "check.sh", "files", &nonce, &name]).unwrap();
    assert!(said.contains("PCRs were not compared") && said.contains("PASS"), "{said}");
    assert!(!folder.join("files/ak.pem").exists(), "nothing is left in somebody's folder");
    run(folder, &["bash", "check.sh"]).unwrap_err();
}

/// Changes message, signature or public area of the certification.
fn change_certification(package: &mut EvidencePackage, change: impl Fn(&mut Vec<u8>, &mut Vec<u8>, &mut Vec<u8>)) {
    let Some(KeyProof::Certification { message, signature, public }) = &mut package.keys[2].proof else {
        panic!("the validator's key is certified")
    };
    change(message, signature, public);
}
