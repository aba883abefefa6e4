//! Pages: the unit in which a table is read.
//!
//! | bytes | content, integers big-endian |
//! |---|---|
//! | 4 | CRC-32C of what follows |
//! | 4, 8 | number of the page, number of the table: a page from elsewhere is none |
//! | 16 | which entries are removals, the first one's bit the lowest |
//! | 127 × 32 | entries in the order of their keys: first half of the key (16), location (16); zeros behind the last |

use super::entry::{ENTRY_BYTES, Entry, Location, PREFIX_BYTES, Prefix};

/// Bytes of a page: what a flash drive reads at once.
pub(super) const PAGE_BYTES: usize = 4096;

const HEAD_BYTES: usize = 32;
const CRC_BYTES: usize = 4;

/// Entries of a page; only the last page of a table has fewer.
pub(super) const PAGE_ENTRIES: usize = (PAGE_BYTES - HEAD_BYTES) / ENTRY_BYTES;

pub(super) type PageBytes = [u8; PAGE_BYTES];

/// A page whose checksum is right.
#[derive(Clone, Copy)]
pub(super) struct Page<'b> {
    bytes: &'b PageBytes,
    removed: u128,
    entries: usize,
}

impl<'b> Page<'b> {
    /// The page of so many entries, or what is wrong with it.
    pub(super) fn decode(bytes: &'b PageBytes, table: u64, number: u32, entries: usize) -> Result<Self, &'static str> {
        let field = |from: usize| &bytes[from..];
        let crc = u32::from_be_bytes(*field(0).first_chunk().expect("a page is longer"));
        if crc != crc_fast::crc32_iscsi(&bytes[CRC_BYTES..]) {
            return Err("the checksum of a page does not match");
        }
        if field(4)[..4] != number.to_be_bytes() || field(8)[..8] != table.to_be_bytes() {
            return Err("a page belongs elsewhere");
        }
        let removed = u128::from_be_bytes(*field(16).first_chunk().expect("a page is longer"));
        Ok(Self { bytes, removed, entries: entries.min(PAGE_ENTRIES) })
    }

    pub(super) fn entries(self) -> impl Iterator<Item = Entry> + 'b {
        (0..self.entries).map(move |index| Entry { prefix: self.prefix(index), location: self.location(index) })
    }

    /// What the page knows of a key: nothing, its removal, or its location.
    pub(super) fn find(self, prefix: Prefix) -> Option<Option<Location>> {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low.midpoint(high);
            if self.prefix(middle) < prefix {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.entries && self.prefix(low) == prefix).then(|| self.location(low))
    }

    fn prefix(self, index: usize) -> Prefix {
        Prefix::from_be_bytes(*self.bytes[place(index)..].first_chunk().expect("an entry lies in the page"))
    }

    fn location(self, index: usize) -> Option<Location> {
        let bytes = &self.bytes[place(index) + PREFIX_BYTES..];
        (self.removed >> index & 1 == 0).then(|| *bytes.first_chunk().expect("an entry lies in the page"))
    }
}

fn place(index: usize) -> usize {
    HEAD_BYTES + index * ENTRY_BYTES
}

/// Appends a page of entries, of which there are at most [`PAGE_ENTRIES`], in order; returns its checksum.
pub(super) fn encode(bytes: &mut Vec<u8>, table: u64, number: u32, entries: &[Entry]) -> u32 {
    assert!(!entries.is_empty() && entries.len() <= PAGE_ENTRIES, "a page has entries, and room for them");
    let start = bytes.len();
    let removals = entries.iter().enumerate().filter(|(_, entry)| entry.location.is_none());
    let removed = removals.fold(0_u128, |removed, (index, _)| removed | 1 << index);
    bytes.extend_from_slice(&[0; CRC_BYTES]);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&table.to_be_bytes());
    bytes.extend_from_slice(&removed.to_be_bytes());
    for entry in entries {
        bytes.extend_from_slice(&entry.prefix.to_be_bytes());
        bytes.extend_from_slice(&entry.location.unwrap_or_default());
    }
    bytes.resize(start + PAGE_BYTES, 0);
    let crc = crc_fast::crc32_iscsi(&bytes[start + CRC_BYTES..]);
    bytes[start..start + CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_finds_its_entries_and_is_refused_elsewhere() {
        let entry = |number: u8| Entry {
            prefix: Prefix::from(number) * 2,
            location: (!number.is_multiple_of(3)).then_some([number; size_of::<Location>()]),
        };
        for count in [1, 2, 126, 127] {
            let entries: Vec<Entry> = (0..count).map(entry).collect();
            let mut bytes = Vec::new();
            encode(&mut bytes, 7, 5, &entries);
            let bytes: PageBytes = bytes.try_into().unwrap();
            let page = Page::decode(&bytes, 7, 5, entries.len()).unwrap();
            assert!(page.entries().eq(entries.iter().copied()));
            for entry in &entries {
                assert_eq!(page.find(entry.prefix), Some(entry.location));
                assert_eq!(page.find(entry.prefix + 1), None);
            }
            assert!(Page::decode(&bytes, 7, 6, entries.len()).is_err());
            assert!(Page::decode(&bytes, 8, 5, entries.len()).is_err());
        }
    }
}
