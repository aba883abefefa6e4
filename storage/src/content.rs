//! Content identity: the root of a tree over an object's chunks.
//!
//! The tree is that of RFC 9162 section 2.1.1 over chunks of [`CHUNK_BYTES`], the last one of what is left; of no bytes it
//! is the hash of nothing. Chunks are hashed side by side, one in each lane of the processor, which a hash over the whole
//! could not be. Sixteen chunks make a *piece*: the roots of an object's pieces, 32 bytes for each 64 KiB, are all that is
//! needed to verify any range of it alone.

use stele_accel_hash::{Digest, HashAlgorithm, LEAF_PREFIX, digest, digest_batch, node_level, tree_root};

/// Bytes of a chunk: a leaf of the tree.
pub const CHUNK_BYTES: usize = 4096;

/// Levels of the tree below the root of a piece.
const PIECE_LEVELS: u32 = 4;

/// Bytes of a piece: what is verified at once.
pub const PIECE_BYTES: usize = CHUNK_BYTES << PIECE_LEVELS;

/// Roots of the pieces of `bytes`, which begin at a piece.
#[must_use]
pub fn piece_roots(algorithm: HashAlgorithm, bytes: &[u8]) -> Vec<Digest> {
    let chunks: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES).collect();
    let leaves = digest_batch(algorithm, &[LEAF_PREFIX], &chunks);
    // Pairing neighbours, and promoting the odd last one, is the split of the RFC; a piece is a whole subtree of it.
    (0..PIECE_LEVELS).fold(leaves, |level, _| node_level(algorithm, &level))
}

/// Root of an object whose pieces have these roots.
#[must_use]
pub fn root_of_pieces(algorithm: HashAlgorithm, pieces: &[Digest]) -> Digest {
    tree_root(algorithm, pieces).unwrap_or_else(|| digest(algorithm, &[], &[]))
}

/// Root of an object.
#[must_use]
pub fn content_root(algorithm: HashAlgorithm, bytes: &[u8]) -> Digest {
    root_of_pieces(algorithm, &piece_roots(algorithm, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9162 section 2.1.1, word for word.
    fn naive(algorithm: HashAlgorithm, chunks: &[&[u8]]) -> Digest {
        match chunks {
            [] => digest(algorithm, &[], &[]),
            [chunk] => digest(algorithm, &[0], chunk),
            _ => {
                let split = chunks.len().next_power_of_two() / 2;
                let (left, right) = chunks.split_at(split);
                digest(algorithm, &[1], &[naive(algorithm, left), naive(algorithm, right)].concat())
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_rfc_at_every_length() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at * 31 % 251) as u8).collect();
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            for length in [0, 1, 4_095, 4_096, 4_097, 65_535, 65_536, 65_537, 131_072, 200_000, 300_000] {
                let bytes = &bytes[..length];
                let chunks: Vec<&[u8]> = bytes.chunks(4_096).collect();
                assert_eq!(content_root(algorithm, bytes), naive(algorithm, &chunks), "{length} bytes");
            }
        }
    }

    #[test]
    fn pieces_are_hashed_alone() {
        let bytes = vec![7; 3 * PIECE_BYTES + 5];
        let pieces = piece_roots(HashAlgorithm::Sha256, &bytes);
        for (piece, root) in bytes.chunks(PIECE_BYTES).zip(&pieces) {
            assert_eq!(content_root(HashAlgorithm::Sha256, piece), *root);
        }
        assert_eq!(pieces.len(), 4);
    }
}
