//! What one backup is, and of which files.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stele_types::{BlockId, Hash};

use super::BackupError;
use super::file::FileEntry;
use super::repository::{GENESIS_FILE, VERSION, backup_name, is_inside};

/// Files of one manifest at most.
const FILES_MAX: usize = 1_000_000;

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) number: u64,
    pub(crate) network: String,
    /// Name of the node in its own configuration.
    pub(crate) node: String,
    /// When it was begun and finished, milliseconds since 1970 by the machine's clock.
    pub(crate) begun_ms: u64,
    pub(crate) finished_ms: u64,
    /// Oldest and newest block.
    pub(crate) oldest: u64,
    pub(crate) height: u64,
    /// Id of the newest header: its hash.
    pub(crate) header: String,
    /// Its time.
    pub(crate) time_ms: u64,
    /// The log that the newest header certifies.
    pub(crate) log: LogHead,
    /// The state; none where the node has no snapshot: it is made of the blocks then.
    pub(crate) state: Option<StateHead>,
    pub(crate) bodies: Bodies,
    /// Custody key for which class keys are sealed, and the recovery key for which they are, too. Public halves.
    pub(crate) custody_key: Option<String>,
    pub(crate) recovery_key: Option<String>,
    pub(crate) class_keys: u64,
    /// Number of the newest pack that was there, whether or not this backup needs it.
    pub(crate) newest_pack: u64,
    pub(crate) files: Vec<FileEntry>,
}

/// A tree head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogHead {
    pub(crate) size: u64,
    pub(crate) root: String,
}

/// A snapshot of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateHead {
    pub(crate) height: u64,
    pub(crate) root: String,
}

/// Sealed bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bodies {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl Manifest {
    /// Reads a manifest and checks what can be checked without its files.
    ///
    /// # Errors
    /// `Manifest`.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Self, BackupError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| BackupError::manifest(path, error.to_string()))?;
        let reason = manifest.fault();
        reason.map_or(Ok(()), |reason| Err(BackupError::manifest(path, reason)))?;
        Ok(manifest)
    }

    fn fault(&self) -> Option<&'static str> {
        let hash = |text: &String| Hash::from_hex(text).is_some();
        let names: BTreeSet<&str> = self.files.iter().map(|entry| entry.path.as_str()).collect();
        let own = |file: &str| names.contains(backup_name(self.number, file).as_str());
        let state = self.state.as_ref();
        [
            (self.version == VERSION, "this program reads another version of it"),
            (self.files.len() <= FILES_MAX, "it names too many files"),
            (self.files.iter().all(is_inside), "it names a file outside the repository"),
            (names.len() == self.files.len(), "it names a file twice"),
            (names.contains(GENESIS_FILE) && own("trust") && own("bodies"), "it names no genesis, trust or bodies"),
            (self.oldest >= 1 && self.height >= self.oldest, "it has no blocks"),
            (hash(&self.header) && hash(&self.log.root), "an id or root is none"),
            (state.is_none_or(|state| hash(&state.root)), "the root of the state is none"),
            (
                state.is_none_or(|state| (self.oldest..self.height).contains(&state.height)),
                "no header certifies its state",
            ),
            (state.is_some() || self.oldest == 1, "it has neither a state nor the blocks that lead to one"),
            (state.is_none() || self.state_file().is_some(), "it names no file of the state"),
            (self.are_contiguous(), "blocks are missing between its files"),
        ]
        .into_iter()
        .find_map(|(holds, reason)| (!holds).then_some(reason))
    }

    /// A file of this backup alone.
    pub(super) fn own_file(&self, file: &str) -> Option<&FileEntry> {
        let name = backup_name(self.number, file);
        self.files.iter().find(|entry| entry.path == name)
    }

    pub(super) fn genesis_file(&self) -> Option<&FileEntry> {
        self.files.iter().find(|entry| entry.path == GENESIS_FILE)
    }

    pub(super) fn state_file(&self) -> Option<&FileEntry> {
        let name = state_name(self.state.as_ref()?.height);
        self.files.iter().find(|entry| entry.path == name)
    }

    /// Files of blocks with their first and last heights, in order.
    pub(super) fn block_files(&self) -> Vec<(u64, u64, &FileEntry)> {
        let files = self.files.iter().filter_map(|entry| {
            let (first, last) = block_heights(&entry.path)?;
            Some((first, last, entry))
        });
        let mut files: Vec<_> = files.collect();
        files.sort_unstable_by_key(|(first, ..)| *first);
        files
    }

    /// Files of bodies with their numbers, in order.
    pub(super) fn packs(&self) -> Vec<(u64, &FileEntry)> {
        let mut packs: Vec<_> =
            self.files.iter().filter_map(|entry| Some((pack_number(&entry.path)?, entry))).collect();
        packs.sort_unstable_by_key(|(number, _)| *number);
        packs
    }

    pub(super) fn header_id(&self) -> BlockId {
        Hash::from_hex(&self.header).map(|hash| BlockId(hash.0)).unwrap_or_default()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add)
    }

    fn are_contiguous(&self) -> bool {
        let files = self.block_files();
        let ends = files.first().map(|file| file.0) == Some(self.oldest)
            && files.last().map(|file| file.1) == Some(self.height);
        ends && files.iter().all(|(first, last, _)| first <= last)
            && files.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0)
    }
}

