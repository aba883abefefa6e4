//! `stele network upgrade`: propose changes of version, parameters and validators from a height on.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use stele_types::attestation::AttestationRule;
use stele_types::cbor::List;
use stele_types::governance::{ParametersChange, ProtocolUpgrade, ValidatorsChange};
use stele_types::parameters::{SuiteRule, Timeouts};
use stele_types::{Command, Height, Parameters, Suite, Validator, ValidatorId};

use crate::commands::governed::{DualControl, party_id};
use crate::commands::words;
use crate::failure::Failure;
use crate::session::Session;
use crate::state_query;

/// How far ahead of the present height a change begins unless a height is named: time for the approval to be committed.
const ACTIVATION_AHEAD: u64 = 100;

/// Propose a change of the rules from a height on.
#[derive(Debug, Subcommand)]
pub enum UpgradeCommand {
    /// A new protocol version; nodes with an older program halt cleanly at that height
    Protocol {
        /// The version
        #[arg(long)]
        version: u32,
        /// When and how
        #[command(flatten)]
        change: Change,
    },
    /// New parameters: those in force with the named ones changed
    Parameters {
        /// Changes as name=value, with the names that `stele query network` shows; suites=es256:1,eddsa:1;
        /// attestation.verdict_life_ms=3600000 for validators to be attested, attestation=none for no such rule
        #[arg(required = true, value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// When and how
        #[command(flatten)]
        change: Change,
    },
    /// New validators
    Validators {
        /// A validator to add or to replace: long-term key, peer key and party, separated by commas; or a node directory
        /// and a party
        #[arg(long, value_name = "KEY,PEER_KEY,PARTY|NODE_DIR,PARTY")]
        add: Vec<String>,
        /// Id of a validator to remove
        #[arg(long, value_name = "HEX", value_parser = words::validator_id)]
        remove: Vec<ValidatorId>,
        /// When and how
        #[command(flatten)]
        change: Change,
    },
}

/// When a change begins and how it is decided.
#[derive(Debug, Args)]
pub struct Change {
    /// First height under the new rules [default: 100 above the present one]
    #[arg(long)]
    pub activation_height: Option<u64>,
    /// How it is decided
    #[command(flatten)]
    pub dual: DualControl,
}

impl Change {
    async fn height(&self, session: &Session) -> Result<u64> {
        match self.activation_height {
            Some(height) => Ok(height),
            None => Ok(session.party_client()?.network().await?.height + ACTIVATION_AHEAD),
        }
    }
}

impl UpgradeCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let (change, command) = match self {
            Self::Protocol { version, change } => {
                let activation_height = change.height(session).await?;
                (change, Command::ProtocolUpgrade(ProtocolUpgrade { activation_height, version }))
            }
            Self::Parameters { set, change } => {
                let activation_height = change.height(session).await?;
                let mut parameters = in_force(session).await?;
                for pair in &set {
                    assign(&mut parameters, pair)?;
                }
                if !parameters.is_sound() {
                    bail!(
                        Failure::new("parameter_invalid", "the parameters are out of bounds or not implemented")
                            .hint("docs/protocol.md states the bounds of each parameter")
                    );
                }
                (change, Command::ParametersChange(ParametersChange { activation_height, parameters }))
            }
            Self::Validators { add, remove, change } => {
                if add.is_empty() && remove.is_empty() {
                    bail!(Failure::new("parameter_invalid", "no change was named").hint("use --add or --remove"));
                }
                let upsert = add.iter().map(|text| validator(session, text)).collect::<Result<Vec<_>>>()?;
                let activation_height = change.height(session).await?;
                let (upsert, remove) = (List::new(upsert)?, List::new(remove)?);
                (change, Command::ValidatorsChange(ValidatorsChange { activation_height, upsert, remove }))
            }
        };
        change.dual.propose(session, &command).await
    }
}

fn validator(session: &Session, text: &str) -> Result<Validator> {
    let parts: Vec<&str> = text.split(',').collect();
    match parts.as_slice() {
        [key, peer_key, party] => {
            let bytes =
                |text: &str, what: &str| hex::decode(text).with_context(|| format!("{what} {text} is not hexadecimal"));
            Ok(Validator {
                public_key: bytes(key, "long-term key")?
                    .as_slice()
                    .try_into()
                    .context("a long-term key has 33 bytes")?,
                peer_key: bytes(peer_key, "peer key")?.as_slice().try_into().context("a peer key has 32 bytes")?,
                party: party_id(session, party)?,
            })
        }
        [dir, party] => {
            let dir = PathBuf::from(dir);
            crate::network::init::validator_of(&dir, party_id(session, party)?)
        }
        _ => bail!(
            Failure::new("parameter_invalid", format!("{text} is no validator"))
                .hint("write KEY,PEER_KEY,PARTY or NODE_DIR,PARTY")
        ),
    }
}

/// The parameters in force: as a node tells them, with the hash that a certified header names.
async fn in_force(session: &Session) -> Result<Parameters> {
    let client = session.party_client()?;
    let view = client.network().await?;
    let answer = client.header(Height(view.height)).await?;
    let certified = state_query::certify(&session.anchor()?, &answer).context("the quorum of the newest header")?;
    let mut parameters = session.genesis()?.parameters;
    read(&mut parameters, &view.parameters)?;
    if parameters.hash() != certified.header().parameters {
        bail!(
            Failure::new("parameters_unproven", "the node tells other parameters than the newest header names")
                .hint("a change may be taking effect just now: try again in a moment, or ask another node with --node")
        );
    }
    Ok(parameters)
}

