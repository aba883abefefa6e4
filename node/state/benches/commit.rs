//! The state map's figures: durable commits, latency, memory, proofs, snapshots.
//!
//! `cargo xtask bench state [--keys 1000000,10000000] [--seconds 5] [--directory DIR] [--json FILE]`
//! `cargo xtask bench state --layout paged --keys 100000000 [--page-cache-bytes N]`
//! `cargo xtask bench state --keys 100000000 --load-threads 16 --commits-only`
//!
//! Uniform random updates of existing keys, values of 100 bytes. A timed batch is sorted, staged, logged, flushed and
//! applied; making its keys and values is not timed. Snapshots run as they do in a node, their thread included, and values
//! stay in files but for [`VALUES_MEMORY_BYTES`]. Pin the program to one core (`taskset -c 1`) for figures per core. The
//! directory must be on a real disk for the durable figures to mean anything. A map with pages is loaded in key order,
//! which takes minutes instead of hours; the updates then are as random as they are for the others. With load threads
//! the program itself keeps to one core from the moment that the map is loaded. `--commits-only` leaves out proofs,
//! snapshots and recovery, and the checkpoint before them.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stele_state::{
    Chunk, Durability, Hash, Key, KeyRange, Layout, Options, SnapshotBuilder, SnapshotReader, StateHash, StateMap,
    TreeMap, Write,
};

/// That of `steled`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const VALUE_BYTES: usize = 100;
const LOAD_BATCH: u64 = 50_000;
/// Where many threads load.
const LOAD_BATCH_THREADS: u64 = 1_000_000;
/// Values that stay in memory: little, so that memory per key is that of the tree.
const VALUES_MEMORY_BYTES: usize = 16 << 20;
/// Batches of a figure at least, so that the 99th percentile is one.
const BATCHES_MIN: usize = 100;

struct Arguments {
    keys: Vec<u64>,
    seconds: u64,
    threads: usize,
    load_threads: Option<usize>,
    commits_only: bool,
    layout: Layout,
    page_cache_bytes: usize,
    directory: PathBuf,
    json: Option<PathBuf>,
}

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let figure = Figure { name: name.into(), value, unit };
        println!("{:<32} {:>14.1} {}", figure.name, figure.value, figure.unit);
        self.0.push(figure);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % bound
    }
}

fn main() {
    let arguments = arguments();
    let mut figures = Figures::default();
    for keys in &arguments.keys {
        let directory = tempfile::TempDir::new_in(&arguments.directory).expect("a writable directory");
        measure(*keys, directory.path(), &arguments, &mut figures);
    }
    let in_memory_too = arguments.layout == Layout::Memory && !arguments.commits_only;
    for hash in [StateHash::Sha256, StateHash::Sm3].into_iter().filter(|_| in_memory_too) {
        in_memory(arguments.keys[0], hash, &arguments, &mut figures);
    }
    if let Some(path) = &arguments.json {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a writable file");
        for Figure { name, value, unit } in &figures.0 {
            writeln!(file, r#"{{"name":"{name}","value":{value:.1},"unit":"{unit}","peer":null,"ratio":null}}"#)
                .expect("a writable file");
        }
    }
}

fn arguments() -> Arguments {
    let mut parsed = Arguments {
        keys: vec![1_000_000],
        seconds: 5,
        threads: 1,
        load_threads: None,
        commits_only: false,
        layout: Layout::Memory,
        page_cache_bytes: Options::PAGE_CACHE_BYTES,
        directory: std::env::temp_dir(),
        json: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--keys" => parsed.keys = value().split(',').map(|keys| keys.parse().expect("a number of keys")).collect(),
            "--seconds" => parsed.seconds = value().parse().expect("a number of seconds"),
            "--threads" => parsed.threads = value().parse().expect("a number of threads"),
            "--load-threads" => parsed.load_threads = Some(value().parse().expect("a number of threads")),
            "--commits-only" => parsed.commits_only = true,
            "--layout" => {
                parsed.layout = match value().as_str() {
                    "memory" => Layout::Memory,
                    "paged" => Layout::Paged,
                    other => panic!("layout {other} is neither memory nor paged"),
                }
            }
            "--page-cache-bytes" => parsed.page_cache_bytes = value().parse().expect("a number of bytes"),
            "--directory" => parsed.directory = value().into(),
            "--json" => parsed.json = Some(value().into()),
            // What `cargo bench` passes to every benchmark.
            "--bench" => {}
            word => panic!("unknown argument {word}"),
        }
    }
    parsed
}

