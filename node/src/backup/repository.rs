//! The directory of backups.
//!
//! ```text
//!  DIR/repository.json          of which network; genesis.cbor, where trust begins
//!      blocks/FIRST-LAST.blocks blocks, certificates, outcomes: each backup adds the new ones
//!      state/HEIGHT.snapshot    the state, as the node's own snapshot of it
//!      bodies/NUMBER.pack       sealed bodies: each backup adds those that are new
//!      backups/NUMBER/          one backup: manifest.json, manifest.sha256, trust, bodies, journal, class-keys
//! ```
//!
//! A backup is there when its `manifest.json` is, which is written last. It names every file that it needs with length and
//! SHA-256; files belong to all backups whose manifests name them and are never changed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stele_types::NetworkId;

use super::BackupError;
use super::file::{self, FileEntry, UNFINISHED};
use super::manifest::Manifest;
use crate::store::durable;

/// The only format so far.
pub(super) const VERSION: u32 = 1;

const ABOUT_FILE: &str = "repository.json";
const ABOUT_BYTES_MAX: u64 = 64 << 10;
pub(super) const GENESIS_FILE: &str = "genesis.cbor";
pub(super) const GENESIS_BYTES_MAX: u64 = 16 << 20;
const MANIFEST_FILE: &str = "manifest.json";
const SUM_FILE: &str = "manifest.sha256";

/// A manifest of a million files has some 150 MB.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// What a repository says of itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: String,
    version: u32,
    network: String,
}

const FORMAT: &str = "stele-backup";

/// A repository.
pub(crate) struct Repository {
    root: PathBuf,
    network: NetworkId,
    /// Held by who writes to it.
    _lock: Option<File>,
}

