//! Where the files of a network lie.
//!
//! ```text
//! DIR/network.toml            addresses of the nodes; what `stele` reads
//!     genesis.cbor            the file whose hash is the network; genesis.json is a view of it for people
//!     ca.pem  ca.key          certificate authority of the network's TLS
//!     nodes/NAME/             one node: steled.toml, its keys and certificate, data/ once it runs
//!     parties/NAME/           one party: party.toml, signing.key, tls.pem, tls.key
//! ```

use std::path::{Path, PathBuf};

/// The directory of one network.
#[derive(Clone, Debug)]
pub struct NetworkDir {
    root: PathBuf,
}

impl NetworkDir {
    /// The network in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Addresses and names: what commands read first.
    pub fn profile(&self) -> PathBuf {
        self.root.join("network.toml")
    }
    /// The genesis file.
    pub fn genesis(&self) -> PathBuf {
        self.root.join("genesis.cbor")
    }
    /// The genesis file for people.
    pub fn genesis_view(&self) -> PathBuf {
        self.root.join("genesis.json")
    }
    /// Certificate of the network's authority.
    pub fn ca_certificate(&self) -> PathBuf {
        self.root.join("ca.pem")
    }
    /// Key of the network's authority.
    pub fn ca_key(&self) -> PathBuf {
        self.root.join("ca.key")
    }
    /// Directory of a node.
    pub fn node(&self, name: &str) -> NodeDir {
        NodeDir { root: self.root.join("nodes").join(name) }
    }
    /// Directory of all parties.
    pub fn parties(&self) -> PathBuf {
        self.root.join("parties")
    }
    /// Directory of a party.
    pub fn party(&self, name: &str) -> PartyDir {
        PartyDir { root: self.parties().join(name) }
    }
}

/// The directory of one node.
#[derive(Clone, Debug)]
pub struct NodeDir {
    root: PathBuf,
}

impl NodeDir {
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Configuration of `steled`.
    pub fn config(&self) -> PathBuf {
        self.root.join("steled.toml")
    }
    /// A file of the node by its name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// What the node commits; made by `steled`.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }
    /// Standard output and error of a node that `network local` runs.
    pub fn log(&self) -> PathBuf {
        self.root.join("steled.log")
    }
}

/// The directory of one party.
#[derive(Clone, Debug)]
pub struct PartyDir {
    root: PathBuf,
}

impl PartyDir {
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Id, roles and suite.
    pub fn description(&self) -> PathBuf {
        self.root.join("party.toml")
    }
    /// The key that signs statements.
    pub fn signing_key(&self) -> PathBuf {
        self.root.join("signing.key")
    }
    /// The client certificate.
    pub fn tls_certificate(&self) -> PathBuf {
        self.root.join("tls.pem")
    }
    /// Its key.
    pub fn tls_key(&self) -> PathBuf {
        self.root.join("tls.key")
    }
}
