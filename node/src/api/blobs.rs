//! Bodies of records: taken while they arrive, given while they are opened.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, HttpBody};
use axum::extract::{RawQuery, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use stele_storage::StorageError;
use stele_types::party::Role;
use stele_types::record::RecordClass;
use stele_types::{Code, Hash, ObjectId, PartyId};
use tokio::sync::{mpsc, oneshot};

use super::access::Caller;
use super::backend::{BackendError, Client};
use super::body::drain;
use super::commons::Part;
use super::custody;
use super::format::{self, JSON, OCTETS};
use super::parameters::{self, Named, Parameters};
use super::problem::Problem;
use super::router::State;
use super::view::{BlobView, OctetsView};
use crate::payload::{Belonging, Blob, Custody, Payload, PayloadError};

/// A body must arrive at this rate on average, beside the time that every request has.
const RATE_MIN: u64 = 16 << 10;

/// Years until which bodies can be kept.
const RETENTION_YEARS: RangeInclusive<u64> = 1970..=9999;

/// Pieces of an answer that wait for the client; each is 64 KiB.
const PIECES_AHEAD: usize = 2;

/// Takes the body of a record: sealed, stored, and told by the root of what is stored.
///
/// The answer has what a `record.put` or `record.correct` says of the body: `body_root`, `body_hash` and `commitment`. A
/// body that no registered statement refers to within a day is removed. Putting it again makes another, under a key and
/// root of its own. The salt opens the commitment; it is as secret as the body.
#[utoipa::path(
    put, path = "/v1/records/{record}/body", tag = "payload",
    params(
        ("record" = String, Path, description = "Id of the record: 32 hexadecimal digits"),
        ("class" = String, Query, description = "Class of the record, such as `medical`"),
        ("retention_year" = Option<u16>, Query, description = "Year in which its retention ends; without it, none"),
    ),
    request_body(content = OctetsView, content_type = "application/octet-stream", description = "The body"),
    responses(
        (status = 201, description = "Durable where its class asks for it", body = BlobView),
        (status = 202, description = "Durable on this node, and not yet wherever its class asks for it", body = BlobView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
        (status = "5XX", description = "Not taken now", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(record): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let client = caller.party()?;
    let (parts, mut body) = request.into_parts();
    let taken = take(&state, &client, &record, parts.uri.query(), &parts.headers, &mut body).await;
    let blob = match taken {
        Ok(blob) => blob,
        Err(problem) => {
            drain(&mut body).await;
            return Err(problem);
        }
    };
    let (blob, class) = blob;
    let wait = state.backend.custody().map(|custody| custody.wait()).unwrap_or_default();
    let reached = custody::reached_within(&state, blob.root, class, wait).await;
    let status = custody::status(&reached);
    let mut response = format::json(&BlobView::new(&blob, reached));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/blobs/{}", blob.root)) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn take(
    state: &State,
    client: &Client,
    record: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Blob, RecordClass), Problem> {
    if !client.roles.contains(Role::Agency) {
        return Err(Problem::new(Code::Forbidden).detail("bodies are for agencies, which alone put records"));
    }
    let party = client.party;
    let parameters = Parameters::read(query, &["class", "retention_year"])?;
    let class = parameters.word("class").and_then(RecordClass::from_word);
    let class = class.ok_or_else(|| Problem::parameter("class", "a class of records, such as medical"))?;
    let year = parameters.number("retention_year", *RETENTION_YEARS.start(), *RETENTION_YEARS.end())?;
    let record =
        ObjectId::from_hex(record).ok_or_else(|| Problem::parameter("record", "32 hexadecimal digits, lower case"))?;
    format::choose(headers, &[JSON])?;
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::new(Code::ContentTypeUnsupported)
            .detail("send the body without content encoding; its commitment is taken over these bytes"));
    }
    let payload = payload(state)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = announced.filter(|bytes| *bytes > payload.bytes_max()) {
        return Err(problem(StorageError::TooLong { bytes, bytes_max: payload.bytes_max() }.into()));
    }
    let _transfer = state.transfers.take(Some(party), 1).map_err(Problem::new)?;
    let retention_year = year.and_then(|year| u16::try_from(year).ok()).unwrap_or_default();
    let to = Belonging { class, retention_year, party, record };
    let wants_copy = state.backend.custody().is_some_and(|custody| custody.wants_copy(class));
    let mut incoming = payload.put(&to, wants_copy).await.map_err(problem)?;
    let timeout = Duration::from_millis(state.limits.body_timeout_ms);
    let (begun, mut received) = (Instant::now(), 0);
    // Of the node's own slowness the client knows nothing.
    let mut stored = Duration::ZERO;
    loop {
        let due = begun + timeout + stored + Duration::from_secs(received / RATE_MIN);
        let frame = tokio::time::timeout_at(due.into(), body.frame()).await.map_err(|_| {
            let detail = format!("the body arrived at less than {} KiB a second", RATE_MIN >> 10);
            Problem::new(Code::RequestTimeout).detail(detail)
        })?;
        let Some(frame) = frame else { break };
        let broken = |_| Problem::new(Code::Malformed).detail("the body broke off; send the request again");
        // Trailers are no part of it.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        received += data.len() as u64;
        let storing = Instant::now();
        incoming.write(&data).await.map_err(problem)?;
        stored += storing.elapsed();
    }
    Ok((incoming.finish().await.map_err(problem)?, class))
}

/// The body with this root of its sealed form. For the party that put it.
///
/// One range of bytes can be asked for (RFC 9110, section 14).
#[utoipa::path(
    get, path = "/v1/blobs/{root}", tag = "payload",
    params(("root" = String, Path, description = "Root of the sealed form: 64 hexadecimal digits")),
    responses(
        (status = 200, description = "The body", body = OctetsView, content_type = "application/octet-stream"),
        (status = 206, description = "The range of it", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn body(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(root): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    give(&state, Some(caller), Form::Open, &root, query.as_deref(), &headers).await
}

/// The sealed form of a body, which has the root. For regulators and operators, and for the party that put it.
#[utoipa::path(
    get, path = "/v1/blobs/{root}/sealed", tag = "payload",
    params(("root" = String, Path, description = "Root of the sealed form: 64 hexadecimal digits")),
    responses(
        (status = 200, description = "The sealed form", body = OctetsView, content_type = "application/octet-stream"),
        (status = 206, description = "The range of it", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn sealed(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    Named(root): Named<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    give(&state, Some(caller), Form::Sealed, &root, query.as_deref(), &headers).await
}

/// In which form a body is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Open,
    Sealed,
}

/// What an answer will be, known before its first byte.
struct Begun {
    bytes: u64,
    span: Result<Option<(u64, u64)>, Unsatisfiable>,
}

/// Gives a body, to a party or, if there is none, to the operator who has shown the node's token.
pub(super) async fn give(
    state: &State,
    caller: Option<Caller>,
    form: Form,
    root: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let party = caller.map(|caller| caller.party()).transpose()?.map(|client| client.party);
    Parameters::read(query, &[])?;
    format::choose(headers, &[OCTETS])?;
    let root = parameters::root(root)?;
    let payload = payload(state)?;
    let tag = match form {
        Form::Open => format!("\"{root}-body\""),
        Form::Sealed => format!("\"{root}\""),
    };
    let wanted = Wanted::read(headers, &tag);
    let transfer = state.transfers.take(party, 1).map_err(Problem::new)?;
    let (begun, opened) = oneshot::channel();
    let (pieces, received) = mpsc::channel(PIECES_AHEAD);
    let custody = state.backend.custody();
    let task = Giving { payload, custody, caller, form, root, wanted, pieces };
    tokio::spawn(async move {
        let _transfer: Part<PartyId> = transfer;
        task.run(begun).await;
    });
    let Begun { bytes, span } = opened.await.map_err(|_| Problem::new(Code::Internal))??;
    let (status, from, end) = match span {
        Ok(None) => (StatusCode::OK, 0, bytes),
        Ok(Some((from, end))) => (StatusCode::PARTIAL_CONTENT, from, end),
        Err(Unsatisfiable) => {
            let mut response = Problem::new(Code::RangeInvalid).into_response();
            content_range(&mut response, &format!("bytes */{bytes}"));
            return Ok(response);
        }
    };
    let mut response = format::bytes(OCTETS, Body::new(Pieces(received)));
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        content_range(&mut response, &format!("bytes {from}-{}/{bytes}", end - 1));
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - from));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A body must not lie in a cache; its sealed form may, for who was allowed to have it.
    let control = if form == Form::Open { "no-store" } else { "private, max-age=31536000, immutable" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

fn content_range(response: &mut Response, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
}

/// Reads a body and passes it on, piece by piece, as fast as the client takes it.
struct Giving {
    payload: Arc<Payload>,
    custody: Option<Arc<Custody>>,
    caller: Option<Caller>,
    form: Form,
    root: Hash,
    wanted: Wanted,
    pieces: mpsc::Sender<Result<Bytes, Broken>>,
}

/// The answer ends early; its length was told, so the client notices.
#[derive(Debug, thiserror::Error)]
#[error("the body could not be read to its end")]
struct Broken;

impl Giving {
    async fn run(self, begun: oneshot::Sender<Result<Begun, Problem>>) {
        let sealed = match self.sealed().await {
            Ok(sealed) => sealed,
            Err(error) => {
                let _ = begun.send(Err(problem(error)));
                return;
            }
        };
        if !self.may_read(sealed.header().party) {
            // Whether there is such a body is nobody else's business.
            let _ = begun.send(Err(Problem::not_found("body")));
            return;
        }
        let opened = match self.form {
            Form::Open => self.opened(sealed).await.map(Source::Open),
            Form::Sealed => Ok(Source::Sealed(sealed)),
        };
        let mut source = match opened {
            Ok(source) => source,
            Err(error) => {
                let _ = begun.send(Err(problem(error)));
                return;
            }
        };
        let bytes = source.bytes();
        let span = self.wanted.of(bytes);
        let (mut from, end) = match span {
            Ok(span) => span.unwrap_or((0, bytes)),
            Err(Unsatisfiable) => (0, 0),
        };
        // What cannot be opened at all is a problem, not an answer that breaks off.
        let first = if from < end { source.read(from, end - from).await } else { Ok(Bytes::new()) };
        let mut piece = match first {
            Ok(piece) => piece,
            Err(error) => {
                let damaged = is_damage(&error);
                let _ = begun.send(Err(problem(error)));
                if let Some(custody) = self.custody.as_ref().filter(|_| damaged) {
                    custody.mend(self.root).await;
                }
                return;
            }
        };
        if begun.send(Ok(Begun { bytes, span })).is_err() {
            return;
        }
        while from < end {
            from += piece.len() as u64;
            let is_end = piece.is_empty();
            if is_end || self.pieces.send(Ok(piece)).await.is_err() {
                return;
            }
            if from >= end {
                return;
            }
            piece = match source.read(from, end - from).await {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::error!(code = error.code(), %error, root = %self.root, "a body breaks off");
                    let _ = self.pieces.send(Err(Broken)).await;
                    if let Some(custody) = self.custody.as_ref().filter(|_| is_damage(&error)) {
                        custody.mend(self.root).await;
                    }
                    return;
                }
            };
        }
    }

    /// The sealed body; one that cannot be read is brought back from its copy, if there is one.
    async fn sealed(&self) -> Result<crate::payload::Sealed<'_>, PayloadError> {
        match (self.payload.sealed(&self.root).await, &self.custody) {
            (Err(error), Some(custody)) if is_damage(&error) && custody.mend(self.root).await => {
                self.payload.sealed(&self.root).await
            }
            (sealed, _) => sealed,
        }
    }

    /// The body in a sealed form; under a class key that this node has lost, with that of another node.
    async fn opened<'p>(
        &'p self,
        sealed: crate::payload::Sealed<'p>,
    ) -> Result<crate::payload::Body<'p>, PayloadError> {
        match (self.payload.open_sealed(sealed).await, &self.custody) {
            (Err(PayloadError::KeyUnknown), Some(custody)) if custody.learn_key(self.root).await => {
                self.payload.open_sealed(self.payload.sealed(&self.root).await?).await
            }
            (opened, _) => opened,
        }
    }

    fn may_read(&self, owner: PartyId) -> bool {
        self.caller.is_none_or(|caller| caller.is(&owner) || (self.form == Form::Sealed && caller.may_copy()))
    }
}

