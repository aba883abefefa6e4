//! The evidence package: everything that a node hands out for one quote, as a file that others read.
//!
//! ```text
//!                     ┌─ JSON       one object, bytes in base64                  application/json
//!  EvidencePackage ───┼─ tar        POSIX ustar: the files of tpm2-tools         application/x-tar
//!                     └─ CMW        RFC 9999 collection in deterministic CBOR    application/cmw+cbor
//! ```
//!
//! Tar and CMW hold the same parts under the same names: a name is a file's in the one and a label's in the other. With the
//! tar unpacked, one line checks the quote and replays the log, `$data` being what [`crate::quote_qualifying_data`] says:
//!
//! ```text
//! tpm2_checkquote -u ak.pub -m quote.msg -s quote.sig -f pcrs.bin -g sha256 -q $data -e bios_measurements
//! ```
//!
//! | part | what |
//! |---|---|
//! | `nonce` | the verifier's 32 bytes |
//! | `checkpoint` | `Sig_structure` of the checkpoint that the quote speaks for (RFC 9052 section 4.4) |
//! | `quote.msg`, `quote.sig` | `TPMS_ATTEST` and `TPMT_SIGNATURE` |
//! | `pcrs.bin` | values of the quoted PCRs, `serialized` of tpm2-tools |
//! | `ak.pub` | `TPM2B_PUBLIC` of the attestation key |
//! | `bios_measurements` | boot event log, if there is one |
//! | `ima_log` | the kernel's log, if there is one |
//! | `manifest.json` | release manifest, if there is one; not judged here |
//! | `keys/NAME.spki`, `keys/NAME.provider` | a key of the node, `SubjectPublicKeyInfo` in DER, and where it says that it is |
//! | `keys/NAME.msg`, `.sig`, `.pub` | certification of a key in the TPM, and its `TPMT_PUBLIC` |
//! | `keys/NAME.msg`, `.sig`, `.pcrs` | quote that binds a key outside the TPM |
//!
//! [`appraise_package`] judges all of it against what a verifier asked and believes.

mod appraisal;
mod cmw;
mod content;
mod error;
mod json;
mod part;
mod tar;
mod verdict;

pub use self::{
    appraisal::{PackageExpectation, appraise_package},
    content::{EvidencePackage, KeyEvidence, KeyProof, KeyProvider, PackageEncoding},
    error::PackageError,
    part::{KEY_NAME_LENGTH_MAX, KEYS_MAX, PACKAGE_LENGTH_MAX, SPKI_LENGTH_MAX, part_length_max},
    verdict::{KeyFact, KeyReason, KeyTrust, PackageReason, PackageVerdict},
};
pub(crate) use self::{
    appraisal::{certification, key_quote},
    json::Base64,
};
