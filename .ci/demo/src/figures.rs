//! Figures as JSON lines: `{"name", "value", "unit", "peer", "ratio"}`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

/// Where figures go, beside the terminal.
pub(crate) struct Figures(Option<File>);

impl Figures {
    pub(crate) fn to(path: Option<&Path>) -> Result<Self> {
        let file = path.map(File::create).transpose().context("cannot create the figures' file")?;
        Ok(Self(file))
    }
    /// Writes one figure; `peer` is a named one with its value.
    pub(crate) fn write(&mut self, name: &str, value: f64, unit: &str, peer: Option<(&str, f64)>) -> Result<()> {
        println!("  {name:<28} {value:>14.2} {unit}");
        let Some(file) = &mut self.0 else { return Ok(()) };
        let line = json!({
            "name": name,
            "value": value,
            "unit": unit,
            "peer": peer.map(|(peer, _)| peer),
            "ratio": peer.map(|(_, other)| value / other),
        });
        writeln!(file, "{line}").context("cannot write a figure")
    }
}

/// The q-quantile of `samples` by the nearest rank; zero for none.
pub(crate) fn quantile(samples: &mut [f64], q: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the number of samples")]
    let rank = (q * samples.len() as f64).ceil() as usize;
    samples.get(rank.saturating_sub(1).min(samples.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
