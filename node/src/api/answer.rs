//! Answers on their way: what a request held, its place and its memory, is held until the last of its answer has been
//! handed to the transport or the connection has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

/// Bytes of a frame: as many as HTTP/2 sends in one by default.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the last frame. The transport takes a frame as soon as the peer's window has a byte of room and then keeps all
/// of it, and with the last one the answer counts as gone; so frames become shorter towards the end.
const LAST_FRAME_BYTES_MAX: usize = 1024;

/// A body in short frames that keeps something alive.
struct Holding<T> {
    body: Body,
    /// What the body gave and was not passed on yet.
    rest: Bytes,
    _held: T,
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let left = this.rest.len();
        let next = if left <= LAST_FRAME_BYTES_MAX { left } else { (left / 2).min(FRAME_BYTES_MAX) };
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(next)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// The response, whose body keeps `held` until it is gone.
pub(super) fn holding<T: Send + Unpin + 'static>(response: Response, held: T) -> Response {
    response.map(|body| Body::new(Holding { body, rest: Bytes::new(), _held: held }))
}

/// Bytes of a response's body; answers here are made whole, so they are known.
pub(super) fn bytes(response: &Response) -> usize {
    response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
}

/// Bytes of a response's body as far as anybody knows before its end: those of one that is streamed are in its header.
pub(super) fn length(response: &Response) -> u64 {
    let told = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    told.unwrap_or_else(|| bytes(response) as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_comes_in_short_frames_and_holds_until_its_end() {
        let held = Arc::new(());
        let bytes = vec![7; 3 * FRAME_BYTES_MAX + 1];
        let response = holding(Response::new(Body::from(bytes.clone())), Arc::clone(&held));
        assert_eq!(super::bytes(&response), bytes.len());
        let mut body = response.into_body();
        let (mut got, mut last) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            assert_eq!(Arc::strong_count(&held), 2);
            let data = frame.unwrap().into_data().unwrap();
            last = data.len();
            assert!(last <= FRAME_BYTES_MAX);
            got.extend_from_slice(&data);
        }
        assert!(body.is_end_stream());
        assert!(last <= LAST_FRAME_BYTES_MAX);
        assert_eq!(got, bytes);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
