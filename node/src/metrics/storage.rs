//! Bodies of records and the drives that they are on.

use stele_cold::ColdReport;
use stele_storage::{DriveState, LATENCY_BOUNDS_NS, Status, Traffic};

use super::family::{Counter, CounterFamily, Gauge, GaugeFamily, ImportedHistogramFamily, Total};
use super::label::{Drive, DriveOperation, Room};
use super::registry::Registry;

/// The payload store.
pub struct StorageMetrics {
    bytes: GaugeFamily<(Drive, Room)>,
    device_failed: GaugeFamily<Drive>,
    device_latency: ImportedHistogramFamily<(Drive, DriveOperation)>,
    device_bytes: CounterFamily<(Drive, DriveOperation)>,
    device_errors: CounterFamily<(Drive, DriveOperation)>,
    device_in_flight: GaugeFamily<Drive>,
    segments: GaugeFamily<Room>,
    records: Gauge,
    read_only: Gauge,
    unavailable: Gauge,
    puts: Total,
    put_bytes: Total,
    written_bytes: Total,
    reads: Total,
    read_bytes: Total,
    reconstructed: Total,
    repaired: Total,
    lost: Total,
    scrub_segments: Gauge,
    scrub_completed: Gauge,
    backup_completed: Gauge,
    backup_height: Gauge,
    scrub_repairs: Counter,
    scrub_lost: Counter,
    unreferenced: Gauge,
    unreferenced_removed: Counter,
    retention_removed: Counter,
    alone: Gauge,
    alone_seconds: Gauge,
    copied: Counter,
    not_copied: Counter,
    kept: Counter,
    mended: Counter,
    segments_cold: Gauge,
    cold_copied: Counter,
    cold_copied_bytes: Counter,
    cold_dropped: Counter,
    cold_failures: Counter,
    cold_caught_up: Gauge,
    blocks_archived: Counter,
    blocks_archive_failures: Counter,
}

