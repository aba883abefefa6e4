//! A range of a snapshot as it travels between nodes.

use stele_merkle::state::{KeyRange, ProofError, RANGE_PROOF_BYTES_MAX, RangeContent, RangeProof, StateHash};

use crate::record::{Reader, decode_batch, read_pairs};
use crate::tree::{Subtree, subtree_roots};
use crate::{Hash, Key, VALUE_BYTES_MAX, Write, hashing};

/// The longest pairs of a chunk that travels, in bytes. The usual ones have 512 KiB, and a snapshot is divided more finely
/// when somebody has ground many keys into one range.
pub const CHUNK_BYTES_MAX: usize = 16 << 20;

const HEAD_BYTES: usize = 1 + 8 + 4 + 4 + 2;

/// All pairs of a range of keys, with the proof that they are all.
///
/// | bytes | content, integers big-endian |
/// |---|---|
/// | 1, 8 | the range: depth and index |
/// | 4, 4, 2 | number of pairs, bytes of the pairs, bytes of the proof |
/// | … | the pairs as in a log record, the proof of `stele_merkle::state::RangeProof` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub(super) range: KeyRange,
    pub(super) pairs: u32,
    pub(super) body: Vec<u8>,
    pub(super) proof: RangeProof,
}

impl Chunk {
    /// The keys that it is about.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        self.range
    }

    /// Number of pairs.
    #[must_use]
    pub fn pairs(&self) -> u32 {
        self.pairs
    }

    /// The bytes described above.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let proof = self.proof.encode();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.body.len() + proof.len());
        bytes.push(self.range.depth());
        bytes.extend_from_slice(&self.range.index().to_be_bytes());
        bytes.extend_from_slice(&self.pairs.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(self.body.len()).expect("at most 16 MiB").to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(proof.len()).expect("a range proof is short").to_be_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(&proof);
        bytes
    }

    /// The inverse of [`Chunk::encode`]. The pairs are looked at by [`Chunk::check`] only.
    ///
    /// # Errors
    /// [`ChunkError::Malformed`] for any byte string that [`Chunk::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        Self::read(bytes).ok_or(ChunkError::Malformed)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [depth] = reader.array()?;
        let range = KeyRange::new(depth, u64::from_be_bytes(reader.array()?))?;
        let pairs = u32::from_be_bytes(reader.array()?);
        let length = u32::from_be_bytes(reader.array()?) as usize;
        let proof_length = usize::from(u16::from_be_bytes(reader.array()?));
        if length > CHUNK_BYTES_MAX || proof_length > RANGE_PROOF_BYTES_MAX {
            return None;
        }
        let body = reader.take(length)?.to_vec();
        let proof = RangeProof::decode(reader.take(proof_length)?).ok()?;
        reader.is_empty().then_some(Self { range, pairs, body, proof })
    }

    /// The pairs, once they are shown to be all pairs of the range under a root.
    ///
    /// # Errors
    /// [`ChunkError::Pairs`] when they are not ascending pairs, [`ChunkError::Proof`] when they do not lead to the root.
    pub fn check(&self, hash: StateHash, root: &Hash) -> Result<Vec<(Key, Vec<u8>)>, ChunkError> {
        self.proof.verify(hash, root, self.range, &self.content(hash)?).map_err(ChunkError::Proof)?;
        let pairs = read_pairs(&self.body, self.pairs).ok_or(ChunkError::Pairs)?;
        Ok(pairs.into_iter().map(|(key, value)| (key, value.to_vec())).collect())
    }

    /// What the range holds if these are its pairs.
    pub(super) fn content(&self, hash: StateHash) -> Result<RangeContent, ChunkError> {
        let pairs = read_pairs(&self.body, self.pairs).ok_or(ChunkError::Pairs)?;
        content(hash, self.range, &pairs).ok_or(ChunkError::Pairs)
    }
}

/// The pairs of a chunk's body: `None` unless it is exactly so many pairs in strictly ascending order of keys.
pub(super) fn pairs(body: &[u8], count: u32) -> Option<Vec<Write>> {
    decode_batch(body, count).filter(|pairs| pairs.iter().all(|(_, value)| value.is_some()))
}

/// What a range holds if these are its pairs; `None` when one lies outside.
pub(super) fn content(hash: StateHash, range: KeyRange, pairs: &[(Key, &[u8])]) -> Option<RangeContent> {
    if !pairs.iter().all(|(key, _)| range.contains(key)) {
        return None;
    }
    Some(match pairs {
        [] => RangeContent::Empty,
        [(key, value)] => RangeContent::One { key: *key, value_hash: hash.value(value) },
        pairs => {
            let leaves: Vec<(Key, Hash)> =
                pairs.iter().map(|(key, _)| *key).zip(hashing::leaves(hash, pairs)).collect();
            let subtree = Subtree { leaves: &leaves, depth: range.depth().into() };
            RangeContent::Many { root: subtree_roots(hash, &[subtree])[0] }
        }
    })
}

const _: () = assert!(VALUE_BYTES_MAX < CHUNK_BYTES_MAX);

/// Why a chunk is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes are not a chunk.
    #[error("the bytes are not a chunk of a state snapshot")]
    Malformed,
    /// The pairs are not ascending pairs of the range.
    #[error("the chunk's pairs are not the ascending pairs of its range")]
    Pairs,
    /// The pairs are not those of the state.
    #[error("the chunk is not what the state holds")]
    Proof(#[source] ProofError),
    /// The chunk is about another range than the one that was asked for, or came before.
    #[error("the chunk is not about a range that is missing")]
    Unwanted,
}

impl ChunkError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "state_chunk_malformed",
            Self::Pairs => "state_chunk_pairs",
            Self::Proof(_) => "state_chunk_proof",
            Self::Unwanted => "state_chunk_unwanted",
        }
    }
}
