//! Half an hour of steady load: does memory grow beyond what the stores say that they hold?

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use stele_types::Suite;

use crate::bench::options;
use crate::figures::{Figures, quantile};
use crate::stage::Stage;
use crate::{input, pipeline};

/// The figure's name.
pub(crate) const NAME: &str = "node.rss_growth_pct";

/// Length of the load. Growth is looked for after the second third, when caches, pools and windows are full: the replay
/// window holds statements for a quarter of an hour.
const LOAD: Duration = Duration::from_secs(30 * 60);
const SETTLED: Duration = Duration::from_secs(20 * 60);
/// Statements a second: a sixth of what four validators must do, so that it goes on beside other work of the machine.
const RATE: usize = 1_000;
/// Load between two looks at the memory.
const STEP: Duration = Duration::from_secs(10);
/// Looks whose median is compared: single ones see buffers of a moment.
const LOOKS: usize = 6;

/// Loads four validators and writes by how many percent the memory of the worst of them grew.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let mut stage = Stage::start(&options(4, Suite::EdDsa))?;
    let author = stage.author("agency-1")?;
    let clients = stage.clients("agency-1")?;
    let nodes: Vec<String> = stage.network.profile().nodes.iter().map(|node| node.metrics.clone()).collect();
    let mut looks: Vec<(Duration, Vec<f64>)> = Vec::new();
    let started = Instant::now();
    while started.elapsed() < LOAD {
        let count = RATE * usize::try_from(STEP.as_secs())?;
        let signed = pipeline::sign(&author, &input::synthetic(count, None)?)?;
        pipeline::submit(&clients, signed, 8, RATE as f64).await?;
        let excess = nodes.iter().map(|node| excess_bytes(node)).collect::<Result<Vec<f64>>>()?;
        let shown: Vec<String> = excess.iter().map(|bytes| format!("{:.1}", bytes / 1e6)).collect();
        println!("  [{:>6.0} s] resident beyond the stores, MB: {}", started.elapsed().as_secs_f64(), shown.join("  "));
        looks.push((started.elapsed(), excess));
    }
    stage.network.stop_all()?;
    let settled = looks.iter().position(|(at, _)| *at >= SETTLED).context("the load was too short")?;
    let growth = (0..nodes.len()).map(|node| {
        let median = |looks: &[(Duration, Vec<f64>)]| {
            quantile(&mut looks.iter().map(|(_, excess)| excess[node]).collect::<Vec<f64>>(), 0.5)
        };
        let before = median(&looks[settled..(settled + LOOKS).min(looks.len())]);
        let after = median(&looks[looks.len().saturating_sub(LOOKS)..]);
        (after - before) / before * 100.0
    });
    figures.write(NAME, growth.fold(f64::NEG_INFINITY, f64::max), "%", None)
}

/// Resident memory of a node less what its state map and statement index say that they hold, bytes.
fn excess_bytes(metrics: &str) -> Result<f64> {
    let text = scrape(metrics)?;
    let value = |name: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let value = line.and_then(|line| line.split(' ').nth(1)).with_context(|| format!("no metric {name}"))?;
        value.parse().with_context(|| format!("{name} is no number"))
    };
    Ok(value("process_resident_memory_bytes")? - value("stele_execute_state_bytes")? - value("stele_log_index_bytes")?)
}

pub(crate) fn scrape(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).context("metrics listener")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("metrics")?;
    Ok(text)
}
