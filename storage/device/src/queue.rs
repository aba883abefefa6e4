//! Requests on their way from those who submit them to the threads of a backend.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "spdk")]
use std::time::Duration;
use std::time::Instant;

use crate::DeviceError;
use crate::request::{Completed, Completion, Request};
use crate::traffic::{Meter, Traffic};

/// A request and who is told of its end: by [`Job::finish`], or that the device stopped, when a job is dropped before.
pub(crate) struct Job {
    pub(crate) request: Request,
    /// `None` once told.
    completion: Option<Arc<dyn Completion>>,
    begun: Instant,
    meter: Arc<Meter>,
}

impl Job {
    /// A request that is submitted at `begun`, and counted by `meter`.
    pub(crate) fn new(request: Request, completion: &Arc<dyn Completion>, begun: Instant, meter: &Arc<Meter>) -> Self {
        meter.begin();
        Self { request, completion: Some(Arc::clone(completion)), begun, meter: Arc::clone(meter) }
    }

    /// Tells the answer.
    pub(crate) fn finish(self, result: Result<(), DeviceError>) {
        if let Some(completion) = self.answer(result) {
            completion.settle();
        }
    }

    /// Tells the answer, and leaves it to the caller to settle.
    pub(crate) fn answer(mut self, result: Result<(), DeviceError>) -> Option<Arc<dyn Completion>> {
        self.tell(result)
    }

    fn tell(&mut self, result: Result<(), DeviceError>) -> Option<Arc<dyn Completion>> {
        let completion = self.completion.take()?;
        self.meter.end(self.request.operation, self.request.bytes(), self.begun, &result);
        let Request { operation, offset, ref mut buffer, tag } = self.request;
        completion.complete(Completed { tag, operation, offset, buffer: buffer.take(), result });
        Some(completion)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(completion) = self.tell(Err(DeviceError::Stopped)) {
            completion.settle();
        }
    }
}

/// How a sleeping thread of the backend is woken.
pub(crate) enum Bell {
    /// It waits for a job in [`Queue::next`].
    Condition(Condvar),
    /// It waits in the kernel for this eventfd, among other things.
    Event(OwnedFd),
}

/// A bounded queue.
pub(crate) struct Queue {
    jobs: Mutex<Jobs>,
    /// Rung when a queue that was full has room.
    room: Condvar,
    bell: Bell,
    waiting_max: usize,
    meter: Arc<Meter>,
}

struct Jobs {
    waiting: VecDeque<Job>,
    /// Threads that wait for room.
    submitters: usize,
    /// Threads of the backend that sleep until the bell rings.
    sleepers: usize,
    /// The device is being dropped: what waits is still done, then the threads end.
    closed: bool,
    /// A thread of the backend is gone; nothing is done any more.
    stopped: bool,
}

impl Queue {
    pub(crate) fn new(waiting_max: usize, bell: Bell) -> Self {
        let waiting = VecDeque::with_capacity(waiting_max);
        let jobs = Jobs { waiting, submitters: 0, sleepers: 0, closed: false, stopped: false };
        Self { jobs: Mutex::new(jobs), room: Condvar::new(), bell, waiting_max, meter: Arc::default() }
    }

