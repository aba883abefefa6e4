//! Pages: the lower levels of a tree that is larger than the memory.
//!
//! ```text
//!            in memory                                on the device, blocks of 4 KiB
//!  root ─ inner nodes ─ page {block, pairs, ...} ───► key, length, value; key, length, value; ...
//!                            ╰ its hash, in the node above
//! ```
//!
//! A page holds all pairs below one place of the tree, in key order as in a log record, filled up with zeros: as many as
//! 4 KiB hold, or one longer pair. What it must hold is known by its hash, which stands in the node above it as that of
//! any other subtree, so whatever is read is right or an error. Where pages begin changes no root.
//!
//! Pages are never changed. A batch makes new ones of those that it touches and writes them elsewhere, with as few and as
//! long writes as the free space allows; the old ones stay where they are for the older versions of the tree and for the
//! checkpoints ([`Space`]). Nobody waits for these writes: the write-set log has the batch. A *table* is a checkpoint:
//! where the pages of one height lie.
//!
//! | bytes | the first block, integers big-endian |
//! |---|---|
//! | 8, 2, 1 | `STELEPGS`, format version 1, hash function |
//! | 16 | random: tables name it, so that none is taken for another device's |
//! | 4 | CRC-32C of the above |

mod cache;
mod copy;
mod data;
#[cfg(test)]
pub(crate) mod faulty;
mod space;
mod store;
mod table;

pub(crate) use copy::{PageAt, PageCopy};
pub(crate) use data::{PageData, PairRef};
pub(crate) use space::Run;
pub(crate) use store::{DeviceId, Store};
pub(crate) use table::{Table, TableHeader, TableJob, table_name};

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stele_merkle::state::StateHash;

use self::cache::{Cache, Content};
use self::space::Space;
use crate::tree::{Subtree, subtree_roots};
use crate::{Hash, StateError, VALUE_BYTES_MAX};

/// Bytes of a block, and of the pairs that a page holds unless it is one long pair.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Pages that are read and checked together: enough to keep a drive busy and the wide kernels full.
const LOAD_PAGES: usize = 256;

/// A device grows by at least so many blocks, 4 MiB, and by a quarter.
const GROW_BLOCKS: u32 = 1 << 10;

/// A page of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its first block.
    pub(crate) block: u32,
    /// Bytes of its pairs.
    pub(crate) bytes: u16,
    /// Bits that its keys share by its place in the tree.
    pub(crate) depth: u16,
    pub(crate) pairs: u8,
}

impl Page {
    #[expect(clippy::cast_possible_truncation, reason = "4,096")]
    const BLOCK_BYTES: u16 = BLOCK_BYTES as u16;

    /// The page of some data, without a block.
    pub(crate) fn of(data: &PageData, depth: usize) -> Self {
        let bytes = u16::try_from(data.body().len()).expect("a page is shorter than 64 KiB");
        let pairs = u8::try_from(data.leaves().len()).expect("a pair has more than 32 bytes");
        Self { block: 0, bytes, depth: u16::try_from(depth).expect("a key has 256 bits"), pairs }
    }

    /// Whether a page can be like that: what a table says is not believed.
    pub(crate) fn is_possible(self) -> bool {
        let least = usize::from(self.pairs) * PairRef::HEAD_BYTES;
        let most = if self.pairs == 1 { PairRef::HEAD_BYTES + VALUE_BYTES_MAX } else { BLOCK_BYTES };
        self.pairs > 0
            && (self.depth < 256 || self.pairs == 1 && self.depth == 256)
            && (least..=most).contains(&self.bytes.into())
    }

    /// The blocks that it takes.
    pub(crate) fn run(self) -> Run {
        Run { block: self.block, blocks: u32::from(self.bytes.div_ceil(Self::BLOCK_BYTES)) }
    }
}

/// A page that is asked for, and the hash that it must have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) page: Page,
    pub(crate) hash: Hash,
}

/// The pages of a map: the device, what is free on it, and what is in memory.
#[derive(Debug)]
pub(crate) struct Pages {
    hash: StateHash,
    store: Arc<Store>,
    space: Space,
    cache: Arc<Mutex<Cache>>,
    /// Blocks of the pages whose writes nobody has waited for yet.
    unsettled: Vec<u32>,
    read: AtomicU64,
    written: u64,
}

