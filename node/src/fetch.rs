//! Fetching a snapshot of the state from nodes that run and are not trusted.
//!
//! A header of the network, verified from the genesis file on, certifies the state after the snapshot's height. Every chunk
//! proves itself under that root, so what one node spoils or lacks comes from another.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use stele_client::{Bounds, Client, ClientIdentity, Endpoint, RetryPolicy, SnapshotView, TlsSettings};
use stele_state::{CHUNK_BYTES_MAX, Chunk, KeyRange, SnapshotBuilder};
use stele_types::exchange::CertifiedHeader;
use stele_types::{Hash, Height};
use stele_verify::TrustAnchor;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Chunks that are fetched at once from one node.
const FETCHES_PER_NODE: usize = 4;

/// Wrong or missing chunks after which a node is not asked any more.
const FAULTS_MAX: u32 = 3;

/// How often somebody without work looks for some.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How often something is said about how far it is.
const REPORT: Duration = Duration::from_secs(5);

/// Tries of one request before another node is asked.
const RETRY: RetryPolicy =
    RetryPolicy { tries_max: 3, pause_min: Duration::from_millis(200), pause_max: Duration::from_secs(2) };

/// Nodes to fetch from, and as whom.
#[derive(Clone, Debug, Args)]
pub(crate) struct Peers {
    /// Party listener of a node to fetch from, HOST:PORT; several share the work
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    from: Vec<String>,
    /// Authorities of the network's certificates, PEM
    #[arg(long, value_name = "FILE")]
    authorities: PathBuf,
    /// Client certificate of an operator or regulator, PEM
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// A node that is asked.
pub(crate) struct Source {
    name: String,
    pub(crate) client: Client,
    faults: Mutex<u32>,
}

/// What was fetched, for the last line.
pub(crate) struct Fetched {
    pub(crate) pairs: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
}

impl Peers {
    /// Clients of the nodes.
    pub(crate) fn sources(&self) -> anyhow::Result<Vec<Arc<Source>>> {
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let identity = ClientIdentity::from_pem(&read(&self.certificate)?, &read(&self.key)?)?;
        let tls = TlsSettings::new(&read(&self.authorities)?)?.with_identity(identity);
        let bounds =
            Bounds { answer: Duration::from_secs(60), answer_bytes_max: 2 * CHUNK_BYTES_MAX, ..Bounds::default() };
        let source = |address: &String| {
            let endpoint = Endpoint::https(address)?;
            let client = Client::builder().endpoint(endpoint).tls(tls.clone()).retry(RETRY).bounds(bounds).build()?;
            anyhow::Ok(Arc::new(Source { name: address.clone(), client, faults: Mutex::new(0) }))
        };
        self.from.iter().map(source).collect()
    }
}

/// The newest snapshot that some node offers and `prove` accepts, or the one of a height.
pub(crate) async fn newest<T>(
    sources: &[Arc<Source>],
    height: Option<u64>,
    prove: impl AsyncFn(&Source, &SnapshotView) -> anyhow::Result<T>,
) -> anyhow::Result<(SnapshotView, T)> {
    let mut offers: Vec<(SnapshotView, &Arc<Source>)> = Vec::new();
    let mut failures = Vec::new();
    for source in sources {
        match source.client.snapshots().await {
            Ok(found) => offers.extend(found.into_iter().map(|snapshot| (snapshot, source))),
            Err(error) => failures.push(format!("{}: {error}", source.name)),
        }
    }
    offers.retain(|(snapshot, _)| height.is_none_or(|height| snapshot.height == height));
    offers.sort_by_key(|(snapshot, _)| std::cmp::Reverse(snapshot.height));
    for (snapshot, source) in offers {
        match prove(source, &snapshot).await {
            Ok(proof) => {
                info!(height = snapshot.height, node = source.name, "a certified header vouches for a snapshot");
                return Ok((snapshot, proof));
            }
            Err(error) => failures.push(format!("{}: snapshot {}: {error:#}", source.name, snapshot.height)),
        }
    }
    if failures.is_empty() {
        bail!(
            "snapshot_missing: no node offers such a snapshot; they are written every `state.snapshot_interval` heights"
        );
    }
    bail!("snapshot_missing: no node offers a snapshot that is proven: {}", failures.join("; "))
}

/// The header that certifies the results of a height, verified from the anchor on.
pub(crate) async fn certified(
    client: &Client,
    height: Height,
    anchor: &TrustAnchor,
) -> anyhow::Result<CertifiedHeader> {
    let certifying = client.header(height.next()).await?;
    stele_verify::chain::certify(
        anchor,
        &certifying.chain,
        &certifying.epoch_certificates,
        &certifying.header,
        &certifying.certificate,
    )?;
    if certifying.header.height != height.next() {
        bail!("the header is of another height");
    }
    Ok(certifying)
}

/// Compares what a node says of its snapshot with the header that certifies the state.
pub(crate) fn check_root(snapshot: &SnapshotView, certifying: &CertifiedHeader) -> anyhow::Result<()> {
    if Hash::from_hex(&snapshot.state_root) != Some(certifying.header.state_root) {
        bail!("the snapshot has another state root than the header certifies");
    }
    Ok(())
}

/// Fetches the chunks of the state from all nodes at once.
pub(crate) async fn chunks(
    sources: &[Arc<Source>],
    builder: SnapshotBuilder,
    height: Height,
    snapshot: &SnapshotView,
) -> anyhow::Result<Fetched> {
    let started = Instant::now();
    let wanted: VecDeque<KeyRange> = builder.missing().collect();
    let total = wanted.len();
    let wanted = Arc::new(Mutex::new(wanted));
    let builder = Arc::new(Mutex::new(builder));
    let mut tasks = JoinSet::new();
    for source in sources {
        for _ in 0..FETCHES_PER_NODE {
            let (source, wanted, builder) = (Arc::clone(source), Arc::clone(&wanted), Arc::clone(&builder));
            tasks.spawn(async move { serve(&source, &wanted, &builder, height).await });
        }
    }
    let mut bytes = 0;
    let mut report = tokio::time::interval(REPORT);
    report.tick().await;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => bytes += ended??,
                None => break,
            },
            _ = report.tick() => {
                let missing = lock(&builder).missing().count();
                info!(chunks = total - missing, of = total, "fetching the state");
            }
        }
    }
    let builder =
        Arc::into_inner(builder).and_then(|builder| builder.into_inner().ok()).context("a task still runs")?;
    if !builder.is_complete() {
        let missing = builder.missing().count();
        builder.abandon();
        bail!("snapshot_incomplete: {missing} of {total} chunks came from no node; try again, or name more nodes");
    }
    tokio::task::spawn_blocking(move || builder.finish()).await??;
    Ok(Fetched { pairs: snapshot.pairs, bytes, elapsed: started.elapsed() })
}

