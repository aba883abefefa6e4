//! What every device owes, whatever it is and however it is reached.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use stele_device::{
    Batch, BlockDevice, Buffer, BufferPool, Completed, Completion, DeviceError, Disk, Operation, Options, Request,
    read_each,
};

pub(crate) const BLOCK: usize = 4096;

/// What a device owes, and panics if it does not.
pub(crate) type Check = fn(&Place);

/// All checks, with their names.
#[allow(dead_code, reason = "files have a test for each")]
pub(crate) const EACH: [(&str, Check); 10] = [
    ("what_is_written_is_read_and_survives_opening_again", what_is_written_is_read_and_survives_opening_again),
    ("neighbours_written_together_are_read_apart", neighbours_written_together_are_read_apart),
    (
        "requests_outside_the_device_or_across_blocks_are_refused",
        requests_outside_the_device_or_across_blocks_are_refused,
    ),
    ("refused_requests_do_not_hold_up_those_behind", refused_requests_do_not_hold_up_those_behind),
    ("a_full_queue_takes_no_more_and_loses_nothing", a_full_queue_takes_no_more_and_loses_nothing),
    ("a_dropped_device_answers_everything_first", a_dropped_device_answers_everything_first),
    ("the_last_owner_may_be_a_completion", the_last_owner_may_be_a_completion),
    ("a_panic_in_a_completion_stops_the_device", a_panic_in_a_completion_stops_the_device),
    ("many_threads_share_a_device", many_threads_share_a_device),
    ("a_visitor_that_fails_ends_the_reading", a_visitor_that_fails_ends_the_reading),
];

/// Where a check has its device, and how it is to be reached.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    /// Whether the device is a file that the check makes. Otherwise it is a drive of some size, which others have used.
    pub(crate) is_new: bool,
}

impl Place {
    /// A device of `blocks` blocks, or more if it is a drive.
    fn device(&self, blocks: u64, options: &Options) -> Disk {
        if self.is_new {
            return Disk::create(&self.path, blocks, options).unwrap();
        }
        let disk = self.again(options);
        assert!(disk.geometry().blocks >= blocks, "a drive for tests has {blocks} blocks");
        disk
    }

    fn again(&self, options: &Options) -> Disk {
        Disk::open(&self.path, options).unwrap()
    }
}

/// Bytes that say where they were written, and when.
pub(crate) fn fill(buffer: &mut [u8], block: u64, version: u64) {
    for (part, bytes) in (0_u64..).zip(buffer.chunks_exact_mut(8)) {
        let mark = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32) ^ part;
        bytes.copy_from_slice(&mark.to_le_bytes());
    }
}

pub(crate) fn filled(pool: &BufferPool, block: u64, version: u64) -> Buffer {
    let mut buffer = pool.take();
    fill(&mut buffer, block, version);
    buffer
}

pub(crate) fn is_filled(buffer: &[u8], block: u64, version: u64) -> bool {
    let mut expected = vec![0; buffer.len()];
    fill(&mut expected, block, version);
    buffer == expected
}

/// One request, waited for.
pub(crate) fn one(device: &dyn BlockDevice, request: Request) -> Completed {
    let mut batch = Batch::new(device, 1);
    assert!(batch.push(request).is_none());
    batch.wait().expect("one answer for one request")
}

pub(crate) fn code(completed: Completed) -> &'static str {
    completed.result.expect_err("a refusal").code()
}

pub(crate) fn what_is_written_is_read_and_survives_opening_again(place: &Place) {
    let pool = BufferPool::new(4, BLOCK).unwrap();
    let disk = place.device(16, &place.options);
    assert_eq!(disk.geometry().block_bytes, 4096);
    assert_eq!(Some(disk.access().backend), place.options.backend);
    assert_eq!(disk.access().direct, place.options.direct, "{:?}", disk.access().fallbacks);
    if place.is_new {
        assert_eq!(disk.geometry().blocks, 16);
        let fresh = one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
        assert!(fresh.iter().all(|byte| *byte == 0), "a new block is zero");
    }
    for (block, request) in [(3, Request::write as fn(u64, Buffer) -> Request), (15, Request::write_durable)] {
        let done = one(&disk, request(block * BLOCK as u64, filled(&pool, block, 1)).tagged(block));
        assert_eq!((done.tag, done.offset), (block, block * BLOCK as u64));
        done.into_buffer().unwrap();
    }
    let flushed = one(&disk, Request::flush().tagged(9));
    assert_eq!((flushed.tag, flushed.operation), (9, Operation::Flush));
    flushed.result.unwrap();
    drop(disk);
    let disk = place.again(&place.options);
    for block in [3, 15] {
        let read = one(&disk, Request::read(block * BLOCK as u64, pool.take())).into_buffer().unwrap();
        assert!(is_filled(&read, block, 1), "block {block}");
    }
    assert_eq!(pool.try_take().map(|buffer| buffer.len()), Some(BLOCK), "every buffer came back");
}

