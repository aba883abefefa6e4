//! `stele network`: make a network, run one on this machine, change its rules.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use stele_types::Suite;

use crate::commands::governed::party_id;
use crate::commands::upgrade::UpgradeCommand;
use crate::commands::{block_on, run_daemon, words};
use crate::failure::Failure;
use crate::localnet::{LocalNetwork, READY_WAIT_MAX, steled_beside_this_program};
use crate::network::init::{BASE_PORT, HeldKeys, InitOptions, NewNode, PayloadDrives, VoteMode, add_node, init};
use crate::network::layout::NetworkDir;
use crate::network::profile::Profile;
use crate::output::{Record, note};
use crate::session::Session;

/// How often the processes of a local network are looked at.
const WATCH: Duration = Duration::from_millis(500);

/// Make, run and change networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a new network: keys, certificates, genesis file and one configuration for each node
    Init(InitArguments),
    /// Run a network on this machine, on loopback, until Ctrl-C; it is made first when DIR is empty
    Local(LocalArguments),
    /// Make the directory of one more node for a network whose authority is here; it joins with `upgrade validators`
    AddNode(AddNodeArguments),
    /// Let a node of this directory begin at a snapshot of the state instead of at genesis (`steled join`)
    Join(JoinArguments),
    /// Propose a change of version, parameters or validators from a height on
    #[command(subcommand)]
    Upgrade(UpgradeCommand),
}

/// What a new network is made of.
#[derive(Debug, Args)]
pub struct NewNetwork {
    /// Number of validators; 4 survive the fault of one
    #[arg(long, default_value_t = 4)]
    pub validators: usize,
    /// Name of the network
    #[arg(long, default_value = "stele-local")]
    pub name: String,
    /// Division code of the register's region, six digits
    #[arg(long, default_value_t = 110_000)]
    pub region: u64,
    /// First port; node i takes five ports from here + 10 (i - 1)
    #[arg(long, default_value_t = BASE_PORT)]
    pub base_port: u16,
    /// Key of the votes
    #[arg(long, value_enum, default_value_t = VoteMode::Delegated)]
    pub mode: VoteMode,
    /// Number of founding agencies
    #[arg(long, default_value_t = 1)]
    pub agencies: usize,
    /// Suite of the agencies' keys
    #[arg(long, value_parser = words::suite, default_value = "eddsa")]
    pub agency_suite: Suite,
    /// Where each node keeps bodies of records
    #[arg(long, value_enum, default_value_t = Payload::Small)]
    pub payload: Payload,
}

/// Drives of a new node, as files in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Payload {
    /// Nowhere: it keeps none
    None,
    /// On four files of 64 MiB, of which one may be lost
    Small,
    /// On eleven files of 128 MiB, of which three may be lost, as an appliance divides its drives
    Appliance,
}

impl Payload {
    const fn drives(self) -> Option<PayloadDrives> {
        match self {
            Self::None => None,
            Self::Small => Some(PayloadDrives::SMALL),
            Self::Appliance => Some(PayloadDrives::APPLIANCE),
        }
    }
}

/// Arguments of `network init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Directory to make it in; must be empty or missing
    #[arg(long)]
    pub dir: PathBuf,
    /// The network
    #[command(flatten)]
    pub new: NewNetwork,
    /// Host of a node: once for all nodes or once for each, in order
    #[arg(long = "host", value_name = "HOST", default_value = "127.0.0.1")]
    pub hosts: Vec<String>,
    /// Public keys of a node's stele-signer, as `stele-signer init` wrote them: once for each node, in order
    #[arg(long = "node-keys", value_name = "FILE")]
    pub node_keys: Vec<PathBuf>,
    /// Where each of these signers listens: once for all nodes or once for each, in order
    #[arg(long = "signer-socket", value_name = "PATH", default_value = SIGNER_SOCKET)]
    pub signer_sockets: Vec<PathBuf>,
}

/// Where a signer listens unless its node says otherwise.
const SIGNER_SOCKET: &str = "/run/stele-signer/signer.sock";

/// Arguments of `network add-node`.
#[derive(Debug, Args)]
pub struct AddNodeArguments {
    /// Name of the node
    #[arg(long)]
    pub name: String,
    /// Name or id of the party that operates it; it must be enrolled
    #[arg(long)]
    pub operator: String,
    /// Its host
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// First of its five ports
    #[arg(long)]
    pub first_port: u16,
    /// Where it keeps bodies of records
    #[arg(long, value_enum, default_value_t = Payload::Small)]
    pub payload: Payload,
    /// Public keys of its stele-signer, as `stele-signer init` wrote them [default: keys are made here, in files]
    #[arg(long, value_name = "FILE")]
    pub node_keys: Option<PathBuf>,
    /// Where this signer listens
    #[arg(long, value_name = "PATH", default_value = SIGNER_SOCKET)]
    pub signer_socket: PathBuf,
}

