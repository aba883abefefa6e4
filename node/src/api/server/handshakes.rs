//! Handshakes in progress: a bounded number, of which the oldest makes room when all are taken.
//!
//! Whoever completes a handshake on the party listener has a name and a share of the connections. Before that nobody has,
//! so a stranger who opens connections and says nothing must not take what parties need: handshakes have places of their
//! own, and when all are taken, one that had its time gives way to the next. A handshake in a data centre takes
//! milliseconds; clients that all come back at once after a restart are within their time and wait in the kernel's queue
//! instead of displacing each other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Handshakes of one listener at once, each about 30 KB.
const HANDSHAKES_MAX: usize = 2_048;
/// What a handshake gets before it can be displaced: several round trips to the other end of the country.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// The places.
pub(super) struct Handshakes {
    most: usize,
    undisturbed: Duration,
    state: Mutex<State>,
    left: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Oldest first.
    running: VecDeque<Running>,
}

struct Running {
    number: u64,
    since: Instant,
    displaced: CancellationToken,
}

/// A handshake's place, given back when it is dropped.
pub(super) struct Handshaking {
    handshakes: Arc<Handshakes>,
    number: u64,
    displaced: CancellationToken,
}

impl Handshakes {
    pub(super) fn new() -> Arc<Self> {
        Self::with(HANDSHAKES_MAX, UNDISTURBED)
    }

    fn with(most: usize, undisturbed: Duration) -> Arc<Self> {
        Arc::new(Self { most, undisturbed, state: Mutex::default(), left: Notify::new() })
    }

    /// Waits for a place; only the accept loop does. Cancel-safe.
    pub(super) async fn begin(self: &Arc<Self>) -> Handshaking {
        loop {
            let wait = {
                let mut state = self.state();
                let oldest = state.running.front().filter(|_| state.running.len() >= self.most);
                let due = oldest.map(|oldest| oldest.since + self.undisturbed);
                match due.filter(|due| *due > Instant::now()) {
                    Some(due) => due,
                    None => {
                        if due.is_some()
                            && let Some(oldest) = state.running.pop_front()
                        {
                            oldest.displaced.cancel();
                        }
                        return self.admit(&mut state);
                    }
                }
            };
            tokio::select! {
                () = self.left.notified() => {}
                () = tokio::time::sleep_until(wait) => {}
            }
        }
    }

    fn admit(self: &Arc<Self>, state: &mut State) -> Handshaking {
        let (number, displaced) = (state.next, CancellationToken::new());
        state.next += 1;
        state.running.push_back(Running { number, since: Instant::now(), displaced: displaced.clone() });
        Handshaking { handshakes: Arc::clone(self), number, displaced }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics happens while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshaking {
    /// Resolves when another one takes the place. Cancel-safe.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        let mut state = self.handshakes.state();
        // Numbers ascend, and a displaced one is gone already.
        if let Ok(index) = state.running.binary_search_by_key(&self.number, |running| running.number) {
            state.running.remove(index);
            self.handshakes.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHILE: Duration = Duration::from_millis(300);

    async fn is_displaced(handshaking: &Handshaking) -> bool {
        tokio::time::timeout(Duration::from_millis(1), handshaking.displaced()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_makes_room_once_it_had_its_time() {
        let handshakes = Handshakes::with(2, WHILE);
        let began = Instant::now();
        let first = handshakes.begin().await;
        let second = handshakes.begin().await;
        let _third = handshakes.begin().await;
        assert!(began.elapsed() >= WHILE, "nobody is displaced within its time");
        assert!(is_displaced(&first).await);
        assert!(!is_displaced(&second).await);
        drop(first);
        assert_eq!(handshakes.state().running.len(), 2, "the displaced one gives nothing back");
    }

    #[tokio::test]
    async fn a_place_that_comes_free_is_taken_at_once() {
        let handshakes = Handshakes::with(1, 100 * WHILE);
        let first = handshakes.begin().await;
        let began = Instant::now();
        let (second, ()) = tokio::join!(handshakes.begin(), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(first);
        });
        assert!(began.elapsed() < 50 * WHILE);
        assert!(!is_displaced(&second).await);
    }
}
