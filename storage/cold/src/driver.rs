//! Carries segments of a store to the cold tier and back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream};
use stele_accel_hash::Digest;
use stele_storage::{COLD_HEADER_BYTES_MAX, ColdImage, ColdReader, Group, LostStore, ScrubReport, StorageError, Store};

use crate::{ColdError, ColdTier, Sealed};

/// Seals that are remembered: one is asked for with the first record that is read of a segment.
const SEALS_MAX: usize = 4096;

/// Which segments go.
#[derive(Clone, Debug)]
pub struct ColdPolicy {
    /// A segment is copied when its newest record is so old.
    pub age: Duration,
    /// Classes of records whose segments are copied as soon as nothing is added to them.
    pub at_once: Vec<u8>,
    /// With fewer free slots, of a hundred, segments are copied whatever their age, and slots of those that are held are
    /// given up, the oldest first. Until then the drives keep them, and they are read from there.
    pub free_percent_min: u8,
    /// Segments that one [`ColdDriver::step`] copies, or drops, at most.
    pub segments_max: usize,
}

impl Default for ColdPolicy {
    fn default() -> Self {
        Self { age: Duration::from_secs(24 * 3_600), at_once: Vec::new(), free_percent_min: 20, segments_max: 8 }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdReport {
    /// Objects that were read for an index that had lost what they hold.
    pub recalled: u64,
    /// Segments that were copied, read back and are held now.
    pub copied: u64,
    /// Bytes of their objects.
    pub copied_bytes: u64,
    /// Segments whose slots were given up.
    pub dropped: u64,
    /// Objects that nobody needed any more, and that were deleted.
    pub deleted: u64,
    /// Objects that nobody needs any more, and that a lock keeps.
    pub locked: u64,
}

/// A store, and the tier that its segments go to.
pub struct ColdDriver {
    store: Arc<Store>,
    tier: ColdTier,
    policy: ColdPolicy,
}

impl ColdDriver {
    /// Has the store read from the tier what only that has.
    #[must_use]
    pub fn new(store: Arc<Store>, tier: ColdTier, policy: ColdPolicy) -> Self {
        store.attach_cold(Arc::new(Reader { tier: tier.clone(), seals: Mutex::default() }));
        Self { store, tier, policy }
    }

    /// Does what is to be done at `now_ms`, in milliseconds of Unix time. Whatever it is interrupted in, the next one goes on
    /// with.
    ///
    /// # Errors
    /// Those of the tier and of the store: with [`ColdError::retry_after`] if it may go better later.
    pub async fn step(&self, now_ms: u64) -> Result<ColdReport, ColdError> {
        self.go_on_with_lost().await?;
        let mut report = ColdReport { recalled: self.recall().await?, ..ColdReport::default() };
        let scarce = self.is_scarce().await?;
        let age_ms = u64::try_from(self.policy.age.as_millis()).unwrap_or(u64::MAX);
        let at_once = self.policy.at_once.clone();
        let before_ms = move |group: Group| {
            if scarce || at_once.contains(&group.class) { u64::MAX } else { now_ms.saturating_sub(age_ms) }
        };
        for segment in self.store.cold_candidates(before_ms, self.policy.segments_max).await? {
            report.copied_bytes += self.copy(segment).await?;
            report.copied += 1;
        }
        let held = self.store.cold_list().await?.into_iter().filter(|status| status.held && status.local);
        for status in held.take(self.policy.segments_max) {
            if !self.is_scarce().await? {
                break;
            }
            self.store.cold_drop(status.segment).await?;
            report.dropped += 1;
        }
        for segment in self.store.cold_dead().await? {
            let name = self.release(segment).await?;
            match self.tier.delete(&name).await {
                // Also one that was deleted before the store was told.
                Ok(()) | Err(ColdError::NotFound { .. }) => {
                    self.store.cold_forget(segment).await?;
                    report.deleted += 1;
                }
                Err(ColdError::Locked { .. }) => report.locked += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Finishes copies of segments that the drives have lost since: what was put of them is all there is.
    async fn go_on_with_lost(&self) -> Result<(), ColdError> {
        let list = self.store.cold_list().await?.into_iter();
        for status in list.filter(|status| !status.held && !status.released && !status.local) {
            let name = self.store.cold_image(status.segment).await?.name();
            match self.tier.confirm(&name).await {
                Ok(sealed) => self.store.cold_hold(status.segment, sealed.root).await?,
                // It never came to be.
                Err(ColdError::NotFound { .. }) => self.store.cold_forget(status.segment).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has a dead segment's object count for nothing; its name.
    async fn release(&self, segment: u32) -> Result<String, ColdError> {
        let image = self.store.cold_image(segment).await?;
        if image.root().is_some() {
            if image.has_tombstones() {
                let (image, sealed) = self.held(segment).await?;
                for number in 0..image.batches() {
                    self.store.cold_carry(segment, number, self.batch(&image, &sealed, number).await?).await?;
                }
            }
            self.store.cold_release(segment).await?;
        }
        Ok(image.name())
    }

    /// Whether fewer slots are free than the policy wants.
    async fn is_scarce(&self) -> Result<bool, ColdError> {
        let status = self.store.status().await?;
        let all = status.segments + status.segments_free;
        Ok(status.segments_free * 100 < all * u64::from(self.policy.free_percent_min))
    }

    /// Deletes what attempts left that never came to anything; how many objects. It takes a listing of all of them.
    ///
    /// # Errors
    /// Those of the tier.
    pub async fn sweep(&self) -> Result<u64, ColdError> {
        self.tier.sweep(&self.store.cold_prefix(), SystemTime::now()).await
    }

    /// Adds nothing more to the segments of a group, so that they can go.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn seal(&self, group: Group) -> Result<(), ColdError> {
        Ok(self.store.seal(group).await?)
    }

    /// Puts a segment into the cold tier, and has the store say so when it was read back; bytes of its object.
    ///
    /// # Errors
    /// As [`ColdDriver::step`].
    pub async fn copy(&self, segment: u32) -> Result<u64, ColdError> {
        let image = self.store.cold_begin(segment).await?;
        let name = image.name();
        let put = match self.tier.find(&name).await? {
            Some(_) => Err(ColdError::Exists { name: name.clone() }),
            None => self.tier.put(&name, image.bytes(), self.source(&image)).await,
        };
        let sealed = match put {
            // By an earlier attempt, of which the store was not told.
            Err(ColdError::Exists { .. }) => self.tier.confirm(&name).await?,
            put => put?,
        };
        // By whom? What is under its name may be of a copy of this store that went on by itself.
        let header = image.header();
        if sealed.bytes != image.bytes() || self.tier.read(&sealed, 0..header.len() as u64).await? != header {
            return Err(ColdError::damaged(&name, "another segment is under its name"));
        }
        self.store.cold_hold(segment, sealed.root).await?;
        Ok(sealed.bytes)
    }

    /// The object of a segment, piece by piece: a batch is in memory at a time.
    fn source<'i>(&'i self, image: &'i ColdImage) -> impl Stream<Item = Result<Bytes, ColdError>> + Send + 'i {
        stream::unfold(0, move |number| async move {
            let piece = match number {
                0 => Ok(image.header()),
                _ if number <= image.batches() => {
                    let cells = self.store.cold_cells(image, number - 1).await;
                    cells.map_err(ColdError::from)
                }
                _ => return None,
            };
            Some((piece, number + 1))
        })
    }

    /// Reads objects whose records the index may not have, since it was lost: so many. Until then the store is busy for
    /// whoever asks for what it does not find.
    ///
    /// # Errors
    /// As [`ColdDriver::step`].
    pub async fn recall(&self) -> Result<u64, ColdError> {
        let mut recalled = 0;
        for status in self.store.cold_list().await?.into_iter().filter(|status| status.unread) {
            let (image, sealed) = self.held(status.segment).await?;
            for number in 0..image.batches() {
                let cells = self.batch(&image, &sealed, number).await?;
                self.store.cold_replay(status.segment, number, cells).await?;
            }
            self.store.cold_replayed(status.segment).await?;
            recalled += 1;
        }
        Ok(recalled)
    }

    /// Takes back objects that the tier lists and the store does not know, since its record of them was lost with too many
    /// drives: so many. [`ColdDriver::recall`] reads them. Nobody but the operator knows that this is wanted.
    ///
    /// # Errors
    /// As [`ColdDriver::step`].
    pub async fn reconcile(&self) -> Result<u64, ColdError> {
        let known: BTreeSet<u32> = self.store.cold_list().await?.into_iter().map(|status| status.segment).collect();
        let prefix = self.store.cold_prefix();
        let (mut adopted, mut after) = (0, None);
        loop {
            let names = self.tier.list(&prefix, after.as_deref()).await?;
            for name in &names {
                let number = segment_of(name, &prefix);
                if number.is_none_or(|number| known.contains(&number)) {
                    continue;
                }
                match self.adopt(name).await {
                    Ok(is_new) => adopted += u64::from(is_new),
                    // One bad object must not keep the others from coming back.
                    Err(error @ (ColdError::Damaged { .. } | ColdError::NotFound { .. })) => {
                        tracing::error!(code = error.code(), %error, "payload: an object is not taken back");
                    }
                    Err(error) => return Err(error),
                }
            }
            after = names.last().cloned();
            if names.is_empty() {
                return Ok(adopted);
            }
        }
    }

    /// Takes back one object; whether the store had lost it.
    async fn adopt(&self, name: &str) -> Result<bool, ColdError> {
        let sealed = self.tier.confirm(name).await?;
        let header = self.tier.read(&sealed, 0..sealed.bytes.min(COLD_HEADER_BYTES_MAX as u64)).await?;
        match self.store.cold_adopt(header, sealed.root).await {
            Ok(()) => Ok(true),
            // The drives have it: it is begun again there, and found.
            Err(StorageError::NotFound) => Ok(false),
            Err(StorageError::WrongContent) => Err(ColdError::damaged(name, "it is no segment of this store")),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Store::scrub_some`], one segment from `from` on; what is damaged beyond repair is made again from the cold tier,
    /// if that has the segment, too.
    ///
    /// # Errors
    /// As [`ColdDriver::step`].
    pub async fn scrub(&self, from: u32, now_ms: u64) -> Result<ScrubReport, ColdError> {
        let report = self.store.scrub_some(from, 1, now_ms).await?;
        if report.lost == 0 {
            return Ok(report);
        }
        let scrubbed = from..report.next.unwrap_or(u32::MAX);
        let held = self.store.cold_list().await?.into_iter();
        let Some(status) =
            held.filter(|status| status.held && status.local).find(|status| scrubbed.contains(&status.segment))
        else {
            return Ok(report);
        };
        let restored = self.restore(status.segment).await?;
        let again = self.store.scrub_some(status.segment, 1, now_ms).await?;
        Ok(ScrubReport { repaired: report.repaired + restored + again.repaired, ..again })
    }

    /// Writes again, from its object, what the drives have lost of a segment: so many cells.
    ///
    /// # Errors
    /// As [`ColdDriver::step`].
    pub async fn restore(&self, segment: u32) -> Result<u64, ColdError> {
        let (image, sealed) = self.held(segment).await?;
        let mut restored = 0;
        for number in 0..image.batches() {
            let cells = self.batch(&image, &sealed, number).await?;
            restored += self.store.cold_restore(segment, number, cells).await?;
        }
        Ok(restored)
    }

    /// Roots of the objects in a segment that the tier alone has. All of it is read.
    ///
    /// # Errors
    /// As [`ColdDriver::step`].
    pub async fn objects(&self, segment: u32) -> Result<Vec<Digest>, ColdError> {
        let (image, sealed) = self.held(segment).await?;
        let mut roots = Vec::new();
        for number in 0..image.batches() {
            let cells = self.batch(&image, &sealed, number).await?;
            roots.extend(self.store.cold_objects(segment, number, cells).await?);
        }
        Ok(roots)
    }

    /// What the store and the tier say of a segment that is held, and that it is the same.
    async fn held(&self, segment: u32) -> Result<(ColdImage, Sealed), ColdError> {
        let image = self.store.cold_image(segment).await?;
        let name = image.name();
        let sealed = self.tier.find(&name).await?.ok_or_else(|| ColdError::NotFound { name: name.clone() })?;
        if image.root() != Some(sealed.root) || image.bytes() != sealed.bytes {
            return Err(ColdError::damaged(&name, "its seal is not the one that the store knows"));
        }
        Ok((image, sealed))
    }

    /// The cells of a batch, from the tier.
    async fn batch(&self, image: &ColdImage, sealed: &Sealed, number: usize) -> Result<Bytes, ColdError> {
        let range = image.batch(number).unwrap_or_default();
        let mut cells = BytesMut::new();
        for start in range.clone().step_by(self.tier.options().part_bytes) {
            let end = range.end.min(start + self.tier.options().part_bytes as u64);
            cells.extend_from_slice(&self.tier.read(sealed, start..end).await?);
        }
        Ok(cells.freeze())
    }
}

/// The stores that a tier has segments of, so that others can take the places of those that are lost. All names are listed.
///
/// # Errors
/// Those of the tier.
pub async fn lost_stores(tier: &ColdTier) -> Result<Vec<LostStore>, ColdError> {
    let (mut stores, mut after) = (BTreeMap::<[u8; 16], u32>::new(), None::<String>);
    loop {
        let names = tier.list("", after.as_deref()).await?;
        for (id, number) in names.iter().filter_map(|name| store_of(name)) {
            let segments = stores.entry(id).or_default();
            *segments = (*segments).max(number.saturating_add(1));
        }
        after = names.last().cloned();
        if names.is_empty() {
            return Ok(stores.into_iter().map(|(id, segments)| LostStore { id, segments }).collect());
        }
    }
}

/// The store and the number in the name of a segment's object.
fn store_of(name: &str) -> Option<([u8; 16], u32)> {
    let (store, _) = name.split_once('/')?;
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(store.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((id, segment_of(name, &stele_storage::cold_prefix(&id))?))
}

/// The number in the name of a segment's object.
fn segment_of(name: &str, prefix: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_prefix(prefix)?.strip_prefix('/')?, 16).ok()
}

/// Reads records of segments that no slots hold.
struct Reader {
    tier: ColdTier,
    /// By name: a seal never changes.
    seals: Mutex<HashMap<String, Sealed>>,
}

impl Reader {
    async fn sealed(&self, name: &str) -> Result<Sealed, ColdError> {
        let known = self.seals.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let sealed = self.tier.find(name).await?.ok_or_else(|| ColdError::NotFound { name: name.to_owned() })?;
        let mut seals = self.seals.lock().unwrap_or_else(PoisonError::into_inner);
        if seals.len() >= SEALS_MAX {
            seals.clear();
        }
        seals.insert(name.to_owned(), sealed.clone());
        Ok(sealed)
    }
}

impl ColdReader for Reader {
    fn read<'r>(
        &'r self,
        name: &'r str,
        root: Digest,
        range: Range<u64>,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, StorageError>> + Send + 'r>> {
        Box::pin(async move {
            let sealed = self.sealed(name).await.map_err(unread)?;
            if sealed.root != root {
                return Err(unread(ColdError::damaged(name, "its seal is not the one that the store knows")));
            }
            self.tier.read(&sealed, range).await.map_err(unread)
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it maps errors")]
fn unread(error: ColdError) -> StorageError {
    StorageError::Cold { reason: error.to_string(), retry_after: error.retry_after() }
}
