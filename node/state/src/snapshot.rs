//! Snapshots: all pairs of one height in key order, written in the background.
//!
//! | bytes | content, integers big-endian |
//! |---|---|
//! | 8, 2, 1 | `STELESNP`, format version 1, hash function |
//! | 8, 32, 8 | height, root, number of pairs |
//! | 4 | CRC-32C of the header so far |
//! | 4, 4, 4, … | chunks: length of the body, number of pairs, CRC-32C of the body, body as in a log record |
//! | 12 | an empty chunk: all zeros, then the file ends |
//!
//! The owner of the map copies pairs chunk by chunk between its commits; what commits change behind the copy is copied as
//! it was, so the snapshot is exactly of its height, and old values stay retained meanwhile. A thread writes the chunks. A file appears under its name only when it is complete and flushed. Loading checks everything
//! against the root, so a snapshot can be taken from anyone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use stele_merkle::state::{Key, StateHash};

use crate::record::{Reader, decode_batch, push_pair};
use crate::tree::{Tree, Undo};
use crate::values::ValueRef;
use crate::write_log::sync_directory;
use crate::{Hash, StateError, VALUE_BYTES_MAX};

const MAGIC: [u8; 8] = *b"STELESNP";
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 63;
const FRAME_BYTES: usize = 12;

/// A chunk is closed once its body has this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// The longest body of a chunk: the last pair may begin just below the limit.
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES + size_of::<Key>() + 2 + VALUE_BYTES_MAX;

/// Chunks that wait for the writer: enough to keep the disk busy, little memory.
const CHUNKS_WAITING_MAX: usize = 4;

/// Header of a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub(crate) hash: StateHash,
    pub(crate) height: u64,
    pub(crate) root: Hash,
    pub(crate) pairs: u64,
}

impl SnapshotHeader {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.push(self.hash.id());
        bytes.extend_from_slice(&self.height.to_be_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.pairs.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (covered, crc) = bytes.split_at(HEADER_BYTES - 4);
        if crc != crc32c::crc32c(covered).to_be_bytes() {
            return None;
        }
        let mut reader = Reader::new(covered);
        if reader.array()? != MAGIC || u16::from_be_bytes(reader.array()?) != FORMAT_VERSION {
            return None;
        }
        let [hash] = reader.array()?;
        Some(Self {
            hash: StateHash::from_id(hash).ok()?,
            height: u64::from_be_bytes(reader.array()?),
            root: reader.array()?,
            pairs: u64::from_be_bytes(reader.array()?),
        })
    }
}

/// A snapshot in the making.
#[derive(Debug)]
pub(crate) struct SnapshotJob {
    height: u64,
    /// Keys below it are copied; `None` once all are.
    next: Option<Key>,
    /// Keys that commits have changed since, with the value that they had; only those not copied yet.
    before: BTreeMap<Key, Option<ValueRef>>,
    chunk: Chunk,
    /// A closed chunk that the writer had no room for.
    waiting: Option<Vec<u8>>,
    /// `None` once everything was handed over or the writer gave up.
    sender: Option<SyncSender<Vec<u8>>>,
    writer: JoinHandle<Result<u64, StateError>>,
}

impl SnapshotJob {
    /// Starts the writer for the newest version, whose values the caller keeps retained until [`SnapshotJob::is_copied`].
    pub(crate) fn start(directory: &Path, header: SnapshotHeader) -> Result<Self, StateError> {
        let (sender, chunks) = sync_channel(CHUNKS_WAITING_MAX);
        let directory = directory.to_owned();
        let path = directory.join(file_name(header.height));
        let writer = std::thread::Builder::new()
            .name("state-snapshot".to_owned())
            .spawn({
                let path = path.clone();
                move || write(&directory, &path, &header, &chunks)
            })
            .map_err(StateError::io("start the writer of", &path))?;
        Ok(Self {
            height: header.height,
            next: Some([0; 32]),
            before: BTreeMap::new(),
            chunk: Chunk::new(),
            waiting: None,
            sender: Some(sender),
            writer,
        })
    }

    pub(crate) fn height(&self) -> u64 {
        self.height
    }

    /// Whether the tree is not needed any more.
    pub(crate) fn is_copied(&self) -> bool {
        self.sender.is_none()
    }

