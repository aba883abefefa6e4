//! What every backend works on: an open block device, preallocated file or namespace, and what is known about it.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::device::Geometry;
use crate::nvme::{self, Namespace, Zone, Zoning};
use crate::request::{Operation, Request};
use crate::{BufferPool, DeviceError};

/// Bytes of a block, unless the device's own are larger: the page, and the sector of what is sold today.
const BLOCK_BYTES: u32 = 4096;

/// The type of FUSE's file systems (statfs(2)).
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

#[derive(Debug)]
pub(crate) struct Medium {
    /// None if a driver in this process has the device.
    file: Option<File>,
    path: PathBuf,
    /// Whether the page cache is passed by.
    direct: bool,
    /// Present if the file is the character device of a drive.
    namespace: Option<Namespace>,
    block_bytes: u32,
    blocks: AtomicU64,
    /// Held while the file grows.
    growing: Mutex<()>,
    /// Set by the first failed flush or durable write. Linux drops dirty pages after a failed writeback and reports it
    /// once, so a later success proves nothing (Rebello et al., "Can Applications Recover from fsync Failures?",
    /// USENIX ATC 2020).
    poisoned: AtomicBool,
}

impl Medium {
    /// Makes a file of `blocks` blocks, all of them allocated, durable with its name or not there.
    pub(crate) fn create(path: &Path, blocks: u64) -> Result<(), DeviceError> {
        let file =
            File::options().write(true).create_new(true).open(path).map_err(DeviceError::open("create", path))?;
        let made = allocate(&file, 0, bytes(blocks, BLOCK_BYTES)).and_then(|()| {
            let synced = file.sync_all().and_then(|()| sync_directory(path));
            synced.map_err(DeviceError::open("flush", path))
        });
        if made.is_err() {
            // What stays is found by the next attempt, which says so.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Opens what is there, past the page cache if that is wanted and possible; says why where it is not.
    pub(crate) fn open(path: &Path, direct: bool, zoned: bool) -> Result<(Self, Option<String>), DeviceError> {
        if nvme::is_character_device(path) {
            let reason = "the page cache is passed by, because a drive's own commands never meet it";
            return Ok((Self::open_namespace(path, zoned)?, (!direct).then(|| reason.into())));
        }
        if !direct {
            return Ok((Self::open_as(path, false)?, None));
        }
        let refusal = match Self::open_as(path, true) {
            Ok(medium) => match medium.probe() {
                Ok(()) => return Ok((medium, None)),
                Err(error) => error,
            },
            Err(DeviceError::Open { source, .. }) if is_refusal(&source) => source,
            Err(error) => return Err(error),
        };
        let reason = format!("the page cache is used, because the file system refuses direct I/O: {refusal}");
        Ok((Self::open_as(path, false)?, Some(reason)))
    }

    fn open_namespace(path: &Path, zoned: bool) -> Result<Self, DeviceError> {
        let file = open_file(path, OFlags::empty())?;
        let namespace = Namespace::identify(&file, path, zoned)?;
        let block_bytes = namespace.lba_bytes().max(BLOCK_BYTES);
        let medium = Self::new(Some(file), path, true, block_bytes, namespace.bytes());
        Ok(Self { namespace: Some(namespace), ..medium })
    }

    fn open_as(path: &Path, direct: bool) -> Result<Self, DeviceError> {
        let mut file = open_file(path, if direct { OFlags::DIRECT } else { OFlags::empty() })?;
        let metadata = file.metadata().map_err(DeviceError::open("examine", path))?;
        let (block_bytes, length) = if metadata.file_type().is_block_device() {
            let sector = rustix::fs::ioctl_blksszget(&file).map_err(io::Error::from);
            let length = file.seek(SeekFrom::End(0));
            let (sector, length) =
                sector.and_then(|sector| Ok((sector, length?))).map_err(DeviceError::open("examine", path))?;
            (sector.max(BLOCK_BYTES), length)
        } else if metadata.is_file() {
            (BLOCK_BYTES, metadata.len())
        } else {
            let what = "neither a block device nor a regular file";
            return Err(DeviceError::Unsuitable { path: path.to_owned(), what });
        };
        Ok(Self::new(Some(file), path, direct, block_bytes, length))
    }

    /// A device that a driver in this process has.
    #[cfg(feature = "spdk")]
    pub(crate) fn of_driver(path: &Path, sector_bytes: u32, bytes: u64) -> Self {
        Self::new(None, path, true, sector_bytes.max(BLOCK_BYTES), bytes)
    }

    fn new(file: Option<File>, path: &Path, direct: bool, block_bytes: u32, length: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            direct,
            namespace: None,
            block_bytes,
            blocks: AtomicU64::new(length / u64::from(block_bytes)),
            growing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Reads the first block: some file systems allow opening for direct I/O, but no I/O, or of larger blocks only.
    fn probe(&self) -> io::Result<()> {
        if self.geometry().blocks == 0 {
            return Ok(());
        }
        let mut block = BufferPool::new(1, self.block_bytes as usize).map_err(io::Error::other)?.take();
        let mut file = self.file();
        file.seek(SeekFrom::Start(0))?;
        match file.read(&mut block) {
            // A disk that cannot read this block will say so to who needs it.
            Err(error) if is_refusal(&error) => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_ref().expect("a backend of the kernel's has a file")
    }

    /// Whether the file system forgets the durability of a write that is not waited for: FUSE sends no fsync after an
    /// asynchronous direct write with `RWF_DSYNC` (Linux 6.18), while pwritev2(2) does.
    pub(crate) fn forgets_durability(&self) -> bool {
        rustix::fs::fstatfs(self.file()).is_ok_and(|about| about.f_type == FUSE_SUPER_MAGIC)
    }

    /// The namespace whose character device this is.
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    fn zoning(&self) -> Option<Zoning> {
        self.namespace.as_ref().and_then(|namespace| namespace.zoning)
    }

    /// The zones of the device, as they are at this moment.
    pub(crate) fn zones(&self) -> Result<Vec<Zone>, DeviceError> {
        let Some(namespace) = self.namespace.as_ref().filter(|namespace| namespace.zoning.is_some()) else {
            return Err(DeviceError::Unsuitable { path: self.path.clone(), what: "the device has no zones" });
        };
        nvme::report_zones(self.file(), namespace).map_err(DeviceError::open("examine", &self.path))
    }

    /// Takes note of where an append was written, if it can be there.
    pub(crate) fn appended(&self, request: &mut Request, place: u64) -> io::Result<()> {
        let zone_bytes = self.zoning().map_or(0, |zoning| zoning.zone_bytes);
        let within = place.checked_sub(request.offset).and_then(|within| within.checked_add(request.bytes() as u64));
        if within.is_none_or(|end| end > zone_bytes) || !place.is_multiple_of(u64::from(self.block_bytes)) {
            return Err(io::Error::other("the drive says that it appended to another zone"));
        }
        request.offset = place;
        Ok(())
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn geometry(&self) -> Geometry {
        Geometry { block_bytes: self.block_bytes, blocks: self.blocks.load(Ordering::Acquire) }
    }

    /// Grows a file to at least `blocks` blocks, allocated and durable.
    pub(crate) fn grow(&self, blocks: u64) -> Result<(), DeviceError> {
        let _alone = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.geometry();
        if blocks <= before.blocks {
            return Ok(());
        }
        if self.is_poisoned() {
            return Err(DeviceError::Poisoned);
        }
        let fixed = || DeviceError::Unsuitable { path: self.path.clone(), what: "a drive does not grow" };
        let file = self.file.as_ref().ok_or_else(fixed)?;
        let metadata = file.metadata().map_err(DeviceError::open("examine", &self.path))?;
        if !metadata.is_file() {
            return Err(fixed());
        }
        let (start, end) = (before.bytes(), bytes(blocks, self.block_bytes));
        if let Err(error) = allocate(file, start, end) {
            // Part of it may have been allocated; nobody uses it, so a failure here costs room only.
            let _ = file.set_len(metadata.len());
            return Err(error);
        }
        if let Err(error) = file.sync_all() {
            self.poison();
            return Err(DeviceError::refused("grow", start, error));
        }
        self.blocks.store(blocks, Ordering::Release);
        Ok(())
    }

    /// Whether a request may be begun.
    pub(crate) fn check(&self, request: &Request) -> Result<(), DeviceError> {
        if request.operation != Operation::Read && self.is_poisoned() {
            return Err(DeviceError::Poisoned);
        }
        if request.operation == Operation::Flush {
            return Ok(());
        }
        self.check_zone(request)?;
        let (geometry, offset, bytes) = (self.geometry(), request.offset, request.bytes());
        let block = u64::from(geometry.block_bytes);
        if request.operation == Operation::ResetZone {
            return Ok(());
        }
        if bytes == 0 || !(bytes as u64).is_multiple_of(block) || !offset.is_multiple_of(block) {
            return Err(DeviceError::Misaligned { offset, bytes, block_bytes: geometry.block_bytes });
        }
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= geometry.bytes() => Ok(()),
            _ => Err(DeviceError::OutOfRange { offset, bytes, capacity_bytes: geometry.bytes() }),
        }
    }

    /// Whether a request is one for a device with zones, or for one without.
    fn check_zone(&self, request: &Request) -> Result<(), DeviceError> {
        let (operation, offset) = (request.operation, request.offset);
        let of_zone = matches!(operation, Operation::Append | Operation::ResetZone);
        let what = match self.zoning() {
            None if of_zone => "the device has no zones",
            Some(_) if matches!(operation, Operation::Write | Operation::WriteDurable) => "zones take appends",
            Some(zoning) if of_zone && !offset.is_multiple_of(zoning.zone_bytes) => "no zone begins there",
            Some(zoning) if of_zone && self.geometry().bytes().saturating_sub(offset) < zoning.zone_bytes => {
                "there is no such zone"
            }
            Some(zoning) if operation == Operation::Append && request.bytes() > zoning.append_bytes_max as usize => {
                "the drive takes less at once"
            }
            _ => return Ok(()),
        };
        Err(DeviceError::Zone { action: operation.action(), offset, what })
    }

    /// What the end of a request that was begun means, for it and for those after it.
    ///
    /// A write that succeeds beside one that poisons is not believed: the kernel may have told the other about both.
    pub(crate) fn verdict(&self, request: &Request, outcome: io::Result<()>) -> Result<(), DeviceError> {
        let operation = request.operation;
        match outcome {
            Ok(()) if operation != Operation::Read && self.is_poisoned() => Err(DeviceError::Poisoned),
            Ok(()) => Ok(()),
            Err(error) => {
                // What a zone does not take was refused before anything was written.
                let refused = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::ResourceBusy);
                if operation.is_durable() && !(operation == Operation::Append && refused) {
                    self.poison();
                }
                Err(DeviceError::refused(operation.action(), request.offset, error))
            }
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}

fn open_file(path: &Path, flags: OFlags) -> Result<File, DeviceError> {
    let opened = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::empty());
    opened.map(File::from).map_err(|errno| DeviceError::open("open", path)(errno.into()))
}

/// Whether direct I/O was refused as such, and not the file.
fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

/// Bytes of some blocks; what no file can have is asked for all the same, and refused by the file system.
fn bytes(blocks: u64, block_bytes: u32) -> u64 {
    blocks.saturating_mul(u64::from(block_bytes))
}

/// Allocates the bytes from `start` to `end`, so that a full disk says so now and not to a write.
fn allocate(file: &File, start: u64, end: u64) -> Result<(), DeviceError> {
    if start == end {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), start, end - start) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(DeviceError::refused("allocate", start, errno.into())),
        }
    }
}

/// Makes the name of a new file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
