//! What a disk gives through this crate, and through fio's io_uring engine on the same file, round by round.
//!
//! `cargo xtask bench device [--seconds 2] [--rounds 5] [--mebibytes 1024] [--directory DIR] [--only NAME] [--json FILE]`
//!
//! One thread submits and waits; fio runs its ring on that thread, ours has the device's between them. Both have the
//! same requests in flight at the disk, of the same size, with `O_DIRECT` and registered file and buffers. As a state
//! map or a segment writer does it, ours has as many again waiting at the device, except with one in flight, which is
//! to show the whole way there and back. Our buffers lie in huge pages, fio's in what its allocator gives. The ratio is
//! the median of those of the rounds, the rate the median of ours. The directory must be on a real disk.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stele_device::{Batch, BlockDevice, BufferPool, Disk, Options, Request};

const MEBIBYTE: usize = 1 << 20;

/// A load that is measured.
struct Load {
    name: &'static str,
    /// fio's name for the pattern.
    pattern: &'static str,
    bytes: usize,
    /// Requests in flight at the disk.
    depth: usize,
}

impl Load {
    fn is_small(&self) -> bool {
        self.bytes < MEBIBYTE / 16
    }

    /// Requests that the thread has not yet back.
    fn outstanding(&self) -> usize {
        if self.depth == 1 { 1 } else { 2 * self.depth }
    }

    /// Small requests are counted, large ones weighed.
    fn unit(&self) -> &'static str {
        if self.is_small() { "IOPS" } else { "MB/s" }
    }

    fn rate(&self, requests_per_second: f64) -> f64 {
        if self.is_small() { requests_per_second } else { requests_per_second * self.bytes as f64 / 1e6 }
    }
}

const LOADS: [Load; 6] = [
    Load { name: "ring.rand4k.qd1", pattern: "randread", bytes: 4096, depth: 1 },
    Load { name: "ring.rand4k.qd32", pattern: "randread", bytes: 4096, depth: 32 },
    Load { name: "ring.rand4k.qd128", pattern: "randread", bytes: 4096, depth: 128 },
    Load { name: "ring.rand64k.qd16", pattern: "randread", bytes: MEBIBYTE / 16, depth: 16 },
    Load { name: "ring.read1m.qd8", pattern: "read", bytes: MEBIBYTE, depth: 8 },
    Load { name: "ring.write1m.qd8", pattern: "write", bytes: MEBIBYTE, depth: 8 },
];

struct Arguments {
    seconds: f64,
    rounds: usize,
    mebibytes: u64,
    directory: PathBuf,
    /// The beginning of the names of the loads to run.
    only: String,
    json: Option<PathBuf>,
}

