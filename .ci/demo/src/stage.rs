//! A network of processes, with the sessions that speak to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use stele_client::{Bounds, Client, ClientBuilder, Endpoint};
use stele_ctl::author::{Author, Signed};
use stele_ctl::localnet::{LocalNetwork, READY_WAIT_MAX};
use stele_ctl::network::init::InitOptions;
use stele_ctl::output::{Format, Output};
use stele_ctl::session::Session;
use stele_testkit::Maker;
use stele_testkit::signers::{self, SealIn, SignerHost};
use stele_types::exchange::StatementStatus;
use stele_types::{Code, Command};

/// A running network in a directory of its own.
pub(crate) struct Stage {
    pub(crate) network: LocalNetwork,
    pub(crate) session: Session,
    /// The nodes' signers with their TPMs.
    pub(crate) signers: Vec<SignerHost>,
    /// Who made the TPMs, if their endorsement keys are certified.
    pub(crate) maker: Option<Maker>,
    _directory: tempfile::TempDir,
}

/// Appends to a configuration file.
pub(crate) fn configure(path: &Path, configuration: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    std::fs::write(path, format!("{text}\n{configuration}")).with_context(|| format!("cannot write {}", path.display()))
}

/// The daemon that the task runner built.
pub(crate) fn steled() -> Result<PathBuf> {
    match std::env::var_os("STELE_BIN_DIR") {
        Some(directory) => Ok(PathBuf::from(directory).join("steled")),
        None => stele_ctl::localnet::steled_beside_this_program(),
    }
}

fn stage_directory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("stele-").tempdir().context("temporary directory")
}

impl Stage {
    /// Makes a network and starts it; resolves when every node is ready.
    pub(crate) fn start(options: &InitOptions) -> Result<Self> {
        Self::start_with(options, "")
    }

    /// As [`Stage::start`], with `configuration` appended to the configuration of every node.
    pub(crate) fn start_with(options: &InitOptions, configuration: &str) -> Result<Self> {
        Self::start_in(stage_directory()?, options, configuration, Vec::new())
    }

    /// As [`Stage::start_with`], with keys in TPMs of one maker, one for each node; the last node's checkpoint key lies in a
    /// token.
    pub(crate) fn start_held(options: &InitOptions, configuration: &str) -> Result<Self> {
        let last = options.validators.saturating_sub(1);
        let seal = |node| if node == last { SealIn::Token } else { SealIn::Tpm };
        let directory = stage_directory()?;
        let maker = Maker::new(&directory.path().join("maker"))?;
        let make = |node: usize, directory: &Path| SignerHost::make_certified(directory, seal(node), &maker);
        let mut stage = Self::start_hosts(directory, options, configuration, make)?;
        stage.maker = Some(maker);
        Ok(stage)
    }

    /// As [`Stage::start_with`], with all keys in TPMs that take `delay` longer for each signature.
    pub(crate) fn start_slow(options: &InitOptions, delay: Duration) -> Result<Self> {
        let make = |_: usize, directory: &Path| SignerHost::make_slow(directory, SealIn::Tpm, delay);
        Self::start_hosts(stage_directory()?, options, "", make)
    }

    fn start_hosts(
        directory: tempfile::TempDir,
        options: &InitOptions,
        configuration: &str,
        make: impl Fn(usize, &Path) -> Result<SignerHost>,
    ) -> Result<Self> {
        let signers = directory.path().join("signers");
        let make = |node: usize| make(node, &signers.join(format!("node-{}", node + 1)));
        let hosts = (0..options.validators).map(make).collect::<Result<Vec<_>>>()?;
        let held = hosts.iter().map(SignerHost::held_keys).collect::<Result<_>>()?;
        Self::start_in(directory, &InitOptions { held, ..options.clone() }, configuration, hosts)
    }

    fn start_in(
        directory: tempfile::TempDir,
        options: &InitOptions,
        configuration: &str,
        mut hosts: Vec<SignerHost>,
    ) -> Result<Self> {
        let root = directory.path().join("network");
        let mut network = LocalNetwork::open_or_init(&root, options, &steled()?)?;
        for node in &network.profile().nodes {
            configure(&network.dir().node(&node.name).config(), configuration)?;
        }
        signers::start_all(&mut hosts, &network.dir().genesis())?;
        network.start_all()?;
        network.wait_ready(READY_WAIT_MAX)?;
        let output = Output::new(Format::Table);
        let session = Session { network_dir: Some(root), party: None, nodes: Vec::new(), pin: None, output };
        Ok(Self { network, session, signers: hosts, maker: None, _directory: directory })
    }

    pub(crate) fn root(&self) -> Result<&Path> {
        self.session.network_dir.as_deref().context("network directory")
    }

    /// A client of one node that speaks for a party.
    pub(crate) fn client(&self, party: &str, node: usize) -> Result<Client> {
        let node = self.network.profile().nodes.get(node).context("no such node")?;
        let bounds = Bounds { answer: Duration::from_secs(60), ..Bounds::default() };
        let builder: ClientBuilder = Client::builder().tls(self.session.party_tls(party)?).bounds(bounds);
        Ok(builder.endpoint(Endpoint::https(&node.party)?).build()?)
    }

    /// Clients of every node.
    pub(crate) fn clients(&self, party: &str) -> Result<Vec<Client>> {
        (0..self.network.len()).map(|node| self.client(party, node)).collect()
    }

    pub(crate) fn author(&self, party: &str) -> Result<Author> {
        self.session.author_of(party)
    }

    /// Submits one statement and waits until its outcome is certified.
    pub(crate) async fn settle(&self, party: &str, signed: Signed) -> Result<StatementStatus> {
        use stele_client::Wait;
        let client = self.client(party, 0)?;
        let status = client.register(signed.entry.into(), Wait::Certified(Duration::from_secs(20))).await?;
        if status.code != Some(Code::Applied) {
            anyhow::bail!("statement {} was not applied: {:?} {:?}", status.statement, status.progress, status.code);
        }
        Ok(status)
    }

    /// One governor proposes, the other approves.
    pub(crate) async fn govern(&self, command: &Command) -> Result<()> {
        use stele_types::cbor::Blob;
        use stele_types::governance::{Approve, Propose};
        let expires_ms = stele_ctl::author::now_ms()? + 3_600_000;
        let propose = Command::Propose(Propose { command: Blob::new(command.to_bytes())?, expires_ms });
        let proposal = self.author("governor-1")?.command(&propose)?;
        let id = proposal.id;
        self.settle("governor-1", proposal).await?;
        let approve = self.author("governor-2")?.command(&Command::Approve(Approve { proposal: id }))?;
        self.settle("governor-2", approve).await?;
        Ok(())
    }
}
