//! The program and the process.

use prometheus::IntGaugeVec;

use super::family::{CounterFamily, Gauge};
use super::label::{Label as _, Severity};
use super::registry::Registry;

/// What was built, from what, with what.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// Version of the package.
    pub version: String,
    /// Revision of the sources.
    pub revision: String,
    /// Compiler.
    pub rustc: String,
    /// Digest of the image the program runs from, when it runs from one.
    pub image_digest: String,
}

impl Version {
    /// What the build knows of itself. A release build sets `STELE_REVISION` and `STELE_RUSTC`; the image sets its digest
    /// at start.
    pub fn built() -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: text(option_env!("STELE_REVISION")),
            rustc: text(option_env!("STELE_RUSTC")),
            image_digest: std::env::var("STELE_IMAGE_DIGEST").unwrap_or_default(),
        }
    }
}

/// The program and the process.
pub struct BuildMetrics {
    config: IntGaugeVec,
    restart_pending: Gauge,
    /// Lines of the node's own log.
    pub messages: CounterFamily<Severity>,
}

impl BuildMetrics {
    pub(super) fn new(registry: &mut Registry, version: &Version) -> Self {
        let labels = [
            ("version", version.version.as_str()),
            ("revision", &version.revision),
            ("rustc", &version.rustc),
            ("image_digest", &version.image_digest),
        ];
        registry.process();
        registry.info("stele_build_info", "What is running; the value is 1.", &labels);
        Self {
            config: registry.late_info(
                "stele_config_info",
                "SHA-256 of the configuration file in force, its first 16 hexadecimal digits; the value is 1.",
                ["hash"],
            ),
            restart_pending: registry.gauges(
                "stele_config_restart_pending",
                "Sections of the configuration in force that differ from what runs, because they wait for a restart.",
            ),
            messages: registry.counters(
                "stele_log_messages_total",
                "Lines of the node's own log by severity.",
                Severity::every(),
            ),
        }
    }

    /// Sections of the configuration that wait for a restart.
    pub fn restart_pending(&self, sections: usize) {
        self.restart_pending.set((), sections as u64);
    }

    /// Names the configuration in force by the first 16 hexadecimal digits of its hash.
    pub fn configuration(&self, hash: &str) {
        self.config.reset();
        self.config.with_label_values(&[hash]).set(1);
    }
}
