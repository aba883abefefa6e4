//! Old blocks: sealed segments of the ledger's block store, kept in the store of bodies.
//!
//! ```text
//!  segment that is old ──► every block checked ──► sealed, stored, read back ──► its file is removed
//!                                                      │
//!  receipts, peers, a replay ◄── one range of it ◄─────┘ and with its segment of the store it goes to the cold tier
//! ```
//!
//! Blocks are for the parties of the network and not for whoever runs an S3 gateway, so they are sealed like bodies, under
//! a class key of their own that never leaves the node. The salt follows from the bytes of the segment: one that is put
//! again, after a crash, has the same root and takes no room twice. No copies go to other nodes, which have the blocks
//! themselves; from there a segment is made again that is lost.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use stele_storage::{Group, StorageError, Store};
use stele_types::Hash;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cold::TAKE_BACK;
use super::keys::ClassKeys;
use super::sealing::{Chunks, Opener, Sealer};
use super::{HEADER_BYTES, OpenedObject, Payload, PayloadError, Reader};
use crate::chain::{Chain, ChainError};
use crate::metrics::Metrics;
use crate::store::blocks::{ArchiveError, SealedSegment, SegmentArchive};

/// Class of their groups in the store, and of their class key: those of records begin at 1.
pub(crate) const CLASS: u8 = 0;

const MAGIC: [u8; 8] = *b"STELSEGM";
const VERSION: u8 = 1;
/// The one cipher so far: AES-256-GCM.
const CIPHER: u8 = 1;

/// What the salt of a segment is derived for.
const SALT_PURPOSE: &[u8] = b"stele blocks salt 1";

/// Bytes that are read, and kept, at a time: blocks are mostly asked for one after the other.
const PIECE_BYTES: u64 = 1 << 20;

/// Pieces that are kept.
const PIECES_MAX: usize = 16;

/// How long one read may take.
const READ_MAX: Duration = Duration::from_secs(30);

/// Reads at a time: each holds a thread that waits for drives or for the cold tier.
const READS_MAX: usize = 8;
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When to try again what may be there later.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How often is tried again, and said that it is, while the node cannot start without.
const PATIENCE: Duration = Duration::from_millis(200);
const SAID_EVERY: Duration = Duration::from_secs(30);

/// The longest time between two looks for old segments.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// The segment that takes appends is ended at this part of the age at which it goes.
const ENDED_AT: u64 = 4;

/// What a stored segment begins with.
struct SegmentHeader {
    class_key: [u8; 16],
    salt: [u8; 32],
}

impl SegmentHeader {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&[VERSION, CIPHER]);
        bytes[12..28].copy_from_slice(&self.class_key);
        bytes[28..60].copy_from_slice(&self.salt);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let (class_key, salt) = (header[12..28].try_into().ok()?, header[28..60].try_into().ok()?);
        let decoded = Self { class_key, salt };
        (decoded.encode() == *header).then_some(decoded)
    }
}

