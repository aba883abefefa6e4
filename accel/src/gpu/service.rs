//! The GPU as the engine sees it: starts in the background, takes batches, ends in one of a few ways.

use std::{
    fmt,
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use wgpu::PollType;

use crate::{
    figures::{GpuFigures, TimeCounters},
    gpu::{
        GpuConfig,
        cache::KernelCache,
        device::{self, GpuError},
        kernel::{Kernel, PrimeItem},
        machine::Machine,
        question::Question,
        ring::{Batch, Flight, Reply, Ring, Slot, Waiting},
        signatures::{PART_CANARIES, PART_ITEMS_MIN},
    },
    suite::Suite,
};

/// A batch is computed within milliseconds; one that takes this long never comes back.
const HANG: Duration = Duration::from_secs(20);

/// The bytes of a slot are a multiple of this.
const SLOT_ALIGNMENT: usize = 256;

/// How long the poller waits for the device before it looks around.
const POLL: Duration = Duration::from_millis(200);

/// How the names of the GPU's threads begin: a panic there is a driver's failure, which the engine deals with.
pub const GPU_THREADS: &str = "accel-gpu";

/// What the GPU is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GpuState {
    /// None is configured.
    #[default]
    Off,
    /// The device is opened and its kernels are compiled; what is compiled serves already.
    Starting,
    /// All kernels serve.
    Serving,
    /// There is no device that may serve.
    Absent,
    /// The device was lost, or did not answer.
    Lost,
    /// The device gave a wrong answer and gets no more work until the engine is started anew.
    Quarantined,
}

/// What the GPU is, for a log line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuStatus {
    /// What it is doing.
    pub state: GpuState,
    /// The device's name.
    pub adapter: String,
    /// The driver's name and version.
    pub driver: String,
    /// Why it does not serve, where it does not.
    pub reason: String,
}

/// What the GPU did.
#[derive(Debug, Default)]
pub(crate) struct GpuCounters {
    pub(crate) batches: AtomicU64,
    pub(crate) fallbacks: AtomicU64,
    pub(crate) took: TimeCounters,
    pub(crate) kernels: TimeCounters,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
    pub(crate) compile_nanoseconds: AtomicU64,
    /// By [`Stage`].
    pub(crate) stages: [AtomicU64; Stage::COUNT],
}

/// What cores do for batches, and what batches wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Cores make batches.
    Pack,
    /// Batches wait for a slot.
    Wait,
    /// They are copied into its memory and submitted.
    Copy,
    /// Cores judge answers.
    Judge,
}

impl Stage {
    const COUNT: usize = 4;
}

