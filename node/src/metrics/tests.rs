use std::time::Duration;

use stele_storage::Traffic;
use stele_types::Code;

use super::label::{Admitted, Class, Handshake, Label as _, SealKey, TlsSuite};
use super::*;

/// Largest number of series of one node: what one Prometheus server takes from thousands of nodes without notice.
const SERIES_MAX: usize = 2_200;

fn metrics() -> Arc<Metrics> {
    Metrics::new(&Version { version: "1.2.3".into(), ..Version::default() })
}

#[test]
fn every_series_exists_from_the_start_and_they_are_not_too_many() {
    let text = metrics().render();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < SERIES_MAX, "{series} series");
    for line in [
        "stele_admission_submissions_total{class=\"medical\",result=\"accepted\"} 0",
        "stele_admission_submissions_total{class=\"unparsed\",result=\"malformed\"} 0",
        "stele_execute_state_root_mismatches_total 0",
        "stele_seal_signatures_total{key=\"checkpoint\",provider=\"software\",result=\"failure\"} 0",
        "stele_receipt_duration_seconds_count{class=\"property\"} 0",
        "stele_order_decision_duration_seconds_bucket{le=\"+Inf\"} 0",
        "stele_build_info{image_digest=\"\",revision=\"\",rustc=\"\",version=\"1.2.3\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
    }
    assert!(text.contains("\nprocess_start_time_seconds "), "the process collector is registered");
}

/// Even if every refusal of every class and every status of every route happened, the budget holds.
#[test]
fn series_stay_within_the_budget_when_everything_has_happened() {
    let metrics = metrics();
    for class in Class::every() {
        for result in Admitted::every() {
            if let Admitted::Refused(code) = result {
                // Bytes that were parsed are not refused as unparsable, so most combinations cannot happen; this
                // counts those that can.
                let parse_failure = (100..=111).contains(&code.number());
                if (class == Class::Unparsed) == parse_failure {
                    metrics.admission.refused(class, code, 1);
                }
            }
        }
    }
    let text = metrics.render();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < SERIES_MAX, "{series} series");
}

#[test]
fn names_follow_the_conventions() {
    let metrics = metrics();
    let mut names = std::collections::BTreeSet::new();
    for family in metrics.registry.descriptions() {
        let name = &family.name;
        assert!(names.insert(name), "{name} is registered twice");
        assert!(name.starts_with("stele_"), "{name}");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
        assert!(family.help.ends_with('.'), "{name}: help is a sentence");
        for abbreviation in ["_ms", "_secs", "_micros", "_kb", "_pct", "milliseconds"] {
            assert!(!name.contains(abbreviation), "{name} is not in a base unit");
        }
    }
}

#[test]
fn handles_reach_their_series() {
    let metrics = metrics();
    metrics.admission.accepted(Class::Tax, 500);
    metrics.admission.refused(Class::Unparsed, Code::Saturated, 10);
    let mut figures = stele_accel::Figures::default();
    figures.suites[stele_accel::Suite::Ed25519.index()] = stele_accel::SuiteFigures { valid: 7, invalid: 1 };
    figures.gpu.valid[stele_accel::Suite::Ed25519.index()] = 4;
    metrics.accel.update(&figures);
    metrics.seal.signature(label::Provider::Software, SealKey::Checkpoint, true, Duration::from_millis(2));
    metrics.tls.handshake(Handshake::Completed, TlsSuite::Aes256);
    metrics.build.configuration("0123456789abcdef");
    metrics.execute.block(9, 3, Duration::from_millis(4));
    let text = metrics.render();
    for line in [
        "stele_admission_submissions_total{class=\"tax\",result=\"accepted\"} 1",
        "stele_admission_submission_bytes_total{class=\"tax\"} 500",
        "stele_admission_throttled_total{reason=\"saturated\"} 1",
        "stele_accel_items_verified_total{backend=\"cpu\",scheme=\"eddsa\",verdict=\"valid\"} 3",
        "stele_accel_items_verified_total{backend=\"gpu\",scheme=\"eddsa\",verdict=\"valid\"} 4",
        "stele_accel_items_verified_total{backend=\"cpu\",scheme=\"eddsa\",verdict=\"invalid\"} 1",
        "stele_seal_sign_duration_seconds_bucket{provider=\"software\",le=\"0.005\"} 1",
        "stele_tls_handshakes_total{result=\"completed\",suite=\"tls13_aes256\"} 1",
        "stele_config_info{hash=\"0123456789abcdef\"} 1",
        "stele_execute_block_transactions_sum 3",
        "stele_execute_height 9",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("hash=\"\""), "one configuration is in force");
}

