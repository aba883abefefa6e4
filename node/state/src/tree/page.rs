//! Pages below the tree: what a batch makes of those that it touches.

use std::sync::Arc;

use stele_merkle::Hash;
use stele_merkle::state::{StateHash, key_bit};

use super::forest::{Subtree, subtree_roots};
use super::stage::{Batch, position};
use super::{Child, Inner, NodeRef, Place, RetiredPage, Side, Slot, Tree};
use crate::arena::SLOTS_MAX;
use crate::pages::{BLOCK_BYTES, Loaded, Page, PageAt, PageData, Pages, PairRef, Wanted};
use crate::{Key, StateError};

/// Two pages side by side become one when they fit into half of it, so that what was divided stays divided for a while.
const MERGED_BYTES_MAX: usize = BLOCK_BYTES / 2;

/// A page of an update.
#[derive(Clone, Debug)]
pub(super) struct NewPage {
    pub(super) data: Arc<PageData>,
    pub(super) depth: usize,
}

impl NewPage {
    pub(super) fn page(&self) -> Page {
        Page::of(&self.data, self.depth)
    }
}

impl Tree {
    /// The pages in which the paths of keys end, each once, for keys in order.
    fn touched<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Vec<(u32, Wanted)> {
        let mut paths: Vec<(&Key, Child)> = keys.map(|key| (key, self.root)).collect();
        let mut found = Vec::new();
        for depth in 0.. {
            paths.retain_mut(|(key, child)| {
                *child = match child.node.place() {
                    Place::Inner(slot) => *self.child(Slot::inner(Side::of_bit(key_bit(key, depth)), slot)),
                    Place::Link(only, slot) if only == Side::of_bit(key_bit(key, depth)) => {
                        *self.child(Slot::link(slot))
                    }
                    Place::Page(slot) => {
                        found.push((slot, child.hash));
                        return false;
                    }
                    _ => return false,
                };
                self.prefetch(child.node);
                true
            });
            if paths.is_empty() {
                break;
            }
        }
        found.dedup_by_key(|(slot, _)| *slot);
        let wanted = |(slot, hash)| (slot, Wanted { page: *self.page_slots.at(slot), hash });
        found.into_iter().map(wanted).collect()
    }

    /// Loads what the paths of keys end in, for keys in order.
    pub(super) fn load_touched<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Result<Loaded, StateError> {
        let Some(pages) = &self.pages else { return Ok(Loaded::new()) };
        let (slots, wanted): (Vec<u32>, Vec<Wanted>) = self.touched(keys).into_iter().unzip();
        Ok(slots.into_iter().zip(pages.load(&wanted)?).collect())
    }

    /// The values of several keys, whose pages are read together.
    pub(crate) fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        let mut sorted: Vec<&Key> = keys.iter().collect();
        sorted.sort_unstable();
        let loaded = self.load_touched(sorted.into_iter())?;
        let value = |key: &Key| {
            let (slot, _) = self.touched(std::iter::once(key)).pop()?;
            loaded[&slot].get(key).map(<[u8]>::to_vec)
        };
        Ok(keys.iter().map(value).collect())
    }

    /// Begins to read the pages that hold keys.
    pub(super) fn read_ahead(&self, keys: &[Key]) {
        if let Some(pages) = &self.pages {
            pages.read_ahead(self.touched(keys.iter()).into_iter().map(|(_, wanted)| wanted.page));
        }
    }

    /// The pages, in a map that has them.
    pub(crate) fn pages(&self) -> Option<&Pages> {
        self.pages.as_ref()
    }

    pub(crate) fn pages_mut(&mut self) -> Option<&mut Pages> {
        self.pages.as_mut()
    }

    /// Pages of the newest tree.
    pub(crate) fn live_pages(&self) -> usize {
        self.live_pages
    }

    /// A page of the tree or of a retained version.
    pub(crate) fn wanted(&self, slot: u32, hash: Hash) -> Wanted {
        Wanted { page: *self.page_slots.at(slot), hash }
    }

    /// The tree over pages in the order of their keys; `None` when they are not the pages of a tree, or two of them lie in
    /// the same blocks.
    pub(crate) fn over(hash: StateHash, pages: Pages, places: &[PageAt]) -> Option<Self> {
        let mut tree = Self::paged(hash, pages);
        tree.root = tree.rise(places, 0)?;
        Some(tree)
    }

    fn rise(&mut self, places: &[PageAt], depth: usize) -> Option<Child> {
        let (left, right) = match places {
            [] => return Some(Child::EMPTY),
            [place] if usize::from(place.wanted.page.depth) == depth => {
                let PageAt { wanted, .. } = place;
                let page = wanted.page;
                if self.page_slots.used() >= SLOTS_MAX || !self.pages.as_mut()?.claim(page) {
                    return None;
                }
                self.live_pages += 1;
                self.keys += usize::from(page.pairs);
                self.sizes.add(&place.low, depth, page.bytes.into());
                return Some(Child { node: NodeRef::page(self.page_slots.insert(page)), hash: wanted.hash });
            }
            places => {
                if !places.iter().all(|place| usize::from(place.wanted.page.depth) > depth) {
                    return None;
                }
                let middle = places.partition_point(|place| !key_bit(&place.low, depth));
                if places[middle..].iter().any(|place| !key_bit(&place.low, depth)) {
                    return None;
                }
                places.split_at(middle)
            }
        };
        let (left, right) = (self.rise(left, depth + 1)?, self.rise(right, depth + 1)?);
        let hash = self.hash.node(&left.hash, &right.hash);
        let node = match (left.is_empty(), right.is_empty()) {
            (false, false) => NodeRef::inner(self.inners.insert(Inner { left, right })),
            (false, true) => NodeRef::link(Side::Left, self.links.insert(left)),
            (true, _) => NodeRef::link(Side::Right, self.links.insert(right)),
        };
        Some(Child { node, hash })
    }

    /// The content of a page.
    pub(super) fn page(&self, slot: u32, hash: Hash) -> Result<Arc<PageData>, StateError> {
        let pages = self.pages.as_ref().expect("only a tree with pages refers to one");
        let mut found = pages.load(&[Wanted { page: *self.page_slots.at(slot), hash }])?;
        Ok(found.pop().expect("one for one"))
    }
}

