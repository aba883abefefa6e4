//! The configuration file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use stele_evidence::{ApprovalError, PolicyKey};
use stele_hsm::{
    SignerKind,
    custody::{SHARES_MAX, ShareHolder},
    tpm::TpmEpoch,
};
use thiserror::Error;

/// Longest configuration in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A key of the file has no use.
    #[error("{path}: {key}: {problem}; {remedy}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "config_unreadable",
            Self::Invalid { .. } => "config_invalid",
        }
    }
}

/// `signer.toml`. Relative paths are relative to its directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where requests come from.
    pub socket: SocketSection,
    /// Where keys in files, guards and counters lie.
    pub state: StateSection,
    /// How memory is protected.
    #[serde(default)]
    pub process: ProcessSection,
    /// The TPM of this machine.
    pub tpm: Option<TpmSection>,
    /// The PKCS#11 token.
    pub token: Option<TokenSection>,
    /// Long-term key of the validator; without this section the node follows and votes on nothing.
    pub validator: Option<KeySection>,
    /// The checkpoint key.
    pub seal: KeySection,
    /// The custody key; without this section the node keeps no bodies, or its custody key lies elsewhere.
    pub custody: Option<CustodySection>,
}

/// `[socket]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketSection {
    /// Its path.
    pub path: PathBuf,
    /// Users who may ask, by name or number.
    pub users: Vec<UserName>,
}

/// `[state]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSection {
    /// The directory. No other user may enter it, which every start checks.
    pub directory: PathBuf,
}

/// `[process]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSection {
    /// Whether all memory is kept out of the swap. False only where no real key is.
    pub lock_memory: bool,
}

impl Default for ProcessSection {
    fn default() -> Self {
        Self { lock_memory: true }
    }
}

/// `[tpm]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmSection {
    /// `device:/dev/tpmrm0`, or `swtpm:host=...,port=...` for an emulator.
    pub address: String,
    /// NV index of the counter that ties the state directory to this TPM.
    #[serde(default = "TpmSection::counter")]
    pub counter: u32,
    /// The firmware's event log.
    #[serde(default = "TpmSection::boot_log")]
    pub boot_log: PathBuf,
    /// The kernel's log.
    #[serde(default = "TpmSection::ima_log")]
    pub ima_log: PathBuf,
    /// The release manifest with its predicted PCRs.
    #[serde(default = "TpmSection::manifest")]
    pub manifest: PathBuf,
    /// PCRs of the SHA-256 bank that a quote names unless its asker chooses.
    #[serde(default = "TpmSection::pcrs")]
    pub pcrs: Vec<u8>,
}

impl TpmSection {
    fn counter() -> u32 {
        TpmEpoch::INDEX_DEFAULT
    }

    fn boot_log() -> PathBuf {
        "/sys/kernel/security/tpm0/binary_bios_measurements".into()
    }

    fn ima_log() -> PathBuf {
        "/sys/kernel/security/ima/binary_runtime_measurements".into()
    }

    fn manifest() -> PathBuf {
        "/usr/lib/stele/manifest.json".into()
    }

    fn pcrs() -> Vec<u8> {
        (0..=11).chain([14]).collect()
    }
}

/// `[token]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSection {
    /// The vendor's library.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// File that holds the user PIN, of mode 0600 or 0400.
    pub pin: PathBuf,
    /// Sessions that sign in parallel.
    #[serde(default = "TokenSection::sessions")]
    pub sessions: usize,
}

impl TokenSection {
    const fn sessions() -> usize {
        4
    }
}

/// `[validator]` and `[seal]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySection {
    /// The backend that holds the key. Never chosen silently.
    pub signer: SignerName,
    /// The key's label in the token.
    pub label: Option<String>,
}

/// `[custody]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodySection {
    /// What seals the key while the process does not run: `tpm`, or `software` for a plain file.
    pub signer: SignerName,
    /// Public half of the releases' policy key, SEC 1, hexadecimal: the TPM gives the key back in a state that this key
    /// approved. Without it, in every state.
    pub policy_key: Option<String>,
    /// Folder of approvals.
    #[serde(default = "CustodySection::approvals")]
    pub approvals: PathBuf,
    /// Who keeps shares of the key; without it nobody does.
    pub shares: Option<SharesSection>,
}

