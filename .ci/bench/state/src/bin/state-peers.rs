//! The state map against nomt and qmdb: durable commits of updates of existing keys, a root after each.
//!
//! All three hold the same keys, SHA-256 of a counter, with values of 100 bytes. A commit takes 10,000 updates of
//! distinct keys drawn uniformly from a fixed seed, in no order; timed are sorting them, applying them, the new root
//! and the wait until the updates survive a power loss. The three take turns round by round in one process, everything
//! pinned to one core. Making a batch and bringing it into the form of an interface are not timed, but what a
//! candidate's other threads do on the core meanwhile, and until they rest at the end of a turn, is added to its time.
//! The processor time beside each rate is less disturbed by a busy machine than the rate.
//!
//! What is on disk when a commit returns:
//!  - ours: a record of the write-set, flushed; values lie there and, up to a GiB, in memory too. Snapshots are written on
//!    the way as in a node. The tree is in memory.
//!  - nomt, its own commit: the trie's pages and a B-tree of values, flushed. SHA-256, one commit worker and one I/O
//!    worker (three are slower on one core), no warm-up of paths (slower too: all is cached), no rollback log.
//!  - qmdb, "current" and ordered, the variant with proofs of absence: its `commit`, which flushes the log of operations
//!    and promises what our record does. With `--qmdb-sync 1` its `sync` as well, which flushes the Merkle mountain range
//!    and where recovery starts. SHA-256, values of fixed size, the Sequential strategy. Its log is never pruned, which
//!    is to its advantage.
//!
//! Nomt has caches that hold everything. Qmdb comes twice: with the page cache of its own benchmarks, 2 MiB, and, as
//! `qmdb-cached`, with one that holds everything. All are built as for a release; ours keeps its overflow checks.
//!
//! Not comparable: nomt and qmdb keep indexes on disk too and can hold more than memory, our tree cannot; qmdb's
//! root depends on the history of operations, and it can prove what a key was; ours keeps the last minute's roots
//! provable.
//!
//! Options: `--keys` (1,000,000), `--rounds` (3), `--seconds` a turn (10), `--core` (0), `--only` a candidate,
//! `--qmdb-sync` (0), `--json FILE`, `--directory DIR`, which must be on a real disk.

use std::collections::HashSet;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use commonware_cryptography::Sha256;
use commonware_cryptography::sha256::Digest;
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::{CacheRef, page_size};
use commonware_runtime::tokio::{Config as RunnerConfig, Context, Runner};
use commonware_runtime::{BLOB_PAGE_SIZE, Runner as _, Supervisor as _};
use commonware_storage::journal::contiguous::fixed::Config as JournalConfig;
use commonware_storage::merkle::{full::Config as MerkleConfig, mmr};
use commonware_storage::qmdb::current::{FixedConfig, ordered::fixed::Db};
use commonware_storage::qmdb::floor::Proportional;
use commonware_storage::translator::EightCap;
use commonware_utils::sequence::FixedBytes;
use commonware_utils::{NZU64, NZUsize};
use nomt::hasher::Sha2Hasher;
use nomt::{KeyReadWrite, Nomt, SessionParams};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use stele_bench_report::{Arguments, Figure, median};
use stele_state::{Hash, Key, TreeMap, Options, StateHash, StateMap, Write};

type Outcome<T> = Result<T, Box<dyn Error>>;

const VALUE_BYTES: usize = 100;
type Value = [u8; VALUE_BYTES];

const BATCH: u64 = 10_000;
const LOAD_BATCH: u64 = 50_000;

/// Keys of the last batch that must have its values at the end of a turn.
const CHECKED: usize = 100;

