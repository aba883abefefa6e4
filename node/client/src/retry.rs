//! How often and how long a request is tried again.

use std::time::Duration;

/// Bounds of trying again. Pauses double from `pause_min` to `pause_max`; a node's `Retry-After` takes precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all; 1 means never again.
    pub tries_max: u32,
    /// First pause.
    pub pause_min: Duration,
    /// Longest pause, of `Retry-After` too.
    pub pause_max: Duration,
}

impl RetryPolicy {
    /// One try.
    pub const NONE: Self = Self { tries_max: 1, pause_min: Duration::ZERO, pause_max: Duration::ZERO };

    /// Pause before try `number` (counted from 1 for the first repetition).
    pub(crate) fn pause(&self, number: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.pause_min.saturating_mul(1 << number.saturating_sub(1).min(16));
        asked.unwrap_or(doubled).min(self.pause_max)
    }
}

impl Default for RetryPolicy {
    /// About a minute in all, which covers the restart of a node.
    fn default() -> Self {
        Self { tries_max: 20, pause_min: Duration::from_millis(50), pause_max: Duration::from_secs(5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_bounded() {
        let policy =
            RetryPolicy { tries_max: 9, pause_min: Duration::from_millis(10), pause_max: Duration::from_millis(50) };
        let pauses: Vec<_> = (1..6).map(|number| policy.pause(number, None).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 50, 50]);
        assert_eq!(policy.pause(1, Some(Duration::from_millis(30))).as_millis(), 30);
        assert_eq!(policy.pause(1, Some(Duration::from_secs(30))).as_millis(), 50);
    }
}
