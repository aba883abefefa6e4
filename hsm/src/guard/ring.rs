//! A file of fixed slots that is written in turn and survives a torn write.
//!
//! ```text
//!  page 0      magic, version, kind, owner, slot count, CRC-32C      written once, never again
//!  page 1..=n  sequence number, record, CRC-32C; zero when never written
//! ```
//!
//! Record number `s` (from 1) lies in page `1 + (s - 1) mod n`. Each record has a page of its own, so a write
//! that the power cut tore can damage no record but the one it replaces, which is the oldest. On opening,
//! every other page must hold exactly the record that its number says; anything else is damage and the
//! guard does not open.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    error::SignerError,
    guard::{GuardDurability, GuardFigures},
};

/// Bytes of a page: the largest unit in which common drives write atomically or tear.
pub(super) const PAGE: usize = 4096;

/// Bytes of a record inside its page; the rest of the page stays zero.
pub(super) const RECORD_MAX: usize = 240;

/// Bytes of page 0 and of a record's frame that the checksum covers.
const FRAME: usize = 8 + RECORD_MAX;

const MAGIC: &[u8; 16] = b"stele-guard/v1\0\0";

/// The fixed-size bytes of one record, zero-padded.
pub(super) type Record = [u8; RECORD_MAX];

/// What a ring belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// What its records are: `V` for votes, `C` for checkpoints.
    pub(super) kind: u8,
    /// The validator or log it guards.
    pub(super) owner: [u8; 32],
    /// Number of slots.
    pub(super) slots: u32,
}

/// An open ring, locked against other processes.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    path: PathBuf,
    identity: Identity,
    durability: GuardDurability,
    /// Number of the last record written.
    sequence: u64,
    poisoned: bool,
    pub(super) figures: GuardFigures,
}

impl Ring {
    /// Makes an empty ring. The file appears complete or not at all.
    pub(super) fn create(path: &Path, identity: Identity) -> Result<(), SignerError> {
        Self::write_new(path, identity, None)
    }

    /// Makes a ring that holds one record, as [`Ring::create`] does.
    pub(super) fn create_with(path: &Path, identity: Identity, first: &Record) -> Result<(), SignerError> {
        Self::write_new(path, identity, Some(first))
    }

    fn write_new(path: &Path, identity: Identity, first: Option<&Record>) -> Result<(), SignerError> {
        let failed = |source| SignerError::GuardIo { path: path.to_owned(), source };
        if path.try_exists().map_err(failed)? {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(SignerError::GuardIo { path: path.to_owned(), source });
        }
        let pages = usize::try_from(identity.slots).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))? + 1;
        let mut content = vec![0u8; pages * PAGE];
        content[..FRAME + 4].copy_from_slice(&superblock(identity));
        if let Some(record) = first {
            content[PAGE..PAGE + FRAME + 4].copy_from_slice(&frame(&1u64.to_be_bytes(), record));
        }

        let partial = path.with_extension("partial");
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(failed)?;
        file.write_all_at(&content, 0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // A hard link fails when the name exists, so a ring that appeared meanwhile is never replaced.
        fs::hard_link(&partial, path).map_err(failed)?;
        fs::remove_file(&partial).map_err(failed)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new("."))).and_then(|file| file.sync_all()).map_err(failed)
    }

    /// Opens a ring and returns its records, oldest first.
    pub(super) fn open(
        path: &Path,
        identity: Identity,
        durability: GuardDurability,
    ) -> Result<(Self, Vec<Record>), SignerError> {
        let failed = |source| SignerError::GuardIo { path: path.to_owned(), source };
        let damaged = |reason| SignerError::GuardDamaged { path: path.to_owned(), reason };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SignerError::GuardHeld { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let pages = u64::from(identity.slots) + 1;
        let length = pages * PAGE as u64;
        if file.metadata().map_err(failed)?.len() != length {
            return Err(damaged("its length is not that of a guard"));
        }
        let mut content = vec![0u8; usize::try_from(length).map_err(|_| damaged("it is too long"))?];
        file.read_exact_at(&mut content, 0).map_err(failed)?;
        let (first, slots) = content.split_at(PAGE);
        if first[..FRAME + 4] != superblock(identity) {
            return Err(match first[..16] == *MAGIC {
                true => damaged("it belongs to another validator or log"),
                false => damaged("it is not a guard"),
            });
        }
        let (sequence, records) = read_records(slots).map_err(damaged)?;
        let ring = Self {
            file,
            path: path.to_owned(),
            identity,
            durability,
            sequence,
            poisoned: false,
            figures: GuardFigures::default(),
        };
        Ok((ring, records))
    }

    /// Refuses when an earlier write failed: what is on the disk is then unknown.
    pub(super) fn require_sound(&self) -> Result<(), SignerError> {
        if self.poisoned {
            return Err(SignerError::GuardPoisoned { path: self.path.clone() });
        }
        Ok(())
    }

    /// Writes one record durably: one `pwrite`, one `fdatasync`.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), SignerError> {
        self.require_sound()?;
        let started = Instant::now();
        let sequence = self.sequence + 1;
        let mut page = [0u8; PAGE];
        page[..FRAME + 4].copy_from_slice(&frame(&sequence.to_be_bytes(), record));
        let offset = (1 + (sequence - 1) % u64::from(self.identity.slots)) * PAGE as u64;
        let written = self.file.write_all_at(&page, offset).and_then(|()| match self.durability {
            GuardDurability::Sync => self.file.sync_data(),
            GuardDurability::Process => Ok(()),
        });
        if let Err(source) = written {
            self.poisoned = true;
            return Err(SignerError::GuardIo { path: self.path.clone(), source });
        }
        self.sequence = sequence;
        let elapsed = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.figures.records += 1;
        self.figures.write_nanoseconds = self.figures.write_nanoseconds.saturating_add(elapsed);
        self.figures.write_nanoseconds_max = self.figures.write_nanoseconds_max.max(elapsed);
        Ok(())
    }
}