impl Payload {
    /// Keeps a sealed segment; its root, the same for the same segment. When it returns, the segment is durable and was read
    /// back.
    ///
    /// # Errors
    /// `Keys`, `Custody`, `Storage`; `Blocks` if its file changed meanwhile, or what is read back is something else.
    async fn put_segment(&self, segment: &Arc<SealedSegment>) -> Result<Hash, PayloadError> {
        let class_key = self.keys.current(CLASS).await?;
        let mut salt = Sha256::new_with_prefix(SALT_PURPOSE);
        salt.update(class_key.name.id);
        salt.update(segment.checked_digest());
        let header = SegmentHeader { class_key: class_key.name.id, salt: salt.finalize().into() };
        let key = self.keys.blob_key(&header.class_key, &header.salt).await?;
        let mut sealer = Sealer::new(&key, header.encode())?;
        let mut upload = self.store.upload(Group { class: CLASS, year: 0 }, self.now_ms())?;
        for number in 0.. {
            let file = Arc::clone(segment);
            let read = tokio::task::spawn_blocking(move || file.piece(number)).await;
            // Nothing is sealed under this salt but what it was derived from: a key is used for one plaintext.
            let Some(bytes) = read.map_err(PayloadError::blocks)?.map_err(PayloadError::blocks)? else { break };
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                if sealer.is_full() {
                    let sealed = sealer.close(false)?;
                    upload.write(&sealed).await?;
                }
                rest = &rest[sealer.fill(rest)..];
            }
        }
        let sealed = sealer.close(true)?;
        upload.write(&sealed).await?;
        let root = Hash(upload.finish().await?.root);
        if self.segment_digest(&root).await? != segment.checked_digest() {
            return Err(PayloadError::blocks("what was stored is not what is read back"));
        }
        Ok(root)
    }

    /// SHA-256 of all of a segment.
    ///
    /// # Errors
    /// As [`segment`]; `DoesNotOpen`.
    async fn segment_digest(&self, root: &Hash) -> Result<[u8; 32], PayloadError> {
        let mut segment = segment(&self.store, &self.keys, root).await?;
        let (mut from, mut digest) = (0, Sha256::new());
        while from < segment.bytes() {
            let bytes = segment.read(from, PIECE_BYTES).await?;
            from += bytes.len() as u64;
            digest.update(&bytes);
        }
        Ok(digest.finalize().into())
    }

    /// Whether all of a segment can be read.
    ///
    /// # Errors
    /// What says nothing of the segment.
    pub(super) async fn segment_is_whole(&self, root: &Hash) -> Result<bool, PayloadError> {
        judged(self.segment_digest(root).await.map(drop))
    }

    /// Whether a segment is there, and opens; not all of it is read.
    ///
    /// # Errors
    /// What says nothing of the segment.
    pub(super) async fn segment_opens(&self, root: &Hash) -> Result<bool, PayloadError> {
        let read = async { segment(&self.store, &self.keys, root).await?.read(0, PIECE_BYTES).await };
        judged(read.await.map(drop))
    }

    /// Whether what a lost store had in the cold tier is still being taken back: what is not found may come yet.
    pub(super) fn takes_back(&self) -> bool {
        takes_back(&self.directory)
    }
}

fn takes_back(directory: &Path) -> bool {
    directory.join(TAKE_BACK).exists()
}

/// What a read says of a segment.
fn judged(read: Result<(), PayloadError>) -> Result<bool, PayloadError> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if is_lost(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The segment under a root, to be read.
///
/// # Errors
/// `Storage`; `NotSealed`, `KeyUnknown`, `Custody`.
async fn segment<'s>(store: &'s Store, keys: &ClassKeys, root: &Hash) -> Result<OpenedObject<'s>, PayloadError> {
    let mut object = store.object(&root.0).await?;
    let chunks = Chunks::of(object.bytes())?;
    let header = SegmentHeader::decode(&object.read(0, HEADER_BYTES).await?).ok_or(PayloadError::NotSealed)?;
    let key = keys.blob_key(&header.class_key, &header.salt).await?;
    Ok(OpenedObject { object: Reader::new(object), opener: Opener::new(&key, header.encode(), chunks)? })
}

/// A piece of a segment: up to [`PIECE_BYTES`] from its `number`-th on.
async fn piece(store: &Store, keys: &ClassKeys, root: &Hash, number: u64) -> Result<Bytes, PayloadError> {
    let mut segment = segment(store, keys, root).await?;
    let mut from = number.saturating_mul(PIECE_BYTES);
    let until = segment.bytes().min(from.saturating_add(PIECE_BYTES));
    let mut piece = Vec::with_capacity(usize::try_from(until.saturating_sub(from)).unwrap_or_default());
    while from < until {
        let bytes = segment.read(from, until - from).await?;
        from += bytes.len() as u64;
        piece.extend_from_slice(&bytes);
    }
    Ok(piece.into())
}

/// Whether an error says that a segment is not there any more.
const fn is_lost(error: &PayloadError) -> bool {
    matches!(
        error,
        PayloadError::Storage(StorageError::NotFound | StorageError::Damaged { .. } | StorageError::WrongContent)
            | PayloadError::NotSealed
            | PayloadError::KeyUnknown
            | PayloadError::DoesNotOpen
    )
}

/// How far the store is.
enum Stage {
    Opening,
    Open(Opened),
    Failed(String),
}

/// What an open store is read with.
#[derive(Clone)]
struct Opened {
    /// Whoever closes the store must have it alone.
    store: Weak<Store>,
    keys: Arc<ClassKeys>,
    directory: PathBuf,
}

/// A piece that was read: of which segment, which one, and its bytes.
type Piece = ([u8; 32], u64, Bytes);

