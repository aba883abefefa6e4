//! The authenticated state tree: rules and proofs.
//!
//! This page is the specification. The root format never changes once a network runs on it; `tests/vectors.rs` pins
//! it for both hashes.
//!
//! # Tree
//!
//! H is SHA-256 or SM3, chosen once per network ([`StateHash`]). A key has 256 bits and is itself a hash (the ledger
//! puts its domain prefixes inside that hash's input), so keys are uniform. Bit i of a key is bit 7 − (i mod 8) of byte
//! i ÷ 8: the most significant bit first. A value is a byte string.
//!
//! The root of a set of (key, value) pairs is R(set, 0), where
//!
//! ```text
//!   R({}, d)            = 32 zero bytes                                              (empty)
//!   R({(key, value)}, d) = H(0x00 ‖ key ‖ H(0x02 ‖ value))                           (leaf)
//!   R(set, d)           = H(0x01 ‖ R(keys with bit d = 0, d+1) ‖ R(keys with bit d = 1, d+1))   (node)
//! ```
//!
//! So a leaf sits at its shortest unique prefix, deleting a key collapses the nodes that no longer divide two keys,
//! and the root depends on the set alone, never on the order or the batches in which it came about. A node never has
//! two empty children, nor one empty child and one leaf. The prefixes 0x00, 0x01 and 0x02 keep leaves, nodes and
//! values apart; that nothing hashes to 32 zero bytes is as hard to break as a preimage.
//!
//! # Proof
//!
//! A proof for a key is the list of siblings on the way from the root to where the key ends, and what stands there:
//!
//! * the key's own leaf: *membership*; the verifier brings the value and computes the leaf;
//! * nothing, or the leaf of another key that shares the path's bits: *non-membership*.
//!
//! The deepest sibling is never empty (a leaf would have moved up, an empty place would have collapsed), so there is
//! exactly one proof per root and key.
//!
//! # Encoding of a proof
//!
//! | bytes | content |
//! |---|---|
//! | 1 | what stands at the end: 0 nothing, 1 the key's own leaf, 2 the leaf of another key |
//! | 2 | depth d: number of siblings, big-endian, 0 to 256 |
//! | ⌈d ÷ 8⌉ | bitmap, root first, most significant bit first: 1 = sibling follows, 0 = sibling is empty; unused bits are 0, bit d − 1 is 1 |
//! | 64 | only for 2: the other key, and the hash of its value H(0x02 ‖ value) |
//! | 32 each | the siblings whose bit is 1, root first; none is 32 zero bytes |
//!
//! Nothing may follow. Any other byte string is refused, so encoding what was decoded gives the same bytes.
//!
//! # Other proofs
//!
//! [`RangeProof`] shows that some pairs are all that begin with certain bits, [`MultiProof`] the values or absences of
//! several keys at once; their forms stand at the heads of `range.rs` and `multi.rs`.

mod hash;
mod multi;
mod proof;
mod range;
pub mod reference;

pub use hash::{EMPTY, StateHash, UnknownHash};
pub use multi::{Claim, MULTI_KEYS_MAX, MultiProof, MultiProofWriter};
pub use proof::{DEPTH_MAX, PROOF_BYTES_MAX, Proof, ProofError, Terminal};
pub use range::{KeyRange, RANGE_DEPTH_MAX, RANGE_PROOF_BYTES_MAX, RangeContent, RangeEnd, RangeProof};

/// A key of the state tree: a uniform 256-bit hash.
pub type Key = [u8; 32];

/// Bit `depth` of a key, the most significant bit first; `depth` is at most 255.
#[must_use]
pub fn key_bit(key: &Key, depth: usize) -> bool {
    key[depth / 8] >> (7 - depth % 8) & 1 == 1
}

/// Number of leading bits that two keys share, 256 for equal keys.
#[must_use]
pub fn shared_bits(left: &Key, right: &Key) -> usize {
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        if left != right {
            return index * 8 + (left ^ right).leading_zeros() as usize;
        }
    }
    256
}
