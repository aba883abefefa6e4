//! The io_uring backends: one thread, one ring, and a [`Protocol`] that is spoken through it.
//!
//! The thread sleeps in the kernel until a request completes or a new one rings its eventfd, which the ring polls. It
//! alone touches the ring, so the kernel need not guard it (`IORING_SETUP_SINGLE_ISSUER`) and does completion work only
//! when the thread comes for it (`IORING_SETUP_DEFER_TASKRUN`, io_uring_setup(2)).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use io_uring::squeue::EntryMarker as _;
use io_uring::{IoUring, cqueue, opcode, types};
use rustix::event::EventfdFlags;

use crate::BufferPool;
use crate::disk::{Options, Running};
use crate::medium::Medium;
use crate::protocol::{Part, Protocol};
use crate::queue::{Bell, Job, Queue, StopOnDrop};
use crate::request::{Completion, Operation};

/// Marks the completion that says: a request waits in the queue.
const BELL: u64 = u64::MAX;

/// How often a request is given to the kernel again that says it was interrupted or has no means just now. A drive
/// answers within a few; without a bound a broken driver would keep a core busy for ever.
const RETRIES_MAX: u32 = 100;

/// How long the thread leaves a kernel alone that has no memory to take requests.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn start<P: Protocol>(
    protocol: P,
    medium: &Arc<Medium>,
    options: &Options,
    fallbacks: &mut Vec<String>,
) -> io::Result<Running> {
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let bell = event.as_raw_fd();
    let queue = Arc::new(Queue::new(options.waiting_max, Bell::Event(event)));
    let (started, start) = mpsc::sync_channel(1);
    let serve = {
        let (medium, queue, options) = (Arc::clone(medium), Arc::clone(&queue), options.clone());
        move || {
            let _stop = StopOnDrop(Arc::clone(&queue));
            // Made here, because a ring with a single issuer belongs to the thread that makes it.
            match Engine::new(protocol, medium, queue, bell, options) {
                Ok((mut engine, unregistered)) => {
                    let _ = started.send(Ok(unregistered));
                    engine.run();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        }
    };
    let thread = thread::Builder::new().name("device-ring".into()).spawn(serve)?;
    let unregistered = start.recv().map_err(|_| io::Error::other("the thread of the ring ended"))??;
    let registered = unregistered.is_none() && !options.pools.is_empty();
    fallbacks.extend(unregistered.map(|error| format!("buffers are pinned one by one, not registered: {error}")));
    Ok(Running { queue, threads: vec![thread], backend: P::BACKEND, registered })
}

type Ring<P> = IoUring<<P as Protocol>::Entry, <P as Protocol>::Answer>;

/// The ring and what is in flight on it.
struct Engine<P: Protocol> {
    protocol: P,
    ring: Ring<P>,
    slots: Slots,
    /// Durable writes and flushes that wait until the one before is done. The page cache tells of a failed writeback once
    /// per open file: two at a time, and one would answer for both. Direct I/O tells each its own, so there nothing waits.
    lane: VecDeque<Job>,
    lane_busy: bool,
    medium: Arc<Medium>,
    queue: Arc<Queue>,
    bell: RawFd,
    /// Pools that are registered, in the kernel's order. They keep the memory alive.
    pools: Vec<BufferPool>,
    /// Room for jobs on their way from the queue, and for completions on their way out of the ring.
    taken: Vec<Job>,
    reaped: Vec<P::Answer>,
    unsettled: Unsettled,
}

impl<P: Protocol> Engine<P> {
    /// Makes the ring; also says why buffers could not be registered, if so.
    fn new(
        protocol: P,
        medium: Arc<Medium>,
        queue: Arc<Queue>,
        bell: RawFd,
        options: Options,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let depth = options.depth as usize;
        // One entry for each slot, one for the bell. Completions have twice as many.
        let ring = ring::<P>(options.depth + 1)?;
        ring.submitter().register_files(&[medium.file().as_raw_fd()])?;
        let (pools, unregistered) = match register::<P>(&ring, &options.pools) {
            Ok(()) => (options.pools, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let (lane, taken, reaped) = (VecDeque::new(), Vec::with_capacity(depth), Vec::with_capacity(2 * depth));
        let slots = Slots::new(depth);
        let unsettled = Unsettled(Vec::with_capacity(depth));
        let engine = Self {
            protocol,
            ring,
            slots,
            lane,
            lane_busy: false,
            medium,
            queue,
            bell,
            pools,
            taken,
            reaped,
            unsettled,
        };
        Ok((engine, unregistered))
    }

    fn run(&mut self) {
        self.listen();
        while self.begin_waiting() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                // EBUSY: completions want to be reaped first.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => thread::sleep(MEMORY_PAUSE),
                Err(error) => panic!("io_uring_enter refuses a ring that it made: {error}"),
            }
            self.reap();
        }
    }

    /// Begins what waits in the queue, as far as there are slots. Whether there is anything left to wait for.
    fn begin_waiting(&mut self) -> bool {
        loop {
            let room = self.room();
            let open = self.queue.take(room, &mut self.taken).is_some();
            let mut taken = std::mem::take(&mut self.taken);
            let all = taken.len() < room;
            for job in taken.drain(..) {
                self.begin(job);
            }
            self.taken = taken;
            // Those that were refused left their room to others, and the queue rings only when it was emptied.
            if all || self.room() == 0 {
                self.unsettled.settle();
                return open || self.slots.in_flight() > 0;
            }
        }
    }

    /// Jobs that may be taken: each in the lane will need a slot.
    fn room(&self) -> usize {
        self.slots.free() - self.lane.len()
    }

    fn begin(&mut self, job: Job) {
        if let Err(error) = self.medium.check(&job.request) {
            return self.unsettled.note(job.answer(Err(error)));
        }
        if self.takes_lane(&job) {
            if self.lane_busy {
                return self.lane.push_back(job);
            }
            self.lane_busy = true;
        }
        let index = self.slots.put(Slot { job, done: 0, retries: 0 });
        self.push_slot(index);
    }

    fn takes_lane(&self, job: &Job) -> bool {
        job.request.operation.is_durable() && !self.medium.is_direct()
    }

    fn reap(&mut self) {
        let mut reaped = std::mem::take(&mut self.reaped);
        reaped.extend(self.ring.completion());
        for answer in reaped.drain(..) {
            let entry: cqueue::Entry = answer.clone().into();
            match usize::try_from(entry.user_data()) {
                Ok(index) if entry.user_data() != BELL => self.advance(index, entry.result(), &answer),
                // The poll goes on by itself unless the kernel says that it does not.
                _ if !cqueue::more(entry.flags()) => self.listen(),
                _ => {}
            }
        }
        self.reaped = reaped;
    }

    /// Takes note of what the kernel did for a slot, and asks for the rest if that was not all.
    fn advance(&mut self, index: usize, result: i32, answer: &P::Answer) {
        let slot = self.slots.get(index);
        let operation = slot.job.request.operation;
        let outcome = match self.protocol.outcome(operation, slot.rest(), result) {
            Ok(_) if operation == Operation::Append => {
                Some(self.medium.appended(&mut slot.job.request, self.protocol.place(answer)))
            }
            Ok(bytes) => slot.transferred(bytes, self.medium.geometry().block_bytes as usize),
            Err(error) => slot.failed(error),
        };
        match outcome {
            None => self.push_slot(index),
            Some(outcome) => self.finish(index, outcome),
        }
    }

    fn finish(&mut self, index: usize, outcome: io::Result<()>) {
        let job = self.slots.take(index);
        let leaves_lane = self.takes_lane(&job);
        let result = self.medium.verdict(&job.request, outcome);
        self.unsettled.note(job.answer(result));
        if leaves_lane {
            self.lane_busy = false;
            // Those that are refused at once do not keep the lane busy.
            while let Some(next) = (!self.lane_busy).then(|| self.lane.pop_front()).flatten() {
                self.begin(next);
            }
        }
    }

    /// Asks the kernel for what a slot still lacks.
    #[allow(unsafe_code, reason = "a ring takes addresses")]
    fn push_slot(&mut self, index: usize) {
        let mut entry = self.protocol.entry(&self.slots.get(index).part(&self.pools));
        entry.set_user_data(index as u64);
        // SAFETY: the entry points into the buffer that the slot owns. The slot gives it up only in `take`, after the
        // kernel's completion, or leaks it; so the memory lives and nobody else touches it while the kernel does.
        unsafe { push::<P>(&mut self.ring, &entry) };
    }

    /// Has the ring say when the bell rings. The count is never read: the poll tells of each write to it.
    #[allow(unsafe_code, reason = "a ring takes addresses")]
    fn listen(&mut self) {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(types::Fd(self.bell), events).multi(true).build().user_data(BELL);
        let entry = P::Entry::from(entry);
        // SAFETY: a poll points to no memory; the queue keeps the eventfd open.
        unsafe { push::<P>(&mut self.ring, &entry) };
    }
}

/// Who was given answers since the thread last slept. A thread that is woken for each of them takes the processor from
/// this one a hundred thousand times a second.
struct Unsettled(Vec<Arc<dyn Completion>>);

impl Unsettled {
    fn note(&mut self, completion: Option<Arc<dyn Completion>>) {
        // Answers of one batch come in a row, and to settle twice does no harm.
        let Some(completion) = completion else { return };
        if !self.0.last().is_some_and(|last| Arc::ptr_eq(last, &completion)) {
            self.0.push(completion);
        }
    }

    fn settle(&mut self) {
        self.0.drain(..).for_each(|completion| completion.settle());
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.settle();
    }
}

/// A ring as this kernel can make it: the flags came with Linux 6.1 and 5.19.
fn ring<P: Protocol>(entries: u32) -> io::Result<Ring<P>> {
    let deferred = Ring::<P>::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match deferred {
        Err(error) if refused(&error) => match Ring::<P>::builder().setup_coop_taskrun().build(entries) {
            Err(error) if refused(&error) => Ring::<P>::builder().build(entries),
            ring => ring,
        },
        ring => ring,
    }
}

/// Tells the kernel of the pools' memory; the first pool is buffer 0.
#[allow(unsafe_code, reason = "a ring takes addresses")]
fn register<P: Protocol>(ring: &Ring<P>, pools: &[BufferPool]) -> io::Result<()> {
    if pools.is_empty() {
        return Ok(());
    }
    let vectors: Vec<libc::iovec> = pools
        .iter()
        .map(|pool| {
            let (start, bytes) = pool.memory();
            libc::iovec { iov_base: start.cast(), iov_len: bytes }
        })
        .collect();
    // SAFETY: the engine keeps the pools, and slots their buffers, as long as the ring; what a ring leaves behind keeps
    // the pages by itself.
    unsafe { ring.submitter().register_buffers(&vectors) }
}

/// Puts an entry into the ring.
///
/// # Safety
///
/// Memory that the entry points to must live, and be the kernel's alone, until its completion.
#[allow(unsafe_code, reason = "a ring takes addresses")]
unsafe fn push<P: Protocol>(ring: &mut Ring<P>, entry: &P::Entry) {
    // SAFETY: as promised by the caller.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.expect("a ring has an entry for each slot, which has one at a time, and for the bell");
}

/// A request in flight.
struct Slot {
    job: Job,
    /// Bytes transferred.
    done: usize,
    retries: u32,
}

impl Slot {
    /// What is left to do.
    fn part(&mut self, pools: &[BufferPool]) -> Part {
        let Self { job, done, .. } = self;
        let operation = job.request.operation;
        let Some(buffer) = &mut job.request.buffer else {
            return Part { operation, offset: job.request.offset, start: ptr::null_mut(), length: 0, pool: None };
        };
        let pool = pools.iter().position(|pool| pool.owns(buffer)).and_then(|pool| u16::try_from(pool).ok());
        let rest = &mut buffer[*done..];
        let length = u32::try_from(rest.len()).expect("a pool is smaller than 4 GiB");
        Part { operation, offset: job.request.offset + *done as u64, start: rest.as_mut_ptr(), length, pool }
    }

    /// Bytes that are left.
    fn rest(&self) -> usize {
        self.job.request.bytes() - self.done
    }

    /// Adds what was transferred. The outcome, unless something is left to do.
    fn transferred(&mut self, bytes: usize, block_bytes: usize) -> Option<io::Result<()>> {
        let whole = self.job.request.bytes();
        if self.done + bytes >= whole {
            return Some(Ok(()));
        }
        // What is left begins with a block, else direct I/O refuses it.
        let done = (self.done + bytes) / block_bytes * block_bytes;
        if done == self.done {
            let kind = match self.job.request.operation {
                Operation::Read => io::ErrorKind::UnexpectedEof,
                _ => io::ErrorKind::WriteZero,
            };
            return Some(Err(kind.into()));
        }
        self.done = done;
        None
    }

    /// The outcome, unless it is worth another attempt.
    fn failed(&mut self, error: io::Error) -> Option<io::Result<()>> {
        let passing = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN));
        if !passing || self.retries == RETRIES_MAX {
            return Some(Err(error));
        }
        self.retries += 1;
        None
    }
}

