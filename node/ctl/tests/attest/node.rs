//! What a node answers, from a real TPM, over plain HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use stele_evidence::exchange::{Activated, Activation, Challenge, Identity};
use stele_evidence::package::{KeyEvidence, KeyProvider, PackageEncoding};
use stele_evidence::{EvidencePackage, Policy, Public};
use stele_hsm::tpm::{KeyQuoteRequest, QuoteRequest, TpmAttestor, TpmDevice, TpmSigner};
use stele_hsm::{CheckpointRequest, Signer as _, SoftwareSigner};
use stele_types::receipt::Checkpoint;
use stele_types::{Hash, Height, NetworkId, Suite};
use tempfile::TempDir;

use crate::boot;
use crate::swtpm::Swtpm;

/// PCRs that are quoted.
const PCRS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12];
/// PCRs that the release predicts.
pub(crate) const PREDICTED: [u8; 4] = [4, 7, 9, 11];
/// Leaves of the log.
pub(crate) const LOG_SIZE: u64 = 1000;

/// A booted machine with a validator key in its TPM, a checkpoint key that it vouches for, and a key in software.
pub(crate) struct Node {
    /// Switched off when the node is dropped.
    _tpm: Swtpm,
    pub(crate) directory: TempDir,
    attestor: TpmAttestor,
    keys: Vec<KeyEvidence>,
    log: Vec<u8>,
    policy: Policy,
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

impl Node {
    pub(crate) fn boot() -> Self {
        Self::boot_with(Swtpm::start())
    }

    pub(crate) fn boot_with(tpm: Swtpm) -> Self {
        let events = boot::boot();
        boot::extend(&tpm, &events);
        let device = TpmDevice::open(&tpm.tcti()).unwrap();
        let attestor = TpmAttestor::new(&device);
        let directory = tempfile::tempdir().unwrap();
        let validator = TpmSigner::generate(&device, &directory.path().join("validator.pem")).unwrap();
        let certified = wait(attestor.certify(&validator)).unwrap().into();
        let seal = SoftwareSigner::ephemeral().unwrap().public_key().spki_der.clone();
        let quoted = wait(attestor.quote_key(&KeyQuoteRequest { spki: &seal, pcrs: &PREDICTED })).unwrap().into();
        let custody = SoftwareSigner::ephemeral().unwrap().public_key().spki_der.clone();
        let key = |name: &str, provider, spki, proof| KeyEvidence { name: name.into(), provider, spki, proof };
        let keys = vec![
            key("custody", KeyProvider::Software, custody, None),
            key("seal", KeyProvider::Pkcs11, seal, Some(quoted)),
            key("validator", KeyProvider::Tpm, validator.public_key().spki_der.clone(), Some(certified)),
        ];
        let (log, policy) = (boot::log(&events), boot::policy(&events, &PREDICTED));
        Self { _tpm: tpm, directory, attestor, keys, log, policy }
    }

    /// A file in the node's directory.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.directory.path().join(name), bytes).unwrap();
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// The policy of its release in a file.
    pub(crate) fn policy(&self) -> String {
        self.file("policy.json", &serde_json::to_vec(&self.policy).unwrap())
    }

    /// The values of its release, one a line.
    pub(crate) fn predicted(&self) -> String {
        let line = |rule: &stele_evidence::policy::PcrRule| {
            let value = rule.allowed[0].value.to_string();
            format!("{} {}\n", rule.pcr, value.split(':').nth(1).unwrap())
        };
        let lines: String = self.policy.pcrs.iter().map(line).collect();
        self.file("predicted", lines.as_bytes())
    }

    pub(crate) fn identity(&self) -> Identity {
        let identity = wait(self.attestor.identity()).unwrap();
        let attestation_key_name = Public::parse_sized(&identity.attestation_key).unwrap().name();
        Identity {
            endorsement_key: identity.endorsement_key,
            endorsement_certificate: identity.endorsement_certificate,
            attestation_key: identity.attestation_key,
            attestation_key_name,
            keys: self.keys.clone(),
        }
    }