pub(crate) fn neighbours_written_together_are_read_apart(place: &Place) {
    const BLOCKS: usize = 256;
    let (pages, run) = (BufferPool::new(32, BLOCK).unwrap(), BufferPool::new(1, BLOCKS * BLOCK).unwrap());
    let options = Options { pools: vec![pages.clone(), run.clone()], ..place.options.clone() };
    let disk = place.device(2 * BLOCKS as u64, &options);
    let mut buffer = run.take();
    for (block, bytes) in (100_u64..).zip(buffer.chunks_exact_mut(BLOCK)) {
        fill(bytes, block, 7);
    }
    one(&disk, Request::write(100 * BLOCK as u64, buffer)).into_buffer().unwrap();
    let mut offsets: Vec<u64> = (100..100 + BLOCKS as u64).map(|block| block * BLOCK as u64).collect();
    offsets.sort_by_key(|offset| offset.reverse_bits());
    let mut seen = vec![false; offsets.len()];
    read_each(&disk, &pages, 64, &offsets, |index, buffer| {
        assert!(is_filled(&buffer, offsets[index] / BLOCK as u64, 7));
        assert!(!std::mem::replace(&mut seen[index], true), "read {index} arrived twice");
        Ok::<(), DeviceError>(())
    })
    .unwrap();
    assert!(seen.iter().all(|seen| *seen));
}

pub(crate) fn requests_outside_the_device_or_across_blocks_are_refused(place: &Place) {
    let pool = BufferPool::new(2, 2 * BLOCK).unwrap();
    let disk = place.device(4, &place.options);
    let end = disk.geometry().bytes();
    for (offset, bytes, expected) in [
        (end, BLOCK, "device_out_of_range"),
        (end - BLOCK as u64, 2 * BLOCK, "device_out_of_range"),
        (u64::MAX - BLOCK as u64 + 1, BLOCK, "device_out_of_range"),
        (512, BLOCK, "device_misaligned"),
        (0, 100, "device_misaligned"),
        (0, 0, "device_misaligned"),
    ] {
        for request in [Request::read, Request::write, Request::write_durable] {
            let done = one(&disk, request(offset, pool.take().with_length(bytes)));
            assert_eq!(done.buffer.as_ref().map(|buffer| buffer.len()), Some(bytes), "the buffer comes back");
            assert_eq!(code(done), expected, "{bytes} bytes at {offset}");
        }
    }
    // A refused request is not a failed one: nothing was begun.
    one(&disk, Request::write_durable(0, pool.take())).into_buffer().unwrap();
}

/// A refused request leaves its place at once. The ring's thread once took as many as it had places for, refused them all,
/// and slept with the rest still waiting.
pub(crate) fn refused_requests_do_not_hold_up_those_behind(place: &Place) {
    let pool = BufferPool::new(9, BLOCK).unwrap();
    let disk = place.device(1, &Options { depth: 2, ..place.options.clone() });
    let mut batch = Batch::new(&disk, 32);
    for number in 0..9 {
        // The last one is fine.
        let offset = if number < 8 { 512 } else { 0 };
        assert!(batch.push(Request::read(offset, pool.take()).tagged(number)).is_none());
    }
    while let Some(completed) = batch.wait() {
        assert_eq!(completed.result.is_ok(), completed.tag == 8);
    }
}

/// Holds the device's threads in a completion until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    fn wait_for_visitor(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |(_, visitors)| *visitors == 0).unwrap());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(open, _)| !*open).unwrap());
    }
}

pub(crate) fn a_full_queue_takes_no_more_and_loses_nothing(place: &Place) {
    const WAITING: usize = 4;
    let options = Options { depth: 1, waiting_max: WAITING, ..place.options.clone() };
    let disk = place.device(1, &options);
    let (gate, answered) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let completion: Arc<dyn Completion> = Arc::new({
        let (gate, answered) = (Arc::clone(&gate), Arc::clone(&answered));
        move |completed: Completed| {
            completed.result.unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
            gate.pass();
        }
    });
    let flushes = |count: usize| (0..count).map(|_| Request::flush()).collect::<VecDeque<_>>();
    disk.submit(&mut flushes(1), &completion);
    gate.wait_for_visitor();
    let mut requests = flushes(WAITING + 3);
    disk.try_submit(&mut requests, &completion);
    assert_eq!(requests.len(), 3, "as many were taken as may wait");
    disk.try_submit(&mut requests, &completion);
    assert_eq!(requests.len(), 3, "and then none");
    std::thread::scope(|scope| {
        let submitter = scope.spawn(|| disk.submit(&mut requests, &completion));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!submitter.is_finished(), "there was no room");
        gate.open();
    });
    drop(disk);
    assert_eq!(answered.load(Ordering::SeqCst), 1 + WAITING + 3);
}

