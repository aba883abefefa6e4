//! The backend's name in the configuration.

use std::{fmt, str::FromStr};

use crate::error::SignerError;

/// A signer backend, chosen by name in the configuration and never silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignerKind {
    /// A key file; development and tests.
    Software,
    /// A TPM 2.0.
    Tpm,
    /// A hardware security module through PKCS#11.
    Pkcs11,
}

impl SignerKind {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Tpm => "tpm",
            Self::Pkcs11 => "pkcs11",
        }
    }

    /// Says whether this build holds the backend.
    ///
    /// # Errors
    /// [`SignerError::BackendNotBuilt`], which tells the operator what to do.
    pub const fn require_built(self) -> Result<(), SignerError> {
        match self {
            Self::Software => Ok(()),
            Self::Tpm if cfg!(feature = "tpm") => Ok(()),
            Self::Pkcs11 if cfg!(feature = "pkcs11") => Ok(()),
            Self::Tpm | Self::Pkcs11 => Err(SignerError::BackendNotBuilt { name: self.name() }),
        }
    }
}

impl FromStr for SignerKind {
    type Err = SignerError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "software" => Ok(Self::Software),
            "tpm" => Ok(Self::Tpm),
            "pkcs11" => Ok(Self::Pkcs11),
            other => {
                /// Longest part of an unknown name that is repeated to the operator.
                const NAME_SHOWN_MAX: usize = 32;
                let name = other.chars().take(NAME_SHOWN_MAX).collect();
                Err(SignerError::BackendUnknown { name })
            }
        }
    }
}

impl fmt::Display for SignerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_backends_that_are_not_built_say_what_to_do() {
        for kind in [SignerKind::Software, SignerKind::Tpm, SignerKind::Pkcs11] {
            assert_eq!(kind.name().parse::<SignerKind>().expect("own name"), kind);
        }
        assert!(SignerKind::Software.require_built().is_ok());
        for (kind, built) in [(SignerKind::Tpm, cfg!(feature = "tpm")), (SignerKind::Pkcs11, cfg!(feature = "pkcs11"))]
        {
            if built {
                kind.require_built().expect("built");
                continue;
            }
            let error = kind.require_built().expect_err("not built");
            assert_eq!(error.code(), "backend_not_built");
            assert!(error.to_string().contains("signer.kind"));
        }
        let error = "yubikey".parse::<SignerKind>().expect_err("unknown");
        assert_eq!(error.code(), "backend_unknown");
    }
}
