//! The portable backend: a few threads, each with one system call at a time.

use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustix::io::ReadWriteFlags;

use crate::DeviceError;
use crate::device::Backend;
use crate::disk::{Options, Running};
use crate::medium::Medium;
use crate::queue::{Bell, Queue, StopOnDrop};
use crate::request::{Operation, Request};

/// Threads of a device at most. Each costs a stack; who needs more requests in flight needs io_uring.
const THREADS_MAX: u32 = 8;

pub(crate) fn start(medium: &Arc<Medium>, options: &Options) -> io::Result<Running> {
    let queue = Arc::new(Queue::new(options.waiting_max, Bell::Condition(Condvar::new())));
    let lane = Arc::new(Mutex::new(()));
    let mut running = Running { queue, threads: Vec::new(), backend: Backend::Threads, registered: false };
    for number in 0..options.depth.min(THREADS_MAX) {
        let (medium, queue, lane) = (Arc::clone(medium), Arc::clone(&running.queue), Arc::clone(&lane));
        let work = move || {
            let _stop = StopOnDrop(Arc::clone(&queue));
            while let Some(mut job) = queue.next() {
                let result = medium.check(&job.request).and_then(|()| serve(&medium, &lane, &mut job.request));
                job.finish(result);
            }
        };
        match thread::Builder::new().name(format!("device-{number}")).spawn(work) {
            Ok(thread) => running.threads.push(thread),
            Err(error) if running.threads.is_empty() => return Err(error),
            // Fewer do as well.
            Err(_) => break,
        }
    }
    Ok(running)
}

fn serve(medium: &Medium, lane: &Mutex<()>, request: &mut Request) -> Result<(), DeviceError> {
    // The page cache tells of a failed writeback once per open file: two at a time, and one would answer for both.
    let _alone = (request.operation.is_durable() && !medium.is_direct())
        .then(|| lane.lock().unwrap_or_else(PoisonError::into_inner));
    let outcome = carry_out(medium, request);
    medium.verdict(request, outcome)
}

fn carry_out(medium: &Medium, request: &mut Request) -> io::Result<()> {
    let (file, offset) = (medium.file(), request.offset);
    match (request.operation, request.buffer.as_deref_mut()) {
        (Operation::Read, Some(buffer)) => file.read_exact_at(buffer, offset),
        (Operation::Write, Some(buffer)) => file.write_all_at(buffer, offset),
        (Operation::WriteDurable, Some(buffer)) => write_durably(medium, buffer, offset),
        (Operation::Append | Operation::ResetZone, _) => unreachable!("files have no zones"),
        (_, None) | (Operation::Flush, _) => file.sync_data(),
    }
}

fn write_durably(medium: &Medium, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwritev2(medium.file(), &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
