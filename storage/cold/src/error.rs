//! What can go wrong with the cold tier.

use std::time::Duration;

use object_store::Error as StoreError;
use stele_storage::StorageError;

/// When to try again what an endpoint could not do: by then a gateway that was restarted answers.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Most bytes of what an endpoint said that an error repeats.
const REASON_BYTES_MAX: usize = 400;

/// Why the cold tier, or a request to it, failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ColdError {
    /// An option is not what it can be.
    #[error("option {option} of the cold tier {what}")]
    Option {
        /// Which.
        option: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The endpoint does not do what nothing is safe without.
    #[error("the cold tier is not safe to use: {what}")]
    Unsafe {
        /// What it does, or does not do.
        what: String,
    },
    /// The endpoint cannot be reached, or fails.
    #[error("the cold tier does not answer, try again in {} s: {reason}", retry_after.as_secs())]
    Unavailable {
        /// What it said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The endpoint does not let these credentials do it.
    #[error("the cold tier refuses: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// There is a sealed object of this name already.
    #[error("{name} is in the cold tier already")]
    Exists {
        /// The name.
        name: String,
    },
    /// No sealed object has this name.
    #[error("{name} is not in the cold tier")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A lock forbids to delete an object.
    #[error("{name} is locked until {until}")]
    Locked {
        /// The name.
        name: String,
        /// RFC 3339, or what the endpoint said if it does not tell when.
        until: String,
    },
    /// What is read is not what was sealed.
    #[error("{name} is damaged in the cold tier: {what}")]
    Damaged {
        /// The name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A range reaches beyond its object.
    #[error("bytes {start} to {end} of {name}, which has {bytes}")]
    Range {
        /// The name.
        name: String,
        /// The first byte that was asked for.
        start: u64,
        /// The byte behind the last.
        end: u64,
        /// Bytes of the object.
        bytes: u64,
    },
    /// More than may be asked for at once.
    #[error("{bytes} bytes where {bytes_max} is the most")]
    TooLong {
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        bytes_max: u64,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// What was to be put could not be read, or is not as long as was said.
    #[error("what was to be put cannot be read: {reason}")]
    Source {
        /// Why.
        reason: String,
    },
}

impl ColdError {
    /// Stable name for interfaces and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Option { .. } => "cold_option",
            Self::Unsafe { .. } => "cold_tier_unsafe",
            Self::Unavailable { .. } => "cold_unavailable",
            Self::Refused { .. } => "cold_refused",
            Self::Exists { .. } => "cold_exists",
            Self::NotFound { .. } => "cold_not_found",
            Self::Locked { .. } => "cold_locked",
            Self::Damaged { .. } => "cold_damaged",
            Self::Range { .. } => "cold_range",
            Self::TooLong { .. } => "cold_too_long",
            Self::Store(error) => error.code(),
            Self::Source { .. } => "cold_source",
        }
    }

    /// Whether the same request may succeed later, without anybody doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// When to try again what may succeed later.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::Store(StorageError::Busy { retry_after }) => {
                Some(*retry_after)
            }
            Self::Store(StorageError::Cold { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn option(option: &'static str, what: impl Into<String>) -> Self {
        Self::Option { option, what: what.into() }
    }

    pub(crate) fn lacks(what: impl Into<String>) -> Self {
        Self::Unsafe { what: what.into() }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: bounded(reason.into()), retry_after: RETRY_AFTER }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: bounded(reason.into()) }
    }

    pub(crate) fn damaged(name: &str, what: impl Into<String>) -> Self {
        Self::Damaged { name: name.to_owned(), what: bounded(what.into()) }
    }

    /// What a request that concerns `name` failed of.
    pub(crate) fn of_store(name: &str, error: &StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::NotFound { name: name.to_owned() },
            StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => {
                Self::Exists { name: name.to_owned() }
            }
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                Self::refused(error.to_string())
            }
            // Everything else is an answer that the endpoint owed: after the retries it counts as unavailable, since nothing
            // of it says whether the request was carried out.
            _ => Self::unavailable(error.to_string()),
        }
    }
}

/// What an endpoint says is repeated, and may be of any length.
fn bounded(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        reason.truncate(end);
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_says_is_cut_between_characters() {
        let error = ColdError::unavailable("é".repeat(1_000));
        let ColdError::Unavailable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.len() <= REASON_BYTES_MAX + '…'.len_utf8());
        assert!(reason.ends_with("é…"));
        assert_eq!(error.retry_after(), Some(RETRY_AFTER));
        assert!(error.is_retryable());
    }
}