    /// Whether the writer has ended, well or not.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_copied() && self.writer.is_finished()
    }

    /// Takes note of what a commit changed. It has been applied to `tree`.
    pub(crate) fn record(&mut self, tree: &Tree, undo: &Undo) {
        let Some(next) = self.next else { return };
        for (key, value) in undo.changed(tree).filter(|(key, _)| *key >= next) {
            self.before.entry(key).or_insert(value);
        }
    }

    /// Copies up to `pairs_max` pairs and what completes their chunk. When the writer is behind, waits for it if `wait`,
    /// else stops early.
    pub(crate) fn step(&mut self, tree: &Tree, pairs_max: usize, wait: bool) {
        let mut pairs = 0;
        loop {
            while let (Some(sender), Some(frame)) = (&self.sender, self.waiting.take()) {
                let last = frame.len() == FRAME_BYTES;
                let sent = if wait {
                    sender.send(frame).map_err(|error| TrySendError::Disconnected(error.0))
                } else {
                    sender.try_send(frame)
                };
                match sent {
                    Ok(()) if !last => {}
                    Ok(()) | Err(TrySendError::Disconnected(_)) => self.sender = None,
                    Err(TrySendError::Full(frame)) => {
                        self.waiting = Some(frame);
                        return;
                    }
                }
            }
            if self.sender.is_none() || pairs >= pairs_max {
                return;
            }
            match self.next {
                Some(from) => pairs += self.copy_chunk(tree, &from),
                None => self.waiting = Some(self.chunk.close()),
            }
        }
    }

    /// Copies pairs from a key on until a chunk is full or there are no more; returns how many.
    fn copy_chunk(&mut self, tree: &Tree, from: &Key) -> usize {
        let mut changed = std::mem::take(&mut self.before).into_iter().peekable();
        let mut leaves = tree.walk(from).peekable();
        let mut pairs = 0;
        while !self.chunk.is_full() {
            let pair = match (changed.peek(), leaves.peek()) {
                (Some((key, _)), leaf) if leaf.is_none_or(|(leaf, _)| key <= *leaf) => {
                    if leaf.is_some_and(|(leaf, _)| key == *leaf) {
                        leaves.next();
                    }
                    changed.next()
                }
                _ => leaves.next().map(|(key, value)| (*key, Some(value))),
            };
            let Some((key, value)) = pair else { break };
            if let Some(value) = value {
                self.chunk.push(&key, tree.value(value));
                pairs += 1;
            }
            self.next = following(&key);
        }
        let ended = changed.peek().is_none() && leaves.peek().is_none();
        if ended {
            self.next = None;
        }
        self.before = changed.collect();
        if self.chunk.is_full() || ended && self.chunk.pairs > 0 {
            self.waiting = Some(self.chunk.close());
        }
        pairs
    }

    /// Waits for the writer: the size of the file, or why there is none. Before everything was copied this abandons
    /// the snapshot.
    pub(crate) fn finish(self) -> Result<u64, StateError> {
        drop(self.sender);
        // A writer that panicked left no complete file, which is the same as one that failed.
        self.writer.join().unwrap_or(Err(StateError::Poisoned))
    }
}

/// The next key, `None` after the last.
fn following(key: &Key) -> Option<Key> {
    let mut key = *key;
    for byte in key.iter_mut().rev() {
        let (next, overflow) = byte.overflowing_add(1);
        *byte = next;
        if !overflow {
            return Some(key);
        }
    }
    None
}

/// A chunk in the making: room for its frame, then pairs.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    pairs: u32,
}

impl Chunk {
    fn new() -> Self {
        Self { bytes: vec![0; FRAME_BYTES], pairs: 0 }
    }

    fn push(&mut self, key: &Key, value: &[u8]) {
        push_pair(&mut self.bytes, key, Some(value));
        self.pairs += 1;
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES + CHUNK_BYTES
    }

    /// The framed chunk; a new one begins. Without pairs the frame is all zeros.
    fn close(&mut self) -> Vec<u8> {
        let Self { mut bytes, pairs } = std::mem::replace(self, Self::new());
        let (frame, body) = bytes.split_at_mut(FRAME_BYTES);
        let length = u32::try_from(body.len()).expect("a chunk has little more than a MiB");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame[4..8].copy_from_slice(&pairs.to_be_bytes());
        frame[8..].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
        bytes
    }
}

/// Writes the file; returns its size.
fn write(
    directory: &Path,
    path: &Path,
    header: &SnapshotHeader,
    chunks: &Receiver<Vec<u8>>,
) -> Result<u64, StateError> {
    let temporary = path.with_extension("tmp");
    let written = write_temporary(&temporary, header, chunks);
    let size = match written {
        Ok(Some(size)) => size,
        // What is incomplete has no use; when it cannot be deleted now, the next open does it.
        Ok(None) => {
            let _ = std::fs::remove_file(&temporary);
            return Ok(0);
        }
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
    };
    std::fs::rename(&temporary, path).map_err(StateError::io("rename", path))?;
    sync_directory(directory)?;
    prune(directory)?;
    Ok(size)
}

/// `None` when the owner gave up before the last chunk.
fn write_temporary(
    path: &Path,
    header: &SnapshotHeader,
    chunks: &Receiver<Vec<u8>>,
) -> Result<Option<u64>, StateError> {
    let mut file = File::create(path).map_err(StateError::io("create", path))?;
    let header = header.encode();
    file.write_all(&header).map_err(StateError::io("write", path))?;
    let mut size = header.len() as u64;
    while let Ok(chunk) = chunks.recv() {
        file.write_all(&chunk).map_err(StateError::io("write", path))?;
        size += chunk.len() as u64;
        if chunk.len() == FRAME_BYTES {
            file.sync_all().map_err(StateError::io("flush", path))?;
            return Ok(Some(size));
        }
    }
    Ok(None)
}

