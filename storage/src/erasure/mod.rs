//! Reed-Solomon erasure code: k shards of data, m shards of parity, and any k of the k + m give all the others back.
//!
//! A stripe's shards are byte strings of one length, each for a drive of its own. Byte by byte, the shards of a stripe are
//! the product of a matrix of k + m rows and k columns, the generator, and the k bytes of data at that place:
//!
//! ```text
//!             k columns                    shard
//!        ┌─────────────────┐   ┌     ┐
//!      k │    identity     │   │ d0  │     0 to k - 1        the data itself
//!        ├─────────────────┤ × │ ... │  =
//!      m │ 1 / (i xor j)   │   │dk-1 │     k to k + m - 1    parity
//!        └─────────────────┘   └     ┘
//! ```
//!
//! All arithmetic is that of GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1, `0x11d`: a sum is an exclusive or. The lower rows, i
//! from k to k + m - 1 and j from 0 to k - 1, are a Cauchy matrix, of which every square part can be inverted; so any k
//! rows of the generator can be, and that inverse turns the k shards that are left into the data. A Vandermonde matrix
//! below the identity, the other usual choice, has singular parts (Plank and Ding below) and loses stripes that it should
//! not.
//!
//! * [`ErasureCode`] holds the generator of one shape; [`ErasureCode::encode`] makes the parity of a stripe.
//! * [`Decoder`] holds the inverse for one pattern of loss. A rebuild makes one, and applies it to stripe after stripe.
//! * [`ErasureBackend`] names the code that multiplies. All have the same matrix and give the same bytes, so a stripe may
//!   be written by one and read by another.
//!
//! Neither encoding nor applying a decoder allocates. The code only fills erasures in: which shards are missing or wrong
//! must be known, by an I/O error or a checksum. A shard that is wrong and passes for present makes wrong data, silently.
//!
//! Sources: Plank, *A Tutorial on Reed-Solomon Coding for Fault-Tolerance in RAID-like Systems* (1997), with its correction
//! by Plank and Ding (2005); Blömer, Kalfane, Karp, Karpinski, Luby and Zuckerman, *An XOR-Based Erasure-Resilient Coding
//! Scheme* (1995) for the Cauchy matrix; Plank, Greenan and Miller, *Screaming Fast Galois Field Arithmetic Using Intel
//! SIMD Instructions* (2013) for the nibble tables. The matrix is that of `gf_gen_cauchy1_matrix` in Intel's ISA-L, so
//! stripes can be read by what uses that.

mod backend;
mod code;
mod error;
mod field;
mod kernel;
mod matrix;

pub use backend::ErasureBackend;
pub use code::{DATA_SHARDS_MAX, Decoder, ErasureCode, PARITY_SHARDS_MAX};
pub use error::ErasureError;
