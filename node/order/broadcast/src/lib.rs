//! Broadcast to every connected peer: the transport of the ordering engine's votes, proposals and statuses.
//!
//! ```text
//!  broadcast(topic, bytes) ──► for each peer: its newest connection ──► bounded queue ──► one stream, kept open
//! ```
//!
//! The engine's network layer gets this crate instead of the `libp2p-scatter` of the registry, whose interface it has. That
//! one tells a peer what it listens to when the *first* connection to it opens, and never again. A validator that lost power
//! and is back before its old connections are seen to be dead is told nothing, sends no vote, and a network that needs its
//! vote stands still until another process restarts. So nobody is told anything here: the peers of a validator are pinned,
//! all of them follow every topic, and **who is connected is sent everything**.
//!
//! * What is sent goes over the connection that was opened last, the one that is not left over from before.
//! * Messages between two nodes stay in order, and cost no negotiation: a stream for each of them cost a round trip more.
//! * A peer that does not take what it is sent loses the oldest of it ([`QUEUE_BYTES_MAX`]); the engine sends votes again,
//!   and syncs.
//!
//! Wire: each message is a frame behind its length (unsigned varint): one byte with the length of the topic, the topic, and
//! the bytes.

#![forbid(unsafe_code)]

mod behaviour;
mod frame;
mod handler;

pub use behaviour::{Behaviour, Event};
pub use frame::Topic;
pub use handler::QUEUE_BYTES_MAX;

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Most bytes of a message. Longer ones are not sent; a peer that sends one is cut off.
    pub max_buf_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_buf_size: 256 * 1024 }
    }
}
