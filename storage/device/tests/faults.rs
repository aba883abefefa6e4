//! A disk that fails: what is poisoned by it, and what goes on.
//!
//! Failures are the kernel's own: a memory file that is sealed against writing, and a limit on the size of files.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags};
use stele_device::{Backend, Batch, BlockDevice, BufferPool, Completed, Disk, Options, Request};

const BLOCK: usize = 4096;
const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Threads];

fn one(device: &dyn BlockDevice, request: Request) -> Completed {
    let mut batch = Batch::new(device, 1);
    assert!(batch.push(request).is_none());
    batch.wait().expect("one answer for one request")
}

fn code(completed: &Completed) -> &'static str {
    completed.result.as_ref().expect_err("a failure").code()
}

#[test]
fn a_failed_durable_write_poisons_writes_and_leaves_reads() {
    for backend in BACKENDS {
        for direct in [true, false] {
            let memory = rustix::fs::memfd_create("disk", MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::fs::ftruncate(&memory, 8 * BLOCK as u64).unwrap();
            let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
            let pool = BufferPool::new(2, BLOCK).unwrap();
            let disk = Disk::open(&path, &Options { backend: Some(backend), direct, ..Options::default() }).unwrap();
            let mut buffer = pool.take();
            buffer.fill(1);
            one(&disk, Request::write_durable(0, buffer)).into_buffer().unwrap();
            rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE).unwrap();

            // A plain write that fails is its owner's to handle.
            let failed = one(&disk, Request::write(BLOCK as u64, pool.take()));
            assert_eq!((code(&failed), failed.offset), ("device_io", BLOCK as u64));
            drop(failed);
            one(&disk, Request::flush()).result.unwrap();

            let failed = one(&disk, Request::write_durable(2 * BLOCK as u64, pool.take()));
            assert_eq!((code(&failed), failed.offset), ("device_io", 2 * BLOCK as u64));
            drop(failed);
            for request in [Request::write(0, pool.take()), Request::write_durable(0, pool.take()), Request::flush()] {
                assert_eq!(code(&one(&disk, request)), "device_poisoned");
            }
            assert_eq!(disk.grow(16).unwrap_err().code(), "device_poisoned");
            let read = one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
            assert!(read.iter().all(|byte| *byte == 1));
        }
    }
}

/// Whatever is in flight beside the failure, no write that begins after it was told of succeeds.
#[test]
fn a_poisoned_device_stays_so_under_load() {
    for backend in BACKENDS {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("disk");
        let pool = BufferPool::new(32, BLOCK).unwrap();
        let options = Options { backend: Some(backend), depth: 16, direct: false, ..Options::default() };
        let disk = Disk::create(&path, 64, &options).unwrap();
        // The file shrinks behind the device's back: reads of what is gone end early, which is an error, not zeros.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(32 * BLOCK as u64).unwrap();
        let mut batch = Batch::new(&disk, 16);
        let mut failed = 0;
        for block in 0..64_u64 {
            let request = Request::read(block * BLOCK as u64, pool.take()).tagged(block);
            for completed in batch.push(request) {
                assert_eq!(completed.result.is_err(), completed.tag >= 32);
                failed += usize::from(completed.result.is_err());
            }
        }
        while let Some(completed) = batch.wait() {
            assert_eq!(completed.result.is_err(), completed.tag >= 32);
            failed += usize::from(completed.result.is_err());
        }
        assert_eq!(failed, 32);
    }
}
