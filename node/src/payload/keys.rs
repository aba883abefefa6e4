//! The table of class keys: sealed, so that whoever holds the custody key can use them and nobody else.
//!
//! One file, replaced as a whole: it grows by a key of 229 bytes for each class and network node. Losing it is losing every body
//! that was sealed under its keys, so it is part of each backup.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stele_hsm::custody::{BlobKey, ClassKeyName, Custodian, CustodyPublicKey, SEALED_KEY_LENGTH, SealedClassKey};
use stele_types::NetworkId;
use tokio::sync::Mutex;

use super::PayloadError;
use crate::store::durable;

pub(super) const FILE: &str = "class-keys";
const MAGIC: [u8; 8] = *b"STELCLK2";
/// Whether it was made here, custody key of the node that made it, class, id, sealed key, checksum.
const ENTRY_BYTES: usize = 1 + size_of::<CustodyPublicKey>() + 1 + 16 + SEALED_KEY_LENGTH + 4;
/// Keys of one table: more would be an attack on memory.
const ENTRIES_MAX: usize = 65_536;
/// Keys of one other node: it makes one for each class.
const ORIGIN_ENTRIES_MAX: usize = 1024;

/// Class keys by their ids.
pub(super) struct ClassKeys {
    directory: PathBuf,
    network: NetworkId,
    custodian: Arc<dyn Custodian>,
    table: Mutex<Table>,
}

#[derive(Clone, Default)]
pub(super) struct Table {
    keys: BTreeMap<[u8; 16], Entry>,
    /// The key that new bodies of a class are sealed with.
    current: BTreeMap<u8, [u8; 16]>,
}

#[derive(Clone)]
struct Entry {
    key: SealedClassKey,
    /// Custody key of the node that made it: this one, or one whose bodies it keeps.
    origin: CustodyPublicKey,
    /// Whether it is known to be made here. What another node brings back is used to read, and never to seal: whoever made
    /// it up knows it.
    made: bool,
}

