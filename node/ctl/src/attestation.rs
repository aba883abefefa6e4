//! What `stele attest` reads and shows: evidence packages, policies, enrolments and verdicts. Files only: no network, no
//! clock.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use p256::pkcs8::Document;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stele_evidence::exchange::Enrolment;
use stele_evidence::package::{
    KeyFact, PACKAGE_LENGTH_MAX, PackageExpectation, PackageVerdict, appraise_package, part_length_max,
};
use stele_evidence::{
    ClockInfo, Digest, Endorsement, EvidencePackage, HashAlgorithm, NONCE_LENGTH, Name, PackageError, Policy,
};
use stele_types::Hash;
use stele_types::cbor::Decoder;
use stele_types::receipt::Checkpoint;
use stele_verify::PublicKey;

use crate::failure::Failure;
use crate::output::{Output, Record, line};

/// Exit code when the evidence does not pass.
pub const EXIT_NOT_PASSED: u8 = 4;

/// Checks a package with `openssl` and tpm2-tools alone.
pub const RECIPE: &str = include_str!("../../../docs/attestation/check.sh");

/// Bytes of a policy, enrolment or verdict: a policy may name every file of an image.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// What the verifier asked and believes, with what its files say.
#[derive(Debug)]
pub struct Asked {
    /// The nonce.
    pub nonce: [u8; NONCE_LENGTH],
    /// The node as it was enrolled, or the name of its attestation key alone.
    pub enrolled: Enrolled,
    /// What the platform must be.
    pub policy: Policy,
    /// The clock of the previous verdict.
    pub previous: Option<ClockInfo>,
    /// Whether a key without a proof is refused.
    pub keys_proven: bool,
}

/// How a verifier knows a node.
#[derive(Debug)]
pub enum Enrolled {
    /// By what `stele attest enrol` wrote.
    Whole(Enrolment),
    /// By a name that came another way.
    Name(Name),
}

impl Asked {
    /// Judges a package.
    #[must_use]
    pub fn judge(&self, package: &EvidencePackage) -> PackageVerdict {
        let (name, keys, endorsement) = match &self.enrolled {
            Enrolled::Whole(enrolment) => {
                (&enrolment.attestation_key_name, Some(enrolment.keys.as_slice()), Some(&enrolment.endorsement))
            }
            Enrolled::Name(name) => (name, None, None),
        };
        let expectation = PackageExpectation {
            nonce: &self.nonce,
            attestation_key_name: name,
            policy: &self.policy,
            previous: self.previous.as_ref(),
            keys,
            keys_proven: self.keys_proven,
            endorsement,
        };
        appraise_package(package, &expectation)
    }
}

/// Reads a package: a file in any encoding, or a folder with the files of the tar, beside which others may lie.
///
/// # Errors
/// When it cannot be read, or [`PackageError`].
pub fn read_package(path: &Path) -> Result<EvidencePackage> {
    if !path.is_dir() {
        // The longest is JSON, a third longer than the others.
        let bytes = read_bounded(path, (PACKAGE_LENGTH_MAX / 3 * 4) as u64)?;
        return EvidencePackage::decode(&bytes).with_context(|| path.display().to_string());
    }
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for folder in ["", "keys/"] {
        let directory = path.join(folder);
        if !directory.is_dir() {
            continue;
        }
        let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let file: PathBuf = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{folder}{name}");
            if let Some(length_max) = part_length_max(&name).filter(|_| file.is_file()) {
                files.push((name, read_bounded(&file, length_max as u64)?));
            }
        }
    }
    let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    EvidencePackage::from_files(files).with_context(|| path.display().to_string())
}

/// Reads a policy and checks that it judges.
///
/// # Errors
/// When it cannot be read, is no policy, or judges nothing.
pub fn read_policy(path: &Path) -> Result<Policy> {
    let policy: Policy = read_document(path, "policy_malformed")?;
    policy.check().with_context(|| path.display().to_string())?;
    Ok(policy)
}

/// Reads what `stele attest enrol` wrote.
///
/// # Errors
/// When it cannot be read or is none.
pub fn read_enrolment(path: &Path) -> Result<Enrolment> {
    read_document(path, "enrolment_malformed")
}

