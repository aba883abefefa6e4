//! A ledger in memory behind the API: everything real but consensus and the disk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use stele_ledger::value::PartyRecord;
use stele_ledger::{StateKey, StateView, Stored as _, apply, frame, genesis_writes, query};
use stele_merkle::log::{MemoryTree, leaf_hash};
use stele_merkle::state::StateHash;
use stele_merkle::state::reference::ReferenceMap;
use stele_merkle::tile::Tile;
use stele_types::asset::{AssetKind, AssetRegister, Origin, RightClass};
use stele_types::cbor::{self, Blob, List, Text};
use stele_types::custody::RecordPut;
use stele_types::exchange::{CertifiedHeader, StateProof};
use stele_types::party::{EnrolledKey, Founder, Role, RoleSet, TlsPin};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::statement::Unsigned;
use stele_types::{
    Block, BlockId, Bundle, Checkpoint, Code, Command, CommitCertificate, Cti, Genesis, Hash, Header, Height,
    InclusionProof, KeyId, LogIndex, NetworkId, ObjectId, Outcome, Parameters, PartyId, Receipt, Statement,
    StatementId, Suite, Validator, ValidatorSet,
};
use tokio::sync::watch;

use super::Party;
use super::certificates::Identity;
use crate::api::{
    Backend, BackendError, Client, Executed, InForce, Location, Refusal, SealedHead, Snapshot, Standing, Standpoint,
};
use crate::payload::Payload;

const GENESIS_TIME_MS: u64 = 1_800_000_000_000;

pub(super) fn party_id(party: Party) -> PartyId {
    PartyId([party.number(); 16])
}

fn signing_key(party: Party) -> SigningKey {
    SigningKey::from_slice(&[party.number(); 32]).unwrap()
}

fn enrolled_key(party: Party) -> EnrolledKey {
    let point = signing_key(party).verifying_key().to_encoded_point(true);
    EnrolledKey { suite: Suite::Es256, public_key: Blob::new(point.as_bytes().to_vec()).unwrap() }
}

struct Inner {
    state: ReferenceMap,
    log: MemoryTree,
    leaves: Vec<Location>,
    blocks: Vec<Block>,
    outcomes: Vec<Vec<Outcome>>,
    located: HashMap<StatementId, Location>,
    pending: HashSet<StatementId>,
    /// What admission answers instead of taking statements.
    refusal: Option<Refusal>,
    /// Statements stay pending until [`MemoryLedger::release`].
    held: Option<Vec<Arc<[u8]>>>,
    not_ready: Option<&'static str>,
}

struct View<'a>(&'a ReferenceMap);

impl StateView for View<'_> {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.0.get(key).map(<[u8]>::to_vec)
    }
}

/// See the module.
pub(super) struct MemoryLedger {
    genesis: Genesis,
    inner: Mutex<Inner>,
    height: watch::Sender<u64>,
    payload: Mutex<Option<Arc<Payload>>>,
}

impl MemoryLedger {
    /// Bodies of records are kept there from now on.
    pub(super) fn keep_bodies(&self, payload: Arc<Payload>) {
        *self.payload.lock().unwrap() = Some(payload);
    }

    /// No bodies are kept any more; the store that kept them.
    pub(super) fn forget_bodies(&self) -> Payload {
        let payload = self.payload.lock().unwrap().take().unwrap();
        Arc::into_inner(payload).expect("no request is in progress")
    }

