//! The parts of a package: their names, media types and bounds.

use alloc::{borrow::Cow, collections::BTreeMap, string::String};

use crate::{event_log, nonce::NONCE_LENGTH, package::error::PackageError};

/// Longest package in bytes, as tar or CMW; JSON takes a third more. The two logs are nearly all of it.
pub const PACKAGE_LENGTH_MAX: usize = 24 << 20;

/// Longest kernel log in a package. An immutable image measures what runs from outside it, so its log stays far shorter; a
/// longer one is fetched by itself.
const IMA_LOG_LENGTH_MAX: usize = 16 << 20;

/// Keys of one package. A node has three; each may be renewed while the one before is still in use.
pub const KEYS_MAX: usize = 16;

/// Longest name of a key, characters.
pub const KEY_NAME_LENGTH_MAX: usize = 32;

/// Longest public key in bytes: those of reserved suites have 3 KiB.
pub const SPKI_LENGTH_MAX: usize = 4096;

/// Bits of the CMW indicator: what kind of conceptual message a record is (RFC 9999, `cm-type`).
const REFERENCE_VALUES: u8 = 1 << 0;
const EVIDENCE: u8 = 1 << 2;

/// What a part is.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its name; that of a key's part begins with [`KEY_PREFIX`] and `*` for the key.
    pub(super) name: &'static str,
    pub(super) media_type: &'static str,
    pub(super) indicator: u8,
    /// Bytes at most.
    pub(super) length_max: usize,
}

/// Folder of the keys' parts.
const KEY_PREFIX: &str = "keys/";

macro_rules! kinds {
    ($($constant:ident $name:literal $media_type:literal $indicator:ident $length_max:expr;)*) => {
        $(pub(super) const $constant: &Kind = &Kind {
            name: $name,
            media_type: $media_type,
            indicator: $indicator,
            length_max: $length_max,
        };)*
        const KINDS: &[&Kind] = &[$($constant),*];
    };
}

kinds! {
    NONCE "nonce" "application/octet-stream" EVIDENCE NONCE_LENGTH;
    // As long as anything that a signer signs.
    CHECKPOINT "checkpoint" "application/cbor" EVIDENCE 4096;
    QUOTE_MESSAGE "quote.msg" "application/vnd.stele.tpms-attest" EVIDENCE 1024;
    QUOTE_SIGNATURE "quote.sig" "application/vnd.stele.tpmt-signature" EVIDENCE 1040;
    // Sixteen banks of 24 PCRs, each in a place of 66 bytes.
    PCRS "pcrs.bin" "application/vnd.stele.tpm2-tools-pcrs" EVIDENCE 26 << 10;
    ATTESTATION_KEY "ak.pub" "application/vnd.stele.tpm2b-public" EVIDENCE 1026;
    EVENT_LOG "bios_measurements" "application/vnd.stele.tcg-event-log" EVIDENCE event_log::LOG_LENGTH_MAX;
    IMA_LOG "ima_log" "application/vnd.stele.ima-log" EVIDENCE IMA_LOG_LENGTH_MAX;
    MANIFEST "manifest.json" "application/json" REFERENCE_VALUES 1 << 20;
    KEY_SPKI "keys/*.spki" "application/vnd.stele.spki" EVIDENCE SPKI_LENGTH_MAX;
    KEY_PROVIDER "keys/*.provider" "text/plain" EVIDENCE 16;
    KEY_MESSAGE "keys/*.msg" "application/vnd.stele.tpms-attest" EVIDENCE 1024;
    KEY_SIGNATURE "keys/*.sig" "application/vnd.stele.tpmt-signature" EVIDENCE 1040;
    KEY_PUBLIC "keys/*.pub" "application/vnd.stele.tpmt-public" EVIDENCE 1024;
    KEY_PCRS "keys/*.pcrs" "application/vnd.stele.tpm2-tools-pcrs" EVIDENCE 26 << 10;
}

