//! `steled`: the daemon of a Stele node.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use stele_node::Node;
use stele_node::config::{Config, LogFormat, LogSection};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

/// Daemon of a Stele node: admits, orders, executes, logs and seals signed statements.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node until SIGTERM or SIGINT.
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
}

/// Exit status for a clean halt: a newer protocol version, or results that differ from the network's. A supervisor must
/// not restart the node in a loop on it.
const EXIT_HALTED: u8 = 4;

fn main() -> ExitCode {
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
        Command::Run { config: path } => {
            let config = Config::load(&path)?;
            config.check(&path)?;
            start_log(&config.log);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_name("steled")
                .build()
                .context("the runtime did not start")?;
            let code = runtime.block_on(serve(config))?;
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            Ok(code)
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = Node::start(config).await?;
    // Readiness of the service is that of its listeners; `/readyz` says whether the node has caught up.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!("ready");
    let halted = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = node.halted() => Some(reason),
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
            ExitCode::from(EXIT_HALTED)
        }
        None => ExitCode::SUCCESS,
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    info!("stopping");
    node.stop().await;
    Ok(code)
}

/// How long a halted node serves reads before it exits, so that a client can fetch what it was acknowledged.
const HALTED_GRACE: std::time::Duration = std::time::Duration::from_secs(3);

fn start_log(section: &LogSection) {
    use tracing_subscriber::EnvFilter;
    // The engine and its transport log every message at info; their own level is one higher.
    let level = section.level.as_str();
    let default = format!("{level},arc_malachitebft=warn,informalsystems_malachitebft=warn,libp2p=warn,ractor=warn");
    let filter = EnvFilter::try_from_env("STELED_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match section.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(false).init(),
    }
}