pub(crate) fn a_dropped_device_answers_everything_first(place: &Place) {
    const WRITES: usize = 500;
    let pool = BufferPool::new(WRITES, BLOCK).unwrap();
    let options = Options { depth: 8, ..place.options.clone() };
    let disk = place.device(WRITES as u64, &options);
    let answered = Arc::new(AtomicUsize::new(0));
    let completion: Arc<dyn Completion> = Arc::new({
        let answered = Arc::clone(&answered);
        move |completed: Completed| {
            completed.into_buffer().unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
        }
    });
    let writes = (0..WRITES as u64).map(|block| Request::write(block * BLOCK as u64, filled(&pool, block, 1)));
    disk.submit(&mut writes.collect(), &completion);
    drop(disk);
    assert_eq!(answered.load(Ordering::SeqCst), WRITES);
    let disk = place.again(&options);
    let offsets: Vec<u64> = (0..WRITES as u64).map(|block| block * BLOCK as u64).collect();
    read_each(&disk, &pool, 64, &offsets, |index, buffer| {
        assert!(is_filled(&buffer, index as u64, 1));
        Ok::<(), DeviceError>(())
    })
    .unwrap();
}

pub(crate) fn the_last_owner_may_be_a_completion(place: &Place) {
    let disk = Arc::new(place.device(1, &place.options));
    let (sender, receiver) = mpsc::channel();
    let held = Mutex::new(Some(Arc::clone(&disk)));
    let gate = Arc::new(Gate::default());
    let completion: Arc<dyn Completion> = Arc::new({
        let gate = Arc::clone(&gate);
        move |completed: Completed| {
            gate.pass();
            drop(held.lock().unwrap().take());
            sender.send(completed.result.is_ok()).unwrap();
        }
    });
    disk.submit(&mut VecDeque::from([Request::flush()]), &completion);
    gate.wait_for_visitor();
    drop(disk);
    gate.open();
    assert_eq!(receiver.recv(), Ok(true));
}

/// A completion that panics breaks its promise. Then everyone is told that the device has stopped, nobody waits for ever,
/// and what the kernel still writes to stays allocated.
pub(crate) fn a_panic_in_a_completion_stops_the_device(place: &Place) {
    const READS: usize = 64;
    let options = Options { depth: 16, ..place.options.clone() };
    let pool = BufferPool::new(READS, BLOCK).unwrap();
    let disk = place.device(READS as u64, &options);
    let (sender, receiver) = mpsc::channel();
    let completion: Arc<dyn Completion> = Arc::new(move |completed: Completed| {
        sender.send(completed.result).unwrap();
        assert_ne!(completed.tag, 1, "this panic is part of the test");
    });
    let reads = (0..READS as u64).map(|block| Request::read(block * BLOCK as u64, pool.take()).tagged(block));
    disk.submit(&mut reads.collect(), &completion);
    let answers: Vec<_> = receiver.iter().take(READS).collect();
    assert_eq!(answers.len(), READS, "each is answered");
    // One thread of several may be at work still; after it everything is refused.
    while one(&disk, Request::flush()).result.is_ok() {}
    assert_eq!(code(one(&disk, Request::flush())), "device_stopped");
    drop(disk);
    assert!(receiver.try_recv().is_err(), "and none twice");
}

pub(crate) fn many_threads_share_a_device(place: &Place) {
    const THREADS: u64 = 4;
    const BLOCKS: u64 = 64;
    let pool = BufferPool::new(48, BLOCK).unwrap();
    let options = Options { depth: 16, waiting_max: 4, pools: vec![pool.clone()], ..place.options.clone() };
    let disk = place.device(THREADS * BLOCKS, &options);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (disk, pool) = (&disk, &pool);
            scope.spawn(move || {
                let offsets: Vec<u64> = (0..BLOCKS).map(|block| (block * THREADS + thread) * BLOCK as u64).collect();
                for version in 1..4 {
                    let mut batch = Batch::new(disk, 8);
                    for offset in &offsets {
                        let buffer = filled(pool, offset / BLOCK as u64, version);
                        if let Some(done) = batch.push(Request::write(*offset, buffer)) {
                            done.into_buffer().unwrap();
                        }
                    }
                    batch.finish().unwrap();
                    one(disk, Request::flush()).result.unwrap();
                    read_each(disk, pool, 8, &offsets, |index, buffer| {
                        assert!(is_filled(&buffer, offsets[index] / BLOCK as u64, version));
                        Ok::<(), DeviceError>(())
                    })
                    .unwrap();
                }
            });
        }
    });
}

pub(crate) fn a_visitor_that_fails_ends_the_reading(place: &Place) {
    let pool = BufferPool::new(4, BLOCK).unwrap();
    let disk = place.device(64, &place.options);
    let offsets: Vec<u64> = (0..64).map(|block| block * BLOCK as u64).collect();
    let mut visited = 0;
    let result = read_each(&disk, &pool, 4, &offsets, |_, _| {
        visited += 1;
        if visited == 3 { Err(DeviceError::Stopped) } else { Ok(()) }
    });
    assert_eq!((result.unwrap_err().code(), visited), ("device_stopped", 3));
    // Reads under way return their buffers in time.
    drop((0..4).map(|_| pool.take()).collect::<Vec<_>>());
}
