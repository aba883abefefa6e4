//! The program `steled`: arguments, log, signals. It lives in the library, so that the node's futures are compiled once and
//! not again in the program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::backup::{BackupCommand, Restore};
use crate::bench::AccelBench;
use crate::config::{Config, ConfigError, LogFormat, LogSection};
use crate::join::Join;
use crate::metrics::{MessageCounter, Metrics, Version};
use crate::node::{Node, NodeError};
use crate::payload::StorageCommand;
use crate::state::StateCommand;

/// Daemon of a Stele node: admits, orders, executes, logs and seals signed statements.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node until SIGTERM or SIGINT; SIGHUP reads peers and certificates again.
    Run {
        /// Configuration file.
        #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
        config: PathBuf,
    },
    /// Check a configuration file and the files that it names, without starting anything.
    CheckConfig {
        /// Configuration file.
        #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
        config: PathBuf,
    },
    Join(Join),
    /// Export and check the state.
    #[command(subcommand)]
    State(StateCommand),
    /// Make and check the payload store of a stopped node.
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Back up a node, and prove that the backup is one.
    #[command(subcommand)]
    Backup(BackupCommand),
    Restore(Restore),
    /// Measure how fast this machine verifies and hashes, on its cores and on a GPU.
    BenchAccel(AccelBench),
}

/// Exit status for a clean halt: a newer protocol version, or results that differ from the network's. A supervisor must
/// not restart the node in a loop on it.
const EXIT_HALTED: u8 = 4;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            // The log may not be set up yet.
            #[expect(clippy::print_stderr, reason = "errors before logging go to the terminal")]
            {
                eprintln!("steled: {failure:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::CheckConfig { config: path } => {
            let config = Config::load(&path)?;
            config.check(&path)?;
            #[expect(clippy::print_stdout, reason = "the answer of the command")]
            {
                println!("{}: configuration is sound", path.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::BenchAccel(bench) => {
            bench.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Join(join) => {
            start_terminal_log();
            join.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Storage(command) => {
            start_terminal_log();
            command.run()
        }
        Command::Backup(command) => {
            start_terminal_log();
            command.run()
        }
        Command::Restore(restore) => {
            start_terminal_log();
            restore.run()
        }
        Command::State(command) => {
            start_terminal_log();
            command.run()
        }
        Command::Run { config: path } => {
            let config = Config::load(&path)?;
            config.check(&path)?;
            let metrics = Metrics::new(&Version::built());
            start_log(&config.log, Arc::clone(&metrics));
            report_panics(Arc::clone(&metrics));
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_name("steled")
                .build()
                .context("the runtime did not start")?;
            let code = runtime.block_on(serve(&path, config, metrics));
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            code
        }
    }
}

async fn serve(path: &Path, config: Config, metrics: Arc<Metrics>) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // A start may take long, and wait for what it cannot do without.
    let started = tokio::select! {
        started = Node::start(config, metrics) => started,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let node = started.map_err(|error| {
        let code = error.code();
        anyhow::Error::new(error).context(code)
    })?;
    // Readiness of the service is that of its listeners; `/readyz` says whether the node has caught up.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    info!("ready");
    let halted = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            reason = node.halted() => break Some(reason),
            _ = hangup.recv() => reload(&node, path),
        }
    };
    let code = match halted {
        Some(reason) => {
            error!(code = reason.code(), %reason, "halted; reads are served for a moment, then the process ends");
            // A halted node votes on nothing but its history stays readable until an operator stops it.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(HALTED_GRACE) => {}
            }
            if node.recovers_by_restart(&reason) { ExitCode::FAILURE } else { ExitCode::from(EXIT_HALTED) }
        }
        None => ExitCode::SUCCESS,
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    info!("stopping");
    node.stop().await;
    Ok(code)
}

/// Reads the configuration again. What cannot be used changes nothing: the node goes on with what it has.
fn reload(node: &Node, path: &Path) {
    let reloading = [Some(NotifyState::Reloading), NotifyState::monotonic_usec_now().ok()];
    let _ = sd_notify::notify(&reloading.into_iter().flatten().collect::<Vec<_>>());
    match read_again(node, path) {
        Ok(waiting) if waiting.is_empty() => info!("configuration reloaded"),
        Ok(waiting) => warn!(?waiting, "configuration reloaded; these sections also differ and wait for a restart"),
        Err(refused) => {
            let (code, error) = (refused.code(), refused.to_string());
            error!(code, error, "the new configuration is refused; the one in force stays");
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Why a new configuration is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Refused {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Node(error) => error.code(),
        }
    }
}

fn read_again(node: &Node, path: &Path) -> Result<Vec<&'static str>, Refused> {
    let config = Config::load(path)?;
    config.check(path)?;
    Ok(node.reload(config)?)
}

/// A panic is an invariant that did not hold: what comes from outside is never asserted. It is counted and logged with its
/// place. The message is shown when it stands in the program; one that was formatted may carry values.
fn report_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        // A driver's failure is the engine's to handle, and no sign of a damaged ledger.
        if std::thread::current().name().is_some_and(|name| name.starts_with(stele_accel::GPU_THREADS)) {
            warn!(place = panic.location().map(ToString::to_string), "the binding of the GPU's driver panicked");
            return;
        }
        metrics.execute.invariant_violations.increment(());
        let invariant = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("see the place");
        let place = panic.location().map(ToString::to_string);
        error!(invariant, place, "panicked: an invariant did not hold");
    }));
}

/// How long a halted node serves reads before it exits, so that a client can fetch what it was acknowledged.
const HALTED_GRACE: std::time::Duration = std::time::Duration::from_secs(3);

/// What a command that works for a while says meanwhile.
fn start_terminal_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("STELED_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .with_env_filter(filter)
        .try_init();
}

fn start_log(section: &LogSection, metrics: Arc<Metrics>) {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    use tracing_subscriber::{EnvFilter, Layer as _, fmt};
    // The engine logs every message at info; its own level is one higher. Its transport takes it for an error that a peer
    // starts later or stops earlier; `stele_order` says who is connected. STELED_LOG brings back what is silent here.
    let level = section.level.as_str();
    let silent =
        ["arc_malachitebft_network", "arc_malachitebft_discovery"].map(|target| format!("{target}=off")).join(",");
    let default = format!("{level},arc_malachitebft=warn,libp2p=warn,ractor=warn,{silent}");
    let filter = EnvFilter::try_from_env("STELED_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match section.format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    // The filter stands before both: what is not written is not counted.
    tracing_subscriber::registry().with(filter).with(lines).with(MessageCounter::new(metrics)).init();
}
