//! Believing a backup: everything in it is derived again from the genesis file on.
//!
//! ```text
//!  genesis ─► validators ─► certificate of every header ─► parents, entries, outcomes, log ─► state root ─► snapshot
//!                                                                        body roots ─► sealed bodies
//! ```
//!
//! The sums of the manifest find rot and mistakes. What somebody made on purpose has to fit headers that quorums certified,
//! and bodies have to have their roots; what such a one can do is leave out what is newer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stele_merkle::log::Frontier;
use stele_state::SnapshotReader;
use stele_types::{
    Block, BlockId, ChainLink, Code, CommitCertificate, EpochCertificate, Genesis, Hash, Header, NetworkId, Outcome,
    Statement, ValidatorSet, cbor,
};
use stele_verify::TrustAnchor;
use stele_verify::certificate::{self, EpochCertificates};
use tracing::info;

use super::BackupError;
use super::blocks::{BlockRecord, each_block};
use super::bodies::{LIST_BYTES_MAX, Place, RootHasher, body_error, decode_list, each_body};
use super::create::{JOURNAL_BYTES_MAX, KEYS_BYTES_MAX};
use super::file::{self, CheckedFile};
use super::manifest::Manifest;
use super::repository::{GENESIS_BYTES_MAX, Repository};
use super::trust::{self, Trust};
use crate::chain::{RestoredBlock, named_epochs, state_hash, tree};
use crate::payload::parts::KeyTable;

/// A backup whose small files were read.
pub(super) struct Opened<'r> {
    pub(super) repository: &'r Repository,
    pub(super) manifest: Manifest,
    pub(super) genesis_bytes: Vec<u8>,
    pub(super) genesis: Genesis,
    pub(super) trust: Trust,
    /// In order of their roots.
    pub(super) places: Vec<Place>,
}

/// What was found in a sound backup.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    pub(crate) blocks: u64,
    pub(crate) statements: u64,
    pub(crate) log_size: u64,
    pub(crate) state_pairs: u64,
    pub(crate) bodies: u64,
    pub(crate) body_bytes: u64,
    /// How often applied statements name bodies that are not in the backup: other nodes may have them.
    pub(crate) bodies_elsewhere: u64,
    pub(crate) bytes: u64,
}

impl<'r> Opened<'r> {
    /// Reads what is needed to believe the rest.
    pub(super) fn read(repository: &'r Repository, manifest: Manifest) -> Result<Self, BackupError> {
        let root = repository.root();
        let unnamed = |what: &str| BackupError::manifest(root, format!("it names no {what}"));
        let entry = manifest.genesis_file().ok_or_else(|| unnamed("genesis"))?;
        let genesis_bytes = file::read(root, entry, GENESIS_BYTES_MAX)?;
        let genesis = Genesis::from_bytes(&genesis_bytes).ok().filter(|_| TrustAnchor::genesis(&genesis_bytes).is_ok());
        let path = root.join(&entry.path);
        let genesis = genesis.ok_or_else(|| BackupError::manifest(&path, "it founds no network"))?;
        if genesis.network() != repository.network() {
            let found = genesis.network().to_hex();
            return Err(BackupError::Foreign { path, expected: repository.network(), found });
        }
        let own = |file: &str| manifest.own_file(file).ok_or_else(|| unnamed(file));
        let entry = own("trust")?;
        let trust = Trust::decode(&file::read(root, entry, trust::BYTES_MAX)?);
        let trust = trust.ok_or_else(|| BackupError::manifest(&root.join(&entry.path), "it is malformed"))?;
        let entry = own("bodies")?;
        let path = root.join(&entry.path);
        let places = decode_list(&file::read(root, entry, LIST_BYTES_MAX)?);
        let places = places.ok_or_else(|| BackupError::manifest(&path, "it is no list of bodies"))?;
        let bytes: u64 = places.iter().map(|place| place.bytes).fold(0, u64::saturating_add);
        if places.len() as u64 != manifest.bodies.count || bytes != manifest.bodies.bytes {
            return Err(BackupError::manifest(&path, "it lists other bodies than the manifest counts"));
        }
        Ok(Self { repository, manifest, genesis_bytes, genesis, trust, places })
    }

    fn has_body(&self, root: &Hash) -> bool {
        self.places.binary_search_by_key(root, |place| place.root).is_ok()
    }

