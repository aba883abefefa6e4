//! The published CDDL says what the code does: rules, keys, numbers and optionality, in both directions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use samples::Structure;
use samples::structures::{
    checkpoint, command_structures, commit_certificate, custody_receipt, epoch_certificate, statements, structures,
};
use stele_types::party::{Role, RoleSet};
use stele_types::vote::Ballot;
use stele_types::{Code, Command, Hash, NetworkId, Statement, Suite, VoteKey, VoteKind, cbor};

const PROTOCOL: &str = include_str!("../protocol.cddl");

/// Rules for maps that are read by hand-written code, without keys of a `record!`.
const HEADERS: [&str; 2] = ["command-header", "receipt-header"];

fn all() -> Vec<Structure> {
    structures().into_iter().chain(command_structures()).collect()
}

/// The rules of the document by name, without comments.
fn rules() -> &'static BTreeMap<&'static str, String> {
    static RULES: OnceLock<BTreeMap<&str, String>> = OnceLock::new();
    RULES.get_or_init(|| {
        let mut rules: BTreeMap<&str, String> = BTreeMap::new();
        let mut name = "";
        for line in PROTOCOL.lines().filter(|line| !line.starts_with(';')) {
            let line = line.split(';').next().unwrap_or_default().trim_end();
            if let Some((rule, _)) = line.split_once(" = ").filter(|(rule, _)| !rule.starts_with(' ')) {
                name = rule;
            }
            let text = rules.entry(name).or_default();
            text.push_str(line);
            text.push('\n');
        }
        rules
    })
}

/// The document that begins with `rule` and holds what it needs: the whole one takes long to parse for every sample.
fn document(rule: &str) -> String {
    let mut needed = BTreeSet::new();
    let mut waiting = vec![rule];
    while let Some(name) = waiting.pop() {
        let (known, text) = rules().get_key_value(name).unwrap_or_else(|| panic!("no rule {name}"));
        if needed.insert(*known) {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            waiting.extend(words.filter(|word| rules().contains_key(word)));
        }
    }
    let texts: String = needed.into_iter().map(|name| rules()[name].as_str()).collect();
    format!("start = {rule}\n{texts}")
}

fn validates(rule: &str, bytes: &[u8]) -> Result<(), String> {
    cddl::validate_cbor_from_slice(&document(rule), bytes, None).map_err(|error| error.to_string())
}

#[test]
fn the_whole_document_is_cddl() {
    cddl::cddl_from_str(PROTOCOL, true).unwrap();
}

/// One pair of a map rule: key, type and the comment that names the field.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    key: u64,
    optional: bool,
    value: String,
    name: String,
}

/// The map rules of the document: every `name = {` with its pairs at the first level.
fn map_rules() -> BTreeMap<String, Vec<Pair>> {
    let mut rules = BTreeMap::new();
    let mut lines = PROTOCOL.lines();
    while let Some(line) = lines.next() {
        let Some(rule) = line.strip_suffix(" = {") else { continue };
        let pairs = lines.by_ref().take_while(|line| *line != "}").filter_map(|line| {
            let line = line.strip_prefix("  ")?;
            if line.starts_with([' ', '}']) {
                return None;
            }
            let (pair, name) = line.split_once(';').unwrap_or((line, ""));
            let (key, value) = pair.trim().trim_end_matches(',').split_once(" => ")?;
            let optional = key.starts_with("? ");
            let key = key.trim_start_matches("? ").parse().unwrap();
            Some(Pair { key, optional, value: value.to_owned(), name: name.trim().to_owned() })
        });
        assert!(rules.insert(rule.to_owned(), pairs.collect()).is_none(), "{rule} is written twice");
    }
    rules
}

/// The encoded map without the pair at `position`, and the key of that pair.
fn without(bytes: &[u8], position: u64) -> (u64, Vec<u8>) {
    let mut decoder = minicbor::Decoder::new(bytes);
    let pairs = decoder.map().unwrap().unwrap();
    let mut shorter = Vec::new();
    minicbor::Encoder::new(&mut shorter).map(pairs - 1).unwrap();
    let mut removed = 0;
    for index in 0..pairs {
        let start = decoder.position();
        let key = decoder.u64().unwrap();
        decoder.skip().unwrap();
        if index == position {
            removed = key;
        } else {
            shorter.extend_from_slice(&bytes[start..decoder.position()]);
        }
    }
    (removed, shorter)
}

#[test]
fn every_sample_is_valid() {
    for structure in all() {
        assert!(!structure.samples.is_empty(), "{} has no sample", structure.rule);
        for bytes in &structure.samples {
            validates(structure.rule, bytes).unwrap_or_else(|error| panic!("{}: {error}", structure.rule));
            assert_eq!((structure.recode)(bytes).as_ref(), Ok(bytes), "{}", structure.rule);
        }
    }
    for structure in command_structures() {
        validates("command", &structure.samples[0]).unwrap();
    }
}

#[test]
fn keys_and_names_are_those_of_the_code() {
    let mut rules = map_rules();
    for header in HEADERS {
        rules.remove(header).unwrap();
    }
    for structure in structures().iter().filter(|structure| !structure.keys.is_empty()) {
        let pairs = rules.remove(structure.rule).unwrap_or_else(|| panic!("no rule {}", structure.rule));
        let published: Vec<_> = pairs.iter().map(|pair| (pair.key, pair.name.as_str())).collect();
        assert_eq!(published, structure.keys, "{}", structure.rule);
    }
    for (number, word, keys) in Command::SCHEMA {
        let pairs = rules.remove(&word.replace('.', "-")).unwrap_or_else(|| panic!("no rule for {word}"));
        let head = &pairs[0];
        assert_eq!((head.key, head.value.as_str(), head.name.as_str()), (0, number.to_string().as_str(), *word));
        let published: Vec<_> = pairs[1..].iter().map(|pair| (pair.key, pair.name.as_str())).collect();
        assert_eq!(published, *keys, "{word}");
    }
    assert_eq!(rules.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "rules for nothing");
}

