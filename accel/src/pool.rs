//! The worker threads and the bounded queue in front of them.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{
    engine::Priority,
    gpu::Answer,
    job::verify::{TOGETHER_MAX, VerifyWork},
};

/// One chunk in this many goes to bulk work while live work waits too, so that a catch-up never stands
/// still. Live work keeps seven eighths.
const BULK_SHARE: u32 = 8;

/// How far behind the first small chunk others are looked for.
const COMPANY_REACH: usize = 64;

/// A job cut into chunks that can run in any order and in parallel.
pub trait Work: Send + Sync {
    /// Number of chunks.
    fn chunks(&self) -> usize;
    /// Does one chunk, or leaves it to a device, which takes `leave` for that; then [`Self::settle`] ends it.
    fn run(&self, chunk: usize, leave: &Leave<'_>);
    /// The work itself, if it is one chunk of few signatures, which costs less together with those of other jobs.
    fn small(&self) -> Option<&VerifyWork> {
        None
    }
    /// Takes back a chunk that was left to a device, with its answer if there is one: ends it, or says in how many parts it
    /// goes on. Must be quick: it goes before all other work.
    fn settle(&self, chunk: usize, answer: Option<Answer>) -> Settled;
    /// Does one part of a chunk after [`Self::settle`]: judges the answer, or does what the device did not. The part that
    /// ends last may say that the chunk goes on in other parts.
    fn part(&self, chunk: usize, part: Part) -> Settled;
    /// Called once after the last chunk, by the worker that ran it.
    fn finish(&self, outcome: Outcome);
}

/// How a chunk that was left to a device goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Done,
    /// It goes on here in so many parts, at least one.
    Parts(usize),
}

/// One of several parts of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Part {
    /// Its share of a range.
    pub fn of(self, range: &Range<usize>) -> Range<usize> {
        let cut = |index| range.start + range.len() * index / self.count;
        cut(self.index)..cut(self.index + 1)
    }
}

/// How the chunks of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All ran.
    Done,
    /// One panicked.
    Panicked,
}

/// The right to leave one chunk to a device.
pub struct Leave<'a> {
    task: &'a Arc<Task>,
    shared: &'a Arc<Shared>,
    chunk: usize,
    taken: Cell<bool>,
}

/// A chunk on its way through a device. It comes back to the workers in any case: without an answer when it is dropped,
/// so that no failure of a device can lose an item.
pub(crate) struct Errand {
    task: Option<Arc<Task>>,
    shared: Arc<Shared>,
    chunk: usize,
}

/// What a job takes of the queue's bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// The threads; stopped and joined on drop.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    bound: Weight,
    queue: Mutex<Queue>,
    work_waits: Condvar,
    space_waits: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Chunks that came back from a device; first, because all else of their jobs may be done. They are only judged: what
    /// has to be done again waits in the queue of its priority, in front.
    returned: VecDeque<Return>,
    live: VecDeque<Entry>,
    bulk: VecDeque<Entry>,
    /// Of all jobs that are queued or running.
    held: Weight,
    /// Chunks handed out since bulk work last got one.
    live_chunks: u32,
    stopping: bool,
}

struct Entry {
    task: Arc<Task>,
    next: usize,
    /// The chunk that goes on, in how many parts: then `next` counts parts, not chunks.
    parts: Option<(usize, usize)>,
}

impl Entry {
    fn steps(&self) -> usize {
        self.parts.map_or(self.task.work.chunks(), |(_, parts)| parts)
    }
}

struct Return {
    task: Arc<Task>,
    chunk: usize,
    answer: Option<Answer>,
}

/// What a worker does next.
enum Step {
    Run(Arc<Task>, usize),
    /// A part of a chunk that came back.
    Part(Arc<Task>, usize, Part),
    /// Several small jobs, of one chunk each.
    Together(Vec<Arc<Task>>),
    Settle(Return),
}

struct Task {
    work: Box<dyn Work>,
    priority: Priority,
    weight: Weight,
    left: AtomicUsize,
    panicked: AtomicBool,
}

