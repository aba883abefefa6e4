//! The payload store against key-value stores that keep values apart: durable puts of objects of 64 KiB.
//!
//! * RocksDB's BlobDB, driven by its own `db_bench` (Debian's `rocksdb-tools`): write-ahead log with `sync`, values in blob
//!   files, no compression, memtables of 128 MiB.
//! * fjall with key-value separation: batches with `PersistMode::SyncData`, no compression, its own defaults.
//!
//! All three keep as many objects on their way: 128. Theirs come from 8 threads in batches of 16 that are durable when the
//! call returns, 1 MiB, which is what our batch holds on one drive; ours come one by one, from 128 tasks that each wait until
//! theirs is durable. They take turns round by round in one directory and begin empty in each. Peers write into new files;
//! ours lies in one that was written before, since it does not grow files. Timed is what was acknowledged: flushes and merges
//! that peers do behind that are not waited for, and their deletes are not timed. Ours hashes each object as well, which
//! theirs do not.
//!
//! Options: `--rounds` (5), `--seconds` a turn (3), `--mebibytes` of our file (2,048), `--writers` of the peers (8), `--only
//! NAME`, `--json FILE`, `--directory DIR`, which must be on a real disk.

use std::cell::Cell;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fjall::{Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use stele_bench_report::{Arguments, Figure, median};
use stele_device::{Batch, BufferPool, Disk, Request};
use stele_storage::{Group, Layout, Options, StorageError, Store};
use tokio::task::LocalSet;

type Outcome<T> = Result<T, Box<dyn Error>>;

const MEBIBYTE: usize = 1 << 20;
const OBJECT: usize = 64 << 10;
const BATCH: usize = MEBIBYTE / OBJECT;
const ON_THEIR_WAY: usize = 128;

fn main() -> Outcome<()> {
    let arguments = Arguments::read()?;
    let rounds: usize = arguments.number("rounds", 5)?;
    let seconds: f64 = arguments.number("seconds", 3.0)?;
    let writers: usize = arguments.number("writers", ON_THEIR_WAY / BATCH)?;
    let only = arguments.word("only").unwrap_or_default();
    let [blobdb, fjall] = ["put64k.vs_blobdb", "put64k.vs_fjall"].map(|name| name.starts_with(only));
    if !blobdb && !fjall {
        return Ok(());
    }
    let directory = arguments.work_directory()?;
    let ours = Ours::new(directory.path(), arguments.number("mebibytes", 2_048)?)?;
    let theirs = directory.path().join("peer");
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        rates[0].push(ours.turn(seconds)?);
        if blobdb {
            rates[1].push(blobdb_turn(&theirs, writers, seconds)?);
        }
        if fjall {
            rates[2].push(fjall_turn(&theirs, writers, seconds)?);
        }
        let last = rates.iter().map(|rates| rates.last().map_or("-".to_owned(), |rate| format!("{rate:.0}")));
        println!("MB/s of ours, BlobDB, fjall: {}", last.collect::<Vec<_>>().join(", "));
    }
    let [ours, blobdb, fjall] = rates;
    let figures = [("put64k.vs_blobdb", blobdb), ("put64k.vs_fjall", fjall)].map(|(name, theirs)| Figure {
        name,
        value: median(ours.clone()),
        unit: "MB/s",
        peer: (!theirs.is_empty()).then(|| median(theirs)),
    });
    let measured: Vec<Figure> = figures.into_iter().filter(|figure| figure.peer.is_some()).collect();
    arguments.report(&measured)
}

/// Our store, on a file whose every block was written.
struct Ours {
    file: PathBuf,
    index: PathBuf,
}

impl Ours {
    fn new(directory: &Path, mebibytes: u64) -> Outcome<Self> {
        let file = directory.join("drive");
        let pool = BufferPool::new(8, MEBIBYTE)?;
        let options = stele_device::Options { pools: vec![pool.clone()], ..Default::default() };
        let disk = Disk::create(&file, mebibytes * 256, &options)?;
        let mut batch = Batch::new(&disk, pool.buffers());
        for mebibyte in 0..mebibytes {
            let answer = if batch.outstanding() == pool.buffers() { batch.wait() } else { None };
            let mut buffer = answer.map_or_else(|| Ok(pool.take()), |answer| answer.into_buffer())?;
            buffer.chunks_exact_mut(8).zip(mebibyte..).for_each(|(bytes, n)| bytes.copy_from_slice(&n.to_le_bytes()));
            assert!(batch.push(Request::write(mebibyte * MEBIBYTE as u64, buffer)).is_none());
        }
        batch.finish()?;
        Ok(Self { file, index: directory.join("index") })
    }