fn main() -> Outcome<()> {
    let arguments = Arguments::read()?;
    let keys: u64 = arguments.number("keys", 1_000_000)?;
    let rounds: usize = arguments.number("rounds", 3)?;
    let turn = Duration::from_secs(arguments.number("seconds", 10)?);
    // Before there are other threads: they inherit it.
    let mut core = CpuSet::new();
    core.set(arguments.number("core", 0)?);
    sched_setaffinity(None, &core)?;

    let directory = arguments.work_directory()?;
    let names = arguments.word("only").map_or(vec!["ours", "qmdb", "qmdb-cached", "nomt"], |only| vec![only]);
    let sync = arguments.number("qmdb-sync", 0)? != 0;
    let mut candidates = Vec::new();
    for name in names {
        let directory = directory.path().join(name);
        let candidate: Box<dyn Candidate> = match name {
            "ours" => Box::new(Ours::open(&directory)?),
            "qmdb" => Box::new(Qmdb::open(directory, sync, Qmdb::OWN_CACHE_PAGES)?),
            "qmdb-cached" => Box::new(Qmdb::open(directory, sync, Qmdb::WHOLE_CACHE_PAGES)?),
            "nomt" => Box::new(NomtMap::open(&directory, keys)?),
            name => return Err(format!("no candidate is called {name}").into()),
        };
        candidates.push(Turn::new(name.to_owned(), keys, candidate));
    }
    for candidate in &mut candidates {
        candidate.preload()?;
    }
    for _ in 0..rounds {
        for candidate in &mut candidates {
            candidate.commits(turn)?;
        }
    }
    for candidate in &candidates {
        println!("{}: {:.0} updates/s at the median", candidate.name, median(candidate.rates.clone()));
    }
    let [ours, qmdb, cached, nomt] = &*candidates else { return Ok(()) };
    let figure = |name, peer: &Turn| Figure {
        name,
        value: median(ours.rates.clone()),
        unit: "1/s",
        peer: Some(median(peer.rates.clone())),
    };
    arguments.report(&[
        figure("commit.vs_qmdb", qmdb),
        figure("commit.vs_qmdb_cached", cached),
        figure("commit.vs_nomt", nomt),
    ])
}

/// A candidate, the updates that it gets, and its figures so far.
struct Turn {
    name: String,
    candidate: Box<dyn Candidate>,
    updates: Updates,
    root: Hash,
    rates: Vec<f64>,
}

impl Turn {
    fn new(name: String, keys: u64, candidate: Box<dyn Candidate>) -> Self {
        Self { name, candidate, updates: Updates { keys, random: 7 }, root: [0; 32], rates: Vec::new() }
    }

    fn preload(&mut self) -> Outcome<()> {
        let started = Instant::now();
        let mut clock = Clock::new();
        for first in (0..self.updates.keys).step_by(usize::try_from(LOAD_BATCH)?) {
            let batch = self.updates.of(first..(first + LOAD_BATCH).min(self.updates.keys));
            self.root = self.candidate.commit(&batch, &mut clock)?;
        }
        clock.settle();
        println!("{}: {} keys in {:.1} s", self.name, self.updates.keys, started.elapsed().as_secs_f64());
        Ok(())
    }

    fn commits(&mut self, turn: Duration) -> Outcome<()> {
        let mut clock = Clock::new();
        let mut times = Vec::new();
        let mut batch = Vec::new();
        while clock.total < turn {
            batch = self.updates.batch();
            let before = clock.total;
            let root = self.candidate.commit(&batch, &mut clock)?;
            times.push((clock.total - before).as_secs_f64());
            assert_ne!(root, self.root, "{} did not change its root", self.name);
            self.root = root;
        }
        clock.settle();
        let updates = (times.len() * batch.len()) as f64;
        let rate = updates / clock.total.as_secs_f64();
        println!(
            "{}: {rate:.0} updates/s, {:.2} us of processor each; {} commits, {:.1} ms at the median, {:.0} at most",
            self.name,
            clock.processor.as_secs_f64() * 1e6 / updates,
            times.len(),
            median(times.clone()) * 1e3,
            times.iter().copied().fold(0.0, f64::max) * 1e3,
        );
        self.rates.push(rate);
        for (key, value) in batch.iter().take(CHECKED) {
            assert_eq!(self.candidate.get(key)?.as_deref(), Some(&value[..]), "{} lost an update", self.name);
        }
        Ok(())
    }
}

/// The same sequence of batches for every candidate.
struct Updates {
    keys: u64,
    random: u64,
}

impl Updates {
    fn batch(&mut self) -> Vec<(Key, Value)> {
        let mut drawn = HashSet::new();
        let mut numbers = Vec::new();
        while (numbers.len() as u64) < BATCH.min(self.keys) {
            let number = self.next() % self.keys;
            if drawn.insert(number) {
                numbers.push(number);
            }
        }
        self.of(numbers)
    }

    fn of(&mut self, numbers: impl IntoIterator<Item = u64>) -> Vec<(Key, Value)> {
        let key = |number: u64| StateHash::Sha256.value(&number.to_be_bytes());
        numbers.into_iter().map(|number| (key(number), self.value())).collect()
    }

    fn value(&mut self) -> Value {
        let mut value = [0; VALUE_BYTES];
        for part in value.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_be_bytes()[..part.len()]);
        }
        value
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// What a turn took: the time between start and stop, and what other threads of the process spent on the core while
/// the clock stood. Only the candidate whose turn it is has threads that work.
struct Clock {
    total: Duration,
    /// The part of it that the process spent on the core.
    processor: Duration,
    started: Instant,
    process: Duration,
    others: Duration,
}

