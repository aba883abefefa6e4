//! Rates of verification and hashing: one core and all cores, warm and cold keys, honest and hostile batches.
//!
//! ```text
//! cargo bench -p stele-accel --bench verify --profile dev -- [--json FILE] [--seconds N]
//! ```
//!
//! Each line of the JSON file is `{"name", "value", "unit", "peer", "ratio"}`; peers are measured in the same run.
//! Rates of one core are per second of processor time, so neighbours on the machine disturb them little; those of
//! all cores are per second of the clock.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{
    error::Error,
    fs::{self, File},
    hint::black_box,
    io::Write,
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use p256::ecdsa::{self, signature::Signer as _};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rand_core::OsRng;
use stele_accel::{
    Bytes, DigestJob, Engine, EngineConfig, HashAlgorithm, MerkleJob, Span, Suite, VerifyItem, VerifyJob, verify_one,
};

/// Length of a signed message: a command's `Sig_structure`.
const MESSAGE_LENGTH: usize = 300;

/// Signed items, as bytes.
struct Item {
    suite: Suite,
    public_key: Vec<u8>,
    signature: Vec<u8>,
    message: Vec<u8>,
}

/// One result line.
struct Line {
    name: String,
    value: f64,
    unit: &'static str,
    peer: Option<(&'static str, f64)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut json = None;
    let mut seconds = 1.0f64;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = Some(arguments.next().ok_or("--json needs a file")?),
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            // What cargo passes to every benchmark.
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let lasting = Duration::from_secs_f64(seconds);
    let mut lines = Vec::new();
    suites(lasting, &mut lines)?;
    ed25519_batches(lasting, &mut lines)?;
    hashes(lasting, &mut lines)?;
    if let Some(path) = json {
        let mut file = File::create(path)?;
        for line in &lines {
            let (peer, ratio) = match line.peer {
                Some((name, value)) => (Some(name), Some(line.value / value)),
                None => (None, None),
            };
            let value = serde_json::json!({
                "name": line.name, "value": line.value, "unit": line.unit, "peer": peer, "ratio": ratio,
            });
            writeln!(file, "{value}")?;
        }
    }
    Ok(())
}

/// Each suite: a call without engine, one worker, all workers.
fn suites(lasting: Duration, lines: &mut Vec<Line>) -> Result<(), Box<dyn Error>> {
    for suite in Suite::ALL {
        let count = if suite == Suite::Sm2 { 512 } else { 4096 };
        let items = signed(suite, count, 100)?;
        let job = verify_job(&items);
        let mut next = items.iter().cycle();
        let single = rate(lasting, 1, || {
            let Some(item) = next.next() else { return };
            black_box(verify_one(suite, &item.public_key, &item.signature, &item.message));
        });
        push(lines, format!("accel.{}.single", suite.name()), single, "1/s", None);
        for (threads, label) in [(1, "one_core"), (0, "all_cores")] {
            let engine = Engine::new(&EngineConfig { threads, ..EngineConfig::default() })?;
            let clock = if threads == 1 { processor_time } else { wall_time };
            let value = rate_by(clock, lasting, count, || run(&engine, &job));
            push(lines, format!("accel.{}.{label}", suite.name()), value, "1/s", None);
        }
    }
    Ok(())
}

/// Ed25519 by batch size, number of keys and bad items, beside the batch verifier of ed25519-zebra.
fn ed25519_batches(lasting: Duration, lines: &mut Vec<Line>) -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() })?;
    for keys in [1, 16, 256, 4096] {
        let items = signed(Suite::Ed25519, 4096, keys)?;
        let job = verify_job(&items);
        let ours = rate(lasting, items.len(), || run(&engine, &job));
        let peer = rate(lasting, items.len(), || {
            for chunk in items.chunks(512) {
                black_box(zebra(chunk));
            }
        });
        let peer = Some(("ed25519-zebra batches of 512", peer));
        push(lines, format!("accel.ed25519.keys_{keys}"), ours, "1/s", peer);
    }
    for size in [1usize, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048] {
        let items = signed(Suite::Ed25519, size, 100)?;
        let job = verify_job(&items);
        let value = rate(lasting / 4, size, || run(&engine, &job));
        push(lines, format!("accel.ed25519.job_of_{size}"), value, "1/s", None);
    }
    for batch in [64, 128, 256, 512, 1024, 2048, 4096] {
        let config = EngineConfig { threads: 1, ed25519_batch_max: batch, ..EngineConfig::default() };
        let engine = Engine::new(&config)?;
        let job = verify_job(&signed(Suite::Ed25519, 4096, 100)?);
        let value = rate(lasting / 2, job.items.len(), || run(&engine, &job));
        push(lines, format!("accel.ed25519.batch_of_{batch}"), value, "1/s", None);
    }
    for bad in [1usize, 4, 16, 256, 4096] {
        let mut items = signed(Suite::Ed25519, 4096, 100)?;
        for item in items.iter_mut().step_by(4096 / bad) {
            item.signature[33] ^= 1;
        }
        let job = verify_job(&items);
        let value = rate(lasting, items.len(), || run(&engine, &job));
        push(lines, format!("accel.ed25519.bad_{bad}_of_4096"), value, "1/s", None);
    }
    Ok(())
}

