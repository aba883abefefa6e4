//! How a store is, for people and metrics.

use super::Inner;
use crate::DriveState;

/// How a store is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Its drives, in their order.
    pub drives: Vec<DriveStatus>,
    /// Segments that hold something.
    pub segments: u64,
    /// Segments that are in the cold tier, whether the drives have them or not.
    pub segments_cold: u64,
    /// Segments that the free slots are good for.
    pub segments_free: u64,
    /// Objects, parts of objects and their manifests: about so many.
    pub records: u64,
    /// Why nothing is written any more, if so.
    pub read_only: Option<String>,
    /// What happened since the store was opened.
    pub counters: Counters,
}

/// How a drive is.
#[derive(Clone, Debug)]
pub struct DriveStatus {
    /// What it is good for.
    pub state: DriveState,
    /// Its size.
    pub bytes: u64,
    /// Slots on it: columns of segments.
    pub slots: u32,
    /// Slots that are free.
    pub slots_free: u32,
    /// What it said when it failed.
    pub reason: Option<String>,
}

/// What happened since a store was opened.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Records that were made durable, tombstones among them.
    pub puts: u64,
    /// Bytes of them.
    pub put_bytes: u64,
    /// Bytes that the drives were given for them.
    pub written_bytes: u64,
    /// Batches that were written.
    pub batches: u64,
    /// Records that were read.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Records that were made again from other columns.
    pub reconstructed: u64,
    /// Cells that were written again.
    pub repaired: u64,
    /// Batches of which too little is left.
    pub lost: u64,
}

impl Inner {
    pub(super) fn status(&self) -> Status {
        let (roster, segments) = (self.roster.borrow(), self.segments.borrow());
        let drives = (0..roster.members.len()).map(|drive| DriveStatus {
            state: roster.state(drive),
            bytes: roster.bytes[drive],
            slots: segments.slots[drive],
            slots_free: u32::try_from(segments.free[drive].len()).unwrap_or(u32::MAX),
            reason: roster.reasons[drive].clone(),
        });
        Status {
            drives: drives.collect(),
            segments: segments.all.len() as u64,
            segments_cold: self.held() as u64,
            segments_free: segments.segments_free(self.shape.columns()) as u64,
            records: self.index.len_estimate(),
            read_only: self.writing.borrow().read_only.as_ref().map(|read_only| read_only.reason().to_owned()),
            counters: self.counters.borrow().clone(),
        }
    }
}
