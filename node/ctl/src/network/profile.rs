//! The profile: `network.toml` with the nodes' addresses, and `party.toml` of each party.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use stele_types::party::Role;
use stele_types::{Genesis, NetworkId, PartyId};

use crate::failure::Failure;
use crate::keys::SigningKey;
use crate::network::layout::{NetworkDir, PartyDir};

/// A network as the command line knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name of the network.
    pub name: String,
    /// Its id: SHA-256 of the genesis file, hexadecimal.
    pub network: String,
    /// Its nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeProfile>,
}

/// One node's addresses, each `host:port`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeProfile {
    /// Its name.
    pub name: String,
    /// Links of the validators.
    pub peer: String,
    /// mTLS listener for parties.
    pub party: String,
    /// TLS listener for everyone.
    pub public: String,
    /// Plain HTTP on loopback, when configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
    /// Metrics and health.
    pub metrics: String,
}

/// A party whose keys lie in the network's directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartyProfile {
    /// Name on this machine; the ledger knows only the id.
    pub name: String,
    /// Its id, 32 hexadecimal digits.
    pub party: String,
    /// Words of its roles.
    pub roles: Vec<String>,
    /// Word of its key's suite.
    pub suite: String,
    /// Key id of its signing key, 32 hexadecimal digits.
    pub key: String,
    /// Pin of its client certificate, 64 hexadecimal digits.
    pub tls_pin: String,
}

impl Profile {
    /// Reads `network.toml`.
    ///
    /// # Errors
    /// When there is none or it is malformed.
    pub fn load(dir: &NetworkDir) -> Result<Self> {
        let path = dir.profile();
        let text = fs::read_to_string(&path).map_err(|error| {
            Failure::new("network_dir_missing", format!("cannot read {}: {error}", path.display()))
                .hint("name the directory that `stele network init` made, with --network-dir or STELE_NETWORK_DIR")
        })?;
        let profile: Self = toml::from_str(&text).with_context(|| format!("malformed {}", path.display()))?;
        if profile.nodes.is_empty() {
            bail!("{} names no node", path.display());
        }
        Ok(profile)
    }
    /// The network's id.
    ///
    /// # Errors
    /// When the profile holds another form.
    pub fn network_id(&self) -> Result<NetworkId> {
        NetworkId::from_hex(&self.network)
            .ok_or_else(|| anyhow!("network id {} is not 64 hexadecimal digits", self.network))
    }
    /// Writes `network.toml`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &NetworkDir) -> Result<()> {
        let text = toml::to_string(self).context("network.toml")?;
        let path = dir.profile();
        fs::write(&path, format!("# Addresses of a Stele network; `stele network init` wrote this.\n{text}"))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl PartyProfile {
    /// Reads the description of one party.
    ///
    /// # Errors
    /// When there is none or it is malformed.
    pub fn load(dir: &NetworkDir, name: &str) -> Result<Self> {
        check_party_name(name)?;
        let path = dir.party(name).description();
        let text = fs::read_to_string(&path).map_err(|error| {
            let known = Self::names(dir).unwrap_or_default().join(", ");
            Failure::new("party_unknown_here", format!("no keys of party {name} ({}: {error})", path.display()))
                .hint(format!("choose one with --as; here are: {known}"))
        })?;
        toml::from_str(&text).with_context(|| format!("malformed {}", path.display()))
    }
    /// Names of all parties whose keys lie here, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(dir: &NetworkDir) -> Result<Vec<String>> {
        let path = dir.parties();
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str()
                && entry.path().join("party.toml").is_file()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
    /// The party's id.
    ///
    /// # Errors
    /// When the description holds another form.
    pub fn party_id(&self) -> Result<PartyId> {
        PartyId::from_hex(&self.party).ok_or_else(|| anyhow!("party id {} is not 32 hexadecimal digits", self.party))
    }
    /// Whether it holds `role` according to its description.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.iter().any(|word| word == role.as_str())
    }
    /// Its signing key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn signing_key(&self, dir: &NetworkDir) -> Result<SigningKey> {
        SigningKey::load(&dir.party(&self.name).signing_key())
    }
    /// Writes the description.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &PartyDir) -> Result<()> {
        let path = dir.description();
        fs::write(&path, toml::to_string(self).context("party.toml")?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Reads and checks the genesis file of a network directory.
///
/// # Errors
/// When it cannot be read or founds no network.
pub fn load_genesis(path: &Path) -> Result<Genesis> {
    let bytes = fs::read(path).with_context(|| format!("cannot read genesis file {}", path.display()))?;
    Genesis::from_bytes(&bytes).map_err(|error| {
        Failure::new("genesis_invalid", format!("{}: {error}", path.display()))
            .hint("ask the network's governors for the genesis file; its SHA-256 is the network id")
            .into()
    })
}

/// Names of parties are names of directories here, so they stay plain.
///
/// # Errors
/// When it is empty or holds anything but letters, digits, `-` and `_`.
pub fn check_party_name(name: &str) -> Result<()> {
    /// Longest name of a party.
    const NAME_BYTES_MAX: usize = 64;
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_plain {
        bail!(
            Failure::new("party_name_invalid", format!("{name:?} is no party name"))
                .hint("party names are up to 64 letters, digits, - and _")
        );
    }
    Ok(())
}
