//! Where a network that was lost begins again: the newest height of all its repositories.

use std::path::{Path, PathBuf};

use stele_types::{Block, BlockId};

use super::BackupError;
use super::blocks::each_block;
use super::manifest::Manifest;
use super::repository::Repository;

/// A repository with its newest backup.
pub(crate) struct Newest {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    repository: Repository,
}

/// The newest backups of repositories, the highest first; all are of one network, and none contradicts another.
///
/// # Errors
/// `Foreign`, `Contradiction`; those of reading a repository.
pub(crate) fn recovery_point(paths: &[PathBuf]) -> Result<Vec<Newest>, BackupError> {
    let open = |path: &PathBuf| {
        let repository = Repository::open(path)?;
        let manifest = repository.find(None)?;
        Ok(Newest { path: path.clone(), manifest, repository })
    };
    let mut newest: Vec<Newest> = paths.iter().map(open).collect::<Result<_, BackupError>>()?;
    newest.sort_by_key(|one| std::cmp::Reverse(one.manifest.height));
    let (Some(highest), rest) = newest.split_first().map_or((None, &[][..]), |(highest, rest)| (Some(highest), rest))
    else {
        return Ok(newest);
    };
    for other in rest {
        other.repository.check_network(highest.repository.network())?;
        let height = other.manifest.height;
        // One that began above says nothing about it.
        let id = header_at(highest, height)?;
        if id.is_some_and(|id| id != other.manifest.header_id()) {
            let (one, other) = (highest.path.clone(), other.path.clone());
            return Err(BackupError::Contradiction { one, other, height });
        }
    }
    Ok(newest)
}

/// Id of the header at a height; none if the repository does not have it.
fn header_at(newest: &Newest, height: u64) -> Result<Option<BlockId>, BackupError> {
    let files = newest.manifest.block_files();
    let Some(file) = files.into_iter().find(|(first, last, _)| (*first..=*last).contains(&height)) else {
        return Ok(None);
    };
    let mut id = None;
    each_block(newest.repository.root(), file, |path: &Path, record| {
        if record.height == height {
            let undecoded = |error| BackupError::Chain { path: path.to_owned(), height, reason: format!("{error}") };
            id = Some(Block::header_from_bytes(&record.block).map_err(undecoded)?.id());
        }
        Ok(())
    })?;
    Ok(id)
}