/// The clock in a verdict that `stele attest` wrote as JSON.
///
/// # Errors
/// When it cannot be read or has none.
pub fn read_previous(path: &Path) -> Result<ClockInfo> {
    let verdict: Value = read_document(path, "verdict_malformed")?;
    // The clock of evidence that was refused is hearsay; it could only be too high or too low.
    if verdict["passed"] != Value::Bool(true) {
        bail!(Failure::new("verdict_not_passed", format!("{} is no verdict that passed", path.display())));
    }
    serde_json::from_value(verdict["facts"]["clock"].clone())
        .map_err(|_| Failure::new("verdict_malformed", format!("{} names no clock", path.display())).into())
}

fn read_document<T: DeserializeOwned>(path: &Path, code: &'static str) -> Result<T> {
    let bytes = read_bounded(path, DOCUMENT_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let what = format!("{}: {error}", path.display());
        Failure::new(code, what).hint("docs/attestation.md shows the form of each file").into()
    })
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.len() > bytes_max {
        bail!(Failure::new("file_too_large", format!("{} has more than {bytes_max} bytes", path.display())));
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// All certificates of a file in DER; a PEM file may have several, and text between them.
///
/// # Errors
/// When it cannot be read, or is a PEM file that is cut short.
pub fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| text.contains(BEGIN)) else {
        return Ok(vec![bytes]);
    };
    let malformed = || Failure::new("certificate_malformed", format!("{} is no PEM file", path.display()));
    let mut certificates = Vec::new();
    for rest in text.split(BEGIN).skip(1) {
        let (body, _) = rest.split_once(END).ok_or_else(malformed)?;
        let pem = format!("{BEGIN}\n{}\n{END}\n", body.trim().replace('\r', ""));
        let (_, document) = Document::from_pem(&pem).map_err(|_| malformed())?;
        certificates.push(document.as_bytes().to_vec());
    }
    Ok(certificates)
}

/// Reads the name of a key.
///
/// # Errors
/// What is expected.
pub fn parse_name(text: &str) -> Result<Name, String> {
    Name::from_hex(text).map_err(|_| "the 68 hexadecimal digits that tpm2-tools print as a key's name".to_owned())
}

/// Reads a fingerprint of SHA-256.
///
/// # Errors
/// What is expected.
pub fn parse_fingerprint(text: &str) -> Result<Digest, String> {
    let text = if text.contains(':') { text.to_owned() } else { format!("sha256:{text}") };
    let digest: Option<Digest> = text.parse().ok();
    let sha256 = digest.filter(|digest| digest.algorithm() == HashAlgorithm::Sha256);
    sha256.ok_or_else(|| "64 hexadecimal digits, sha256: before them or not".to_owned())
}

/// Shows a verdict and gives the exit code.
///
/// # Errors
/// When standard output is closed.
pub fn show(package: &EvidencePackage, verdict: &PackageVerdict, output: Output) -> Result<u8> {
    let head = Head::of(package);
    if output.is_json() {
        let mut value = serde_json::to_value(verdict)?;
        value["head"] = head.as_ref().map_or(Value::Null, Head::to_json);
        line(&serde_json::to_string_pretty(&value)?)?;
    } else {
        output.record(&facts(verdict, head.as_ref()))?;
        if !verdict.keys.is_empty() {
            line("")?;
            output.records(&verdict.keys.iter().map(key).collect::<Vec<_>>())?;
        }
        line(&format!("\nThe evidence has {verdict}"))?;
    }
    Ok(if verdict.passed { 0 } else { EXIT_NOT_PASSED })
}

/// Shows that a package is none, and gives the exit code.
///
/// # Errors
/// When standard output is closed.
pub fn show_refused(error: &PackageError, output: Output) -> Result<u8> {
    if output.is_json() {
        let reason = json!({ "code": error.code(), "message": error.to_string() });
        line(&serde_json::to_string_pretty(&json!({ "passed": false, "reasons": [reason] }))?)?;
    } else {
        line(&format!("The evidence has failed\n  {}: {error}", error.code()))?;
    }
    Ok(EXIT_NOT_PASSED)
}

