//! Work for the GPU: what a chunk costs where, the first measurements, and what follows a wrong answer.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use stele_accel_hash::{DIGEST_LENGTH, Digest, HashAlgorithm, digest_batch, node_level};

use crate::{
    cost::{Backend, Kind},
    curve::{P256, Sm2},
    engine::Context,
    gpu::{Answer, Assign, Batch, Digests, Gpu, Kernel, Levels, Measure, Question, Reply, Signatures},
    guard::{Draw, Fault, canary::Canaries},
    job::verify::recheck,
    suite::{Equation, Suite, Verdict},
};

/// Batches are measured at a sixteenth, a quarter and the whole of so many units.
const FIT_UNITS: usize = 1 << 14;

/// What is hashed where digests are measured: as long as a statement.
static STATEMENT: [u8; 300] = [0x5a; 300];

/// Its blocks.
const STATEMENT_BLOCKS: usize = 5;

/// A unit takes no more of a slot: twice a block.
const UNIT_BYTES_MAX: usize = 128;

/// Signatures of the first batch that is measured; each further one has four times as many.
const FIT_SIGNATURES_MIN: usize = 64;

/// No batch larger than one that takes this long is measured.
const FIT_LONG: Duration = Duration::from_millis(20);

/// How long the first measurement of a batch may take.
const FIT_WAIT: Duration = Duration::from_secs(120);

/// The cost of one chunk, as it was planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    backend: Backend,
    kind: Kind,
    units: usize,
    planned: u64,
}

impl Cost {
    pub(super) fn plan(context: &Context, backend: Backend, kind: Kind, units: usize) -> Self {
        Self { backend, kind, units, planned: context.costs.plan(backend, kind, units) }
    }

    pub(super) fn is_device(&self) -> bool {
        self.backend == Backend::Gpu
    }

    /// Does the chunk on this core, whatever was planned.
    pub(super) fn here(&self, context: &Context, work: impl FnOnce()) {
        let started = Instant::now();
        work();
        context.costs.observe(Backend::Cpu, self.kind, self.units, started.elapsed());
        context.costs.done(self.backend, self.planned);
    }

    /// Does chunks of one kind on this core, as one.
    pub(super) fn together(costs: &[Self], context: &Context, work: impl FnOnce()) {
        let started = Instant::now();
        work();
        if let Some(first) = costs.first() {
            let units = costs.iter().map(|cost| cost.units).sum();
            context.costs.observe(Backend::Cpu, first.kind, units, started.elapsed());
        }
        costs.iter().for_each(|cost| context.costs.done(cost.backend, cost.planned));
    }

    /// A device did not do the chunk, whose parts are done [`Self::again`].
    pub(super) fn give_up(&self, context: &Context) {
        context.costs.done(self.backend, self.planned);
    }

    /// Does a part of the chunk on this core.
    pub(super) fn again(&self, context: &Context, units: usize, work: impl FnOnce()) {
        Self::plan(context, Backend::Cpu, self.kind, units).here(context, work);
    }

    /// The device did the chunk in so long, and cores were busy for so long to ask it and to judge its answer.
    pub(super) fn there(&self, context: &Context, busy: Duration, around: Duration) {
        context.costs.observe(Backend::Gpu, self.kind, self.units, busy + around);
        context.counters.device_batch(self.kind);
        context.costs.done(self.backend, self.planned);
    }
}

/// How many of `units` go to the device, none or at least `units_min`.
pub(super) fn device_units(context: &Context, gpu: &Gpu, kind: Kind, units: usize, units_min: usize) -> usize {
    if gpu.config().assign == Assign::All {
        return units;
    }
    let share = context.costs.device_share(kind, units, units_min, context.threads);
    if share == 0
        && let Some(units) = context.costs.passed(kind, units, units_min)
    {
        // When there is nothing to ask, it is tried again later.
        let _asked = measure(context, gpu, kind, units);
    }
    share
}

