//! One agency floods the nodes. Another that wants little is served nearly as fast as before; one that wants much gets its
//! half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use stele_client::{Client, Wait};
use stele_ctl::author::Author;
use stele_ctl::network::init::InitOptions;
use stele_testkit::load::record;
use stele_testkit::{Cluster, agreement, scale};
use stele_types::exchange::StatementStatus;
use stele_types::{Code, Command};
use tokio::task::JoinSet;

/// A small queue, so that a flood of this size is far above its share: a quarter of it for one party.
const CONFIGURATION: &str = "[admission]\nqueue_statements_max = 2048\n";
/// So small that either party alone wants more than its places, however slow the machine lets its clients be.
const SCARCE: &str = "[admission]\nqueue_statements_max = 512\n";
/// Connections of the flood, each with a batch in flight: eight times what the queue gives one party.
const FLOOD_CONNECTIONS: usize = 8;
const FLOOD_BATCH: usize = 500;
/// What p99 may add beside doubling: clients, flood and four nodes share the cores of one machine, which the share of a
/// party does not divide.
const MARGIN: Duration = Duration::from_millis(400);

/// A flood that runs, and what became of it.
struct Flood {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    throttled: Arc<AtomicUsize>,
    connections: JoinSet<Result<()>>,
}

impl Flood {
    /// Statements are signed before, so that the flood costs the machine little beside what the node does.
    fn start(clients: Vec<Client>, author: &Author, batches: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (taken, throttled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut connections = JoinSet::new();
        for client in clients {
            let bodies = (0..batches).map(|_| batch(author)).collect::<Result<Vec<Bytes>>>()?;
            let (stop, taken, throttled) = (Arc::clone(&stop), Arc::clone(&taken), Arc::clone(&throttled));
            connections.spawn(async move {
                let mut next = 0;
                while !stop.load(Ordering::Relaxed) && next < bodies.len() {
                    match client.submit_batch(bodies[next].clone()).await {
                        Ok(answers) => {
                            let accepted = answers.iter().filter(|answer| answer.refusal.is_none()).count();
                            let refused = answers.iter().filter(|a| a.refusal == Some(Code::ShareExceeded)).count();
                            ensure!(accepted + refused == answers.len(), "another refusal: {answers:?}");
                            taken.fetch_add(accepted, Ordering::Relaxed);
                            throttled.fetch_add(refused, Ordering::Relaxed);
                            next += 1;
                        }
                        Err(error) => {
                            let code = error.protocol_code();
                            ensure!(code == Some(Code::ShareExceeded), "the flood was refused otherwise: {error}");
                            ensure!(error.retry_after().is_some(), "no Retry-After");
                            throttled.fetch_add(FLOOD_BATCH, Ordering::Relaxed);
                            // Sooner than the node asks: a flood does not listen.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                Ok(())
            });
        }
        Ok(Self { stop, taken, throttled, connections })
    }

    fn is_over(&self) -> bool {
        self.connections.is_empty()
    }

    /// Ends it; how many statements were taken and how many throttled.
    async fn end(mut self) -> Result<(usize, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(connection) = self.connections.join_next().await {
            connection.context("a connection of the flood panicked")??;
        }
        Ok((self.taken.load(Ordering::Relaxed), self.throttled.load(Ordering::Relaxed)))
    }
}

fn batch(author: &Author) -> Result<Bytes> {
    let mut body = Vec::new();
    for _ in 0..FLOOD_BATCH {
        body.extend(author.command(&Command::RecordPut(record()?))?.entry);
    }
    Ok(body.into())
}

/// Registers `count` statements one after the other over each of a few connections: times and outcomes.
async fn times(cluster: &Cluster, party: &str, count: usize) -> Result<(Vec<Duration>, Vec<StatementStatus>)> {
    let author = cluster.author(party)?;
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        let (client, author) = (cluster.client(party, 0)?, author.clone());
        workers.spawn(async move {
            let (mut times, mut statuses) = (Vec::new(), Vec::new());
            for _ in 0..count / 4 {
                let signed = author.command(&Command::RecordPut(record()?))?;
                let started = Instant::now();
                let wait = Wait::Certified(Duration::from_secs(20));
                let status = client.register(signed.entry.into(), wait).await?;
                ensure!(status.code == Some(Code::Applied), "{status:?}");
                times.push(started.elapsed());
                statuses.push(status);
            }
            Ok((times, statuses))
        });
    }
    let (mut times, mut statuses) = (Vec::new(), Vec::new());
    while let Some(worker) = workers.join_next().await {
        let (some, more) = worker.context("a client panicked")??;
        times.extend(some);
        statuses.extend(more);
    }
    times.sort();
    Ok((times, statuses))
}

fn p99(times: &[Duration]) -> Duration {
    times[(times.len() * 99 / 100).min(times.len() - 1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_party_is_throttled_and_hardly_slows_another() -> Result<()> {
    let cluster = Cluster::start_with(&InitOptions { agencies: 2, ..InitOptions::default() }, CONFIGURATION)?;
    let count = scale(200, 2_000);
    times(&cluster, "agency-2", 40).await.context("warming up")?;
    let (alone, mut acknowledged) = times(&cluster, "agency-2", count).await?;

    let clients = (0..FLOOD_CONNECTIONS).map(|_| cluster.client("agency-1", 0)).collect::<Result<_>>()?;
    let flood = Flood::start(clients, &cluster.author("agency-1")?, scale(40, 400))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (flooded, more) = times(&cluster, "agency-2", count).await?;
    ensure!(!flood.is_over(), "the flood ended before the measurement");
    let (taken, throttled) = flood.end().await?;
    acknowledged.extend(more);
    println!("p99 alone {:?}, flooded {:?}; flood: {taken} taken, {throttled} throttled", p99(&alone), p99(&flooded));
    ensure!(
        throttled > taken / 10,
        "a flood far above its share was hardly throttled: {taken} taken, {throttled} throttled"
    );
    let bound = 2 * p99(&alone) + MARGIN;
    ensure!(p99(&flooded) <= bound, "p99 {:?} alone, {:?} flooded, at most {bound:?}", p99(&alone), p99(&flooded));
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_parties_that_both_want_more_than_there_is_get_the_same() -> Result<()> {
    let cluster = Cluster::start_with(&InitOptions { agencies: 2, ..InitOptions::default() }, SCARCE)?;
    let flood = |party: &str, connections: usize, batches: usize| {
        let clients = (0..connections).map(|_| cluster.client(party, 0)).collect::<Result<_>>()?;
        Flood::start(clients, &cluster.author(party)?, batches)
    };
    // Four times as many connections for the first party; the second has enough to be always waiting.
    let second = flood("agency-2", 2, scale(60, 600))?;
    let first = flood("agency-1", FLOOD_CONNECTIONS, scale(30, 300))?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let counts = || (first.taken.load(Ordering::Relaxed), second.taken.load(Ordering::Relaxed));
    let before = counts();
    tokio::time::sleep(Duration::from_secs(if scale(0, 1) == 1 { 40 } else { 6 })).await;
    let after = counts();
    ensure!(!first.is_over() && !second.is_over(), "a flood ended before the measurement");
    let (_, throttled) = (first.end().await?, second.end().await?.1);
    ensure!(throttled > 0, "the quieter party got all that it asked for: nothing was to be shared");
    let (first, second) = (after.0 - before.0, after.1 - before.1);
    let percent = first * 100 / (first + second).max(1);
    println!("the louder party got {first}, the other {second}: {percent} %");
    ensure!(percent <= 60, "the louder party got {percent} % of the node; its share is 50 %, plus 10 %");
    Ok(())
}

/// Seven hundred requests of one party for pages of the feed had taken every blocking thread of the node, and consensus with
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_reads_as_much_as_it_can_hardly_slows_another() -> Result<()> {
    const READERS: usize = 200;
    let cluster = Cluster::start_with(&InitOptions { agencies: 2, ..InitOptions::default() }, "")?;
    let reader = cluster.author("agency-1")?;
    let pages = Flood::start(vec![cluster.client("agency-1", 0)?], &reader, 6)?;
    while !pages.is_over() {
        ensure!(pages.throttled.load(Ordering::Relaxed) == 0, "six batches are no flood");
        if pages.taken.load(Ordering::Relaxed) >= 6 * FLOOD_BATCH {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pages.end().await?;
    let count = scale(200, 2_000);
    let (alone, mut acknowledged) = times(&cluster, "agency-2", count).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let (served, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut readers = JoinSet::new();
    let client = cluster.client("agency-1", 0)?;
    for _ in 0..READERS {
        let (client, stop, served, refused) = (client.clone(), stop.clone(), served.clone(), refused.clone());
        readers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                match client.feed(0, 1_000, Duration::ZERO).await {
                    Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                    Err(_) => refused.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (read, more) = times(&cluster, "agency-2", count).await?;
    let heights = (cluster.height(0).await?, cluster.height(1).await?);
    stop.store(true, Ordering::Relaxed);
    while readers.join_next().await.is_some() {}
    acknowledged.extend(more);
    let (served, refused) = (served.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!("p99 alone {:?}, read {:?}; {served} pages, {refused} refusals", p99(&alone), p99(&read));
    ensure!(served > READERS, "the reader was hardly served: {served} pages");
    ensure!(heights.0 + 5 >= heights.1, "the node that is read from falls behind: {heights:?}");
    let bound = 2 * p99(&alone) + MARGIN;
    ensure!(p99(&read) <= bound, "p99 {:?} alone, {:?} read, at most {bound:?}", p99(&alone), p99(&read));
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}
