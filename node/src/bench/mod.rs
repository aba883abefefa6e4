//! `steled bench-accel`: what this machine verifies and hashes, on its cores, on a GPU, and on both.
//!
//! An operator learns from it whether a GPU pays here, and how many cores the load of a network needs. Work is bulk work,
//! cut and placed as a node that catches up has it; the node itself may run meanwhile, and then both are slower.

mod samples;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use stele_accel::{
    Assign, Bytes, DigestJob, Engine, EngineConfig, GpuConfig, GpuState, HashAlgorithm, Job, MerkleJob, Priority, Span,
    Suite, VerifyJob, active_kernel,
};

/// Keys of a network whose keys are enrolled.
const ENROLLED_KEYS: usize = 100;
/// Distinct signatures under enrolled keys; a batch repeats them, because to sign takes longer than to verify.
const SIGNATURES: usize = 2_048;
/// Distinct signatures under keys that are not enrolled, each its own; a larger batch repeats them.
const UNKNOWN_KEYS: usize = 1 << 16;
/// Longest compilation of a device's kernels that is waited for.
const START_WAIT_MAX: Duration = Duration::from_secs(300);
/// Bytes of a hashed message: a statement and then some.
const MESSAGE_BYTES: u32 = 1_024;
/// Messages of a batch.
const MESSAGES: u32 = 16_384;

/// Measure how fast this machine verifies and hashes, on its cores and on a GPU
///
/// Work is measured as a node that catches up has it: large batches, keys that are enrolled and keys that are not. Run it
/// while the node is stopped; beside a running node both are slower.
#[derive(Clone, Debug, Args)]
pub(crate) struct AccelBench {
    /// Measure a GPU as well
    #[arg(long)]
    pub(crate) gpu: bool,
    /// Part of the name of the device to use
    #[arg(long, value_name = "NAME", requires = "gpu", default_value = "")]
    pub(crate) adapter: String,
    /// Let a software device serve, which is slower than the cores that it runs on
    #[arg(long, requires = "gpu")]
    pub(crate) software_device: bool,
    /// Worker threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Signatures of a batch
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    pub(crate) batch: u32,
    /// Leaves of the Merkle tree
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(2..=1 << 24))]
    pub(crate) leaves: u32,
    /// Seconds that each figure is measured for, at least; the best run counts
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=600))]
    pub(crate) seconds: u64,
    /// Write the figures as JSON lines to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Where work is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Cores,
    Gpu,
    Both,
}

/// One row: what, its unit, and the rate of each place.
struct Row {
    name: String,
    unit: &'static str,
    /// None where the place had no part in it: what is too small for a GPU does not go there.
    rates: Vec<(Place, Option<f64>)>,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Gpu => "gpu",
            Self::Both => "both",
        }
    }
}