    /// Shows every block, derived again. What is shown counts when this returns.
    pub(super) fn chain(
        &self,
        mut show: impl FnMut(&Path, &RestoredBlock<'_>) -> Result<(), BackupError>,
    ) -> Result<Walked, BackupError> {
        let mut walk = Walk::new(self)?;
        for (first, last, entry) in self.manifest.block_files() {
            info!(first, last, of = self.manifest.height, "blocks are verified");
            each_block(self.repository.root(), (first, last, entry), |path, record| {
                let (outcomes, id) = walk.step(path, &record)?;
                show(
                    path,
                    &RestoredBlock {
                        height: record.height,
                        id: id.0,
                        block: &record.block,
                        certificate: &record.certificate,
                        outcomes: &outcomes,
                        log_size: walk.log.size(),
                    },
                )
            })?;
        }
        walk.finish()
    }

    /// The log after the first block of a chain that does not begin with genesis.
    pub(super) fn base(&self) -> Option<&Frontier> {
        self.trust.base.as_ref().filter(|_| self.manifest.oldest > 1)
    }

    /// The snapshot of the state, whose file is whole; its chunks are compared with its root when they are read.
    pub(super) fn state(&self) -> Result<Option<(PathBuf, SnapshotReader)>, BackupError> {
        let (Some(state), Some(entry)) = (&self.manifest.state, self.manifest.state_file()) else { return Ok(None) };
        let root = self.repository.root();
        CheckedFile::open(root, entry)?.finish()?;
        let path = root.join(&entry.path);
        let refused = |reason: String| BackupError::State { path: path.clone(), reason };
        let reader = SnapshotReader::open(&path).map_err(|error| refused(error.to_string()))?;
        let same = reader.height() == state.height
            && hex::encode(reader.root()) == state.root
            && reader.hash() == state_hash(&self.genesis);
        if !same {
            return Err(refused("it is of another state than the manifest says".to_owned()));
        }
        Ok(Some((path, reader)))
    }

    /// Shows every body of the backup, pack by pack.
    pub(super) fn bodies(
        &self,
        mut show: impl FnMut(&Path, &Place, &mut dyn std::io::Read) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let root = self.repository.root();
        let mut by_pack = self.places.clone();
        by_pack.sort_unstable_by_key(|place| (place.pack, place.offset));
        let mut rest = by_pack.as_slice();
        for (number, entry) in self.manifest.packs() {
            let (places, behind) = rest.split_at(rest.iter().take_while(|place| place.pack == number).count());
            rest = behind;
            let path = root.join(&entry.path);
            each_body(root, entry, places, |place, bytes| show(&path, place, bytes))?;
        }
        match rest.first() {
            Some(place) => Err(body_error(root, &place.root, "no file of the manifest holds it")),
            None => Ok(()),
        }
    }

    /// The table of class keys, sealed for the node or for the recovery key.
    pub(super) fn class_keys(&self, file: &str) -> Result<Option<KeyTable>, BackupError> {
        let Some(entry) = self.manifest.own_file(file) else { return Ok(None) };
        let root = self.repository.root();
        let table = KeyTable::decode(&file::read(root, entry, KEYS_BYTES_MAX)?, self.repository.network());
        let damaged = || BackupError::manifest(&root.join(&entry.path), "it is no table of class keys");
        table.filter(|table| table.len() as u64 == self.manifest.class_keys).map(Some).ok_or_else(damaged)
    }

    /// The journal of bodies without a statement.
    pub(super) fn journal(&self) -> Result<Vec<u8>, BackupError> {
        let entry = self.manifest.own_file("journal");
        entry.map_or(Ok(Vec::new()), |entry| file::read(self.repository.root(), entry, JOURNAL_BYTES_MAX))
    }

    /// What a walk and the counts of the manifest give.
    pub(super) fn facts(&self, walked: &Walked, state_pairs: u64) -> Facts {
        Facts {
            blocks: self.manifest.height - self.manifest.oldest + 1,
            statements: walked.statements,
            log_size: walked.log_size,
            state_pairs,
            bodies: self.manifest.bodies.count,
            body_bytes: self.manifest.bodies.bytes,
            bodies_elsewhere: walked.bodies_elsewhere,
            bytes: self.manifest.bytes(),
        }
    }
}

/// Verifies a backup without a node and without keys.
///
/// # Errors
/// What does not fit, with its file.
pub(crate) fn verify(repository: &Repository, manifest: Manifest) -> Result<Facts, BackupError> {
    let opened = Opened::read(repository, manifest)?;
    let walked = opened.chain(|_, _| Ok(()))?;
    let pairs = match opened.state()? {
        Some((path, reader)) => {
            info!(pairs = reader.pairs(), "the state is verified");
            reader.check().map_err(|error| BackupError::State { path, reason: error.to_string() })?;
            reader.pairs()
        }
        None => 0,
    };
    info!(bodies = opened.manifest.bodies.count, "bodies are verified");
    opened.bodies(|path, place, bytes| {
        let mut hasher = RootHasher::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match bytes.read(&mut buffer).map_err(BackupError::io("read", path))? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        if hasher.finish() == place.root { Ok(()) } else { Err(body_error(path, &place.root, "it has another root")) }
    })?;
    opened.class_keys("class-keys")?;
    opened.class_keys("class-keys.recovery")?;
    opened.journal()?;
    Ok(opened.facts(&walked, pairs))
}

/// What came out of a chain.
pub(super) struct Walked {
    pub(super) statements: u64,
    pub(super) log_size: u64,
    /// Changes of validators and epoch certificates that verified headers rest on.
    pub(super) links: Vec<ChainLink>,
    pub(super) epochs: Vec<EpochCertificate>,
    bodies_elsewhere: u64,
}

/// One header after the other.
struct Walk<'o> {
    opened: &'o Opened<'o>,
    anchor: TrustAnchor,
    network: NetworkId,
    epochs: EpochCertificates<'o>,
    validators: ValidatorSet,
    next: u64,
    parent: BlockId,
    log: Frontier,
    /// Root of the outcomes of the block before; none before the first one.
    outcomes_root: Option<Hash>,
    links: Vec<ChainLink>,
    named: BTreeSet<Hash>,
    statements: u64,
    bodies_elsewhere: u64,
}

