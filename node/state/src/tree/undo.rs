//! Applying an update, and the way back.

use std::sync::{Arc, OnceLock};

use stele_merkle::state::Key;

use super::Written;
use super::page::NewPage;
use super::stage::{NewNode, Update};
use super::{Child, Inner, Leaf, NodeRef, Place, Slot, Tree};
use crate::pages::{Page, PageData};
use crate::values::ValueRef;
use crate::{Hash, StateError};

/// How many exchanges ahead of the current one its target is loaded.
const PREFETCH_DISTANCE: usize = 8;

/// Bytes of a pair in a file beside its value: the key, and the value's length.
const PAIR_HEAD_BYTES: u64 = 34;

/// A leaf is in no range but that of its own key.
const LEAF_DEPTH: usize = 256;

/// Nodes that a version has no more and the one before it had.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    pub(super) inners: Vec<u32>,
    pub(super) links: Vec<u32>,
    pub(super) leaves: Vec<u32>,
    pub(super) pages: Vec<RetiredPage>,
}

/// A page that went: its lowest key and its hash say where it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetiredPage {
    pub(crate) slot: u32,
    pub(crate) first: Key,
    pub(crate) hash: Hash,
}

/// What leads from a version back to the one before it: what the changed places held, and the nodes that went.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    children: Vec<(Slot, Child)>,
    values: Vec<(u32, ValueRef)>,
    retired: Retired,
    /// Leaves that the version before does not have.
    inserted: Vec<u32>,
    /// Pages that the version before does not have.
    new_pages: Vec<u32>,
    /// Bytes of the values that only older versions have.
    value_bytes: usize,
    /// Order of `children` and `values` by place, made when an older version is first read through this.
    index: OnceLock<Index>,
}

#[derive(Debug)]
struct Index {
    children: Vec<u32>,
    values: Vec<u32>,
}

impl Undo {
    /// Bytes of this list itself.
    pub(crate) fn list_bytes(&self) -> usize {
        self.children.len() * (size_of::<(Slot, Child)>() + size_of::<u32>())
            + self.values.len() * (size_of::<(u32, ValueRef)>() + size_of::<u32>())
            + (self.retired.inners.len() + self.retired.links.len() + self.retired.leaves.len() + self.inserted.len())
                * size_of::<u32>()
            + self.retired.pages.len() * size_of::<RetiredPage>()
            + self.new_pages.len() * size_of::<u32>()
    }

    /// Bytes of memory that only older versions need: the list, and what the tree keeps for them.
    pub(crate) fn bytes(&self) -> usize {
        self.list_bytes()
            + self.retired.inners.len() * size_of::<Inner>()
            + self.retired.links.len() * size_of::<Child>()
            + self.retired.leaves.len() * size_of::<Leaf>()
            + self.retired.pages.len() * size_of::<Page>()
            + self.value_bytes
    }

    fn index(&self) -> &Index {
        fn order<T, K: Ord>(entries: &[T], key: impl Fn(&T) -> K) -> Vec<u32> {
            let mut order: Vec<u32> = (0..u32::try_from(entries.len()).expect("a batch of bounded bytes")).collect();
            order.sort_unstable_by_key(|at| key(&entries[*at as usize]));
            order
        }
        self.index.get_or_init(|| Index {
            children: order(&self.children, |(slot, _)| *slot),
            values: order(&self.values, |(leaf, _)| *leaf),
        })
    }

    /// What a place held before, if this changed it.
    pub(super) fn child(&self, slot: Slot) -> Option<&Child> {
        let index = &self.index().children;
        let at = index.binary_search_by_key(&slot, |at| self.children[*at as usize].0).ok()?;
        Some(&self.children[index[at] as usize].1)
    }

    /// The value that a leaf had before, if this changed it.
    pub(super) fn value(&self, leaf: u32) -> Option<ValueRef> {
        let index = &self.index().values;
        let at = index.binary_search_by_key(&leaf, |at| self.values[*at as usize].0).ok()?;
        Some(self.values[index[at] as usize].1)
    }

