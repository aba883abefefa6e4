//! Bodies that are stored, page by page: for other nodes, and for backups. Old blocks, which lie beside them, are left out:
//! other nodes have them, and backups take them as blocks.

use stele_storage::{Group, StorageError, Store};
use stele_types::Hash;

use super::blocks;

/// Objects of one page at most, of which nothing has to be read.
pub(crate) const OBJECTS_MAX: u32 = 4096;

/// Some of the objects of a store.
pub(crate) struct Page {
    pub(crate) objects: Vec<(Hash, Group)>,
    /// Directories that could not be read: what they list is missing.
    pub(crate) unreadable: u64,
    /// Segment to go on with, and objects to skip in it.
    pub(crate) next: Option<(u32, u32)>,
}

/// Objects of segment `from`, or the one after it, without the first `skip`; `objects_max` at most. One that is moved
/// meanwhile comes again in a later segment, and perhaps another one in its segment is passed over: who wants all asks again
/// until nothing new comes.
///
/// # Errors
/// `Stopped`.
pub(crate) async fn page(store: &Store, from: u32, skip: u32, objects_max: u32) -> Result<Page, StorageError> {
    let listing = store.list(from, 1).await?;
    let [skipped, taken] = [skip, objects_max].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    let rest = listing.roots.len() > skipped.saturating_add(taken);
    let segment = listing.segment.unwrap_or(from);
    let here = rest.then(|| (segment, skip.saturating_add(objects_max)));
    let here_listed = listing.roots.into_iter().skip(skipped).take(taken);
    let bodies = here_listed.filter(|(_, group)| group.class != blocks::CLASS);
    Ok(Page {
        objects: bodies.map(|(root, group)| (Hash(root), group)).collect(),
        unreadable: if skip == 0 { listing.unreadable } else { 0 },
        next: here.or(listing.next.map(|next| (next, 0))),
    })
}
