//! Bodies of records: sealed before they are stored, and found by the root of what is stored.
//!
//! ```text
//!   PUT ──► Sealer (AES-256-GCM, key of this body alone) ──► stele_storage ──► unreferenced ──► {root, commitment, length}
//!                     ▲ class key, custody key (hsm)                               │
//!   blocks ──► statements that refer to a root ───────────────────────────────────┘ settled, or removed after a day
//! ```
//!
//! * No plaintext reaches a device: what [`stele_storage`] is given is ciphertext, and its root is that of the ciphertext.
//! * The commitment is `HMAC-SHA-256(salt, body)`; the salt is derived from the body's key, so that whoever cannot open the
//!   body cannot try out commitments either, and what erases the key erases the salt.
//! * A body that no applied statement refers to in time, a day unless configured otherwise, is removed; and, where that is
//!   configured, one whose year of retention is over.

pub(crate) mod blocks;
mod cold;
mod command;
mod custody;
mod drives;
mod error;
mod keys;
pub(crate) mod listing;
pub(crate) mod parts;
mod retention;
mod sealing;
mod slot;
mod unreferenced;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use stele_accel_hash::HashAlgorithm;
use stele_hsm::custody::{Custodian, SealedClassKey};
use stele_storage::{Group, Object, StorageError, Store, Upload};
use stele_types::record::RecordClass;
use stele_types::{Block, Genesis, Hash, Height, NetworkId, ObjectId, PartyId};

pub use blocks::BlockArchive;
pub use cold::Cold;
pub(crate) use command::StorageCommand;
pub use custody::{AskedCopy, Copied, Custody, CustodyError, Kept, KeptBody};
pub use error::PayloadError;
pub use sealing::{BlobHeader, CHUNK_BYTES, HEADER_BYTES};
pub use slot::PayloadSlot;
pub use upkeep::{Job, JobState, Upkeep};

use crate::chain::ChainError;
use crate::config::PayloadSection;
use crate::store::blocks::BlockStore;
use crate::store::durable;
use keys::ClassKeys;
use sealing::{Chunks, Opener, Sealer};
use unreferenced::{Holder, Unreferenced};

/// Bytes of a record of the store at most: what one read of it gives.
const RECORD_BYTES: usize = 1 << 20;

/// What the salt of a commitment is derived for.
const COMMITMENT_PURPOSE: &[u8] = b"commitment";

/// What a body belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Belonging {
    /// Class of its record.
    pub class: RecordClass,
    /// The year in which its retention ends; 0 if it does not. Bodies of one year are deleted together.
    pub retention_year: u16,
    /// Who puts it.
    pub party: PartyId,
    /// The record.
    pub record: ObjectId,
}

/// A body that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Content root of the sealed body.
    pub root: Hash,
    /// Hash of the root.
    pub hash: HashAlgorithm,
    /// `HMAC-SHA-256(salt, body)`.
    pub commitment: Hash,
    /// The salt. Secret, as the body is: with it a guess can be compared with the commitment.
    pub salt: [u8; 32],
    /// Bytes of the body.
    pub bytes: u64,
    /// How long it stays without a statement that refers to it.
    pub unreferenced_max: Duration,
}

/// The ledger whose statements refer to the bodies, when they are opened.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    /// Its network.
    pub network: NetworkId,
    /// Height of its newest block.
    pub height: Height,
    /// Time of that block, milliseconds.
    pub time_ms: u64,
    /// Height of the oldest block that the node has.
    pub history_min: Height,
}

impl Ledger {
    /// That of a chain, by its blocks alone.
    ///
    /// # Errors
    /// Damage or failure of the block store.
    pub fn of(genesis: &Genesis, blocks: &BlockStore) -> Result<Self, ChainError> {
        let height = blocks.tip()?.unwrap_or_default();
        let time_ms = match height {
            0 => genesis.time_ms,
            _ => Block::header_from_bytes(blocks.read(height)?.block())?.time_ms,
        };
        let history_min = Height(blocks.min()?.unwrap_or(1));
        Ok(Self { network: genesis.network(), height: Height(height), time_ms, history_min })
    }
}

