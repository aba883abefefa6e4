//! `stele backup` and `stele restore`: backups of nodes, and nodes made of them. The work is the daemon's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::commands::run_daemon;
use crate::commands::storage::one_node;
use crate::localnet::steled_beside_this_program;
use crate::session::Session;

/// Back up a node, and prove that the backup is one.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Add a backup of a node to a repository, while the node runs (`steled backup create`)
    ///
    /// Run it where the node's data directory is. The first backup copies everything, each later one what is new; one that is
    /// broken off leaves the others as they are, and the next goes on where it ended. No private key and no guard is in it.
    /// Exit codes: 0 made, 1 not made, 4 made, but bodies could not be read and are not in it.
    Create(CreateArguments),
    /// Verify a backup without a node and without keys, from its genesis file on (`steled backup verify`)
    ///
    /// Every header with its quorum, entries, outcomes and log of every block, the state under its root, every body under
    /// its own. Exit codes: 0 sound, 1 not checked, 4 damaged.
    Verify(VerifyArguments),
    /// List the backups of a repository (`steled backup list`)
    List(Repository),
    /// Show where a network that was lost begins again, from the repositories of its nodes (`steled backup point`)
    Point(PointArguments),
    /// Rehearse a restore: into a scratch directory, bodies opened, nothing left behind (`steled backup drill`)
    ///
    /// What was never restored is no backup: have a timer run it every week. Exit codes: 0 it can be restored, 1 not
    /// rehearsed, 4 damaged.
    Drill(DrillArguments),
    /// Remove all but the newest backups, and the files that no other needs (`steled backup prune`)
    Prune(PruneArguments),
    /// Make a recovery key, whose private half opens class keys when a node's custody key is lost
    RecoveryKey(RecoveryKeyArguments),
}

/// Which repository.
#[derive(Debug, Args)]
pub struct Repository {
    /// Directory of the backups
    #[arg(long, value_name = "DIR")]
    pub repository: PathBuf,
    /// The daemon.
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Which daemon does it.
#[derive(Debug, Args)]
pub struct Daemon {
    /// The node's program [default: steled beside this program]
    #[arg(long, value_name = "FILE")]
    pub steled: Option<PathBuf>,
}

/// Which node.
#[derive(Debug, Args)]
pub struct Node {
    /// Configuration file of the node [default: that of --node in the network directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `backup create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// The node.
    #[command(flatten)]
    pub node: Node,
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Public recovery key, in hexadecimal or a file that has it: class keys are sealed for it, too
    #[arg(long, value_name = "KEY")]
    pub recovery_key: Option<String>,
    /// The node does not run: read its drives; it cannot start meanwhile
    #[arg(long)]
    pub stopped: bool,
}

/// Arguments of `backup verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Number of the backup [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    pub backup: Option<u64>,
    /// Genesis file, to have a backup of another network refused [default: that of the network directory]
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
}

