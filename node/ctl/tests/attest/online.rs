//! `stele attest enrol` and `stele attest node` over HTTP.

use std::sync::Arc;

use stele_evidence::{EvidencePackage, Public};
use stele_hsm::tpm::{TpmAttestor, TpmDevice};

use crate::node::{Node, Server, answer, codes, judged, ran, run, serve, stele, wait};
use crate::swtpm::Swtpm;

/// The fingerprint of a node's endorsement key, as its console shows it.
fn fingerprint(node: &Node) -> String {
    Public::parse_sized(&node.identity().endorsement_key).unwrap().key.fingerprint().to_string()
}

fn served(node: &Arc<Node>) -> Server {
    let node = Arc::clone(node);
    serve(move |request, accept, body| answer(&node, &node, request, accept, body))
}

#[test]
fn a_node_is_enrolled_by_fingerprint_and_then_judged() {
    let node = Arc::new(Node::boot());
    let server = served(&node);
    let url = &server.url;
    let (policy, pinned) = (node.policy(), fingerprint(&node));
    let enrolment = node.path("enrolment.json");
    let enrol = |pin: &str| ran(&stele(&["enrol", "--node", url, "--fingerprint", pin, "--out", &enrolment]));
    let (code, said) = enrol(&"00".repeat(32));
    assert!(code == 4 && said.contains("error[endorsement_key_not_pinned]") && said.contains(&pinned), "{said}");
    assert!(!std::path::Path::new(&enrolment).exists());
    let (code, said) = enrol(&pinned);
    assert!(code == 0 && said.contains(&node.identity().attestation_key_name.to_hex()), "{said}");
    let (code, said) = enrol(&pinned);
    assert!(code == 1 && said.starts_with("error[file_exists]"), "{said}");
    let (saved, asked) =
        (node.path("saved.tar"), ["node", "--node", url, "--policy", &policy, "--enrolment", &enrolment]);
    let (code, verdict) = judged(&[&asked[..], &["--save", &saved]].concat());
    assert_eq!((code, &verdict["passed"]), (0, &true.into()), "{verdict:#}");
    assert_eq!((&verdict["endorsement"]["by"], &verdict["keys"][0]["enrolled"]), (&"fingerprint".into(), &true.into()));
    // The nonce was fresh, and what was saved is judged again offline.
    let package = EvidencePackage::decode(&std::fs::read(&saved).unwrap()).unwrap();
    let nonce = hex::encode(package.nonce);
    let again = ["verify", &saved, "--policy", &policy, "--enrolment", &enrolment, "--nonce", &nonce];
    assert_eq!(judged(&again).0, 0);
    let second = node.path("second.tar");
    assert_eq!(judged(&[&asked[..], &["--save", &second]].concat()).0, 0);
    assert_ne!(EvidencePackage::decode(&std::fs::read(&second).unwrap()).unwrap().nonce, package.nonce);
    let (code, said) = ran(&stele(&["node", "--policy", &policy, "--enrolment", &enrolment]));
    assert!(code == 1 && said.starts_with("error[node_missing]"), "{said}");
}

/// An authority of our own making and the certificate that it gives the endorsement key, in the TPM's NV index for it.
fn certified() -> (Node, String) {
    let tpm = Swtpm::start();
    let identity = {
        let device = TpmDevice::open(&tpm.tcti()).unwrap();
        wait(TpmAttestor::new(&device).identity()).unwrap()
    };
    let folder = tpm.path(".");
    let key = Public::parse_sized(&identity.endorsement_key).unwrap();
    tpm.write("ek.der", &key.key.spki_der());
    tpm.write("ca.ext", b"basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign");
    tpm.write("ek.ext", b"basicConstraints=critical,CA:FALSE\nextendedKeyUsage=2.23.133.8.1");
    let openssl = |words: &str| {
        run(&folder, &[&["openssl"][..], &words.split(' ').collect::<Vec<_>>()].concat()).unwrap();
    };
    openssl("pkey -pubin -inform DER -in ek.der -pubout -out ek.pem");
    openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ca.key");
    openssl("req -new -key ca.key -subj /CN=maker -out ca.csr");
    openssl("x509 -req -in ca.csr -signkey ca.key -sha384 -days 9999 -extfile ca.ext -out ca.pem");
    openssl("req -new -key ca.key -subj /CN=tpm -out ek.csr");
    openssl(
        "x509 -req -in ek.csr -force_pubkey ek.pem -CA ca.pem -CAkey ca.key -CAcreateserial -sha384 -days 9999 \
         -extfile ek.ext -outform DER -out ek.crt",
    );
    let size = tpm.read("ek.crt").len().to_string();
    let attributes = "ownerwrite|ownerread|authread|no_da";
    tpm.tool(&["tpm2_nvdefine", "0x1c0000a", "-C", "o", "-s", &size, "-a", attributes]).unwrap();
    tpm.tool(&["tpm2_nvwrite", "0x1c0000a", "-C", "o", "-i", "ek.crt"]).unwrap();
    let authority = tpm.read("ca.pem");
    let node = Node::boot_with(tpm);
    // Text before and between certificates, as authorities publish them.
    let anchor = node.file("anchors.pem", &[b"# maker\n", &authority[..], b"\n# again\n", &authority].concat());
    (node, anchor)
}

