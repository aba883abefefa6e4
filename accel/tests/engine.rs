//! The engine: order, bounds, priorities, stopping, and equality with one-at-a-time work.

mod material;

use std::{
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use material::{Material, engine, verify, verify_job};
use proptest::prelude::*;
use stele_accel::{
    Bytes, Digest, DigestJob, Engine, EngineConfig, HashAlgorithm, MerkleJob, Priority, Span, SubmitError, Suite,
    TicketError, Verdict, VerifyItem, VerifyJob,
};
use stele_accel_hash::{digest, node_level, tree_root};

/// Valid and spoilt items of all suites.
fn mixed_items() -> &'static [(Material, Verdict)] {
    static ITEMS: LazyLock<Vec<(Material, Verdict)>> = LazyLock::new(|| {
        (0..180usize)
            .map(|number| {
                let suite = Suite::ALL[number % 3];
                let key = u8::try_from(number % 17).expect("small");
                let item = Material::valid(suite, key, &number.to_be_bytes());
                let item = if number % 5 == 4 { item.spoilt(number / 5) } else { item };
                let verdict = item.verify_one();
                (item, verdict)
            })
            .collect()
    });
    &ITEMS
}

fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|index| digest(HashAlgorithm::Sha256, &[0], &index.to_be_bytes())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn mixed_batches_have_exact_verdicts_in_order(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
        threads in 1..4usize,
    ) {
        let items: Vec<_> = picks.iter().map(|pick| pick.get(mixed_items()).clone()).collect();
        let (items, expected): (Vec<Material>, Vec<Verdict>) = items.into_iter().unzip();
        let engine = engine(threads);
        prop_assert_eq!(verify(&engine, &items), expected);
    }

    #[test]
    fn digests_equal_one_at_a_time_hashing(
        lengths in prop::collection::vec(0..3000u32, 0..200),
        sm3 in any::<bool>(),
        prefix in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let algorithm = if sm3 { HashAlgorithm::Sm3 } else { HashAlgorithm::Sha256 };
        let arena: Vec<u8> = (0..=255u8).cycle().take(4000).collect();
        let messages: Vec<Span> = (0u32..)
            .zip(&lengths)
            .map(|(index, length)| Span { offset: index % 1000, length: *length })
            .collect();
        let expected: Vec<Digest> = messages
            .iter()
            .map(|span| digest(algorithm, &prefix, span.slice(&arena).expect("inside")))
            .collect();
        let job = DigestJob { algorithm, prefix: prefix.into(), bytes: arena.into(), messages };
        let digests = engine(2).submit(job).expect("queued").wait().expect("digests");
        prop_assert_eq!(digests, expected);
    }
}

#[test]
fn a_large_tree_is_cut_and_joined_without_a_seam() {
    let engine = engine(3);
    for count in [1usize, 2, 3, 4095, 4096, 4097, 8192, 8193, 12_289, 20_000] {
        let leaves = leaves(count);
        let job = |keep_levels| MerkleJob { algorithm: HashAlgorithm::Sha256, leaves: leaves.clone(), keep_levels };
        let root = tree_root(HashAlgorithm::Sha256, &leaves);
        let slim = engine.submit(job(false)).expect("queued").wait().expect("tree");
        assert_eq!((slim.root, slim.levels.len()), (root, 0), "{count} leaves");
        let whole = engine.submit(job(true)).expect("queued").wait().expect("tree");
        assert_eq!(whole.root, root);
        let mut level = leaves;
        for found in &whole.levels {
            level = node_level(HashAlgorithm::Sha256, &level);
            assert_eq!(*found, level, "{count} leaves");
        }
        assert_eq!(level.len(), 1, "{count} leaves: the last level is the root");
    }
    let none = MerkleJob { algorithm: HashAlgorithm::Sm3, leaves: vec![], keep_levels: true };
    assert_eq!(engine.submit(none).expect("taken").wait().expect("tree").root, None);
}

#[test]
fn tickets_are_futures_and_many_threads_may_submit() {
    let engine = Arc::new(engine(2));
    let submitters: Vec<_> = (0..4usize)
        .map(|number| {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                for round in 0..10 {
                    let (items, expected): (Vec<_>, Vec<_>) =
                        mixed_items().iter().skip(number * 7 + round).take(20).cloned().unzip();
                    let ticket = engine.submit(verify_job(&items)).expect("queued");
                    assert_eq!(block_on(ticket).expect("verdicts"), expected);
                }
            })
        })
        .collect();
    for submitter in submitters {
        submitter.join().expect("submitter");
    }
    let figures = engine.figures();
    assert_eq!((figures.verify.jobs, figures.verify.items), (40, 800));
    let verdicts: u64 = figures.suites.iter().map(|suite| suite.valid + suite.invalid).sum();
    assert_eq!(verdicts, 800);
    assert_eq!((figures.queue_items, figures.queue_bytes, figures.threads), (0, 0, 2));
    assert!(figures.key_caches.iter().all(|cache| cache.hits > 0 && cache.misses > 0));
    assert!(figures.verify.times.seconds > 0.0);
    assert_eq!(figures.verify.times.buckets.iter().sum::<u64>(), 40);
}

/// Items that keep one thread busy for a good part of a second.
const MANY: usize = 30_000;

