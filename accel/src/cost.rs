//! What work costs on each backend, measured, and who gets how much of a batch.
//!
//! The time of a batch of `n` units on a backend is taken as `a + b·n`. Both are fitted by least squares over what was
//! observed, where old observations fade; the fit begins with three sizes at start. A device that is predicted to gain
//! nothing is asked now and then all the same: otherwise one slow answer, once, would be the last that is known of it.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use stele_accel_hash::HashAlgorithm;

use crate::suite::Suite;

/// What an older observation keeps of its weight with each newer one.
const FADE: f64 = 0.95;

/// Jobs of a kind that go past an idle device before one of them asks it again.
const PASSED_MAX: u32 = 32;

/// What such a job gives it.
const PROBE_SHARE: usize = 8;

/// Where work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Cpu,
    Gpu,
}

/// Work of which all units cost about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A unit is a block.
    Digest(HashAlgorithm),
    /// A unit is a leaf.
    Merkle(HashAlgorithm),
    /// A unit is a signature.
    Verify(Suite),
}

/// The costs of all kinds on both backends, and how much is under way.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    lines: [[Mutex<Line>; Kind::COUNT]; 2],
    /// Predicted nanoseconds of work that is planned and not done, of one core or of the device.
    backlog: [AtomicU64; 2],
    /// Jobs that went past the device since it last had one of their kind.
    passed: [AtomicU32; Kind::COUNT],
}

/// Weighted sums of a straight line's fit.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Kind {
    const COUNT: usize = 4 + Suite::COUNT;

    const fn index(self) -> usize {
        match self {
            Self::Digest(HashAlgorithm::Sha256) => 0,
            Self::Digest(HashAlgorithm::Sm3) => 1,
            Self::Merkle(HashAlgorithm::Sha256) => 2,
            Self::Merkle(HashAlgorithm::Sm3) => 3,
            Self::Verify(suite) => 4 + suite.index(),
        }
    }
}

impl Costs {
    /// What was measured: a chunk on one core, or a batch on the device.
    pub(crate) fn observe(&self, backend: Backend, kind: Kind, units: usize, took: Duration) {
        self.line(backend, kind).observe(as_float(units), took.as_secs_f64());
    }

    /// How many of `units` the device is to have, so that it and all cores end at the same time. None while nothing is
    /// known about either, and where it would get less than `units_min`.
    pub(crate) fn device_share(&self, kind: Kind, units: usize, units_min: usize, threads: usize) -> usize {
        let (cpu, gpu) = (*self.line(Backend::Cpu, kind), *self.line(Backend::Gpu, kind));
        let (Some((_, cpu_each)), Some((gpu_start, gpu_each))) = (cpu.fit(), gpu.fit()) else { return 0 };
        let cores = as_float(threads.max(1));
        let [cpu_waits, gpu_waits] =
            self.backlog.each_ref().map(|backlog| Duration::from_nanos(backlog.load(Ordering::Relaxed)).as_secs_f64());
        let cpu_each = cpu_each / cores;
        let lead = cpu_waits / cores + as_float(units) * cpu_each - gpu_waits - gpu_start;
        let share = (lead / (cpu_each + gpu_each)).clamp(0.0, as_float(units));
        let share = to_units(share, units);
        // Either nothing, or all but what is not worth a chunk of its own.
        if share < units_min {
            return 0;
        }
        self.passed[kind.index()].store(0, Ordering::Relaxed);
        if units - share < units_min / 4 { units } else { share }
    }

    /// Says that a job went past the device. Returns how many units to measure it with, when it is idle and has not had any
    /// for long: it may have been slow only once. No job waits for that.
    pub(crate) fn passed(&self, kind: Kind, units: usize, units_min: usize) -> Option<usize> {
        let idle = self.backlog[Backend::Gpu as usize].load(Ordering::Relaxed) == 0;
        let passed = &self.passed[kind.index()];
        if !idle || units < units_min || passed.fetch_add(1, Ordering::Relaxed) < PASSED_MAX {
            return None;
        }
        passed.store(0, Ordering::Relaxed);
        Some(units_min.max(units / PROBE_SHARE))
    }

    /// Counts work that is planned; the result is given to [`Self::done`].
    pub(crate) fn plan(&self, backend: Backend, kind: Kind, units: usize) -> u64 {
        let line = *self.line(backend, kind);
        let seconds = line.fit().map_or(0.0, |(start, each)| start + each * as_float(units));
        let nanoseconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos();
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(0);
        self.backlog[backend as usize].fetch_add(nanoseconds, Ordering::Relaxed);
        nanoseconds
    }

    /// Work that was planned is done, or went to the other backend.
    pub(crate) fn done(&self, backend: Backend, planned: u64) {
        self.backlog[backend as usize].fetch_sub(planned, Ordering::Relaxed);
    }

