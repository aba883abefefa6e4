//! A namespace's reads, writes and flushes through a ring.

use std::io;

use io_uring::{cqueue, opcode, squeue};

use super::Namespace;
use super::command::{Command, Extent};
use super::status::Status;
use crate::device::Backend;
use crate::protocol::{FILE, Part, Protocol};
use crate::request::Operation;

/// `NVME_URING_CMD_IO`, `_IOWR('N', 0x80, struct nvme_uring_cmd)` (linux/nvme_ioctl.h).
const URING_IO: u32 = 0xc048_4e80;

/// The commands of a namespace. The kernel wants entries and answers of twice the size for them (`IORING_SETUP_SQE128` and
/// `IORING_SETUP_CQE32`, io_uring_setup(2)).
pub(crate) struct Passthrough(pub(crate) Namespace);

impl Passthrough {
    fn command(&self, part: &Part) -> Command {
        let Namespace { number, format, transfer_bytes_max, .. } = self.0;
        if part.operation == Operation::Flush {
            return Command::flush(number);
        }
        let start = part.offset / u64::from(format.lba_bytes);
        if part.operation == Operation::ResetZone {
            return Command::reset_zone(number, start);
        }
        let bytes = part.length.min(transfer_bytes_max);
        let extent = Extent { start, count: bytes / format.lba_bytes, protected: format.protected };
        let command = match part.operation {
            // One that is longer than this was refused: its parts could lie apart.
            Operation::Append => Command::append(number, extent),
            operation => Command::transfer(operation, number, extent),
        };
        command.with_data(part.start, bytes)
    }
}

impl Protocol for Passthrough {
    type Entry = squeue::Entry128;
    type Answer = cqueue::Entry32;
    const BACKEND: Backend = Backend::NvmePassthrough;

    fn entry(&self, part: &Part) -> squeue::Entry128 {
        opcode::UringCmd80::new(FILE, URING_IO).cmd(self.command(part).entry()).build()
    }

    fn place(&self, answer: &cqueue::Entry32) -> u64 {
        answer.big_cqe()[0].saturating_mul(u64::from(self.0.format.lba_bytes))
    }

    fn outcome(&self, operation: Operation, length: usize, result: i32) -> io::Result<usize> {
        if result == -libc::EINTR && operation != Operation::Read {
            // The driver gave up on the drive and reset it. Whether its cache outlived that nobody says, so a flush that
            // is tried again proves nothing.
            return Err(io::Error::other("the command was cancelled by a reset of the drive"));
        }
        let number = u16::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()))?;
        match Status::new(number) {
            Some(status) => Err(status.into()),
            // A command is done whole or not at all.
            None => Ok(length.min(self.0.transfer_bytes_max as usize)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvme::identify::Format;

    const KIBIBYTE: u32 = 1024;

    fn passthrough(lba_bytes: u32) -> Passthrough {
        let format = Format { lba_bytes, lbas: 1 << 20, protected: false };
        Passthrough(Namespace {
            number: 1,
            format,
            transfer_bytes_max: 128 * KIBIBYTE,
            zoning: None,
            volatile_cache: true,
        })
    }

    fn part(operation: Operation, offset: u64, length: u32) -> Part {
        Part { operation, offset, start: std::ptr::without_provenance_mut(0x1000), length, pool: None }
    }

    #[test]
    fn a_transfer_is_cut_at_the_drives_limit() {
        for (lba_bytes, count) in [(512, 256), (4096, 32)] {
            let command = passthrough(lba_bytes).command(&part(Operation::Write, 1 << 20, 1024 * KIBIBYTE));
            let extent = Extent { start: (1 << 20) / u64::from(lba_bytes), count, protected: false };
            let start = std::ptr::without_provenance_mut(0x1000);
            assert_eq!(command, Command::transfer(Operation::Write, 1, extent).with_data(start, 128 * KIBIBYTE));
        }
        let drive = passthrough(512);
        assert_eq!(drive.outcome(Operation::Write, 1 << 20, 0).unwrap(), 128 << 10);
        assert_eq!(drive.outcome(Operation::Write, 4096, 0).unwrap(), 4096);
        assert_eq!(drive.outcome(Operation::Flush, 0, 0).unwrap(), 0);
    }

    #[test]
    fn a_drives_status_and_the_kernels_error_are_told_apart() {
        let outcome = |operation, result| passthrough(512).outcome(operation, 4096, result).unwrap_err();
        assert!(outcome(Operation::Read, 0x281).to_string().contains("unrecovered read error"));
        assert_eq!(outcome(Operation::Read, -libc::EIO).raw_os_error(), Some(libc::EIO));
        // Numbers that no kernel gives.
        outcome(Operation::Read, i32::MIN);
        outcome(Operation::Read, i32::MAX);
    }

    #[test]
    fn only_a_cancelled_read_is_tried_again() {
        let outcome = |operation| passthrough(512).outcome(operation, 4096, -libc::EINTR).unwrap_err().raw_os_error();
        assert_eq!(outcome(Operation::Read), Some(libc::EINTR));
        for operation in [Operation::Write, Operation::WriteDurable, Operation::Flush] {
            assert_eq!(outcome(operation), None);
        }
    }
}
