//! The thread that runs the core, and what wakes it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use stele_device::{BlockDevice, Completed, Completion, Request, Traffic};

use crate::core::{Command, Core, Found, NewDrive, Pools, Reply, Uploads};
use crate::index::Index;
use crate::{ScrubReport, StorageError};

/// How long the thread that keeps the index sleeps when there is nothing to flush or to merge.
const INDEX_PAUSE: Duration = Duration::from_millis(50);

/// What the engine is told.
pub(crate) enum Event {
    Command(Command),
    Completed(Completed),
    /// A drive is to take the place of another.
    Replace {
        drive: usize,
        device: Arc<dyn BlockDevice>,
        new: NewDrive,
        reply: Reply<ScrubReport>,
    },
    /// What the drives were asked for is wanted.
    Traffic {
        reply: Reply<Vec<Traffic>>,
    },
    /// Nobody will tell anything any more.
    Stop,
}

/// What the engine is told and has not heard.
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

struct Inner {
    events: VecDeque<Event>,
    waiting: bool,
    /// The thread is gone.
    closed: bool,
}

impl Inbox {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Inner { events: VecDeque::new(), waiting: false, closed: false };
        Arc::new(Self { inner: Mutex::new(inner), arrived: Condvar::new() })
    }

    /// Tells the engine something; gives it back if the engine is gone, since nobody would answer.
    pub(crate) fn tell(&self, event: Event) {
        let mut inner = self.lock();
        if inner.closed {
            // Dropped, and with it the sender of the answer: who waits hears that the store has stopped.
            return;
        }
        inner.events.push_back(event);
        Self::wake(&self.arrived, inner);
    }

    fn wake(arrived: &Condvar, mut inner: MutexGuard<'_, Inner>) {
        let wake = !inner.events.is_empty() && std::mem::take(&mut inner.waiting);
        drop(inner);
        if wake {
            arrived.notify_one();
        }
    }

    /// Moves everything into `events`; with `wait`, waits for the first.
    fn hear(&self, events: &mut VecDeque<Event>, wait: bool) {
        let mut inner = self.lock();
        while wait && inner.events.is_empty() {
            inner.waiting = true;
            inner = self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut inner.events, events);
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let events = std::mem::take(&mut inner.events);
        drop(inner);
        drop(events);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Completion for Inbox {
    fn complete(&self, completed: Completed) {
        let mut inner = self.lock();
        if !inner.closed {
            inner.events.push_back(Event::Completed(completed));
        }
    }

    fn settle(&self) {
        Self::wake(&self.arrived, self.lock());
    }
}

/// Closes the inbox when the thread ends, however it does.
struct Closing(Arc<Inbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs the core until it is told to stop, and shows its position. Whether the store could be opened is answered first.
pub(crate) fn run(
    found: &Found,
    mut drives: Vec<Option<Arc<dyn BlockDevice>>>,
    (index, pools, uploads): (Arc<Index>, Pools, Uploads),
    inbox: &Arc<Inbox>,
    (position, unread): (&AtomicU64, &AtomicBool),
    opened: mpsc::Sender<Result<(), StorageError>>,
) {
    let _closing = Closing(Arc::clone(inbox));
    let bytes = drives.iter().map(|drive| drive.as_ref().map_or(0, |drive| drive.geometry().bytes())).collect();
    let (core, opening) = match Core::open(found, bytes, index, pools, uploads) {
        Ok(begun) => begun,
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    let completion = Arc::clone(inbox) as Arc<dyn Completion>;
    let mut outboxes: Vec<VecDeque<Request>> = drives.iter().map(|_| VecDeque::new()).collect();
    let mut events = VecDeque::new();
    // Of the drives that were in each place before the one that is there.
    let mut replaced = vec![Traffic::default(); drives.len()];
    let mut opened = Some(opened);
    // Commands wait until the store is open.
    let mut early = VecDeque::new();
    loop {
        for event in events.drain(..) {
            match event {
                Event::Command(command) if opened.is_some() => early.push_back(command),
                Event::Command(command) => core.command(command),
                Event::Completed(completed) => core.completed(completed),
                Event::Replace { drive, device, new, reply } => {
                    if core.replace(drive, &new, reply) {
                        // What the old one was still to be asked for is not for the new one, which may be larger.
                        for request in outboxes[drive].drain(..) {
                            inbox.complete(request.answer(Err(stele_device::DeviceError::Stopped)));
                        }
                        if let Some(before) = drives[drive].replace(device) {
                            replaced[drive].add(&Traffic { in_flight: 0, ..before.traffic() });
                        }
                    }
                }
                Event::Traffic { reply } => {
                    let _ = reply.send(Ok(traffic(&drives, &replaced)));
                }
                // What is under way is answered by the devices, to nobody.
                Event::Stop => return,
            }
        }
        core.settle();
        let result = opening.borrow_mut().take();
        if let Some(result) = result {
            let failed = result.is_err();
            unread.store(core.has_unread(), Ordering::Release);
            if let Some(opened) = opened.take() {
                let _ = opened.send(result);
            }
            if failed {
                return;
            }
            early.drain(..).for_each(|command| core.command(command));
            core.settle();
        }
        while let Some(outgoing) = core.next() {
            outboxes[outgoing.drive].push_back(outgoing.request);
        }
        for (drive, outbox) in drives.iter().zip(&mut outboxes) {
            match drive {
                // What its queue does not take waits here: its answers come by.
                Some(drive) if !outbox.is_empty() => drive.try_submit(outbox, &completion),
                Some(_) => {}
                None => {
                    for request in outbox.drain(..) {
                        inbox.complete(request.answer(Err(stele_device::DeviceError::Stopped)));
                    }
                }
            }
        }
        if opened.is_none() {
            position.store(core.position(), Ordering::Release);
            unread.store(core.has_unread(), Ordering::Release);
        }
        inbox.hear(&mut events, !core.wants_turn());
    }
}

/// What the drives in each place were asked for since the store was opened.
fn traffic(drives: &[Option<Arc<dyn BlockDevice>>], replaced: &[Traffic]) -> Vec<Traffic> {
    let sum = |(drive, before): (&Option<Arc<dyn BlockDevice>>, &Traffic)| {
        let mut traffic = *before;
        if let Some(drive) = drive {
            traffic.add(&drive.traffic());
        }
        traffic
    };
    drives.iter().zip(replaced).map(sum).collect()
}

/// Has the next opening make the index again.
pub(crate) fn doubt(file: &Path) {
    // Without it the damage is met again, and named again.
    let _ = std::fs::File::create(file);
}

/// Flushes and merges the index beside the engine, until the store is gone.
pub(crate) fn keep_index(index: &Index, position: &AtomicU64, stopped: &(Mutex<bool>, Condvar), doubtful: &Path) {
    loop {
        // Everything up to this position was entered before it was shown.
        let position = position.load(Ordering::Acquire);
        let flushed = if index.needs_flush() { index.flush(position).map(|()| true) } else { Ok(false) };
        let worked = flushed.and_then(|flushed| Ok(index.maintain()? || flushed));
        let pause = match worked {
            Ok(true) => Duration::ZERO,
            Ok(false) => INDEX_PAUSE,
            // The engine meets it too, and says so to whoever puts.
            Err(error) => {
                if error.is_damage() {
                    doubt(doubtful);
                }
                INDEX_PAUSE * 20
            }
        };
        let (stopped, told) = stopped;
        let stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) =
            told.wait_timeout_while(stopped, pause, |stopped| !*stopped).unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return;
        }
    }
}
