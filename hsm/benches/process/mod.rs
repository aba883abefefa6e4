//! The same signatures through `stele-signer`.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use stele_hsm::{
    PeerBindingRequest, Signer as _, SignerKind,
    remote::{SignerSocket, wire::Role},
};
use tempfile::TempDir;

use crate::{Outcome, swtpm::Swtpm};

/// A signer whose keys are in a TPM. It runs only while it is measured: an emulated TPM serves one connection.
pub(crate) struct SignerProcess {
    directory: TempDir,
    program: PathBuf,
}

impl SignerProcess {
    pub(crate) fn make(tpm: &Swtpm) -> Outcome<Self> {
        let programs =
            std::env::var_os("STELE_BIN_DIR").ok_or("STELE_BIN_DIR names no directory: use cargo xtask bench")?;
        let process = Self { directory: tempfile::tempdir()?, program: PathBuf::from(programs).join("stele-signer") };
        let user =
            fs::metadata(process.directory.path()).map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata))?;
        let text = format!(
            "[socket]\npath = \"socket\"\nusers = [{user}]\n[state]\ndirectory = \"state\"\n[process]\nlock_memory = false\n\
             [tpm]\naddress = \"{}\"\ncounter = 0x01805e1f\n[validator]\nsigner = \"tpm\"\n[seal]\nsigner = \"tpm\"\n",
            tpm.tcti()
        );
        fs::write(process.directory.path().join("signer.toml"), text)?;
        if !process.command(&["init"]).stdout(Stdio::null()).status()?.success() {
            return Err("stele-signer init failed".into());
        }
        // What `adopt` does with a genesis file.
        fs::write(process.directory.path().join("state/network"), "07".repeat(32))?;
        stele_hsm::CheckpointGuard::create(&process.directory.path().join("state/seal.checkpoints"), [7; 32])?;
        Ok(process)
    }

    /// Signatures a second of one caller.
    pub(crate) fn rate(&self, rate_of: impl FnOnce(&mut dyn FnMut() -> Outcome<()>) -> Outcome<f64>) -> Outcome<f64> {
        let mut running = Running(self.command(&["run"]).stderr(Stdio::null()).spawn()?);
        let path = self.directory.path().join("socket");
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            if running.0.try_wait()?.is_some() {
                return Err("stele-signer ended".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let signer = runtime.block_on(async {
            let socket = SignerSocket::new(&path);
            socket.signer(Role::Validator, SignerKind::Tpm).await
        })?;
        let public_key = signer.public_key().sec1_compressed.clone();
        let binding = PeerBindingRequest { public_key: &public_key, peer_id: b"peer" };
        rate_of(&mut || Ok(runtime.block_on(signer.sign_peer_binding(&binding)).map(drop)?))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--config").arg(self.directory.path().join("signer.toml"));
        command
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
