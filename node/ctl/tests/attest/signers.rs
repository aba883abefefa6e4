//! Bundles that name their signer: a checkpoint that a real TPM signed, judged by the command lines.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};
use stele_evidence::exchange::Enrolment;
use stele_evidence::{EndorsementAnchors, Public, verify_endorsement};
use stele_hsm::tpm::{AttestationIdentity, KeyQuoteRequest, TpmAttestor, TpmDevice, TpmSigner};
use stele_hsm::{CheckpointGuard, CheckpointRequest, GuardDurability, Signer as _};
use stele_types::cbor::{self, Blob};
use stele_types::signer::{CheckpointSigner, KeyAttestation, KeyProvider, TpmIdentity};
use stele_types::{Bundle, Hash};
use stele_verify::PublicKey;
use tempfile::TempDir;

use crate::fixture::Network;
use crate::node::{run, wait};
use crate::swtpm::Swtpm;

/// 2030: when the certificates that are made here are valid.
const TIME_MS: u64 = 1_893_456_000_000;

/// A machine whose TPM has its maker's certificate, as a verifier knows it: `root.pem`, `issuer.pem`, `enrolment.json`, and
/// the genesis file of a network.
struct Machine {
    /// Switched off when the machine is dropped.
    _tpm: Swtpm,
    directory: TempDir,
    device: TpmDevice,
    attestor: TpmAttestor,
    identity: AttestationIdentity,
    network: Network,
}

impl Machine {
    fn start() -> Self {
        let (tpm, authorities) = Swtpm::start_certified();
        let directory = tempfile::tempdir().unwrap();
        let mut ders = Vec::new();
        for (name, authority) in ["root", "issuer"].iter().zip(&authorities) {
            fs::write(directory.path().join(format!("{name}.pem")), authority).unwrap();
            let words = format!("openssl x509 -in {name}.pem -outform DER -out {name}.der");
            run(directory.path(), &words.split(' ').collect::<Vec<_>>()).unwrap();
            ders.push(fs::read(directory.path().join(format!("{name}.der"))).unwrap());
        }
        let device = TpmDevice::open(&tpm.tcti()).unwrap();
        let attestor = TpmAttestor::new(&device);
        let identity = wait(attestor.identity()).unwrap();
        let key = Public::parse_sized(&identity.endorsement_key).unwrap();
        let anchors = EndorsementAnchors { authorities: vec![ders[0].clone()], fingerprints: Vec::new() };
        let certificate = identity.endorsement_certificate.as_deref();
        let endorsement = verify_endorsement(&key, certificate, &[&ders[1]], &anchors, TIME_MS / 1000).unwrap();
        let attestation_key_name = Public::parse_sized(&identity.attestation_key).unwrap().name();
        let enrolment = Enrolment { attestation_key_name, endorsement, keys: Vec::new() };
        let network = Network::with_history_at("signers", TIME_MS);
        let machine = Self { _tpm: tpm, directory, device, attestor, identity, network };
        machine.file("enrolment.json", &serde_json::to_vec(&enrolment).unwrap());
        machine.file("genesis.cbor", &machine.network.genesis.to_bytes());
        machine
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).unwrap();
    }

    /// What the node says of its checkpoint key.
    fn says(&self, provider: KeyProvider, attestation: Option<KeyAttestation>) -> CheckpointSigner {
        let tpm = TpmIdentity {
            endorsement_key: Blob::new(self.identity.endorsement_key.clone()).unwrap(),
            endorsement_certificate: self.identity.endorsement_certificate.clone().map(|der| Blob::new(der).unwrap()),
            attestation_key: Blob::new(self.identity.attestation_key.clone()).unwrap(),
        };
        CheckpointSigner { provider, tpm: Some(tpm), attestation }
    }

    fn certification(&self, signer: &TpmSigner) -> KeyAttestation {
        let certification = wait(self.attestor.certify(signer)).unwrap();
        KeyAttestation {
            message: Blob::new(certification.message).unwrap(),
            signature: Blob::new(certification.signature).unwrap(),
            public_area: Some(Blob::new(certification.public).unwrap()),
            pcr_values: None,
        }
    }

    /// A bundle whose checkpoint a key of the TPM signed.
    fn signed(&self) -> Bundle {
        let signer = TpmSigner::generate(&self.device, &self.directory.path().join("seal.pem")).unwrap();
        let guard = self.directory.path().join("seal.checkpoints");
        CheckpointGuard::create(&guard, self.network.id.0).unwrap();
        let guard = CheckpointGuard::open(&guard, self.network.id.0, GuardDurability::Sync).unwrap();
        let signer = signer.with_checkpoint_guard(Arc::new(guard));
        let key = PublicKey::from_spki(&signer.public_key().spki_der).unwrap();
        let mut bundle = self.network.bundle(1);
        let receipt = bundle.receipt.as_mut().unwrap();
        receipt.checkpoint.key = key.id();
        let root: Hash = stele_verify::receipt::signed_checkpoint(receipt, &self.network.entry(1)).unwrap().log_root;
        let bytes = receipt.checkpoint.signing_bytes(&root);
        let request = CheckpointRequest { tree_size: receipt.checkpoint.log_size, root: root.0, sig_structure: &bytes };
        receipt.signature = wait(signer.sign_checkpoint(&request)).unwrap();
        bundle.checkpoint_key = Some(key.as_bytes().try_into().unwrap());
        bundle.checkpoint_signer = Some(self.says(KeyProvider::Tpm, Some(self.certification(&signer))));
        bundle
    }

    /// `stele-verify` and `stele receipt verify` on a bundle; both say the same. Exit code and what programs read.
    fn verify(&self, bundle: &Bundle, words: &str) -> (i32, Value) {
        self.file("bundle", &cbor::to_vec(bundle));
        let lean = self.verifier(&format!("bundle --genesis genesis.cbor --json {words}"));
        let whole = format!("-o json receipt verify bundle --genesis genesis.cbor {words}");
        let whole = ran(env!("CARGO_BIN_EXE_stele"), self.directory.path(), &whole);
        let read = |output: &Output| (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap());
        let (code, value): (i32, Value) = read(&lean);
        assert_eq!(read(&whole), (code, value.clone()), "{words}");
        (code, value)
    }

    fn verifier(&self, words: &str) -> Output {
        ran(env!("CARGO_BIN_EXE_stele-verify"), self.directory.path(), words)
    }

    /// Exit code, what is shown of the signer, and the codes of what speaks against it.
    fn shown(&self, bundle: &Bundle, words: &str) -> (i32, String, Vec<String>) {
        let (code, value) = self.verify(bundle, words);
        let codes = value["signer_codes"].as_array().unwrap();
        let codes = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        (code, value["signer"].as_str().unwrap().to_owned(), codes)
    }
}

