//! Signatures of a job that a device verifies at once.
//!
//! ```text
//!  piece ─┐                                      ┌─ part: check ─┐
//!  piece ─┼─ the last one joins and sends ─► ... ┼─ part: check ─┼─ the last one publishes, or all is done here
//!  piece ─┘                                      └─ part: check ─┘
//! ```
//!
//! A device needs tens of thousands of signatures at once to be busy, and one core would pack them for longer than the
//! device verifies them. No verdict gets out before every part of its batch was checked.

use std::{
    ops::Range,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    cost::{Backend, Kind},
    engine::Context,
    gpu::{Answer, Gpu, PART_ITEMS_MIN, Packed, Reply, Signatures, Stage, kernels_of},
    guard::{Draw, Fault, window::Accepted},
    job::{
        device::{Cost, send_waiting, serving},
        verify::{VerifyWork, signed, sort_by_key, verdicts_of_cpu},
    },
    pool::{Leave, Part, Settled},
    suite::{Suite, Verdict},
};

/// Signatures of a piece at most: what a core packs in about two milliseconds.
const PIECE_ITEMS_MAX: usize = 2_048;

/// Signatures of a part whose answer is judged, at most.
const JUDGED_ITEMS_MAX: usize = 4_096;

/// Signatures of a part that is verified here: a core needs some milliseconds for them.
const REDO_ITEMS: usize = 512;

/// Signatures that a device calls invalid, above which a batch is judged in small parts: each of them is verified here.
const REFUSED_MAX: usize = 256;

/// Some signatures of one suite, on their way through a device.
pub(super) struct DeviceBatch {
    suite: Suite,
    /// Positions in the order of the job.
    range: Range<usize>,
    cost: Cost,
    pieces: usize,
    /// Pieces that are not packed yet.
    pieces_left: AtomicUsize,
    packed: Mutex<Vec<Packed>>,
    sent: OnceLock<Signatures>,
    answered: OnceLock<Answered>,
    /// The device did not do it, or not rightly.
    is_lost: AtomicBool,
    /// Nanoseconds of all cores to pack and to judge.
    around: AtomicU64,
}

/// An answer whose tags and canaries are right.
struct Answered {
    busy: Duration,
    /// What the device says of each signature; nothing of one that was not sent, whose key or signature does not decode.
    found: Vec<Option<bool>>,
    /// Parts that are not checked yet.
    parts_left: AtomicUsize,
    is_wrong: AtomicBool,
    /// What the window is to keep.
    accepted: Mutex<Vec<Accepted>>,
}

impl DeviceBatch {
    pub(super) fn plan(context: &Context, suite: Suite, range: Range<usize>) -> Self {
        let even = range.len().div_ceil(2 * context.threads.max(1));
        let pieces = range.len().div_ceil(even.clamp(PART_ITEMS_MIN, PIECE_ITEMS_MAX)).max(1);
        Self {
            suite,
            cost: Cost::plan(context, Backend::Gpu, Kind::Verify(suite), range.len()),
            range,
            pieces,
            pieces_left: AtomicUsize::new(pieces),
            packed: Mutex::default(),
            sent: OnceLock::new(),
            answered: OnceLock::new(),
            is_lost: AtomicBool::new(false),
            around: AtomicU64::new(0),
        }
    }

    /// The pieces in which it is packed, as positions in the order of the job.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.pieces).map(|index| Part { index, count: self.pieces }.of(&self.range))
    }

    fn packed(&self) -> MutexGuard<'_, Vec<Packed>> {
        self.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts time of a core.
    fn spent(&self, context: &Context, stage: Stage, started: Instant) {
        let took = started.elapsed();
        self.around.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(gpu) = context.gpu() {
            gpu.spent(stage, took);
        }
    }

    /// It is to be done here.
    fn lose(&self, context: &Context) -> Settled {
        self.is_lost.store(true, Ordering::Release);
        self.cost.give_up(context);
        Settled::Parts(self.range.len().div_ceil(REDO_ITEMS).max(1))
    }
}

