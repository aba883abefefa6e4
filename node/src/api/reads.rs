//! Reads of the node's stores on behalf of callers: few at a time, and none of them all.
//!
//! A read occupies a thread and a processor. Without a bound, one caller's two thousand requests would take every thread
//! that consensus needs, too. A caller waits among its own requests first and then among all, where it has no more than
//! half of the places; who asks for little hardly waits for who asks for much.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use stele_types::PartyId;
use tokio::sync::Semaphore;

tokio::task_local! {
    /// On whose behalf a request is answered; none for the public.
    pub(super) static CALLER: Option<PartyId>;
}

/// Places for reads.
#[derive(Debug)]
pub(super) struct Reads {
    all: Arc<Semaphore>,
    each: usize,
    /// Parties are bounded by the ledger.
    callers: Mutex<HashMap<Option<PartyId>, Arc<Semaphore>>>,
}

impl Reads {
    /// Twice as many places as cores: some reads wait for the disk.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { all: Arc::new(Semaphore::new(2 * cores)), each: cores, callers: Mutex::default() }
    }

    /// Runs a read on a thread for blocking work, when it is its caller's turn.
    ///
    /// # Errors
    /// When the read panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let caller = CALLER.try_with(|caller| *caller).unwrap_or_default();
        let own = {
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(callers.entry(caller).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        // Neither is ever closed. The read keeps its places to its end: a caller that goes away does not stop it, and could
        // otherwise begin the next.
        let own = own.acquire_owned().await;
        let place = Arc::clone(&self.all).acquire_owned().await;
        let kept = move || {
            let _places = (own, place);
            read()
        };
        tokio::task::spawn_blocking(kept).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const GREEDY: Option<PartyId> = Some(PartyId([1; 16]));

    /// Reads of one caller, and the most that ran at once.
    #[derive(Default)]
    struct Load {
        running: AtomicUsize,
        highest: AtomicUsize,
    }

    impl Load {
        fn read(self: Arc<Self>, reads: &Arc<Reads>) -> tokio::task::JoinHandle<()> {
            let reads = Arc::clone(reads);
            tokio::spawn(CALLER.scope(GREEDY, async move {
                let read = move || {
                    self.highest.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                    self.running.fetch_sub(1, Ordering::SeqCst);
                };
                reads.run(read).await.expect("no panic");
            }))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_caller_with_many_reads_leaves_places_to_others() {
        let (reads, load) = (Arc::new(Reads::new()), Arc::new(Load::default()));
        let greedy: Vec<_> = (0..200).map(|_| Arc::clone(&load).read(&reads)).collect();
        let begun = std::time::Instant::now();
        CALLER.scope(Some(PartyId([2; 16])), reads.run(|| ())).await.expect("no panic");
        let waited = begun.elapsed();
        for read in greedy {
            read.await.expect("no panic");
        }
        assert!(load.highest.load(Ordering::SeqCst) <= reads.each);
        assert!(waited * 4 < begun.elapsed(), "waited {waited:?} of {:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_goes_away_cannot_begin_more_than_who_stays() {
        let (reads, load) = (Arc::new(Reads::new()), Arc::new(Load::default()));
        for _ in 0..20 {
            let given_up: Vec<_> = (0..20).map(|_| Arc::clone(&load).read(&reads)).collect();
            tokio::time::sleep(Duration::from_millis(2)).await;
            given_up.iter().for_each(tokio::task::JoinHandle::abort);
        }
        let highest = load.highest.load(Ordering::SeqCst);
        assert!((1..=reads.each).contains(&highest), "{highest} at once");
    }
}
