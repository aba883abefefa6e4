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
    let mut stage = String::new();
    for family in metrics.registry.descriptions() {
        let name = family.name.trim_start_matches("stele_");
        let word = name.split('_').next().unwrap_or_default();
        if word != stage {
            stage = word.to_owned();
            let heading = match word {
                "build" | "config" | "task" => "process",
                "receipt" => "pipeline",
                other => other,
            };
            let title = format!("\n## {heading}\n");
            // Families of one heading stand together, but for those that share it under another first word.
            if !page.contains(&title) {
                page.push_str(&title);
                page.push_str("\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
            }
        }
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{}` | {} | {labels} | {} |", family.name, family.kind, family.help);
    }
    page
}
