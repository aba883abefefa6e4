//! A disk that fails: what is refused, what is poisoned, and what goes on.
//!
//! Failures are the kernel's own: memory files sealed against writing, small file systems, limits of a process. Tests that
//! need a process of their own run this program again, under a shell that sets the stage.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]
#![expect(clippy::print_stdout, reason = "shown when a test fails")]

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags};
use stele_device::{Backend, Batch, BlockDevice, BufferPool, Completed, DeviceError, Disk, Options, Request};

const BLOCK: usize = 4096;
const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Threads];

/// Where a test that was started by another finds its directory.
const STAGE: &str = "STELE_DEVICE_TEST_STAGE";

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn on(backend: Backend) -> Options {
    Options { backend: Some(backend), ..Options::default() }
}

fn one(device: &dyn BlockDevice, request: Request) -> Completed {
    let mut batch = Batch::new(device, 1);
    assert!(batch.push(request).is_none());
    batch.wait().expect("one answer for one request")
}

fn code(completed: &Completed) -> &'static str {
    completed.result.as_ref().expect_err("a failure").code()
}

/// Runs a test in a process of its own, whose shell sets the stage first and is itself run by `launcher`; `$0` there is a
/// directory.
fn on_stage(test: &str, launcher: &[&str], stage: &str, body: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(STAGE) {
        return body(Path::new(&directory));
    }
    let directory = directory();
    let script = format!("{stage} && exec \"$@\"");
    let words = launcher.iter().copied().chain(["sh", "-c", &script]).map(OsString::from);
    let program = std::env::current_exe().unwrap();
    let arguments = [directory.path().into(), program.into(), "--exact".into(), test.into(), "--nocapture".into()];
    let words: Vec<OsString> = words.chain(arguments).collect();
    let output = Command::new(&words[0]).args(&words[1..]).env(STAGE, directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Whether this user may make the namespaces of a launcher.
fn can_launch(launcher: &[&str]) -> bool {
    let launched = Command::new(launcher[0]).args(&launcher[1..]).arg("true").output();
    let can = launched.is_ok_and(|output| output.status.success());
    if !can {
        println!("not run: {} is not allowed here", launcher.join(" "));
    }
    can
}

/// A file in memory, which is sealed and limited as no file on a disk is.
fn memory_file(blocks: u64) -> (OwnedFd, PathBuf) {
    let memory = rustix::fs::memfd_create("disk", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memory, blocks * BLOCK as u64).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    (memory, path)
}

#[test]
fn a_failed_durable_write_poisons_writes_and_leaves_reads() {
    for backend in BACKENDS {
        for direct in [true, false] {
            let (memory, path) = memory_file(8);
            let pool = BufferPool::new(2, BLOCK).unwrap();
            let disk = Disk::open(&path, &Options { direct, ..on(backend) }).unwrap();
            let mut buffer = pool.take();
            buffer.fill(1);
            one(&disk, Request::write_durable(0, buffer)).into_buffer().unwrap();
            rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE).unwrap();

            // A plain write that fails is for its owner to handle.
            let failed = one(&disk, Request::write(BLOCK as u64, pool.take()));
            assert_eq!((code(&failed), failed.offset), ("device_io", BLOCK as u64));
            drop(failed);
            one(&disk, Request::flush()).result.unwrap();

            let failed = one(&disk, Request::write_durable(2 * BLOCK as u64, pool.take()));
            assert_eq!((code(&failed), failed.offset), ("device_io", 2 * BLOCK as u64));
            drop(failed);
            for request in [Request::write, Request::write_durable] {
                assert_eq!(code(&one(&disk, request(0, pool.take()))), "device_poisoned");
            }
            assert_eq!(code(&one(&disk, Request::flush())), "device_poisoned");
            assert_eq!(disk.grow(16).unwrap_err().code(), "device_poisoned");
            let read = one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
            assert!(read.iter().all(|byte| *byte == 1));
        }
    }
}

/// The writes of a batch stand behind a durable one that fails. Some begin before it, some after; none may say that it
/// succeeded once the failure is known.
#[test]
fn nothing_succeeds_after_the_failure_that_poisons() {
    for backend in BACKENDS {
        for direct in [true, false] {
            let (memory, path) = memory_file(8);
            let pool = BufferPool::new(64, BLOCK).unwrap();
            // One thread answers in order, and so does a ring.
            let depth = if backend == Backend::Uring { 4 } else { 1 };
            let disk = Disk::open(&path, &Options { direct, depth, ..on(backend) }).unwrap();
            rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE).unwrap();
            let mut batch = Batch::new(&disk, 128);
            for _ in 0..32 {
                assert!(batch.push(Request::write_durable(0, pool.take())).is_none());
                // A flush of memory always succeeds by itself.
                assert!(batch.push(Request::flush()).is_none());
            }
            let mut poisoned = 0;
            while let Some(completed) = batch.wait() {
                match completed.result {
                    Ok(()) => assert_eq!(poisoned, 0, "a flush succeeded after the device was known to be poisoned"),
                    Err(DeviceError::Poisoned) => poisoned += 1,
                    Err(error) => assert_eq!(error.code(), "device_io"),
                }
            }
            assert!(poisoned > 0);
        }
    }
}

