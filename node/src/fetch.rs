//! Fetching a snapshot of the state from nodes that run and are not trusted.
//!
//! A header of the network, verified from the genesis file on, certifies the state after the snapshot's height. Every chunk
//! proves itself under that root, so what one node spoils or lacks comes from another.
//!
//! How finely a snapshot is divided no header certifies. Nodes that say the same of one are asked together, and when its
//! chunks do not come, what others say is tried: a node that lies about the division ends nobody's fetching but its own.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use stele_client::{Bounds, Client, ClientIdentity, Endpoint, RetryPolicy, SnapshotView, TlsSettings};
use stele_state::{CHUNK_BYTES_MAX, Chunk, KeyRange, SNAPSHOT_DEPTH_MAX, SnapshotBuilder};
use stele_types::exchange::CertifiedHeader;
use stele_types::{Hash, Height};
use stele_verify::TrustAnchor;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Snapshots that one node may offer; a node keeps two.
const OFFERS_PER_NODE_MAX: usize = 8;

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
}

/// A snapshot, and the nodes that say the same of it.
pub(crate) struct Offer<S = Arc<Source>> {
    pub(crate) height: Height,
    pub(crate) state_root: Hash,
    /// It has 2^depth chunks.
    pub(crate) depth: u8,
    sources: Vec<S>,
}

/// What was fetched, for the last line.
pub(crate) struct Fetched {
    /// Pairs of the chunks, all of them proven.
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
            anyhow::Ok(Arc::new(Source { name: address.clone(), client }))
        };
        self.from.iter().map(source).collect()
    }
}

/// Fetches the newest snapshot that nodes offer, or the one of a height: one that `prove` accepts by the word of some node,
/// and whose chunks all come. `begin` makes what they are put into; what fails there ends the fetching.
pub(crate) async fn newest<T>(
    sources: &[Arc<Source>],
    height: Option<u64>,
    prove: impl AsyncFn(&Source, &Offer) -> anyhow::Result<T>,
    begin: impl Fn(&Offer, &T) -> anyhow::Result<SnapshotBuilder>,
) -> anyhow::Result<(T, Fetched)> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for source in sources {
        match source.client.snapshots().await {
            Ok(snapshots) => found.push((Arc::clone(source), snapshots)),
            Err(error) => failures.push(format!("{}: {error}", source.name)),
        }
    }
    let mut proven = false;
    for offer in offers(found, height) {
        let Some(proof) = prove_by_any(&offer, &prove, &mut failures).await else { continue };
        proven = true;
        match chunks(&offer, begin(&offer, &proof)?).await? {
            Ok(fetched) => return Ok((proof, fetched)),
            Err(Incomplete { missing, total }) => {
                let Offer { height, depth, .. } = offer;
                warn!(%height, depth, missing, total, "a snapshot did not come whole: the next one is tried");
                failures
                    .push(format!("snapshot {height}: {missing} of {total} chunks came from no node that offers it"));
            }
        }
    }
    let failures = failures.join("; ");
    if proven {
        bail!("snapshot_incomplete: no snapshot came whole; try again, or name more nodes: {failures}");
    }
    if failures.is_empty() {
        bail!(
            "snapshot_missing: no node offers such a snapshot; they are written every `state.snapshot_interval` heights"
        );
    }
    bail!("snapshot_missing: no node offers a snapshot that is proven: {failures}")
}

/// What nodes offer, the newest first; of one height, what more of them say. What no snapshot can be is left out.
fn offers<S: Clone>(found: Vec<(S, Vec<SnapshotView>)>, height: Option<u64>) -> Vec<Offer<S>> {
    let mut offers: Vec<Offer<S>> = Vec::new();
    for (source, snapshots) in found {
        let wanted = snapshots.iter().filter(|snapshot| height.is_none_or(|height| snapshot.height == height));
        let possible = wanted.filter(|snapshot| snapshot.depth <= SNAPSHOT_DEPTH_MAX).filter_map(|snapshot| {
            Some((Height(snapshot.height), Hash::from_hex(&snapshot.state_root)?, snapshot.depth))
        });
        // Each counts once for a node, however often that says it.
        for said in possible.take(OFFERS_PER_NODE_MAX).collect::<BTreeSet<_>>() {
            match offers.iter_mut().find(|offer| (offer.height, offer.state_root, offer.depth) == said) {
                Some(offer) => offer.sources.push(source.clone()),
                None => {
                    let (height, state_root, depth) = said;
                    offers.push(Offer { height, state_root, depth, sources: vec![source.clone()] });
                }
            }
        }
    }
    offers.sort_by_key(|offer| std::cmp::Reverse((offer.height, offer.sources.len())));
    offers
}

