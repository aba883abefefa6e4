//! Copies of bodies on other nodes: made, kept for others, looked for, and brought back.
//!
//! ```text
//!  PUT ──► own drives ──► "keep a copy" ──► keeper fetches the sealed form, verifies its root, stores it
//!            │ journal: alone                 └── custody receipt, signed with its checkpoint key ──► verified, given out
//!            └── until there is one, somebody is asked again
//! ```
//!
//! Whose copy goes where follows from the root alone (rendezvous hashing over the custody keys), so no table says it. Which
//! node a body came to follows from its class key, which every sealed body names and one node made. Both together are
//! enough to look whether copies are where they should be, and to make the store of a node again that lost all of it.
//!
//! A copy is the sealed form, bit by bit. Its class key travels sealed for the custody key of the node that keeps it, which
//! the configuration pins: whoever else holds the copy holds nothing.

mod blocks;
mod error;
mod exchange;
mod keepers;
mod rebuild;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use stele_accel_hash::HashAlgorithm;
use stele_hsm::custody::{CustodyPublicKey, SealedClassKey};
use stele_hsm::{CustodyReceiptRequest, Signer};
use stele_storage::{Group, Losses, StorageError};
use stele_types::custody::CustodyReceipt;
use stele_types::record::{ContentHash, RecordClass};
use stele_types::{Hash, cbor};
use stele_verify::signature;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use error::CustodyError;
use exchange::read_key;
pub use exchange::{AskedCopy, Kept, KeptBody};
use keepers::{Keeper, Keepers, PULL_BYTES, ROOTS_MAX};

use super::unreferenced::Holder;
use super::{BlobHeader, CHUNK_BYTES, HEADER_BYTES, Payload, PayloadError};
use crate::chain::Chain;
use crate::config::{CustodyLevel, CustodySection};
use crate::metrics::Metrics;

/// How often bodies without a copy are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest time between two looks, while nobody takes copies.
const INTERVAL_MAX: Duration = Duration::from_secs(30);

/// How soon somebody who waits has it tried again: whoever else is at it may be done, or a node may be back.
const AGAIN: Duration = Duration::from_millis(250);

/// Bodies that are copied in one look, and at a time.
const COPIES_MAX: usize = 256;
const COPIES_AT_A_TIME: usize = 4;

/// In how long all bodies are asked for at the nodes that should have them.
const AUDIT_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Blocks that are looked at again for a body whose copy comes after its statement. A node that is further behind errs, or
/// catches up; then the copy stays, whatever refers to it.
const BLOCKS_MAX: u64 = 1_000;

/// A copy that another node has signed for.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Its checkpoint key.
    pub key: [u8; 33],
    /// Its word.
    pub receipt: CustodyReceipt,
}

/// The copies of a node's bodies, and the copies that it keeps for others.
pub struct Custody {
    payload: Arc<Payload>,
    chain: Arc<Chain>,
    signer: Arc<dyn Signer>,
    keepers: Keepers,
    section: CustodySection,
    metrics: Arc<Metrics>,
    /// Bodies that are on their way to or from another node.
    under_way: Mutex<HashSet<Hash>>,
}

