//! The thread of a drive: it hands commands over, and polls.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::namespace::{Handed, Namespace, Part, TRANSFER_BYTES_MAX};
use super::target::Target;
use crate::DeviceError;
use crate::device::Backend;
use crate::disk::{Options, Running};
use crate::medium::Medium;
use crate::queue::{Bell, Job, Queue, StopOnDrop};
use crate::request::Operation;

/// Polls that find nothing before the thread sleeps between them: a drive answers within a few hundred.
const POLLS_MAX: u32 = 2_000;

/// How long it sleeps then: a drive that is that slow loses nothing by it.
const PAUSE: Duration = Duration::from_micros(20);

/// How long it waits for requests when it has none, before it looks after the connection: well within the ten seconds after
/// which a target gives up on it.
const IDLE: Duration = Duration::from_millis(500);

/// Opens a drive and begins its thread.
pub(crate) fn open(name: &str, path: &Path, options: &Options) -> Result<(Arc<Medium>, Running), DeviceError> {
    let unsuitable = |what| DeviceError::Unsuitable { path: path.to_owned(), what };
    let target = Target::read(name).map_err(unsuitable)?;
    let queue = Arc::new(Queue::new(options.waiting_max, Bell::Condition(Condvar::new())));
    let (started, start) = mpsc::sync_channel(1);
    let serve = {
        let (queue, path, depth) = (Arc::clone(&queue), path.to_owned(), options.depth as usize);
        move || {
            let _stop = StopOnDrop(Arc::clone(&queue));
            // A pair of queues belongs to the thread that it was made by.
            match Namespace::open(&target, depth) {
                Ok(Ok(namespace)) => {
                    let medium = Arc::new(Medium::of_driver(&path, namespace.sector_bytes(), namespace.bytes()));
                    let _ = started.send(Ok(Ok(Arc::clone(&medium))));
                    Engine::new(namespace, medium, queue, depth).run();
                }
                Ok(Err(what)) => drop(started.send(Ok(Err(what)))),
                Err(error) => drop(started.send(Err(error))),
            }
        }
    };
    let failed = || DeviceError::open("serve", path);
    let thread = thread::Builder::new().name("device-spdk".into()).spawn(serve).map_err(failed())?;
    let ended = |_| io::Error::other("the thread of the drive ended");
    let medium = start.recv().map_err(ended).and_then(|opened| opened).map_err(failed())?.map_err(unsuitable)?;
    Ok((medium, Running { queue, threads: vec![thread], backend: Backend::Spdk, registered: false }))
}

/// A request in flight, or about to be.
struct Slot {
    job: Job,
    /// Bytes that are done.
    done: usize,
    /// Bytes that the drive is at work on; none while the driver has no room for the command.
    begun: Option<usize>,
}

struct Engine {
    namespace: Namespace,
    medium: Arc<Medium>,
    queue: Arc<Queue>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    taken: Vec<Job>,
}

impl Engine {
    fn new(namespace: Namespace, medium: Arc<Medium>, queue: Arc<Queue>, depth: usize) -> Self {
        let slots = (0..depth).map(|_| None).collect();
        Self { namespace, medium, queue, slots, free: (0..depth).rev().collect(), taken: Vec::with_capacity(depth) }
    }

    fn run(mut self) {
        let (mut empty, mut kept) = (0_u32, Instant::now());
        loop {
            let idle = self.free.len() == self.slots.len();
            let wait = if idle { IDLE } else { Duration::ZERO };
            let open = self.queue.take_within(self.free.len(), wait, &mut self.taken).is_some();
            if !open && idle {
                return;
            }
            let mut taken = std::mem::take(&mut self.taken);
            taken.drain(..).for_each(|job| self.begin(job));
            self.taken = taken;
            if idle || kept.elapsed() > IDLE {
                kept = Instant::now();
                if self.namespace.keep().is_err() {
                    // The drive is gone: what is in flight is answered as nobody knows it.
                    return;
                }
            }
            match self.namespace.poll() {
                Ok(0) => empty = empty.saturating_add(1),
                Ok(_) => {
                    empty = 0;
                    self.reap();
                }
                Err(_) => return,
            }
            if empty > POLLS_MAX {
                thread::sleep(PAUSE);
            }
        }
    }

    fn begin(&mut self, job: Job) {
        if let Err(error) = self.medium.check(&job.request) {
            return job.finish(Err(error));
        }
        let place = self.free.pop().expect("no more is taken from the queue than there are slots");
        self.slots[place] = Some(Slot { job, done: 0, begun: None });
        self.hand_over(place);
    }

    /// Hands the next part of a slot's request to the driver.
    fn hand_over(&mut self, place: usize) {
        let slot = self.slots[place].as_mut().expect("a slot in use");
        let request = &mut slot.job.request;
        let rest = request.bytes() - slot.done;
        let part = Part {
            operation: request.operation,
            offset: request.offset + slot.done as u64,
            bytes: rest.min(TRANSFER_BYTES_MAX),
        };
        if let (Operation::Write | Operation::WriteDurable, Some(buffer)) = (part.operation, &request.buffer) {
            self.namespace.memory(place)[..part.bytes].copy_from_slice(&buffer[slot.done..][..part.bytes]);
        }
        match self.namespace.begin(place, &part) {
            Handed::Over => slot.begun = Some(part.bytes),
            Handed::NoRoom => slot.begun = None,
            Handed::Refused(error) => self.finish(place, Err(error)),
        }
    }

    /// Goes on with what the drive has done, and with what the driver had no room for.
    fn reap(&mut self) {
        let mut waiting = VecDeque::new();
        for place in 0..self.slots.len() {
            let Some(slot) = &mut self.slots[place] else { continue };
            let Some(bytes) = slot.begun else {
                waiting.push_back(place);
                continue;
            };
            match self.namespace.outcome(place) {
                None => {}
                Some(Err(error)) => self.finish(place, Err(error)),
                Some(Ok(())) => {
                    if let (Operation::Read, Some(buffer)) = (slot.job.request.operation, &mut slot.job.request.buffer)
                    {
                        buffer[slot.done..][..bytes].copy_from_slice(&self.namespace.memory(place)[..bytes]);
                    }
                    slot.done += bytes;
                    slot.begun = None;
                    if slot.done == slot.job.request.bytes() {
                        self.finish(place, Ok(()));
                    } else {
                        self.hand_over(place);
                    }
                }
            }
        }
        waiting.into_iter().for_each(|place| self.hand_over(place));
    }

    fn finish(&mut self, place: usize, outcome: io::Result<()>) {
        let slot = self.slots[place].take().expect("a slot in use");
        self.free.push(place);
        let result = self.medium.verdict(&slot.job.request, outcome);
        slot.job.finish(result);
    }
}
