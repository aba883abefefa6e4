//! Nodes whose keys are in hardware: for each a real TPM in software, a PKCS#11 token if asked for, and a `stele-signer`.
//!
//! ```text
//!  directory/node-1/  tpm/  token/  signer.toml  state/  signer.sock  node-keys.json  signer.log
//!                      ▲      ▲          └── stele-signer init, adopt, run
//!                   swtpm  SoftHSM
//! ```

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use stele_ctl::network::init::HeldKeys;

use crate::{Maker, slow_tpm};

/// How long a process may take to listen on a busy machine.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether it does.
const POLL: Duration = Duration::from_millis(10);
/// SoftHSM's library, as Debian installs it.
const TOKEN_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The token's user PIN.
const PIN: &str = "123456";

/// What holds the checkpoint key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealIn {
    /// The TPM.
    Tpm,
    /// A token of SoftHSM's.
    Token,
}

/// The TPM and the signer of one node. Both are killed when it is dropped.
pub struct SignerHost {
    directory: PathBuf,
    port: u16,
    /// Where the signer reaches the TPM.
    reached_at: u16,
    tpm: Option<Child>,
    signer: Option<Child>,
}

/// Makes the signers of a network's nodes, in order; the checkpoint key of node `i` lies in `seal(i)`.
///
/// # Errors
/// As [`SignerHost::make`].
pub fn make_all(directory: &Path, nodes: usize, seal: impl Fn(usize) -> SealIn) -> Result<Vec<SignerHost>> {
    let make = |index: usize| SignerHost::make(&directory.join(format!("node-{}", index + 1)), seal(index));
    (0..nodes).map(make).collect()
}

/// Binds signers to the network of a genesis file, and starts them.
///
/// # Errors
/// When one refuses or does not start.
pub fn start_all(hosts: &mut [SignerHost], genesis: &Path) -> Result<()> {
    hosts.iter_mut().try_for_each(|host| {
        host.adopt(genesis)?;
        host.start()
    })
}

/// A verifier's policy for these machines. No firmware measures anything into an emulated TPM: its PCRs are as it was
/// switched on, or PCR 4 has one of the values `measured`. A release's policy has the values that it predicts.
pub fn policy(measured: &[String]) -> serde_json::Value {
    let nothing = format!("sha256:{}", "00".repeat(32));
    let rule = |pcr: u8| {
        let more = if pcr == 4 { measured } else { &[] };
        let allowed: Vec<_> = std::iter::once(&nothing).chain(more).map(|value| json!({ "value": value })).collect();
        json!({ "pcr": pcr, "allowed": allowed })
    };
    let rules: Vec<_> = [0, 4, 7, 9, 11].map(rule).into();
    json!({
        "bank": "sha256",
        "pcrs": rules,
        "event_log_required": false,
        "extended_after_boot": [],
        "firmware_versions": [],
    })
}

impl SignerHost {
    /// Makes a TPM fresh from the factory, a token if `seal` wants one, and the node's keys in them.
    ///
    /// # Errors
    /// When a program is missing or fails.
    pub fn make(directory: &Path, seal: SealIn) -> Result<Self> {
        Self::make_by(directory, seal, Duration::ZERO, None)
    }

    /// As [`SignerHost::make`], with a TPM whose endorsement keys `maker` certified.
    ///
    /// # Errors
    /// As [`SignerHost::make`].
    pub fn make_certified(directory: &Path, seal: SealIn, maker: &Maker) -> Result<Self> {
        Self::make_by(directory, seal, Duration::ZERO, Some(maker))
    }

    /// As [`SignerHost::make`], with a TPM that takes `delay` longer for each signature.
    ///
    /// # Errors
    /// As [`SignerHost::make`].
    pub fn make_slow(directory: &Path, seal: SealIn, delay: Duration) -> Result<Self> {
        Self::make_by(directory, seal, delay, None)
    }