#[test]
fn a_file_that_was_cut_short_is_an_error_and_not_zeros() {
    for backend in BACKENDS {
        let directory = directory();
        let path = directory.path().join("disk");
        let pool = BufferPool::new(1, 4 * BLOCK).unwrap();
        let disk = Disk::create(&path, 8, &on(backend)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(2 * BLOCK as u64).unwrap();
        for offset in [0, 4 * BLOCK as u64] {
            let failed = one(&disk, Request::read(offset, pool.take()));
            assert_eq!((code(&failed), failed.offset), ("device_io", offset));
        }
        one(&disk, Request::read(0, pool.take().with_length(2 * BLOCK))).into_buffer().unwrap();
    }
}

#[test]
fn a_full_file_system_is_refused_before_harm() {
    let launcher = ["unshare", "--map-root-user", "--mount"];
    if !can_launch(&launcher) {
        return;
    }
    let stage = "mount -t tmpfs -o size=256k stele-test \"$0\"";
    on_stage("a_full_file_system_is_refused_before_harm", &launcher, stage, |directory| {
        for backend in BACKENDS {
            let path = directory.join("disk");
            assert_eq!(Disk::create(&path, 1000, &on(backend)).unwrap_err().code(), "device_full");
            assert!(!path.exists(), "what could not be made is not there");
            let disk = Disk::create(&path, 8, &on(backend)).unwrap();
            assert_eq!(disk.grow(1000).unwrap_err().code(), "device_full");
            assert_eq!(disk.geometry().blocks, 8);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 8 * BLOCK as u64, "the file is as it was");
            let pool = BufferPool::new(1, BLOCK).unwrap();
            one(&disk, Request::write_durable(7 * BLOCK as u64, pool.take())).into_buffer().unwrap();
            disk.grow(9).unwrap();
            drop(disk);
            std::fs::remove_file(&path).unwrap();
        }
    });
}

/// Whoever made the file did not allocate it, so only the write finds that there is no room.
#[test]
fn a_write_without_room_says_so() {
    // In units of 512 bytes: two blocks. The signal would end the process.
    let stage = "trap '' XFSZ && ulimit -S -f 16";
    on_stage("a_write_without_room_says_so", &[], stage, |directory| {
        for backend in BACKENDS {
            let path = directory.join(format!("{backend:?}"));
            assert_eq!(Disk::create(&path, 3, &on(backend)).unwrap_err().code(), "device_full");
            let disk = Disk::create(&path, 2, &on(backend)).unwrap();
            assert_eq!(disk.grow(3).unwrap_err().code(), "device_full");
            drop(disk);
            // Made by a process without the limit.
            let script = "ulimit -f unlimited && truncate -s 12288 \"$0\"";
            assert!(Command::new("sh").args(["-c", script]).arg(&path).status().unwrap().success());
            let (disk, pool) = (Disk::open(&path, &on(backend)).unwrap(), BufferPool::new(1, BLOCK).unwrap());
            one(&disk, Request::write_durable(BLOCK as u64, pool.take())).into_buffer().unwrap();
            let failed = one(&disk, Request::write_durable(2 * BLOCK as u64, pool.take()));
            assert_eq!((code(&failed), failed.offset), ("device_full", 2 * BLOCK as u64));
            drop(failed);
            assert_eq!(code(&one(&disk, Request::flush())), "device_poisoned");
        }
    });
}

#[test]
fn without_locked_memory_buffers_are_not_registered() {
    // A user of another namespace has no privilege that lifts the limit.
    let launcher = ["unshare", "--map-root-user"];
    if !can_launch(&launcher) {
        return;
    }
    on_stage("without_locked_memory_buffers_are_not_registered", &launcher, "ulimit -l 1024", |directory| {
        let pool = BufferPool::new(1024, BLOCK).unwrap();
        let options = Options { pools: vec![pool.clone()], ..on(Backend::Uring) };
        let disk = Disk::create(&directory.join("disk"), 1, &options).unwrap();
        let access = disk.access();
        assert!(!access.registered && access.backend == Backend::Uring, "{access:?}");
        assert!(access.fallbacks.iter().any(|reason| reason.contains("not registered")), "{access:?}");
        one(&disk, Request::write_durable(0, pool.take())).into_buffer().unwrap();
        one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
    });
}

/// No test can forbid io_uring to itself alone; but a ring needs one more open file than threads do.
#[test]
fn where_there_is_no_ring_threads_serve() {
    on_stage("where_there_is_no_ring_threads_serve", &[], "ulimit -n 64", |directory| {
        Disk::create(&directory.join("disk"), 2, &Options::default()).unwrap();
        let mut held = Vec::from_iter(std::iter::from_fn(|| File::open("/dev/null").ok()));
        // For the file and the eventfd.
        held.truncate(held.len() - 2);
        let disk = Disk::open(&directory.join("disk"), &Options::default()).unwrap();
        let access = disk.access();
        assert_eq!(access.backend, Backend::Threads);
        assert!(matches!(access.fallbacks.as_slice(), [reason] if reason.contains("io_uring")), "{access:?}");
        let pool = BufferPool::new(1, BLOCK).unwrap();
        one(&disk, Request::write_durable(BLOCK as u64, pool.take())).into_buffer().unwrap();
        let error = Disk::open(&directory.join("disk"), &on(Backend::Uring)).unwrap_err();
        assert_eq!(error.code(), "device_open", "what was asked for by name is not replaced");
    });
}