/// Arguments of `network join`.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// Name of the node; it has no chain yet
    #[arg(long)]
    pub name: String,
    /// Nodes to fetch from, by name or HOST:PORT of the party listener [default: all others]
    #[arg(long, value_delimiter = ',')]
    pub from: Vec<String>,
    /// Height of the snapshot [default: the newest]
    #[arg(long)]
    pub height: Option<u64>,
    /// The node's program [default: steled beside this program]
    #[arg(long)]
    pub steled: Option<PathBuf>,
}

/// Arguments of `network local`.
#[derive(Debug, Args)]
pub struct LocalArguments {
    /// Directory of the network
    #[arg(long)]
    pub dir: PathBuf,
    /// The network, when it has to be made
    #[command(flatten)]
    pub new: NewNetwork,
    /// The node's program [default: steled beside this program]
    #[arg(long)]
    pub steled: Option<PathBuf>,
}

impl NewNetwork {
    fn options(&self, hosts: Vec<String>) -> InitOptions {
        InitOptions {
            name: self.name.clone(),
            region: self.region,
            validators: self.validators,
            hosts,
            base_port: self.base_port,
            mode: self.mode,
            agencies: self.agencies,
            agency_suite: self.agency_suite,
            payload: self.payload.drives(),
            ..InitOptions::default()
        }
    }
}

impl NetworkCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Init(arguments) => arguments.run(session),
            Self::Local(arguments) => arguments.run(session),
            Self::AddNode(arguments) => arguments.run(session),
            Self::Join(arguments) => arguments.run(session),
            Self::Upgrade(command) => block_on(command.run(session)),
        }
    }
}

impl JoinArguments {
    /// The work is the daemon's, because the stores are. It reads the state as the party that acts, an operator or a
    /// regulator.
    fn run(self, session: &Session) -> Result<u8> {
        let steled = match self.steled {
            Some(path) => path,
            None => steled_beside_this_program()?,
        };
        let mut command = join_command(&steled, &session.dir()?, &self.name, session.party_name()?, &self.from)?;
        if let Some(height) = self.height {
            command.arg("--height").arg(height.to_string());
        }
        run_daemon(&mut command)
    }
}

/// `steled join` for a node of a network's directory, as a party whose keys lie there. `from` are names or addresses of
/// nodes; none: all others.
///
/// # Errors
/// When the directory holds no network.
pub fn join_command(
    steled: &Path,
    dir: &NetworkDir,
    name: &str,
    party: &str,
    from: &[String],
) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(steled);
    command.arg("join").arg("--config").arg(dir.node(name).config());
    add_peers(&mut command, dir, party, from, Some(name))?;
    Ok(command)
}

/// Adds from which nodes `steled` fetches, and as which party. `from` are names or addresses; none: all but `except`.
pub(crate) fn add_peers(
    command: &mut std::process::Command,
    dir: &NetworkDir,
    party: &str,
    from: &[String],
    except: Option<&str>,
) -> Result<()> {
    let profile = Profile::load(dir)?;
    let party_of = |name: &String| profile.nodes.iter().find(|node| node.name == *name).map(|node| node.party.clone());
    let from: Vec<String> = if from.is_empty() {
        let others = profile.nodes.iter().filter(|node| except.is_none_or(|except| node.name != except));
        others.map(|node| node.party.clone()).collect()
    } else {
        from.iter().map(|from| party_of(from).unwrap_or_else(|| from.clone())).collect()
    };
    command.arg("--from").arg(from.join(","));
    command.arg("--authorities").arg(dir.ca_certificate());
    command.arg("--certificate").arg(dir.party(party).tls_certificate());
    command.arg("--key").arg(dir.party(party).tls_key());
    Ok(())
}

impl InitArguments {
    fn run(self, session: &Session) -> Result<u8> {
        let mut options = self.new.options(self.hosts);
        options.held = held_keys(&self.node_keys, &self.signer_sockets)?;
        let network = init(&self.dir, &options)?;
        let dir = network.dir.root().display();
        let parties: Vec<&str> = network.parties.iter().map(|party| party.name.as_str()).collect();
        let record = Record::new()
            .with("network", network.genesis.network().to_hex())
            .with("name", network.profile.name.as_str())
            .with("directory", dir.to_string())
            .with("validators", network.genesis.validators.len())
            .with("parties", parties);
        session.output.record(&record)?;
        session.output.text(&format!(
            "\nNext:\n  \
             start the nodes      stele network local --dir {dir}\n  \
             or one by one        steled run --config {dir}/nodes/node-1/steled.toml\n  \
             look at them         stele --network-dir {dir} status\n  \
             register something   stele --network-dir {dir} --as agency-1 submit FILE\n\n\
             Give each party and node its own directory and nothing else; ca.key belongs to whoever admits members.\n\
             The network id is the SHA-256 of genesis.cbor: hand that file to everyone who verifies receipts."
        ))?;
        Ok(0)
    }
}

