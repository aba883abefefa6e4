//! Making a node's data of a backup.
//!
//! Nothing is believed that was not verified, and the chain's directory gets its name last: a node that starts meanwhile, or
//! after a restore that was broken off, finds no chain. A restore that was broken off is begun again by the same command;
//! bodies that are there already are not put again.
//!
//! Keys and guards are in no backup. Those beside the configuration stay, so a node that keeps its guard cannot vote a
//! second time at heights that its chain has forgotten; where a guard is gone, the node does not start before somebody makes
//! one that signs nothing below a height of his choice.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use serde::Serialize;
use stele_hsm::custody::{Custodian as _, CustodyPublicKey, SoftwareCustodian};
use stele_state::KeyRange;
use stele_storage::{StorageError, Store};
use stele_types::NetworkId;
use tokio::runtime::Runtime;
use tracing::info;

use super::BackupError;
use super::bodies::{Place, body_error};
use super::check::{Facts, Opened, Walked};
use super::create::now_ms;
use super::repository::Repository;
use crate::chain::{ChainOptions, Restoration, Tip};
use crate::config::Config;
use crate::keys::NodeKeys;
use crate::payload::PayloadError;
use crate::payload::parts::{self, KeyTable};
use crate::store::durable;

/// In the data directory while it is being restored: what is there may be made anew.
const MARK: &str = "restoring";

/// Bodies up to this length are put several at a time; a longer one is put by itself, while it is read.
const SMALL_BYTES: u64 = 1 << 20;

/// Small bodies that are in memory at a time.
const TOGETHER: usize = 64;

/// What a data directory may hold that is no node's data: a mount point's, and what a node that found no chain leaves.
const NOTHING: [&str; 3] = ["lost+found", "control.token", MARK];

/// Where a backup is restored to.
pub(crate) struct Target<'c> {
    pub(crate) config: &'c Config,
    pub(crate) network: NetworkId,
    /// Opens class keys that were sealed for another key than the node's: the recovery key, or that of the node of the backup.
    pub(crate) unseal: Option<SoftwareCustodian>,
}

/// What was restored.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) facts: Facts,
    pub(crate) tip: Tip,
    pub(crate) times: Times,
    /// Whether class keys were sealed anew, for another custody key.
    pub(crate) resealed: bool,
}

/// How long the parts took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Times {
    /// Blocks verified and written, snapshot of the state.
    pub(crate) chain_seconds: f64,
    /// Opening: blocks above the state executed, the log and the index made.
    pub(crate) open_seconds: f64,
    pub(crate) bodies_seconds: f64,
}

/// Restores a backup onto an empty data directory.
///
/// # Errors
/// See [`BackupError`]. What was restored so far is no node's data yet, and is taken up by the next try.
pub(crate) fn restore(
    repository: &Repository,
    number: Option<u64>,
    target: &Target<'_>,
    runtime: &Arc<Runtime>,
) -> Result<Restored, BackupError> {
    repository.check_network(target.network)?;
    let opened = Opened::read(repository, repository.find(number)?)?;
    let data_dir = &target.config.node.data_dir;
    let keys = class_keys(&opened, target, runtime)?;
    begin(target.config)?;
    let begun = Instant::now();
    let (restoration, walked, state_pairs) = chain(&opened, data_dir)?;
    let chain_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    bodies(&opened, target, runtime, keys.as_ref().map(|(table, _)| table))?;
    let bodies_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    info!(height = opened.manifest.height, "the chain is opened: blocks above the state are executed");
    let tip = restoration.finish(
        &opened.genesis_bytes,
        &opened.genesis,
        &walked.links,
        &walked.epochs,
        options(target.config),
    )?;
    if (tip.height.0, tip.block) != (opened.manifest.height, opened.manifest.header_id()) {
        let reason = "the restored chain ends elsewhere".to_owned();
        return Err(BackupError::Chain { path: data_dir.clone(), height: tip.height.0, reason });
    }
    let mark = data_dir.join(MARK);
    durable::remove_if_present(&mark).map_err(BackupError::io("remove", &mark))?;
    durable::sync_directory(data_dir).map_err(BackupError::io("flush", data_dir))?;
    let times = Times { chain_seconds, bodies_seconds, open_seconds: begun.elapsed().as_secs_f64() };
    Ok(Restored { facts: opened.facts(&walked, state_pairs), tip, times, resealed: keys.is_some_and(|(_, anew)| anew) })
}

