//! The tier against a real Ceph cluster, which all of this shares: one test, since each of its processes would start its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

mod ceph;
mod content;

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::stream;
use stele_accel_hash::HashAlgorithm;
use stele_cold::{ColdError, ColdOptions, ColdTier, Retention, RetentionMode, Sealed};
use stele_storage::content_root;

use ceph::Cluster;
use content::content;

const MIB: usize = 1 << 20;

#[test]
fn the_tier_keeps_its_promises_on_ceph() {
    let Some(mut cluster) = Cluster::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Each by itself, so that what fails is named.
    runtime.block_on(objects_come_back_in_ranges(&cluster));
    runtime.block_on(what_is_there_is_not_put_again(&cluster));
    runtime.block_on(of_two_that_put_one_name_one_succeeds(&cluster));
    runtime.block_on(a_source_that_is_not_what_it_said_leaves_nothing(&cluster));
    runtime.block_on(names_are_listed_in_pages(&cluster));
    runtime.block_on(what_was_never_sealed_is_swept(&cluster));
    runtime.block_on(a_lock_holds_and_is_told(&cluster));
    runtime.block_on(a_bucket_that_creates_what_is_there_is_refused(&cluster));
    runtime.block_on(a_retention_without_object_lock_is_refused(&cluster));
    runtime.block_on(wrong_credentials_are_refused_and_not_told(&cluster));
    runtime.block_on(tls_is_verified(&cluster));
    a_gateway_that_is_gone_is_told_and_nothing_is_lost(&mut cluster, &runtime);
    an_osd_that_is_gone_is_told_and_nothing_is_lost(&mut cluster, &runtime);
}

fn unlocked(cluster: &Cluster) -> ColdOptions {
    cluster.options("plain-objects", "plain-seals")
}

fn locked(cluster: &Cluster) -> ColdOptions {
    let retention = Some(Retention { mode: RetentionMode::Compliance, days: 400 });
    ColdOptions { retention, ..cluster.options("locked-objects", "locked-seals") }
}

async fn open(options: ColdOptions) -> ColdTier {
    ColdTier::make_buckets(&options).await.unwrap();
    ColdTier::open(options).await.unwrap()
}

/// Puts bytes in pieces that fit no border.
async fn put(tier: &ColdTier, name: &str, bytes: &Bytes) -> Result<Sealed, ColdError> {
    let pieces: Vec<_> =
        (0..bytes.len()).step_by(777_777).map(|at| Ok(bytes.slice(at..bytes.len().min(at + 777_777)))).collect();
    tier.put(name, bytes.len() as u64, stream::iter(pieces)).await
}

async fn check(tier: &ColdTier, sealed: &Sealed, bytes: &Bytes) {
    tier.verify(sealed).await.unwrap();
    assert_eq!(sealed.root, content_root(HashAlgorithm::Sha256, bytes));
    let last = bytes.len();
    for (start, end) in [(0, 1), (0, 4_096), (last / 2, last / 2 + 65_536), (last - 1, last), (last, last)] {
        let (start, end) = (start.min(last), end.min(last));
        let read = tier.read(sealed, start as u64..end as u64).await.unwrap();
        assert_eq!(read, bytes[start..end], "bytes {start} to {end} of {last}");
    }
}

async fn objects_come_back_in_ranges(cluster: &Cluster) {
    for options in [unlocked(cluster), locked(cluster)] {
        let tier = open(options).await;
        let begun = Instant::now();
        // In one request, in just one part, and in several of which the last is short.
        for (seed, length) in [(1, 10), (2, 8 * MIB), (3, 8 * MIB + 1), (4, 40 * MIB + 12_345)] {
            let bytes = content(seed, length);
            let sealed = put(&tier, &format!("ranges/{seed}"), &bytes).await.unwrap();
            assert_eq!(sealed.bytes, length as u64);
            check(&tier, &sealed, &bytes).await;
            assert_eq!(tier.find(&sealed.name).await.unwrap().as_ref(), Some(&sealed));
            assert_eq!(tier.confirm(&sealed.name).await.unwrap(), sealed);
            let beyond = tier.read(&sealed, 5..length as u64 + 1).await.unwrap_err();
            assert_eq!(beyond.code(), "cold_range");
        }
        println!("57 MiB put, read back twice and sealed in {:.1} s", begun.elapsed().as_secs_f64());
        assert_eq!(tier.find("ranges/9").await.unwrap(), None);
    }
}

