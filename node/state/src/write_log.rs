//! The write-set log: files of records, appended and flushed once per commit.
//!
//! | bytes | file header, integers big-endian |
//! |---|---|
//! | 8, 2 | `STELEWSL`, format version 1 |
//! | 1, 1 | hash function, 1 when every record was flushed before the next |
//! | 16 | salt |
//! | 1, 8, 32 | 1 if a height precedes the first record, that height, the root before the first record |
//! | 4 | CRC-32C of all of the above |
//!
//! A file begins where a snapshot was taken, so what precedes a snapshot are whole files that can be deleted.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stele_merkle::state::StateHash;

use crate::record::{HEADER_BYTES, Header, MAGIC, Salt, decode_batch, open_header};
use crate::{Durability, Hash, StateError, Write};

const FILE_MAGIC: [u8; 8] = *b"STELEWSL";
const FORMAT_VERSION: u16 = 1;
const FILE_HEADER_BYTES: usize = 73;

/// Buffer of sequential reads.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// Where a log file begins: height and root of the state before its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) height: Option<u64>,
    pub(crate) root: Hash,
}

/// What a log file says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileHeader {
    pub(crate) hash: StateHash,
    pub(crate) synced: bool,
    pub(crate) salt: Salt,
    pub(crate) start: Position,
}

/// What a commit is written to; a file, or in tests something that fails.
pub(crate) trait Medium: Send + Sync {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The file that commits are appended to.
pub(crate) struct WriteLog {
    medium: Box<dyn Medium>,
    path: PathBuf,
    sequence: u64,
    header: FileHeader,
    /// Bytes so far.
    length: u64,
    /// Set by the first failed write or flush: the file's end is unknown from then on.
    poisoned: bool,
}

impl WriteLog {
    /// Creates the file, durable and complete or not there at all.
    pub(crate) fn create(
        directory: &Path,
        sequence: u64,
        hash: StateHash,
        durability: Durability,
        start: Position,
    ) -> Result<Self, StateError> {
        let path = directory.join(file_name(sequence));
        let mut salt = Salt::default();
        getrandom::fill(&mut salt)
            .map_err(|error| StateError::io("get random bytes for", &path)(io::Error::other(error.to_string())))?;
        let header = FileHeader { hash, synced: durability == Durability::Sync, salt, start };
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary).map_err(StateError::io("create", &temporary))?;
        file.write_all(&header.encode()).map_err(StateError::io("write", &temporary))?;
        file.sync_all().map_err(StateError::io("flush", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(StateError::io("rename", &path))?;
        sync_directory(directory)?;
        let length = FILE_HEADER_BYTES as u64;
        Ok(Self { medium: Box::new(file), path, sequence, header, length, poisoned: false })
    }

    /// Goes on with a file whose records end at `length`; what is behind is cut off.
    pub(crate) fn resume(file: &LogFile, length: u64) -> Result<Self, StateError> {
        let path = file.path.clone();
        let mut open = File::options().write(true).open(&path).map_err(StateError::io("open", &path))?;
        open.set_len(length).map_err(StateError::io("truncate", &path))?;
        open.seek(SeekFrom::End(0)).map_err(StateError::io("seek in", &path))?;
        open.sync_all().map_err(StateError::io("flush", &path))?;
        let (sequence, header) = (file.sequence, file.header);
        Ok(Self { medium: Box::new(open), path, sequence, header, length, poisoned: false })
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Removes the file of a log that has no record.
    pub(crate) fn remove(&self) {
        // What stays is found by the next open, which says so.
        let _ = std::fs::remove_file(&self.path);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn salt(&self) -> &Salt {
        &self.header.salt
    }

    /// Whether records were flushed one by one; a file never mixes the two.
    pub(crate) fn synced(&self) -> bool {
        self.header.synced
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Appends a record; returns where it begins, and how long the flush took, if there was one.
    pub(crate) fn append(&mut self, record: &[u8]) -> Result<(u64, Duration), StateError> {
        let offset = self.length;
        self.guarded("append to", |medium| medium.append(record))?;
        self.length += record.len() as u64;
        let flushed = if self.header.synced { self.flush()? } else { Duration::ZERO };
        Ok((offset, flushed))
    }

    /// Waits until everything appended is on the disk.
    pub(crate) fn flush(&mut self) -> Result<Duration, StateError> {
        let start = Instant::now();
        self.guarded("flush", |medium| medium.flush())?;
        Ok(start.elapsed())
    }

    fn guarded(
        &mut self,
        action: &'static str,
        operation: impl FnOnce(&mut dyn Medium) -> io::Result<()>,
    ) -> Result<(), StateError> {
        if self.poisoned {
            return Err(StateError::Poisoned);
        }
        operation(&mut *self.medium).map_err(|source| {
            self.poisoned = true;
            StateError::io(action, &self.path)(source)
        })
    }

    #[cfg(test)]
    pub(crate) fn replace_medium(&mut self, medium: Box<dyn Medium>) {
        self.medium = medium;
    }
}

impl std::fmt::Debug for WriteLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteLog").field("path", &self.path).field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}

impl FileHeader {
    fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend_from_slice(&FILE_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&[self.hash.id(), u8::from(self.synced)]);
        bytes.extend_from_slice(&self.salt);
        bytes.push(u8::from(self.start.height.is_some()));
        bytes.extend_from_slice(&self.start.height.unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&self.start.root);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        bytes.try_into().expect("the fields of a log file's header have fixed lengths")
    }

    fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Option<Self> {
        let (hash, mut reader) = open_header(bytes, FILE_MAGIC, FORMAT_VERSION)?;
        let [synced] = reader.array()?;
        let salt = reader.array()?;
        let [has_height] = reader.array()?;
        let height = u64::from_be_bytes(reader.array()?);
        Some(Self {
            hash,
            synced: synced == 1,
            salt,
            start: Position { height: (has_height == 1).then_some(height), root: reader.array()? },
        })
    }
}

/// A log file that recovery found.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) sequence: u64,
    pub(crate) header: FileHeader,
}

/// A record that recovery read.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) header: Header,
    pub(crate) writes: Vec<Write>,
    /// Where it begins in its file.
    pub(crate) offset: u64,
}

/// Where the sound records of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// Length of the file up to there.
    pub(crate) length: u64,
    /// Bytes behind it that an interrupted write left, or that are not wanted.
    pub(crate) torn: u64,
    /// Whether the record behind it is sound and lies above the greatest height that is wanted.
    pub(crate) beyond: bool,
}

impl LogFile {
    pub(crate) fn open(path: PathBuf, sequence: u64) -> Result<Self, StateError> {
        let mut bytes = [0; FILE_HEADER_BYTES];
        let mut file = File::open(&path).map_err(StateError::io("open", &path))?;
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(StateError::io("read", &path)(error)),
            Err(_) => Err(StateError::Corrupt { path, offset: 0, what: "the file header is incomplete" }),
            Ok(()) => match FileHeader::decode(&bytes) {
                Some(header) => Ok(Self { path, sequence, header }),
                None => Err(StateError::Corrupt { path, offset: 0, what: "the file header is not sound" }),
            },
        }
    }

