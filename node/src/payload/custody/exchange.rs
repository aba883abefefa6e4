//! What nodes tell each other of copies.

use stele_client::{ClassKeyView, CopyRequest};
use stele_hsm::custody::{ClassKeyName, CustodyPublicKey, SealedClassKey};
use stele_storage::StorageError;
use stele_types::record::RecordClass;
use stele_types::{Hash, Height, NetworkId};
use tracing::warn;

use super::{Custody, CustodyError};
use crate::payload::{PayloadError, blocks, listing};

/// Objects that are looked at for one answer: each is read.
const OBJECTS_MAX: u32 = 512;

/// A copy that another node asks for.
#[derive(Clone, Debug)]
pub struct AskedCopy {
    /// Custody key of the node that asks.
    pub origin: CustodyPublicKey,
    /// Root of the sealed body.
    pub root: Hash,
    /// Bytes of it.
    pub length: u64,
    /// Year in which its retention ends; 0 if it does not.
    pub retention_year: u16,
    /// No statement in the blocks up to this one refers to it; none if one does.
    pub unreferenced_at: Option<Height>,
    /// Its class key, sealed for this node.
    pub class_key: SealedClassKey,
}

impl AskedCopy {
    pub(super) fn view(&self) -> CopyRequest {
        CopyRequest {
            origin: hex::encode(self.origin),
            root: self.root.to_hex().to_string(),
            length: self.length,
            retention_year: self.retention_year,
            unreferenced_at: self.unreferenced_at.map(|height| height.0),
            class_key: key_view(&self.class_key, &self.origin),
        }
    }

    /// Reads what a node asks for in a network; none if it is malformed.
    pub fn read(asked: &CopyRequest, network: NetworkId) -> Option<Self> {
        let (class_key, _) = read_key(&asked.class_key, network)?;
        Some(Self {
            origin: hex::decode(&asked.origin).ok()?.try_into().ok()?,
            root: Hash::from_hex(&asked.root)?,
            length: asked.length,
            retention_year: asked.retention_year,
            unreferenced_at: asked.unreferenced_at.map(Height),
            class_key,
        })
    }
}

/// A body that is kept for another node.
#[derive(Clone, Copy, Debug)]
pub struct KeptBody {
    /// Root of the sealed body.
    pub root: Hash,
    /// Year in which its retention ends; 0 if it does not.
    pub retention_year: u16,
    /// Whether no statement refers to it yet.
    pub unreferenced: bool,
}

/// Some of the bodies that are kept for another node.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Height up to which blocks were looked at for references.
    pub height: Height,
    /// The bodies.
    pub bodies: Vec<KeptBody>,
    /// Bodies that could not be read, or told whose they are.
    pub unreadable: u64,
    /// The segment to go on with, and how many objects of it to skip, if there is more.
    pub next: Option<(u32, u32)>,
}

pub(super) fn key_view(key: &SealedClassKey, origin: &CustodyPublicKey) -> ClassKeyView {
    ClassKeyView {
        origin: hex::encode(origin),
        class: key.name.class,
        id: hex::encode(key.name.id),
        sealed: hex::encode(key.sealed),
    }
}

/// A class key, and the custody key of the node that made it.
pub(super) fn read_key(view: &ClassKeyView, network: NetworkId) -> Option<(SealedClassKey, CustodyPublicKey)> {
    let id = hex::decode(&view.id).ok()?.try_into().ok()?;
    let sealed = hex::decode(&view.sealed).ok()?.try_into().ok()?;
    let origin = hex::decode(&view.origin).ok()?.try_into().ok()?;
    Some((SealedClassKey { name: ClassKeyName { network: network.0, class: view.class, id }, sealed }, origin))
}

impl Custody {
    /// Which of some bodies are not here.
    ///
    /// # Errors
    /// `Payload`.
    pub async fn missing(&self, roots: &[Hash]) -> Result<Vec<Hash>, CustodyError> {
        let mut missing = Vec::new();
        for root in roots {
            if !self.payload.store().has(&root.0)? {
                missing.push(*root);
            }
        }
        Ok(missing)
    }

    /// The bodies whose class keys the node with the custody key `origin` made: some of those in the first segment from `from`
    /// on, without the first `skip` objects of it.
    ///
    /// # Errors
    /// `Stranger`, `Payload`.
    pub async fn kept_for(&self, origin: &CustodyPublicKey, from: u32, skip: u32) -> Result<Kept, CustodyError> {
        if origin != self.own() && self.keepers.get(origin).is_none() {
            return Err(CustodyError::Stranger);
        }
        // First the height: what still waits afterwards is referred to by no block up to it.
        let height = self.payload.unreferenced.height();
        let page = listing::page(self.payload.store(), from, skip, OBJECTS_MAX).await?;
        let (mut bodies, mut unreadable) = (Vec::new(), page.unreadable);
        for (root, group) in page.objects {
            let sealed = match self.payload.sealed(&root).await {
                Ok(sealed) => sealed,
                // No body, or one that was removed meanwhile.
                Err(PayloadError::NotSealed | PayloadError::Storage(StorageError::NotFound)) => continue,
                Err(error) => {
                    warn!(code = error.code(), %error, %root, "a body cannot be read to say whose it is");
                    unreadable += 1;
                    continue;
                }
            };
            if self.payload.keys.origin(&sealed.header().class_key).await.is_ok_and(|found| found == *origin) {
                let unreferenced = self.payload.unreferenced.contains(&root);
                bodies.push(KeptBody { root, retention_year: group.year, unreferenced });
            }
        }
        Ok(Kept { height, bodies, unreadable, next: page.next })
    }

    /// Every class key of this node, sealed for another one.
    ///
    /// # Errors
    /// `Stranger`, `Payload`.
    pub async fn class_keys_for(&self, recipient: &CustodyPublicKey) -> Result<Vec<ClassKeyView>, CustodyError> {
        if self.keepers.get(recipient).is_none() {
            return Err(CustodyError::Stranger);
        }
        let mut views = Vec::new();
        for (id, origin) in self.payload.keys.all().await {
            let key = self.payload.keys.sealed_for(&id, recipient).await?;
            // Of classes without copies, and of old blocks, nobody else needs the key.
            let shared = u8::try_from(key.name.class).is_ok_and(|class| {
                class != blocks::CLASS && RecordClass::from_number(class).is_none_or(|class| self.wants_copy(class))
            });
            if origin == *recipient || shared {
                views.push(key_view(&key, &origin));
            }
        }
        Ok(views)
    }
}
