//! The engine's journal, looked at before the engine opens it.
//!
//! The journal holds what a validator needs to know of the running height: its votes and the block it is locked on. The
//! engine takes a sound one, cuts off an entry that the end of the file cuts short, and stops for good at anything else.
//! Two things happen that are no reason to stop: a power failure leaves a tail that was never flushed, so nothing was
//! sent because of it; and a file is damaged or lost. Then the locks are gone, and a validator that votes on without them
//! may help to decide a second block. Its guard alone does not prevent that: a vote in a later round contradicts no
//! earlier one. So whoever voted at a height that the journal does not hold abstains until that height is decided.
//!
//! ```text
//!   version u32 │ height u64 │ entry: compressed u8, length u64, CRC-32 u32, bytes │ …      integers big endian
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use tracing::{error, warn};

use crate::engine::{JOURNAL_FILE, directory_file};

const HEADER_BYTES: usize = 12;
const ENTRY_HEADER_BYTES: usize = 13;
const VERSION: u32 = 1;
/// The journal of one height: each round adds some kilobytes. Beyond this it is not read, and counts as damaged.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// A damaged journal is kept beside the new one, for whoever looks for the cause.
const DAMAGED_FILE: &str = "consensus.wal.damaged";

/// Where a file stops being a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// Nowhere before `end`; what lies behind it was never flushed.
    Sound {
        height: u64,
        end: usize,
    },
    /// The file ends before its height: it was being made.
    Unborn,
    Damaged(&'static str),
}

/// Makes the journal in `directory` one that the engine opens, and returns the height whose votes and locks it holds. None
/// when there is no journal or it is damaged, which is then moved aside. To be called before [`Order::start`].
///
/// # Errors
/// When the file cannot be read, cut or moved.
///
/// [`Order::start`]: crate::Order::start
pub fn recover_journal(directory: &Path) -> io::Result<Option<u64>> {
    let path = directory_file(directory, JOURNAL_FILE);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    (&file).take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match scan(&bytes) {
        Scan::Sound { height, end } => {
            let tail = bytes.len() - end;
            if tail > 0 {
                warn!(height, tail, "the journal ends in bytes that were never flushed; they are cut off");
                file.set_len(end as u64)?;
                file.sync_all()?;
            }
            Ok(Some(height))
        }
        Scan::Unborn => {
            fs::remove_file(&path)?;
            Ok(None)
        }
        Scan::Damaged(what) => {
            let aside = directory_file(directory, DAMAGED_FILE);
            error!(what, kept = %aside.display(), "the journal is damaged; the engine starts with an empty one");
            fs::rename(&path, &aside)?;
            File::open(directory)?.sync_all()?;
            Ok(None)
        }
    }
}

fn scan(bytes: &[u8]) -> Scan {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Scan::Unborn };
    let [v0, v1, v2, v3, height @ ..] = *header;
    if u32::from_be_bytes([v0, v1, v2, v3]) != VERSION {
        return Scan::Damaged("it is not a journal of this version");
    }
    if bytes.len() as u64 > JOURNAL_BYTES_MAX {
        return Scan::Damaged("it is longer than any height makes it");
    }
    let mut end = HEADER_BYTES;
    while let Some(length) = entry(&bytes[end..]) {
        end += length;
    }
    // Appending is all that happens to a journal, so nothing sound lies behind what was cut short.
    if (end + 1..bytes.len()).any(|at| entry(&bytes[at..]).is_some()) {
        return Scan::Damaged("an entry does not match its checksum");
    }
    Scan::Sound { height: u64::from_be_bytes(height), end }
}

/// Bytes of the sound entry at the start of `bytes`, if there is one.
fn entry(bytes: &[u8]) -> Option<usize> {
    let ([compressed, header @ ..], rest) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
    let (length, checksum) = header.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    // No entry is empty, but to the engine zeros look like entries that are: their checksum is right.
    let body = rest.get(..length).filter(|body| *compressed == 0 && !body.is_empty())?;
    let sound = checksum == crc32fast::hash(body).to_be_bytes();
    sound.then_some(ENTRY_HEADER_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(height: u64, entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = VERSION.to_be_bytes().to_vec();
        bytes.extend(height.to_be_bytes());
        for entry in entries {
            bytes.push(0);
            bytes.extend((entry.len() as u64).to_be_bytes());
            bytes.extend(crc32fast::hash(entry).to_be_bytes());
            bytes.extend(*entry);
        }
        bytes
    }

    /// What becomes of a file: the height it holds, and its bytes afterwards.
    fn recovered(bytes: &[u8]) -> (Option<u64>, Option<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(JOURNAL_FILE);
        fs::write(&path, bytes).unwrap();
        let height = recover_journal(directory.path()).unwrap();
        let aside = fs::read(directory.path().join(DAMAGED_FILE)).ok();
        assert!(aside.is_none_or(|aside| aside == bytes), "kept as it was");
        (height, fs::read(&path).ok())
    }

    #[test]
    fn the_engine_opens_what_is_recovered_and_finds_the_same_entries() {
        let entries: [&[u8]; 3] = [b"\x01vote", b"\x02timeout", b"\x04block"];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(JOURNAL_FILE);
        {
            let mut log = malachite_wal::Log::open(&path).unwrap();
            log.reset(7).unwrap();
            entries.iter().for_each(|entry| log.append(entry).unwrap());
            log.flush().unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), journal(7, &entries), "the layout above is the engine's");
        fs::write(&path, [journal(7, &entries), vec![0; 100]].concat()).unwrap();
        assert_eq!(recover_journal(directory.path()).unwrap(), Some(7));
        let mut log = malachite_wal::Log::open(&path).unwrap();
        let read: Vec<Vec<u8>> = log.iter().unwrap().map(Result::unwrap).collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn a_tail_that_was_never_flushed_is_cut_off_wherever_it_begins() {
        let (first, second): (&[u8], &[u8]) = (b"a vote", b"another vote");
        let (one, two) = (journal(9, &[first]), journal(9, &[first, second]));
        for cut in one.len()..two.len() {
            assert_eq!(recovered(&two[..cut]), (Some(9), Some(one.clone())), "cut at {cut}");
            let zeroed = [&two[..cut], &vec![0; two.len() - cut]].concat();
            assert_eq!(recovered(&zeroed), (Some(9), Some(one.clone())), "zeros from {cut} on");
        }
        assert_eq!(recovered(&two), (Some(9), Some(two.clone())));
        for zeros in [1, 12, 13, 14, 5_000] {
            assert_eq!(recovered(&[two.clone(), vec![0; zeros]].concat()), (Some(9), Some(two.clone())), "{zeros}");
        }
        for cut in 0..12 {
            assert_eq!(recovered(&two[..cut]), (None, None), "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_last_entry_is_never_taken_for_a_tail() {
        let (first, second): (&[u8], &[u8]) = (b"a vote", b"another vote");
        let sound = journal(9, &[first, second]);
        let last = journal(9, &[first]).len();
        for at in (0..last).filter(|at| !(4..12).contains(at)) {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            let (height, _) = recovered(&bytes);
            assert_eq!(height, None, "byte {at}");
        }
    }
}
