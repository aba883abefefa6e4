//! A signer process with its TPM, in a directory of its own.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use stele_hsm::{
    NodeKeys, SignerKind,
    remote::{RemoteSigner, SignerSocket, wire},
};
use stele_types::{
    Genesis, Parameters, PartyId, Suite, ValidatorSet,
    cbor::{List, Text},
    party::{EnrolledKey, Founder, PublicKey, Role, RoleSet},
    record::PlaceCode,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::swtpm::{Swtpm, run};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What holds the keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Both keys in the TPM.
    Tpm,
    /// The long-term key in the TPM, the checkpoint key in a token.
    TpmAndToken,
    /// Both keys in files.
    Files,
}

pub(crate) struct Host {
    pub(crate) runtime: Runtime,
    pub(crate) swtpm: Option<Swtpm>,
    directory: TempDir,
    process: Option<Child>,
    /// Before the program's name.
    pub(crate) shell: Option<&'static str>,
}

impl Host {
    /// Keys that are made, and a signer that has a network; it does not run yet.
    pub(crate) fn made(backing: Backing) -> Self {
        Self::made_with(backing, "")
    }

    /// The same, with more sections of the configuration.
    pub(crate) fn made_with(backing: Backing, sections: &str) -> Self {
        let host = Self::configured_with(backing, sections);
        host.program(&["init", "--out", &host.shown("node-keys.json")]).unwrap();
        host.adopt();
        host
    }

    /// Binds it to its network.
    pub(crate) fn adopt(&self) {
        fs::write(self.path("genesis.cbor"), genesis().to_bytes()).unwrap();
        self.program(&["adopt", "--genesis", &self.shown("genesis.cbor")]).unwrap();
    }

    /// A signer that runs.
    pub(crate) fn running(backing: Backing) -> Self {
        let mut host = Self::made(backing);
        host.start();
        host
    }

    /// A configuration and nothing else.
    pub(crate) fn configured(backing: Backing) -> Self {
        Self::configured_with(backing, "")
    }

    /// The same, with more sections.
    pub(crate) fn configured_with(backing: Backing, sections: &str) -> Self {
        let swtpm = (backing != Backing::Files).then(Swtpm::start);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let host = Self { runtime, swtpm, directory: tempfile::tempdir().unwrap(), process: None, shell: None };
        if backing == Backing::TpmAndToken {
            host.make_token();
        }
        host.configure_with(backing, sections);
        host
    }

    /// Writes the configuration for whoever runs the test, with more sections.
    pub(crate) fn configure_with(&self, backing: Backing, sections: &str) {
        self.configure(backing, &format!("{}", rustix::process::getuid().as_raw()));
        let mut file = fs::OpenOptions::new().append(true).open(self.path("signer.toml")).unwrap();
        file.write_all(sections.as_bytes()).unwrap();
    }

    pub(crate) fn configure(&self, backing: Backing, users: &str) {
        let mut text = format!(
            "[socket]\npath = \"signer.sock\"\nusers = [{users}]\n[state]\ndirectory = \"state\"\n[process]\nlock_memory = {}\n",
            rustix::process::getuid().is_root()
        );
        let (validator, seal) = match backing {
            Backing::Tpm => ("tpm", "tpm"),
            Backing::TpmAndToken => ("tpm", "pkcs11"),
            Backing::Files => ("software", "software"),
        };
        if let Some(swtpm) = &self.swtpm {
            text += &format!("[tpm]\naddress = \"{}\"\nboot_log = \"boot.log\"\nima_log = \"ima.log\"\n", swtpm.tcti());
            text += "manifest = \"manifest.json\"\n";
        }
        text += &format!("[validator]\nsigner = \"{validator}\"\n[seal]\nsigner = \"{seal}\"\n");
        if backing == Backing::TpmAndToken {
            text += "label = \"seal\"\n[token]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\nlabel = \"node\"\npin = \"pin\"\n";
        }
        fs::write(self.path("signer.toml"), text).unwrap();
    }

