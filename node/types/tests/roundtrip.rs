//! What is decoded encodes to the same bytes, whatever the bytes; and what is encoded decodes to the same value.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use proptest::collection::vec;
use proptest::prelude::*;
use samples::Structure;
use samples::structures::{command_structures, structures};
use stele_types::cbor::{self, Field, List};
use stele_types::statement::Unsigned;
use stele_types::{
    Checkpoint, Code, Cti, Fen, Hash, Height, InclusionProof, KeyId, LogIndex, NetworkId, Outcome, PartyId, Receipt,
    Statement, StatementId, Suite,
};

fn all() -> Vec<Structure> {
    structures().into_iter().chain(command_structures()).collect()
}

/// The promise of every decoder: refuse, or give back exactly what was read.
fn refuses_or_repeats(structure: &Structure, bytes: &[u8]) {
    if let Ok(again) = (structure.recode)(bytes) {
        assert_eq!(again, bytes, "{} read bytes that it does not write", structure.rule);
    }
}

/// One change of an encoding.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &prop::sample::Index, bytes: &Vec<u8>| index.index(bytes.len().max(1)).min(bytes.len());
        match self {
            Self::Flip(index, mask) => {
                let at = at(index, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Self::Insert(index, inserted) => {
                let at = at(index, bytes);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Remove(index, count) => {
                let at = at(index, bytes);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Repeat(index, count) => {
                let at = at(index, bytes);
                let repeated = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, repeated);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 1..=u8::MAX).prop_map(|(index, mask)| Change::Flip(index, mask)),
        (index(), vec(any::<u8>(), 1..6)).prop_map(|(index, bytes)| Change::Insert(index, bytes)),
        (index(), 1..40_usize).prop_map(|(index, count)| Change::Remove(index, count)),
        (index(), 1..40_usize).prop_map(|(index, count)| Change::Repeat(index, count)),
    ]
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn identity<T: Field + PartialEq + std::fmt::Debug>(value: &T) {
    assert_eq!(cbor::from_slice::<T>(&cbor::to_vec(value)).as_ref(), Ok(value));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_pass_as_something_else(bytes in vec(any::<u8>(), 0..300)) {
        for structure in all() {
            refuses_or_repeats(&structure, &bytes);
        }
    }

    #[test]
    fn changed_encodings_are_refused_or_their_own(changes in vec(change(), 1..4)) {
        for structure in all() {
            for sample in &structure.samples {
                let mut bytes = sample.clone();
                changes.iter().for_each(|change| change.apply(&mut bytes));
                refuses_or_repeats(&structure, &bytes);
            }
        }
    }
}

proptest! {
    #[test]
    fn outcomes_are_identical_after_a_round(
        statement in any::<[u8; 32]>(),
        code in prop::sample::select(Code::ALL),
        index in prop::option::of(any::<u64>()),
    ) {
        identity(&Outcome { statement: StatementId(statement), code, index: index.map(LogIndex) });
        identity(&Fen(index.unwrap_or(u64::MAX)));
    }

    #[test]
    fn receipts_are_identical_after_a_round(
        key in any::<[u8; 16]>(),
        network in any::<[u8; 32]>(),
        numbers in any::<[u64; 4]>(),
        state_root in hash(),
        path in vec(hash(), 0..=63),
        suite in prop::sample::select(vec![Suite::Es256, Suite::Sm2Sm3]),
    ) {
        let [height, log_size, index, time_ms] = numbers;
        let (key, network) = (KeyId(key), NetworkId(network));
        let checkpoint = Checkpoint { suite, key, network, height: Height(height), log_size, state_root, time_ms };
        let proof = InclusionProof { tree_size: log_size, index: LogIndex(index), path: List::new(path).unwrap() };
        prop_assert_eq!(&Checkpoint::from_protected(&checkpoint.protected()).unwrap(), &checkpoint);
        identity(&Receipt { checkpoint, proof, signature: [7; 64] });
    }

    #[test]
    fn statements_are_what_was_signed(
        key in any::<[u8; 16]>(),
        issuer in any::<[u8; 16]>(),
        network in any::<[u8; 32]>(),
        issued_at in any::<u64>(),
        cti in any::<[u8; 16]>(),
        signature in vec(any::<u8>(), 64),
        choice in any::<prop::sample::Index>(),
        payload in vec(any::<u8>(), 0..4096),
        subject in "[a-z0-9/:.-]{1,256}",
    ) {
        let commands = samples::structures::commands();
        let command = &commands[choice.index(commands.len())];
        let (key, issuer) = (KeyId(key), PartyId(issuer));
        let unsigned = [
            Unsigned::command(Suite::EdDsa, key, issuer, NetworkId(network), issued_at, Cti(cti), command),
            Unsigned::public(Suite::Es256, key, issuer, &subject, "application/json", &payload).unwrap(),
            Unsigned::hash_envelope(Suite::Sm2Sm3, key, issuer, &subject, "text/csv", Hash::of(&payload)).unwrap(),
        ];
        for (unsigned, is_command) in unsigned.into_iter().zip([true, false, false]) {
            let (id, signed) = (unsigned.id(), unsigned.signing_bytes());
            let statement = Statement::parse(unsigned.into_entry(&signature)).unwrap();
            prop_assert_eq!((statement.id(), statement.signing_bytes()), (id, signed));
            prop_assert_eq!((statement.key(), statement.issuer()), (key, issuer));
            prop_assert_eq!(statement.signature(), &signature[..]);
            prop_assert_eq!(statement.command(), is_command.then_some(command));
        }
    }
}