    /// What was asked for, and answered.
    pub(crate) fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }

    /// Moves requests from the front of `requests` into the queue until it is full; with `wait`, until none is left.
    pub(crate) fn submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>, wait: bool) {
        let begun = Instant::now();
        let mut jobs = self.lock();
        while !jobs.stopped {
            let room = (self.waiting_max - jobs.waiting.len()).min(requests.len());
            let taken = requests.drain(..room);
            jobs.waiting.extend(taken.map(|request| Job::new(request, completion, begun, &self.meter)));
            self.ring(jobs, room);
            if requests.is_empty() || !wait {
                return;
            }
            jobs = self.lock();
            jobs.submitters += 1;
            let full = |jobs: &mut Jobs| jobs.waiting.len() == self.waiting_max && !jobs.stopped;
            jobs = self.room.wait_while(jobs, full).unwrap_or_else(PoisonError::into_inner);
            jobs.submitters -= 1;
        }
        drop(jobs);
        for request in requests.drain(..) {
            drop(Job::new(request, completion, begun, &self.meter));
        }
    }

    /// For a thread that sleeps on an event: takes up to `room` jobs. If there are fewer, the event will be written when
    /// one comes. `None` if there is none and none will come.
    pub(crate) fn take(&self, room: usize, into: &mut Vec<Job>) -> Option<()> {
        let mut jobs = self.lock();
        if jobs.closed && jobs.waiting.is_empty() {
            return None;
        }
        let count = room.min(jobs.waiting.len());
        into.extend(jobs.waiting.drain(..count));
        jobs.sleepers = usize::from(count < room);
        self.make_room(&jobs, count);
        Some(())
    }

    /// For a thread that polls: takes up to `room` jobs, and waits so long for the first. `None` if there is none and none will
    /// come.
    #[cfg(feature = "spdk")]
    pub(crate) fn take_within(&self, room: usize, wait: Duration, into: &mut Vec<Job>) -> Option<()> {
        let Bell::Condition(arrived) = &self.bell else { unreachable!("the thread of a ring waits in its ring") };
        let mut jobs = self.lock();
        if !wait.is_zero() && jobs.waiting.is_empty() && !jobs.closed && !jobs.stopped {
            jobs.sleepers = 1;
            (jobs, _) = arrived.wait_timeout(jobs, wait).unwrap_or_else(PoisonError::into_inner);
            jobs.sleepers = 0;
        }
        if jobs.stopped || jobs.closed && jobs.waiting.is_empty() {
            return None;
        }
        let count = room.min(jobs.waiting.len());
        into.extend(jobs.waiting.drain(..count));
        self.make_room(&jobs, count);
        Some(())
    }

    /// For a thread that does one job at a time: waits for it. `None` if none will come.
    pub(crate) fn next(&self) -> Option<Job> {
        let Bell::Condition(arrived) = &self.bell else { unreachable!("the thread of a ring waits in its ring") };
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                self.make_room(&jobs, 1);
                return Some(job);
            }
            if jobs.closed || jobs.stopped {
                return None;
            }
            jobs.sleepers += 1;
            jobs = arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No job comes any more.
    pub(crate) fn close(&self) {
        let mut jobs = self.lock();
        jobs.closed = true;
        self.ring(jobs, usize::MAX);
    }

    /// Answers what waits, and whatever comes, with [`DeviceError::Stopped`].
    pub(crate) fn stop(&self) {
        let mut jobs = self.lock();
        jobs.stopped = true;
        let waiting = std::mem::take(&mut jobs.waiting);
        self.room.notify_all();
        self.ring(jobs, usize::MAX);
        // Who is told may ask for more, so not under the lock.
        drop(waiting);
    }

    /// Wakes as many sleepers as there are new jobs, without the lock, which they want. Who wakes one counts it as awake, so
    /// that nobody does it twice.
    fn ring(&self, mut jobs: MutexGuard<'_, Jobs>, count: usize) {
        let woken = count.min(jobs.sleepers);
        jobs.sleepers -= woken;
        drop(jobs);
        match &self.bell {
            Bell::Condition(arrived) => (0..woken).for_each(|_| arrived.notify_one()),
            Bell::Event(event) if woken > 0 => {
                // It fails only if the count would overflow, and then the thread is awake.
                let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
            }
            Bell::Event(_) => {}
        }
    }

    fn make_room(&self, jobs: &Jobs, taken: usize) {
        if taken > 0 && jobs.submitters > 0 {
            self.room.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the queue of a thread that ends, be it by a panic.
pub(crate) struct StopOnDrop(pub(crate) Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
