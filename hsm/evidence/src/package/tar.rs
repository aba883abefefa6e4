//! POSIX ustar (IEEE Std 1003.1, `pax`, "ustar Interchange Format"), as far as a package needs it: plain files in one folder.
//!
//! What is written is deterministic: no times, owners or modes but `0644`. What is read may come from another tar, which
//! puts in folders, owners, times and `./`; names, kinds, sizes and checksums are held to.

use alloc::vec::Vec;

use crate::package::{
    content::EvidencePackage,
    error::PackageError,
    part::{Kind, PACKAGE_LENGTH_MAX, Parts},
};

/// Bytes of a block: a header, or a piece of a file that is padded with zeros.
const BLOCK: usize = 512;

/// Headers that are read: as many parts as there can be, and the two folders that another tar puts in.
const HEADERS_MAX: usize = 128;

const NAME: core::ops::Range<usize> = 0..100;
const SIZE: core::ops::Range<usize> = 124..136;
const CHECKSUM: core::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const MAGIC: core::ops::Range<usize> = 257..265;
const PREFIX: core::ops::Range<usize> = 345..500;

const MALFORMED_NUMBER: PackageError = PackageError::Malformed { reason: "a number of a tar header is not octal" };

impl EvidencePackage {
    /// The package as a tar.
    ///
    /// # Errors
    /// As [`EvidencePackage::encode`].
    pub fn to_tar(&self) -> Result<Vec<u8>, PackageError> {
        let mut tar = Vec::new();
        for part in self.parts()? {
            tar.extend(header(&part.name, part.bytes.len()));
            tar.extend(part.bytes);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        if tar.len() > PACKAGE_LENGTH_MAX {
            return Err(PackageError::TooLarge { part: "package", limit: PACKAGE_LENGTH_MAX });
        }
        Ok(tar)
    }

    /// Reads a package from a tar.
    ///
    /// # Errors
    /// [`PackageError`].
    pub fn from_tar(bytes: &[u8]) -> Result<Self, PackageError> {
        if bytes.len() > PACKAGE_LENGTH_MAX {
            return Err(PackageError::TooLarge { part: "package", limit: PACKAGE_LENGTH_MAX });
        }
        let mut parts = Parts::default();
        let mut rest = bytes;
        for _ in 0..HEADERS_MAX {
            let (block, after) = rest.split_first_chunk::<BLOCK>().ok_or(PackageError::Truncated)?;
            if block.iter().all(|byte| *byte == 0) {
                return if after.len() < BLOCK {
                    Err(PackageError::Truncated)
                } else if after.iter().any(|byte| *byte != 0) {
                    Err(PackageError::Malformed { reason: "bytes follow the end of the tar" })
                } else {
                    Self::from_parts(parts)
                };
            }
            let entry = Entry::parse(block)?;
            rest = after;
            if entry.is_folder {
                continue;
            }
            // Before anything is skipped: what is no part may say any size.
            let (kind, _) = Kind::of_name(entry.name)?;
            kind.require_length(entry.size)?;
            let content = rest.get(..entry.size).ok_or(PackageError::Truncated)?;
            rest = rest.get(entry.size.next_multiple_of(BLOCK)..).ok_or(PackageError::Truncated)?;
            parts.insert(entry.name, content)?;
        }
        Err(PackageError::TooLarge { part: "list of files", limit: HEADERS_MAX })
    }
}

fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    // The longest name has 46 bytes: a key's.
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..135].copy_from_slice(&octal::<11>(size));
    header[136..147].copy_from_slice(&octal::<11>(0));
    header[CHECKSUM].copy_from_slice(b"        ");
    header[TYPE] = b'0';
    header[MAGIC].copy_from_slice(b"ustar\x0000");
    header[329..337].copy_from_slice(b"0000000\0");
    header[337..345].copy_from_slice(b"0000000\0");
    let sum = checksum(&header);
    header[148..154].copy_from_slice(&octal::<6>(sum));
    header[154] = 0;
    header
}

fn octal<const N: usize>(mut number: usize) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 8).unwrap_or_default();
        number /= 8;
    }
    digits
}

/// The sum of a header's bytes, its own field taken as spaces.
fn checksum(header: &[u8; BLOCK]) -> usize {
    let summed = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { usize::from(b' ') } else { usize::from(*byte) };
    header.iter().enumerate().map(summed).sum()
}

/// What a header says.
struct Entry<'a> {
    name: &'a str,
    size: usize,
    is_folder: bool,
}

impl<'a> Entry<'a> {
    fn parse(header: &'a [u8; BLOCK]) -> Result<Self, PackageError> {
        let malformed = |reason| PackageError::Malformed { reason };
        // The second is how GNU tar writes it.
        if !matches!(&header[MAGIC], b"ustar\x0000" | b"ustar  \0") {
            return Err(malformed("this is no package: neither JSON, CMW nor a ustar"));
        }
        if number(&header[CHECKSUM])? != checksum(header) {
            return Err(PackageError::Checksum);
        }
        if header[PREFIX].iter().any(|byte| *byte != 0) {
            return Err(malformed("a name has a prefix"));
        }
        let name = header[NAME].split(|byte| *byte == 0).next().unwrap_or_default();
        let text = core::str::from_utf8(name).map_err(|_| PackageError::unknown(name))?;
        let name = text.strip_prefix("./").unwrap_or(text);
        let size = number(&header[SIZE])?;
        let is_folder = match header[TYPE] {
            b'0' | 0 => false,
            b'5' if size == 0 && matches!(name, "" | "keys/") => true,
            _ => return Err(malformed("an entry of the tar is not a plain file")),
        };
        Ok(Self { name, size, is_folder })
    }
}

/// An octal number that ends with a space or zero, or fills its field. Sizes in base 256 are GNU's and far beyond ours.
fn number(field: &[u8]) -> Result<usize, PackageError> {
    let digits = field.iter().position(|byte| matches!(byte, b' ' | 0)).map_or(field, |end| &field[..end]);
    if digits.is_empty() {
        return Err(MALFORMED_NUMBER);
    }
    digits.iter().try_fold(0_usize, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8).map(|number| number + usize::from(digit - b'0')).ok_or(MALFORMED_NUMBER),
        _ => Err(MALFORMED_NUMBER),
    })
}