pub(super) fn state_name(height: u64) -> String {
    format!("state/{height:020}.snapshot")
}

pub(super) fn blocks_name(first: u64, last: u64) -> String {
    format!("blocks/{first:020}-{last:020}.blocks")
}

/// First and last height of a file of blocks.
pub(super) fn block_heights(name: &str) -> Option<(u64, u64)> {
    let (first, last) = name.strip_prefix("blocks/")?.strip_suffix(".blocks")?.split_once('-')?;
    let heights = (first.parse().ok()?, last.parse::<u64>().ok().filter(|last| *last < u64::MAX)?);
    (blocks_name(heights.0, heights.1) == name).then_some(heights)
}

pub(super) fn pack_name(number: u64) -> String {
    format!("bodies/{number:010}.pack")
}

/// Number of a file of bodies.
pub(super) fn pack_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("bodies/")?.strip_suffix(".pack")?.parse().ok()?;
    (pack_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let names = [GENESIS_FILE.to_owned(), backup_name(7, "trust"), backup_name(7, "bodies")];
        let names = names.into_iter().chain([blocks_name(1, 40), blocks_name(41, 50), state_name(30), pack_name(2)]);
        let entry = |path| FileEntry { path, bytes: 1, sha256: "00".repeat(32) };
        Manifest {
            version: VERSION,
            number: 7,
            network: "01".repeat(32),
            node: "node-1".to_owned(),
            begun_ms: 1,
            finished_ms: 2,
            oldest: 1,
            height: 50,
            header: "02".repeat(32),
            time_ms: 3,
            log: LogHead { size: 9, root: "03".repeat(32) },
            state: Some(StateHead { height: 30, root: "04".repeat(32) }),
            bodies: Bodies::default(),
            custody_key: None,
            recovery_key: None,
            class_keys: 0,
            newest_pack: 2,
            files: names.map(entry).collect(),
        }
    }

    #[test]
    fn a_manifest_comes_back_and_says_which_files_are_what() {
        let manifest = manifest();
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let again = Manifest::read(Path::new("manifest.json"), &bytes).unwrap();
        assert_eq!(again, manifest);
        let heights: Vec<_> = again.block_files().into_iter().map(|(first, last, _)| (first, last)).collect();
        assert_eq!(heights, [(1, 40), (41, 50)]);
        assert_eq!(again.packs().into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [2]);
        assert!(again.state_file().is_some() && again.own_file("trust").is_some() && again.own_file("keys").is_none());
    }

    #[test]
    fn a_manifest_that_cannot_be_one_is_refused() {
        /// What is changed, and what is said.
        type Change = (&'static str, fn(&mut Manifest));
        let changes: [Change; 11] = [
            ("another version", |manifest| manifest.version += 1),
            ("outside the repository", |manifest| manifest.files[6].path = "bodies/../../key".to_owned()),
            ("outside the repository", |manifest| manifest.files[6].path = "/etc/passwd".to_owned()),
            ("a file twice", |manifest| manifest.files[6].path = manifest.files[5].path.clone()),
            ("no genesis", |manifest| drop(manifest.files.remove(0))),
            ("no blocks", |manifest| manifest.height = 0),
            ("blocks are missing", |manifest| drop(manifest.files.remove(3))),
            ("blocks are missing", |manifest| manifest.height = 51),
            ("certifies its state", |manifest| manifest.state.as_mut().unwrap().height = 50),
            ("no file of the state", |manifest| manifest.state.as_mut().unwrap().height = 31),
            ("an id or root is none", |manifest| manifest.header = "../..".to_owned()),
        ];
        for (reason, change) in changes {
            let mut changed = manifest();
            change(&mut changed);
            let bytes = serde_json::to_vec(&changed).unwrap();
            let error = Manifest::read(Path::new("manifest.json"), &bytes).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}, not {reason}");
        }
    }
}