/// Arguments of `backup point`.
#[derive(Debug, Args)]
pub struct PointArguments {
    /// Directories of the backups of the nodes
    #[arg(long, value_name = "DIR", required = true, value_delimiter = ',')]
    pub repository: Vec<PathBuf>,
    /// The daemon.
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Arguments of `backup drill`.
#[derive(Debug, Args)]
pub struct DrillArguments {
    /// The node whose configuration and custody key are used.
    #[command(flatten)]
    pub node: Node,
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Number of the backup [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    pub backup: Option<u64>,
    /// Rehearse with the private half of the recovery key, and a custody key made for the purpose
    #[arg(long, value_name = "FILE")]
    pub unseal_key: Option<PathBuf>,
    /// Folder for the scratch directory, with room for all that is restored [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Bodies that are opened, taken at random; every one is restored and has its root [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub bodies: Option<usize>,
}

/// Arguments of `backup prune`.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Backups that stay, the newest
    #[arg(long, value_name = "COUNT")]
    pub keep: u32,
}

/// Arguments of `backup recovery-key`.
#[derive(Debug, Args)]
pub struct RecoveryKeyArguments {
    /// File for the private half; keep it away from nodes and backups
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The daemon.
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The node.
    #[command(flatten)]
    pub node: Node,
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Number of the backup [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    pub backup: Option<u64>,
    /// Private half of the recovery key, or custody key of the node of the backup, where this node's custody key is another
    #[arg(long, value_name = "FILE")]
    pub unseal_key: Option<PathBuf>,
}

impl BackupCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the daemon cannot be run; what it finds is its exit code.
    pub fn run(self, session: &Session) -> Result<u8> {
        let call = match self {
            Self::Create(arguments) => {
                let call = Call::new(&["backup", "create"]).node(&arguments.node, session)?;
                let call = call.option("--recovery-key", arguments.recovery_key).flag("--stopped", arguments.stopped);
                call.repository(arguments.repository)
            }
            Self::Verify(arguments) => {
                let genesis = arguments.genesis.or_else(|| crate::commands::genesis(session));
                let call = Call::new(&["backup", "verify"]).option("--genesis", genesis);
                call.number(arguments.backup).repository(arguments.repository)
            }
            Self::List(repository) => Call::new(&["backup", "list"]).repository(repository),
            Self::Point(arguments) => {
                let call = Call { steled: arguments.daemon.steled, ..Call::new(&["backup", "point"]) };
                arguments.repository.into_iter().fold(call, |call, path| call.option("--repository", Some(path)))
            }
            Self::Drill(arguments) => Call::new(&["backup", "drill"])
                .node(&arguments.node, session)?
                .number(arguments.backup)
                .option("--unseal-key", arguments.unseal_key)
                .option("--scratch", arguments.scratch)
                .option("--bodies", arguments.bodies.map(|bodies| bodies.to_string()))
                .repository(arguments.repository),
            Self::Prune(arguments) => {
                let keep = Some(arguments.keep.to_string());
                Call::new(&["backup", "prune"]).option("--keep", keep).repository(arguments.repository)
            }
            Self::RecoveryKey(arguments) => {
                let call = Call::new(&["backup", "recovery-key"]).option("--out", Some(arguments.out));
                return Call { steled: arguments.daemon.steled, ..call }.run();
            }
        };
        call.flag("--json", session.output.is_json()).run()
    }
}

impl RestoreArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// As [`BackupCommand::run`].
    pub fn run(self, session: &Session) -> Result<u8> {
        let call = Call::new(&["restore"]).node(&self.node, session)?.number(self.backup);
        let call = call.option("--unseal-key", self.unseal_key).repository(self.repository);
        call.flag("--json", session.output.is_json()).run()
    }
}

/// A call of the daemon.
struct Call {
    arguments: Vec<OsString>,
    steled: Option<PathBuf>,
}

impl Call {
    fn new(command: &[&str]) -> Self {
        Self { arguments: command.iter().map(OsString::from).collect(), steled: None }
    }

    fn option(mut self, name: &str, value: Option<impl Into<OsString>>) -> Self {
        if let Some(value) = value {
            self.arguments.extend([name.into(), value.into()]);
        }
        self
    }

    fn flag(mut self, name: &str, is_set: bool) -> Self {
        self.arguments.extend(is_set.then(|| name.into()));
        self
    }

    fn number(self, number: Option<u64>) -> Self {
        self.option("--backup", number.map(|number| number.to_string()))
    }

    fn repository(self, Repository { repository, daemon }: Repository) -> Self {
        Self { steled: daemon.steled, ..self }.option("--repository", Some(repository))
    }

    fn node(self, node: &Node, session: &Session) -> Result<Self> {
        let config = match &node.config {
            Some(config) => config.clone(),
            None => session.dir()?.node(&one_node(session)?.name).config(),
        };
        Ok(self.option("--config", Some(config)))
    }

    fn run(self) -> Result<u8> {
        let steled = self.steled.map_or_else(steled_beside_this_program, Ok)?;
        run_daemon(Command::new(steled).args(self.arguments))
    }
}
