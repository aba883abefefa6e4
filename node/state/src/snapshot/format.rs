//! Header and table of a snapshot file.

use stele_merkle::state::{EMPTY, KeyRange, RANGE_DEPTH_MAX, RangeContent, RangeEnd, RangeProof, StateHash, key_bit};

use super::chunk::CHUNK_BYTES_MAX;
use crate::Hash;
use crate::record::{BATCH_BYTES_MAX, Reader, open_header};
use crate::tree::RangeSizes;

const MAGIC: [u8; 8] = *b"STELESNP";
const FORMAT_VERSION: u16 = 2;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const ENTRY_BYTES: usize = 85;

/// A chunk has about so many bytes: small beside a block's time on a slow link, large beside its proof.
const CHUNK_BYTES: u64 = 512 << 10;

/// The longest chunk of a file. A file is its owner's, and so is the memory that reading a chunk takes; only what travels
/// between nodes has to be short.
pub(super) const FILE_CHUNK_BYTES_MAX: usize = BATCH_BYTES_MAX;

/// The depth of the finest division: a million chunks, enough for half a TB.
pub const SNAPSHOT_DEPTH_MAX: u8 = 20;

/// Header of a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    pub(crate) hash: StateHash,
    pub(crate) height: u64,
    pub(crate) root: Hash,
    pub(crate) pairs: u64,
    pub(crate) depth: u8,
}

impl SnapshotHeader {
    /// The depth at which chunks have a good size on the whole and none is too long, as far as the deepest division helps;
    /// and the bytes of the longest.
    pub(crate) fn division(sizes: &RangeSizes) -> (u8, u64) {
        let chunks = sizes.total().div_ceil(CHUNK_BYTES).max(1).next_power_of_two();
        let usual = u8::try_from(chunks.trailing_zeros()).unwrap_or(SNAPSHOT_DEPTH_MAX);
        let fullest = sizes.fullest();
        let bytes = |depth: u8| fullest[usize::from(depth)];
        let depth = (usual..SNAPSHOT_DEPTH_MAX).find(|depth| bytes(*depth) <= CHUNK_BYTES_MAX as u64);
        let depth = depth.unwrap_or(SNAPSHOT_DEPTH_MAX);
        (depth, bytes(depth))
    }

    /// The ranges in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = KeyRange> + use<> {
        let depth = self.depth;
        (0..1_u64 << depth).map(move |index| KeyRange::new(depth, index).expect("an index below 2^depth"))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.push(self.hash.id());
        bytes.extend_from_slice(&self.height.to_be_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.pairs.to_be_bytes());
        bytes.push(self.depth);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (hash, mut reader) = open_header(bytes, MAGIC, FORMAT_VERSION)?;
        let header = Self {
            hash,
            height: u64::from_be_bytes(reader.array()?),
            root: reader.array()?,
            pairs: u64::from_be_bytes(reader.array()?),
            depth: reader.array().map(|[depth]: [u8; 1]| depth)?,
        };
        (header.depth <= SNAPSHOT_DEPTH_MAX).then_some(header)
    }
}

/// What the table says about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) pairs: u32,
    pub(super) crc: u32,
    pub(super) content: RangeContent,
}

impl Entry {
    pub(super) fn push_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.length.to_be_bytes());
        bytes.extend_from_slice(&self.pairs.to_be_bytes());
        bytes.extend_from_slice(&self.crc.to_be_bytes());
        let (kind, first, second) = match self.content {
            RangeContent::Empty => (0, EMPTY, EMPTY),
            RangeContent::One { key, value_hash } => (1, key, value_hash),
            RangeContent::Many { root } => (2, root, EMPTY),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
    }

    pub(super) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let offset = u64::from_be_bytes(reader.array()?);
        let length = u32::from_be_bytes(reader.array()?);
        let pairs = u32::from_be_bytes(reader.array()?);
        let crc = u32::from_be_bytes(reader.array()?);
        let [kind] = reader.array()?;
        let (first, second) = (reader.array()?, reader.array()?);
        let content = match (kind, pairs) {
            (0, 0) => RangeContent::Empty,
            (1, 1) => RangeContent::One { key: first, value_hash: second },
            (2, 2..) => RangeContent::Many { root: first },
            _ => return None,
        };
        Some(Self { offset, length, pairs, crc, content })
    }
}