/// Eight bytes, a record, and the checksum over both.
fn frame(head: &[u8; 8], record: &Record) -> [u8; FRAME + 4] {
    let mut bytes = [0u8; FRAME + 4];
    bytes[..8].copy_from_slice(head);
    bytes[8..FRAME].copy_from_slice(record);
    let checksum = crc32c::crc32c(&bytes[..FRAME]);
    bytes[FRAME..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn superblock(identity: Identity) -> [u8; FRAME + 4] {
    let mut bytes = [0u8; FRAME + 4];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16] = identity.kind;
    bytes[17..49].copy_from_slice(&identity.owner);
    bytes[49..53].copy_from_slice(&identity.slots.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[..FRAME]);
    bytes[FRAME..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The record of a page with its number, or `None` for a page that is not whole.
fn read_page(page: &[u8]) -> Option<(u64, Record)> {
    let (head, rest) = page.split_first_chunk::<8>()?;
    let (record, rest) = rest.split_first_chunk::<RECORD_MAX>()?;
    let whole = frame(head, record);
    let sequence = u64::from_be_bytes(*head);
    (sequence != 0 && rest.starts_with(&whole[FRAME..])).then_some((sequence, *record))
}

/// Finds the last record and those before it that the ring still holds, oldest first.
fn read_records(slots: &[u8]) -> Result<(u64, Vec<Record>), &'static str> {
    let pages: Vec<&[u8]> = slots.chunks_exact(PAGE).collect();
    let found: Vec<Option<(u64, Record)>> = pages.iter().map(|page| read_page(page)).collect();
    let count = pages.len() as u64;
    let last = found.iter().flatten().map(|(sequence, _)| *sequence).max().unwrap_or(0);
    // The page after the last record may hold the oldest record, zeros, or a torn write.
    let next = last % count;
    let mut records = Vec::with_capacity(pages.len());
    for back in (0..count).rev() {
        let Some(sequence) = last.checked_sub(back).filter(|sequence| *sequence != 0) else {
            continue;
        };
        let slot = (sequence - 1) % count;
        let index = usize::try_from(slot).map_err(|_| "it has too many slots")?;
        match found[index] {
            Some((number, record)) if number == sequence => records.push(record),
            _ if slot == next => {}
            _ => return Err("a record is missing or damaged"),
        }
    }
    // Pages that were never reached must be untouched, the next one excepted.
    for (index, page) in (0u64..).zip(&pages) {
        let untouched = page.iter().all(|byte| *byte == 0);
        if index >= last && index != next && !untouched {
            return Err("an unused page is not empty");
        }
    }
    Ok((last, records))
}