impl Pool {
    pub(crate) fn new(threads: usize, bound: Weight) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bound,
            queue: Mutex::default(),
            work_waits: Condvar::new(),
            space_waits: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let name = format!("accel-{index}");
            pool.workers.push(thread::Builder::new().name(name).spawn(move || shared.serve())?);
        }
        Ok(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Whether a job of this weight could be queued when the pool is idle.
    pub(crate) fn admits(&self, weight: Weight) -> bool {
        weight.items <= self.shared.bound.items && weight.bytes <= self.shared.bound.bytes
    }

    /// Takes space for a job, which [`Self::enqueue`] must follow; false when the queue is full.
    pub(crate) fn reserve(&self, weight: Weight) -> bool {
        let mut queue = self.shared.lock();
        let space = self.shared.has_space(&queue, weight);
        if space {
            queue.held.items += weight.items;
            queue.held.bytes += weight.bytes;
        }
        space
    }

    /// Takes space for a job that [`Self::admits`] allows, and waits until there is some.
    pub(crate) fn reserve_blocking(&self, weight: Weight) {
        let mut queue = self.shared.lock();
        while !self.shared.has_space(&queue, weight) {
            queue = self.shared.space_waits.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.held.items += weight.items;
        queue.held.bytes += weight.bytes;
    }

    /// Queues work of at least one chunk for which space was taken.
    pub(crate) fn enqueue(&self, priority: Priority, weight: Weight, work: Box<dyn Work>) {
        let chunks = work.chunks();
        let left = AtomicUsize::new(chunks);
        let task = Arc::new(Task { work, priority, weight, left, panicked: AtomicBool::new(false) });
        self.shared.lock().of(priority).push_back(Entry { task, next: 0, parts: None });
        if chunks == 1 {
            self.shared.work_waits.notify_one();
        } else {
            self.shared.work_waits.notify_all();
        }
    }

    /// Weight of all jobs that are queued or running.
    pub(crate) fn held(&self) -> Weight {
        self.shared.lock().held
    }
}

impl Drop for Pool {
    /// Running chunks end; what is queued is dropped, which resolves its tickets as stopped.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.stopping = true;
        let (live, bulk) = (std::mem::take(&mut queue.live), std::mem::take(&mut queue.bulk));
        let returned = std::mem::take(&mut queue.returned);
        drop(queue);
        self.shared.work_waits.notify_all();
        drop((live, bulk, returned));
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so a failed join has nothing more to tell.
            let _ended = worker.join();
        }
    }
}

impl Shared {
    fn has_space(&self, queue: &Queue, weight: Weight) -> bool {
        let fits = |held: usize, more: usize, bound: usize| held.checked_add(more).is_some_and(|sum| sum <= bound);
        fits(queue.held.items, weight.items, self.bound.items) && fits(queue.held.bytes, weight.bytes, self.bound.bytes)
    }

    fn serve(self: &Arc<Self>) {
        let mut queue = self.lock();
        while !queue.stopping {
            let Some(step) = queue.take_step() else {
                queue = self.work_waits.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            match step {
                Step::Run(task, chunk) => self.end(&task, task.run(chunk, self)),
                Step::Together(tasks) => {
                    Task::run_together(&tasks);
                    tasks.iter().for_each(|task| self.end(task, task.count_down()));
                }
                Step::Part(task, chunk, part) => {
                    let settled = task.part(chunk, part);
                    self.go_on(task, chunk, settled);
                }
                Step::Settle(Return { task, chunk, answer }) => {
                    let settled = task.settle(chunk, answer);
                    self.go_on(task, chunk, settled);
                }
            }
            queue = self.lock();
        }
    }

    /// Ends a step of a chunk that came back, or queues the parts in which it goes on; each counts as a chunk.
    fn go_on(&self, task: Arc<Task>, chunk: usize, settled: Settled) {
        let Settled::Parts(parts) = settled else {
            let outcome = task.count_down();
            self.end(&task, outcome);
            return;
        };
        task.left.fetch_add(parts - 1, Ordering::Relaxed);
        let mut queue = self.lock();
        if queue.stopping {
            // The task goes as all that was queued: its ticket resolves as stopped. Not under the lock.
            drop(queue);
            return;
        }
        queue.of(task.priority).push_front(Entry { task, next: 0, parts: Some((chunk, parts)) });
        drop(queue);
        self.work_waits.notify_all();
    }

    /// Ends a job whose last chunk is done. The last owner of the task frees the arena; not under the lock.
    fn end(&self, task: &Task, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            // Space first, so that whoever sees the result finds the space free as well.
            self.release(task.weight);
            task.work.finish(outcome);
        }
    }

    fn release(&self, weight: Weight) {
        {
            let mut queue = self.lock();
            queue.held.items -= weight.items;
            queue.held.bytes -= weight.bytes;
        }
        self.space_waits.notify_all();
    }

