//! A network of processes on loopback, in a directory that goes away with it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use stele_client::{Bounds, Client, Endpoint, RetryPolicy, Wait};
use stele_ctl::author::{Author, Signed};
use stele_ctl::localnet::{LocalNetwork, READY_WAIT_MAX, free_ports};
use stele_ctl::network::init::{InitOptions, init};
use stele_ctl::output::{Format, Output};
use stele_ctl::session::Session;
use stele_types::exchange::StatementStatus;
use stele_types::{Code, Command};

use crate::signers::{self, SealIn, SignerHost};

/// Longest wait for one certified outcome.
const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often heights are looked at.
const POLL: Duration = Duration::from_millis(100);

/// A network of `steled` processes. Whatever still runs is killed when it is dropped.
pub struct Cluster {
    /// The processes.
    pub network: LocalNetwork,
    /// Keys and addresses.
    pub session: Session,
    /// Signers of the nodes, in order; none if all keys lie in files.
    pub signers: Vec<SignerHost>,
    // Dropped last: the processes end before their files go.
    directory: tempfile::TempDir,
}

/// The daemon under test: in `STELE_BIN_DIR`, or where Cargo put it beside this test.
///
/// # Errors
/// When it is not there, with the command that builds it.
pub fn steled() -> Result<PathBuf> {
    let path = match std::env::var_os("STELE_BIN_DIR") {
        Some(directory) => Some(PathBuf::from(directory).join("steled")),
        None => stele_ctl::localnet::steled_beside_this_program().ok(),
    };
    path.filter(|path| path.is_file()).context(
        "the daemon is missing: build it with `cargo build -p stele-node --bin steled`, or name its directory in \
         STELE_BIN_DIR",
    )
}

