//! `stele-verify`: the lean offline verifier. It opens no connection and starts no runtime; give it a bundle and the
//! genesis file.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use stele_ctl::verification::{Request, VerificationError, parse_pin, verdict_values};
use stele_types::{NetworkId, StatementId};

const HELP: &str = "\
Verifies a quorum bundle or a bare receipt of a Stele network, offline.

Usage: stele-verify FILE --genesis FILE [OPTIONS]

Arguments:
  FILE                  a quorum bundle (`stele receipt get`) or a bare receipt

Options:
  --genesis FILE        genesis file of the network: trust begins here
  --pin HEIGHT:HASH     trust the validator set with this hash from HEIGHT on instead
  --network ID          network id, when there is a pin and no genesis file
  --statement FILE      the statement, when the bundle does not carry it
  --id ID               statement id that the proof must be about
  --key KEY             public checkpoint key, for a bare receipt: PEM or DER file, or a SEC1 point in hexadecimal
  --json                print JSON
  --help, --version

Exit codes: 0 registered, 1 invalid, 2 usage, 3 vouched by one node only, 4 rejected.
";

fn main() -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let mut stderr = std::io::stderr().lock();
    match run() {
        // A closed output leaves nobody to tell; the exit code still tells.
        Ok(Answer::Text(text)) => {
            let _ = stdout.write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Answer::Verdict(text, code)) => {
            let _ = stdout.write_all(text.as_bytes());
            ExitCode::from(code)
        }
        Err(error) => {
            let _ = writeln!(stderr, "error[{}]: {error}\n  what to do: {}", error.code(), error.advice());
            ExitCode::from(error.exit_code())
        }
    }
}

enum Answer {
    Text(String),
    Verdict(String, u8),
}

fn run() -> Result<Answer, VerificationError> {
    let usage = |what: String| VerificationError::Usage(what);
    let mut request = Request::default();
    let mut json = false;
    let mut proof = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| usage(format!("{argument} needs a value")));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Answer::Text(HELP.to_owned())),
            "--version" | "-V" => return Ok(Answer::Text(format!("stele-verify {}\n", env!("CARGO_PKG_VERSION")))),
            "--json" => json = true,
            "--genesis" => request.genesis = Some(value()?.into()),
            "--statement" => request.statement = Some(value()?.into()),
            "--key" => request.key = Some(value()?),
            "--pin" => request.pin = Some(parse_pin(&value()?).map_err(usage)?),
            "--network" => {
                let id =
                    NetworkId::from_hex(&value()?).ok_or_else(|| usage("--network: 64 hexadecimal digits".into()))?;
                request.network = Some(id);
            }
            "--id" => {
                let id = StatementId::from_hex(&value()?).ok_or_else(|| usage("--id: 64 hexadecimal digits".into()))?;
                request.id = Some(id);
            }
            other if other.starts_with("--") => return Err(usage(format!("unknown option {other}"))),
            file if proof.is_none() => proof = Some(file.into()),
            other => return Err(usage(format!("one proof at a time; {other} is a second one"))),
        }
    }
    request.proof = proof.ok_or_else(|| usage("name the file of a bundle or receipt".into()))?;
    let verdict = request.run()?;
    let values = verdict_values(&verdict);
    let text = if json {
        let pairs: serde_json::Map<String, serde_json::Value> =
            values.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        format!("{}\n", serde_json::Value::Object(pairs))
    } else {
        values.into_iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
    };
    Ok(Answer::Verdict(text, verdict.exit_code()))
}
