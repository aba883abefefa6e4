//! Where a statement lies: the height of its block and its position in that block.

/// Largest height that a packed [`Location`] can hold (40 bits: at one block a second, 34,000 years).
pub const HEIGHT_MAX: u64 = (1 << 40) - 1;

/// Largest position in a block that a packed [`Location`] can hold (24 bits; blocks of 64 MiB hold far
/// fewer statements than 16.7 million).
pub const POSITION_MAX: u32 = (1 << 24) - 1;

/// Position of one statement on the chain, ordered by height, then by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    height: u64,
    position: u32,
}

impl Location {
    /// Bytes of a packed location.
    pub const BYTES: usize = 8;

    /// A location, or `None` where `height` exceeds [`HEIGHT_MAX`] or `position` [`POSITION_MAX`].
    #[must_use]
    pub fn new(height: u64, position: u32) -> Option<Self> {
        (height <= HEIGHT_MAX && position <= POSITION_MAX).then_some(Self { height, position })
    }

    /// Height of the block.
    #[must_use]
    pub fn height(self) -> u64 {
        self.height
    }

    /// Position of the statement in its block, counted from zero.
    #[must_use]
    pub fn position(self) -> u32 {
        self.position
    }

    /// Height in the upper 40 bits, position in the lower 24: packed values order as locations do.
    #[must_use]
    pub fn pack(self) -> u64 {
        self.height << 24 | u64::from(self.position)
    }

    /// Inverse of [`Location::pack`]; every `u64` is a location.
    #[must_use]
    pub fn unpack(packed: u64) -> Self {
        let position = u32::try_from(packed & u64::from(POSITION_MAX)).expect("masked to 24 bits");
        Self { height: packed >> 24, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_locations_return_and_keep_their_order() {
        let corners = [(0, 0), (0, POSITION_MAX), (1, 0), (77, 5), (HEIGHT_MAX, 0), (HEIGHT_MAX, POSITION_MAX)];
        let packed: Vec<u64> =
            corners.iter().map(|&(height, position)| Location::new(height, position).unwrap().pack()).collect();
        assert!(packed.is_sorted());
        for (&(height, position), &packed) in corners.iter().zip(&packed) {
            let back = Location::unpack(packed);
            assert_eq!((back.height(), back.position()), (height, position));
        }
        assert_eq!(packed[5], u64::MAX);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Location::new(HEIGHT_MAX + 1, 0), None);
        assert_eq!(Location::new(0, POSITION_MAX + 1), None);
    }
}
