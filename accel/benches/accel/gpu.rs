//! The GPU: whether it agrees with the CPU, and its rates by batch size, with transfers and kernels apart.

use std::{
    error::Error,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use stele_accel::{
    Assign, Bytes, DigestJob, Engine, EngineConfig, GpuConfig, GpuState, HashAlgorithm, Job, MerkleJob, Priority, Span,
    Suite, VerifyJob, verify_one,
};

use crate::{
    items::{signed, verify_job},
    report::Report,
};

/// Longest compilation that is waited for.
const START: Duration = Duration::from_secs(180);

/// Signatures that larger batches repeat: to sign a million takes longer than to verify them.
const SIGNED: usize = 4096;

/// Keys of a network whose keys are enrolled.
const ENROLLED_KEYS: usize = 100;

/// 1 if every kernel gives what the CPU gives, on a software device where there is no other.
pub(crate) fn agree(report: &mut Report) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "gpu.agree";
    if !report.wants(NAME) {
        return Ok(());
    }
    let started = Instant::now();
    let engine = engine(true, 128 << 20)?;
    let started = started.elapsed().as_secs_f64();
    let Some(engine) = engine else {
        if std::env::var_os("CI").is_some() {
            return Err("CI is to have a Vulkan device (mesa-vulkan-drivers)".into());
        }
        println!("{NAME}: not measured, there is no Vulkan device");
        return Ok(());
    };
    let mut equal = true;
    for suite in Suite::ALL {
        for keys in [20, 512] {
            let mut items = signed(suite, 512, keys)?;
            for item in items.iter_mut().step_by(7) {
                item.signature[40] ^= 1;
            }
            let expected: Vec<_> =
                items.iter().map(|item| verify_one(suite, &item.public_key, &item.signature, &item.message)).collect();
            // A second time with the tables that the keys have earned.
            for _ in 0..2 {
                equal &= engine.submit_with(Priority::Bulk, verify_job(&items))?.wait()? == expected;
            }
        }
    }
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
        let messages: Vec<Span> = (0..2000).map(|index| Span { offset: index, length: index % 700 }).collect();
        let job = DigestJob { algorithm, prefix: Bytes::from_static(&[0]), bytes: vec![7; 3000].into(), messages };
        let leaves = engine.submit(job.clone())?.wait()?;
        equal &= engine.submit_with(Priority::Bulk, job)?.wait()? == leaves;
        let job = MerkleJob { algorithm, leaves: leaves.repeat(10), keep_levels: true };
        let levels = engine.submit(job.clone())?.wait()?;
        equal &= engine.submit_with(Priority::Bulk, job)?.wait()? == levels;
    }
    let figures = engine.figures().gpu;
    equal &= figures.state == GpuState::Serving && figures.fallbacks == 0 && figures.batches > 12;
    let adapter = engine.gpu_status().adapter;
    println!("{adapter} served after {started:.1} s, of which compilation took {:.1} s", figures.compile_seconds);
    report.push(NAME.to_owned(), f64::from(u8::from(equal)), "1=yes", None);
    Ok(())
}

/// Rates of a GPU: of a real one where there is one, else of a software device if that is asked for.
pub(crate) fn table(software: bool, report: &mut Report) -> Result<(), Box<dyn Error>> {
    if !report.wants("gpu.") {
        return Ok(());
    }
    let Some(enrolled) = engine(software, 128 << 20)? else { return Ok(()) };
    let Some(unknown) = engine(software, 0)? else { return Ok(()) };
    let status = enrolled.gpu_status();
    println!("{}, {}, {} workers", status.adapter, status.driver, enrolled.figures().threads);
    memory();
    let sizes: &[usize] = if software { &[1 << 10, 1 << 12] } else { &[1 << 10, 1 << 14, 1 << 18, 1 << 20] };
    for suite in Suite::ALL {
        for (engine, keys, label) in [(&enrolled, ENROLLED_KEYS, "enrolled"), (&unknown, SIGNED, "unknown")] {
            let job = verify_job(&signed(suite, SIGNED, keys)?);
            for size in sizes {
                let items = job.items.iter().copied().cycle().take(*size).collect();
                let job = VerifyJob { bytes: job.bytes.clone(), items };
                let name = format!("gpu.{}.{label}.{size}", suite.name());
                measure(engine, &name, *size, report, &job)?;
            }
        }
    }
    let leaves = if software { 1 << 17 } else { 1 << 24 };
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
        let job = MerkleJob { algorithm, leaves: vec![[7; 32]; leaves], keep_levels: false };
        let name = format!("gpu.{}.merkle.{leaves}", algorithm.name());
        measure(&enrolled, &name, leaves, report, &job)?;
    }
    Ok(())
}

