//! What never changes may be kept by any cache.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// Who may keep an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Anyone: it is public.
    Public,
    /// The asker alone: others may not be allowed to read it.
    Private,
}

/// Marks an answer as immutable under `tag`, or answers 304 to a client that has it.
pub(super) fn immutable(request: &HeaderMap, tag: &str, keep: Keep, answer: impl FnOnce() -> Response) -> Response {
    let quoted = format!("\"{tag}\"");
    let mut response = if matches(request, &quoted) { StatusCode::NOT_MODIFIED.into_response() } else { answer() };
    let headers = response.headers_mut();
    let control = match keep {
        Keep::Public => "public, max-age=31536000, immutable",
        Keep::Private => "private, max-age=31536000, immutable",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    if let Ok(tag) = HeaderValue::from_str(&quoted) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Marks an answer as one that changes.
pub(super) fn volatile(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn matches(request: &HeaderMap, quoted: &str) -> bool {
    request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == quoted)
    })
}