/// Reads parameters in their JSON form.
fn read(parameters: &mut Parameters, view: &serde_json::Value) -> Result<()> {
    let fields = view.as_object().ok_or_else(|| anyhow!("parameters are no object"))?;
    for (name, value) in fields {
        match (name.as_str(), value) {
            // The hash is checked, and the hash of the state never changes.
            ("hash" | "state_hash", _) => {}
            ("protocol_version", version) => {
                parameters.protocol_version = serde_json::from_value(version.clone()).context("protocol version")?;
            }
            ("suites", serde_json::Value::Array(rules)) => {
                let rules: Vec<String> =
                    rules.iter().map(|rule| format!("{}:{}", word(&rule["suite"]), rule["version"])).collect();
                assign(parameters, &format!("suites={}", rules.join(",")))?;
            }
            ("timeouts", serde_json::Value::Object(timeouts)) => {
                for (name, value) in timeouts {
                    assign(parameters, &format!("timeouts.{name}={value}"))?;
                }
            }
            ("attestation", serde_json::Value::Null) => parameters.attestation = None,
            ("attestation", serde_json::Value::Object(rule)) => {
                for (name, value) in rule {
                    assign(parameters, &format!("attestation.{name}={value}"))?;
                }
            }
            (name, value) => assign(parameters, &format!("{name}={value}"))?,
        }
    }
    Ok(())
}

fn word(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Sets one parameter from `name=value`.
fn assign(parameters: &mut Parameters, pair: &str) -> Result<()> {
    let (name, value) = pair.split_once('=').ok_or_else(|| anyhow!("{pair} is not NAME=VALUE"))?;
    let wide = || value.parse::<u64>().with_context(|| format!("{name}: {value} is no whole number"));
    let narrow = || value.parse::<u32>().with_context(|| format!("{name}: {value} is no whole number"));
    match name {
        "suites" => parameters.suites = List::new(suites(value)?)?,
        "block_bytes_max" => parameters.block_bytes_max = narrow()?,
        "block_statements_max" => parameters.block_statements_max = narrow()?,
        "statement_bytes_max" => parameters.statement_bytes_max = narrow()?,
        "replay_past_ms" => parameters.replay_past_ms = wide()?,
        "replay_future_ms" => parameters.replay_future_ms = wide()?,
        "clock_ahead_ms" => parameters.clock_ahead_ms = wide()?,
        "clock_behind_ms" => parameters.clock_behind_ms = wide()?,
        "heartbeat_ms" => parameters.heartbeat_ms = wide()?,
        "proposal_life_ms" => parameters.proposal_life_ms = wide()?,
        "attestation" if value == "none" => parameters.attestation = None,
        "attestation.verdict_life_ms" => {
            parameters.attestation = Some(AttestationRule { verdict_life_ms: wide()? });
        }
        _ => {
            let Timeouts { propose_ms, propose_step_ms, prevote_ms, prevote_step_ms, precommit_ms, precommit_step_ms } =
                &mut parameters.timeouts;
            let timeout = match name {
                "timeouts.propose_ms" => propose_ms,
                "timeouts.propose_step_ms" => propose_step_ms,
                "timeouts.prevote_ms" => prevote_ms,
                "timeouts.prevote_step_ms" => prevote_step_ms,
                "timeouts.precommit_ms" => precommit_ms,
                "timeouts.precommit_step_ms" => precommit_step_ms,
                _ => bail!(
                    Failure::new("parameter_invalid", format!("there is no parameter {name}"))
                        .hint("`stele query network` lists them; time-outs are timeouts.propose_ms and so on")
                ),
            };
            *timeout = narrow()?;
        }
    }
    Ok(())
}

fn suites(text: &str) -> Result<Vec<SuiteRule>> {
    let rule = |text: &str| {
        let (word, version) = text.split_once(':').unwrap_or((text, "1"));
        let suite = Suite::from_word(word).ok_or_else(|| anyhow!("{word} is no suite"))?;
        Ok(SuiteRule { suite, version: version.parse().with_context(|| format!("version {version} of {word}"))? })
    };
    let mut rules = text.split(',').map(rule).collect::<Result<Vec<_>>>()?;
    rules.sort_by_key(|rule| rule.suite);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_by_name() {
        let mut parameters = Parameters::default();
        for pair in ["heartbeat_ms=5000", "timeouts.propose_ms=900", "suites=eddsa,es256:1"] {
            assign(&mut parameters, pair).unwrap();
        }
        assert_eq!((parameters.heartbeat_ms, parameters.timeouts.propose_ms), (5_000, 900));
        assert_eq!(parameters.suites.iter().map(|rule| rule.suite).collect::<Vec<_>>(), [Suite::Es256, Suite::EdDsa]);
        assert!(parameters.is_sound());
        assign(&mut parameters, "attestation.verdict_life_ms=3600000").unwrap();
        assert_eq!(parameters.attestation, Some(AttestationRule { verdict_life_ms: 3_600_000 }));
        assign(&mut parameters, "attestation=none").unwrap();
        assert_eq!(parameters.attestation, None);
        for pair in ["heartbeat", "unknown=1", "heartbeat_ms=-1", "suites=rsa"] {
            assert!(assign(&mut parameters, pair).is_err(), "{pair}");
        }
    }
}
