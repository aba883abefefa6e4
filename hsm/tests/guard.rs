//! The guard file under crashes, damage and long use.

use std::{fs, os::unix::fs::FileExt, path::Path};

use proptest::prelude::*;
use stele_hsm::{CheckpointGuard, CheckpointRequest, GuardDurability, SignerError, Step, VoteGuard, VoteRequest};
use tempfile::tempdir;

const VALIDATOR: [u8; 32] = [2; 32];
const PAGE: usize = 4096;

/// A stand-in for a key: every call gives another signature, so a stored one is told from a new one.
struct Key(u64);

impl Key {
    fn sign(&mut self) -> [u8; 64] {
        self.0 += 1;
        let mut signature = [0xaa; 64];
        signature[..8].copy_from_slice(&self.0.to_be_bytes());
        signature
    }
}

fn vote(
    guard: &VoteGuard,
    key: &mut Key,
    (height, round, step): (u64, u32, Step),
    value: Option<u8>,
) -> Result<[u8; 64], SignerError> {
    let value_id = value.map(|value| [value; 32]);
    let bytes = [value.unwrap_or_default()];
    let request = VoteRequest { validator: VALIDATOR, height, round, step, value_id, bytes: &bytes };
    guard.sign_once(&request, |_| Ok(key.sign()))
}

fn open(path: &Path) -> VoteGuard {
    VoteGuard::open(path, VALIDATOR, GuardDurability::Process).expect("guard")
}

#[test]
fn a_guard_is_never_made_by_opening_it_nor_made_twice() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    let missing = VoteGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect_err("missing");
    assert_eq!(missing.code(), "guard_io");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    assert_eq!(VoteGuard::create(&path, VALIDATOR).expect_err("exists").code(), "guard_io");
    assert_eq!(open(&path).last(), None);
}

#[test]
fn a_guard_made_anew_signs_nothing_below_its_height() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    assert_eq!(VoteGuard::create_from(&path, VALIDATOR, 0).expect_err("genesis").code(), "guard_height");
    VoteGuard::create_from(&path, VALIDATOR, 100).expect("create");
    assert_eq!(VoteGuard::create_from(&path, VALIDATOR, 200).expect_err("exists").code(), "guard_io");
    let mut key = Key(0);
    for _ in 0..2 {
        let guard = open(&path);
        for position in [(1, 0, Step::Propose), (99, 0, Step::Prevote), (99, u32::MAX, Step::Precommit)] {
            for value in [None, Some(1), Some(0xff)] {
                let refused = vote(&guard, &mut key, position, value).expect_err("below");
                assert!(refused.is_guard_refusal(), "{position:?}: {refused}");
            }
        }
    }
    let signature = vote(&open(&path), &mut key, (100, 0, Step::Propose), Some(1)).expect("its first height");
    assert_eq!(vote(&open(&path), &mut key, (100, 0, Step::Propose), Some(1)).expect("again"), signature);
}

#[test]
fn a_second_process_and_a_foreign_validator_are_refused() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    let guard = open(&path);
    let held = VoteGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect_err("held");
    assert_eq!(held.code(), "guard_held");
    let bytes = [1];
    let request =
        VoteRequest { validator: [3; 32], height: 1, round: 0, step: Step::Prevote, value_id: None, bytes: &bytes };
    let foreign = guard.sign_once(&request, |_| Ok([0; 64])).expect_err("foreign");
    assert_eq!(foreign.code(), "foreign_validator");
    drop(guard);
    let other = VoteGuard::open(&path, [3; 32], GuardDurability::Sync).expect_err("other owner");
    assert_eq!(other.code(), "guard_damaged");
    let kind = CheckpointGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect_err("other kind");
    assert_eq!(kind.code(), "guard_damaged");
}

#[test]
fn a_whole_height_can_be_replayed_after_a_restart() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    let mut key = Key(0);
    let guard = open(&path);
    let positions: Vec<_> = (0..20)
        .flat_map(|round| [Step::Propose, Step::Prevote, Step::Precommit].map(|step| (7, round, step)))
        .collect();
    let signed: Vec<_> = positions.iter().map(|at| vote(&guard, &mut key, *at, Some(1)).expect("vote")).collect();
    drop(guard);
    let guard = open(&path);
    for (at, signature) in positions.iter().zip(&signed) {
        assert_eq!(vote(&guard, &mut key, *at, Some(1)).expect("replay"), *signature);
        assert_eq!(vote(&guard, &mut key, *at, Some(2)).expect_err("other").code(), "double_sign");
        assert_eq!(vote(&guard, &mut key, *at, None).expect_err("nil").code(), "double_sign");
    }
    assert_eq!(guard.figures().repeats, 60);
    assert_eq!(guard.figures().refusals, 120);
}