/// Refuses to touch what somebody uses, and marks what is begun.
fn begin(config: &Config) -> Result<(), BackupError> {
    let data_dir = &config.node.data_dir;
    durable::create_directory(data_dir).map_err(BackupError::io("create", data_dir))?;
    let mark = data_dir.join(MARK);
    let resumed = mark.exists();
    let chain = data_dir.join("chain");
    if resumed && chain.exists() {
        durable::remove_if_present(&mark).map_err(BackupError::io("remove", &mark))?;
        let reason = "the restore had come to its end: start the node".to_owned();
        return Err(BackupError::NotEmpty { path: chain, reason });
    }
    for entry in fs::read_dir(data_dir).map_err(BackupError::io("list", data_dir))? {
        let name = entry.map_err(BackupError::io("list", data_dir))?.file_name();
        // It was empty when a restore marked it: what is there was made by that.
        if !resumed && !NOTHING.iter().any(|nothing| name == *nothing) {
            let reason = "a backup is restored onto an empty data directory; move this away first".to_owned();
            return Err(BackupError::NotEmpty { path: data_dir.join(name), reason });
        }
    }
    let files = config.payload.iter().flat_map(|section| &section.drives).filter(|drive| drive.bytes.is_some());
    if let Some(drive) = files.filter(|drive| drive.path.exists()).find(|_| !resumed) {
        let reason = "a drive of the payload store is there already; move it away first".to_owned();
        return Err(BackupError::NotEmpty { path: drive.path.clone(), reason });
    }
    durable::replace_file(data_dir, MARK, b"stele restore writes here\n").map_err(BackupError::io("write", &mark))
}

/// Verifies the chain and writes it, with its state.
fn chain(opened: &Opened<'_>, data_dir: &Path) -> Result<(Restoration, Walked, u64), BackupError> {
    let state = opened.state()?;
    let height = state.as_ref().map_or(0, |(_, reader)| reader.height());
    let network = opened.genesis.network();
    let mut restoration = Restoration::begin(&data_dir.join("chain"), network, height, opened.base())?;
    let mut pairs = 0;
    if let Some((path, reader)) = state {
        let refused = |reason: String| BackupError::State { path: path.clone(), reason };
        let mut builder = restoration.state(&opened.genesis, reader.root(), reader.depth())?;
        for range in (0..1 << reader.depth()).filter_map(|index| KeyRange::new(reader.depth(), index)) {
            let chunk = reader.chunk(range).map_err(|error| refused(error.to_string()))?;
            let chunk = chunk.ok_or_else(|| refused("it lacks a range".to_owned()))?;
            builder.add(&chunk)?.map_err(|error| refused(error.to_string()))?;
        }
        builder.finish()?;
        pairs = reader.pairs();
        info!(pairs, height, "the state is in place");
    }
    let walked = opened.chain(|_, block| Ok(restoration.block(block)?))?;
    Ok((restoration, walked, pairs))
}

/// The table of class keys for the node, and whether it was sealed anew; none if the node keeps no bodies, or there are none.
fn class_keys(
    opened: &Opened<'_>,
    target: &Target<'_>,
    runtime: &Runtime,
) -> Result<Option<(KeyTable, bool)>, BackupError> {
    let Some(section) = &target.config.payload else {
        if opened.places.is_empty() {
            return Ok(None);
        }
        let reason = "the backup has bodies, and the configuration has no [payload] to keep them";
        return Err(BackupError::keys(reason));
    };
    let Some(own_table) = opened.class_keys(parts::CLASS_KEYS)? else { return Ok(None) };
    let custodian = runtime.block_on(async { NodeKeys::new(target.config).custodian(section).await });
    let custodian = custodian.map_err(PayloadError::from)?;
    let own = custodian.public_key();
    let manifest = &opened.manifest;
    let key = |text: &Option<String>| -> Option<CustodyPublicKey> { hex::decode(text.as_ref()?).ok()?.try_into().ok() };
    let old = key(&manifest.custody_key).ok_or_else(|| BackupError::keys("the manifest names no custody key"))?;
    if *own == old {
        runtime.block_on(own_table.check(&*custodian))?;
        return Ok(Some((own_table, false)));
    }
    let Some(unseal) = &target.unseal else {
        return Err(BackupError::keys(
            "class keys are sealed for another custody key than this node's: name the private half of the recovery key, or \
             the custody key of the node of the backup, with --unseal-key",
        ));
    };
    let table = if *unseal.public_key() == old {
        own_table
    } else if Some(*unseal.public_key()) == key(&manifest.recovery_key) {
        let lacking = || BackupError::keys("the manifest names a recovery key and has no class keys for it");
        opened.class_keys("class-keys.recovery")?.ok_or_else(lacking)?
    } else {
        let reason = "--unseal-key is neither the recovery key of the backup nor the custody key of its node";
        return Err(BackupError::keys(reason));
    };
    let table = runtime.block_on(table.sealed_for(unseal, own))?;
    // A key that the configuration gives to another node is that node's still; else it is this node's former one.
    let keepers = section.custody.iter().flat_map(|custody| &custody.keepers);
    let is_other = keepers.into_iter().any(|keeper| keeper.custody_key.eq_ignore_ascii_case(&hex::encode(old)));
    let now = if is_other { old } else { *own };
    Ok(Some((table.moved(&old, &now), true)))
}

