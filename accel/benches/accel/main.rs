//! Rates of verification and hashing on one core, each beside a named peer measured in turns with it.
//!
//! ```text
//! cargo xtask bench accel [--json FILE] [--seconds N] [--sweep] [--software-gpu] [--only PREFIX]
//! ```
//!
//! Each line of the JSON file is `{"name", "value", "unit", "peer", "ratio"}`. Rates are per second of processor time, so
//! that neighbours on the machine disturb them little. `--sweep` adds rates by batch size, number of keys, bad items and
//! cores. Where there is a GPU, its rates follow; `--software-gpu` has them of a software device instead, at small sizes.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod clock;
mod gpu;
mod items;
mod report;
mod sweep;
mod table;

use std::{error::Error, time::Duration};

use report::Report;

fn main() -> Result<(), Box<dyn Error>> {
    let mut report = Report::default();
    let (mut json, mut seconds, mut sweep, mut software_gpu) = (None, 3.0f64, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = Some(arguments.next().ok_or("--json needs a file")?),
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            "--only" => report.only = arguments.next().ok_or("--only needs a prefix")?,
            "--sweep" => sweep = true,
            "--software-gpu" => software_gpu = true,
            // What cargo passes to every benchmark.
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let lasting = Duration::from_secs_f64(seconds);
    table::run(lasting, &mut report)?;
    gpu::agree(&mut report)?;
    gpu::table(software_gpu, &mut report)?;
    if sweep {
        sweep::run(lasting / 4, &mut report)?;
    }
    json.map_or(Ok(()), |path| report.write(&path))
}
