//! `stele submit`: register files, or statements that were signed elsewhere.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use stele_types::cbor::Decoder;
use stele_types::{Code, Statement};
use stele_verify::verdict::{EXIT_REGISTERED, EXIT_REJECTED};

use crate::author::{Author, Signed};
use crate::failure::Failure;
use crate::output::Record;
use crate::progress::Progress;
use crate::rejection::explain;
use crate::session::Session;
use crate::submission::{Outcome, Submission};

/// Bytes of one input: a sequence of some hundred thousand statements.
const INPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Exit code when admission refused a statement.
const EXIT_REFUSED: u8 = 1;

/// Register files, or statements that were signed elsewhere.
///
/// A file is registered by its SHA-256 in a COSE hash envelope: the file itself stays here. With --public the content
/// (at most 4 KiB) becomes part of the log for everyone to read. With --signed each input is a CBOR sequence of
/// statements that are submitted as they are.
#[derive(Debug, Args)]
pub struct SubmitArguments {
    /// Files, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The inputs are signed statements
    #[arg(long, conflicts_with_all = ["public", "subject", "content_type"])]
    pub signed: bool,
    /// Make the content itself part of the log
    #[arg(long)]
    pub public: bool,
    /// What the statement is about [default: the file's name]
    #[arg(long)]
    pub subject: Option<String>,
    /// Media type of the content
    #[arg(long, default_value = "application/octet-stream")]
    pub content_type: String,
    /// Write the signed statements, as a CBOR sequence, to this file as well
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Do not wait for outcomes; nothing is promised then
    #[arg(long)]
    pub no_wait: bool,
}

impl SubmitArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; statements that were refused or rejected are in the output and the exit code.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let statements = self.statements(session)?;
        if let Some(path) = &self.save {
            let sequence: Vec<u8> = statements.iter().flat_map(|signed| signed.entry.iter().copied()).collect();
            std::fs::write(path, sequence).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let progress = Progress::new("registered", statements.len());
        let submission = Submission { wait: !self.no_wait, ..Submission::default() };
        let outcomes = submission.run(&session.party_client()?, &statements, |done| progress.set(done)).await;
        progress.finish();
        let outcomes = outcomes?;
        let records: Vec<Record> = outcomes.iter().map(outcome_record).collect();
        match records.as_slice() {
            [record] => session.output.record(record)?,
            records => session.output.records(records)?,
        }
        let first_wrong = outcomes.iter().find_map(|it| it.refusal.or(it.code.filter(|code| *code != Code::Applied)));
        explain(session.output, first_wrong);
        let refused = outcomes.iter().any(|outcome| outcome.refusal.is_some());
        let rejected = outcomes.iter().any(|outcome| outcome.code.is_some_and(|code| code != Code::Applied));
        Ok(match (refused, rejected) {
            (true, _) => EXIT_REFUSED,
            (false, true) => EXIT_REJECTED,
            (false, false) => EXIT_REGISTERED,
        })
    }

    fn statements(&self, session: &Session) -> Result<Vec<Signed>> {
        if self.signed {
            let mut statements = Vec::new();
            for file in &self.files {
                statements.extend(signed_statements(&read(file)?).with_context(|| file.display().to_string())?);
            }
            return Ok(statements);
        }
        let author = session.author()?;
        self.files.iter().map(|file| self.sign(&author, file)).collect()
    }

    fn sign(&self, author: &Author, file: &Path) -> Result<Signed> {
        let content = read(file)?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let subject = match (&self.subject, name) {
            (Some(subject), _) => subject.clone(),
            (None, Some(name)) if name != "-" => name,
            _ => bail!(
                Failure::new("subject_missing", "standard input has no name").hint("name what it is with --subject")
            ),
        };
        if self.public {
            author.public(&subject, &self.content_type, &content)
        } else {
            author.hash_envelope(&subject, &self.content_type, &content)
        }
    }
}

fn outcome_record(outcome: &Outcome) -> Record {
    Record::new()
        .with("statement", outcome.id.to_hex())
        .with_option("outcome", outcome.code.or(outcome.refusal).map(Code::as_str))
        .with_option("index", outcome.index.map(|index| index.0))
        .with_option("height", outcome.height.map(|height| height.0))
}

/// Cuts a CBOR sequence into statements; all must parse.
///
/// # Errors
/// When one does not, with its number.
pub fn signed_statements(bytes: &[u8]) -> Result<Vec<Signed>> {
    let mut statements = Vec::new();
    let mut decoder = Decoder::new(bytes);
    while decoder.position() < bytes.len() {
        let start = decoder.position();
        decoder.skip().map_err(|_| anyhow!("item {} is not CBOR", statements.len()))?;
        let entry = &bytes[start..decoder.position()];
        let statement = Statement::parse(entry).map_err(|code| {
            Failure::new(code.as_str(), format!("item {} is no statement: {code}", statements.len()))
                .hint("without --signed the file itself is signed and registered")
        })?;
        statements.push(Signed { id: statement.id(), entry: entry.to_vec() });
    }
    if statements.is_empty() { Err(anyhow!("there is no statement in it")) } else { Ok(statements) }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = INPUT_BYTES_MAX + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        bail!("{} is longer than {INPUT_BYTES_MAX} bytes", path.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use stele_types::{NetworkId, PartyId, Suite};

    use super::*;
    use crate::keys::SigningKey;

    #[test]
    fn a_sequence_is_cut_into_its_statements() {
        let key = SigningKey::generate(Suite::EdDsa).unwrap();
        let author = Author::new(PartyId([1; 16]), key, NetworkId([2; 32]));
        let signed: Vec<Signed> = (0..3).map(|n| author.hash_envelope("x", "text/plain", &[n]).unwrap()).collect();
        let sequence: Vec<u8> = signed.iter().flat_map(|signed| signed.entry.clone()).collect();
        let cut = signed_statements(&sequence).unwrap();
        assert_eq!(
            cut.iter().map(|one| one.id).collect::<Vec<_>>(),
            signed.iter().map(|one| one.id).collect::<Vec<_>>()
        );
        assert!(signed_statements(&sequence[..sequence.len() - 1]).is_err());
        assert!(signed_statements(&[]).is_err());
        assert!(signed_statements(&[0xa0]).is_err());
    }
}
