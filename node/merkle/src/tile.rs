//! C2SP tlog-tiles: the log as static files that any cache can serve.
//!
//! A hash tile of level L and index N holds up to 256 hashes of tree level 8·L; an entry bundle of index N holds up
//! to 256 entries. A tile that is not full yet has a path of its own (`.p/<width>`), so that a path names the same
//! bytes for ever. The paths of this module are relative: `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`, with N
//! in groups of three digits, all but the last group marked with an `x` (1234067 is `x001/x234/067`).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::log::{HashSource, LogError, SIZE_MAX};
use crate::{HASH_BYTES, Hash};

/// Hashes of a full tile, entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Tree levels that one tile level spans.
const TILE_HEIGHT: u8 = 8;

/// The highest tile level in a tree of at most [`SIZE_MAX`] leaves. The format itself allows up to 63, but no such
/// tile can exist.
pub const TILE_LEVEL_MAX: u8 = 7;

/// The longest path that this module writes or reads: `tile/entries/`, seven groups of three digits, `.p/255`.
pub const TILE_PATH_BYTES_MAX: usize = 64;

/// The longest entry a bundle can carry: its length prefix has 16 bits.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TileKind {
    /// Hashes of tree level 8 · `level`.
    Hashes {
        /// Tile level, at most [`TILE_LEVEL_MAX`].
        level: u8,
    },
    /// Entries, with 16-bit length prefixes.
    Entries,
}

