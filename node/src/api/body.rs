//! Reading request bodies: bounded in size, in time, and in memory over all listeners.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use stele_types::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::metrics::Metrics;

/// The budget counts in units of this many bytes: semaphores count to 2^32 at most, and small bodies cost one unit.
const UNIT_BYTES: usize = 1024;

/// What a client may still send after its body was refused as too large, and for how long, so that it reads the answer.
const DRAINED_BYTES_MAX: usize = 8 << 20;
const DRAINED_TIME_MAX: Duration = Duration::from_secs(2);

/// Memory for the bodies of all requests in progress.
pub(super) struct BodyBudget {
    units: Arc<Semaphore>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A body with its part of the budget, given back when it is dropped.
pub(super) struct Reserved {
    /// The bytes.
    pub(super) bytes: Bytes,
    _part: Part,
}

/// A part of the budget.
struct Part {
    permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Part {
    fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        let part = Self { permit, metrics };
        part.metrics.http.body_bytes(part.bytes());
        part
    }
    fn bytes(&self) -> i64 {
        i64::try_from(self.permit.num_permits() * UNIT_BYTES).unwrap_or(i64::MAX)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.metrics.http.body_bytes(-self.bytes());
    }
}

impl BodyBudget {
    pub(super) fn new(memory_bytes_max: usize, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        let units_max = (memory_bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units_max)), timeout, metrics }
    }

    /// Reads a body of at most `bytes_max`.
    pub(super) async fn read(
        &self,
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
            None => bytes_max,
            Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()).ok_or_else(too_large)?,
        };
        if announced > bytes_max {
            drain(&mut body).await;
            return Err(too_large());
        }
        let units = u32::try_from(announced.div_ceil(UNIT_BYTES).max(1)).map_err(|_| too_large())?;
        let permit =
            Arc::clone(&self.units).try_acquire_many_owned(units).map_err(|_| Problem::new(Code::Saturated))?;
        let part = Part::new(permit, Arc::clone(&self.metrics));
        let read = tokio::time::timeout(self.timeout, Limited::new(&mut body, announced).collect()).await;
        let collected = read.map_err(|_| {
            let detail = format!("the body did not arrive within {} ms", self.timeout.as_millis());
            Problem::new(Code::ParameterInvalid).status(StatusCode::REQUEST_TIMEOUT).detail(detail)
        })?;
        match collected {
            Ok(collected) => Ok(Reserved { bytes: collected.to_bytes(), _part: part }),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                drop(part);
                drain(&mut body).await;
                Err(too_large())
            }
            Err(_) => Err(Problem::new(Code::Malformed).detail("the body broke off; send the request again")),
        }
    }
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