    pub(crate) fn package(&self, nonce: [u8; 32]) -> EvidencePackage {
        let root = Hash([7; 32]);
        let checkpoint = Checkpoint {
            suite: Suite::Es256,
            key: stele_verify::PublicKey::from_spki(&self.keys[1].spki).unwrap().id(),
            network: NetworkId([2; 32]),
            height: Height(40),
            log_size: LOG_SIZE,
            state_root: Hash([3; 32]),
            time_ms: 1_795_595_042_748,
        };
        let sig_structure = checkpoint.signing_bytes(&root);
        let request = CheckpointRequest { tree_size: LOG_SIZE, root: root.0, sig_structure: &sig_structure };
        let request = QuoteRequest { nonce, checkpoint: request, pcrs: &PCRS };
        let quote = wait(self.attestor.quote(&request)).unwrap();
        EvidencePackage {
            nonce,
            sig_structure: sig_structure.clone(),
            quote_message: quote.message,
            quote_signature: quote.signature,
            pcrs: quote.pcrs,
            attestation_key: self.identity().attestation_key,
            event_log: Some(self.log.clone()),
            ima_log: None,
            manifest: None,
            keys: self.keys.clone(),
        }
    }

    pub(crate) fn activate(&self, activation: Activation) -> Result<Activated, String> {
        let secret = wait(self.attestor.activate(activation.into()));
        secret.map(|secret| Activated { secret: secret.to_vec() }).map_err(|_| "field_invalid".to_owned())
    }
}

/// What a server answers to method and path with a body: status, media type and body.
pub(crate) type Answer = (u16, &'static str, Vec<u8>);

/// The routes of a node as they are documented, answered by `identity` and `activate` of one and quotes of another, perhaps
/// the same.
pub(crate) fn answer(node: &Node, quoting: &Node, request: &str, accept: &str, body: &[u8]) -> Answer {
    let json = |value: Vec<u8>| (200, "application/json", value);
    match request {
        "GET /v1/attest/identity" => json(serde_json::to_vec(&node.identity()).unwrap()),
        "POST /v1/attest/activate" => match node.activate(serde_json::from_slice(body).unwrap()) {
            Ok(activated) => json(serde_json::to_vec(&activated).unwrap()),
            Err(code) => (422, "application/problem+json", format!(r#"{{"code":"{code}"}}"#).into_bytes()),
        },
        "POST /v1/attest/quote" => {
            let challenge: Challenge = serde_json::from_slice(body).unwrap();
            let encoding = PackageEncoding::ALL.into_iter().find(|encoding| encoding.media_type() == accept).unwrap();
            (200, encoding.media_type(), quoting.package(challenge.nonce).encode(encoding).unwrap())
        }
        "GET /v1/attest/log/boot" => (200, "application/octet-stream", node.log.clone()),
        _ => (404, "application/problem+json", br#"{"code":"not_found"}"#.to_vec()),
    }
}

/// A server on loopback; it ends, and lets go of what it answers from, when it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Serves one connection after the other.
pub(crate) fn serve(answer: impl Fn(&str, &str, &[u8]) -> Answer + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let thread = thread::spawn(move || {
        for stream in listener.incoming() {
            if end.load(Ordering::SeqCst) {
                return;
            }
            exchange(stream.unwrap(), &answer);
        }
    });
    Server { url: format!("http://{address}"), address, ended, thread: Some(thread) }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// One request and its answer.
fn exchange(mut stream: TcpStream, answer: &dyn Fn(&str, &str, &[u8]) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut request, mut accept, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "accept" => accept = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = request.trim_end().trim_end_matches(" HTTP/1.1");
    let (status, media_type, content) = answer(request, &accept, &body);
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        content.len()
    );
    // A client that has seen enough is no failure of the server.
    let _ = stream.write_all(&[head.as_bytes(), &content].concat());
}

/// Runs the command line.
pub(crate) fn stele(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stele"));
    for variable in ["STELE_NETWORK_DIR", "STELE_AS", "STELE_NODE", "STELE_PIN"] {
        command.env_remove(variable);
    }
    command.arg("attest").args(words).output().unwrap()
}

/// Exit code and standard output; standard error too if it failed.
pub(crate) fn ran(output: &Output) -> (i32, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// The verdict as programs read it, and the exit code.
pub(crate) fn judged(words: &[&str]) -> (i32, serde_json::Value) {
    let output = stele(&[words, &["-o", "json"]].concat());
    let value = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), value.unwrap_or_else(|_| panic!("{}", ran(&output).1)))
}

/// The codes of a verdict's reasons.
pub(crate) fn codes(verdict: &serde_json::Value) -> Vec<&str> {
    verdict["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

/// Runs a program of the system in a folder.
pub(crate) fn run(folder: &Path, words: &[&str]) -> Result<String, String> {
    crate::swtpm::run(Command::new(words[0]).args(&words[1..]).current_dir(folder), words[0], words[0])
}