/// `1e6` for 1,000,000.
fn power(keys: u64) -> String {
    format!("{:e}", keys as f64)
}

/// The durable map.
fn measure(keys: u64, directory: &Path, arguments: &Arguments, figures: &mut Figures) {
    let options = Options {
        durability: Durability::Sync,
        values_memory_bytes: VALUES_MEMORY_BYTES,
        threads: arguments.load_threads.unwrap_or(arguments.threads),
        // Values then stay in the log, and none of it is copied.
        snapshot_log_bytes: if arguments.commits_only { u64::MAX } else { Options::SNAPSHOT_LOG_BYTES },
        layout: arguments.layout,
        page_cache_bytes: arguments.page_cache_bytes,
        ..Options::new(StateHash::Sha256)
    };
    forget_peak();
    let state = directory.join("state");
    let mut driver = Driver { map: TreeMap::open(&state, options).expect("a new map").map, height: 0, keys };
    let mut random = Random(7);
    let start = Instant::now();
    let paged = arguments.layout == Layout::Paged;
    if paged {
        driver.load_in_order(&mut random);
    } else {
        driver.load(&mut random, if arguments.load_threads.is_some() { LOAD_BATCH_THREADS } else { LOAD_BATCH });
    }
    if !arguments.commits_only {
        driver.map.checkpoint().expect("a checkpoint");
    }
    if arguments.load_threads.is_some() {
        driver.map.set_threads(arguments.threads);
        keep_to_one_core();
    }
    let suffix = match (paged, keys) {
        (true, _) => format!("{}.paged", power(keys)),
        (false, 100_000_000..) => format!("{}.ram", power(keys)),
        (false, _) => power(keys),
    };
    figures.add(format!("load.{suffix}"), start.elapsed().as_secs_f64(), "s");
    for batch in [10_000, 1_000] {
        let log_before = driver.map.figures();
        let run = driver.run(batch, Duration::from_secs(arguments.seconds), &mut random);
        let name = if batch == 10_000 { format!("commit.{suffix}") } else { format!("commit.{suffix}.1k") };
        figures.add(&name, run.count as f64 / run.time.as_secs_f64(), "updates/s");
        figures.add(format!("{name}.cpu"), 1e6 * run.cpu.as_secs_f64() / run.count as f64, "us/update");
        figures.add(format!("{name}.p50_ms"), milliseconds(run.latencies[run.latencies.len() / 2]), "ms");
        figures.add(format!("{name}.p99_ms"), milliseconds(run.latencies[run.latencies.len() * 99 / 100]), "ms");
        figures.add(format!("{name}.sync_share"), 100.0 * run.sync.as_secs_f64() / run.time.as_secs_f64(), "%");
        let log_after = driver.map.figures();
        if paged {
            let (read, written) =
                (log_after.pages_read - log_before.pages_read, log_after.pages_written - log_before.pages_written);
            figures.add(format!("{name}.reads"), read as f64 / run.count as f64, "pages/update");
            figures.add(format!("{name}.writes"), written as f64 / run.count as f64, "pages/update");
        }
        if log_after.snapshot_height == log_before.snapshot_height && batch == 10_000 {
            let bytes = (log_after.log_bytes - log_before.log_bytes) as f64;
            figures.add(format!("log.bytes.{suffix}"), bytes / run.count as f64, "B/update");
        }
    }
    let held = driver.map.figures();
    let tree = held.memory_bytes - held.history_bytes.min(held.memory_bytes);
    figures.add(format!("ram.bytes_per_key.{suffix}"), tree as f64 / held.keys as f64, "B");
    figures.add(format!("ram.history.{suffix}"), held.history_bytes as f64 / 1e6, "MB");
    figures.add(format!("ram.resident.{suffix}"), status_bytes("VmRSS:") / 1e6, "MB");
    figures.add(format!("ram.peak.{suffix}"), status_bytes("VmHWM:") / 1e6, "MB");
    if paged {
        let without_cache = tree.saturating_sub(arguments.page_cache_bytes as u64);
        figures.add(format!("ram.bytes_per_key.{suffix}.without_cache"), without_cache as f64 / held.keys as f64, "B");
        figures.add(format!("device.{suffix}"), held.device_bytes as f64 / 1e6, "MB");
        figures.add(format!("device.used.{suffix}"), held.device_used_bytes as f64 / 1e6, "MB");
        let live = (held.pages * 4096) as f64;
        figures.add(format!("pages.fill.{suffix}"), 100.0 * (held.keys * 134) as f64 / live, "%");
    }
    if arguments.commits_only {
        return;
    }
    proofs(&driver, &suffix, &mut random, figures);
    // Two more copies of everything: more than the disks of small machines hold.
    if keys < 100_000_000 {
        join(&mut driver, directory, &suffix, figures);
    }
    let root = driver.map.root();
    drop(driver);
    let start = Instant::now();
    let opened = TreeMap::open(&state, options).expect("recovery");
    assert_eq!(opened.root, root, "the map recovers to the same root");
    figures.add(format!("recovery.{suffix}"), start.elapsed().as_secs_f64(), "s");
    figures.add(format!("recovery.{suffix}.records"), opened.recovery.records_redone as f64, "records");
}