    /// A network with one founder per party, each with its client certificate pinned.
    pub(super) fn new(identities: &[Identity]) -> Arc<Self> {
        let roles = |party| match party {
            Party::GovernorA | Party::GovernorB => RoleSet::of(&[Role::Governor]),
            Party::Agency | Party::Other | Party::Suspended => RoleSet::of(&[Role::Agency, Role::Registrar]),
            Party::Regulator => RoleSet::of(&[Role::Regulator]),
            Party::Operator => RoleSet::of(&[Role::Operator]),
        };
        let founder = |(party, identity): (&Party, &Identity)| Founder {
            party: party_id(*party),
            organisation: None,
            roles: roles(*party),
            key: enrolled_key(*party),
            tls_pins: List::new(vec![identity.pin()]).unwrap(),
        };
        let validator_key: [u8; 33] =
            signing_key(Party::Operator).verifying_key().to_encoded_point(true).as_bytes().try_into().unwrap();
        let validator = Validator { public_key: validator_key, peer_key: [9; 32], party: party_id(Party::Operator) };
        let genesis = Genesis {
            name: Text::new("test").unwrap(),
            region: PlaceCode::new(110_000).unwrap(),
            time_ms: GENESIS_TIME_MS,
            parameters: Parameters::default(),
            validators: ValidatorSet::new(vec![validator]).unwrap(),
            epoch_certificates: List::default(),
            founders: List::new(Party::ALL.iter().zip(identities).map(founder).collect()).unwrap(),
        };
        genesis.check().unwrap();
        let mut state = ReferenceMap::new(StateHash::Sha256);
        for (key, value) in genesis_writes(&genesis) {
            state.set(key, value);
        }
        // Suspension takes dual control; the ledger's own tests cover that, here its result is set.
        let suspended = party_id(Party::Suspended);
        let record = PartyRecord { suspended: true, ..query::party(&View(&state), &suspended).unwrap() };
        state.set(PartyRecord::state_key(&suspended), Some(cbor::to_vec(&record)));
        let inner = Inner {
            state,
            log: MemoryTree::new(),
            leaves: Vec::new(),
            blocks: Vec::new(),
            outcomes: Vec::new(),
            located: HashMap::new(),
            pending: HashSet::new(),
            refusal: None,
            held: None,
            not_ready: None,
        };
        Arc::new(Self { genesis, inner: Mutex::new(inner), height: watch::Sender::new(0), payload: Mutex::default() })
    }

    pub(super) fn network(&self) -> NetworkId {
        self.genesis.network()
    }

    /// A signed command of a party.
    pub(super) fn sign(&self, party: Party, cti: u8, command: &Command) -> Vec<u8> {
        let issued_at = GENESIS_TIME_MS / 1000;
        let key: KeyId = enrolled_key(party).id();
        let unsigned =
            Unsigned::command(Suite::Es256, key, party_id(party), self.network(), issued_at, Cti([cti; 16]), command);
        let signature: Signature = signing_key(party).sign(&unsigned.signing_bytes());
        unsigned.into_entry(&signature.to_bytes())
    }

    /// A command that applies for agencies and is rejected (`role_missing`) for others.
    pub(super) fn record(&self, party: Party, number: u8) -> Vec<u8> {
        let command = Command::RecordPut(RecordPut {
            record: ObjectId([number; 16]),
            class: RecordClass::Medical,
            schema: 1,
            subject: None,
            place: None,
            event_day: 20_000,
            sensitivity: Sensitivity::Personal,
            retention: 1,
            policy: Hash([1; 32]),
            commitment: Hash([number; 32]),
            body_root: None,
            body_hash: None,
            on_behalf_of: None,
        });
        self.sign(party, number, &command)
    }

    /// A registration of a data asset by its holder.
    pub(super) fn asset(&self, party: Party, number: u8) -> Vec<u8> {
        let command = Command::AssetRegister(AssetRegister {
            asset: ObjectId([number; 16]),
            kind: AssetKind::Resource,
            region: PlaceCode::new(110_000).unwrap(),
            holder: party_id(party),
            rights: List::new(vec![RightClass::Hold]).unwrap(),
            origin: Origin::Own,
            class: RecordClass::Property,
            sensitivity: Sensitivity::General,
            schema: 1,
            records: 10,
            bytes: 1_000,
            first_day: 20_000,
            last_day: 20_001,
            content_root: Hash([number; 32]),
            content_hash: ContentHash::Sha256,
            quality_report: None,
            compliance_opinion: None,
            valid_until_day: None,
        });
        self.sign(party, number, &command)
    }

    /// The party pins other certificates.
    pub(super) fn pins(&self, party: Party, cti: u8, pins: Vec<Hash>) -> Vec<u8> {
        self.sign(party, cti, &Command::TlsPin(TlsPin { pins: List::new(pins).unwrap() }))
    }