impl ClassKeys {
    /// Opens the table in `directory`.
    ///
    /// # Errors
    /// `Keys` if the file is damaged or cannot be read.
    pub(super) fn open(
        directory: &Path,
        network: NetworkId,
        custodian: Arc<dyn Custodian>,
    ) -> Result<Self, PayloadError> {
        let path = directory.join(FILE);
        let table = match std::fs::read(&path) {
            Ok(bytes) => decode(&bytes, network).ok_or_else(|| PayloadError::keys(&path, "it is damaged"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
            Err(error) => return Err(PayloadError::keys(&path, &error.to_string())),
        };
        Ok(Self { directory: directory.to_owned(), network, custodian, table: Mutex::new(table) })
    }

    /// Opens every key, so that a custody key of another node is found out before a body is asked for.
    ///
    /// # Errors
    /// `Custody`.
    pub(super) async fn check(&self) -> Result<(), PayloadError> {
        self.table.lock().await.check(&*self.custodian).await
    }

    /// Whether there is no key at all.
    pub(super) async fn is_empty(&self) -> bool {
        self.table.lock().await.keys.is_empty()
    }

    /// The class key for what comes of a class, by its number; the first one is made and durable before anything is sealed with it.
    ///
    /// # Errors
    /// `Custody`, `Keys`.
    pub(super) async fn current(&self, class: u8) -> Result<SealedClassKey, PayloadError> {
        let mut table = self.table.lock().await;
        let known = table.current.get(&class).and_then(|id| table.keys.get(id));
        if let Some(known) = known {
            return Ok(known.key.clone());
        }
        let key = self.custodian.make_class_key(&self.network.0, class.into()).await?;
        self.add(&mut table, Entry { key: key.clone(), origin: *self.custodian.public_key(), made: true })?;
        Ok(key)
    }

    /// The class key of this id.
    ///
    /// # Errors
    /// `KeyUnknown`.
    pub(super) async fn get(&self, id: &[u8; 16]) -> Result<SealedClassKey, PayloadError> {
        let table = self.table.lock().await;
        table.keys.get(id).map(|entry| entry.key.clone()).ok_or(PayloadError::KeyUnknown)
    }

    /// The key of the body with this salt.
    ///
    /// # Errors
    /// `KeyUnknown`, `Custody`.
    pub(super) async fn blob_key(&self, id: &[u8; 16], salt: &[u8; 32]) -> Result<BlobKey, PayloadError> {
        let key = self.get(id).await?;
        Ok(self.custodian.blob_key(&key, salt).await?)
    }

    /// The key of the body with this salt, by a class key that is not in the table.
    ///
    /// # Errors
    /// `Custody` if it was not sealed for this node.
    pub(super) async fn candidate(&self, key: &SealedClassKey, salt: &[u8; 32]) -> Result<BlobKey, PayloadError> {
        Ok(self.custodian.blob_key(key, salt).await?)
    }

    /// Takes a key that another node sealed for this one and that the node with the custody key `origin` made. The caller has
    /// opened a body with it: anybody can seal anything under any id.
    ///
    /// # Errors
    /// `Keys`.
    pub(super) async fn adopt(&self, key: SealedClassKey, origin: CustodyPublicKey) -> Result<(), PayloadError> {
        let mut table = self.table.lock().await;
        if table.keys.contains_key(&key.name.id) {
            return Ok(());
        }
        if table.keys.values().filter(|entry| entry.origin == origin).count() >= ORIGIN_ENTRIES_MAX {
            let path = self.directory.join(FILE);
            return Err(PayloadError::keys(&path, "one other node has made more keys than there are classes"));
        }
        self.add(&mut table, Entry { key, origin, made: false })
    }

    /// Whether a key is in the table.
    pub(super) async fn has(&self, id: &[u8; 16]) -> bool {
        self.table.lock().await.keys.contains_key(id)
    }

    /// Which node made a key.
    ///
    /// # Errors
    /// `KeyUnknown`.
    pub(super) async fn origin(&self, id: &[u8; 16]) -> Result<CustodyPublicKey, PayloadError> {
        self.table.lock().await.keys.get(id).map(|entry| entry.origin).ok_or(PayloadError::KeyUnknown)
    }

    /// A key, sealed for another node.
    ///
    /// # Errors
    /// `KeyUnknown`, `Custody`.
    pub(super) async fn sealed_for(
        &self,
        id: &[u8; 16],
        recipient: &CustodyPublicKey,
    ) -> Result<SealedClassKey, PayloadError> {
        Ok(self.custodian.reseal(&self.get(id).await?, recipient).await?)
    }

    /// Every key with the node that made it.
    pub(super) async fn all(&self) -> Vec<([u8; 16], CustodyPublicKey)> {
        self.table.lock().await.keys.iter().map(|(id, entry)| (*id, entry.origin)).collect()
    }

    /// The custody key of this node.
    pub(super) fn own(&self) -> &CustodyPublicKey {
        self.custodian.public_key()
    }

    fn add(&self, table: &mut Table, entry: Entry) -> Result<(), PayloadError> {
        let path = self.directory.join(FILE);
        if table.keys.len() == ENTRIES_MAX {
            return Err(PayloadError::keys(&path, "it holds as many keys as it may"));
        }
        let mut next = table.clone();
        next.insert(entry);
        // Durable before it is used: a body whose key was only in memory could never be read.
        let written = durable::replace_file(&self.directory, FILE, &encode(&next));
        written.map_err(|error| PayloadError::keys(&path, &error.to_string()))?;
        *table = next;
        Ok(())
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Opens every key.
    ///
    /// # Errors
    /// `Custody`.
    pub(super) async fn check(&self, custodian: &dyn Custodian) -> Result<(), PayloadError> {
        for entry in self.keys.values() {
            custodian.blob_key(&entry.key, &[0; 32]).await?;
        }
        Ok(())
    }

    /// The same keys, sealed for another custody key.
    ///
    /// # Errors
    /// `Custody`.
    pub(super) async fn sealed_for(
        &self,
        custodian: &dyn Custodian,
        recipient: &CustodyPublicKey,
    ) -> Result<Self, PayloadError> {
        let mut sealed = self.clone();
        for entry in sealed.keys.values_mut() {
            entry.key = custodian.reseal(&entry.key, recipient).await?;
        }
        Ok(sealed)
    }

    /// The table of a node that has another custody key now. What was sealed for the old one was read with it, so nothing new
    /// is sealed under keys from then.
    pub(super) fn moved(mut self, old: &CustodyPublicKey, new: &CustodyPublicKey) -> Self {
        for entry in self.keys.values_mut() {
            entry.made = false;
            if entry.origin == *old {
                entry.origin = *new;
            }
        }
        self.current.clear();
        self
    }

    fn insert(&mut self, entry: Entry) {
        let ClassKeyName { class, id, .. } = entry.key.name;
        if let Some(class) = u8::try_from(class).ok().filter(|_| entry.made) {
            self.current.insert(class, id);
        }
        self.keys.insert(id, entry);
    }
}

pub(super) fn encode(table: &Table) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    // The current key of a class is the last of its own.
    let (current, others): (Vec<&Entry>, Vec<&Entry>) =
        table.keys.values().partition(|entry| table.current.values().any(|id| *id == entry.key.name.id));
    for entry in others.into_iter().chain(current) {
        let begun = bytes.len();
        let class = u8::try_from(entry.key.name.class).unwrap_or(u8::MAX);
        bytes.push(u8::from(entry.made));
        bytes.extend_from_slice(&entry.origin);
        bytes.push(class);
        bytes.extend_from_slice(&entry.key.name.id);
        bytes.extend_from_slice(&entry.key.sealed);
        let sum = crc32c::crc32c(&bytes[begun..]);
        bytes.extend_from_slice(&sum.to_le_bytes());
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], network: NetworkId) -> Option<Table> {
    let (entries, rest) = bytes.strip_prefix(&MAGIC)?.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || entries.len() > ENTRIES_MAX {
        return None;
    }
    let mut table = Table::default();
    for entry in entries {
        let (content, sum) = entry.split_last_chunk::<4>()?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
            return None;
        }
        let ([made], rest) = content.split_first_chunk()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let ([class], rest) = rest.split_first_chunk()?;
        let (id, sealed) = rest.split_first_chunk()?;
        let name = ClassKeyName { network: network.0, class: (*class).into(), id: *id };
        let key = SealedClassKey { name, sealed: sealed.try_into().ok()? };
        table.insert(Entry { key, origin: *origin, made: *made == 1 });
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use stele_hsm::custody::SoftwareCustodian;
    use stele_types::record::RecordClass;

    use super::*;

    #[tokio::test]
    async fn keys_outlive_the_process_and_damage_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let custodian = Arc::new(SoftwareCustodian::generate(&directory.path().join("custody.key")).unwrap());
        let open = || ClassKeys::open(directory.path(), NetworkId([1; 32]), Arc::clone(&custodian) as _);
        let keys = open().unwrap();
        let medical = keys.current(RecordClass::Medical.number()).await.unwrap();
        let tax = keys.current(RecordClass::Tax.number()).await.unwrap();
        assert_ne!(medical.name.id, tax.name.id);
        let again = open().unwrap();
        assert_eq!(again.current(RecordClass::Medical.number()).await.unwrap(), medical);
        assert_eq!(again.get(&tax.name.id).await.unwrap(), tax);
        assert!(matches!(again.get(&[0; 16]).await, Err(PayloadError::KeyUnknown)));
        let path = directory.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        for at in [0, 8, 30, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(open(), Err(PayloadError::Keys { .. })), "byte {at}");
        }
    }
}
