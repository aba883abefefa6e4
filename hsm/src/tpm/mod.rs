//! Keys in a TPM 2.0, and what it attests.
//!
//! ```text
//!  TpmSigner ─┐                        ┌ Connection ─────────────────────────────────────┐
//!  TpmSigner ─┼─ bounded queue ─► one  │ one ESAPI context, one salted HMAC session,     │
//!  TpmAttestor┤                 thread │ keys loaded when needed                         ├─ TCTI ─► TPM
//!  TpmEpoch ──┘                        └──────── dropped when lost, made anew ───────────┘
//! ```
//!
//! A TPM does one thing at a time and takes some hundred milliseconds for a signature, so one thread owns it and nothing
//! else blocks. A session for each command would cost ten times the round trips; one session lives as long as the
//! connection. It is salted with a key of the TPM, so that what listens on the bus between processor and TPM can neither
//! change a digest on its way in nor a signature on its way out.
//!
//! Keys are children of the storage key, whose template is the TCG's and which the TPM derives from its seed whenever it is
//! asked; their wrapped halves lie in files that only this TPM can use ([`TpmKeyFile`]). Nothing takes a place in the TPM's
//! scarce storage, and a reset loses nothing. The attestation key is derived likewise, in the endorsement hierarchy, and so is
//! the endorsement key: the one of the TCG's that the maker certified. What a TPM is too slow to sign with, it seals
//! ([`TpmSealed`]): for itself alone, or for itself while it has PCRs that a release's policy key approved.

mod approved;
mod attestor;
mod connection;
mod device;
mod endorsement;
mod epoch;
mod fault;
mod key_file;
mod sealed;
mod signer;
mod template;

pub use stele_evidence::Credential;

pub use crate::attested::{Certification, Quote};

pub use self::{
    attestor::{AttestationIdentity, KeyQuoteRequest, QuoteRequest, TpmAttestor},
    device::{TpmDevice, TpmFigures},
    epoch::TpmEpoch,
    key_file::TpmKeyFile,
    sealed::{SEALED_LENGTH_MAX, TpmSealed},
    signer::TpmSigner,
};
