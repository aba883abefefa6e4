//! `steled join`: a node begins at a snapshot of the state instead of at genesis.
//!
//! It fetches from nodes that run and trusts none of them. A header of the network, verified from the genesis file on,
//! certifies the state, the log and the outcomes at the snapshot's height; everything that is fetched has to fit it, each
//! piece by itself, so what one node spoils comes from another. When all is there the chain's directory appears, and
//! `steled run` goes on from there as after any restart.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use stele_client::{Bounds, Client, ClientIdentity, Endpoint, RetryPolicy, SnapshotView, TlsSettings};
use stele_merkle::log::Frontier;
use stele_state::{CHUNK_BYTES_MAX, Chunk, KeyRange, SnapshotBuilder};
use stele_types::{Genesis, Hash, Height, Outcome, cbor};
use stele_verify::TrustAnchor;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::chain::{Adoption, JoinPoint};
use crate::config::Config;
use crate::node::read_genesis;

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

/// Begin at a snapshot of the state, fetched from nodes of the network, instead of at genesis
///
/// For a node that has no chain yet; keys, guards and configuration are in place already. The nodes that are asked are not
/// trusted: what they send is checked against a header that a quorum certified, from the genesis file on. State and log
/// are what they are on every other node; statements from before the snapshot are served by nodes that have them.
#[derive(Clone, Debug, Args)]
pub(crate) struct Join {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
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
    /// Height of the snapshot [default: the newest that a node offers]
    #[arg(long)]
    height: Option<u64>,
}

/// A node that is asked.
struct Source {
    name: String,
    client: Client,
    faults: Mutex<u32>,
}

/// What was fetched, for the last line.
struct Fetched {
    pairs: u64,
    bytes: u64,
    elapsed: Duration,
}

impl Join {
    /// Joins.
    ///
    /// # Errors
    /// When no node offers a snapshot that a certified header vouches for, or a store fails. Nothing is left then but
    /// what the next try removes.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let config = Config::load(&self.config)?;
        config.check(&self.config)?;
        let (genesis_bytes, genesis) = read_genesis(&config.node.genesis)?;
        let anchor = TrustAnchor::genesis(&genesis_bytes)?;
        let sources = self.sources()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (point, fetched) = runtime.block_on(async {
            let (snapshot, point) = self.point(&sources, &anchor).await?;
            let adoption = Adoption::begin(&config.node.data_dir.join("chain"))?;
            let builder = adoption.state(&genesis, &point, snapshot.depth)?;
            let fetched = fetch(&sources, builder, &point, &snapshot).await?;
            adoption.finish(genesis.network(), &point)?;
            anyhow::Ok((point, fetched))
        })?;
        self.say(&genesis, &point, &fetched);
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    fn say(&self, genesis: &Genesis, point: &JoinPoint, fetched: &Fetched) {
        let Fetched { pairs, bytes, elapsed } = fetched;
        println!("network       {}", genesis.network());
        println!("height        {}", point.height());
        println!("state root    {}", point.certifying.header.state_root.to_hex());
        println!("log size      {}", point.certifying.header.log_size);
        println!("state         {pairs} pairs, {bytes} bytes, in {:.1} s, every chunk verified", elapsed.as_secs_f64());
        println!("next          steled run --config {}", self.config.display());
    }

    fn sources(&self) -> anyhow::Result<Vec<Arc<Source>>> {
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

    /// The newest snapshot that some node offers and proves.
    async fn point(&self, sources: &[Arc<Source>], anchor: &TrustAnchor) -> anyhow::Result<(SnapshotView, JoinPoint)> {
        let mut offers: Vec<(SnapshotView, &Arc<Source>)> = Vec::new();
        let mut failures = Vec::new();
        for source in sources {
            match source.client.snapshots().await {
                Ok(found) => offers.extend(found.into_iter().map(|snapshot| (snapshot, source))),
                Err(error) => failures.push(format!("{}: {error}", source.name)),
            }
        }
        offers.retain(|(snapshot, _)| self.height.is_none_or(|height| snapshot.height == height));
        offers.sort_by_key(|(snapshot, _)| std::cmp::Reverse(snapshot.height));
        for (snapshot, source) in offers {
            match prove(source, &snapshot, anchor).await {
                Ok(point) => {
                    info!(height = snapshot.height, node = source.name, "a certified header vouches for a snapshot");
                    return Ok((snapshot, point));
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
}

/// Everything but the state, checked against a header that is verified from genesis.
async fn prove(source: &Source, snapshot: &SnapshotView, anchor: &TrustAnchor) -> anyhow::Result<JoinPoint> {
    let (client, height) = (&source.client, Height(snapshot.height));
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
    let (block, next) = (client.block(height).await?.block, client.block(height.next()).await?.block);
    let standpoint = client.standpoint(height).await?;
    let log_frontier =
        Frontier::decode(&hex::decode(&standpoint.log_frontier)?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let outcome = |text: &String| anyhow::Ok(cbor::from_slice::<Outcome>(&hex::decode(text)?)?);
    let outcomes = standpoint.outcomes.iter().map(outcome).collect::<anyhow::Result<_>>()?;
    let point = JoinPoint { certifying, block, next, log_frontier, outcomes };
    point.check()?;
    if Hash::from_hex(&snapshot.state_root) != Some(point.certifying.header.state_root) {
        bail!("the snapshot has another state root than the header certifies");
    }
    Ok(point)
}

/// Fetches the chunks of the state from all nodes at once.
async fn fetch(
    sources: &[Arc<Source>],
    builder: SnapshotBuilder,
    point: &JoinPoint,
    snapshot: &SnapshotView,
) -> anyhow::Result<Fetched> {
    let started = Instant::now();
    let wanted: VecDeque<KeyRange> = builder.missing().collect();
    let total = wanted.len();
    let wanted = Arc::new(Mutex::new(wanted));
    let builder = Arc::new(Mutex::new(builder));
    let (mut tasks, height) = (JoinSet::new(), point.height());
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