/// An engine whose queue holds one job of [`MANY`] items, and such a job.
fn busy_engine() -> (Engine, VerifyJob) {
    let config = EngineConfig { threads: 1, queue_items_max: MANY * 4 / 3, ..EngineConfig::default() };
    let items = vec![Material::valid(Suite::Sm2, 1, b"m"); MANY];
    (Engine::new(&config).expect("engine"), verify_job(&items))
}

#[test]
fn a_full_queue_gives_the_job_back_and_a_blocking_submitter_waits() {
    let (engine, job) = busy_engine();
    let first = engine.submit(job.clone()).expect("queued");
    let refused = engine.submit(job.clone()).expect_err("full");
    assert_eq!(refused.reason, SubmitError::Saturated);
    assert!(refused.reason.is_retryable());
    assert_eq!(refused.job.items.len(), MANY);
    let second = engine.submit_blocking(Priority::Live, refused.job).expect("queued in the end");
    assert_eq!(first.wait().expect("verdicts"), vec![Verdict::Valid; MANY]);
    assert_eq!(second.wait().expect("verdicts"), vec![Verdict::Valid; MANY]);
    let large = verify_job(&vec![Material::valid(Suite::Sm2, 1, b"m"); 2 * MANY]);
    assert_eq!(engine.submit(large).expect_err("large").reason, SubmitError::TooLarge);
    let large = DigestJob {
        algorithm: HashAlgorithm::Sha256,
        prefix: Bytes::new(),
        bytes: Bytes::new(),
        messages: vec![Span::default(); 2 * MANY],
    };
    assert_eq!(engine.submit(large).expect_err("large").reason, SubmitError::TooLarge);
    assert_eq!(engine.figures().saturated, 1);
}

#[test]
fn live_work_overtakes_bulk_work_and_bulk_work_still_moves() {
    let engine = engine(1);
    let bulk = verify_job(&vec![Material::valid(Suite::Sm2, 1, b"m"); MANY]);
    let bulk = engine.submit_with(Priority::Bulk, bulk).expect("queued");
    let live = verify_job(&[Material::valid(Suite::P256, 1, b"m")]);
    let started = Instant::now();
    let live = engine.submit(live).expect("queued").wait().expect("verdict");
    assert_eq!(live, [Verdict::Valid]);
    let live_took = started.elapsed();
    assert_eq!(bulk.wait().expect("verdicts").len(), MANY);
    let bulk_took = started.elapsed();
    assert!(live_took * 4 < bulk_took, "live {live_took:?}, bulk {bulk_took:?}");
}

/// Each job gets its own verdicts, whatever it went along with.
#[test]
fn small_jobs_that_wait_are_verified_together() {
    let engine = engine(1);
    let bulk = verify_job(&vec![Material::valid(Suite::Sm2, 1, b"m"); 200]);
    let before = engine.submit(bulk).expect("queued");
    let jobs: Vec<Vec<(Material, Verdict)>> = (0..150usize)
        .map(|number| {
            let suite = Suite::ALL[number % 3];
            let items = (0..1 + number % 4).map(|item| {
                let key = u8::try_from(1 + number % 5).expect("few");
                let valid = Material::valid(suite, key, &(number * 10 + item).to_be_bytes());
                if (number + item) % 7 == 3 { (valid.spoilt(item), Verdict::Invalid) } else { (valid, Verdict::Valid) }
            });
            items.collect()
        })
        .collect();
    let submit = |job: &Vec<(Material, Verdict)>| {
        let items: Vec<Material> = job.iter().map(|(item, _)| item.clone()).collect();
        engine.submit(verify_job(&items)).expect("queued")
    };
    let tickets: Vec<_> = jobs.iter().map(submit).collect();
    for (job, ticket) in jobs.iter().zip(tickets) {
        let expected: Vec<Verdict> = job.iter().map(|(item, _)| item.verify_one()).collect();
        assert_eq!(ticket.wait().expect("verdicts"), expected);
        assert_eq!(expected, job.iter().map(|(_, verdict)| *verdict).collect::<Vec<_>>());
    }
    assert_eq!(before.wait().expect("verdicts").len(), 200);
    let figures = engine.figures();
    assert!(figures.together > 50 && figures.together <= 150, "{} of 150 went together", figures.together);
    assert_eq!((figures.queue_items, figures.queue_bytes, figures.failures), (0, 0, 0));
    assert_eq!(figures.verify.jobs, 151);
}

#[test]
fn dropping_the_engine_resolves_what_is_queued() {
    let (engine, job) = busy_engine();
    let ticket = engine.submit(job).expect("queued");
    thread::sleep(Duration::from_millis(5));
    drop(engine);
    assert_eq!(ticket.wait(), Err(TicketError::Stopped));
}

#[test]
fn a_span_outside_the_arena_is_the_callers_error() {
    let engine = engine(1);
    let inside = Span { offset: 0, length: 4 };
    let outside = Span { offset: 1, length: 4 };
    for index in 0..3 {
        let mut spans = [inside; 3];
        spans[index] = outside;
        let [public_key, signature, message] = spans;
        let items = vec![VerifyItem { suite: Suite::P256, public_key, signature, message }];
        let refused = engine.submit(VerifyJob { bytes: Bytes::from_static(b"four"), items });
        assert_eq!(refused.expect_err("outside").reason.code(), "accel_span_outside");
    }
}

#[test]
fn too_many_threads_are_refused() {
    let config = EngineConfig { threads: 100_000, ..EngineConfig::default() };
    assert_eq!(Engine::new(&config).expect_err("absurd").code(), "too_many_threads");
}
