//! Rates by processor time and by the clock.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Turns of a comparison; odd, so that the median is one of them.
const ROUNDS: u32 = 15;

/// Work to measure, and the items that one call does.
pub(crate) struct Work<'a> {
    pub(crate) items: usize,
    pub(crate) call: &'a mut dyn FnMut(),
}

/// A rate in items per second of processor time, and the ratio to a peer's.
pub(crate) struct Comparison {
    pub(crate) rate: f64,
    pub(crate) peer: f64,
    pub(crate) ratio: f64,
}

/// Runs both in turns and gives the medians over the rounds, of the ratio too: what slows the machine down for a while
/// slows both.
pub(crate) fn compare(lasting: Duration, mut ours: Work<'_>, mut peer: Work<'_>) -> Comparison {
    (ours.call)();
    (peer.call)();
    let slice = lasting / (2 * ROUNDS);
    let (mut rates, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let rate = rate_once(processor_time, slice, &mut ours);
        let peer = rate_once(processor_time, slice, &mut peer);
        rates.push(rate);
        peers.push(peer);
        ratios.push(rate / peer);
    }
    Comparison { rate: median(rates), peer: median(peers), ratio: median(ratios) }
}

/// Items per second of the clock given, the best of five parts, because neighbours only ever slow a part down.
pub(crate) fn rate(clock: fn() -> Duration, lasting: Duration, items: usize, mut call: impl FnMut()) -> f64 {
    call();
    let mut work = Work { items, call: &mut call };
    (0..5).map(|_| rate_once(clock, lasting / 5, &mut work)).fold(0.0, f64::max)
}

/// Time that all threads of this process have run.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

/// Time since this was first asked.
pub(crate) fn wall_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn rate_once(clock: fn() -> Duration, lasting: Duration, work: &mut Work<'_>) -> f64 {
    let (started, mut rounds) = (clock(), 0u32);
    loop {
        (work.call)();
        rounds += 1;
        let elapsed = clock() - started;
        if elapsed >= lasting {
            let items = f64::from(u32::try_from(work.items).unwrap_or(u32::MAX));
            return f64::from(rounds) * items / elapsed.as_secs_f64();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