/// Slots for the requests in flight; as many as the device's depth.
struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
}

impl Slots {
    fn new(depth: usize) -> Self {
        Self { slots: (0..depth).map(|_| None).collect(), free: (0..depth).rev().collect() }
    }

    fn free(&self) -> usize {
        self.free.len()
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn put(&mut self, slot: Slot) -> usize {
        let index = self.free.pop().expect("no more is taken from the queue than there are slots");
        self.slots[index] = Some(slot);
        index
    }

    fn get(&mut self, index: usize) -> &mut Slot {
        self.slots[index].as_mut().expect("the kernel completes what is in flight")
    }

    /// Ends a slot whose last completion has come.
    fn take(&mut self, index: usize) -> Job {
        let slot = self.slots[index].take().expect("the kernel completes what is in flight");
        self.free.push(index);
        slot.job
    }
}

impl Drop for Slots {
    /// When the thread panics there may be requests in flight, and the kernel goes on with them: their memory is leaked.
    fn drop(&mut self) {
        for mut slot in self.slots.drain(..).flatten() {
            std::mem::forget(slot.job.request.buffer.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::Buffer;
    use crate::request::{Completed, Request};

    const BLOCK: usize = 4096;

    fn slot(request: impl FnOnce(Buffer) -> Request) -> Slot {
        let buffer = BufferPool::new(1, 4 * BLOCK).unwrap().take();
        let completion: Arc<dyn Completion> = Arc::new(|_: Completed| {});
        let job = Job::new(request(buffer), &completion, Instant::now(), &Arc::default());
        Slot { job, done: 0, retries: 0 }
    }

    #[test]
    fn a_short_transfer_goes_on_at_a_whole_block() {
        let mut slot = slot(|buffer| Request::read(0, buffer));
        assert!(slot.transferred(BLOCK + 512, BLOCK).is_none());
        assert_eq!(slot.done, BLOCK);
        assert!(slot.transferred(2 * BLOCK, BLOCK).is_none());
        assert!(matches!(slot.transferred(BLOCK, BLOCK), Some(Ok(()))));
    }

    #[test]
    fn a_transfer_that_does_not_move_is_an_error() {
        let mut read = slot(|buffer| Request::read(0, buffer));
        let outcome = read.transferred(512, BLOCK).unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut write = slot(|buffer| Request::write(0, buffer));
        let outcome = write.transferred(0, BLOCK).unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn what_passes_is_tried_again_but_not_for_ever() {
        let mut slot = slot(|buffer| Request::write(0, buffer));
        for _ in 0..RETRIES_MAX {
            assert!(slot.failed(io::Error::from_raw_os_error(libc::EAGAIN)).is_none());
        }
        assert!(slot.failed(io::Error::from_raw_os_error(libc::EAGAIN)).is_some());
        assert!(slot.failed(io::Error::from_raw_os_error(libc::EIO)).is_some());
    }
}
