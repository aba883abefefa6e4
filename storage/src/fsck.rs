//! Checking a store without changing it: everything that can be derived is derived again, and compared.
//!
//! The drives are behind an [`Overlay`]: what opening and mending would write stays in memory and is forgotten. The index is
//! made again from the segments in a folder of the caller's, and a copy of the one that is there is brought up to date beside
//! it; both must lead to the same places. Then every cell is read, and every object by its root.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use stele_device::{Access, BlockDevice, Completed, Completion, DeviceError, Disk, Geometry, Operation, Request};

use crate::location::{LOCATION_BYTES, Location};
use crate::store::lock_drives;
use crate::{DriveState, Options, StorageError, Store};

/// Bytes of a block of an overlay.
const BLOCK_BYTES: usize = 4096;

/// Bytes that an overlay keeps. What a check would write beyond them is forgotten at once: it was counted, and would only be
/// found damaged again.
const OVERLAY_BYTES_MAX: usize = 256 << 20;

/// Bytes of an object that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Roots that a report names.
const NAMED_MAX: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Drives of the store.
    pub drives: usize,
    /// Numbers of those that are missing or have failed.
    pub drives_failed: Vec<usize>,
    /// Segments that were read.
    pub segments: u64,
    /// Cells and headers of slots that are damaged or missing, and could be made again.
    pub repairable: u64,
    /// Batches of which too little is left.
    pub lost: u64,
    /// Directories of records that cannot be read: what they list is not among the objects.
    pub unlisted: u64,
    /// Objects that were read to their end and have their root.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Objects that are in the cold tier, at least in part: they were not read.
    pub cold: u64,
    /// Objects that cannot be read, at most 1,000 of them, each with the reason.
    pub unreadable: Vec<([u8; 32], StorageError)>,
    /// How many there are of them.
    pub unreadable_count: u64,
    /// Why the index that is there is not the one that the segments give, if so.
    pub index: Option<String>,
}

impl CheckReport {
    /// Whether nothing is damaged. A drive that is missing is no damage as long as everything can be read.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.repairable == 0
            && self.lost == 0
            && self.unlisted == 0
            && self.unreadable_count == 0
            && self.index.is_none()
    }
}

/// Checks the store on the drives at `paths`, whose index is in `directory`, and changes neither. `scratch` is an empty
/// folder with room for the index twice. `seen` is told every object that can be read.
///
/// # Errors
/// `Foreign` while the store is open elsewhere, or there is none; `TooFewDrives`; `Drive`; `Index` if the folder cannot be
/// used.
pub async fn check(
    paths: &[PathBuf],
    directory: &Path,
    scratch: &Path,
    options: &Options,
    mut seen: impl FnMut([u8; 32]),
) -> Result<CheckReport, StorageError> {
    let _locks = lock_drives(paths)?;
    let failed = |error: io::Error| StorageError::Index { reason: error.to_string(), damaged: false };
    let (derived, kept) = (scratch.join("derived"), scratch.join("kept"));
    copy(directory, &kept).map_err(failed)?;
    let index = check_index(paths, &derived, &kept, options).await?;
    let store = Store::open_drives(overlays(paths, options)?, &derived, options)?;
    let mut report = CheckReport { index, ..CheckReport::default() };
    let mut next = Some(0);
    while let Some(from) = next {
        let listing = store.list(from, 1).await?;
        for (root, _) in listing.roots {
            match read(&store, &root).await {
                Ok(bytes) => {
                    report.objects += 1;
                    report.object_bytes += bytes;
                    seen(root);
                }
                // Parts of it are in the cold tier, which is not asked here.
                Err(StorageError::Cold { .. } | StorageError::Busy { .. }) => report.cold += 1,
                Err(error) => {
                    report.unreadable_count += 1;
                    if report.unreadable.len() < NAMED_MAX {
                        report.unreadable.push((root, error));
                    }
                }
            }
        }
        report.unlisted += listing.unreadable;
        next = listing.next;
    }
    // By time 0, no upload is so old that its parts are orphans.
    let scrubbed = store.scrub(0).await?;
    let status = store.status().await?;
    report.drives = status.drives.len();
    report.drives_failed = (0..)
        .zip(&status.drives)
        .filter(|(_, drive)| drive.state == DriveState::Failed)
        .map(|(number, _)| number)
        .collect();
    // Reading objects has mended some of it, in the overlay.
    report.repairable = status.counters.repaired.max(scrubbed.repaired);
    (report.segments, report.lost) = (scrubbed.segments, scrubbed.lost.max(status.counters.lost));
    Ok(report)
}

