//! Forwarding: what this node could not propose in time goes to the next f + 1 proposers.
//!
//! A message is the array `[1, [target, …], [entry, …]]`: indices in the validator set of the next height, and entries. A
//! receiver that is no target ignores it; one that is admits the entries as if the sending validator's party had
//! submitted them, so that a flood of forwarded statements stays in one lane.

use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use stele_order::{MESSAGE_BYTES_MAX, Order};
use stele_types::{Statement, ValidatorId};
use tracing::debug;

use super::Ordering;

/// How long a statement waits for a turn of this node.
const OVERDUE: Duration = Duration::from_secs(2);
/// How often overdue statements are looked for.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same while this node is demoted: it has no turn to wait for, and as long as a statement waits with it, the others
/// go through empty heights.
const INTERVAL_DEMOTED: Duration = Duration::from_millis(50);
/// Room for heads and targets in a message.
const MESSAGE_OVERHEAD_BYTES: usize = 1024;
/// Messages of one interval: eight megabytes a second at most.
const MESSAGES_MAX: usize = 32;
/// Entries of one message: the smallest statement has some 200 bytes.
const ENTRIES_MAX: u64 = 1_000;
const FORWARD: u8 = 1;

/// Runs until the order stops.
pub async fn forward_overdue(ordering: std::sync::Arc<Ordering>, order: std::sync::Arc<Order>) {
    loop {
        let demoted = ordering.is_demoted();
        tokio::select! {
            () = tokio::time::sleep(if demoted { INTERVAL_DEMOTED } else { INTERVAL }) => {}
            _ = order.stopped() => return,
        }
        let age = if demoted { Duration::ZERO } else { OVERDUE };
        for _ in 0..MESSAGES_MAX {
            let pool = ordering.admission.pool();
            let overdue = pool.overdue(age, MESSAGE_BYTES_MAX - MESSAGE_OVERHEAD_BYTES);
            let targets = ordering.next_proposers();
            if overdue.is_empty() || targets.is_empty() {
                break;
            }
            let message = encode(&targets, &overdue);
            match order.broadcast(message) {
                Ok(()) => debug!(statements = overdue.len(), ?targets, "forwarded"),
                // They stay in the pool and are proposed by this node.
                Err(error) => debug!(%error, "not forwarded"),
            }
        }
    }
}

fn encode(targets: &[u16], statements: &[Statement]) -> Bytes {
    let mut bytes = Vec::with_capacity(MESSAGE_BYTES_MAX);
    let mut encoder = Encoder::new(&mut bytes);
    // Writing to memory cannot fail.
    let _ = encoder.array(3).and_then(|e| e.u8(FORWARD)).and_then(|e| e.array(targets.len() as u64));
    for target in targets {
        let _ = encoder.u16(*target);
    }
    let _ = encoder.array(statements.len() as u64);
    for statement in statements {
        let _ = encoder.bytes(statement.entry());
    }
    bytes.into()
}

fn decode(bytes: &[u8]) -> Option<(Vec<u16>, Vec<Bytes>)> {
    let mut decoder = Decoder::new(bytes);
    if decoder.array().ok()? != Some(3) || decoder.u8().ok()? != FORWARD {
        return None;
    }
    let count = decoder.array().ok()?.filter(|count| *count <= 128)?;
    let targets = (0..count).map(|_| decoder.u16().ok()).collect::<Option<Vec<_>>>()?;
    let count = decoder.array().ok()?.filter(|count| *count <= ENTRIES_MAX)?;
    let entries = (0..count).map(|_| decoder.bytes().ok().map(Bytes::copy_from_slice)).collect::<Option<Vec<_>>>()?;
    Some((targets, entries))
}

impl Ordering {
    /// Whether the turns of this node are passed over.
    fn is_demoted(&self) -> bool {
        let head = self.chain.head();
        let own = head.frame.validators.index_of(&self.validator);
        own.is_some_and(|own| head.frame.schedule.demoted().contains(&own))
    }

    /// Indices of the next f + 1 distinct proposers other than this node.
    fn next_proposers(&self) -> Vec<u16> {
        let head = self.chain.head();
        let frame = &head.frame;
        let wanted = frame.validators.faulty_max() + 1;
        let mut targets = Vec::new();
        for height in (head.tip.height.0 + 1..).take(2 * frame.validators.len()) {
            let index = frame.schedule.proposer(height, 0);
            let other = frame.validators.get(index).is_some_and(|validator| validator.id() != self.validator);
            if let (true, Ok(index)) = (other, u16::try_from(index))
                && !targets.contains(&index)
            {
                targets.push(index);
            }
            if targets.len() == wanted {
                break;
            }
        }
        targets
    }

    /// Takes in what another validator forwarded.
    pub(super) async fn receive(&self, from: ValidatorId, bytes: &[u8]) {
        let Some((targets, entries)) = decode(bytes) else {
            debug!(%from, "dropping a malformed message");
            return;
        };
        let head = self.chain.head();
        let validators = &head.frame.validators;
        let own = validators.index_of(&self.validator).and_then(|index| u16::try_from(index).ok());
        let sender = validators.index_of(&from).and_then(|index| validators.get(index));
        if let (Some(own), Some(sender)) = (own, sender)
            && targets.contains(&own)
        {
            let results = self.admission.submit(sender.party, entries).await;
            debug!(%from, taken = results.iter().filter(|result| result.is_ok()).count(), "took forwarded statements");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_cuts_are_refused() {
        let unsigned = stele_types::statement::Unsigned::public(
            stele_types::Suite::EdDsa,
            stele_types::KeyId([1; 16]),
            stele_types::PartyId([2; 16]),
            "test",
            "text/plain",
            b"body",
        )
        .unwrap();
        let statement = Statement::parse(unsigned.into_entry(&[0; 64])).unwrap();
        let bytes = encode(&[1, 3], &[statement.clone(), statement.clone()]);
        let (targets, entries) = decode(&bytes).unwrap();
        assert_eq!(targets, [1, 3]);
        assert_eq!(entries, vec![Bytes::copy_from_slice(statement.entry()); 2]);
        assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
    }
}
