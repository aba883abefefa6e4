//! The kernels, as WGSL text from small generators.
//!
//! Drivers inline every function, and their time to compile grows faster than the text; so what repeats is a loop, and
//! long work is several kernels with their state in a buffer. 64-bit integers live in registers alone: buffers hold
//! 32-bit words, because support for wider memory operations differs between drivers.

mod edwards;
mod emit;
mod formula;
mod hash;
mod mersenne;
mod montgomery;
mod weierstrass;

use std::fmt::Write as _;

use stele_accel_hash::HashAlgorithm;

use crate::{
    curve::{P256, Sm2},
    suite::Suite,
};

/// Invocations of one workgroup: two warps of NVIDIA, one wave of AMD.
pub(crate) const WORKGROUP: u32 = 64;

/// Words of a digest with its tag in an output buffer.
pub(crate) const TAGGED_DIGEST_WORDS: usize = 9;

/// Words of one block of either hash function.
pub(crate) const BLOCK_WORDS: usize = 16;

/// An entry point on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// Hashes padded messages. Input: `count` pairs of the first word of a message and its blocks, then the blocks.
    /// Output: tagged digests.
    Digest(HashAlgorithm),
    /// The level above leaf hashes. Input: leaf hashes. Output: tagged digests.
    FirstLevel(HashAlgorithm),
    /// The level above another one in the output buffer.
    NextLevel(HashAlgorithm),
    /// The first multiples of each key. Input: [`PrimeItem`]s. Output: scratch memory.
    Multiples(PrimeSuite),
    /// The product of each key with its scalar, from its multiples in scratch memory to there.
    Ladder(PrimeSuite),
    /// The whole sum and the verdict. Output: a tag of each verdict.
    Comb(PrimeSuite),
    /// The first multiples of the opposite of each Ed25519 key. Input: [`EdwardsItem`]s. Output: scratch memory.
    EdwardsMultiples,
    /// The product of each of these with its scalar.
    EdwardsLadder,
    /// The point `R` of each signature, to scratch memory.
    EdwardsDecode,
    /// The whole sum and the verdict.
    EdwardsComb,
}

/// Words of one Ed25519 item in an input buffer: 256-bit numbers of eight words each.
pub(crate) struct EdwardsItem;

impl EdwardsItem {
    /// `s`.
    pub(crate) const S: usize = 0;
    /// `k` as magnitude with the sign of `-k` if the key has a table; else its raised digits.
    pub(crate) const K: usize = 8;
    /// The encoding of the key, or the number of its table.
    pub(crate) const A: usize = 16;
    pub(crate) const TABLE: usize = 16;
    /// The encoding of `R`.
    pub(crate) const R: usize = 24;
    /// Words of an item.
    pub(crate) const WORDS: usize = 32;
}

/// A suite over a curve of prime order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PrimeSuite {
    P256,
    Sm2,
}

impl PrimeSuite {
    /// The suite.
    pub(crate) const fn suite(self) -> Suite {
        match self {
            Self::P256 => Suite::P256,
            Self::Sm2 => Suite::Sm2,
        }
    }
}

/// Words of one ECDSA or SM2 item in an input buffer: 256-bit numbers of eight words each.
pub(crate) struct PrimeItem;

impl PrimeItem {
    /// `u` as magnitude, its sign in the highest bit.
    pub(crate) const U: usize = 0;
    /// `v` likewise if the key has a table; else its digits of four bits, each but the highest raised by eight.
    pub(crate) const V: usize = 8;
    /// The two x-coordinates that would do.
    pub(crate) const COORDINATES: usize = 16;
    /// The number of the key's table.
    pub(crate) const TABLE: usize = 32;
    /// The key's point, as the CPU stores it; of no meaning if it has a table.
    pub(crate) const X: usize = 32;
    pub(crate) const Y: usize = 40;
    /// Words of an item.
    pub(crate) const WORDS: usize = 48;
}

/// Digits of four bits of a scalar below 2^255.
const LADDER_WINDOWS: usize = 64;

/// Multiples of a key: digits are from -8 to 8.
const MULTIPLES: usize = 8;

/// Where in scratch memory the product of the ladder is, in points.
const COMB_SCRATCH: usize = MULTIPLES;

