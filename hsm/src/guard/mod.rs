//! The guard: what was signed is remembered before the signature leaves.
//!
//! A validator that signs two values for one (height, round, step), or a log that signs two roots for one
//! size, has forked; no later check undoes it. The engine's own journal is no protection, because the
//! accident is usually a journal that was lost, restored or run twice. So each signer keeps a small file of
//! its own, locked by one process, in which a record is durable before its signature is returned:
//!
//! - the same bytes again get the stored signature again, so a replay after a crash is harmless;
//! - the same ballot under another key of the validator is signed, because it says nothing new;
//! - anything else at the same position is refused;
//! - a position before the last one that holds no record is refused.
//!
//! One record is one `pwrite` of a page of its own into preallocated space and one `fdatasync`; nothing is
//! ever read, moved or grown while signing. Deleting the file forgets everything, and restoring an old copy
//! cannot be noticed by a file alone; a TPM counter can tie it down, and until then the file must never be
//! part of a backup that is restored.

mod checkpoints;
mod ring;
mod votes;

pub use self::{
    checkpoints::CheckpointGuard,
    votes::{VoteGuard, VotePosition},
};

/// What a record must survive before its signature is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardDurability {
    /// Power loss: `fdatasync` after each record. The only right choice for a real network.
    #[default]
    Sync,
    /// The end of the process: the record is with the operating system. For networks of a laptop, whose
    /// validators all stop at the same power cut anyway and start from a new genesis.
    Process,
}

/// Counters of a guard since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardFigures {
    /// Records written.
    pub records: u64,
    /// Requests answered with a stored signature.
    pub repeats: u64,
    /// Requests refused.
    pub refusals: u64,
    /// Time spent writing and syncing records, in nanoseconds.
    pub write_nanoseconds: u64,
    /// Longest single write with its sync, in nanoseconds.
    pub write_nanoseconds_max: u64,
}
