//! What the device accepted last, kept until it is older than a fault would take to be found.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use stele_accel_hash::Span;

use crate::VerifyItem;

/// Accepted items with their arenas, bounded in items and bytes.
#[derive(Debug)]
pub(crate) struct Window {
    items_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    batches: VecDeque<Accepted>,
    items: usize,
    bytes: usize,
}

/// Items of one job that the device accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) bytes: Bytes,
    pub(crate) items: Vec<VerifyItem>,
}

impl Accepted {
    /// Copies items into an arena of their own, so that the window keeps no bytes of others.
    pub(crate) fn copy<'i>(bytes: &Bytes, items: impl Iterator<Item = &'i VerifyItem> + Clone) -> Self {
        let spans = items.clone().flat_map(|item| [item.public_key, item.signature, item.message]);
        // At once: an arena that grows is copied, and its pages are cleared, over and over.
        let mut arena = Vec::with_capacity(spans.map(|span| span.length as usize).sum());
        let mut copy = |span: Span| Span::append(&mut arena, span.slice(bytes).ok()?);
        // No span leaves the arena of a job that was queued, and its parts are no longer than the whole.
        let copied = items.filter_map(|item| {
            let (public_key, signature) = (copy(item.public_key)?, copy(item.signature)?);
            Some(VerifyItem { suite: item.suite, public_key, signature, message: copy(item.message)? })
        });
        let items = copied.collect();
        Self { items, bytes: arena.into() }
    }
}

impl Window {
    pub(crate) fn new(items_max: usize, bytes_max: usize) -> Self {
        Self { items_max, bytes_max, kept: Mutex::default() }
    }

    /// Keeps what was accepted, and forgets the oldest. Of what is larger than the window the newest items are kept.
    pub(crate) fn keep(&self, accepted: Accepted) {
        let accepted = self.fitting(accepted);
        let mut kept = self.kept();
        kept.items += accepted.items.len();
        kept.bytes += accepted.bytes.len();
        kept.batches.push_back(accepted);
        while kept.items > self.items_max || kept.bytes > self.bytes_max {
            let Some(oldest) = kept.batches.pop_front() else { return };
            kept.items -= oldest.items.len();
            kept.bytes -= oldest.bytes.len();
        }
    }

    fn fitting(&self, accepted: Accepted) -> Accepted {
        if accepted.items.len() <= self.items_max && accepted.bytes.len() <= self.bytes_max {
            return accepted;
        }
        let mut bytes = self.bytes_max;
        let newest = accepted.items.iter().rev().take(self.items_max).take_while(|item| {
            let length = [item.public_key, item.signature, item.message].map(|span| span.length as usize);
            let fits = bytes.checked_sub(length.iter().sum());
            bytes = fits.unwrap_or_default();
            fits.is_some()
        });
        let first = accepted.items.len() - newest.count();
        Accepted::copy(&accepted.bytes, accepted.items[first..].iter())
    }

    /// Takes all that is kept.
    pub(crate) fn take(&self) -> Vec<Accepted> {
        std::mem::take(&mut *self.kept()).batches.into()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Suite;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let span = Span::default();
        let item = VerifyItem { suite: Suite::Sm2, public_key: span, signature: span, message: span };
        let accepted = |items, bytes: usize| Accepted { bytes: vec![0; bytes].into(), items: vec![item; items] };
        let sizes = |window: &Window| window.take().iter().map(|batch| batch.items.len()).collect::<Vec<_>>();
        let window = Window::new(10, 1000);
        for items in [4, 5, 1, 3] {
            window.keep(accepted(items, 10));
        }
        assert_eq!(sizes(&window), [5, 1, 3]);
        assert!(sizes(&window).is_empty());
        window.keep(accepted(1, 600));
        window.keep(accepted(2, 600));
        assert_eq!(sizes(&window), [2]);
        window.keep(accepted(11, 0));
        assert_eq!(sizes(&window), [10], "the newest of one that is larger than the window");
        let long = VerifyItem { message: Span { offset: 0, length: 400 }, ..item };
        window.keep(Accepted { bytes: vec![0; 1200].into(), items: vec![item, long, long, item] });
        assert_eq!(
            window.take().iter().map(|batch| (batch.items.len(), batch.bytes.len())).collect::<Vec<_>>(),
            [(4, 800)]
        );
        window.keep(Accepted { bytes: vec![0; 1200].into(), items: vec![long, long, long] });
        assert_eq!(
            window.take().iter().map(|batch| (batch.items.len(), batch.bytes.len())).collect::<Vec<_>>(),
            [(2, 800)]
        );
    }
}