impl Answered {
    fn new(busy: Duration, verdicts: &[(usize, bool)], items: usize) -> Self {
        let mut found = vec![None; items];
        for (item, verdict) in verdicts {
            if let Some(found) = found.get_mut(*item) {
                *found = Some(*verdict);
            }
        }
        let (parts_left, is_wrong) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { busy, found, parts_left, is_wrong, accepted: Mutex::default() }
    }

    /// In how many parts it is judged.
    fn parts(&self, threads: usize) -> usize {
        let items = self.found.len();
        let refused = self.found.iter().filter(|found| **found == Some(false)).count();
        let even = items.div_ceil(threads.max(1));
        let each = if refused > REFUSED_MAX { REDO_ITEMS } else { even.clamp(REDO_ITEMS, JUDGED_ITEMS_MAX) };
        items.div_ceil(each).max(1)
    }

    fn accepted(&self) -> MutexGuard<'_, Vec<Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VerifyWork {
    /// Packs a piece of a batch. The last one sends the batch; where that cannot be, it comes back at once.
    pub(super) fn pack(&self, batch: &DeviceBatch, piece: &Range<usize>, leave: &Leave<'_>) {
        let started = Instant::now();
        if let Some(packed) = self.packed(batch, piece) {
            batch.packed().push(packed);
        }
        batch.spent(&self.context, Stage::Pack, started);
        if batch.pieces_left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let errand = leave.take();
        let parts = std::mem::take(&mut *batch.packed());
        if parts.len() == batch.pieces
            && let Some(gpu) = serving(&self.context, kernels_of(batch.suite))
            && let Some((batch_of_device, sent)) = Signatures::join(parts)
        {
            batch.sent.get_or_init(|| sent);
            gpu.submit(batch_of_device, Reply::Chunk(errand));
        }
    }

    fn packed(&self, batch: &DeviceBatch, piece: &Range<usize>) -> Option<Packed> {
        let context = &self.context;
        let gpu = serving(context, kernels_of(batch.suite))?;
        let mut positions: Vec<usize> = piece.clone().collect();
        sort_by_key(&self.job, &mut positions, |position| self.order[*position]);
        let items = signed(&self.job, positions.iter().map(|position| self.order[*position]));
        let number = |index: usize| positions[index] - batch.range.start;
        let verifiers = &context.verifiers;
        match batch.suite {
            Suite::Ed25519 => {
                Packed::new(&verifiers.ed25519.equations(&items), number, context.canaries_ed25519.get()?, gpu)
            }
            Suite::P256 => Packed::new(&verifiers.p256.equations(&items), number, context.canaries_p256.get()?, gpu),
            Suite::Sm2 => Packed::new(&verifiers.sm2.equations(&items), number, context.canaries_sm2.get()?, gpu),
        }
    }

    /// Takes back a batch.
    pub(super) fn take_back(&self, batch: &DeviceBatch, answer: Option<&Answer>) -> Settled {
        let context = &self.context;
        send_waiting(context);
        let Some((answer, sent)) = answer.zip(batch.sent.get()).filter(|_| context.gpu().is_some_and(Gpu::is_trusted))
        else {
            return batch.lose(context);
        };
        let started = Instant::now();
        let verdicts = match sent.unpack(answer) {
            Ok(verdicts) => verdicts,
            Err(fault) => {
                context.fault(fault);
                return batch.lose(context);
            }
        };
        let answered = batch.answered.get_or_init(|| Answered::new(answer.busy, &verdicts, batch.range.len()));
        let parts = answered.parts(context.threads);
        answered.parts_left.store(parts, Ordering::Release);
        batch.spent(context, Stage::Judge, started);
        Settled::Parts(parts)
    }