#[test]
fn a_key_that_fails_leaves_no_record() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    let guard = open(&path);
    let bytes = [1];
    let request =
        VoteRequest { validator: VALIDATOR, height: 1, round: 0, step: Step::Prevote, value_id: None, bytes: &bytes };
    let failed = guard.sign_once(&request, |_| Err(SignerError::SigningFailed)).expect_err("key");
    assert_eq!(failed.code(), "signing_failed");
    assert_eq!(guard.last(), None);
    vote(&guard, &mut Key(0), (1, 0, Step::Prevote), Some(1)).expect("the position is free");
}

/// The write of a record is cut at each byte: the power went while the page was being written. The record's
/// signature was never released, so the guard may know it or not, but it must open, know everything before,
/// and refuse what contradicts that.
fn survives_a_write_cut_anywhere(records_before: u64) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    let mut key = Key(0);
    let guard = open(&path);
    for height in 1..=records_before {
        vote(&guard, &mut key, (height, 0, Step::Prevote), Some(1)).expect("vote");
    }
    let before = fs::read(&path).expect("file");
    let next = (records_before + 1, 0, Step::Prevote);
    let signature = vote(&guard, &mut key, next, Some(1)).expect("vote");
    drop(guard);
    let after = fs::read(&path).expect("file");
    let page = before.chunks(PAGE).zip(after.chunks(PAGE)).position(|(old, new)| old != new).expect("one page changed");
    let used = 8 + 240 + 4;
    let mut known = 0;
    for cut in (0..=used).chain([511, 512, 513, PAGE - 1, PAGE]) {
        // Only this page is ever written below, so only this page is put back.
        let start = page * PAGE;
        let torn = [&after[start..start + cut], &before[start + cut..start + PAGE]].concat();
        let file = fs::OpenOptions::new().write(true).open(&path).expect("file");
        file.write_all_at(&torn, start as u64).expect("write");
        drop(file);
        let guard = open(&path);
        let last = guard.last().map_or(0, |last| last.height);
        assert!(last == records_before || last == records_before + 1, "cut {cut}: last {last}");
        if last == records_before + 1 {
            known += 1;
            assert_eq!(vote(&guard, &mut key, next, Some(1)).expect("stored"), signature);
            assert_eq!(vote(&guard, &mut key, next, Some(2)).expect_err("other").code(), "double_sign");
        } else {
            if records_before > 0 {
                let last = (records_before, 0, Step::Prevote);
                let refused = vote(&guard, &mut key, last, Some(2)).expect_err("other");
                assert_eq!(refused.code(), "double_sign", "cut {cut}");
            }
            vote(&guard, &mut key, next, Some(2)).expect("never released, so free");
            drop(guard);
            assert_eq!(open(&path).last().map(|last| last.height), Some(records_before + 1));
        }
    }
    assert!(known >= 4, "whole pages are known");
}

#[test]
fn the_first_record_survives_a_cut() {
    survives_a_write_cut_anywhere(0);
}

#[test]
fn a_record_in_an_unused_page_survives_a_cut() {
    survives_a_write_cut_anywhere(3);
}

#[test]
fn a_record_over_an_old_one_survives_a_cut() {
    survives_a_write_cut_anywhere(255);
    survives_a_write_cut_anywhere(300);
}

#[test]
fn damage_to_any_other_record_keeps_the_guard_shut() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    let mut key = Key(0);
    let guard = open(&path);
    for height in 1..=10 {
        vote(&guard, &mut key, (height, 0, Step::Prevote), Some(1)).expect("vote");
    }
    drop(guard);
    let sound = fs::read(&path).expect("file");
    let refused = |content: &[u8]| {
        fs::write(&path, content).expect("write");
        let error = VoteGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect_err("damaged");
        assert_eq!(error.code(), "guard_damaged");
    };
    for page in 1..=9 {
        for byte in [0, 7, 8, 100, 247, 248, 251] {
            let mut damaged = sound.clone();
            damaged[page * PAGE + byte] ^= 1;
            refused(&damaged);
        }
        let mut lost = sound.clone();
        lost[page * PAGE..(page + 1) * PAGE].fill(0);
        refused(&lost);
    }
    let mut stray = sound.clone();
    stray[20 * PAGE] = 1;
    refused(&stray);
    refused(&sound[..sound.len() - 1]);
    refused(&[]);
    let mut head = sound.clone();
    head[3] ^= 1;
    refused(&head);
    fs::write(&path, &sound).expect("write");
    assert_eq!(open(&path).last().map(|last| last.height), Some(10));
}

