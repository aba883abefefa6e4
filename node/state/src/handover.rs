//! Parts on their way from the commits to a thread that writes them.

use std::sync::mpsc::{SyncSender, TrySendError};

/// A queue to a thread that may be behind, or gone.
#[derive(Debug)]
pub(crate) struct Handover<T> {
    /// `None` once everything was handed over, or the thread gave up.
    sender: Option<SyncSender<T>>,
    /// A part that there was no room for yet.
    waiting: Option<T>,
}

impl<T> Handover<T> {
    pub(crate) fn new(sender: SyncSender<T>) -> Self {
        Self { sender: Some(sender), waiting: None }
    }

    /// Whether parts are still taken.
    pub(crate) fn is_open(&self) -> bool {
        self.sender.is_some()
    }

    /// Takes a part, which [`Handover::pass`] hands over.
    pub(crate) fn put(&mut self, part: T) {
        self.waiting = Some(part);
    }

    /// Hands over what waits; whether another part can be put. When the thread is behind, waits for it if `wait`.
    pub(crate) fn pass(&mut self, wait: bool) -> bool {
        let Some(sender) = &self.sender else { return false };
        let Some(part) = self.waiting.take() else { return true };
        let sent = if wait {
            sender.send(part).map_err(|error| TrySendError::Disconnected(error.0))
        } else {
            sender.try_send(part)
        };
        match sent {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => self.sender = None,
            Err(TrySendError::Full(part)) => self.waiting = Some(part),
        }
        false
    }

    /// There are no more parts.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }
}
