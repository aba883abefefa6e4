//! What a run measured, for people and as JSON lines.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::failure::Failure;
use crate::load::drive::f64_of;
use crate::output::Record;

/// What a run measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Statements, all of them committed on every node.
    pub statements: usize,
    /// How often a statement was sent again because admission was full.
    pub throttled: usize,
    /// From the first submission until the slowest node held everything.
    pub seconds: f64,
    /// Rate of each node.
    pub nodes: Vec<NodeRate>,
    /// Submission to certified outcome, one for each batch, ascending, milliseconds.
    pub latencies_ms: Vec<f64>,
}

/// Statements a second that one node committed.
#[derive(Clone, Debug)]
pub struct NodeRate {
    /// The node.
    pub name: String,
    /// All statements over the time until this node held them.
    pub statements_per_s: f64,
}

/// One line of a benchmark file.
#[derive(Clone, Debug, Serialize)]
pub struct JsonLine {
    /// Fixed name of the figure.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it is compared with.
    pub peer: Option<f64>,
    /// Figure over peer.
    pub ratio: Option<f64>,
}

impl Report {
    /// One report of several runs of the same nodes, one after the other.
    ///
    /// # Errors
    /// Without any run, or any node that was there in all of them.
    pub fn merged(runs: Vec<Self>) -> Result<Self> {
        let merged = runs
            .into_iter()
            .reduce(|mut all, run| {
                // A node that was lost in one of them has no rate over all.
                all.nodes.retain_mut(|node| {
                    let Some(other) = run.nodes.iter().find(|other| other.name == node.name) else { return false };
                    let seconds = f64_of(all.statements) / node.statements_per_s
                        + f64_of(run.statements) / other.statements_per_s;
                    node.statements_per_s = f64_of(all.statements + run.statements) / seconds;
                    true
                });
                all.statements += run.statements;
                all.throttled += run.throttled;
                all.seconds += run.seconds;
                all.latencies_ms.extend(run.latencies_ms);
                all.latencies_ms.sort_unstable_by(f64::total_cmp);
                all
            })
            .context("nothing was measured")?;
        if merged.nodes.is_empty() {
            bail!(
                Failure::new("node_unreachable", "no node was there from beginning to end, so none has a rate")
                    .hint("the nodes' logs say why they ended; a shorter load may do")
            );
        }
        Ok(merged)
    }

    /// Rate of the slowest node: what the network as a whole committed.
    pub fn statements_per_s(&self) -> f64 {
        self.nodes.iter().map(|node| node.statements_per_s).fold(f64::INFINITY, f64::min)
    }
    /// A percentile of the latencies by nearest rank; zero without any.
    pub fn latency_ms(&self, percent: usize) -> f64 {
        let count = self.latencies_ms.len();
        let rank = (count * percent.min(100)).div_ceil(100).max(1);
        self.latencies_ms.get(rank - 1).copied().unwrap_or_default()
    }
    /// The run for people.
    pub fn record(&self) -> Record {
        let rounded = |value: f64| format!("{value:.1}");
        Record::new()
            .with("statements", self.statements)
            .with("seconds", rounded(self.seconds))
            .with("statements_per_s", rounded(self.statements_per_s()))
            .with("p50_ms", rounded(self.latency_ms(50)))
            .with("p99_ms", rounded(self.latency_ms(99)))
            .with("max_ms", rounded(self.latency_ms(100)))
            .with("sent_again", self.throttled)
            .with(
                "nodes",
                self.nodes
                    .iter()
                    .map(|node| format!("{} {:.1}/s", node.name, node.statements_per_s))
                    .collect::<Vec<_>>(),
            )
    }
    /// The run as lines of a benchmark file under `name`.
    pub fn json_lines(&self, name: &str) -> Vec<JsonLine> {
        let line = |suffix: &str, value: f64, unit: &str| JsonLine {
            name: format!("{name}.{suffix}"),
            value,
            unit: unit.into(),
            peer: None,
            ratio: None,
        };
        vec![
            line("statements", f64_of(self.statements), "statements"),
            line("statements_per_s", self.statements_per_s(), "statements/s"),
            line("p50_ms", self.latency_ms(50), "ms"),
            line("p99_ms", self.latency_ms(99), "ms"),
        ]
    }
}

/// Writes lines to a file, one JSON object each.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json_lines(path: &Path, lines: &[JsonLine]) -> Result<()> {
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    for line in lines {
        writeln!(file, "{}", serde_json::to_string(line)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(latencies_ms: Vec<f64>) -> Report {
        let node = |name: &str, statements_per_s| NodeRate { name: name.into(), statements_per_s };
        Report { statements: 10, throttled: 0, seconds: 2.0, nodes: vec![node("a", 5.0), node("b", 4.0)], latencies_ms }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred = report((1..=100).map(f64::from).collect());
        assert_eq!([1, 50, 99, 100].map(|percent| hundred.latency_ms(percent)), [1.0, 50.0, 99.0, 100.0]);
        let few = report(vec![3.0, 7.0]);
        assert_eq!([50, 99].map(|percent| few.latency_ms(percent)), [3.0, 7.0]);
        assert_eq!(report(Vec::new()).latency_ms(99), 0.0);
    }

    #[test]
    fn runs_one_after_the_other_are_one() {
        let mut short = report(vec![1.0]);
        short.statements = 30;
        short.nodes.pop();
        let merged = Report::merged(vec![report(vec![2.0, 3.0]), short.clone()]).unwrap();
        assert_eq!((merged.statements, merged.seconds), (40, 4.0));
        assert_eq!(merged.latencies_ms, [1.0, 2.0, 3.0]);
        // 10 in 2 s and 30 in 6 s; the second node was lost in the second run.
        assert_eq!(
            merged.nodes.iter().map(|node| (&*node.name, node.statements_per_s)).collect::<Vec<_>>(),
            [("a", 5.0)]
        );
        short.nodes.clear();
        assert!(Report::merged(vec![report(Vec::new()), short]).is_err());
        assert!(Report::merged(Vec::new()).is_err());
    }

    #[test]
    fn the_slowest_node_sets_the_rate() {
        let report = report(vec![1.0]);
        assert_eq!(report.statements_per_s(), 4.0);
        let lines = report.json_lines("bench.eddsa");
        let line = serde_json::to_string(&lines[1]).unwrap();
        assert_eq!(
            line,
            r#"{"name":"bench.eddsa.statements_per_s","value":4.0,"unit":"statements/s","peer":null,"ratio":null}"#
        );
    }
}
