//! The kernels, as WGSL text from small generators.
//!
//! Drivers inline every function, and their time to compile grows faster than the text; so what repeats is a loop, and
//! long work is several kernels with their state in a buffer. 64-bit integers live in registers alone: buffers hold
//! 32-bit words, because support for wider memory operations differs between drivers.

mod hash;

use std::fmt::Write as _;

use stele_accel_hash::HashAlgorithm;

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
}

/// Parameters of one pass, the same shape for all kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Items of this pass.
    pub(crate) count: u32,
    /// Makes tags of this batch unlike those of any other.
    pub(crate) nonce: [u32; 2],
    /// Levels of a tree: nodes in the level below.
    pub(crate) below_count: u32,
    /// Where the level below starts in the output, in nodes.
    pub(crate) below: u32,
    /// Where results go in the output, in nodes.
    pub(crate) target: u32,
}

impl Parameters {
    /// Length in bytes.
    pub(crate) const BYTES: usize = 4 * 6;

    /// As the kernels read it.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let words = [self.count, self.nonce[0], self.nonce[1], self.below_count, self.below, self.target];
        let mut bytes = [0; Self::BYTES];
        for (part, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *part = word.to_le_bytes();
        }
        bytes
    }
}

impl Kernel {
    /// All kernels, in the order in which they are compiled.
    pub(crate) const ALL: [Self; 6] = [
        Self::FirstLevel(HashAlgorithm::Sha256),
        Self::NextLevel(HashAlgorithm::Sha256),
        Self::Digest(HashAlgorithm::Sha256),
        Self::FirstLevel(HashAlgorithm::Sm3),
        Self::NextLevel(HashAlgorithm::Sm3),
        Self::Digest(HashAlgorithm::Sm3),
    ];

    /// Position in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|kernel| *kernel == self).unwrap_or(usize::MAX)
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
        }
    }

    /// The whole text of the module, whose entry point is `main`.
    pub(crate) fn source(self) -> String {
        let mut source = String::from(PRELUDE);
        match self {
            Self::Digest(algorithm) => hash::digest(&mut source, algorithm),
            Self::FirstLevel(algorithm) => hash::level(&mut source, algorithm, true),
            Self::NextLevel(algorithm) => hash::level(&mut source, algorithm, false),
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
}
var<immediate> parameters: Parameters;
@group(0) @binding(0) var<storage, read> input: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;

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

/// Appends a line.
fn line(source: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _written = writeln!(source, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_knows_its_place() {
        for (place, kernel) in Kernel::ALL.into_iter().enumerate() {
            assert_eq!(kernel.index(), place);
        }
    }
}
