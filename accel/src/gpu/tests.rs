//! Faults of the device: no item is lost and no wrong result gets out.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use stele_accel_hash::{Digest, HashAlgorithm, digest, tree_root};

use crate::{Assign, Bytes, DigestJob, Engine, EngineConfig, GpuConfig, GpuState, MerkleJob, Priority, Span, gpu::Gpu};

/// Longest compilation that a test waits for.
const START: Duration = Duration::from_secs(180);

const ALGORITHM: HashAlgorithm = HashAlgorithm::Sha256;

fn start(configure: impl FnOnce(&mut GpuConfig)) -> Engine {
    let mut gpu = GpuConfig { software_device: true, assign: Assign::All, ..GpuConfig::default() };
    configure(&mut gpu);
    let config = EngineConfig { threads: 2, gpu: Some(gpu), ..EngineConfig::default() };
    let engine = Engine::new(&config).expect("engine");
    let started = Instant::now();
    while engine.gpu_status().state == GpuState::Starting && started.elapsed() < START {
        thread::sleep(Duration::from_millis(5));
    }
    engine
}

/// An engine with a device, or `None` where there is no Vulkan at all, which is said, and which fails where tests are
/// meant to have it.
fn engine(configure: impl FnOnce(&mut GpuConfig)) -> Option<Engine> {
    let engine = start(configure);
    let status = engine.gpu_status();
    if status.state == GpuState::Serving {
        return Some(engine);
    }
    assert!(status.adapter.is_empty() && status.state == GpuState::Absent, "the device does not serve: {status:?}");
    assert!(std::env::var_os("CI").is_none(), "CI is to have a Vulkan device (mesa-vulkan-drivers): {status:?}");
    eprintln!("not tested: {}", status.reason);
    None
}

fn gpu(engine: &Engine) -> &Gpu {
    engine.context().gpu().expect("configured")
}

/// A job of many batches and its result.
fn hashing() -> (DigestJob, Vec<Digest>) {
    let arena: Vec<u8> = (0..=255u8).cycle().take(9000).collect();
    let messages: Vec<Span> = (0..6000).map(|index| Span { offset: index, length: index % 900 }).collect();
    let expected = messages.iter().map(|span| digest(ALGORITHM, &[0], span.slice(&arena).expect("inside"))).collect();
    let prefix = Bytes::from_static(&[0]);
    (DigestJob { algorithm: ALGORITHM, prefix, bytes: arena.into(), messages }, expected)
}

fn small_slots(config: &mut GpuConfig) {
    config.slot_bytes = 1 << 18;
}

/// Whatever was done to the device, jobs have right results, then and later.
fn check_results(engine: &Engine) {
    let (job, expected) = hashing();
    let tickets: Vec<_> = (0..3).map(|_| engine.submit_with(Priority::Bulk, job.clone()).expect("queued")).collect();
    for ticket in tickets {
        assert_eq!(ticket.wait().expect("digests"), expected);
    }
    let leaves = expected.repeat(3);
    let root = tree_root(ALGORITHM, &leaves);
    let job = MerkleJob { algorithm: ALGORITHM, leaves, keep_levels: true };
    let levels = engine.submit_with(Priority::Bulk, job).expect("queued").wait().expect("levels");
    assert_eq!(levels.root, root);
    let figures = engine.figures();
    assert_eq!((figures.failures, figures.queue_items), (0, 0));
}

#[test]
fn a_device_that_is_lost_under_way_loses_no_item() {
    for launches in [1, 2, 7] {
        let Some(engine) = engine(small_slots) else { return };
        gpu(&engine).faults().lose_after.store(launches, Ordering::SeqCst);
        check_results(&engine);
        let status = engine.gpu_status();
        assert_eq!(status.state, GpuState::Lost, "{status:?}");
        let figures = engine.figures().gpu;
        assert!(figures.fallbacks > 0, "{figures:?}");
        check_results(&engine);
        assert_eq!(engine.figures().gpu.batches, figures.batches, "nothing more was sent");
    }
}

#[test]
fn an_answer_that_was_spoilt_quarantines_the_device() {
    for swapped in [false, true] {
        let Some(engine) = engine(small_slots) else { return };
        let faults = gpu(&engine).faults();
        (if swapped { &faults.swap } else { &faults.corrupt }).store(1, Ordering::SeqCst);
        check_results(&engine);
        let status = engine.gpu_status();
        assert_eq!((status.state, &*status.reason), (GpuState::Quarantined, "a result without its tag"));
        assert_eq!(engine.figures().gpu.faults[0], 1);
        let batches = engine.figures().gpu.batches;
        check_results(&engine);
        assert_eq!(engine.figures().gpu.batches, batches, "nothing more was sent");
    }
}

#[test]
fn without_memory_for_its_buffers_the_cpu_serves() {
    if engine(small_slots).is_none() {
        return;
    }
    // More than the device has; a software device would take all that the machine has for less.
    let engine = start(|config| config.slot_bytes = usize::MAX / 64);
    let status = engine.gpu_status();
    assert_eq!(status.state, GpuState::Absent);
    assert!(status.reason.contains("memory"), "{}", status.reason);
    check_results(&engine);
    assert_eq!(engine.figures().gpu.batches, 0);
}

#[test]
fn a_software_device_serves_only_where_it_is_configured() {
    let engine = start(|config| {
        config.software_device = false;
        config.adapter = "llvmpipe".to_owned();
    });
    assert_eq!(engine.gpu_status().state, GpuState::Absent);
    check_results(&engine);
}

#[test]
fn live_work_stays_on_the_cpu_unless_configured() {
    let Some(bulk_only) = engine(small_slots) else { return };
    let (job, expected) = hashing();
    let before = bulk_only.figures().gpu.batches;
    assert_eq!(bulk_only.submit(job.clone()).expect("queued").wait(), Ok(expected.clone()));
    assert_eq!(bulk_only.figures().gpu.batches, before);
    drop(bulk_only);
    let Some(both) = engine(|config| (config.slot_bytes, config.live) = (1 << 18, true)) else { return };
    let before = both.figures().gpu.batches;
    assert_eq!(both.submit(job).expect("queued").wait(), Ok(expected));
    assert!(both.figures().gpu.batches > before);
}

#[test]
fn an_engine_that_is_dropped_leaves_no_ticket_behind() {
    let Some(engine) = engine(small_slots) else { return };
    let (job, expected) = hashing();
    let tickets: Vec<_> = (0..8).map(|_| engine.submit_with(Priority::Bulk, job.clone()).expect("queued")).collect();
    drop(engine);
    for ticket in tickets {
        match ticket.wait() {
            Ok(digests) => assert_eq!(digests, expected),
            Err(error) => assert_eq!(error, crate::TicketError::Stopped),
        }
    }
}

#[test]
fn kernels_are_kept_in_the_directory_that_is_configured() {
    let directory = tempfile::tempdir().expect("directory");
    for _ in 0..2 {
        let keep = |config: &mut GpuConfig| config.cache_directory = Some(directory.path().to_owned());
        let Some(engine) = engine(keep) else { return };
        check_results(&engine);
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("directory").count(), 1);
}
