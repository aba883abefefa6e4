//! `stele key ceremony`: makes a node's keys before witnesses, and checks what they signed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::attestation::EXIT_NOT_PASSED;
use crate::ceremony::{Pace, Protocol, Script, conduct, examine};
use crate::failure::{Failure, report};
use crate::output::Record;
use crate::session::Session;

/// Longest protocol in bytes: certificates and certifications take some 20 KiB.
const PROTOCOL_BYTES_MAX: u64 = 1 << 20;

/// The ceremony in which a node's keys are made.
#[derive(Debug, Subcommand)]
pub enum CeremonyCommand {
    /// Make a node's keys with `stele-signer` and write the protocol, signed by all who are present
    Conduct {
        /// What to do, as JSON; without it, it is asked for on the terminal, step by step
        #[arg(long, value_name = "FILE")]
        script: Option<PathBuf>,
        /// File of the protocol, to be made
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check a protocol: signatures, steps, and what the TPM says of the keys; exit code 4 if it does not hold
    Verify {
        /// The protocol
        file: PathBuf,
    },
}

impl CeremonyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Conduct { script, out } => {
                let (script, pace) = match script {
                    Some(path) => (Script::load(&path)?, Pace::Script),
                    None => (Script::ask()?, Pace::Terminal),
                };
                // Before anything is made: a path that cannot be written must not cost the protocol.
                let mut file =
                    fs::File::create_new(&out).with_context(|| format!("cannot create {}", out.display()))?;
                let protocol = conduct(&script, pace).inspect_err(|_| drop(fs::remove_file(&out)))?;
                let written =
                    std::io::Write::write_all(&mut file, &protocol.to_bytes()?).and_then(|()| file.sync_all());
                written.with_context(|| format!("cannot write {}", out.display()))?;
                session.output.record(&Record::new().with("protocol", out.display().to_string()))?;
                Ok(0)
            }
            Self::Verify { file } => {
                let metadata = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
                if metadata.len() > PROTOCOL_BYTES_MAX {
                    bail!(Failure::new("ceremony_malformed", format!("{} is too long", file.display())));
                }
                let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let examined = Protocol::parse(&bytes).and_then(|protocol| Ok((examine(&protocol)?, protocol)));
                let (examined, protocol) = match examined {
                    Ok(examined) => examined,
                    Err(error) => {
                        report(&error, session.output);
                        return Ok(EXIT_NOT_PASSED);
                    }
                };
                let present: Vec<Value> = protocol
                    .present
                    .iter()
                    .map(|present| json!({ "name": present.name, "role": present.role, "public_key": present.public_key }))
                    .collect();
                let keys: Vec<Value> = examined
                    .keys
                    .iter()
                    .map(|(key, evidence)| {
                        let (role, signer, fingerprint) = (&key.role, &key.signer, &key.fingerprint);
                        json!({ "role": role, "signer": signer, "fingerprint": fingerprint, "evidence": evidence.as_str() })
                    })
                    .collect();
                session.output.record(
                    &Record::new()
                        .with("node", protocol.node)
                        .with("place", protocol.place)
                        .with("present", present)
                        .with("keys", keys)
                        .with_option("endorsement_key_sha256", examined.endorsement_key_sha256)
                        .with("share_holders", examined.holders),
                )?;
                Ok(0)
            }
        }
    }
}