#[test]
fn whoever_abstains_at_a_height_signs_nothing_there_any_more() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("votes.guard");
    VoteGuard::create(&path, VALIDATOR).expect("create");
    let mut key = Key(0);
    let guard = open(&path);
    let first = vote(&guard, &mut key, (10, 0, Step::Prevote), Some(1)).expect("vote");
    guard.abstain(10).expect("abstain");
    assert_eq!(vote(&guard, &mut key, (10, 1, Step::Prevote), None).expect_err("the same height").code(), "regression");
    drop(guard);
    let guard = open(&path);
    let last = (10, u32::MAX, Step::Precommit);
    for value in [None, Some(0xff)] {
        assert!(vote(&guard, &mut key, last, value).expect_err("after a restart").is_guard_refusal());
    }
    assert_eq!(vote(&guard, &mut key, (10, 0, Step::Prevote), Some(1)).expect("what was signed"), first);
    vote(&guard, &mut key, (11, 0, Step::Prevote), Some(1)).expect("the next height");
    guard.abstain(10).expect("what is past already");
    vote(&guard, &mut key, (11, 1, Step::Prevote), Some(1)).expect("it forbids nothing more");
}

#[test]
fn checkpoints_stay_ordered_over_many_turns_of_the_ring() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("checkpoints.guard");
    CheckpointGuard::create(&path, VALIDATOR).expect("create");
    let open = || CheckpointGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect("guard");
    let sign = |guard: &CheckpointGuard, tree_size: u64, root: [u8; 32]| {
        guard.sign_once(&CheckpointRequest { tree_size, root, sig_structure: &root }, |_| Ok([1; 64]))
    };
    let guard = open();
    for size in 1..=30 {
        sign(&guard, size * 10, [1; 32]).expect("checkpoint");
        assert_eq!(sign(&guard, size * 10 - 1, [1; 32]).expect_err("less").code(), "checkpoint_regression");
        assert_eq!(sign(&guard, size * 10, [2; 32]).expect_err("fork").code(), "checkpoint_fork");
    }
    drop(guard);
    assert_eq!(open().last_tree_size(), Some(300));
    assert_eq!(fs::metadata(&path).expect("file").len(), 8 * PAGE as u64);
}

#[test]
fn a_guard_of_checkpoints_that_was_lost_begins_above_what_may_have_been_signed() {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("checkpoints.guard");
    assert_eq!(CheckpointGuard::create_from(&path, VALIDATOR, 0).expect_err("empty").code(), "guard_size");
    CheckpointGuard::create_from(&path, VALIDATOR, 100).expect("create");
    assert_eq!(CheckpointGuard::create_from(&path, VALIDATOR, 200).expect_err("exists").code(), "guard_io");
    let guard = CheckpointGuard::open(&path, VALIDATOR, GuardDurability::Sync).expect("guard");
    let sign = |tree_size: u64, root: [u8; 32]| {
        guard.sign_once(&CheckpointRequest { tree_size, root, sig_structure: &root }, |_| Ok([1; 64]))
    };
    assert_eq!(sign(98, [1; 32]).expect_err("below").code(), "checkpoint_regression");
    assert_eq!(sign(99, [1; 32]).expect_err("at the floor").code(), "checkpoint_fork");
    sign(100, [1; 32]).expect("checkpoint");
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Vote { height: u64, round: u32, step: Step, value: Option<u8> },
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let step = prop_oneof![Just(Step::Propose), Just(Step::Prevote), Just(Step::Precommit)];
    prop_oneof![
        9 => (1..6u64, 0..3u32, step, proptest::option::of(0..2u8))
            .prop_map(|(height, round, step, value)| Action::Vote { height, round, step, value }),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The naive model: everything ever signed, and nothing below the highest that is not there.
    #[test]
    fn no_history_signs_two_values_at_one_position(actions in prop::collection::vec(action(), 1..120)) {
        let directory = tempdir().expect("directory");
        let path = directory.path().join("votes.guard");
        VoteGuard::create(&path, VALIDATOR).expect("create");
        let mut guard = open(&path);
        let mut key = Key(0);
        let mut model = std::collections::BTreeMap::new();
        for action in actions {
            let Action::Vote { height, round, step, value } = action else {
                drop(guard);
                guard = open(&path);
                continue;
            };
            let at = (height, round, step);
            let result = vote(&guard, &mut key, at, value);
            let above = model.last_key_value().is_none_or(|(last, _)| *last < at);
            match model.get(&at) {
                Some((known, signature)) if *known == value => {
                    prop_assert_eq!(&result.expect("stored"), signature);
                }
                Some(_) => prop_assert_eq!(result.expect_err("other value").code(), "double_sign"),
                None if above => {
                    model.insert(at, (value, result.expect("new")));
                }
                None => prop_assert_eq!(result.expect_err("below").code(), "regression"),
            }
        }
    }
}
