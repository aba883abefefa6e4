//! Files of blocks: each block with its certificate and what its statements led to, in order of heights.
//!
//! ```text
//!  file  ::= "STELBLK1" block*
//!  block ::= height (8) bytes (4) certificate bytes (4) statements (4)   block, certificate, outcomes
//!  outcome ::= leaf + 1, or 0 (8)  code (2)
//! ```
//!
//! Integers are little-endian. Nothing in a file vouches for itself: the manifest has its sum, the headers all the rest.

use std::path::{Path, PathBuf};

use stele_types::limits::BLOCK_STATEMENTS_MAX;
use stele_types::{Code, LogIndex};

use super::BackupError;
use super::file::{CheckedFile, FileEntry, NewFile, check_room};
use super::manifest::blocks_name;
use crate::chain::CopiedBlock;
use crate::store::blocks::{BLOCK_BYTES_MAX, CERTIFICATE_BYTES_MAX};

const MAGIC: [u8; 8] = *b"STELBLK1";
const HEADER_BYTES: usize = 8 + 4 + 4 + 4;
const OUTCOME_BYTES: usize = 10;

/// A file is finished when it is this long: what an interrupted backup has to begin again.
const FILE_BYTES: u64 = 64 << 20;

/// Name of the file that is being written: its last height is not known yet.
const UNNAMED: &str = "blocks/next";

/// A block of a file.
pub(super) struct BlockRecord {
    pub(super) height: u64,
    pub(super) block: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) outcomes: Vec<(Code, Option<LogIndex>)>,
}

/// Writes blocks into files.
pub(super) struct BlockFiles {
    root: PathBuf,
    open: Option<(NewFile, u64, u64)>,
    finished: Vec<FileEntry>,
}

impl BlockFiles {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: None, finished: Vec::new() }
    }

    pub(super) fn add(&mut self, block: &CopiedBlock) -> Result<(), BackupError> {
        let height = block.stored.height();
        if self.open.is_none() {
            check_room(&self.root, FILE_BYTES)?;
            let mut file = NewFile::create(&self.root, UNNAMED)?;
            file.write(&MAGIC)?;
            self.open = Some((file, height, height));
        }
        let Some((file, _, last)) = &mut self.open else { return Ok(()) };
        *last = height;
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let (bytes, certificate) = (block.stored.block(), block.stored.certificate());
        file.write(&height.to_le_bytes())?;
        file.write(&[length(bytes.len()), length(certificate.len()), length(block.outcomes.len())].concat())?;
        file.write(bytes)?;
        file.write(certificate)?;
        for (code, index) in &block.outcomes {
            file.write(&index.map_or(0, |index| index.0 + 1).to_le_bytes())?;
            file.write(&code.number().to_le_bytes())?;
        }
        if file.bytes() >= FILE_BYTES { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), BackupError> {
        if let Some((file, first, last)) = self.open.take() {
            self.finished.push(file.finish_as(&blocks_name(first, last))?);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<FileEntry>, BackupError> {
        self.close()?;
        Ok(self.finished)
    }
}

/// Shows the blocks of a file, which has those from `first` to `last`, in order.
pub(super) fn each_block(
    root: &Path,
    (first, last, entry): (u64, u64, &FileEntry),
    mut show: impl FnMut(&Path, BlockRecord) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut file = CheckedFile::open(root, entry)?;
    let path = file.path().to_owned();
    let read = (|| {
        let mut magic = [0; MAGIC.len()];
        file.fill(&mut magic)?;
        let misfit =
            |height, reason: &str| BackupError::Chain { path: path.clone(), height, reason: reason.to_owned() };
        if magic != MAGIC {
            return Err(misfit(first, "the file holds no blocks"));
        }
        for height in first..=last {
            let record = read_record(&mut file)?.filter(|record| record.height == height);
            show(&path, record.ok_or_else(|| misfit(height, "the file holds something else in its place"))?)?;
        }
        if file.is_at_end() { Ok(()) } else { Err(misfit(last, "the file goes on behind its last block")) }
    })();
    file.judge(read)
}

/// The next block; none if there is no sound one.
fn read_record(file: &mut CheckedFile) -> Result<Option<BlockRecord>, BackupError> {
    let mut header = [0; HEADER_BYTES];
    file.fill(&mut header)?;
    let word =
        |at: usize| usize::try_from(u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    let (Ok(bytes), Ok(certificate), Ok(statements)) = (word(8), word(12), word(16)) else { return Ok(None) };
    if bytes > BLOCK_BYTES_MAX || certificate > CERTIFICATE_BYTES_MAX || statements > BLOCK_STATEMENTS_MAX {
        return Ok(None);
    }
    let mut record = BlockRecord {
        height: header.first_chunk().map_or(0, |height| u64::from_le_bytes(*height)),
        block: vec![0; bytes],
        certificate: vec![0; certificate],
        outcomes: Vec::new(),
    };
    file.fill(&mut record.block)?;
    file.fill(&mut record.certificate)?;
    let mut outcomes = vec![0; statements * OUTCOME_BYTES];
    file.fill(&mut outcomes)?;
    let (outcomes, _) = outcomes.as_chunks::<OUTCOME_BYTES>();
    let decoded = outcomes.iter().map(|outcome| {
        let index = outcome.first_chunk().map_or(0, |index| u64::from_le_bytes(*index));
        Some((Code::from_number(u16::from_le_bytes([outcome[8], outcome[9]]))?, index.checked_sub(1).map(LogIndex)))
    });
    let decoded: Option<Vec<_>> = decoded.collect();
    Ok(decoded.map(|outcomes| BlockRecord { outcomes, ..record }))
}
