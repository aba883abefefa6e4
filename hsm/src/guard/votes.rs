//! The guard of a validator's votes.

use std::{
    collections::VecDeque,
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
    request::{Step, VoteRequest},
    signer::Signature,
};

/// Votes remembered: three a round, so 85 rounds of one height can be replayed after a crash. A height
/// that needs more has been stuck for many minutes, and its oldest votes are then refused, not repeated.
const SLOTS: u32 = 255;

/// Where a vote stands; ordered as a validator votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VotePosition {
    /// Height of the block.
    pub height: u64,
    /// Round within the height.
    pub round: u32,
    /// Step within the round.
    pub step: Step,
}

/// Refuses votes that contradict what a validator signed before.
///
/// One guard serves every key of its validator (long-term and epoch keys alike) and may be shared between
/// signers and threads; requests are taken one at a time.
#[derive(Debug)]
pub struct VoteGuard {
    validator: [u8; 32],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    /// What the ring holds, ascending by position.
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    position: VotePosition,
    value_id: Option<[u8; 32]>,
    /// SHA-256 of the signed bytes without the name of the key: the same value in another ballot is another vote.
    ballot: [u8; 32],
    /// SHA-256 of the signed bytes.
    message: [u8; 32],
    signature: Signature,
}

impl VoteGuard {
    /// Makes the guard file of a new validator. Never done implicitly: a guard that went missing must
    /// stop the node, not start from nothing.
    ///
    /// # Errors
    /// [`SignerError::GuardIo`], also when the file exists.
    pub fn create(path: &Path, validator: [u8; 32]) -> Result<(), SignerError> {
        Ring::create(path, identity(validator))
    }

    /// Makes the guard file of a validator whose guard is lost: it signs nothing below `first_height`. What was signed
    /// before is forgotten, so the height must lie above every height at which the validator may have voted.
    ///
    /// # Errors
    /// As [`VoteGuard::create`]; [`SignerError::GuardHeight`] for height 0.
    pub fn create_from(path: &Path, validator: [u8; 32], first_height: u64) -> Result<(), SignerError> {
        let height = first_height.checked_sub(1).ok_or(SignerError::GuardHeight)?;
        Ring::create_with(path, identity(validator), &Entry::floor(height).encode())
    }

    /// Opens the guard file of a validator and locks it.
    ///
    /// # Errors
    /// [`SignerError::GuardIo`], [`SignerError::GuardHeld`] when another process signs for this validator,
    /// [`SignerError::GuardDamaged`].
    pub fn open(path: &Path, validator: [u8; 32], durability: GuardDurability) -> Result<Self, SignerError> {
        let (ring, records) = Ring::open(path, identity(validator), durability)?;
        let damaged = |reason| SignerError::GuardDamaged { path: path.to_owned(), reason };
        let mut entries = VecDeque::with_capacity(records.len());
        for record in &records {
            entries.push_back(Entry::decode(record).ok_or(damaged("a record is not a vote"))?);
        }
        let ascending = entries.iter().zip(entries.iter().skip(1)).all(|(one, next)| one.position < next.position);
        if !ascending {
            return Err(damaged("its votes are out of order"));
        }
        Ok(Self { validator, state: Mutex::new(State { ring, entries }) })
    }

    /// Signs a vote at most once: asks `sign` for a new position, gives the stored signature for the same bytes, lets
    /// another key of the validator repeat the same ballot, refuses everything else. The record is durable before
    /// this returns.
    ///
    /// # Errors
    /// [`SignerError::ForeignValidator`], [`SignerError::DoubleSign`], [`SignerError::Regression`], errors of
    /// the file, and those of `sign`.
    pub fn sign_once(
        &self,
        request: &VoteRequest<'_>,
        sign: impl FnOnce(&[u8]) -> Result<Signature, SignerError>,
    ) -> Result<Signature, SignerError> {
        let mut state = self.lock();
        state.ring.require_sound()?;
        match state.judge(self.validator, request) {
            Ok(Judgement::Stored(signature)) => {
                state.ring.figures.repeats += 1;
                Ok(signature)
            }
            Ok(Judgement::OtherKey) => {
                let signature = sign(request.bytes)?;
                state.ring.figures.repeats += 1;
                Ok(signature)
            }
            Ok(Judgement::New) => {
                let entry = Entry {
                    position: position(request),
                    value_id: request.value_id,
                    ballot: Sha256::digest(request.ballot()).into(),
                    message: Sha256::digest(request.bytes).into(),
                    signature: sign(request.bytes)?,
                };
                state.append(entry)?;
                Ok(entry.signature)
            }
            Err(refusal) => {
                state.ring.figures.refusals += 1;
                Err(refusal)
            }
        }
    }

