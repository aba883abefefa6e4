//! The content of a page.

use stele_merkle::Hash;
use stele_merkle::state::{Key, StateHash};

use crate::hashing;
use crate::record::{push_pair, read_pairs};

/// A pair, with the hash of its leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairRef<'a> {
    pub(crate) key: &'a Key,
    pub(crate) value: &'a [u8],
    pub(crate) hash: Hash,
}

impl PairRef<'_> {
    /// Bytes of the pair in a page.
    pub(crate) const fn bytes(&self) -> usize {
        Self::HEAD_BYTES + self.value.len()
    }

    /// Bytes of a pair beside its value.
    pub(crate) const HEAD_BYTES: usize = 34;
}

/// The pairs of a page in memory.
#[derive(Debug)]
pub(crate) struct PageData {
    /// The pairs as in a log record.
    body: Vec<u8>,
    /// Where each value begins in the body.
    values: Vec<u16>,
    leaves: Vec<(Key, Hash)>,
}

impl PageData {
    /// Bytes of memory beside the body that a pair takes.
    const PAIR_MEMORY_BYTES: usize = size_of::<u16>() + size_of::<(Key, Hash)>();

    /// A page of pairs in key order.
    pub(crate) fn new(pairs: &[PairRef<'_>]) -> Self {
        let mut body = Vec::with_capacity(pairs.iter().map(PairRef::bytes).sum());
        let mut values = Vec::with_capacity(pairs.len());
        for pair in pairs {
            push_pair(&mut body, pair.key, Some(pair.value));
            values.push(place(body.len() - pair.value.len()));
        }
        Self { body, values, leaves: pairs.iter().map(|pair| (*pair.key, pair.hash)).collect() }
    }

    /// Pages as they were read, each with its number of pairs; `None` for one that is no such page. The leaves of all are
    /// hashed together; whether they are the right ones shows in the root of their subtree.
    pub(crate) fn decode(hash: StateHash, pages: Vec<(Vec<u8>, usize)>) -> Vec<Option<Self>> {
        let mut parsed = Vec::with_capacity(pages.len());
        let mut all: Vec<(Key, &[u8])> = Vec::new();
        for (body, count) in &pages {
            let pairs = u32::try_from(*count).ok().and_then(|count| read_pairs(body, count));
            let pairs = pairs.filter(|pairs| !pairs.is_empty());
            let mut end = 0;
            parsed.push(pairs.as_ref().map(|pairs| {
                let values = pairs.iter().map(|(_, value)| {
                    let start = end + PairRef::HEAD_BYTES;
                    end = start + value.len();
                    place(start)
                });
                values.collect::<Vec<u16>>()
            }));
            all.extend(pairs.into_iter().flatten());
        }
        let keys: Vec<Key> = all.iter().map(|(key, _)| *key).collect();
        let mut leaves = keys.into_iter().zip(hashing::leaves(hash, &all));
        let whole = pages.into_iter().zip(parsed).map(|((body, _), values)| {
            let values = values?;
            let leaves = leaves.by_ref().take(values.len()).collect();
            Some(Self { body, values, leaves })
        });
        whole.collect()
    }

    /// The pairs as in a log record.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Keys in order, with the hashes of their leaves.
    pub(crate) fn leaves(&self) -> &[(Key, Hash)] {
        &self.leaves
    }

    /// The lowest key; a page is never empty.
    pub(crate) fn first(&self) -> &Key {
        &self.leaves[0].0
    }

    /// Bits that all keys begin with.
    pub(crate) fn shared_bits(&self) -> usize {
        let (first, last) = (self.first(), self.leaves.last().map_or(self.first(), |(key, _)| key));
        let equal = first.iter().zip(last).take_while(|(first, last)| first == last).count();
        let differ = first.iter().zip(last).nth(equal);
        equal * 8 + differ.map_or(0, |(first, last)| (first ^ last).leading_zeros() as usize)
    }

    pub(crate) fn pairs(&self) -> impl ExactSizeIterator<Item = PairRef<'_>> {
        (0..self.leaves.len()).map(|at| self.pair(at))
    }

    pub(crate) fn pair(&self, at: usize) -> PairRef<'_> {
        let (key, hash) = &self.leaves[at];
        PairRef { key, value: self.value(at), hash: *hash }
    }

    fn value(&self, at: usize) -> &[u8] {
        let end = self.values.get(at + 1).map_or(self.body.len(), |next| usize::from(*next) - PairRef::HEAD_BYTES);
        &self.body[self.values[at].into()..end]
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &Key) -> Option<&[u8]> {
        let at = self.leaves.binary_search_by_key(&key, |(key, _)| key).ok()?;
        Some(self.value(at))
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.body.len() + self.leaves.len() * Self::PAIR_MEMORY_BYTES
    }
}

fn place(at: usize) -> u16 {
    u16::try_from(at).expect("a page is shorter than 64 KiB")
}
