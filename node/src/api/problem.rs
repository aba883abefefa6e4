//! Errors of the API: RFC 9457 problem details with a stable code and a word on what to do.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use stele_types::Code;
use utoipa::ToSchema;

use super::backend::{BackendError, Refusal};

/// Content type of a problem.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";
/// When to ask again for a result that the next header certifies.
const NOT_CERTIFIED_RETRY_MS: u32 = 250;
/// When to come back to a node that is starting or stopping.
const NOT_READY_RETRY_MS: u32 = 2_000;
/// When to come back to a listener that is full.
const SATURATED_RETRY_MS: u32 = 1_000;

/// Failed requests in the node's own log: a client that asks again and again for what is damaged must not fill it.
static FAILURES: Trickle = Trickle { since_start_s: AtomicU64::new(0), left_out: AtomicU64::new(0) };
/// When the first failure was seen; seconds are counted from there.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Lets one event a second through.
struct Trickle {
    since_start_s: AtomicU64,
    left_out: AtomicU64,
}

impl Trickle {
    /// Whether this one goes through, and how many did not since the last one that did.
    fn pass(&self) -> Option<u64> {
        let now = START.elapsed().as_secs() + 1;
        if self.since_start_s.fetch_max(now, Ordering::Relaxed) < now {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    retry_after_ms: Option<u32>,
}

/// The body of an error answer (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemView {
    /// `/problems/` and the code.
    #[schema(example = "/problems/saturated")]
    r#type: String,
    /// What the code means.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What happened here and what to do.
    detail: String,
    /// Stable code.
    #[schema(example = "saturated")]
    code: &'static str,
    /// When to try the same request again, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

impl Problem {
    /// The usual answer of a code.
    pub fn new(code: Code) -> Self {
        let retry_after_ms = match code {
            Code::Saturated | Code::ShareExceeded => Some(SATURATED_RETRY_MS),
            Code::NotReady => Some(NOT_READY_RETRY_MS),
            Code::NotCertified => Some(NOT_CERTIFIED_RETRY_MS),
            _ => None,
        };
        Self { status: status(code), code, detail: remedy(code).to_owned(), retry_after_ms }
    }
    /// Another word on what happened; it must not repeat what came from outside beyond names and numbers.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
    /// Another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
    /// Another time to wait.
    pub fn retry_after(mut self, retry_after_ms: Option<u32>) -> Self {
        self.retry_after_ms = retry_after_ms.or(self.retry_after_ms);
        self
    }
    /// There is nothing of that name.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound).detail(format!("there is no such {what}, or it is not yours to read"))
    }
    /// A parameter is malformed or out of range.
    pub fn parameter(name: &str, expected: &str) -> Self {
        Self::new(Code::ParameterInvalid).detail(format!("{name}: {expected}"))
    }
    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code).retry_after(refusal.retry_after_ms)
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotCertified => Self::new(Code::NotCertified),
            BackendError::Pruned => Self::new(Code::Pruned),
            BackendError::TrustPathTooLong => Self::new(Code::TooLarge).detail(
                "too many changes of validators for one proof; name a later height whose validators you trust with from",
            ),
            BackendError::Away { retry_after, reason } => {
                if let Some(left_out) = FAILURES.pass() {
                    tracing::warn!(reason, left_out, "blocks that are archived cannot be read now");
                }
                let milliseconds = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                Self::new(Code::NotReady).retry_after(Some(milliseconds))
            }
            BackendError::Failed(source) => {
                if let Some(left_out) = FAILURES.pass() {
                    tracing::error!(error = %source, left_out, "a request failed");
                }
                Self::new(Code::Internal)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let view = ProblemView {
            r#type: format!("/problems/{}", self.code.as_str()),
            title: title(self.code),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.as_str(),
            retry_after_ms: self.retry_after_ms,
        };
        let body = serde_json::to_vec(&view).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(milliseconds) = self.retry_after_ms {
            // Retry-After counts whole seconds; the body says it exactly.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1_000).max(1)));
        }
        response
    }
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::ContentTypeUnsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::MethodUnsupported => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::Saturated | Code::ShareExceeded => StatusCode::TOO_MANY_REQUESTS,
        Code::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        Code::ClientUnauthenticated | Code::Forbidden | Code::PartySuspended => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Pruned => StatusCode::GONE,
        Code::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::StorageReadOnly => StatusCode::SERVICE_UNAVAILABLE,
        Code::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::BodyDamaged => StatusCode::INTERNAL_SERVER_ERROR,
        Code::NotCertified | Code::IdConflict | Code::BodySealed => StatusCode::CONFLICT,
        Code::Internal | Code::Applied => StatusCode::INTERNAL_SERVER_ERROR,
        code if code.is_outcome() => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// What a code means, in a few words.
fn title(code: Code) -> &'static str {
    match code {
        Code::Stale => "the statement is too old",
        Code::Early => "the statement lies in the future",
        Code::IdConflict => "the idempotency id was used for other content",
        Code::KeyUnknown => "the signing key is not enrolled",
        Code::KeyRevoked => "the signing key was revoked",
        Code::IssuerMismatch => "the issuer does not hold the key",
        Code::SuiteDisabled => "the suite is not enabled",
        Code::PartySuspended => "the party is suspended",
        Code::Malformed => "the bytes are not well-formed",
        Code::NotDeterministic => "the encoding is not deterministic",
        Code::TooLarge => "too large",
        Code::UnprotectedNotEmpty => "the unprotected header is not empty",
        Code::DuplicateLabel => "a header label appears twice",
        Code::HeaderInvalid => "a header or claim is missing or invalid",
        Code::CriticalUnsupported => "a critical header is not understood",
        Code::AlgorithmUnsupported => "the algorithm is not a suite of this network",
        Code::ForeignNetwork => "the statement is for another network",
        Code::SignatureInvalid => "the signature does not verify",
        Code::CommandUnknown => "the command is not assigned",
        Code::PayloadNotOpaque => "the payload is neither a hash envelope nor small and public",
        Code::ContentTypeUnsupported => "the content type is not supported",
        Code::MethodUnsupported => "the method is not supported",
        Code::RequestTimeout => "the request took too long to arrive",
        Code::Saturated => "the node is saturated",
        Code::ShareExceeded => "the party is over its share",
        Code::NotReady => "the node is not ready",
        Code::ClientUnauthenticated => "the client is not authenticated",
        Code::Forbidden => "not permitted",
        Code::NotFound => "not found",
        Code::Pruned => "pruned",
        Code::ParameterInvalid => "a parameter is invalid",
        Code::NotCertified => "not certified yet",
        Code::StorageFull => "no room for more bodies",
        Code::StorageReadOnly => "no bodies are taken for now",
        Code::BodyDamaged => "the body is damaged",
        Code::BodySealed => "the body cannot be opened here",
        Code::RangeInvalid => "no such range",
        Code::Internal => "the node failed",
        _ => "the statement was rejected",
    }
}