fn ran(program: &str, folder: &Path, words: &str) -> Output {
    let mut command = Command::new(program);
    for variable in ["STELE_NETWORK_DIR", "STELE_AS", "STELE_NODE", "STELE_PIN"] {
        command.env_remove(variable);
    }
    command.args(words.split_whitespace()).current_dir(folder).output().unwrap()
}

fn not_shown(code: i32, reason: &str) -> (i32, String, Vec<String>) {
    (code, "not_shown".to_owned(), vec![reason.to_owned()])
}

const CHAIN: &str = "--anchor root.pem --intermediate issuer.pem";

#[test]
fn a_bundle_names_its_signer_and_is_believed_up_to_the_pinned_maker() {
    let machine = Machine::start();
    let bundle = machine.signed();
    let certified = (0, "certified".to_owned(), Vec::new());
    let (code, value) = machine.verify(&bundle, &format!("--enrolment enrolment.json {CHAIN}"));
    assert_eq!(
        (code, &value["verdict"], &value["signer"]),
        (0, &"registered".into(), &"certified".into()),
        "{value:#}"
    );
    assert!(value["endorsed_by"].as_str().unwrap().contains("swtpm-localca-rootca"), "{value:#}");
    assert_eq!(value["signer_says"], "tpm");
    let enrolled: Value = serde_json::from_slice(&fs::read(machine.path("enrolment.json")).unwrap()).unwrap();
    let name = enrolled["attestation_key_name"].as_str().unwrap();
    assert_eq!(value["attestation_key"], name);
    assert_eq!(machine.shown(&bundle, "--enrolment enrolment.json"), certified);
    assert_eq!(machine.shown(&bundle, &format!("--attestation-key-name {name}")), certified);
    let pin = enrolled["endorsement"]["fingerprint"].as_str().unwrap();
    assert_eq!(machine.shown(&bundle, &format!("--enrolment enrolment.json --fingerprint {pin}")), certified);
    // People read the same.
    let said = machine.verifier("bundle --genesis genesis.cbor --enrolment enrolment.json");
    assert!(String::from_utf8(said.stdout).unwrap().contains("never leaves it"));
    // Nothing asked: the receipt is as good as any, and nothing is said to be shown.
    assert_eq!(machine.shown(&bundle, ""), not_shown(0, "attestation_key_not_enrolled"));
    // An endorsement key signs nothing: a maker's certificate alone says nothing of the key beside it.
    assert_eq!(machine.shown(&bundle, CHAIN), not_shown(6, "attestation_key_not_enrolled"));
    let wrong = format!("--enrolment enrolment.json --fingerprint {}", "00".repeat(32));
    assert_eq!(machine.shown(&bundle, &wrong), not_shown(6, "certificate_no_path"));
    let unsaid = Bundle { checkpoint_signer: None, ..bundle.clone() };
    assert_eq!(machine.shown(&unsaid, "--enrolment enrolment.json"), not_shown(6, "key_unproven"));
    assert_eq!(machine.shown(&unsaid, ""), not_shown(0, "key_unproven"));
    // What is no registration by a bundle has no signer to ask for.
    let (code, value) = machine.verify(&machine.network.bundle(3), "--enrolment enrolment.json");
    assert_eq!((code, &value["signer"]), (4, &Value::Null), "{value:#}");
    machine.file("receipt", &cbor::to_vec(bundle.receipt.as_ref().unwrap()));
    let refused = machine.verifier("receipt --enrolment enrolment.json");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn evidence_of_another_key_machine_or_maker_shows_nothing() {
    let (machine, stranger) = (Machine::start(), Machine::start());
    let bundle = machine.signed();
    let enrolled = |signer: CheckpointSigner| {
        let bundle = Bundle { checkpoint_signer: Some(signer), ..bundle.clone() };
        machine.shown(&bundle, "--enrolment enrolment.json")
    };
    let said = bundle.checkpoint_signer.clone().unwrap();
    let proof = said.attestation.clone().unwrap();
    assert_eq!(enrolled(said.clone()).0, 0);
    // Another maker, and a verifier that enrolled another machine.
    fs::copy(stranger.path("root.pem"), machine.path("foreign.pem")).unwrap();
    fs::copy(stranger.path("issuer.pem"), machine.path("foreign-issuer.pem")).unwrap();
    let foreign = "--enrolment enrolment.json --anchor foreign.pem --intermediate foreign-issuer.pem";
    assert_eq!(machine.shown(&bundle, foreign), not_shown(6, "certificate_no_path"));
    fs::copy(stranger.path("enrolment.json"), machine.path("other.json")).unwrap();
    let (code, word, codes) = machine.shown(&bundle, "--enrolment other.json");
    assert_eq!((code, word.as_str()), (6, "not_shown"));
    assert_eq!(codes, ["endorsement_key_other", "attestation_key_other"]);
    // The certified TPM of another machine beside one's own attestation key.
    let theirs = stranger.says(KeyProvider::Tpm, None).tpm.unwrap();
    let ours = said.tpm.clone().unwrap();
    let borrowed = TpmIdentity { attestation_key: ours.attestation_key, ..theirs };
    let borrowed = CheckpointSigner { tpm: Some(borrowed), ..said.clone() };
    assert_eq!(enrolled(borrowed), not_shown(6, "endorsement_key_other"));
    // Another key of the same TPM.
    let other = TpmSigner::generate(&machine.device, Path::new(&machine.path("other.pem"))).unwrap();
    let other = machine.certification(&other);
    assert_eq!(enrolled(machine.says(KeyProvider::Tpm, Some(other))), not_shown(6, "key_other"));
    // What was changed, and what is both proofs or none.
    let mut message = proof.message.to_vec();
    *message.last_mut().unwrap() ^= 1;
    let changed = KeyAttestation { message: Blob::new(message).unwrap(), ..proof.clone() };
    assert_eq!(enrolled(machine.says(KeyProvider::Tpm, Some(changed))), not_shown(6, "signature_invalid"));
    for public_area in [None, proof.public_area.clone()] {
        let pcr_values = public_area.as_ref().map(|_| Blob::new(vec![0; 4]).unwrap());
        let neither = KeyAttestation { public_area, pcr_values, ..proof.clone() };
        assert_eq!(enrolled(machine.says(KeyProvider::Tpm, Some(neither))), not_shown(6, "key_unproven"));
    }
    let in_software = CheckpointSigner { provider: KeyProvider::Software, tpm: None, attestation: None };
    assert_eq!(enrolled(in_software), not_shown(6, "key_unproven"));
}

#[test]
fn a_key_in_a_token_is_worth_what_the_machine_was_that_vouched_for_it() {
    let machine = Machine::start();
    let mut bundle = machine.network.bundle(1);
    let key = stele_evidence::PublicKey::p256_from_sec1(&bundle.checkpoint_key.unwrap()).unwrap();
    let quote = wait(machine.attestor.quote_key(&KeyQuoteRequest { spki: &key.spki_der(), pcrs: &[4, 7] })).unwrap();
    let vouched = KeyAttestation {
        message: Blob::new(quote.message).unwrap(),
        signature: Blob::new(quote.signature).unwrap(),
        public_area: None,
        pcr_values: Some(Blob::new(quote.pcrs).unwrap()),
    };
    bundle.checkpoint_signer = Some(machine.says(KeyProvider::Pkcs11, Some(vouched)));
    for (name, digits) in [("policy.json", "00"), ("other.json", "11")] {
        let value = format!("sha256:{}", digits.repeat(32));
        let policy = json!({
            "bank": "sha256", "pcrs": [{ "pcr": 4, "allowed": [{ "value": value }] }],
            "event_log_required": false, "extended_after_boot": [], "firmware_versions": [],
        });
        machine.file(name, policy.to_string().as_bytes());
    }
    let shown = |words: &str| machine.shown(&bundle, &format!("--enrolment enrolment.json {CHAIN} {words}"));
    assert_eq!(shown("--policy policy.json"), (0, "quoted".to_owned(), Vec::new()));
    assert_eq!(shown(""), not_shown(6, "key_state_not_judged"));
    assert_eq!(shown("--policy other.json"), not_shown(6, "pcr_differs"));
}
