//! Keys, locations, and what a table holds of them.

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// Bytes of a location.
pub const LOCATION_BYTES: usize = 16;

/// Bytes of a key that the index keeps.
pub const PREFIX_BYTES: usize = 16;

/// The content root of an object: a uniform hash.
pub type Key = [u8; KEY_BYTES];

/// Where an object lies. The store knows what it means.
pub type Location = [u8; LOCATION_BYTES];

/// The first bytes of a key, all that is kept of it.
pub type KeyPrefix = [u8; PREFIX_BYTES];

/// Bytes of an entry in a page.
pub(super) const ENTRY_BYTES: usize = PREFIX_BYTES + LOCATION_BYTES;

/// A key's first bytes as a number, in the order of the keys.
pub(super) type Prefix = u128;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) prefix: Prefix,
    /// `None`: the key was removed.
    pub(super) location: Option<Location>,
}

pub(super) fn prefix_of(key: &Key) -> Prefix {
    Prefix::from_be_bytes(*key.first_chunk().expect("a key is longer than what is kept of it"))
}

/// The shard of a key among `shards`, a power of two: the first bits of the key.
pub(super) fn shard_of(prefix: Prefix, shards: u16) -> usize {
    let [first, second, ..] = prefix.to_be_bytes();
    usize::from(u16::from_be_bytes([first, second])) >> (u16::BITS - shards.trailing_zeros())
}

/// Takes the next bytes of what is decoded.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_ranges_of_keys_in_order() {
        for shards in [1, 2, 16, 256] {
            assert_eq!(shard_of(0, shards), 0);
            assert_eq!(shard_of(Prefix::MAX, shards), usize::from(shards) - 1);
            let middle = 1 << (Prefix::BITS - 1);
            assert_eq!((shard_of(middle - 1, shards) + 1) % usize::from(shards), shard_of(middle, shards));
        }
    }
}