/// Words of scratch memory of an item: multiples and product.
pub(crate) const SCRATCH_WORDS: usize = (MULTIPLES + 1) * SCRATCH_POINT_WORDS;

/// Words of the largest point in scratch memory.
const SCRATCH_POINT_WORDS: usize = edwards::POINT_WORDS;

const _: () = assert!(weierstrass::POINT_WORDS <= SCRATCH_POINT_WORDS);

/// Multiples in a row of a generator's table, which has 32 rows of digits of eight bits.
const GENERATOR_MULTIPLES: usize = 128;

/// Rows of a generator's table.
const GENERATOR_ROWS: usize = 32;

/// Multiples in a row of a key's table, of digits of six bits.
const KEY_MULTIPLES: usize = 32;

/// Entries of a generator's table, which comes first among the tables.
pub(crate) const GENERATOR_ENTRIES: usize = GENERATOR_ROWS * GENERATOR_MULTIPLES;

/// Entries of a key's table.
pub(crate) const KEY_ENTRIES: usize = 43 * KEY_MULTIPLES;

/// Parameters of one pass, the same shape for all kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Items of this pass.
    pub(crate) count: u32,
    /// Makes tags of this batch unlike those of any other.
    pub(crate) nonce: [u32; 2],
    /// Levels of a tree: nodes in the level below.
    pub(crate) below_count: u32,
    /// Where the level below starts in the output, in nodes; the first item of a sum.
    pub(crate) below: u32,
    /// Where results go in the output, in nodes.
    pub(crate) target: u32,
    /// 1 where the sum starts from what the ladder left, else the keys have tables.
    pub(crate) ladder: u32,
}

impl Parameters {
    /// Length in bytes.
    pub(crate) const BYTES: usize = 4 * 7;

    /// As the kernels read it.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let words = [self.count, self.nonce[0], self.nonce[1], self.below_count, self.below, self.target, self.ladder];
        let mut bytes = [0; Self::BYTES];
        for (part, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *part = word.to_le_bytes();
        }
        bytes
    }
}

impl Kernel {
    /// All kernels, in the order in which they are compiled.
    pub(crate) const ALL: [Self; 16] = [
        Self::FirstLevel(HashAlgorithm::Sha256),
        Self::NextLevel(HashAlgorithm::Sha256),
        Self::Digest(HashAlgorithm::Sha256),
        Self::FirstLevel(HashAlgorithm::Sm3),
        Self::NextLevel(HashAlgorithm::Sm3),
        Self::Digest(HashAlgorithm::Sm3),
        Self::Comb(PrimeSuite::Sm2),
        Self::Multiples(PrimeSuite::Sm2),
        Self::Ladder(PrimeSuite::Sm2),
        Self::Comb(PrimeSuite::P256),
        Self::Multiples(PrimeSuite::P256),
        Self::Ladder(PrimeSuite::P256),
        Self::EdwardsDecode,
        Self::EdwardsComb,
        Self::EdwardsMultiples,
        Self::EdwardsLadder,
    ];

