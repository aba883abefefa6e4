//! Which blocks of the device are free.

/// A range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) block: u32,
    pub(crate) blocks: u32,
}

/// The blocks of a device: those in use, and those that a checkpoint on disk refers to.
///
/// Pages are never overwritten. A block can be written again once neither the tree, nor a retained version, nor a
/// checkpoint that an open may begin from refers to it.
#[derive(Debug, Default)]
pub(crate) struct Space {
    blocks: u32,
    used: Bitmap,
    /// What each checkpoint refers to, or did when it began; the oldest first.
    checkpoints: Vec<Bitmap>,
    /// In use or referred to.
    taken: Bitmap,
    taken_blocks: u32,
    /// Where the search for free blocks goes on: the next run lies behind the last, so writes are long.
    cursor: u32,
}

impl Space {
    /// A device of so many blocks, the first of which is its header.
    pub(crate) fn new(blocks: u32) -> Self {
        let mut space = Self::default();
        space.grow(blocks);
        space.mark(Run { block: 0, blocks: 1 });
        space
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Blocks that cannot be written.
    pub(crate) fn taken(&self) -> u32 {
        self.taken_blocks
    }

    pub(crate) fn grow(&mut self, blocks: u32) {
        self.blocks = blocks;
        self.used.grow(blocks);
        self.taken.grow(blocks);
    }

    /// Takes note of blocks in use that a table names: false when they are beyond the end, or in use already.
    #[must_use]
    pub(crate) fn claim(&mut self, run: Run) -> bool {
        let end = u64::from(run.block) + u64::from(run.blocks);
        if end > self.blocks.into() || (run.block..run.block + run.blocks).any(|block| self.used.has(block)) {
            return false;
        }
        self.mark(run);
        true
    }

    fn mark(&mut self, run: Run) {
        for block in run.block..run.block + run.blocks {
            self.used.set(block);
            if !self.taken.has(block) {
                self.taken.set(block);
                self.taken_blocks += 1;
            }
        }
    }

    /// Up to so many free blocks in a row, at least `least` of them; `None` when there are none.
    pub(crate) fn allocate(&mut self, least: u32, most: u32) -> Option<Run> {
        let run =
            self.find(self.cursor, self.blocks, least, most).or_else(|| self.find(0, self.blocks, least, most))?;
        self.mark(run);
        self.cursor = run.block + run.blocks;
        Some(run)
    }

    fn find(&self, from: u32, until: u32, least: u32, most: u32) -> Option<Run> {
        let mut block = from;
        while let Some(start) = self.taken.next_clear(block, until) {
            let mut end = start + 1;
            while end < until && end - start < most && !self.taken.has(end) {
                end += 1;
            }
            if end - start >= least {
                return Some(Run { block: start, blocks: end - start });
            }
            block = end;
        }
        None
    }

    /// Blocks that the tree and its versions need no more.
    pub(crate) fn release(&mut self, run: Run) {
        for block in run.block..run.block + run.blocks {
            debug_assert!(self.used.has(block));
            self.used.clear(block);
            if !self.checkpoints.iter().any(|checkpoint| checkpoint.has(block)) {
                self.taken.clear(block);
                self.taken_blocks -= 1;
            }
        }
    }

    /// Keeps everything that is in use now for a checkpoint.
    pub(crate) fn begin_checkpoint(&mut self) {
        self.checkpoints.push(self.used.clone());
    }

    /// Keeps blocks for a checkpoint that is older than what is in use.
    pub(crate) fn add_checkpoint(&mut self, runs: impl Iterator<Item = Run>) {
        let mut checkpoint = Bitmap::default();
        checkpoint.grow(self.blocks);
        for block in runs.flat_map(|run| run.block..run.block.saturating_add(run.blocks)) {
            if block < self.blocks {
                checkpoint.set(block);
            }
        }
        self.checkpoints.push(checkpoint);
        self.count();
    }

    /// The checkpoint that began last is complete: so many of the newest are kept on disk.
    pub(crate) fn keep_checkpoints(&mut self, generations: usize) {
        let gone = self.checkpoints.len().saturating_sub(generations);
        self.checkpoints.drain(..gone);
        self.count();
    }

    /// The checkpoint that began last came to nothing.
    pub(crate) fn abandon_checkpoint(&mut self) {
        self.checkpoints.pop();
        self.count();
    }

    fn count(&mut self) {
        self.taken = self.used.clone();
        for checkpoint in &self.checkpoints {
            self.taken.add(checkpoint);
        }
        self.taken_blocks = self.taken.count();
    }
}

#[derive(Clone, Debug, Default)]
struct Bitmap(Vec<u64>);

impl Bitmap {
    fn grow(&mut self, bits: u32) {
        self.0.resize((bits as usize).div_ceil(64), 0);
    }

    /// A bit; those beyond the end are clear.
    fn has(&self, bit: u32) -> bool {
        self.0.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    fn set(&mut self, bit: u32) {
        self.0[bit as usize / 64] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bit: u32) {
        self.0[bit as usize / 64] &= !(1 << (bit % 64));
    }

    fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The first clear bit in a range.
    fn next_clear(&self, from: u32, until: u32) -> Option<u32> {
        let mut bit = from;
        while bit < until {
            let word = self.0[bit as usize / 64] | ((1_u64 << (bit % 64)) - 1);
            let clear = word.trailing_ones();
            if clear < 64 {
                let found = bit / 64 * 64 + clear;
                return (found < until).then_some(found);
            }
            bit = (bit / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(space: &mut Space) -> Vec<u32> {
        let mut blocks = Vec::new();
        while let Some(run) = space.allocate(1, 7) {
            blocks.extend(run.block..run.block + run.blocks);
        }
        blocks.sort_unstable();
        blocks
    }

    #[test]
    fn every_block_is_given_once_and_never_the_header() {
        let mut space = Space::new(200);
        assert_eq!(all(&mut space), (1..200).collect::<Vec<_>>());
        assert_eq!(space.taken(), 200);
        space.release(Run { block: 70, blocks: 3 });
        assert!(space.allocate(4, 4).is_none());
        space.grow(210);
        assert_eq!(space.allocate(4, 4), Some(Run { block: 200, blocks: 4 }));
        assert_eq!(all(&mut space), (70..73).chain(204..210).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_checkpoint_refers_to_is_given_when_two_newer_ones_are_there() {
        let mut space = Space::new(64);
        let run = space.allocate(1, 1).expect("room");
        space.begin_checkpoint();
        space.keep_checkpoints(2);
        space.release(run);
        assert!(!all(&mut space).contains(&run.block));
        space.begin_checkpoint();
        space.keep_checkpoints(2);
        assert!(all(&mut space).is_empty());
        space.begin_checkpoint();
        assert!(all(&mut space).is_empty(), "an open may still begin from the oldest");
        space.keep_checkpoints(2);
        assert_eq!(all(&mut space), [run.block]);
    }

    #[test]
    fn a_checkpoint_that_failed_keeps_nothing() {
        let mut space = Space::new(8);
        let run = space.allocate(2, 2).expect("room");
        space.begin_checkpoint();
        space.release(run);
        assert_eq!(all(&mut space), [3, 4, 5, 6, 7]);
        space.abandon_checkpoint();
        assert_eq!(all(&mut space), [1, 2]);
        assert!(!space.claim(run) && !space.claim(Run { block: 7, blocks: 2 }));
    }
}