    pub(super) fn standing_height(&self) -> usize {
        self.lock().blocks.len()
    }

    pub(super) fn refuse(&self, refusal: Option<Refusal>) {
        self.lock().refusal = refusal;
    }

    pub(super) fn set_not_ready(&self, reason: Option<&'static str>) {
        self.lock().not_ready = reason;
    }

    /// From now on statements stay pending.
    pub(super) fn hold(&self) {
        self.lock().held = Some(Vec::new());
    }

    pub(super) fn held_statements(&self) -> usize {
        self.lock().held.as_ref().map_or(0, Vec::len)
    }

    /// The statements held become a block, and an empty block certifies it.
    pub(super) fn release(&self) {
        let entries = self.lock().held.take().unwrap();
        self.commit(entries);
        self.commit(Vec::new());
    }

    /// Executes entries as one block.
    pub(super) fn commit(&self, entries: Vec<Arc<[u8]>>) {
        let mut inner = self.lock();
        let statements: Vec<Statement> =
            entries.iter().map(|entry| Statement::parse(Arc::clone(entry)).unwrap()).collect();
        let header = self.header_after(&inner, &entries);
        let applied = apply(&View(&inner.state), &header, &statements);
        let height = header.height;
        for (position, statement) in statements.iter().enumerate() {
            let location = Location::new(height.0, u32::try_from(position).unwrap()).unwrap();
            inner.located.entry(statement.id()).or_insert(location);
            inner.pending.remove(&statement.id());
        }
        for position in &applied.leaves {
            let entry = &entries[usize::try_from(*position).unwrap()];
            inner.log.append(leaf_hash(entry));
            inner.leaves.push(Location::new(height.0, *position).unwrap());
        }
        for (key, value) in applied.writes {
            inner.state.set(key, value);
        }
        inner.outcomes.push(applied.outcomes);
        inner.blocks.push(Block { header, parent_certificate: None, entries });
        drop(inner);
        self.height.send_replace(height.0);
    }

