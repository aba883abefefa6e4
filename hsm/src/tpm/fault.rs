//! Response codes of the TPM and of the layers above it, by what to do about them.

use std::error::Error as _;

use tss_esapi::Error;

use crate::error::SignerError;

/// What a failed command means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The way to the TPM is broken: connect again.
    Lost,
    /// The TPM was reset and knows neither session nor keys: connect again.
    Reset,
    /// The TPM wants the command again later.
    Busy,
    /// The TPM has no place for another object.
    NoPlace,
    /// The TPM is locked against guessing.
    Lockout,
    /// The TPM failed its own test.
    Failure,
    /// What was loaded is not of this TPM.
    Foreign,
    /// Anything else.
    Refused(u32),
}

impl Fault {
    /// What is told to whoever asked.
    pub(crate) const fn into_error(self) -> SignerError {
        match self {
            Self::Lost => SignerError::TpmLost,
            Self::Reset => SignerError::TpmReset,
            Self::Busy | Self::NoPlace => SignerError::TpmBusy,
            Self::Lockout => SignerError::TpmLockout,
            Self::Failure => SignerError::TpmFailure,
            Self::Foreign => SignerError::TpmKeyForeign,
            Self::Refused(code) => SignerError::TpmRefused { code },
        }
    }

    /// TPM 2.0 Part 2 section 6.6.3, and the TSS's layers in bits 16 to 23 (TSS 2.0 Overview section 3.2).
    const fn from_code(code: u32) -> Self {
        const LAYER_TCTI: u32 = 10;
        const LAYER_RESOURCE_MANAGER: u32 = 11;
        const LAYER_RESOURCE_MANAGER_TPM: u32 = 12;
        match (code >> 16) & 0xff {
            LAYER_TCTI => return Self::Lost,
            0 | LAYER_RESOURCE_MANAGER | LAYER_RESOURCE_MANAGER_TPM => {}
            _ => return Self::Refused(code),
        }
        match code & 0xffff {
            // TPM_RC_INITIALIZE, TPM_RC_REBOOT, and references to what is not loaded.
            0x100 | 0x130 | 0x910..=0x916 | 0x918..=0x91e => Self::Reset,
            // TPM_RC_FAILURE.
            0x101 => Self::Failure,
            // TPM_RC_OBJECT_MEMORY, TPM_RC_OBJECT_HANDLES.
            0x902 | 0x906 => Self::NoPlace,
            // TPM_RC_PCR_CHANGED: something was measured while the policy was judged.
            0x128 => Self::Busy,
            // TPM_RC_SESSION_MEMORY, _MEMORY, _SESSION_HANDLES, _YIELDED, _CANCELED, _TESTING, _NV_RATE, _RETRY and
            // _NV_UNAVAILABLE.
            0x903..=0x905 | 0x908..=0x90a | 0x920 | 0x922 | 0x923 => Self::Busy,
            // TPM_RC_LOCKOUT.
            0x921 => Self::Lockout,
            // Format one: the number of the parameter, handle or session is masked.
            low if low & 0x80 != 0 => match low & 0xbf {
                // TPM_RC_HANDLE: the TPM was reset and the resource manager forgot.
                0x8b => Self::Reset,
                // TPM_RC_INTEGRITY.
                0x9f => Self::Foreign,
                _ => Self::Refused(code),
            },
            _ => Self::Refused(code),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::from_code(response_code(&error).unwrap_or(0))
    }
}

/// The response code of an error. The crate gives its number only in the text of the innermost error; 0 for errors that it
/// made itself, which are faults of this program.
fn response_code(error: &Error) -> Option<u32> {
    let innermost = error.source()?.source()?.to_string();
    let (_, digits) = innermost.split_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_to_do() {
        for (code, fault) in [
            (0x000a_000a, Fault::Lost),
            (0x100, Fault::Reset),
            (0x918, Fault::Reset),
            (0x18b, Fault::Reset),
            (0x902, Fault::NoPlace),
            (0x922, Fault::Busy),
            (0x128, Fault::Busy),
            (0x921, Fault::Lockout),
            (0x101, Fault::Failure),
            (0x1df, Fault::Foreign),
            (0x0007_0009, Fault::Refused(0x0007_0009)),
            (0x2d2, Fault::Refused(0x2d2)),
        ] {
            assert_eq!(Fault::from_code(code), fault, "0x{code:x}");
        }
        assert!(Fault::Lockout.into_error().is_retryable());
        assert!(!Fault::Foreign.into_error().is_retryable());
    }
}
