//! What can go wrong between here and a node.

use std::io;
use std::time::Duration;

use stele_types::Code;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An address is not `https://host:port`.
    #[error("{address:?} is not an address of the form https://host:port")]
    Endpoint {
        /// The text.
        address: String,
    },
    /// A certificate or key cannot be used.
    #[error("TLS settings: {reason}")]
    Tls {
        /// What is wrong; never key material.
        reason: String,
    },
    /// No node was named.
    #[error("no node was named")]
    NoEndpoint,
    /// No connection to the node.
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect {
        /// The node.
        endpoint: String,
        /// What the system or TLS said.
        reason: String,
    },
    /// The connection broke before the answer was whole.
    #[error("{endpoint} broke off: {reason}")]
    Broken {
        /// The node.
        endpoint: String,
        /// What HTTP said.
        reason: String,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer within {} ms", after.as_millis())]
    Timeout {
        /// The node.
        endpoint: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The node refused with a code.
    #[error("{endpoint} answered {status} {code}{}", detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The node.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// The stable code of the problem, or `http_<status>` when the answer names none.
        code: String,
        /// What the node says of it.
        detail: Option<String>,
        /// How long the node asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than the bound.
    #[error("{endpoint} answered more than {bytes_max} bytes")]
    TooLarge {
        /// The node.
        endpoint: String,
        /// The bound.
        bytes_max: usize,
    },
    /// The answer is not what the protocol names.
    #[error("{endpoint} answered what the protocol does not know: {reason}")]
    Unexpected {
        /// The node.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// Stable snake_case code: the node's own when it named one.
    pub fn code(&self) -> &str {
        match self {
            Self::Endpoint { .. } | Self::NoEndpoint => "endpoint_invalid",
            Self::Tls { .. } => "tls_invalid",
            Self::Connect { .. } => "node_unreachable",
            Self::Broken { .. } => "connection_broken",
            Self::Timeout { .. } => "node_timeout",
            Self::Refused { code, .. } => code,
            Self::TooLarge { .. } => "answer_too_large",
            Self::Unexpected { .. } => "answer_unexpected",
        }
    }
    /// The node's code as the protocol names it.
    pub fn protocol_code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Code::from_word(code),
            _ => None,
        }
    }
    /// Whether the same request may succeed later or at another node.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            // Refusals at the gate and answers of a node in trouble; what is wrong with the request stays wrong.
            Self::Refused { status, code, .. } => Code::from_word(code)
                .map_or(matches!(status, 429 | 500 | 502..=504), |code| code.is_retryable() || code == Code::Internal),
            Self::Endpoint { .. }
            | Self::NoEndpoint
            | Self::Tls { .. }
            | Self::TooLarge { .. }
            | Self::Unexpected { .. } => false,
        }
    }
    /// Whether another node may answer at once what this one did not.
    pub(crate) fn is_of_node(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Refused { status, code, .. } => *status >= 500 || code == Code::NotReady.as_str(),
            _ => false,
        }
    }
    /// How long the node asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
    pub(crate) fn tls(reason: impl std::fmt::Display) -> Self {
        Self::Tls { reason: reason.to_string() }
    }
    pub(crate) fn connect(endpoint: &str, error: &io::Error) -> Self {
        Self::Connect { endpoint: endpoint.into(), reason: error.to_string() }
    }
}