impl CustodySection {
    fn approvals() -> PathBuf {
        "/usr/lib/stele/approvals".into()
    }

    /// The policy key, if there is one.
    ///
    /// # Errors
    /// [`ApprovalError::Key`].
    pub fn policy_key(&self) -> Result<Option<PolicyKey>, ApprovalError> {
        self.policy_key.as_deref().map(PolicyKey::from_hex).transpose()
    }
}

impl CustodySection {
    /// The first thing that has no use: key, problem, remedy.
    fn fault(&self, has_tpm: bool) -> Option<(&'static str, String, &'static str)> {
        let sealed = match self.signer.0 {
            SignerKind::Tpm if has_tpm => true,
            SignerKind::Tpm => {
                let remedy = "add the section, or name another backend";
                return Some(("custody.signer", "there is no [tpm]".into(), remedy));
            }
            SignerKind::Pkcs11 => {
                let problem = "a token gives no key to be split and recovered".into();
                return Some(("custody.signer", problem, "name tpm, or software for development"));
            }
            SignerKind::Software => false,
        };
        if self.policy_key.is_some() && !sealed {
            return Some(("custody.policy_key", "only a TPM knows the machine's state".into(), "leave it out"));
        }
        if let Err(error) = self.policy_key() {
            return Some(("custody.policy_key", error.to_string(), "write its point, SEC 1, in hexadecimal digits"));
        }
        let shares = self.shares.as_ref()?;
        if shares.required < 2
            || shares.holders.len() < usize::from(shares.required)
            || shares.holders.len() > usize::from(SHARES_MAX)
        {
            let problem = format!("{} of {}", shares.required, shares.holders.len());
            return Some(("custody.shares.required", problem, "require two or more of at most sixteen"));
        }
        let fault = shares.holders.iter().find_map(|holder| holder.key().err())?;
        Some(("custody.shares.holders", fault.to_string(), "see docs/signer.md"))
    }
}

/// `[custody.shares]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesSection {
    /// How many give the key back.
    pub required: u8,
    /// Who keeps one.
    pub holders: Vec<ShareHolder>,
}

/// A backend's name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct SignerName(pub SignerKind);

impl TryFrom<String> for SignerName {
    type Error = stele_hsm::SignerError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse().map(Self)
    }
}

/// A user of this machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum UserName {
    /// By number.
    Number(u32),
    /// By name.
    Name(String),
}

impl fmt::Display for UserName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
        }
    }
}

