//! How many bytes of pairs lie in which range of keys.

use stele_merkle::state::Key;

use crate::snapshot::SNAPSHOT_DEPTH_MAX;

const RANGES: usize = 1 << SNAPSHOT_DEPTH_MAX;

/// Bytes of pairs, as files hold them, in every range of the finest division of a snapshot.
///
/// Keys are hashes of what others choose, and whoever tries long enough puts many into one range. So a snapshot's division
/// follows what the ranges hold, not what they would hold if keys were uniform. It takes 8 MiB, of which the system gives a
/// small map little.
#[derive(Debug)]
pub(crate) struct RangeSizes {
    total: u64,
    ranges: Vec<u64>,
}

impl RangeSizes {
    pub(super) fn new() -> Self {
        Self { total: 0, ranges: vec![0; RANGES] }
    }

    /// Bytes of all pairs.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of the fullest range of each depth.
    pub(crate) fn fullest(&self) -> [u64; SNAPSHOT_DEPTH_MAX as usize + 1] {
        let mut fullest = [0; SNAPSHOT_DEPTH_MAX as usize + 1];
        let mut level = self.ranges.clone();
        for most in fullest.iter_mut().rev() {
            *most = level.iter().copied().max().unwrap_or(0);
            level = level.as_chunks::<2>().0.iter().map(|[left, right]| left + right).collect();
        }
        fullest
    }

    /// A pair, or a page of them at a place of that depth, came. What lies above the finest division counts for the first
    /// range below its place, and only a range with no other page is then taken for emptier than it is.
    pub(super) fn add(&mut self, key: &Key, depth: usize, bytes: u64) {
        self.total += bytes;
        self.ranges[range(key, depth)] += bytes;
    }

    /// The inverse of [`RangeSizes::add`].
    pub(super) fn remove(&mut self, key: &Key, depth: usize, bytes: u64) {
        self.total -= bytes;
        let range = &mut self.ranges[range(key, depth)];
        // A crafted table may say that a page is elsewhere than its keys.
        *range = range.saturating_sub(bytes);
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.ranges.len() * size_of::<u64>()
    }
}

/// The first range of the finest division that the place of a key at a depth reaches into.
fn range(key: &Key, depth: usize) -> usize {
    let [first, second, third, fourth, ..] = *key;
    let bits = u32::from_be_bytes([first, second, third, fourth]) >> (32 - u32::from(SNAPSHOT_DEPTH_MAX));
    let below = usize::from(SNAPSHOT_DEPTH_MAX).saturating_sub(depth);
    bits as usize >> below << below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_for_the_first_range_below_it() {
        let mut key = [0xff; 32];
        assert_eq!((range(&key, 256), range(&key, 20), range(&key, 0)), (RANGES - 1, RANGES - 1, 0));
        assert_eq!((range(&key, 19), range(&key, 1)), (RANGES - 2, RANGES / 2));
        key[2] = 0x1f;
        assert_eq!(range(&key, 20), 0xffff1);
    }

    #[test]
    fn the_fullest_range_of_each_depth_is_found_and_forgotten() {
        let mut sizes = RangeSizes::new();
        sizes.add(&[0x80; 32], 256, 10);
        sizes.add(&[0x90; 32], 256, 10);
        sizes.add(&[0x00; 32], 256, 15);
        let fullest = sizes.fullest();
        assert_eq!(
            (sizes.total(), fullest[0], fullest[1], fullest[3], fullest[4], fullest[20]),
            (35, 35, 20, 20, 15, 15)
        );
        sizes.remove(&[0x00; 32], 256, 15);
        assert_eq!((sizes.total(), sizes.fullest()[20]), (20, 10));
    }
}