/// What a run took, in milliseconds; what cores do is of all cores together, and what batches wait for of all batches.
struct Run {
    took: f64,
    /// To queue the job, on the thread that brings it.
    submit: f64,
    kernels: f64,
    packing: f64,
    waiting: f64,
    staging: f64,
    judging: f64,
    batches: u64,
    bytes: u64,
}

/// The best of three runs after one that warms up: items a second by the clock, and by the time of the kernels alone;
/// where the time went, and what went over the bus.
fn measure<J: Job + Clone>(
    engine: &Engine,
    name: &str,
    items: usize,
    report: &mut Report,
    job: &J,
) -> Result<(), Box<dyn Error>> {
    run(engine, job.clone())?;
    let runs = (0..3).map(|_| run(engine, job.clone())).collect::<Result<Vec<_>, _>>()?;
    let Some(best) = runs.into_iter().min_by(|one, other| one.took.total_cmp(&other.took)) else { return Ok(()) };
    let Run { took, submit, kernels, packing, waiting, staging, judging, batches, bytes } = best;
    println!("{name:<36} {took:>9.1} ms, kernels {kernels:>9.1} ms, {bytes} bytes moved in {batches} batches");
    println!(
        "{:<36} submit {submit:.1} ms, cores pack {packing:.1} ms and judge {judging:.1} ms, staging {staging:.1} ms, \
         slots waited for {waiting:.1} ms",
        ""
    );
    let items = f64::from(u32::try_from(items)?);
    report.push(name.to_owned(), items / took * 1e3, "1/s", None);
    if kernels > 0.0 {
        report.push(format!("{name}.kernels"), items / kernels * 1e3, "1/s", None);
    }
    Ok(())
}

fn run<J: Job>(engine: &Engine, job: J) -> Result<Run, Box<dyn Error>> {
    let (before, started) = (engine.figures().gpu, Instant::now());
    let ticket = engine.submit_with(Priority::Bulk, job).map_err(|refused| refused.reason)?;
    let submit = started.elapsed().as_secs_f64();
    ticket.wait()?;
    let (took, after) = (started.elapsed().as_secs_f64(), engine.figures().gpu);
    Ok(Run {
        took: 1e3 * took,
        submit: 1e3 * submit,
        kernels: 1e3 * (after.kernels.seconds - before.kernels.seconds),
        packing: 1e3 * (after.packing_seconds - before.packing_seconds),
        waiting: 1e3 * (after.waiting_seconds - before.waiting_seconds),
        staging: 1e3 * (after.staging_seconds - before.staging_seconds),
        judging: 1e3 * (after.judging_seconds - before.judging_seconds),
        batches: after.batches - before.batches,
        bytes: after.bytes_up + after.bytes_down - before.bytes_up - before.bytes_down,
    })
}

/// What the machine takes to clear new pages and to copy, on one core: much of either would be what a large job waits for.
fn memory() {
    const BYTES: usize = 256 << 20;
    let started = Instant::now();
    let mut target = vec![1u8; BYTES];
    let cleared = started.elapsed().as_secs_f64();
    let source = vec![2u8; BYTES];
    let started = Instant::now();
    target.copy_from_slice(&source);
    let copied = started.elapsed().as_secs_f64();
    black_box(&target);
    let gigabytes = f64::from(u32::try_from(BYTES).unwrap_or(0)) / 1e9;
    println!(
        "one core fills new memory at {:.1} GB/s and copies at {:.1} GB/s",
        gigabytes / cleared,
        gigabytes / copied
    );
}

/// An engine whose bulk work all goes to the GPU, or `None` where there is none.
fn engine(software: bool, table_bytes: usize) -> Result<Option<Engine>, Box<dyn Error>> {
    let gpu = GpuConfig { software_device: software, assign: Assign::All, ..GpuConfig::default() };
    let engine = Engine::new(&EngineConfig {
        gpu: Some(gpu),
        key_table_bytes_max: table_bytes,
        queue_items_max: 1 << 25,
        queue_bytes_max: 4 << 30,
        ..EngineConfig::default()
    })?;
    let started = Instant::now();
    while engine.gpu_status().state == GpuState::Starting && started.elapsed() < START {
        thread::sleep(Duration::from_millis(10));
    }
    match engine.gpu_status().state {
        GpuState::Serving => Ok(Some(engine)),
        GpuState::Absent => Ok(None),
        _ => Err(format!("the GPU does not serve: {:?}", engine.gpu_status()).into()),
    }
}
