//! Digests and levels of trees as batches: how they are laid out for the kernels, and read back.

use std::ops::Range;

use bytes::Bytes;
use stele_accel_hash::{DIGEST_LENGTH, Digest, HashAlgorithm};

use crate::{
    gpu::{Answer, BLOCK_WORDS, Batch, Kernel, Parameters, Pass, TAGGED_DIGEST_WORDS},
    guard::tag,
};

/// Bytes of a block of either hash function.
const BLOCK_BYTES: usize = 4 * BLOCK_WORDS;

/// Bytes of padding at least: a bit and the length.
const PADDING_BYTES: usize = 9;

/// Bytes in front of the blocks for each message: where its first block is and how many they are.
const HEADER_BYTES: usize = 8;

/// Blocks of the longest message that goes to the device, 64 KiB: one invocation hashes a whole message, and each batch
/// must end well within a second.
pub(crate) const MESSAGE_BLOCKS_MAX: usize = 1 << 10;

/// Blocks of a message of this length, prefix included.
pub(crate) const fn blocks(length: usize) -> usize {
    (length + PADDING_BYTES).div_ceil(BLOCK_BYTES)
}

/// Bytes that a batch of so many messages takes of a slot, of its input or its output, whichever is more.
pub(crate) fn digest_bytes(messages: usize, blocks: usize) -> usize {
    (messages * HEADER_BYTES + blocks * BLOCK_BYTES).max(messages * 4 * TAGGED_DIGEST_WORDS)
}

/// Digests under way.
#[derive(Debug)]
pub(crate) struct Digests {
    nonce: [u32; 2],
    /// Which message has which place in the batch: neighbours take the same number of blocks, so that no lane waits.
    order: Vec<usize>,
}

impl Digests {
    /// The batch that hashes `prefix ‖ message` for each message.
    pub(crate) fn pack(
        algorithm: HashAlgorithm,
        prefix: &[u8],
        messages: &[&[u8]],
        nonce: [u32; 2],
    ) -> Option<(Batch, Self)> {
        let lengths: Vec<usize> = messages.iter().map(|message| prefix.len() + message.len()).collect();
        let mut order: Vec<usize> = (0..messages.len()).collect();
        order.sort_by_key(|index| blocks(lengths[*index]));
        let total: usize = lengths.iter().map(|length| blocks(*length)).sum();
        let mut input = Vec::with_capacity(messages.len() * HEADER_BYTES + total * BLOCK_BYTES);
        let mut word = messages.len() * HEADER_BYTES / 4;
        for index in &order {
            let blocks = blocks(lengths[*index]);
            input.extend_from_slice(&u32::try_from(word).ok()?.to_le_bytes());
            input.extend_from_slice(&u32::try_from(blocks).ok()?.to_le_bytes());
            word += blocks * BLOCK_WORDS;
        }
        for index in &order {
            let end = input.len() + blocks(lengths[*index]) * BLOCK_BYTES;
            input.extend_from_slice(prefix);
            input.extend_from_slice(messages[*index]);
            input.push(0x80);
            input.resize(end - 8, 0);
            input.extend_from_slice(&(8 * lengths[*index] as u64).to_be_bytes());
        }
        let count = u32::try_from(messages.len()).ok()?;
        let parameters = Parameters { count, nonce, ..Parameters::default() };
        let passes = vec![Pass { kernel: Kernel::Digest(algorithm), parameters }];
        let batch =
            Batch { input: vec![input.into()], passes, output: 0..messages.len() * TAGGED_DIGEST_WORDS, suite: None };
        Some((batch, Self { nonce, order }))
    }

    /// The digests in the order of the messages, or `None` if a tag is wrong.
    pub(crate) fn unpack(&self, answer: &Answer) -> Option<Vec<Digest>> {
        let found = tag::digests(self.nonce, 0, &answer.words)?;
        let mut digests = vec![[0; DIGEST_LENGTH]; self.order.len()];
        if found.len() != digests.len() {
            return None;
        }
        for (index, digest) in self.order.iter().zip(found) {
            digests[*index] = digest;
        }
        Some(digests)
    }
}

/// Levels of a tree under way.
#[derive(Debug)]
pub(crate) struct Levels {
    nonce: [u32; 2],
    /// Nodes of each level that is read back, from the lowest.
    lengths: Vec<usize>,
    /// Place of the first node that is read back.
    first: usize,
}

impl Levels {
    /// The batch that computes so many levels over leaf hashes, of which at least two are there, one after the other. All
    /// levels are read back, or the last alone.
    pub(crate) fn pack(
        algorithm: HashAlgorithm,
        leaves: Bytes,
        height: u32,
        keep: bool,
        nonce: [u32; 2],
    ) -> Option<(Batch, Self)> {
        let mut passes = Vec::new();
        let mut lengths = Vec::new();
        let (mut below, mut target, mut below_count) = (0, 0, leaves.len() / DIGEST_LENGTH);
        for level in 0..height {
            let count = below_count.div_ceil(2);
            let kernel = if level == 0 { Kernel::FirstLevel(algorithm) } else { Kernel::NextLevel(algorithm) };
            let [count_word, below_count_word, below_word, target_word] =
                [count, below_count, below, target].map(|number| u32::try_from(number).ok());
            let parameters = Parameters {
                count: count_word?,
                nonce,
                below_count: below_count_word?,
                below: below_word?,
                target: target_word?,
                ladder: 0,
            };
            passes.push(Pass { kernel, parameters });
            lengths.push(count);
            (below, target, below_count) = (target, target + count, count);
        }
        let first = if keep { 0 } else { below };
        if !keep {
            lengths.drain(..lengths.len().saturating_sub(1));
        }
        let output = Range { start: first * TAGGED_DIGEST_WORDS, end: target * TAGGED_DIGEST_WORDS };
        let batch = Batch { input: vec![leaves], passes, output, suite: None };
        Some((batch, Self { nonce, lengths, first }))
    }

    /// The levels that were read back, from the lowest, or `None` if a tag is wrong.
    pub(crate) fn unpack(&self, answer: &Answer) -> Option<Vec<Vec<Digest>>> {
        let mut nodes = tag::digests(self.nonce, u32::try_from(self.first).ok()?, &answer.words)?.into_iter();
        let levels: Vec<Vec<Digest>> =
            self.lengths.iter().map(|length| nodes.by_ref().take(*length).collect()).collect();
        let whole = levels.iter().zip(&self.lengths).all(|(level, length)| level.len() == *length);
        (whole && nodes.next().is_none()).then_some(levels)
    }
}
