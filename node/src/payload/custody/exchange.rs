//! What nodes tell each other of copies.

use stele_client::{ClassKeyView, CopyRequest};
use stele_hsm::custody::{ClassKeyName, CustodyPublicKey, SealedClassKey};
use stele_types::{Hash, Height, NetworkId};

use super::{Custody, CustodyError};

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
    /// The segment to go on with, if there is one.
    pub next: Option<u32>,
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

    /// The bodies in one segment from `from` on whose class keys the node with the custody key `origin` made.
    ///
    /// # Errors
    /// `Stranger`, `Payload`.
    pub async fn kept_for(&self, origin: &CustodyPublicKey, from: u32) -> Result<Kept, CustodyError> {
        if origin != self.own() && self.keepers.get(origin).is_none() {
            return Err(CustodyError::Stranger);
        }
        // First the height: what still waits afterwards is referred to by no block up to it.
        let height = self.payload.unreferenced.height();
        let listing = self.payload.store().list(from, 1).await?;
        let mut bodies = Vec::new();
        for (root, group) in listing.roots {
            let root = Hash(root);
            let Ok(sealed) = self.payload.sealed(&root).await else { continue };
            if self.payload.keys.origin(&sealed.header().class_key).await.is_ok_and(|found| found == *origin) {
                let unreferenced = self.payload.unreferenced.contains(&root);
                bodies.push(KeptBody { root, retention_year: group.year, unreferenced });
            }
        }
        Ok(Kept { height, bodies, next: listing.next })
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
            views.push(key_view(&self.payload.keys.sealed_for(&id, recipient).await?, &origin));
        }
        Ok(views)
    }
}
