//! Bodies of requests: bytes, or a file that is read while it is sent.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces that wait to be sent.
const PIECES_AHEAD: usize = 4;

/// Where a body comes from; it can be opened again for another try.
#[derive(Clone, Debug)]
pub(crate) enum Source<'a> {
    Bytes(Bytes),
    File(&'a Path),
}

impl Source<'_> {
    /// The content, to be sent once.
    pub(crate) fn open(&self) -> io::Result<Content> {
        match self {
            Self::Bytes(bytes) => Ok(Content::Whole(Some(bytes.clone()).filter(|bytes| !bytes.is_empty()))),
            Self::File(path) => {
                let file = File::open(path)?;
                let left = file.metadata()?.len();
                let (pieces, received) = mpsc::channel(PIECES_AHEAD);
                tokio::task::spawn_blocking(move || read(file, left, &pieces));
                Ok(Content::Pieces { received, left })
            }
        }
    }
}

/// Reads as many bytes as were announced, until nobody wants more.
fn read(mut file: File, mut left: u64, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    while left > 0 {
        let mut piece = BytesMut::zeroed(usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES));
        let piece = file.read_exact(&mut piece).map(|()| piece.freeze());
        let (failed, length) = (piece.is_err(), piece.as_ref().map_or(0, |piece| piece.len() as u64));
        if pieces.blocking_send(piece).is_err() || failed {
            return;
        }
        left -= length;
    }
}

/// What is sent.
pub(crate) enum Content {
    Whole(Option<Bytes>),
    Pieces { received: mpsc::Receiver<io::Result<Bytes>>, left: u64 },
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces { received, left } => received.poll_recv(context).map(|piece| {
                let piece = piece?;
                if let Ok(bytes) = &piece {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                Some(piece.map(Frame::data))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Pieces { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Pieces { left, .. } => *left,
        })
    }
}
