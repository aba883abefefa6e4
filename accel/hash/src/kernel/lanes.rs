//! Feeds lanes with messages of any lengths.
//!
//! As long as messages have one length, as nodes of a tree do, each group of them goes through all lanes from beginning to
//! end. After that each lane hashes one message; all lanes advance together by as many blocks as lie in one piece in every
//! lane. A lane whose message ends takes the next one at once, so unequal lengths cost little. When messages run out and
//! only few lanes are left, the rest is hashed one at a time, which is then faster.

use crate::algorithm::{Digest, HashAlgorithm, digest};

/// Bytes of a block of either algorithm.
const BLOCK: usize = 64;

/// Longest prefix in bytes; it must leave room in the first block.
pub(super) const PREFIX_MAX: usize = BLOCK - 1;

pub(super) type Block = [u8; BLOCK];

/// Chaining values: word by word, one column for each lane.
#[repr(align(64))]
pub(super) struct State<const LANES: usize>(pub(super) [[u32; LANES]; 8]);

/// A compression function over all lanes.
pub(super) trait Compression<const LANES: usize> {
    const ALGORITHM: HashAlgorithm;
    const INITIAL: [u32; 8];
    /// With fewer lanes at work than this, one at a time is faster.
    const LANES_MIN: usize;

    /// Advances each lane by its blocks, as many as the shortest run has.
    ///
    /// # Safety
    /// The CPU has the instructions that the implementation names.
    unsafe fn compress(state: &mut State<LANES>, runs: &[&[Block]; LANES]);
}

/// Blocks of a message that do not lie whole in it: the first, if there is a prefix, and the last two.
type Buffer = [Block; 3];

/// One message under way.
#[derive(Clone, Copy)]
struct Lane<'a> {
    /// Where its digest goes.
    index: usize,
    /// Blocks that lie whole in the message.
    body: &'a [Block],
    /// Blocks before the body: 1 if prefix and message fill one.
    head_length: usize,
    /// Blocks after the body.
    tail_length: usize,
    /// Blocks done, over head, body and tail.
    done: usize,
}

impl<'a> Lane<'a> {
    // Inlined: a lane that is returned and copied is read back in wider pieces than it was written, and that stalls.
    #[inline(always)]
    fn start(index: usize, prefix: &[u8], message: &'a [u8], buffer: &mut Buffer) -> Self {
        let length = prefix.len() + message.len();
        let [head, tail @ ..] = buffer;
        let tail = tail.as_flattened_mut();
        let mut head_length = 0;
        let (body, rest_length) = if prefix.is_empty() || length >= BLOCK {
            let mut message = message;
            if !prefix.is_empty() {
                let (start, rest) = message.split_at(BLOCK - prefix.len());
                head[..prefix.len()].copy_from_slice(prefix);
                head[prefix.len()..].copy_from_slice(start);
                (message, head_length) = (rest, 1);
            }
            let (body, rest) = message.as_chunks();
            tail[..rest.len()].copy_from_slice(rest);
            (body, rest.len())
        } else {
            tail[..prefix.len()].copy_from_slice(prefix);
            tail[prefix.len()..length].copy_from_slice(message);
            (&[][..], length)
        };
        // FIPS 180-4 section 5.1.1 and GB/T 32905 section 5.2: a one bit, zeros, the length in bits.
        let tail_length = if rest_length + 9 <= BLOCK { 1 } else { 2 };
        let (padding, bits) =
            tail[rest_length..tail_length * BLOCK].split_at_mut(tail_length * BLOCK - 8 - rest_length);
        padding.fill(0);
        padding[0] = 0x80;
        bits.copy_from_slice(&((length as u64) << 3).to_be_bytes());
        Self { index, body, head_length, tail_length, done: 0 }
    }

    /// The next blocks that lie in one piece; not empty.
    fn run<'b>(&self, buffer: &'b Buffer) -> &'b [Block]
    where
        'a: 'b,
    {
        let [head, tail @ ..] = buffer;
        match self.done.checked_sub(self.head_length) {
            None => std::slice::from_ref(head),
            Some(next) if next < self.body.len() => &self.body[next..],
            Some(next) => &tail[next - self.body.len()..self.tail_length],
        }
    }

    /// Counts blocks; true when the message is done.
    fn advance(&mut self, blocks: usize) -> bool {
        self.done += blocks;
        self.done == self.head_length + self.body.len() + self.tail_length
    }
}