    /// The keys that this changed, each with its value before, in no order.
    pub(crate) fn changed<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = (Key, Option<ValueRef>)> + 'a {
        let replaced = self.values.iter().map(|(slot, value)| (tree.leaves.at(*slot).key, Some(*value)));
        let deleted = self.retired.leaves.iter().map(|slot| {
            let leaf = tree.leaves.at(*slot);
            (leaf.key, Some(leaf.value))
        });
        let inserted = self.inserted.iter().map(|slot| (tree.leaves.at(*slot).key, None));
        replaced.chain(deleted).chain(inserted)
    }

    /// The pages that went with this.
    pub(crate) fn retired_pages(&self) -> &[RetiredPage] {
        &self.retired.pages
    }

    /// The slots of the pages that came with this.
    pub(crate) fn new_pages(&self) -> &[u32] {
        &self.new_pages
    }
}

impl Tree {
    /// Makes sure of the room on the device that an update takes, before anything depends on it.
    ///
    /// # Errors
    /// [`StateError::Device`]; nothing has changed.
    pub(crate) fn reserve(&mut self, update: &Update) -> Result<(), StateError> {
        let Some(pages) = &mut self.pages else { return Ok(()) };
        let new: Vec<Page> = update.pages.iter().flatten().map(NewPage::page).collect();
        pages.reserve(&new)
    }

    /// Makes an update the newest tree and returns the way back. `written` is the batch that was staged.
    ///
    /// # Errors
    /// [`StateError::Device`] when a page cannot be written; the tree is of no use then.
    pub(crate) fn apply(&mut self, update: Update, written: Written<'_>) -> Result<Undo, StateError> {
        debug_assert_eq!(update.generation, self.generation);
        let mut undo = Undo { retired: update.retired, ..Undo::default() };
        let pages = self.apply_pages(update.pages, &mut undo)?;
        self.keys = self.keys + update.leaves.len() - undo.retired.leaves.len();
        for (key, write) in update.leaves {
            let (bytes, place) = written.value(write);
            let value = self.values.insert(bytes, place);
            self.sizes.add(&key, LEAF_DEPTH, PAIR_HEAD_BYTES + value.length() as u64);
            let slot = self.leaves.insert(Leaf { key, value });
            self.values.belongs(slot, value);
            undo.inserted.push(slot);
        }
        // Children come before their parents in an update, so every staged child already has a place.
        let mut settled: Vec<NodeRef> = Vec::with_capacity(update.nodes.len());
        let settle = |child: Child, inserted: &[u32], settled: &[NodeRef]| {
            let node = match child.node.place() {
                Place::StagedLeaf(index) => NodeRef::leaf(inserted[index as usize]),
                Place::StagedNode(index) => settled[index as usize],
                Place::StagedPage(index) => NodeRef::page(pages[index as usize]),
                _ => child.node,
            };
            Child { node, hash: child.hash }
        };
        for node in update.nodes {
            settled.push(match node {
                NewNode::Inner(Inner { left, right }) => NodeRef::inner(self.inners.insert(Inner {
                    left: settle(left, &undo.inserted, &settled),
                    right: settle(right, &undo.inserted, &settled),
                })),
                NewNode::Link(side, child) => {
                    NodeRef::link(side, self.links.insert(settle(child, &undo.inserted, &settled)))
                }
            });
        }
        self.root = settle(update.root, &undo.inserted, &settled);
        undo.children = update.children;
        for at in 0..undo.children.len() {
            if let Some((slot, _)) = undo.children.get(at + PREFETCH_DISTANCE) {
                stele_accel_hash::prefetch(self.child(*slot));
            }
            let (slot, child) = undo.children[at];
            let new = settle(child, &undo.inserted, &settled);
            undo.children[at].1 = std::mem::replace(self.child_mut(slot), new);
        }
        undo.values.reserve(update.values.len());
        for (at, (slot, write)) in update.values.iter().enumerate() {
            if let Some((slot, _)) = update.values.get(at + PREFETCH_DISTANCE) {
                self.leaves.prefetch(*slot);
            }
            let (bytes, place) = written.value(*write);
            let value = self.values.insert(bytes, place);
            self.values.belongs(*slot, value);
            let leaf = self.leaves.at_mut(*slot);
            let mut old = std::mem::replace(&mut leaf.value, value);
            // Older versions read it from its file.
            self.values.leave(&mut old);
            // Most values are as long as the one before, and a range is one more place of cold memory.
            if value.length() != old.length() {
                self.sizes.add(&leaf.key, LEAF_DEPTH, value.length() as u64);
                self.sizes.remove(&leaf.key, LEAF_DEPTH, old.length() as u64);
            }
            undo.value_bytes += old.bytes();
            undo.values.push((*slot, old));
        }
        for slot in &undo.retired.leaves {
            let leaf = self.leaves.at_mut(*slot);
            self.values.leave(&mut leaf.value);
            let value = leaf.value;
            self.sizes.remove(&leaf.key, LEAF_DEPTH, PAIR_HEAD_BYTES + value.length() as u64);
            undo.value_bytes += value.bytes();
        }
        self.generation += 1;
        self.keep_budget();
        Ok(undo)
    }

