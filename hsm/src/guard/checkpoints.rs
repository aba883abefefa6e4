//! The guard of a log's checkpoints.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};

use crate::{
    error::SignerError,
    guard::{
        GuardDurability, GuardFigures,
        ring::{Identity, RECORD_MAX, Record, Ring},
    },
    request::CheckpointRequest,
    signer::Signature,
};

/// Only the last checkpoint counts; the others are there so that a torn write never meets it.
const SLOTS: u32 = 7;

/// Refuses checkpoints that contradict one that was signed before: a smaller log, or another root for the
/// same size. The same size and root under a newer header (an empty block) is signed anew; the same bytes
/// get the stored signature.
#[derive(Debug)]
pub struct CheckpointGuard {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    last: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tree_size: u64,
    root: [u8; 32],
    /// SHA-256 of the signed bytes.
    message: [u8; 32],
    signature: Signature,
}

impl CheckpointGuard {
    /// Makes the guard file of a new log key; `owner` is the network id or another name of the log.
    ///
    /// # Errors
    /// [`SignerError::GuardIo`], also when the file exists.
    pub fn create(path: &Path, owner: [u8; 32]) -> Result<(), SignerError> {
        Ring::create(path, identity(owner))
    }

    /// Makes the guard file of a log whose guard is lost: it signs nothing smaller than `first_size` leaves. Which
    /// checkpoints were signed before is forgotten, so the size must lie above that of every one of them.
    ///
    /// # Errors
    /// As [`CheckpointGuard::create`]; [`SignerError::GuardSize`] for size 0.
    pub fn create_from(path: &Path, owner: [u8; 32], first_size: u64) -> Result<(), SignerError> {
        let tree_size = first_size.checked_sub(1).ok_or(SignerError::GuardSize)?;
        // No root is all ones, so that not even this size is signed.
        let floor = Entry { tree_size, root: [0xff; 32], message: [0xff; 32], signature: [0; 64] };
        Ring::create_with(path, identity(owner), &floor.encode())
    }

    /// Opens the guard file of a log and locks it.
    ///
    /// # Errors
    /// [`SignerError::GuardIo`], [`SignerError::GuardHeld`], [`SignerError::GuardDamaged`].
    pub fn open(path: &Path, owner: [u8; 32], durability: GuardDurability) -> Result<Self, SignerError> {
        let (ring, records) = Ring::open(path, identity(owner), durability)?;
        let last = records.last().map(Entry::decode);
        if last == Some(None) {
            let reason = "a record is not a checkpoint";
            return Err(SignerError::GuardDamaged { path: path.to_owned(), reason });
        }
        Ok(Self { state: Mutex::new(State { ring, last: last.flatten() }) })
    }

    /// Signs a checkpoint unless it contradicts the last one; the record is durable before this returns.
    ///
    /// # Errors
    /// [`SignerError::CheckpointRegression`], [`SignerError::CheckpointFork`], errors of the file, and those
    /// of `sign`.
    pub fn sign_once(
        &self,
        request: &CheckpointRequest<'_>,
        sign: impl FnOnce(&[u8]) -> Result<Signature, SignerError>,
    ) -> Result<Signature, SignerError> {
        let mut state = self.lock();
        state.ring.require_sound()?;
        let CheckpointRequest { tree_size, root, sig_structure } = *request;
        let message: [u8; 32] = Sha256::digest(sig_structure).into();
        if let Some(last) = state.last {
            let refusal = if tree_size < last.tree_size {
                Some(SignerError::CheckpointRegression { tree_size, last_size: last.tree_size })
            } else if tree_size == last.tree_size && root != last.root {
                Some(SignerError::CheckpointFork { tree_size })
            } else {
                None
            };
            if let Some(refusal) = refusal {
                state.ring.figures.refusals += 1;
                return Err(refusal);
            }
            if tree_size == last.tree_size && message == last.message {
                state.ring.figures.repeats += 1;
                return Ok(last.signature);
            }
        }
        let entry = Entry { tree_size, root, message, signature: sign(sig_structure)? };
        state.ring.append(&entry.encode())?;
        state.last = Some(entry);
        Ok(entry.signature)
    }

    /// Size of the last checkpoint that was signed.
    #[must_use]
    pub fn last_tree_size(&self) -> Option<u64> {
        self.lock().last.map(|entry| entry.tree_size)
    }

    /// Counters since the guard was opened.
    #[must_use]
    pub fn figures(&self) -> GuardFigures {
        self.lock().ring.figures
    }

    /// See `VoteGuard::lock`.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn encode(&self) -> Record {
        let mut record = [0u8; RECORD_MAX];
        record[..8].copy_from_slice(&self.tree_size.to_be_bytes());
        record[8..40].copy_from_slice(&self.root);
        record[40..72].copy_from_slice(&self.message);
        record[72..136].copy_from_slice(&self.signature);
        record
    }

    fn decode(record: &Record) -> Option<Self> {
        let entry = Self {
            tree_size: u64::from_be_bytes(record[..8].try_into().ok()?),
            root: record[8..40].try_into().ok()?,
            message: record[40..72].try_into().ok()?,
            signature: record[72..136].try_into().ok()?,
        };
        (entry.encode() == *record).then_some(entry)
    }
}

fn identity(owner: [u8; 32]) -> Identity {
    Identity { kind: b'C', owner, slots: SLOTS }
}
