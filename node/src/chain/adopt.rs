//! Beginning a chain at a snapshot instead of at genesis.

use std::path::{Path, PathBuf};

use stele_merkle::log::Frontier;
use stele_merkle::state::StateHash;
use stele_state::SnapshotBuilder;
use stele_types::exchange::CertifiedHeader;
use stele_types::record::ContentHash;
use stele_types::{Block, CommitCertificate, Genesis, Hash, Height, NetworkId, Outcome, cbor};

use super::open::{BLOCKS, mark_network};
use super::outcomes::OutcomeStore;
use super::records::{EpochRecords, LinkRecords};
use super::trust_path::named_epochs;
use super::{ChainError, tree};
use crate::store::blocks::{BlockStore, BlockStoreOptions};
use crate::store::durable;
use crate::store::log::LogStore;

/// Where a chain begins that has executed nothing of what lies below.
///
/// Whoever makes one has verified `certifying`, and so every epoch certificate that its votes name; everything else is
/// checked against its header here.
#[derive(Clone, Debug)]
pub struct JoinPoint {
    /// The header after the snapshot's height, which certifies the results there, with the way to it from genesis.
    pub certifying: CertifiedHeader,
    /// The block at the snapshot's height.
    pub block: Block,
    /// The block of `certifying`.
    pub next: Block,
    /// The log's right edge after the snapshot's height.
    pub log_frontier: Frontier,
    /// Outcomes of `block`.
    pub outcomes: Vec<Outcome>,
}

/// Why a point is refused: which part does not fit the certified header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} does not fit the certified header")]
pub struct Unfit(pub &'static str);

impl JoinPoint {
    /// Height of the snapshot.
    pub fn height(&self) -> Height {
        self.block.header.height
    }

    /// Compares every part with the certified header.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn check(&self) -> Result<(), Unfit> {
        let header = &self.certifying.header;
        let outcomes: Vec<Vec<u8>> = self.outcomes.iter().map(Outcome::to_bytes).collect();
        let outcomes_root = tree::root_of(&tree::leaf_hashes(outcomes.iter().map(Vec::as_slice)));
        let entries =
            |block: &Block| Hash(tree::root_of(&tree::leaf_hashes(block.entries.iter().map(|entry| &**entry))));
        // A certificate is not part of a block's id: the header has its hash, and the first block has none.
        let certificate = |block: &Block| {
            block.parent_certificate.as_ref().map(CommitCertificate::hash).unwrap_or_default()
                == block.header.parent_certificate
        };
        let parts = [
            ("next block", self.next.header == *header),
            ("block", self.block.header.id() == header.parent && self.height().next() == header.height),
            ("entries of the block", entries(&self.block) == self.block.header.statements_root),
            ("entries of the next block", entries(&self.next) == header.statements_root),
            ("certificate in the block", certificate(&self.block)),
            ("block's certificate", certificate(&self.next) && self.parent_certificate().is_some()),
            ("log's frontier", self.log_frontier.root() == header.log_root.0),
            ("log's size", self.log_frontier.size() == header.log_size),
            ("outcomes", outcomes_root == header.outcomes_root.0 && outcomes.len() == self.block.entries.len()),
        ];
        parts.iter().find(|(_, fits)| !fits).map_or(Ok(()), |(part, _)| Err(Unfit(part)))
    }

    fn parent_certificate(&self) -> Option<&CommitCertificate> {
        self.next.parent_certificate.as_ref()
    }
}

/// A chain directory in the making. It becomes one by [`Adoption::finish`] or not at all.
pub struct Adoption {
    directory: PathBuf,
    making: PathBuf,
}

