//! The figures that have a floor, each with its peer.

use std::{error::Error, hint::black_box, time::Duration};

use aws_lc_rs::{
    digest as aws_digest,
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey},
};
use sha2::Digest as _;
use stele_accel::{Engine, EngineConfig, HashAlgorithm, Suite, VerifyJob};

use crate::{
    clock::{Work, compare},
    items::{IDENTITY, Item, run as verify, signed, verify_job},
    report::Report,
};

/// Items of a job; unknown keys are as many, so that none is seen twice before all others.
const ITEMS: usize = 1024;

/// Keys of a network whose keys are enrolled.
const ENROLLED_KEYS: usize = 100;

/// Bytes of all messages of a hashing job.
const HASHED_BYTES: usize = 1 << 20;

pub(crate) fn run(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    hashes(lasting, report);
    sm2_unknown(lasting, report)?;
    enrolled(Suite::Sm2, "sm2.enrolled", lasting, report)?;
    enrolled(Suite::P256, "p256.enrolled", lasting, report)?;
    p256_against_aws_lc(lasting, report)?;
    ed25519_batch(lasting, report)
}

/// Batches of equal messages against one message at a time. SHA-256 meets the faster of two peers.
fn hashes(lasting: Duration, report: &mut Report) {
    for (length, label) in [(1024, "1k"), (4096, "4k")] {
        let bytes = vec![0x5a; HASHED_BYTES];
        let messages: Vec<&[u8]> = bytes.chunks_exact(length).collect();
        let batch = |algorithm| black_box(stele_accel_hash::digest_batch(algorithm, &[], &messages));
        let mut sha2 = || {
            for message in &messages {
                black_box(sha2::Sha256::digest(message));
            }
        };
        let mut aws_lc = || {
            for message in &messages {
                black_box(aws_digest::digest(&aws_digest::SHA256, message));
            }
        };
        let mut sm3 = || {
            for message in &messages {
                black_box(sm3::Sm3::digest(message));
            }
        };
        let name = format!("sha256.{label}");
        if report.wants(&name) {
            let mut ours = || drop(batch(HashAlgorithm::Sha256));
            let mut against = |call: &mut dyn FnMut()| {
                compare(lasting, Work { items: HASHED_BYTES, call: &mut ours }, Work { items: HASHED_BYTES, call })
            };
            let both = [("sha2", against(&mut sha2)), ("aws-lc-rs", against(&mut aws_lc))];
            if let Some((peer, figures)) = both.into_iter().min_by(|(_, a), (_, b)| a.ratio.total_cmp(&b.ratio)) {
                report.compared(&name, "B/s", peer, 1.9, &figures);
            }
        }
        let name = format!("sm3.{label}");
        if report.wants(&name) {
            let mut ours = || drop(batch(HashAlgorithm::Sm3));
            let ours = Work { items: HASHED_BYTES, call: &mut ours };
            let figures = compare(lasting, ours, Work { items: HASHED_BYTES, call: &mut sm3 });
            report.compared(&name, "B/s", "sm3", 7.0, &figures);
        }
    }
}

/// Keys that were never seen, decoding included on both sides.
fn sm2_unknown(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "sm2.unknown";
    if !report.wants(NAME) {
        return Ok(());
    }
    let items = signed(Suite::Sm2, ITEMS, ITEMS)?;
    let (engine, job) = (unknown_engine()?, verify_job(&items));
    let mut ours = || verify(&engine, &job);
    let mut next = items.iter().cycle();
    let mut peer = || assert!(next.next().is_some_and(sm2_crate_accepts));
    let ours = Work { items: ITEMS, call: &mut ours };
    let figures = compare(lasting, ours, Work { items: 1, call: &mut peer });
    report.compared(NAME, "1/s", "sm2", 5.0, &figures);
    Ok(())
}

/// Enrolled keys against keys that were never seen, both ours.
fn enrolled(suite: Suite, name: &str, lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    if !report.wants(name) {
        return Ok(());
    }
    let (engine, job) = enrolled_engine(suite)?;
    let (unknown_engine, unknown_job) = (unknown_engine()?, verify_job(&signed(suite, ITEMS, ITEMS)?));
    let mut ours = || verify(&engine, &job);
    let mut unknown = || verify(&unknown_engine, &unknown_job);
    let ours = Work { items: ITEMS, call: &mut ours };
    let figures = compare(lasting, ours, Work { items: ITEMS, call: &mut unknown });
    report.compared(name, "1/s", "ours, unknown key", 2.0, &figures);
    Ok(())
}