async fn what_is_there_is_not_put_again(cluster: &Cluster) {
    let tier = open(locked(cluster)).await;
    let bytes = content(1, MIB);
    let sealed = put(&tier, "once", &bytes).await.unwrap();
    let again = put(&tier, "once", &content(2, MIB)).await.unwrap_err();
    assert_eq!(again.code(), "cold_exists");
    check(&tier, &sealed, &bytes).await;
}

async fn of_two_that_put_one_name_one_succeeds(cluster: &Cluster) {
    let tier = open(unlocked(cluster)).await;
    let contents: Vec<Bytes> = (0..4).map(|seed| content(seed, 9 * MIB)).collect();
    let puts = contents.iter().map(|bytes| put(&tier, "raced", bytes));
    let results = futures::future::join_all(puts).await;
    let won: Vec<usize> = (0..4).filter(|at| results[*at].is_ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    assert!(results.iter().flatten().count() == 1);
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.code() == "cold_exists"));
    check(&tier, &tier.find("raced").await.unwrap().unwrap(), &contents[won[0]]).await;
}

async fn a_source_that_is_not_what_it_said_leaves_nothing(cluster: &Cluster) {
    let tier = open(unlocked(cluster)).await;
    let bytes = content(5, 9 * MIB);
    for said in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
        let error = tier.put("short", said, stream::iter([Ok(bytes.clone())])).await.unwrap_err();
        assert_eq!(error.code(), "cold_source");
    }
    let broken = stream::iter([Ok(bytes.clone()), Err(ColdError::Source { reason: "it broke".to_owned() })]);
    let error = tier.put("short", 20 * MIB as u64, broken).await.unwrap_err();
    assert_eq!(error.code(), "cold_source");
    assert_eq!(tier.find("short").await.unwrap(), None);
    put(&tier, "short", &bytes).await.unwrap();
}

async fn names_are_listed_in_pages(cluster: &Cluster) {
    let tier = open(unlocked(cluster)).await;
    for number in 0..12 {
        put(&tier, &format!("listed/{number:02}"), &content(number, 100)).await.unwrap();
    }
    let all = tier.list("listed", None).await.unwrap();
    assert_eq!(all, (0..12).map(|number| format!("listed/{number:02}")).collect::<Vec<_>>());
    assert_eq!(tier.list("listed", Some("listed/09")).await.unwrap(), ["listed/10", "listed/11"]);
    assert!(tier.list("nothing", None).await.unwrap().is_empty());
    tier.delete("listed/05").await.unwrap();
    assert_eq!(tier.delete("listed/05").await.unwrap_err().code(), "cold_not_found");
    assert_eq!(tier.list("listed", None).await.unwrap().len(), 11);
    // Deleted, the name is free.
    put(&tier, "listed/05", &content(99, 100)).await.unwrap();
}

async fn what_was_never_sealed_is_swept(cluster: &Cluster) {
    let tier = open(unlocked(cluster)).await;
    let bytes = content(11, 9 * MIB);
    let sealed = put(&tier, "swept/one", &bytes).await.unwrap();
    let (today, later) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(48 * 3_600));
    assert_eq!(tier.sweep("swept", later).await.unwrap(), 0, "it has a seal");
    // For whom looks for seals elsewhere it has none.
    let other = open(cluster.options("plain-objects", "other-seals")).await;
    assert_eq!(other.sweep("swept", today).await.unwrap(), 0, "somebody may be about to seal it");
    check(&tier, &sealed, &bytes).await;
    assert_eq!(other.sweep("swept", later).await.unwrap(), 1);
    assert_eq!(tier.verify(&sealed).await.unwrap_err().code(), "cold_damaged");
}

async fn a_lock_holds_and_is_told(cluster: &Cluster) {
    let tier = open(locked(cluster)).await;
    for length in [10, 9 * MIB] {
        let bytes = content(7, length);
        let sealed = put(&tier, &format!("law/{length}"), &bytes).await.unwrap();
        let error = tier.delete(&sealed.name).await.unwrap_err();
        let ColdError::Locked { until, .. } = &error else { panic!("{error}") };
        let year: u32 = until[..4].parse().unwrap();
        assert!(year > 2_026, "{until}");
        check(&tier, &sealed, &bytes).await;
    }
}