    fn turn(&self, seconds: f64) -> Outcome<f64> {
        let layout = Layout { data: 1, parity: 0, ..Layout::default() };
        Store::format_paths(std::slice::from_ref(&self.file), &layout)?;
        if self.index.exists() {
            std::fs::remove_dir_all(&self.index)?;
        }
        let store = Store::open(std::slice::from_ref(&self.file), &self.index, &Options::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (next, put) = (Cell::new(0), Cell::new(0));
        let begun = Instant::now();
        let writer = |_| async {
            while begun.elapsed().as_secs_f64() < seconds {
                let number = next.replace(next.get() + 1);
                match store.put(Group::default(), 1, object(number).into()).await {
                    Ok(_) => put.set(put.get() + 1),
                    // A fast disk fills the file before the time is over.
                    Err(StorageError::Full { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let all = futures::future::try_join_all((0..ON_THEIR_WAY).map(writer));
        LocalSet::new().block_on(&runtime, all)?;
        Ok(rate(put.get(), begun))
    }
}

fn blobdb_turn(directory: &Path, writers: usize, seconds: f64) -> Outcome<f64> {
    let mut program = Command::new("db_bench");
    program
        .args(["--benchmarks=fillrandom", "--num=100000000", "--key_size=32", "--sync=1"])
        .args(["--enable_blob_files=1", "--min_blob_size=4096", "--compression_type=none"])
        .args(["--blob_compression_type=none", "--write_buffer_size=134217728", "--max_write_buffer_number=4"])
        .arg(format!("--value_size={OBJECT}"))
        .arg(format!("--batch_size={BATCH}"))
        .arg(format!("--threads={writers}"))
        // It takes whole seconds.
        .arg(format!("--duration={:.0}", seconds.ceil()))
        .arg(format!("--db={}", directory.display()));
    let output = program.output().map_err(|error| format!("db_bench of rocksdb-tools: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("db_bench: {}: {text}", output.status).into());
    }
    std::fs::remove_dir_all(directory)?;
    // "fillrandom : 1046.468 micros/op 955 ops/sec 3.132 seconds 2992 operations; 59.7 MB/s": its MB are of 2^20.
    let line = text.lines().find(|line| line.starts_with("fillrandom")).ok_or("db_bench said no rate")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let before = |unit: &str| words.iter().position(|word| *word == unit).and_then(|at| words.get(at - 1));
    let (operations, time) = before("operations;").zip(before("seconds")).ok_or("db_bench said no rate")?;
    Ok(operations.parse::<f64>()? * OBJECT as f64 / time.parse::<f64>()? / 1e6)
}

fn fjall_turn(directory: &Path, writers: usize, seconds: f64) -> Outcome<f64> {
    let database = Database::builder(directory).open()?;
    let separated = || KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()));
    let keyspace = database.keyspace("objects", separated)?;
    let (next, put) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writer = || -> fjall::Result<()> {
            while begun.elapsed().as_secs_f64() < seconds {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                for number in (0..BATCH).map(|_| next.fetch_add(1, Ordering::Relaxed)) {
                    batch.insert(&keyspace, key(number), object(number));
                }
                batch.commit()?;
                put.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a writer does not panic"))
    })?;
    let rate = rate(put.into_inner(), begun);
    drop((keyspace, database));
    std::fs::remove_dir_all(directory)?;
    Ok(rate)
}

fn rate(objects: u64, begun: Instant) -> f64 {
    (objects * OBJECT as u64) as f64 / begun.elapsed().as_secs_f64() / 1e6
}

/// Objects that differ, and cost little to make.
fn object(number: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; OBJECT];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Keys as uniform as content roots are (SplitMix64).
fn key(number: u64) -> [u8; 32] {
    let mut key = [0; 32];
    for (part, bytes) in (0..).zip(key.chunks_exact_mut(8)) {
        let mixed = (number * 4 + part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes());
    }
    key
}
