//! Why bytes are no evidence package.

use alloc::string::String;
use core::fmt;

/// Why a package was refused before anything in it was judged. Messages name parts and limits, never contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageError {
    /// The bytes end within the package.
    Truncated,
    /// The package, or a part of it, is longer than is read, or there are too many parts.
    TooLarge {
        /// What.
        part: &'static str,
        /// Bytes or parts at most.
        limit: usize,
    },
    /// A part that every package has is not there.
    Missing {
        /// Name of the part.
        part: &'static str,
    },
    /// A part is there twice.
    Repeated {
        /// Name of the part.
        part: &'static str,
    },
    /// A name is not that of a part.
    Unknown {
        /// The name, as far as it can be shown.
        name: String,
    },
    /// The bytes break a rule of their encoding.
    Malformed {
        /// The rule.
        reason: &'static str,
    },
    /// A checksum of the tar is wrong.
    Checksum,
}

impl PackageError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated => "package_truncated",
            Self::TooLarge { .. } => "package_too_large",
            Self::Missing { .. } => "package_part_missing",
            Self::Repeated { .. } => "package_part_repeated",
            Self::Unknown { .. } => "package_part_unknown",
            Self::Malformed { .. } => "package_malformed",
            Self::Checksum => "package_checksum",
        }
    }

    /// A name of which nothing was expected: printable ASCII of at most 64 characters is shown.
    pub(crate) fn unknown(name: &[u8]) -> Self {
        const SHOWN_MAX: usize = 64;
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
        Self::Unknown { name: name.iter().take(SHOWN_MAX).map(shown).collect() }
    }
}

impl fmt::Display for PackageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => formatter.write_str("the evidence package is cut short"),
            Self::TooLarge { part, limit } => write!(formatter, "{part} is larger than {limit}"),
            Self::Missing { part } => write!(formatter, "the evidence package has no {part}"),
            Self::Repeated { part } => write!(formatter, "the evidence package has {part} twice"),
            Self::Unknown { name } => write!(formatter, "{name} is no part of an evidence package"),
            Self::Malformed { reason } => write!(formatter, "the evidence package is malformed: {reason}"),
            Self::Checksum => formatter.write_str("a header of the tar has another checksum than it says"),
        }
    }
}

impl core::error::Error for PackageError {}
