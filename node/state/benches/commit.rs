//! Commits per second of the state map: uniform random updates of existing keys, values of 100 bytes.
//!
//! `cargo bench -p stele-state --bench commit -- [--keys 1000000] [--seconds 5] [--only MODE] [--directory DIR] [--json FILE]`
//!
//! A timed batch is sorted, staged, logged, flushed and applied; making its keys and values is not timed. Snapshots run
//! as they do in a node. The directory must be on a real disk for the durable figures to mean anything.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stele_state::{Durability, Key, MemoryMap, Options, StateHash, StateMap, Write};

const VALUE_BYTES: usize = 100;
const LOAD_BATCH: u64 = 50_000;

struct Arguments {
    keys: u64,
    seconds: u64,
    only: Option<String>,
    directory: PathBuf,
    json: Option<PathBuf>,
}

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
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
    let mut figures = Vec::new();
    for (mode, hash, durability) in [
        ("durable", StateHash::Sha256, Some(Durability::Sync)),
        ("written", StateHash::Sha256, Some(Durability::None)),
        ("memory", StateHash::Sha256, None),
        ("memory.sm3", StateHash::Sm3, None),
    ] {
        if arguments.only.as_deref().is_some_and(|only| only != mode) {
            continue;
        }
        let directory = tempfile::TempDir::new_in(&arguments.directory).expect("a writable directory");
        measure(mode, hash, durability, directory.path(), &arguments, &mut figures);
    }
    for Figure { name, value, unit } in &figures {
        println!("{name:<32} {value:>14.1} {unit}");
    }
    if let Some(path) = &arguments.json {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a writable file");
        for Figure { name, value, unit } in &figures {
            writeln!(file, r#"{{"name":"{name}","value":{value:.1},"unit":"{unit}","peer":null,"ratio":null}}"#)
                .expect("a writable file");
        }
    }
}

fn arguments() -> Arguments {
    let mut parsed = Arguments { keys: 1_000_000, seconds: 5, only: None, directory: std::env::temp_dir(), json: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--keys" => parsed.keys = value().parse().expect("a number of keys"),
            "--seconds" => parsed.seconds = value().parse().expect("a number of seconds"),
            "--only" => parsed.only = Some(value()),
            "--directory" => parsed.directory = value().into(),
            "--json" => parsed.json = Some(value().into()),
            // What `cargo bench` passes to every benchmark.
            "--bench" => {}
            word => panic!("unknown argument {word}"),
        }
    }
    parsed
}

fn measure(
    mode: &str,
    hash: StateHash,
    durability: Option<Durability>,
    directory: &Path,
    arguments: &Arguments,
    figures: &mut Vec<Figure>,
) {
    let mut map = match durability {
        Some(durability) => {
            let options = Options { durability, ..Options::new(hash) };
            MemoryMap::open(directory, options).expect("a new map").map
        }
        None => MemoryMap::ephemeral(hash),
    };
    let mut height = 0;
    let mut commit = |map: &mut MemoryMap, mut writes: Vec<Write>| {
        let (start, cpu) = (Instant::now(), cpu_time());
        writes.sort_unstable_by_key(|(key, _)| *key);
        writes.dedup_by_key(|(key, _)| *key);
        let count = writes.len();
        let staged = map.stage(&map.root(), writes).expect("a valid batch");
        map.commit(staged, height).expect("a working disk");
        height += 1;
        (count, start.elapsed(), cpu_time() - cpu)
    };
    let mut random = Random(7);
    for first in (0..arguments.keys).step_by(usize::try_from(LOAD_BATCH).expect("small")) {
        let keys = first..(first + LOAD_BATCH).min(arguments.keys);
        commit(&mut map, keys.map(|seed| write(seed, &mut random)).collect());
    }
    map.checkpoint().expect("a snapshot");
    let mut figure = |name: &str, value: f64, unit| {
        figures.push(Figure { name: format!("state.{mode}.{name}"), value, unit });
    };
    for batch in [1_000, 10_000] {
        let (mut count, mut time, mut latencies) = (0, Duration::ZERO, Vec::new());
        let mut cpu = Duration::ZERO;
        let mut sync = Duration::ZERO;
        while time < Duration::from_secs(arguments.seconds) {
            let writes = (0..batch).map(|_| write(random.below(arguments.keys), &mut random)).collect();
            let (writes, elapsed, on_cpu) = commit(&mut map, writes);
            count += writes;
            time += elapsed;
            cpu += on_cpu;
            sync += map.figures().sync_time;
            latencies.push(elapsed);
        }
        latencies.sort_unstable();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        figure(&format!("updates.{batch}"), count as f64 / time.as_secs_f64(), "1/s");
        figure(&format!("cpu.{batch}"), 1e6 * cpu.as_secs_f64() / count as f64, "us/update");
        figure(&format!("p50.{batch}"), milliseconds(latencies[latencies.len() / 2]), "ms");
        figure(&format!("p99.{batch}"), milliseconds(latencies[latencies.len() * 99 / 100]), "ms");
        figure(&format!("sync_share.{batch}"), 100.0 * sync.as_secs_f64() / time.as_secs_f64(), "%");
    }
    let before = map.figures();
    figure("memory_per_key", (before.memory_bytes - before.history_bytes) as f64 / before.keys as f64, "B");
    figure("reported", before.memory_bytes as f64 / 1e6, "MB");
    figure("resident", resident_bytes() / 1e6, "MB");
    figure("history", before.history_bytes as f64 / 1e6, "MB");
    figure("roots", before.roots as f64, "");
    let proofs: Vec<usize> = (0..1000)
        .map(|_| {
            let key = key(random.below(arguments.keys));
            let height = map.height().expect("committed");
            map.prove(&key, height).expect("the newest height").proof.encode().len()
        })
        .collect();
    figure("proof", proofs.iter().sum::<usize>() as f64 / proofs.len() as f64, "B");
    if durability.is_some() {
        let root = map.root();
        drop(map);
        let start = Instant::now();
        let opened = MemoryMap::open(directory, Options::new(hash)).expect("recovery");
        assert_eq!(opened.root, root, "the map recovers to the same root");
        figure("recovery", start.elapsed().as_secs_f64(), "s");
        figure("recovery_records", opened.recovery.records_redone as f64, "");
    }
}

fn key(seed: u64) -> Key {
    StateHash::Sha256.value(&seed.to_be_bytes())
}

fn write(seed: u64, random: &mut Random) -> Write {
    let mut value = vec![0; VALUE_BYTES];
    value[..8].copy_from_slice(&random.below(u64::MAX).to_be_bytes());
    (key(seed), Some(value))
}

/// Resident memory of this process, the benchmark's own batches included.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    1024.0 * kilobytes.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0)
}

/// Time that this thread has spent on a processor: unlike wall-clock time it is hardly disturbed by a busy machine.
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(statistics.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}