impl GpuCounters {
    fn spent(&self, stage: Stage, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.stages[stage as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn seconds(&self, stage: Stage) -> f64 {
        Duration::from_nanos(self.stages[stage as usize].load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// The GPU; its threads end when this is dropped, after [`Gpu::stop`].
pub(crate) struct Gpu {
    shared: Arc<Shared>,
    starter: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    config: GpuConfig,
    state: AtomicU8,
    status: Mutex<GpuStatus>,
    machine: OnceLock<Machine>,
    ring: Mutex<Ring>,
    wakes: Condvar,
    stopping: AtomicU8,
    counters: GpuCounters,
    #[cfg(test)]
    faults: faults::Faults,
}

impl GpuState {
    /// All states, by their number.
    const ALL: [Self; 6] = [Self::Off, Self::Starting, Self::Serving, Self::Absent, Self::Lost, Self::Quarantined];

    /// Stable lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Absent => "absent",
            Self::Lost => "lost",
            Self::Quarantined => "quarantined",
        }
    }
}

impl Gpu {
    /// Starts in the background; whatever goes wrong there is told by [`Self::status`]. `fit` is called when all kernels
    /// are compiled, and the GPU serves when it is done.
    pub(crate) fn start(config: &GpuConfig, fit: impl FnOnce() + Send + 'static) -> Self {
        // Whole lines of any device's memory, so that every copy is aligned.
        let config = GpuConfig { slot_bytes: config.slot_bytes & !(SLOT_ALIGNMENT - 1), ..config.clone() };
        let shared = Arc::new(Shared {
            config,
            state: AtomicU8::new(GpuState::Starting as u8),
            status: Mutex::default(),
            machine: OnceLock::new(),
            ring: Mutex::default(),
            wakes: Condvar::new(),
            stopping: AtomicU8::new(0),
            counters: GpuCounters::default(),
            #[cfg(test)]
            faults: faults::Faults::default(),
        });
        let starting = Arc::clone(&shared);
        let starter = thread::Builder::new().name("accel-gpu-start".to_owned()).spawn(move || {
            if let Err(error) = starting.start(fit) {
                starting.end(GpuState::Absent, &error.to_string());
            }
        });
        let starter = match starter {
            Ok(starter) => Some(starter),
            Err(error) => {
                shared.end(GpuState::Absent, &GpuError::Thread { reason: error.to_string() }.to_string());
                None
            }
        };
        Self { shared, starter: Mutex::new(starter) }
    }

    pub(crate) fn config(&self) -> &GpuConfig {
        &self.shared.config
    }

    /// Bytes of input, and of output, of one batch at most.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.shared.config.slot_bytes
    }

    pub(crate) fn figures(&self) -> GpuFigures {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GpuFigures {
            state: self.state(),
            batches: read(&counters.batches),
            fallbacks: read(&counters.fallbacks),
            took: counters.took.snapshot(),
            kernels: counters.kernels.snapshot(),
            packing_seconds: counters.seconds(Stage::Pack),
            waiting_seconds: counters.seconds(Stage::Wait),
            staging_seconds: counters.seconds(Stage::Copy),
            judging_seconds: counters.seconds(Stage::Judge),
            bytes_up: read(&counters.bytes_up),
            bytes_down: read(&counters.bytes_down),
            compile_seconds: Duration::from_nanos(read(&counters.compile_nanoseconds)).as_secs_f64(),
            tables: self
                .shared
                .machine
                .get()
                .map_or(0, |machine| machine.tables.iter().map(|tables| tables.count() as u64).sum()),
            memory_bytes: self.shared.machine.get().map_or(0, |machine| machine.bytes),
            ..GpuFigures::default()
        }
    }

    /// Counts time that was spent on batches.
    pub(crate) fn spent(&self, stage: Stage, time: Duration) {
        self.shared.counters.spent(stage, time);
    }

    pub(crate) fn state(&self) -> GpuState {
        self.shared.state()
    }

    pub(crate) fn status(&self) -> GpuStatus {
        GpuStatus { state: self.state(), ..self.shared.status().clone() }
    }

    /// Whether batches of these kernels may be sent now.
    pub(crate) fn serves(&self, kernels: &[Kernel]) -> bool {
        let Some(machine) = self.shared.machine.get() else { return false };
        self.shared.is_serving() && kernels.iter().all(|kernel| machine.pipeline(*kernel).is_some())
    }

    /// Items of one batch of signatures at most, without canaries.
    pub(crate) fn signatures_max(&self) -> usize {
        let config = &self.shared.config;
        let bytes = 4 * PrimeItem::WORDS;
        let places = config.batch_items_max.min(config.slot_bytes / bytes);
        // No part is smaller, but for one.
        places.saturating_sub(PART_CANARIES) * PART_ITEMS_MIN / (PART_ITEMS_MIN + PART_CANARIES)
    }

    /// Uploads the table of a suite's generator; false where that cannot be.
    pub(crate) fn set_generator(&self, suite: Suite, content: &[u8]) -> bool {
        let machine = self.shared.machine.get();
        machine.is_some_and(|machine| machine.tables[suite.index()].set_generator(&machine.opened, content))
    }

    /// The numbers of keys' tables on the device, which are uploaded if they are not there.
    pub(crate) fn places<Q: Question>(&self, tables: &[Arc<Q::Table>]) -> Vec<Option<u32>> {
        match self.shared.machine.get() {
            Some(machine) if !tables.is_empty() => {
                machine.tables[Q::SUITE.index()].places(&machine.opened, tables, Q::table_content)
            }
            _ => Vec::new(),
        }
    }

    /// Whether answers may be believed, as far as is known.
    pub(crate) fn is_trusted(&self) -> bool {
        self.state() != GpuState::Quarantined
    }

    /// Sends a batch. The reply gets the answer, or is dropped without one.
    pub(crate) fn submit(&self, batch: Batch, reply: Reply) {
        self.shared.submit(batch, reply);
    }

    /// Sends what waits for a slot, as long as there are any. Whoever takes an answer calls this, since the poller, which freed the
    /// slot, is one thread: it would copy one batch after the other while the device waits.
    pub(crate) fn send_waiting(&self) {
        self.shared.send_waiting();
    }

    /// The device answered wrongly: it gets no more work.
    pub(crate) fn quarantine(&self, reason: &str) {
        self.shared.end(GpuState::Quarantined, reason);
    }

    /// Gives back what is under way and ends the threads.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(1, Ordering::Release);
        self.shared.give_back();
        let starter = self.starter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(starter) = starter {
            // Its panics leave the state as it was; the engine is going anyway.
            let _ended = starter.join();
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> GpuState {
        GpuState::ALL.get(usize::from(self.state.load(Ordering::Acquire))).copied().unwrap_or_default()
    }

    fn is_serving(&self) -> bool {
        matches!(self.state(), GpuState::Starting | GpuState::Serving) && self.stopping.load(Ordering::Acquire) == 0
    }

    fn status(&self) -> MutexGuard<'_, GpuStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the device and compiles its kernels, then polls until the end.
    fn start(self: &Arc<Self>, fit: impl FnOnce() + Send + 'static) -> Result<(), GpuError> {
        let opened = device::open(&self.config)?;
        {
            let mut status = self.status();
            status.adapter.clone_from(&opened.info.name);
            status.driver = format!("{} {}", opened.info.driver, opened.info.driver_info);
        }
        self.watch(&opened.device);
        let machine = Machine::new(opened, &self.config)?;
        let machine = self.machine.get_or_init(|| machine);
        let slots = (0..self.config.slots.max(1)).map(|_| Slot::new(machine, self.config.slot_bytes));
        let slots = slots.collect::<Result<Vec<_>, _>>()?;
        self.ring().free = slots;
        let compiling = Arc::clone(self);
        let compiler = thread::Builder::new().name("accel-gpu-compile".to_owned()).spawn(move || {
            // A panic must not leave work waiting for a start that never ends.
            let prepared = panic::catch_unwind(AssertUnwindSafe(|| {
                let compiled = compiling.compile();
                if compiled {
                    fit();
                }
                compiled
            }));
            match prepared {
                Ok(true) => compiling.serve(),
                Ok(false) => {}
                Err(_) => compiling.end(GpuState::Absent, "the device could not be prepared"),
            }
        });
        let compiler = compiler.map_err(|error| GpuError::Thread { reason: error.to_string() })?;
        // The driver's binding panics where the driver reports what it has no name for; batches under way come back.
        if panic::catch_unwind(AssertUnwindSafe(|| self.poll(machine))).is_err() {
            self.end(GpuState::Lost, "the driver failed");
        }
        let _ended = compiler.join();
        Ok(())
    }

    /// The device's own complaints end its service.
    fn watch(self: &Arc<Self>, device: &wgpu::Device) {
        let shared = Arc::downgrade(self);
        device.set_device_lost_callback(move |_, message| {
            if let Some(shared) = shared.upgrade() {
                shared.end(GpuState::Lost, &format!("the device was lost: {message}"));
            }
        });
        let shared = Arc::downgrade(self);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Some(shared) = shared.upgrade() {
                shared.end(GpuState::Lost, &error.to_string());
            }
        }));
    }

