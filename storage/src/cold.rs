//! The store's side of the cold tier: what it hands out to be kept elsewhere, and what it takes back.
//!
//! The store knows no network. Whoever does calls, for each of [`Store::cold_candidates`]: [`Store::cold_begin`]; puts what
//! [`ColdImage`] describes under [`ColdImage::name`], from its header and [`Store::cold_cells`] of each batch; reads it back;
//! [`Store::cold_hold`]; and, when room is wanted, [`Store::cold_drop`]. Each can be done again after a crash. From then on
//! records are read through a [`ColdReader`], and compared with what the index and their roots say like any other.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use stele_accel_hash::Digest;

use crate::core::{ColdCommand, ColdPlace, ColdStatus, Command, ObjectState, Reply};
use crate::format::{ColdHeader, checksum};
use crate::location::Location;
use crate::{Group, StorageError, Store};

/// Most bytes of what an object begins with, before its first batch.
pub const COLD_HEADER_BYTES_MAX: usize = ColdHeader::BYTES_MAX;

/// What reads the cold tier for a store.
pub trait ColdReader: Send + Sync {
    /// The bytes of a range of an object, which has the root `root`.
    fn read<'r>(
        &'r self,
        name: &'r str,
        root: Digest,
        range: Range<u64>,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, StorageError>> + Send + 'r>>;
}

/// What the object of a segment holds.
#[derive(Clone, Debug)]
pub struct ColdImage {
    header: ColdHeader,
    state: ObjectState,
}

impl ColdImage {
    /// The segment.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.header.segment
    }

    /// The name of its object: that of the store, and its number.
    #[must_use]
    pub fn name(&self) -> String {
        cold_name(&self.header.store, self.header.segment)
    }

    /// Bytes of the object.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header.object_bytes()
    }

    /// What it begins with.
    #[must_use]
    pub fn header(&self) -> Bytes {
        self.header.encode().into()
    }

    /// Batches, one behind the other.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.header.batches.len()
    }

    /// Where in the object a batch is.
    #[must_use]
    pub fn batch(&self, number: usize) -> Option<Range<u64>> {
        self.header.batch_range(number)
    }

    /// Whether there are tombstones in it, which go on elsewhere when it is deleted: [`Store::cold_carry`].
    #[must_use]
    pub fn has_tombstones(&self) -> bool {
        self.header.ends.is_some()
    }

    /// Root of the object, if it was read back and is not about to be deleted.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        self.state.root()
    }
}

