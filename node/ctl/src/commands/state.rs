//! `stele state`: prove values of the state in a file, export it, check that of a stopped node.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use stele_ledger::value::CertificateRecord;
use stele_types::limits::{STATE_BUNDLE_BYTES_MAX, STATE_BUNDLE_VALUES_MAX};
use stele_types::{Hash, NetworkId, cbor};
use stele_verify::state::ProvenState;
use stele_verify::{StateVerdict, state};

use crate::commands::network::add_peers;
use crate::commands::receipt::network_id;
use crate::commands::{block_on, genesis, refuse, run_daemon};
use crate::describe::{self, Object};
use crate::failure::Failure;
use crate::localnet::steled_beside_this_program;
use crate::output::{Record, note};
use crate::session::Session;
use crate::state_query;
use crate::verification::{Request, state_values};

/// Prove values of the state in a file, export it, check that of a stopped node.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Fetch a proof of one or more objects, present or absent, verify it and write it to a file
    ///
    /// The file carries everything from the genesis file's validators to the values and is verified offline. A value of a
    /// certificate number is the asset's id; the asset comes with it.
    Prove(ProveArguments),
    /// Verify a proof of `state prove` offline
    ///
    /// A proof speaks of keys, and whoever verifies says of which objects: name them to see what their values say, and to
    /// have a proof refused that lacks one. Exit codes: 0 all present, 1 invalid, 2 usage, 5 something is absent.
    Verify(VerifyArguments),
    /// Write a snapshot of the whole state to a directory, every chunk verified (`steled state fetch`, `steled state copy`)
    ///
    /// From running nodes, as an operator or regulator: every chunk is verified from the genesis file on, and the header that
    /// certifies the state is written beside it. Or from a node's data directory, without a connection; the node need not
    /// run.
    Export(ExportArguments),
    /// Check the state of a stopped node or an exported snapshot, file by file, without changing it (`steled state fsck`)
    ///
    /// Exit codes: 0 sound, 1 not checked, 4 damaged.
    Fsck(FsckArguments),
}

/// Arguments of `state prove`.
#[derive(Debug, Args)]
pub struct ProveArguments {
    /// Objects: party/ID, key/ID, record/ID, asset/ID, certificate/NUMBER, mandate/ID or proposal/ID
    #[arg(required = true, value_name = "KIND/ID")]
    pub objects: Vec<String>,
    /// File to write [default: KIND-ID.state, of the first object]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Arguments of `state verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Proof, as `state prove` wrote it
    pub proof: PathBuf,
    /// Objects that it has to be about: party/ID, key/ID, record/ID, asset/ID, certificate/NUMBER, mandate/ID or proposal/ID
    #[arg(value_name = "KIND/ID")]
    pub objects: Vec<String>,
    /// Genesis file [default: that of the network directory]
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Network id, when there is a pin and no genesis file; the state's hash function is taken for SHA-256 then
    #[arg(long, value_name = "HEX", value_parser = network_id)]
    pub network: Option<NetworkId>,
}

/// Arguments of `state export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Directory to write to; it holds no snapshot yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Nodes to fetch from, by name or HOST:PORT of the party listener [default: all]
    #[arg(long, value_delimiter = ',')]
    pub from: Vec<String>,
    /// Data directory of a node, in place of nodes that run
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub data_dir: Option<PathBuf>,
    /// Height of the snapshot [default: the newest]
    #[arg(long)]
    pub height: Option<u64>,
    /// The node's program [default: steled beside this program]
    #[arg(long)]
    pub steled: Option<PathBuf>,
}

/// Arguments of `state fsck`.
#[derive(Debug, Args)]
pub struct FsckArguments {
    /// Data directory of the node, or a directory that `state export` wrote
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Genesis file [default: that of the network directory]
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Print JSON, as with `--output json`
    #[arg(long)]
    pub json: bool,
    /// The node's program [default: steled beside this program]
    #[arg(long)]
    pub steled: Option<PathBuf>,
}

impl StateCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; verdicts and damage are exit codes.
    pub fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Prove(arguments) => block_on(arguments.run(session)),
            Self::Verify(arguments) => arguments.run(session),
            Self::Export(arguments) => arguments.run(session),
            Self::Fsck(arguments) => arguments.run(session),
        }
    }
}