impl Clock {
    fn new() -> Self {
        Self {
            total: Duration::ZERO,
            processor: Duration::ZERO,
            started: Instant::now(),
            process: Self::process(),
            others: Self::others(),
        }
    }

    fn start(&mut self) {
        let behind = Self::others().saturating_sub(self.others);
        self.total += behind;
        self.processor += behind;
        (self.started, self.process) = (Instant::now(), Self::process());
    }

    fn stop(&mut self) {
        self.total += self.started.elapsed();
        self.processor += Self::process().saturating_sub(self.process);
        self.others = Self::others();
    }

    /// Waits until the other threads rest, with the clock standing.
    fn settle(&mut self) {
        loop {
            let before = Self::others();
            std::thread::sleep(Duration::from_millis(200));
            if Self::others().saturating_sub(before) < Duration::from_millis(2) {
                break;
            }
        }
        self.start();
        self.stop();
    }

    /// Time on processors of all threads.
    fn process() -> Duration {
        Self::now(ClockId::ProcessCPUTime)
    }

    /// Time on processors of all threads but this one.
    fn others() -> Duration {
        Self::process().saturating_sub(Self::now(ClockId::ThreadCPUTime))
    }

    fn now(clock: ClockId) -> Duration {
        Duration::try_from(clock_gettime(clock)).expect("processor times are positive")
    }
}

trait Candidate {
    /// Commits updates of distinct keys in no order, durably, with the clock running, and returns the new root.
    fn commit(&mut self, batch: &[(Key, Value)], clock: &mut Clock) -> Outcome<Hash>;
    fn get(&mut self, key: &Key) -> Outcome<Option<Vec<u8>>>;
}

struct Ours {
    map: TreeMap,
    height: u64,
}

impl Ours {
    fn open(directory: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(directory)?;
        // Durability::Sync and one thread are the defaults.
        Ok(Self { map: TreeMap::open(directory, Options::new(StateHash::Sha256))?.map, height: 0 })
    }
}

impl Candidate for Ours {
    fn commit(&mut self, batch: &[(Key, Value)], clock: &mut Clock) -> Outcome<Hash> {
        let mut writes: Vec<Write> = batch.iter().map(|(key, value)| (*key, Some(value.to_vec()))).collect();
        self.height += 1;
        clock.start();
        writes.sort_unstable_by_key(|(key, _)| *key);
        let staged = self.map.stage(&self.map.root(), writes)?;
        let root = self.map.commit(staged, self.height)?;
        clock.stop();
        Ok(root)
    }

    fn get(&mut self, key: &Key) -> Outcome<Option<Vec<u8>>> {
        Ok(self.map.get(key)?)
    }
}

struct NomtMap(Nomt<Sha2Hasher>);

impl NomtMap {
    /// Most that the page cache and the leaf cache may take each.
    const CACHE_MIB: usize = 1024;

    fn open(directory: &Path, keys: u64) -> Outcome<Self> {
        let mut options = nomt::Options::new();
        options.path(directory);
        options.commit_concurrency(1);
        options.io_workers(1);
        options.page_cache_size(Self::CACHE_MIB);
        options.leaf_cache_size(Self::CACHE_MIB);
        // The table cannot grow while it is in use; a quarter of the keys leaves half of it empty.
        options.hashtable_buckets(u32::try_from(keys / 4)?.max(64_000));
        options.bitbox_seed([7; 16]);
        Ok(Self(Nomt::open(options)?))
    }
}

impl Candidate for NomtMap {
    fn commit(&mut self, batch: &[(Key, Value)], clock: &mut Clock) -> Outcome<Hash> {
        let write = |value: &Value| KeyReadWrite::Write(Some(value.to_vec()));
        let mut writes: Vec<_> = batch.iter().map(|(key, value)| (*key, write(value))).collect();
        clock.start();
        writes.sort_unstable_by_key(|(key, _)| *key);
        let finished = self.0.begin_session(SessionParams::default()).finish(writes)?;
        let root = finished.root();
        finished.commit(&self.0)?;
        clock.stop();
        Ok(root.into_inner())
    }

    fn get(&mut self, key: &Key) -> Outcome<Option<Vec<u8>>> {
        Ok(self.0.read(*key)?)
    }
}

/// Bytes of a chunk of the bitmap of active operations that qmdb grafts onto its tree; its own benchmarks' choice.
const CHUNK_BYTES: usize = 32;

