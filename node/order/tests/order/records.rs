//! Files of records that outlive `kill -9`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

/// A file to which one process at a time appends, while others read along.
///
/// A kill interrupts a write between two pages, so the last record of a process may be torn. Whoever appends next has
/// to cut it off: readers would take what comes behind it for its missing bytes, and go astray for good.
pub(crate) struct Records(Mutex<Written>);

struct Written {
    file: File,
    /// Bytes of whole records.
    whole: usize,
}

impl Records {
    /// The file in `path`, made when it is missing. `read` is given its bytes, and tells how many of them are whole
    /// records.
    pub(crate) fn open(path: &Path, read: impl FnOnce(Vec<u8>) -> usize) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let whole = read(std::fs::read(path).unwrap());
        Self(Mutex::new(Written { file, whole }))
    }

    /// Cuts off a torn record. Only for the process that is going to append: another one's record may be in the middle
    /// of its write.
    pub(crate) fn cut(&self) {
        let written = self.0.lock().unwrap();
        written.file.set_len(written.whole as u64).unwrap();
    }

    /// In the page cache a record survives `kill -9`; a real store flushes.
    pub(crate) fn append(&self, record: &[u8]) {
        let mut written = self.0.lock().unwrap();
        written.file.write_all(record).unwrap();
        written.whole += record.len();
    }
}