    /// Position in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|kernel| *kernel == self).unwrap_or(usize::MAX)
    }

    /// Whether it works with tables and scratch memory.
    pub(crate) const fn verifies(self) -> bool {
        !matches!(self, Self::Digest(_) | Self::FirstLevel(_) | Self::NextLevel(_))
    }

    /// Name in labels and errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Digest(HashAlgorithm::Sha256) => "sha256_digest",
            Self::Digest(HashAlgorithm::Sm3) => "sm3_digest",
            Self::FirstLevel(HashAlgorithm::Sha256) => "sha256_first_level",
            Self::FirstLevel(HashAlgorithm::Sm3) => "sm3_first_level",
            Self::NextLevel(HashAlgorithm::Sha256) => "sha256_next_level",
            Self::NextLevel(HashAlgorithm::Sm3) => "sm3_next_level",
            Self::Multiples(PrimeSuite::P256) => "p256_multiples",
            Self::Multiples(PrimeSuite::Sm2) => "sm2_multiples",
            Self::Ladder(PrimeSuite::P256) => "p256_ladder",
            Self::Ladder(PrimeSuite::Sm2) => "sm2_ladder",
            Self::Comb(PrimeSuite::P256) => "p256_comb",
            Self::Comb(PrimeSuite::Sm2) => "sm2_comb",
            Self::EdwardsMultiples => "ed25519_multiples",
            Self::EdwardsLadder => "ed25519_ladder",
            Self::EdwardsDecode => "ed25519_decode",
            Self::EdwardsComb => "ed25519_comb",
        }
    }

    /// The whole text of the module, whose entry point is `main`.
    pub(crate) fn source(self) -> String {
        let mut source = String::from(PRELUDE);
        match self {
            Self::Digest(algorithm) => hash::digest(&mut source, algorithm),
            Self::FirstLevel(algorithm) => hash::level(&mut source, algorithm, true),
            Self::NextLevel(algorithm) => hash::level(&mut source, algorithm, false),
            Self::Multiples(PrimeSuite::P256) => weierstrass::multiples::<P256>(&mut source),
            Self::Multiples(PrimeSuite::Sm2) => weierstrass::multiples::<Sm2>(&mut source),
            Self::Ladder(PrimeSuite::P256) => weierstrass::ladder::<P256>(&mut source),
            Self::Ladder(PrimeSuite::Sm2) => weierstrass::ladder::<Sm2>(&mut source),
            Self::Comb(PrimeSuite::P256) => weierstrass::comb::<P256>(&mut source),
            Self::Comb(PrimeSuite::Sm2) => weierstrass::comb::<Sm2>(&mut source),
            Self::EdwardsMultiples => edwards::multiples(&mut source),
            Self::EdwardsLadder => edwards::ladder(&mut source),
            Self::EdwardsDecode => edwards::decode(&mut source),
            Self::EdwardsComb => edwards::comb(&mut source),
        }
        source
    }
}

/// What all kernels share. `tag_fold` is [`crate::guard::tag`]'s; the two must agree.
const PRELUDE: &str = "\
struct Parameters {
    count: u32,
    nonce0: u32,
    nonce1: u32,
    below_count: u32,
    below: u32,
    target_node: u32,
    ladder: u32,
}
var<immediate> parameters: Parameters;
@group(0) @binding(0) var<storage, read> input: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;
@group(1) @binding(0) var<storage, read_write> scratch: array<u32>;
@group(1) @binding(1) var<storage, read> tables: array<u32>;

fn tag_fold(state: u32, word: u32) -> u32 {
    let mixed = (state ^ word) * 0x9e3779b1u;
    return mixed ^ (mixed >> 15u);
}
fn tag_start(index: u32) -> u32 {
    return tag_fold(tag_fold(tag_fold(0u, parameters.nonce0), index), parameters.nonce1);
}
";

/// The head of an entry point; `index` is the invocation's item, and the others are gone.
fn entry(source: &mut String) {
    line(source, &format!("@compute @workgroup_size({WORKGROUP})"));
    line(source, "fn main(@builtin(global_invocation_id) invocation: vec3<u32>) {");
    line(source, "let index = invocation.x;");
    line(source, "if (index >= parameters.count) { return; }");
}

/// `point_write`: a point of these members to a place in scratch memory. Neighbouring invocations write neighbouring
/// words.
fn scratch_write(source: &mut String, members: &[String]) {
    line(source, "fn point_write(place: u32, index: u32, point: Point) {");
    line(source, &format!("let at = {}u * place;", members.len()));
    for (word, member) in members.iter().enumerate() {
        line(source, &format!("scratch[(at + {word}u) * parameters.count + index] = point.{member};"));
    }
    line(source, "}");
}

/// An element of so many words of the point at `at` in scratch memory.
fn scratch_read(first: usize, words: usize) -> String {
    let words: Vec<String> =
        (first..first + words).map(|word| format!("scratch[(at + {word}u) * parameters.count + index]")).collect();
    format!("Fe({})", words.join(", "))
}

