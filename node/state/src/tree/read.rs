//! Looking up and proving in the newest tree and in older versions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use stele_merkle::Hash;
use stele_merkle::state::{EMPTY, Key, MultiProof, MultiProofWriter, Proof, Terminal, key_bit};

use super::forest::{Subtree, subtree_roots};
use super::{Child, Leaf, Place, Side, Slot, Tree, Undo};
use crate::StateError;
use crate::pages::{Loaded, PageData, Wanted};

/// One version of the tree.
pub(crate) struct View<'a> {
    tree: &'a Tree,
    root: Child,
    /// What leads back to the version from the ones after it, the one right after it first.
    later: Vec<&'a Undo>,
    /// Pages that were read for what comes.
    loaded: Loaded,
}

/// The value of a key, if it has one.
type Value<'a> = Option<Cow<'a, [u8]>>;

/// The leaf at the end of a path, and its value.
type End<'a> = Option<(&'a Leaf, Cow<'a, [u8]>)>;

impl Tree {
    /// The newest version.
    pub(crate) fn newest(&self) -> View<'_> {
        self.version(self.root, Vec::new())
    }

    /// An older version: its root, and what leads back to it, the undo of the version right after it first.
    pub(crate) fn version<'a>(&'a self, root: Child, later: Vec<&'a Undo>) -> View<'a> {
        View { tree: self, root, later, loaded: Loaded::new() }
    }

    /// Begins to read the pages that hold keys; without pages, brings their paths into the processor's caches, all of them one level at a time: their loads do not depend
    /// on each other, so the processor overlaps them, which a descent key by key cannot.
    pub(crate) fn warm(&self, keys: &[Key]) {
        if self.pages.is_some() {
            return self.read_ahead(keys);
        }
        let mut paths: Vec<(&Key, Child)> = keys.iter().map(|key| (key, self.root)).collect();
        for depth in 0.. {
            paths.retain_mut(|(key, child)| {
                *child = match child.node.place() {
                    Place::Inner(slot) => *self.child(Slot::inner(Side::of_bit(key_bit(key, depth)), slot)),
                    Place::Link(_, slot) => *self.child(Slot::link(slot)),
                    _ => return false,
                };
                self.prefetch(child.node);
                true
            });
            if paths.is_empty() {
                break;
            }
        }
    }
}

impl<'a> View<'a> {
    pub(crate) fn root(&self) -> Hash {
        self.root.hash
    }

