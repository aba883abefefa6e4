//! Statements as other people carry them: with receipts attached (RFC 9943, Transparent Statement).
//!
//! What was registered has an empty unprotected header. Receipts attached later sit in it under label 394, so they are
//! taken off before anything is hashed.

use alloc::vec::Vec;

use stele_types::cbor::{CborError, Decoder, Encoder};
use stele_types::limits::STATEMENT_BYTES_MAX;
use stele_types::statement::Statement;

use crate::error::{Part, Signer, VerifyError};
use crate::key::PublicKey;
use crate::signature::{self, Refusal};

/// Header label under which receipts are attached (RFC 9942).
pub const LABEL_RECEIPTS: u64 = 394;
/// Receipts attached to one statement: a few networks and a few renewals.
pub const RECEIPTS_ATTACHED_MAX: usize = 16;
/// Bytes of one attached receipt: protected header, 63 hashes, signature, with room for other networks' claims.
pub const RECEIPT_BYTES_MAX: usize = 8 * 1024;

/// A statement as it was registered, with the receipts that were attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripped<'b> {
    /// The entry: the bytes that were signed, submitted and hashed into the log.
    pub entry: Vec<u8>,
    /// The receipts, still encoded.
    pub receipts: Vec<&'b [u8]>,
}

/// Takes attached receipts off. A statement without any comes back as it is.
///
/// # Errors
/// `malformed` when the bytes are no COSE_Sign1 or the unprotected header holds anything but receipts; `too_large`.
pub fn strip_receipts(statement: &[u8]) -> Result<Stripped<'_>, VerifyError> {
    const PART: Part = Part::TransparentStatement;
    let length = statement.len();
    if length > STATEMENT_BYTES_MAX + RECEIPTS_ATTACHED_MAX * RECEIPT_BYTES_MAX {
        return Err(VerifyError::TooLarge { part: PART, length });
    }
    let malformed = |source: CborError| VerifyError::Malformed { part: PART, source };
    let (header, receipts) = attached(statement).map_err(malformed)?;
    let mut entry = Vec::with_capacity(length);
    entry.extend_from_slice(&statement[..header.start]);
    entry.push(0xa0);
    entry.extend_from_slice(&statement[header.end..]);
    Ok(Stripped { entry, receipts })
}

/// Where the unprotected header lies, and the receipts in it.
fn attached(statement: &[u8]) -> Result<(core::ops::Range<usize>, Vec<&[u8]>), CborError> {
    let d = &mut Decoder::new(statement);
    if d.tag()?.as_u64() != 18 || d.array()? != Some(4) {
        return Err(CborError::Malformed);
    }
    d.bytes()?;
    let start = d.position();
    let mut receipts = Vec::new();
    match d.map()? {
        Some(0) => {}
        Some(1) if d.u64()? == LABEL_RECEIPTS => {
            let count = d.array()?.ok_or(CborError::Malformed)?;
            if count == 0 || usize::try_from(count).map_or(true, |count| count > RECEIPTS_ATTACHED_MAX) {
                return Err(CborError::TooLarge);
            }
            for _ in 0..count {
                let receipt = d.bytes()?;
                if receipt.len() > RECEIPT_BYTES_MAX {
                    return Err(CborError::TooLarge);
                }
                receipts.push(receipt);
            }
        }
        _ => return Err(CborError::UnknownKey),
    }
    let end = d.position();
    d.bytes()?;
    d.bytes()?;
    if d.position() == statement.len() { Ok((start..end, receipts)) } else { Err(CborError::TrailingBytes) }
}

/// Attaches receipts to an entry: a Transparent Statement.
///
/// # Errors
/// `malformed` when the entry is no COSE_Sign1 or has receipts already, or the receipts are none or too many.
pub fn attach_receipts(entry: &[u8], receipts: &[&[u8]]) -> Result<Vec<u8>, VerifyError> {
    let malformed = |source: CborError| VerifyError::Malformed { part: Part::TransparentStatement, source };
    let (header, present) = attached(entry).map_err(malformed)?;
    if !present.is_empty() {
        return Err(malformed(CborError::UnknownKey));
    }
    if receipts.is_empty() || receipts.len() > RECEIPTS_ATTACHED_MAX {
        return Err(malformed(CborError::TooLarge));
    }
    let mut unprotected = Vec::new();
    let mut e = Encoder::new(&mut unprotected);
    let written = e.map(1).and_then(|e| e.u64(LABEL_RECEIPTS)).and_then(|e| e.array(receipts.len() as u64)).is_ok()
        && receipts.iter().all(|receipt| e.bytes(receipt).is_ok());
    debug_assert!(written, "writing CBOR to memory cannot fail");
    Ok([&entry[..header.start], &unprotected, &entry[header.end..]].concat())
}

/// Parses an entry and checks its issuer's signature under `key`.
///
/// The key is enrolled on the ledger; that it belonged to the issuer is proven by a [state proof](crate::state), or by
/// the registration itself, because validators check it before they vote.
///
/// # Errors
/// `statement_invalid`, `key_mismatch` when the statement names another key, `key_invalid`, `signature_invalid`.
pub fn verify(entry: &[u8], key: &PublicKey) -> Result<Statement, VerifyError> {
    let statement = parse(entry)?;
    if statement.suite() != key.suite() || statement.key() != key.id() {
        return Err(VerifyError::KeyMismatch);
    }
    check(key, &statement.signing_bytes(), statement.signature(), Signer::Issuer)?;
    Ok(statement)
}

pub(crate) fn parse(entry: &[u8]) -> Result<Statement, VerifyError> {
    Statement::parse(entry).map_err(VerifyError::StatementInvalid)
}

/// [`signature::verify`] with the errors of this crate.
pub(crate) fn check(key: &PublicKey, message: &[u8], signature: &[u8], signer: Signer) -> Result<(), VerifyError> {
    signature::verify(key.suite(), key.as_bytes(), message, signature).map_err(|refusal| match refusal {
        Refusal::Suite => VerifyError::SuiteUnsupported(key.suite()),
        Refusal::Key => VerifyError::KeyInvalid(key.suite()),
        Refusal::Signature => VerifyError::SignatureInvalid(signer),
    })
}
