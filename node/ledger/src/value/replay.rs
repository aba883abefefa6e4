//! The replay window.

use stele_types::cbor::Blob;
use stele_types::code::Code;
use stele_types::hash::{Cti, PartyId, StatementId};
use stele_types::header::LogIndex;

use crate::state::stored;

/// State keys per chunk: 127 keys of 32 bytes and the map around them fit a value.
pub const REPLAY_KEYS_PER_CHUNK: usize = 127;
/// Bytes of the keys of one chunk.
const CHUNK_BYTES_MAX: usize = REPLAY_KEYS_PER_CHUNK * 32;

stele_types::record! {
    /// First outcome of a statement, under (issuer, `cti`), as long as its `iat` is not below the window's floor.
    pub struct ReplayEntry {
        /// The statement.
        1 => statement: StatementId,
        /// Its outcome.
        2 => code: Code,
        /// Its leaf when it applied.
        3 => index: Option<LogIndex>,
        /// `iat`, seconds; of an opaque statement the second of its block.
        4 => issued_at: u64,
        /// The chunk that sweeps it.
        5 => chunk: u64,
    }
}
stored!(ReplayEntry, Replay, (PartyId, Cti), |(issuer, cti)| [&issuer.0, &cti.0]);

stele_types::record! {
    /// Replay entries of one block, under the chunk's number. They are swept together, once the newest has left the
    /// window.
    pub struct ReplayChunk {
        /// `iat` of the newest entry, milliseconds.
        1 => newest_ms: u64,
        /// State keys of the entries, 32 bytes each.
        2 => keys: Blob<CHUNK_BYTES_MAX>,
    }
}
stored!(ReplayChunk, ReplayChunk, u64, |number| [&number.to_be_bytes()]);

stele_types::record! {
    /// The window's floor and the chunks that wait to be swept.
    pub struct ReplayQueue {
        /// Statements whose `iat` lies before this are stale, milliseconds. It never falls, so a longer window never
        /// readmits a statement whose entry was already swept.
        1 => floor_ms: u64,
        /// Number of the oldest chunk.
        2 => head: u64,
        /// Number of the next chunk to be written; the queue is empty when it equals `head`.
        3 => tail: u64,
    }
}
stored!(ReplayQueue, ReplayQueue, (), |()| []);