#[test]
fn a_node_is_enrolled_by_its_makers_certificate() {
    let (node, anchor) = certified();
    let node = Arc::new(node);
    let server = served(&node);
    let url = &server.url;
    let enrolment = node.path("enrolment.json");
    let (code, said) = ran(&stele(&["enrol", "--node", url, "--anchor", &anchor, "--out", &enrolment]));
    assert!(code == 0 && said.contains("CN=maker"), "{said}");
    let (code, verdict) = judged(&["node", "--node", url, "--policy", &node.policy(), "--enrolment", &enrolment]);
    assert_eq!((code, &verdict["endorsement"]["by"]), (0, &"authority".into()), "{verdict:#}");
    let (other, _) = certified();
    let foreign = other.path("anchors.pem");
    let (code, said) =
        ran(&stele(&["enrol", "--node", url, "--anchor", &foreign, "--out", &node.path("foreign.json")]));
    assert!(code == 4 && said.contains("error[certificate_no_path]"), "{said}");
    let (code, said) = ran(&stele(&["enrol", "--node", url, "--anchor", &node.policy(), "--out", &node.path("none")]));
    assert!(code == 4 && said.contains("error[certificate_malformed]"), "{said}");
}

/// A node that shows the endorsement key of one machine and the attestation key of another.
#[test]
fn keys_of_two_machines_are_no_node() {
    let (honest, stranger) = (Arc::new(Node::boot()), Arc::new(Node::boot()));
    let pinned = fingerprint(&honest);
    let both = [Arc::clone(&honest), Arc::clone(&stranger)];
    let mixed = serve(move |request, accept, body| {
        if request != "GET /v1/attest/identity" {
            return answer(&both[0], &both[1], request, accept, body);
        }
        let mut identity = both[0].identity();
        identity.attestation_key = both[1].identity().attestation_key;
        (200, "application/json", serde_json::to_vec(&identity).unwrap())
    });
    let out = honest.path("mixed.json");
    let (code, said) = ran(&stele(&["enrol", "--node", &mixed.url, "--fingerprint", &pinned, "--out", &out]));
    assert!(code == 4 && said.contains("error[credential_not_opened]"), "{said}");
    assert!(!std::path::Path::new(&out).exists());
    // An enrolled node whose quotes come from another machine.
    let enrolment = honest.path("enrolment.json");
    let server = served(&honest);
    let (code, _) = ran(&stele(&["enrol", "--node", &server.url, "--fingerprint", &pinned, "--out", &enrolment]));
    assert_eq!(code, 0);
    let (code, verdict) =
        judged(&["node", "--node", &mixed.url, "--policy", &honest.policy(), "--enrolment", &enrolment]);
    assert_eq!((code, codes(&verdict)[0]), (4, "attestation_key_other"));
}

#[test]
fn a_replayed_or_broken_answer_does_not_pass() {
    let node = Arc::new(Node::boot());
    let name = node.identity().attestation_key_name.to_hex();
    let old = node.package([9; 32]).to_tar().unwrap();
    let replayed = serve(move |_, _, _| (200, "application/x-tar", old.clone()));
    let broken = serve(|_, _, _| (200, "application/x-tar", vec![0x55; 5000]));
    let policy = node.policy();
    let ask = |url: &str| judged(&["node", "--node", url, "--policy", &policy, "--attestation-key-name", &name]);
    let (code, verdict) = ask(&replayed.url);
    assert_eq!((code, codes(&verdict)), (4, vec!["qualifying_data_differs", "nonce_differs"]));
    let (code, verdict) = ask(&broken.url);
    assert_eq!((code, codes(&verdict)), (4, vec!["package_malformed"]));
    let refusing = serve(|_, _, _| (404, "application/problem+json", br#"{"code":"attestation_off"}"#.to_vec()));
    let words = ["node", "--node", &refusing.url, "--policy", &policy, "--attestation-key-name", &name];
    let (code, said) = ran(&stele(&words));
    assert!(code == 1 && said.starts_with("error[attestation_off]"), "{said}");
}