impl Custody {
    /// Of `payload`, as the section says; `signer` signs receipts.
    ///
    /// # Errors
    /// `Configuration`.
    pub fn new(
        payload: Arc<Payload>,
        chain: Arc<Chain>,
        signer: Arc<dyn Signer>,
        section: &CustodySection,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, CustodyError> {
        let keepers = Keepers::new(section, *payload.keys.own())?;
        let (section, under_way) = (section.clone(), Mutex::default());
        Ok(Arc::new(Self { payload, chain, signer, keepers, section, metrics, under_way }))
    }

    /// Where bodies of a class have to be.
    pub fn level(&self, class: RecordClass) -> CustodyLevel {
        self.section.level(class)
    }

    /// Whether another node is to have bodies of a class, too.
    pub fn wants_copy(&self, class: RecordClass) -> bool {
        match self.level(class) {
            CustodyLevel::Local => false,
            CustodyLevel::TwoCustodians => true,
            CustodyLevel::Cold => !self.section.keepers.is_empty(),
        }
    }

    /// How long whoever puts a body waits for its copy.
    pub const fn wait(&self) -> Duration {
        Duration::from_millis(self.section.wait_ms)
    }

    /// The node's own custody key.
    fn own(&self) -> &CustodyPublicKey {
        self.payload.keys.own()
    }

    /// Has another node keep a copy of a body of this one, or say again that it does; none if nobody does within `wait`.
    /// It goes on beyond that.
    pub async fn copied_within(self: &Arc<Self>, root: Hash, wait: Duration) -> Option<Copied> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let this = Arc::clone(self);
            let copying = tokio::spawn(async move { this.copy(root).await });
            match tokio::time::timeout_at(deadline, copying).await {
                Ok(Ok(Ok(copied))) => return Some(copied),
                Ok(_) if tokio::time::Instant::now() + AGAIN < deadline => tokio::time::sleep(AGAIN).await,
                _ => return None,
            }
        }
    }

    async fn copy(&self, root: Hash) -> Result<Copied, CustodyError> {
        let _under_way = self.begin(root)?;
        let sealed = self.payload.sealed(&root).await?;
        let (length, header) = (sealed.bytes(), sealed.header().clone());
        drop(sealed);
        if !self.came_here(&header).await {
            return Err(CustodyError::Elsewhere);
        }
        let group = self.payload.store().group(&root.0).await?;
        let mut failure = CustodyError::Nobody;
        for keeper in self.keepers.for_own(&root) {
            if keeper.rests() {
                continue;
            }
            match self.copy_to(keeper, root, length, &header, group).await {
                Ok(copied) => {
                    self.payload.unreferenced.copied(&root);
                    self.metrics.storage.copied();
                    return Ok(copied);
                }
                Err(error) => {
                    warn!(code = error.code(), %error, %root, keeper = keeper.name, "a copy was not taken");
                    failure = error;
                }
            }
        }
        if !matches!(failure, CustodyError::Nobody) {
            self.metrics.storage.not_copied();
        }
        Err(failure)
    }

    /// Whether a body came to this node, and is no copy.
    pub async fn came_here(&self, header: &BlobHeader) -> bool {
        self.payload.keys.origin(&header.class_key).await.is_ok_and(|origin| origin == *self.own())
    }

    async fn copy_to(
        &self,
        keeper: &Keeper,
        root: Hash,
        length: u64,
        header: &BlobHeader,
        group: Group,
    ) -> Result<Copied, CustodyError> {
        let class_key = self.payload.keys.sealed_for(&header.class_key, &keeper.custody_key).await?;
        // First the height: up to it no statement refers to what still waits afterwards.
        let height = self.payload.unreferenced.height();
        let unreferenced_at = self.payload.unreferenced.contains(&root).then_some(height);
        let origin = *self.own();
        let asked = AskedCopy { origin, root, length, retention_year: group.year, unreferenced_at, class_key };
        let answer = keeper.heard(keeper.client.copy_body(&asked.view()).await)?;
        let receipt = hex::decode(&answer.receipt).ok().and_then(|bytes| cbor::from_slice(&bytes).ok());
        let receipt: CustodyReceipt = receipt.ok_or_else(|| foreign(keeper, "no receipt"))?;
        let (network, body_hash) = (self.chain.network(), self.body_hash());
        let CustodyReceipt { height, time_ms, signature, .. } = receipt;
        let expected = CustodyReceipt { network, body_hash, body_root: root, length, height, time_ms, signature };
        let suite = stele_types::Suite::Es256;
        let signed = signature::verify(suite, &keeper.receipt_key, &receipt.signing_bytes(), &receipt.signature);
        if receipt != expected || signed.is_err() {
            return Err(foreign(keeper, "a receipt for something else, or one that another key signed"));
        }
        Ok(Copied { key: keeper.receipt_key, receipt })
    }

    /// Keeps a copy for another node, which this one fetches from there, and signs for it.
    ///
    /// # Errors
    /// `Stranger`, `TooLong`, `Busy`; `Keeper`, `Foreign`; `Payload`, `Signer`.
    pub async fn keep(&self, asked: &AskedCopy) -> Result<CustodyReceipt, CustodyError> {
        let keeper = self.keepers.get(&asked.origin).ok_or(CustodyError::Stranger)?;
        let _under_way = self.begin(asked.root)?;
        if self.held(&asked.root).await != Some(asked.length) {
            self.take(keeper, asked).await?;
            self.metrics.storage.kept();
        }
        // Of a copy that waits for a statement, the asking node may know one, or this one may have looked at it before.
        let looked_at = self.payload.unreferenced.height();
        match asked.unreferenced_at {
            Some(height) if looked_at.0.saturating_sub(height.0) <= BLOCKS_MAX => {
                if self.payload.unreferenced.contains(&asked.root) {
                    self.payload.unreferenced.look_again(height);
                }
            }
            _ => self.payload.unreferenced.settle(asked.root),
        }
        self.sign(asked.root, asked.length).await
    }

    async fn take(&self, keeper: &Keeper, asked: &AskedCopy) -> Result<(), CustodyError> {
        let bytes_max = sealed_bytes_max(self.payload.bytes_max());
        if asked.length > bytes_max {
            return Err(CustodyError::TooLong { bytes_max });
        }
        let root = asked.root;
        // Before it is here: a statement that comes meanwhile takes it out again. What is here already, and is only to be
        // mended, keeps what is known of it.
        let fresh = !self.payload.store().has(&root.0)?;
        if fresh && asked.unreferenced_at.is_some() {
            let holder = Holder::node(&asked.origin);
            self.payload.unreferenced.put(root, holder, self.payload.now_ms(), false).await?;
        }
        let pulled = self.pull(keeper, root, Some(asked.length), asked.retention_year).await;
        let taken = match pulled {
            Ok(header) => self.learn(keeper, root, &header, &[(asked.class_key.clone(), asked.origin)]).await,
            Err(error) => Err(error),
        };
        if taken.is_err() && fresh {
            self.payload.store().remove(&root.0, self.payload.now_ms()).await?;
            self.payload.unreferenced.settle(root);
        }
        taken
    }

    /// Takes the class key of a body into the table, if it is not there: the one among some candidates that opens the body.
    async fn learn(
        &self,
        keeper: &Keeper,
        root: Hash,
        header: &BlobHeader,
        candidates: &[(SealedClassKey, CustodyPublicKey)],
    ) -> Result<(), CustodyError> {
        if self.payload.keys.has(&header.class_key).await {
            return Ok(());
        }
        for (key, origin) in candidates.iter().filter(|(key, _)| key.name.id == header.class_key) {
            let sealed = self.payload.sealed(&root).await?;
            if self.payload.opens_with(sealed, key).await.unwrap_or(false) {
                return Ok(self.payload.keys.adopt(key.clone(), *origin).await?);
            }
        }
        Err(foreign(keeper, "a body without the class key that opens it"))
    }

    /// Asks the other nodes for the class key of a body, which this one does not have; whether one brought it.
    pub async fn learn_key(&self, root: Hash) -> bool {
        let Ok(sealed) = self.payload.sealed(&root).await else { return false };
        let header = sealed.header().clone();
        drop(sealed);
        for keeper in self.keepers.all() {
            let learned = match self.class_keys_of(keeper).await {
                Ok(keys) => self.learn(keeper, root, &header, &keys).await,
                Err(error) => Err(error),
            };
            match learned {
                Ok(()) => return true,
                Err(error) => warn!(code = error.code(), %error, %root, keeper = keeper.name, "no class key was had"),
            }
        }
        false
    }

    /// The class keys that another node has for this one.
    async fn class_keys_of(&self, keeper: &Keeper) -> Result<Vec<(SealedClassKey, CustodyPublicKey)>, CustodyError> {
        let keys = keeper.heard(keeper.client.class_keys(&hex::encode(self.own())).await)?;
        let malformed = || foreign(keeper, "a malformed class key");
        keys.keys.iter().map(|view| read_key(view, self.chain.network()).ok_or_else(malformed)).collect()
    }

    /// Fetches a sealed body from another node and stores it.
    async fn pull(
        &self,
        keeper: &Keeper,
        root: Hash,
        length: Option<u64>,
        year: u16,
    ) -> Result<BlobHeader, CustodyError> {
        let wrong = || foreign(keeper, "something else than the body with that root");
        let (first, total) = keeper.heard(keeper.client.sealed_body(&root, 0, PULL_BYTES as u64).await)?;
        let bytes_max = sealed_bytes_max(self.payload.bytes_max());
        if total > bytes_max || length.is_some_and(|length| length != total) {
            return Err(wrong());
        }
        let header = first.get(..HEADER_BYTES).map(BlobHeader::decode).ok_or_else(wrong)??;
        let group = Group { class: header.class.number(), year };
        let mut upload = self.payload.store().upload(group, self.payload.now_ms())?;
        let mut from = first.len() as u64;
        upload.write(&first).await?;
        while from < total {
            let (bytes, _) = keeper.heard(keeper.client.sealed_body(&root, from, PULL_BYTES as u64).await)?;
            from += bytes.len() as u64;
            upload.write(&bytes).await?;
        }
        if from != total {
            return Err(wrong());
        }
        match upload.finish_as(&root.0).await {
            Ok(_) => Ok(header),
            // Nothing is stored under whatever root it has.
            Err(StorageError::WrongContent) => Err(wrong()),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of a sealed body, if it is here and can be read.
    async fn held(&self, root: &Hash) -> Option<u64> {
        self.payload.sealed(root).await.ok().map(|sealed| sealed.bytes())
    }

    async fn sign(&self, root: Hash, length: u64) -> Result<CustodyReceipt, CustodyError> {
        let tip = self.chain.tip();
        let mut receipt = CustodyReceipt {
            network: self.chain.network(),
            body_hash: self.body_hash(),
            body_root: root,
            length,
            height: tip.height,
            time_ms: tip.time_ms,
            signature: [0; 64],
        };
        let bytes = receipt.signing_bytes();
        let request = CustodyReceiptRequest { root: root.0, length, bytes: &bytes };
        receipt.signature = self.signer.sign_custody_receipt(&request).await?;
        Ok(receipt)
    }

    fn body_hash(&self) -> ContentHash {
        match self.payload.store().hash() {
            HashAlgorithm::Sha256 => ContentHash::Sha256,
            HashAlgorithm::Sm3 => ContentHash::Sm3,
        }
    }

    /// Brings a body back that cannot be read here any more, from whichever node has it; whether one had.
    pub async fn mend(&self, root: Hash) -> bool {
        let Ok(_under_way) = self.begin(root) else { return false };
        // Somebody else may have done it: whoever read it meanwhile was cut off.
        if self.read_through(&root).await.is_ok() {
            return true;
        }
        let year = self.payload.store().group(&root.0).await.map(|group| group.year).unwrap_or_default();
        for keeper in self.keepers.for_own(&root) {
            match self.pull(keeper, root, None, year).await {
                Ok(_) => {
                    info!(%root, keeper = keeper.name, "a body was brought back from its copy");
                    self.metrics.storage.mended();
                    return true;
                }
                Err(error) => warn!(code = error.code(), %error, %root, keeper = keeper.name, "no copy was had"),
            }
        }
        false
    }

    /// Brings back the bodies, and the old blocks, that have lost something in the first segment from `from` on; the segment to go on with, if
    /// there is one.
    ///
    /// # Errors
    /// `Payload`.
    pub async fn mend_segment(&self, from: u32) -> Result<Option<u32>, CustodyError> {
        let losses = self.payload.store().losses(from).await?;
        if losses.unknown > 0 {
            let Losses { segment, unknown, .. } = losses;
            warn!(segment, unknown, "of some of what is lost nobody can tell what it belonged to");
        }
        for root in losses.roots {
            let root = Hash(root);
            match self.mend_blocks(&root).await {
                Ok(true) => {}
                Ok(false) => _ = self.mend(root).await,
                Err(error) => warn!(code = error.code(), %error, %root, "lost blocks are not made again"),
            }
        }
        Ok(losses.next)
    }

    async fn read_through(&self, root: &Hash) -> Result<(), PayloadError> {
        let mut object = self.payload.store().object(&root.0).await?;
        let mut from = 0;
        while from < object.bytes() {
            from += object.read(from, PULL_BYTES).await?.len() as u64;
        }
        Ok(())
    }

    /// Makes copies and looks after them until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let parts = async { tokio::join!(self.copy_all(), self.audit()) };
        tokio::select! {
            _ = parts => {}
            () = stop.cancelled() => {}
        }
    }

    /// Asks for copies of bodies that have none, again and again.
    async fn copy_all(&self) {
        let (mut pause, mut after) = (INTERVAL, Hash::default());
        loop {
            let (alone, since) = self.payload.unreferenced.alone_since();
            let now = self.payload.now_ms();
            self.metrics.storage.alone(alone, since.map_or(0, |since| now.saturating_sub(since) / 1000));
            // Whoever put a younger one still waits for its copy.
            let before = now.saturating_sub(self.section.wait_ms + 2_000);
            let roots = self.payload.unreferenced.to_copy(before, &after, COPIES_MAX);
            let asked = roots.len();
            after = roots.last().copied().filter(|_| asked == COPIES_MAX).unwrap_or_default();
            let copies = stream::iter(roots).map(|root| async move {
                let copied = self.copy(root).await;
                // What is gone needs no copy, nor what is a copy.
                let gone = self.payload.store().has(&root.0).is_ok_and(|has| !has);
                if gone || matches!(copied, Err(CustodyError::Elsewhere)) {
                    self.payload.unreferenced.copied(&root);
                }
                usize::from(copied.is_ok())
            });
            let made: usize = copies.buffer_unordered(COPIES_AT_A_TIME).collect::<Vec<_>>().await.into_iter().sum();
            pause = if asked > 0 && made == 0 { (2 * pause).min(INTERVAL_MAX) } else { INTERVAL };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks, segment by segment, whether the copies of this node's bodies are where they should be.
    async fn audit(&self) {
        let mut from = 0;
        loop {
            let segments = self.payload.store().status().await.map_or(1, |status| status.segments.max(1));
            let pause = AUDIT_PERIOD / u32::try_from(segments).unwrap_or(u32::MAX);
            tokio::time::sleep(pause.clamp(Duration::from_millis(10), Duration::from_secs(3600))).await;
            match self.audit_segment(from).await {
                Ok(next) => from = next.unwrap_or(0),
                Err(error) => warn!(code = error.code(), %error, "copies cannot be looked for"),
            }
        }
    }

    /// Looks for the copies of the bodies of one segment; the one to go on with.
    async fn audit_segment(&self, from: u32) -> Result<Option<u32>, CustodyError> {
        let listing = self.payload.store().list(from, 1).await?;
        let mut own = Vec::new();
        for root in listing.roots.into_iter().map(|(root, _)| Hash(root)) {
            // What has no copy yet gets one; what cannot be read is the scrub's.
            let Ok(sealed) = self.payload.sealed(&root).await else { continue };
            let header = sealed.header().clone();
            let origin = self.payload.keys.origin(&header.class_key).await.ok();
            let is_own = origin.as_ref() == Some(self.own()) && self.wants_copy(header.class);
            if is_own && !self.payload.unreferenced.is_alone(&root) {
                own.push(root);
            }
        }
        for roots in own.chunks(ROOTS_MAX) {
            for root in self.missing_everywhere(roots).await? {
                warn!(%root, "no other node has a copy any more; one is made");
                self.payload.unreferenced.alone(root, self.payload.now_ms());
            }
        }
        Ok(listing.next)
    }

    /// Which of some bodies no other node has. While one does not answer that may have them, none; lost ones have nothing.
    async fn missing_everywhere(&self, roots: &[Hash]) -> Result<Vec<Hash>, CustodyError> {
        let mut missing = roots.to_vec();
        for keeper in self.keepers.all() {
            if missing.is_empty() {
                break;
            }
            let asked =
                stele_client::RootsView { roots: missing.iter().map(|root| root.to_hex().to_string()).collect() };
            match keeper.heard(keeper.client.missing_bodies(&asked).await) {
                Ok(answer) => {
                    let said: HashSet<Hash> = answer.roots.iter().filter_map(|root| Hash::from_hex(root)).collect();
                    missing.retain(|root| said.contains(root));
                }
                Err(_) if keeper.is_lost() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    fn begin(&self, root: Hash) -> Result<UnderWay<'_>, CustodyError> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.insert(root) { Ok(UnderWay { custody: self, root }) } else { Err(CustodyError::Busy) }
    }
}

/// A body that is on its way, until this is dropped.
struct UnderWay<'c> {
    custody: &'c Custody,
    root: Hash,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.custody.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.root);
    }
}

fn foreign(keeper: &Keeper, what: &'static str) -> CustodyError {
    CustodyError::Foreign { name: keeper.name.clone(), what }
}

/// Bytes that the sealed form of a body of so many bytes has at most.
const fn sealed_bytes_max(bytes: u64) -> u64 {
    // A tag for each chunk, and the header.
    bytes + (bytes / (CHUNK_BYTES as u64 - 128) + 2) * 16 + HEADER_BYTES as u64
}
