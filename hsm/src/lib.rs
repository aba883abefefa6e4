//! The signer seam: who holds a node's keys, and what they may be asked to sign.
//!
//! A key of a node signs three things that outlive it: votes in consensus, checkpoints of the log, and
//! certificates for the short-lived key that votes in its place. A signature on the wrong one of them
//! forks the ledger, so the seam is narrow on purpose:
//!
//! ```text
//!  order ── VoteRequest ─────────┐                    ┌── VoteGuard        one file per validator
//!  seal  ── CheckpointRequest ───┼──► dyn Signer ─────┤
//!  order ── EpochRequest, ...  ──┘    (async,         └── CheckpointGuard  one file per log
//!                                      fallible)              │
//!                                 ┌──────┴──────┐     pwrite + fdatasync, then release
//!                           SoftwareSigner  ├─ TpmSigner ─── TpmDevice: one thread, one TPM
//!                           (development)   │                    └── TpmAttestor: quotes, certifications
//!                                           └─ Pkcs11Signer ─ Pkcs11Token: a thread for each session
//! ```
//!
//! - **Typed.** There is no "sign these bytes". Each request names its fields, and the signer parses the bytes
//!   to be signed and refuses them unless they say the same ([`request`]); bytes of one kind can never be
//!   passed off as another.
//! - **Guarded.** What was signed is on stable storage before the signature leaves ([`guard`]). The guard
//!   belongs to the signer, not to the consensus engine's journal: an engine that lost its journal, or was
//!   started twice, is refused.
//! - **In hardware.** With the feature `tpm`, keys are made by a TPM 2.0 and never leave it; the same TPM says what it
//!   signs with and what the machine runs. With the feature `pkcs11`, a hardware security module holds them.
//! - **Asynchronous and fallible.** A TPM signs a few times a second and an HSM may be away; callers await
//!   and handle errors ([`SignerError::is_retryable`]).
//!
//! The crate imports nothing of the node: requests are plain integers and byte arrays.
//!
//! Beside the signers it holds what bodies of records are sealed with ([`custody`]).

#[cfg(any(feature = "tpm", feature = "remote"))]
pub mod attested;
#[cfg(any(feature = "tpm", feature = "pkcs11"))]
mod backend;
mod cbor;
pub mod custody;
mod error;
mod figures;
pub mod guard;
mod hexadecimal;
mod key_file;
mod kind;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod public_key;
mod published;
#[cfg(feature = "remote")]
pub mod remote;
pub mod request;
mod signer;
mod software;
#[cfg(feature = "tpm")]
pub mod tpm;

pub use crate::{
    error::SignerError,
    guard::{CheckpointGuard, GuardDurability, GuardFigures, VoteGuard},
    kind::SignerKind,
    public_key::{KeyAlgorithm, PublicKey},
    published::{NodeKeys, PublishedEpoch, PublishedKey},
    request::{
        CheckpointRequest, CustodyReceiptRequest, EpochCertificateRequest, PeerBindingRequest, Step, VoteRequest,
    },
    signer::{Signature, Signer, SignerFigures},
    software::SoftwareSigner,
};
