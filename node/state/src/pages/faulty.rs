//! A device that fails when a test says so.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stele_device::{Access, BlockDevice, Completed, Completion, DeviceError, Geometry, Operation, Request};

/// What fails now.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) read: AtomicBool,
    pub(crate) write: AtomicBool,
    pub(crate) flush: AtomicBool,
    pub(crate) grow: AtomicBool,
    /// Offsets that cannot be read.
    pub(crate) unreadable: Mutex<Vec<u64>>,
}

impl Faults {
    fn hits(&self, operation: Operation, offset: u64) -> bool {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if operation == Operation::Read && unreadable.contains(&offset) {
            return true;
        }
        let fault = match operation {
            Operation::Read => &self.read,
            Operation::Write | Operation::WriteDurable | Operation::Append | Operation::ResetZone => &self.write,
            Operation::Flush => &self.flush,
        };
        fault.load(Ordering::SeqCst)
    }
}

pub(super) struct Faulty {
    device: Arc<dyn BlockDevice>,
    faults: Arc<Faults>,
}

impl Faulty {
    pub(super) fn new(device: Arc<dyn BlockDevice>, faults: Arc<Faults>) -> Self {
        Self { device, faults }
    }

    fn between(&self, completion: &Arc<dyn Completion>) -> Arc<dyn Completion> {
        Arc::new(Between { completion: Arc::clone(completion), faults: Arc::clone(&self.faults) })
    }
}

impl BlockDevice for Faulty {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn access(&self) -> &Access {
        self.device.access()
    }

    fn submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.device.submit(requests, &self.between(completion));
    }

    fn try_submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.device.try_submit(requests, &self.between(completion));
    }

    fn grow(&self, blocks: u64) -> Result<(), DeviceError> {
        if self.faults.grow.load(Ordering::SeqCst) {
            let source = io::ErrorKind::StorageFull.into();
            return Err(DeviceError::Full { action: "grow", offset: self.geometry().bytes(), source });
        }
        self.device.grow(blocks)
    }
}

struct Between {
    completion: Arc<dyn Completion>,
    faults: Arc<Faults>,
}

impl Completion for Between {
    fn complete(&self, mut completed: Completed) {
        if self.faults.hits(completed.operation, completed.offset) {
            let source = io::Error::from_raw_os_error(5);
            completed.result = Err(DeviceError::Io { action: "use", offset: completed.offset, source });
        }
        self.completion.complete(completed);
    }

    fn settle(&self) {
        self.completion.settle();
    }
}
