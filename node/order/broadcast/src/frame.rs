//! What goes over a stream.

use std::fmt;

use asynchronous_codec::{Decoder, Encoder};
use bytes::{BufMut as _, Bytes, BytesMut};
use unsigned_varint::codec::UviBytes;

/// What a message is about.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Topic(Bytes);

impl Topic {
    /// Most bytes of a topic: its length is one byte on the wire.
    pub const BYTES_MAX: usize = u8::MAX as usize;

    /// The topic of that name, of which [`Topic::BYTES_MAX`] bytes count.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(&name[..name.len().min(Self::BYTES_MAX)]))
    }
}

impl AsRef<[u8]> for Topic {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", String::from_utf8_lossy(&self.0))
    }
}

/// A message under its topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub(crate) topic: Topic,
    pub(crate) message: Bytes,
}

impl Frame {
    pub(crate) fn bytes(&self) -> usize {
        1 + self.topic.0.len() + self.message.len()
    }
}

/// Reads and writes frames.
pub(crate) struct FrameCodec(UviBytes<Bytes>);

impl FrameCodec {
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        let mut lengths = UviBytes::default();
        lengths.set_max_len(1 + Topic::BYTES_MAX + message_bytes_max);
        Self(lengths)
    }
}

impl Encoder for FrameCodec {
    type Item<'a> = Frame;
    type Error = std::io::Error;

    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> Result<(), Self::Error> {
        let mut bytes = BytesMut::with_capacity(frame.bytes());
        // `Topic::new` bounds it.
        bytes.put_u8(frame.topic.0.len().try_into().unwrap_or(u8::MAX));
        bytes.put_slice(&frame.topic.0);
        bytes.put_slice(&frame.message);
        self.0.encode(bytes.freeze(), buffer)
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Self::Error> {
        let Some(bytes) = self.0.decode(buffer)? else { return Ok(None) };
        let mut message = bytes.freeze();
        let length = message.first().map_or(usize::MAX, |length| usize::from(*length));
        if message.len() <= length {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a frame that is shorter than its topic"));
        }
        let mut topic = message.split_to(1 + length);
        let topic = Topic(topic.split_off(1));
        Ok(Some(Frame { topic, message }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(topic: &[u8], message: &'static [u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        let frame = Frame { topic: Topic::new(topic), message: Bytes::from_static(message) };
        FrameCodec::new(1024).encode(frame, &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn frames_come_back_in_order_from_any_cuts() {
        let mut stream = encoded(b"/votes", b"one");
        stream.extend_from_slice(&encoded(b"", b""));
        stream.extend_from_slice(&encoded(&[b't'; 300], b"three"));
        let (mut codec, mut buffer, mut frames) = (FrameCodec::new(1024), BytesMut::new(), Vec::new());
        for byte in stream {
            buffer.put_u8(byte);
            frames.extend(codec.decode(&mut buffer).unwrap());
        }
        let read: Vec<(usize, &[u8])> =
            frames.iter().map(|frame| (frame.topic.as_ref().len(), frame.message.as_ref())).collect();
        assert_eq!(read, [(6, b"one".as_slice()), (0, b""), (255, b"three")]);
    }

    #[test]
    fn frames_that_lie_about_their_lengths_are_refused() {
        // Nothing in it, a topic that is longer than it, more than may be sent.
        for bytes in [[0].as_slice(), &[3, 3, b'a', b'b'], &[0xff, 0xff, 0x7f], &[0xff; 12]] {
            assert!(FrameCodec::new(1024).decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
