//! Walks through a ceremony.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use p256::pkcs8::EncodePublicKey as _;
use sha2::{Digest as _, Sha256};
use stele_evidence::Public;
use stele_evidence::exchange::Identity;
use stele_hsm::{NodeKeys, SignerKind};

use crate::ceremony::protocol::{DealtShare, MadeKey, Present, Protocol, Step, VERSION};
use crate::ceremony::script::{Script, ask};
use crate::commands::share::read_share;
use crate::failure::Failure;
use crate::keys::SigningKey;
use crate::output::note;

/// How those who are present go along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each step is told, and waits for a word on the terminal.
    Terminal,
    /// Each step is told.
    Script,
}

impl Pace {
    fn step(self, text: &str) -> Result<()> {
        note(text);
        if self == Self::Terminal && ask("Enter to go on, \"stop\" to end")? == "stop" {
            bail!(Failure::new("ceremony_stopped", "it was stopped").hint("keys that were made stay where they are"));
        }
        Ok(())
    }
}

/// Makes the keys of a node and gives the protocol, signed by all who are present.
///
/// # Errors
/// What failed; keys that were made by then stay, and there is no protocol of them.
pub fn conduct(script: &Script, pace: Pace) -> Result<Protocol> {
    // Before anything is made: a key that cannot be read must not cost the protocol.
    let mut keys = Vec::new();
    for participant in &script.present {
        keys.push(SigningKey::load(&participant.key)?);
    }
    let present = script.present.iter().zip(&keys).map(|(participant, key)| Present {
        name: participant.name.clone(),
        role: participant.role.clone(),
        suite: key.suite().as_str().into(),
        public_key: hex::encode(key.public_key()),
    });
    let mut protocol = Protocol {
        version: VERSION.into(),
        node: script.node.clone(),
        place: script.place.clone(),
        present: present.collect(),
        steps: Vec::new(),
        signatures: Vec::new(),
    };
    pace.step(&format!("1. The configuration {} is checked.", script.config.display()))?;
    signer(script, &["check-config".as_ref()])?;
    let sha256 = sha256_of(&script.config)?;
    protocol.steps.push(Step::Configuration { time_ms: now_ms()?, sha256 });

    pace.step("2. Keys are made. They stay in TPM and token, or are sealed; what is written are public halves.")?;
    protocol.steps.push(make_keys(script)?);

    if uses_tpm(&protocol) {
        pace.step("3. The TPM says what it is, and that it holds the keys.")?;
        protocol.steps.push(identify(script)?);
    }
    if let Some(folder) = &script.shares {
        pace.step(&format!("4. Shares of the custody key are in {}: each goes to its holder.", folder.display()))?;
        protocol.steps.push(Step::Shares { time_ms: now_ms()?, shares: dealt(folder)? });
    }
    pace.step("All who are present sign the protocol.")?;
    for (participant, key) in script.present.iter().zip(&keys) {
        protocol.sign(&participant.name, key)?;
    }
    Ok(protocol)
}

fn make_keys(script: &Script) -> Result<Step> {
    let mut words: Vec<&OsStr> = vec!["init".as_ref(), "--out".as_ref(), script.node_keys.as_ref()];
    if let Some(folder) = &script.shares {
        words.extend(["--shares".as_ref(), folder.as_os_str()]);
    }
    signer(script, &words)?;
    let text = fs::read(&script.node_keys).with_context(|| format!("cannot read {}", script.node_keys.display()))?;
    let made: NodeKeys = serde_json::from_slice(&text).context("the public halves that stele-signer wrote")?;
    let mut keys = Vec::new();
    let published = [("validator", made.validator), ("seal", Some(made.seal)), ("custody", made.custody)];
    for (role, key) in published {
        if let Some(key) = key {
            keys.push(made_key(role, &key.signer, &key.point()?)?);
        }
    }
    if let Some(epoch) = made.epoch {
        keys.push(made_key("epoch", SignerKind::Software.name(), &epoch.point()?)?);
    }
    Ok(Step::Keys { time_ms: now_ms()?, keys })
}

fn made_key(role: &str, signer: &str, point: &[u8; 33]) -> Result<MadeKey> {
    let key = p256::PublicKey::from_sec1_bytes(point).ok().context("a public half")?;
    let spki = key.to_public_key_der().ok().context("a public half")?;
    Ok(MadeKey {
        role: role.into(),
        signer: signer.into(),
        public_key: hex::encode(point),
        fingerprint: hex::encode(Sha256::digest(spki.as_bytes())),
    })
}

fn identify(script: &Script) -> Result<Step> {
    let said = signer(script, &["identity".as_ref()])?;
    let identity: Identity = serde_json::from_slice(&said).context("what stele-signer says of its TPM")?;
    let endorsement_key = Public::parse_sized(&identity.endorsement_key).context("endorsement key")?;
    Ok(Step::Identity {
        time_ms: now_ms()?,
        endorsement_key_sha256: hex::encode(endorsement_key.key.fingerprint().as_bytes()),
        identity: Box::new(identity),
    })
}

fn dealt(folder: &Path) -> Result<Vec<DealtShare>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut shares = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let share = read_share(&path)?;
        shares.push(DealtShare {
            holder: share.holder().into(),
            index: share.index(),
            fingerprint: share.fingerprint().into(),
            sha256: sha256_of(&path)?,
        });
    }
    shares.sort_by_key(|share| share.index);
    Ok(shares)
}

fn uses_tpm(protocol: &Protocol) -> bool {
    let of_tpm = |step: &Step| matches!(step, Step::Keys { keys, .. } if keys.iter().any(|key| key.signer == "tpm"));
    protocol.steps.iter().any(of_tpm)
}

/// Runs `stele-signer`; what it writes to standard error is for those who are present.
fn signer(script: &Script, words: &[&OsStr]) -> Result<Vec<u8>> {
    let mut command = Command::new(&script.program);
    command.args(words).arg("--config").arg(&script.config).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {}", script.program.display()))?;
    if !output.status.success() {
        let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        bail!(Failure::new("ceremony_step", format!("stele-signer {word}: {}", output.status)));
    }
    Ok(output.stdout)
}

fn sha256_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex::encode(Sha256::digest(bytes)))
}

fn now_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    u64::try_from(now.as_millis()).context("the clock")
}