#[test]
fn the_choice_of_commands_is_complete() {
    let line = PROTOCOL.lines().find_map(|line| line.strip_prefix("command = ")).unwrap();
    let published: Vec<_> = line.split(" / ").map(str::to_owned).collect();
    let words: Vec<_> = Command::SCHEMA.iter().map(|(_, word, _)| word.replace('.', "-")).collect();
    assert_eq!(published, words);
}

#[test]
fn what_is_optional_may_be_missing_and_nothing_else() {
    let rules = map_rules();
    for structure in all() {
        let Some(pairs) = rules.get(structure.rule) else { continue };
        let optional: BTreeSet<u64> = pairs.iter().filter(|pair| pair.optional).map(|pair| pair.key).collect();
        let full = structure.samples.iter().max_by_key(|bytes| bytes.len()).unwrap();
        let count = minicbor::Decoder::new(full).map().unwrap().unwrap();
        for position in 0..count {
            let (key, shorter) = without(full, position);
            let expected = optional.contains(&key);
            let (published, decoded) = (validates(structure.rule, &shorter), (structure.recode)(&shorter));
            assert_eq!(published.is_ok(), expected, "CDDL of {} without {key}: {published:?}", structure.rule);
            assert_eq!(decoded.is_ok(), expected, "decoder of {} without {key}: {decoded:?}", structure.rule);
        }
        let present: BTreeSet<u64> = (0..count).map(|position| without(full, position).0).collect();
        let published: BTreeSet<u64> = pairs.iter().map(|pair| pair.key).collect();
        // A bundle reply carries a bundle or a refusal; the second sample has the other one.
        let spared: BTreeSet<u64> = published.difference(&present).copied().collect();
        assert!(spared.is_empty() || structure.rule == "bundle-reply", "{}: {spared:?} not tried", structure.rule);
    }
}

#[test]
fn values_of_a_wrong_type_or_length_are_refused() {
    for structure in all() {
        if structure.keys.is_empty() {
            continue;
        }
        let bytes = &structure.samples[0];
        let mut decoder = minicbor::Decoder::new(bytes);
        let pairs = decoder.map().unwrap().unwrap();
        for _ in 0..pairs {
            decoder.u64().unwrap();
            let start = decoder.position();
            decoder.skip().unwrap();
            // A negative number is the type of no field.
            let wrong = [&bytes[..start], &[0x20], &bytes[decoder.position()..]].concat();
            assert!(validates(structure.rule, &wrong).is_err(), "{} at {start}", structure.rule);
            assert!((structure.recode)(&wrong).is_err(), "{} at {start}", structure.rule);
        }
    }
}

#[test]
fn enumerations_have_the_numbers_of_the_code() {
    use stele_types::asset::{AssetKind, CancelReason, Origin, RightClass};
    use stele_types::attestation::Verdict;
    use stele_types::exchange::Progress;
    use stele_types::party::RevocationReason;
    use stele_types::record::{ContentHash, RecordClass, Sensitivity};
    use stele_types::signer::KeyProvider;
    macro_rules! numbers {
        ($($rule:literal $ty:ty),* $(,)?) => {
            [$(($rule, <$ty>::ALL.iter().map(|value| value.number().to_string()).collect::<Vec<_>>().join(" / "))),*]
        };
    }
    let expected = numbers! {
        "suite" Suite, "content-hash" ContentHash, "vote-kind" VoteKind, "asset-kind" AssetKind,
        "right-class" RightClass, "origin" Origin, "cancel-reason" CancelReason, "record-class" RecordClass,
        "sensitivity" Sensitivity, "revocation-reason" RevocationReason, "verdict" Verdict, "progress" Progress,
        "key-provider" KeyProvider,
    };
    let rule = |name: &str| PROTOCOL.lines().find_map(|line| line.strip_prefix(&format!("{name} = "))).unwrap();
    for (name, numbers) in expected {
        assert_eq!(rule(name), numbers, "{name}");
    }
    let roles = cbor::to_vec(&RoleSet::of(Role::ALL));
    let largest: u32 = minicbor::decode(&roles).unwrap();
    assert_eq!(rule("role-set"), format!("0..{largest}"));
    let largest = Code::ALL.iter().map(|code| code.number()).max().unwrap();
    assert_eq!(rule("code"), format!("0..{largest}"));
}

#[test]
fn signed_bytes_are_those_published() {
    let statement = Statement::parse(statements().swap_remove(0)).unwrap();
    validates("command-header", statement.protected()).unwrap();
    validates("receipt-header", &checkpoint().protected()).unwrap();
    validates("epoch-signing", &epoch_certificate().signing_bytes()).unwrap();
    validates("custody-receipt-signing", &custody_receipt().signing_bytes()).unwrap();
    let ballot = commit_certificate().ballot(NetworkId([1; 32]));
    let proposal = Ballot { kind: VoteKind::Proposal, valid_round: Some(1), ..ballot };
    let nil = Ballot { kind: VoteKind::Prevote, block: None, ..ballot };
    for ballot in [ballot, proposal, nil] {
        for key in [VoteKey::Direct, VoteKey::Delegated(Hash([2; 32]))] {
            validates("ballot", &ballot.signing_bytes(&key)).unwrap();
        }
    }
}
