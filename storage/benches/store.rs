//! What the store gives, beside fio on the same files, round by round.
//!
//! `cargo xtask bench storage [--seconds 3] [--rounds 5] [--mebibytes 2048] [--directory DIR] [--only NAME] [--json FILE]`
//!
//! * `put64k.plain`: objects of 64 KiB, durable before they count, on one file without parity, against fio's writes of 1 MiB
//!   with `RWF_DSYNC`, four in flight. What is put is hashed, summed, copied and indexed on the way.
//! * `put64k.ec83`: the same on eleven files of one disk with 8 + 3 columns. At best it is 8/11 of fio.
//! * `get64k`: such objects at random, verified by their checksum and their root, against fio's random reads of 64 KiB with
//!   as many in flight.
//! * `seal.core`: parity of 8 + 3, checksums and content roots on one core, without any disk.
//! * `bridge.rand4k.qd32`: reads behind tokio's tasks against the same reads from one thread ([`stele_device::Batch`]), and
//!   `bridge.cpu_us`, the processor time that a read costs more by it.
//!
//! The ratio is the median of those of the rounds, the rate the median of ours. The directory must be on a real disk.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends where it cannot go on"
)]
#![allow(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stele_accel_hash::HashAlgorithm;
use stele_device::{Batch, BlockDevice, BufferPool, Completed, Completion, Disk, Request};
use stele_storage::{ErasureCode, Group, Layout, Options, StorageError, Store, Stored, content_root};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

const MEBIBYTE: usize = 1 << 20;
const OBJECT: usize = 64 << 10;

struct Arguments {
    seconds: f64,
    rounds: usize,
    mebibytes: u64,
    directory: PathBuf,
    only: String,
    json: Option<PathBuf>,
}

fn arguments() -> Arguments {
    let mut parsed = Arguments {
        seconds: 3.0,
        rounds: 5,
        mebibytes: 2048,
        directory: std::env::temp_dir(),
        only: String::new(),
        json: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--seconds" => parsed.seconds = value().parse().expect("a number of seconds"),
            "--rounds" => parsed.rounds = value().parse().expect("a number of rounds"),
            "--mebibytes" => parsed.mebibytes = value().parse().expect("a number of mebibytes"),
            "--directory" => parsed.directory = value().into(),
            "--only" => parsed.only = value(),
            "--json" => parsed.json = Some(value().into()),
            // What `cargo bench` passes to every benchmark.
            "--bench" => {}
            word => panic!("unknown argument {word}"),
        }
    }
    parsed
}

/// A figure: ours and the peer's, of each round.
struct Figure {
    name: &'static str,
    unit: &'static str,
    peer: Option<&'static str>,
    rounds: Vec<(f64, Option<f64>)>,
}