    fn line(&self, backend: Backend, kind: Kind) -> MutexGuard<'_, Line> {
        self.lines[backend as usize][kind.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn observe(&mut self, x: f64, y: f64) {
        for (sum, value) in
            [(&mut self.weight, 1.0), (&mut self.x, x), (&mut self.y, y), (&mut self.xx, x * x), (&mut self.xy, x * y)]
        {
            *sum = *sum * FADE + value;
        }
    }

    /// Seconds of a batch without units, and of each unit. Where all batches had about the same size, they cannot be
    /// told apart, and all is put down to the units.
    fn fit(&self) -> Option<(f64, f64)> {
        if self.weight <= 0.0 || self.x <= 0.0 {
            return None;
        }
        let each_alone = self.y / self.x;
        let spread = self.weight * self.xx - self.x * self.x;
        if spread <= 0.01 * self.x * self.x {
            return Some((0.0, each_alone));
        }
        let each = (self.weight * self.xy - self.x * self.y) / spread;
        let start = (self.y - each * self.x) / self.weight;
        if each <= 0.0 || start < 0.0 { Some((0.0, each_alone)) } else { Some((start, each)) }
    }
}

fn as_float(units: usize) -> f64 {
    f64::from(u32::try_from(units).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range before")]
fn to_units(share: f64, units: usize) -> usize {
    (share as usize).min(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::Verify(Suite::Sm2);

    fn observe(costs: &Costs, backend: Backend, start: f64, each: f64) {
        for units in [100usize, 1_000, 10_000] {
            let seconds = start + each * as_float(units);
            costs.observe(backend, KIND, units, Duration::from_secs_f64(seconds));
        }
    }

    #[test]
    fn a_line_is_found_again_and_follows_changes() {
        let mut line = Line::default();
        assert!(line.fit().is_none());
        for x in [10.0, 20.0, 400.0] {
            line.observe(x, 3.0 + 0.5 * x);
        }
        let (start, each) = line.fit().expect("fit");
        assert!((start - 3.0).abs() < 1e-6 && (each - 0.5).abs() < 1e-9);
        for round in 0..600 {
            let x = 10.0 + f64::from(round % 7);
            line.observe(x, 1.0 + 2.0 * x);
        }
        let (start, each) = line.fit().expect("fit");
        assert!((start - 1.0).abs() < 0.05 && (each - 2.0).abs() < 0.01, "{start} {each}");
    }

    #[test]
    fn both_backends_end_at_the_same_time() {
        let costs = Costs::default();
        assert_eq!(costs.device_share(KIND, 100_000, 64, 2), 0, "nothing is known");
        observe(&costs, Backend::Cpu, 0.0, 20e-6);
        assert_eq!(costs.device_share(KIND, 100_000, 64, 2), 0, "the device is unknown");
        observe(&costs, Backend::Gpu, 2e-3, 1e-6);
        let share = costs.device_share(KIND, 100_000, 64, 2);
        let (cpu, gpu) = (as_float(100_000 - share) * 10e-6, 2e-3 + as_float(share) * 1e-6);
        assert!((cpu - gpu).abs() < 1e-4, "{cpu} {gpu}");
        // A small batch is done before the device has begun.
        assert_eq!(costs.device_share(KIND, 150, 64, 2), 0);
        // What waits for the device counts, and is forgotten when it is done.
        let planned = costs.plan(Backend::Gpu, KIND, 1_000_000);
        assert_eq!(costs.device_share(KIND, 50_000, 64, 2), 0);
        costs.done(Backend::Gpu, planned);
        assert!(costs.device_share(KIND, 50_000, 64, 2) > 40_000);
    }

    #[test]
    fn a_device_that_was_slow_once_is_asked_again() {
        let costs = Costs::default();
        observe(&costs, Backend::Cpu, 0.0, 20e-6);
        observe(&costs, Backend::Gpu, 2e-3, 1e-6);
        for units in [1_000, 10_000] {
            costs.observe(Backend::Gpu, KIND, units, Duration::from_secs(60));
        }
        let took = |units| Duration::from_secs_f64(2e-3 + 1e-6 * as_float(units));
        assert_eq!(costs.device_share(KIND, 5_000, 64, 2), 0, "no job waits for what seems slow");
        let mut measured = 0;
        for job in 0.. {
            assert!(job < 1_000 * PASSED_MAX, "it was measured {measured} times");
            let share = costs.device_share(KIND, 50_000, 64, 2);
            if share > 20_000 {
                break;
            }
            if share > 0 {
                // A job that gets a share measures as well.
                costs.observe(Backend::Gpu, KIND, share, took(share));
            } else if let Some(units) = costs.passed(KIND, 50_000, 64) {
                let planned = costs.plan(Backend::Gpu, KIND, units);
                assert_eq!((0..2 * PASSED_MAX).find_map(|_| costs.passed(KIND, 5_000, 64)), None, "one at a time");
                costs.done(Backend::Gpu, planned);
                costs.observe(Backend::Gpu, KIND, units, took(units));
                measured += 1;
            }
        }
        assert!(measured > 0);
        assert!(costs.device_share(KIND, 50_000, 64, 2) > 20_000, "it is what it was");
        // A job too small for it is no reason to ask.
        assert!((0..1_000).all(|_| costs.passed(KIND, 63, 64).is_none()));
    }
}
