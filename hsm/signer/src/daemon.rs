//! The program: arguments, log, signals, watchdog.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sd_notify::NotifyState;
use stele_evidence::Public;
use stele_hsm::{SignerError, remote::SignerSocket};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{error, info, warn};

use crate::{
    config::{Config, ConfigError},
    hardware::StateFiles,
    identity,
    keys::Keys,
    process, provision, recovery,
    server::Server,
};

/// Threads of requests: votes, checkpoints, and what an operator asks.
const WORKERS: usize = 4;

/// Exit status when the state directory is an old or second copy: a supervisor must not try again.
const EXIT_COPIED: u8 = 4;

/// Holds a node's keys in a TPM, a PKCS#11 token or memory, and signs for `steled` over a Unix socket.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file.
    #[arg(long, global = true, env = "STELE_SIGNER_CONFIG", default_value = "/etc/stele/signer.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Sign until SIGTERM or SIGINT.
    Run,
    /// Check the configuration file, without touching hardware.
    CheckConfig,
    /// Make the node's keys, its guards and the TPM's epoch, once; print the public halves as JSON.
    Init {
        /// File for the public halves [default: standard output]
        #[arg(long)]
        out: Option<PathBuf>,
        /// New folder for the shares of the custody key that [custody.shares] asks for.
        #[arg(long, value_name = "DIR")]
        shares: Option<PathBuf>,
        /// Leave the custody key out: it is imported or recovered.
        #[arg(long, conflicts_with = "shares")]
        without_custody: bool,
    },
    /// Bind the keys to a network, once: from now on its checkpoints are signed and no other's.
    Adopt {
        /// Genesis file of the network.
        #[arg(long)]
        genesis: PathBuf,
    },
    /// Print the public halves of the keys again.
    Keys,
    /// Print what the TPM says of itself and of the keys, as JSON, before there is a network. Stop the signer first.
    Identity,
    /// Make a guard that was lost; it signs nothing below a height, or a size of the log. Stop the signer first.
    Guard(GuardArguments),
    /// Bring a custody key from elsewhere, or split the one that is here. Stop the signer first.
    #[command(subcommand)]
    Custody(CustodyCommand),
    /// Ask the signer that runs what it holds.
    Status,
}