type QmdbValue = FixedBytes<VALUE_BYTES>;
type Database = Db<mmr::Family, Context, Digest, QmdbValue, Sha256, EightCap, CHUNK_BYTES, Sequential>;

/// Qmdb lives in the runtime that its context comes from, which wants a thread for itself.
struct Qmdb {
    /// None when it is to end.
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

enum Request {
    Commit(Vec<(Digest, QmdbValue)>, Sender<Digest>),
    Get(Digest, Sender<Option<QmdbValue>>),
}

impl Qmdb {
    /// Of 4 KiB: 2 MiB, and a GiB.
    const OWN_CACHE_PAGES: NonZeroUsize = NZUsize!(512);
    const WHOLE_CACHE_PAGES: NonZeroUsize = NZUsize!(262_144);
    const BUFFER_BYTES: usize = 8 << 20;

    fn open(directory: PathBuf, sync: bool, pages: NonZeroUsize) -> Outcome<Self> {
        let (requests, inbox) = channel();
        let thread = std::thread::spawn(move || Self::run(directory, sync, pages, inbox));
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    fn run(directory: PathBuf, sync: bool, pages: NonZeroUsize, inbox: Receiver<Request>) {
        let config = RunnerConfig::new().with_worker_threads(1).with_storage_directory(directory);
        Runner::new(config).start(|context| async move {
            let mut database =
                Database::init(context.child("storage"), Self::config(pages), None).await.expect("a new qmdb");
            // Waiting here blocks nothing: what the database spawns runs on the runtime's other threads.
            while let Ok(request) = inbox.recv() {
                match request {
                    Request::Commit(writes, answer) => {
                        database = Self::write(database, writes).await;
                        if sync {
                            database = database.sync().await.expect("a working disk");
                        }
                        // Whoever asked may be gone.
                        let _ = answer.send(database.root());
                    }
                    Request::Get(key, answer) => {
                        let _ = answer.send(database.get(&key).await.expect("a readable qmdb"));
                    }
                }
            }
        });
    }

    fn config(pages: NonZeroUsize) -> FixedConfig<EightCap, Sequential> {
        let page_cache = CacheRef::new(page_size(BLOB_PAGE_SIZE), pages);
        let (items_per_blob, buffer) = (NZU64!(10_000_000), NZUsize!(Self::BUFFER_BYTES));
        FixedConfig {
            merkle_config: MerkleConfig {
                journal_partition: "nodes".to_owned(),
                metadata_partition: "pinned".to_owned(),
                items_per_blob,
                write_buffer: buffer,
                replay_buffer: buffer,
                strategy: Sequential,
                page_cache: page_cache.clone(),
            },
            journal_config: JournalConfig {
                partition: "operations".to_owned(),
                items_per_blob,
                page_cache,
                write_buffer: buffer,
                replay_buffer: buffer,
            },
            grafted_metadata_partition: "grafted".to_owned(),
            translator: EightCap,
            init_cache: None,
            init_buffer: buffer,
            init_concurrency: (),
        }
    }

    async fn write(database: Database, writes: Vec<(Digest, QmdbValue)>) -> Database {
        let mut batch = database.new_batch();
        for (key, value) in writes {
            batch = batch.write(key, Some(value));
        }
        let batch = batch.merkleize(&database, None, &mut Proportional).await.expect("a valid batch");
        let database = database.apply_batch(batch).await.expect("a batch of this state");
        database.commit().await.expect("a working disk")
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Outcome<T> {
        let (answer, inbox) = channel();
        self.requests.as_ref().ok_or("qmdb has ended")?.send(request(answer))?;
        Ok(inbox.recv().map_err(|_| "qmdb has ended")?)
    }
}

impl Candidate for Qmdb {
    fn commit(&mut self, batch: &[(Key, Value)], clock: &mut Clock) -> Outcome<Hash> {
        // It sorts what it gets.
        let writes = batch.iter().map(|(key, value)| (Digest(*key), QmdbValue::new(*value))).collect();
        clock.start();
        let root = self.ask(|answer| Request::Commit(writes, answer))?;
        clock.stop();
        Ok(root.0)
    }

    fn get(&mut self, key: &Key) -> Outcome<Option<Vec<u8>>> {
        let value = self.ask(|answer| Request::Get(Digest(*key), answer))?;
        Ok(value.map(|value| value.to_vec()))
    }
}

impl Drop for Qmdb {
    /// Waits for the runtime: its files are about to be removed.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}
