//! What the key index takes and gives: puts, gets, and the bytes of flash and memory that a record costs.
//!
//! `cargo bench --profile dev -p stele-storage --bench index -- [--records 10000000] [--directory DIR] [--json FILE]`
//!
//! One thread puts uniform random keys in batches of a thousand and flushes when the index asks for it, a second one
//! merges beside it. When all merges are done, one thread gets keys that are there, and keys that are not, in random order.
//! Then half of the records move: their keys are put once more. Bytes are those of the files by `stat`, at rest and at
//! their most while merges had inputs and outputs beside each other, and those of memory by the index's own count, with
//! the growth of the process (RSS) beside it, which has some megabytes that do not grow with the records. The budgets are
//! demanded from ten million records on: with fewer, the memtable weighs more than they. The files are in the page cache: the rates are those of the CPU.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stele_storage::index::{Index, Key, LOCATION_BYTES, Location, Options};

/// Puts between two looks at the memtable.
const BATCH: usize = 1000;

const GETS: u64 = 1_000_000;

/// Bytes of flash and of memory that a record may cost.
const FLASH_BUDGET: f64 = 48.0;
const MEMORY_BUDGET: f64 = 2.0;

/// Records from which on the budgets hold.
const BUDGET_RECORDS: u64 = 10_000_000;

struct Arguments {
    records: u64,
    directory: PathBuf,
    json: Option<PathBuf>,
}

fn arguments() -> Arguments {
    let mut parsed = Arguments { records: 10_000_000, directory: std::env::temp_dir(), json: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--records" => parsed.records = value().parse().expect("a number of records"),
            "--directory" => parsed.directory = value().into(),
            "--json" => parsed.json = Some(value().into()),
            // What `cargo bench` passes to every benchmark.
            "--bench" => {}
            word => panic!("unknown argument {word}"),
        }
    }
    parsed
}

fn main() {
    let arguments = arguments();
    let directory = tempfile::TempDir::new_in(&arguments.directory).expect("a writable directory");
    let index = Index::open(directory.path(), Options::default()).expect("a new index");
    let (records, before) = (arguments.records, resident_bytes());
    let mut lines = String::new();
    let mut report = |name: &str, value: f64, unit: &str, note: &str| {
        println!("{name:<24} {value:>12.2} {unit:<9} {note}");
        lines +=
            &format!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\",\"peer\":null,\"ratio\":null}}\n");
    };
    let per_record = |bytes: f64| bytes / records as f64;

    let (time, settled, peak, _) = put(&index, directory.path(), 0, (0..records).map(|number| (number, number)));
    let note = format!("{:.0} with the time of the last merges", records as f64 / (time + settled).as_secs_f64());
    report("index.puts_s", records as f64 / time.as_secs_f64(), "1/s", &note);
    let figures = index.figures();
    let flash = per_record(directory_bytes(directory.path()) as f64);
    let note = format!("of {FLASH_BUDGET}; {} tables", figures.tables);
    report("index.flash_bytes", flash, "B/record", &note);
    report("index.flash_peak_bytes", per_record(peak as f64), "B/record", "while merging");
    let resident = per_record(resident_bytes().saturating_sub(before) as f64);
    let memory = per_record(figures.memory_bytes as f64);
    report("index.ram_bytes", memory, "B/record", &format!("of {MEMORY_BUDGET}; the process grew by {resident:.2}"));
    assert!(records < BUDGET_RECORDS || (flash <= FLASH_BUDGET && memory <= MEMORY_BUDGET), "the budgets are met");

    let present = gets(&index, |number| (mixed(number) % records, true));
    report("index.gets_s", present, "1/s", "keys that are there");
    let absent = gets(&index, |number| (records + number, false));
    report("index.gets_absent_s", absent, "1/s", "keys that are not");

    let moves = (0..records / 2).map(|number| (mixed(number) % records, records + number));
    let (time, _, peak, memory_peak) = put(&index, directory.path(), records, moves);
    report("index.moves_s", (records / 2) as f64 / time.as_secs_f64(), "1/s", "half of the records are put once more");
    let flash = per_record(peak as f64);
    report("index.flash_moved_bytes", flash, "B/record", "at most, while merging");
    let memory = per_record(memory_peak as f64);
    let resident = per_record(resident_bytes().saturating_sub(before) as f64);
    report("index.ram_moved_bytes", memory, "B/record", &format!("at most; the process grew by {resident:.2}"));
    assert!(records < BUDGET_RECORDS || (flash <= FLASH_BUDGET && memory <= MEMORY_BUDGET), "the budgets are met");

    if let Some(path) = &arguments.json {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a writable file");
        file.write_all(lines.as_bytes()).expect("a writable file");
    }
}

/// Puts numbered keys and what they lead to. The time until the last flush, that of the merges after it, the most bytes
/// that the files had, and the most of memory.
fn put(
    index: &Index,
    directory: &Path,
    position: u64,
    mut pairs: impl Iterator<Item = (u64, u64)>,
) -> (Duration, Duration, u64, usize) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merger = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if !index.maintain().expect("a working disk") {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(directory_bytes(directory));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let (start, mut position, mut memory_peak) = (Instant::now(), position, 0);
        while let Some(first) = pairs.next() {
            for (number, place) in std::iter::once(first).chain(pairs.by_ref().take(BATCH - 1)) {
                index.put(&key(number), location(place)).expect("room in the memtable");
                position += 1;
            }
            if index.needs_flush() {
                memory_peak = memory_peak.max(index.figures().memory_bytes);
                index.flush(position).expect("a working disk");
            }
        }
        index.flush(position).expect("a working disk");
        let time = start.elapsed();
        done.store(true, Ordering::Relaxed);
        merger.join().expect("a merge");
        while index.maintain().expect("a working disk") {}
        (time, start.elapsed() - time, watcher.join().expect("a readable directory"), memory_peak)
    })
}

/// Gets per second of numbered keys that are there, or not.
fn gets(index: &Index, key_of: impl Fn(u64) -> (u64, bool)) -> f64 {
    let start = Instant::now();
    for number in 0..GETS {
        let (number, present) = key_of(number);
        assert_eq!(index.get(&key(number)).expect("a sound index"), present.then(|| location(number)));
    }
    GETS as f64 / start.elapsed().as_secs_f64()
}

/// Steps of SplitMix64: uniform, and another for each number.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn key(number: u64) -> Key {
    let mut key = [0; size_of::<Key>()];
    for (bytes, part) in key.chunks_exact_mut(8).zip(0..) {
        bytes.copy_from_slice(&mixed(number * 4 + part).to_be_bytes());
    }
    key
}

fn location(number: u64) -> Location {
    let mut location = [7; LOCATION_BYTES];
    location[..8].copy_from_slice(&number.to_be_bytes());
    location
}

/// Bytes of the files of a directory. One that a merge removes meanwhile counts no more.
fn directory_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("a readable directory");
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") * 1024
}
