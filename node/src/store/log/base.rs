//! Where a log begins, read beside the node that has it open.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use stele_merkle::HASH_BYTES;
use stele_merkle::log::Frontier;

use super::error::LogStoreError;
use super::files::{LEVELS, level_name};
use super::synced::Synced;

/// The frontier at which the log in `directory` begins; none if it begins with its first leaf, or there is none.
///
/// # Errors
/// `log_truncated`, `store_io`.
pub fn base(directory: &Path) -> Result<Option<Frontier>, LogStoreError> {
    let failed = || LogStoreError::io("read where the log begins");
    let synced = match Synced::read(directory).map_err(failed())? {
        Some(Some(synced)) => synced,
        Some(None) => return Err(LogStoreError::Truncated("the record of it is damaged")),
        None => return Ok(None),
    };
    if synced.base == 0 {
        return Ok(None);
    }
    let mut bytes = synced.base.to_be_bytes().to_vec();
    for level in (0..LEVELS).rev().filter(|level| synced.base >> level & 1 == 1) {
        let mut hash = [0; HASH_BYTES];
        let file = File::open(directory.join(level_name(level))).map_err(failed())?;
        file.read_exact_at(&mut hash, ((synced.base >> level) - 1) * HASH_BYTES as u64).map_err(failed())?;
        bytes.extend_from_slice(&hash);
    }
    let malformed = |_| LogStoreError::io("read where the log begins")(io::ErrorKind::InvalidData.into());
    Frontier::decode(&bytes).map(Some).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::LogStore;

    #[test]
    fn a_log_says_where_it_begins() {
        let directory = tempfile::tempdir().unwrap();
        assert!(base(directory.path()).unwrap().is_none());
        let (log, _writer) = LogStore::open(directory.path(), 0, None).unwrap();
        assert!(base(directory.path()).unwrap().is_none());
        drop((log, _writer));
        let mut frontier = Frontier::new();
        (0..13).for_each(|leaf| frontier.append([leaf; 32]));
        let _log = LogStore::adopt(directory.path(), &frontier).unwrap();
        assert_eq!(base(directory.path()).unwrap().unwrap(), frontier);
    }
}