impl ProveArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let objects: Vec<Object> = self.objects.iter().map(|path| Object::parse_path(path)).collect::<Result<_>>()?;
        let Some(first) = objects.first().filter(|_| objects.len() <= STATE_BUNDLE_VALUES_MAX / 2) else {
            bail!(
                Failure::new("parameter_invalid", format!("{} objects are too many for one proof", objects.len()))
                    .hint(format!("name {} at most", STATE_BUNDLE_VALUES_MAX / 2))
            );
        };
        let bundle = state_query::bundle(&session.reader()?, &objects).await?;
        let verdict = state::verify_bundle(&bundle, &session.anchor()?).context("the proof that the node gave")?;
        let bytes = cbor::to_vec(&bundle);
        if bytes.len() > STATE_BUNDLE_BYTES_MAX {
            bail!(
                Failure::new("too_large", format!("the proof has {} bytes", bytes.len()))
                    .hint("ask for fewer objects at once, or begin the chain of validators later with --pin")
            );
        }
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("{}-{}.state", first.kind(), first.id())));
        std::fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
        show(session, &verdict, &objects)?;
        note(&format!("{}: {} bytes; it verifies offline with `stele state verify`", out.display(), bytes.len()));
        Ok(verdict.exit_code())
    }
}

impl VerifyArguments {
    /// No connection is opened.
    fn run(self, session: &Session) -> Result<u8> {
        let objects: Vec<Object> = self.objects.iter().map(|path| Object::parse_path(path)).collect::<Result<_>>()?;
        let keys: Vec<Hash> = objects.iter().map(|object| Hash(object.state_key())).collect();
        let genesis = if self.network.is_some() { self.genesis } else { self.genesis.or_else(|| genesis(session)) };
        let request =
            Request { proof: self.proof, genesis, network: self.network, pin: session.pin, ..Request::default() };
        match request.run_state(&keys) {
            Ok(verdict) => {
                show(session, &verdict, &objects)?;
                Ok(verdict.exit_code())
            }
            Err(error) => refuse(session, &error),
        }
    }
}

impl ExportArguments {
    /// The work is the daemon's, because the stores are.
    fn run(self, session: &Session) -> Result<u8> {
        let mut command = Command::new(program(self.steled)?);
        match &self.data_dir {
            Some(data_dir) => command.args(["state", "copy"]).arg("--data-dir").arg(data_dir),
            None => {
                let dir = session.dir()?;
                command.args(["state", "fetch"]).arg("--genesis").arg(dir.genesis());
                add_peers(&mut command, &dir, session.party_name()?, &self.from, None)?;
                &mut command
            }
        };
        command.arg("--out").arg(&self.out);
        if let Some(height) = self.height {
            command.arg("--height").arg(height.to_string());
        }
        run_daemon(&mut command)
    }
}

impl FsckArguments {
    fn run(self, session: &Session) -> Result<u8> {
        let Some(genesis) = self.genesis.or_else(|| genesis(session)) else {
            bail!(
                Failure::new("genesis_missing", "the check needs the network's genesis file")
                    .hint("name it with --genesis, or the network's directory with --network-dir")
            );
        };
        let mut command = Command::new(program(self.steled)?);
        command.args(["state", "fsck"]).arg("--data-dir").arg(&self.data_dir).arg("--genesis").arg(genesis);
        if self.json || session.output.is_json() {
            command.arg("--json");
        }
        run_daemon(&mut command)
    }
}

fn program(named: Option<PathBuf>) -> Result<PathBuf> {
    named.map_or_else(steled_beside_this_program, Ok)
}

/// What is proven: all of it for programs, a paragraph for each value for people.
fn show(session: &Session, verdict: &StateVerdict, objects: &[Object]) -> Result<()> {
    if session.output.is_json() {
        return session.output.record(&state_values(verdict).into());
    }
    let objects = with_assets(verdict, objects)?;
    for (number, proven) in verdict.values.iter().enumerate() {
        if number > 0 {
            session.output.text("")?;
        }
        let object = objects.iter().find(|object| object.state_key() == proven.key.0);
        session.output.record(&record_of(proven, object)?)?;
    }
    Ok(())
}

/// The objects, and the assets that certificate numbers lead to.
fn with_assets(verdict: &StateVerdict, objects: &[Object]) -> Result<Vec<Object>> {
    let mut all = objects.to_vec();
    for object in objects.iter().filter(|object| matches!(object, Object::Certificate(_))) {
        if let Some(value) = &verdict.about(&Hash(object.state_key()))?.value {
            all.push(Object::Asset(describe::read::<CertificateRecord>(value)?.asset));
        }
    }
    Ok(all)
}

fn record_of(proven: &ProvenState, object: Option<&Object>) -> Result<Record> {
    let value = proven.value.as_deref();
    let record = match (object, value) {
        (Some(object), Some(value)) => object.describe(value)?,
        (Some(object), None) => Record::new().with(object.kind(), object.id()),
        (None, value) => Record::new().with_option("value", value.map(hex::encode)),
    };
    Ok(Record::new()
        .with("state", if value.is_some() { "present" } else { "absent" })
        .with("key", proven.key.to_hex())
        .with("height", proven.height.0)
        .with("time_ms", proven.time_ms)
        .and(record))
}