    fn make_token(&self) {
        fs::create_dir(self.path("token")).unwrap();
        let tokens = self.path("token");
        fs::write(self.path("softhsm2.conf"), format!("directories.tokendir = {}\n", tokens.display())).unwrap();
        let mut pin = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path("pin")).unwrap();
        pin.write_all(b"123456\n").unwrap();
        let mut make = Command::new("softhsm2-util");
        make.args(["--init-token", "--free", "--label", "node", "--so-pin", "87654321", "--pin", "123456"]);
        run(make.env("SOFTHSM2_CONF", self.path("softhsm2.conf")), "softhsm2-util", "softhsm2").unwrap();
    }

    /// Starts it; it must come to listen.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("signer.log")).unwrap();
        let mut command = self.command(&["run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().unwrap();
        let started = Instant::now();
        while UnixStream::connect(self.path("signer.sock")).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "{}", self.log());
            assert!(started.elapsed() < START_TIMEOUT, "{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
    }

    /// Starts it; it must refuse. Its exit status and what it says.
    pub(crate) fn refuse(&self) -> (i32, String) {
        let output = self.command(&["run"]).stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Sends it a signal and waits for its end.
    pub(crate) fn signal(&mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn socket(&self) -> SignerSocket {
        let _runtime = self.runtime.enter();
        SignerSocket::new(&self.path("signer.sock"))
    }

    pub(crate) fn signer(&self, role: wire::Role, kind: SignerKind) -> RemoteSigner {
        self.runtime.block_on(self.socket().signer(role, kind)).unwrap()
    }

    pub(crate) fn keys(&self) -> NodeKeys {
        serde_json::from_slice(&fs::read(self.path("node-keys.json")).unwrap()).unwrap()
    }

    /// Runs the program; standard output, or standard error if it fails.
    pub(crate) fn program(&self, words: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.command(words).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
    }

    /// Runs the program as another user. The directory is opened to everybody for it.
    pub(crate) fn program_as(&self, user: &str, words: &[&str]) -> Result<String, String> {
        fs::set_permissions(self.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new("setpriv");
        let copy = self.path("stele-signer");
        fs::copy(env!("CARGO_BIN_EXE_stele-signer"), &copy).unwrap();
        command.args(["--reuid", user, "--clear-groups"]).arg(copy).args(words);
        command.arg("--config").arg(self.path("signer.toml"));
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
    }

    fn command(&self, words: &[&str]) -> Command {
        const PROGRAM: &str = env!("CARGO_BIN_EXE_stele-signer");
        let mut command = match self.shell {
            Some(shell) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("{shell}; exec \"$0\" \"$@\""), PROGRAM]);
                command
            }
            None => Command::new(PROGRAM),
        };
        command.args(words).arg("--config").arg(self.path("signer.toml")).current_dir(self.directory.path());
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("signer.log")).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Copies the state directory, as a backup of the disk would.
    pub(crate) fn copy_state(&self, from: &str, to: &str) {
        drop(fs::remove_dir_all(self.path(to)));
        copy(&self.path(from), &self.path(to));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A genesis file; the signer looks at nothing but its hash.
pub(crate) fn genesis() -> Genesis {
    Genesis {
        name: Text::new("signer").unwrap(),
        region: PlaceCode::new(110_000).unwrap(),
        time_ms: 1,
        parameters: Parameters::default(),
        validators: ValidatorSet::new(vec![stele_types::Validator {
            public_key: [2; 33],
            peer_key: [3; 32],
            party: PartyId([1; 16]),
        }])
        .unwrap(),
        epoch_certificates: List::default(),
        founders: List::new((1..=2).map(governor).collect()).unwrap(),
    }
}

fn governor(number: u8) -> Founder {
    let key = EnrolledKey { suite: Suite::Es256, public_key: PublicKey::new(vec![2; 33]).unwrap() };
    let roles = RoleSet::of(&[Role::Governor]);
    Founder { party: PartyId([number; 16]), organisation: None, roles, key, tls_pins: List::default() }
}
