//! The log tree: RFC 9162 section 2.1, SHA-256.
//!
//! * leaf hash = SHA-256(0x00 ‖ entry), node hash = SHA-256(0x01 ‖ left ‖ right), root of nothing = SHA-256("").
//! * A node appends with a [`Frontier`], which keeps one hash per set bit of the size, and writes each subtree hash
//!   that becomes complete to flat files.
//! * Proofs are made from a [`HashSource`] over those complete subtrees, reading O(log n) hashes.
//! * Anyone checks them with [`verify_inclusion`] and [`verify_consistency`].
//! * [`MemoryTree`] does all of it in memory, for the small trees of one block and for tests.

mod frontier;
mod hash;
mod memory;
mod proof;
mod verify;

pub use frontier::{FRONTIER_BYTES_MAX, Frontier, FrontierError};
pub use hash::{EMPTY_ROOT, leaf_hash, node_hash, root_of};
pub use memory::MemoryTree;
pub use proof::{HashSource, LogError, consistency_proof, inclusion_proof, source_root};
pub use verify::{ProofError, inclusion_root, verify_consistency, verify_inclusion};

/// The largest tree this crate accepts: 2^62 entries. It leaves two bits of head room below `u64`, so that no index
/// arithmetic overflows, and at a million entries a second it lasts 146,000 years.
pub const SIZE_MAX: u64 = 1 << 62;

/// The longest path a proof can have: one hash per level of a tree of [`SIZE_MAX`] entries, and one more for a
/// consistency proof.
pub const PATH_LENGTH_MAX: usize = 63;
