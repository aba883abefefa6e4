//! Checkpoints: tree heads under a node's key, and the evidence when one contradicts a quorum or another.

use stele_types::{Checkpoint, Hash, Header};

use crate::chain::CertifiedHeader;
use crate::error::{Claim, Signer, VerifyError};
use crate::key::PublicKey;
use crate::statement;

/// A tree head with the root and the signature of a node's checkpoint key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The claims.
    pub checkpoint: Checkpoint,
    /// Root of the log: the detached payload.
    pub log_root: Hash,
    /// Signature over [`Checkpoint::signing_bytes`].
    pub signature: [u8; 64],
}

impl SignedCheckpoint {
    /// Checks the signature under `key`.
    ///
    /// # Errors
    /// `key_mismatch`, `key_invalid`, `signature_invalid`.
    pub fn verify(&self, key: &PublicKey) -> Result<(), VerifyError> {
        if key.suite() != self.checkpoint.suite || key.id() != self.checkpoint.key {
            return Err(VerifyError::KeyMismatch);
        }
        let message = self.checkpoint.signing_bytes(&self.log_root);
        statement::check(key, &message, &self.signature, Signer::Checkpoint)
    }

    /// What of this checkpoint differs from what `header` says of the state after the block below it: the checkpoint
    /// has to be of that very height.
    pub(crate) fn difference(&self, header: &Header) -> Option<Claim> {
        let Self { checkpoint, log_root, .. } = self;
        if checkpoint.height.0.checked_add(1) != Some(header.height.0) {
            Some(Claim::Height)
        } else if checkpoint.log_size != header.log_size {
            Some(Claim::LogSize)
        } else if *log_root != header.log_root {
            Some(Claim::LogRoot)
        } else if checkpoint.state_root != header.state_root {
            Some(Claim::StateRoot)
        } else if checkpoint.time_ms >= header.time_ms {
            Some(Claim::Time)
        } else {
            None
        }
    }

    /// What of this checkpoint cannot be true if `header` is: for heights that differ, the log must not shrink and one
    /// size has one root.
    fn contradiction(&self, header: &Header) -> Option<Claim> {
        let Self { checkpoint, log_root, .. } = self;
        let results = header.height.0.checked_sub(1)?;
        let ordered = match checkpoint.height.0.cmp(&results) {
            core::cmp::Ordering::Equal => return self.difference(header),
            core::cmp::Ordering::Less => checkpoint.log_size <= header.log_size,
            core::cmp::Ordering::Greater => checkpoint.log_size >= header.log_size,
        };
        if !ordered {
            Some(Claim::LogSize)
        } else if checkpoint.log_size == header.log_size && *log_root != header.log_root {
            Some(Claim::LogRoot)
        } else {
            None
        }
    }
}

/// Proof that a node signed what a quorum contradicts: the checkpoint with its key, beside a certified header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction<'a> {
    /// What the node signed.
    pub signed: &'a SignedCheckpoint,
    /// The header that says otherwise.
    pub header: CertifiedHeader<'a>,
    /// What differs.
    pub claim: Claim,
}

/// Whether a signed checkpoint contradicts a certified header. `None` means that both can be true, which is no proof
/// that the checkpoint is.
///
/// # Errors
/// When the checkpoint proves nothing: `other_network`, `key_mismatch`, `key_invalid`, `signature_invalid`.
pub fn contradiction<'a>(
    signed: &'a SignedCheckpoint,
    key: &PublicKey,
    header: CertifiedHeader<'a>,
) -> Result<Option<Contradiction<'a>>, VerifyError> {
    if signed.checkpoint.network != header.header().network {
        return Err(VerifyError::OtherNetwork { found: signed.checkpoint.network });
    }
    signed.verify(key)?;
    Ok(signed.contradiction(header.header()).map(|claim| Contradiction { signed, header, claim }))
}

/// Whether two checkpoints of one key contradict each other: one log size, or one height, with two roots.
///
/// # Errors
/// As for [`contradiction`], for either of them.
pub fn fork(one: &SignedCheckpoint, other: &SignedCheckpoint, key: &PublicKey) -> Result<Option<Claim>, VerifyError> {
    if one.checkpoint.network != other.checkpoint.network {
        return Err(VerifyError::OtherNetwork { found: other.checkpoint.network });
    }
    one.verify(key)?;
    other.verify(key)?;
    let (first, second) = (&one.checkpoint, &other.checkpoint);
    let same_height = first.height == second.height;
    Ok(if same_height && first.log_size != second.log_size {
        Some(Claim::LogSize)
    } else if first.log_size == second.log_size && one.log_root != other.log_root {
        Some(Claim::LogRoot)
    } else if same_height && first.state_root != second.state_root {
        Some(Claim::StateRoot)
    } else if same_height && first.time_ms != second.time_ms {
        Some(Claim::Time)
    } else if (first.height < second.height && first.log_size > second.log_size)
        || (first.height > second.height && first.log_size < second.log_size)
    {
        Some(Claim::LogSize)
    } else {
        None
    })
}