/// The rest of a kernel that multiplies a point by the scalar at `at`, from the point's multiples in scratch memory and a
/// `sum` that is the neutral element. Digits of four bits are stored with eight added, all but the highest; `negate` is
/// the code that negates `term`.
fn ladder_loop(source: &mut String, negate: &str) {
    line(source, &format!("for (var window = {LADDER_WINDOWS}u; window > 0u; window--) {{"));
    line(source, "for (var time = 0u; time < 4u; time++) { sum = point_double(sum); }");
    line(source, "let place = window - 1u;");
    line(source, "var digit = i32((input[at + (place >> 3u)] >> (4u * (place & 7u))) & 15u);");
    line(source, &format!("if (place < {}u) {{ digit -= 8; }}", LADDER_WINDOWS - 1));
    line(source, "if (digit != 0) {");
    line(source, "var term = point_read(u32(abs(digit)) - 1u, index);");
    line(source, &format!("if (digit < 0) {{ {negate} }}"));
    line(source, "sum = point_add(sum, term);");
    line(source, "}");
    line(source, "}");
    line(source, &format!("point_write({COMB_SCRATCH}u, index, sum);"));
    line(source, "}");
}

/// Adds to `sum` the entries of the generator's table for the scalar at `u`, and, unless there was a ladder, those of the
/// key's table for the one at `v`. Digits are signed, from the lowest, in `-(2^(w-1) - 1)..=2^(w-1)`, as on the CPU.
fn comb_loop(source: &mut String, u: usize, v: usize, table: usize, key_rows: usize) {
    line(source, "var carry = 0u;");
    line(
        source,
        &format!("let rows = select({}u, {GENERATOR_ROWS}u, parameters.ladder == 1u);", GENERATOR_ROWS + key_rows),
    );
    line(source, "for (var step = 0u; step < rows; step++) {");
    line(source, &format!("let of_key = step >= {GENERATOR_ROWS}u;"));
    line(source, &format!("let row = select(step, step - {GENERATOR_ROWS}u, of_key);"));
    line(source, "if (row == 0u) { carry = 0u; }");
    line(source, "let width = select(8u, 6u, of_key);");
    line(source, &format!("let scalar = at + select({u}u, {v}u, of_key);"));
    line(source, "let bit = row * width;");
    line(source, "let word = bit >> 5u;");
    line(source, "let shift = bit & 31u;");
    line(source, "let negative = (input[scalar + 7u] >> 31u) == 1u;");
    // The sign is in the highest bit of the highest word.
    line(source, "let low = input[scalar + word] & select(0xffffffffu, 0x7fffffffu, word == 7u);");
    line(source, "var digit = low >> shift;");
    line(source, "if (shift + width > 32u && word < 7u) {");
    line(source, "let high = input[scalar + word + 1u] & select(0xffffffffu, 0x7fffffffu, word == 6u);");
    line(source, "digit |= high << (32u - shift);");
    line(source, "}");
    line(source, "digit = (digit & ((1u << width) - 1u)) + carry;");
    line(source, "let half = 1u << (width - 1u);");
    line(source, "carry = select(0u, 1u, digit > half);");
    line(source, "let magnitude = select(digit, (1u << width) - digit, digit > half);");
    line(source, "if (magnitude != 0u) {");
    line(source, &format!("let of_generator = row * {GENERATOR_MULTIPLES}u;"));
    line(
        source,
        &format!("let first = {GENERATOR_ENTRIES}u + input[at + {table}u] * {KEY_ENTRIES}u + row * {KEY_MULTIPLES}u;"),
    );
    line(source, "var term = table_read(select(of_generator, first, of_key) + magnitude - 1u);");
    line(source, "if ((digit > half) != negative) { term = point_opposite(term); }");
    line(source, "sum = point_add(sum, term);");
    line(source, "}");
    line(source, "}");
}

/// Appends a line.
fn line(source: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _written = writeln!(source, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Curve, Generator, KeyComb};

    #[test]
    fn every_kernel_knows_its_place() {
        for (place, kernel) in Kernel::ALL.into_iter().enumerate() {
            assert_eq!(kernel.index(), place);
        }
    }

    /// Making a kernel proves that nothing in it overflows; see `emit`.
    #[test]
    fn every_kernel_can_be_made_and_stays_small() {
        for kernel in Kernel::ALL {
            let source = kernel.source();
            let sites = source.matches("fe_mul(").count() + source.matches("fe_sq(").count();
            assert!(source.contains("fn main(") && sites <= 40, "{}: {sites} products", kernel.name());
        }
    }

    #[test]
    fn tables_have_the_shape_of_the_cpus() {
        assert_eq!(KeyComb::<<P256 as Curve>::Field>::BYTES, KEY_ENTRIES * 64);
        assert_eq!(P256::comb().points().len(), GENERATOR_ENTRIES);
    }
}
