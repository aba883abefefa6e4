//! The vocabulary of Stele: what is signed, ordered, recorded and handed back.
//!
//! Every byte that outlives a process is defined here, once: statements and commands (COSE_Sign1 over
//! deterministic CBOR), block headers and commit certificates, outcomes, receipts and the quorum bundle.
//! `docs/protocol.md` specifies the same bytes for other implementers and `protocol.cddl` is checked against
//! this code by a test.
//!
//! ```text
//!  Command ──► Statement ──► Block{Header, Certificate, [Statement]} ──► Outcome ──► Receipt ──► Bundle
//!  (payload)   (COSE_Sign1)   ordered by votes of ValidatorSet           per statement  offline proof
//! ```
//!
//! What it is not: it checks no signature, reads no clock and knows no storage. It is `no_std` and pure, so that a
//! verifier built on it runs in a browser or on a phone. Decoders are strict: definite lengths, shortest integers,
//! ascending keys, bounded sizes; whatever does not re-encode to the same bytes is refused.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod asset;
pub mod attestation;
pub mod block;
pub mod bundle;
pub mod cbor;
pub mod code;
pub mod command;
pub mod custody;
pub mod exchange;
pub mod genesis;
pub mod governance;
pub mod hash;
pub mod header;
pub mod limits;
pub mod money;
pub mod outcome;
pub mod parameters;
pub mod party;
pub mod proposer;
pub mod receipt;
pub mod record;
pub mod signer;
pub mod statement;
pub mod suite;
pub mod time;
pub mod validator;
pub mod vote;

pub use block::Block;
pub use bundle::{Bundle, ChainLink, StateBundle};
pub use code::Code;
pub use command::{Command, Family};
pub use genesis::Genesis;
pub use hash::{BlockId, Cti, Hash, KeyId, NetworkId, ObjectId, PartyId, StatementId, ValidatorId};
pub use header::{Header, Height, LogIndex};
pub use money::Fen;
pub use outcome::Outcome;
pub use parameters::Parameters;
pub use proposer::ProposerSchedule;
pub use receipt::{Checkpoint, InclusionProof, Receipt};
pub use signer::CheckpointSigner;
pub use statement::{ContentKind, Statement};
pub use suite::Suite;
pub use validator::{Validator, ValidatorSet};
pub use vote::{CommitCertificate, CommitSignature, EpochCertificate, VoteKey, VoteKind, VoteSignature};
