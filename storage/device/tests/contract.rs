//! What every backend owes, with and without direct I/O, on files. The same on drives is in `nvme.rs`.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]
#![expect(clippy::print_stdout, reason = "shown when a test fails")]

#[path = "contract/checks.rs"]
mod checks;

use std::path::Path;

use checks::{BLOCK, Place, filled, is_filled, one};
use stele_device::{Backend, BlockDevice, BufferPool, Disk, Options, Request};

/// Runs a check on every way to reach a file.
fn each_access(check: impl Fn(&Place)) {
    for backend in [Backend::Uring, Backend::Threads] {
        for direct in [true, false] {
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let options = Options { backend: Some(backend), direct, ..Options::default() };
            println!("{backend:?}, direct: {direct}");
            check(&Place { path: directory.path().join("disk"), options, is_new: true });
        }
    }
}

#[test]
fn what_is_written_is_read_and_survives_opening_again() {
    each_access(checks::what_is_written_is_read_and_survives_opening_again);
}

#[test]
fn neighbours_written_together_are_read_apart() {
    each_access(checks::neighbours_written_together_are_read_apart);
}

#[test]
fn requests_outside_the_device_or_across_blocks_are_refused() {
    each_access(checks::requests_outside_the_device_or_across_blocks_are_refused);
}

#[test]
fn refused_requests_do_not_hold_up_those_behind() {
    each_access(checks::refused_requests_do_not_hold_up_those_behind);
}

#[test]
fn a_full_queue_takes_no_more_and_loses_nothing() {
    each_access(checks::a_full_queue_takes_no_more_and_loses_nothing);
}

#[test]
fn a_dropped_device_answers_everything_first() {
    each_access(checks::a_dropped_device_answers_everything_first);
}

#[test]
fn the_last_owner_may_be_a_completion() {
    each_access(checks::the_last_owner_may_be_a_completion);
}

#[test]
fn a_panic_in_a_completion_stops_the_device() {
    each_access(checks::a_panic_in_a_completion_stops_the_device);
}

#[test]
fn many_threads_share_a_device() {
    each_access(checks::many_threads_share_a_device);
}

#[test]
fn a_visitor_that_fails_ends_the_reading() {
    each_access(checks::a_visitor_that_fails_ends_the_reading);
}

#[test]
fn a_device_grows_and_keeps_what_it_has() {
    each_access(|Place { path, options, .. }| {
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
fn what_was_asked_is_counted_with_the_time_that_it_took() {
    each_access(|Place { path, options, .. }| {
        let pool = BufferPool::new(1, BLOCK).unwrap();
        let disk = Disk::create(path, 2, options).unwrap();
        let before = std::time::Instant::now();
        for _ in 0..3 {
            one(&disk, Request::write_durable(0, pool.take())).into_buffer().unwrap();
        }
        one(&disk, Request::write(0, pool.take())).into_buffer().unwrap();
        one(&disk, Request::read(BLOCK as u64, pool.take())).into_buffer().unwrap();
        one(&disk, Request::flush()).result.unwrap();
        assert!(one(&disk, Request::read(1, pool.take())).result.is_err(), "which says nothing about the disk");
        let (traffic, passed) = (disk.traffic(), before.elapsed().as_nanos());
        let block = BLOCK as u64;
        for (tally, operations, bytes) in
            [(traffic.reads, 1, block), (traffic.writes, 4, 4 * block), (traffic.flushes, 1, 0)]
        {
            assert_eq!((tally.operations(), tally.bytes, tally.errors), (operations, bytes, 0));
            assert!(tally.latency_ns > 0 && u128::from(tally.latency_ns) < passed);
        }
        assert_eq!(traffic.in_flight, 0);
    });
}

#[test]
fn a_file_has_no_zones() {
    each_access(|Place { path, options, .. }| {
        let pool = BufferPool::new(1, BLOCK).unwrap();
        let disk = Disk::create(path, 2, &Options { zoned: true, ..options.clone() }).unwrap();
        assert_eq!((disk.append_bytes_max(), disk.zones().unwrap_err().code()), (None, "device_unsuitable"));
        for request in [Request::append(0, pool.take()), Request::reset_zone(0)] {
            assert_eq!(one(&disk, request).result.unwrap_err().code(), "device_zone");
        }
        one(&disk, Request::write_durable(0, pool.take())).into_buffer().unwrap();
    });
}

#[test]
fn create_leaves_alone_what_is_there() {
    each_access(|Place { path, options, .. }| {
        std::fs::write(path, b"precious").unwrap();
        assert_eq!(Disk::create(path, 2, options).unwrap_err().code(), "device_open");
        assert_eq!(std::fs::read(path).unwrap(), b"precious");
        let directory = path.parent().unwrap();
        assert!(Disk::open(directory, options).is_err());
        assert_eq!(Disk::open(Path::new("/dev/null"), options).unwrap_err().code(), "device_unsuitable");
        assert_eq!(Disk::open(&directory.join("absent"), options).unwrap_err().code(), "device_open");
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