fn held_keys(files: &[PathBuf], sockets: &[PathBuf]) -> Result<Vec<HeldKeys>> {
    if !files.is_empty() && sockets.len() != 1 && sockets.len() != files.len() {
        let what = format!("{} sockets for {} signers", sockets.len(), files.len());
        bail!(Failure::new("parameter_invalid", what).hint("name one --signer-socket for all, or one for each"));
    }
    let socket = |index: usize| sockets.get(index).or(sockets.first()).context("no socket");
    files.iter().enumerate().map(|(index, file)| HeldKeys::read(file, socket(index)?)).collect()
}

impl AddNodeArguments {
    fn run(self, session: &Session) -> Result<u8> {
        let operator = party_id(session, &self.operator)?;
        let new = NewNode {
            name: self.name,
            host: self.host,
            first_port: self.first_port,
            operator,
            payload: self.payload.drives(),
            held: self.node_keys.map(|path| HeldKeys::read(&path, &self.signer_socket)).transpose()?,
        };
        let (node, validator) = add_node(&session.dir()?, &new)?;
        let record = Record::new()
            .with("node", node.name.as_str())
            .with("validator", validator.id().to_hex())
            .with("peer_id", hex::encode(validator.peer_id()))
            .with("peer", node.peer.as_str());
        session.output.record(&record)?;
        let dir = session.dir()?.node(&node.name);
        let (dir, operator) = (dir.root().display(), self.operator);
        session.output.text(&format!(
            "\nNext:\n  \
             propose it         stele network upgrade validators --add {dir},{operator} --approve-as GOVERNOR\n  \
             start it           steled run --config {dir}/steled.toml\n\n\
             The others let it in once the change is decided; nothing has to be restarted. To let them dial it as well, \
             add its address and peer id to peers.persistent of their configurations and send them SIGHUP."
        ))?;
        Ok(0)
    }
}

impl LocalArguments {
    fn run(self, session: &Session) -> Result<u8> {
        let steled = match self.steled {
            Some(path) => path,
            None => steled_beside_this_program()?,
        };
        let options = self.new.options(vec!["127.0.0.1".into()]);
        let mut network = LocalNetwork::open_or_init(&self.dir, &options, &steled)?;
        network.start_all()?;
        network.wait_ready(READY_WAIT_MAX)?;
        session.output.records(&addresses(network.profile()))?;
        let dir = network.dir().root().display().to_string();
        session.output.text(&format!("\nReady. Try: stele --network-dir {dir} status\nCtrl-C stops the nodes."))?;
        let all_ended = wait_for_end(&mut network)?;
        if all_ended {
            bail!(
                Failure::new("node_ended", "every node ended by itself")
                    .hint(format!("their logs are {dir}/nodes/*/steled.log"))
            );
        }
        note("Stopping the nodes.");
        network.stop_all()?;
        Ok(0)
    }
}

/// Waits for Ctrl-C or SIGTERM; true when every node ended by itself before. A node that ends is told and left alone: to
/// see what its loss does is what a local network is for.
fn wait_for_end(network: &mut LocalNetwork) -> Result<bool> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let signal = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
                tokio::select! {
                    ended = tokio::signal::ctrl_c() => ended,
                    _ = terminate.recv() => Ok(()),
                }
            })
        });
        // The receiver is gone when a node ended meanwhile.
        let _ = sender.send(signal);
    });
    let mut alive = vec![true; network.len()];
    loop {
        match receiver.recv_timeout(WATCH) {
            Ok(signal) => {
                signal.context("waiting for Ctrl-C")?;
                return Ok(false);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(false),
        }
        for (node, lives) in alive.iter_mut().enumerate() {
            if *lives && !network.is_running(node)? {
                *lives = false;
                note(&format!("{} ended; its log is in its directory", network.profile().nodes[node].name));
            }
        }
        if !alive.contains(&true) {
            return Ok(true);
        }
    }
}

fn addresses(profile: &Profile) -> Vec<Record> {
    let node = |node: &crate::network::NodeProfile| {
        Record::new()
            .with("node", node.name.as_str())
            .with("parties", format!("https://{}", node.party))
            .with("public", format!("https://{}", node.public))
            .with_option("plain", node.plain.as_ref().map(|address| format!("http://{address}")))
            .with("metrics", format!("http://{}/metrics", node.metrics))
    };
    profile.nodes.iter().map(node).collect()
}
