//! Remote attestation: whether a node runs what was released, judged from raw TCG bytes by anyone.
//!
//! A TPM signs what was measured into it (a *quote*) with a key that signs nothing else (the *attestation key*). A verifier
//! asks for it with a nonce and judges it here; no TPM, clock, connection or software of the node is needed.
//!
//! ```text
//!  endorsement key ── certificate ──► pinned authority, or fingerprint      certificate
//!        │ credential: only the TPM that holds both keys gives it back      credential
//!        ▼
//!  attestation key ── certifies ────► checkpoint key, validator key         certification
//!        │ quotes
//!        ▼
//!  TPMS_ATTEST ─┬─ qualifying data ─► the verifier's nonce, ledger's head   nonce
//!               ├─ clock, counters ─► not behind the previous verdict       attest
//!               └─ PCR digest ──────► PCR values ─► the release's policy    pcr, policy
//!                                       ▲ replay
//!                          boot event log, IMA log                          event_log, ima
//! ```
//!
//! [`appraise`] does all of it for one quote and gives a [`Verdict`]: whether it passed, every [`Reason`] why not with a
//! stable code (and the event that differs, where predictions name events), and the facts. A node hands out all of it with
//! its keys as one [`EvidencePackage`]: JSON, tar or CMW, judged by [`appraise_package`]. What a node says of a key beside
//! something that the key signed is judged by [`trace_origin`], long afterwards.
//!
//! - **Every format is somebody else's.** Quotes, signatures, keys, PCR files and logs are those that tpm2-tools and the
//!   kernel write, so that `tpm2_checkquote` and `tpm2_eventlog` judge the same files.
//! - **Logs are believed only as far as they replay.** A log is hearsay until the quoted PCRs follow from it, and an
//!   event's text is the firmware's word unless its digest covers it.
//! - **A policy must judge.** One that pins nothing is refused: it would pass every platform.
//!
//! What it is not: it fetches nothing, keeps nothing between verdicts, and decides nothing about what follows from one.
//!
//! The crate is `no_std`, free of unsafe code, and builds for `wasm32-unknown-unknown`. Nothing from outside makes it panic;
//! work and memory are bounded by named limits and by the length of what was given.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod algorithm;
mod appraisal;
pub mod approval;
mod attest;
pub mod certificate;
mod certification;
mod credential;
mod error;
pub mod event_log;
mod event_type;
pub mod exchange;
pub mod ima;
mod key;
mod nonce;
mod origin;
pub mod package;
mod pcr;
pub mod policy;
mod public;
mod reader;
mod rsa;
mod signature;
mod verdict;

pub use crate::{
    algorithm::{Digest, HashAlgorithm},
    appraisal::{Evidence, Expectation, appraise},
    approval::{Approval, ApprovalError, PlatformState, PolicyKey},
    attest::{Attestation, Attested, ClockInfo, FirmwareVersion},
    certificate::{CertificateError, Endorsement, EndorsementAnchors, verify_endorsement},
    certification::{CertifiedKey, verify_certification},
    credential::{Credential, ENTROPY_LENGTH},
    error::EvidenceError,
    event_log::{Event, EventLog},
    event_type::EventType,
    ima::ImaLog,
    key::PublicKey,
    nonce::{NONCE_LENGTH, key_qualifying_data, quote_qualifying_data},
    origin::{OriginEvidence, OriginExpectation, OriginReason, OriginVerdict, TpmEvidence, trace_origin},
    package::{EvidencePackage, PackageError, appraise_package},
    pcr::{PCR_COUNT, PcrSelection, PcrValues},
    policy::{Policy, PolicyError},
    public::{Name, ObjectAttributes, Public, SymmetricCipher},
    rsa::RsaPublicKey,
    signature::{SignatureScheme, TpmSignature},
    verdict::{EventDifference, Facts, Part, PcrFact, REASONS_MAX, Reason, Verdict},
};
