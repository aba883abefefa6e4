//! What is submitted: keys enrolled for the purpose, and statements signed in parallel before the clock runs.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use stele_client::Client;
use stele_types::custody::RecordPut;
use stele_types::hash::{Cti, Hash, ObjectId, StatementId};
use stele_types::limits::PARTY_KEYS_MAX;
use stele_types::party::KeyEnrol;
use stele_types::record::{PlaceCode, RecordClass, Sensitivity};
use stele_types::{Code, Command, Suite};

use crate::author::{Author, now_ms, random};
use crate::failure::Failure;
use crate::keys::SigningKey;
use crate::load::drive::f64_of;
use crate::submission::{Outcome, Submission};

/// Time that a paced load signed in one go may take: a statement that is submitted later than the replay window of 15
/// minutes after it was signed is stale.
const STEP_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// Statements that are signed in one go: some hundred megabytes.
const STEP_STATEMENTS_MAX: usize = 500_000;

/// How many of so many statements are signed and submitted in each step, at `rate` statements a second if it is paced.
pub fn steps(statements: usize, rate: Option<f64>) -> Vec<usize> {
    let paced = rate.map_or(f64::INFINITY, |rate| rate * STEP_TIME_MAX.as_secs_f64());
    let mut step = STEP_STATEMENTS_MAX;
    while step > 1 && f64_of(step) > paced {
        step /= 2;
    }
    let count = statements.div_ceil(step).max(1);
    (0..count).map(|number| statements / count + usize::from(number < statements % count)).collect()
}

/// What the statements say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Content {
    /// `record.put` commands: the common case of the data platform.
    #[default]
    Record,
    /// Opaque hash envelopes: plain registration.
    Opaque,
}

/// Statements that are sent together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The CBOR sequence.
    pub(super) body: Bytes,
    /// Where each statement ends in it.
    pub(super) ends: Vec<usize>,
    /// Id of the last statement: the one that is followed.
    pub(super) last: StatementId,
}

impl Batch {
    /// Number of statements.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    /// The bytes of one statement.
    pub(super) fn entry(&self, index: usize) -> Bytes {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.body.slice(start..self.ends[index])
    }
}

/// Enrols `count` new keys of `suite` for the party of `author`, and gives an author for each.
///
/// # Errors
/// When the party cannot hold so many keys, or an enrolment is refused.
pub async fn enrol_keys(client: &Client, author: &Author, suite: Suite, count: usize) -> Result<Vec<Author>> {
    if !(1..PARTY_KEYS_MAX).contains(&count) {
        bail!(
            Failure::new("parameter_invalid", format!("{count} keys for one party"))
                .hint(format!("a party holds up to {PARTY_KEYS_MAX} keys; use more parties for more"))
        );
    }
    let keys = (0..count).map(|_| SigningKey::generate(suite)).collect::<Result<Vec<_>>>()?;
    let enrol = |key: &SigningKey| author.command(&Command::KeyEnrol(KeyEnrol { key: key.enrolled() }));
    let signed = keys.iter().map(enrol).collect::<Result<Vec<_>>>()?;
    let outcomes =
        Submission::default().run(client, &signed, |_| {}).await.context("enrolling the keys of the load")?;
    let bad = |outcome: &&Outcome| outcome.code != Some(Code::Applied);
    if let Some(outcome) = outcomes.iter().find(bad) {
        let code = outcome.code.or(outcome.refusal).unwrap_or(Code::Internal);
        bail!(
            Failure::new(code.as_str(), format!("a key of the load was not enrolled: {code}"))
                .hint("every run enrols new keys and a party holds 32; make a new network, or act as another party")
        );
    }
    Ok(keys.into_iter().map(|key| Author::new(author.party(), key, author.network())).collect())
}

