//! What a backup takes of a payload store, and gives back: the store itself, the journal, and the table of class keys.

use std::path::Path;
use std::sync::Arc;

use stele_hsm::custody::{Custodian, CustodyPublicKey};
use stele_storage::Store;
use stele_types::NetworkId;
use tokio::runtime::Handle;

use super::cold::Absent;
use super::{BlockArchive, PayloadError, drives, keys, unreferenced};
use crate::config::PayloadSection;

/// Folder of the payload, below the data directory.
pub(crate) const DIRECTORY: &str = "payload";
/// File of the journal in it.
pub(crate) const JOURNAL: &str = unreferenced::FILE;
/// File of the table of class keys in it.
pub(crate) const CLASS_KEYS: &str = keys::FILE;
/// Folder of the index in it.
pub(crate) const INDEX: &str = drives::INDEX;

/// Opens the store on the drives of the section, and makes it where all drives are to be files and there are none.
///
/// # Errors
/// `Drive`, `Storage`.
pub(crate) fn open_store(section: &PayloadSection, directory: &Path) -> Result<Store, PayloadError> {
    drives::open(section, directory)
}

/// The blocks that are archived in a store whose node does not run.
///
/// # Errors
/// `Custody`, `Keys`.
pub(crate) fn archived_blocks(
    runtime: &Handle,
    store: &Arc<Store>,
    custodian: Arc<dyn Custodian>,
    directory: &Path,
    network: NetworkId,
) -> Result<Arc<BlockArchive>, PayloadError> {
    let keys = keys::ClassKeys::open(directory, network, custodian)?;
    store.attach_cold(Arc::new(Absent { reason: "nobody asks it while the node is stopped", retry_after: None }));
    let archive = BlockArchive::new(runtime.clone());
    archive.opened(store, &Arc::new(keys), directory);
    archive.recovered();
    Ok(archive)
}

/// A table of class keys outside its node.
pub(crate) struct KeyTable(keys::Table);

impl KeyTable {
    /// None if the bytes are no table.
    pub(crate) fn decode(bytes: &[u8], network: NetworkId) -> Option<Self> {
        keys::decode(bytes, network).map(Self)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        keys::encode(&self.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Opens every key.
    ///
    /// # Errors
    /// `Custody` if one was not sealed for the custodian.
    pub(crate) async fn check(&self, custodian: &dyn Custodian) -> Result<(), PayloadError> {
        self.0.check(custodian).await
    }

    /// The same keys, sealed for `recipient` by who can open them.
    ///
    /// # Errors
    /// `Custody` if one was not sealed for the custodian, or `recipient` is no key.
    pub(crate) async fn sealed_for(
        &self,
        custodian: &dyn Custodian,
        recipient: &CustodyPublicKey,
    ) -> Result<Self, PayloadError> {
        Ok(Self(self.0.sealed_for(custodian, recipient).await?))
    }

    /// The table for a node whose custody key is `new` and was `old`: bodies that came to it are its own still, and no new
    /// ones are sealed under keys that were elsewhere.
    #[must_use]
    pub(crate) fn moved(self, old: &CustodyPublicKey, new: &CustodyPublicKey) -> Self {
        Self(self.0.moved(old, new))
    }
}
