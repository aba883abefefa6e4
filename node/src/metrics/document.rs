//! `docs/monitoring/metrics.md`, written from what is registered.

use std::fmt::Write as _;

use super::{Metrics, Version};

/// The Markdown page that lists every family. A test compares it with the committed one.
pub fn document() -> String {
    let metrics = Metrics::new(&Version::default());
    let mut page = String::from(
        "# Metrics\n\n\
         Generated from the program; a test fails when this page is behind. Scrape `/metrics` of the listener that \
         `metrics.listen` names. Every series exists from the start with the value 0, and no label carries an id or \
         text from outside. Durations are seconds, sizes bytes. Beside these, `process_*` tells CPU, memory, file \
         descriptors, threads and the start time of the process.\n",
    );
    let mut sections: Vec<(&str, String)> = Vec::new();
    for family in metrics.registry.descriptions() {
        let heading = heading(&family.name);
        let section = match sections.iter().position(|(name, _)| *name == heading) {
            Some(index) => index,
            None => {
                sections.push((heading, String::new()));
                sections.len() - 1
            }
        };
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        // Writing to a String cannot fail.
        let rows = &mut sections[section].1;
        let _ = writeln!(rows, "| `{}` | {} | {labels} | {} |", family.name, family.kind, family.help);
    }
    for (heading, rows) in sections {
        let _ = write!(page, "\n## {heading}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}");
    }
    page
}

/// The stage that a metric belongs to: its first word, but for those of the process and of the whole pipeline.
fn heading(name: &str) -> &str {
    match name {
        "stele_log_messages_total" => "process",
        _ => match name.trim_start_matches("stele_").split('_').next().unwrap_or_default() {
            "build" | "config" => "process",
            "receipt" => "pipeline",
            word => word,
        },
    }
}
