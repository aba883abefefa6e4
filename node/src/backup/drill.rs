//! A rehearsal: the newest backup is restored into a scratch directory, bodies are opened, and nothing is left behind.
//!
//! What was never restored is no backup. The drill takes the way of a real restore, onto a store of its own on one file, and
//! can take the recovery key in place of the node's custody key, which shows that it opens what it should.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use stele_hsm::custody::SoftwareCustodian;
use stele_types::{Hash, Height, NetworkId};
use tokio::runtime::Runtime;
use tracing::info;

use super::BackupError;
use super::check::{Facts, Opened};
use super::file::check_room;
use super::repository::Repository;
use super::restore::{Restored, Target, Times, restore};
use crate::config::{Config, DriveEntry, PayloadSection};
use crate::keys::NodeKeys;
use crate::payload::{Ledger, Payload, PayloadError};
use crate::store::durable;

/// Begin of the names of scratch directories, whose leftovers the next drill removes.
const PREFIX: &str = "stele-drill-";

/// Column of the scratch store's segments.
const SLOT_BYTES: u64 = 16 << 20;

/// What is rehearsed.
pub(crate) struct Rehearsal {
    pub(crate) number: Option<u64>,
    /// Bodies that are opened, taken at random.
    pub(crate) bodies: usize,
    pub(crate) unseal: Option<SoftwareCustodian>,
}

/// What a drill found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rehearsed {
    pub(crate) backup: u64,
    pub(crate) height: u64,
    pub(crate) state_root: String,
    #[serde(flatten)]
    pub(crate) facts: Facts,
    pub(crate) opened_bodies: u64,
    pub(crate) opened_bytes: u64,
    #[serde(flatten)]
    pub(crate) times: Times,
    pub(crate) total_seconds: f64,
}

/// A directory that is removed at the end, also when a signal ends the process.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: fs::File,
}

impl Scratch {
    /// Makes one in `parent`, and removes those that drills left which were killed.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn new(parent: &Path) -> Result<Self, BackupError> {
        for entry in fs::read_dir(parent).map_err(BackupError::io("list", parent))?.flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let left = is_directory && entry.file_name().to_string_lossy().starts_with(PREFIX);
            // Who still works in it holds its lock.
            if left && matches!(durable::lock_directory(&entry.path()), Ok(Some(_))) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(BackupError::io("create", &path))?;
        let lock = durable::lock_directory(&path).map_err(BackupError::io("lock", &path))?;
        Ok(Self { path: path.clone(), _lock: lock.ok_or(BackupError::Locked(path))? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Rehearses a restore in `scratch`, which is empty.
///
/// # Errors
/// As [`restore`]; `payload_does_not_open` if a body does not.
pub(crate) fn drill(
    repository: &Repository,
    config: &Config,
    network: NetworkId,
    rehearsal: Rehearsal,
    scratch: &Scratch,
    runtime: &Arc<Runtime>,
) -> Result<Rehearsed, BackupError> {
    let begun = Instant::now();
    repository.check_network(network)?;
    let opened = Opened::read(repository, repository.find(rehearsal.number)?)?;
    let config = scratch_config(config, &opened, scratch.path(), rehearsal.unseal.is_some())?;
    let section = config.payload.clone();
    let drives = section.as_ref().map_or(0, |section| section.drives.iter().filter_map(|drive| drive.bytes).sum());
    check_room(
        scratch.path(),
        opened.manifest.bytes().saturating_sub(opened.manifest.bodies.bytes).saturating_add(drives),
    )?;
    let number = opened.manifest.number;
    let target = Target { config: &config, network, unseal: rehearsal.unseal };
    let Restored { facts, tip, times, .. } = restore(repository, Some(number), &target, runtime)?;
    let (mut opened_bodies, mut opened_bytes) = (0, 0);
    if let Some(section) = section {
        let history_min = Height(opened.manifest.oldest);
        let ledger = Ledger { network, height: tip.height, time_ms: tip.time_ms, history_min };
        let roots = sample(&opened, rehearsal.bodies)?;
        info!(bodies = roots.len(), "bodies are opened");
        (opened_bodies, opened_bytes) = runtime.block_on(async {
            let custodian = NodeKeys::new(&config).custodian(&section).await.map_err(PayloadError::from)?;
            let payload = Payload::open(&section, &config.node.data_dir, ledger, custodian).await?;
            let bytes = open_all(&payload, &roots).await?;
            payload.close().await?;
            Ok::<_, BackupError>((roots.len() as u64, bytes))
        })?;
    }
    Ok(Rehearsed {
        backup: number,
        height: tip.height.0,
        state_root: tip.state_root.to_hex(),
        facts,
        opened_bodies,
        opened_bytes,
        times,
        total_seconds: begun.elapsed().as_secs_f64(),
    })
}

/// The configuration of a node in the scratch directory.
fn scratch_config(config: &Config, opened: &Opened<'_>, scratch: &Path, anew: bool) -> Result<Config, BackupError> {
    let mut config = config.clone();
    config.node.data_dir = scratch.join("data");
    if opened.places.is_empty() {
        config.payload = None;
    }
    if let Some(section) = &mut config.payload {
        let drive = DriveEntry { path: scratch.join("drive"), bytes: Some(drive_bytes(opened)) };
        *section = PayloadSection {
            drives: vec![drive],
            data_columns: 1,
            parity_columns: 0,
            slot_bytes: SLOT_BYTES,
            custody: None,
            cold: None,
            ..section.clone()
        };
        if anew {
            let path = scratch.join("custody.key");
            SoftwareCustodian::generate(&path).map_err(PayloadError::from)?;
            section.custody_key = Some(path);
        }
    }
    Ok(config)
}

/// Room for every body in a batch of its own, which costs most, and for what the store keeps besides.
fn drive_bytes(opened: &Opened<'_>) -> u64 {
    let each = |bytes: u64| bytes.next_multiple_of(4096) + bytes / 512 + (16 << 10);
    let bodies = opened.places.iter().map(|place| each(place.bytes)).fold(0, u64::saturating_add);
    (bodies + bodies / 8 + 8 * SLOT_BYTES).next_multiple_of(SLOT_BYTES)
}

/// Roots of bodies, taken at random, each once.
fn sample(opened: &Opened<'_>, most: usize) -> Result<Vec<Hash>, BackupError> {
    let mut roots: Vec<Hash> = opened.places.iter().map(|place| place.root).collect();
    let taken = most.min(roots.len());
    for at in 0..taken {
        let mut bytes = [0; 8];
        let random =
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"));
        random.map_err(BackupError::io("choose bodies of", opened.repository.root()))?;
        let left = (roots.len() - at) as u64;
        let chosen = usize::try_from(u64::from_le_bytes(bytes) % left).unwrap_or_default();
        roots.swap(at, at + chosen);
    }
    roots.truncate(taken);
    Ok(roots)
}

/// Opens bodies from their first byte to their last; how many bytes.
async fn open_all(payload: &Payload, roots: &[Hash]) -> Result<u64, PayloadError> {
    let mut opened = 0;
    for root in roots {
        let mut body = payload.open_sealed(payload.sealed(root).await?).await?;
        let mut at = 0;
        while at < body.bytes() {
            let piece = body.read(at, u64::MAX).await?;
            if piece.is_empty() {
                return Err(PayloadError::DoesNotOpen);
            }
            at += piece.len() as u64;
        }
        opened += at;
    }
    Ok(opened)
}
