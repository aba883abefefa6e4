//! A maker of TPMs: an authority of its own that certifies the endorsement keys of the emulators that leave its works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A directory with the authority's keys and certificates.
#[derive(Debug)]
pub struct Maker {
    directory: PathBuf,
}

impl Maker {
    /// A maker in a new directory; nothing is written elsewhere. Its authority is made with its first TPM.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let path = |name: &str| directory.join(name).display().to_string();
        let authority = [
            format!("statedir = {}", directory.display()),
            format!("signingkey = {}", path("signkey.pem")),
            format!("issuercert = {}", path("issuercert.pem")),
            format!("certserial = {}", path("certserial")),
        ];
        let setup = [
            "create_certs_tool = /usr/bin/swtpm_localca".to_owned(),
            format!("create_certs_tool_config = {}", path("authority.conf")),
            format!("create_certs_tool_options = {}", path("authority.options")),
        ];
        let options = "--platform-manufacturer Stele\n--platform-version 1\n--platform-model Demo\n";
        fs::write(path("authority.conf"), authority.join("\n")).context("authority.conf")?;
        fs::write(path("authority.options"), options).context("authority.options")?;
        fs::write(path("setup.conf"), setup.join("\n")).context("setup.conf")?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Makes the state of a TPM with certified endorsement keys in an empty directory.
    ///
    /// # Errors
    /// When `swtpm_setup` is missing or fails, with its log.
    pub fn make_tpm(&self, state: &Path) -> Result<()> {
        let log = state.with_extension("log");
        let mut command = Command::new("swtpm_setup");
        command.args(["--tpm2", "--create-ek-cert", "--not-overwrite"]);
        command.arg("--tpm-state").arg(state).arg("--config").arg(self.directory.join("setup.conf"));
        command.arg("--logfile").arg(&log).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().context("swtpm_setup cannot be run: `cargo xtask setup` installs it")?;
        if !status.success() {
            bail!("swtpm_setup: {status}\n{}", fs::read_to_string(&log).unwrap_or_default());
        }
        Ok(())
    }

    /// The authority's certificate, PEM: what a verifier pins.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join("swtpm-localca-rootca-cert.pem")
    }

    /// The certificate between the authority's and those of endorsement keys, PEM.
    #[must_use]
    pub fn issuer(&self) -> PathBuf {
        self.directory.join("issuercert.pem")
    }
}
