//! What was measured.

use std::{error::Error, fs::File, io::Write};

use crate::clock::Comparison;

/// The lines so far.
#[derive(Default)]
pub(crate) struct Report {
    /// Only figures whose names begin so are measured.
    pub(crate) only: String,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    value: f64,
    unit: &'static str,
    /// The peer's name and the ratio to it.
    peer: Option<(&'static str, f64)>,
}

impl Report {
    /// Whether a figure is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.only)
    }

    /// A figure beside its peer and the ratio that it is to have.
    pub(crate) fn compared(
        &mut self,
        name: &str,
        unit: &'static str,
        peer: &'static str,
        floor: f64,
        figures: &Comparison,
    ) {
        let Comparison { rate, peer: peer_rate, ratio } = figures;
        let verdict = if *ratio >= floor { "" } else { "  BELOW" };
        println!("{name:<24} {rate:>12.0} {unit:<5} {ratio:>6.2} x {peer} ({peer_rate:.0}), at least {floor}{verdict}");
        self.lines.push(Line { name: name.to_owned(), value: *rate, unit, peer: Some((peer, *ratio)) });
    }

    /// A figure alone, or with a ratio to a peer.
    pub(crate) fn push(&mut self, name: String, value: f64, unit: &'static str, peer: Option<(&'static str, f64)>) {
        match peer {
            Some((other, ratio)) => println!("{name:<36} {value:>12.0} {unit:<5} {ratio:>6.2} x {other}"),
            None => println!("{name:<36} {value:>12.0} {unit}"),
        }
        self.lines.push(Line { name, value, unit, peer });
    }

    /// Writes one JSON object a line.
    pub(crate) fn write(&self, path: &str) -> Result<(), Box<dyn Error>> {
        let mut file = File::create(path)?;
        for line in &self.lines {
            let (peer, ratio) = line.peer.unzip();
            let value = serde_json::json!({
                "name": line.name, "value": line.value, "unit": line.unit, "peer": peer, "ratio": ratio,
            });
            writeln!(file, "{value}")?;
        }
        Ok(())
    }
}