    /// Only this file's code runs under the lock; it does not panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// Takes the chunk along; whoever holds the errand brings it back.
    pub(crate) fn take(&self) -> Errand {
        self.taken.set(true);
        Errand { task: Some(Arc::clone(self.task)), shared: Arc::clone(self.shared), chunk: self.chunk }
    }
}

impl Errand {
    /// Brings the chunk back with what the device says.
    pub(crate) fn answer(mut self, answer: Answer) {
        self.come_back(Some(answer));
    }

    fn come_back(&mut self, answer: Option<Answer>) {
        let Some(task) = self.task.take() else { return };
        let mut queue = self.shared.lock();
        if queue.stopping {
            // The task goes as all that was queued: its ticket resolves as stopped. Not under the lock.
            drop(queue);
            return;
        }
        queue.returned.push_back(Return { task, chunk: self.chunk, answer });
        drop(queue);
        self.shared.work_waits.notify_one();
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.come_back(None);
    }
}

impl Queue {
    fn take_step(&mut self) -> Option<Step> {
        if let Some(returned) = self.returned.pop_front() {
            return Some(Step::Settle(returned));
        }
        let (queue, task, step, parts) = self.take_entry()?;
        if let Some((chunk, count)) = parts {
            return Some(Step::Part(task, chunk, Part { index: step, count }));
        }
        let chunk = step;
        let Some(small) = task.work.small() else { return Some(Step::Run(task, chunk)) };
        let (suite, mut items) = (small.suite(), small.items());
        // Nothing waits for company: only what is queued anyway goes along.
        let mut tasks = vec![Arc::clone(&task)];
        let mut place = 0;
        while let Some(entry) = queue.get(place).filter(|_| place < COMPANY_REACH) {
            let joins = entry.task.work.small().filter(|other| other.suite() == suite && entry.parts.is_none());
            match joins.map(VerifyWork::items).filter(|more| items + more <= TOGETHER_MAX) {
                Some(more) => {
                    items += more;
                    tasks.extend(queue.remove(place).map(|entry| entry.task));
                }
                None => place += 1,
            }
        }
        Some(if tasks.len() > 1 { Step::Together(tasks) } else { Step::Run(task, chunk) })
    }

    fn of(&mut self, priority: Priority) -> &mut VecDeque<Entry> {
        match priority {
            Priority::Live | Priority::Quorum => &mut self.live,
            Priority::Bulk => &mut self.bulk,
        }
    }

    /// The next step of the entry whose turn it is, and the queue that it was taken from.
    #[expect(clippy::type_complexity, reason = "the parts of an entry")]
    fn take_entry(&mut self) -> Option<(&mut VecDeque<Entry>, Arc<Task>, usize, Option<(usize, usize)>)> {
        let bulk_turn = self.live.is_empty() || self.live_chunks >= BULK_SHARE - 1;
        let queue = if bulk_turn && !self.bulk.is_empty() {
            self.live_chunks = 0;
            &mut self.bulk
        } else {
            self.live_chunks = self.live_chunks.saturating_add(1);
            &mut self.live
        };
        let entry = queue.front_mut()?;
        let (step, parts) = (entry.next, entry.parts);
        entry.next += 1;
        let task = Arc::clone(&entry.task);
        if entry.next == entry.steps() {
            queue.pop_front();
        }
        Some((queue, task, step, parts))
    }
}

impl Task {
    /// Runs one chunk; how the job ended when it was the last of it.
    fn run(self: &Arc<Self>, chunk: usize, shared: &Arc<Shared>) -> Option<Outcome> {
        let leave = Leave { task: self, shared, chunk, taken: Cell::new(false) };
        self.catch(|| self.work.run(chunk, &leave));
        // A chunk that was taken along is counted when it is back, even if the worker panicked over it.
        if leave.taken.get() { None } else { self.count_down() }
    }

    /// Runs small jobs; a panic fails all of them.
    fn run_together(tasks: &[Arc<Self>]) {
        let works: Vec<&VerifyWork> = tasks.iter().filter_map(|task| task.work.small()).collect();
        if catch_unwind(AssertUnwindSafe(|| VerifyWork::run_together(&works))).is_err() {
            tasks.iter().for_each(|task| task.panicked.store(true, Ordering::Relaxed));
        }
    }