    fn child(&self, slot: Slot) -> &'a Child {
        self.later.iter().find_map(|undo| undo.child(slot)).unwrap_or_else(|| self.tree.child(slot))
    }

    /// Reads the pages in which the paths of keys end, all together; what comes after finds them.
    pub(crate) fn load(&mut self, keys: &[Key]) -> Result<(), StateError> {
        let Some(pages) = self.tree.pages() else { return Ok(()) };
        let ends = keys.iter().filter_map(|key| {
            let child = self.path(key).1;
            let Place::Page(slot) = child.node.place() else { return None };
            Some((slot, self.tree.wanted(slot, child.hash)))
        });
        let (slots, wanted): (Vec<u32>, Vec<Wanted>) = ends.collect::<BTreeMap<_, _>>().into_iter().unzip();
        self.loaded = slots.into_iter().zip(pages.load(&wanted)?).collect();
        Ok(())
    }

    fn page(&self, slot: u32, hash: Hash) -> Result<Arc<PageData>, StateError> {
        self.loaded.get(&slot).map_or_else(|| self.tree.page(slot, hash), |page| Ok(Arc::clone(page)))
    }

    /// The children of a node that is one.
    fn children(&self, child: &Child) -> Option<(Child, Child)> {
        match child.node.place() {
            Place::Inner(slot) => {
                Some((*self.child(Slot::inner(Side::Left, slot)), *self.child(Slot::inner(Side::Right, slot))))
            }
            Place::Link(Side::Left, slot) => Some((*self.child(Slot::link(slot)), Child::EMPTY)),
            Place::Link(Side::Right, slot) => Some((Child::EMPTY, *self.child(Slot::link(slot)))),
            _ => None,
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StateError::Io`] and [`StateError::Corrupt`] for a value that is read from a file.
    pub(crate) fn get(&self, key: &Key) -> Result<Value<'a>, StateError> {
        let (mut child, mut depth) = (self.root, 0);
        loop {
            let side = Side::of_bit(key_bit_or_end(key, depth));
            child = match child.node.place() {
                Place::Inner(slot) => *self.child(Slot::inner(side, slot)),
                Place::Link(only, slot) if only == side => *self.child(Slot::link(slot)),
                Place::Leaf(slot) if self.tree.leaves.at(slot).key == *key => {
                    return Ok(self.end(&child)?.map(|(_, value)| value));
                }
                Place::Page(slot) => {
                    let page = self.page(slot, child.hash)?;
                    return Ok(page.get(key).map(|value| Cow::Owned(value.to_owned())));
                }
                _ => return Ok(None),
            };
            depth += 1;
        }
    }

    /// The value of a key and the proof of its presence or absence.
    ///
    /// # Errors
    /// As [`View::get`].
    pub(crate) fn prove(&self, key: &Key) -> Result<(Value<'a>, Proof), StateError> {
        let (siblings, end) = self.path(key);
        if let Place::Page(slot) = end.node.place() {
            return self.prove_in_page(&*self.page(slot, end.hash)?, key, siblings);
        }
        let (value, terminal) = match self.end(&end)? {
            None => (None, Terminal::Empty),
            Some((leaf, value)) if leaf.key == *key => (Some(value), Terminal::Own),
            Some((leaf, value)) => (None, Terminal::Other { key: leaf.key, value_hash: self.tree.hash.value(&value) }),
        };
        Ok((value, Proof::new(terminal, siblings).expect("a path through the tree is canonical")))
    }

    /// The proof of the values or absences of keys in strictly ascending order, one at least.
    ///
    /// # Errors
    /// As [`View::get`].
    pub(crate) fn prove_many(&self, keys: &[Key]) -> Result<MultiProof, StateError> {
        let mut writer = MultiProofWriter::default();
        self.write_paths(&mut writer, self.root, keys, 0)?;
        Ok(writer.finish().expect("a walk through the tree is canonical"))
    }

    fn write_paths(
        &self,
        writer: &mut MultiProofWriter,
        child: Child,
        keys: &[Key],
        depth: usize,
    ) -> Result<(), StateError> {
        let Some((left, right)) = self.children(&child) else {
            match child.node.place() {
                Place::Page(slot) => {
                    let page = self.page(slot, child.hash)?;
                    self.write_page_paths(writer, &page, 0..page.leaves().len(), keys, depth);
                }
                Place::Leaf(slot) if keys.binary_search(&self.tree.leaves.at(slot).key).is_ok() => writer.own(),
                _ => match self.end(&child)? {
                    None => writer.nothing(),
                    Some((leaf, value)) => writer.other(&leaf.key, &self.tree.hash.value(&value)),
                },
            }
            return Ok(());
        };
        let (left_keys, right_keys) = keys.split_at(keys.partition_point(|key| !key_bit(key, depth)));
        if left_keys.is_empty() {
            writer.beside(&left.hash);
            self.write_paths(writer, right, right_keys, depth + 1)
        } else if right_keys.is_empty() {
            writer.beside(&right.hash);
            self.write_paths(writer, left, left_keys, depth + 1)
        } else {
            writer.fork();
            self.write_paths(writer, left, left_keys, depth + 1)?;
            self.write_paths(writer, right, right_keys, depth + 1)
        }
    }

    /// Goes on with a proof where its path enters a page.
    fn prove_in_page(
        &self,
        page: &PageData,
        key: &Key,
        mut siblings: Vec<Option<Hash>>,
    ) -> Result<(Value<'a>, Proof), StateError> {
        let (mut pairs, mut beside) = (0..page.leaves().len(), Vec::new());
        while pairs.len() > 1 {
            let depth = siblings.len() + beside.len();
            let (own, sibling) = sides(page, pairs, depth, key_bit(key, depth));
            beside.push(Subtree { leaves: &page.leaves()[sibling], depth: depth + 1 });
            pairs = own;
        }
        let hashes = subtree_roots(self.tree.hash, &beside);
        siblings.extend(hashes.into_iter().map(|hash| (hash != EMPTY).then_some(hash)));
        let (value, terminal) = match pairs.map(|at| page.pair(at)).next() {
            None => (None, Terminal::Empty),
            Some(pair) if pair.key == key => (Some(Cow::Owned(pair.value.to_owned())), Terminal::Own),
            Some(pair) => (None, Terminal::Other { key: *pair.key, value_hash: self.tree.hash.value(pair.value) }),
        };
        Ok((value, Proof::new(terminal, siblings).expect("a path through a page is canonical")))
    }

    /// Goes on with a multi-proof inside a page.
    fn write_page_paths(
        &self,
        writer: &mut MultiProofWriter,
        page: &PageData,
        pairs: Range<usize>,
        keys: &[Key],
        depth: usize,
    ) {
        if pairs.len() < 2 {
            return match pairs.map(|at| page.pair(at)).next() {
                None => writer.nothing(),
                Some(pair) if keys.binary_search(pair.key).is_ok() => writer.own(),
                Some(pair) => writer.other(pair.key, &self.tree.hash.value(pair.value)),
            };
        }
        let (right, left) = sides(page, pairs, depth, true);
        let (left_keys, right_keys) = keys.split_at(keys.partition_point(|key| !key_bit(key, depth)));
        let beside =
            |pairs| subtree_roots(self.tree.hash, &[Subtree { leaves: &page.leaves()[pairs], depth: depth + 1 }]);
        if left_keys.is_empty() {
            writer.beside(&beside(left)[0]);
            self.write_page_paths(writer, page, right, right_keys, depth + 1);
        } else if right_keys.is_empty() {
            writer.beside(&beside(right)[0]);
            self.write_page_paths(writer, page, left, left_keys, depth + 1);
        } else {
            writer.fork();
            self.write_page_paths(writer, page, left, left_keys, depth + 1);
            self.write_page_paths(writer, page, right, right_keys, depth + 1);
        }
    }

    /// The siblings along a key's bits down to where nodes end, and what stands there.
    fn path(&self, key: &Key) -> (Vec<Option<Hash>>, Child) {
        let (mut siblings, mut child) = (Vec::new(), self.root);
        while let Some((left, right)) = self.children(&child) {
            let (own, sibling) = if key_bit(key, siblings.len()) { (right, left) } else { (left, right) };
            siblings.push((sibling.hash != EMPTY).then_some(sibling.hash));
            child = own;
        }
        (siblings, child)
    }

    /// The leaf at the end of a path, if there is one.
    fn end(&self, child: &Child) -> Result<End<'a>, StateError> {
        let Place::Leaf(slot) = child.node.place() else { return Ok(None) };
        let leaf = self.tree.leaves.at(slot);
        let value = self.later.iter().find_map(|undo| undo.value(slot)).unwrap_or(leaf.value);
        Ok(Some((leaf, self.tree.value(leaf, value, &child.hash)?)))
    }
}

/// The pairs of a page below a node at a depth on the side of a bit, and those on the other side.
fn sides(page: &PageData, pairs: Range<usize>, depth: usize, bit: bool) -> (Range<usize>, Range<usize>) {
    let leaves = &page.leaves()[pairs.clone()];
    let middle = pairs.start + leaves.partition_point(|(key, _)| !key_bit(key, depth));
    let (left, right) = (pairs.start..middle, middle..pairs.end);
    if bit { (right, left) } else { (left, right) }
}

/// A key's bit, or anything below its last: no node lies there.
fn key_bit_or_end(key: &Key, depth: usize) -> bool {
    depth < 256 && key_bit(key, depth)
}