/// Loads a snapshot: its header, the tree, and the size of the file.
///
/// # Errors
/// [`StateError::Corrupt`] for anything but a whole snapshot whose pairs lead to its root, [`StateError::OtherHash`],
/// [`StateError::Io`].
pub(crate) fn load(path: &Path, hash: StateHash, threads: usize) -> Result<(SnapshotHeader, Tree, u64), StateError> {
    let file = File::open(path).map_err(StateError::io("open", path))?;
    let mut source = Source { reader: BufReader::with_capacity(CHUNK_BYTES, file), path, offset: 0 };
    let header = SnapshotHeader::decode(&source.array()?).ok_or_else(|| source.corrupt("the header is not sound"))?;
    if header.hash != hash {
        return Err(StateError::OtherHash { path: path.to_owned() });
    }
    let mut tree = Tree::new(hash);
    let mut last: Option<Key> = None;
    loop {
        let frame = source.array::<FRAME_BYTES>()?;
        let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let (length, pairs, crc) = (word(0), word(4), word(8));
        if frame == [0; FRAME_BYTES] {
            break;
        }
        if length as usize > CHUNK_BYTES_MAX {
            return Err(source.corrupt("a chunk is too long"));
        }
        let body = source.bytes(length as usize)?;
        let writes = (crc32c::crc32c(&body) == crc)
            .then(|| decode_batch(&body, pairs))
            .flatten()
            .filter(|writes| writes.iter().all(|(_, value)| value.is_some()))
            .filter(|writes| writes.first().is_some_and(|(first, _)| last.is_none_or(|last| last < *first)))
            .ok_or_else(|| source.corrupt("a chunk is not sound"))?;
        last = writes.last().map(|(key, _)| *key);
        let update = tree.stage(&writes, threads)?;
        let undo = tree.apply(update, &writes);
        tree.free(undo);
    }
    if !source.at_end()? {
        return Err(source.corrupt("bytes follow the last chunk"));
    }
    if tree.keys() as u64 != header.pairs || tree.root().hash != header.root {
        return Err(source.corrupt("the pairs lead to another root"));
    }
    Ok((header, tree, source.offset))
}

/// A file read front to back.
struct Source<'a> {
    reader: BufReader<File>,
    path: &'a Path,
    offset: u64,
}

impl Source<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StateError> {
        self.reader.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt("the file ends early"),
            _ => StateError::io("read", self.path)(error),
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, StateError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn at_end(&mut self) -> Result<bool, StateError> {
        Ok(self.reader.read(&mut [0]).map_err(StateError::io("read", self.path))? == 0)
    }

    fn corrupt(&self, what: &'static str) -> StateError {
        StateError::Corrupt { path: self.path.to_owned(), offset: self.offset, what }
    }
}

pub(crate) fn file_name(height: u64) -> String {
    format!("snapshot-{height:020}.map")
}

/// The state files of a directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Snapshots, newest first.
    pub(crate) snapshots: Vec<(u64, PathBuf)>,
    /// Log files, oldest first.
    pub(crate) logs: Vec<(u64, PathBuf)>,
    /// Incomplete files, and damaged ones that recovery put aside.
    pub(crate) leftovers: Vec<PathBuf>,
}

pub(crate) fn list(directory: &Path) -> Result<Listing, StateError> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(directory).map_err(StateError::io("list", directory))? {
        let path = entry.map_err(StateError::io("list", directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let number = |prefix, suffix| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
        if let Some(height) = number("snapshot-", ".map") {
            listing.snapshots.push((height, path));
        } else if let Some(sequence) = number("writes-", ".log") {
            listing.logs.push((sequence, path));
        } else if number("snapshot-", ".tmp").or(number("writes-", ".tmp")).is_some()
            || number("snapshot-", ".refused").is_some()
        {
            listing.leftovers.push(path);
        }
    }
    listing.snapshots.sort_by(|left, right| right.cmp(left));
    listing.logs.sort();
    Ok(listing)
}

/// Deletes what the two newest snapshots make superfluous: older snapshots, and the log before the older of the two.
fn prune(directory: &Path) -> Result<(), StateError> {
    const GENERATIONS: usize = 2;
    let listing = list(directory)?;
    let delete = |path: &Path| std::fs::remove_file(path).map_err(StateError::io("delete", path));
    for (_, path) in listing.snapshots.iter().skip(GENERATIONS) {
        delete(path)?;
    }
    if let Some((oldest, _)) = listing.snapshots.get(GENERATIONS - 1) {
        let mut needed_from = None;
        for (sequence, path) in &listing.logs {
            let start = crate::write_log::LogFile::open(path.clone(), *sequence)?.header.start;
            if start.height == Some(*oldest) {
                needed_from = Some(*sequence);
                break;
            }
        }
        for (_, path) in listing.logs.iter().filter(|(sequence, _)| Some(*sequence) < needed_from) {
            delete(path)?;
        }
    }
    for path in listing.leftovers.iter().filter(|path| path.extension().is_some_and(|kind| kind == "refused")) {
        delete(path)?;
    }
    sync_directory(directory)
}