/// Enrolled keys against aws-lc with keys that are parsed already.
fn p256_against_aws_lc(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let items = signed(Suite::P256, ITEMS, ENROLLED_KEYS)?;
    let parse = |item: &Item| ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &item.public_key);
    let keys = items.iter().map(parse).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let both: Vec<(&Item, ParsedPublicKey)> = items.iter().zip(keys).collect();
    let mut next = both.iter().cycle();
    let mut peer = || {
        let valid = next.next().is_some_and(|(item, key)| key.verify_sig(&item.message, &item.signature).is_ok());
        assert!(valid);
    };
    let (engine, job) = enrolled_engine(Suite::P256)?;
    let mut ours = || verify(&engine, &job);
    if report.wants("p256.enrolled_vs_awslc") {
        let ours = Work { items: ITEMS, call: &mut ours };
        let figures = compare(lasting, ours, Work { items: 1, call: &mut peer });
        report.compared("p256.enrolled_vs_awslc", "1/s", "aws-lc-rs", 1.5, &figures);
    }
    if report.wants("p256.unknown_vs_awslc") {
        // Decoding included on our side only: this decides which of the two serves keys that are new.
        let (engine, job) = (unknown_engine()?, verify_job(&signed(Suite::P256, ITEMS, ITEMS)?));
        let mut ours = || verify(&engine, &job);
        let ours = Work { items: ITEMS, call: &mut ours };
        let figures = compare(lasting, ours, Work { items: 1, call: &mut peer });
        report.compared("p256.unknown_vs_awslc", "1/s", "aws-lc-rs", 1.0, &figures);
    }
    Ok(())
}

/// A batch under enrolled keys, and one under keys that were never seen, against one signature at a time with a key that
/// is decoded already.
fn ed25519_batch(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let items = signed(Suite::Ed25519, ITEMS, ENROLLED_KEYS)?;
    let parse = |item: &Item| -> Result<_, Box<dyn Error>> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(item.public_key.as_slice().try_into()?);
        let signature = ed25519_dalek::Signature::from_slice(&item.signature);
        Ok((key.map_err(|error| error.to_string())?, signature.map_err(|error| error.to_string())?))
    };
    let parsed = items.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let both: Vec<_> = items.iter().zip(parsed).collect();
    let mut next = both.iter().cycle();
    let mut peer = || {
        let verify = |(item, (key, signature)): &(&Item, (ed25519_dalek::VerifyingKey, _))| {
            ed25519_dalek::Verifier::verify(key, &item.message, signature).is_ok()
        };
        assert!(next.next().is_some_and(verify));
    };
    let unknown = verify_job(&signed(Suite::Ed25519, ITEMS, ITEMS)?);
    let unknown = (engine_with(0, 1 << 14, ITEMS)?, unknown);
    let equation = (engine_with(0, 1 << 14, ITEMS)?, verify_job(&items));
    for (name, floor, (engine, job)) in [
        ("ed25519.batch1024", 2.8, enrolled_engine(Suite::Ed25519)?),
        ("ed25519.equation1024", 1.0, equation),
        ("ed25519.unknown1024", 1.0, unknown),
    ] {
        if report.wants(name) {
            let mut ours = || verify(&engine, &job);
            let ours = Work { items: ITEMS, call: &mut ours };
            let figures = compare(lasting, ours, Work { items: 1, call: &mut peer });
            report.compared(name, "1/s", "ed25519-dalek", floor, &figures);
        }
    }
    Ok(())
}

fn sm2_crate_accepts(item: &Item) -> bool {
    let key = sm2::dsa::VerifyingKey::from_sec1_bytes(IDENTITY, &item.public_key);
    let signature = sm2::dsa::Signature::from_slice(&item.signature);
    let (Ok(key), Ok(signature)) = (key, signature) else { return false };
    sm2::dsa::signature::Verifier::verify(&key, &item.message, &signature).is_ok()
}

/// An engine that remembers next to nothing, so that every key is new to it.
fn unknown_engine() -> Result<Engine, Box<dyn Error>> {
    engine_with(0, 0, 512)
}

/// An engine whose tables are made.
fn enrolled_engine(suite: Suite) -> Result<(Engine, VerifyJob), Box<dyn Error>> {
    let engine = engine_with(128 << 20, 1 << 14, ITEMS)?;
    let job = verify_job(&signed(suite, ITEMS, ENROLLED_KEYS)?);
    while engine.figures().key_caches[suite.index()].tables < ENROLLED_KEYS as u64 {
        verify(&engine, &job);
    }
    Ok((engine, job))
}

fn engine_with(table_bytes: usize, keys: usize, batch: usize) -> Result<Engine, Box<dyn Error>> {
    Ok(Engine::new(&EngineConfig {
        threads: 1,
        key_table_bytes_max: table_bytes,
        key_cache_entries: keys,
        ed25519_batch_max: batch,
        ..EngineConfig::default()
    })?)
}
