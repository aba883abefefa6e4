//! What a ceremony is to do: from a file, or from answers on the terminal.

use std::fs;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::failure::Failure;
use crate::output::note;

/// Longest script in bytes.
const SCRIPT_BYTES_MAX: u64 = 64 << 10;

/// Those who are present at most.
const PRESENT_MAX: usize = 32;

/// Longest answer in bytes.
const TEXT_LENGTH_MAX: usize = 256;

/// What a ceremony is to do. Relative paths are relative to the directory of its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Name of the node.
    pub node: String,
    /// Where the ceremony is.
    pub place: String,
    /// Who is present.
    pub present: Vec<Participant>,
    /// The program `stele-signer`.
    #[serde(default = "Script::program")]
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// File of the public halves, to be made.
    pub node_keys: PathBuf,
    /// Folder of the shares, to be made if the configuration wants shares.
    pub shares: Option<PathBuf>,
}

/// Somebody who is present.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    /// Name.
    pub name: String,
    /// What for.
    pub role: String,
    /// Key file that signs the protocol.
    pub key: PathBuf,
}

impl Script {
    fn program() -> PathBuf {
        "stele-signer".into()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or `ceremony_script`.
    pub fn load(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if metadata.len() > SCRIPT_BYTES_MAX {
            bail!(Failure::new("ceremony_script", format!("{} is too long", path.display())));
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut script: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new("ceremony_script", format!("{}: {error}", path.display())))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let resolve = |path: &mut PathBuf| *path = directory.join(&*path);
        // A bare name is looked for where programs are.
        if script.program.components().count() > 1 {
            resolve(&mut script.program);
        }
        [&mut script.config, &mut script.node_keys].into_iter().for_each(resolve);
        script.shares.iter_mut().for_each(resolve);
        script.present.iter_mut().for_each(|participant| resolve(&mut participant.key));
        script.check()
    }

    /// Asks on the terminal.
    ///
    /// # Errors
    /// When the terminal is closed, or `ceremony_script`.
    pub fn ask() -> Result<Self> {
        let node = ask("Name of the node")?;
        let place = ask("Place of the ceremony")?;
        let mut present = Vec::new();
        loop {
            let name = ask("Name of somebody who is present (none: all are named)")?;
            if name.is_empty() {
                break;
            }
            let role = ask("What for (operator, witness, holder of a share, ...)")?;
            present.push(Participant { name, role, key: ask("File of the key that signs the protocol")?.into() });
        }
        let config = ask("Configuration of stele-signer (none: /etc/stele/signer.toml)")?;
        let config = if config.is_empty() { "/etc/stele/signer.toml".into() } else { config.into() };
        let node_keys = ask("File to make for the public halves (none: node-keys.json)")?;
        let node_keys = if node_keys.is_empty() { "node-keys.json".into() } else { node_keys.into() };
        let shares = Some(ask("Folder to make for shares of the custody key (none: nobody keeps one)")?);
        let shares = shares.filter(|shares| !shares.is_empty()).map(PathBuf::from);
        Self { node, place, present, program: Self::program(), config, node_keys, shares }.check()
    }

    fn check(self) -> Result<Self> {
        let refused = |what: &str| Failure::new("ceremony_script", what.to_owned());
        if self.present.is_empty() || self.present.len() > PRESENT_MAX {
            bail!(refused("somebody has to be present, and at most 32"));
        }
        for (at, participant) in self.present.iter().enumerate() {
            if self.present[..at].iter().any(|other| other.name == participant.name) {
                bail!(refused(&format!("{} is named twice", participant.name)));
            }
        }
        let texts = self.present.iter().flat_map(|participant| [&participant.name, &participant.role]);
        if texts.chain([&self.node, &self.place]).any(|text| text.is_empty() || text.len() > TEXT_LENGTH_MAX) {
            bail!(refused("node, place, names and roles have 1 to 256 bytes"));
        }
        Ok(self)
    }
}

/// Asks for one line.
///
/// # Errors
/// When the terminal is closed.
pub(super) fn ask(question: &str) -> Result<String> {
    note(&format!("{question}:"));
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer).context("standard input")? == 0 {
        bail!(Failure::new("ceremony_stopped", "standard input ended"));
    }
    Ok(answer.trim().to_owned())
}