    /// Signs nothing at `height` or below it any more, durably. For a validator that no longer knows what it is bound to
    /// by its votes at that height.
    ///
    /// # Errors
    /// Errors of the file.
    pub fn abstain(&self, height: u64) -> Result<(), SignerError> {
        let mut state = self.lock();
        state.ring.require_sound()?;
        let floor = Entry::floor(height);
        if state.entries.back().is_some_and(|last| last.position >= floor.position) {
            return Ok(());
        }
        state.append(floor)
    }

    /// The last vote that was signed.
    #[must_use]
    pub fn last(&self) -> Option<VotePosition> {
        self.lock().entries.back().map(|entry| entry.position)
    }

    /// Counters since the guard was opened.
    #[must_use]
    pub fn figures(&self) -> GuardFigures {
        self.lock().ring.figures
    }

    /// A panic while the lock is held leaves memory and file as they were before or after one record, so
    /// the lock's own poisoning is not needed; a failed write has its own.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the guard says to a vote that it does not refuse.
enum Judgement {
    /// Nothing was signed at this position or after it.
    New,
    /// These very bytes were signed.
    Stored(Signature),
    /// This ballot was signed under another key of the validator. To sign it again is to say the same twice; the
    /// record stands as it is.
    OtherKey,
}

impl State {
    /// Makes a record durable.
    fn append(&mut self, entry: Entry) -> Result<(), SignerError> {
        self.ring.append(&entry.encode())?;
        if self.entries.len() == SLOTS as usize {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        Ok(())
    }

    fn judge(&self, validator: [u8; 32], request: &VoteRequest<'_>) -> Result<Judgement, SignerError> {
        if request.validator != validator {
            return Err(SignerError::ForeignValidator);
        }
        let VotePosition { height, round, step } = position(request);
        if let Ok(index) = self.entries.binary_search_by_key(&position(request), |entry| entry.position) {
            let entry = &self.entries[index];
            let digest = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
            return if (entry.value_id, entry.ballot) != (request.value_id, digest(request.ballot())) {
                Err(SignerError::DoubleSign { height, round, step })
            } else if entry.message == digest(request.bytes) {
                Ok(Judgement::Stored(entry.signature))
            } else {
                Ok(Judgement::OtherKey)
            };
        }
        match self.entries.back() {
            Some(last) if position(request) < last.position => Err(SignerError::Regression {
                height,
                round,
                step,
                last_height: last.position.height,
                last_round: last.position.round,
                last_step: last.position.step,
            }),
            _ => Ok(Judgement::New),
        }
    }
}

impl Entry {
    /// A record above every vote of `height`.
    fn floor(height: u64) -> Self {
        Self {
            position: VotePosition { height, round: u32::MAX, step: Step::Precommit },
            // No digest is all ones, so that not even this position is signed.
            value_id: None,
            ballot: [0xff; 32],
            message: [0xff; 32],
            signature: [0; 64],
        }
    }

    fn encode(&self) -> Record {
        let mut record = [0u8; RECORD_MAX];
        record[..8].copy_from_slice(&self.position.height.to_be_bytes());
        record[8..12].copy_from_slice(&self.position.round.to_be_bytes());
        record[12] = self.position.step.to_byte();
        record[13] = u8::from(self.value_id.is_some());
        record[14..46].copy_from_slice(&self.value_id.unwrap_or_default());
        record[46..78].copy_from_slice(&self.ballot);
        record[78..110].copy_from_slice(&self.message);
        record[110..174].copy_from_slice(&self.signature);
        record
    }

    fn decode(record: &Record) -> Option<Self> {
        let value_id: [u8; 32] = record[14..46].try_into().ok()?;
        let entry = Self {
            position: VotePosition {
                height: u64::from_be_bytes(record[..8].try_into().ok()?),
                round: u32::from_be_bytes(record[8..12].try_into().ok()?),
                step: Step::from_byte(record[12])?,
            },
            value_id: (record[13] == 1).then_some(value_id),
            ballot: record[46..78].try_into().ok()?,
            message: record[78..110].try_into().ok()?,
            signature: record[110..174].try_into().ok()?,
        };
        (entry.encode() == *record).then_some(entry)
    }
}

fn identity(validator: [u8; 32]) -> Identity {
    Identity { kind: b'V', owner: validator, slots: SLOTS }
}

fn position(request: &VoteRequest<'_>) -> VotePosition {
    VotePosition { height: request.height, round: request.round, step: request.step }
}