/// What shows that an offer is of the network, by the first node that can show it.
async fn prove_by_any<T>(
    offer: &Offer,
    prove: &impl AsyncFn(&Source, &Offer) -> anyhow::Result<T>,
    failures: &mut Vec<String>,
) -> Option<T> {
    for source in &offer.sources {
        match prove(source, offer).await {
            Ok(proof) => {
                info!(height = %offer.height, node = source.name, "a certified header vouches for a snapshot");
                return Some(proof);
            }
            Err(error) => failures.push(format!("{}: snapshot {}: {error:#}", source.name, offer.height)),
        }
    }
    None
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

/// Compares what nodes say of a snapshot with the header that certifies the state.
pub(crate) fn check_root(offer: &Offer, certifying: &CertifiedHeader) -> anyhow::Result<()> {
    if offer.state_root != certifying.header.state_root {
        bail!("the snapshot has another state root than the header certifies");
    }
    Ok(())
}

/// Chunks that came from no node.
struct Incomplete {
    missing: usize,
    total: usize,
}

/// Fetches the chunks of the state from all nodes that offer it at once; within, that some of them did not come.
async fn chunks(offer: &Offer, builder: SnapshotBuilder) -> anyhow::Result<Result<Fetched, Incomplete>> {
    let started = Instant::now();
    let wanted: VecDeque<KeyRange> = builder.missing().collect();
    let total = wanted.len();
    let wanted = Arc::new(Mutex::new(wanted));
    let builder = Arc::new(Mutex::new(builder));
    let mut tasks = JoinSet::new();
    for source in &offer.sources {
        let faults = Arc::<Mutex<u32>>::default();
        for _ in 0..FETCHES_PER_NODE {
            let (source, faults) = (Arc::clone(source), Arc::clone(&faults));
            let (wanted, builder, height) = (Arc::clone(&wanted), Arc::clone(&builder), offer.height);
            tasks.spawn(async move { serve(&source, &faults, &wanted, &builder, height).await });
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
        return Ok(Err(Incomplete { missing, total }));
    }
    let pairs = builder.pairs();
    tokio::task::spawn_blocking(move || builder.finish()).await??;
    Ok(Ok(Fetched { pairs, bytes, elapsed: started.elapsed() }))
}

/// Fetches chunks from one node until none is wanted or the node has failed too often; returns their bytes.
async fn serve(
    source: &Source,
    faults: &Mutex<u32>,
    wanted: &Mutex<VecDeque<KeyRange>>,
    builder: &Arc<Mutex<SnapshotBuilder>>,
    height: Height,
) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while *lock(faults) < FAULTS_MAX {
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
            *lock(faults) += 1;
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

#[cfg(test)]
mod tests {
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use stele_state::{Options, SnapshotReader, StateHash, StateMap as _, TreeMap};

    use super::*;

    /// A node: the chunks that it has, and how finely it says that they divide the state.
    struct Node {
        reader: Arc<SnapshotReader>,
        depth: u8,
    }

    async fn list(State(node): State<Arc<Node>>) -> Json<Value> {
        let root = Hash(node.reader.root()).to_hex();
        // No snapshot has so many pairs, and nobody can check it before the chunks are there.
        let snapshot = json!({ "height": 5, "state_root": root, "depth": node.depth, "pairs": 1_000_000, "bytes": 1 });
        Json(json!({ "snapshots": [snapshot.clone(), snapshot] }))
    }

    async fn chunk(State(node): State<Arc<Node>>, Path((_, index)): Path<(u64, u64)>) -> Result<Vec<u8>, StatusCode> {
        let range = KeyRange::new(node.reader.depth(), index).ok_or(StatusCode::NOT_FOUND)?;
        Ok(node.reader.chunk(range).unwrap().unwrap().encode())
    }

    async fn source(reader: &Arc<SnapshotReader>, depth: u8) -> Arc<Source> {
        let router = Router::new()
            .route("/v1/snapshots", get(list))
            .route("/v1/snapshots/{height}/{index}", get(chunk))
            .with_state(Arc::new(Node { reader: Arc::clone(reader), depth }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let retry = RetryPolicy { tries_max: 1, ..RETRY };
        let client = Client::builder().endpoint(Endpoint::http(&name).unwrap()).retry(retry).build().unwrap();
        Arc::new(Source { name, client })
    }

    /// The snapshot of height 5 of a state of a thousand pairs.
    fn snapshot(directory: &std::path::Path) -> Arc<SnapshotReader> {
        let mut map = TreeMap::open(directory, Options::new(StateHash::Sha256)).unwrap().map;
        let mut writes: Vec<_> =
            (0..1000_u64).map(|seed| (StateHash::Sha256.value(&seed.to_be_bytes()), Some(vec![1; 2000]))).collect();
        writes.sort_unstable();
        let staged = map.stage(&map.root(), writes).unwrap();
        map.commit(staged, 5).unwrap();
        map.checkpoint().unwrap();
        Arc::new(SnapshotReader::open(&SnapshotReader::files(directory).unwrap()[0].1).unwrap())
    }

    async fn fetch(sources: &[Arc<Source>], reader: &SnapshotReader) -> anyhow::Result<Fetched> {
        let directory = tempfile::tempdir().unwrap();
        let begin = |offer: &Offer, (): &()| {
            let (root, hash) = (offer.state_root.0, reader.hash());
            Ok(SnapshotBuilder::create(directory.path(), hash, offer.height.0, root, offer.depth)?)
        };
        let ((), fetched) = newest(sources, None, async |_: &Source, _: &Offer| Ok(()), begin).await?;
        let (_, path) = SnapshotReader::files(directory.path())?.remove(0);
        assert_eq!(SnapshotReader::open(&path)?.root(), reader.root());
        Ok(fetched)
    }

    /// The division that the first node named was everybody's: the others had no such chunks, and the fetching ended.
    #[tokio::test]
    async fn a_node_that_lies_about_the_division_ends_nobodys_fetching() {
        let directory = tempfile::tempdir().unwrap();
        let reader = snapshot(directory.path());
        let depth = reader.depth();
        assert!(depth > 1);
        let (liar, honest) = (source(&reader, depth + 1).await, source(&reader, depth).await);
        for sources in [&[Arc::clone(&liar), Arc::clone(&honest)][..], &[honest, Arc::clone(&liar)]] {
            // What is told of the state is what came of it, whatever the nodes say.
            assert_eq!(fetch(sources, &reader).await.unwrap().pairs, 1000);
        }
        let (deepest, too_deep) = (source(&reader, SNAPSHOT_DEPTH_MAX).await, source(&reader, 60).await);
        let said = |failed: anyhow::Result<Fetched>| failed.map(|_| ()).unwrap_err().to_string();
        assert!(
            said(fetch(&[liar, deepest, Arc::clone(&too_deep)], &reader).await).starts_with("snapshot_incomplete: ")
        );
        assert!(said(fetch(&[too_deep], &reader).await).starts_with("snapshot_missing: "));
    }

    #[test]
    fn offers_are_of_what_nodes_say_alike() {
        let view = |height, root: u8, depth| SnapshotView {
            height,
            state_root: Hash([root; 32]).to_hex(),
            depth,
            pairs: 0,
            bytes: 0,
        };
        let broken = SnapshotView { state_root: "none".to_owned(), ..view(30, 1, 3) };
        let found = vec![
            ("a", vec![view(20, 1, 3), view(10, 2, 2), view(20, 1, 3)]),
            ("b", vec![view(20, 1, 9), broken, view(30, 1, SNAPSHOT_DEPTH_MAX + 1)]),
            ("c", vec![view(20, 1, 3), view(20, 7, 3)]),
            ("d", (0..1000).map(|height| view(height + 100, 1, 1)).collect()),
        ];
        let told = |height| -> Vec<(u64, u8, Vec<&str>)> {
            offers(found.clone(), height)
                .into_iter()
                .map(|offer| (offer.height.0, offer.depth, offer.sources))
                .collect()
        };
        let all = told(None);
        assert_eq!((all.len(), all[0].0), (4 + OFFERS_PER_NODE_MAX, 107));
        assert_eq!(all[OFFERS_PER_NODE_MAX], (20, 3, vec!["a", "c"]));
        assert_eq!(told(Some(10)), [(10, 2, vec!["a"])]);
    }
}
