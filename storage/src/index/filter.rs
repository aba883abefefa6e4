//! Bloom filters, one for each page of a table.
//!
//! A table's pages are found by the order of the keys, and each has the same number of them. A filter for each page is
//! thus exactly as full as it should be, which the blocks of a blocked Bloom filter are only on average; it grows with the
//! table as that is written; and it needs no more cache lines (three).
//!
//! The keys are hashes, so their bits are the filter's. The first ones all pages' keys share; the last eight kept bytes are
//! taken (Kirsch and Mitzenmacher, "Less hashing, same performance", ESA 2006, with a step that grows).

use super::entry::{Prefix, take};

/// Bytes of the filter of a page: about 10 bits for each key, with which one absent key in 120 passes.
pub(super) const FILTER_BYTES: usize = 160;

const FILTER_WORDS: usize = FILTER_BYTES / 8;

type Filter = [u64; FILTER_WORDS];

/// Filters that lie together in memory. All blocks have one size, so that those of tables that went make room for those of
/// tables that come, and no table ever moves its filters to a larger place.
const BLOCK_FILTERS: usize = 32;

const FILTER_BITS: usize = FILTER_BYTES * 8;

/// Bits of a key, the best number for ten bits of room.
const PROBES: u32 = 7;

/// The filters of a table, in the order of its pages.
#[derive(Debug, Default)]
pub(super) struct Filters {
    blocks: Vec<Vec<Filter>>,
}

impl Filters {
    /// Adds the filter of the next page.
    pub(super) fn push(&mut self, prefixes: impl Iterator<Item = Prefix>) {
        let mut filter = [0; FILTER_WORDS];
        for bit in prefixes.flat_map(bits_of) {
            filter[bit / 64] |= 1 << (bit % 64);
        }
        self.push_filter(filter);
    }

    fn push_filter(&mut self, filter: Filter) {
        match self.blocks.last_mut().filter(|block| block.len() < BLOCK_FILTERS) {
            Some(block) => block.push(filter),
            None => {
                let mut block = Vec::with_capacity(BLOCK_FILTERS);
                block.push(filter);
                self.blocks.push(block);
            }
        }
    }

    /// Whether a page may have a key. A key that it has is never denied.
    pub(super) fn may_contain(&self, page: usize, prefix: Prefix) -> bool {
        let filter = &self.blocks[page / BLOCK_FILTERS][page % BLOCK_FILTERS];
        bits_of(prefix).all(|bit| filter[bit / 64] & 1 << (bit % 64) != 0)
    }

    /// The bytes, a block at a time.
    pub(super) fn encode(&self) -> impl Iterator<Item = Vec<u8>> {
        self.blocks.iter().map(|block| block.as_flattened().iter().flat_map(|word| word.to_be_bytes()).collect())
    }

    /// Adds whole filters as they were encoded.
    pub(super) fn decode(&mut self, bytes: &[u8]) {
        for mut bytes in bytes.chunks_exact(FILTER_BYTES) {
            let word = |_| u64::from_be_bytes(take(&mut bytes).expect("a filter is so many words"));
            self.push_filter(std::array::from_fn(word));
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let blocks = self.blocks.len() * BLOCK_FILTERS * FILTER_BYTES;
        blocks + self.blocks.capacity() * size_of::<Vec<Filter>>()
    }
}

fn bits_of(prefix: Prefix) -> impl Iterator<Item = usize> {
    let [.., a, b, c, d, e, f, g, h] = prefix.to_be_bytes();
    let (mut place, mut step) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    (0..PROBES).map(move |probe| {
        let bit = ((place >> 16) as usize * FILTER_BITS) >> 16;
        place = place.wrapping_add(step);
        step = step.wrapping_add(probe);
        bit
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::page::PAGE_ENTRIES;

    /// Steps through the numbers so that their bits look random.
    fn random(seed: u64) -> Prefix {
        let mut number = u128::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        number ^= number >> 67;
        number = number.wrapping_mul(0xda94_2042_e4dd_58b5_2360_ed05_1fc6_5da5);
        number ^ number >> 61
    }

    #[test]
    fn no_key_is_denied_and_few_others_pass() {
        let mut filters = Filters::default();
        let page = |page: u64| (0..PAGE_ENTRIES as u64).map(move |key| random(page << 32 | key));
        (0..50).for_each(|number| filters.push(page(number)));
        for number in 0..50 {
            assert!(page(number).all(|prefix| filters.may_contain(usize::try_from(number).unwrap(), prefix)));
        }
        let passed = (0..100_000).filter(|key| filters.may_contain(key % 50, random(1 << 50 | *key as u64))).count();
        assert!(passed < 1200, "{passed} of 100000 absent keys passed");
        let mut decoded = Filters::default();
        filters.encode().for_each(|part| decoded.decode(&part));
        assert_eq!(decoded.blocks, filters.blocks);
    }
}
