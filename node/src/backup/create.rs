//! Making a backup of a node, which may run meanwhile.
//!
//! Order matters: the journal of bodies first, so that no body which comes later is taken for one that no statement will
//! name; class keys last, so that every body that was copied has its key. What an interrupted backup finished is taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use stele_hsm::custody::CustodyPublicKey;
use stele_state::SnapshotReader;
use stele_storage::Group;
use stele_types::{Block, BlockId, Genesis, Hash, Header, Height};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use super::BackupError;
use super::blocks::{BlockFiles, each_block};
use super::bodies::{self, Packs, Place, decode_list, encode_list, listed_in};
use super::file::{self, CheckedFile, FileEntry, NewFile, check_room, measured};
use super::manifest::{
    Bodies, LogHead, Manifest, StateHead, block_heights, blocks_name, pack_name, pack_number, state_name,
};
use super::repository::{GENESIS_FILE, Repository, VERSION, backup_name};
use super::source::{PASSES_MAX, Source, Unread};
use super::trust::Trust;
use crate::chain::{ChainFiles, CopiedBlock};
use crate::config::Config;
use crate::keys::NodeKeys;
use crate::payload::parts::{self, KeyTable};
use crate::store::durable;

/// The journal at most: as many lines as bodies may wait, several times over.
pub(super) const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// The table of class keys at most.
pub(super) const KEYS_BYTES_MAX: u64 = 64 << 20;

/// In the data directory: when the newest backup was finished, and its height. The node shows both as metrics.
const LAST_FILE: &str = "backup";

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) repository: PathBuf,
    /// Public key for which class keys are sealed, too.
    pub(crate) recovery_key: Option<CustodyPublicKey>,
    /// The node does not run: its drives are opened.
    pub(crate) stopped: bool,
}

/// What was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) manifest: Manifest,
    /// Bytes that were written by this backup.
    pub(crate) new_bytes: u64,
    pub(crate) new_blocks: u64,
    pub(crate) new_bodies: u64,
    /// Bodies and directories of the store that could not be read, and are in no backup.
    pub(crate) unreadable: u64,
}

/// A backup in the making.
struct Making<'c> {
    config: &'c Config,
    repository: Repository,
    chain: ChainFiles,
    before: Option<Manifest>,
    number: u64,
    files: BTreeMap<String, FileEntry>,
    new_bytes: u64,
}

/// Newest block, and what its header certifies.
struct Tip {
    oldest: u64,
    header: Header,
}

/// Makes a backup.
///
/// # Errors
/// See [`BackupError`]; the repository is as good as before then.
pub(crate) fn create(
    config: &Config,
    (genesis_bytes, genesis): (&[u8], &Genesis),
    wanted: &Wanted,
    runtime: &Arc<Runtime>,
) -> Result<Made, BackupError> {
    let begun_ms = now_ms();
    let network = genesis.network();
    let data_dir = &config.node.data_dir;
    // While its drives are read here, the node must not start without them.
    let _held = if wanted.stopped { Some(hold(data_dir)?) } else { None };
    let source = Source::open(config, runtime, wanted.stopped)?;
    let chain = ChainFiles::open(&data_dir.join("chain"), network, source.archive(config, network)?)?;
    let repository = Repository::open_to_write(&wanted.repository, genesis_bytes, network)?;
    let numbers = repository.numbers()?;
    let before = numbers.last().map(|number| repository.manifest(*number)).transpose()?;
    let number = numbers.last().map_or(1, |last| last + 1);
    let mut making = Making { config, repository, chain, before, number, files: BTreeMap::new(), new_bytes: 0 };
    making.check_files()?;
    making.check_room()?;
    making.take_over_genesis()?;
    let journal = making.journal()?;
    let (tip, new_blocks) = making.blocks()?;
    making.trust()?;
    let state = making.state(&tip)?;
    let copied = making.bodies(&source)?;
    source.close()?;
    let keys = making.class_keys(genesis, wanted, runtime)?;
    making.own("journal", &journal)?;
    let manifest = Manifest {
        version: VERSION,
        number,
        network: network.to_hex(),
        node: config.node.name.clone(),
        begun_ms,
        finished_ms: now_ms(),
        oldest: tip.oldest,
        height: tip.header.height.0,
        header: tip.header.id().to_string(),
        time_ms: tip.header.time_ms,
        log: LogHead { size: tip.header.log_size, root: tip.header.log_root.to_hex() },
        state,
        bodies: copied.bodies,
        custody_key: keys.own.map(hex::encode),
        recovery_key: keys.recovery.map(hex::encode),
        class_keys: keys.count,
        newest_pack: making.next_pack()? - 1,
        files: making.files.into_values().collect(),
    };
    making.repository.put(&manifest)?;
    let word = format!("{} {}\n", manifest.finished_ms / 1000, manifest.height);
    if let Err(error) = durable::replace_file(data_dir, LAST_FILE, word.as_bytes()) {
        warn!(%error, "the node is not told of its backup");
    }
    info!(number, height = manifest.height, bodies = manifest.bodies.count, "a backup was made");
    let Copied { new, unreadable, .. } = copied;
    Ok(Made { manifest, new_bytes: making.new_bytes, new_blocks, new_bodies: new, unreadable })
}

