//! What is asked of a device, and how it answers.

use crate::{Buffer, DeviceError};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Fills the buffer from the device.
    Read,
    /// Writes the buffer. It survives a power cut once a later [`Operation::Flush`] has succeeded.
    Write,
    /// Writes the buffer, and succeeds when it survives a power cut (`RWF_DSYNC`, pwritev2(2); FUA of an NVMe drive).
    WriteDurable,
    /// Makes every write that was complete *before* this was submitted survive a power cut (fdatasync(2); Flush of an NVMe
    /// drive).
    Flush,
    /// Writes the buffer behind what a zone holds, and succeeds when it survives a power cut. The answer says where (Zone
    /// Append of an NVMe drive, with FUA).
    Append,
    /// Makes a zone empty (Zone Management Send of an NVMe drive).
    ResetZone,
}

impl Operation {
    /// What it does, as a verb.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteDurable => "write durably",
            Self::Flush => "flush",
            Self::Append => "append",
            Self::ResetZone => "reset the zone",
        }
    }

    /// Whether its success promises that bytes survive a power cut.
    pub(crate) const fn is_durable(self) -> bool {
        matches!(self, Self::WriteDurable | Self::Flush | Self::Append)
    }
}

/// One request. It owns its buffer until it is complete; the buffer's length is that of the transfer.
///
/// Requests in flight together are carried out in any order, as if by several writers: who needs one before the other
/// waits for the first.
#[derive(Debug)]
pub struct Request {
    pub(crate) operation: Operation,
    pub(crate) offset: u64,
    pub(crate) buffer: Option<Buffer>,
    pub(crate) tag: u64,
}

impl Request {
    /// Reads `buffer.len()` bytes at `offset`, in bytes.
    #[must_use]
    pub fn read(offset: u64, buffer: Buffer) -> Self {
        Self { operation: Operation::Read, offset, buffer: Some(buffer), tag: 0 }
    }

    /// Writes the buffer at `offset`, in bytes.
    #[must_use]
    pub fn write(offset: u64, buffer: Buffer) -> Self {
        Self { operation: Operation::Write, offset, buffer: Some(buffer), tag: 0 }
    }

    /// Writes the buffer at `offset`, in bytes, so that it survives a power cut.
    #[must_use]
    pub fn write_durable(offset: u64, buffer: Buffer) -> Self {
        Self { operation: Operation::WriteDurable, offset, buffer: Some(buffer), tag: 0 }
    }

    /// Makes all writes that are complete by now survive a power cut.
    #[must_use]
    pub fn flush() -> Self {
        Self { operation: Operation::Flush, offset: 0, buffer: None, tag: 0 }
    }

    /// Writes the buffer behind what the zone holds that begins at `zone`, in bytes, so that it survives a power cut. Of
    /// several in flight together each lies whole somewhere, in any order. One that the zone has no room for, or the drive
    /// no means, is [`DeviceError::Full`] or [`DeviceError::Io`], and does not poison the device: nothing was written.
    #[must_use]
    pub fn append(zone: u64, buffer: Buffer) -> Self {
        Self { operation: Operation::Append, offset: zone, buffer: Some(buffer), tag: 0 }
    }

    /// Makes the zone empty that begins at `zone`, in bytes.
    #[must_use]
    pub fn reset_zone(zone: u64) -> Self {
        Self { operation: Operation::ResetZone, offset: zone, buffer: None, tag: 0 }
    }

    /// The same request with a mark of the caller's, which comes back with its answer.
    #[must_use]
    pub fn tagged(self, tag: u64) -> Self {
        Self { tag, ..self }
    }

    /// What it does.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Where, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is written, or where what is read goes; a flush or a reset has none.
    pub fn buffer(&mut self) -> Option<&mut Buffer> {
        self.buffer.as_mut()
    }

    /// The answer to it, by whoever carries it out: another kind of device than those here.
    #[must_use]
    pub fn answer(self, result: Result<(), DeviceError>) -> Completed {
        let Self { operation, offset, buffer, tag } = self;
        Completed { tag, operation, offset, buffer, result }
    }

    /// Bytes to transfer.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }
}

/// A request's answer.
#[derive(Debug)]
pub struct Completed {
    /// The caller's mark.
    pub tag: u64,
    /// What was asked.
    pub operation: Operation,
    /// Where, in bytes; of an append that was done, where the buffer lies.
    pub offset: u64,
    /// The request's buffer. A flush or a reset has none; after [`DeviceError::Stopped`] it may be lost to the kernel.
    pub buffer: Option<Buffer>,
    /// Whether it was done, whole. After a failure the content of a read's buffer, or of a write's blocks, is unknown.
    pub result: Result<(), DeviceError>,
}

impl Completed {
    /// The buffer of a read or write that succeeded.
    ///
    /// # Errors
    ///
    /// The request's own.
    ///
    /// # Panics
    ///
    /// On the answer to a flush or a reset, which have no buffer.
    pub fn into_buffer(self) -> Result<Buffer, DeviceError> {
        self.result.map(|()| self.buffer.expect("reads, writes and appends come back with their buffer"))
    }
}

/// Who is told that requests are complete.
///
/// It is called on the device's thread and must neither wait nor panic: every other request of the device waits
/// meanwhile, and a panic stops the device. A closure is one, and so is whatever puts the answer into a channel or wakes a
/// task; the bridge to a runtime comes with the storage engine.
pub trait Completion: Send + Sync {
    /// Takes the answer to one request.
    fn complete(&self, completed: Completed);

    /// Called after one or more answers, when the device has no more at hand: the time to wake whoever waits for them.
    fn settle(&self) {}
}

impl<F: Fn(Completed) + Send + Sync> Completion for F {
    fn complete(&self, completed: Completed) {
        self(completed);
    }
}
