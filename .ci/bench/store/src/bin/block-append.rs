//! Durable appends to the block store, with and without zeros written ahead.
//!
//! The variants take turns round by round; each append is one write and one fdatasync. The raw figure is
//! the same write and fdatasync on a plain file that grows: what the disk gives without a store.
//!
//! Options: `--rounds` (5), `--appends` a turn (300), `--open` blocks (20,000), `--json FILE`, `--directory DIR`.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use stele_bench_report::{Arguments, Figure, median};
use stele_bench_store::store::blocks::{BlockStore, BlockStoreOptions};

/// Bytes of a block: a heartbeat, a small block, 1,000 statements, 10,000 statements.
const BLOCKS: [(usize, &str, &str); 4] = [
    (400, "node.blocks.append.heartbeat", "node.blocks.append.heartbeat.p99"),
    (50_000, "node.blocks.append.small", "node.blocks.append.small.p99"),
    (500_000, "node.blocks.append.medium", "node.blocks.append.medium.p99"),
    (5_000_000, "node.blocks.append.large", "node.blocks.append.large.p99"),
];

/// Zeros written ahead at a time; the store's default last.
const EXTENSIONS: [u64; 4] = [0, 4 << 20, 16 << 20, 1 << 20];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let rounds: usize = arguments.number("rounds", 5)?;
    let appends: usize = arguments.number("appends", 300)?;
    let directory = arguments.work_directory()?;
    let mut figures = Vec::new();
    for (block_bytes, name, p99_name) in BLOCKS {
        let appends = if block_bytes > 1_000_000 { appends / 10 } else { appends };
        let mut times = vec![Vec::new(); EXTENSIONS.len() + 1];
        for round in 0..rounds {
            for (variant, times) in times.iter_mut().enumerate() {
                let path = directory.path().join(format!("{block_bytes}-{round}-{variant}"));
                times.extend(match EXTENSIONS.get(variant) {
                    Some(&extend_bytes) => store_appends(&path, extend_bytes, block_bytes, appends)?,
                    None => raw_appends(&path, block_bytes, appends)?,
                });
            }
        }
        for (variant, times) in times.iter_mut().enumerate() {
            times.sort();
            let label =
                EXTENSIONS.get(variant).map_or("raw".to_owned(), |bytes| format!("extend {:>2} MiB", bytes >> 20));
            println!(
                "block of {block_bytes:>7} B, {label:<14}: p50 {:>7.3} ms, p99 {:>7.3} ms, mean {:>7.3} ms",
                quantile(times, 50),
                quantile(times, 99),
                times.iter().map(Duration::as_secs_f64).sum::<f64>() * 1e3 / times.len() as f64,
            );
        }
        let (ours, raw) = (&times[EXTENSIONS.len() - 1], &times[EXTENSIONS.len()]);
        for (name, percent) in [(name, 50), (p99_name, 99)] {
            figures.push(Figure {
                name,
                value: quantile(ours, percent),
                unit: "ms",
                peer: Some(quantile(raw, percent)),
            });
        }
    }
    figures.push(open_time(&directory.path().join("open"), arguments.number("open", 20_000)?)?);
    arguments.report(&figures)
}

fn store_appends(
    path: &Path,
    extend_bytes: u64,
    block_bytes: usize,
    appends: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let options = BlockStoreOptions { extend_bytes, ..BlockStoreOptions::default() };
    let store = BlockStore::open(path, options)?;
    let (block, certificate) = (vec![0xA5; block_bytes], vec![0x5A; 1_000]);
    let mut times = Vec::with_capacity(appends);
    for height in 1..=appends as u64 {
        let started = Instant::now();
        store.append(height, &[1; 32], &block, &certificate)?;
        times.push(started.elapsed());
    }
    drop(store);
    std::fs::remove_dir_all(path)?;
    Ok(times)
}

fn raw_appends(path: &Path, block_bytes: usize, appends: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let file = File::create(path)?;
    let bytes = vec![0xA5; block_bytes + 1_064];
    let mut times = Vec::with_capacity(appends);
    for number in 0..appends {
        let started = Instant::now();
        file.write_all_at(&bytes, (number * bytes.len()) as u64)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

/// Time to open a store of this many heartbeats.
fn open_time(path: &Path, blocks: u64) -> Result<Figure, Box<dyn Error>> {
    let store = BlockStore::open(path, BlockStoreOptions::default())?;
    for height in 1..=blocks {
        store.append(height, &[1; 32], &[0xA5; 400], &[])?;
    }
    drop(store);
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        BlockStore::open(path, BlockStoreOptions::default())?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    println!("{blocks} blocks opened in {seconds:?} s");
    Ok(Figure { name: "node.blocks.open", value: blocks as f64 / median(seconds), unit: "blocks/s", peer: None })
}

/// A percentile of sorted times, in milliseconds.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
