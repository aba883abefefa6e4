//! What is spoken through a ring: reads and writes of a file, or a drive's own commands.

use std::io;

use io_uring::{cqueue, opcode, squeue, types};

use crate::device::Backend;
use crate::request::Operation;

/// The one registered file.
pub(crate) const FILE: types::Fixed = types::Fixed(0);

/// How what a request still lacks becomes an entry of the ring, and what the kernel's answer to it means.
pub(crate) trait Protocol: Send + 'static {
    /// The shape of a ring's entries.
    type Entry: squeue::EntryMarker;
    /// The shape of its answers.
    type Answer: cqueue::EntryMarker;
    /// What a ring that speaks it is called.
    const BACKEND: Backend;

    /// Asks for a part of a request, or for as much of its begin as one entry can ask for. The entry points to the part's
    /// memory.
    fn entry(&self, part: &Part) -> Self::Entry;

    /// Where an append was written, in bytes.
    fn place(&self, answer: &Self::Answer) -> u64;

    /// Bytes that were transferred, by the answer to an entry for a part of `length` bytes.
    fn outcome(&self, operation: Operation, length: usize, result: i32) -> io::Result<usize>;
}

/// What a request still lacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) operation: Operation,
    /// Where it begins on the device, in bytes.
    pub(crate) offset: u64,
    /// Where it begins in memory; a flush has none.
    pub(crate) start: *mut u8,
    /// How long it is, in bytes.
    pub(crate) length: u32,
    /// The registered pool that the memory is of.
    pub(crate) pool: Option<u16>,
}

/// Reads and writes of a file or a block device.
pub(crate) struct FileProtocol;

impl Protocol for FileProtocol {
    type Entry = squeue::Entry;
    type Answer = cqueue::Entry;
    const BACKEND: Backend = Backend::Uring;

    fn entry(&self, part: &Part) -> squeue::Entry {
        let Part { operation, offset, start, length, pool } = *part;
        let flags = if operation == Operation::WriteDurable { libc::RWF_DSYNC } else { 0 };
        match (operation, pool) {
            (Operation::Append | Operation::ResetZone, _) => unreachable!("files have no zones"),
            (Operation::Flush, _) => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
            (Operation::Read, None) => opcode::Read::new(FILE, start, length).offset(offset).build(),
            (Operation::Read, Some(pool)) => opcode::ReadFixed::new(FILE, start, length, pool).offset(offset).build(),
            (_, None) => opcode::Write::new(FILE, start, length).offset(offset).rw_flags(flags).build(),
            (_, Some(pool)) => {
                opcode::WriteFixed::new(FILE, start, length, pool).offset(offset).rw_flags(flags).build()
            }
        }
    }

    fn place(&self, _answer: &cqueue::Entry) -> u64 {
        unreachable!("files have no zones")
    }

    fn outcome(&self, _operation: Operation, _length: usize, result: i32) -> io::Result<usize> {
        // A negative result is an error number.
        usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
    }
}
