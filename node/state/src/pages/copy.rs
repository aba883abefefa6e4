//! The pages of one version of the tree, taken in key order between the commits that go on.

use std::collections::{BTreeMap, HashSet};

use stele_merkle::state::Key;

use super::{Run, Wanted};
use crate::tree::{Standing, Tree, Undo};

/// A page of the version, and the lowest key that its place can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageAt {
    pub(crate) wanted: Wanted,
    pub(crate) low: Key,
}

impl PageAt {
    pub(crate) fn run(&self) -> Run {
        self.wanted.page.run()
    }

    /// The lowest key above those that its place can hold; `None` for the last place.
    pub(crate) fn end(&self) -> Option<Key> {
        let mut end = self.low;
        let depth = usize::from(self.wanted.page.depth);
        for bit in (0..depth).rev() {
            let (byte, mask) = (bit / 8, 0x80_u8 >> (bit % 8));
            end[byte] ^= mask;
            if end[byte] & mask != 0 {
                return Some(end);
            }
        }
        None
    }
}

/// Where a copy is, and what commits changed before it.
///
/// Pages are not changed but replaced. Those of the version are therefore the newest tree's, without those that came
/// since, and those that went since. Whoever copies keeps the version retained, so that no slot is used twice meanwhile.
#[derive(Debug)]
pub(crate) struct PageCopy {
    /// All pages below this key were taken; `None` once the last was.
    next: Option<Key>,
    /// Pages of the version that went, by their lowest key; only those not taken yet.
    gone: BTreeMap<Key, Wanted>,
    /// Slots of the pages that came.
    new: HashSet<u32>,
}

impl PageCopy {
    /// Begins with the newest tree.
    pub(crate) fn new() -> Self {
        Self { next: Some([0; 32]), gone: BTreeMap::new(), new: HashSet::new() }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.next.is_none()
    }

    /// Takes note of what a commit changed. It has been applied to `tree`.
    pub(crate) fn record(&mut self, tree: &Tree, undo: &Undo) {
        let Some(next) = self.next else { return };
        for retired in undo.retired_pages() {
            if !self.new.remove(&retired.slot) && retired.first >= next {
                self.gone.insert(retired.first, tree.wanted(retired.slot, retired.hash));
            }
        }
        self.new.extend(undo.new_pages());
    }

    /// The next pages, up to so many, of places that begin below a key if one is given.
    pub(crate) fn take(&mut self, tree: &Tree, pages_max: usize, until: Option<&Key>) -> Vec<PageAt> {
        let mut taken = Vec::new();
        let Some(next) = self.next else { return taken };
        let new = &self.new;
        let standing = tree.walk(&next).filter_map(|standing| match standing {
            Standing::Page(slot, wanted, low) => (!new.contains(&slot)).then_some(PageAt { wanted, low }),
            Standing::Leaf(..) => None,
        });
        let mut standing = standing.peekable();
        while taken.len() < pages_max {
            let gone =
                self.gone.first_key_value().map(|(first, wanted)| PageAt { wanted: *wanted, low: low(first, wanted) });
            let gone_first = gone.is_some_and(|gone| standing.peek().is_none_or(|page| gone.low < page.low));
            let page = if gone_first { gone } else { standing.peek().copied() };
            let Some(page) = page else {
                self.next = None;
                break;
            };
            if until.is_some_and(|until| page.low >= *until) {
                self.next = Some(page.low);
                break;
            }
            if gone_first {
                self.gone.pop_first();
            } else {
                standing.next();
            }
            taken.push(page);
            self.next = page.end();
            if self.next.is_none() {
                break;
            }
        }
        taken
    }
}

/// The lowest key that the place of a page can hold that holds this key.
fn low(key: &Key, wanted: &Wanted) -> Key {
    let depth = usize::from(wanted.page.depth);
    let mut low = [0; 32];
    low[..depth / 8].copy_from_slice(&key[..depth / 8]);
    if !depth.is_multiple_of(8) {
        low[depth / 8] = key[depth / 8] & !(0xff >> (depth % 8));
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::Page;

    fn at(low: Key, depth: u16) -> PageAt {
        PageAt { wanted: Wanted { page: Page { depth, ..Page::default() }, hash: [0; 32] }, low }
    }

    #[test]
    fn a_place_ends_where_the_next_begins() {
        let mut key = [0; 32];
        assert_eq!(at(key, 0).end(), None);
        assert_eq!(at(key, 1).end().map(|end| end[0]), Some(0x80));
        key[0] = 0x80;
        assert_eq!(at(key, 1).end(), None);
        key[0] = 0x3f;
        key[1] = 0xe0;
        assert_eq!(at(key, 11).end().map(|end| (end[0], end[1])), Some((0x40, 0)));
        assert_eq!(low(&[0xff; 32], &at(key, 11).wanted)[..3], [0xff, 0xe0, 0]);
        assert_eq!(low(&[0xff; 32], &at(key, 16).wanted)[..3], [0xff, 0xff, 0]);
        assert_eq!(at([0xff; 32], 256).end(), None);
    }
}