/// Puts the bodies into the store, and beside it what belongs to them.
fn bodies(
    opened: &Opened<'_>,
    target: &Target<'_>,
    runtime: &Runtime,
    keys: Option<&KeyTable>,
) -> Result<(), BackupError> {
    let Some(section) = &target.config.payload else { return Ok(()) };
    let directory = target.config.node.data_dir.join(parts::DIRECTORY);
    durable::create_directory(&directory).map_err(BackupError::io("create", &directory))?;
    let store = parts::open_store(section, &directory)?;
    if store.hash() != stele_accel_hash::HashAlgorithm::Sha256 {
        let reason = "its store has another hash than that of bodies".to_owned();
        return Err(BackupError::NotEmpty { path: directory, reason });
    }
    let mut small = Small { store: &store, runtime, bodies: Vec::new() };
    let mut done = 0_u64;
    opened.bodies(|path, place, bytes| {
        done += 1;
        if done.is_multiple_of(10_000) {
            info!(bodies = done, of = opened.manifest.bodies.count, "bodies are put");
        }
        if store.has(&place.root.0)? {
            io::copy(bytes, &mut io::sink()).map_err(BackupError::io("read", path))?;
            Ok(())
        } else if place.bytes <= SMALL_BYTES {
            small.put(path, place, bytes)
        } else {
            runtime.block_on(put(&store, path, place, bytes))
        }
    })?;
    small.flush()?;
    runtime.block_on(store.close())?;
    let write = |name: &str, bytes: &[u8]| {
        durable::replace_file(&directory, name, bytes).map_err(BackupError::io("write", &directory.join(name)))
    };
    let journal = opened.journal()?;
    if !journal.is_empty() {
        write(parts::JOURNAL, &journal)?;
    }
    keys.map_or(Ok(()), |keys| write(parts::CLASS_KEYS, &keys.encode()))
}

/// Small bodies, which are made durable together.
struct Small<'s> {
    store: &'s Store,
    runtime: &'s Runtime,
    bodies: Vec<(PathBuf, Place, Bytes)>,
}

impl Small<'_> {
    fn put(&mut self, path: &Path, place: &Place, bytes: &mut dyn io::Read) -> Result<(), BackupError> {
        let mut body = Vec::with_capacity(usize::try_from(place.bytes.min(SMALL_BYTES)).unwrap_or_default());
        bytes.take(SMALL_BYTES).read_to_end(&mut body).map_err(BackupError::io("read", path))?;
        self.bodies.push((path.to_owned(), *place, body.into()));
        if self.bodies.len() < TOGETHER { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        let store = self.store;
        let puts = self.bodies.drain(..).map(|(path, place, bytes)| async move {
            let mut upload = store.upload(place.group, now_ms())?;
            upload.write(&bytes).await?;
            let ended = upload.finish_as(&place.root.0).await;
            ended.map(drop).map_err(|error| misfit(error, &path, &place))
        });
        self.runtime.block_on(async {
            let mut puts = stream::iter(puts).buffer_unordered(TOGETHER);
            while let Some(put) = puts.next().await {
                put?;
            }
            Ok(())
        })
    }
}

/// Puts a body while it is read.
async fn put(store: &Store, path: &Path, place: &Place, bytes: &mut dyn io::Read) -> Result<(), BackupError> {
    let mut upload = store.upload(place.group, now_ms())?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match bytes.read(&mut buffer).map_err(BackupError::io("read", path))? {
            0 => break,
            count => upload.write(&buffer[..count]).await?,
        }
    }
    upload.finish_as(&place.root.0).await.map(drop).map_err(|error| misfit(error, path, place))
}

fn misfit(error: StorageError, path: &Path, place: &Place) -> BackupError {
    match error {
        StorageError::WrongContent => body_error(path, &place.root, "it has another root"),
        error => error.into(),
    }
}

/// How the chain is opened: as its node will.
fn options(config: &Config) -> ChainOptions {
    let section = &config.state;
    ChainOptions {
        // Snapshots for others are the node's.
        snapshot_interval: 0,
        values_memory_bytes: section.values_memory_bytes,
        layout: section.layout(),
        page_cache_bytes: section.page_cache_bytes,
        threads: section.threads,
    }
}