/// Address of one tile or entry bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile of this kind, index and width.
    ///
    /// # Errors
    /// [`TileError`] when the level is above [`TILE_LEVEL_MAX`], the width is not in 1..=256, or the tile lies beyond
    /// a tree of [`SIZE_MAX`] leaves.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        if let TileKind::Hashes { level } = kind
            && level > TILE_LEVEL_MAX
        {
            return Err(TileError::Level { level });
        }
        if width == 0 || width > TILE_WIDTH {
            return Err(TileError::Width { width });
        }
        let tile = Self { kind, index, width };
        match tile.leaves_needed() {
            Some(leaves) if leaves <= SIZE_MAX => Ok(tile),
            _ => Err(TileError::Index { index }),
        }
    }

    /// The tile that holds hash `index` of tree level 8 · `level` in a tree of `size` leaves, at its present width, or
    /// `None` when the tree has no such hash.
    #[must_use]
    pub fn covering(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let level = match kind {
            TileKind::Hashes { level } if level > TILE_LEVEL_MAX => return None,
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let count = size >> (level * TILE_HEIGHT);
        if index >= count {
            return None;
        }
        let tile = index / u64::from(TILE_WIDTH);
        let width = (count - tile * u64::from(TILE_WIDTH)).min(u64::from(TILE_WIDTH));
        Self::new(kind, tile, u16::try_from(width).ok()?).ok()
    }

    /// Whether it holds hashes or entries.
    #[must_use]
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Index of the tile at its level.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Number of hashes or entries, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Index of the first hash (at tree level 8·L) or entry.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.index * u64::from(TILE_WIDTH)
    }

    /// Whether a tree of `size` leaves has all of this tile.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        self.leaves_needed().is_some_and(|leaves| leaves <= size)
    }

    /// The relative path, see the module's head.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(TILE_PATH_BYTES_MAX);
        // Writing to a String cannot fail.
        let _ = write!(path, "{self}");
        path
    }

    /// Reads a path as [`Tile::path`] writes it and no other: no leading zeros, no superfluous groups, no width 0 or
    /// 256.
    ///
    /// # Errors
    /// [`TileError::Path`], or what [`Tile::new`] refuses.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        if path.len() > TILE_PATH_BYTES_MAX {
            return Err(TileError::Path);
        }
        let (level, rest) = path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(TileError::Path)?;
        let kind = match level {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes {
                level: decimal(level).and_then(|level| u8::try_from(level).ok()).ok_or(TileError::Path)?,
            },
        };
        let (number, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((number, width)) => match decimal(width).and_then(|width| u16::try_from(width).ok()) {
                Some(width) if width > 0 && width < TILE_WIDTH => (number, width),
                _ => return Err(TileError::Path),
            },
        };
        Self::new(kind, parse_number(number).ok_or(TileError::Path)?, width)
    }

    /// The bytes of a hash tile: its hashes one after the other.
    ///
    /// # Errors
    /// [`LogError::Missing`] when the source lacks a hash; for an entry bundle always, at level 0 (its entries are not
    /// hashes: use [`entry_bundle`]).
    pub fn hash_bytes(&self, source: &impl HashSource) -> Result<Vec<u8>, LogError> {
        let TileKind::Hashes { level } = self.kind else {
            return Err(LogError::Missing { level: 0, index: self.first() });
        };
        let level = level * TILE_HEIGHT;
        let mut bytes = Vec::with_capacity(usize::from(self.width) * HASH_BYTES);
        for offset in 0..self.width {
            let index = self.first() + u64::from(offset);
            bytes.extend_from_slice(&source.hash(level, index).ok_or(LogError::Missing { level, index })?);
        }
        Ok(bytes)
    }

    /// Leaves of the smallest tree that has this tile, `None` when that is beyond 64 bits.
    fn leaves_needed(&self) -> Option<u64> {
        let end = self.index.checked_mul(u64::from(TILE_WIDTH))?.checked_add(u64::from(self.width))?;
        match self.kind {
            TileKind::Entries => Some(end),
            TileKind::Hashes { level } => end.checked_mul(1 << (level * TILE_HEIGHT)),
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let groups = self.index.checked_ilog(1000).unwrap_or(0);
        for group in (1..=groups).rev() {
            write!(f, "x{:03}/", self.index / 1000_u64.pow(group) % 1000)?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// The hashes of a hash tile's bytes.
///
/// # Errors
/// [`TileError::Length`] when the bytes are not exactly `width` hashes.
pub fn parse_hash_bytes(bytes: &[u8], width: u16) -> Result<&[Hash], TileError> {
    match bytes.as_chunks::<HASH_BYTES>() {
        (hashes, []) if hashes.len() == usize::from(width) => Ok(hashes),
        _ => Err(TileError::Length { found: bytes.len() }),
    }
}

/// The bytes of an entry bundle: each entry behind its length, 16 bits big-endian.
///
/// # Errors
/// [`TileError`] when an entry is longer than [`ENTRY_BYTES_MAX`], or there are none or more than 256.
pub fn entry_bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, TileError> {
    let mut bytes = Vec::new();
    let mut width = 0_u16;
    for entry in entries {
        width += 1;
        if width > TILE_WIDTH {
            return Err(TileError::Width { width });
        }
        let length = u16::try_from(entry.len()).map_err(|_| TileError::Entry { length: entry.len() })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    if width == 0 { Err(TileError::Width { width }) } else { Ok(bytes) }
}

/// The `width` entries of a bundle's bytes.
///
/// # Errors
/// [`TileError::Length`] when the bytes are not exactly that many entries.
pub fn parse_entry_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    if width == 0 || width > TILE_WIDTH {
        return Err(TileError::Width { width });
    }
    let malformed = TileError::Length { found: bytes.len() };
    let mut entries = Vec::with_capacity(usize::from(width));
    let mut rest = bytes;
    for _ in 0..width {
        let (length, tail) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        let (entry, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(malformed)?;
        entries.push(entry);
        rest = tail;
    }
    if rest.is_empty() { Ok(entries) } else { Err(malformed) }
}

/// A decimal number of at most three digits without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let digits = text.as_bytes();
    let canonical = match digits {
        [b'0'] => true,
        [b'1'..=b'9', ..] => digits.len() <= 3,
        _ => false,
    };
    if canonical { three_digits(digits) } else { None }
}

/// A tile number in groups of three digits.
fn parse_number(text: &str) -> Option<u64> {
    let mut number = 0_u64;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let last = groups.peek().is_none();
        let digits = if last { group } else { group.strip_prefix('x')? };
        let value = if digits.len() == 3 {
            three_digits(digits.as_bytes())?
        } else {
            return None;
        };
        // A leading group of zeros would be a second path to the same tile.
        if first && !last && value == 0 {
            return None;
        }
        first = false;
        number = number.checked_mul(1000)?.checked_add(value)?;
    }
    Some(number)
}

fn three_digits(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Why a tile address or its bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileError {
    /// The path is not one that this log serves.
    Path,
    /// No such tile level.
    Level {
        /// The level.
        level: u8,
    },
    /// The tile lies beyond the largest tree.
    Index {
        /// The tile index.
        index: u64,
    },
    /// A tile has 1 to 256 hashes or entries.
    Width {
        /// The width.
        width: u16,
    },
    /// An entry is longer than [`ENTRY_BYTES_MAX`].
    Entry {
        /// Its length in bytes.
        length: usize,
    },
    /// The bytes are not exactly what the width demands.
    Length {
        /// Bytes given.
        found: usize,
    },
}

impl TileError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Path => "tile_path",
            Self::Level { .. } => "tile_level",
            Self::Index { .. } => "tile_index",
            Self::Width { .. } => "tile_width",
            Self::Entry { .. } => "tile_entry_length",
            Self::Length { .. } => "tile_length",
        }
    }
}

impl fmt::Display for TileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => write!(f, "not a tile path"),
            Self::Level { level } => write!(f, "tile level {level} is above {TILE_LEVEL_MAX}"),
            Self::Index { index } => write!(f, "tile {index} lies beyond the largest tree"),
            Self::Width { width } => write!(f, "a tile has 1 to {TILE_WIDTH} hashes or entries, not {width}"),
            Self::Entry { length } => {
                write!(f, "an entry of {length} bytes does not fit into a bundle")
            }
            Self::Length { found } => write!(f, "{found} bytes are not the hashes or entries of this tile"),
        }
    }
}

impl core::error::Error for TileError {}