/// Bodies of records on this node's drives.
pub struct Payload {
    store: Arc<Store>,
    keys: Arc<ClassKeys>,
    unreferenced: Unreferenced,
    unreferenced_max: Duration,
    bytes_max: u64,
    /// Bodies go when the year of their retention is over.
    deletes: bool,
    /// Time of the newest block that is known of, milliseconds.
    ledger_ms: AtomicU64,
    directory: PathBuf,
}

impl Payload {
    /// Opens the store that the section describes, and makes it where there is none.
    ///
    /// # Errors
    /// `Drive`, `Storage`, `Keys`, `Journal`.
    pub async fn open(
        section: &PayloadSection,
        data_dir: &Path,
        ledger: Ledger,
        custodian: Arc<dyn Custodian>,
    ) -> Result<Self, PayloadError> {
        let directory = data_dir.join("payload");
        durable::create_directory(&directory).map_err(|error| PayloadError::drive(&directory, error))?;
        let keys = Arc::new(ClassKeys::open(&directory, ledger.network, custodian)?);
        keys.check().await?;
        let unreferenced = Unreferenced::open(&directory, ledger)?;
        let (section, bytes_max, at) = (section.clone(), section.blob_bytes_max, directory.clone());
        let unreferenced_max = Duration::from_millis(section.unreferenced_ms);
        let deletes = section.delete_after_retention;
        let has_keepers = section.custody.as_ref().is_some_and(|custody| !custody.keepers.is_empty());
        let opened = tokio::task::spawn_blocking(move || drives::open(&section, &at)).await;
        let store = match opened {
            Ok(store) => Arc::new(store?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        if keys.is_empty().await && store.status().await?.records > 0 {
            if !has_keepers {
                return Err(PayloadError::keys(
                    &directory,
                    "the table is gone and the store holds bodies; put it back",
                ));
            }
            tracing::error!(
                "no class keys are here: those of bodies are fetched from other nodes when the bodies are read"
            );
        }
        let ledger_ms = AtomicU64::new(ledger.time_ms);
        Ok(Self { store, keys, unreferenced, unreferenced_max, bytes_max, deletes, ledger_ms, directory })
    }

    /// Milliseconds since 1970 by the machine's clock, or by the ledger's if that is ahead: a clock that was behind must not
    /// make a body look old.
    fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(self.ledger_ms.load(Ordering::Relaxed))
    }

    /// Begins to take a body; `alone` if another node is to have it, too.
    ///
    /// # Errors
    /// `Keys`, `Custody`, `Storage`; `TooManyWaiting`, `WaitingShare`, `Journal`; `RetentionOver`.
    pub async fn put(&self, to: &Belonging, alone: bool) -> Result<Incoming<'_>, PayloadError> {
        let (year, ledger_ms) = (to.retention_year, self.ledger_ms.load(Ordering::Relaxed));
        if self.deletes && retention::years_over(ledger_ms).contains(&year) {
            return Err(PayloadError::RetentionOver { year });
        }
        let holder = Holder::party(&to.party);
        self.unreferenced.check_room(holder)?;
        let class_key = self.keys.current(to.class.number()).await?;
        let salt = random_salt()?;
        let key = self.keys.blob_key(&class_key.name.id, &salt).await?;
        let header =
            BlobHeader { class: to.class, class_key: class_key.name.id, salt, party: to.party, record: to.record };
        let group = Group { class: to.class.number(), year: to.retention_year };
        let salt = *key.derive(COMMITMENT_PURPOSE);
        Ok(Incoming {
            payload: self,
            sealer: Sealer::new(&key, header.encode())?,
            upload: self.store.upload(group, self.now_ms())?,
            commitment: hmac(&salt),
            salt,
            bytes: 0,
            holder,
            alone,
        })
    }

