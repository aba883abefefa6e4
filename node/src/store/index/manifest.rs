//! The list of runs that make up the index, replaced as a whole.

use std::fs;
use std::io;
use std::path::Path;

use crate::store::durable;

/// File name of the manifest.
pub(super) const MANIFEST_FILE: &str = "manifest";

const MAGIC: [u8; 8] = *b"STELEIDX";
const FORMAT_VERSION: u32 = 1;
const HEAD_BYTES: usize = 40;
const RUN_BYTES: usize = 24;

/// More runs than any sequence of merges leaves: it bounds what a damaged manifest can make us read.
const RUNS_MAX: usize = 65_536;

/// One run as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunRecord {
    pub(super) id: u64,
    pub(super) entries: u64,
    /// How many times its entries were merged.
    pub(super) tier: u64,
}

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Highest height all of whose statements are in the runs.
    pub(super) complete_through: Option<u64>,
    pub(super) next_run: u64,
    /// From the oldest to the newest.
    pub(super) runs: Vec<RunRecord>,
}

impl Manifest {
    /// Reads the manifest; outer `None` where there is none, inner `None` where it does not check.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Option<Self>>> {
        let path = directory.join(MANIFEST_FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > (HEAD_BYTES + RUNS_MAX * RUN_BYTES + 4) as u64 => return Ok(Some(None)),
            Ok(_) => {}
        }
        Ok(Some(Self::decode(&fs::read(path)?)))
    }

    /// Replaces the manifest; durable when it returns, with all directory entries made before.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.runs.len() * RUN_BYTES + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::from(self.complete_through.is_some()).to_le_bytes());
        bytes.extend_from_slice(&self.complete_through.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.next_run.to_le_bytes());
        bytes.extend_from_slice(&(self.runs.len() as u64).to_le_bytes());
        for run in &self.runs {
            for number in [run.id, run.entries, run.tier] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        durable::replace_file(directory, MANIFEST_FILE, &bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let (head, runs) = body.split_at_checked(HEAD_BYTES)?;
        let (runs, rest) = runs.as_chunks::<RUN_BYTES>();
        let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let valid = *crc == crc32c::crc32c(body).to_le_bytes()
            && head.starts_with(&MAGIC)
            && head[8..12] == FORMAT_VERSION.to_le_bytes()
            && rest.is_empty()
            && number(head, 32) == runs.len() as u64;
        valid.then(|| Self {
            complete_through: (head[12] == 1).then(|| number(head, 16)),
            next_run: number(head, 24),
            runs: runs
                .iter()
                .map(|run| RunRecord { id: number(run, 0), entries: number(run, 8), tier: number(run, 16) })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_return_and_any_damaged_byte_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(directory.path()).unwrap(), None);
        let run = |id| RunRecord { id, entries: id * 100, tier: id % 3 };
        for manifest in [
            Manifest::default(),
            Manifest { complete_through: Some(0), next_run: 1, runs: vec![] },
            Manifest { complete_through: Some(77), next_run: 9, runs: vec![run(2), run(5), run(8)] },
        ] {
            manifest.write(directory.path()).unwrap();
            assert_eq!(Manifest::read(directory.path()).unwrap(), Some(Some(manifest)));
        }
        let bytes = fs::read(directory.path().join(MANIFEST_FILE)).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert_eq!(Manifest::decode(&damaged), None);
            assert_eq!(Manifest::decode(&bytes[..at]), None);
        }
    }
}
