//! Batches on their way through the device: a few slots, each with buffers of its own, so that one batch is filled while
//! another is computed and a third is read back.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use wgpu::{
    BindGroup, Buffer, BufferDescriptor, BufferUsages, CommandEncoderDescriptor, ComputePassDescriptor,
    ComputePassTimestampWrites, Device, ErrorFilter, Features, MapMode, QuerySet, QuerySetDescriptor, QueryType,
    SubmissionIndex,
};

use crate::{
    gpu::{
        device::{GpuError, block_on},
        kernel::{Kernel, Parameters, WORKGROUP},
        machine::Machine,
    },
    pool::Errand,
    suite::Suite,
};

/// Bytes of two times, which follow the output in a readback buffer.
const TIMES_BYTES: u64 = 16;

/// Bytes of a word.
const WORD: usize = 4;

/// What the device is asked.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The input buffer's content in pieces: whole words, little-endian.
    pub(crate) input: Vec<Bytes>,
    /// Kernels to run, one after the other.
    pub(crate) passes: Vec<Pass>,
    /// Words of the output buffer that are the answer.
    pub(crate) output: Range<usize>,
    /// The suite whose tables the kernels use.
    pub(crate) suite: Option<Suite>,
}

impl Batch {
    /// Length of the input.
    pub(super) fn input_bytes(&self) -> usize {
        self.input.iter().map(Bytes::len).sum()
    }
}

/// One run of a kernel, with an invocation for each of its items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) kernel: Kernel,
    pub(crate) parameters: Parameters,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A chunk of a job.
    Chunk(Errand),
    /// The first measurement.
    Probe(Sender<Answer>),
    /// A later one, for which nobody waits.
    Measure(Measure),
}

/// What is done with the time of a batch that belongs to no job; also called, without one, when it fails.
pub(crate) struct Measure(Option<Box<dyn FnOnce(Option<Duration>) + Send>>);

impl Measure {
    pub(crate) fn new(done: impl FnOnce(Option<Duration>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    fn end(&mut self, busy: Option<Duration>) {
        if let Some(done) = self.0.take() {
            done(busy);
        }
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl std::fmt::Debug for Measure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Measure").finish_non_exhaustive()
    }
}

/// What the device says.
#[derive(Debug)]
pub struct Answer {
    /// The words asked for.
    pub(crate) words: Vec<u32>,
    /// From handing over to the words in memory.
    pub(crate) took: Duration,
    /// The same, without the time that the device spent on batches before it.
    pub(crate) busy: Duration,
    /// Time of the kernels alone, where the device tells.
    pub(crate) kernels: Option<Duration>,
}

/// The slots, and what waits for one.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) free: Vec<Slot>,
    pub(super) waiting: VecDeque<Waiting>,
    /// In the order of submission.
    pub(super) flying: VecDeque<Flight>,
    /// Batches that were under way when the service ended.
    pub(super) retired: Vec<Flight>,
    /// When the last batch came back.
    pub(super) landed: Option<Instant>,
}

/// A batch without a slot.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) reply: Reply,
    pub(super) since: Instant,
}

/// Buffers of a slot that have its size.
pub(super) const SLOT_BUFFERS: usize = 4;

/// The buffers of one batch.
#[derive(Debug)]
pub(super) struct Slot {
    /// Mapped for writing while the slot is free.
    staging: Buffer,
    input: Buffer,
    output: Buffer,
    readback: Buffer,
    bindings: BindGroup,
    times: Option<Times>,
    bytes: usize,
}

#[derive(Debug)]
struct Times {
    queries: QuerySet,
    resolved: Buffer,
}

/// A batch that the device has.
#[derive(Debug)]
pub(super) struct Flight {
    slot: Slot,
    pub(super) reply: Option<Reply>,
    pub(super) submission: SubmissionIndex,
    pub(super) started: Instant,
    /// Bytes of the answer, in the readback buffer.
    answer: usize,
    mapped: Arc<Mapped>,
}

/// Counts the two mappings after a batch.
#[derive(Debug, Default)]
struct Mapped {
    done: AtomicU8,
    failed: AtomicU8,
}

impl Reply {
    pub(super) fn answer(self, answer: Answer) {
        match self {
            Self::Chunk(errand) => errand.answer(answer),
            // Whoever measured gave up waiting.
            Self::Probe(sender) => drop(sender.send(answer)),
            Self::Measure(mut measure) => measure.end(Some(answer.busy)),
        }
    }
}