    /// A sealed body, as it is stored.
    ///
    /// # Errors
    /// `Storage`; `NotSealed`.
    pub async fn sealed(&self, root: &Hash) -> Result<Sealed<'_>, PayloadError> {
        let mut object = self.store.object(&root.0).await?;
        let chunks = Chunks::of(object.bytes())?;
        let header = BlobHeader::decode(&object.read(0, HEADER_BYTES).await?)?;
        Ok(Sealed { object: Reader::new(object), chunks, header })
    }

    /// The body in a sealed form whose key this node has.
    ///
    /// # Errors
    /// `KeyUnknown`, `Custody`.
    pub async fn open_sealed<'p>(&'p self, sealed: Sealed<'p>) -> Result<Body<'p>, PayloadError> {
        let Sealed { object, chunks, header } = sealed;
        let key = self.keys.blob_key(&header.class_key, &header.salt).await?;
        let opener = Opener::new(&key, header.encode(), chunks)?;
        Ok(Body { opened: OpenedObject { object, opener }, header })
    }

    /// Whether a sealed body opens with a class key that is not in the table.
    ///
    /// # Errors
    /// `Storage`, `Custody`.
    async fn opens_with(&self, sealed: Sealed<'_>, key: &SealedClassKey) -> Result<bool, PayloadError> {
        let Sealed { mut object, chunks, header } = sealed;
        let blob_key = self.keys.candidate(key, &header.salt).await?;
        let (begin, end) = chunks.place(0);
        let length = usize::try_from(end - begin).unwrap_or(CHUNK_BYTES);
        let first = BytesMut::from(&object.read(begin, length).await?[..]);
        Ok(first.len() == length && Opener::new(&blob_key, header.encode(), chunks)?.open(0, first).is_ok())
    }

    /// Makes the index durable, so that the next opening has nothing to replay.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn close(self) -> Result<(), PayloadError> {
        match Arc::into_inner(self.store) {
            Some(store) => Ok(store.close().await?),
            None => Err(StorageError::Busy { retry_after: Duration::ZERO }.into()),
        }
    }

    /// The store below.
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Bytes of a body at most.
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// How long a body may be without a statement that refers to it.
    pub const fn unreferenced_max(&self) -> Duration {
        self.unreferenced_max
    }

    /// Bodies of which another node is to have a copy and has none.
    pub fn alone(&self) -> usize {
        self.unreferenced.alone_since().0
    }

    /// Bodies that wait for a statement.
    pub fn waiting(&self) -> usize {
        self.unreferenced.len()
    }
}

/// A body on its way in.
pub struct Incoming<'p> {
    payload: &'p Payload,
    sealer: Sealer,
    upload: Upload<'p>,
    commitment: Hmac<Sha256>,
    salt: [u8; 32],
    bytes: u64,
    holder: Holder,
    alone: bool,
}

impl Incoming<'_> {
    /// Takes bytes of the body. Waits while too much is on its way.
    ///
    /// # Errors
    /// `Storage`: `TooLong` beyond the bound of the configuration.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), PayloadError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let bytes_max = self.payload.bytes_max;
        if self.bytes > bytes_max {
            return Err(StorageError::TooLong { bytes: self.bytes, bytes_max }.into());
        }
        self.commitment.update(bytes);
        while !bytes.is_empty() {
            if self.sealer.is_full() {
                let sealed = self.sealer.close(false)?;
                self.upload.write(&sealed).await?;
            }
            bytes = &bytes[self.sealer.fill(bytes)..];
        }
        Ok(())
    }

    /// Ends it. When this returns the body is durable, and a day is left to refer to it.
    ///
    /// # Errors
    /// `Storage`; `TooManyWaiting`, `WaitingShare`, `Journal`.
    pub async fn finish(mut self) -> Result<Blob, PayloadError> {
        let sealed = self.sealer.close(true)?;
        self.upload.write(&sealed).await?;
        let stored = self.upload.finish().await?;
        let root = Hash(stored.root);
        // Before its root is told: no statement can refer to it earlier. Its time begins now, however long it took to come.
        self.payload.unreferenced.put(root, self.holder, self.payload.now_ms(), self.alone).await?;
        let commitment = Hash(self.commitment.finalize().into_bytes().into());
        let hash = self.payload.store.hash();
        let unreferenced_max = self.payload.unreferenced_max;
        Ok(Blob { root, hash, commitment, salt: self.salt, bytes: self.bytes, unreferenced_max })
    }
}

/// An object of which the part that was read last stays at hand: the store reads and verifies whole records.
struct Reader<'p> {
    object: Object<'p>,
    /// Where it begins, and its bytes.
    last: (u64, Bytes),
}

