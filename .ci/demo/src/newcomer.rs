//! A node joins the running network by a snapshot of the state.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_ctl::commands::network::join_command;
use stele_ctl::localnet::{READY_WAIT_MAX, free_ports};
use stele_ctl::network::init::{NewParty, found_party};
use stele_ctl::network::{NewNode, add_node};
use stele_ctl::pki::Authority;
use stele_types::cbor::List;
use stele_types::governance::ValidatorsChange;
use stele_types::party::Role;
use stele_types::{Command, Suite};

use crate::growth::scrape;
use crate::stage::{Stage, configure, steled};

/// Heights between snapshots: the demo is over after some dozens.
pub(crate) const CONFIGURATION: &str = "[state]\nsnapshot_interval = 10\n";

/// Heights from the decision to the activation.
const AHEAD: u64 = 20;

/// How long the nodes may take to write a snapshot that is certified.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(60);

/// What joining took.
pub(crate) struct Joined {
    /// Height of the snapshot.
    pub(crate) height: u64,
    /// Heights that the network had when the newcomer was ready.
    pub(crate) reached: u64,
    /// Pairs of the state.
    pub(crate) pairs: u64,
    /// Bytes of the state.
    pub(crate) bytes: u64,
    /// Seconds from the start of `steled join` to a node that serves.
    pub(crate) seconds: f64,
    /// Pages that its leaves lie in; the others' are in memory.
    pub(crate) pages: u64,
}

/// Enrols an operator, makes a node, joins it by a snapshot and lets it into the set of validators.
pub(crate) async fn join(stage: &mut Stage) -> Result<Joined> {
    let (name, operator) = ("newcomer", "operator-new");
    let dir = stage.network.dir().clone();
    let authority = Authority::open(&dir.ca_certificate(), &dir.ca_key())?;
    let new = NewParty { name: operator, roles: &[Role::Operator], suite: Suite::Es256, organisation: None };
    let (_, founder) = found_party(&dir, &authority, &new)?;
    let operator_id = founder.party;
    stage.govern(&Command::PartyEnrol(founder.into())).await.context("enrolling the operator")?;
    let peer = &stage.network.profile().nodes.last().context("a node")?.peer;
    let last: u16 = peer.rsplit_once(':').context("a port")?.1.parse()?;
    let first_port = free_ports(last + 10, 1)?;
    let new = NewNode {
        name: name.into(),
        host: "127.0.0.1".into(),
        first_port,
        operator: operator_id,
        payload: None,
        held: None,
    };
    let (node, validator) = add_node(&dir, &new)?;
    let index = stage.network.len();
    stage.network.add(node);
    configure(&dir.node(name).config(), &format!("{CONFIGURATION}layout = \"paged\"\n"))?;

    let client = stage.client(operator, 0)?;
    let deadline = Instant::now() + SNAPSHOT_WAIT_MAX;
    let snapshot = loop {
        match client.snapshots().await?.into_iter().next() {
            Some(snapshot) => break snapshot,
            None if Instant::now() > deadline => anyhow::bail!("no node has written a snapshot"),
            None => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let started = Instant::now();
    let mut command = join_command(&steled()?, &dir, name, operator, &[])?;
    let output = command.arg("--height").arg(snapshot.height.to_string()).output().context("cannot run steled join")?;
    ensure!(output.status.success(), "steled join: {}", String::from_utf8_lossy(&output.stderr));
    stage.network.start(index)?;
    // From the decision on the others let it in.
    let activation_height = client.network().await?.height + AHEAD;
    let upsert = List::new(vec![validator])?;
    let change = ValidatorsChange { activation_height, upsert, remove: List::default() };
    stage.govern(&Command::ValidatorsChange(change)).await.context("letting the newcomer in")?;
    stage.network.wait_node_ready(index, READY_WAIT_MAX)?;
    let seconds = started.elapsed().as_secs_f64();
    let reached = client.network().await?.height;
    let pages = pages(&stage.network.profile().nodes[index].metrics).await?;
    Ok(Joined { height: snapshot.height, reached, pairs: snapshot.pairs, bytes: snapshot.bytes, seconds, pages })
}

/// Pages of a node's state. Figures become metrics once a second.
async fn pages(metrics: &str) -> Result<u64> {
    let deadline = Instant::now() + SNAPSHOT_WAIT_MAX;
    loop {
        let text = scrape(metrics)?;
        let series = text.lines().find_map(|line| line.strip_prefix("stele_execute_state_pages "));
        match series.context("no figure of the state's pages")?.parse()? {
            0 if Instant::now() > deadline => anyhow::bail!("the newcomer keeps its leaves in memory"),
            0 => tokio::time::sleep(Duration::from_millis(200)).await,
            pages => return Ok(pages),
        }
    }
}
