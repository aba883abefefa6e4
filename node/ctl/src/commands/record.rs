//! `stele record`: anchors of records. The body stays with its owner, or is sealed and kept by a node.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use stele_client::Client;
use stele_ledger::value::RecordAnchor;
use stele_types::custody::{RecordCorrect, RecordPut};
use stele_types::hash::{Hash, ObjectId};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::{Command, cbor};

use crate::author::{object_id, random};
use crate::commands::governed::{issue_about, party_id};
use crate::commands::words;
use crate::describe::Object;
use crate::failure::Failure;
use crate::keys::{read_secret, write_secret_new};
use crate::output::{Record, note};
use crate::session::Session;
use crate::state_query;

/// How long a body waits for its copy on another node, beside the time that the node gave it.
const COPY_WAIT: Duration = Duration::from_secs(20);

/// Bytes of a body that are fetched at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// Bytes of a salt.
const SALT_BYTES: usize = 32;

/// Anchors of records. The body stays with its owner, or is sealed and kept by a node.
#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Anchor a record by a salted commitment to its body
    Put(Box<PutArguments>),
    /// Anchor a new version of a record
    Correct(CorrectArguments),
    /// Fetch the body of a record that a node keeps for the acting party
    ///
    /// Which body it is, is proven by the state; that the node gave the right one is shown by the salt.
    Fetch(FetchArguments),
}

/// Arguments of `record fetch`.
#[derive(Debug, Args)]
pub struct FetchArguments {
    /// Id of the record
    #[arg(value_parser = words::object_id)]
    pub record: ObjectId,
    /// File to write, which must not exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// File with the salt, as `record put --store` wrote it: the body is compared with the commitment of the record
    #[arg(long, value_name = "FILE")]
    pub salt: Option<PathBuf>,
}

/// What the commitment is made of.
#[derive(Debug, Args)]
#[group(id = "committed", required = true, multiple = false)]
pub struct Commitment {
    /// File of the body; its salt is FILE.salt, made when it is missing
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Commitment made elsewhere
    #[arg(long, value_parser = words::hash, value_name = "HEX")]
    pub commitment: Option<Hash>,
}

/// The commitment: made here from a body, or given; and where the body is.
#[derive(Debug, Args)]
pub struct CommitmentArguments {
    /// The commitment
    #[command(flatten)]
    pub of: Commitment,
    /// Content root of the sealed body
    #[arg(long, value_parser = words::hash, value_name = "HEX", conflicts_with = "store")]
    pub body_root: Option<Hash>,
    /// Put the body to a node, which seals and keeps it; its salt is written to FILE.ROOT.salt
    #[arg(long, requires = "body")]
    pub store: bool,
    /// Year in which the retention of a stored body ends [default: it does not]
    #[arg(long, value_name = "YYYY", requires = "store", value_parser = clap::value_parser!(u16).range(1970..=9999))]
    pub retention_year: Option<u16>,
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
        let (record, committed, command) = match self {
            Self::Fetch(arguments) => return arguments.run(session).await,
            Self::Put(arguments) => {
                let on_behalf_of =
                    arguments.on_behalf_of.as_deref().map(|party| party_id(session, party)).transpose()?;
                let record = arguments.record.map_or_else(object_id, Ok)?;
                let committed = arguments.committed.commit(session, &record, Some(arguments.class)).await?;
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
                    commitment: committed.commitment,
                    body_root: committed.body_root,
                    body_hash: committed.body_root.map(|_| ContentHash::Sha256),
                    on_behalf_of,
                };
                (record, committed, Command::RecordPut(put))
            }
            Self::Correct(arguments) => {
                let committed = arguments.committed.commit(session, &arguments.record, None).await?;
                let correct = RecordCorrect {
                    record: arguments.record,
                    follows: arguments.follows,
                    commitment: committed.commitment,
                    body_root: committed.body_root,
                    body_hash: committed.body_root.map(|_| ContentHash::Sha256),
                };
                (arguments.record, committed, Command::RecordCorrect(correct))
            }
        };
        let mut about = Record::new().with("record", record.to_hex());
        if let Some(salt) = &committed.salt_file {
            about = about
                .with_option("body_root", committed.body_root.map(|root| root.to_hex()))
                .with("salt_file", salt.display().to_string());
        }
        issue_about(session, about, &command).await
    }
}

/// What a record says of its body.
struct Committed {
    commitment: Hash,
    body_root: Option<Hash>,
    /// Where the salt of a stored body lies.
    salt_file: Option<PathBuf>,
}

impl CommitmentArguments {
    /// Makes the commitment, and puts the body to a node if that is asked for. Without `class` the record has one.
    async fn commit(&self, session: &Session, record: &ObjectId, class: Option<RecordClass>) -> Result<Committed> {
        match (&self.of.body, self.of.commitment) {
            (Some(path), None) if self.store => {
                let class = match class {
                    Some(class) => class,
                    None => anchor(session, record).await?.class,
                };
                self.put(session, record, class, path).await
            }
            (Some(path), None) => {
                let commitment = commitment_of(&salt(&beside(path, "salt"))?, path)?;
                Ok(Committed { commitment, body_root: self.body_root, salt_file: None })
            }
            (None, Some(commitment)) => Ok(Committed { commitment, body_root: self.body_root, salt_file: None }),
            _ => bail!("name the body or its commitment"),
        }
    }