    fn make_by(directory: &Path, seal: SealIn, delay: Duration, maker: Option<&Maker>) -> Result<Self> {
        fs::create_dir_all(directory.join("tpm")).with_context(|| format!("cannot create {}", directory.display()))?;
        if let Some(maker) = maker {
            maker.make_tpm(&directory.join("tpm"))?;
        }
        let port = free_ports();
        let mut host = Self { directory: directory.to_owned(), port, reached_at: port, tpm: None, signer: None };
        host.power_on()?;
        if !delay.is_zero() {
            host.reached_at = free_ports();
            slow_tpm::relay(host.reached_at, port, delay)?;
        }
        if seal == SealIn::Token {
            host.make_token()?;
        }
        host.configure(seal)?;
        let keys = host.path("node-keys.json");
        host.run(host.signer_command(&["init"]).arg("--out").arg(&keys))?;
        Ok(host)
    }

    /// SHA-256 of the endorsement key's `SubjectPublicKeyInfo`, hexadecimal, as the signer tells it on the machine itself.
    ///
    /// # Errors
    /// When the signer does not run.
    pub fn endorsement_fingerprint(&self) -> Result<String> {
        let status: serde_json::Value = serde_json::from_str(&self.signer(&["status"])?).context("status")?;
        let told = status["tpm"]["endorsement_key_sha256"].as_str();
        Ok(told.context("the signer tells no endorsement key")?.to_owned())
    }

    /// The public halves of its keys, and where the signer listens.
    ///
    /// # Errors
    /// When the file of the keys cannot be read.
    pub fn held_keys(&self) -> Result<HeldKeys> {
        HeldKeys::read(&self.path("node-keys.json"), &self.socket())
    }

    /// Binds the signer to a network.
    ///
    /// # Errors
    /// When the signer refuses.
    pub fn adopt(&self, genesis: &Path) -> Result<()> {
        self.run(self.signer_command(&["adopt"]).arg("--genesis").arg(genesis))
    }

    /// Where the signer listens.
    pub fn socket(&self) -> PathBuf {
        self.path("signer.sock")
    }

