//! `stele-verify`: the lean offline verifier. It opens no connection and starts no runtime; give it a bundle and the
//! genesis file.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;
use stele_ctl::attestation::{parse_fingerprint, parse_name};
use stele_ctl::verification::{
    Request, VerificationError, Verified, custody_values, parse_pin, refusal_values, state_values,
};
use stele_types::{Hash, NetworkId, StatementId};
use stele_verify::StateVerdict;
use stele_verify::custody::InCustody;
use stele_verify::verdict::EXIT_VOUCHED_BY_ONE_NODE;

const HELP: &str = "\
Verifies a quorum bundle, a bare receipt, values of the state or a custody receipt of a Stele network, offline.

Usage: stele-verify FILE --genesis FILE [OPTIONS]

Arguments:
  FILE                  a quorum bundle (`stele receipt get`), a bare receipt, a state bundle (`stele state prove`), or a
                        custody receipt (the bytes of `receipt` in `GET /v1/blobs/{root}/custody`)

Options:
  --genesis FILE        genesis file of the network: trust begins here
  --pin HEIGHT:HASH     trust the validator set with this hash from HEIGHT on instead
  --network ID          network id, when there is a pin and no genesis file
  --statement FILE      the statement, when the bundle does not carry it
  --id ID               statement id that the proof must be about
  --key KEY             public checkpoint key, for a bare receipt or a custody receipt: PEM or DER file, or a SEC1 point in hexadecimal
  --state-key KEY       key that a state bundle must be about; may be given again
  --json                print JSON, refusals too
  --help, --version

Where was the key that signed the checkpoint (`stele receipt get --with-signer`)?
  --enrolment FILE      the node as `stele attest enrol` wrote it
  --attestation-key-name HEX
                        name of its attestation key, if it came another way
  --anchor FILE         authority that must have certified the TPM's endorsement key, PEM or DER; may be given again
  --intermediate FILE   certificate below the authority's; may be given again
  --fingerprint HEX     fingerprint that the endorsement key must have; may be given again
  --policy FILE         what the machine must have been, for a key in a token

Exit codes: 0 registered or present, 1 invalid, 2 usage, 3 vouched by one node only, 4 rejected, 5 a value is absent,
6 registered, but it was asked where the key was, and that is not shown.
";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let mut stdout = std::io::stdout().lock();
    // A closed output leaves nobody to tell; the exit code still tells.
    match run(arguments) {
        Ok(Answer::Text(text)) => {
            let _ = stdout.write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Answer::Verified(verified)) => {
            let values = verified.values();
            let _ = stdout.write_all(if json { as_json(values) } else { as_lines(values) }.as_bytes());
            ExitCode::from(verified.exit_code())
        }
        Ok(Answer::Custody(verdict)) => {
            let values = custody_values(&verdict);
            let _ = stdout.write_all(if json { as_json(values) } else { as_lines(values) }.as_bytes());
            ExitCode::from(EXIT_VOUCHED_BY_ONE_NODE)
        }
        Ok(Answer::State(verdict)) => {
            let values = state_values(&verdict);
            let _ = stdout.write_all(if json { as_json(values) } else { as_lines(values) }.as_bytes());
            ExitCode::from(verdict.exit_code())
        }
        Err(error) => {
            if json {
                let _ = stdout.write_all(as_json(refusal_values(&error)).as_bytes());
            } else {
                let (code, advice) = (error.code(), error.advice());
                let _ = writeln!(std::io::stderr().lock(), "error[{code}]: {error}\n  what to do: {advice}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

type Values = Vec<(&'static str, Value)>;

fn as_json(values: Values) -> String {
    let pairs: serde_json::Map<String, Value> =
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    format!("{}\n", Value::Object(pairs))
}

fn as_lines(values: Values) -> String {
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    values.into_iter().map(|(name, value)| format!("{name:<16}{}\n", text(value))).collect()
}

enum Answer {
    Text(String),
    Verified(Box<Verified>),
    State(StateVerdict),
    Custody(InCustody),
}

fn run(arguments: Vec<OsString>) -> Result<Answer, VerificationError> {
    let usage = |what: String| VerificationError::Usage(what);
    let mut request = Request::default();
    let (mut proof, mut state_keys) = (None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let option = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| usage(format!("{option} needs a value")));
        match option.as_str() {
            "--help" | "-h" => return Ok(Answer::Text(HELP.to_owned())),
            "--version" | "-V" => return Ok(Answer::Text(format!("stele-verify {}\n", env!("CARGO_PKG_VERSION")))),
            "--json" => {}
            "--genesis" => request.genesis = Some(value()?.into()),
            "--statement" => request.statement = Some(value()?.into()),
            "--key" => request.key = Some(text(value()?)),
            "--pin" => {
                request.pin = Some(parse_pin(&text(value()?)).map_err(|error| usage(format!("--pin: {error}")))?);
            }
            "--network" => request.network = Some(id("--network", &text(value()?), NetworkId::from_hex)?),
            "--id" => request.id = Some(id("--id", &text(value()?), StatementId::from_hex)?),
            "--enrolment" => request.signer.enrolment = Some(value()?.into()),
            "--attestation-key-name" => {
                let name = parse_name(&text(value()?)).map_err(|error| usage(format!("{option}: {error}")))?;
                request.signer.attestation_key_name = Some(name);
            }
            "--anchor" => request.signer.anchor.push(value()?.into()),
            "--intermediate" => request.signer.intermediate.push(value()?.into()),
            "--fingerprint" => {
                let pin = parse_fingerprint(&text(value()?)).map_err(|error| usage(format!("{option}: {error}")))?;
                request.signer.fingerprint.push(pin);
            }
            "--policy" => request.signer.policy = Some(value()?.into()),
            "--state-key" => state_keys.push(id("--state-key", &text(value()?), Hash::from_hex)?),
            other if other.starts_with("--") => return Err(usage(format!("unknown option {other}"))),
            _ if proof.is_none() => proof = Some(argument.into()),
            other => return Err(usage(format!("one proof at a time; {other} is a second one"))),
        }
    }
    request.proof = proof.ok_or_else(|| usage("name the file of a bundle or receipt".into()))?;
    let (about_state, about_custody) = (request.is_about_state(), request.is_about_custody());
    if request.signer.is_asked() && (about_state || about_custody) {
        return Err(usage("where a key was is asked of bundles, and this is none".into()));
    }
    if about_state {
        return request.run_state(&state_keys).map(Answer::State);
    }
    if !state_keys.is_empty() {
        return Err(usage("--state-key is for state bundles, and this is none".into()));
    }
    if about_custody {
        return request.run_custody().map(Answer::Custody);
    }
    request.run().map(Box::new).map(Answer::Verified)
}

fn text(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}

fn id<T>(option: &str, text: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, VerificationError> {
    read(text).ok_or_else(|| VerificationError::Usage(format!("{option}: expected 64 hexadecimal digits, lower case")))
}