fn arguments() -> Arguments {
    let mut parsed = Arguments {
        seconds: 2.0,
        rounds: 5,
        mebibytes: 1024,
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

fn main() {
    let arguments = arguments();
    let directory = tempfile::TempDir::new_in(&arguments.directory).expect("a writable directory");
    let path = directory.path().join("disk");
    prepare(&path, arguments.mebibytes);
    let peer = Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success());
    if !peer {
        println!("fio is not installed: plain figures, no ratios");
    }
    println!("{:<20} {:>12} {:<5} {:>12} {:>6}", "", "here", "", "fio", "ratio");
    let mut lines = String::new();
    for load in LOADS.iter().filter(|load| load.name.starts_with(&arguments.only)) {
        let mut rounds: Vec<(f64, Option<f64>)> = Vec::new();
        for _ in 0..arguments.rounds {
            let here = run(&path, load, Duration::from_secs_f64(arguments.seconds));
            rounds.push((here, peer.then(|| fio(&path, load, arguments.seconds))));
        }
        let value = median(rounds.iter().map(|(here, _)| *here)).expect("a round");
        let theirs = median(rounds.iter().filter_map(|(_, fio)| *fio));
        let ratio = median(rounds.iter().filter_map(|(here, fio)| fio.map(|fio| here / fio)));
        let shown = |figure: Option<f64>, digits| figure.map_or("-".into(), |figure| format!("{figure:.digits$}"));
        let unit = load.unit();
        println!("{:<20} {value:>12.0} {unit:<5} {:>12} {:>6}", load.name, shown(theirs, 0), shown(ratio, 2));
        let (name, peer) = (load.name, if peer { "\"fio\"" } else { "null" });
        let ratio = ratio.map_or("null".into(), |ratio| format!("{ratio:.3}"));
        lines += &format!(
            "{{\"name\":\"{name}\",\"value\":{value:.1},\"unit\":\"{unit}\",\"peer\":{peer},\"ratio\":{ratio}}}\n"
        );
    }
    if let Some(path) = &arguments.json {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a writable file");
        file.write_all(lines.as_bytes()).expect("a writable file");
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
    let options = Options { pools: vec![pool.clone()], ..Options::default() };
    let disk = Disk::create(path, mebibytes * (MEBIBYTE as u64 / 4096), &options).expect("room for the file");
    println!("{:?}", disk.access());
    let (mut batch, mut random) = (Batch::new(&disk, pool.buffers()), Random(1));
    for mebibyte in 0..mebibytes {
        let answer = if batch.outstanding() == pool.buffers() { batch.wait() } else { None };
        let mut buffer = answer.map_or_else(|| pool.take(), |answer| answer.into_buffer().expect("a working disk"));
        buffer.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&random.next().to_le_bytes()));
        assert!(batch.push(Request::write(mebibyte * MEBIBYTE as u64, buffer)).is_none());
    }
    batch.finish().expect("a working disk");
    let mut batch = Batch::new(&disk, 1);
    assert!(batch.push(Request::flush()).is_none());
    batch.finish().expect("a working disk");
}

/// Our rate.
fn run(path: &Path, load: &Load, time: Duration) -> f64 {
    let pool = BufferPool::new(load.outstanding(), load.bytes).expect("memory");
    let depth = u32::try_from(load.depth).expect("a small depth");
    let options = Options { depth, pools: vec![pool.clone()], ..Options::default() };
    let disk = Disk::open(path, &options).expect("the file");
    let places = disk.geometry().bytes() / load.bytes as u64;
    let (mut random, mut sequence) = (Random(7), 0);
    let mut request = |buffer| {
        sequence += 1;
        let place = if load.pattern == "randread" { random.next() } else { sequence } % places;
        let offset = place * load.bytes as u64;
        if load.pattern == "write" { Request::write(offset, buffer) } else { Request::read(offset, buffer) }
    };
    let mut batch = Batch::new(&disk, load.outstanding());
    for _ in 0..load.outstanding() {
        assert!(batch.push(request(pool.take())).is_none());
    }
    let (start, mut requests) = (Instant::now(), 0_u64);
    while let Some(completed) = batch.wait() {
        let buffer = completed.into_buffer().expect("a working disk");
        requests += 1;
        if start.elapsed() < time {
            assert!(batch.push(request(buffer)).is_none());
        }
    }
    load.rate(requests as f64 / start.elapsed().as_secs_f64())
}

/// fio's rate.
fn fio(path: &Path, load: &Load, seconds: f64) -> f64 {
    let output = Command::new("fio")
        .args(["--name=peer", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1"])
        .args(["--time_based", "--norandommap", "--output-format=terse", "--terse-version=3"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--rw={}", load.pattern))
        .arg(format!("--bs={}", load.bytes))
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--runtime={seconds}"))
        .output()
        .expect("fio runs");
    assert!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
    let line = String::from_utf8(output.stdout).expect("fio writes text");
    // Fields of the terse format, version 3: reads per second are the 8th, writes per second the 49th.
    let field = if load.pattern == "write" { 48 } else { 7 };
    let rate = line.lines().last().and_then(|line| line.split(';').nth(field)).and_then(|rate| rate.parse().ok());
    load.rate(rate.expect("fio's terse format"))
}