/// Signs `batches` of `batch_statements` each on `threads` threads, the authors in turn.
///
/// # Errors
/// When a key fails or the system gives no random bytes.
pub fn sign_batches(
    authors: &[Author],
    content: Content,
    batches: usize,
    batch_statements: usize,
    threads: usize,
) -> Result<Vec<Batch>> {
    if authors.is_empty() || batch_statements == 0 {
        bail!("a load needs an author and statements");
    }
    let threads = threads.clamp(1, batches.max(1));
    let issued_at = now_ms()? / 1000;
    let sign = |worker: usize| -> Result<Vec<Batch>> {
        (worker..batches)
            .step_by(threads)
            .map(|number| sign_batch(&authors[number % authors.len()], content, batch_statements, issued_at))
            .collect()
    };
    let signed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|worker| scope.spawn(move || sign(worker))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a signing thread ended"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(signed.into_iter().flatten().collect())
}

fn sign_batch(author: &Author, content: Content, statements: usize, issued_at: u64) -> Result<Batch> {
    let (mut body, mut ends, mut last) = (Vec::new(), Vec::with_capacity(statements), StatementId::default());
    for _ in 0..statements {
        let noise: [u8; 64] = random()?;
        let signed = match content {
            Content::Record => author.command_at(&record_put(&noise), issued_at, Cti(part(&noise, 48)))?,
            Content::Opaque => author.hash_envelope("load", "application/octet-stream", &noise)?,
        };
        body.extend_from_slice(&signed.entry);
        ends.push(body.len());
        last = signed.id;
    }
    Ok(Batch { body: body.into(), ends, last })
}

fn record_put(noise: &[u8; 64]) -> Command {
    Command::RecordPut(RecordPut {
        record: ObjectId(part(noise, 0)),
        class: RecordClass::Property,
        schema: 1,
        subject: Some(part(noise, 16)),
        place: PlaceCode::new(110_101),
        event_day: 20_000,
        sensitivity: Sensitivity::Personal,
        retention: 1,
        policy: Hash::default(),
        commitment: Hash(part(noise, 16)),
        body_root: None,
        body_hash: None,
        on_behalf_of: None,
    })
}

fn part<const N: usize>(noise: &[u8; 64], from: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&noise[from..from + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use stele_types::{NetworkId, PartyId, Statement};

    use super::*;

    #[test]
    fn long_loads_are_signed_in_steps_that_do_not_grow_stale() {
        assert_eq!(steps(100_000, None), [100_000]);
        assert_eq!(steps(1_000_001, None), [333_334, 333_334, 333_333]);
        for (statements, rate) in [(3_600_000, 1_000.0), (7, 0.001), (1_000, 1.0), (5_000_000, 1e9)] {
            let steps = steps(statements, Some(rate));
            assert_eq!(steps.iter().sum::<usize>(), statements);
            let longest = *steps.iter().max().unwrap();
            assert!(longest <= STEP_STATEMENTS_MAX);
            assert!(longest == 1 || f64_of(longest) / rate <= STEP_TIME_MAX.as_secs_f64(), "{steps:?}");
        }
    }

    #[test]
    fn batches_hold_distinct_statements_of_every_author() {
        let author =
            |byte| Author::new(PartyId([byte; 16]), SigningKey::generate(Suite::EdDsa).unwrap(), NetworkId([9; 32]));
        let authors = [author(1), author(2)];
        for content in [Content::Record, Content::Opaque] {
            let batches = sign_batches(&authors, content, 5, 7, 2).unwrap();
            let mut ids = Vec::new();
            let mut issuers = Vec::new();
            for batch in &batches {
                for index in 0..batch.len() {
                    let statement = Statement::parse(batch.entry(index).to_vec()).unwrap();
                    ids.push(statement.id());
                    issuers.push(statement.issuer());
                }
                assert_eq!(ids.last(), Some(&batch.last));
            }
            ids.sort_unstable();
            ids.dedup();
            issuers.sort_unstable();
            issuers.dedup();
            assert_eq!((ids.len(), issuers.len()), (35, 2));
        }
    }
}