#[derive(Subcommand)]
enum CustodyCommand {
    /// Take the custody key of a node from its file, and print the public halves; destroy the file afterwards.
    Import {
        /// The file.
        file: PathBuf,
        /// New folder for the shares that [custody.shares] asks for.
        #[arg(long, value_name = "DIR")]
        shares: Option<PathBuf>,
    },
    /// Split the custody key for the holders of [custody.shares]; no share of before joins with these.
    Split {
        /// New folder for the shares.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make the key for which holders seal their shares (`stele key share`), and print its public half.
    RecoveryKey,
    /// Join shares that were sealed for the recovery key, seal the custody key, and print the public halves.
    Recover {
        /// Files of shares, as many as are required.
        #[arg(required = true)]
        shares: Vec<PathBuf>,
    },
}

/// Arguments of `guard`.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct GuardArguments {
    /// First height at which the validator may vote again: two above the newest height of the network.
    #[arg(long, value_name = "HEIGHT")]
    from_height: Option<u64>,
    /// Fewest leaves of a log that may be signed again: one more than the log has now.
    #[arg(long, value_name = "LEAVES")]
    from_size: Option<u64>,
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    silence_tss();
    let arguments = Arguments::parse();
    match run(arguments.command, &arguments.config) {
        Ok(code) => code,
        Err(failure) => {
            // The log may not be set up yet.
            #[expect(clippy::print_stderr, reason = "errors before logging go to the terminal")]
            {
                eprintln!("stele-signer: {}: {failure:#}", code(&failure));
            }
            match failure.downcast_ref::<SignerError>() {
                Some(SignerError::TpmEpochMismatch { .. }) => ExitCode::from(EXIT_COPIED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// The stable code of a failure.
fn code(failure: &anyhow::Error) -> &'static str {
    match (failure.downcast_ref::<SignerError>(), failure.downcast_ref::<ConfigError>()) {
        (Some(error), _) => error.code(),
        (_, Some(error)) => error.code(),
        _ => "failed",
    }
}

/// The TSS writes an error to standard error for whatever a TPM refuses, expected or not.
fn silence_tss() {
    if std::env::var_os("TSS2_LOG").is_none() {
        // SAFETY: this is the first statement of the process; there is no other thread yet that could read the environment.
        unsafe { std::env::set_var("TSS2_LOG", "all+none") };
    }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn run(command: Command, path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    match command {
        Command::CheckConfig => println!("{}: configuration is sound", path.display()),
        Command::Run => {
            start_log();
            process::protect(&config.process)?;
            let keys = Arc::new(Keys::open(&config)?);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .enable_all()
                .thread_name("signer")
                .build()
                .context("the runtime did not start")?;
            runtime.block_on(serve(&config, Arc::clone(&keys)))?;
            runtime.shutdown_timeout(Duration::from_secs(2));
            if let Err(error) = keys.end(&StateFiles::of(&config)) {
                // Copies of the disk that were taken meanwhile stay current.
                warn!(code = error.code(), %error, "the epoch does not end in order");
            }
        }
        Command::Init { out, shares, without_custody } => {
            process::protect(&config.process)?;
            // Before anything is made: a path that cannot be written must not cost the keys.
            let mut file = out.map(|out| create(&out).map(|file| (file, out))).transpose()?;
            let text = provision::init(&config, &provision::Wanted { without_custody, shares })?;
            match &mut file {
                Some((file, out)) => {
                    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
                }
                None => print!("{text}"),
            }
        }
        Command::Keys => print!("{}", provision::published_keys(&config)?),
        Command::Identity => {
            process::protect(&config.process)?;
            println!("{}", serde_json::to_string_pretty(&identity::read(&config)?)?);
        }
        Command::Guard(arguments) => {
            process::protect(&config.process)?;
            let made = provision::make_guard(&config, arguments.from_height, arguments.from_size)?;
            println!("{}", made.display());
        }
        Command::Custody(command) => {
            process::protect(&config.process)?;
            match command {
                CustodyCommand::Import { file, shares } => {
                    print!("{}", recovery::import(&config, &file, shares.as_deref())?);
                }
                CustodyCommand::Split { out } => recovery::split(&config, &out)?,
                CustodyCommand::RecoveryKey => println!("{}", recovery::recovery_key(&config)?),
                CustodyCommand::Recover { shares } => print!("{}", recovery::recover(&config, &shares)?),
            }
        }
        Command::Adopt { genesis } => println!("{}", provision::adopt(&config, &genesis)?.to_hex()),
        Command::Status => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            println!("{}", serde_json::to_string_pretty(&runtime.block_on(Status::ask(&config.socket.path))?)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `status` prints.
#[derive(serde::Serialize)]
struct Status {
    tpm: Option<StatusTpm>,
    keys: Vec<StatusKey>,
}

/// By what verifiers know the TPM; its own operator reads it here, not over the network.
#[derive(serde::Serialize)]
struct StatusTpm {
    endorsement_key_sha256: String,
    attestation_key_name: String,
    epoch: Option<u64>,
}

#[derive(serde::Serialize)]
struct StatusKey {
    role: &'static str,
    signer: String,
    public_key: String,
}

impl Status {
    async fn ask(path: &Path) -> anyhow::Result<Self> {
        let socket = SignerSocket::new(path);
        let description = socket.describe().await?;
        let keys = description.keys.iter().map(|key| StatusKey {
            role: key.role.name(),
            signer: key.provider.clone(),
            public_key: hex::encode(key.public_key),
        });
        let tpm = if description.attests {
            let identity = socket.attestor().identity().await?;
            let public = |sized: &[u8]| Public::parse_sized(sized).context("a key of the TPM");
            Some(StatusTpm {
                endorsement_key_sha256: hex::encode(public(&identity.endorsement_key)?.key.fingerprint().as_bytes()),
                attestation_key_name: public(&identity.attestation_key)?.name().to_hex(),
                epoch: description.epoch,
            })
        } else {
            None
        };
        Ok(Self { tpm, keys: keys.collect() })
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create_new(path).with_context(|| format!("cannot create {}", path.display()))
}

async fn serve(config: &Config, keys: Arc<Keys>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::bind(&config.socket, Arc::clone(&keys)).await?;
    let description = keys.describe()?;
    for key in &description.keys {
        let (role, provider) = (key.role.name(), key.provider.as_str());
        info!(role, provider, key = hex::encode(key.public_key), "key");
        if provider == "software" && key.role != stele_hsm::remote::wire::Role::Epoch {
            warn!(role, "this key lies in a file: for development only");
        }
    }
    let (stop, stopping) = watch::channel(false);
    let (turns, alive) = watch::channel(0_u64);
    let running = tokio::spawn(server.run(stopping, turns));
    tokio::spawn(watchdog(alive));
    drop(sd_notify::notify(&[NotifyState::Ready]));
    info!(socket = %config.socket.path.display(), epoch = description.epoch, "ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(sd_notify::notify(&[NotifyState::Stopping]));
    stop.send_replace(true);
    if let Err(failure) = running.await {
        error!(%failure, "the server panicked");
    }
    drop(std::fs::remove_file(&config.socket.path));
    Ok(())
}

/// Tells the service manager that the loop of the server turns; hardware that hangs is told to whoever asks it.
async fn watchdog(mut alive: watch::Receiver<u64>) {
    if sd_notify::watchdog_enabled().is_none() {
        return;
    }
    while alive.changed().await.is_ok() {
        drop(sd_notify::notify(&[NotifyState::Watchdog]));
    }
}

fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("STELE_SIGNER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The journal has a clock of its own.
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let lines = lines.with_env_filter(filter);
    drop(if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().try_init() } else { lines.try_init() });
}