    /// Reads all records in order. Damage that an interrupted write explains ends the file; other damage is an error.
    ///
    /// In a file whose records were flushed one by one, only the last record can be incomplete: a sound header behind
    /// the damage proves that it is not the last. Otherwise the disk may have lost any record, and the owner replays.
    /// Reading ends before a record above `height_max`.
    pub(crate) fn replay(
        &self,
        height_max: Option<u64>,
        visit: impl FnMut(Record) -> Result<(), StateError>,
    ) -> Result<LogEnd, StateError> {
        self.replay_from(FILE_HEADER_BYTES as u64, height_max, visit)
    }

    /// The same from where another replay ended.
    pub(crate) fn replay_from(
        &self,
        mut offset: u64,
        height_max: Option<u64>,
        mut visit: impl FnMut(Record) -> Result<(), StateError>,
    ) -> Result<LogEnd, StateError> {
        let read = |error| StateError::io("read", &self.path)(error);
        let file = File::open(&self.path).map_err(StateError::io("open", &self.path))?;
        let length = file.metadata().map_err(read)?.len();
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        reader.seek(SeekFrom::Start(offset)).map_err(read)?;
        while offset < length {
            let rest = length - offset;
            let corrupt = |what| StateError::Corrupt { path: self.path.clone(), offset, what };
            let end = LogEnd { length: offset, torn: rest, beyond: false };
            let mut bytes = [0; HEADER_BYTES];
            if rest < HEADER_BYTES as u64 {
                return Ok(end);
            }
            reader.read_exact(&mut bytes).map_err(read)?;
            let Some(header) = Header::decode(&bytes, &self.header.salt) else {
                if self.header.synced && self.has_header_after(offset + 1).map_err(read)? {
                    return Err(corrupt("a record header is damaged and records follow"));
                }
                return Ok(end);
            };
            if height_max.is_some_and(|max| header.height > max) {
                return Ok(LogEnd { beyond: true, ..end });
            }
            let total = HEADER_BYTES as u64 + u64::from(header.body_bytes);
            if total > rest {
                return Ok(end);
            }
            let mut body = vec![0; header.body_bytes as usize];
            reader.read_exact(&mut body).map_err(read)?;
            if crc32c::crc32c(&body) != header.body_crc {
                if self.header.synced && total < rest {
                    return Err(corrupt("a record is damaged and records follow"));
                }
                return Ok(end);
            }
            let writes =
                decode_batch(&body, header.writes).ok_or_else(|| corrupt("a record's writes are malformed"))?;
            visit(Record { header, writes, offset })?;
            offset += total;
        }
        Ok(LogEnd { length: offset, torn: 0, beyond: false })
    }

    /// Whether a sound record header stands anywhere at or behind an offset.
    pub(crate) fn has_header_after(&self, offset: u64) -> io::Result<bool> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        // A window and what is left of the one before it, so that a header on the border is seen.
        let mut window: Vec<u8> = Vec::with_capacity(READ_BUFFER_BYTES + HEADER_BYTES);
        loop {
            let read = Read::by_ref(&mut file).take(READ_BUFFER_BYTES as u64).read_to_end(&mut window)?;
            for bytes in window.windows(HEADER_BYTES) {
                let bytes: &[u8; HEADER_BYTES] = bytes.try_into().expect("windows have the header's length");
                if bytes[..4] == MAGIC && Header::decode(bytes, &self.header.salt).is_some() {
                    return Ok(true);
                }
            }
            if read == 0 {
                return Ok(false);
            }
            window.drain(..window.len().saturating_sub(HEADER_BYTES - 1));
        }
    }
}

pub(crate) fn file_name(sequence: u64) -> String {
    format!("writes-{sequence:020}.log")
}

/// Makes created, renamed and deleted names of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StateError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(StateError::io("flush", directory))
}