/// The bucket of locks has versions, in which Ceph 16.2 creates what is there: it is no bucket for seals.
async fn a_bucket_that_creates_what_is_there_is_refused(cluster: &Cluster) {
    let options = locked(cluster);
    let options = ColdOptions { seals: options.objects.clone(), ..options };
    let error = ColdTier::open(options).await.unwrap_err();
    assert_eq!(error.code(), "cold_tier_unsafe");
    assert!(error.to_string().contains("If-None-Match"), "{error}");
}

async fn a_retention_without_object_lock_is_refused(cluster: &Cluster) {
    let retention = locked(cluster).retention;
    let error = ColdTier::open(ColdOptions { retention, ..unlocked(cluster) }).await.unwrap_err();
    assert_eq!(error.code(), "cold_tier_unsafe");
}

async fn wrong_credentials_are_refused_and_not_told(cluster: &Cluster) {
    let mut options = unlocked(cluster);
    options.credentials.secret = "hush-hush".to_owned();
    let error = ColdTier::open(options).await.unwrap_err();
    assert_eq!(error.code(), "cold_refused");
    assert!(!format!("{error} {error:?}").contains("hush"));
    let error = ColdTier::open(cluster.options("no-such-bucket", "no-such-bucket")).await.unwrap_err();
    assert_eq!(error.code(), "cold_not_found");
}

async fn tls_is_verified(cluster: &Cluster) {
    let options = cluster.tls_options("plain-objects", "plain-seals");
    let tier = ColdTier::open(options.clone()).await.unwrap();
    let bytes = content(8, 9 * MIB);
    let sealed = put(&tier, "encrypted", &bytes).await.unwrap();
    check(&tier, &sealed, &bytes).await;
    // Another authority vouches for nothing.
    let other = tempfile::NamedTempFile::new().unwrap();
    let rcgen::CertifiedKey { cert, .. } = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(other.path(), cert.pem()).unwrap();
    let options = ColdOptions { authorities: Some(other.path().to_owned()), retries_max: 0, ..options };
    assert_eq!(ColdTier::open(options).await.unwrap_err().code(), "cold_unavailable");
}

fn hasty(options: ColdOptions) -> ColdOptions {
    ColdOptions {
        request_timeout: Duration::from_secs(3),
        retry_timeout: Duration::from_secs(4),
        retries_max: 1,
        ..options
    }
}

fn a_gateway_that_is_gone_is_told_and_nothing_is_lost(cluster: &mut Cluster, runtime: &tokio::runtime::Runtime) {
    let bytes = content(9, 9 * MIB);
    let tier = runtime.block_on(open(hasty(locked(cluster))));
    let sealed = runtime.block_on(put(&tier, "gone/gateway", &bytes)).unwrap();
    cluster.stop("radosgw");
    let errors = runtime.block_on(async {
        let read = tier.read(&sealed, 0..10).await.unwrap_err();
        let refused = put(&tier, "gone/later", &bytes).await.unwrap_err();
        [read, refused, tier.delete("gone/gateway").await.unwrap_err(), tier.list("gone", None).await.unwrap_err()]
    });
    for error in errors {
        assert_eq!(error.code(), "cold_unavailable", "{error}");
        assert!(error.is_retryable() && error.retry_after().is_some());
    }
    cluster.restart("radosgw");
    runtime.block_on(async {
        check(&tier, &sealed, &bytes).await;
        put(&tier, "gone/later", &bytes).await.unwrap();
    });
}

/// Its gateway answers nothing then: requests end by their own clock.
fn an_osd_that_is_gone_is_told_and_nothing_is_lost(cluster: &mut Cluster, runtime: &tokio::runtime::Runtime) {
    let bytes = content(10, 9 * MIB);
    let tier = runtime.block_on(open(hasty(locked(cluster))));
    let sealed = runtime.block_on(put(&tier, "gone/osd", &bytes)).unwrap();
    cluster.stop("osd");
    let error = runtime.block_on(put(&tier, "gone/meanwhile", &bytes)).unwrap_err();
    assert_eq!(error.code(), "cold_unavailable", "{error}");
    cluster.restart("osd");
    let patient = runtime.block_on(async {
        // What was under way when it went may keep the gateway busy for a while.
        let tier = ColdTier::open(ColdOptions { retries_max: 20, ..locked(cluster) }).await.unwrap();
        check(&tier, &sealed, &bytes).await;
        put(&tier, "gone/meanwhile", &bytes).await.unwrap();
        tier
    });
    assert_eq!(runtime.block_on(patient.list("gone", None)).unwrap().len(), 4);
}