impl Pages {
    /// An empty device in a new file, which the caller renames to `path`; whatever was there is gone.
    pub(crate) fn create(new: &Path, path: &Path, hash: StateHash, cache_bytes: usize) -> Result<Self, StateError> {
        let store = Store::create(new, path, hash, GROW_BLOCKS)?;
        let space = Space::new(GROW_BLOCKS);
        Ok(Self::new(store, space, hash, cache_bytes))
    }

    /// The device at a path, all blocks of it free until [`Pages::claim`].
    pub(crate) fn open(path: &Path, hash: StateHash, cache_bytes: usize) -> Result<Self, StateError> {
        let store = Store::open(path, hash)?;
        let space = Space::new(store.blocks());
        Ok(Self::new(store, space, hash, cache_bytes))
    }

    fn new(store: Store, space: Space, hash: StateHash, cache_bytes: usize) -> Self {
        let cache = Arc::new(Mutex::new(Cache::new(cache_bytes)));
        let store = Arc::new(store);
        Self { hash, store, space, cache, unsettled: Vec::new(), read: AtomicU64::new(0), written: 0 }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.store.id()
    }

    /// The device, to read from it elsewhere.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Pages read from the device, and written to it.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written)
    }

    /// Bytes of the device, and of it those that cannot be written.
    pub(crate) fn device_bytes(&self) -> (u64, u64) {
        let bytes = |blocks: u32| u64::from(blocks) * BLOCK_BYTES as u64;
        (bytes(self.space.blocks()), bytes(self.space.taken()))
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.cache().bytes() + self.space.blocks() as usize / 2 + Store::BUFFER_BYTES
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents of pages, each checked against its hash.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] names the first that is not what it must be, [`StateError::Device`].
    pub(crate) fn load(&self, wanted: &[Wanted]) -> Result<Vec<Arc<PageData>>, StateError> {
        let mut found: Vec<Option<Arc<PageData>>> = vec![None; wanted.len()];
        let (mut missing, mut ahead) = (Vec::new(), Vec::new());
        {
            let mut cache = self.cache();
            for (at, wanted) in wanted.iter().enumerate() {
                match cache.get(wanted.page.block) {
                    Some(Content::Known(data)) => found[at] = Some(data),
                    Some(Content::Read(body)) => ahead.push((at, body.to_vec())),
                    None => missing.push(at),
                }
            }
        }
        while !ahead.is_empty() {
            let rest = ahead.split_off(LOAD_PAGES.min(ahead.len()));
            // What was read ahead may have been another page's by then; what is on the device decides.
            missing.extend(self.check(wanted, std::mem::replace(&mut ahead, rest), &mut found));
        }
        missing.sort_unstable_by_key(|at| wanted[*at].page.block);
        let pages: Vec<Page> = missing.iter().map(|at| wanted[*at].page).collect();
        let mut places = missing.into_iter();
        self.store.read(&pages, |bodies| {
            self.read.fetch_add(bodies.len() as u64, Ordering::Relaxed);
            let bad = self.check(wanted, places.by_ref().take(bodies.len()).zip(bodies).collect(), &mut found);
            bad.first().map_or(Ok(()), |at| Err(self.store.corrupt(wanted[*at].page)))
        })?;
        Ok(found.into_iter().map(|data| data.expect("every page was found, or is an error")).collect())
    }

    /// Keeps those that are what they must be, and returns the others.
    fn check(
        &self,
        wanted: &[Wanted],
        bodies: Vec<(usize, Vec<u8>)>,
        found: &mut [Option<Arc<PageData>>],
    ) -> Vec<usize> {
        let (places, bodies): (Vec<usize>, Vec<Vec<u8>>) = bodies.into_iter().unzip();
        let pages = places.iter().map(|at| wanted[*at]).zip(bodies).collect();
        let checked = check_pages(self.hash, pages);
        let mut bad = Vec::new();
        let mut cache = self.cache();
        for (at, data) in places.into_iter().zip(checked) {
            match data.map(Arc::new) {
                Ok(data) => {
                    cache.insert(wanted[at].page.block, Content::Known(Arc::clone(&data)), false);
                    found[at] = Some(data);
                }
                Err(_) => bad.push(at),
            }
        }
        bad
    }

    /// Begins to read pages that are not in memory, as many as buffers are free for.
    pub(crate) fn read_ahead(&self, pages: impl Iterator<Item = Page>) {
        for page in pages {
            if self.cache().has(page.block) {
                continue;
            }
            let cache = Arc::clone(&self.cache);
            let keep = move |body: &[u8]| {
                let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
                if !cache.has(page.block) {
                    cache.insert(page.block, Content::Read(body.into()), false);
                }
            };
            if !self.store.read_ahead(page, keep) {
                return;
            }
            self.read.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes sure of room for pages before anything depends on them.
    ///
    /// # Errors
    /// [`StateError::Device`] when the device cannot grow, and nothing has changed; or when a write before failed.
    pub(crate) fn reserve(&mut self, pages: &[Page]) -> Result<(), StateError> {
        self.settle()?;
        let wanted: u64 = pages.iter().map(|page| u64::from(page.run().blocks)).sum();
        // Two free blocks need not lie side by side.
        let pairs = pages.iter().any(|page| page.run().blocks > 1);
        let (blocks, taken) = (u64::from(self.space.blocks()), u64::from(self.space.taken()));
        // Free space in long runs makes long writes: a quarter is kept free.
        if (taken + wanted) * 4 <= blocks * 3 {
            return Ok(());
        }
        let grown = ((taken + wanted) * 4 / 3 + u64::from(GROW_BLOCKS)).max(blocks * 5 / 4);
        let grown = u32::try_from(grown).unwrap_or(u32::MAX).max(self.space.blocks());
        match self.store.grow(grown) {
            Ok(()) => {
                self.space.grow(grown);
                Ok(())
            }
            // Short of room, but not out of it.
            Err(_) if taken + wanted <= blocks && !pairs => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins to write new pages, for which room was reserved, and gives each its block.
    ///
    /// # Errors
    /// [`StateError::Device`] when a write before failed.
    pub(crate) fn write(&mut self, pages: &mut [(Page, Arc<PageData>)]) -> Result<(), StateError> {
        self.settle()?;
        let mut rest = &mut pages[..];
        while let Some((first, _)) = rest.first() {
            let least = first.run().blocks;
            let most: u32 = rest.iter().map(|(page, _)| page.run().blocks).sum();
            let most = most.min(Store::WRITE_BLOCKS_MAX);
            let Some(run) = self.space.allocate(least, most) else {
                // Only pages of two blocks can find a device full that has room.
                let blocks = self.space.blocks() + GROW_BLOCKS;
                self.store.grow(blocks)?;
                self.space.grow(blocks);
                continue;
            };
            let mut end = run.block;
            let mut count = 0;
            for (page, _) in &mut *rest {
                let blocks = page.run().blocks;
                if end + blocks > run.block + run.blocks {
                    break;
                }
                page.block = end;
                end += blocks;
                count += 1;
            }
            if end < run.block + run.blocks {
                self.space.release(Run { block: end, blocks: run.block + run.blocks - end });
            }
            let (written, later) = rest.split_at_mut(count);
            self.store.write(run.block, written.iter().map(|(page, data)| (*page, data.body())));
            self.written += count as u64;
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            for (page, data) in &*written {
                cache.insert(page.block, Content::Known(Arc::clone(data)), true);
                self.unsettled.push(page.block);
            }
            rest = later;
        }
        Ok(())
    }

    /// Waits until everything written can be read from the device.
    ///
    /// # Errors
    /// [`StateError::Device`] when a write failed; every later call fails, too.
    pub(crate) fn settle(&mut self) -> Result<(), StateError> {
        self.store.settle()?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.unsettled.drain(..).for_each(|block| cache.unpin(block));
        Ok(())
    }

    /// Blocks of a page that the newest tree of a table has; false when they cannot be its.
    #[must_use]
    pub(crate) fn claim(&mut self, page: Page) -> bool {
        self.space.claim(page.run())
    }

    /// A page that neither the tree nor a retained version has any more.
    pub(crate) fn release(&mut self, page: Page) {
        self.space.release(page.run());
        self.cache().remove(page.block);
    }

    /// See [`Store::break_by`].
    #[cfg(test)]
    pub(crate) fn break_by(&mut self, faults: &Arc<faulty::Faults>) {
        Arc::get_mut(&mut self.store).expect("nobody else reads").break_by(faults);
    }

    pub(crate) fn space_mut(&mut self) -> &mut Space {
        &mut self.space
    }
}

/// Pages as they were read: each whole and with the hash that it must have, or which is not.
pub(crate) fn check_pages(hash: StateHash, pages: Vec<(Wanted, Vec<u8>)>) -> Vec<Result<PageData, Page>> {
    let (wanted, bodies): (Vec<Wanted>, Vec<Vec<u8>>) = pages.into_iter().unzip();
    let bodies = bodies.into_iter().zip(&wanted).map(|(body, wanted)| (body, wanted.page.pairs.into())).collect();
    let data: Vec<Option<PageData>> = PageData::decode(hash, bodies)
        .into_iter()
        .zip(&wanted)
        .map(|(data, wanted)| data.filter(|data| data.shared_bits() >= wanted.page.depth.into()))
        .collect();
    let leaves = data.iter().map(|data| data.as_ref().map_or(&[][..], PageData::leaves));
    let depths = wanted.iter().map(|wanted| usize::from(wanted.page.depth));
    let subtrees: Vec<Subtree<'_>> = leaves.zip(depths).map(|(leaves, depth)| Subtree { leaves, depth }).collect();
    let roots = subtree_roots(hash, &subtrees);
    let checked = data.into_iter().zip(wanted).zip(roots);
    checked.map(|((data, wanted), root)| data.filter(|_| root == wanted.hash).ok_or(wanted.page)).collect()
}

/// Where a block begins on the device, in bytes.
pub(crate) fn offset(block: u32) -> u64 {
    u64::from(block) * BLOCK_BYTES as u64
}

/// The pages that a batch touches, by slot.
pub(crate) type Loaded = HashMap<u32, Arc<PageData>>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::push_pair;

    const HASH: StateHash = StateHash::Sha256;

    fn page(depth: u16, keys: &[[u8; 32]]) -> (Wanted, Vec<u8>) {
        let mut body = Vec::new();
        keys.iter().for_each(|key| push_pair(&mut body, key, Some(b"value")));
        let bytes = u16::try_from(body.len()).expect("few keys");
        let page = Page { block: 1, bytes, depth, pairs: u8::try_from(keys.len()).expect("few keys") };
        (Wanted { page, hash: [0; 32] }, body)
    }

    fn check(wanted: Wanted, body: Vec<u8>) -> Result<PageData, Page> {
        check_pages(HASH, vec![(wanted, body)]).pop().expect("one for one")
    }

    proptest! {
        /// A page whose keys did not share the bits of its place was divided by bits that no key has.
        #[test]
        fn what_is_no_page_of_its_place_is_refused(depth in 0_u16..=256, at in 0_usize..256, key: [u8; 32]) {
            let mut other = key;
            other[at / 8] ^= 0x80 >> (at % 8);
            let keys = [key.min(other), key.max(other)];
            let (wanted, body) = page(depth, &keys);
            prop_assert_eq!(check(wanted, body.clone()).err(), Some(wanted.page));
            if let Some(data) = PageData::decode(HASH, vec![(body, 2)]).pop().flatten() {
                prop_assert_eq!(data.shared_bits(), at);
            }
        }

        #[test]
        fn arbitrary_pages_never_panic(
            depth: u16, pairs: u8, body in proptest::collection::vec(any::<u8>(), 0..300), long in 0_u8..4,
        ) {
            // Bodies that are mostly well formed: short values of few lengths.
            let mut made = Vec::new();
            for (at, bytes) in body.chunks(33).filter(|bytes| bytes.len() == 33).enumerate() {
                let mut key: [u8; 32] = bytes[..32].try_into().expect("32 bytes");
                key[..31].fill(0);
                key[31] = at.to_le_bytes()[0];
                push_pair(&mut made, &key, Some(&bytes[..long.into()]));
            }
            for (body, pairs) in [(body, pairs), (made.clone(), u8::try_from(made.len() / (34 + usize::from(long))).expect("few"))] {
                let page = Page { block: 1, bytes: 0, depth: depth % 257, pairs };
                let refused = check(Wanted { page, hash: [0; 32] }, body).is_err();
                prop_assert!(refused);
            }
        }
    }

    #[test]
    fn only_a_page_of_one_pair_can_stand_below_all_bits() {
        let (one, _) = page(256, &[[1; 32]]);
        let (two, _) = page(256, &[[1; 32], [2; 32]]);
        assert!(one.page.is_possible() && !two.page.is_possible());
        assert!(Page { depth: 255, ..two.page }.is_possible() && !Page { depth: 257, ..one.page }.is_possible());
    }

    #[test]
    fn a_page_of_its_place_is_taken() {
        let (mut wanted, body) = page(7, &[[0xa4; 32], [0xa5; 32]]);
        let data = PageData::decode(HASH, vec![(body.clone(), 2)]).pop().flatten().expect("two pairs");
        wanted.hash = subtree_roots(HASH, &[Subtree { leaves: data.leaves(), depth: 7 }])[0];
        assert!(check(wanted, body).is_ok());
    }
}