impl<'a> Batch<'a> {
    /// What takes the place of a page, or of nothing, after some writes. Hashes are filled in by
    /// [`Batch::hash_grown`].
    pub(super) fn replant(&mut self, child: Child, depth: usize, first: usize, count: usize) -> Child {
        let loaded = self.loaded;
        let old = match child.node.place() {
            Place::Page(slot) => Some((slot, &*loaded[&slot])),
            _ => None,
        };
        let mut before = old.into_iter().flat_map(|(_, data)| data.pairs()).peekable();
        let mut after: Vec<PairRef<'a>> = Vec::with_capacity(before.size_hint().0 + count);
        let mut changed = false;
        let writes = self.writes;
        for (at, (key, value)) in writes[first..first + count].iter().enumerate() {
            while let Some(pair) = before.next_if(|pair| pair.key < key) {
                after.push(pair);
            }
            let same = before.next_if(|pair| pair.key == key);
            let hash = self.leaf_hashes[first - self.group_first + at];
            match (value, same) {
                (Some(value), _) => after.push(PairRef { key, value, hash }),
                (None, None) => continue,
                (None, Some(_)) => {}
            }
            changed |= value.is_none() || same.is_none_or(|pair| pair.hash != hash);
        }
        if !changed {
            return child;
        }
        after.extend(before);
        if let Some((slot, data)) = old {
            self.retire(slot, data, child.hash);
        }
        self.paginate(&after, depth)
    }