impl Repository {
    /// Opens a repository to read it.
    ///
    /// # Errors
    /// `Repository`.
    pub(crate) fn open(root: &Path) -> Result<Self, BackupError> {
        let refused = |reason: String| BackupError::Repository { path: root.to_owned(), reason };
        let path = root.join(ABOUT_FILE);
        let bytes = match file::read_bounded(&path, ABOUT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refused("it is no repository: it has no repository.json".to_owned()));
            }
            Err(error) => return Err(BackupError::io("read", &path)(error)),
        };
        let about: About =
            serde_json::from_slice(&bytes).map_err(|error| refused(format!("repository.json: {error}")))?;
        let network = NetworkId::from_hex(&about.network);
        match network.filter(|_| about.format == FORMAT && about.version == VERSION) {
            Some(network) => Ok(Self { root: root.to_owned(), network, _lock: None }),
            None => Err(refused(format!("repository.json: this program reads version {VERSION} of {FORMAT}"))),
        }
    }

    /// Opens the repository of a network to write to it, and makes it where there is none.
    ///
    /// # Errors
    /// `Foreign`, `Locked`, `Repository`, `Io`.
    pub(super) fn open_to_write(root: &Path, genesis: &[u8], network: NetworkId) -> Result<Self, BackupError> {
        durable::create_directory(root).map_err(BackupError::io("create", root))?;
        let lock = durable::lock_directory(root).map_err(BackupError::io("lock", root))?;
        let lock = lock.ok_or_else(|| BackupError::Locked(root.to_owned()))?;
        if !root.join(ABOUT_FILE).exists() {
            let other = fs::read_dir(root).map_err(BackupError::io("list", root))?.flatten().any(|entry| {
                let name = entry.file_name();
                name != "lock" && name != GENESIS_FILE && !name.to_string_lossy().ends_with(UNFINISHED)
            });
            if other {
                let reason = "it is no repository and not empty: name a new directory".to_owned();
                return Err(BackupError::Repository { path: root.to_owned(), reason });
            }
            let about = About { format: FORMAT.to_owned(), version: VERSION, network: network.to_hex() };
            let about = serde_json::to_vec_pretty(&about).map_err(io::Error::other);
            file::write(root, GENESIS_FILE, genesis)?;
            file::write(root, ABOUT_FILE, &about.map_err(BackupError::io("describe", root))?)?;
        }
        let repository = Self { _lock: Some(lock), ..Self::open(root)? };
        repository.check_network(network)?;
        Ok(repository)
    }

    /// Opens a repository to remove backups from it.
    ///
    /// # Errors
    /// `Locked`, `Repository`.
    pub(super) fn open_to_prune(root: &Path) -> Result<Self, BackupError> {
        let repository = Self::open(root)?;
        let lock = durable::lock_directory(root).map_err(BackupError::io("lock", root))?;
        Ok(Self { _lock: Some(lock.ok_or_else(|| BackupError::Locked(root.to_owned()))?), ..repository })
    }

    /// Compares the network with that of a node.
    ///
    /// # Errors
    /// `Foreign`.
    pub(super) fn check_network(&self, expected: NetworkId) -> Result<(), BackupError> {
        if self.network == expected {
            return Ok(());
        }
        Err(BackupError::Foreign { path: self.root.clone(), expected, found: self.network.to_hex() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) const fn network(&self) -> NetworkId {
        self.network
    }

    /// Numbers of the backups, oldest first.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, BackupError> {
        let directory = self.root.join("backups");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(BackupError::io("list", &directory)(error)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let path = entry.map_err(BackupError::io("list", &directory))?.path();
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            numbers.extend(number.filter(|_| path.join(MANIFEST_FILE).exists()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The backup of a number, or the newest.
    ///
    /// # Errors
    /// `Missing`; those of [`Repository::manifest`].
    pub(super) fn find(&self, number: Option<u64>) -> Result<Manifest, BackupError> {
        let numbers = self.numbers()?;
        let found =
            number.filter(|number| numbers.contains(number)).or(numbers.last().copied().filter(|_| number.is_none()));
        self.manifest(found.ok_or_else(|| BackupError::Missing { path: self.root.clone(), number })?)
    }

    /// The manifest of a backup, compared with its sum and read.
    ///
    /// # Errors
    /// `Manifest`, `FileMissing`, `FileDamaged`, `Foreign`.
    pub(super) fn manifest(&self, number: u64) -> Result<Manifest, BackupError> {
        let (path, sum) = (self.backup_file(number, MANIFEST_FILE), self.backup_file(number, SUM_FILE));
        let read = |path: &Path, bytes_max| match file::read_bounded(path, bytes_max) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BackupError::FileMissing(path.to_owned())),
            read => read.map_err(BackupError::io("read", path)),
        };
        let bytes = read(&path, MANIFEST_BYTES_MAX)?;
        if read(&sum, ABOUT_BYTES_MAX)? != sum_line(&bytes).as_bytes() {
            return Err(BackupError::FileDamaged(path));
        }
        let manifest = Manifest::read(&path, &bytes)?;
        if manifest.number != number {
            return Err(BackupError::manifest(&path, "it is that of another backup"));
        }
        if manifest.network != self.network.to_hex() {
            let found = manifest.network.clone();
            return Err(BackupError::Foreign { path, expected: self.network, found });
        }
        Ok(manifest)
    }

    /// Writes a manifest, whose backup is there from then on.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn put(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let bytes = serde_json::to_vec_pretty(manifest).map_err(io::Error::other);
        let bytes = bytes.map_err(BackupError::io("describe", &self.root))?;
        let name = |file| backup_name(manifest.number, file);
        file::write(&self.root, &name(SUM_FILE), sum_line(&bytes).as_bytes())?;
        file::write(&self.root, &name(MANIFEST_FILE), &bytes)?;
        let backups = self.root.join("backups");
        durable::sync_directory(&backups).map_err(BackupError::io("flush", &backups))
    }

    /// Files of a directory of the repository, without those that are not finished, in order.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn files(&self, directory: &str) -> Result<Vec<String>, BackupError> {
        let path = self.root.join(directory);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(BackupError::io("list", &path))? {
            let entry = entry.map_err(BackupError::io("list", &path))?;
            names.extend(entry.file_name().to_str().map(|name| format!("{directory}/{name}")));
        }
        names.retain(|name| !name.ends_with(UNFINISHED));
        names.sort_unstable();
        Ok(names)
    }

    /// Removes all but the newest `keep` backups, and what no other one needs. Returns how many went, and their bytes.
    ///
    /// # Errors
    /// As [`Repository::manifest`]: while one of the others cannot be read, nobody knows what it needs.
    pub(super) fn prune(&self, keep: usize) -> Result<(usize, u64), BackupError> {
        let numbers = self.numbers()?;
        let (old, kept) = numbers.split_at(numbers.len().saturating_sub(keep));
        let mut needed = BTreeSet::new();
        for number in kept {
            needed.extend(self.manifest(*number)?.files.into_iter().map(|entry| entry.path));
        }
        if kept.is_empty() {
            return Ok((0, 0));
        }
        let mut freed = 0;
        for number in old {
            // The manifest first: what is left of a backup without one is nothing.
            for file in [MANIFEST_FILE, SUM_FILE, "trust", "bodies", "journal", "class-keys", "class-keys.recovery"] {
                freed += remove(&self.backup_file(*number, file))?;
            }
            let directory = self.root.join(backup_name(*number, ""));
            fs::remove_dir(&directory).map_err(BackupError::io("remove", &directory))?;
        }
        for directory in ["blocks", "state", "bodies"] {
            for name in self.files(directory)?.into_iter().filter(|name| !needed.contains(name)) {
                freed += remove(&self.root.join(name))?;
            }
        }
        Ok((old.len(), freed))
    }

    fn backup_file(&self, number: u64, file: &str) -> PathBuf {
        self.root.join(backup_name(number, file))
    }
}

/// Name of a file of one backup.
pub(super) fn backup_name(number: u64, file: &str) -> String {
    format!("backups/{number:08}/{file}")
}

/// What `sha256sum -c` reads.
fn sum_line(bytes: &[u8]) -> String {
    format!("{}  {MANIFEST_FILE}\n", hex::encode(Sha256::digest(bytes)))
}

fn remove(path: &Path) -> Result<u64, BackupError> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    durable::remove_if_present(path).map_err(BackupError::io("remove", path))?;
    Ok(bytes)
}

/// Directory of a file of a manifest; a path that leads elsewhere is none.
pub(super) fn is_inside(entry: &FileEntry) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let mut parts = entry.path.split('/');
    let known = matches!(parts.next(), Some("blocks" | "state" | "bodies" | "backups" | GENESIS_FILE));
    known && parts.all(|part| plain(part) && part != ".." && part != ".")
}
