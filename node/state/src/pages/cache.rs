//! Pages in memory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::PageData;

/// A page as it was read ahead of its use, or one whose pairs are known to be right.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The bytes of its pairs.
    Read(Arc<[u8]>),
    Known(Arc<PageData>),
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Self::Read(body) => body.len(),
            Self::Known(data) => data.memory_bytes(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    content: Content,
    /// Used since the hand of the clock passed it.
    recent: bool,
    /// Being written: it cannot be read from the device yet, and is not on the clock.
    pinned: bool,
}

impl Entry {
    /// What an entry takes beside its content, about.
    const BYTES: usize = 64;

    fn bytes(&self) -> usize {
        self.content.bytes() + Self::BYTES
    }
}

/// The pages used last, up to a budget, by their first block; a clock decides what leaves. Pages that are being written
/// stay beyond it.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<u32, Entry>,
    /// Blocks of the pages that can leave; some are gone, and some are here twice.
    clock: VecDeque<u32>,
    /// Bytes of the pages that can leave, and of those that are being written.
    bytes: usize,
    pinned_bytes: usize,
    budget: usize,
}

impl Cache {
    pub(crate) fn new(budget: usize) -> Self {
        Self { entries: HashMap::new(), clock: VecDeque::new(), bytes: 0, pinned_bytes: 0, budget }
    }

    pub(crate) fn get(&mut self, block: u32) -> Option<Content> {
        let entry = self.entries.get_mut(&block)?;
        entry.recent = true;
        Some(entry.content.clone())
    }

    pub(crate) fn has(&self, block: u32) -> bool {
        self.entries.contains_key(&block)
    }

    /// Adds a page or replaces it, and takes others out to keep the budget.
    pub(crate) fn insert(&mut self, block: u32, content: Content, pinned: bool) {
        self.remove(block);
        let entry = Entry { content, recent: false, pinned };
        if pinned {
            self.pinned_bytes += entry.bytes();
        } else {
            self.bytes += entry.bytes();
            self.clock.push_back(block);
        }
        self.entries.insert(block, entry);
        self.keep_budget();
    }

    /// A page was written and can leave now.
    pub(crate) fn unpin(&mut self, block: u32) {
        let Some(entry) = self.entries.get_mut(&block).filter(|entry| entry.pinned) else { return };
        entry.pinned = false;
        let bytes = entry.bytes();
        (self.bytes, self.pinned_bytes) = (self.bytes + bytes, self.pinned_bytes - bytes);
        self.clock.push_back(block);
        self.keep_budget();
    }

    /// A page is gone.
    pub(crate) fn remove(&mut self, block: u32) {
        let Some(entry) = self.entries.remove(&block) else { return };
        let bytes = if entry.pinned { &mut self.pinned_bytes } else { &mut self.bytes };
        *bytes -= entry.bytes();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.pinned_bytes
    }

    fn keep_budget(&mut self) {
        // Every turn takes a page out or forgets that it was used, so this ends, and costs as much as what was added.
        while self.bytes > self.budget
            && let Some(block) = self.clock.pop_front()
        {
            match self.entries.get_mut(&block).filter(|entry| !entry.pinned) {
                Some(entry) if entry.recent => {
                    entry.recent = false;
                    self.clock.push_back(block);
                }
                Some(_) => self.remove(block),
                None => {}
            }
        }
        // Pages that are gone leave their numbers behind.
        if self.clock.len() > 2 * self.entries.len() + 4096 {
            let entries = &self.entries;
            let mut seen = HashSet::with_capacity(entries.len());
            self.clock.retain(|block| entries.contains_key(block) && seen.insert(*block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(length: usize) -> Content {
        Content::Read(vec![0; length].into())
    }

    #[test]
    fn what_was_used_stays_longer_and_what_is_being_written_stays() {
        let mut cache = Cache::new(4 * (1000 + Entry::BYTES));
        cache.insert(1, page(1000), true);
        (2..=5).for_each(|block| cache.insert(block, page(1000), false));
        assert!(cache.get(2).is_some());
        cache.insert(6, page(1000), false);
        assert_eq!([1, 2, 3, 4, 5, 6].map(|block| cache.has(block)), [true, true, false, true, true, true]);
        (7..40).for_each(|block| cache.insert(block, page(1000), false));
        assert!(cache.has(1) && !cache.has(2));
        cache.unpin(1);
        (40..50).for_each(|block| cache.insert(block, page(1000), false));
        assert!(!cache.has(1));
        assert!(cache.bytes() <= 4 * (1000 + Entry::BYTES));
    }

    #[test]
    fn pages_that_come_and_go_leave_nothing_behind() {
        let mut cache = Cache::new(1 << 20);
        for round in 0..20_000 {
            cache.insert(round % 7, page(100), false);
            cache.remove(round % 7);
        }
        assert_eq!((cache.bytes(), cache.entries.len()), (0, 0));
        assert!(cache.clock.len() <= 4097);
    }
}