    /// The subtree over pairs in key order, in as few pages as hold them.
    fn paginate(&mut self, pairs: &[PairRef<'_>], depth: usize) -> Child {
        let bytes: usize = pairs.iter().map(PairRef::bytes).sum();
        match pairs {
            [] => Child::EMPTY,
            [_, _, ..] if bytes > BLOCK_BYTES => {
                let (lower, upper) = pairs.split_at(pairs.partition_point(|pair| !key_bit(pair.key, depth)));
                let left = self.paginate(lower, depth + 1);
                let right = self.paginate(upper, depth + 1);
                self.add(left, right, depth)
            }
            pairs => self.add_page(pairs, depth),
        }
    }

    fn add_page(&mut self, pairs: &[PairRef<'_>], depth: usize) -> Child {
        self.pages.push(Some(NewPage { data: Arc::new(PageData::new(pairs)), depth }));
        Child { node: NodeRef::staged_page(position(self.pages.len() - 1)), ..Child::EMPTY }
    }

    /// Hashes the group's new pages.
    pub(super) fn hash_pages(&mut self) {
        self.grown.page_hashes.clear();
        let new = &self.pages[self.grown.first_page..];
        if new.is_empty() {
            return;
        }
        let subtrees: Vec<Subtree<'_>> =
            new.iter().map(|page| page.as_ref().map_or(Subtree { leaves: &[], depth: 0 }, NewPage::subtree)).collect();
        self.grown.page_hashes = subtree_roots(self.tree.hash, &subtrees);
    }

    fn retire(&mut self, slot: u32, data: &PageData, hash: Hash) {
        self.retired.pages.push(RetiredPage { slot, first: *data.first(), hash });
    }

    /// Whether a child is a single leaf, which stands as high as it can.
    pub(super) fn is_lone(&self, child: Child) -> bool {
        match child.node.place() {
            Place::Leaf(_) | Place::StagedLeaf(_) => true,
            Place::Page(slot) => self.tree.page_slots.at(slot).pairs == 1,
            Place::StagedPage(index) => self.new_page(index).is_some_and(|page| page.data.leaves().len() == 1),
            Place::Empty | Place::Inner(_) | Place::Link(..) | Place::StagedNode(_) => false,
        }
    }

    fn new_page(&self, index: u32) -> Option<&NewPage> {
        self.pages[index as usize].as_ref()
    }

    /// A single leaf that moves up to a depth.
    pub(super) fn lift(&mut self, child: Child, depth: usize) -> Child {
        match child.node.place() {
            Place::StagedPage(index) => {
                if let Some(page) = &mut self.pages[index as usize] {
                    page.depth = depth;
                }
                child
            }
            // A page says how deep it stands, so one that moves is a new one.
            Place::Page(slot) => match self.take(slot, child.hash) {
                Some(data) => {
                    self.pages.push(Some(NewPage { data, depth }));
                    Child { node: NodeRef::staged_page(position(self.pages.len() - 1)), hash: child.hash }
                }
                None => Child::EMPTY,
            },
            _ => child,
        }
    }

    /// One page for two at the sides of a node at a depth, if they are small.
    pub(super) fn merge(&mut self, left: Child, right: Child, depth: usize) -> Option<Child> {
        let size = |child: Child| match child.node.place() {
            Place::Page(slot) => Some(usize::from(self.tree.page_slots.at(slot).bytes)),
            Place::StagedPage(index) => self.new_page(index).map(|page| page.data.body().len()),
            _ => None,
        };
        if size(left)? + size(right)? > MERGED_BYTES_MAX {
            return None;
        }
        let (left, right) = (self.take_child(left)?, self.take_child(right)?);
        let pairs: Vec<PairRef<'_>> = left.pairs().chain(right.pairs()).collect();
        let merged = NewPage { data: Arc::new(PageData::new(&pairs)), depth };
        let hash = subtree_roots(self.tree.hash, &[merged.subtree()])[0];
        self.pages.push(Some(merged));
        Some(Child { node: NodeRef::staged_page(position(self.pages.len() - 1)), hash })
    }

    /// The content of a page that goes.
    fn take_child(&mut self, child: Child) -> Option<Arc<PageData>> {
        match child.node.place() {
            Place::StagedPage(index) => self.pages[index as usize].take().map(|page| page.data),
            Place::Page(slot) => self.take(slot, child.hash),
            _ => None,
        }
    }

    /// The content of a page of the tree that goes; none when it cannot be read, and then the batch fails.
    fn take(&mut self, slot: u32, hash: Hash) -> Option<Arc<PageData>> {
        let data = match self.loaded.get(&slot) {
            Some(data) => Ok(Arc::clone(data)),
            None => self.tree.page(slot, hash),
        };
        match data {
            Ok(data) => {
                self.retire(slot, &data, hash);
                Some(data)
            }
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }
}

impl NewPage {
    fn subtree(&self) -> Subtree<'_> {
        Subtree { leaves: self.data.leaves(), depth: self.depth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_those_of_no_tree_are_refused() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let hash = StateHash::Sha256;
        let over = |places: &[(u8, u16, u32)]| {
            let places: Vec<PageAt> = places
                .iter()
                .map(|(first, depth, block)| {
                    let mut low = [0; 32];
                    low[0] = *first;
                    let page = Page { block: *block, bytes: 100, depth: *depth, pairs: 2 };
                    PageAt { wanted: Wanted { page, hash: [*first; 32] }, low }
                })
                .collect();
            let [new, path] = ["pages.new", "pages.data"].map(|name| directory.path().join(name));
            let pages = Pages::create(&new, &path, hash, 0).expect("a device");
            Tree::over(hash, pages, &places)
        };
        let tree = over(&[(0, 1, 1), (0x80, 2, 2), (0xc0, 2, 3)]).expect("a tree");
        assert_eq!((tree.live_pages(), tree.keys()), (3, 6));
        let upper = hash.node(&[0x80; 32], &[0xc0; 32]);
        assert_eq!(tree.root().hash, hash.node(&[0; 32], &upper));
        assert!(over(&[]).is_some_and(|tree| tree.root() == Child::EMPTY));
        for (what, places) in [
            ("one place twice", &[(0, 256, 1), (0, 256, 2)][..]),
            ("a place within another", &[(0, 1, 1), (0, 2, 2)]),
            ("a place above another", &[(0, 2, 1), (0, 1, 2)]),
            ("out of order", &[(0x80, 1, 1), (0, 1, 2)]),
            ("the same block", &[(0, 1, 1), (0x80, 1, 1)]),
            ("the header's block", &[(0, 1, 0), (0x80, 1, 1)]),
            ("a block beyond the end", &[(0, 1, u32::MAX), (0x80, 1, 1)]),
        ] {
            assert!(over(places).is_none(), "{what}");
        }
    }
}
