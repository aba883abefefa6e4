//! What must hold after every fault: no acknowledged statement lost, no fork, equal roots.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stele_client::{Client, Endpoint, Wait};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_types::exchange::{Progress, StatementStatus};
use stele_types::{Height, StatementId};

use crate::cluster::Cluster;
use crate::load::Load;

/// How long nodes may take to reach the same height, and to certify its results.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(90);
/// Ids of one question.
const IDS_MAX: usize = 1_000;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Highest height that every node has.
    pub height: u64,
    /// Acknowledged statements that every node knows with the same outcome.
    pub statements: usize,
    /// Leaves of the log there.
    pub log_size: u64,
}

/// Compares every node: outcomes of `acknowledged`, headers at all heights, and the state behind the newest.
///
/// # Errors
/// The first difference, or a node that does not catch up.
pub async fn check(cluster: &Cluster, acknowledged: &[StatementStatus]) -> Result<Agreement> {
    let nodes: Vec<usize> = (0..cluster.network.len()).collect();
    check_nodes(cluster, &nodes, acknowledged).await
}

/// Kills one node, so that the quorum needs every other, waits until the load has gone on, and compares all nodes when that
/// one is back.
///
/// # Errors
/// As [`check`], and when the load stands still.
pub async fn check_without(cluster: &mut Cluster, load: Load, killed: usize) -> Result<Agreement> {
    cluster.network.kill(killed)?;
    load.wait_more(200, Duration::from_secs(90)).await?;
    cluster.network.start(killed)?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let acknowledged = load.finish().await?;
    check(cluster, &acknowledged).await
}

/// As [`check`], for some nodes.
///
/// # Errors
/// As [`check`].
pub async fn check_nodes(cluster: &Cluster, nodes: &[usize], acknowledged: &[StatementStatus]) -> Result<Agreement> {
    let acknowledged_height = acknowledged.iter().filter_map(|status| status.height).max().unwrap_or_default().0;
    // The header above an outcome certifies it.
    let mut highest = acknowledged_height + 1;
    for node in nodes {
        highest = highest.max(cluster.height(*node).await?);
    }
    for node in nodes {
        cluster.wait_height(*node, highest, SETTLE_WAIT_MAX).await.context("catching up")?;
    }
    let clients = nodes.iter().map(|node| cluster.client("agency-1", *node)).collect::<Result<Vec<_>>>()?;
    let log_size = headers_equal(cluster, nodes, highest).await?;
    outcomes_kept(&clients, acknowledged).await?;
    roots_equal(&clients).await?;
    no_equivocation(cluster, nodes)?;
    Ok(Agreement { height: highest, statements: acknowledged.len(), log_size })
}

/// Every node must have the same header at every height: no fork. Returns the log's size at the highest.
async fn headers_equal(cluster: &Cluster, nodes: &[usize], highest: u64) -> Result<u64> {
    let profile = cluster.network.profile();
    let readers = nodes
        .iter()
        .map(|node| {
            let node = &profile.nodes[*node];
            // Plain on loopback where there is such a listener: every header of every node is read.
            Ok(match &node.plain {
                Some(address) => Client::of(Endpoint::http(address)?, None)?,
                None => cluster.session.probe(node)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut log_size = 0;
    for height in 1..=highest {
        let mut first = None;
        for (node, reader) in nodes.iter().zip(&readers) {
            let header = reader.header(Height(height)).await.with_context(|| format!("header {height} of {node}"))?;
            let id = header.header.id();
            match first {
                None => first = Some(id),
                Some(first) => ensure!(first == id, "fork at height {height}: node {node} has {id}, not {first}"),
            }
            log_size = header.header.log_size;
        }
    }
    Ok(log_size)
}

/// Every node must know every acknowledged statement with the outcome and the index that were acknowledged.
async fn outcomes_kept(clients: &[Client], acknowledged: &[StatementStatus]) -> Result<()> {
    for (node, client) in clients.iter().enumerate() {
        for chunk in acknowledged.chunks(IDS_MAX) {
            let ids: Vec<StatementId> = chunk.iter().map(|status| status.statement).collect();
            let now = client.statuses(&ids, Wait::Certified(Duration::from_secs(20))).await?;
            ensure!(now.len() == ids.len(), "node {node} answered {} of {} ids", now.len(), ids.len());
            for (then, now) in chunk.iter().zip(&now) {
                ensure!(
                    now.progress == Some(Progress::Certified) && (now.code, now.index) == (then.code, then.index),
                    "an acknowledged statement is lost: {then:?} was acknowledged, node {node} says {now:?}"
                );
            }
        }
    }
    Ok(())
}

/// The state that each node holds must have the root that the headers name.
async fn roots_equal(clients: &[Client]) -> Result<()> {
    let deadline = Instant::now() + SETTLE_WAIT_MAX;
    let network = clients.first().context("no node")?.network().await?;
    let party = network.validators.first().context("no validator")?.party.clone();
    for (node, client) in clients.iter().enumerate() {
        let (height, root) = loop {
            match client.state("party", &party).await {
                Ok(proofs) => {
                    let proof = proofs.first().context("no proof")?;
                    break (proof.height, proof.root);
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        for (other, judge) in clients.iter().enumerate() {
            let header = loop {
                match judge.header(height.next()).await {
                    Ok(certified) => break certified.header,
                    Err(error) if Instant::now() > deadline => return Err(error.into()),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            };
            if header.state_root != root {
                bail!(
                    "roots differ: node {node} holds {root} after {height}, the header of node {other} says {}",
                    header.state_root
                );
            }
        }
    }
    Ok(())
}

/// No validator may have signed two values: a restarted node must not forget what it voted for.
fn no_equivocation(cluster: &Cluster, nodes: &[usize]) -> Result<()> {
    for node in nodes {
        let name = &cluster.network.profile().nodes[*node].name;
        let directory = cluster.network.dir().node(name).data().join("evidence");
        // The directory is made with the first proof.
        let Ok(mut entries) = std::fs::read_dir(&directory) else { continue };
        if let Some(entry) = entries.next() {
            bail!("{name} holds evidence of equivocation: {}", entry.context("evidence")?.path().display());
        }
    }
    Ok(())
}