/// The store of bodies, as the archive of old blocks. It may be read before the store is open.
pub struct BlockArchive {
    runtime: Handle,
    stage: Mutex<Stage>,
    /// The node starts, and cannot without what is asked for.
    recovering: AtomicBool,
    pieces: Mutex<VecDeque<Piece>>,
    reads: Semaphore,
}

impl BlockArchive {
    /// Of a store that is to be opened; a runtime is needed to read it.
    pub fn new(runtime: Handle) -> Arc<Self> {
        let (stage, pieces) = (Mutex::new(Stage::Opening), Mutex::default());
        let (recovering, reads) = (AtomicBool::new(true), Semaphore::new(READS_MAX));
        Arc::new(Self { runtime, stage, recovering, pieces, reads })
    }

    /// The store is open.
    pub(super) fn opened(&self, store: &Arc<Store>, keys: &Arc<ClassKeys>, directory: &Path) {
        let (store, keys) = (Arc::downgrade(store), Arc::clone(keys));
        *self.stage() = Stage::Open(Opened { store, keys, directory: directory.to_owned() });
    }

    /// The store will not open.
    pub(super) fn failed(&self, reason: String) {
        *self.stage() = Stage::Failed(reason);
    }

    /// From now on nobody who reads waits for the store.
    pub fn recovered(&self) {
        self.recovering.store(false, Ordering::Relaxed);
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store and what it is read with, or why there is none, and whether there may be one later.
    fn store(&self) -> Result<(Arc<Store>, Opened), (String, bool)> {
        match &*self.stage() {
            Stage::Opening => Err(("the store of bodies is not open yet".to_owned(), true)),
            Stage::Open(opened) => match opened.store.upgrade() {
                Some(store) => Ok((store, opened.clone())),
                None => Err(("the store of bodies is closed".to_owned(), false)),
            },
            Stage::Failed(reason) => Err((format!("the store of bodies is not open: {reason}"), false)),
        }
    }

    /// A piece, and whether it is worth waiting for if it is not had.
    fn piece(&self, root: &[u8; 32], number: u64) -> Result<Bytes, (ArchiveError, bool)> {
        let known = |(of, which, _): &Piece| of == root && *which == number;
        if let Some((_, _, bytes)) = self.pieces().iter().find(|piece| known(piece)) {
            return Ok(bytes.clone());
        }
        let away = |reason, retry_after, wait| (ArchiveError::Away { reason, retry_after }, wait);
        let (store, opened) = self.store().map_err(|(reason, wait)| away(reason, RETRY_AFTER, wait))?;
        // Whoever reads holds a thread: a slow tier must not take them all. Who starts reads alone.
        let place = self.reads.try_acquire();
        if place.is_err() && !self.recovering.load(Ordering::Relaxed) {
            return Err(away("too many are reading it".to_owned(), BUSY_RETRY_AFTER, false));
        }
        let name = Hash(*root);
        let read = piece(&store, &opened.keys, &name, number);
        let reading = async { tokio::time::timeout(READ_MAX, read).await };
        let bytes = match self.runtime.block_on(reading) {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if is_lost(&error) => {
                let reason = error.to_string();
                // What is not listed yet is not lost.
                return Err(if takes_back(&opened.directory) {
                    away(reason, RETRY_AFTER, true)
                } else {
                    (ArchiveError::Lost { reason }, false)
                });
            }
            Ok(Err(error)) => {
                let passes = match &error {
                    PayloadError::Storage(StorageError::Cold { retry_after, .. }) => *retry_after,
                    PayloadError::Storage(StorageError::Busy { retry_after }) => Some(*retry_after),
                    _ => None,
                };
                return Err(away(error.to_string(), passes.unwrap_or(RETRY_AFTER), passes.is_some()));
            }
            Err(_) => return Err(away("it takes too long".to_owned(), RETRY_AFTER, true)),
        };
        let mut pieces = self.pieces();
        if !pieces.iter().any(known) {
            if pieces.len() == PIECES_MAX {
                pieces.pop_front();
            }
            pieces.push_back((*root, number, bytes.clone()));
        }
        Ok(bytes)
    }

    fn pieces(&self) -> std::sync::MutexGuard<'_, VecDeque<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece; while the node starts, it is waited for.
    fn wait_for(&self, root: &[u8; 32], number: u64) -> Result<Bytes, ArchiveError> {
        let mut said: Option<Instant> = None;
        loop {
            match self.piece(root, number) {
                Ok(bytes) => return Ok(bytes),
                Err((error, true)) if self.recovering.load(Ordering::Relaxed) => {
                    if said.is_none_or(|said| said.elapsed() > SAID_EVERY) {
                        warn!(%error, "the node needs old blocks to start, and waits for them");
                        said = Some(Instant::now());
                    }
                    std::thread::sleep(PATIENCE);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

impl SegmentArchive for BlockArchive {
    fn read(&self, root: &[u8; 32], from: u64, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = from.saturating_add(bytes.len() as u64);
            let piece = self.wait_for(root, at / PIECE_BYTES)?;
            // Below 1 MiB.
            let skipped = usize::try_from(at % PIECE_BYTES).unwrap_or(usize::MAX);
            let some = piece.get(skipped..).unwrap_or_default();
            if some.is_empty() {
                return Err(ArchiveError::Lost { reason: "it ends before the block does".to_owned() });
            }
            bytes.extend_from_slice(&some[..some.len().min(length - bytes.len())]);
        }
        Ok(bytes)
    }
}

/// Takes old segments out of the directory of a chain.
pub(super) struct Archiver {
    pub(super) payload: Arc<Payload>,
    pub(super) chain: Arc<Chain>,
    pub(super) metrics: Arc<Metrics>,
    /// How old every block of a segment is that goes, by the time of the newest one.
    pub(super) after: Duration,
    /// Bytes that a segment of the store holds.
    pub(super) segment_bytes: u64,
}

/// A segment that is in the store, and that the chain does not know to be there: its first height, digest and root.
type Put = Option<(u64, [u8; 32], Hash)>;

impl Archiver {
    /// Runs until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.carry() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn carry(&self) {
        let interval = (self.after / 16).clamp(Duration::from_millis(100), INTERVAL_MAX);
        let (mut put, mut pause) = (None, INTERVAL_MAX);
        loop {
            match self.archive_one(&mut put).await {
                Ok(true) => pause = INTERVAL_MAX,
                Ok(false) => tokio::time::sleep(interval).await,
                Err(error) => {
                    warn!(code = error.code(), %error, "old blocks stay in the directory of the chain");
                    self.metrics.storage.blocks_not_archived();
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Bodies come first: old blocks leave a quarter of the store free, and stay in the directory of the chain otherwise.
    async fn check_room(&self, bytes: u64) -> Result<(), PayloadError> {
        let status = self.payload.store.status().await?;
        let needed = bytes.div_ceil(self.segment_bytes) + 1;
        let (used, free) = (status.segments + needed, status.segments_free.saturating_sub(needed));
        if free * 3 < used {
            return Err(PayloadError::blocks("less than a quarter of the store would stay free for bodies"));
        }
        Ok(())
    }

    /// Archives the oldest segment, if it is old enough; whether there was one.
    async fn archive_one(&self, put: &mut Put) -> Result<bool, PayloadError> {
        let after = u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX);
        let newest = self.chain.tip().time_ms;
        let before = newest.saturating_sub(after);
        let ended_before = newest.saturating_sub(after / ENDED_AT);
        let chain = Arc::clone(&self.chain);
        let found = blocking(move || chain.old_segment(before, ended_before)).await?;
        let Some(segment) = found.map(Arc::new) else { return Ok(false) };
        let (first, blocks, bytes) = (segment.first_height(), segment.blocks(), segment.bytes());
        let digest = segment.checked_digest();
        let root = match put.take().filter(|(height, of, _)| (*height, *of) == (first, digest)) {
            Some((_, _, root)) => root,
            None => {
                self.check_room(bytes).await?;
                self.payload.put_segment(&segment).await?
            }
        };
        *put = Some((first, digest, root));
        let chain = Arc::clone(&self.chain);
        blocking(move || chain.archive(&segment, root)).await?;
        self.metrics.storage.blocks_archived(blocks as u64);
        info!(first, blocks, bytes, %root, "old blocks were archived");
        Ok(true)
    }
}

async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, ChainError> + Send + 'static,
) -> Result<T, PayloadError> {
    match tokio::task::spawn_blocking(what).await {
        Ok(done) => done.map_err(|error| PayloadError::blocks(format!("{}: {error}", error.code()))),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use stele_hsm::custody::SoftwareCustodian;
    use stele_types::{Height, NetworkId};

    use super::*;
    use crate::config::PayloadSection;
    use crate::payload::Ledger;
    use crate::store::blocks::{BlockStore, BlockStoreOptions};

    async fn open(directory: &Path) -> Payload {
        let drives: Vec<String> = (0..3)
            .map(|drive| format!("{{ path = '{}', bytes = 33554432 }}", directory.join(drive.to_string()).display()))
            .collect();
        let text = format!(
            "signer = 'software'\ncustody_key = 'key'\ndata_columns = 2\nparity_columns = 1\nslot_bytes = \
             2097152\ndrives = [{}]\n",
            drives.join(", ")
        );
        let section: PayloadSection = toml::from_str(&text).unwrap();
        let key = directory.join("key");
        let custodian =
            if key.exists() { SoftwareCustodian::open(&key) } else { SoftwareCustodian::generate(&key) }.unwrap();
        let ledger = Ledger { network: NetworkId([1; 32]), height: Height(1), time_ms: 0, history_min: Height(1) };
        Payload::open(&section, directory, ledger, Arc::new(custodian)).await.unwrap()
    }

    fn block(height: u64) -> Vec<u8> {
        // Longer than a piece every now and then.
        let length = if height.is_multiple_of(5) { 1_300_000 } else { 3_000 };
        (0..length).map(|at| u8::try_from((at * 7 + height) % 251).unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_segment_is_kept_once_and_read_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let payload = Arc::new(open(directory.path()).await);
        let archive = BlockArchive::new(Handle::current());
        archive.recovered();
        let blocks = BlockStore::open(&directory.path().join("blocks"), BlockStoreOptions::default()).unwrap();
        let blocks = Arc::new(blocks.with_archive(Arc::clone(&archive) as _));
        for height in 1..=12 {
            blocks.append(height, &[9; 32], &block(height), b"certificate").unwrap();
        }
        blocks.roll().unwrap();
        blocks.append(13, &[9; 32], &block(13), b"certificate").unwrap();
        let segment = Arc::new(blocks.sealed(1).unwrap());
        let root = payload.put_segment(&segment).await.unwrap();
        // A crash before anybody noted that it is there.
        assert_eq!(payload.put_segment(&segment).await.unwrap(), root);
        assert!(payload.segment_is_whole(&root).await.unwrap());
        blocks.archive(&segment, root.0).unwrap();

        let read = |height: u64| {
            let blocks = Arc::clone(&blocks);
            tokio::task::spawn_blocking(move || blocks.read(height).map(|stored| stored.block().to_vec()))
        };
        assert_eq!(read(1).await.unwrap().unwrap_err().code(), "block_archive_away", "the store is not open yet");
        assert!(read(13).await.unwrap().is_ok());
        archive.opened(&payload.store, &payload.keys, directory.path());
        for height in (1..=13).rev() {
            assert_eq!(read(height).await.unwrap().unwrap(), block(height));
        }
        assert!(super::super::listing::page(payload.store(), 0, 0, 100).await.unwrap().objects.is_empty());
        assert!(matches!(payload.sealed(&root).await, Err(PayloadError::NotSealed)), "it is no body");

        payload.store.remove(&root.0, 1).await.unwrap();
        assert!(!payload.segment_is_whole(&root).await.unwrap());
        archive.pieces().clear();
        assert_eq!(read(1).await.unwrap().unwrap_err().code(), "block_archive_lost");
        Arc::into_inner(payload).unwrap().close().await.unwrap();
        assert_eq!(read(2).await.unwrap().unwrap_err().code(), "block_archive_away", "it is closed");
    }

    #[test]
    fn the_header_of_a_segment_is_no_other() {
        let header = SegmentHeader { class_key: [7; 16], salt: [8; 32] }.encode();
        assert!(SegmentHeader::decode(&header).is_some());
        for at in [0, 8, 9, 10, 60, HEADER_BYTES - 1] {
            let mut changed = header;
            changed[at] ^= 1;
            assert!(SegmentHeader::decode(&changed).is_none(), "byte {at}");
        }
        assert!(SegmentHeader::decode(&header[1..]).is_none());
    }
}