impl AccelBench {
    /// Measures, and prints a table.
    ///
    /// # Errors
    /// When a GPU is asked for and none serves, or the file cannot be written.
    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    pub(crate) fn run(self) -> anyhow::Result<()> {
        // Before minutes are spent on what could then not be written.
        let mut json = match &self.json {
            Some(path) => {
                let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                Some((file, path))
            }
            None => None,
        };
        let mut rows: Vec<Row> = Vec::new();
        let places: &[Place] = if self.gpu { &[Place::Cores, Place::Gpu, Place::Both] } else { &[Place::Cores] };
        let samples: Vec<(Suite, VerifyJob, VerifyJob)> = Suite::ALL
            .into_iter()
            .map(|suite| {
                let enrolled = self.job(suite, SIGNATURES, ENROLLED_KEYS)?;
                Ok((suite, enrolled, self.job(suite, UNKNOWN_KEYS, UNKNOWN_KEYS)?))
            })
            .collect::<anyhow::Result<_>>()?;
        for place in places {
            let enrolled = self.engine(*place, EngineConfig::default())?;
            if *place == Place::Gpu {
                let status = enrolled.gpu_status();
                let seconds = enrolled.figures().gpu.compile_seconds;
                println!("gpu: {}, {}; kernels compiled in {seconds:.1} s", status.adapter, status.driver);
            } else if *place == Place::Cores {
                println!(
                    "cores: {} threads, {:?} kernels",
                    enrolled.figures().threads,
                    active_kernel(HashAlgorithm::Sha256)
                );
            }
            for (suite, job, _) in &samples {
                self.measure(&enrolled, *place, &format!("{}.enrolled", suite.name()), &mut rows, job, self.batch)?;
            }
            self.hashes(&enrolled, *place, &mut rows)?;
            drop(enrolled);
            // Neither tables nor decoded keys are found again.
            let forgetful = EngineConfig { key_table_bytes_max: 0, key_cache_entries: 1, ..EngineConfig::default() };
            let unknown = self.engine(*place, forgetful)?;
            for (suite, _, job) in &samples {
                self.measure(&unknown, *place, &format!("{}.unknown", suite.name()), &mut rows, job, self.batch)?;
            }
        }
        println!("{}", table(&rows, places));
        if let Some((file, path)) = &mut json {
            file.write_all(&json_lines(&rows)).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// A batch of valid signatures, so many of them distinct, under so many keys.
    fn job(&self, suite: Suite, distinct: usize, keys: usize) -> anyhow::Result<VerifyJob> {
        let job = samples::signed(suite, distinct.min(usize::try_from(self.batch)?), keys)?;
        let items = job.items.iter().copied().cycle().take(usize::try_from(self.batch)?).collect();
        Ok(VerifyJob { bytes: job.bytes, items })
    }

    fn engine(&self, place: Place, config: EngineConfig) -> anyhow::Result<Engine> {
        let gpu = (place != Place::Cores).then(|| GpuConfig {
            adapter: self.adapter.clone(),
            software_device: self.software_device,
            assign: if place == Place::Gpu { Assign::All } else { Assign::Measured },
            ..GpuConfig::default()
        });
        let config = EngineConfig { threads: self.threads, gpu, ..config };
        let engine = Engine::new(&config)?;
        let started = Instant::now();
        while engine.gpu_status().state == GpuState::Starting && started.elapsed() < START_WAIT_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = engine.gpu_status();
        match (place, status.state) {
            (Place::Cores, _) | (_, GpuState::Serving) => Ok(engine),
            (_, state) => bail!("gpu_absent: the GPU is {}: {}", state.name(), status.reason),
        }
    }

    fn hashes(&self, engine: &Engine, place: Place, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        for (algorithm, name) in [(HashAlgorithm::Sha256, "sha256"), (HashAlgorithm::Sm3, "sm3")] {
            let bytes: Bytes = vec![0x5a; usize::try_from(MESSAGE_BYTES + MESSAGES)?].into();
            let messages = (0..MESSAGES).map(|offset| Span { offset, length: MESSAGE_BYTES }).collect();
            let job = DigestJob { algorithm, prefix: Bytes::from_static(&[0]), bytes, messages };
            self.measure(engine, place, &format!("{name}.1k"), rows, &job, MESSAGES)?;
            let leaves = vec![[0x5a; 32]; usize::try_from(self.leaves)?];
            let job = MerkleJob { algorithm, leaves, keep_levels: false };
            self.measure(engine, place, &format!("merkle.{name}"), rows, &job, self.leaves)?;
        }
        Ok(())
    }

    /// The best of the runs that fit in the time, after one that fills caches and tables.
    fn measure<J: Job + Clone>(
        &self,
        engine: &Engine,
        place: Place,
        name: &str,
        rows: &mut Vec<Row>,
        job: &J,
        items: u32,
    ) -> anyhow::Result<()> {
        let run = || -> anyhow::Result<Duration> {
            let job = job.clone();
            let started = Instant::now();
            engine.submit_with(Priority::Bulk, job).map_err(|refused| refused.reason)?.wait()?;
            Ok(started.elapsed())
        };
        let before = engine.figures().gpu;
        run()?;
        let mut best = run()?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(self.seconds) {
            best = best.min(run()?);
        }
        if place == Place::Gpu && engine.gpu_status().state != GpuState::Serving {
            bail!("gpu_absent: the GPU failed under way: {}", engine.gpu_status().reason);
        }
        let after = engine.figures().gpu;
        if place == Place::Gpu && after.fallbacks > before.fallbacks {
            bail!("gpu_absent: the GPU did not take all of {name}");
        }
        let took_part = place != Place::Gpu || after.batches > before.batches;
        let rate = took_part.then(|| f64::from(items) / best.as_secs_f64());
        match rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.rates.push((place, rate)),
            None => rows.push(Row { name: name.to_owned(), unit: "1/s", rates: vec![(place, rate)] }),
        }
        Ok(())
    }
}

fn table(rows: &[Row], places: &[Place]) -> String {
    let mut text = format!("{:<20}", "items a second");
    for place in places {
        text += &format!("{:>14}", place.name());
    }
    for row in rows {
        text += &format!("\n{:<20}", row.name);
        for (_, rate) in &row.rates {
            text += &format!("{:>14}", rate.map_or_else(|| "-".to_owned(), grouped));
        }
    }
    text
}

/// A rate with its thousands apart.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and far below 2^64")]
fn grouped(rate: f64) -> String {
    let digits = (rate.round() as u64).to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn json_lines(rows: &[Row]) -> Vec<u8> {
    let mut lines = Vec::new();
    for row in rows {
        let cores = row.rates.first().and_then(|(_, rate)| *rate);
        for (place, rate) in row.rates.iter().filter_map(|(place, rate)| Some((place, (*rate)?))) {
            let ratio = cores.filter(|_| *place != Place::Cores).map(|cores| rate / cores);
            let line = serde_json::json!({
                "name": format!("accel.{}.{}", row.name, place.name()),
                "value": rate,
                "unit": row.unit,
                "peer": ratio.map(|_| "cores"),
                "ratio": ratio,
            });
            // Writing to memory does not fail.
            let _ = writeln!(lines, "{line}");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_lines_say_the_same() {
        let rates = vec![(Place::Cores, Some(1_234_567.4)), (Place::Gpu, Some(999.0)), (Place::Both, None)];
        let rows = [Row { name: "sm2.enrolled".into(), unit: "1/s", rates }];
        let text = table(&rows, &[Place::Cores, Place::Gpu, Place::Both]);
        assert_eq!(text.lines().nth(1), Some("sm2.enrolled             1,234,567           999             -"));
        let lines = String::from_utf8(json_lines(&rows)).unwrap();
        let values: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values.len(), 2);
        assert_eq!(values[0]["name"], "accel.sm2.enrolled.cores");
        assert_eq!((&values[0]["peer"], &values[1]["peer"]), (&serde_json::Value::Null, &"cores".into()));
    }

    #[test]
    fn samples_are_valid() {
        let engine = Engine::new(&EngineConfig { threads: 1, ..EngineConfig::default() }).unwrap();
        for suite in Suite::ALL {
            let verdicts = engine.submit(samples::signed(suite, 6, 4).unwrap()).unwrap().wait().unwrap();
            assert!(verdicts.len() == 6 && verdicts.iter().all(|verdict| verdict.is_valid()), "{suite:?}");
        }
    }
}
