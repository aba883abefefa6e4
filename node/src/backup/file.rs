//! Files of a repository: written under another name, hashed on the way, and compared with the manifest when they are read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::BackupError;
use crate::store::durable;

/// Free bytes that are left to the file system whatever is written.
const RESERVE_BYTES: u64 = 16 << 20;

/// Buffer of one file that is read or written.
const BUFFER_BYTES: usize = 1 << 20;

/// Suffix of a file that is not complete.
pub(super) const UNFINISHED: &str = "part";

/// A file in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    /// Below the repository, with `/` between.
    pub(crate) path: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Hexadecimal.
    pub(crate) sha256: String,
}

/// A file that is being written. Dropped before it is finished, it leaves what the next backup removes.
pub(super) struct NewFile {
    root: PathBuf,
    name: String,
    writer: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

/// A place in a new file, to go back to.
pub(super) struct Mark {
    hash: Sha256,
    bytes: u64,
}

impl NewFile {
    /// Begins a file; what was there under its name is replaced when it is finished.
    pub(super) fn create(root: &Path, name: &str) -> Result<Self, BackupError> {
        let path = root.join(name);
        let parent = path.parent().unwrap_or(root);
        durable::create_directory(parent).map_err(BackupError::io("create", parent))?;
        let temporary = unfinished(&path);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let file = file.map_err(BackupError::io("create", &temporary))?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { root: root.to_owned(), name: name.to_owned(), writer, hash: Sha256::new(), bytes: 0 })
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.writer.write_all(bytes).map_err(BackupError::io("write", &self.path()))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { hash: self.hash.clone(), bytes: self.bytes }
    }

    /// Takes back what was written since.
    pub(super) fn go_back(&mut self, mark: Mark) -> Result<(), BackupError> {
        let Mark { hash, bytes } = mark;
        let back = self.writer.flush().and_then(|()| self.writer.get_ref().set_len(bytes));
        back.and_then(|()| self.writer.seek(SeekFrom::Start(bytes))).map_err(BackupError::io("cut", &self.path()))?;
        (self.hash, self.bytes) = (hash, bytes);
        Ok(())
    }

    /// Gives it its name, durably.
    pub(super) fn finish(self) -> Result<FileEntry, BackupError> {
        let name = self.name.clone();
        self.finish_as(&name)
    }

    /// Gives it a name in the same directory, durably.
    pub(super) fn finish_as(mut self, name: &str) -> Result<FileEntry, BackupError> {
        let path = self.root.join(name);
        let written = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        written
            .and_then(|()| fs::rename(unfinished(&self.path()), &path))
            .and_then(|()| durable::sync_directory(path.parent().unwrap_or(&self.root)))
            .map_err(BackupError::io("finish", &path))?;
        Ok(FileEntry { path: name.to_owned(), bytes: self.bytes, sha256: hex::encode(self.hash.finalize()) })
    }

    fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }
}

/// Writes a small file.
pub(super) fn write(root: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry, BackupError> {
    let mut file = NewFile::create(root, name)?;
    file.write(bytes)?;
    file.finish()
}

/// A file of a manifest that is being read. What was read counts when [`CheckedFile::finish`] has compared it.
pub(super) struct CheckedFile {
    path: PathBuf,
    expected: FileEntry,
    reader: BufReader<File>,
    hash: Sha256,
    bytes: u64,
}

impl CheckedFile {
    pub(super) fn open(root: &Path, entry: &FileEntry) -> Result<Self, BackupError> {
        let path = root.join(&entry.path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BackupError::FileMissing(path)),
            Err(error) => return Err(BackupError::io("open", &path)(error)),
        };
        let found = file.metadata().map_err(BackupError::io("measure", &path))?.len();
        if found != entry.bytes {
            return Err(BackupError::FileLength { path, expected: entry.bytes, found });
        }
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, expected: entry.clone(), reader, hash: Sha256::new(), bytes: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is read.
    pub(super) const fn position(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.bytes >= self.expected.bytes
    }

    /// Fills `bytes`; a file that ends before is damaged.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(BackupError::FileDamaged(self.path.clone()))
            }
            read => read.map_err(BackupError::io("read", &self.path.clone())),
        }
    }

    /// Reads what is left and compares the whole with the manifest.
    pub(super) fn finish(mut self) -> Result<(), BackupError> {
        let path = self.path.clone();
        io::copy(&mut self, &mut io::sink()).map_err(BackupError::io("read", &path))?;
        if hex::encode(self.hash.finalize()) != self.expected.sha256 {
            return Err(BackupError::FileDamaged(path));
        }
        Ok(())
    }

    /// What reading it led to. Content that does not fit is damage of the file first of all.
    pub(super) fn judge<T>(self, read: Result<T, BackupError>) -> Result<T, BackupError> {
        match read {
            Err(error) if !error.is_damage() => Err(error),
            read => self.finish().and(read),
        }
    }
}

impl Read for CheckedFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Reads a whole file of a manifest that has at most `bytes_max`.
pub(super) fn read(root: &Path, entry: &FileEntry, bytes_max: u64) -> Result<Vec<u8>, BackupError> {
    let mut file = CheckedFile::open(root, entry)?;
    if entry.bytes > bytes_max {
        return Err(BackupError::manifest(file.path(), format!("a file of its kind has at most {bytes_max} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(entry.bytes).unwrap_or(usize::MAX)];
    file.fill(&mut bytes)?;
    file.finish()?;
    Ok(bytes)
}

/// Reads a file outside any manifest, unless it has more than `bytes_max`.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Length and hash of a file that was finished before, and is in no manifest.
pub(super) fn measured(root: &Path, name: &str) -> Result<FileEntry, BackupError> {
    let path = root.join(name);
    let mut file = File::open(&path).map_err(BackupError::io("open", &path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(BackupError::io("read", &path))?;
        if count == 0 {
            return Ok(FileEntry { path: name.to_owned(), bytes, sha256: hex::encode(hash.finalize()) });
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// Refuses to begin what the file system has no room for.
pub(super) fn check_room(path: &Path, bytes: u64) -> Result<(), BackupError> {
    let room = rustix::fs::statvfs(path).map_err(|error| BackupError::io("measure", path)(error.into()))?;
    let (needed, free) = (bytes.saturating_add(RESERVE_BYTES), room.f_bavail.saturating_mul(room.f_frsize));
    if free < needed {
        return Err(BackupError::Space { path: path.to_owned(), needed, free });
    }
    Ok(())
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_with_their_manifest() {
        let root = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(root.path(), "bodies/1.pack").unwrap();
        file.write(b"one").unwrap();
        let mark = file.mark();
        file.write(&[7; 100_000]).unwrap();
        file.go_back(mark).unwrap();
        file.write(b" two").unwrap();
        let entry = file.finish().unwrap();
        assert_eq!(entry, measured(root.path(), "bodies/1.pack").unwrap());
        assert_eq!(read(root.path(), &entry, 100).unwrap(), b"one two");
        assert!(matches!(read(root.path(), &entry, 6), Err(BackupError::Manifest { .. })));
        let path = root.path().join("bodies/1.pack");
        fs::write(&path, b"one twO").unwrap();
        assert!(matches!(read(root.path(), &entry, 100), Err(BackupError::FileDamaged(_))));
        fs::write(&path, b"one tw").unwrap();
        assert!(matches!(read(root.path(), &entry, 100), Err(BackupError::FileLength { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(root.path(), &entry, 100), Err(BackupError::FileMissing(_))));
        assert!(matches!(check_room(root.path(), u64::MAX / 2), Err(BackupError::Space { .. })));
    }
}