impl Kind {
    /// The kind of a part of this name, and the key that it is about.
    pub(super) fn of_name(name: &str) -> Result<(&'static Self, Option<&str>), PackageError> {
        let unknown = || PackageError::unknown(name.as_bytes());
        let Some(rest) = name.strip_prefix(KEY_PREFIX) else {
            let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(unknown)?;
            return Ok((kind, None));
        };
        let (key, suffix) = rest.split_once('.').ok_or_else(unknown)?;
        if !is_key_name(key) {
            return Err(unknown());
        }
        let of_key = |kind: &&&Self| kind.name.strip_prefix("keys/*.") == Some(suffix);
        let kind = KINDS.iter().find(of_key).ok_or_else(unknown)?;
        Ok((kind, Some(key)))
    }

    /// The name of this part of `key`.
    pub(super) fn name_of(&self, key: &str) -> String {
        self.name.replace('*', key)
    }

    pub(super) const fn require_length(&self, length: usize) -> Result<(), PackageError> {
        if length > self.length_max {
            return Err(PackageError::TooLarge { part: self.name, limit: self.length_max });
        }
        Ok(())
    }
}

/// Lower-case letters, digits, `-` and `_`: a name that is a file's everywhere and never a path.
pub(super) fn is_key_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=KEY_NAME_LENGTH_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// Bytes at most of the part of this name, or `None` if a package has no such part: for readers of folders.
#[must_use]
pub fn part_length_max(name: &str) -> Option<usize> {
    Kind::of_name(name).ok().map(|(kind, _)| kind.length_max)
}

/// A part with its bytes.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: &'static Kind,
    pub(super) bytes: &'a [u8],
}

/// Parts as they are read, by name; each is within its bounds and there once.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    parts: BTreeMap<&'a str, (&'static Kind, &'a [u8])>,
}

impl<'a> Parts<'a> {
    /// Takes a part up. Its length was checked against its kind's.
    pub(super) fn insert(&mut self, name: &'a str, bytes: &'a [u8]) -> Result<(), PackageError> {
        let (kind, _) = Kind::of_name(name)?;
        kind.require_length(bytes.len())?;
        match self.parts.insert(name, (kind, bytes)) {
            None => Ok(()),
            Some(_) => Err(PackageError::Repeated { part: kind.name }),
        }
    }

    pub(super) fn take(&mut self, kind: &Kind) -> Option<&'a [u8]> {
        self.parts.remove(kind.name).map(|(_, bytes)| bytes)
    }

    pub(super) fn require(&mut self, kind: &Kind) -> Result<&'a [u8], PackageError> {
        self.take(kind).ok_or(PackageError::Missing { part: kind.name })
    }

    pub(super) fn take_of_key(&mut self, kind: &Kind, key: &str) -> Option<&'a [u8]> {
        self.parts.remove(kind.name_of(key).as_str()).map(|(_, bytes)| bytes)
    }

    /// A key of which a part is left.
    pub(super) fn next_key(&self) -> Option<&'a str> {
        let (name, _) = self.parts.first_key_value()?;
        Kind::of_name(name).ok()?.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_strange_name_no_part() {
        assert!(Kind::of_name("quote.msg").is_ok_and(|(kind, key)| kind.name == "quote.msg" && key.is_none()));
        assert!(Kind::of_name("keys/seal.spki").is_ok_and(|(_, key)| key == Some("seal")));
        for name in [
            "",
            "quote",
            "/quote.msg",
            "../nonce",
            "./nonce",
            "keys/../nonce",
            "keys/..spki",
            "keys/.spki",
            "keys/*.spki",
            "keys/a/b.spki",
            "keys/Seal.spki",
            "keys/seal",
            "keys/seal.spki.spki",
            "keys/seal.exe",
            "nonce\0",
            "keys/0123456789abcdef0123456789abcdef0.spki",
        ] {
            assert!(Kind::of_name(name).is_err(), "{name}");
        }
    }
}
