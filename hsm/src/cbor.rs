//! Reads the deterministic CBOR of signing bytes (RFC 8949 section 4.2.1), no more than they use.

/// Deepest nesting of a value that is passed over; protected headers have two levels.
const DEPTH_MAX: u32 = 4;

/// A cursor over signing bytes. Every method is `None` when the next item is something else or is not in
/// its shortest form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that were not read yet.
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Number of elements of a definite array.
    pub(crate) fn array(&mut self) -> Option<u64> {
        self.head(4)
    }

    /// Number of pairs of a definite map.
    pub(crate) fn map(&mut self) -> Option<u64> {
        self.head(5)
    }

    pub(crate) fn unsigned(&mut self) -> Option<u64> {
        self.head(0)
    }

    /// A signed integer: a map label.
    pub(crate) fn integer(&mut self) -> Option<i64> {
        match self.rest.first()? >> 5 {
            0 => i64::try_from(self.head(0)?).ok(),
            1 => Some(-1 - i64::try_from(self.head(1)?).ok()?),
            _ => None,
        }
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.head(2)?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.head(3)?;
        self.take(length)
    }

    /// A byte string of 32 bytes.
    pub(crate) fn hash(&mut self) -> Option<[u8; 32]> {
        self.bytes()?.try_into().ok()
    }

    /// A value or null.
    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        /// Simple value 22.
        const NULL: u8 = 0xf6;
        if let Some((&NULL, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Some(None);
        }
        read(self).map(Some)
    }

    /// Passes over one value of any type that signing bytes use.
    pub(crate) fn skip(&mut self) -> Option<()> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: u32) -> Option<()> {
        match self.rest.first()? >> 5 {
            major @ (0 | 1) => self.head(major).map(drop),
            2 => self.bytes().map(drop),
            3 => self.text().map(drop),
            // Each element takes at least a byte, so the count is bounded by what is there.
            4 if depth < DEPTH_MAX => (0..self.array()?).try_for_each(|_| self.skip_at(depth + 1)),
            5 if depth < DEPTH_MAX => (0..self.map()?).try_for_each(|_| {
                self.skip_at(depth + 1)?;
                self.skip_at(depth + 1)
            }),
            _ => None,
        }
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    /// The argument of an item of this major type, in shortest form.
    fn head(&mut self, major: u8) -> Option<u64> {
        let (&first, rest) = self.rest.split_first()?;
        if first >> 5 != major {
            return None;
        }
        let (argument, least, rest) = match first & 0x1f {
            small @ 0..=23 => (u64::from(small), 0, rest),
            24 => {
                let (&byte, rest) = rest.split_first()?;
                (u64::from(byte), 24, rest)
            }
            25 => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*bytes)), 1 << 8, rest)
            }
            26 => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (u64::from(u32::from_be_bytes(*bytes)), 1 << 16, rest)
            }
            27 => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*bytes), 1 << 32, rest)
            }
            _ => return None,
        };
        if argument < least {
            return None;
        }
        self.rest = rest;
        Some(argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_in_shortest_form_only() {
        // RFC 8949 appendix A.
        for (bytes, value) in [
            (&b"\x00"[..], 0i64),
            (b"\x17", 23),
            (b"\x18\x18", 24),
            (b"\x19\x03\xe8", 1000),
            (b"\x1a\x00\x0f\x42\x40", 1_000_000),
            (b"\x1b\x00\x00\x00\xe8\xd4\xa5\x10\x00", 1_000_000_000_000),
            (b"\x20", -1),
            (b"\x38\x63", -100),
            (b"\x39\x03\xe7", -1000),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.integer(), Some(value));
            assert!(reader.is_at_end());
        }
        for bytes in [&b"\x18\x17"[..], b"\x19\x00\xff", b"\x1a\x00\x00\xff\xff", b"\x1f", b"\x18", b""] {
            assert_eq!(Reader::new(bytes).integer(), None, "{bytes:02x?}");
        }
        assert_eq!(Reader::new(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff").integer(), None);
    }

    #[test]
    fn a_count_that_nothing_backs_ends_at_once() {
        let mut reader = Reader::new(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00");
        assert_eq!(reader.skip(), None);
        let mut reader = Reader::new(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x00");
        assert_eq!(reader.skip(), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let mut reader = Reader::new(&[0x81; 100_000]);
        assert_eq!(reader.skip(), None);
        let mut reader = Reader::new(b"\xa1\x01\x82\x02\x41\xff\x05");
        assert_eq!(reader.skip(), Some(()));
        assert_eq!(reader.unsigned(), Some(5));
    }
}
