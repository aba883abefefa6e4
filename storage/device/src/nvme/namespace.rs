//! A namespace of a drive, as its character device tells of it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::command::Command;
use super::identify::{self, CommandSet, Format, Page};
use super::status::{INVALID_FIELD, Status};
use super::zones::{self, Zoning};
use crate::DeviceError;

/// `NVME_IOCTL_ID`, `_IO('N', 0x40)`: the number of the namespace (linux/nvme_ioctl.h).
const IOCTL_ID: libc::c_ulong = 0x4e40;

/// `NVME_IOCTL_ADMIN_CMD`, `_IOWR('N', 0x41, struct nvme_passthru_cmd)`, whose 72 bytes are in the number.
const IOCTL_ADMIN: libc::c_ulong = 0xc048_4e41;

/// `NVME_IOCTL_IO_CMD`, `_IOWR('N', 0x43, struct nvme_passthru_cmd)`.
const IOCTL_IO: libc::c_ulong = 0xc048_4e43;

/// How long a drive may take to say what it is.
const IDENTIFY_MILLISECONDS: u32 = 10_000;

/// Most bytes of a command. Linux takes no more than the IOMMU maps quickly, 128 KiB (`dma_opt_mapping_size`, since Linux
/// 6.3), and no more pieces of memory than 127 (`NVME_MAX_SEGS`), which may be pages. Larger transfers become several
/// commands, and a drive is as fast with those.
const TRANSFER_BYTES_MAX: u32 = 128 << 10;

/// A namespace whose blocks can be read in any order, and written in any order unless it is zoned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespace {
    /// Its number.
    pub(super) number: u32,
    pub(super) format: Format,
    /// Most bytes of a command: whole blocks.
    pub(super) transfer_bytes_max: u32,
    pub(crate) zoning: Option<Zoning>,
    /// Whether the drive has a cache that a power cut empties.
    pub(crate) volatile_cache: bool,
}

/// Whether something that is not a file or block device is at the path. It is asked before it is opened: character devices
/// refuse the flag for direct I/O.
pub(crate) fn is_character_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

impl Namespace {
    /// Asks a drive what it is. Zones are refused unless they are wanted.
    pub(crate) fn identify(file: &File, path: &Path, zoned: bool) -> Result<Self, DeviceError> {
        let unsuitable = |what| DeviceError::Unsuitable { path: path.to_owned(), what };
        let examined = |answer: io::Result<Option<Page>>| answer.map_err(DeviceError::open("examine", path));
        let Some(number) = number(file) else {
            return Err(unsuitable(
                "neither a block device, a regular file nor the character device of an NVMe namespace",
            ));
        };
        // Refused by drives that are older than it.
        let descriptors = examined(identity(file, Command::identify(number, identify::DESCRIPTORS)))?;
        let set =
            descriptors.map_or(Ok(CommandSet::Blocks), |page| identify::command_set(&page)).map_err(unsuitable)?;
        if set == CommandSet::Zones && !zoned {
            return Err(unsuitable("a zoned namespace cannot be written in any order"));
        }
        let absent = "the drive does not identify the namespace";
        let get = |command| examined(identity(file, command))?.ok_or_else(|| unsuitable(absent));
        let page = get(Command::identify(number, identify::NAMESPACE))?;
        let (format, format_number) = (identify::format(&page).map_err(unsuitable)?, identify::format_number(&page));
        let page = get(Command::identify(0, identify::CONTROLLER))?;
        let limit = identify::transfer_bytes_max(&page).unwrap_or(u32::MAX).min(TRANSFER_BYTES_MAX);
        let zoning = match set {
            CommandSet::Blocks => None,
            CommandSet::Zones => {
                let controller = get(Command::identify_zoned(0, identify::SET_CONTROLLER))?;
                let append_max = identify::append_bytes_max(&controller).unwrap_or(u32::MAX).min(limit);
                let page = get(Command::identify_zoned(number, identify::SET_NAMESPACE))?;
                Some(zones::zoning(&page, format_number, format, append_max).map_err(unsuitable)?)
            }
        };
        let this = Self {
            number,
            format,
            transfer_bytes_max: limit / format.lba_bytes * format.lba_bytes,
            zoning,
            volatile_cache: identify::has_volatile_cache(&page),
        };
        if this.transfer_bytes_max < this.format.lba_bytes {
            return Err(unsuitable("the drive transfers less than a block at a time"));
        }
        Ok(this)
    }

    /// Bytes of a logical block.
    pub(crate) fn lba_bytes(&self) -> u32 {
        self.format.lba_bytes
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> u64 {
        self.format.lbas * u64::from(self.format.lba_bytes)
    }
}

/// The number of a namespace; `None` if the file is something else.
#[allow(unsafe_code, reason = "ioctl(2) has no types")]
fn number(file: &File) -> Option<u32> {
    // SAFETY: the call takes no argument and touches no memory.
    let number = unsafe { libc::ioctl(file.as_raw_fd(), IOCTL_ID) };
    u32::try_from(number).ok().filter(|number| *number != 0)
}

/// A structure of Identify; `None` if the drive does not know it.
fn identity(file: &File, command: Command) -> io::Result<Option<Page>> {
    let mut page: Page = [0; 4096];
    match call(file, IOCTL_ADMIN, command, &mut page)? {
        None => Ok(Some(page)),
        Some(status) if status.code() == INVALID_FIELD => Ok(None),
        Some(status) => Err(status.into()),
    }
}

/// Has a command of the namespace fill the bytes.
pub(super) fn ask(file: &File, command: Command, bytes: &mut [u8]) -> io::Result<()> {
    call(file, IOCTL_IO, command, bytes)?.map_or(Ok(()), |status| Err(status.into()))
}

/// What the drive says of a command that fills the bytes.
#[allow(unsafe_code, reason = "ioctl(2) has no types")]
fn call(file: &File, number: libc::c_ulong, command: Command, bytes: &mut [u8]) -> io::Result<Option<Status>> {
    let length = u32::try_from(bytes.len()).expect("what is asked for at once is small");
    let mut command = command.with_data(bytes.as_mut_ptr(), length).with_timeout(IDENTIFY_MILLISECONDS);
    // SAFETY: the argument is a command of the size that the number says, and points to as many bytes as it says. Both
    // outlive the call, after which the kernel keeps no address.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), number, command.argument()) };
    Ok(Status::new(u16::try_from(answer).map_err(|_| io::Error::last_os_error())?))
}