/// What a figure for one core means for a program that loaded on many.
fn keep_to_one_core() {
    let me = std::process::id().to_string();
    let kept = std::process::Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", "1", &me]).output();
    assert!(kept.is_ok_and(|output| output.status.success()), "taskset keeps the program to one core");
}

/// The map without files: what hashing and the tree cost.
fn in_memory(keys: u64, hash: StateHash, arguments: &Arguments, figures: &mut Figures) {
    let mut driver = Driver { map: TreeMap::ephemeral(hash), height: 0, keys };
    let mut random = Random(7);
    driver.load(&mut random, LOAD_BATCH);
    let run = driver.run(10_000, Duration::from_secs(arguments.seconds), &mut random);
    let name = if hash == StateHash::Sha256 { "sha256" } else { "sm3" };
    figures.add(format!("memory.{name}"), run.count as f64 / run.time.as_secs_f64(), "updates/s");
    figures.add(format!("memory.{name}.cpu"), 1e6 * run.cpu.as_secs_f64() / run.count as f64, "us/update");
}

fn proofs(driver: &Driver, suffix: &str, random: &mut Random, figures: &mut Figures) {
    const PROOFS: usize = 2_000;
    let (map, hash) = (&driver.map, StateHash::Sha256);
    let height = map.height().expect("committed");
    let keys: Vec<Key> = (0..PROOFS).map(|_| key(random.below(driver.keys))).collect();
    let proven: Vec<_> = keys.iter().map(|key| map.prove(key, height).expect("the newest height")).collect();
    let bytes: usize = proven.iter().map(|proven| proven.proof.encode().len()).sum();
    figures.add(format!("proof.bytes.{suffix}"), bytes as f64 / PROOFS as f64, "B");
    let mut rounds: Vec<Duration> = (0..7)
        .map(|_| {
            let start = Instant::now();
            for (key, proven) in keys.iter().zip(&proven) {
                proven.proof.verify(hash, &proven.root, key, proven.value.as_deref()).expect("a sound proof");
            }
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    figures.add(format!("proof.verify_us.{suffix}"), 1e6 * rounds[3].as_secs_f64() / PROOFS as f64, "us");
    let start = Instant::now();
    for key in &keys {
        map.prove(key, height).expect("the newest height");
    }
    figures.add(format!("proof.make_us.{suffix}"), 1e6 * start.elapsed().as_secs_f64() / PROOFS as f64, "us");
}

/// How fast a joiner verifies and writes a snapshot that it has received: chunks in memory, one core.
fn join(driver: &mut Driver, directory: &Path, suffix: &str, figures: &mut Figures) {
    let exports = directory.join("exports");
    std::fs::create_dir(&exports).expect("a writable directory");
    assert!(driver.map.export(&exports).expect("a snapshot"), "one snapshot at a time");
    let mut random = Random(11);
    while driver.map.figures().export_height.is_none() {
        driver.commit(vec![write(random.below(driver.keys), &mut random)]);
    }
    let (_, path) = SnapshotReader::files(&exports).expect("a directory").remove(0);
    let reader = SnapshotReader::open(&path).expect("a sound snapshot");
    let (root, depth): (Hash, u8) = (reader.root(), reader.depth());
    let joined = directory.join("joined");
    let mut builder =
        SnapshotBuilder::create(&joined, StateHash::Sha256, reader.height(), root, depth).expect("a new directory");
    let (mut time, mut bytes) = (Duration::ZERO, 0);
    for index in 0..1_u64 << depth {
        let range = KeyRange::new(depth, index).expect("an index below 2^depth");
        let received = reader.chunk(range).expect("a sound chunk").expect("a chunk").encode();
        bytes += received.len();
        let start = Instant::now();
        let chunk = Chunk::decode(&received).expect("a chunk");
        builder.add(&chunk).expect("a working disk").expect("a proven chunk");
        time += start.elapsed();
    }
    let start = Instant::now();
    builder.finish().expect("a whole snapshot");
    figures.add(format!("snapshot.mb_s.{suffix}"), bytes as f64 / 1e6 / time.as_secs_f64(), "MB/s");
    figures.add(format!("snapshot.finish.{suffix}"), start.elapsed().as_secs_f64(), "s");
}

struct Driver {
    map: TreeMap,
    height: u64,
    keys: u64,
}

/// What a series of batches took.
struct Run {
    count: usize,
    time: Duration,
    cpu: Duration,
    sync: Duration,
    latencies: Vec<Duration>,
}

impl Driver {
    fn load(&mut self, random: &mut Random, batch: u64) {
        for first in (0..self.keys).step_by(usize::try_from(batch).expect("small")) {
            let keys = first..(first + batch).min(self.keys);
            self.commit(keys.map(|seed| write(seed, random)).collect());
        }
    }

    fn load_in_order(&mut self, random: &mut Random) {
        // The first bytes of the keys are enough to order them for this.
        let mut order: Vec<(u64, u32)> = (0..self.keys)
            .map(|seed| {
                let first = *key(seed).first_chunk().expect("a key is longer");
                (u64::from_be_bytes(first), u32::try_from(seed).expect("fewer than 2^32 keys"))
            })
            .collect();
        order.sort_unstable();
        for seeds in order.chunks(usize::try_from(LOAD_BATCH).expect("small")) {
            self.commit(seeds.iter().map(|(_, seed)| write(u64::from(*seed), random)).collect());
        }
    }

    fn commit(&mut self, mut writes: Vec<Write>) -> (usize, Duration, Duration) {
        let (start, cpu) = (Instant::now(), cpu_time());
        writes.sort_unstable_by_key(|(key, _)| *key);
        writes.dedup_by_key(|(key, _)| *key);
        let count = writes.len();
        let staged = self.map.stage(&self.map.root(), writes).expect("a valid batch");
        self.map.commit(staged, self.height).expect("a working disk");
        self.height += 1;
        (count, start.elapsed(), cpu_time() - cpu)
    }

    fn run(&mut self, batch: u64, wanted: Duration, random: &mut Random) -> Run {
        let (cpu, sync, latencies) = (Duration::ZERO, Duration::ZERO, Vec::new());
        let mut run = Run { count: 0, time: Duration::ZERO, cpu, sync, latencies };
        while run.time < wanted || run.latencies.len() < BATCHES_MIN {
            let writes = (0..batch).map(|_| write(random.below(self.keys), random)).collect();
            let (count, elapsed, cpu) = self.commit(writes);
            run.count += count;
            run.time += elapsed;
            run.cpu += cpu;
            run.sync += self.map.figures().sync_time;
            run.latencies.push(elapsed);
        }
        run.latencies.sort_unstable();
        run
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn key(seed: u64) -> Key {
    StateHash::Sha256.value(&seed.to_be_bytes())
}

fn write(seed: u64, random: &mut Random) -> Write {
    let mut value = vec![0; VALUE_BYTES];
    value[..8].copy_from_slice(&random.below(u64::MAX).to_be_bytes());
    (key(seed), Some(value))
}

/// Memory of this process, the benchmark's own batches included.
fn status_bytes(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    1024.0 * kilobytes.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0)
}

/// The peak begins anew with each map; where the system does not forget it, it is that of all maps so far.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Time that this thread has spent on a processor: unlike wall-clock time it is hardly disturbed by a busy machine.
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(statistics.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}
