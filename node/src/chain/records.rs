//! Small derived records that bundles need: changes of the validator set, and epoch certificates ever seen.
//!
//! Each is one file, written once under a temporary name, flushed and renamed; they are few, so they are held in memory.
//! The state's flush comes later, so a state never stands above a record that is not durable.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use stele_types::cbor::{self, Field};
use stele_types::{ChainLink, EpochCertificate, Hash, Height};

use super::ChainError;
use crate::store::durable;

/// Validator-set changes by the height of the last header of the old set.
pub(super) struct LinkRecords {
    directory: PathBuf,
    links: RwLock<BTreeMap<u64, ChainLink>>,
}

impl LinkRecords {
    pub(super) fn open(directory: &Path) -> Result<Self, ChainError> {
        let links: Vec<ChainLink> = load(directory)?;
        let links = links.into_iter().map(|link| (link.header.height.0, link)).collect();
        Ok(Self { directory: directory.to_owned(), links: RwLock::new(links) })
    }
    pub(super) fn add(&self, link: ChainLink) -> Result<(), ChainError> {
        let height = link.header.height.0;
        store(&self.directory, &format!("{height:020}"), &link)?;
        self.links.write().unwrap_or_else(PoisonError::into_inner).insert(height, link);
        Ok(())
    }
    /// Links below `height`, ascending.
    pub(super) fn below(&self, height: Height) -> Vec<ChainLink> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.range(..height.0).map(|(_, link)| link.clone()).collect()
    }
}

/// Epoch certificates by their hash.
pub(super) struct EpochRecords {
    directory: PathBuf,
    certificates: RwLock<HashMap<Hash, EpochCertificate>>,
}

impl EpochRecords {
    pub(super) fn open(directory: &Path) -> Result<Self, ChainError> {
        let certificates: Vec<EpochCertificate> = load(directory)?;
        let certificates = certificates.into_iter().map(|certificate| (certificate.hash(), certificate)).collect();
        Ok(Self { directory: directory.to_owned(), certificates: RwLock::new(certificates) })
    }
    pub(super) fn add(&self, certificate: &EpochCertificate) -> Result<(), ChainError> {
        let hash = certificate.hash();
        if self.find(&hash).is_some() {
            return Ok(());
        }
        store(&self.directory, &hash.to_hex(), certificate)?;
        self.certificates.write().unwrap_or_else(PoisonError::into_inner).insert(hash, certificate.clone());
        Ok(())
    }
    pub(super) fn find(&self, hash: &Hash) -> Option<EpochCertificate> {
        self.certificates.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }
}

/// Changes of validators in `directory`, ascending.
pub(super) fn links(directory: &Path) -> Result<Vec<ChainLink>, ChainError> {
    let mut links: Vec<ChainLink> = read(directory)?;
    links.sort_by_key(|link| link.header.height);
    Ok(links)
}

/// Epoch certificates in `directory`.
pub(super) fn epochs(directory: &Path) -> Result<Vec<EpochCertificate>, ChainError> {
    read(directory)
}

fn load<T: Field>(directory: &Path) -> Result<Vec<T>, ChainError> {
    durable::create_directory(directory).map_err(ChainError::io("create a record directory"))?;
    read(directory)
}

fn read<T: Field>(directory: &Path) -> Result<Vec<T>, ChainError> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(ChainError::io("list records"))? {
        let path = entry.map_err(ChainError::io("list records"))?.path();
        if path.extension().is_some_and(|extension| extension == "cbor") {
            let bytes = std::fs::read(&path).map_err(ChainError::io("read a record"))?;
            records.push(cbor::from_slice(&bytes)?);
        }
    }
    Ok(records)
}

fn store<T: Field>(directory: &Path, name: &str, record: &T) -> Result<(), ChainError> {
    durable::replace_file(directory, &format!("{name}.cbor"), &cbor::to_vec(record))
        .map_err(ChainError::io("write a record"))
}
