//! What every backend owes, with and without direct I/O.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]
#![expect(clippy::print_stdout, reason = "shown when a test fails")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use stele_device::{
    Backend, Batch, BlockDevice, Buffer, BufferPool, Completed, Completion, DeviceError, Disk, Operation, Options,
    Request, read_each,
};

const BLOCK: usize = 4096;

/// Runs a test on every way to reach a disk.
fn each_access(test: impl Fn(&Path, &Options)) {
    for backend in [Backend::Uring, Backend::Threads] {
        for direct in [true, false] {
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let options = Options { backend: Some(backend), direct, ..Options::default() };
            println!("{backend:?}, direct: {direct}");
            test(&directory.path().join("disk"), &options);
        }
    }
}

/// Bytes that say where they were written, and when.
fn fill(buffer: &mut [u8], block: u64, version: u64) {
    for (part, bytes) in (0_u64..).zip(buffer.chunks_exact_mut(8)) {
        let mark = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32) ^ part;
        bytes.copy_from_slice(&mark.to_le_bytes());
    }
}

fn filled(pool: &BufferPool, block: u64, version: u64) -> Buffer {
    let mut buffer = pool.take();
    fill(&mut buffer, block, version);
    buffer
}

fn is_filled(buffer: &[u8], block: u64, version: u64) -> bool {
    let mut expected = vec![0; buffer.len()];
    fill(&mut expected, block, version);
    buffer == expected
}

/// One request, waited for.
fn one(device: &dyn BlockDevice, request: Request) -> Completed {
    let mut batch = Batch::new(device, 1);
    assert!(batch.push(request).is_none());
    batch.wait().expect("one answer for one request")
}

fn code(completed: Completed) -> &'static str {
    completed.result.expect_err("a refusal").code()
}

#[test]
fn what_is_written_is_read_and_survives_opening_again() {
    each_access(|path, options| {
        let pool = BufferPool::new(4, BLOCK).unwrap();
        let disk = Disk::create(path, 16, options).unwrap();
        assert_eq!((disk.geometry().block_bytes, disk.geometry().blocks), (4096, 16));
        assert_eq!(Some(disk.access().backend), options.backend);
        assert_eq!(disk.access().direct, options.direct, "{:?}", disk.access().fallbacks);
        let fresh = one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
        assert!(fresh.iter().all(|byte| *byte == 0), "a new block is zero");
        drop(fresh);
        for (block, request) in [(3, Request::write as fn(u64, Buffer) -> Request), (15, Request::write_durable)] {
            let done = one(&disk, request(block * BLOCK as u64, filled(&pool, block, 1)).tagged(block));
            assert_eq!((done.tag, done.offset), (block, block * BLOCK as u64));
            done.into_buffer().unwrap();
        }
        let flushed = one(&disk, Request::flush().tagged(9));
        assert_eq!((flushed.tag, flushed.operation), (9, Operation::Flush));
        flushed.result.unwrap();
        drop(disk);
        let disk = Disk::open(path, options).unwrap();
        for block in [3, 15] {
            let read = one(&disk, Request::read(block * BLOCK as u64, pool.take())).into_buffer().unwrap();
            assert!(is_filled(&read, block, 1), "block {block}");
        }
        assert_eq!(pool.try_take().map(|buffer| buffer.len()), Some(BLOCK), "every buffer came back");
    });
}

#[test]
fn neighbours_written_together_are_read_apart() {
    each_access(|path, options| {
        const BLOCKS: usize = 256;
        let (pages, run) = (BufferPool::new(32, BLOCK).unwrap(), BufferPool::new(1, BLOCKS * BLOCK).unwrap());
        let options = Options { pools: vec![pages.clone(), run.clone()], ..options.clone() };
        let disk = Disk::create(path, 2 * BLOCKS as u64, &options).unwrap();
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
    });
}

