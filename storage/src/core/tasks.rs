//! Tasks of the core: what takes more than one request to a drive.
//!
//! A future is a state machine that is fed with completions, which is what the core is made of; it only takes somebody to
//! call it. There is no waker: whoever completes a request says which task waits for it, and the order in which tasks run
//! follows from the order of completions alone, so that a simulation repeats itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A task, as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskId(usize);

/// The tasks that run.
#[derive(Default)]
pub(super) struct Tasks {
    /// Taken out while it runs, so that it can begin others.
    slots: RefCell<Vec<Option<Task>>>,
    free: RefCell<Vec<usize>>,
    ready: RefCell<VecDeque<TaskId>>,
    /// Who is asked again whenever anything happened: those that wait for something else than one request.
    watching: RefCell<Vec<TaskId>>,
    /// Who goes on when others had their turn.
    paused: RefCell<Vec<TaskId>>,
    /// Something changed that one of those may wait for.
    touched: Cell<bool>,
    current: Cell<Option<TaskId>>,
}

impl Tasks {
    /// Begins a task; it runs when the others have had their turn.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task: Task = Box::pin(task);
        let mut slots = self.slots.borrow_mut();
        let id = match self.free.borrow_mut().pop() {
            Some(id) => {
                slots[id] = Some(task);
                id
            }
            None => {
                slots.push(Some(task));
                slots.len() - 1
            }
        };
        self.ready.borrow_mut().push_back(TaskId(id));
    }

    /// The task that runs at this moment.
    ///
    /// # Panics
    ///
    /// Outside of one: futures of the core are polled here and nowhere else.
    pub(super) fn current(&self) -> TaskId {
        self.current.get().expect("a future of the core is polled by one of its tasks")
    }

    /// Lets a task run again.
    pub(super) fn wake(&self, id: TaskId) {
        self.ready.borrow_mut().push_back(id);
    }

    /// Has those that wait in [`Tasks::until`] asked again before [`Tasks::run`] ends.
    pub(super) fn touch(&self) {
        self.touched.set(true);
    }

    /// Runs what can run, until everything waits.
    pub(super) fn run(&self) {
        loop {
            self.touched.set(false);
            self.ready.borrow_mut().extend(self.watching.borrow_mut().drain(..));
            while let Some(id) = self.next() {
                self.poll(id);
            }
            if !self.touched.get() {
                return;
            }
        }
    }

    /// Lets those go on that let others have their turn.
    pub(super) fn resume(&self) {
        self.ready.borrow_mut().extend(self.paused.borrow_mut().drain(..));
    }

    /// Whether somebody did.
    pub(super) fn has_paused(&self) -> bool {
        !self.paused.borrow().is_empty()
    }

    /// Ends all tasks where they are.
    pub(super) fn clear(&self) {
        let tasks = std::mem::take(&mut *self.slots.borrow_mut());
        drop(tasks);
    }

    fn next(&self) -> Option<TaskId> {
        self.ready.borrow_mut().pop_front()
    }

    fn poll(&self, id: TaskId) {
        // One that has ended meanwhile, or is named twice, has nothing to run.
        let Some(mut task) = self.slots.borrow_mut()[id.0].take() else { return };
        self.current.set(Some(id));
        let state = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.current.set(None);
        match state {
            Poll::Pending => self.slots.borrow_mut()[id.0] = Some(task),
            Poll::Ready(()) => self.free.borrow_mut().push(id.0),
        }
    }

    /// Lets others have their turn: whoever runs the core takes what has come meanwhile.
    pub(super) async fn pause(&self) {
        let mut passed = false;
        poll_fn(|_| {
            if std::mem::replace(&mut passed, true) {
                return Poll::Ready(());
            }
            self.paused.borrow_mut().push(self.current());
            Poll::Pending
        })
        .await;
    }

    /// Waits until `ready` gives something. It is asked after each event of the core.
    pub(super) fn until<'t, T>(
        &'t self,
        mut ready: impl FnMut() -> Option<T> + Unpin + 't,
    ) -> impl Future<Output = T> + 't {
        poll_fn(move |_| match ready() {
            Some(value) => Poll::Ready(value),
            None => {
                self.watching.borrow_mut().push(self.current());
                Poll::Pending
            }
        })
    }
}
