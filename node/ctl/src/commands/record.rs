//! `stele record`: anchors of records. The body and its salt stay with their owner.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use stele_types::Command;
use stele_types::custody::{RecordCorrect, RecordPut};
use stele_types::hash::{Hash, ObjectId};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};

use crate::author::{object_id, random};
use crate::commands::governed::{issue_about, party_id};
use crate::commands::words;
use crate::failure::Failure;
use crate::keys::{read_secret, write_secret_new};
use crate::output::Record;
use crate::session::Session;

/// Bytes of a salt.
const SALT_BYTES: usize = 32;

/// Anchors of records. The body and its salt stay with their owner.
#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Anchor a record by a salted commitment to its body
    Put(Box<PutArguments>),
    /// Anchor a new version of a record
    Correct(CorrectArguments),
}

/// The commitment: made here from a body, or given.
#[derive(Debug, Args)]
#[group(id = "committed", required = true, multiple = false, args = ["body", "commitment"])]
pub struct CommitmentArguments {
    /// File of the body; its salt is FILE.salt, made when it is missing
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Commitment made elsewhere
    #[arg(long, value_parser = words::hash, value_name = "HEX")]
    pub commitment: Option<Hash>,
    /// Content root of the sealed body
    #[arg(long, value_parser = words::hash, value_name = "HEX")]
    pub body_root: Option<Hash>,
}

/// Arguments of `record put`.
#[derive(Debug, Args)]
pub struct PutArguments {
    /// Id of the record [default: a fresh one]
    #[arg(long, value_parser = words::object_id)]
    pub record: Option<ObjectId>,
    /// Class
    #[arg(long, value_parser = words::record_class)]
    pub class: RecordClass,
    /// Number of the published schema
    #[arg(long, default_value_t = 1)]
    pub schema: u32,
    /// Class pseudonym of the person it is about, 32 hexadecimal digits
    #[arg(long, value_parser = words::object_id)]
    pub subject: Option<ObjectId>,
    /// Division in which the thing lies
    #[arg(long, value_parser = words::place)]
    pub place: Option<PlaceCode>,
    /// Day of the event, YYYY-MM-DD
    #[arg(long, value_parser = words::day)]
    pub event_day: u32,
    /// Sensitivity of the body
    #[arg(long, value_parser = words::sensitivity)]
    pub sensitivity: Sensitivity,
    /// Number of the retention rule
    #[arg(long, default_value_t = 1)]
    pub retention: u16,
    /// Hash of the access policy in force
    #[arg(long, value_parser = words::hash)]
    pub policy: Hash,
    /// The party for which the acting one acts, under a mandate: name or id
    #[arg(long)]
    pub on_behalf_of: Option<String>,
    /// The body
    #[command(flatten)]
    pub committed: CommitmentArguments,
}

/// Arguments of `record correct`.
#[derive(Debug, Args)]
pub struct CorrectArguments {
    /// Id of the record
    #[arg(value_parser = words::object_id)]
    pub record: ObjectId,
    /// The version that this one follows, counted from 1
    #[arg(long)]
    pub follows: u32,
    /// The new body
    #[command(flatten)]
    pub committed: CommitmentArguments,
}

impl RecordCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let (record, command) = match self {
            Self::Put(arguments) => {
                let on_behalf_of =
                    arguments.on_behalf_of.as_deref().map(|party| party_id(session, party)).transpose()?;
                let record = arguments.record.map_or_else(object_id, Ok)?;
                let put = RecordPut {
                    record,
                    class: arguments.class,
                    schema: arguments.schema,
                    subject: arguments.subject.map(|subject| subject.0),
                    place: arguments.place,
                    event_day: arguments.event_day,
                    sensitivity: arguments.sensitivity,
                    retention: arguments.retention,
                    policy: arguments.policy,
                    commitment: arguments.committed.commitment()?,
                    body_root: arguments.committed.body_root,
                    body_hash: arguments.committed.body_root.map(|_| ContentHash::Sha256),
                    on_behalf_of,
                };
                (record, Command::RecordPut(put))
            }
            Self::Correct(arguments) => {
                let correct = RecordCorrect {
                    record: arguments.record,
                    follows: arguments.follows,
                    commitment: arguments.committed.commitment()?,
                    body_root: arguments.committed.body_root,
                    body_hash: arguments.committed.body_root.map(|_| ContentHash::Sha256),
                };
                (arguments.record, Command::RecordCorrect(correct))
            }
        };
        issue_about(session, Record::new().with("record", record.to_hex()), &command).await
    }
}

impl CommitmentArguments {
    fn commitment(&self) -> Result<Hash> {
        match (&self.body, self.commitment) {
            (Some(path), None) => {
                let body = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                let mut name = path.clone().into_os_string();
                name.push(".salt");
                salted_commitment(&salt(Path::new(&name))?, &body)
            }
            (None, Some(commitment)) => Ok(commitment),
            _ => bail!("name the body or its commitment"),
        }
    }
}

/// The salt in a file, which is made when it is missing, so that a command that failed can be given again. Whoever has a
/// salt can test guesses of the body, so it is kept like a key.
fn salt(path: &Path) -> Result<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    if path.exists() {
        hex::decode_to_slice(read_secret(path)?.trim_end(), &mut salt).map_err(|_| {
            Failure::new("salt_malformed", format!("{} does not hold 64 hexadecimal digits", path.display())).hint(
                "move it out of the way if it is no salt; without its salt nobody can show what a record commits to",
            )
        })?;
    } else {
        salt = random()?;
        write_secret_new(path, hex::encode(salt).as_bytes())?;
    }
    Ok(salt)
}

/// `HMAC-SHA-256(salt, body)`: what a leaf may say of a body.
///
/// # Errors
/// Never for a salt of this length; the type of the construction allows it.
pub fn salted_commitment(salt: &[u8; SALT_BYTES], body: &[u8]) -> Result<Hash> {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).map_err(|_| anyhow!("salt"))?;
    mac.update(body);
    Ok(Hash(mac.finalize().into_bytes().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commitment_is_an_hmac() {
        // RFC 4231 test case 1, its key of 20 bytes 0x0b padded with zeros as HMAC itself pads it.
        let mut salt = [0; SALT_BYTES];
        salt[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(salted_commitment(&salt, b"Hi There").unwrap().to_hex(), expected);
    }
}
