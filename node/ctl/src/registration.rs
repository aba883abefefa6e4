//! Sending statements and waiting until what became of them is certified.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use stele_client::{Client, ClientError, Wait};
use stele_types::Code;
use stele_types::exchange::{Progress, StatementStatus};
use stele_verify::verdict::{EXIT_REGISTERED, EXIT_REJECTED};

use crate::author::Signed;
use crate::failure::Failure;
use crate::output::Record;

/// One wait at the node; longer waits are repeated, because listeners bound them.
const WAIT_STEP: Duration = Duration::from_secs(10);
/// Waits until the outcome is told to be open: the time a network needs to recover from the loss of a node.
const WAIT_STEPS_MAX: u32 = 12;

/// Registers a statement and waits for its certified outcome. It is submitted again when the node that took it lost it:
/// statements are idempotent by their id.
///
/// # Errors
/// A refusal, or `outcome_open` when no outcome was certified in time.
pub async fn register(client: &Client, signed: &Signed) -> Result<StatementStatus> {
    let entry = Bytes::from(signed.entry.clone());
    let mut status = client.register(entry.clone(), Wait::Certified(WAIT_STEP)).await?;
    for _ in 0..WAIT_STEPS_MAX {
        if status.progress == Some(Progress::Certified) {
            return Ok(status);
        }
        status = match client.statement(&signed.id, Wait::Certified(WAIT_STEP)).await {
            Ok(status) => status,
            Err(error) if error.protocol_code() == Some(Code::NotFound) => {
                client.register(entry.clone(), Wait::Certified(WAIT_STEP)).await?
            }
            Err(error) => return Err(error.into()),
        };
    }
    bail!(Failure::new("outcome_open", format!("statement {} has no certified outcome yet", signed.id)).hint(format!(
        "do the nodes agree on new blocks (`stele status`)? ask again with: stele receipt get {}",
        signed.id
    )))
}

/// What a status says, for people and programs.
pub fn status_record(status: &StatementStatus) -> Record {
    Record::new()
        .with("statement", status.statement.to_hex())
        .with("progress", status.progress.map_or("unknown", |progress| progress.as_str()))
        .with_option("outcome", status.code.map(Code::as_str))
        .with_option("index", status.index.map(|index| index.0))
        .with_option("height", status.height.map(|height| height.0))
}

/// Exit code of a certified outcome: as the verifier would tell it.
pub fn exit_code(status: &StatementStatus) -> u8 {
    if status.code == Some(Code::Applied) { EXIT_REGISTERED } else { EXIT_REJECTED }
}

/// Whether an error says only that nothing of that name is known.
pub fn is_not_found(error: &ClientError) -> bool {
    error.protocol_code() == Some(Code::NotFound)
}
