//! A custody key in a file of this process.

use std::{fmt, path::Path};

use async_trait::async_trait;

use crate::{
    SignerError,
    custody::{
        class_key::{ClassKey, OpenClassKeys, SealedClassKey},
        custodian::Custodian,
        envelope::CustodyPublicKey,
        key::CustodyKey,
    },
};

/// A custody key read from a file: for development, tests and the demo, chosen by name in the configuration.
pub struct SoftwareCustodian {
    key: CustodyKey,
    open: OpenClassKeys,
}

impl SoftwareCustodian {
    /// Makes a new key, writes it to a new file of mode 0600 and opens it.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`].
    pub fn generate(path: &Path) -> Result<Self, SignerError> {
        let key = CustodyKey::generate()?;
        key.save_new(path)?;
        Ok(Self { key, open: OpenClassKeys::default() })
    }

    /// Opens a key file.
    ///
    /// # Errors
    /// Those of [`CustodyKey::read`].
    pub fn open(path: &Path) -> Result<Self, SignerError> {
        Ok(Self { key: CustodyKey::read(path)?, open: OpenClassKeys::default() })
    }
}

impl fmt::Debug for SoftwareCustodian {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SoftwareCustodian").field("key", &self.key).finish_non_exhaustive()
    }
}

#[async_trait]
impl Custodian for SoftwareCustodian {
    fn public_key(&self) -> &CustodyPublicKey {
        self.key.public_key()
    }

    async fn class_key(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError> {
        if let Some(known) = self.open.find(&key.name) {
            return Ok(known);
        }
        let opened = self.key.open_class_key(key)?;
        self.open.keep(key.name, &opened);
        Ok(opened)
    }
}