fn main() {
    let arguments = arguments();
    let wanted = |name: &str| name.starts_with(&arguments.only);
    let directory = tempfile::TempDir::new_in(&arguments.directory).expect("a writable directory");
    let fio = Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success());
    if !fio {
        println!("fio is not installed: plain figures, no ratios");
    }
    println!("{:<20} {:>12} {:<6} {:>12} {:>6}", "", "here", "", "peer", "ratio");
    let mut lines = String::new();
    let mut report = |figure: Figure| lines += &figure.print();
    let rounds = |run: &mut dyn FnMut() -> (f64, Option<f64>)| (0..arguments.rounds).map(|_| run()).collect();

    if wanted("seal.core") {
        let rounds = rounds(&mut || (seal_rate(Duration::from_secs_f64(arguments.seconds / 3.0)), None));
        report(Figure { name: "seal.core", unit: "GB/s", peer: None, rounds });
    }
    if wanted("bridge") {
        let path = directory.path().join("bridge");
        prepare(&path, 512);
        let time = Duration::from_secs_f64(arguments.seconds);
        let mut extra = Vec::new();
        let rounds = rounds(&mut || {
            let (bridged, bridged_cpu) = bridged(&path, time);
            let (raw, raw_cpu) = raw(&path, time);
            extra.push((bridged_cpu - raw_cpu, None));
            (bridged, Some(raw))
        });
        report(Figure { name: "bridge.rand4k.qd32", unit: "IOPS", peer: Some("ring"), rounds });
        report(Figure { name: "bridge.cpu_us", unit: "us", peer: None, rounds: extra });
        std::fs::remove_file(path).unwrap();
    }
    for (name, data, parity) in [("put64k.plain", 1, 0), ("put64k.ec83", 8, 3)] {
        if !wanted(name) {
            continue;
        }
        let rack = Rack::new(&directory.path().join(name), data, parity, arguments.mebibytes);
        let peer = directory.path().join("peer");
        prepare(&peer, 1024);
        let rounds = rounds(&mut || {
            let ours = rack.put_rate(arguments.seconds);
            (ours, fio.then(|| fio_rate(&peer, ["write", "1048576", "4"], arguments.seconds)))
        });
        report(Figure { name, unit: "MB/s", peer: fio.then_some("fio"), rounds });
        std::fs::remove_file(peer).unwrap();
        rack.remove();
    }
    if wanted("get64k") {
        let rack = Rack::new(&directory.path().join("get"), 1, 0, arguments.mebibytes);
        let stored = rack.fill();
        let peer = rack.paths[0].clone();
        let rounds = rounds(&mut || {
            let ours = rack.get_rate(&stored, arguments.seconds);
            (ours, fio.then(|| fio_rate(&peer, ["randread", "65536", "16"], arguments.seconds)))
        });
        report(Figure { name: "get64k", unit: "MB/s", peer: fio.then_some("fio"), rounds });
        rack.remove();
    }
    if let Some(path) = &arguments.json {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a writable file");
        file.write_all(lines.as_bytes()).expect("a writable file");
    }
}

impl Figure {
    fn print(&self) -> String {
        let value = median(self.rounds.iter().map(|(ours, _)| *ours)).expect("a round");
        let theirs = median(self.rounds.iter().filter_map(|(_, theirs)| *theirs));
        let ratio = median(self.rounds.iter().filter_map(|(ours, theirs)| theirs.map(|theirs| ours / theirs)));
        let shown = |figure: Option<f64>, digits| figure.map_or("-".into(), |figure| format!("{figure:.digits$}"));
        let Self { name, unit, .. } = self;
        println!("{name:<20} {value:>12.2} {unit:<6} {:>12} {:>6}", shown(theirs, 0), shown(ratio, 2));
        let peer = self.peer.map_or("null".into(), |peer| format!("\"{peer}\""));
        let ratio = ratio.map_or("null".into(), |ratio| format!("{ratio:.3}"));
        format!("{{\"name\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\",\"peer\":{peer},\"ratio\":{ratio}}}\n")
    }
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }
}

/// A file whose every block was written: what is only allocated is read without the disk.
fn prepare(path: &Path, mebibytes: u64) {
    let pool = BufferPool::new(8, MEBIBYTE).expect("memory");
    let options = stele_device::Options { pools: vec![pool.clone()], ..Default::default() };
    let disk = Disk::create(path, mebibytes * 256, &options).expect("room for the file");
    let (mut batch, mut random) = (Batch::new(&disk, pool.buffers()), Random(1));
    for mebibyte in 0..mebibytes {
        let answer = if batch.outstanding() == pool.buffers() { batch.wait() } else { None };
        let mut buffer = answer.map_or_else(|| pool.take(), |answer| answer.into_buffer().expect("a working disk"));
        buffer.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&random.next().to_le_bytes()));
        assert!(batch.push(Request::write(mebibyte * MEBIBYTE as u64, buffer)).is_none());
    }
    batch.finish().expect("a working disk");
}

/// A store on files.
struct Rack {
    directory: PathBuf,
    paths: Vec<PathBuf>,
    layout: Layout,
}

impl Rack {
    fn new(directory: &Path, data: usize, parity: usize, mebibytes: u64) -> Self {
        std::fs::create_dir(directory).unwrap();
        let count = data + parity;
        let paths: Vec<PathBuf> = (0..count).map(|drive| directory.join(format!("drive-{drive}"))).collect();
        for path in &paths {
            prepare(path, mebibytes / count as u64);
        }
        Self { directory: directory.to_owned(), paths, layout: Layout { data, parity, ..Layout::default() } }
    }

