//! What a command works with: the network's directory, the party it acts as, and clients of the nodes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stele_client::{Bounds, Client, ClientBuilder, ClientIdentity, Endpoint, RetryPolicy, TlsSettings};
use stele_types::{Genesis, Hash, Height};
use stele_verify::TrustAnchor;

use crate::author::Author;
use crate::failure::Failure;
use crate::network::layout::NetworkDir;
use crate::network::profile::{NodeProfile, PartyProfile, Profile, load_genesis};
use crate::output::Output;

/// How often commands try: people wait for them. Three rounds over four nodes, some seconds in all.
const RETRY: RetryPolicy =
    RetryPolicy { tries_max: 12, pause_min: Duration::from_millis(200), pause_max: Duration::from_secs(2) };

/// Where and as whom a command runs.
#[derive(Clone, Debug)]
pub struct Session {
    /// The directory that `network init` made.
    pub network_dir: Option<PathBuf>,
    /// Name of the party to act as.
    pub party: Option<String>,
    /// Nodes to speak to instead of those of the profile: their names, or URLs.
    pub nodes: Vec<String>,
    /// A height with the hash of the validators that decide it, trusted instead of those of genesis.
    pub pin: Option<(Height, Hash)>,
    /// Where results go.
    pub output: Output,
}

impl Session {
    /// The network's directory.
    ///
    /// # Errors
    /// When none was named.
    pub fn dir(&self) -> Result<NetworkDir> {
        self.network_dir.as_ref().map(NetworkDir::new).ok_or_else(|| {
            Failure::new("network_dir_missing", "no network directory was named")
                .hint("name the directory that `stele network init` made, with --network-dir or STELE_NETWORK_DIR")
                .into()
        })
    }
    /// Addresses of the network.
    ///
    /// # Errors
    /// When the directory holds no network.
    pub fn profile(&self) -> Result<Profile> {
        Profile::load(&self.dir()?)
    }
    /// The genesis file.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn genesis(&self) -> Result<Genesis> {
        load_genesis(&self.dir()?.genesis())
    }
    /// Trust in the network from its genesis file on, or from the pin on when there is one.
    ///
    /// # Errors
    /// When the genesis file is missing or malformed.
    pub fn anchor(&self) -> Result<TrustAnchor> {
        let path = self.dir()?.genesis();
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let anchor = TrustAnchor::genesis(&bytes).with_context(|| path.display().to_string())?;
        Ok(match self.pin {
            Some((height, validators)) => anchor.pinned_at(height, validators),
            None => anchor,
        })
    }
    /// Name of the party to act as.
    ///
    /// # Errors
    /// When none was chosen.
    pub fn party_name(&self) -> Result<&str> {
        self.party.as_deref().ok_or_else(|| {
            let known = self.dir().and_then(|dir| PartyProfile::names(&dir)).unwrap_or_default().join(", ");
            Failure::new("party_missing", "this command acts for a party, and none was chosen")
                .hint(format!("choose one with --as or STELE_AS; here are: {known}"))
                .into()
        })
    }
    /// The party to act as, with its signing key.
    ///
    /// # Errors
    /// When none was chosen or its keys do not lie here.
    pub fn author(&self) -> Result<Author> {
        self.author_of(self.party_name()?)
    }
    /// A party by name, with its signing key.
    ///
    /// # Errors
    /// When its keys do not lie here.
    pub fn author_of(&self, name: &str) -> Result<Author> {
        let dir = self.dir()?;
        let party = PartyProfile::load(&dir, name)?;
        Ok(Author::new(party.party_id()?, party.signing_key(&dir)?, self.profile()?.network_id()?))
    }
    /// A client of the party listeners, with the chosen party's certificate.
    ///
    /// # Errors
    /// When no party was chosen or its certificate cannot be used.
    pub fn party_client(&self) -> Result<Client> {
        self.party_client_of(self.party_name()?)
    }
    /// A client of the party listeners, with the certificate of a party.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn party_client_of(&self, name: &str) -> Result<Client> {
        let tls = self.party_tls(name)?;
        let endpoints = self.endpoints(|node| &node.party)?;
        Ok(self.with_endpoints(Client::builder().tls(tls), endpoints).build()?)
    }
    /// TLS settings with the certificate of a party.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn party_tls(&self, name: &str) -> Result<TlsSettings> {
        let dir = self.dir()?;
        PartyProfile::load(&dir, name)?;
        let party = dir.party(name);
        let certificate = std::fs::read_to_string(party.tls_certificate())
            .with_context(|| format!("cannot read {}", party.tls_certificate().display()))?;
        let key = crate::keys::read_secret(&party.tls_key())?;
        Ok(self.tls()?.with_identity(ClientIdentity::from_pem(&certificate, &key)?))
    }
    /// A client of the public listeners, or of the party listeners when a party was chosen: whoever names itself may
    /// read its own.
    ///
    /// # Errors
    /// When there is no network directory.
    pub fn reader(&self) -> Result<Client> {
        if self.party.is_some() {
            return self.party_client();
        }
        let endpoints = self.endpoints(|node| &node.public)?;
        Ok(self.with_endpoints(Client::builder().tls(self.tls()?), endpoints).build()?)
    }
    /// A client of the public listener of one node, which gives up soon: for looking at each node by itself.
    ///
    /// # Errors
    /// When there is no network directory.
    pub fn probe(&self, node: &NodeProfile) -> Result<Client> {
        let bounds = Bounds { connect: Duration::from_secs(2), answer: Duration::from_secs(3), ..Bounds::default() };
        let builder = Client::builder().tls(self.tls()?).bounds(bounds).retry(RetryPolicy::NONE);
        Ok(builder.endpoint(Endpoint::https(&node.public)?).build()?)
    }

    /// A client of one node alone, the one that was named: what it says of itself, no other may answer. Its party listener
    /// when a party was chosen, else its public one. A plain URL needs no network directory.
    ///
    /// # Errors
    /// When not exactly one node was named, or there is no network directory.
    pub fn single(&self) -> Result<Client> {
        let [node] = self.nodes.as_slice() else {
            let failure = Failure::new("node_missing", "this is asked of one node, and not exactly one was named");
            return Err(failure.hint("name it with --node").into());
        };
        if node.starts_with("http://") {
            return Ok(Client::builder().retry(RETRY).endpoint(node.parse()?).build()?);
        }
        let (tls, address): (_, fn(&NodeProfile) -> &String) = match &self.party {
            Some(party) => (self.party_tls(party)?, |node| &node.party),
            None => (self.tls()?, |node| &node.public),
        };
        let endpoints = self.endpoints(address)?;
        Ok(self.with_endpoints(Client::builder().tls(tls), endpoints).build()?)
    }

    fn tls(&self) -> Result<TlsSettings> {
        let path = self.dir()?.ca_certificate();
        let pem =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read the network CA {}", path.display()))?;
        Ok(TlsSettings::new(&pem)?)
    }

    fn endpoints(&self, address: impl Fn(&NodeProfile) -> &String) -> Result<Vec<Endpoint>> {
        let profile = self.profile()?;
        if self.nodes.is_empty() {
            return profile.nodes.iter().map(|node| Ok(Endpoint::https(address(node))?)).collect();
        }
        let named = |name: &String| {
            if name.contains("://") {
                return Ok(name.parse()?);
            }
            Ok(Endpoint::https(address(node_named(&profile, name)?))?)
        };
        self.nodes.iter().map(named).collect()
    }

    /// The nodes that were named, or else all of the network.
    ///
    /// # Errors
    /// When there is no network directory or it knows no node of such a name.
    pub fn chosen_nodes(&self) -> Result<Vec<NodeProfile>> {
        let profile = self.profile()?;
        if self.nodes.is_empty() {
            return Ok(profile.nodes);
        }
        self.nodes.iter().map(|name| node_named(&profile, name).cloned()).collect()
    }

    fn with_endpoints(&self, builder: ClientBuilder, endpoints: Vec<Endpoint>) -> ClientBuilder {
        let builder = builder.retry(RETRY).trusting(self.pin.map_or(Height(1), |(height, _)| height));
        endpoints.into_iter().fold(builder, ClientBuilder::endpoint)
    }
}

fn node_named<'a>(profile: &'a Profile, name: &str) -> Result<&'a NodeProfile> {
    profile.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
        let known = profile.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        Failure::new("node_unknown", format!("there is no node {name}")).hint(format!("nodes are: {known}")).into()
    })
}
