//! Rates by batch size, number of keys, bad items and cores.

use std::{error::Error, hint::black_box, slice, time::Duration};

use rand_core::OsRng;
use stele_accel::{
    Bytes, DigestJob, Engine, EngineConfig, HashAlgorithm, MerkleJob, Span, Suite, Ticket, VerifyJob, verify_one,
};

use crate::{
    clock::{processor_time, rate, wall_time},
    items::{Item, run as verify, signed, verify_job},
    report::Report,
};

pub(crate) fn run(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    suites(lasting, report)?;
    small_jobs(lasting, report)?;
    ed25519_batches(lasting, report)?;
    hashes(lasting, report)
}

/// Each suite: a call without engine, one worker, all workers.
fn suites(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    for suite in Suite::ALL {
        let count = if suite == Suite::Sm2 { 512 } else { 4096 };
        let items = signed(suite, count, 100)?;
        let job = verify_job(&items);
        let mut next = items.iter().cycle();
        let single = rate(processor_time, lasting, 1, || {
            let Some(item) = next.next() else { return };
            black_box(verify_one(suite, &item.public_key, &item.signature, &item.message));
        });
        report.push(format!("accel.{}.single", suite.name()), single, "1/s", None);
        for (threads, label) in [(1, "one_core"), (0, "all_cores")] {
            let engine = Engine::new(&EngineConfig { threads, ..EngineConfig::default() })?;
            let clock = if threads == 1 { processor_time } else { wall_time };
            let value = rate(clock, lasting, count, || verify(&engine, &job));
            report.push(format!("accel.{}.{label}", suite.name()), value, "1/s", None);
        }
    }
    Ok(())
}

/// Jobs of one signature, as single requests bring them: one after the other, and many that wait at once.
fn small_jobs(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    for suite in Suite::ALL {
        let items = signed(suite, 256, 100)?;
        let jobs: Vec<_> = items.iter().map(|item| verify_job(slice::from_ref(item))).collect();
        let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() })?;
        let submit = |job: &VerifyJob| engine.submit(job.clone()).map_err(|refused| refused.reason);
        let alone = rate(processor_time, lasting, jobs.len(), || {
            jobs.iter().for_each(|job| drop(submit(job).map(Ticket::wait)));
        });
        let waiting = rate(processor_time, lasting, jobs.len(), || {
            let tickets: Vec<_> = jobs.iter().map(submit).collect();
            tickets.into_iter().for_each(|ticket| drop(ticket.map(Ticket::wait)));
        });
        report.push(format!("accel.{}.jobs_of_1", suite.name()), waiting, "1/s", Some(("one by one", waiting / alone)));
    }
    Ok(())
}

/// Ed25519 by batch size, number of keys and bad items, beside the batch verifier of ed25519-zebra.
fn ed25519_batches(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() })?;
    for keys in [1, 16, 256, 4096] {
        let items = signed(Suite::Ed25519, 4096, keys)?;
        let job = verify_job(&items);
        let ours = rate(processor_time, lasting, items.len(), || verify(&engine, &job));
        let peer = rate(processor_time, lasting, items.len(), || {
            for chunk in items.chunks(512) {
                black_box(zebra(chunk));
            }
        });
        let peer = Some(("ed25519-zebra batches of 512", ours / peer));
        report.push(format!("accel.ed25519.keys_{keys}"), ours, "1/s", peer);
    }
    for size in [1usize, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048] {
        let items = signed(Suite::Ed25519, size, 100)?;
        let job = verify_job(&items);
        let value = rate(processor_time, lasting / 4, size, || verify(&engine, &job));
        report.push(format!("accel.ed25519.job_of_{size}"), value, "1/s", None);
    }
    for batch in [64, 128, 256, 512, 1024, 2048, 4096] {
        let config = EngineConfig { threads: 1, ed25519_batch_max: batch, ..EngineConfig::default() };
        let engine = Engine::new(&config)?;
        let job = verify_job(&signed(Suite::Ed25519, 4096, 100)?);
        let value = rate(processor_time, lasting / 2, job.items.len(), || verify(&engine, &job));
        report.push(format!("accel.ed25519.batch_of_{batch}"), value, "1/s", None);
    }
    for bad in [1usize, 4, 16, 256, 4096] {
        let mut items = signed(Suite::Ed25519, 4096, 100)?;
        for item in items.iter_mut().step_by(4096 / bad) {
            item.signature[33] ^= 1;
        }
        let job = verify_job(&items);
        let value = rate(processor_time, lasting, items.len(), || verify(&engine, &job));
        report.push(format!("accel.ed25519.bad_{bad}_of_4096"), value, "1/s", None);
    }
    Ok(())
}

/// Bulk hashing and tree interiors.
fn hashes(lasting: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() })?;
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
        for length in [64u32, 300, 1024, 4096, 65_536] {
            let count = (8u32 << 20) / length;
            let bytes = Bytes::from(vec![0x5a; usize::try_from(count * length)?]);
            let messages: Vec<Span> = (0..count).map(|index| Span { offset: index * length, length }).collect();
            let job = DigestJob { algorithm, prefix: Bytes::from_static(&[0]), bytes, messages };
            let total = job.bytes.len();
            let ours = rate(processor_time, lasting / 2, total, || {
                black_box(engine.submit(job.clone()).map(Ticket::wait).is_ok());
            });
            let peer = rate(processor_time, lasting / 2, total, || {
                for message in job.bytes.chunks_exact(length as usize) {
                    black_box(stele_accel_hash::digest(algorithm, &[0], message));
                }
            });
            let name = format!("accel.{}.bytes_{length}", algorithm.name());
            report.push(name, ours / 1e6, "MB/s", Some(("one at a time", ours / peer)));
        }
        let leaves = vec![[7u8; 32]; 1 << 17];
        let job = MerkleJob { algorithm, leaves, keep_levels: false };
        let value = rate(processor_time, lasting / 2, job.leaves.len(), || {
            black_box(engine.submit(job.clone()).map(Ticket::wait).is_ok());
        });
        report.push(format!("accel.{}.merkle_nodes", algorithm.name()), value, "1/s", None);
    }
    Ok(())
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
