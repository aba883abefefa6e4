//! Which form an answer has: the first one of `Accept` that the resource offers.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use stele_types::Code;
use stele_types::cbor::{self, Field};

use super::problem::Problem;

pub(super) const JSON: &str = "application/json";
pub(super) const CBOR: &str = "application/cbor";
pub(super) const CBOR_SEQUENCE: &str = "application/cbor-seq";
pub(super) const COSE: &str = "application/cose";
pub(super) const OCTETS: &str = "application/octet-stream";

/// Chooses among `offered`, the first of which is the default.
pub(super) fn choose(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Problem> {
    let default = offered.first().copied().unwrap_or(JSON);
    let mut asked = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default();
            if essence.is_empty() || parts.any(is_refusal) {
                continue;
            }
            asked = true;
            if essence == "*/*" {
                return Ok(default);
            }
            let family = essence.strip_suffix("/*");
            let fits = |offer: &&&'static str| {
                offer.eq_ignore_ascii_case(essence)
                    || family
                        .is_some_and(|family| offer.split('/').next().is_some_and(|f| f.eq_ignore_ascii_case(family)))
            };
            if let Some(offer) = offered.iter().find(fits) {
                return Ok(offer);
            }
        }
    }
    if !asked {
        return Ok(default);
    }
    let problem = Problem::new(Code::ContentTypeUnsupported).status(StatusCode::NOT_ACCEPTABLE);
    Err(problem.detail(format!("this resource is offered as {}", offered.join(" or "))))
}

/// Whether a parameter of a media range says that this range is not wanted: a weight of zero, with up to three decimals
/// (RFC 9110, section 12.4.2).
fn is_refusal(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.is_some_and(|weight| matches!(weight, "0" | "0." | "0.0" | "0.00" | "0.000"))
}

/// An answer of bytes.
pub(super) fn bytes(content_type: &'static str, bytes: impl Into<axum::body::Body>) -> Response {
    let mut response = bytes.into().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of one CBOR value.
pub(super) fn cbor<T: Field>(value: &T) -> Response {
    bytes(CBOR, cbor::to_vec(value))
}

/// An answer of a sequence of CBOR values (RFC 8742).
pub(super) fn cbor_sequence<T: Field>(values: &[T]) -> Response {
    let mut body = Vec::new();
    for value in values {
        value.encode(&mut cbor::Encoder::new(&mut body));
    }
    bytes(CBOR_SEQUENCE, body)
}

/// An answer in JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Response {
    // The views hold strings, numbers and lists; writing them to memory cannot fail.
    bytes(JSON, serde_json::to_vec(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> Result<&'static str, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(value));
        choose(&headers, &[CBOR, JSON]).map_err(|problem| problem.code())
    }

    #[test]
    fn the_first_acceptable_form_is_chosen() {
        assert_eq!(choose(&HeaderMap::new(), &[CBOR, JSON]).unwrap(), CBOR);
        assert_eq!(accept("text/html, application/json;q=0.9"), Ok(JSON));
        assert_eq!(accept("*/*"), Ok(CBOR));
        assert_eq!(accept("application/*"), Ok(CBOR));
        assert_eq!(accept("application/cbor;q=0, application/json"), Ok(JSON));
        assert_eq!(accept("text/html"), Err(Code::ContentTypeUnsupported));
    }
}