impl Slot {
    pub(super) fn new(machine: &Machine, bytes: usize) -> Result<Self, GpuError> {
        let device = &machine.opened.device;
        let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(ErrorFilter::Validation);
        let size = bytes as u64;
        let buffer = |size, usage, mapped_at_creation| {
            device.create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation })
        };
        let limit = machine.opened.limits.max_storage_buffer_binding_size.min(machine.opened.limits.max_buffer_size);
        if size + TIMES_BYTES > limit {
            let reason = format!("{size} bytes, and the device has buffers of at most {limit}");
            return Err(GpuError::Memory { reason });
        }
        let staging = buffer(size, BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC, true);
        let input = buffer(size, BufferUsages::STORAGE | BufferUsages::COPY_DST, false);
        let output = buffer(size, BufferUsages::STORAGE | BufferUsages::COPY_SRC, false);
        let readback = buffer(size + TIMES_BYTES, BufferUsages::MAP_READ | BufferUsages::COPY_DST, false);
        let bindings = machine.layouts.slot(device, &input, &output);
        let times = device.features().contains(Features::TIMESTAMP_QUERY).then(|| Times {
            queries: device.create_query_set(&QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count: 2 }),
            resolved: buffer(TIMES_BYTES, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC, false),
        });
        let errors = [block_on(validation.pop()), block_on(memory.pop())];
        match errors.into_iter().flatten().next() {
            Some(error) => Err(GpuError::Memory { reason: error.to_string() }),
            None => Ok(Self { staging, input, output, readback, bindings, times, bytes }),
        }
    }

    /// Whether a batch fits.
    fn admits(&self, batch: &Batch) -> bool {
        batch.input_bytes() <= self.bytes && batch.output.end * WORD <= self.bytes && !batch.output.is_empty()
    }

    /// Fills the slot and hands it to the device; gives the slot back when the batch cannot be run.
    pub(super) fn launch(self, machine: &Machine, batch: &Batch, reply: Reply) -> Result<Flight, Box<Self>> {
        let started = Instant::now();
        if !self.admits(batch) || batch.passes.iter().any(|pass| machine.pipeline(pass.kernel).is_none()) {
            return Err(Box::new(self));
        }
        let Ok(mut mapped) = self.staging.slice(..batch.input_bytes() as u64).get_mapped_range_mut() else {
            return Err(Box::new(self));
        };
        let mut start = 0;
        for piece in &batch.input {
            let end = start + piece.len();
            mapped.slice(start..end).copy_from_slice(piece);
            start = end;
        }
        drop(mapped);
        self.staging.unmap();
        let submission = machine.opened.queue.submit([self.encode(machine, batch)]);
        let mapped = Arc::new(Mapped::default());
        self.readback.map_async(MapMode::Read, .., Mapped::callback(&mapped));
        self.staging.map_async(MapMode::Write, .., Mapped::callback(&mapped));
        let answer = batch.output.len() * WORD;
        Ok(Flight { slot: self, reply: Some(reply), submission, started, answer, mapped })
    }

    fn encode(&self, machine: &Machine, batch: &Batch) -> wgpu::CommandBuffer {
        let device: &Device = &machine.opened.device;
        let mut encoder = device.create_command_encoder(&CommandEncoderDescriptor::default());
        let (input, answer) = (batch.input_bytes() as u64, (batch.output.len() * WORD) as u64);
        encoder.copy_buffer_to_buffer(&self.staging, 0, &self.input, 0, input);
        let timestamp_writes = self.times.as_ref().map(|times| ComputePassTimestampWrites {
            query_set: &times.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut compute = encoder.begin_compute_pass(&ComputePassDescriptor { label: None, timestamp_writes });
        for Pass { kernel, parameters } in &batch.passes {
            let Some(pipeline) = machine.pipeline(*kernel) else { continue };
            compute.set_pipeline(pipeline);
            compute.set_bind_group(0, &self.bindings, &[]);
            if let Some(suite) = batch.suite {
                compute.set_bind_group(1, &machine.tables[suite.index()].bindings, &[]);
            }
            compute.set_immediates(0, &parameters.to_bytes());
            compute.dispatch_workgroups(parameters.count.div_ceil(WORKGROUP), 1, 1);
        }
        drop(compute);
        encoder.copy_buffer_to_buffer(&self.output, (batch.output.start * WORD) as u64, &self.readback, 0, answer);
        if let Some(times) = &self.times {
            encoder.resolve_query_set(&times.queries, 0..2, &times.resolved, 0);
            encoder.copy_buffer_to_buffer(&times.resolved, 0, &self.readback, self.bytes as u64, TIMES_BYTES);
        }
        encoder.finish()
    }
}

impl Flight {
    /// Whether both mappings were made, or one failed.
    pub(super) fn has_landed(&self) -> bool {
        self.mapped.done.load(Ordering::Acquire) >= 2
    }

    /// The answer, and the slot for the next batch; `None` when the device failed.
    pub(super) fn land(mut self, machine: &Machine, before: Option<Instant>) -> Option<(Slot, Reply, Answer)> {
        if self.mapped.failed.load(Ordering::Acquire) > 0 {
            return None;
        }
        let reply = self.reply.take()?;
        let answer = self.read(machine, before)?;
        self.slot.readback.unmap();
        Some((self.slot, reply, answer))
    }

    fn read(&self, machine: &Machine, before: Option<Instant>) -> Option<Answer> {
        let view = self.slot.readback.slice(..).get_mapped_range().ok()?;
        let words = view.get(..self.answer)?.as_chunks::<WORD>().0;
        let words = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let times = view.get(self.slot.bytes..)?.as_chunks::<8>().0;
        let kernels = match times {
            [start, end] if self.slot.times.is_some() => {
                let ticks = u64::from_le_bytes(*end).saturating_sub(u64::from_le_bytes(*start));
                Some(ticks_to_duration(ticks, machine.opened.queue.get_timestamp_period()))
            }
            _ => None,
        };
        let alone = before.map_or(self.started, |before| before.max(self.started));
        Some(Answer { words, took: self.started.elapsed(), busy: alone.elapsed(), kernels })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration for figures")]
fn ticks_to_duration(ticks: u64, nanoseconds_each: f32) -> Duration {
    Duration::try_from_secs_f64(ticks as f64 * f64::from(nanoseconds_each) * 1e-9).unwrap_or_default()
}

impl Mapped {
    fn callback(mapped: &Arc<Self>) -> impl FnOnce(Result<(), wgpu::BufferAsyncError>) + Send + 'static {
        let mapped = Arc::clone(mapped);
        move |result| {
            if result.is_err() {
                mapped.failed.fetch_add(1, Ordering::Release);
            }
            mapped.done.fetch_add(1, Ordering::Release);
        }
    }
}
