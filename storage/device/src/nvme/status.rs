//! How a drive says that it did not do what it was asked.

use std::fmt;
use std::io;

/// A status of a completion, without the phase bit (NVMe Base Specification 2.0, section 3.3.3.2.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(u16);

/// Type and code of a status, in eleven bits; the rest are hints.
const CODE: u16 = 0x7ff;

/// The hint that the same command would fail again.
const DO_NOT_RETRY: u16 = 1 << 14;

pub(super) const INVALID_FIELD: u16 = 0x002;
const INTERRUPTED: u16 = 0x021;
const CAPACITY_EXCEEDED: u16 = 0x081;
const NOT_READY: u16 = 0x082;
const ZONE_FULL: u16 = 0x1b9;
const ZONES_ACTIVE: u16 = 0x1bd;
const ZONES_OPEN: u16 = 0x1be;

/// Statuses that an operator may meet, in words (the same, NVM Command Set Specification 1.0, section
/// 3.1, and Zoned Namespace Command Set Specification 1.1, section 3.1).
const WORDS: [(u16, &str); 29] = [
    (0x001, "invalid opcode"),
    (INVALID_FIELD, "invalid field in command"),
    (0x004, "data transfer error"),
    (0x005, "aborted by loss of power"),
    (0x006, "internal error"),
    (0x007, "aborted on request"),
    (0x00b, "invalid namespace or format"),
    (0x020, "namespace is write-protected"),
    (INTERRUPTED, "command interrupted"),
    (0x080, "block out of range"),
    (CAPACITY_EXCEEDED, "capacity exceeded"),
    (NOT_READY, "namespace not ready"),
    (0x181, "invalid protection information"),
    (0x182, "write to a read-only range"),
    (0x1b8, "zone boundary error"),
    (ZONE_FULL, "zone is full"),
    (0x1ba, "zone is read-only"),
    (0x1bb, "zone is offline"),
    (0x1bc, "zone invalid write"),
    (ZONES_ACTIVE, "too many active zones"),
    (ZONES_OPEN, "too many open zones"),
    (0x1bf, "invalid zone state transition"),
    (0x280, "write fault"),
    (0x281, "unrecovered read error"),
    (0x282, "guard check failed"),
    (0x283, "application tag check failed"),
    (0x284, "reference tag check failed"),
    (0x286, "access denied"),
    (0x287, "deallocated or unwritten block"),
];

impl Status {
    /// Of the number that the kernel gives for it; `None` for success.
    pub(crate) fn new(number: u16) -> Option<Self> {
        (number & CODE != 0).then_some(Self(number))
    }

    /// Type and code.
    pub(super) fn code(self) -> u16 {
        self.0 & CODE
    }

    /// Whether the drive only had no means just now: the command is worth another attempt.
    fn is_passing(self) -> bool {
        self.0 & DO_NOT_RETRY == 0 && matches!(self.code(), INTERRUPTED | NOT_READY)
    }
}

impl From<Status> for io::Error {
    fn from(status: Status) -> Self {
        match status.code() {
            _ if status.is_passing() => Self::from_raw_os_error(libc::EAGAIN),
            CAPACITY_EXCEEDED | ZONE_FULL => Self::new(io::ErrorKind::StorageFull, status),
            ZONES_ACTIVE | ZONES_OPEN => Self::new(io::ErrorKind::ResourceBusy, status),
            _ => Self::other(status),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            WORDS.iter().find(|(code, _)| *code == self.code()).map_or("a status without a name", |(_, words)| words);
        write!(f, "the drive answers: {words} (NVMe status {:#05x})", self.code())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#06x})", self.0)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(number: u16) -> io::Error {
        Status::new(number).unwrap().into()
    }

    #[test]
    fn a_status_becomes_an_error_that_says_it() {
        assert!(Status::new(0).is_none());
        assert_eq!(error(0x4281).to_string(), "the drive answers: unrecovered read error (NVMe status 0x281)");
        assert_eq!(error(0x2c0).to_string(), "the drive answers: a status without a name (NVMe status 0x2c0)");
        assert_eq!(error(0x4081).kind(), io::ErrorKind::StorageFull);
        assert_eq!(error(0x280).kind(), io::ErrorKind::Other);
    }

    #[test]
    fn what_passes_is_worth_another_attempt_unless_the_drive_denies_it() {
        for code in [INTERRUPTED, NOT_READY] {
            assert_eq!(error(code).raw_os_error(), Some(libc::EAGAIN));
            assert_eq!(error(code | DO_NOT_RETRY).raw_os_error(), None);
        }
    }

    #[test]
    fn words_are_in_order_and_each_is_a_failure() {
        assert!(WORDS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(WORDS.iter().all(|(code, _)| Status::new(*code).is_some_and(|status| status.code() == *code)));
    }
}
