//! What can go wrong with a store.

use std::time::Duration;

use stele_device::DeviceError;

use crate::index::IndexError;

/// Why the store, or a request to it, failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The drives, or what was asked of them, cannot make a store.
    #[error("no store can be made: {what}")]
    Shape {
        /// What is wrong.
        what: String,
    },
    /// A drive holds no store, or another one.
    #[error("drive {drive} does not belong to the store: {what}")]
    Foreign {
        /// Its number among those that were given.
        drive: usize,
        /// What is on it.
        what: String,
    },
    /// So many drives are missing or failed that nothing can be read.
    #[error("{sound} of {drives} drives are sound, and {needed} are needed")]
    TooFewDrives {
        /// Drives that hold what they should.
        sound: usize,
        /// Drives of the store.
        drives: usize,
        /// What a segment needs.
        needed: usize,
    },
    /// A drive failed a request that cannot do without it.
    #[error("drive {drive} fails: {reason}")]
    Drive {
        /// Its number.
        drive: usize,
        /// What it said.
        reason: String,
    },
    /// More columns are damaged than there is parity for.
    #[error("a record in segment {segment} is damaged beyond repair: {sound} of {needed} columns are sound")]
    Damaged {
        /// Where it lies.
        segment: u32,
        /// Columns that are as they were written.
        sound: usize,
        /// Columns that are needed.
        needed: usize,
    },
    /// The bytes do not have the root that they were found by.
    #[error("the content is not what its root says")]
    WrongContent,
    /// No object has this root.
    #[error("no such object")]
    NotFound,
    /// A range begins behind the end of its object.
    #[error("a range from byte {from} of an object of {bytes}")]
    Range {
        /// Where the range begins.
        from: u64,
        /// Bytes of the object.
        bytes: u64,
    },
    /// An object or a record is longer than the store takes.
    #[error("{bytes} bytes where {bytes_max} is the most")]
    TooLong {
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        bytes_max: u64,
    },
    /// The store has no room left but what it needs for itself.
    #[error(
        "the store is full: {free} of {slots} slots are free, and {reserved} are kept for collecting what was deleted"
    )]
    Full {
        /// Slots that are free.
        free: u64,
        /// Slots of the store.
        slots: u64,
        /// Slots that are kept.
        reserved: u64,
    },
    /// The store only reads, since what it wrote could not be kept safe.
    #[error("the store only reads: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// More waits than the store takes at a time.
    #[error("the store is busy: try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The index failed.
    #[error("the index fails: {reason}")]
    Index {
        /// What it said.
        reason: String,
        /// Whether it is damaged, so that it has to be made again.
        damaged: bool,
    },
    /// A record is in the cold tier alone, and cannot be read there.
    #[error("the record is in the cold tier: {reason}")]
    Cold {
        /// What the cold tier said.
        reason: String,
        /// When to try again, if that may help.
        retry_after: Option<Duration>,
    },
    /// The store is being closed, or its thread is gone.
    #[error("the store has stopped")]
    Stopped,
}

impl StorageError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "storage_shape",
            Self::Foreign { .. } => "storage_foreign_drive",
            Self::TooFewDrives { .. } => "storage_too_few_drives",
            Self::Drive { .. } => "storage_drive_failed",
            Self::Damaged { .. } => "storage_damaged",
            Self::WrongContent => "storage_wrong_content",
            Self::NotFound => "storage_not_found",
            Self::Range { .. } => "storage_range",
            Self::TooLong { .. } => "storage_too_long",
            Self::Full { .. } => "storage_full",
            Self::ReadOnly { .. } => "storage_read_only",
            Self::Busy { .. } => "storage_busy",
            Self::Index { .. } => "storage_index",
            Self::Cold { .. } => "storage_cold",
            Self::Stopped => "storage_stopped",
        }
    }

    /// Whether the same request may succeed later, without anybody doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Cold { retry_after: Some(_), .. })
    }

    pub(crate) fn index(error: &IndexError) -> Self {
        Self::Index { reason: error.to_string(), damaged: error.is_damage() }
    }

    pub(crate) fn shape(what: impl Into<String>) -> Self {
        Self::Shape { what: what.into() }
    }

    pub(crate) fn drive(drive: usize, error: &DeviceError) -> Self {
        let source = std::error::Error::source(error);
        let reason = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        Self::Drive { drive, reason }
    }
}