/// Measures a device beside the jobs, with a batch that belongs to none.
fn measure(context: &Context, gpu: &Gpu, kind: Kind, units: usize) -> Option<()> {
    let units = units.min(gpu.slot_bytes() / UNIT_BYTES_MAX).min(gpu.signatures_max());
    let batch = match kind {
        Kind::Verify(Suite::Ed25519) => repeated(context.canaries_ed25519.get()?, gpu, units),
        Kind::Verify(Suite::P256) => repeated(context.canaries_p256.get()?, gpu, units),
        Kind::Verify(Suite::Sm2) => repeated(context.canaries_sm2.get()?, gpu, units),
        Kind::Digest(algorithm) => {
            let messages = vec![STATEMENT.as_slice(); units / STATEMENT_BLOCKS];
            Digests::pack(algorithm, &[], &messages, Draw::new().nonce()).map(|(batch, _)| batch)
        }
        Kind::Merkle(algorithm) => {
            let leaves = vec![0x5a; units * DIGEST_LENGTH].into();
            Levels::pack(algorithm, leaves, 3, true, Draw::new().nonce()).map(|(batch, _)| batch)
        }
    }?;
    let (costs, planned) = (Arc::clone(&context.costs), context.costs.plan(Backend::Gpu, kind, units));
    let done = move |busy: Option<Duration>| {
        costs.done(Backend::Gpu, planned);
        if let Some(busy) = busy {
            costs.observe(Backend::Gpu, kind, units, busy);
        }
    };
    gpu.submit(batch, Reply::Measure(Measure::new(done)));
    Some(())
}

fn repeated<Q: Question>(canaries: &Canaries<Q>, gpu: &Gpu, units: usize) -> Option<Batch> {
    let (questions, _) = canaries.repeated(units, true);
    Signatures::pack(&questions, canaries, gpu).map(|(batch, _)| batch)
}

impl Context {
    /// A device that is found wrong gets no more work, and what it accepted last is verified again, on a thread of its
    /// own: live work does not wait for that.
    pub(crate) fn fault(self: &Arc<Self>, fault: Fault) {
        self.guard.fault(fault);
        if let Some(gpu) = self.gpu() {
            gpu.quarantine(fault.reason());
        }
        let accepted = self.window.take();
        if accepted.is_empty() {
            return;
        }
        let context = Arc::clone(self);
        let recheck = move || accepted.iter().for_each(|accepted| recheck(&context, accepted));
        if let Err((_, recheck)) = spawn("accel-gpu-recheck", recheck) {
            recheck();
        }
    }
}

/// Starts a thread, or gives back what it was to do.
fn spawn<F: FnOnce() + Send + 'static>(name: &str, work: F) -> Result<(), (io::Error, F)> {
    // The builder drops its closure when it fails, so the work is kept outside.
    let shared = Arc::new(Mutex::new(Some(work)));
    let inner = Arc::clone(&shared);
    let take = |shared: &Mutex<Option<F>>| shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(work) = take(&inner) {
            work();
        }
    });
    match started {
        Ok(_detached) => Ok(()),
        Err(error) => match take(&shared) {
            Some(work) => Err((error, work)),
            None => Ok(()),
        },
    }
}

/// Measures each kind of work on the device and on this core, and compares the results: a device that fails here never
/// serves.
pub(crate) fn fit(context: &Arc<Context>) {
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
        if fit_digests(context, algorithm).is_none() || fit_levels(context, algorithm).is_none() {
            return;
        }
    }
    // Suites by what the device gains over the CPU.
    let fitted = fit_signatures(context, Canaries::<Equation<Sm2>>::new, &context.canaries_sm2)
        .and_then(|()| fit_signatures(context, Canaries::<Equation<P256>>::new, &context.canaries_p256))
        .and_then(|()| fit_signatures(context, Canaries::fresh, &context.canaries_ed25519));
    // Without one of them, its suite stays on the CPU.
    let _fitted = fitted;
}

