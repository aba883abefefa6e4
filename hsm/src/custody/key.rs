//! The custody key itself.

use std::{fmt, path::Path};

use p256::SecretKey;
use zeroize::Zeroizing;

use crate::{
    SignerError,
    custody::{
        class_key::{ClassKey, SealedClassKey},
        envelope::{self, CustodyPublicKey},
    },
    error::custody,
    key_file,
};

/// A node's custody key, or another P-256 key that things are sealed for: of whoever holds a share. Wiped when it is dropped.
pub struct CustodyKey {
    key: SecretKey,
    public_key: CustodyPublicKey,
}

impl CustodyKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`SignerError::Custody`] if it has no encoding, which no valid key lacks.
    pub fn generate() -> Result<Self, SignerError> {
        Self::from_key(SecretKey::random(&mut rand_core::OsRng))
    }

    /// The key of a secret, a scalar of 32 bytes.
    ///
    /// # Errors
    /// [`SignerError::Custody`] for bytes that are no such scalar.
    pub fn from_secret(secret: &[u8]) -> Result<Self, SignerError> {
        Self::from_key(SecretKey::from_slice(secret).map_err(|_| custody("the key is out of range"))?)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`SignerError::KeyFilePermissions`] unless only the owner may touch the file,
    /// [`SignerError::KeyFileMalformed`], [`SignerError::KeyFileIo`].
    pub fn read(path: &Path) -> Result<Self, SignerError> {
        Self::from_key(key_file::read(path)?)
    }

    /// Writes it to a new file of mode 0600.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`].
    pub fn save_new(&self, path: &Path) -> Result<(), SignerError> {
        key_file::write_new(path, &self.key)
    }

    /// Its secret, a scalar of 32 bytes, to be sealed.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &CustodyPublicKey {
        &self.public_key
    }

    /// Opens a class key.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when it was not sealed for this key under its name.
    pub fn open_class_key(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError> {
        let opened = self.open(&key.name.info(), &key.sealed);
        ClassKey::from_bytes(
            &opened.ok_or(custody("the class key was not sealed for this custody key under its name"))?,
        )
    }

    /// Opens what was sealed for this key and bound to `info`.
    pub(super) fn open(&self, info: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        envelope::open(&self.key, info, sealed)
    }

    pub(super) const fn scalar(&self) -> &SecretKey {
        &self.key
    }

    pub(super) fn from_key(key: SecretKey) -> Result<Self, SignerError> {
        let public_key = envelope::public_key(&key).ok_or(custody("the key is out of range"))?;
        Ok(Self { key, public_key })
    }
}

impl fmt::Debug for CustodyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CustodyKey").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}
