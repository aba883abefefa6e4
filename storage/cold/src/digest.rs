//! The root of content that comes in parts.

use stele_accel_hash::{Digest, HashAlgorithm};
use stele_storage::{PIECE_BYTES, piece_roots, root_of_pieces};

/// Sums up parts, each of whole pieces but the last: 32 bytes are kept of each 64 KiB.
pub(crate) struct ContentRoot {
    hash: HashAlgorithm,
    pieces: Vec<Digest>,
    ended: bool,
}

impl ContentRoot {
    pub(crate) fn new(hash: HashAlgorithm) -> Self {
        Self { hash, pieces: Vec::new(), ended: false }
    }

    /// Takes the next part.
    ///
    /// # Panics
    /// If the part before it ended inside a piece: then this is not the next.
    pub(crate) fn add(&mut self, part: &[u8]) {
        assert!(!self.ended || part.is_empty(), "only the last part ends inside a piece");
        self.ended = !part.len().is_multiple_of(PIECE_BYTES);
        self.pieces.extend(piece_roots(self.hash, part));
    }

    pub(crate) fn finish(&self) -> Digest {
        root_of_pieces(self.hash, &self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stele_storage::content_root;

    #[test]
    fn parts_sum_up_to_the_root_of_the_whole() {
        for length in [0, 1, PIECE_BYTES, 3 * PIECE_BYTES, 5 * PIECE_BYTES + 77] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
            for part in [PIECE_BYTES, 2 * PIECE_BYTES] {
                let mut root = ContentRoot::new(HashAlgorithm::Sha256);
                bytes.chunks(part).for_each(|part| root.add(part));
                assert_eq!(root.finish(), content_root(HashAlgorithm::Sha256, &bytes), "{length} bytes by {part}");
            }
        }
    }
}
