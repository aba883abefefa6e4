//! Keys of custody: what bodies of records are sealed with.
//!
//! ```text
//!  custody key (P-256, one per node) ──opens──► class key (256 bits) ──HKDF, salt of the blob──► blob key
//!        │ public half                               ▲
//!        └── other nodes ──seal a class key for it ──┘
//! ```
//!
//! A class key never leaves the room in clear. It is made here, given out sealed for the custody key of the node that made
//! it (HPKE, RFC 9180, base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM), and can be sealed again for the
//! custody key of another node, so that a copy of a blob outlives its first node. What goes out in clear is the key of one
//! blob, derived from the class key and the blob's own salt.
//!
//! Where the custody key is, a [`Custodian`] knows alone: in a file of this process ([`SoftwareCustodian`]), or in
//! `stele-signer`, which opens class keys for this process and keeps the custody key (`remote::RemoteCustodian`). So that no
//! machine's end is its end, it can be split into shares for people who keep them ([`SealedShare`]).

mod class_key;
mod custodian;
mod envelope;
mod key;
mod polynomial;
mod share;
mod software;

pub use self::{
    class_key::{BlobKey, ClassKey, ClassKeyName, SEALED_KEY_LENGTH, SealedClassKey},
    custodian::Custodian,
    envelope::CustodyPublicKey,
    key::CustodyKey,
    share::{OpenShare, SHARES_MAX, SealedShare, ShareError, ShareHolder},
    software::SoftwareCustodian,
};

#[cfg(feature = "remote")]
pub(crate) use self::class_key::OpenClassKeys;
