//! The replay window: each statement has one effect and one outcome.
//!
//! # Rules
//!
//! A command names itself by (`iss`, `cti`) and says when it was issued (`iat`). An opaque statement is named by the
//! first 16 bytes of its statement id and counts as issued in the second of its block.
//!
//! * The window of a block reaches from the *floor*, block time − `replay_past_ms`, to block time +
//!   `replay_future_ms`. Older is `stale`, newer is `early`.
//! * The first statement under a name leaves an entry with its outcome. The same statement again gets that outcome
//!   again, with the index of the first leaf, and is no new leaf. Another statement under that name is an
//!   `id_conflict`.
//! * The entry lives as long as its `iat` is not below the floor, that is until block time > `iat` +
//!   `replay_past_ms`. Then the same command is stale for ever, and the same opaque statement is new.
//!
//! The floor is state and never falls. If the parameters lengthen the window, statements whose entries are gone stay
//! stale; with a floor computed from block time alone they could apply a second time.
//!
//! # What is remembered
//!
//! Rejections are remembered as registrations are. An issuer that holds a proven rejection may act on it, for example
//! by correcting the command under a new `cti`; if a copy of the rejected statement could still apply when the state
//! has changed, both would take effect. Two kinds of outcome leave no entry:
//!
//! * `stale` and `early`: outside the window nothing is remembered. `stale` is final by itself; `early` is not, and is
//!   the one rejection after which the same bytes may apply.
//! * outcomes of a key that does not speak for the issuer (unknown, ended, of another party, of a disabled suite):
//!   whoever holds such a key could otherwise use up names of the issuer. A valid block carries none of them but those
//!   of a key that ended earlier in the same block, and these are final by themselves: a key never begins again, and
//!   the header names the key.
//!
//! # Sweeping
//!
//! Entries are listed in chunks as they are written. Each block sweeps, oldest first, the chunks whose newest entry has
//! left the window. An expired entry that is not swept yet counts as absent; when its name is used again it moves to the
//! new chunk, so a chunk can be swept without reading its entries.

use alloc::vec::Vec;

use stele_types::cbor::Blob;
use stele_types::code::Code;
use stele_types::hash::{Cti, PartyId, StatementId};
use stele_types::header::LogIndex;
use stele_types::limits::BLOCK_STATEMENTS_MAX;
use stele_types::parameters::Parameters;
use stele_types::statement::{ContentKind, Statement};

use crate::overlay::Overlay;
use crate::state::{StateKey, StateView, Stored, read};
use crate::value::{REPLAY_KEYS_PER_CHUNK, ReplayChunk, ReplayEntry, ReplayQueue};

/// Entries that one block sweeps at most, give or take a chunk: twice what a block can add, so a backlog always
/// shrinks, and a bound on the extra writes of a block after a long silence.
pub const SWEEP_KEYS_MAX: usize = 2 * BLOCK_STATEMENTS_MAX;

/// How a statement names itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) issuer: PartyId,
    pub(crate) cti: Cti,
    /// Seconds.
    pub(crate) issued_at: u64,
}

impl Name {
    pub(crate) fn of(statement: &Statement, block_time_ms: u64) -> Self {
        let issuer = statement.issuer();
        match statement.content() {
            ContentKind::Command { issued_at, cti, .. } => Self { issuer, cti: *cti, issued_at: *issued_at },
            ContentKind::Opaque => {
                let mut cti = [0; Cti::LEN];
                cti.copy_from_slice(&statement.id().0[..Cti::LEN]);
                Self { issuer, cti: Cti(cti), issued_at: block_time_ms / 1000 }
            }
        }
    }
}

impl Name {
    /// Where the window keeps it.
    pub(crate) fn state_key(&self) -> StateKey {
        ReplayEntry::state_key(&(self.issuer, self.cti))
    }
}

/// What the window says about a statement before anything else is asked.
pub(crate) enum Verdict {
    /// Nothing under this name; the statement may be executed and then recorded with the token.
    New(Vacancy),
    /// The first outcome of the same statement.
    Known(Code, Option<LogIndex>),
    /// Refused, without an entry.
    Refused(Code),
}