impl<'o> Walk<'o> {
    fn new(opened: &'o Opened<'o>) -> Result<Self, BackupError> {
        let network = opened.repository.network();
        let brought = &opened.trust.epochs;
        Ok(Self {
            opened,
            anchor: TrustAnchor::genesis(&opened.genesis_bytes)?,
            network,
            epochs: EpochCertificates::new(network, brought, &opened.genesis.epoch_certificates),
            validators: opened.genesis.validators.clone(),
            next: opened.manifest.oldest,
            parent: BlockId(network.0),
            log: Frontier::new(),
            outcomes_root: (opened.manifest.oldest == 1).then_some(Hash(stele_merkle::log::EMPTY_ROOT)),
            links: Vec::new(),
            named: BTreeSet::new(),
            statements: 0,
            bodies_elsewhere: 0,
        })
    }

    /// Believes a block, or says what does not fit; its outcomes and its id.
    fn step(&mut self, path: &Path, record: &BlockRecord) -> Result<(Vec<Outcome>, BlockId), BackupError> {
        let height = record.height;
        self.take(record).map_err(|reason| BackupError::Chain { path: path.to_owned(), height, reason })
    }

    fn take(&mut self, record: &BlockRecord) -> Result<(Vec<Outcome>, BlockId), String> {
        let block = Block::from_bytes(&record.block).map_err(|error| format!("the block does not decode: {error}"))?;
        let certificate: CommitCertificate = cbor::from_slice(&record.certificate)
            .map_err(|error| format!("the certificate does not decode: {error}"))?;
        let header = &block.header;
        let leaves = tree::leaf_hashes(block.entries.iter().map(|entry| &**entry));
        let is_first_above_genesis = self.next == self.opened.manifest.oldest && self.next > 1;
        let fits = [
            ("is of another height", header.height.0 == self.next && record.height == self.next),
            ("does not follow its parent", is_first_above_genesis || header.parent == self.parent),
            ("has other entries than its header", Hash(tree::root_of(&leaves)) == header.statements_root),
            ("has not an outcome for each entry", record.outcomes.len() == block.entries.len()),
        ];
        fits.iter().find(|(_, fits)| !fits).map_or(Ok(()), |(reason, _)| Err(format!("the block {reason}")))?;
        if is_first_above_genesis {
            self.begin_at(header, &certificate)?;
        } else {
            self.certified(header, &certificate)?;
            self.check_results(header)?;
        }
        self.named.extend(named_epochs(&certificate, &[]));
        self.change_validators(header, certificate)?;
        let outcomes = self.outcomes(&block, record, is_first_above_genesis, &leaves)?;
        (self.parent, self.next) = (header.id(), self.next + 1);
        Ok((outcomes, header.id()))
    }