impl Config {
    /// Reads a file and checks what it alone shows.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
        let metadata = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if !metadata.is_file() || metadata.len() > LENGTH_MAX {
            return Err(unreadable("it is no file, or too long".into()));
        }
        let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.check(path)?;
        Ok(config)
    }

    fn resolve(&mut self, directory: &Path) {
        let mut resolve = |path: &mut PathBuf| *path = directory.join(&*path);
        resolve(&mut self.socket.path);
        resolve(&mut self.state.directory);
        if let Some(tpm) = &mut self.tpm {
            [&mut tpm.boot_log, &mut tpm.ima_log, &mut tpm.manifest].into_iter().for_each(&mut resolve);
        }
        if let Some(token) = &mut self.token {
            [&mut token.module, &mut token.pin].into_iter().for_each(&mut resolve);
        }
        if let Some(custody) = &mut self.custody {
            resolve(&mut custody.approvals);
        }
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let invalid =
            |key, problem: String, remedy| Err(ConfigError::Invalid { path: path.to_owned(), key, problem, remedy });
        for (name, key) in self.keys() {
            let (section, label) = match name {
                "validator" => ("validator.signer", "validator.label"),
                _ => ("seal.signer", "seal.label"),
            };
            match key.signer.0 {
                SignerKind::Tpm if self.tpm.is_none() => {
                    return invalid(section, "there is no [tpm]".into(), "add the section, or name another backend");
                }
                SignerKind::Pkcs11 if self.token.is_none() => {
                    return invalid(section, "there is no [token]".into(), "add the section, or name another backend");
                }
                SignerKind::Pkcs11 if key.label.is_none() => {
                    return invalid(label, "it is missing".into(), "name the key in the token");
                }
                SignerKind::Software | SignerKind::Tpm if key.label.is_some() => {
                    return invalid(label, "only a key in a token has one".into(), "leave it out");
                }
                _ => {}
            }
        }
        if self.seal.label.is_some() && self.validator.as_ref().is_some_and(|key| key.label == self.seal.label) {
            return invalid("seal.label", "it is the validator's".into(), "name a key of its own");
        }
        if self.socket.users.is_empty() {
            return invalid("socket.users", "nobody may ask".into(), "name the user that steled runs as");
        }
        if let Some(tpm) = &self.tpm
            && (tpm.pcrs.is_empty() || tpm.pcrs.iter().any(|pcr| *pcr >= 24))
        {
            return invalid("tpm.pcrs", format!("{:?}", tpm.pcrs), "name PCRs from 0 to 23");
        }
        match self.custody.as_ref().and_then(|custody| custody.fault(self.tpm.is_some())) {
            Some((key, problem, remedy)) => invalid(key, problem, remedy),
            None => Ok(()),
        }
    }

    /// The sections of keys with their names.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'static str, &KeySection)> {
        self.validator.iter().map(|key| ("validator", key)).chain([("seal", &self.seal)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../signer.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("signer.toml");
        fs::write(&path, text).expect("write");
        Config::load(&path)
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let config = parse(EXAMPLE).expect("example");
        let tpm = config.tpm.expect("tpm");
        assert_eq!(tpm.counter, TpmSection::counter());
        assert_eq!((tpm.boot_log, tpm.ima_log), (TpmSection::boot_log(), TpmSection::ima_log()));
        assert_eq!((tpm.manifest, tpm.pcrs), (TpmSection::manifest(), TpmSection::pcrs()));
        assert_eq!(config.token.expect("token").sessions, TokenSection::sessions());
        let custody = config.custody.expect("custody");
        assert_eq!(custody.approvals, CustodySection::approvals());
        assert!(custody.policy_key().expect("point").is_some());
        assert_eq!(custody.shares.expect("shares").holders.len(), 3);
        assert!(config.process.lock_memory);
    }

    #[test]
    fn what_has_no_use_is_refused_with_its_key() {
        let refused = |from: &str, to: &str| {
            assert!(EXAMPLE.contains(from), "{from}");
            parse(&EXAMPLE.replacen(from, to, 1)).expect_err("refused").to_string()
        };
        assert!(refused("signer = \"pkcs11\"\nlabel = \"seal\"", "signer = \"pkcs11\"").contains("seal.label"));
        assert!(refused("signer = \"tpm\"", "signer = \"tpm\"\nlabel = \"x\"").contains("validator.label"));
        let both = "signer = \"pkcs11\"\nlabel = \"seal\"";
        assert!(refused("signer = \"tpm\"", both).contains("seal.label"));
        assert!(refused("signer = \"tpm\"", "signer = \"yubikey\"").contains("yubikey"));
        assert!(refused("users = [\"stele\"]", "users = []").contains("socket.users"));
        assert!(refused("policy_key = \"03", "policy_key = \"05").contains("custody.policy_key"));
        assert!(refused("required = 2", "required = 1").contains("custody.shares.required"));
        assert!(refused("required = 2", "required = 4").contains("custody.shares.required"));
        assert!(refused("name = \"anna\"", "name = \"../anna\"").contains("custody.shares.holders"));
        let kept = "[custody]                            # the key that bodies are sealed under\nsigner = \"tpm\"";
        assert!(refused(kept, "[custody]\nsigner = \"pkcs11\"").contains("custody.signer"));
        assert!(refused(kept, "[custody]\nsigner = \"software\"").contains("custody.policy_key"));
        assert!(refused("[state]", "[state]\ncolour = 1").contains("colour"));
        let pcrs = "pcrs = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14]";
        assert!(refused(pcrs, "pcrs = [24]").contains("tpm.pcrs"));
    }
}