/// What came of the bodies.
struct Copied {
    bodies: Bodies,
    new: u64,
    unreadable: u64,
}

/// What came of the class keys.
#[derive(Default)]
struct Keys {
    own: Option<CustodyPublicKey>,
    recovery: Option<CustodyPublicKey>,
    count: u64,
}

impl Making<'_> {
    /// What is known to come is compared with the room there is; each larger file is again before it is begun.
    fn check_room(&self) -> Result<(), BackupError> {
        let held = |directory: &str| {
            let files = self.before.iter().flat_map(|before| &before.files);
            files.filter(|entry| entry.path.starts_with(directory)).map(|entry| entry.bytes).sum::<u64>()
        };
        let blocks = directory_bytes(&self.config.node.data_dir.join("chain/blocks"));
        check_room(self.repository.root(), blocks.saturating_sub(held("blocks/")))
    }

    /// What the backup before needs has to be there still: this one needs most of it.
    fn check_files(&self) -> Result<(), BackupError> {
        let entries = self.before.iter().flat_map(|before| &before.files);
        entries.map(|entry| CheckedFile::open(self.repository.root(), entry)).try_for_each(|opened| opened.map(drop))
    }

    fn keep(&mut self, entry: FileEntry) {
        self.files.insert(entry.path.clone(), entry);
    }

    fn add(&mut self, entry: FileEntry) {
        self.new_bytes += entry.bytes;
        self.keep(entry);
    }

    fn own(&mut self, file: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let entry = file::write(self.repository.root(), &backup_name(self.number, file), bytes)?;
        self.add(entry);
        Ok(())
    }

    fn take_over_genesis(&mut self) -> Result<(), BackupError> {
        let known = self.before.as_ref().and_then(Manifest::genesis_file).cloned();
        let entry = known.map_or_else(|| measured(self.repository.root(), GENESIS_FILE), Ok)?;
        self.keep(entry);
        Ok(())
    }

    /// The journal of bodies without a statement, as it is now; its last line may be cut off, which opening it expects.
    fn journal(&self) -> Result<Vec<u8>, BackupError> {
        let path = self.config.node.data_dir.join(parts::DIRECTORY).join(parts::JOURNAL);
        if self.config.payload.is_none() || !path.exists() {
            return Ok(Vec::new());
        }
        file::read_bounded(&path, JOURNAL_BYTES_MAX).map_err(BackupError::io("read", &path))
    }

    /// Copies the blocks that are new; returns the newest of all, and how many were copied.
    fn blocks(&mut self) -> Result<(Tip, u64), BackupError> {
        let held = self.take_over_blocks()?;
        let mut blocks = self.chain.blocks(held.as_ref().map_or(1, |held| held.1))?;
        let oldest = match &held {
            Some((oldest, height, id)) => {
                let same = blocks.next().transpose()?.filter(|block| block.stored.height() == *height);
                let Some(same) = same else {
                    return Err(BackupError::Behind { node: self.chain.newest()?, repository: *height });
                };
                if id.is_some_and(|id| *same.stored.id() != id.0) {
                    return Err(BackupError::OtherChain { height: *height });
                }
                *oldest
            }
            None => self.chain.oldest().unwrap_or(1),
        };
        let mut files = BlockFiles::new(self.repository.root());
        let (mut newest, mut copied) = (None, 0);
        for block in blocks {
            let block = block?;
            files.add(&block)?;
            copied += 1;
            newest = Some(header_of(&block)?);
        }
        for entry in files.finish()? {
            self.add(entry);
        }
        let header = match (newest, held) {
            (Some(header), _) => header,
            (None, Some((_, height, _))) => self.header(height)?,
            (None, None) => {
                let reason = "the node has no blocks yet: wait for the first".to_owned();
                return Err(BackupError::NodeAway { reason });
            }
        };
        Ok((Tip { oldest, header }, copied))
    }

    /// Files of blocks that are there: those of the backup before, and what an interrupted one finished since. Returns the
    /// oldest and newest height, and the id of the newest block.
    fn take_over_blocks(&mut self) -> Result<Option<(u64, u64, Option<BlockId>)>, BackupError> {
        let mut held = None;
        if let Some(before) = &self.before {
            held = Some((before.oldest, before.height, Some(before.header_id())));
            let files: Vec<FileEntry> = before.block_files().into_iter().map(|(.., entry)| entry.clone()).collect();
            files.into_iter().for_each(|entry| self.keep(entry));
        }
        let found = self.repository.files("blocks")?;
        let mut others: Vec<(u64, u64)> = found.iter().filter_map(|name| block_heights(name)).collect();
        others.retain(|(first, last)| !self.files.contains_key(&blocks_name(*first, *last)));
        others.sort_unstable();
        for (first, last) in others {
            let next = held.as_ref().map_or_else(|| self.chain.oldest(), |held| Some(held.1 + 1));
            if next != Some(first) {
                continue;
            }
            let entry = measured(self.repository.root(), &blocks_name(first, last))?;
            let mut id = None;
            let look = |_: &Path, record: super::blocks::BlockRecord| {
                id = (record.height == last)
                    .then(|| Block::header_from_bytes(&record.block).ok())
                    .flatten()
                    .map(|header| header.id());
                Ok(())
            };
            if each_block(self.repository.root(), (first, last, &entry), look).is_ok() && id.is_some() {
                info!(first, last, "blocks of an interrupted backup are taken over");
                held = Some((held.map_or(first, |held| held.0), last, id));
                self.keep(entry);
            }
        }
        Ok(held)
    }

    fn header(&self, height: u64) -> Result<Header, BackupError> {
        match self.chain.blocks(height)?.next().transpose()? {
            Some(block) if block.stored.height() == height => header_of(&block),
            _ => Err(BackupError::Behind { node: self.chain.newest()?, repository: height }),
        }
    }

    fn trust(&mut self) -> Result<(), BackupError> {
        let (links, epochs) = self.chain.trust()?;
        let trust = Trust { links, epochs, base: self.chain.base()? };
        self.own("trust", &trust.encode())
    }

    /// Copies the newest snapshot that a header in the backup certifies, unless it is there.
    fn state(&mut self, tip: &Tip) -> Result<Option<StateHead>, BackupError> {
        let newest = tip.header.height.0.saturating_sub(1);
        let known = self.before.as_ref().and_then(|before| Some((before.state.clone()?, before.state_file()?.clone())));
        let oldest = known.as_ref().map_or(tip.oldest, |(state, _)| state.height + 1);
        let Some((reader, from)) = self.chain.snapshot(oldest, newest)? else {
            let state = known.map(|(state, entry)| {
                self.keep(entry);
                state
            });
            if state.is_none() && tip.oldest > 1 {
                let reason = "the node began at a snapshot and has no newer one yet: wait for it".to_owned();
                return Err(BackupError::NodeAway { reason });
            }
            return Ok(state);
        };
        let (height, root) = (reader.height(), reader.root());
        let certified = self.header(height + 1)?.state_root;
        let name = state_name(height);
        check_room(self.repository.root(), reader.size())?;
        let entry = copy(self.repository.root(), &name, from)?;
        let path = self.repository.root().join(&name);
        let refused = |reason: String| BackupError::State { path: path.clone(), reason };
        if root != certified.0 {
            return Err(refused(format!("header {} certifies another state than the node's", Height(height + 1))));
        }
        SnapshotReader::open(&path).and_then(|copy| copy.check()).map_err(|error| refused(error.to_string()))?;
        self.add(entry);
        Ok(Some(StateHead { height, root: hex::encode(root) }))
    }

    /// Copies the bodies that are new.
    fn bodies(&mut self, source: &Source) -> Result<Copied, BackupError> {
        let known = self.known_bodies()?;
        let next_pack = self.next_pack()?;
        let mut packs = Packs::new(self.repository.root(), next_pack);
        let mut places: BTreeMap<Hash, Place> = BTreeMap::new();
        let (mut unreadable, mut lost) = (0, BTreeSet::new());
        for _ in 0..PASSES_MAX {
            let (mut cursor, mut fresh) = (Some((0, 0)), false);
            unreadable = 0;
            while let Some((from, skip)) = cursor {
                let page = source.page(from, skip)?;
                unreadable += page.unreadable;
                for (root, group) in page.objects {
                    if places.contains_key(&root) || lost.contains(&root) {
                        continue;
                    }
                    if let Ok(at) = known.binary_search_by_key(&root, |place| place.root) {
                        places.insert(root, known[at]);
                        continue;
                    }
                    fresh = true;
                    match copy_body(source, &mut packs, root, group)? {
                        Ok(place) => {
                            places.insert(root, place);
                        }
                        Err(Unread::Unreadable(reason)) => {
                            warn!(%root, reason, "a body cannot be read and is not in the backup");
                            lost.insert(root);
                        }
                        Err(_) => {}
                    }
                }
                cursor = page.next;
            }
            if !fresh {
                break;
            }
        }
        let (files, added) = packs.finish()?;
        files.into_iter().for_each(|entry| self.add(entry));
        let places: Vec<Place> = places.into_values().collect();
        let needed: BTreeSet<u64> = places.iter().map(|place| place.pack).collect();
        self.files.retain(|name, _| pack_number(name).is_none_or(|number| needed.contains(&number)));
        let bodies = Bodies { count: places.len() as u64, bytes: places.iter().map(|place| place.bytes).sum() };
        self.own("bodies", &encode_list(&places))?;
        Ok(Copied { bodies, new: added.len() as u64, unreadable: unreadable + lost.len() as u64 })
    }

    /// Bodies that the repository has, in order of their roots.
    fn known_bodies(&mut self) -> Result<Vec<Place>, BackupError> {
        let mut known = Vec::new();
        let root = self.repository.root().to_owned();
        if let Some(before) = &self.before {
            if let Some(entry) = before.own_file("bodies") {
                let bytes = file::read(&root, entry, bodies::LIST_BYTES_MAX)?;
                let path = root.join(&entry.path);
                known = decode_list(&bytes).ok_or_else(|| BackupError::manifest(&path, "it is no list of bodies"))?;
            }
            let packs: Vec<FileEntry> = before.packs().into_iter().map(|(_, entry)| entry.clone()).collect();
            packs.into_iter().for_each(|entry| self.keep(entry));
        }
        let newest = self.before.as_ref().map_or(0, |before| before.newest_pack);
        for number in self.repository.files("bodies")?.iter().filter_map(|name| pack_number(name)) {
            if number <= newest {
                continue;
            }
            // An interrupted backup finished it.
            match listed_in(&root, number) {
                Ok(listed) => {
                    known.extend(listed);
                    let entry = measured(&root, &pack_name(number))?;
                    self.keep(entry);
                }
                Err(error) => warn!(code = error.code(), %error, "a pack of no backup is passed over"),
            }
        }
        known.sort_unstable();
        known.dedup_by_key(|place| place.root);
        Ok(known)
    }

    fn next_pack(&self) -> Result<u64, BackupError> {
        let numbers = self.repository.files("bodies")?;
        Ok(numbers.iter().filter_map(|name| pack_number(name)).max().map_or(1, |newest| newest + 1))
    }

    /// The table of class keys as it is, sealed for the node's custody key; and for the recovery key, if there is one.
    fn class_keys(&mut self, genesis: &Genesis, wanted: &Wanted, runtime: &Runtime) -> Result<Keys, BackupError> {
        let Some(section) = &self.config.payload else { return Ok(Keys::default()) };
        let path = self.config.node.data_dir.join(parts::DIRECTORY).join(parts::CLASS_KEYS);
        if !path.exists() {
            return Ok(Keys::default());
        }
        let bytes = file::read_bounded(&path, KEYS_BYTES_MAX).map_err(BackupError::io("read", &path))?;
        let damaged = || BackupError::keys(format!("{}: it is damaged", path.display()));
        let table = KeyTable::decode(&bytes, genesis.network()).ok_or_else(damaged)?;
        let custodian = runtime.block_on(async { NodeKeys::new(self.config).custodian(section).await });
        let custodian = custodian.map_err(crate::payload::PayloadError::from)?;
        let own = *custodian.public_key();
        // A table that does not open would be found out when it is needed.
        runtime.block_on(table.check(&*custodian))?;
        self.own(parts::CLASS_KEYS, &bytes)?;
        if wanted.recovery_key.is_none() && self.before.as_ref().is_some_and(|before| before.recovery_key.is_some()) {
            // Not taken from there: whoever can write to the repository could name a key of his own.
            warn!(
                "the backup before was sealed for a recovery key, too, and this one is not: name it with --recovery-key"
            );
        }
        if let Some(recovery) = &wanted.recovery_key {
            let sealed = runtime.block_on(table.sealed_for(&*custodian, recovery))?;
            self.own("class-keys.recovery", &sealed.encode())?;
        }
        Ok(Keys { own: Some(own), recovery: wanted.recovery_key, count: table.len() as u64 })
    }
}

