//! The trait of whatever uses a node's custody key.

use async_trait::async_trait;

use crate::{
    SignerError,
    custody::{BlobKey, ClassKey, CustodyPublicKey, SealedClassKey},
};

/// Uses a node's custody key, wherever it is.
#[async_trait]
pub trait Custodian: Send + Sync {
    /// The public half, for which other nodes seal their class keys.
    fn public_key(&self) -> &CustodyPublicKey;

    /// Opens a class key.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when it was not sealed for this custody key under its name, and errors of what holds the key.
    async fn class_key(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError>;

    /// Makes a class key of a class and seals it for this custody key, which takes its public half alone.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when the system gives no random numbers.
    async fn make_class_key(&self, network: &[u8; 32], class: u16) -> Result<SealedClassKey, SignerError> {
        ClassKey::make(network, class, self.public_key())
    }

    /// Seals a class key for another node's custody key.
    ///
    /// # Errors
    /// Those of [`Self::class_key`], and [`SignerError::Custody`] when `recipient` is no public key.
    async fn reseal(&self, key: &SealedClassKey, recipient: &CustodyPublicKey) -> Result<SealedClassKey, SignerError> {
        self.class_key(key).await?.seal(key.name, recipient)
    }

    /// The key of the blob with this salt.
    ///
    /// # Errors
    /// Those of [`Self::class_key`].
    async fn blob_key(&self, key: &SealedClassKey, salt: &[u8; 32]) -> Result<BlobKey, SignerError> {
        Ok(self.class_key(key).await?.blob_key(salt))
    }
}
