//! The repository lints itself: arrows between rooms, file sizes, marks, links, machine paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo;

/// Longest source file, lines.
const LINES_MAX: usize = 1_000;

/// The only imports between rooms that docs/architecture.md allows. Development dependencies are free, but for the pure
/// crates' own purity, which the wasm build checks.
const ARROWS: [(&str, &[&str]); 22] = [
    ("stele-types", &[]),
    ("stele-merkle", &[]),
    ("stele-ledger", &["stele-types", "stele-merkle"]),
    ("stele-state", &["stele-merkle", "stele-accel-hash", "stele-device"]),
    ("stele-order", &["stele-types"]),
    // Takes the place of a crate of the engine's graph, and has its name.
    ("libp2p-scatter", &[]),
    ("stele-verify", &["stele-types", "stele-merkle", "stele-evidence"]),
    ("stele-client", &["stele-types", "stele-evidence"]),
    (
        "stele-ctl",
        &["stele-client", "stele-verify", "stele-types", "stele-hsm", "stele-evidence", "stele-merkle", "stele-ledger"],
    ),
    ("stele-testkit", &["stele-types", "stele-ctl", "stele-client", "stele-verify", "stele-ledger"]),
    ("stele-accel-hash", &[]),
    ("stele-accel", &["stele-accel-hash"]),
    ("stele-hsm", &["stele-evidence"]),
    ("stele-evidence", &[]),
    ("stele-signer", &["stele-hsm", "stele-evidence", "stele-types"]),
    ("stele-device", &[]),
    ("stele-storage", &["stele-device", "stele-accel-hash"]),
    ("stele-cold", &["stele-storage", "stele-accel-hash"]),
    ("stele-fuzz", &["stele-types", "stele-merkle", "stele-verify", "stele-state", "stele-evidence"]),
    (
        "stele-demo",
        &["stele-types", "stele-client", "stele-ctl", "stele-verify", "stele-merkle", "stele-ledger", "stele-testkit"],
    ),
    ("xtask", &[]),
    // The node is the only crate that knows everyone.
    ("stele-node", &["*"]),
];

/// Crates that only one room may name.
const OWNED: [(&str, &str); 7] = [
    ("arc-malachitebft-app-channel", "stele-order"),
    ("prometheus", "stele-node"),
    ("tss-esapi", "stele-hsm"),
    ("cryptoki", "stele-hsm"),
    ("wgpu", "stele-accel"),
    ("io-uring", "stele-device"),
    ("object_store", "stele-cold"),
];

/// Runs every lint and reports all findings.
pub(crate) fn run() -> Result<()> {
    let mut findings = Vec::new();
    arrows(&mut findings)?;
    let root = cargo::root();
    for path in tracked(&root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        source(&path, &text, &mut findings);
        if path.extension().is_some_and(|extension| extension == "md") {
            links(&root, &path, &text, &mut findings);
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    bail!("{} findings", findings.len())
}

fn arrows(findings: &mut Vec<String>) -> Result<()> {
    let output = cargo::command(&["metadata", "--format-version", "1", "--no-deps", "--locked"])?.output()?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata wrote no JSON")?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(targets) = allowed.get(name) else {
            findings.push(format!("{name}: a new room; say in .ci/xtask/src/tidy.rs what it may import"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let imported = dependency["name"].as_str().unwrap_or_default();
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let room = imported.starts_with("stele-");
            if room && !targets.contains(&imported) && !targets.contains(&"*") {
                findings.push(format!("{name} imports {imported}: no such arrow in docs/architecture.md"));
            }
            if let Some((_, owner)) = OWNED.iter().find(|(owned, owner)| *owned == imported && *owner != name) {
                findings.push(format!("{name} imports {imported}, which only {owner} may name"));
            }
        }
    }
    Ok(())
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    let listed = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

fn source(path: &Path, text: &str, findings: &mut Vec<String>) {
    let shown = path.display();
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    if rust && text.lines().count() > LINES_MAX {
        findings.push(format!("{shown}: over {LINES_MAX} lines; is there a noun to split it by?"));
    }
    // Spelled in halves, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!("), concat!("todo", "!(")];
    for (number, line) in text.lines().enumerate() {
        if rust && let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
            findings.push(format!("{shown}:{}: {mark}", number + 1));
        }
        if [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")].iter().any(|path| line.contains(path))
        {
            findings.push(format!("{shown}:{}: a path of one machine", number + 1));
        }
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if rust && ["utils", "util", "common", "helpers", "misc"].contains(&stem) {
        findings.push(format!("{shown}: a file is named by a noun of its subject"));
    }
}

/// Relative links of a Markdown file must lead somewhere.
fn links(root: &Path, path: &Path, text: &str, findings: &mut Vec<String>) {
    let directory = root.join(path.parent().unwrap_or(Path::new("")));
    for (number, line) in text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") || target.contains(' ') {
                continue;
            }
            if !directory.join(target).exists() {
                findings.push(format!("{}:{}: {target} does not exist", path.display(), number + 1));
            }
        }
    }
}