/// Bulk hashing and tree interiors.
fn hashes(lasting: Duration, lines: &mut Vec<Line>) -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() })?;
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
        for length in [64u32, 300, 1024, 4096, 65_536] {
            let count = (8u32 << 20) / length;
            let bytes = Bytes::from(vec![0x5a; usize::try_from(count * length)?]);
            let messages: Vec<Span> = (0..count).map(|index| Span { offset: index * length, length }).collect();
            let job = DigestJob { algorithm, prefix: Bytes::from_static(&[0]), bytes, messages };
            let total = job.bytes.len();
            let ours = rate(lasting / 2, total, || {
                black_box(engine.submit(job.clone()).map(stele_accel::Ticket::wait).is_ok());
            });
            let peer = rate(lasting / 2, total, || {
                for message in job.bytes.chunks_exact(length as usize) {
                    black_box(stele_accel_hash::digest(algorithm, &[0], message));
                }
            });
            let name = format!("accel.{}.bytes_{length}", algorithm.name());
            push(lines, name, ours / 1e6, "MB/s", Some(("one at a time", peer / 1e6)));
        }
        let leaves = vec![[7u8; 32]; 1 << 17];
        let job = MerkleJob { algorithm, leaves, keep_levels: false };
        let value = rate(lasting / 2, job.leaves.len(), || {
            black_box(engine.submit(job.clone()).map(stele_accel::Ticket::wait).is_ok());
        });
        push(lines, format!("accel.{}.merkle_nodes", algorithm.name()), value, "1/s", None);
    }
    Ok(())
}

fn push(lines: &mut Vec<Line>, name: String, value: f64, unit: &'static str, peer: Option<(&'static str, f64)>) {
    match peer {
        Some((other, rate)) => {
            println!("{name:<36} {value:>12.0} {unit:<5} {:>6.2} x {other}", value / rate);
        }
        None => println!("{name:<36} {value:>12.0} {unit}"),
    }
    lines.push(Line { name, value, unit, peer });
}

/// Items per second of processor time.
fn rate(lasting: Duration, items: usize, work: impl FnMut()) -> f64 {
    rate_by(processor_time, lasting, items, work)
}

/// Best rate over parts of the time, because neighbours only ever slow a part down.
fn rate_by(clock: fn() -> Duration, lasting: Duration, items: usize, mut work: impl FnMut()) -> f64 {
    const PARTS: u32 = 5;
    work();
    let mut best = 0.0f64;
    for _ in 0..PARTS {
        let (started, wall, mut rounds) = (clock(), Instant::now(), 0u32);
        while wall.elapsed() < lasting / PARTS {
            work();
            rounds += 1;
        }
        let done = f64::from(rounds) * f64::from(u32::try_from(items).unwrap_or(u32::MAX));
        best = best.max(done / (clock() - started).as_secs_f64());
    }
    best
}

fn wall_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Time that all threads of this process were running, from the scheduler's statistics.
fn processor_time() -> Duration {
    let running = |task: PathBuf| -> Option<u64> {
        let statistics = fs::read_to_string(task.join("schedstat")).ok()?;
        statistics.split(' ').next()?.parse().ok()
    };
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    Duration::from_nanos(tasks.filter_map(|task| running(task.path())).sum())
}

fn run(engine: &Engine, job: &VerifyJob) {
    let verdicts = engine.submit(job.clone()).map(stele_accel::Ticket::wait);
    assert!(matches!(verdicts, Ok(Ok(verdicts)) if verdicts.len() == job.items.len()));
}

fn zebra(items: &[Item]) -> bool {
    let mut batch = ed25519_zebra::batch::Verifier::new();
    for item in items {
        let key = ed25519_zebra::VerificationKeyBytes::try_from(item.public_key.as_slice());
        let signature = ed25519_zebra::Signature::from_slice(&item.signature);
        let (Ok(key), Ok(signature)) = (key, signature) else { return false };
        batch.queue((key, signature, item.message.as_slice()));
    }
    batch.verify(OsRng).is_ok()
}

fn verify_job(items: &[Item]) -> VerifyJob {
    let mut arena = Vec::new();
    let mut put = |bytes: &[u8]| Span::append(&mut arena, bytes).unwrap_or_default();
    let items = items
        .iter()
        .map(|item| VerifyItem {
            suite: item.suite,
            public_key: put(&item.public_key),
            signature: put(&item.signature),
            message: put(&item.message),
        })
        .collect();
    VerifyJob { bytes: arena.into(), items }
}

/// Valid items by `keys` keys in turn.
fn signed(suite: Suite, count: usize, keys: usize) -> Result<Vec<Item>, Box<dyn Error>> {
    (0..count)
        .map(|index| {
            let mut message = vec![0x42; MESSAGE_LENGTH];
            message[..8].copy_from_slice(&(index as u64).to_be_bytes());
            let mut seed = [0x11; 32];
            seed[24..].copy_from_slice(&((index % keys) as u64).to_be_bytes());
            let (public_key, signature) = match suite {
                Suite::Ed25519 => {
                    let key = ed25519_consensus::SigningKey::from(seed);
                    let signature = key.sign(&message).to_bytes();
                    (key.verification_key().to_bytes().to_vec(), signature.to_vec())
                }
                Suite::P256 => {
                    let key = ecdsa::SigningKey::from_slice(&seed).map_err(|error| error.to_string())?;
                    let signature: ecdsa::Signature = key.sign(&message);
                    let point = key.verifying_key().as_affine().to_encoded_point(true);
                    (point.as_bytes().to_vec(), signature.to_vec())
                }
                Suite::Sm2 => {
                    let key = sm2::SecretKey::from_slice(&seed).map_err(|error| error.to_string())?;
                    let signer =
                        sm2::dsa::SigningKey::new("1234567812345678", &key).map_err(|error| error.to_string())?;
                    let signature: sm2::dsa::Signature = signer.sign(&message);
                    let point = key.public_key().to_encoded_point(true);
                    (point.as_bytes().to_vec(), signature.to_vec())
                }
            };
            Ok(Item { suite, public_key, signature, message })
        })
        .collect()
}