    /// An empty store on the files, which were all written before.
    fn fresh(&self) -> Store {
        let open = |path: &PathBuf| Disk::open(path, &stele_device::Options::default()).unwrap();
        let disks: Vec<Disk> = self.paths.iter().map(open).collect();
        let devices: Vec<&dyn BlockDevice> = disks.iter().map(|disk| disk as _).collect();
        Store::format(&devices, &self.layout).unwrap();
        drop(devices);
        drop(disks);
        let _ = std::fs::remove_dir_all(self.directory.join("index"));
        self.open()
    }

    fn open(&self) -> Store {
        Store::open(&self.paths, &self.directory.join("index"), &Options::default()).unwrap()
    }

    /// Bytes a second that are put durably, with enough of them on their way to fill the flights.
    fn put_rate(&self, seconds: f64) -> f64 {
        let store = self.fresh();
        let outstanding = 128 * self.layout.data;
        let (bytes, time) = put_until(&store, outstanding, Some(seconds));
        bytes as f64 / time.as_secs_f64() / 1e6
    }

    fn fill(&self) -> Vec<Stored> {
        let store = self.fresh();
        let mut stored = Vec::new();
        block_on(async {
            let store = &store;
            let mut number = 0;
            loop {
                let batch: Vec<u64> = (number..number + 256).collect();
                number += 256;
                let puts = batch.iter().map(|number| store.put(Group::default(), 1, object(*number)));
                for put in futures::future::join_all(puts).await {
                    match put {
                        Ok(object) => stored.push(object),
                        Err(StorageError::Full { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        block_on(store.close()).unwrap();
        stored
    }

    fn get_rate(&self, stored: &[Stored], seconds: f64) -> f64 {
        let store = self.open();
        let bytes = Cell::new(0_u64);
        let begun = Instant::now();
        block_on(async {
            let worker = |seed: u64| {
                let (store, bytes) = (&store, &bytes);
                async move {
                    let mut random = Random(seed);
                    while begun.elapsed().as_secs_f64() < seconds {
                        let object = &stored[usize::try_from(random.next()).unwrap() % stored.len()];
                        let read = store.object(&object.root).await.unwrap();
                        bytes.set(bytes.get() + read.bytes());
                    }
                }
            };
            futures::future::join_all((0..16).map(worker)).await;
        });
        bytes.get() as f64 / begun.elapsed().as_secs_f64() / 1e6
    }

    fn remove(self) {
        std::fs::remove_dir_all(self.directory).unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// Objects that differ, and cost little to make.
fn object(number: u64) -> Bytes {
    let mut bytes = vec![0x5a; OBJECT];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

/// Puts objects until the time is over or the store is full; bytes that were acknowledged, and the time.
fn put_until(store: &Store, outstanding: usize, seconds: Option<f64>) -> (u64, Duration) {
    let begun = Instant::now();
    let bytes = Cell::new(0_u64);
    block_on(async {
        let next = Rc::new(Cell::new(0_u64));
        let worker = |_| {
            let (next, bytes) = (Rc::clone(&next), &bytes);
            async move {
                while seconds.is_none_or(|seconds| begun.elapsed().as_secs_f64() < seconds) {
                    let number = next.get();
                    next.set(number + 1);
                    match store.put(Group::default(), 1, object(number)).await {
                        Ok(stored) => bytes.set(bytes.get() + stored.bytes),
                        Err(StorageError::Full { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        futures::future::join_all((0..outstanding).map(worker)).await;
    });
    (bytes.get(), begun.elapsed())
}

/// fio's rate in MB/s: pattern, bytes of a transfer, transfers in flight.
fn fio_rate(path: &Path, [pattern, bytes, depth]: [&str; 3], seconds: f64) -> f64 {
    let mut fio = Command::new("fio");
    fio.args(["--name=peer", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1"])
        .args(["--time_based", "--norandommap", "--output-format=terse", "--terse-version=3"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--bs={bytes}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={seconds}"));
    if pattern == "write" {
        fio.arg("--sync=dsync");
    }
    let output = fio.output().expect("fio runs");
    assert!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
    let line = String::from_utf8(output.stdout).expect("fio writes text");
    // Fields of the terse format, version 3: reads per second are the 8th, writes per second the 49th.
    let field = if pattern == "write" { 48 } else { 7 };
    let rate =
        line.lines().last().and_then(|line| line.split(';').nth(field)).and_then(|rate| rate.parse::<f64>().ok());
    rate.expect("fio's terse format") * bytes.parse::<f64>().unwrap() / 1e6
}

/// GB/s of data that one core makes ready for the drives.
fn seal_rate(time: Duration) -> f64 {
    let code = ErasureCode::new(8, 3).unwrap();
    let mut data = vec![vec![0_u8; MEBIBYTE]; 8];
    let mut random = Random(3);
    data.iter_mut().flatten().for_each(|byte| *byte = u8::try_from(random.next() & 0xff).unwrap());
    let mut parity = vec![vec![0_u8; MEBIBYTE]; 3];
    let begun = Instant::now();
    let mut bytes = 0_u64;
    while begun.elapsed() < time {
        for object in data.iter().flat_map(|column| column.chunks(OBJECT)) {
            black_box(content_root(HashAlgorithm::Sha256, object));
        }
        let inputs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        code.encode(&inputs, &mut outputs);
        // Each byte once: the sum of such an object is also that of its piece of the cell.
        for piece in data.iter().chain(&parity).flat_map(|cell| cell.chunks(OBJECT)) {
            black_box(crc_fast::crc32_iscsi(piece));
        }
        bytes += 8 * MEBIBYTE as u64;
    }
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e9
}

/// Reads of 4 KiB by a thread that waits for them: IOPS, and processor time of each in microseconds.
fn raw(path: &Path, time: Duration) -> (f64, f64) {
    let pool = BufferPool::new(32, 4096).unwrap();
    let disk = Disk::open(path, &stele_device::Options { depth: 32, pools: vec![pool.clone()], ..Default::default() })
        .unwrap();
    let places = disk.geometry().bytes() / 4096;
    let mut random = Random(7);
    let mut batch = Batch::new(&disk, 32);
    let (begun, cpu) = (Instant::now(), cpu_time());
    let mut reads = 0_u64;
    for _ in 0..32 {
        assert!(batch.push(Request::read(random.next() % places * 4096, pool.take())).is_none());
    }
    while let Some(completed) = batch.wait() {
        let buffer = completed.into_buffer().unwrap();
        reads += 1;
        if begun.elapsed() < time {
            assert!(batch.push(Request::read(random.next() % places * 4096, buffer)).is_none());
        }
    }
    rates(reads, begun, cpu)
}

/// The same by 32 tasks of a runtime.
fn bridged(path: &Path, time: Duration) -> (f64, f64) {
    let pool = BufferPool::new(32, 4096).unwrap();
    let disk = Disk::open(path, &stele_device::Options { depth: 32, pools: vec![pool.clone()], ..Default::default() })
        .unwrap();
    let places = disk.geometry().bytes() / 4096;
    let (begun, cpu) = (Instant::now(), cpu_time());
    let reads = Cell::new(0_u64);
    block_on(async {
        let worker = |seed: u64| {
            let (disk, pool, reads) = (&disk, &pool, &reads);
            async move {
                let mut random = Random(seed);
                while begun.elapsed() < time {
                    let (answer, answered) = oneshot::channel();
                    let completion: Arc<dyn Completion> = Arc::new(Once(std::sync::Mutex::new(Some(answer))));
                    let request = Request::read(random.next() % places * 4096, pool.take());
                    disk.submit(&mut VecDeque::from([request]), &completion);
                    answered.await.unwrap().into_buffer().unwrap();
                    reads.set(reads.get() + 1);
                }
            }
        };
        futures::future::join_all((0..32).map(worker)).await;
    });
    rates(reads.get(), begun, cpu)
}

/// Tells a task.
struct Once(std::sync::Mutex<Option<oneshot::Sender<Completed>>>);

impl Completion for Once {
    fn complete(&self, completed: Completed) {
        if let Some(answer) = self.0.lock().unwrap().take() {
            let _ = answer.send(completed);
        }
    }
}

fn rates(reads: u64, begun: Instant, cpu: Duration) -> (f64, f64) {
    let spent = (cpu_time() - cpu).as_secs_f64();
    (reads as f64 / begun.elapsed().as_secs_f64(), spent * 1e6 / reads as f64)
}

/// Processor time of all threads of the process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of a hundredth of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
