//! `stele key approve`: a release's policy key approves the state of machines that run the release.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use p256::ecdsa::Signature;
use stele_evidence::{Approval, ApprovalError, Digest, PlatformState, PolicyKey};
use stele_types::Suite;

use crate::attestation::read_policy;
use crate::failure::Failure;
use crate::keys::SigningKey;
use crate::output::Record;
use crate::session::Session;

/// Longest signature file in bytes: ECDSA over P-256 in DER.
const SIGNATURE_BYTES_MAX: u64 = 72;

/// Arguments of `key approve`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ApproveArguments {
    /// Name of the release, for people
    #[arg(long)]
    pub release: String,
    /// Predicted value of a PCR of the SHA-256 bank, as 11=sha256:HEX; may be given again
    #[arg(long, value_name = "PCR=VALUE", value_parser = pcr, required_unless_present = "policy", conflicts_with = "policy")]
    pub pcr: Vec<(u8, Digest)>,
    /// Attestation policy of the release, which allows one value of each PCR that it names
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Sign with this policy key: PKCS#8 PEM, P-256
    #[arg(long, value_name = "FILE", group = "how", requires = "out")]
    pub key: Option<PathBuf>,
    /// Write what is to be signed, for a key that is elsewhere: openssl dgst -sha256 -sign KEY -out SIGNATURE FILE
    #[arg(long, value_name = "FILE", group = "how", conflicts_with = "out")]
    pub message: Option<PathBuf>,
    /// Take the signature that was made elsewhere, in DER
    #[arg(long, value_name = "FILE", group = "how", requires_all = ["out", "policy_key"])]
    pub signature: Option<PathBuf>,
    /// Public half of the policy key, SEC 1, hexadecimal, by which such a signature is checked
    #[arg(long, value_name = "HEX", requires = "signature")]
    pub policy_key: Option<String>,
    /// File of the approval; it goes into the folder of approvals of each signer
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl ApproveArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub fn run(self, session: &Session) -> Result<u8> {
        let pcrs = match &self.policy {
            Some(path) => predicted(path)?,
            None => self.pcr.iter().copied().collect(),
        };
        if self.policy.is_none() && pcrs.len() != self.pcr.len() {
            bail!(Failure::new("approval_pcrs", "a PCR is named twice"));
        }
        let state = PlatformState::new(&pcrs).map_err(failure)?;
        let record = Record::new()
            .with("release", self.release.clone())
            .with("pcrs", state.indices().map(|pcr| pcr.to_string()).collect::<Vec<_>>().join(" "))
            .with("policy", state.policy().to_string());
        let (approval, key) = match (&self.key, &self.message, &self.signature) {
            (Some(key), ..) => sign(&self.release, pcrs, &state, key)?,
            (_, Some(message), _) => {
                fs::write(message, state.message()).with_context(|| format!("cannot write {}", message.display()))?;
                session.output.record(&record.with("message", message.display().to_string()))?;
                return Ok(0);
            }
            (_, _, Some(signature)) => {
                let key = self.policy_key.as_deref().unwrap_or_default();
                (Approval::new(self.release, pcrs, &read(signature)?), PolicyKey::from_hex(key).map_err(failure)?)
            }
            _ => bail!(Failure::new("usage", "name --key, --message or --signature")),
        };
        approval.verify(&key).map_err(failure)?;
        let out = self.out.context("--out")?;
        let text = serde_json::to_string_pretty(&approval).context("approval")? + "\n";
        fs::write(&out, text).with_context(|| format!("cannot write {}", out.display()))?;
        session.output.record(&record.with("approval", out.display().to_string()))?;
        Ok(0)
    }
}

fn sign(
    release: &str,
    pcrs: BTreeMap<u8, Digest>,
    state: &PlatformState,
    path: &Path,
) -> Result<(Approval, PolicyKey)> {
    let key = SigningKey::load(path)?;
    if key.suite() != Suite::Es256 {
        bail!(Failure::new("policy_key_malformed", format!("{} is no P-256 key", path.display())));
    }
    let signature = Signature::from_slice(&key.sign(&state.message())?).ok().context("ECDSA signature")?;
    let approval = Approval::new(release.to_owned(), pcrs, signature.to_der().as_bytes());
    Ok((approval, PolicyKey::from_sec1(key.public_key()).map_err(failure)?))
}

/// The one value of each PCR that a policy names.
fn predicted(path: &Path) -> Result<BTreeMap<u8, Digest>> {
    let policy = read_policy(path)?;
    let one = |rule: &stele_evidence::policy::PcrRule| match rule.allowed.as_slice() {
        [only] => Ok((rule.pcr, only.value)),
        _ => {
            Err(Failure::new("approval_pcrs", format!("{} allows several values of PCR {}", path.display(), rule.pcr))
                .hint("approve each state by itself, with --pcr")
                .into())
        }
    };
    policy.pcrs.iter().map(one).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.len() > SIGNATURE_BYTES_MAX {
        bail!(Failure::new("approval_foreign", format!("{} is no signature in DER", path.display())));
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn failure(error: ApprovalError) -> Failure {
    Failure::new(error.code(), error.to_string())
}

fn pcr(text: &str) -> Result<(u8, Digest), String> {
    let (pcr, value) = text.split_once('=').ok_or("write it as 11=sha256:HEX")?;
    let pcr = pcr.parse().map_err(|_| "a PCR is a number from 0 to 23")?;
    Ok((pcr, value.parse().map_err(|error: stele_evidence::EvidenceError| error.to_string())?))
}