impl<'p> Reader<'p> {
    const fn new(object: Object<'p>) -> Self {
        Self { object, last: (0, Bytes::new()) }
    }

    /// Bytes from `from` on, at most `bytes_max`, some at least unless it ends there.
    async fn read(&mut self, from: u64, bytes_max: usize) -> Result<Bytes, PayloadError> {
        let within = |last: &(u64, Bytes)| {
            let skipped = usize::try_from(from.checked_sub(last.0)?).ok()?;
            (skipped < last.1.len()).then_some(skipped)
        };
        if within(&self.last).is_none() {
            self.last = (from, self.object.read(from, RECORD_BYTES).await?);
        }
        let skipped = within(&self.last).unwrap_or(self.last.1.len());
        let end = self.last.1.len().min(skipped.saturating_add(bytes_max));
        Ok(self.last.1.slice(skipped..end))
    }
}

/// A sealed body.
pub struct Sealed<'p> {
    object: Reader<'p>,
    chunks: Chunks,
    header: BlobHeader,
}

impl Sealed<'_> {
    /// What is known of it without its key.
    pub const fn header(&self) -> &BlobHeader {
        &self.header
    }
    /// Bytes of the sealed form.
    pub fn bytes(&self) -> u64 {
        self.object.object.bytes()
    }
    /// Bytes of the body in it.
    pub const fn body_bytes(&self) -> u64 {
        self.chunks.body_bytes()
    }
    /// Sealed bytes from `from` on, some at least unless it ends there.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn read(&mut self, from: u64, bytes_max: usize) -> Result<Bytes, PayloadError> {
        self.object.read(from, bytes_max).await
    }
}

/// A body that can be read.
pub struct Body<'p> {
    opened: OpenedObject<'p>,
    header: BlobHeader,
}

impl Body<'_> {
    /// What is known of it without its key.
    pub const fn header(&self) -> &BlobHeader {
        &self.header
    }
    /// Its length.
    pub const fn bytes(&self) -> u64 {
        self.opened.bytes()
    }
    /// Bytes from `from` on, those of one chunk at most, some at least unless it ends there.
    ///
    /// # Errors
    /// `Storage`; `DoesNotOpen`.
    pub async fn read(&mut self, from: u64, bytes_max: u64) -> Result<Bytes, PayloadError> {
        self.opened.read(from, bytes_max).await
    }
}

/// An object with the key that opens it.
struct OpenedObject<'p> {
    object: Reader<'p>,
    opener: Opener,
}

impl OpenedObject<'_> {
    /// Bytes of what is sealed in it.
    const fn bytes(&self) -> u64 {
        self.opener.chunks().body_bytes()
    }

    /// As [`Body::read`].
    async fn read(&mut self, from: u64, bytes_max: u64) -> Result<Bytes, PayloadError> {
        let chunks = self.opener.chunks();
        let bytes = chunks.body_bytes();
        if from >= bytes {
            return Ok(Bytes::new());
        }
        let (number, within) = chunks.find(from);
        let (begin, end) = chunks.place(number);
        let length = usize::try_from(end - begin).unwrap_or(CHUNK_BYTES);
        let mut sealed = BytesMut::with_capacity(length);
        // A chunk ends where a part of the object may, so one read mostly gives all of it.
        while sealed.len() < length {
            let some = self.object.read(begin + sealed.len() as u64, length - sealed.len()).await?;
            if some.is_empty() {
                return Err(PayloadError::DoesNotOpen);
            }
            sealed.extend_from_slice(&some);
        }
        let opened = self.opener.open(number, sealed)?;
        let until =
            usize::try_from(bytes_max).map_or(opened.len(), |most| opened.len().min(within.saturating_add(most)));
        Ok(opened.slice(within.min(until)..until))
    }
}

fn hmac(salt: &[u8; 32]) -> Hmac<Sha256> {
    // Any length is a key.
    <Hmac<Sha256> as hmac::Mac>::new_from_slice(salt).expect("HMAC takes keys of any length")
}

fn random_salt() -> Result<[u8; 32], PayloadError> {
    let mut salt = [0; 32];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| PayloadError::Cipher)?;
    Ok(salt)
}
