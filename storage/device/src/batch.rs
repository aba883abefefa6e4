//! Many requests from one thread that waits for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{BlockDevice, Buffer, BufferPool, Completed, Completion, DeviceError, Request};

/// A batch submits when one part in so many of its depth is pending: few wakings, and the device hardly runs dry while
/// answers are handled.
const SUBMIT_SHARE: usize = 4;

/// Requests of one thread: pushed one after the other, taken as they arrive, so many outstanding and no more.
///
/// ```text
///  push ──► pending ──► device ──► arrivals ──► wait
///           (together, when the thread waits)
/// ```
///
/// What was not waited for when it is dropped is still carried out, except for what had not reached the device.
pub struct Batch<'d> {
    device: &'d dyn BlockDevice,
    /// Not yet submitted: a device is woken once for many.
    pending: VecDeque<Request>,
    arrivals: Arc<Arrivals>,
    completion: Arc<dyn Completion>,
    /// Arrived, and to be handed out next.
    ready: VecDeque<Completed>,
    /// Submitted, and not in `ready`.
    in_flight: usize,
    depth: usize,
}

/// Answers of a device.
struct Arrivals {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

struct Inner {
    completed: VecDeque<Completed>,
    waiting: bool,
}

impl Completion for Arrivals {
    fn complete(&self, completed: Completed) {
        self.lock().completed.push_back(completed);
    }

    fn settle(&self) {
        let mut inner = self.lock();
        let wake = !inner.completed.is_empty() && std::mem::take(&mut inner.waiting);
        // Who is woken wants the lock.
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
    }
}

impl Arrivals {
    /// Moves all into `ready`, waiting for the first.
    fn take(&self, ready: &mut VecDeque<Completed>) {
        let mut inner = self.lock();
        while inner.completed.is_empty() {
            inner.waiting = true;
            inner = self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut inner.completed, ready);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'d> Batch<'d> {
    /// A batch with at most `depth` requests outstanding, at least one.
    #[must_use]
    pub fn new(device: &'d dyn BlockDevice, depth: usize) -> Self {
        let depth = depth.max(1);
        let inner = Inner { completed: VecDeque::with_capacity(depth), waiting: false };
        let arrivals = Arc::new(Arrivals { inner: Mutex::new(inner), arrived: Condvar::new() });
        let completion = Arc::clone(&arrivals) as Arc<dyn Completion>;
        let (pending, ready) = (VecDeque::with_capacity(depth), VecDeque::with_capacity(depth));
        Self { device, pending, arrivals, completion, ready, in_flight: 0, depth }
    }

    /// Adds a request. If as many as the depth are outstanding, waits for one of them and gives it back.
    #[must_use = "the answer to an earlier request"]
    pub fn push(&mut self, request: Request) -> Option<Completed> {
        let full = self.outstanding() == self.depth;
        let answer = if full { self.wait() } else { None };
        self.pending.push_back(request);
        if self.pending.len() * SUBMIT_SHARE >= self.depth {
            self.submit();
        }
        answer
    }

    /// Waits for the next answer, in the order of arrival; `None` if nothing is outstanding.
    pub fn wait(&mut self) -> Option<Completed> {
        if self.ready.is_empty() {
            self.submit();
            if self.in_flight > 0 {
                self.arrivals.take(&mut self.ready);
                self.in_flight -= self.ready.len();
            }
        }
        self.ready.pop_front()
    }

    fn submit(&mut self) {
        self.in_flight += self.pending.len();
        self.device.submit(&mut self.pending, &self.completion);
    }

    /// Waits for all answers; the first failure if there was one.
    ///
    /// # Errors
    ///
    /// The first failure of a request that was not handed out before.
    pub fn finish(mut self) -> Result<(), DeviceError> {
        let mut result = Ok(());
        while let Some(completed) = self.wait() {
            result = result.and(completed.result);
        }
        result
    }

    /// Requests pushed whose answers were not handed out.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pending.len() + self.in_flight + self.ready.len()
    }
}

/// Reads a buffer of the pool full at each offset, in bytes, and hands each with its position to `visit` as it arrives.
///
/// At most `depth` are in flight, or as many as the pool has. A buffer that `visit` drops is used for the next read.
///
/// # Errors
///
/// The first failure, of a read or of `visit`; nothing is visited after it.
pub fn read_each<E: From<DeviceError>>(
    device: &dyn BlockDevice,
    pool: &BufferPool,
    depth: usize,
    offsets: &[u64],
    mut visit: impl FnMut(usize, Buffer) -> Result<(), E>,
) -> Result<(), E> {
    let mut batch = Batch::new(device, depth);
    let mut hand = |completed: Completed| {
        let index = usize::try_from(completed.tag).expect("an index of a slice");
        visit(index, completed.into_buffer()?)
    };
    for (index, offset) in (0..).zip(offsets) {
        let buffer = loop {
            match pool.try_take() {
                Some(buffer) => break buffer,
                None => match batch.wait() {
                    Some(completed) => hand(completed)?,
                    // Others have them all, and will return them.
                    None => break pool.take(),
                },
            }
        };
        if let Some(completed) = batch.push(Request::read(*offset, buffer).tagged(index)) {
            hand(completed)?;
        }
    }
    while let Some(completed) = batch.wait() {
        hand(completed)?;
    }
    Ok(())
}
