//! Any sequence of requests leaves a device as it leaves an array of blocks.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use stele_device::{Backend, Batch, BlockDevice, BufferPool, Completed, Disk, Options, Request};

const BLOCK: usize = 4096;
const BLOCKS: usize = 24;

#[derive(Clone, Debug)]
enum Step {
    Read { block: u64, blocks: u64 },
    Write { block: u64, blocks: u64, mark: u8, durable: bool },
    Flush,
    Grow { blocks: u64 },
    Open,
}

fn step() -> impl Strategy<Value = Step> {
    // Past the end now and then.
    let place = || (0..BLOCKS as u64 + 2, 1..5_u64);
    prop_oneof![
        4 => place().prop_map(|(block, blocks)| Step::Read { block, blocks }),
        6 => (place(), any::<u8>(), any::<bool>())
            .prop_map(|((block, blocks), mark, durable)| Step::Write { block, blocks, mark, durable }),
        1 => Just(Step::Flush),
        1 => (0..BLOCKS as u64).prop_map(|blocks| Step::Grow { blocks }),
        1 => Just(Step::Open),
    ]
}

/// What a request in flight must bring: for a read the marks of its blocks, and whether it is within the device.
struct Expected {
    marks: Option<Vec<u8>>,
    fits: bool,
}

fn compare(completed: Completed, expected: &mut BTreeMap<u64, Expected>) {
    let Expected { marks, fits } = expected.remove(&completed.tag).expect("each request is answered once");
    if !fits {
        assert_eq!(completed.result.unwrap_err().code(), "device_out_of_range");
        return;
    }
    completed.result.expect("a sound disk");
    if let Some(marks) = marks {
        let buffer = completed.buffer.expect("a read has a buffer");
        for (block, mark) in buffer.chunks_exact(BLOCK).zip(marks) {
            assert!(block.iter().all(|byte| *byte == mark), "expected {mark} at {}", completed.offset);
        }
    }
}

fn run(steps: &[Step], options: &Options, depth: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().join("disk");
    let pool = &options.pools[0];
    let mut model = vec![0_u8; BLOCKS / 2];
    let mut disk = Disk::create(&path, model.len() as u64, options).expect("a new disk");
    let mut steps = (0_u64..).zip(steps).peekable();
    while steps.peek().is_some() {
        let mut batch = Batch::new(&disk, depth);
        let mut expected = BTreeMap::new();
        let mut touched = [false; 2 * BLOCKS];
        let mut reopen = false;
        for (tag, step) in steps.by_ref() {
            let request = match *step {
                Step::Read { block, blocks } | Step::Write { block, blocks, .. } => {
                    let range = usize::try_from(block).unwrap()..usize::try_from(block + blocks).unwrap();
                    // Requests for the same blocks have no order; so the one before is waited for.
                    if touched[range.clone()].iter().any(|touched| *touched) {
                        while let Some(completed) = batch.wait() {
                            compare(completed, &mut expected);
                        }
                        touched.fill(false);
                    }
                    touched[range.clone()].fill(true);
                    let fits = range.end <= model.len();
                    let buffer = pool.take().with_length(range.len() * BLOCK);
                    let (offset, mut marks) = (block * BLOCK as u64, None);
                    let request = if let Step::Write { mark, durable, .. } = *step {
                        let mut buffer = buffer;
                        buffer.fill(mark);
                        if fits {
                            model[range].fill(mark);
                        }
                        if durable { Request::write_durable(offset, buffer) } else { Request::write(offset, buffer) }
                    } else {
                        marks = fits.then(|| model[range].to_vec());
                        Request::read(offset, buffer)
                    };
                    expected.insert(tag, Expected { marks, fits });
                    request
                }
                Step::Flush => {
                    expected.insert(tag, Expected { marks: None, fits: true });
                    Request::flush()
                }
                Step::Grow { blocks } => {
                    // What is in flight was promised by the size before.
                    while let Some(completed) = batch.wait() {
                        compare(completed, &mut expected);
                    }
                    disk.grow(blocks).expect("room");
                    model.resize(model.len().max(usize::try_from(blocks).unwrap()), 0);
                    continue;
                }
                Step::Open => {
                    reopen = true;
                    break;
                }
            };
            if let Some(completed) = batch.push(request.tagged(tag)) {
                compare(completed, &mut expected);
            }
        }
        while let Some(completed) = batch.wait() {
            compare(completed, &mut expected);
        }
        assert!(expected.is_empty(), "{} requests were not answered", expected.len());
        drop(batch);
        if reopen {
            drop(disk);
            disk = Disk::open(&path, options).expect("the same disk");
        }
    }
    assert_eq!(disk.geometry().blocks, model.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_device_is_an_array_of_blocks(
        steps in prop::collection::vec(step(), 1..80),
        uring in any::<bool>(),
        direct in any::<bool>(),
        registered in any::<bool>(),
        depth in 1..12_usize,
    ) {
        let pool = BufferPool::new(16, 4 * BLOCK).expect("memory");
        let backend = if uring { Backend::Uring } else { Backend::Threads };
        // Pools are registered in order; the second is there to be told apart.
        let other = BufferPool::new(1, BLOCK).expect("memory");
        let pools = if registered { vec![pool, other] } else { vec![pool] };
        let options = Options { backend: Some(backend), direct, pools, depth: 4, waiting_max: 3, zoned: false };
        run(&steps, &options, depth);
    }
}
