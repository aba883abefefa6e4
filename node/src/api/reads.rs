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
    all: Semaphore,
    each: usize,
    /// Parties are bounded by the ledger.
    callers: Mutex<HashMap<Option<PartyId>, Arc<Semaphore>>>,
}

impl Reads {
    /// Twice as many places as cores: some reads wait for the disk.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { all: Semaphore::new(2 * cores), each: cores, callers: Mutex::default() }
    }

    /// Runs a read on a thread for blocking work, when it is its caller's turn. None when the read panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let caller = CALLER.try_with(|caller| *caller).unwrap_or_default();
        let own = {
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(callers.entry(caller).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        // Neither is ever closed.
        let _own = own.acquire().await;
        let _place = self.all.acquire().await;
        tokio::task::spawn_blocking(read).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_caller_with_many_reads_leaves_places_to_others() {
        let reads = Arc::new(Reads::new());
        let running = Arc::new(AtomicUsize::new(0));
        let greedy: Vec<_> = (0..200)
            .map(|_| {
                let (reads, running) = (Arc::clone(&reads), Arc::clone(&running));
                let slow = async move {
                    let read = move || {
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        std::thread::sleep(Duration::from_millis(10));
                        running.fetch_sub(1, Ordering::SeqCst);
                        now
                    };
                    reads.run(read).await.expect("no panic")
                };
                tokio::spawn(CALLER.scope(Some(PartyId([1; 16])), slow))
            })
            .collect();
        let begun = std::time::Instant::now();
        CALLER.scope(Some(PartyId([2; 16])), reads.run(|| ())).await.expect("no panic");
        let waited = begun.elapsed();
        let mut highest = 0;
        for read in greedy {
            highest = highest.max(read.await.expect("no panic"));
        }
        assert!(highest <= reads.each, "{highest} at once");
        assert!(waited * 4 < begun.elapsed(), "waited {waited:?} of {:?}", begun.elapsed());
    }
}