#[test]
fn the_orders_totals_and_histogram_are_taken_over_and_never_go_back() {
    let metrics = metrics();
    let mut figures = OrderFigures { rounds_extra: 5, decision_ms_total: 1_500, ..OrderFigures::default() };
    figures.decision_buckets = &[0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    metrics.order.update(&figures);
    figures.rounds_extra = 3;
    metrics.order.update(&figures);
    let text = metrics.render();
    for line in [
        "stele_order_rounds_extra_total 5",
        "stele_order_decision_duration_seconds_bucket{le=\"0.05\"} 0",
        "stele_order_decision_duration_seconds_bucket{le=\"0.1\"} 2",
        "stele_order_decision_duration_seconds_bucket{le=\"1\"} 3",
        "stele_order_decision_duration_seconds_count 3",
        "stele_order_decision_duration_seconds_sum 1.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
    }
}

/// Most drives that the budget holds for: a store of 8 + 3 columns with a spare.
const DRIVES_MAX: usize = 12;

#[test]
fn each_drive_tells_what_it_was_asked_and_how_long_that_took() {
    let metrics = metrics();
    let before = metrics.render().lines().filter(|line| !line.starts_with('#')).count();
    let mut traffic = Traffic { in_flight: 3, ..Traffic::default() };
    traffic.reads.bytes = 8_192;
    traffic.reads.latencies[0] = 2;
    traffic.reads.latencies[8] = 1;
    traffic.reads.latency_ns = 1_500_000_000;
    traffic.writes.errors = 1;
    metrics.storage.traffic(&[traffic; DRIVES_MAX]);
    let text = metrics.render();
    for line in [
        "stele_storage_device_duration_seconds_bucket{device=\"11\",op=\"read\",le=\"0.0001\"} 2",
        "stele_storage_device_duration_seconds_bucket{device=\"11\",op=\"read\",le=\"1\"} 2",
        "stele_storage_device_duration_seconds_bucket{device=\"11\",op=\"read\",le=\"+Inf\"} 3",
        "stele_storage_device_duration_seconds_sum{device=\"11\",op=\"read\"} 1.5",
        "stele_storage_device_duration_seconds_count{device=\"0\",op=\"write\"} 0",
        "stele_storage_device_bytes_total{device=\"0\",op=\"read\"} 8192",
        "stele_storage_device_errors_total{device=\"0\",op=\"write\"} 1",
        "stele_storage_device_in_flight{device=\"7\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("op=\"flush\""), "nobody asked for one");
    let series = text.lines().filter(|line| !line.starts_with('#')).count() - before;
    assert!(series <= 28 * DRIVES_MAX, "{series} series");
}

/// Run with `STELE_UPDATE_DOCS=1` to write the page anew.
#[test]
fn the_committed_page_lists_what_is_registered() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring/metrics.md");
    let page = document();
    if std::env::var_os("STELE_UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(committed, page, "docs/monitoring/metrics.md is behind: run this test with STELE_UPDATE_DOCS=1");
}

/// Alerts name metrics that exist, and every alert has its page and a test.
#[test]
fn alerts_use_registered_metrics_and_have_runbooks_and_tests() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |path: &str| std::fs::read_to_string(docs.join(path)).unwrap();
    let (rules, tests) = (read("monitoring/rules.yml"), read("monitoring/rules_test.yml"));
    let metrics = metrics();
    let names: Vec<&str> = metrics.registry.descriptions().iter().map(|family| family.name.as_str()).collect();
    let mut used = 0;
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("stele_"))
    {
        let family = word.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
        assert!(names.contains(&family), "rules.yml names {word}, which no node has");
        used += 1;
    }
    assert!(used > 10, "the rules were read");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let runbook = read(&format!("runbooks/{alert}.md"));
        for part in ["**Meaning.**", "**Impact.**", "**Diagnose.**", "**Fix.**", "**Escalate.**"] {
            assert!(runbook.contains(part), "docs/runbooks/{alert}.md lacks {part}");
        }
        assert!(rules.contains(&format!("runbook_url: docs/runbooks/{alert}.md")), "{alert} links its runbook");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has a test");
    }
    // Done by decision, and not because an alert fires.
    let procedures = ["RestoreFromBackup.md"];
    for runbook in std::fs::read_dir(docs.join("runbooks")).unwrap() {
        let name = runbook.unwrap().file_name().into_string().unwrap();
        if procedures.contains(&name.as_str()) {
            continue;
        }
        let alert = name.trim_end_matches(".md");
        assert!(rules.contains(&format!("- alert: {alert}\n")), "docs/runbooks/{name} belongs to no alert");
    }
}