fn facts(verdict: &PackageVerdict, head: Option<&Head>) -> Record {
    let facts = &verdict.facts;
    let pcrs = |judged: bool| -> Vec<u8> {
        facts.pcrs.iter().filter(|fact| fact.judged == judged).map(|fact| fact.pcr).collect()
    };
    let endorsement = match &verdict.endorsement {
        None => "not shown: only the attestation key's name is known".to_owned(),
        Some(Endorsement::Fingerprint { fingerprint }) => format!("pinned, {fingerprint}"),
        Some(Endorsement::Authority { authority, serial, .. }) => format!("serial {serial} of {authority}"),
    };
    let clock = facts.clock.map(|clock| {
        let ClockInfo { clock_ms, reset_count, restart_count, safe } = clock;
        let unsafe_clock = if safe { "" } else { ", clock not safe" };
        format!("{clock_ms} ms, {reset_count} resets, {restart_count} restarts{unsafe_clock}")
    });
    Record::new()
        .with("verdict", if verdict.passed { "passed" } else { "failed" })
        .with_option("attestation_key", facts.attestation_key_name.as_deref())
        .with("endorsement_key", endorsement)
        .with("checkpoint", verdict.checkpoint.to_string())
        .with_option("log_size", head.map(|head| head.checkpoint.log_size))
        .with_option("log_root", head.map(|head| head.root.to_hex()))
        .with_option("height", head.map(|head| head.checkpoint.height.0))
        .with_option("time_ms", head.map(|head| head.checkpoint.time_ms))
        .with_option("checkpoint_key", head.map(|head| head.signer.as_deref().unwrap_or("none of these keys")))
        .with_option("tpm_clock", clock)
        .with_option("resets_since_previous", facts.resets_since_previous)
        .with_option("tpm_firmware", facts.firmware_version.map(|version| version.to_string()))
        .with("pcrs_judged", pcrs(true))
        .with("pcrs_reported", pcrs(false))
        .with_option("boot_events", facts.events)
        .with_option("ima_entries", facts.ima_entries)
        .with_option("ima_entries_later", facts.ima_entries_later)
}

fn key(key: &KeyFact) -> Record {
    Record::new()
        .with("key", key.name.as_str())
        .with("provider", key.provider.as_str())
        .with("trust", key.trust.as_str())
        .with_option("enrolled", key.enrolled)
        .with("fingerprint", key.fingerprint.to_string())
}

/// The tree head for which a quote speaks.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    checkpoint: Checkpoint,
    root: Hash,
    /// Name of the node's key that the checkpoint names as its signer's.
    signer: Option<String>,
}

impl Head {
    /// The tree head of a package, if what it carries is a checkpoint of ours.
    fn of(package: &EvidencePackage) -> Option<Self> {
        let (checkpoint, root) = read_checkpoint(&package.sig_structure)?;
        let is_signer = |spki: &[u8]| PublicKey::from_spki(spki).is_ok_and(|key| key.id() == checkpoint.key);
        let signer = package.keys.iter().find(|key| is_signer(&key.spki)).map(|key| key.name.clone());
        Some(Self { checkpoint, root, signer })
    }

    fn to_json(&self) -> Value {
        let Self { checkpoint, root, signer } = self;
        json!({
            "network": checkpoint.network.to_hex(), "height": checkpoint.height.0, "log_size": checkpoint.log_size,
            "log_root": root.to_hex(), "time_ms": checkpoint.time_ms, "key": signer,
        })
    }
}

fn read_checkpoint(sig_structure: &[u8]) -> Option<(Checkpoint, Hash)> {
    let mut decoder = Decoder::new(sig_structure);
    if decoder.array().ok()? != Some(4) || decoder.str().ok()? != "Signature1" {
        return None;
    }
    let checkpoint = Checkpoint::from_protected(decoder.bytes().ok()?).ok()?;
    let external = decoder.bytes().ok()?;
    let root = Hash(decoder.bytes().ok()?.try_into().ok()?);
    let whole = external.is_empty() && checkpoint.signing_bytes(&root) == sig_structure;
    whole.then_some((checkpoint, root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_shown_only_of_a_whole_checkpoint() {
        let checkpoint = Checkpoint {
            suite: stele_types::Suite::Es256,
            key: stele_types::KeyId([1; 16]),
            network: stele_types::NetworkId([2; 32]),
            height: stele_types::Height(3),
            log_size: 4,
            state_root: Hash([5; 32]),
            time_ms: 6,
        };
        let mut bytes = checkpoint.signing_bytes(&Hash([7; 32]));
        assert_eq!(read_checkpoint(&bytes), Some((checkpoint, Hash([7; 32]))));
        bytes.push(0);
        assert_eq!(read_checkpoint(&bytes), None);
        assert_eq!(read_checkpoint(b"\x84\x6aSignature1\x40\x40\x40"), None);
    }
}
