//! The promise of a result: waited for by a thread or awaited by a task, with no runtime of its own.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use thiserror::Error;

/// Why a job that was queued has no result. Neither says anything about the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TicketError {
    /// The engine was dropped before the job was done.
    #[error("the engine stopped before the job was done")]
    Stopped,
    /// A worker panicked on the job.
    #[error("a worker failed on the job")]
    Failed,
}

impl TicketError {
    /// Stable snake_case code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Stopped => "engine_stopped",
            Self::Failed => "worker_failed",
        }
    }
}

/// A result to come. Dropping it does not cancel the job.
#[derive(Debug)]
#[must_use = "a job without its ticket is work for nothing"]
pub struct Ticket<T> {
    slot: Arc<Slot<T>>,
}

/// The other end of a ticket; resolves it once, with [`TicketError::Stopped`] if dropped unused.
#[derive(Debug)]
pub struct Resolver<T> {
    slot: Arc<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    resolved: Condvar,
}

#[derive(Debug)]
struct State<T> {
    result: Option<Result<T, TicketError>>,
    waker: Option<Waker>,
}

/// A ticket and its resolver.
pub(crate) fn ticket<T>() -> (Ticket<T>, Resolver<T>) {
    let state = Mutex::new(State { result: None, waker: None });
    let slot = Arc::new(Slot { state, resolved: Condvar::new() });
    (Ticket { slot: Arc::clone(&slot) }, Resolver { slot })
}

impl<T> Ticket<T> {
    /// Blocks the calling thread until the job is done. Not for use inside an asynchronous task.
    ///
    /// # Errors
    /// [`TicketError`] when the engine ended first.
    pub fn wait(self) -> Result<T, TicketError> {
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            state = self.slot.resolved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, TicketError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    state.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl<T> Resolver<T> {
    pub(crate) fn resolve(self, result: Result<T, TicketError>) {
        self.slot.resolve(result);
    }
}

impl<T> Drop for Resolver<T> {
    fn drop(&mut self) {
        self.slot.resolve(Err(TicketError::Stopped));
    }
}

impl<T> Slot<T> {
    /// The first result counts; the resolver's drop comes after it and changes nothing, because either
    /// the result is still there or its reader has it and never looks again.
    fn resolve(&self, result: Result<T, TicketError>) {
        let waker = {
            let mut state = self.lock();
            state.result.get_or_insert(result);
            state.waker.take()
        };
        self.resolved.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// No code of others runs under this lock, so it cannot be poisoned half-way.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn a_ticket_is_waited_for_across_threads() {
        let (ticket, resolver) = ticket();
        let waiter = thread::spawn(move || ticket.wait());
        resolver.resolve(Ok(7));
        assert_eq!(waiter.join().expect("waiter"), Ok(7));
    }

    #[test]
    fn a_ticket_is_awaited_before_and_after_its_result() {
        let (early, resolver) = ticket();
        let task = thread::spawn(move || block_on(early));
        resolver.resolve(Ok("later"));
        assert_eq!(task.join().expect("task"), Ok("later"));
        let (late, resolver) = ticket();
        resolver.resolve(Ok("before"));
        assert_eq!(block_on(late), Ok("before"));
    }

    #[test]
    fn a_dropped_resolver_says_that_the_engine_stopped() {
        let (ticket, resolver) = ticket::<()>();
        drop(resolver);
        assert_eq!(ticket.wait(), Err(TicketError::Stopped));
    }
}