/// Hashes `prefix ‖ message(index)` into `digests[index]` for each index.
///
/// # Safety
/// The CPU has what [`Compression::compress`] asks for.
pub(super) unsafe fn digest_into<'a, C: Compression<LANES>, const LANES: usize>(
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
) {
    let mut buffers = [[[0; BLOCK]; 3]; LANES];
    // SAFETY: this function has the same condition.
    let first = unsafe { equal_groups::<C, LANES>(prefix, message, digests, &mut buffers) };
    let count = digests.len();
    let mut state = State(C::INITIAL.map(|word| [word; LANES]));
    let mut next = count.min(first + LANES);
    let mut active = next - first;
    let mut lanes: [Option<Lane<'a>>; LANES] = std::array::from_fn(|lane| {
        let index = first + lane;
        (index < count).then(|| Lane::start(index, prefix, message(index), &mut buffers[lane]))
    });
    while active > 0 && (next < count || active >= C::LANES_MIN) {
        let run = |lane: usize| lanes[lane].as_ref().map(|slot| slot.run(&buffers[lane]));
        let Some(shortest) = (0..LANES).filter_map(run).min_by_key(|run| run.len()) else { break };
        // An idle lane has no message left to take, so that its state counts no more.
        let runs: [&[Block]; LANES] = std::array::from_fn(|lane| run(lane).unwrap_or(shortest));
        let blocks = shortest.len();
        // SAFETY: this function has the same condition.
        unsafe { C::compress(&mut state, &runs) };
        for (column, slot) in lanes.iter_mut().enumerate() {
            let Some(lane) = slot else { continue };
            if !lane.advance(blocks) {
                continue;
            }
            digests[lane.index] = take_digest(&state, column);
            set_initial::<C, LANES>(&mut state, column);
            if next < count {
                *lane = Lane::start(next, prefix, message(next), &mut buffers[column]);
                next += 1;
            } else {
                *slot = None;
                active -= 1;
            }
        }
    }
    for lane in lanes.iter().flatten() {
        digests[lane.index] = digest(C::ALGORITHM, prefix, message(lane.index));
    }
}

/// Hashes whole groups of messages of one length, up to the first group that has several; returns how many messages.
///
/// # Safety
/// As [`digest_into`].
unsafe fn equal_groups<'a, C: Compression<LANES>, const LANES: usize>(
    prefix: &[u8],
    message: &dyn Fn(usize) -> &'a [u8],
    digests: &mut [Digest],
    buffers: &mut [Buffer; LANES],
) -> usize {
    let mut first = 0;
    for digests in digests.as_chunks_mut::<LANES>().0 {
        let messages: [&[u8]; LANES] = std::array::from_fn(|lane| message(first + lane));
        if messages.iter().any(|message| message.len() != messages[0].len()) {
            break;
        }
        let lanes: [Lane<'a>; LANES] =
            std::array::from_fn(|lane| Lane::start(first + lane, prefix, messages[lane], &mut buffers[lane]));
        let Lane { head_length, tail_length, .. } = lanes[0];
        let mut state = State(C::INITIAL.map(|word| [word; LANES]));
        let heads: [&[Block]; LANES] = std::array::from_fn(|lane| &buffers[lane][..head_length]);
        let bodies: [&[Block]; LANES] = std::array::from_fn(|lane| lanes[lane].body);
        let tails: [&[Block]; LANES] = std::array::from_fn(|lane| &buffers[lane][1..=tail_length]);
        for runs in [heads, bodies, tails] {
            // SAFETY: this function has the same condition.
            unsafe { C::compress(&mut state, &runs) };
        }
        for (column, digest) in digests.iter_mut().enumerate() {
            *digest = take_digest(&state, column);
        }
        first += LANES;
    }
    first
}

pub(super) fn take_digest<const LANES: usize>(state: &State<LANES>, column: usize) -> Digest {
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(&state.0) {
        *bytes = word[column].to_be_bytes();
    }
    digest
}

fn set_initial<C: Compression<LANES>, const LANES: usize>(state: &mut State<LANES>, column: usize) {
    for (word, initial) in state.0.iter_mut().zip(C::INITIAL) {
        word[column] = initial;
    }
}

/// The shortest of runs, in blocks.
pub(super) fn shortest<const LANES: usize>(runs: &[&[Block]; LANES]) -> usize {
    runs.iter().map(|run| run.len()).min().unwrap_or(0)
}

/// One block of each run.
#[inline(always)]
pub(super) fn blocks_at<'a, const LANES: usize>(runs: &[&'a [Block]; LANES], index: usize) -> [&'a Block; LANES] {
    let mut blocks = [&runs[0][index]; LANES];
    for (block, run) in blocks.iter_mut().zip(runs) {
        *block = &run[index];
    }
    blocks
}