impl Adoption {
    /// Begins beside a chain directory that does not exist yet; what an interrupted one left is removed.
    ///
    /// # Errors
    /// [`ChainError::NotEmpty`], [`ChainError::Io`].
    pub fn begin(directory: &Path) -> Result<Self, ChainError> {
        if directory.exists() {
            return Err(ChainError::NotEmpty { path: directory.to_owned() });
        }
        let making = directory.with_extension("joining");
        match std::fs::remove_dir_all(&making) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ChainError::io("remove what an interrupted join left")(error));
            }
            _ => {}
        }
        durable::create_directory(&making).map_err(ChainError::io("create the directory of a chain"))?;
        Ok(Self { directory: directory.to_owned(), making })
    }

    /// The state, to be filled with the chunks of a snapshot.
    ///
    /// # Errors
    /// Those of [`SnapshotBuilder::create`].
    pub fn state(&self, genesis: &Genesis, point: &JoinPoint, depth: u8) -> Result<SnapshotBuilder, ChainError> {
        let root = point.certifying.header.state_root.0;
        let height = point.height().0;
        Ok(SnapshotBuilder::create(&self.making.join("state"), state_hash(genesis), height, root, depth)?)
    }

    /// Writes everything but the state, which is complete, and gives the directory its name.
    ///
    /// # Errors
    /// Failure of a store.
    pub fn finish(self, network: NetworkId, point: &JoinPoint) -> Result<(), ChainError> {
        let Self { directory, making } = self;
        let height = point.height().0;
        let header = &point.certifying.header;
        mark_network(&making, network)?;
        let missing = ChainError::Damaged { store: "certificates", height };
        let parent = point.parent_certificate().ok_or(missing)?;
        {
            let blocks = BlockStore::open(&making.join(BLOCKS), BlockStoreOptions::default())?;
            let id = point.block.header.id();
            blocks.append(height, &id.0, &point.block.to_bytes(), &cbor::to_vec(parent))?;
            let certificate = cbor::to_vec(&point.certifying.certificate);
            blocks.append(height + 1, &header.id().0, &point.next.to_bytes(), &certificate)?;
        }
        OutcomeStore::adopt(&making.join("outcomes"), height, &point.outcomes, header.log_size)?;
        LogStore::adopt(&making.join("log"), &point.log_frontier)?;
        let links = LinkRecords::open(&making.join("links"))?;
        for link in point.certifying.chain.iter() {
            links.add(link.clone())?;
        }
        let epochs = EpochRecords::open(&making.join("epochs"))?;
        // Only those that were verified: a vote under any certificate that is held here would be believed.
        let named = named_epochs(&point.certifying.certificate, &point.certifying.chain);
        for certificate in point.certifying.epoch_certificates.iter().filter(|one| named.contains(&one.hash())) {
            epochs.add(certificate)?;
        }
        std::fs::rename(&making, &directory).map_err(ChainError::io("name the directory of the chain"))?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        durable::sync_directory(parent.unwrap_or(Path::new("."))).map_err(ChainError::io("flush the data directory"))
    }
}

