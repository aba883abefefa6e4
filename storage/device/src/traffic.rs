//! What a device was asked for, and how long its answers took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::DeviceError;
use crate::request::Operation;

/// Upper bounds of the classes that latencies are counted in, in nanoseconds: what a sound drive takes, what shows one that
/// struggles, and what makes its users wait. A last class counts what is above all of them.
pub const LATENCY_BOUNDS_NS: [u64; 8] =
    [100_000, 500_000, 1_000_000, 5_000_000, 10_000_000, 50_000_000, 100_000_000, 1_000_000_000];

/// Classes of latencies.
const CLASSES: usize = LATENCY_BOUNDS_NS.len() + 1;

/// What a device was asked for since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Reads.
    pub reads: Tally,
    /// Writes, durable or not, and appends.
    pub writes: Tally,
    /// Flushes and resets of zones.
    pub flushes: Tally,
    /// Requests that were submitted and are not answered yet.
    pub in_flight: u64,
}

/// What became of the requests of one kind. Those that the device refused without trying are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of those that were done.
    pub bytes: u64,
    /// How many failed.
    pub errors: u64,
    /// Time from their submission to their answer, together.
    pub latency_ns: u64,
    /// How many, by that time: class `n` ends at [`LATENCY_BOUNDS_NS`]`[n]`.
    pub latencies: [u64; CLASSES],
}

impl Traffic {
    /// Adds what another device was asked for.
    pub fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.flushes.add(&other.flushes);
        self.in_flight += other.in_flight;
    }
}

impl Tally {
    /// How many requests.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.latencies.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.latency_ns += other.latency_ns;
        self.latencies.iter_mut().zip(other.latencies).for_each(|(own, other)| *own += other);
    }
}

/// Counts the requests of a device. Each is counted where it is answered, without a lock.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    reads: Counts,
    writes: Counts,
    flushes: Counts,
    in_flight: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    errors: AtomicU64,
    latency_ns: AtomicU64,
    latencies: [AtomicU64; CLASSES],
}

impl Meter {
    /// A request is submitted.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that was submitted at `begun` is answered.
    pub(crate) fn end(&self, operation: Operation, bytes: usize, begun: Instant, result: &Result<(), DeviceError>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let failed = match result {
            Ok(()) => false,
            Err(DeviceError::Io { .. } | DeviceError::Full { .. }) => true,
            Err(_) => return,
        };
        let counts = match operation {
            Operation::Read => &self.reads,
            Operation::Write | Operation::WriteDurable | Operation::Append => &self.writes,
            Operation::Flush | Operation::ResetZone => &self.flushes,
        };
        let latency = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let class = LATENCY_BOUNDS_NS.partition_point(|bound| *bound < latency);
        counts.latencies[class].fetch_add(1, Ordering::Relaxed);
        counts.latency_ns.fetch_add(latency, Ordering::Relaxed);
        if failed {
            counts.errors.fetch_add(1, Ordering::Relaxed);
        } else {
            counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// What was counted so far. Requests that are answered meanwhile may be in some of the figures.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            reads: self.reads.tally(),
            writes: self.writes.tally(),
            flushes: self.flushes.tally(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

impl Counts {
    fn tally(&self) -> Tally {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            bytes: load(&self.bytes),
            errors: load(&self.errors),
            latency_ns: load(&self.latency_ns),
            latencies: std::array::from_fn(|class| load(&self.latencies[class])),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_did_and_how_long_they_took() {
        let meter = Meter::default();
        let ago = |time| Instant::now().checked_sub(time).unwrap();
        (0..4).for_each(|_| meter.begin());
        meter.end(Operation::Read, 4096, ago(Duration::from_micros(200)), &Ok(()));
        meter.end(Operation::WriteDurable, 8192, ago(Duration::from_secs(3)), &Ok(()));
        // However long that takes on a busy machine.
        let failed = DeviceError::refused("read", 0, io::Error::other("no"));
        meter.end(Operation::Read, 4096, Instant::now(), &Err(failed));
        assert_eq!(meter.traffic().in_flight, 1);
        // What was never tried says nothing about the device.
        meter.end(Operation::Flush, 0, Instant::now(), &Err(DeviceError::Poisoned));
        let mut traffic = meter.traffic();
        assert_eq!((traffic.in_flight, traffic.flushes), (0, Tally::default()));
        let Tally { bytes, errors, latencies, .. } = traffic.reads;
        assert_eq!((bytes, errors, latencies.iter().sum::<u64>()), (4096, 1, 2));
        assert!(latencies[1..].iter().any(|count| *count > 0), "200 us are in no class below 500: {latencies:?}");
        assert_eq!((traffic.writes.bytes, traffic.writes.latencies[CLASSES - 1]), (8192, 1));
        assert!(traffic.writes.latency_ns >= 3_000_000_000);
        traffic.add(&meter.traffic());
        assert_eq!((traffic.reads.operations(), traffic.writes.operations()), (4, 2));
    }
}