    /// Judges a part of an answer, or verifies it here where there is none that can be believed.
    pub(super) fn go_on(&self, batch: &DeviceBatch, part: Part) -> Settled {
        let own = part.of(&(0..batch.range.len()));
        let Some(answered) = batch.answered.get().filter(|_| !batch.is_lost.load(Ordering::Acquire)) else {
            batch.cost.again(&self.context, own.len(), || self.verify_here(batch, own));
            return Settled::Done;
        };
        let started = Instant::now();
        if let Err(fault) = self.check(batch, answered, own) {
            self.context.fault(fault);
            answered.is_wrong.store(true, Ordering::Relaxed);
        }
        batch.spent(&self.context, Stage::Judge, started);
        // What the other parts found comes before the count that they leave.
        if answered.parts_left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Settled::Done;
        }
        if answered.is_wrong.load(Ordering::Relaxed) || !self.publish(batch, answered, part.count) {
            return batch.lose(&self.context);
        }
        Settled::Done
    }

    /// Verifies here what the device calls invalid, for nothing is invalid because a device says so, and a share of what it
    /// accepts.
    fn check(&self, batch: &DeviceBatch, answered: &Answered, own: Range<usize>) -> Result<(), Fault> {
        let context = &self.context;
        let Some(gpu) = context.gpu() else { return Ok(()) };
        let items = |verdict: bool| -> Vec<usize> {
            let own = own.clone().filter(|number| answered.found[*number] == Some(verdict));
            own.map(|number| self.order[batch.range.start + number]).collect()
        };
        let (accepted, refused) = (items(true), items(false));
        let sample = Draw::new().sample(accepted.len(), gpu.config().recheck_one_in);
        let sample: Vec<usize> = sample.into_iter().map(|index| accepted[index]).collect();
        for (items, expected, fault) in
            [(sample, Verdict::Valid, Fault::Valid), (refused, Verdict::Invalid, Fault::Invalid)]
        {
            context.guard.rechecked(items.len());
            let verdicts = verdicts_of_cpu(context, batch.suite, &signed(&self.job, items));
            if verdicts.iter().any(|verdict| *verdict != expected) {
                return Err(fault);
            }
        }
        let kept = Accepted::copy(&self.job.bytes, accepted.iter().map(|index| &self.job.items[*index]));
        answered.accepted().push(kept);
        Ok(())
    }

    /// Stores the verdicts of a batch that was checked; false if the device was found wrong meanwhile.
    fn publish(&self, batch: &DeviceBatch, answered: &Answered, parts: usize) -> bool {
        let context = &self.context;
        std::mem::take(&mut *answered.accepted()).into_iter().for_each(|accepted| context.window.keep(accepted));
        // Whoever found the device wrong meanwhile took the window after saying so: either this was in it, or is not used.
        if !context.gpu().is_some_and(Gpu::is_trusted) {
            return false;
        }
        let cores = context.threads.min(parts.max(batch.pieces)).max(1);
        let around = Duration::from_nanos(batch.around.load(Ordering::Relaxed) / cores as u64);
        batch.cost.there(context, answered.busy, around);
        let valid = |found: &Option<bool>| *found == Some(true);
        let accepted = answered.found.iter().filter(|found| valid(found)).count();
        context.counters.device_valid[batch.suite.index()].fetch_add(accepted as u64, Ordering::Relaxed);
        let items = &self.order[batch.range.clone()];
        self.store(batch.suite, items.iter().copied().zip(answered.found.iter().map(valid)));
        true
    }

    fn verify_here(&self, batch: &DeviceBatch, own: Range<usize>) {
        let start = batch.range.start;
        let mut items = self.order[start + own.start..start + own.end].to_vec();
        sort_by_key(&self.job, &mut items, |index| *index);
        let verdicts = verdicts_of_cpu(&self.context, batch.suite, &signed(&self.job, items.iter().copied()));
        self.store(batch.suite, items.into_iter().zip(verdicts.into_iter().map(Verdict::is_valid)));
    }
}