/// A free name in the window.
pub(crate) struct Vacancy {
    key: StateKey,
    issued_at: u64,
    /// Chunk of an expired entry of the same name.
    expired_chunk: Option<u64>,
}

/// The window of one block.
pub(crate) struct Window {
    queue: ReplayQueue,
    before: ReplayQueue,
    ceiling_ms: u64,
    /// Keys written by this block and the newest `iat` of each chunk that they fill.
    keys: Vec<StateKey>,
    newest_ms: Vec<u64>,
}

impl Window {
    /// Opens the window of a block at `time_ms` and sweeps what has left it.
    pub(crate) fn open(overlay: &mut Overlay<'_>, time_ms: u64, parameters: &Parameters) -> Self {
        let before: ReplayQueue = overlay.singleton();
        let mut queue = before.clone();
        queue.floor_ms = queue.floor_ms.max(time_ms.saturating_sub(parameters.replay_past_ms));
        sweep(overlay, &mut queue);
        let ceiling_ms = time_ms.saturating_add(parameters.replay_future_ms);
        Self { queue, before, ceiling_ms, keys: Vec::new(), newest_ms: Vec::new() }
    }

    /// Judges a statement by its name.
    pub(crate) fn judge(&self, overlay: &Overlay<'_>, name: &Name, statement: &StatementId) -> Verdict {
        let issued_ms = name.issued_at.saturating_mul(1000);
        if issued_ms > self.ceiling_ms {
            return Verdict::Refused(Code::Early);
        }
        if issued_ms < self.queue.floor_ms {
            return Verdict::Refused(Code::Stale);
        }
        let key = name.state_key();
        let vacancy = Vacancy { key, issued_at: name.issued_at, expired_chunk: None };
        match overlay.read_key::<ReplayEntry>(&key) {
            None => Verdict::New(vacancy),
            Some(entry) if entry.issued_at.saturating_mul(1000) < self.queue.floor_ms => {
                Verdict::New(Vacancy { expired_chunk: Some(entry.chunk), ..vacancy })
            }
            Some(entry) if entry.statement == *statement => Verdict::Known(entry.code, entry.index),
            Some(_) => Verdict::Refused(Code::IdConflict),
        }
    }

    /// Remembers the outcome of a statement.
    pub(crate) fn record(
        &mut self,
        overlay: &mut Overlay<'_>,
        vacancy: Vacancy,
        statement: StatementId,
        code: Code,
        index: Option<LogIndex>,
    ) {
        if let Some(chunk) = vacancy.expired_chunk {
            forget(overlay, chunk, &vacancy.key);
        }
        let position = self.keys.len() / REPLAY_KEYS_PER_CHUNK;
        let issued_ms = vacancy.issued_at.saturating_mul(1000);
        match self.newest_ms.get_mut(position) {
            Some(newest) => *newest = issued_ms.max(*newest),
            None => self.newest_ms.push(issued_ms),
        }
        let chunk = self.queue.tail + position as u64;
        let entry = ReplayEntry { statement, code, index, issued_at: vacancy.issued_at, chunk };
        overlay.put_key(vacancy.key, &entry);
        self.keys.push(vacancy.key);
    }

    /// Writes the block's chunks.
    pub(crate) fn close(mut self, overlay: &mut Overlay<'_>) {
        for (keys, newest_ms) in self.keys.chunks(REPLAY_KEYS_PER_CHUNK).zip(self.newest_ms) {
            put_chunk(overlay, self.queue.tail, newest_ms, keys.concat());
            self.queue.tail += 1;
        }
        if self.queue != self.before {
            overlay.put(&(), &self.queue);
        }
    }
}

