//! What the core asks of the drives, and what they answer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use stele_device::{Buffer, Completed, Request};

use super::tasks::{TaskId, Tasks};

/// A request for a drive. Its tag is the number of the call that it belongs to.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) drive: usize,
    pub(crate) request: Request,
}

/// Who waits for a completion.
enum Call<C> {
    /// Nobody: the number is free.
    Free,
    /// Not a task: the core itself, which gets this back.
    Core(C),
    /// A task that has not asked for it yet, or that waits for it.
    Task(Option<TaskId>),
    /// Complete, and the task has not taken it yet.
    Done(Completed),
}

/// Requests under way.
pub(super) struct Ports<C> {
    outbox: RefCell<VecDeque<Outgoing>>,
    calls: RefCell<Vec<Call<C>>>,
    free: RefCell<Vec<usize>>,
}

impl<C> Ports<C> {
    pub(super) fn new() -> Self {
        Self { outbox: RefCell::default(), calls: RefCell::new(Vec::new()), free: RefCell::default() }
    }

    /// Asks a drive, for the core itself.
    pub(super) fn ask(&self, drive: usize, request: Request, call: C) {
        let tag = self.enter(Call::Core(call));
        self.outbox.borrow_mut().push_back(Outgoing { drive, request: request.tagged(tag) });
    }

    /// Asks a drive, for the task that runs.
    pub(super) fn begin(&self, drive: usize, request: Request) -> Begun {
        let tag = self.enter(Call::Task(None));
        self.outbox.borrow_mut().push_back(Outgoing { drive, request: request.tagged(tag) });
        Begun(usize::try_from(tag).expect("a number of a call"))
    }

    /// The answer to a request that was begun.
    pub(super) async fn answer(&self, tasks: &Tasks, begun: Begun) -> Completed {
        poll_fn(|_| {
            let mut calls = self.calls.borrow_mut();
            let call = &mut calls[begun.0];
            match std::mem::replace(call, Call::Free) {
                Call::Done(completed) => {
                    self.free.borrow_mut().push(begun.0);
                    Poll::Ready(completed)
                }
                Call::Task(_) => {
                    *call = Call::Task(Some(tasks.current()));
                    Poll::Pending
                }
                Call::Free | Call::Core(_) => unreachable!("a call is answered once, to whom it is for"),
            }
        })
        .await
    }

    /// Takes a drive's answer. What the core itself asked for is given back, with the answer.
    pub(super) fn complete(&self, tasks: &Tasks, completed: Completed) -> Option<(C, Completed)> {
        let tag = usize::try_from(completed.tag).expect("a number of a call");
        let mut calls = self.calls.borrow_mut();
        let call = &mut calls[tag];
        match std::mem::replace(call, Call::Free) {
            Call::Core(call) => {
                self.free.borrow_mut().push(tag);
                Some((call, completed))
            }
            Call::Task(waiting) => {
                *call = Call::Done(completed);
                if let Some(task) = waiting {
                    tasks.wake(task);
                }
                None
            }
            Call::Free | Call::Done(_) => unreachable!("a drive answers each request once"),
        }
    }

    /// The next request to give to a drive.
    pub(super) fn next(&self) -> Option<Outgoing> {
        self.outbox.borrow_mut().pop_front()
    }

    fn enter(&self, call: Call<C>) -> u64 {
        let mut calls = self.calls.borrow_mut();
        let tag = match self.free.borrow_mut().pop() {
            Some(tag) => {
                calls[tag] = call;
                tag
            }
            None => {
                calls.push(call);
                calls.len() - 1
            }
        };
        tag as u64
    }
}

/// A request of a task that is under way. It must be answered: its buffer is gone otherwise.
#[must_use]
pub(super) struct Begun(usize);

/// The buffer of an answer, if the request was carried out.
pub(super) fn read(completed: Completed) -> Option<Buffer> {
    completed.into_buffer().ok()
}