/// Whether what is stored is beyond repair from parity.
const fn is_damage(error: &PayloadError) -> bool {
    matches!(error, PayloadError::Storage(StorageError::Damaged { .. } | StorageError::WrongContent))
}

enum Source<'p> {
    Open(crate::payload::Body<'p>),
    Sealed(crate::payload::Sealed<'p>),
}

impl Source<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Open(body) => body.bytes(),
            Self::Sealed(sealed) => sealed.bytes(),
        }
    }
    async fn read(&mut self, from: u64, bytes_max: u64) -> Result<Bytes, PayloadError> {
        match self {
            Self::Open(body) => body.read(from, bytes_max).await,
            Self::Sealed(sealed) => {
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(crate::payload::CHUNK_BYTES);
                sealed.read(from, bytes_max).await
            }
        }
    }
}

/// An answer's body. Its length is not known to the transport, which must not set aside memory for it; the header says it.
struct Pieces(mpsc::Receiver<Result<Bytes, Broken>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Which bytes a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    From(u64),
    Between(u64, u64),
    Last(u64),
}

/// No byte of the range exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unsatisfiable;

impl Wanted {
    /// The one range of a request. Several, or one in another unit or form, may be ignored, and are; so is one of another
    /// version than `tag`.
    fn read(headers: &HeaderMap, tag: &str) -> Self {
        let other_version = headers.get(header::IF_RANGE).is_some_and(|asked| asked.as_bytes() != tag.as_bytes());
        let range = headers.get(header::RANGE).filter(|_| !other_version).and_then(|range| range.to_str().ok());
        range.and_then(Self::parse).unwrap_or(Self::All)
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
            // More than 2^64 is behind every end.
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match (first.trim(), last.trim()) {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// Beginning and end of the range in a body of so many bytes.
    fn of(self, bytes: u64) -> Result<Option<(u64, u64)>, Unsatisfiable> {
        let (from, end) = match self {
            Self::All => return Ok(None),
            Self::From(first) => (first, bytes),
            Self::Between(first, last) => (first, last.saturating_add(1).min(bytes)),
            Self::Last(count) => (bytes.saturating_sub(count), bytes),
        };
        if from < end { Ok(Some((from, end))) } else { Err(Unsatisfiable) }
    }
}

pub(super) fn payload(state: &State) -> Result<Arc<Payload>, Problem> {
    state.backend.payload().map_err(|code| match code {
        Code::NotFound => Problem::new(code).detail("this node keeps no bodies; ask another node"),
        _ => Problem::new(code).detail("the store of bodies is not open; ask another node, or wait for the named time"),
    })
}

pub(super) fn problem(error: PayloadError) -> Problem {
    let code = match &error {
        PayloadError::Storage(error) => match error {
            StorageError::NotFound => return Problem::not_found("body"),
            StorageError::TooLong { bytes_max, .. } => {
                return Problem::new(Code::TooLarge).detail(format!("a body here has at most {bytes_max} bytes"));
            }
            StorageError::Full { .. } => Code::StorageFull,
            StorageError::ReadOnly { .. } => Code::StorageReadOnly,
            StorageError::Busy { retry_after } => {
                let milliseconds = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                return Problem::new(Code::Saturated).retry_after(Some(milliseconds));
            }
            StorageError::Cold { retry_after, .. } => {
                tracing::warn!(code = error.code(), %error, "a body that the cold tier alone has cannot be read");
                let milliseconds = |after: Duration| u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
                return Problem::new(Code::NotReady).retry_after(retry_after.map(milliseconds));
            }
            StorageError::Damaged { .. } | StorageError::WrongContent | StorageError::TooFewDrives { .. } => {
                Code::BodyDamaged
            }
            _ => Code::Internal,
        },
        PayloadError::TooManyWaiting => Code::Saturated,
        PayloadError::WaitingShare => Code::ShareExceeded,
        PayloadError::RetentionOver { .. } => {
            return Problem::parameter("retention_year", "a year that is not over: this node removes bodies then");
        }
        PayloadError::KeyUnknown => Code::BodySealed,
        // Of other objects of the store nobody knows a root by chance.
        PayloadError::NotSealed => return Problem::not_found("body"),
        PayloadError::DoesNotOpen => Code::BodyDamaged,
        _ => Code::Internal,
    };
    match code {
        // Said once in the node's own log, and not to the client.
        Code::Internal => BackendError::Failed(Box::new(error)).into(),
        Code::BodyDamaged => {
            tracing::error!(code = error.code(), %error, "a body cannot be read");
            Problem::new(code)
        }
        code => Problem::new(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_everything_else_is_the_whole() {
        for (text, wanted) in [
            ("bytes=0-0", Some(Wanted::Between(0, 0))),
            ("bytes=5-", Some(Wanted::From(5))),
            ("bytes=-7", Some(Wanted::Last(7))),
            ("bytes=1-99999999999999999999999", Some(Wanted::Between(1, u64::MAX))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("chunks=0-1", None),
        ] {
            assert_eq!(Wanted::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn ranges_end_where_the_body_does() {
        assert_eq!(Wanted::Between(2, 100).of(10), Ok(Some((2, 10))));
        assert_eq!(Wanted::Last(100).of(10), Ok(Some((0, 10))));
        assert_eq!(Wanted::From(10).of(10), Err(Unsatisfiable));
        assert_eq!(Wanted::Last(0).of(10), Err(Unsatisfiable));
        assert_eq!(Wanted::Between(0, u64::MAX).of(1), Ok(Some((0, 1))));
        assert_eq!(Wanted::All.of(0), Ok(None));
    }
}
