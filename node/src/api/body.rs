//! Reading request bodies: bounded in size, in time, and in memory over all listeners, of which no party gets all.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use stele_types::{Code, PartyId};

use super::commons::{Commons, Part};
use super::problem::Problem;
use crate::metrics::Metrics;

/// Memory that a body takes first; it doubles as the body arrives. What was only announced costs nothing.
const FIRST_BYTES: usize = 64 * 1024;

/// What a client may still send after it was refused, and for how long, so that it reads the answer.
const DRAINED_BYTES_MAX: usize = 8 << 20;
const DRAINED_TIME_MAX: Duration = Duration::from_secs(2);

/// Memory for the bodies of all requests in progress.
pub(super) struct BodyBudget {
    bytes: Arc<Commons<PartyId>>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A body with its part of the budget, given back when it is dropped.
pub(super) struct Reserved {
    /// The bytes.
    pub(super) bytes: Bytes,
    room: Room,
}

impl Reserved {
    /// Lets go of the bytes and keeps as much memory as what was read from them takes.
    ///
    /// # Errors
    /// `saturated`, `share_exceeded`.
    pub(super) fn keep(self, bytes: usize) -> Result<Kept, Problem> {
        let mut room = self.room;
        room.grow(bytes.saturating_sub(room.part.amount())).map_err(Problem::new)?;
        Ok(Kept(room))
    }
}

/// Memory that is in use until this is dropped.
pub(super) struct Kept(#[expect(dead_code, reason = "it is held")] Room);

/// A part of the budget, counted.
struct Room {
    part: Part<PartyId>,
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

impl BodyBudget {
    pub(super) fn new(memory_bytes_max: usize, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self { bytes: Commons::new(memory_bytes_max), timeout, metrics }
    }

    /// Reads a body of at most `bytes_max` that a party sends.
    pub(super) async fn read(
        &self,
        party: PartyId,
        headers: &HeaderMap,
        mut body: Body,
        bytes_max: usize,
    ) -> Result<Reserved, Problem> {
        let refused = match self.room(party, headers, bytes_max) {
            Ok((room, bytes_max)) => {
                let read = tokio::time::timeout(self.timeout, fill(&mut body, room, bytes_max)).await;
                let late = |_| {
                    let detail = format!("the body did not arrive within {} ms", self.timeout.as_millis());
                    Problem::new(Code::RequestTimeout).detail(detail)
                };
                match read.map_err(late)? {
                    Ok(reserved) => return Ok(reserved),
                    Err(code) => Problem::new(code),
                }
            }
            Err(code) => Problem::new(code),
        };
        drain(&mut body).await;
        Err(match refused.code() {
            Code::TooLarge => refused.detail(format!("a body here has at most {bytes_max} bytes")),
            Code::Malformed => refused.detail("the body broke off; send the request again"),
            Code::ContentTypeUnsupported => {
                refused.detail("send the body without content encoding; its hashes are taken over these bytes")
            }
            _ => refused,
        })
    }

    /// Room for a body that has not come yet, and how long it may become: what was announced, or else the bound.
    fn room(&self, party: PartyId, headers: &HeaderMap, bytes_max: usize) -> Result<(Room, usize), Code> {
        if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Code::ContentTypeUnsupported);
        }
        let announced = match headers.get(header::CONTENT_LENGTH) {
            None => None,
            Some(length) => Some(length.to_str().ok().and_then(|length| length.parse().ok()).ok_or(Code::TooLarge)?),
        };
        if announced.is_some_and(|announced| announced > bytes_max) {
            return Err(Code::TooLarge);
        }
        // To say beforehand that there is no room spares the sender the way.
        self.bytes.ask(Some(party), announced.unwrap_or(0))?;
        let part = self.bytes.take(Some(party), 0)?;
        Ok((Room { part, metrics: Arc::clone(&self.metrics) }, announced.unwrap_or(bytes_max)))
    }
}

/// Reads a body of at most `bytes_max` into memory that grows with it. One buffer: frames would each keep the read buffer
/// alive that they lie in, and may be as short as a byte.
async fn fill(body: &mut Body, mut room: Room, bytes_max: usize) -> Result<Reserved, Code> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers are no part of what is signed.
        let Ok(data) = frame.map_err(|_| Code::Malformed)?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > bytes_max {
            return Err(Code::TooLarge);
        }
        if length > bytes.capacity() {
            let capacity = length.max(2 * bytes.capacity()).max(FIRST_BYTES).min(bytes_max);
            room.grow(capacity - bytes.capacity())?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Reserved { bytes: bytes.into(), room })
}

/// Takes in and forgets what a client is still sending. To stop reading would reset the connection, and the reset may
/// overtake the answer.
pub(super) async fn drain(body: &mut Body) {
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