    fn header_after(&self, inner: &Inner, entries: &[Arc<[u8]>]) -> Header {
        let height = Height(u64::try_from(inner.blocks.len()).unwrap() + 1);
        let frame = frame(&View(&inner.state), height);
        let outcomes = inner.outcomes.last().map(Vec::as_slice).unwrap_or_default();
        let leaf_hashes: Vec<_> = outcomes.iter().map(|outcome| leaf_hash(&outcome.to_bytes())).collect();
        let statement_hashes: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        Header {
            network: self.network(),
            protocol_version: 1,
            height,
            creation_round: 0,
            proposer: self.genesis.validators.iter().next().map(Validator::id).unwrap_or_default(),
            time_ms: GENESIS_TIME_MS + height.0,
            parent: inner.blocks.last().map_or(BlockId(self.network().0), |block| block.header.id()),
            parent_certificate: Hash::default(),
            statements_root: Hash(MemoryTree::from_leaf_hashes(&statement_hashes).root()),
            log_size: inner.log.size(),
            log_root: Hash(inner.log.root()),
            state_root: Hash(inner.state.root()),
            outcomes_root: Hash(MemoryTree::from_leaf_hashes(&leaf_hashes).root()),
            validators: frame.validators.hash(),
            next_validators: frame.next_validators.hash(),
            parameters: frame.parameters.hash(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

/// The API passes certificates on without looking into them, so these carry no signatures.
fn certificate(header: &Header) -> CommitCertificate {
    CommitCertificate { height: header.height, round: 0, block: header.id(), signatures: List::default() }
}

fn sealed(inner: &Inner, network: NetworkId) -> Option<SealedHead> {
    let certifying = inner.blocks.last()?;
    let key = signing_key(Party::GovernorA);
    let public_key: [u8; 33] = key.verifying_key().to_encoded_point(true).as_bytes().try_into().unwrap();
    let header = &certifying.header;
    let checkpoint = Checkpoint {
        suite: Suite::Es256,
        key: KeyId::of(Suite::Es256, &public_key),
        network,
        height: Height(header.height.0 - 1),
        log_size: header.log_size,
        state_root: header.state_root,
        time_ms: header.time_ms,
    };
    let signature: Signature = key.sign(&checkpoint.signing_bytes(&header.log_root));
    Some(SealedHead { checkpoint, log_root: header.log_root, signature: signature.to_bytes().into(), public_key })
}

#[async_trait]
impl Backend for MemoryLedger {
    fn payload(&self) -> Result<Arc<Payload>, Code> {
        self.payload.lock().unwrap().clone().ok_or(Code::NotFound)
    }

    fn genesis(&self) -> &Genesis {
        &self.genesis
    }
    fn genesis_bytes(&self) -> Bytes {
        self.genesis.to_bytes().into()
    }
    fn standing(&self) -> Standing {
        let inner = self.lock();
        let height = u64::try_from(inner.blocks.len()).unwrap();
        Standing { height: Height(height), certified: Height(height.saturating_sub(1)), log_size: inner.log.size() }
    }
    async fn advanced(&self, height: Height) {
        let _ = self.height.subscribe().wait_for(|now| *now > height.0).await;
    }
    fn not_ready(&self) -> Option<std::borrow::Cow<'static, str>> {
        self.lock().not_ready.map(Into::into)
    }
    fn in_force(&self) -> InForce {
        let Genesis { parameters, validators, .. } = self.genesis.clone();
        InForce { parameters, validators, suspended: Vec::new() }
    }
    fn client(&self, key: &Hash) -> Result<Option<Client>, Code> {
        let inner = self.lock();
        let view = View(&inner.state);
        let client = |party: PartyId| {
            let record = query::party(&view, &party)?;
            Some(Client { party, roles: record.roles, suspended: record.suspended })
        };
        Ok(query::party_of_tls_pin(&view, key).and_then(client))
    }
    async fn submit(&self, _party: PartyId, entries: Vec<Bytes>) -> Vec<Result<StatementId, Refusal>> {
        let mut taken: Vec<Arc<[u8]>> = Vec::new();
        let mut answers = Vec::new();
        {
            let mut inner = self.lock();
            for entry in entries {
                if let Some(refusal) = inner.refusal {
                    answers.push(Err(refusal));
                    continue;
                }
                match Statement::parse(&*entry) {
                    Err(code) => answers.push(Err(Refusal { code, retry_after_ms: None })),
                    Ok(statement) => {
                        answers.push(Ok(statement.id()));
                        if !inner.located.contains_key(&statement.id()) && inner.pending.insert(statement.id()) {
                            taken.push(Arc::clone(statement.entry()));
                        }
                    }
                }
            }
            if let Some(held) = &mut inner.held {
                held.append(&mut taken);
            }
        }
        if !taken.is_empty() {
            self.commit(taken);
            self.commit(Vec::new());
        }
        answers
    }
    fn is_pending(&self, id: &StatementId) -> bool {
        self.lock().pending.contains(id)
    }
    fn executed(&self, id: &StatementId) -> Result<Option<Executed>, BackendError> {
        let inner = self.lock();
        let Some(location) = inner.located.get(id).copied() else { return Ok(None) };
        let block = usize::try_from(location.height() - 1).unwrap();
        let outcome = &inner.outcomes[block][usize::try_from(location.position()).unwrap()];
        Ok(Some(Executed { location, code: outcome.code, index: outcome.index }))
    }
    fn location_of_leaf(&self, index: LogIndex) -> Result<Option<Location>, BackendError> {
        Ok(usize::try_from(index.0).ok().and_then(|index| self.lock().leaves.get(index).copied()))
    }
    fn entry(&self, location: Location) -> Result<Option<Arc<[u8]>>, BackendError> {
        let block = self.block(Height(location.height()))?;
        Ok(block.and_then(|(block, _)| block.entries.get(usize::try_from(location.position()).ok()?).cloned()))
    }
    fn receipt(&self, index: LogIndex) -> Result<Option<Receipt>, BackendError> {
        let inner = self.lock();
        if index.0 >= inner.log.size() {
            return Ok(None);
        }
        let head = sealed(&inner, self.network()).filter(|head| head.checkpoint.log_size > index.0);
        let head = head.ok_or(BackendError::NotCertified)?;
        let path = stele_merkle::log::inclusion_proof(&inner.log, index.0, head.checkpoint.log_size).unwrap();
        let path = List::new(path.into_iter().map(Hash).collect()).unwrap();
        let proof = InclusionProof { tree_size: head.checkpoint.log_size, index, path };
        Ok(Some(Receipt { checkpoint: head.checkpoint, proof, signature: head.signature }))
    }
    fn bundle(&self, id: &StatementId, with_entry: bool, from: Height) -> Result<Option<Bundle>, BackendError> {
        let Some(executed) = self.executed(id)? else { return Ok(None) };
        let receipt = executed.index.map(|index| self.receipt(index)).transpose()?.flatten();
        let next = Height(executed.location.height() + 1);
        let certified = self.header(next, from)?.ok_or(BackendError::NotCertified)?;
        let entry = if with_entry { self.entry(executed.location)? } else { None };
        Ok(Some(Bundle {
            version: 1,
            entry: entry.map(|entry| Blob::new(entry.to_vec()).unwrap()),
            receipt,
            outcome: None,
            header: certified.header,
            certificate: certified.certificate,
            epoch_certificates: certified.epoch_certificates,
            chain: certified.chain,
            checkpoint_key: None,
            checkpoint_signer: None,
        }))
    }
    fn header(&self, height: Height, _: Height) -> Result<Option<CertifiedHeader>, BackendError> {
        let (epoch_certificates, chain) = (List::default(), List::default());
        let certified = self.block(height)?.map(|(block, certificate)| (block.header, certificate));
        Ok(certified.map(|(header, certificate)| CertifiedHeader { header, certificate, epoch_certificates, chain }))
    }
    fn snapshots(&self) -> Result<Vec<Snapshot>, BackendError> {
        let inner = self.lock();
        let height = u64::try_from(inner.blocks.len()).unwrap().saturating_sub(1);
        let root = inner.blocks.last().map(|block| block.header.state_root);
        let snapshot = |state_root| Snapshot { height: Height(height), state_root, depth: 1, pairs: 7, bytes: 900 };
        Ok(root.map(snapshot).into_iter().collect())
    }
    fn standpoint(&self, height: Height) -> Result<Option<Standpoint>, BackendError> {
        let known = self.snapshots()?.iter().any(|snapshot| snapshot.height == height);
        let log_frontier = stele_merkle::log::Frontier::new();
        Ok(known.then_some(Standpoint { log_frontier, outcomes: Vec::new() }))
    }
    fn snapshot_chunk(&self, height: Height, index: u64) -> Result<Option<Vec<u8>>, BackendError> {
        let known = self.snapshots()?.iter().any(|snapshot| snapshot.height == height);
        Ok((known && index < 2).then(|| format!("chunk {index}").into_bytes()))
    }
    fn block(&self, height: Height) -> Result<Option<(Block, CommitCertificate)>, BackendError> {
        let block = usize::try_from(height.0 - 1).ok().and_then(|index| self.lock().blocks.get(index).cloned());
        Ok(block.map(|block| {
            let certificate = certificate(&block.header);
            (block, certificate)
        }))
    }
    fn checkpoint(&self) -> Option<SealedHead> {
        sealed(&self.lock(), self.network())
    }
    fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, BackendError> {
        let inner = self.lock();
        Ok(tile.is_in(inner.log.size()).then(|| tile.hash_bytes(&inner.log).unwrap()))
    }
    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, BackendError> {
        let path = stele_merkle::log::consistency_proof(&self.lock().log, old, new).unwrap();
        Ok(path.into_iter().map(Hash).collect())
    }
    fn prove_state(&self, key: &StateKey, _: Height) -> Result<StateProof, BackendError> {
        let inner = self.lock();
        Ok(StateProof {
            key: Hash(*key),
            value: inner.state.get(key).map(|value| Blob::new(value.to_vec()).unwrap()),
            proof: Blob::new(inner.state.prove(key).encode()).unwrap(),
            root: Hash(inner.state.root()),
            height: Height(u64::try_from(inner.blocks.len()).unwrap()),
            certified_by: None,
        })
    }
}
