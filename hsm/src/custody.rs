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

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use hkdf::Hkdf;
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha256, kem::DhP256HkdfSha256,
    single_shot_open, single_shot_seal,
};
use hpke_rand_core::{OsRng, TryRngCore as _};
use p256::SecretKey;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{SignerError, key_file};

type Kem = DhP256HkdfSha256;

/// Domain of the seal around a class key; what the key is for is bound to it.
const CLASS_KEY_DOMAIN: &[u8] = b"stele/class-key/v1";

/// Domain of blob keys.
const BLOB_KEY_DOMAIN: &[u8] = b"stele/blob-key/v1";

/// Bytes of a class key and of a blob key.
const KEY_LENGTH: usize = 32;

/// Bytes of an encapsulated key: an uncompressed SEC1 point.
const ENCAPSULATED_LENGTH: usize = 65;

/// Bytes of [`SealedClassKey::sealed`]: the encapsulated key, then the class key and its tag.
pub const SEALED_KEY_LENGTH: usize = ENCAPSULATED_LENGTH + KEY_LENGTH + 16;

/// Class keys that are kept open: a network has a few for each class and node.
const OPEN_KEYS_MAX: usize = 256;

/// Public half of a custody key: an uncompressed SEC1 point.
pub type CustodyPublicKey = [u8; ENCAPSULATED_LENGTH];

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
    fn info(&self) -> Vec<u8> {
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKey(secret)")
    }
}

/// Holds a node's custody key.
#[async_trait]
pub trait Custodian: Send + Sync {
    /// The public half, for which other nodes seal their class keys.
    fn public_key(&self) -> &CustodyPublicKey;

    /// Makes a class key of a class and seals it for this custody key.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when the key cannot be used.
    async fn make_class_key(&self, network: &[u8; 32], class: u16) -> Result<SealedClassKey, SignerError>;

    /// Seals a class key for another node's custody key.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when it was not sealed for this key under its name, or `recipient` is no public key.
    async fn reseal(&self, key: &SealedClassKey, recipient: &CustodyPublicKey) -> Result<SealedClassKey, SignerError>;

    /// The key of the blob with this salt.
    ///
    /// # Errors
    /// [`SignerError::Custody`] when the class key was not sealed for this key under its name.
    async fn blob_key(&self, key: &SealedClassKey, salt: &[u8; 32]) -> Result<BlobKey, SignerError>;
}

/// A custody key read from a file: for development, tests and the demo, chosen by name in the configuration.
pub struct SoftwareCustodian {
    key: <Kem as hpke::Kem>::PrivateKey,
    public_key: CustodyPublicKey,
    /// Opening one takes longer than sealing a small blob.
    open: Mutex<HashMap<ClassKeyName, ClassKey>>,
}

#[derive(Clone)]
struct ClassKey(Zeroizing<[u8; KEY_LENGTH]>);

impl SoftwareCustodian {
    /// Makes a new key, writes it to a new file of mode 0600 and opens it.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`].
    pub fn generate(path: &Path) -> Result<Self, SignerError> {
        let key = SecretKey::random(&mut rand_core::OsRng);
        key_file::write_new(path, &key)?;
        Self::from_key(&key)
    }

    /// Opens a key file.
    ///
    /// # Errors
    /// [`SignerError::KeyFilePermissions`] unless only the owner may touch the file,
    /// [`SignerError::KeyFileMalformed`], [`SignerError::KeyFileIo`].
    pub fn open(path: &Path) -> Result<Self, SignerError> {
        Self::from_key(&key_file::read(path)?)
    }

    fn from_key(key: &SecretKey) -> Result<Self, SignerError> {
        let bytes = Zeroizing::new(key.to_bytes());
        let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes).map_err(|_| custody("the key is out of range"))?;
        let mut public_key = [0; ENCAPSULATED_LENGTH];
        public_key.copy_from_slice(&Kem::sk_to_pk(&key).to_bytes());
        Ok(Self { key, public_key, open: Mutex::default() })
    }

    fn open_class_key(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&key.name) {
            return Ok(known.clone());
        }
        let opened = self.unseal(key)?;
        if open.len() == OPEN_KEYS_MAX {
            open.clear();
        }
        open.insert(key.name, opened.clone());
        Ok(opened)
    }

    fn unseal(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError> {
        let refused = || custody("the class key was not sealed for this custody key under its name");
        let (encapsulated, sealed) = key.sealed.split_at(ENCAPSULATED_LENGTH);
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| refused())?;
        let info = key.name.info();
        let opened = single_shot_open::<AesGcm256, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.key,
            &encapsulated,
            &info,
            sealed,
            &[],
        );
        let opened = Zeroizing::new(opened.map_err(|_| refused())?);
        let class_key = <[u8; KEY_LENGTH]>::try_from(&opened[..]).map_err(|_| refused())?;
        Ok(ClassKey(Zeroizing::new(class_key)))
    }
}

impl fmt::Debug for SoftwareCustodian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareCustodian").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

#[async_trait]
impl Custodian for SoftwareCustodian {
    fn public_key(&self) -> &CustodyPublicKey {
        &self.public_key
    }

    async fn make_class_key(&self, network: &[u8; 32], class: u16) -> Result<SealedClassKey, SignerError> {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        let mut id = [0; 16];
        random(&mut *key)?;
        random(&mut id)?;
        seal(ClassKeyName { network: *network, class, id }, &*key, &self.public_key)
    }

    async fn reseal(&self, key: &SealedClassKey, recipient: &CustodyPublicKey) -> Result<SealedClassKey, SignerError> {
        seal(key.name, &*self.open_class_key(key)?.0, recipient)
    }

    async fn blob_key(&self, key: &SealedClassKey, salt: &[u8; 32]) -> Result<BlobKey, SignerError> {
        let class_key = self.open_class_key(key)?;
        Ok(BlobKey(expand(&Hkdf::<Sha256>::new(Some(salt), &*class_key.0), &[BLOB_KEY_DOMAIN])))
    }
}

fn seal(name: ClassKeyName, key: &[u8], recipient: &CustodyPublicKey) -> Result<SealedClassKey, SignerError> {
    let recipient =
        <Kem as hpke::Kem>::PublicKey::from_bytes(recipient).map_err(|_| custody("the recipient is no public key"))?;
    let failed = |_| custody("the class key cannot be sealed");
    let (encapsulated, ciphertext) = single_shot_seal::<AesGcm256, HkdfSha256, Kem, _>(
        &OpModeS::Base,
        &recipient,
        &name.info(),
        key,
        &[],
        &mut OsRng.unwrap_err(),
    )
    .map_err(failed)?;
    let sealed = [&encapsulated.to_bytes()[..], &ciphertext].concat();
    Ok(SealedClassKey { name, sealed: sealed.try_into().map_err(|_| custody("the class key has another length"))? })
}

fn expand(key: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; KEY_LENGTH]> {
    let mut derived = Zeroizing::new([0; KEY_LENGTH]);
    // RFC 5869 allows 255 times the digest.
    let expanded = key.expand_multi_info(info, &mut *derived);
    debug_assert!(expanded.is_ok(), "one digest");
    derived
}

fn random(bytes: &mut [u8]) -> Result<(), SignerError> {
    OsRng.try_fill_bytes(bytes).map_err(|_| custody("the system gives no random numbers"))
}

const fn custody(reason: &'static str) -> SignerError {
    SignerError::Custody { reason }
}