/// Fetches chunks from one node until none is wanted or the node has failed too often; returns their bytes.
async fn serve(
    source: &Source,
    wanted: &Mutex<VecDeque<KeyRange>>,
    builder: &Arc<Mutex<SnapshotBuilder>>,
    height: Height,
) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while *lock(&source.faults) < FAULTS_MAX {
        let range = lock(wanted).pop_front();
        let Some(range) = range else {
            if lock(builder).is_complete() {
                break;
            }
            // Others have the rest; what their nodes cannot give comes back.
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        let outcome = match source.client.snapshot_chunk(height, range.index()).await {
            Ok(body) => {
                let (builder, length) = (Arc::clone(builder), body.len() as u64);
                let taken = tokio::task::spawn_blocking(move || take(&builder, range, &body)).await??;
                taken.map(|()| bytes += length)
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = outcome {
            warn!(node = source.name, chunk = range.index(), reason, "a chunk is fetched from elsewhere");
            *lock(&source.faults) += 1;
            lock(wanted).push_back(range);
        }
    }
    Ok(bytes)
}

/// Checks a chunk and puts it into the snapshot; within, why it is refused.
fn take(builder: &Mutex<SnapshotBuilder>, range: KeyRange, bytes: &[u8]) -> anyhow::Result<Result<(), String>> {
    let chunk = match Chunk::decode(bytes) {
        Ok(chunk) if chunk.range() == range => chunk,
        Ok(_) => return Ok(Err("it is about another range".to_owned())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(lock(builder).add(&chunk)?.map_err(|error| error.to_string()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