impl Cluster {
    /// Four validators and one agency, running and ready.
    ///
    /// # Errors
    /// When the daemon is missing or a node does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&InitOptions::default(), "")
    }

    /// A network of `options`, with `configuration` appended to the configuration of every node, running and ready.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(options: &InitOptions, configuration: &str) -> Result<Self> {
        let mut cluster = Self::prepare(options, configuration)?;
        cluster.network.start_all()?;
        cluster.network.wait_ready(READY_WAIT_MAX)?;
        Ok(cluster)
    }

    /// A network of `options` whose keys signers with TPMs hold, running and ready; the checkpoint key of node `i` lies in
    /// `seal(i)`.
    ///
    /// # Errors
    /// As [`Cluster::start`], and when swtpm or SoftHSM are missing.
    pub fn start_held(options: &InitOptions, configuration: &str, seal: impl Fn(usize) -> SealIn) -> Result<Self> {
        let directory = test_directory()?;
        let mut signers = signers::make_all(&directory.path().join("signers"), options.validators, seal)?;
        let held = signers.iter().map(SignerHost::held_keys).collect::<Result<_>>()?;
        let options = InitOptions { held, ..options.clone() };
        let mut cluster = Self::prepare_in(directory, &options, configuration)?;
        signers::start_all(&mut signers, &cluster.network.dir().genesis())?;
        cluster.signers = signers;
        cluster.network.start_all()?;
        cluster.network.wait_ready(READY_WAIT_MAX)?;
        Ok(cluster)
    }

    /// A network of `options` whose files are made; nothing runs.
    ///
    /// # Errors
    /// When the daemon is missing or files cannot be written.
    pub fn prepare(options: &InitOptions, configuration: &str) -> Result<Self> {
        Self::prepare_in(test_directory()?, options, configuration)
    }

    fn prepare_in(directory: tempfile::TempDir, options: &InitOptions, configuration: &str) -> Result<Self> {
        let steled = steled()?;
        let root = directory.path().join("network");
        let on_loopback = options.hosts.iter().all(|host| host == "127.0.0.1");
        let base_port =
            if on_loopback { free_ports(options.base_port, options.validators)? } else { options.base_port };
        let made = init(&root, &InitOptions { base_port, ..options.clone() })?;
        for node in &made.profile.nodes {
            let path = made.dir.node(&node.name).config();
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            std::fs::write(&path, format!("{text}\n{configuration}"))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let network = LocalNetwork::of(&made, &steled)?;
        let output = Output::new(Format::Table);
        let session = Session { network_dir: Some(root), party: None, nodes: Vec::new(), pin: None, output };
        Ok(Self { network, session, signers: Vec::new(), directory })
    }

    /// The directory of everything.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A party with its signing key.
    ///
    /// # Errors
    /// When there is no such party.
    pub fn author(&self, party: &str) -> Result<Author> {
        self.session.author_of(party)
    }

    /// A client of one node that speaks for a party and asks once.
    ///
    /// # Errors
    /// When there is no such party or node.
    pub fn client(&self, party: &str, node: usize) -> Result<Client> {
        let node = self.network.profile().nodes.get(node).context("no such node")?;
        let builder = Client::builder().tls(self.session.party_tls(party)?).bounds(bounds()).retry(RetryPolicy::NONE);
        Ok(builder.endpoint(Endpoint::https(&node.party)?).build()?)
    }

    /// A client that prefers `node` and moves on to the others when it fails.
    ///
    /// # Errors
    /// When there is no such party.
    pub fn roaming_client(&self, party: &str, node: usize) -> Result<Client> {
        let nodes = &self.network.profile().nodes;
        let policy =
            RetryPolicy { tries_max: 8, pause_min: Duration::from_millis(50), pause_max: Duration::from_millis(500) };
        let mut builder = Client::builder().tls(self.session.party_tls(party)?).bounds(bounds()).retry(policy);
        for offset in 0..nodes.len() {
            builder = builder.endpoint(Endpoint::https(&nodes[(node + offset) % nodes.len()].party)?);
        }
        Ok(builder.build()?)
    }

    /// The value of a series of a running node's metrics.
    ///
    /// # Errors
    /// When the node does not answer or has no such series.
    pub async fn metric(&self, node: usize, series: &str) -> Result<f64> {
        let node = self.network.profile().nodes.get(node).context("no such node")?;
        let client = Client::builder().bounds(bounds()).endpoint(Endpoint::http(&node.metrics)?).build()?;
        let text = client.metrics().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.with_context(|| format!("no series {series}"))?.parse().with_context(|| format!("value of {series}"))
    }

    /// Waits until a series of a running node's metrics is at least `least`.
    ///
    /// # Errors
    /// When it is not after `wait_max`; those of [`Cluster::metric`].
    pub async fn wait_metric(&self, node: usize, series: &str, least: f64, wait_max: Duration) -> Result<()> {
        let deadline = Instant::now() + wait_max;
        loop {
            let value = self.metric(node, series).await?;
            if value >= least {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{series} of node {node} is {value}, not {least}:\n{}", self.log(node)?);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Heights that the running nodes have committed; none for a node that does not answer.
    pub async fn heights(&self) -> Vec<Option<u64>> {
        let mut heights = Vec::new();
        for node in 0..self.network.len() {
            heights.push(self.height(node).await.ok());
        }
        heights
    }

    /// Height that one node has committed.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn height(&self, node: usize) -> Result<u64> {
        Ok(self.client("agency-1", node)?.network().await?.height)
    }

    /// Waits until a node has committed `height`.
    ///
    /// # Errors
    /// When it has not after `wait_max`.
    pub async fn wait_height(&self, node: usize, height: u64, wait_max: Duration) -> Result<()> {
        let deadline = Instant::now() + wait_max;
        loop {
            let reached = self.height(node).await.ok();
            if reached.is_some_and(|reached| reached >= height) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("node {node} has height {reached:?} after {} s, not {height}", wait_max.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Submits one statement at node 0 and waits for its certified outcome.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn settle(&self, party: &str, signed: &Signed) -> Result<StatementStatus> {
        let client = self.client(party, 0)?;
        let wait = Wait::Certified(OUTCOME_WAIT_MAX);
        client.register(signed.entry.clone().into(), wait).await.with_context(|| format!("statement {}", signed.id))
    }

    /// Submits a command as `party`, which must apply.
    ///
    /// # Errors
    /// When it is refused or does not apply.
    pub async fn apply(&self, party: &str, command: &Command) -> Result<StatementStatus> {
        let status = self.settle(party, &self.author(party)?.command(command)?).await?;
        if status.code != Some(Code::Applied) {
            bail!("statement {} was not applied: {:?} {:?}", status.statement, status.progress, status.code);
        }
        Ok(status)
    }

    /// One governor proposes a command, the other approves it.
    ///
    /// # Errors
    /// When either does not apply.
    pub async fn govern(&self, command: &Command) -> Result<()> {
        use stele_types::cbor::Blob;
        use stele_types::governance::{Approve, Propose};
        let expires_ms = stele_ctl::author::now_ms()? + 3_600_000;
        let propose = Command::Propose(Propose { command: Blob::new(command.to_bytes())?, expires_ms });
        let proposal = self.apply("governor-1", &propose).await?.statement;
        self.apply("governor-2", &Command::Approve(Approve { proposal })).await?;
        Ok(())
    }

    /// Everything that a node has written to standard output and error.
    ///
    /// # Errors
    /// When there is no such node or it was never started.
    pub fn log(&self, node: usize) -> Result<String> {
        let name = &self.network.profile().nodes.get(node).context("no such node")?.name;
        let path = self.network.dir().node(name).log();
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Waits until a node's log holds `text`.
    ///
    /// # Errors
    /// When it does not after `wait_max`; the log is in the error.
    pub async fn wait_log(&self, node: usize, text: &str, wait_max: Duration) -> Result<()> {
        let deadline = Instant::now() + wait_max;
        while !self.log(node)?.contains(text) {
            if Instant::now() > deadline {
                bail!("the log of node {node} never says {text:?}:\n{}", self.log(node)?);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until a node ends by itself.
    ///
    /// # Errors
    /// When it still runs after `wait_max`; the log is in the error.
    pub async fn wait_ended(&mut self, node: usize, wait_max: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + wait_max;
        while Instant::now() < deadline {
            if let Some(status) = self.network.ended(node)? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("node {node} still runs after {} s:\n{}", wait_max.as_secs(), self.log(node)?)
    }
}

fn test_directory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("stele-test-").tempdir().context("temporary directory")
}

/// Short enough to move on from a dead node, long enough for two cores under load.
fn bounds() -> Bounds {
    Bounds { connect: Duration::from_secs(3), answer: Duration::from_secs(20), ..Bounds::default() }
}