/// Whether the window after the newest block remembers an outcome of this very statement, so that ordering it again would
/// tell nothing new.
pub fn is_remembered(view: &dyn StateView, statement: &Statement) -> bool {
    let name = Name::of(statement, 0);
    let entry: Option<ReplayEntry> = read(view, &(name.issuer, name.cti));
    entry.is_some_and(|entry| {
        // An expired entry that is not swept yet counts as absent.
        let floor_ms = read::<ReplayQueue>(view, &()).map_or(0, |queue| queue.floor_ms);
        entry.statement == statement.id() && entry.issued_at.saturating_mul(1000) >= floor_ms
    })
}

fn sweep(overlay: &mut Overlay<'_>, queue: &mut ReplayQueue) {
    let mut swept = 0;
    while queue.head < queue.tail && swept < SWEEP_KEYS_MAX {
        let chunk = read_chunk(overlay, queue.head);
        if chunk.newest_ms >= queue.floor_ms {
            break;
        }
        for key in chunk.keys.as_chunks::<32>().0 {
            overlay.remove_key(*key);
            swept += 1;
        }
        overlay.remove::<ReplayChunk>(&queue.head);
        queue.head += 1;
    }
}

/// Takes an expired entry out of the chunk that would sweep it, because its name is used again.
fn forget(overlay: &mut Overlay<'_>, number: u64, key: &StateKey) {
    let chunk = read_chunk(overlay, number);
    let keys: Vec<u8> = chunk.keys.chunks(32).filter(|listed| listed != key).flatten().copied().collect();
    assert_eq!(keys.len() + 32, chunk.keys.len(), "an entry is listed once in the chunk that it names");
    put_chunk(overlay, number, chunk.newest_ms, keys);
}

fn read_chunk(overlay: &Overlay<'_>, number: u64) -> ReplayChunk {
    overlay.read(&number).expect("every chunk between head and tail is written when the tail passes it")
}

fn put_chunk(overlay: &mut Overlay<'_>, number: u64, newest_ms: u64, keys: Vec<u8>) {
    let keys = Blob::new(keys).expect("a chunk holds at most its number of keys");
    overlay.put(&number, &ReplayChunk { newest_ms, keys });
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::state::{StateView, encode};

    struct Memory(BTreeMap<StateKey, Vec<u8>>);

    impl StateView for Memory {
        fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
            self.0.get(key).cloned()
        }
    }

    fn entry_key(number: u64) -> StateKey {
        ReplayEntry::state_key(&(PartyId([1; 16]), Cti(u128::from(number).to_be_bytes())))
    }

    #[test]
    fn a_backlog_is_swept_in_bounded_steps_oldest_first() {
        let per_chunk = REPLAY_KEYS_PER_CHUNK as u64;
        let chunks = 2 * SWEEP_KEYS_MAX as u64 / per_chunk + 10;
        let mut state = Memory(BTreeMap::new());
        for number in 0..chunks {
            let keys: Vec<StateKey> = (number * per_chunk..(number + 1) * per_chunk).map(entry_key).collect();
            let keys = Blob::new(keys.concat()).unwrap();
            state.0.insert(ReplayChunk::state_key(&number), encode(&ReplayChunk { newest_ms: 1_000, keys }));
        }
        let mut queue = ReplayQueue { floor_ms: 1_000, head: 0, tail: chunks };
        let mut overlay = Overlay::new(&state);
        sweep(&mut overlay, &mut queue);
        assert_eq!((queue.head, overlay.into_writes().len()), (0, 0), "what may still be asked for stays");
        queue.floor_ms = 1_001;
        let mut swept = Vec::new();
        while queue.head < queue.tail {
            let mut overlay = Overlay::new(&state);
            let before = queue.head;
            sweep(&mut overlay, &mut queue);
            let writes = overlay.into_writes();
            let keys = (queue.head - before) * per_chunk;
            assert!(keys < SWEEP_KEYS_MAX as u64 + per_chunk);
            assert_eq!(writes.len() as u64, keys + (queue.head - before), "entries and chunks");
            assert!(writes.iter().all(|(_, value)| value.is_none()));
            swept.push(keys);
        }
        assert_eq!(swept.len(), 3);
        assert!(swept[0] >= SWEEP_KEYS_MAX as u64 && swept[1] >= SWEEP_KEYS_MAX as u64);
    }
}
