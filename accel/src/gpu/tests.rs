//! Faults of the device: no item is lost and no wrong result gets out.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use stele_accel_hash::{Digest, HashAlgorithm, digest, tree_root};

use super::{Gpu, Question, Questions, Reply, Signatures, SuiteCurve};
use crate::{
    Assign, Bytes, DigestJob, Engine, EngineConfig, GpuConfig, GpuFigures, GpuState, MerkleJob, Priority, Span, Suite,
    Verdict, VerifyItem, VerifyJob,
    curve::{
        Affine, KeyComb, Modulus, P256, Sm2,
        limbs::{self, Limbs, ZERO},
    },
    guard::{canary::Canaries, window::Accepted},
    suite::Equation,
};

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
fn a_driver_that_panics_loses_no_item() {
    for polls in [1, 2] {
        let Some(engine) = engine(small_slots) else { return };
        gpu(&engine).faults().panic_after.store(polls, Ordering::SeqCst);
        check_results(&engine);
        let status = engine.gpu_status();
        assert_eq!((status.state, &*status.reason), (GpuState::Lost, "the driver failed"));
        check_results(&engine);
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
    assert_eq!(both.submit(job.clone()).expect("queued").wait(), Ok(expected.clone()));
    let after = both.figures().gpu.batches;
    assert!(after > before);
    let quorum = both.submit_with(Priority::Quorum, job).expect("queued");
    assert_eq!(quorum.wait(), Ok(expected));
    assert_eq!(both.figures().gpu.batches, after, "quorum signatures are the CPU's");
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

/// Asks the device and the CPU.
fn compare<Q: Question>(engine: &Engine, questions: &Questions<Q>, canaries: &Canaries<Q>) -> Vec<Verdict> {
    let (batch, sent) = Signatures::pack(questions, canaries, gpu(engine)).expect("a batch");
    let (sender, receiver) = mpsc::channel();
    gpu(engine).submit(batch, Reply::Probe(sender));
    let answer = receiver.recv().expect("an answer");
    let mut expected = vec![Verdict::Invalid; questions.items.len()];
    Q::decide(questions, &mut expected);
    for (index, valid) in sent.unpack(&answer).expect("whole") {
        assert_eq!(Verdict::from(valid), expected[index], "item {index}");
    }
    expected
}

/// Scalars and keys for which sums meet equal and opposite points and infinity, and coordinates beyond the order.
fn edges<C: SuiteCurve>() -> Questions<Equation<C>> {
    let order = C::Order::MODULUS;
    let below = |small: u64| limbs::subtract(&order, &[small, 0, 0, 0]).0;
    let [o0, o1, o2, o3] = order;
    let half = [o0 >> 1 | o1 << 63, o1 >> 1 | o2 << 63, o2 >> 1 | o3 << 63, o3 >> 1];
    let scalars: [Limbs; 11] = [
        ZERO,
        [1, 0, 0, 0],
        [2, 0, 0, 0],
        [8, 0, 0, 0],
        [128, 0, 0, 0],
        below(1),
        below(2),
        half,
        limbs::add(&half, &[1, 0, 0, 0]).0,
        [0x8888_8888_8888_8888; 4].map(|limb| limb >> 1),
        [0x8080_8080_8080_8080, 0x7f7f_7f7f_7f7f_7f7f, 0x8080_8080_8080_8080, 0x7f7f_7f7f_7f7f_7f7f],
    ];
    let beyond = (0..).find_map(|more| {
        let x = limbs::add(&order, &[more, 0, 0, 0]).0;
        Some((C::decode(&[&[2][..], &limbs::to_be_bytes(&x)].concat())?, [more, 0, 0, 0]))
    });
    let (beyond, residue) = beyond.expect("there are such points");
    let generator = C::generator();
    let keys: [Affine<C::Field>; 3] = [generator, generator.negated_if(true), beyond];
    let x_of_generator = generator.x.to_integer();
    let mut items = Vec::new();
    let tables = keys.iter().map(|point| Arc::new(KeyComb::new::<C>(point).expect("a table"))).collect();
    for (place, point) in keys.into_iter().enumerate() {
        for u in scalars {
            for v in scalars {
                for x in [x_of_generator, residue, ZERO, limbs::add(&residue, &[1, 0, 0, 0]).0] {
                    for table in [None, Some(place)] {
                        let index = items.len();
                        items.push(Equation { index, generator: u, key: v, point, table, x });
                    }
                }
            }
        }
    }
    Questions::<Equation<C>> { items, tables }
}

#[test]
fn sums_at_their_edges_are_judged_as_on_the_cpu() {
    let Some(engine) = engine(|_| {}) else { return };
    let verdicts = [
        compare(&engine, &edges::<P256>(), engine.context().canaries_p256.get().expect("canaries")),
        compare(&engine, &edges::<Sm2>(), engine.context().canaries_sm2.get().expect("canaries")),
    ];
    for verdicts in verdicts {
        let valid = verdicts.iter().filter(|verdict| verdict.is_valid()).count();
        assert!(valid >= 30 && valid < verdicts.len() / 2, "{valid} of {} valid", verdicts.len());
    }
}

/// Signatures of 50 keys, every fourth of them spoilt, and their verdicts.
fn signatures(count: usize) -> (VerifyJob, Vec<Verdict>) {
    let (mut arena, mut items, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let secret = ed25519_consensus::SigningKey::from([u8::try_from(number % 50).expect("small"); 32]);
        let message = number.to_be_bytes();
        let mut signature = secret.sign(&message).to_bytes();
        let valid = number % 4 != 3;
        signature[40] ^= u8::from(!valid);
        let mut put = |bytes: &[u8]| Span::append(&mut arena, bytes).expect("small");
        items.push(VerifyItem {
            suite: Suite::Ed25519,
            public_key: put(&secret.verification_key().to_bytes()),
            signature: put(&signature),
            message: put(&message),
        });
        verdicts.push(Verdict::from(valid));
    }
    (VerifyJob { bytes: arena.into(), items }, verdicts)
}

/// Waits for what another thread does.
fn eventually(engine: &Engine, done: impl Fn(&GpuFigures) -> bool) {
    let started = Instant::now();
    while !done(&engine.figures().gpu) {
        assert!(started.elapsed() < START, "{:?}", engine.figures().gpu);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_wrong_verdict_of_the_device_is_found_and_never_gets_out() {
    for way in 0..4 {
        // All that is accepted is checked, so that one wrong acceptance is found for certain.
        let configure = |config: &mut GpuConfig| (config.batch_items_max, config.recheck_one_in) = (512, 1);
        let Some(engine) = engine(configure) else { return };
        let (job, expected) = signatures(2000);
        let submit = || engine.submit_with(Priority::Bulk, job.clone()).expect("queued").wait().expect("verdicts");
        assert_eq!(submit(), expected);
        assert_eq!(engine.gpu_status().state, GpuState::Serving, "honest work is no fault");
        let faults = gpu(&engine).faults();
        let fault = [&faults.corrupt, &faults.swap, &faults.flip, &faults.shift][way];
        fault.store(1, Ordering::SeqCst);
        let rechecked = engine.figures().gpu.rechecked;
        assert_eq!(submit(), expected, "way {way}");
        assert_eq!(engine.gpu_status().state, GpuState::Quarantined, "way {way}");
        // What the first job had accepted is verified again.
        eventually(&engine, |figures| figures.rechecked >= rechecked + 1500);
        let figures = engine.figures().gpu;
        assert_eq!((figures.retained_wrong, figures.faults[0] > 0), (0, way < 2), "{figures:?}");
        assert!(figures.faults.iter().sum::<u64>() > 0);
        assert_eq!(submit(), expected);
    }
}

#[test]
fn what_a_device_accepted_wrongly_before_it_was_found_out_is_told() {
    // Next to nothing is checked, so that a wrong acceptance is found by the canaries of a later batch alone.
    let configure = |config: &mut GpuConfig| (config.batch_items_max, config.recheck_one_in) = (512, 1 << 20);
    let Some(engine) = engine(configure) else { return };
    let (job, verdicts) = signatures(400);
    // As if the device had accepted them all, the spoilt ones too.
    let context = engine.context();
    context.window.keep(Accepted { bytes: job.bytes.clone(), items: job.items.clone() });
    gpu(&engine).faults().corrupt.store(1, Ordering::SeqCst);
    let found = engine.submit_with(Priority::Bulk, job).expect("queued").wait().expect("verdicts");
    assert_eq!(found, verdicts);
    eventually(&engine, |figures| figures.retained_wrong == 100);
}