/// Makes the canaries, which is what makes a suite go to the device, and measures over them.
fn fit_signatures<Q: Question>(
    context: &Arc<Context>,
    make: impl FnOnce() -> Option<Canaries<Q>>,
    place: &OnceLock<Canaries<Q>>,
) -> Option<()> {
    let gpu = context.gpu()?;
    if !gpu.set_generator(Q::SUITE, &Q::generator_table()) {
        return None;
    }
    let canaries = make()?;
    let kind = Kind::Verify(Q::SUITE);
    for with_table in [false, true] {
        let mut units = FIT_SIGNATURES_MIN;
        loop {
            let (questions, expected) = canaries.repeated(units, with_table);
            let (batch, sent) = Signatures::pack(&questions, &canaries, gpu)?;
            let answer = ask(context, batch)?;
            if units == FIT_SIGNATURES_MIN {
                let mut verdicts = vec![Verdict::Invalid; units];
                measured(context, kind, units, || Q::decide(&questions, &mut verdicts));
            }
            match sent.unpack(&answer) {
                Ok(verdicts) if verdicts.iter().all(|(index, verdict)| expected[*index] == *verdict) => {}
                Ok(_) => {
                    context.fault(Fault::Canary);
                    return None;
                }
                Err(fault) => {
                    context.fault(fault);
                    return None;
                }
            }
            context.costs.observe(Backend::Gpu, kind, units, answer.busy);
            units *= 4;
            if units > gpu.signatures_max() || answer.busy > FIT_LONG {
                break;
            }
        }
    }
    place.get_or_init(|| canaries);
    Some(())
}

fn fit_digests(context: &Arc<Context>, algorithm: HashAlgorithm) -> Option<()> {
    let kind = Kind::Digest(algorithm);
    for units in fit_sizes(context) {
        let messages = vec![STATEMENT.as_slice(); units / STATEMENT_BLOCKS];
        let (batch, sent) = Digests::pack(algorithm, &[], &messages, Draw::new().nonce())?;
        let answer = ask(context, batch)?;
        let expected = measured(context, kind, units, || digest_batch(algorithm, &[], &messages));
        check(context, sent.unpack(&answer), &expected)?;
        context.costs.observe(Backend::Gpu, kind, units, answer.busy);
    }
    Some(())
}

fn fit_levels(context: &Arc<Context>, algorithm: HashAlgorithm) -> Option<()> {
    let kind = Kind::Merkle(algorithm);
    for units in fit_sizes(context) {
        let leaves: Vec<Digest> = (0..units).map(|index| [index.to_le_bytes()[0]; 32]).collect();
        let bytes = leaves.as_flattened().to_vec().into();
        let (batch, sent) = Levels::pack(algorithm, bytes, 3, true, Draw::new().nonce())?;
        let answer = ask(context, batch)?;
        let expected = measured(context, kind, units, || {
            let mut levels = vec![node_level(algorithm, &leaves)];
            for level in 0..2 {
                levels.push(node_level(algorithm, &levels[level]));
            }
            levels
        });
        check(context, sent.unpack(&answer), &expected)?;
        context.costs.observe(Backend::Gpu, kind, units, answer.busy);
    }
    Some(())
}

/// Three sizes, of which the largest fits a slot.
fn fit_sizes(context: &Context) -> [usize; 3] {
    let largest = context.gpu().map_or(0, Gpu::slot_bytes) / UNIT_BYTES_MAX;
    let largest = largest.min(FIT_UNITS);
    [largest / 16, largest / 4, largest]
}

fn measured<T>(context: &Context, kind: Kind, units: usize, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    context.costs.observe(Backend::Cpu, kind, units, started.elapsed());
    result
}

fn check<T: PartialEq>(context: &Arc<Context>, found: Option<T>, expected: &T) -> Option<()> {
    let right = found.as_ref() == Some(expected);
    if !right {
        context.fault(if found.is_some() { Fault::Digest } else { Fault::Tag });
    }
    right.then_some(())
}

/// Sends a batch that belongs to no job and waits for its answer.
fn ask(context: &Context, batch: Batch) -> Option<Answer> {
    let (sender, receiver) = mpsc::channel();
    context.gpu()?.submit(batch, Reply::Probe(sender));
    receiver.recv_timeout(FIT_WAIT).ok()
}

/// What a worker does first that takes back a batch: the slot that it had is for the next one.
pub(super) fn send_waiting(context: &Context) {
    if let Some(gpu) = context.gpu() {
        gpu.send_waiting();
    }
}

/// Whether the device has these kernels and serves.
pub(super) fn serving<'c>(context: &'c Context, kernels: &[Kernel]) -> Option<&'c Gpu> {
    context.gpu().filter(|gpu| gpu.serves(kernels))
}
