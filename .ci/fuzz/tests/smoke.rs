//! A short run of every fuzz target over mutated samples; see the crate's documentation for long ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stele_fuzz::mutation::{Generator, mutate};
use stele_fuzz::{TARGETS, Target};

/// Rounds per target: seconds in all.
const ROUNDS: usize = 20_000;
/// Rounds of targets that verify signatures, which takes a thousand times as long as decoding.
const ROUNDS_WITH_SIGNATURES: usize = 1_000;
/// Rounds of targets that read files, which are written for it.
const ROUNDS_WITH_FILES: usize = 500;
const SEED: u64 = 0x5354_454c_4531;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn smoke(target: &Target, rounds: usize) {
    let corpus = (target.corpus)();
    assert!(!corpus.is_empty(), "{} has no corpus", target.name);
    corpus.iter().for_each(|input| (target.body)(input));
    let rounds = number("STELE_FUZZ_ROUNDS").map_or(rounds, |rounds| usize::try_from(rounds).unwrap());
    let mut generator = Generator::new(number("STELE_FUZZ_SEED").unwrap_or(SEED));
    for round in 0..rounds {
        let mut input = corpus[generator.below(corpus.len())].clone();
        let other = &corpus[generator.below(corpus.len())];
        mutate(&mut generator, &mut input, other);
        let outcome = std::panic::catch_unwind(|| (target.body)(&input));
        assert!(outcome.is_ok(), "{} in round {round} with input {input:02x?}", target.name);
    }
}

#[test]
fn decoders_keep_their_promises() {
    let others = |target: &&Target| ["_verify", "_file"].iter().all(|kind| !target.name.ends_with(kind));
    TARGETS.iter().filter(others).for_each(|target| smoke(target, ROUNDS));
}

#[test]
fn readers_of_files_keep_their_promises() {
    let targets = TARGETS.iter().filter(|target| target.name.ends_with("_file"));
    targets.for_each(|target| smoke(target, ROUNDS_WITH_FILES));
}

#[test]
fn verifiers_keep_their_promises() {
    let targets = TARGETS.iter().filter(|target| target.name.ends_with("_verify"));
    targets.for_each(|target| smoke(target, ROUNDS_WITH_SIGNATURES));
}

/// A run that finds nothing may also be a run that mutates nothing.
#[test]
fn mutations_reach_both_sides_of_a_decoder() {
    let target = TARGETS.iter().find(|target| target.name == "statement").unwrap();
    let corpus = (target.corpus)();
    let mut generator = Generator::new(SEED);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let mut input = corpus[generator.below(corpus.len())].clone();
        mutate(&mut generator, &mut input, &corpus[0]);
        match stele_types::Statement::parse(input) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > ROUNDS / 50 && refused > ROUNDS / 2, "{accepted} accepted, {refused} refused");
}
