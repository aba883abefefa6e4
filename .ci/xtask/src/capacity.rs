//! `cargo xtask capacity`: what 100 PB take. It prints the tables of docs/capacity.md; a test sees to it that those are what it
//! prints.

use std::fmt::Write as _;

/// What the arithmetic begins with, each with where it comes from.
struct Inputs {
    /// Bytes that are held.
    held: f64,
    /// Copies of each, on different nodes (custody level `two-custodians`).
    custodians: f64,
    data: f64,
    parity: u32,
    /// Share of the drives that is filled.
    fill: f64,
    /// Bytes that lie on a drive for each byte of a column: measured, headers, directories and padding.
    framing: f64,
    /// Drives' annual failure rate, and nodes'.
    drive_afr: f64,
    node_afr: f64,
    /// Share of a node's bandwidth that rebuilding may take.
    rebuild_share: f64,
    /// Bytes a second that a drive reads and writes one after the other, and a node's network.
    drive_read: f64,
    drive_write: f64,
    node_network: f64,
    /// Watts of a drive and of what it is in.
    drive_watts: f64,
    node_watts: f64,
    /// Bytes a second that one core seals: parity, checksums and content roots; and that it rebuilds.
    seal_core: f64,
    rebuild_core: f64,
    /// Bytes of flash and of memory that the index takes for a record.
    index_flash: f64,
    index_memory: f64,
    scrub_days: f64,
    /// Bytes a second that come in, on average.
    ingest: f64,
}

const INPUTS: Inputs = Inputs {
    held: 100e15,
    custodians: 2.0,
    data: 8.0,
    parity: 3,
    fill: 0.8,
    framing: 1.008,
    drive_afr: 0.01,
    node_afr: 0.02,
    rebuild_share: 0.2,
    drive_read: 7.4e9,
    drive_write: 3.2e9,
    node_network: 50e9,
    drive_watts: 25.0,
    node_watts: 900.0,
    seal_core: 0.8e9,
    rebuild_core: 6.6e9,
    index_flash: 33.7,
    index_memory: 1.41,
    scrub_days: 30.0,
    ingest: 0.8e9,
};

/// An appliance: drives and bytes of each.
const NODES: [(u32, f64); 4] = [(24, 61.44e12), (32, 61.44e12), (24, 122.88e12), (36, 122.88e12)];

const HOURS: f64 = 8_760.0;

/// Years until a node loses something by its drives alone: a birth-death chain over failed drives, each repaired by itself
/// (Angus, "On computing MTBF for a k-out-of-n:G repairable system", IEEE Transactions on Reliability 37, 1988).
fn years_to_loss(drives: u32, parity: u32, afr: f64, repair_hours: f64) -> f64 {
    let rate = afr / HOURS;
    let mut to_next = 0.0;
    let mut total = 0.0;
    for failed in 0..=parity {
        let failing = f64::from(drives - failed) * rate;
        let repairing = f64::from(failed) / repair_hours;
        to_next = 1.0 / failing + repairing / failing * to_next;
        total += to_next;
    }
    total / HOURS
}

/// The tables.
pub(crate) fn tables() -> String {
    let i = &INPUTS;
    let mut text = String::from(
        "| appliance | usable PB | appliances | drives | power kW | drive rebuilt in h | a node copied again in h |\n|---|---|---|---|---|---|---|\n",
    );
    let mut loss = String::from(
        "| appliance | a node loses something by its drives, 1/year | share of all that is lost a year, one copy | two custodians | 64 KiB objects: index flash TB, memory GB | 1 MiB objects | scrub in 30 days: MB/s a drive, cores |\n|---|---|---|---|---|---|---|\n",
    );
    for (drives, bytes) in NODES {
        let count = f64::from(drives);
        let raw = count * bytes;
        let columns = i.data + f64::from(i.parity);
        let usable = raw * i.fill * i.data / columns / i.framing;
        let nodes = (i.held * i.custodians / usable).ceil();
        let watts = nodes * (count * i.drive_watts + i.node_watts);
        // A drive is made again from k others each, on all that are left, by a share of what they read and write.
        let filled = bytes * i.fill;
        let reads = filled * i.data / ((count - 1.0) * i.drive_read * i.rebuild_share);
        let writes = filled / i.drive_write;
        let compute = filled / (4.0 * i.rebuild_core);
        let rebuild = reads.max(writes).max(compute) / 3_600.0;
        // A node comes back from all others at once; its own network is the bound.
        let copy = (raw * i.fill / (i.node_network * i.rebuild_share)) / 3_600.0;
        let by_drives = 1.0 / years_to_loss(drives, i.parity, i.drive_afr, rebuild);
        // One copy: what a node holds is gone with it. Two: gone if the other copy's node goes while this one is copied again.
        let node = i.node_afr + by_drives;
        let one = node;
        let two = node * node * copy / HOURS;
        let name = format!("{drives} × {:.2} TB", bytes / 1e12);
        let _ = writeln!(
            text,
            "| {name} | {:.2} | {nodes:.0} | {:.0} | {:.0} | {rebuild:.1} | {copy:.1} |",
            usable / 1e15,
            nodes * count,
            watts / 1e3
        );
        let records = |object: f64| usable / object;
        let index = |object: f64| {
            let records = records(object);
            format!("{:.2}, {:.0}", records * i.index_flash / 1e12, records * i.index_memory / 1e9)
        };
        let scrub = raw * i.fill / (i.scrub_days * 86_400.0);
        let _ = writeln!(
            loss,
            "| {name} | {by_drives:.1e} | {one:.1e} | {two:.1e} | {} | {} | {:.0}, {:.2} |",
            index(65_536.0),
            index(1_048_576.0),
            scrub / count / 1e6,
            scrub / i.seal_core
        );
    }
    let fleet = i.ingest * i.custodians;
    let _ = writeln!(
        loss,
        "\nIngest of {:.1} GB/s on average with {} custodians keeps {:.1} cores of the whole fleet busy with sealing.",
        i.ingest / 1e9,
        i.custodians,
        fleet / i.seal_core
    );
    format!("{text}\n{loss}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_these_tables() {
        let page = std::fs::read_to_string(crate::cargo::root().join("docs/capacity.md")).unwrap();
        for line in tables().lines() {
            assert!(page.contains(line), "docs/capacity.md lacks this line of `cargo xtask capacity`:\n{line}");
        }
    }

    #[test]
    fn one_drive_fails_as_often_as_it_says() {
        let years = years_to_loss(1, 0, 0.01, 1.0);
        assert!((years - 100.0).abs() < 1e-6, "{years}");
    }

    #[test]
    fn a_mirror_is_lost_when_the_second_fails_during_the_repair() {
        // Two drives, repaired in 24 hours: 1 / (2 a · a · T) for small rates.
        let years = years_to_loss(2, 1, 0.01, 24.0);
        let expected = 1.0 / (2.0 * 0.01 * 0.01 * 24.0 / HOURS);
        assert!((years / expected - 1.0).abs() < 0.01, "{years} {expected}");
    }
}
