//! What is kept when the disks of a node are full, or gone: old blocks in the payload store, and a backup that is proven by
//! restoring it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stele_client::{Client, Wait};
use stele_types::StatementId;
use stele_verify::TrustAnchor;

use crate::demo::verify_all;
use crate::growth::scrape;
use crate::stage::{Stage, steled};

/// Blocks so much older than the newest one move into the payload store.
pub(crate) const ARCHIVE_AFTER_MS: u64 = 15_000;

/// How long that may take: the last ones are made while the demo runs.
const ARCHIVE_WAIT_MAX: Duration = Duration::from_secs(120);

/// Statements that are proven again from blocks that are archived: the first ones.
const PROVEN: usize = 1_000;

/// The node that is looked at.
const NODE: usize = 1;

/// What keeping took.
pub(crate) struct Kept {
    /// Blocks that left the data directory of the node.
    pub(crate) archived: u64,
    /// Height of the node.
    pub(crate) height: u64,
    /// Bundles that were proven from blocks which every node has archived.
    pub(crate) proven: usize,
    /// Bytes of the backup.
    pub(crate) backup_bytes: u64,
    /// Bodies that were opened from it.
    pub(crate) bodies: u64,
    pub(crate) backup_seconds: f64,
    pub(crate) drill_seconds: f64,
}

/// Waits until old blocks have moved, proves the first statements from them, backs a node up and rehearses its restore.
pub(crate) async fn keep(stage: &Stage, clients: &[Client], ids: &[StatementId], anchor: &TrustAnchor) -> Result<Kept> {
    let first = ids.get(..PROVEN).unwrap_or(ids);
    let statuses = clients.first().context("a node")?.statuses(first, Wait::None).await?;
    let needed = statuses.iter().filter_map(|status| status.height).max().context("no statement is decided")?;
    let deadline = Instant::now() + ARCHIVE_WAIT_MAX;
    for node in 0..stage.network.len() {
        while directory_begins_at(stage, node)? <= needed.0 {
            ensure!(Instant::now() < deadline, "blocks stay in the data directory of node {node}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let proven = verify_all(clients, first, anchor).await?;
    let metrics = scrape(&stage.network.profile().nodes[NODE].metrics)?;
    let series = metrics.lines().find_map(|line| line.strip_prefix("stele_storage_blocks_archived_total "));
    let archived = series.context("no figure of archived blocks")?.parse()?;
    let height = clients[NODE].network().await?.height;

    let repository = stage.root()?.with_file_name("backup");
    let config = stage.network.dir().node(&stage.network.profile().nodes[NODE].name).config();
    let backup = |command: &str| -> Result<(Value, f64)> {
        let started = Instant::now();
        let mut steled = Command::new(steled()?);
        steled.args(["backup", command, "--json", "--config"]).arg(&config).arg("--repository").arg(&repository);
        let said = steled.output().context("cannot run steled backup")?;
        let words = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "steled backup {command}: {words}");
        let answer = serde_json::from_slice(&said.stdout).with_context(|| words.into_owned())?;
        Ok((answer, started.elapsed().as_secs_f64()))
    };
    let (made, backup_seconds) = backup("create")?;
    let (rehearsed, drill_seconds) = backup("drill")?;
    ensure!(rehearsed["height"] == made["height"], "{made}, and rehearsed: {rehearsed}");
    Ok(Kept {
        archived,
        height,
        proven,
        backup_bytes: made["new_bytes"].as_u64().unwrap_or_default(),
        bodies: rehearsed["opened_bodies"].as_u64().unwrap_or_default(),
        backup_seconds,
        drill_seconds,
    })
}

/// The first height whose block is in the data directory of a node.
fn directory_begins_at(stage: &Stage, node: usize) -> Result<u64> {
    let data = stage.network.dir().node(&stage.network.profile().nodes[node].name).data();
    let entries = std::fs::read_dir(data.join("chain").join("blocks")).context("cannot list blocks")?;
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let own = paths.iter().filter(|path| path.extension().is_some_and(|kind| kind == "blocks"));
    let first = own.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).min();
    first.context("no blocks")
}