/// What to do about a code, when the place that found it knows nothing better.
fn remedy(code: Code) -> &'static str {
    match code {
        Code::Stale => "make the statement anew with the present time; it was older than the replay window",
        Code::Early => "set the clock of the submitting machine; the statement's time lies ahead of the network's",
        Code::IdConflict => "use a fresh cti for other content; the same cti must carry the same statement",
        Code::KeyUnknown => "enrol the key first (key.enrol, or party.enrol for a first key)",
        Code::KeyRevoked => "sign with a key that is in force",
        Code::IssuerMismatch => "name the party that holds the key as issuer",
        Code::SuiteDisabled | Code::AlgorithmUnsupported => {
            "sign with a suite that /v1/network lists under parameters.suites"
        }
        Code::PartySuspended => "ask the governors of the network to resume the party",
        Code::Malformed => "send one COSE_Sign1 (tag 18, definite array of four) and nothing after it",
        Code::NotDeterministic => {
            "encode by RFC 8949 section 4.2.1: shortest integers, definite lengths, ascending keys"
        }
        Code::TooLarge => "keep within the limits that /v1/network lists",
        Code::UnprotectedNotEmpty => {
            "leave the unprotected header empty; receipts are attached by verifiers, not submitted"
        }
        Code::DuplicateLabel => "write each header label once",
        Code::HeaderInvalid => "see docs/protocol.md for the headers and claims that a statement needs",
        Code::CriticalUnsupported => "leave out crit, or submit to a node that understands the header it names",
        Code::ForeignNetwork => "name this network (/v1/network) as audience",
        Code::SignatureInvalid => "sign the Sig_structure of RFC 9052 section 4.4 with the key that kid names",
        Code::CommandUnknown => "see docs/protocol.md for the commands of this protocol version",
        Code::PayloadNotOpaque => "submit a hash envelope, or flag a payload of at most 4 KiB as public",
        Code::ContentTypeUnsupported => "see /openapi.json for the content types that this resource takes",
        Code::MethodUnsupported => "see /openapi.json for the methods that this resource takes",
        Code::RequestTimeout => "send the request again, over a faster way or in smaller batches",
        Code::Saturated => "wait for the named time, then send the same request again",
        Code::ShareExceeded => "wait for the named time; other parties are served first",
        Code::NotReady => "ask another node, or wait for the named time",
        Code::ClientUnauthenticated => {
            "connect to the party listener with a client certificate whose key the party has pinned (tls.pin)"
        }
        Code::Forbidden => "the party's roles do not permit this",
        Code::NotFound => "there is nothing of that name",
        Code::Pruned => "the bytes were pruned; hashes and proofs are still served",
        Code::ParameterInvalid => "see /openapi.json for the parameters of this resource",
        Code::NotCertified => "the next header certifies the result; ask again after the named time",
        Code::StorageFull | Code::StorageReadOnly => "put the body at another node; this one's operator has been told",
        Code::BodyDamaged => "ask another node that keeps the body",
        Code::BodySealed => "ask the node that took the body, or another that has its class key",
        Code::RangeInvalid => "begin the range before the end that Content-Range names",
        Code::Internal => "the node's own log says why; ask another node",
        _ => "the outcome of the statement is final; see docs/protocol.md for its code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_error_status_and_says_what_to_do() {
        for code in Code::ALL {
            let problem = Problem::new(*code);
            assert!(problem.status.is_client_error() || problem.status.is_server_error(), "{code}");
            assert!(problem.detail.len() > 10, "{code}");
        }
    }

    #[test]
    fn a_passing_refusal_names_the_time_to_wait_twice() {
        let refusal = Refusal { code: Code::ShareExceeded, retry_after_ms: Some(2_300) };
        let response = Problem::from(refusal).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_CONTENT_TYPE);
    }

    #[test]
    fn a_burst_of_failures_is_one_line_that_counts_the_others() {
        let trickle = Trickle { since_start_s: AtomicU64::new(0), left_out: AtomicU64::new(0) };
        let passed: Vec<u64> = (0..1_000).filter_map(|_| trickle.pass()).collect();
        // Two when a second ends within the loop.
        assert!(passed.len() <= 2, "{passed:?}");
        assert_eq!(passed[0], 0);
        assert_eq!(passed.iter().sum::<u64>() + trickle.left_out.into_inner() + passed.len() as u64, 1_000);
    }

    #[test]
    fn a_failure_of_the_node_tells_the_client_nothing_of_its_inside() {
        let error = BackendError::Failed("segment 7 of /var/lib/stele is damaged".into());
        let problem = Problem::from(error);
        assert_eq!(problem.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!problem.detail.contains("segment"), "{}", problem.detail);
    }
}
