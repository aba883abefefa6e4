//! The flat files of a log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use stele_merkle::log::Frontier;
use stele_merkle::{HASH_BYTES, Hash};

use crate::store::Location;
use crate::store::durable;

/// Levels of the largest tree that `stele-merkle` accepts (2^62 leaves).
pub(super) const LEVELS: u8 = 63;

const ENTRIES_FILE: &str = "entries";

/// Level files are created when the tree first reaches their level, while readers read.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    levels: Vec<OnceLock<File>>,
    entries: File,
}

impl Files {
    /// Opens what exists and creates what a tree of any size needs.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let files = Self {
            directory: directory.to_owned(),
            levels: (0..LEVELS).map(|_| OnceLock::new()).collect(),
            entries: open_file(&directory.join(ENTRIES_FILE))?,
        };
        for level in 0..LEVELS {
            if level == 0 || files.level_path(level).exists() {
                files.level_for_write(level)?;
            }
        }
        Ok(files)
    }

    /// Removes all files of a log.
    pub(super) fn remove(directory: &Path) -> io::Result<()> {
        for level in 0..LEVELS {
            durable::remove_if_present(&directory.join(level_name(level)))?;
        }
        durable::remove_if_present(&directory.join(ENTRIES_FILE))?;
        durable::sync_directory(directory)
    }

    /// True where every file holds all of a tree of `size` leaves.
    pub(super) fn reach(&self, size: u64) -> io::Result<bool> {
        for level in 0..LEVELS {
            let needed = (size >> level) * HASH_BYTES as u64;
            let length = match self.level(level) {
                Some(file) => file.metadata()?.len(),
                None => 0,
            };
            if length < needed {
                return Ok(false);
            }
        }
        Ok(self.entries.metadata()?.len() >= size * Location::BYTES as u64)
    }

    /// Cuts every file to a tree of `size` leaves.
    pub(super) fn cut(&self, size: u64) -> io::Result<()> {
        for level in 0..LEVELS {
            if let Some(file) = self.level(level) {
                file.set_len((size >> level) * HASH_BYTES as u64)?;
            }
        }
        self.entries.set_len(size * Location::BYTES as u64)
    }

    /// Lays down the subtrees of a snapshot; what lies below them stays a hole.
    pub(super) fn write_frontier(&self, frontier: &Frontier) -> io::Result<()> {
        let size = frontier.size();
        let levels = (0..LEVELS).rev().filter(|level| size >> level & 1 == 1);
        for (level, hash) in levels.zip(frontier.subtrees()) {
            self.write_hashes(level, (size >> level) - 1, hash)?;
        }
        // The sizes below let `reach` hold for a log that has holes.
        for level in 0..LEVELS {
            if size >> level > 0 {
                self.level_for_write(level)?.set_len((size >> level) * HASH_BYTES as u64)?;
            }
        }
        self.entries.set_len(size * Location::BYTES as u64)
    }

    pub(super) fn read_hash(&self, level: u8, index: u64) -> io::Result<Option<Hash>> {
        let Some(file) = self.level(level) else { return Ok(None) };
        let mut hash = [0; HASH_BYTES];
        file.read_exact_at(&mut hash, index * HASH_BYTES as u64)?;
        Ok(Some(hash))
    }

    /// Fills `bytes` with hashes of one level from `index` on.
    pub(super) fn read_hashes(&self, level: u8, index: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self.level(level) {
            Some(file) => file.read_exact_at(bytes, index * HASH_BYTES as u64),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(super) fn write_hashes(&self, level: u8, index: u64, bytes: &[u8]) -> io::Result<()> {
        self.level_for_write(level)?.write_all_at(bytes, index * HASH_BYTES as u64)
    }

    pub(super) fn read_locations(&self, index: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.entries.read_exact_at(bytes, index * Location::BYTES as u64)
    }

    pub(super) fn write_locations(&self, index: u64, bytes: &[u8]) -> io::Result<()> {
        self.entries.write_all_at(bytes, index * Location::BYTES as u64)
    }

    /// Makes all that is written durable, the directory excepted.
    pub(super) fn sync(&self) -> io::Result<()> {
        for file in self.levels.iter().filter_map(OnceLock::get) {
            file.sync_data()?;
        }
        self.entries.sync_data()
    }

    fn level(&self, level: u8) -> Option<&File> {
        self.levels.get(usize::from(level))?.get()
    }

    fn level_for_write(&self, level: u8) -> io::Result<&File> {
        let slot = self.levels.get(usize::from(level)).ok_or_else(|| io::Error::other("tree too high"))?;
        if slot.get().is_none() {
            // Only the one writer creates files, so nobody can have set it meanwhile.
            let _ = slot.set(open_file(&self.level_path(level))?);
        }
        slot.get().ok_or_else(|| io::Error::other("level file not open"))
    }

    fn level_path(&self, level: u8) -> PathBuf {
        self.directory.join(level_name(level))
    }
}

pub(super) fn level_name(level: u8) -> String {
    format!("level-{level:02}")
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}
