//! What a connection is doing: the facts from which it is judged idle or slow.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by a connection's transport, its service and its watch. Times are milliseconds since the connection opened.
pub(super) struct Activity {
    opened: Instant,
    /// Whether bytes between requests can only be the next head. HTTP/2 sends window updates and pings, too; there the
    /// idle bound ends a connection whose head does not.
    heads_only: bool,
    in_progress: AtomicUsize,
    /// When the last request ended, or the connection opened.
    quiet_since: AtomicU64,
    /// When bytes first came after that; 0 when none did.
    head_since: AtomicU64,
    /// Until when each answer on its way must be gone, in no order: there are few.
    due: Mutex<Vec<u64>>,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may stay.
    Alive,
    /// No request for too long.
    Idle,
    /// A request began and its head does not end.
    SlowHead,
    /// The peer does not take an answer.
    Unread,
}

impl Activity {
    pub(super) fn new(heads_only: bool) -> Self {
        Self {
            opened: Instant::now(),
            heads_only,
            in_progress: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            due: Mutex::default(),
        }
    }

    /// Bytes came from the peer.
    pub(super) fn received(&self) {
        let between = self.heads_only && self.in_progress.load(Ordering::Relaxed) == 0;
        if between && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request's head is complete. The request is in progress until the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InProgress {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        InProgress(Arc::clone(self))
    }

    /// An answer is on its way until the value is dropped, and within `time` if the connection is to stay.
    pub(super) fn answer(self: &Arc<Self>, time: Duration) -> Answering {
        let due = self.now().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.due().push(due);
        Answering { activity: Arc::clone(self), due }
    }

    fn due(&self) -> MutexGuard<'_, Vec<u64>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection may stay.
    pub(super) fn judge(&self, head: Duration, idle: Duration) -> Verdict {
        let now = self.now();
        if self.due().iter().any(|due| *due <= now) {
            return Verdict::Unread;
        }
        if self.in_progress.load(Ordering::Relaxed) > 0 {
            return Verdict::Alive;
        }
        let since = |start: u64| Duration::from_millis(now.saturating_sub(start));
        let head_since = self.head_since.load(Ordering::Relaxed);
        if head_since > 0 && since(head_since) >= head {
            return Verdict::SlowHead;
        }
        if since(self.quiet_since.load(Ordering::Relaxed)) >= idle { Verdict::Idle } else { Verdict::Alive }
    }

    /// At least 1, so that 0 can mean never.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// A request in progress.
pub(super) struct InProgress(Arc<Activity>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.quiet_since.store(self.0.now(), Ordering::Relaxed);
        self.0.head_since.store(0, Ordering::Relaxed);
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer on its way.
pub(super) struct Answering {
    activity: Arc<Activity>,
    due: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut due = self.activity.due();
        if let Some(index) = due.iter().position(|due| *due == self.due) {
            due.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_taken_ends_the_connection_whatever_else_goes_on() {
        let activity = Arc::new(Activity::new(false));
        let never = Duration::from_secs(3_600);
        let (late, early) = (activity.answer(Duration::ZERO), activity.answer(never));
        let _request = activity.begin();
        assert_eq!(activity.judge(never, never), Verdict::Unread);
        drop(late);
        assert_eq!(activity.judge(never, never), Verdict::Alive);
        drop(early);
        assert_eq!(activity.judge(never, never), Verdict::Alive);
    }

    #[test]
    fn a_connection_is_judged_by_its_requests_not_by_its_bytes() {
        let activity = Arc::new(Activity::new(true));
        let (never, now) = (Duration::from_secs(3_600), Duration::ZERO);
        assert_eq!(activity.judge(now, never), Verdict::Alive, "nothing was received, so no head is slow");
        assert_eq!(activity.judge(never, now), Verdict::Idle);
        activity.received();
        assert_eq!(activity.judge(now, never), Verdict::SlowHead);
        let request = activity.begin();
        assert_eq!(activity.judge(now, now), Verdict::Alive, "a request in progress may take its time");
        activity.received();
        drop(request);
        assert_eq!(activity.judge(now, never), Verdict::Alive, "its bytes are not the next head's");
    }
    /// An HTTP/2 client answers pings and opens windows while it is idle; that is no slow head.
    #[test]
    fn frames_between_requests_are_not_a_head_in_http2() {
        let activity = Activity::new(false);
        activity.received();
        assert_eq!(activity.judge(Duration::ZERO, Duration::from_secs(3_600)), Verdict::Alive);
        assert_eq!(activity.judge(Duration::ZERO, Duration::ZERO), Verdict::Idle);
    }
}
