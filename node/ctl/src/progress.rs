//! Progress of long work, on standard error and only when that is a terminal.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is shown only when it is long.
const SHOWN_MIN: usize = 50;

/// A progress bar, or nothing.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar of `total` steps; hidden for short work and when nobody watches.
    pub fn new(noun: &'static str, total: usize) -> Self {
        let shown = total >= SHOWN_MIN && stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(u64::try_from(total).ok(), target);
        let template = "{bar:40} {human_pos} of {human_len} {msg}, {per_sec}, {eta} left";
        // The template is a constant; were it malformed, the default style would do.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(noun);
        Self(bar)
    }
    /// Sets the steps that are done.
    pub fn set(&self, done: usize) {
        self.0.set_position(u64::try_from(done).unwrap_or(u64::MAX));
    }
    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
