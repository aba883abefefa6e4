//! Spans into a flat arena: the shape in which bulk work travels.

use thiserror::Error;

/// A stretch of bytes inside an arena. 32 bits each, so that the same array can be given to a GPU;
/// an arena is therefore at most 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte, counted from the start of the arena.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
}

/// A span that does not lie inside its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("span {offset}+{length} lies outside an arena of {arena} bytes")]
pub struct SpanError {
    /// First byte of the span.
    pub offset: u32,
    /// Length of the span.
    pub length: u32,
    /// Length of the arena.
    pub arena: usize,
}

impl Span {
    /// Appends `bytes` to `arena` and returns where they lie, or `None` when the arena would pass 4 GiB
    /// (it is then unchanged).
    pub fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Option<Self> {
        let offset = u32::try_from(arena.len()).ok()?;
        let length = u32::try_from(bytes.len()).ok()?;
        offset.checked_add(length)?;
        arena.extend_from_slice(bytes);
        Some(Self { offset, length })
    }

    /// The bytes of this span.
    ///
    /// # Errors
    /// [`SpanError`] when the span does not lie inside `arena`.
    pub fn slice(self, arena: &[u8]) -> Result<&[u8], SpanError> {
        let error = SpanError { offset: self.offset, length: self.length, arena: arena.len() };
        let start = usize::try_from(self.offset).map_err(|_| error)?;
        let length = usize::try_from(self.length).map_err(|_| error)?;
        let end = start.checked_add(length).ok_or(error)?;
        arena.get(start..end).ok_or(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_outside_the_arena_is_an_error() {
        let arena = [1u8, 2, 3];
        assert_eq!(Span { offset: 1, length: 2 }.slice(&arena), Ok(&[2u8, 3][..]));
        assert_eq!(Span { offset: 3, length: 0 }.slice(&arena), Ok(&[][..]));
        assert!(Span { offset: 2, length: 2 }.slice(&arena).is_err());
        assert!(Span { offset: u32::MAX, length: u32::MAX }.slice(&arena).is_err());
    }

    #[test]
    fn appended_bytes_are_found_again() {
        let mut arena = vec![9u8];
        let span = Span::append(&mut arena, b"abc").expect("small");
        assert_eq!(span.slice(&arena), Ok(&b"abc"[..]));
    }
}
