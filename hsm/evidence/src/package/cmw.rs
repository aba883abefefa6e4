//! A CMW collection (RFC 9999, RATS Conceptual Messages Wrapper) in CBOR.
//!
//! From the RFC: a `cbor-collection` is a map from labels to CMWs; each of ours is a `cbor-record`, an array of media type,
//! bytes, and the indicator of its kind of message (bit 0 reference values, bit 2 evidence); labels are text; the media type
//! of the whole is `application/cmw+cbor`, and its first byte tells it from JSON and from a record. Not from the RFC, which
//! leaves it to the profile: labels are the names of the tar's files; the map is deterministic (RFC 8949 section 4.2.1) and
//! anything else is refused; there is no `__cmwc_t`, no nesting and no tunnel. The RFC gives a collection no protection of
//! its own: here the quote binds nonce and checkpoint, and the attestation key binds the keys.
//!
//! TCG structures have no registered media types. Those used are in the vendor tree, `application/vnd.stele.*`, not
//! registered either, and named after the structure: `tpms-attest`, `tpmt-signature`, `tpm2b-public`, `tpmt-public`,
//! `tcg-event-log`, `ima-log`, `tpm2-tools-pcrs`, `spki`.

use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Decoder, Encoder, encode};

use crate::package::{
    content::EvidencePackage,
    error::PackageError,
    part::{Kind, PACKAGE_LENGTH_MAX, Part, Parts},
};

impl EvidencePackage {
    /// The package as a CMW collection in CBOR.
    ///
    /// # Errors
    /// As [`EvidencePackage::encode`].
    pub fn to_cmw(&self) -> Result<Vec<u8>, PackageError> {
        let mut parts = self.parts()?;
        // Keys of a deterministic map are in the order of their encoded bytes: below 24 characters the head has the length,
        // longer ones follow, and all names have fewer than 256.
        parts.sort_by(|one, other| (one.name.len(), &one.name).cmp(&(other.name.len(), &other.name)));
        let mut bytes = Vec::new();
        // Writing to memory does not fail.
        let Ok(()) = write(&mut bytes, &parts) else { return Err(PackageError::Truncated) };
        if bytes.len() > PACKAGE_LENGTH_MAX {
            return Err(PackageError::TooLarge { part: "package", limit: PACKAGE_LENGTH_MAX });
        }
        Ok(bytes)
    }

    /// Reads a package from a CMW collection in CBOR; only the bytes that [`Self::to_cmw`] writes are taken.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn from_cmw(bytes: &[u8]) -> Result<Self, PackageError> {
        if bytes.len() > PACKAGE_LENGTH_MAX {
            return Err(PackageError::TooLarge { part: "package", limit: PACKAGE_LENGTH_MAX });
        }
        let mut decoder = Decoder::new(bytes);
        let mut parts = Parts::default();
        let malformed = |reason| PackageError::Malformed { reason };
        let count = decoder.map().map_err(|error| refused(&error))?;
        let count = count.ok_or(malformed("a collection has a definite length"))?;
        for _ in 0..count {
            let label = decoder.str().map_err(|error| refused(&error))?;
            let (kind, _) = Kind::of_name(label)?;
            if decoder.array().map_err(|error| refused(&error))? != Some(3) {
                return Err(malformed("a record is an array of media type, bytes and indicator"));
            }
            if decoder.str().map_err(|error| refused(&error))? != kind.media_type {
                return Err(malformed("a record has another media type than its label's"));
            }
            let content = decoder.bytes().map_err(|error| refused(&error))?;
            if decoder.u8().map_err(|error| refused(&error))? != kind.indicator {
                return Err(malformed("a record has another indicator than its label's"));
            }
            parts.insert(label, content)?;
        }
        if decoder.position() != bytes.len() {
            return Err(malformed("bytes follow the collection"));
        }
        let package = Self::from_parts(parts)?;
        if package.to_cmw()? != bytes {
            return Err(malformed("the collection is not deterministic CBOR"));
        }
        Ok(package)
    }
}

fn write(bytes: &mut Vec<u8>, parts: &[Part<'_>]) -> Result<(), encode::Error<Infallible>> {
    let mut encoder = Encoder::new(bytes);
    encoder.map(u64::try_from(parts.len()).unwrap_or_default())?;
    for part in parts {
        encoder.str(&part.name)?.array(3)?;
        encoder.str(part.kind.media_type)?.bytes(part.bytes)?.u8(part.kind.indicator)?;
    }
    Ok(())
}

fn refused(error: &minicbor::decode::Error) -> PackageError {
    if error.is_end_of_input() {
        PackageError::Truncated
    } else {
        PackageError::Malformed { reason: "not the CBOR of a CMW collection" }
    }
}
