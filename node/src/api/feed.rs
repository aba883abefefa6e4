//! The cursor feed: registered statements in log order, as CloudEvents. The cursor is the log index, so a reader that
//! keeps one number misses nothing and sees nothing twice.

use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{RawQuery, State as Extract};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use stele_types::{LogIndex, Statement};

use super::access::Caller;
use super::backend::{Backend, BackendError};
use super::cache;
use super::chain::{Leaf, Leaves};
use super::format;
use super::parameters::Parameters;
use super::problem::Problem;
use super::router::State;
use super::status::next_block;
use super::view::{EventDataView, EventView};

/// Content type of a batch of CloudEvents.
const CLOUDEVENTS_BATCH: &str = "application/cloudevents-batch+json";
/// Events of one answer.
const EVENTS_MAX: u64 = 1_000;
const EVENTS_DEFAULT: u64 = 100;
/// Leaves that one request looks at: a party whose statements are rare pages past others' without holding a thread.
const LEAVES_MAX: u64 = 10_000;

/// Registered statements from a log index on: a party's own, or all for a regulator. `Link: rel="next"` is where to go
/// on; an empty list with the same cursor means that the end is reached.
#[utoipa::path(
    get, path = "/v1/feed", tag = "log",
    params(
        ("cursor" = Option<u64>, Query, description = "First log index, 0 by default"),
        ("limit" = Option<u64>, Query, description = "Events at most, 1 to 1000, 100 by default"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for something new"),
    ),
    responses(
        (status = 200, description = "CloudEvents 1.0, JSON batch format", body = Vec<EventView>, content_type = "application/cloudevents-batch+json"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn feed(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = Parameters::read(query.as_deref(), &["cursor", "limit", "wait_ms"])?;
    format::choose(&headers, &[CLOUDEVENTS_BATCH, format::JSON])?;
    let mut cursor = query.number("cursor", 0, u64::MAX)?.unwrap_or(0);
    let limit = query.number("limit", 1, EVENTS_MAX)?.unwrap_or(EVENTS_DEFAULT);
    let deadline = Instant::now() + query.wait(state.limits.wait_max_ms)?.time;
    loop {
        let height = state.backend.standing().height;
        let page = state.read(move |backend| page(backend, &caller, cursor, limit)).await?;
        cursor = page.next;
        // Waiting goes on from where this look ended: what was seen was not the caller's.
        let waits = page.events.is_empty() && page.at_end && Instant::now() < deadline;
        if !waits || !next_block(&state, height, deadline).await {
            return Ok(answer(&page.events, cursor, limit));
        }
    }
}

struct Page {
    events: Vec<EventView>,
    next: u64,
    at_end: bool,
}

fn page(backend: &dyn Backend, caller: &Caller, cursor: u64, limit: u64) -> Result<Page, BackendError> {
    let certified = backend.standing().certified.0;
    let source = format!("urn:stele:{}", backend.genesis().network());
    let mut leaves = Leaves::default();
    let mut page = Page { events: Vec::new(), next: cursor, at_end: false };
    let mut seen = 0;
    for index in cursor..cursor.saturating_add(LEAVES_MAX) {
        if seen == limit {
            break;
        }
        // Only what a header certifies is told: nothing of the feed is ever taken back.
        let Some(leaf) = leaves.read(backend, LogIndex(index))?.filter(|leaf| leaf.height <= certified) else {
            page.at_end = true;
            break;
        };
        page.next = index + 1;
        let statement = Statement::parse(leaf.entry.clone())
            .map_err(|code| BackendError::Failed(format!("leaf {index} does not parse: {code}").into()))?;
        if caller.may_list(&statement.issuer()) {
            page.events.push(event(&source, index, &leaf, &statement));
            seen += 1;
        }
    }
    Ok(page)
}

fn event(source: &str, index: u64, leaf: &Leaf, statement: &Statement) -> EventView {
    let command = statement.command();
    EventView {
        specversion: "1.0",
        id: statement.id().to_hex(),
        source: source.to_owned(),
        r#type: format!("stele.{}", command.map_or("opaque", |command| command.as_str())),
        subject: index.to_string(),
        time: rfc3339(leaf.time_ms),
        datacontenttype: format::JSON,
        data: EventDataView {
            index,
            height: leaf.height,
            position: leaf.position,
            issuer: statement.issuer().to_hex(),
            object: command.map(|command| command.subject().to_hex()),
        },
    }
}

fn answer(events: &[EventView], next: u64, limit: u64) -> Response {
    let mut response = cache::volatile(format::json(&events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CLOUDEVENTS_BATCH));
    if let Ok(link) = HeaderValue::from_str(&format!("</v1/feed?cursor={next}&limit={limit}>; rel=\"next\"")) {
        headers.insert(header::LINK, link);
    }
    response
}

/// An instant in UTC with milliseconds.
fn rfc3339(time_ms: u64) -> String {
    let seconds = Duration::from_millis(time_ms).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin on 1 March here (Howard Hinnant, "chrono-compatible date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", time_ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_says() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(rfc3339(1_709_251_200_000), "2024-03-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_798_761_599_001), "2026-12-31T23:59:59.001Z");
    }
}