/// Why the index in `kept` is not the one that the segments give, which is made in `derived`. What it says of segments that
/// are in the cold tier alone cannot be compared here.
async fn check_index(
    paths: &[PathBuf],
    derived: &Path,
    kept: &Path,
    options: &Options,
) -> Result<Option<String>, StorageError> {
    let made = Store::open_drives(overlays(paths, options)?, derived, options)?;
    let replayed = match Store::open_drives_as_they_are(overlays(paths, options)?, kept, options) {
        Ok(replayed) => replayed,
        Err(StorageError::Index { reason, damaged: true }) => return Ok(Some(reason)),
        Err(error) => return Err(error),
    };
    let list = replayed.cold_list().await?;
    let away: BTreeSet<u32> = list.iter().filter(|cold| !cold.local).map(|cold| cold.segment).collect();
    let is_here = |location: &[u8; LOCATION_BYTES]| {
        Location::decode(location).is_none_or(|location| !away.contains(&location.segment))
    };
    let here = |entry: &Result<(_, [u8; LOCATION_BYTES]), _>| match entry {
        Ok((_, location)) => is_here(location),
        Err(_) => true,
    };
    let (mut made, mut replayed) = (made.entries().filter(here), replayed.entries().filter(here));
    let mut entries: u64 = 0;
    loop {
        let pair = (made.next().transpose(), replayed.next().transpose());
        match pair {
            (Ok(None), Ok(None)) => return Ok(None),
            (Ok(made), Ok(replayed)) if made == replayed => entries += 1,
            (Ok(_), Ok(_)) => {
                return Ok(Some(format!("behind {entries} entries it differs from what the segments give")));
            }
            (Err(error), _) | (_, Err(error)) => return Ok(Some(error.to_string())),
        }
    }
}

/// Reads an object to its end; its length.
async fn read(store: &Store, root: &[u8; 32]) -> Result<u64, StorageError> {
    let mut object = store.object(root).await?;
    let (bytes, mut from) = (object.bytes(), 0);
    while from < bytes {
        from += object.read(from, READ_BYTES).await?.len() as u64;
    }
    Ok(bytes)
}

fn overlays(paths: &[PathBuf], options: &Options) -> Result<Vec<Arc<dyn BlockDevice>>, StorageError> {
    let open = |(number, path): (usize, &PathBuf)| {
        let disk = Disk::open(path, &options.device).map_err(|error| StorageError::drive(number, &error))?;
        Ok(Arc::new(Overlay { disk, written: Arc::default() }) as Arc<dyn BlockDevice>)
    };
    paths.iter().enumerate().map(open).collect()
}

/// Copies a folder of folders of files; one that does not exist is copied as an empty one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A drive that is only read: what is written lies above it, in memory.
struct Overlay {
    disk: Disk,
    written: Arc<Mutex<BTreeMap<u64, Box<[u8]>>>>,
}

impl Overlay {
    fn write(&self, mut request: Request, completion: &Arc<dyn Completion>) {
        let first = request.offset() / BLOCK_BYTES as u64;
        if let Some(buffer) = request.buffer() {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, block) in (first..).zip(buffer.chunks_exact(BLOCK_BYTES)) {
                if written.len() < OVERLAY_BYTES_MAX / BLOCK_BYTES || written.contains_key(&number) {
                    written.insert(number, block.into());
                }
            }
        }
        completion.complete(request.answer(Ok(())));
        completion.settle();
    }

    fn pass(
        &self,
        requests: &mut VecDeque<Request>,
        completion: &Arc<dyn Completion>,
        submit: impl Fn(&mut VecDeque<Request>, &Arc<dyn Completion>),
    ) {
        let patched: Arc<dyn Completion> =
            Arc::new(Patched { written: Arc::clone(&self.written), inner: Arc::clone(completion) });
        while let Some(request) = requests.pop_front() {
            if request.operation() != Operation::Read {
                self.write(request, completion);
                continue;
            }
            let mut one = VecDeque::from([request]);
            submit(&mut one, &patched);
            if let Some(refused) = one.pop_front() {
                requests.push_front(refused);
                return;
            }
        }
    }
}

impl BlockDevice for Overlay {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn access(&self) -> &Access {
        self.disk.access()
    }
    fn submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.pass(requests, completion, |one, patched| self.disk.submit(one, patched));
    }
    fn try_submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.pass(requests, completion, |one, patched| self.disk.try_submit(one, patched));
    }
    fn grow(&self, _: u64) -> Result<(), DeviceError> {
        Err(DeviceError::Poisoned)
    }
}

/// Puts what was written over what was read.
struct Patched {
    written: Arc<Mutex<BTreeMap<u64, Box<[u8]>>>>,
    inner: Arc<dyn Completion>,
}

impl Completion for Patched {
    fn complete(&self, mut completed: Completed) {
        let first = completed.offset / BLOCK_BYTES as u64;
        if let (Ok(()), Some(buffer)) = (&completed.result, &mut completed.buffer) {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let last = first + (buffer.len() / BLOCK_BYTES) as u64;
            for (number, block) in written.range(first..last) {
                let from = usize::try_from(number - first).unwrap_or(usize::MAX) * BLOCK_BYTES;
                buffer[from..from + BLOCK_BYTES].copy_from_slice(block);
            }
        }
        self.inner.complete(completed);
    }

    fn settle(&self) {
        self.inner.settle();
    }
}