/// Copies a body; within, why there is none.
fn copy_body(
    source: &Source,
    packs: &mut Packs,
    root: Hash,
    group: Group,
) -> Result<Result<Place, Unread>, BackupError> {
    let mut reading = match source.body(root) {
        Ok(reading) => reading,
        Err(unread) => return unread.or_failed(),
    };
    let mut adding = packs.add(root, group, reading.bytes)?;
    loop {
        match reading.next() {
            Ok(Some(bytes)) => adding.write(&bytes)?,
            Ok(None) => break,
            Err(unread) => {
                adding.abandon()?;
                return unread.or_failed();
            }
        }
    }
    let whole = adding.finish()?;
    let other = || Unread::Unreadable("what the node gives has another root".to_owned());
    Ok(packs.places.last().filter(|_| whole).copied().ok_or_else(other))
}

fn header_of(block: &CopiedBlock) -> Result<Header, BackupError> {
    Block::header_from_bytes(block.stored.block()).map_err(|error| BackupError::Stores(error.into()))
}

/// Copies a file that is open.
fn copy(root: &Path, name: &str, mut from: File) -> Result<FileEntry, BackupError> {
    let mut file = NewFile::create(root, name)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer).map_err(BackupError::io("read a snapshot for", &root.join(name)))? {
            0 => return file.finish(),
            count => file.write(&buffer[..count])?,
        }
    }
}

/// When the newest backup of a node was finished, seconds since 1970, and its height; none if there was none.
pub(crate) fn last(data_dir: &Path) -> Option<(u64, u64)> {
    let bytes = file::read_bounded(&data_dir.join(LAST_FILE), 64).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (seconds, height) = text.trim().split_once(' ')?;
    Some((seconds.parse().ok()?, height.parse().ok()?))
}

/// Keeps the node from starting as long as it lives.
fn hold(data_dir: &Path) -> Result<File, BackupError> {
    let blocks = data_dir.join("chain/blocks");
    let held = durable::lock_directory(&blocks).map_err(BackupError::io("lock", &blocks))?;
    held.ok_or_else(|| BackupError::NodeAway { reason: "the node runs: leave out --stopped".to_owned() })
}

fn directory_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
