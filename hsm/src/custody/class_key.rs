//! Class keys, and the keys of blobs that follow from them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    SignerError,
    custody::envelope::{self, CustodyPublicKey, OVERHEAD},
    error::custody,
};

/// Domain of the seal around a class key; what the key is for is bound to it.
const CLASS_KEY_DOMAIN: &[u8] = b"stele/class-key/v1";

/// Domain of blob keys.
const BLOB_KEY_DOMAIN: &[u8] = b"stele/blob-key/v1";

/// Bytes of a class key and of a blob key.
pub(super) const KEY_LENGTH: usize = 32;

/// Bytes of [`SealedClassKey::sealed`]: the encapsulated key, then the class key and its tag.
pub const SEALED_KEY_LENGTH: usize = OVERHEAD + KEY_LENGTH;

/// Class keys that are kept open: a network has a few for each class and node.
const OPEN_KEYS_MAX: usize = 256;

/// Which class key: where it counts and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassKeyName {
    /// Network.
    pub network: [u8; 32],
    /// Class of records, by its number on the ledger.
    pub class: u16,
    /// 128 random bits. Blobs name their key by it.
    pub id: [u8; 16],
}

impl ClassKeyName {
    pub(super) fn info(&self) -> Vec<u8> {
        [CLASS_KEY_DOMAIN, &self.network, &self.class.to_be_bytes(), &self.id].concat()
    }
}

/// A class key, sealed for one custody key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedClassKey {
    /// Which key.
    pub name: ClassKeyName,
    /// Encapsulated key and ciphertext.
    pub sealed: [u8; SEALED_KEY_LENGTH],
}

/// A class key in clear. Wiped when it is dropped, and never shown.
#[derive(Clone)]
pub struct ClassKey(Zeroizing<[u8; KEY_LENGTH]>);

impl ClassKey {
    /// A class key of its bytes.
    ///
    /// # Errors
    /// [`SignerError::Custody`] if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignerError> {
        let key = bytes.try_into().map_err(|_| custody("the class key has another length"))?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// Its bytes, for the process that asked `stele-signer` to open it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }

    /// Makes a key and seals it for its first custody key.
    pub(super) fn make(
        network: &[u8; 32],
        class: u16,
        recipient: &CustodyPublicKey,
    ) -> Result<SealedClassKey, SignerError> {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        let mut id = [0; 16];
        let random = envelope::random(&mut *key).and_then(|()| envelope::random(&mut id));
        random.ok_or(custody("the system gives no random numbers"))?;
        Self(key).seal(ClassKeyName { network: *network, class, id }, recipient)
    }

    /// Seals it for a custody key.
    pub(super) fn seal(&self, name: ClassKeyName, recipient: &CustodyPublicKey) -> Result<SealedClassKey, SignerError> {
        let sealed = envelope::seal(recipient, &name.info(), &*self.0);
        let sealed = sealed.ok_or(custody("the recipient is no public key"))?;
        Ok(SealedClassKey { name, sealed: sealed.try_into().map_err(|_| custody("the class key has another length"))? })
    }

    /// The key of the blob with this salt.
    #[must_use]
    pub(super) fn blob_key(&self, salt: &[u8; 32]) -> BlobKey {
        BlobKey(expand(&Hkdf::<Sha256>::new(Some(salt), &*self.0), &[BLOB_KEY_DOMAIN]))
    }
}

impl fmt::Debug for ClassKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClassKey(secret)")
    }
}

/// The key of one blob. Wiped when it is dropped, and never shown.
pub struct BlobKey(Zeroizing<[u8; KEY_LENGTH]>);

impl BlobKey {
    /// A key for `purpose`, made of this one: the cipher and the commitment must not share theirs.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; KEY_LENGTH]> {
        expand(&Hkdf::<Sha256>::new(None, &*self.0), &[BLOB_KEY_DOMAIN, purpose])
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BlobKey(secret)")
    }
}

/// Class keys that are open: opening one takes longer than sealing a small blob.
#[derive(Default)]
pub(crate) struct OpenClassKeys(Mutex<HashMap<ClassKeyName, ClassKey>>);

impl OpenClassKeys {
    pub(crate) fn find(&self, name: &ClassKeyName) -> Option<ClassKey> {
        self.lock().get(name).cloned()
    }

    pub(crate) fn keep(&self, name: ClassKeyName, key: &ClassKey) {
        let mut open = self.lock();
        if open.len() == OPEN_KEYS_MAX {
            open.clear();
        }
        open.insert(name, key.clone());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClassKeyName, ClassKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expand(key: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; KEY_LENGTH]> {
    let mut derived = Zeroizing::new([0; KEY_LENGTH]);
    // RFC 5869 allows 255 times the digest.
    let expanded = key.expand_multi_info(info, &mut *derived);
    debug_assert!(expanded.is_ok(), "one digest");
    derived
}
