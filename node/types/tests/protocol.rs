//! The tables of `docs/protocol.md` that mirror code, compared with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use stele_types::parameters::Timeouts;
use stele_types::vote::{CommitCertificate, EpochCertificate};
use stele_types::{
    Bundle, Code, Command, Family, Genesis, Hash, Header, KeyId, Parameters, Suite, ValidatorId, cbor, limits,
};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

/// Rows of the table whose head begins with `head`, cells trimmed and without back-ticks.
fn table(head: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    let mut lines =
        PROTOCOL.lines().skip_while(|line| !(line.starts_with('|') && cells(line).starts_with(&owned(head))));
    assert!(lines.next().is_some(), "no table {head:?}");
    lines.next();
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn owned(head: &[&str]) -> Vec<String> {
    head.iter().map(|&cell| cell.to_owned()).collect()
}

/// Keys as the tables write them: `1 asset, 2 kind`.
fn keys(keys: &[(u64, &str)]) -> String {
    keys.iter().map(|(key, name)| format!("{key} {name}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn commands() {
    let samples = samples::structures::commands();
    let expected: Vec<Vec<String>> = Command::SCHEMA
        .iter()
        .map(|(number, word, fields)| {
            let sample = samples.iter().find(|command| command.number() == *number).unwrap();
            let dual = if sample.needs_dual_control() { "yes" } else { "no" };
            vec![format!("{number:#06x}"), (*word).to_owned(), keys(fields), dual.to_owned()]
        })
        .collect();
    let found: Vec<Vec<String>> =
        table(&["number", "command", "fields"]).into_iter().map(|row| row[..4].to_vec()).collect();
    assert_eq!(found, expected);
    for row in table(&["number", "command", "fields"]) {
        let command = samples.iter().find(|command| command.as_str() == row[1]).unwrap();
        assert_eq!(row[5] == "zeros", command.subject().0 == [0; 16], "subject of {}", row[1]);
    }
}

#[test]
fn codes() {
    let expected: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            let again = if code.is_retryable() { "yes" } else { "no" };
            (code.number().to_string(), code.as_str().to_owned(), again.to_owned())
        })
        .collect();
    let rows = table(&["number", "code"]);
    assert!(rows.iter().all(|row| !row[2].is_empty()), "every code has a meaning");
    let found: Vec<_> = rows.into_iter().map(|row| (row[0].clone(), row[1].clone(), row[3].clone())).collect();
    assert_eq!(found, expected);
    assert!(Code::ALL.iter().all(|code| code.is_outcome() == (code.number() < 100)));
}

#[test]
fn suites() {
    let expected: Vec<Vec<String>> = Suite::ALL
        .iter()
        .map(|suite| {
            vec![
                suite.number().to_string(),
                suite.as_str().to_owned(),
                suite.cose_algorithm().to_string(),
                suite.public_key_len().to_string(),
                suite.signature_len().to_string(),
                suite.rule_version_max().to_string(),
            ]
        })
        .collect();
    assert_eq!(table(&["number", "suite"]), expected);
}

#[test]
fn enumerations() {
    use stele_types::asset::{AssetKind, CancelReason, Origin, RightClass};
    use stele_types::attestation::Verdict;
    use stele_types::exchange::Progress;
    use stele_types::party::{RevocationReason, Role};
    use stele_types::record::{ContentHash, RecordClass, Sensitivity};
    use stele_types::signer::KeyProvider;
    use stele_types::vote::VoteKind;
    macro_rules! rows {
        ($($name:literal $ty:ty),* $(,)?) => {
            vec![$(vec![
                $name.to_owned(),
                <$ty>::ALL.iter().map(|value| format!("{} {value}", value.number())).collect::<Vec<_>>().join(", "),
            ]),*]
        };
    }
    let expected = rows! {
        "suite" Suite, "role (bit of a role set)" Role, "family" Family, "asset kind" AssetKind,
        "right class" RightClass, "origin" Origin, "cancel reason" CancelReason, "record class" RecordClass,
        "sensitivity" Sensitivity, "content hash" ContentHash, "revocation reason" RevocationReason,
        "verdict" Verdict, "vote kind" VoteKind, "progress" Progress, "key provider" KeyProvider,
    };
    assert_eq!(table(&["name", "numbers"]), expected);
}

#[test]
fn headers_bundles_and_genesis() {
    let pairs = |head: &[&str]| -> Vec<(u64, String)> {
        table(head).into_iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
    };
    let expected = |keys: &[(u64, &str)]| keys.iter().map(|(key, name)| (*key, (*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(pairs(&["key", "field", "value in the header of height h"]), expected(Header::KEYS));
    assert_eq!(pairs(&["key", "field", "content"]), expected(Bundle::KEYS));
    let line = format!("The genesis file is {{{}}}.", keys(Genesis::KEYS));
    assert!(PROTOCOL.contains(&line), "{line}");
}

#[test]
fn domain_tags() {
    let certificate = samples::structures::commit_certificate();
    let epoch = samples::structures::epoch_certificate();
    let (header, set) = (samples::structures::header(), samples::structures::validators());
    let parameters = Parameters::default();
    let expected = [
        ("stele/header/v1", "header", Hash(header.id().0), cbor::to_vec(&header)),
        ("stele/validators/v1", "validator set", set.hash(), cbor::to_vec(&set)),
        ("stele/parameters/v1", "parameters", parameters.hash(), cbor::to_vec(&parameters)),
        (
            "stele/certificate/v1",
            "commit certificate",
            certificate.hash(),
            cbor::to_vec::<CommitCertificate>(&certificate),
        ),
        (
            "stele/epoch-certificate/v1",
            "epoch certificate, signature included",
            epoch.hash(),
            cbor::to_vec::<EpochCertificate>(&epoch),
        ),
    ];
    let rows = table(&["tag", "encoding"]);
    assert_eq!(rows, expected.iter().map(|(tag, of, ..)| owned(&[tag, of])).collect::<Vec<_>>());
    for (tag, _, hash, encoding) in expected {
        assert_eq!(hash, Hash::tagged(tag, &[&encoding]), "{tag}");
    }
    assert_eq!(ValidatorId::of(&[7; 33]).0, Hash::tagged("stele/validator/v1", &[&[7; 33]]).0);
    let algorithm = (-7_i64).to_be_bytes();
    assert_eq!(KeyId::of(Suite::Es256, &[7; 33]).0, Hash::tagged("stele/key/v1", &[&algorithm, &[7; 33]]).0[..16]);
}

#[test]
fn parameters() {
    let rows = table(&["key", "parameter"]);
    let named: Vec<(u64, &str)> = rows.iter().map(|row| (row[0].parse().unwrap(), row[1].as_str())).collect();
    assert_eq!(named, Parameters::KEYS);
    let timeouts = table(&["key", "timeout"]);
    let named: Vec<(u64, &str)> = timeouts.iter().map(|row| (row[0].parse().unwrap(), row[1].as_str())).collect();
    assert_eq!(named, Timeouts::KEYS);

    let row = |name: &str| rows.iter().chain(&timeouts).find(|row| row[1] == name).unwrap();
    let defaults = Parameters::default();
    assert!(defaults.is_sound());
    // For each number: the default, and that the bounds hold and one beyond them does not.
    macro_rules! number {
        ($($($part:ident).+),*) => {$({
            let name = [$(stringify!($part)),+].last().copied().unwrap();
            let cells = row(name);
            let value = |cell: usize| cells[cell].parse().unwrap_or_else(|_| panic!("{name}: {}", cells[cell]));
            assert_eq!(defaults.$($part).+, value(2), "{name}");
            let sound = |number| { let mut changed = defaults.clone(); changed.$($part).+ = number; changed.is_sound() };
            let (least, most) = (value(3), value(4));
            assert!(sound(least) && sound(most) && !sound(most + 1), "{name}");
            assert!(least == 0 || !sound(least - 1), "{name}");
        })*};
    }
    number!(
        block_bytes_max,
        block_statements_max,
        statement_bytes_max,
        replay_past_ms,
        replay_future_ms,
        clock_ahead_ms,
        clock_behind_ms,
        heartbeat_ms,
        proposal_life_ms,
        timeouts.propose_ms,
        timeouts.propose_step_ms,
        timeouts.prevote_ms,
        timeouts.prevote_step_ms,
        timeouts.precommit_ms,
        timeouts.precommit_step_ms
    );
    assert_eq!(row("protocol_version")[2], defaults.protocol_version.to_string());
    assert_eq!(row("state_hash")[2], defaults.state_hash.as_str());
    let suites: Vec<String> = defaults.suites.iter().map(|rule| format!("{} {}", rule.suite, rule.version)).collect();
    assert_eq!(row("suites")[2], suites.join(", "));
}

#[test]
fn limits() {
    macro_rules! rows {
        ($($name:ident),* $(,)?) => { vec![$(vec![stringify!($name).to_owned(), limits::$name.to_string()]),*] };
    }
    let expected = rows!(
        STATEMENT_BYTES_MAX,
        PROTECTED_BYTES_MAX,
        PROTECTED_LABELS_MAX,
        HEADER_DEPTH_MAX,
        COMMAND_BYTES_MAX,
        PUBLIC_PAYLOAD_BYTES_MAX,
        SUBJECT_BYTES_MAX,
        SIGNATURE_BYTES_MAX,
        PUBLIC_KEY_BYTES_MAX,
        BLOCK_BYTES_MAX,
        BLOCK_STATEMENTS_MAX,
        VALIDATORS_MAX,
        FOUNDERS_MAX,
        PARTY_KEYS_MAX,
        PARTY_PINS_MAX,
        LIST_MAX,
        PATH_MAX,
        RECEIPT_PROOFS_MAX,
        CHAIN_LINKS_MAX,
        BUNDLE_BYTES_MAX,
        STATE_BUNDLE_VALUES_MAX,
        STATE_BUNDLE_BYTES_MAX,
        GENESIS_BYTES_MAX,
    );
    assert_eq!(table(&["limit", "value"]), expected);
    let source = include_str!("../src/limits.rs");
    assert_eq!(source.matches("pub const ").count(), expected.len(), "a limit is not published");
}