    /// Begins to write an update's pages; returns the slot of each.
    fn apply_pages(&mut self, new: Vec<Option<NewPage>>, undo: &mut Undo) -> Result<Vec<u32>, StateError> {
        let Some(pages) = &mut self.pages else { return Ok(Vec::new()) };
        let new = new.into_iter().enumerate().filter_map(|(index, page)| Some((index, page?)));
        let (indices, mut new): (Vec<usize>, Vec<(Page, Arc<PageData>)>) =
            new.map(|(index, page)| (index, (page.page(), page.data))).unzip();
        pages.write(&mut new)?;
        let mut slots = vec![u32::MAX; indices.last().map_or(0, |last| last + 1)];
        for (index, (page, data)) in indices.into_iter().zip(new) {
            let slot = self.page_slots.insert(page);
            slots[index] = slot;
            undo.new_pages.push(slot);
            self.live_pages += 1;
            self.keys += usize::from(page.pairs);
            self.sizes.add(data.first(), page.depth.into(), page.bytes.into());
        }
        for retired in &undo.retired.pages {
            let page = self.page_slots.at(retired.slot);
            self.live_pages -= 1;
            self.keys -= usize::from(page.pairs);
            self.sizes.remove(&retired.first, page.depth.into(), page.bytes.into());
        }
        Ok(slots)
    }

    /// Takes values out of memory until they keep their budget.
    fn keep_budget(&mut self) {
        let is_current = |now: ValueRef, then: ValueRef| now.slot_of() == then.slot_of();
        while let Some((slot, value)) = self.values.next_to_leave() {
            let leaf = self.leaves.at_mut(slot);
            if is_current(leaf.value, value) {
                self.values.leave(&mut leaf.value);
            }
        }
        if self.values.is_queue_stale() {
            let leaves = &self.leaves;
            self.values.clean_queue(|slot, value| is_current(leaves.at(slot).value, value));
        }
    }

    /// Frees what no retained version needs: the version before the one that `undo` belongs to is gone.
    pub(crate) fn free(&mut self, undo: Undo) {
        for (_, value) in undo.values {
            self.values.release(value);
        }
        for slot in undo.retired.inners {
            self.inners.release(slot);
        }
        for slot in undo.retired.links {
            self.links.release(slot);
        }
        for slot in undo.retired.leaves {
            self.values.release(self.leaves.at(slot).value);
            self.leaves.release(slot);
        }
        if let Some(pages) = &mut self.pages {
            for retired in undo.retired.pages {
                pages.release(*self.page_slots.at(retired.slot));
                self.page_slots.release(retired.slot);
            }
        }
    }
}