/// What the names of a store's objects begin with: its id.
#[must_use]
pub fn cold_prefix(store: &[u8; 16]) -> String {
    store.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The name of a segment's object.
fn cold_name(store: &[u8; 16], segment: u32) -> String {
    format!("{}/{segment:08x}", cold_prefix(store))
}

impl Store {
    /// Has records that are in the cold tier alone be read by `reader` from now on.
    pub fn attach_cold(&self, reader: Arc<dyn ColdReader>) {
        *self.cold.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// Adds nothing more to the segment that a group is being written to, so that it can go to the cold tier; what is put from
    /// now on begins another.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn seal(&self, group: Group) -> Result<(), StorageError> {
        self.ask(|reply| Command::Seal { group, reply }).await
    }

    /// Whether the cold tier holds an object, all of its parts included.
    ///
    /// # Errors
    /// `NotFound` if it is not there; `WrongContent`; `Index`, `Busy`, `Stopped`.
    pub async fn is_cold(&self, root: &Digest) -> Result<bool, StorageError> {
        let held = self.cold_list().await?.into_iter().filter(|status| status.held);
        let held: BTreeSet<u32> = held.map(|status| status.segment).collect();
        let is_held = |key: &[u8; 32]| Ok(held.contains(&self.locate(key)?.segment));
        // Mostly it is not, and then its first record says so.
        if !is_held(root)? {
            return Ok(false);
        }
        let Some(parts) = self.part_keys(root).await? else { return Ok(true) };
        for key in parts {
            if !is_held(&key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Segments that could go to the cold tier: nothing is added to them, and their newest record was put before the time that
    /// `before_ms` says for their group. The oldest first, `segments_max` at most; also those that were begun and not held.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn cold_candidates(
        &self,
        before_ms: impl Fn(Group) -> u64 + Send + 'static,
        segments_max: usize,
    ) -> Result<Vec<u32>, StorageError> {
        let before_ms = Box::new(before_ms);
        self.ask_cold(|reply| ColdCommand::Candidates { before_ms, segments_max, reply }).await
    }

    /// Says durably that a copy of a segment is being made. It is not collected from then on.
    ///
    /// # Errors
    /// `NotFound` if it is not there, or still written to; `Damaged`; `Busy`, `Full`, `ReadOnly`, `Stopped`.
    pub async fn cold_begin(&self, segment: u32) -> Result<ColdImage, StorageError> {
        let header = self.ask_cold(|reply| ColdCommand::Intend { segment, reply }).await?;
        Ok(ColdImage { header, state: ObjectState::Begun })
    }

    /// The cells of a batch, bit by bit as they are to be on the drives: made again where they are not.
    ///
    /// # Errors
    /// `Damaged` where too little is left; `NotFound`, `Stopped`.
    pub async fn cold_cells(&self, image: &ColdImage, number: usize) -> Result<Bytes, StorageError> {
        let segment = image.segment();
        self.ask_cold(|reply| ColdCommand::Cells { segment, number, reply }).await
    }

    /// Says durably that the object of a segment was read back, and has this root. Of a segment that the drives have lost
    /// meanwhile it has to be read then, as after the loss of an index.
    ///
    /// # Errors
    /// `NotFound` if it was not begun, or has another root; `Full`, `ReadOnly`, `Stopped`.
    pub async fn cold_hold(&self, segment: u32, root: Digest) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Hold { segment, root, reply }).await
    }

    /// Gives up the slots of a segment that is held. Its records are read from the cold tier then.
    ///
    /// # Errors
    /// `NotFound` if it is not held, or has none; `Index`, `Busy`, `ReadOnly`, `Stopped`.
    pub async fn cold_drop(&self, segment: u32) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Drop { segment, reply }).await
    }

    /// All segments that are in the cold tier, or are to be.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn cold_list(&self) -> Result<Vec<ColdStatus>, StorageError> {
        self.ask_cold(|reply| ColdCommand::List { reply }).await
    }

    /// What the object of a segment holds, or is to hold.
    ///
    /// # Errors
    /// `NotFound`; `Damaged`; `Stopped`.
    pub async fn cold_image(&self, segment: u32) -> Result<ColdImage, StorageError> {
        let (header, state) = self.ask_cold(|reply| ColdCommand::Header { segment, reply }).await?;
        Ok(ColdImage { header, state })
    }

    /// Takes what a batch of an object holds into the index, which was lost.
    ///
    /// # Errors
    /// `Damaged` if `cells` are not those of the batch; `NotFound`, `Index`, `Stopped`.
    pub async fn cold_replay(&self, segment: u32, number: usize, cells: Bytes) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Replay { segment, number, cells, reply }).await
    }

    /// Says that all batches of a segment were taken into the index.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn cold_replayed(&self, segment: u32) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Replayed { segment, reply }).await
    }

    /// Writes again, from its object, what the drives have lost of a batch: so many cells.
    ///
    /// # Errors
    /// `Damaged` if `cells` are not those of the batch; `NotFound` if no slots hold the segment; `Stopped`.
    pub async fn cold_restore(&self, segment: u32, number: usize, cells: Bytes) -> Result<u64, StorageError> {
        self.ask_cold(|reply| ColdCommand::Restore { segment, number, cells, reply }).await
    }

    /// Roots of the objects that a batch of a segment in the cold tier holds, and that are found there.
    ///
    /// # Errors
    /// `Damaged` if `cells` are not those of the batch; `NotFound`, `Index`, `Stopped`.
    pub async fn cold_objects(&self, segment: u32, number: usize, cells: Bytes) -> Result<Vec<Digest>, StorageError> {
        self.ask_cold(|reply| ColdCommand::Objects { segment, number, cells, reply }).await
    }

    /// Segments in the cold tier whose objects can be deleted: all records in them were removed, or moved.
    ///
    /// # Errors
    /// `Index`, `Stopped`.
    pub async fn cold_dead(&self) -> Result<Vec<u32>, StorageError> {
        self.ask_cold(|reply| ColdCommand::Dead { reply }).await
    }

    /// What the names of all objects of this store begin with.
    #[must_use]
    pub fn cold_prefix(&self) -> String {
        cold_prefix(&self.shape.store)
    }

    /// Takes an object that is listed in the cold tier, and that the store does not know, for one whose record was lost with
    /// too many drives: `header` is what the object begins with, at least [`COLD_HEADER_BYTES_MAX`] of it or all. It has to be
    /// read then, as after the loss of an index.
    ///
    /// # Errors
    /// `WrongContent` if it is no object of this store; `NotFound` if the segment is known, or was never written;
    /// `Full`, `ReadOnly`, `Stopped`.
    pub async fn cold_adopt(&self, header: Bytes, root: Digest) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Adopt { header, root, reply }).await
    }

    /// Writes again the tombstones in a batch of a dead segment that other segments need.
    ///
    /// # Errors
    /// `Damaged` if `cells` are not those of the batch; `NotFound`, `Full`, `ReadOnly`, `Stopped`.
    pub async fn cold_carry(&self, segment: u32, number: usize, cells: Bytes) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Carry { segment, number, cells, reply }).await
    }

    /// Says durably that the object of a dead segment is about to be deleted, so that nobody looks for it.
    ///
    /// # Errors
    /// `NotFound` if the drives have the segment; `Full`, `ReadOnly`, `Stopped`.
    pub async fn cold_release(&self, segment: u32) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Release { segment, reply }).await
    }

    /// Says that the object of a segment was deleted.
    ///
    /// # Errors
    /// `NotFound`, `Full`, `ReadOnly`, `Stopped`.
    pub async fn cold_forget(&self, segment: u32) -> Result<(), StorageError> {
        self.ask_cold(|reply| ColdCommand::Forget { segment, reply }).await
    }

    /// A record from the cold tier; `error` is what the drives said.
    pub(crate) async fn cold_record(&self, location: Location, error: StorageError) -> Result<Bytes, StorageError> {
        let reader = self.cold.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(reader) = reader else { return Err(error) };
        let Ok(place) = self.ask_cold(|reply| ColdCommand::Locate { location, reply }).await else { return Err(error) };
        let ColdPlace { segment, root, start, bytes, sum } = place;
        let name = cold_name(&self.shape.store, segment);
        let read = reader.read(&name, root, start..start + u64::from(bytes)).await?;
        let genuine = read.len() == bytes as usize && checksum(&read) == sum;
        if genuine { Ok(read) } else { Err(StorageError::WrongContent) }
    }

    async fn ask_cold<T>(&self, command: impl FnOnce(Reply<T>) -> ColdCommand) -> Result<T, StorageError> {
        self.ask(|reply| Command::Cold(command(reply))).await
    }
}