#[test]
fn requests_outside_the_device_or_across_blocks_are_refused() {
    each_access(|path, options| {
        let pool = BufferPool::new(2, 2 * BLOCK).unwrap();
        let disk = Disk::create(path, 4, options).unwrap();
        for (offset, bytes, expected) in [
            (4 * BLOCK as u64, BLOCK, "device_out_of_range"),
            (3 * BLOCK as u64, 2 * BLOCK, "device_out_of_range"),
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
    });
}

/// A refused request leaves its place at once. The ring's thread once took as many as it had places for, refused them all,
/// and slept with the rest still waiting.
#[test]
fn refused_requests_do_not_hold_up_those_behind() {
    each_access(|path, options| {
        let pool = BufferPool::new(9, BLOCK).unwrap();
        let disk = Disk::create(path, 1, &Options { depth: 2, ..options.clone() }).unwrap();
        let mut batch = Batch::new(&disk, 32);
        for number in 0..9 {
            // The last one is fine.
            let offset = if number < 8 { 512 } else { 0 };
            assert!(batch.push(Request::read(offset, pool.take()).tagged(number)).is_none());
        }
        while let Some(completed) = batch.wait() {
            assert_eq!(completed.result.is_ok(), completed.tag == 8);
        }
    });
}

#[test]
fn a_device_grows_and_keeps_what_it_has() {
    each_access(|path, options| {
        let pool = BufferPool::new(1, BLOCK).unwrap();
        let disk = Disk::create(path, 2, options).unwrap();
        one(&disk, Request::write_durable(BLOCK as u64, filled(&pool, 1, 1))).into_buffer().unwrap();
        disk.grow(10).unwrap();
        assert_eq!(disk.geometry().blocks, 10);
        disk.grow(5).unwrap();
        assert_eq!(disk.geometry().blocks, 10, "a device never shrinks");
        one(&disk, Request::write(9 * BLOCK as u64, filled(&pool, 9, 1))).into_buffer().unwrap();
        let error = disk.grow(u64::MAX).unwrap_err();
        assert!(matches!(error.code(), "device_full" | "device_io"), "{error:?}");
        assert_eq!(disk.geometry().blocks, 10);
        one(&disk, Request::flush()).result.unwrap();
        drop(disk);
        let disk = Disk::open(path, options).unwrap();
        assert_eq!(disk.geometry().blocks, 10);
        for block in [1, 9] {
            let read = one(&disk, Request::read(block * BLOCK as u64, pool.take())).into_buffer().unwrap();
            assert!(is_filled(&read, block, 1));
        }
    });
}

#[test]
fn create_leaves_alone_what_is_there() {
    each_access(|path, options| {
        std::fs::write(path, b"precious").unwrap();
        assert_eq!(Disk::create(path, 2, options).unwrap_err().code(), "device_open");
        assert_eq!(std::fs::read(path).unwrap(), b"precious");
        let directory = path.parent().unwrap();
        assert!(Disk::open(directory, options).is_err());
        assert_eq!(Disk::open(Path::new("/dev/null"), options).unwrap_err().code(), "device_unsuitable");
        assert_eq!(Disk::open(&directory.join("absent"), options).unwrap_err().code(), "device_open");
    });
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

#[test]
fn a_full_queue_takes_no_more_and_loses_nothing() {
    each_access(|path, options| {
        const WAITING: usize = 4;
        let options = Options { depth: 1, waiting_max: WAITING, ..options.clone() };
        let disk = Disk::create(path, 1, &options).unwrap();
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
    });
}

#[test]
fn a_dropped_device_answers_everything_first() {
    each_access(|path, options| {
        const WRITES: usize = 500;
        let pool = BufferPool::new(WRITES, BLOCK).unwrap();
        let options = Options { depth: 8, ..options.clone() };
        let disk = Disk::create(path, WRITES as u64, &options).unwrap();
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
        let disk = Disk::open(path, &options).unwrap();
        let offsets: Vec<u64> = (0..WRITES as u64).map(|block| block * BLOCK as u64).collect();
        read_each(&disk, &pool, 64, &offsets, |index, buffer| {
            assert!(is_filled(&buffer, index as u64, 1));
            Ok::<(), DeviceError>(())
        })
        .unwrap();
    });
}

#[test]
fn the_last_owner_may_be_a_completion() {
    each_access(|path, options| {
        let disk = Arc::new(Disk::create(path, 1, options).unwrap());
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
    });
}

/// A completion that panics breaks its promise. Then everyone is told that the device has stopped, nobody waits for ever,
/// and what the kernel still writes to stays allocated.
#[test]
fn a_panic_in_a_completion_stops_the_device() {
    each_access(|path, options| {
        const READS: usize = 64;
        let options = Options { depth: 16, ..options.clone() };
        let pool = BufferPool::new(READS, BLOCK).unwrap();
        let disk = Disk::create(path, READS as u64, &options).unwrap();
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
    });
}

#[test]
fn many_threads_share_a_device() {
    each_access(|path, options| {
        const THREADS: u64 = 4;
        const BLOCKS: u64 = 64;
        let pool = BufferPool::new(48, BLOCK).unwrap();
        let options = Options { depth: 16, waiting_max: 4, pools: vec![pool.clone()], ..options.clone() };
        let disk = Disk::create(path, THREADS * BLOCKS, &options).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (disk, pool) = (&disk, &pool);
                scope.spawn(move || {
                    let offsets: Vec<u64> =
                        (0..BLOCKS).map(|block| (block * THREADS + thread) * BLOCK as u64).collect();
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
    });
}

#[test]
fn a_visitor_that_fails_ends_the_reading() {
    each_access(|path, options| {
        let pool = BufferPool::new(4, BLOCK).unwrap();
        let disk = Disk::create(path, 64, options).unwrap();
        let offsets: Vec<u64> = (0..64).map(|block| block * BLOCK as u64).collect();
        let mut visited = 0;
        let result = read_each(&disk, &pool, 4, &offsets, |_, _| {
            visited += 1;
            if visited == 3 { Err(DeviceError::Stopped) } else { Ok(()) }
        });
        assert_eq!((result.unwrap_err().code(), visited), ("device_stopped", 3));
        // Reads under way return their buffers in time.
        drop((0..4).map(|_| pool.take()).collect::<Vec<_>>());
    });
}

#[test]
fn without_a_wish_io_uring_is_used_or_a_reason_is_given() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pool = BufferPool::new(8, BLOCK).unwrap();
    let options = Options { pools: vec![pool], ..Options::default() };
    let disk = Disk::create(&directory.path().join("disk"), 1, &options).unwrap();
    let access = disk.access();
    let as_asked = access.backend == Backend::Uring && access.direct && access.registered;
    assert_eq!(as_asked, access.fallbacks.is_empty(), "{access:?}");
}