    /// Compiles the kernels, each on some core, since drivers do not spread one over several. Whether all were compiled.
    fn compile(&self) -> bool {
        let Some(machine) = self.machine.get() else { return false };
        let cache = self.config.cache_directory.as_deref();
        let cache =
            cache.and_then(|directory| KernelCache::open(directory, &machine.opened.device, &machine.opened.info));
        let started = Instant::now();
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(Kernel::ALL.len());
        let next = AtomicUsize::new(0);
        let compile_some = || {
            while let Some(kernel) = Kernel::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !self.is_serving() {
                    return;
                }
                if let Err(error) = machine.compile(*kernel, cache.as_ref()) {
                    self.end(GpuState::Absent, &error.to_string());
                    return;
                }
            }
        };
        // A panic of one of them goes on here when all have ended. Where no thread can be had, this one does it all.
        thread::scope(|scope| {
            for _ in 1..threads {
                let builder = thread::Builder::new().name("accel-gpu-kernel".to_owned());
                let _helps = builder.spawn_scoped(scope, compile_some);
            }
            compile_some();
        });
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.compile_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        let compiled = Kernel::ALL.iter().all(|kernel| machine.pipeline(*kernel).is_some());
        if let Some(cache) = cache.filter(|_| compiled) {
            cache.save();
        }
        compiled
    }

    /// What ended the service meanwhile stays.
    fn serve(&self) {
        let _state = self.state.compare_exchange(
            GpuState::Starting as u8,
            GpuState::Serving as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// Ends the service; the first reason counts, but a wrong answer outdoes all others.
    fn end(&self, state: GpuState, reason: &str) {
        {
            let mut status = self.status();
            if !self.is_serving() && state != GpuState::Quarantined {
                return;
            }
            self.state.store(state as u8, Ordering::Release);
            reason.clone_into(&mut status.reason);
        }
        self.give_back();
    }

    /// All that is waiting or under way goes to the CPU. What was under way keeps its buffers until the end: this may be
    /// called from inside the driver, which is not to be asked to free them there.
    fn give_back(&self) {
        let mut replies = Vec::new();
        {
            let mut ring = self.ring();
            let mut flying = std::mem::take(&mut ring.flying);
            replies.extend(flying.iter_mut().filter_map(|flight| flight.reply.take()));
            ring.retired.extend(flying);
            replies.extend(ring.waiting.drain(..).map(|waiting| waiting.reply));
        }
        self.wakes.notify_all();
        self.counters.fallbacks.fetch_add(replies.len() as u64, Ordering::Relaxed);
        drop(replies);
    }

    fn submit(&self, batch: Batch, reply: Reply) {
        let slot = {
            let mut ring = self.ring();
            if !self.is_serving() {
                None
            } else if let Some(slot) = ring.free.pop() {
                Some(slot)
            } else {
                ring.waiting.push_back(Waiting { batch, reply, since: Instant::now() });
                return;
            }
        };
        match (slot, self.machine.get()) {
            (Some(slot), Some(machine)) => self.launch(machine, slot, &batch, reply),
            _ => {
                self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
                drop(reply);
            }
        }
    }

    fn launch(&self, machine: &Machine, slot: Slot, batch: &Batch, reply: Reply) {
        #[cfg(test)]
        let batch = &self.faults.before_launch(&machine.opened.device, batch.clone());
        let started = Instant::now();
        // Workers come here too, and a driver's failure is none of their jobs.
        let flight = panic::catch_unwind(AssertUnwindSafe(|| slot.launch(machine, batch, reply)));
        self.counters.spent(Stage::Copy, started.elapsed());
        let Ok(flight) = flight else {
            self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
            self.end(GpuState::Lost, "the driver failed");
            return;
        };
        let mut ring = self.ring();
        match flight {
            Ok(flight) if self.is_serving() => {
                ring.flying.push_back(flight);
                drop(ring);
                self.counters.bytes_up.fetch_add(batch.input_bytes() as u64, Ordering::Relaxed);
                self.counters.bytes_down.fetch_add(4 * batch.output.len() as u64, Ordering::Relaxed);
                self.wakes.notify_all();
            }
            Ok(flight) => {
                drop(ring);
                self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
                drop(flight);
            }
            Err(slot) => {
                ring.free.push(*slot);
                drop(ring);
                self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits for batches in their order until the service ends.
    fn poll(&self, machine: &Machine) {
        loop {
            let submission = {
                let mut ring = self.ring();
                loop {
                    if !self.is_serving() {
                        return;
                    }
                    if let Some(flight) = ring.flying.front() {
                        if flight.started.elapsed() > HANG {
                            drop(ring);
                            self.end(GpuState::Lost, "the device did not answer");
                            return;
                        }
                        break flight.submission.clone();
                    }
                    ring = self.wakes.wait(ring).unwrap_or_else(PoisonError::into_inner);
                }
            };
            #[cfg(test)]
            self.faults.before_poll();
            let waited =
                machine.opened.device.poll(PollType::Wait { submission_index: Some(submission), timeout: Some(POLL) });
            if let Err(wgpu::PollError::WrongSubmissionIndex(..)) = waited {
                self.end(GpuState::Lost, "the device forgot a batch");
                return;
            }
            self.land_all(machine);
        }
    }

    /// Delivers what has landed.
    fn land_all(&self, machine: &Machine) {
        loop {
            let flight = {
                let mut ring = self.ring();
                if !ring.flying.front().is_some_and(Flight::has_landed) {
                    return;
                }
                let before = ring.landed.replace(Instant::now());
                ring.flying.pop_front().map(|flight| (flight, before))
            };
            let Some((flight, before)) = flight else { return };
            let Some((slot, reply, answer)) = flight.land(machine, before) else {
                self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
                self.end(GpuState::Lost, "the device's memory could not be read");
                return;
            };
            #[cfg(test)]
            let answer = self.faults.after_landing(answer);
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
            self.counters.took.record(answer.took);
            if let Some(kernels) = answer.kernels {
                self.counters.kernels.record(kernels);
            }
            self.ring().free.push(slot);
            let is_taken_by_worker = matches!(reply, Reply::Chunk(_));
            reply.answer(answer);
            if !is_taken_by_worker {
                self.send_waiting();
            }
        }
    }

    fn send_waiting(&self) {
        let Some(machine) = self.machine.get().filter(|_| self.is_serving()) else { return };
        let next = || {
            let mut ring = self.ring();
            let slot = if ring.waiting.is_empty() { None } else { ring.free.pop() };
            slot.and_then(|slot| Some((slot, ring.waiting.pop_front()?)))
        };
        while let Some((slot, Waiting { batch, reply, since })) = next() {
            self.counters.spent(Stage::Wait, since.elapsed());
            self.launch(machine, slot, &batch, reply);
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gpu").field("status", &self.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod faults {
    //! Faults that tests make.

    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::gpu::{Answer, Batch, EdwardsItem, Gpu};

    #[derive(Debug, Default)]
    pub(crate) struct Faults {
        /// Answers to spoil.
        pub(crate) corrupt: AtomicU64,
        /// Launches until the device is lost; zero: never.
        pub(crate) lose_after: AtomicU64,
        /// Polls until one panics; zero: never.
        pub(crate) panic_after: AtomicU64,
        /// Answers of which two words change places.
        pub(crate) swap: AtomicU64,
        /// Batches of Ed25519 of which a bit is flipped in four neighbours, some of them valid, on their way.
        pub(crate) flip: AtomicU64,
        /// Batches of Ed25519 of which each item but the last gets the content of the next one.
        pub(crate) shift: AtomicU64,
    }

    impl Faults {
        pub(super) fn before_launch(&self, device: &wgpu::Device, batch: Batch) -> Batch {
            if take(&self.lose_after) == Some(1) {
                device.destroy();
            }
            let mut input = batch.input.concat();
            let middle = input.len() / 2;
            if batch.suite.is_some() && take(&self.flip).is_some() {
                (0..4).for_each(|item| input[middle + item * 4 * EdwardsItem::WORDS] ^= 1);
            }
            if batch.suite.is_some() && take(&self.shift).is_some() {
                input.copy_within(4 * EdwardsItem::WORDS.., 0);
            }
            Batch { input: vec![input.into()], ..batch }
        }

        pub(super) fn before_poll(&self) {
            assert!(take(&self.panic_after) != Some(1), "the driver's binding is meant to panic");
        }

        pub(super) fn after_landing(&self, mut answer: Answer) -> Answer {
            let middle = answer.words.len() / 2;
            if take(&self.corrupt).is_some() {
                answer.words[middle] ^= 1 << 7;
            }
            if take(&self.swap).is_some() {
                answer.words.swap(0, middle);
            }
            answer
        }
    }

    fn take(left: &AtomicU64) -> Option<u64> {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()
    }

    impl Gpu {
        pub(crate) fn faults(&self) -> &Faults {
            &self.shared.faults
        }
    }
}