/// The nodes above the ranges of a snapshot: they lead to its root and give each range its proof.
#[derive(Clone, Debug)]
pub(super) struct UpperTree {
    hash: StateHash,
    /// Level by level from the root: level l has 2^l places.
    levels: Vec<Vec<RangeContent>>,
}

impl UpperTree {
    /// The tree over what the ranges of one depth hold, of which there are a power of two.
    pub(super) fn new(hash: StateHash, contents: Vec<RangeContent>) -> Self {
        debug_assert!(contents.len().is_power_of_two());
        let mut levels = vec![contents];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let (sides, _) = below.as_chunks::<2>();
            let above = sides.iter().map(|[left, right]| join(hash, left, right)).collect();
            levels.push(above);
        }
        levels.reverse();
        Self { hash, levels }
    }

    pub(super) fn root(&self) -> Hash {
        node_hash(self.hash, &self.levels[0][0])
    }

    /// The proof of a range of the lowest level.
    pub(super) fn prove(&self, index: usize) -> RangeProof {
        let depth = self.levels.len() - 1;
        let range = KeyRange::new(u8::try_from(depth).unwrap_or(RANGE_DEPTH_MAX), index as u64)
            .expect("an index of the lowest level");
        let path = range.first();
        let (mut siblings, mut place) = (Vec::with_capacity(depth), 0);
        let mut end = self.levels[0][0];
        for (level, contents) in self.levels.iter().enumerate().skip(1) {
            // A leaf stands at its shortest unique prefix, however deep the ranges are.
            if !matches!(end, RangeContent::Many { .. }) {
                break;
            }
            let own = place * 2 + usize::from(key_bit(&path, level - 1));
            let sibling = node_hash(self.hash, &contents[own ^ 1]);
            siblings.push((sibling != EMPTY).then_some(sibling));
            (place, end) = (own, contents[own]);
        }
        let end = match end {
            RangeContent::Empty => RangeEnd::Empty,
            RangeContent::One { key, .. } if range.contains(&key) => RangeEnd::Own,
            RangeContent::One { key, value_hash } => RangeEnd::Other { key, value_hash },
            RangeContent::Many { .. } => RangeEnd::Subtree,
        };
        RangeProof::new(end, siblings).expect("a path through the tree is canonical")
    }
}

fn join(hash: StateHash, left: &RangeContent, right: &RangeContent) -> RangeContent {
    match (left, right) {
        (RangeContent::Empty, RangeContent::Empty) => RangeContent::Empty,
        (one @ RangeContent::One { .. }, RangeContent::Empty)
        | (RangeContent::Empty, one @ RangeContent::One { .. }) => *one,
        _ => RangeContent::Many { root: hash.node(&node_hash(hash, left), &node_hash(hash, right)) },
    }
}

fn node_hash(hash: StateHash, content: &RangeContent) -> Hash {
    match content {
        RangeContent::Empty => EMPTY,
        RangeContent::One { key, value_hash } => hash.leaf(key, value_hash),
        RangeContent::Many { root } => *root,
    }
}

#[cfg(test)]
mod tests {
    use stele_merkle::state::reference::ReferenceMap;

    use super::*;

    #[test]
    fn the_upper_tree_has_the_roots_and_proofs_of_the_reference() {
        for (keys, depth) in [(0_u8, 3_u8), (1, 0), (1, 4), (2, 5), (7, 3), (40, 4), (200, 2)] {
            let hash = StateHash::Sha256;
            let mut map = ReferenceMap::new(hash);
            (0..keys).for_each(|key| map.set(hash.value(&[key]), Some(vec![key])));
            let header = SnapshotHeader { hash, height: 0, root: map.root(), pairs: keys.into(), depth };
            let contents = header.ranges().map(|range| {
                let inside = map.pairs().iter().filter(|(key, _)| range.contains(key));
                let pairs: Vec<_> = inside.map(|(key, value)| (*key, value.as_slice())).collect();
                RangeContent::of(hash, range, &pairs).expect("pairs of the range")
            });
            let upper = UpperTree::new(hash, contents.collect());
            assert_eq!(upper.root(), map.root());
            for (index, range) in header.ranges().enumerate() {
                assert_eq!(upper.prove(index), map.prove_range(range), "{keys} keys, {range:?}");
            }
        }
    }
}