    /// Takes back a chunk.
    fn settle(&self, chunk: usize, answer: Option<Answer>) -> Settled {
        self.catch(|| self.work.settle(chunk, answer)).unwrap_or(Settled::Done)
    }

    /// Does a part of a chunk that came back.
    fn part(&self, chunk: usize, part: Part) -> Settled {
        self.catch(|| self.work.part(chunk, part)).unwrap_or(Settled::Done)
    }

    /// State that a panicking chunk leaves behind is never read: the job is reported as failed.
    fn catch<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(step));
        if result.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        result.ok()
    }

    fn count_down(&self) -> Option<Outcome> {
        // Release makes this chunk's results visible to whoever ends last, acquire shows it theirs.
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let panicked = self.panicked.load(Ordering::Relaxed);
        Some(if panicked { Outcome::Panicked } else { Outcome::Done })
    }
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Errand").field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("bound", &self.bound).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::{Resolver, TicketError, ticket};

    /// Panics in the chunk with this number.
    struct Broken {
        chunk: usize,
        parts: Arc<AtomicUsize>,
        resolver: Mutex<Option<Resolver<Outcome>>>,
    }

    impl Work for Broken {
        fn chunks(&self) -> usize {
            4
        }

        fn run(&self, chunk: usize, leave: &Leave<'_>) {
            if chunk == 1 {
                // Taken along and lost: it must come back.
                drop(leave.take());
                return;
            }
            assert_ne!(chunk, self.chunk, "this chunk is meant to fail");
        }

        fn settle(&self, chunk: usize, answer: Option<Answer>) -> Settled {
            assert!(answer.is_none() && chunk == 1, "only the lost chunk comes back");
            Settled::Parts(2)
        }

        fn part(&self, chunk: usize, part: Part) -> Settled {
            self.parts.fetch_add(1, Ordering::Relaxed);
            assert_eq!(chunk, 1);
            assert_ne!(chunk, self.chunk, "this chunk is meant to fail");
            // The second of two parts goes on in three.
            if (part.index, part.count) == (1, 2) { Settled::Parts(3) } else { Settled::Done }
        }

        fn finish(&self, outcome: Outcome) {
            let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner).take();
            resolver.expect("finished once").resolve(Ok(outcome));
        }
    }

    #[test]
    fn a_panic_fails_its_job_and_no_other() {
        let weight = Weight { items: 1, bytes: 1 };
        let pool = Pool::new(2, weight).expect("pool");
        for (chunk, expected) in
            [(9, Outcome::Done), (2, Outcome::Panicked), (1, Outcome::Panicked), (9, Outcome::Done)]
        {
            pool.reserve_blocking(weight);
            let (ticket, resolver) = ticket();
            let parts = Arc::new(AtomicUsize::new(0));
            let work = Broken { chunk, parts: Arc::clone(&parts), resolver: Mutex::new(Some(resolver)) };
            pool.enqueue(Priority::Live, weight, Box::new(work));
            assert_eq!(ticket.wait(), Ok::<_, TicketError>(expected));
            let expected = if chunk == 1 { 2 } else { 5 };
            assert_eq!(parts.load(Ordering::Relaxed), expected, "each part of the lost chunk is done once");
            assert_eq!(pool.held(), Weight::default());
        }
    }

    #[test]
    fn bulk_work_gets_every_eighth_chunk_while_live_work_waits() {
        let mut queue = Queue::default();
        let task = |_| {
            let work = Broken { chunk: 9, parts: Arc::default(), resolver: Mutex::new(None) };
            let left = AtomicUsize::new(4);
            let weight = Weight::default();
            let priority = Priority::Live;
            let task = Task { work: Box::new(work), priority, weight, left, panicked: AtomicBool::new(false) };
            Entry { task: Arc::new(task), next: 0, parts: None }
        };
        queue.live.extend((0..14).map(task));
        queue.bulk.extend((0..2).map(task));
        let bulk_left = |queue: &Queue| queue.bulk.iter().map(|entry| 4 - entry.next).sum::<usize>();
        let mut turns = Vec::new();
        for turn in 0..64 {
            let before = bulk_left(&queue);
            assert!(queue.take_entry().is_some());
            if bulk_left(&queue) != before {
                turns.push(turn);
            }
        }
        assert_eq!(turns, [7, 15, 23, 31, 39, 47, 55, 63]);
        assert!(queue.take_entry().is_none());
    }
}
