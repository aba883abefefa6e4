//! Walking the newest tree in key order.

use stele_merkle::Hash;
use stele_merkle::state::{Key, key_bit};

use super::{Child, Leaf, Place, Side, Tree};
use crate::pages::Wanted;

/// What stands at the end of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing<'a> {
    Leaf(&'a Leaf, Hash),
    /// A page, its slot, and the lowest key that its place can hold.
    Page(u32, Wanted, Key),
}

/// A walk over leaves and pages, from a key on.
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    /// What is still to be visited, with the bits that lead there and their number.
    pending: Vec<(Child, Key, usize)>,
}

impl Tree {
    /// The leaves whose keys are at or above `from` in key order, or the pages that may hold such keys.
    pub(crate) fn walk(&self, from: &Key) -> Walk<'_> {
        let (mut pending, mut child, mut path) = (Vec::new(), self.root, [0; 32]);
        for depth in 0.. {
            match child.node.place() {
                Place::Inner(slot) => {
                    let inner = self.inners.at(slot);
                    if key_bit(from, depth) {
                        child = inner.right;
                        set_bit(&mut path, depth);
                    } else {
                        pending.push((inner.right, with_bit(path, depth), depth + 1));
                        child = inner.left;
                    }
                }
                Place::Link(side, slot) => match (side, key_bit(from, depth)) {
                    (Side::Left, false) => child = *self.links.at(slot),
                    (Side::Right, true) => {
                        child = *self.links.at(slot);
                        set_bit(&mut path, depth);
                    }
                    (Side::Right, false) => {
                        pending.push((*self.links.at(slot), with_bit(path, depth), depth + 1));
                        break;
                    }
                    (Side::Left, true) => break,
                },
                Place::Leaf(slot) => {
                    if self.leaves.at(slot).key >= *from {
                        pending.push((child, path, depth));
                    }
                    break;
                }
                Place::Page(_) => {
                    pending.push((child, path, depth));
                    break;
                }
                Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) | Place::StagedPage(_) => break,
            }
        }
        Walk { tree: self, pending }
    }
}

impl<'a> Walk<'a> {
    /// The slot of the next leaf, and its hash, in a tree without pages.
    pub(super) fn next_slot(&mut self) -> Option<(u32, Hash)> {
        loop {
            let (child, ..) = self.next_end()?;
            if let Place::Leaf(slot) = child.node.place() {
                return Some((slot, child.hash));
            }
        }
    }

    /// The next place that holds a leaf or a page, with the lowest key that it can hold.
    fn next_end(&mut self) -> Option<(Child, Key)> {
        loop {
            let (child, path, depth) = self.pending.pop()?;
            match child.node.place() {
                Place::Inner(slot) => {
                    let inner = self.tree.inners.at(slot);
                    self.tree.prefetch(inner.right.node);
                    self.pending.push((inner.right, with_bit(path, depth), depth + 1));
                    self.pending.push((inner.left, path, depth + 1));
                }
                Place::Link(Side::Left, slot) => self.pending.push((*self.tree.links.at(slot), path, depth + 1)),
                Place::Link(Side::Right, slot) => {
                    self.pending.push((*self.tree.links.at(slot), with_bit(path, depth), depth + 1));
                }
                Place::Leaf(_) | Place::Page(_) => return Some((child, path)),
                Place::Empty | Place::StagedLeaf(_) | Place::StagedNode(_) | Place::StagedPage(_) => {}
            }
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Standing<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (child, path) = self.next_end()?;
        Some(match child.node.place() {
            Place::Leaf(slot) => Standing::Leaf(self.tree.leaves.at(slot), child.hash),
            Place::Page(slot) => {
                let wanted = Wanted { page: *self.tree.page_slots.at(slot), hash: child.hash };
                Standing::Page(slot, wanted, path)
            }
            _ => unreachable!("an end is a leaf or a page"),
        })
    }
}

fn set_bit(path: &mut Key, depth: usize) {
    path[depth / 8] |= 0x80 >> (depth % 8);
}

fn with_bit(mut path: Key, depth: usize) -> Key {
    set_bit(&mut path, depth);
    path
}