    /// Name of the TPM's interface.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.reached_at)
    }

    /// What the signer keeps on its disk.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Starts the signer; returns when it listens.
    ///
    /// # Errors
    /// When it ends instead, with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("signer.log")).context("signer.log")?;
        let mut command = self.signer_command(&["run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().context("stele-signer cannot be started")?;
        let started = Instant::now();
        // The file may be that of a signer that was killed.
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = process.try_wait()? {
                bail!("stele-signer ended with {status}:\n{}", self.log()?);
            }
            if started.elapsed() > START_WAIT_MAX {
                drop(process.kill());
                bail!("stele-signer does not listen:\n{}", self.log()?);
            }
            std::thread::sleep(POLL);
        }
        self.signer = Some(process);
        Ok(())
    }

    /// Kills the signer, as a power cut would.
    pub fn kill(&mut self) {
        kill(self.signer.take());
    }

    /// Whether the signer still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(match &mut self.signer {
            Some(process) => process.try_wait()?.is_none(),
            None => false,
        })
    }

    /// Id of the signer's process, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.signer.as_ref().map(Child::id)
    }

    /// Cuts the TPM's power.
    pub fn power_off(&mut self) {
        kill(self.tpm.take());
    }

    /// Switches the TPM on: it is reset, what it keeps stays.
    ///
    /// # Errors
    /// When swtpm is missing or does not start.
    pub fn power_on(&mut self) -> Result<()> {
        let started = Instant::now();
        // Connections of the process before may hold the port for a moment.
        while !self.try_power_on()? {
            if started.elapsed() > START_WAIT_MAX {
                bail!("swtpm does not listen on port {}", self.port);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn try_power_on(&mut self) -> Result<bool> {
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", self.path("tpm").display()));
        command.arg("--server").arg(format!("type=tcp,port={}", self.port));
        command.arg("--ctrl").arg(format!("type=tcp,port={}", self.port + 1));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().context("swtpm cannot be started: `cargo xtask setup` installs it")?;
        let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        while !(listens(self.port + 1) && listens(self.port)) {
            if process.try_wait()?.is_some() {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
        self.tpm = Some(process);
        Ok(true)
    }

    /// Extends a PCR by a digest, as firmware does that measures something. The signer must not run: the TPM has one caller.
    ///
    /// # Errors
    /// When `tpm2_pcrextend` is missing or fails.
    pub fn extend_pcr(&self, pcr: u8, digest: &str) -> Result<()> {
        let mut command = Command::new("tpm2_pcrextend");
        self.run(command.args(["-T", &self.tcti()]).arg(format!("{pcr}:sha256={digest}")))
    }

    /// Everything that the signer has written to its log.
    ///
    /// # Errors
    /// When it was never started.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.path("signer.log")).context("signer.log")
    }

    /// Runs `stele-signer` with its configuration, and gives what it says on standard output.
    ///
    /// # Errors
    /// When it fails, with what it says on standard error.
    pub fn signer(&self, words: &[&str]) -> Result<String> {
        output(&mut self.signer_command(words))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn signer_command(&self, words: &[&str]) -> Command {
        let program = std::env::var_os("STELE_BIN_DIR").map(PathBuf::from);
        let program = program.or_else(|| Some(std::env::current_exe().ok()?.parent()?.to_owned()));
        let mut command = Command::new(program.unwrap_or_default().join("stele-signer"));
        command.args(words).arg("--config").arg(self.path("signer.toml"));
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        output(command).map(drop)
    }

    fn make_token(&self) -> Result<()> {
        let tokens = self.path("token");
        fs::create_dir_all(&tokens)?;
        let configuration = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(self.path("softhsm2.conf"), configuration)?;
        let mut make = Command::new("softhsm2-util");
        make.args(["--init-token", "--free", "--label", "node", "--so-pin", "87654321", "--pin", PIN]);
        self.run(make.env("SOFTHSM2_CONF", self.path("softhsm2.conf")))
    }

    fn configure(&self, seal: SealIn) -> Result<()> {
        let user = rustix::process::getuid().as_raw();
        // Only root may lock more memory than a few MiB.
        let lock = user == 0;
        let tcti = self.tcti();
        let mut text = format!(
            "[socket]\npath = \"signer.sock\"\nusers = [{user}]\n\n[state]\ndirectory = \"state\"\n\n[process]\n\
             lock_memory = {lock}\n\n[tpm]\naddress = \"{tcti}\"\nboot_log = \"boot.log\"\nima_log = \"ima.log\"\n\
             manifest = \"manifest.json\"\n\n[validator]\nsigner = \"tpm\"\n\n"
        );
        match seal {
            SealIn::Tpm => text += "[seal]\nsigner = \"tpm\"\n",
            SealIn::Token => {
                let token = format!("[token]\nmodule = \"{TOKEN_MODULE}\"\nlabel = \"node\"\npin = \"pin\"\n\n");
                text += &(token + "[seal]\nsigner = \"pkcs11\"\nlabel = \"seal\"\n");
                let mut pin = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path("pin"))?;
                std::io::Write::write_all(&mut pin, PIN.as_bytes())?;
            }
        }
        fs::write(self.path("signer.toml"), text).context("signer.toml")
    }
}

impl Drop for SignerHost {
    fn drop(&mut self) {
        self.kill();
        self.power_off();
    }
}

fn kill(process: Option<Child>) {
    if let Some(mut process) = process {
        drop(process.kill());
        drop(process.wait());
    }
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{program} cannot be run"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{program}: {} {}", output.status, text(&output.stderr).trim());
    }
    Ok(text(&output.stdout))
}

/// A port that is free with the one after it, below those that the kernel gives to connections. Hosts that are made at the
/// same time look at different places.
fn free_ports() -> u16 {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let place = std::process::id().wrapping_mul(7919).wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + 2 * u16::try_from(place % 5_000).unwrap_or_default();
        if free(port) && free(port + 1) {
            return port;
        }
    }
}