/// The hash function of a network's state.
pub(crate) const fn state_hash(genesis: &Genesis) -> StateHash {
    match genesis.parameters.state_hash {
        ContentHash::Sha256 => StateHash::Sha256,
        ContentHash::Sm3 => StateHash::Sm3,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stele_types::cbor::List;
    use stele_types::vote::{VoteKey, VoteSignature};
    use stele_types::{BlockId, Code, CommitSignature, EpochCertificate, Header, LogIndex, StatementId, ValidatorId};

    use super::*;

    fn header(height: u64) -> Header {
        Header {
            network: NetworkId([1; 32]),
            protocol_version: 1,
            height: Height(height),
            creation_round: 0,
            proposer: ValidatorId([2; 32]),
            time_ms: height,
            parent: BlockId([3; 32]),
            parent_certificate: Hash::default(),
            statements_root: Hash(stele_merkle::log::EMPTY_ROOT),
            log_size: 0,
            log_root: Hash(stele_merkle::log::EMPTY_ROOT),
            state_root: Hash([4; 32]),
            outcomes_root: Hash(stele_merkle::log::EMPTY_ROOT),
            validators: Hash([5; 32]),
            next_validators: Hash([5; 32]),
            parameters: Hash([6; 32]),
        }
    }

    fn root(entry: &[u8]) -> Hash {
        Hash(tree::root_of(&tree::leaf_hashes([entry].into_iter())))
    }

    fn certificate(height: u64, block: BlockId, key: VoteKey) -> CommitCertificate {
        let signature = VoteSignature { key, signature: [7; 64] };
        let signatures = List::new(vec![CommitSignature { validator: 0, signature }]).unwrap();
        CommitCertificate { height: Height(height), round: 0, block, signatures }
    }

    /// A block with one statement that applied, and the block after it with another.
    fn point() -> JoinPoint {
        let (entry, later): (Arc<[u8]>, Arc<[u8]>) = (Arc::from(&b"entry"[..]), Arc::from(&b"later"[..]));
        let outcomes = vec![Outcome { statement: StatementId([8; 32]), code: Code::Applied, index: Some(LogIndex(0)) }];
        let mut log_frontier = Frontier::new();
        log_frontier.append([9; 32]);
        let block = Block {
            header: Header { statements_root: root(&entry), ..header(7) },
            parent_certificate: None,
            entries: vec![entry],
        };
        let parent = certificate(7, block.header.id(), VoteKey::Direct);
        let header = Header {
            parent: block.header.id(),
            parent_certificate: parent.hash(),
            statements_root: root(&later),
            log_size: 1,
            log_root: Hash(log_frontier.root()),
            outcomes_root: root(&outcomes[0].to_bytes()),
            ..header(8)
        };
        let next = Block { header: header.clone(), parent_certificate: Some(parent), entries: vec![later] };
        let certifying = CertifiedHeader {
            certificate: certificate(8, header.id(), VoteKey::Direct),
            header,
            epoch_certificates: List::default(),
            chain: List::default(),
        };
        JoinPoint { certifying, block, next, log_frontier, outcomes }
    }

    #[test]
    fn every_part_has_to_fit_the_certified_header() {
        /// The part that does not fit after a change, and the change.
        type Change = (&'static str, fn(&mut JoinPoint));
        assert_eq!(point().check(), Ok(()));
        let changes: [Change; 10] = [
            ("next block", |point| point.next.header.time_ms += 1),
            ("block", |point| point.block.header.time_ms += 1),
            ("entries of the block", |point| point.block.entries[0] = Arc::from(&b"another"[..])),
            ("entries of the next block", |point| point.next.entries[0] = Arc::from(&b"another"[..])),
            ("certificate in the block", |point| {
                point.block.parent_certificate = Some(certificate(6, BlockId([3; 32]), VoteKey::Direct));
            }),
            ("block's certificate", |point| point.next.parent_certificate = None),
            ("block's certificate", |point| {
                point.next.parent_certificate = Some(certificate(7, BlockId([0; 32]), VoteKey::Direct));
            }),
            ("log's frontier", |point| point.log_frontier.append([9; 32])),
            ("outcomes", |point| point.outcomes[0].code = Code::Stale),
            ("outcomes", |point| point.outcomes.clear()),
        ];
        for (part, change) in changes {
            let mut point = point();
            change(&mut point);
            assert_eq!(point.check(), Err(Unfit(part)));
        }
    }

    #[test]
    fn epoch_certificates_that_no_verified_vote_names_are_not_kept() {
        let epoch = |number: u8| EpochCertificate {
            network: NetworkId([1; 32]),
            validator: ValidatorId([2; 32]),
            public_key: [number; 33],
            from_height: Height(1),
            until_height: Height(100),
            pcr_policy: Hash::default(),
            signature: [0; 64],
        };
        let (named, smuggled) = (epoch(1), epoch(2));
        let mut point = point();
        let key = VoteKey::Delegated(named.hash());
        point.certifying.certificate = certificate(8, point.certifying.header.id(), key);
        point.certifying.epoch_certificates = List::new(vec![smuggled.clone(), named.clone()]).unwrap();
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join("chain");
        Adoption::begin(&directory).unwrap().finish(NetworkId([1; 32]), &point).unwrap();
        let epochs = EpochRecords::open(&directory.join("epochs")).unwrap();
        assert_eq!((epochs.find(&named.hash()), epochs.find(&smuggled.hash())), (Some(named), None));
        assert!(matches!(Adoption::begin(&directory), Err(ChainError::NotEmpty { .. })));
    }
}