impl StorageMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut total = |name, help| Total::new(registry.counters(name, help, vec![()]));
        let puts = total("stele_storage_puts_total", "Records that were made durable, removals among them.");
        let put_bytes = total("stele_storage_put_bytes_total", "Bytes of records that were made durable.");
        let written_bytes =
            total("stele_storage_written_bytes_total", "Bytes that the drives were given for them, parity included.");
        let reads = total("stele_storage_reads_total", "Records that were read.");
        let read_bytes = total("stele_storage_read_bytes_total", "Bytes of records that were read.");
        let reconstructed = total(
            "stele_storage_reconstructed_total",
            "Records that were made again from other drives because their own failed or was damaged.",
        );
        let repaired = total("stele_storage_repaired_total", "Damaged cells that were written again.");
        let lost = total("stele_storage_lost_total", "Batches of which too little is left to make the rest again.");
        Self {
            bytes: registry.gauges("stele_storage_bytes", "Bytes of a drive by what they are used for."),
            device_failed: registry
                .gauges("stele_storage_device_failed", "Whether a drive has failed or is missing, 0 or 1."),
            device_latency: registry.imported(
                "stele_storage_device_duration_seconds",
                "Time from handing a request to a drive to its answer, its wait for others included; reads and writes are \
                 there from the start, flushes from the first.",
                &LATENCY_BOUNDS_NS.map(seconds),
            ),
            device_bytes: registry.counters(
                "stele_storage_device_bytes_total",
                "Bytes that a drive read and wrote, upkeep included.",
                Vec::new(),
            ),
            device_errors: registry.counters(
                "stele_storage_device_errors_total",
                "Requests that a drive failed.",
                Vec::new(),
            ),
            device_in_flight: registry
                .gauges("stele_storage_device_in_flight", "Requests that a drive has and has not answered."),
            segments: registry
                .gauges("stele_storage_segments", "Segments that hold something, and that there is room for."),
            records: registry.gauges("stele_storage_records", "Objects, their parts and manifests: about so many."),
            read_only: registry.gauges("stele_storage_read_only", "Whether the store takes nothing any more, 0 or 1."),
            unavailable: registry.gauges(
                "stele_storage_unavailable",
                "Whether the node is to keep bodies and its store is not open, 0 or 1.",
            ),
            puts,
            put_bytes,
            written_bytes,
            reads,
            read_bytes,
            reconstructed,
            repaired,
            lost,
            scrub_segments: registry
                .gauges("stele_storage_scrub_segments", "Segments read by the scrub that is under way."),
            scrub_completed: registry.gauges(
                "stele_storage_scrub_completed_timestamp_seconds",
                "When everything had been read last, seconds since 1970; 0: never.",
            ),
            backup_completed: registry.gauges(
                "stele_backup_completed_timestamp_seconds",
                "When the newest backup of this node was finished, seconds since 1970; 0: never.",
            ),
            backup_height: registry.gauges("stele_backup_height", "Height of the newest block in that backup."),
            scrub_repairs: registry.counters(
                "stele_storage_scrub_repairs_total",
                "Damaged cells that scrubs found and wrote again.",
                vec![()],
            ),
            scrub_lost: registry.counters(
                "stele_storage_scrub_lost_total",
                "Batches beyond repair that scrubs found, each time they did.",
                vec![()],
            ),
            unreferenced: registry.gauges("stele_storage_unreferenced", "Bodies that no statement refers to yet."),
            unreferenced_removed: registry.counters(
                "stele_storage_unreferenced_removed_total",
                "Bodies that were removed because no statement referred to them in time.",
                vec![()],
            ),
            retention_removed: registry.counters(
                "stele_storage_retention_removed_total",
                "Bodies that were removed because the year of their retention is over.",
                vec![()],
            ),
            alone: registry
                .gauges("stele_custody_alone", "Bodies of which another node is to have a copy and none has."),
            alone_seconds: registry.gauges(
                "stele_custody_alone_seconds",
                "For how long that has been so of the oldest of them; 0: of none.",
            ),
            copied: registry.counters(
                "stele_custody_copied_total",
                "Copies of this node's bodies that other nodes have signed for.",
                vec![()],
            ),
            not_copied: registry.counters(
                "stele_custody_not_copied_total",
                "Attempts to have a body copied that came to nothing.",
                vec![()],
            ),
            kept: registry.counters(
                "stele_custody_kept_total",
                "Copies that this node has fetched to keep for others.",
                vec![()],
            ),
            mended: registry.counters(
                "stele_custody_mended_total",
                "Bodies that could not be read here any more and were brought back from a copy.",
                vec![()],
            ),
            segments_cold: registry.gauges("stele_cold_segments", "Segments that the cold tier holds."),
            cold_copied: registry.counters(
                "stele_cold_copied_total",
                "Segments that went to the cold tier and were read back.",
                vec![()],
            ),
            cold_copied_bytes: registry.counters("stele_cold_copied_bytes_total", "Bytes of them.", vec![()]),
            cold_dropped: registry.counters(
                "stele_cold_dropped_total",
                "Segments of which the drives gave up their copy, since room was scarce.",
                vec![()],
            ),
            cold_failures: registry.counters(
                "stele_cold_failures_total",
                "Attempts to do something at the cold tier that failed.",
                vec![()],
            ),
            blocks_archived: registry.counters(
                "stele_storage_blocks_archived_total",
                "Old blocks that moved from the directory of the chain into the store.",
                vec![()],
            ),
            blocks_archive_failures: registry.counters(
                "stele_storage_blocks_archive_failures_total",
                "Attempts to move old blocks there that failed.",
                vec![()],
            ),
            cold_caught_up: registry.gauges(
                "stele_cold_caught_up_timestamp_seconds",
                "When the node did last at the cold tier what was due, seconds since 1970; 0: never, or there is none.",
            ),
        }
    }

    /// What a step at the cold tier came to.
    pub fn cold_moved(&self, report: &ColdReport) {
        self.cold_copied.add((), report.copied);
        self.cold_copied_bytes.add((), report.copied_bytes);
        self.cold_dropped.add((), report.dropped);
    }

    /// Nothing is left to be done there, at this time.
    pub fn cold_caught_up(&self, seconds: u64) {
        self.cold_caught_up.set((), seconds);
    }

    /// Something failed there.
    pub fn cold_failed(&self) {
        self.cold_failures.add((), 1);
    }

    /// Old blocks moved into the store.
    pub fn blocks_archived(&self, blocks: u64) {
        self.blocks_archived.add((), blocks);
    }

    /// They could not.
    pub fn blocks_not_archived(&self) {
        self.blocks_archive_failures.add((), 1);
    }

    /// How the store is.
    pub fn update(&self, status: &Status, unreferenced: usize) {
        for (number, drive) in status.drives.iter().enumerate() {
            let Some(label) = Drive::new(number) else { continue };
            let slots = u64::from(drive.slots);
            let slot_bytes = drive.bytes.checked_div(slots).unwrap_or_default();
            let free = u64::from(drive.slots_free) * slot_bytes;
            self.bytes.set((label, Room::Free), free);
            self.bytes.set((label, Room::Used), (slots * slot_bytes).saturating_sub(free));
            self.device_failed.set(label, u64::from(drive.state == DriveState::Failed));
        }
        self.segments.set(Room::Used, status.segments);
        self.segments.set(Room::Free, status.segments_free);
        self.segments_cold.set((), status.segments_cold);
        self.records.set((), status.records);
        self.read_only.set((), u64::from(status.read_only.is_some()));
        let counters = &status.counters;
        self.puts.follow(counters.puts);
        self.put_bytes.follow(counters.put_bytes);
        self.written_bytes.follow(counters.written_bytes);
        self.reads.follow(counters.reads);
        self.read_bytes.follow(counters.read_bytes);
        self.reconstructed.follow(counters.reconstructed);
        self.repaired.follow(counters.repaired);
        self.lost.follow(counters.lost);
        self.unreferenced.set((), unreferenced as u64);
    }
    /// What each drive was asked for.
    pub fn traffic(&self, drives: &[Traffic]) {
        for (number, traffic) in drives.iter().enumerate() {
            let Some(drive) = Drive::new(number) else { continue };
            for (operation, tally) in [
                (DriveOperation::Read, &traffic.reads),
                (DriveOperation::Write, &traffic.writes),
                (DriveOperation::Flush, &traffic.flushes),
            ] {
                // The store makes each write durable by itself: of most drives nobody asks a flush ever.
                if operation == DriveOperation::Flush && tally.operations() == 0 {
                    continue;
                }
                let labels = (drive, operation);
                self.device_latency.import(labels, &tally.latencies, seconds(tally.latency_ns));
                self.device_errors.follow(labels, tally.errors);
                if operation != DriveOperation::Flush {
                    self.device_bytes.follow(labels, tally.bytes);
                }
            }
            self.device_in_flight.set(drive, traffic.in_flight);
        }
    }
    /// So many bodies are without a copy, the oldest for so long.
    pub fn alone(&self, bodies: usize, seconds: u64) {
        self.alone.set((), bodies as u64);
        self.alone_seconds.set((), seconds);
    }
    /// Another node has signed for a copy.
    pub fn copied(&self) {
        self.copied.add((), 1);
    }
    /// Nobody took a copy.
    pub fn not_copied(&self) {
        self.not_copied.add((), 1);
    }
    /// A copy was fetched to be kept.
    pub fn kept(&self) {
        self.kept.add((), 1);
    }
    /// A body was brought back.
    pub fn mended(&self) {
        self.mended.add((), 1);
    }
    /// A scrub has read so many segments.
    pub fn scrub_segments(&self, segments: u64) {
        self.scrub_segments.set((), segments);
    }
    /// Everything was read, at `now_seconds` since 1970.
    pub fn scrubbed(&self, now_seconds: u64) {
        self.scrub_completed.set((), now_seconds);
    }
    /// When everything had been read last.
    pub fn scrub_completed(&self) -> u64 {
        u64::try_from(self.scrub_completed.value(())).unwrap_or(0)
    }
    /// The node was backed up last at `seconds` since 1970, up to `height`.
    pub fn backed_up(&self, seconds: u64, height: u64) {
        self.backup_completed.set((), seconds);
        self.backup_height.set((), height);
    }
    /// Whether the store is open.
    pub fn available(&self, available: bool) {
        self.unavailable.set((), u64::from(!available));
    }
    /// What a scrub found.
    pub fn scrub_found(&self, repaired: u64, lost: u64) {
        self.scrub_repairs.add((), repaired);
        self.scrub_lost.add((), lost);
    }
    /// A body was removed, since the year of its retention is over.
    pub fn retention_removed(&self) {
        self.retention_removed.add((), 1);
    }
    /// So many bodies were removed, since no statement referred to them.
    pub fn unreferenced_removed(&self, bodies: usize) {
        self.unreferenced_removed.add((), bodies as u64);
    }
}

/// Nanoseconds as seconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
