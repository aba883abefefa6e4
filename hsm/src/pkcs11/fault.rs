//! Return values of a module, by what to do about them.

use cryptoki::error::{Error, RvError};

use crate::error::SignerError;

/// What a failed call means.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The session is over, or the token is away: open another.
    Lost,
    /// The PIN is wrong, or locked.
    Pin,
    /// Anything else.
    Refused(String),
}

impl Fault {
    /// What is told to whoever asked.
    pub(crate) fn into_error(self) -> SignerError {
        match self {
            Self::Lost => SignerError::TokenLost,
            Self::Pin => SignerError::TokenPin,
            Self::Refused(reason) => SignerError::TokenRefused { reason },
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match &error {
            Error::Pkcs11(value, _) => match value {
                RvError::CryptokiNotInitialized
                | RvError::DeviceError
                | RvError::DeviceMemory
                | RvError::DeviceRemoved
                // A key that was there has gone with the session that found it.
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::SessionClosed
                | RvError::SessionCount
                | RvError::SessionHandleInvalid
                | RvError::SlotIdInvalid
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::UserNotLoggedIn => Self::Lost,
                RvError::PinExpired
                | RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinLocked
                | RvError::UserPinNotInitialized => Self::Pin,
                _ => Self::Refused(error.to_string()),
            },
            _ => Self::Refused(error.to_string()),
        }
    }
}