    async fn put(&self, session: &Session, record: &ObjectId, class: RecordClass, path: &Path) -> Result<Committed> {
        let client = session.party_client()?;
        let blob = client.put_body(record, class, self.retention_year, path).await?;
        let malformed = || anyhow!("the node's answer is malformed");
        let root = Hash::from_hex(&blob.root).ok_or_else(malformed)?;
        if !blob.custody.is_reached() {
            note("the body is on one node; waiting for its copy on another");
            let custody = client.body_custody(&root, COPY_WAIT).await?;
            if !custody.is_reached() {
                bail!(
                    Failure::new(
                        "body_not_copied",
                        format!("no other node has taken a copy of the body: it is {}", custody.reached)
                    )
                    .hint("it goes on being tried for a day; see that the other nodes run, and put the record again")
                );
            }
        }
        let mut salt = [0; SALT_BYTES];
        hex::decode_to_slice(&blob.salt, &mut salt).map_err(|_| malformed())?;
        let commitment = commitment_of(&salt, path)?;
        // What is signed is this program's own.
        if commitment.to_hex() != blob.commitment {
            bail!(
                Failure::new("commitment_differs", "the node names another commitment than that of the body").hint(
                    "the file changed meanwhile, or the node is at fault; try again, at another node with --node"
                )
            );
        }
        let salt_file = beside(path, &format!("{}.salt", &blob.root[..16.min(blob.root.len())]));
        write_secret_new(&salt_file, hex::encode(salt).as_bytes())?;
        Ok(Committed { commitment, body_root: Some(root), salt_file: Some(salt_file) })
    }
}

/// `FILE.suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The record, proven by the state.
async fn anchor(session: &Session, record: &ObjectId) -> Result<RecordAnchor> {
    let object = Object::Record(*record);
    let proven = state_query::query(&session.reader()?, &session.anchor()?, &object).await?;
    let value = proven.first().and_then(|first| first.value.as_deref());
    let value = value.ok_or_else(|| {
        Failure::new("object_unknown", format!("there is no record {}, and that is proven", record.to_hex()))
    })?;
    Ok(cbor::from_slice(value)?)
}

impl FetchArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let anchor = anchor(session, &self.record).await?;
        let root = anchor.body_root.ok_or_else(|| {
            Failure::new("body_not_stored", "the record names no stored body").hint("its owner has the body")
        })?;
        let known = self.salt.as_deref().map(read_salt).transpose()?;
        let client = session.party_client()?;
        let create = || format!("cannot create {}", self.out.display());
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&self.out).with_context(create)?;
        let fetched = fetch(&client, &root, &mut file).await;
        let compared = fetched.and_then(|length| {
            let commitment = known.map(|salt| commitment_of(&salt, &self.out)).transpose()?;
            match commitment {
                Some(commitment) if commitment != anchor.commitment => bail!(
                    Failure::new("commitment_differs", "the body is not the one that the record commits to").hint(
                        "ask another node with --node, and tell the operator; or the salt is that of another body"
                    )
                ),
                commitment => Ok((length, commitment.is_some())),
            }
        });
        let (length, verified) = compared.inspect_err(|_| {
            // What is not the body must not lie there under its name.
            let _ = std::fs::remove_file(&self.out);
        })?;
        let record = Record::new()
            .with("record", self.record.to_hex())
            .with("body_root", root.to_hex())
            .with("bytes", length)
            .with("verified", verified)
            .with("file", self.out.display().to_string());
        session.output.record(&record)?;
        Ok(0)
    }
}

/// Writes a body to a file, piece by piece; its length.
async fn fetch(client: &Client, root: &Hash, file: &mut File) -> Result<u64> {
    let (mut length, mut whole) = (0, None);
    while whole != Some(length) {
        let (piece, total) = match client.body(root, length, PIECE_BYTES).await {
            Ok(found) => found,
            // An empty body has no range.
            Err(error) if error.code() == "range_invalid" && length == 0 => break,
            Err(error) => return Err(error.into()),
        };
        if whole.is_some_and(|known| known != total) {
            bail!(Failure::new("body_changed", "the node gives bodies of different lengths under one root"));
        }
        file.write_all(&piece)?;
        length += piece.len() as u64;
        whole = Some(total);
    }
    file.sync_all()?;
    Ok(length)
}

/// The salt in a file, which is made when it is missing, so that a command that failed can be given again. Whoever has a
/// salt can test guesses of the body, so it is kept like a key.
fn salt(path: &Path) -> Result<[u8; SALT_BYTES]> {
    if path.exists() {
        return read_salt(path);
    }
    let salt = random()?;
    write_secret_new(path, hex::encode(salt).as_bytes())?;
    Ok(salt)
}

fn read_salt(path: &Path) -> Result<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    hex::decode_to_slice(read_secret(path)?.trim_end(), &mut salt).map_err(|_| {
        Failure::new("salt_malformed", format!("{} does not hold 64 hexadecimal digits", path.display()))
            .hint("move it out of the way if it is no salt; without its salt nobody can show what a record commits to")
    })?;
    Ok(salt)
}

/// The commitment to what a file holds.
fn commitment_of(salt: &[u8; SALT_BYTES], path: &Path) -> Result<Hash> {
    let read = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(read)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).map_err(|_| anyhow!("salt"))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(read)? {
            0 => return Ok(Hash(mac.finalize().into_bytes().into())),
            length => mac.update(&buffer[..length]),
        }
    }
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
