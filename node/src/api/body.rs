//! Reading request bodies: bounded in size, in time, and in memory over all listeners, of which no party gets all.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use stele_types::{Code, PartyId};

use super::access::Caller;
use super::commons::{Commons, Part};
use super::problem::Problem;
use crate::metrics::Metrics;

/// Memory that a body takes first; it doubles as the body arrives. What was only announced costs nothing.
const FIRST_BYTES: usize = 64 * 1024;

/// What a client may still send after its body was refused as too large, and for how long, so that it reads the answer.
const DRAINED_BYTES_MAX: usize = 8 << 20;
const DRAINED_TIME_MAX: Duration = Duration::from_secs(2);

/// Whose share of the memory a body counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Party(PartyId),
    /// All who ask without a certificate: they cannot be told apart.
    Public,
}

/// Memory for the bodies of all requests in progress.
pub(super) struct BodyBudget {
    bytes: Arc<Commons<Holder>>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A body with its part of the budget, given back when it is dropped.
pub(super) struct Reserved {
    /// The bytes.
    pub(super) bytes: Bytes,
    _room: Room,
}

/// A part of the budget, counted.
struct Room {
    part: Part<Holder>,
    metrics: Arc<Metrics>,
}

impl Room {
    fn grow(&mut self, bytes: usize) -> Result<(), Code> {
        self.part.grow(bytes)?;
        self.metrics.http.body_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.metrics.http.body_bytes(-i64::try_from(self.part.amount()).unwrap_or(i64::MAX));
    }
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    NoRoom(Code),
    BrokenOff,
}

impl BodyBudget {
    pub(super) fn new(memory_bytes_max: usize, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self { bytes: Commons::new(memory_bytes_max), timeout, metrics }
    }

    /// Reads a body of at most `bytes_max` that `caller` sends.
    pub(super) async fn read(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        mut body: Body,
        bytes_max: usize,
    ) -> Result<Reserved, Problem> {
        let too_large = || Problem::new(Code::TooLarge).detail(format!("a body here has at most {bytes_max} bytes"));
        if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            let problem = Problem::new(Code::ContentTypeUnsupported);
            return Err(problem.detail("send the body without content encoding; its hashes are taken over these bytes"));
        }
        let announced = match headers.get(header::CONTENT_LENGTH) {
            None => None,
            Some(length) => Some(length.to_str().ok().and_then(|length| length.parse().ok()).ok_or_else(too_large)?),
        };
        if announced.is_some_and(|announced| announced > bytes_max) {
            drain(&mut body).await;
            return Err(too_large());
        }
        let holder = caller.party().map_or(Holder::Public, |client| Holder::Party(client.party));
        // Who says beforehand that there is no room for a body spares its sender the way.
        self.bytes.ask(Some(holder), announced.unwrap_or(0)).map_err(Problem::new)?;
        let part = self.bytes.take(Some(holder), 0).map_err(Problem::new)?;
        let room = Room { part, metrics: Arc::clone(&self.metrics) };
        let reading = fill(&mut body, room, announced.unwrap_or(bytes_max));
        let read = tokio::time::timeout(self.timeout, reading).await.map_err(|_| {
            let detail = format!("the body did not arrive within {} ms", self.timeout.as_millis());
            Problem::new(Code::ParameterInvalid).status(StatusCode::REQUEST_TIMEOUT).detail(detail)
        })?;
        let problem = match read {
            Ok(reserved) => return Ok(reserved),
            Err(Unread::BrokenOff) => {
                return Err(Problem::new(Code::Malformed).detail("the body broke off; send the request again"));
            }
            Err(Unread::TooLarge) => too_large(),
            Err(Unread::NoRoom(code)) => Problem::new(code),
        };
        drain(&mut body).await;
        Err(problem)
    }
}

/// Reads a body of at most `bytes_max` into memory that grows with it. One buffer: frames would each keep the read buffer
/// alive that they lie in, and may be as short as a byte.
async fn fill(body: &mut Body, mut room: Room, bytes_max: usize) -> Result<Reserved, Unread> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers are no part of what is signed.
        let Ok(data) = frame.map_err(|_| Unread::BrokenOff)?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > bytes_max {
            return Err(Unread::TooLarge);
        }
        if length > bytes.capacity() {
            let capacity = length.max(2 * bytes.capacity()).max(FIRST_BYTES).min(bytes_max);
            room.grow(capacity - bytes.capacity()).map_err(Unread::NoRoom)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Reserved { bytes: bytes.into(), _room: room })
}

/// Takes in and forgets what a client is still sending. To stop reading would reset the connection, and the reset may
/// overtake the answer.
async fn drain(body: &mut Body) {
    let frames = async {
        let mut left = DRAINED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    // Who sends more, or more slowly, is cut off.
    let _ = tokio::time::timeout(DRAINED_TIME_MAX, frames).await;
}

/// Checks the content type; parameters behind it are allowed.
pub(super) fn content_type(headers: &HeaderMap, allowed: &[&'static str]) -> Result<&'static str, Problem> {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    allowed
        .iter()
        .copied()
        .find(|allowed| essence.eq_ignore_ascii_case(allowed))
        .ok_or_else(|| Problem::new(Code::ContentTypeUnsupported).detail(format!("send {} here", allowed.join(" or "))))
}