    /// The first block of a chain that began at a snapshot: changes of validators lead to it, and the log is there already.
    fn begin_at(&mut self, header: &Header, certificate: &CommitCertificate) -> Result<(), String> {
        let trust = &self.opened.trust;
        let below: Vec<ChainLink> =
            trust.links.iter().filter(|link| link.header.height < header.height).cloned().collect();
        stele_verify::chain::certify(&self.anchor, &below, &trust.epochs, header, certificate)
            .map_err(|error| format!("no quorum for the header: {error}"))?;
        if let Some(link) = below.last() {
            self.validators = link.validators.clone();
        }
        self.named.extend(named_epochs(certificate, &below));
        self.links = below;
        self.log = trust.base.clone().ok_or("nothing says where the log begins")?;
        Ok(())
    }

    fn certified(&mut self, header: &Header, certificate: &CommitCertificate) -> Result<(), String> {
        if header.validators != self.validators.hash() {
            return Err("the header names other validators than the one before".to_owned());
        }
        certificate::verify(self.network, header, certificate, &self.validators, &mut self.epochs)
            .map_err(|error| format!("no quorum for the header: {error}"))
    }

    /// Compares what the header certifies with what the blocks before led to.
    fn check_results(&self, header: &Header) -> Result<(), String> {
        let before = header.height.0 - 1;
        let state = self.opened.manifest.state.as_ref().filter(|state| state.height == before);
        let fits = [
            ("log", (header.log_size, header.log_root) == (self.log.size(), Hash(self.log.root()))),
            ("outcomes", self.outcomes_root.is_none_or(|root| root == header.outcomes_root)),
            ("state", state.is_none_or(|state| state.root == header.state_root.to_hex())),
        ];
        match fits.iter().find(|(_, fits)| !fits) {
            Some((what, _)) => Err(format!("the header certifies another {what} than the backup has")),
            None => Ok(()),
        }
    }

    fn change_validators(&mut self, header: &Header, certificate: CommitCertificate) -> Result<(), String> {
        if header.next_validators == header.validators {
            return Ok(());
        }
        let links = &self.opened.trust.links;
        let link = links.iter().find(|link| link.header == *header && link.validators.hash() == header.next_validators);
        // The node writes the change down a moment after its block, which may be the newest here; it comes of executing that.
        if link.is_none() && header.height.0 == self.opened.manifest.height {
            return Ok(());
        }
        let link = link.ok_or("the validators change, and the backup does not have the new ones")?;
        self.validators = link.validators.clone();
        self.links.push(ChainLink { header: header.clone(), certificate, validators: link.validators.clone() });
        Ok(())
    }

    /// The outcomes with the ids of their statements; appends the leaves to the log, unless they are in it.
    fn outcomes(
        &mut self,
        block: &Block,
        record: &BlockRecord,
        in_log: bool,
        leaves: &[[u8; 32]],
    ) -> Result<Vec<Outcome>, String> {
        let mut outcomes = Vec::with_capacity(record.outcomes.len());
        for ((entry, (code, index)), leaf) in block.entries.iter().zip(&record.outcomes).zip(leaves) {
            let statement =
                Statement::parse(entry.clone()).map_err(|code| format!("a statement does not parse: {code}"))?;
            // A repeated statement has the index of its first leaf, which lies below.
            if !in_log && index.is_some_and(|index| index.0 == self.log.size()) {
                self.log.append(*leaf);
            }
            let body = statement.command().and_then(stele_types::Command::body_root).filter(|_| *code == Code::Applied);
            if body.is_some_and(|body| !self.opened.has_body(&body)) {
                self.bodies_elsewhere += 1;
            }
            outcomes.push(Outcome { statement: statement.id(), code: *code, index: *index });
        }
        self.statements += outcomes.len() as u64;
        let encoded: Vec<Vec<u8>> = outcomes.iter().map(Outcome::to_bytes).collect();
        self.outcomes_root = Some(Hash(tree::root_of(&tree::leaf_hashes(encoded.iter().map(Vec::as_slice)))));
        Ok(outcomes)
    }

    /// Compares the end with the manifest.
    fn finish(self) -> Result<Walked, BackupError> {
        let Self { opened, log, links, named, statements, bodies_elsewhere, parent, next, .. } = self;
        let manifest = &opened.manifest;
        if next != manifest.height + 1 || parent != manifest.header_id() {
            let reason = "its newest block is another than the manifest says".to_owned();
            let path = opened.repository.root().to_owned();
            return Err(BackupError::Chain { path, height: manifest.height, reason });
        }
        // Only those that a verified vote names: a vote under any certificate that a node holds would be believed.
        let epochs = opened.trust.epochs.iter().filter(|epoch| named.contains(&epoch.hash())).cloned().collect();
        Ok(Walked { statements, log_size: log.size(), links, epochs, bodies_elsewhere })
    }
}
