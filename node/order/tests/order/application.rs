//! A trivial application: blocks are noise, the chain is a list.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use stele_order::{
    Application, ApplicationError, Candidate, Decided, Equivocation, HeightStart, Origin, Proposed, Verdict,
};
use stele_types::cbor;
use stele_types::parameters::Timeouts;
use stele_types::{
    BlockId, EpochCertificate, Hash, Height, PartyId, ProposerSchedule, Validator, ValidatorId, ValidatorSet,
};
use tokio::sync::Notify;

use crate::network::Plan;
use crate::records::Records;

/// First byte of a block that honest applications find invalid.
const POISON: u8 = 0xbd;

/// A chain in memory. It outlives the order, as a disk would; a wiped node gets a new one.
pub(crate) struct App {
    pub(crate) validator: ValidatorId,
    validators: Arc<ValidatorSet>,
    epoch_certificates: Arc<[EpochCertificate]>,
    chain: Mutex<Vec<Decided>>,
    /// Where the chain is kept, when it must outlive the process.
    pub(crate) file: Option<Records>,
    pending: AtomicUsize,
    work: Notify,
    /// Heights follow each other without idling.
    pub(crate) busy: AtomicBool,
    pub(crate) heartbeat: Duration,
    pub(crate) block_bytes: AtomicUsize,
    /// Its proposals are invalid.
    pub(crate) lies: AtomicBool,
    pub(crate) halt_at: AtomicU64,
    last_commit: Mutex<Instant>,
    pub(crate) received: Mutex<Vec<(ValidatorId, Bytes)>>,
    pub(crate) equivocations: Mutex<Vec<Equivocation>>,
    pub(crate) synced: AtomicU64,
}

impl App {
    /// The application whose chain lies in `path`, if the plan keeps chains on disk.
    pub(crate) fn open(
        path: &Path,
        validator: ValidatorId,
        validators: Arc<ValidatorSet>,
        epoch_certificates: Arc<[EpochCertificate]>,
        plan: &Plan,
    ) -> Arc<Self> {
        let mut chain = Vec::new();
        let file = plan.on_disk.then(|| {
            Records::open(path, |bytes| {
                let whole;
                (chain, whole) = read_chain(bytes, &validators);
                whole
            })
        });
        Arc::new(Self {
            validator,
            validators,
            epoch_certificates,
            chain: Mutex::new(chain),
            file,
            pending: AtomicUsize::new(0),
            work: Notify::new(),
            busy: AtomicBool::new(plan.busy),
            heartbeat: plan.heartbeat,
            block_bytes: AtomicUsize::new(plan.block_bytes),
            lies: AtomicBool::new(false),
            halt_at: AtomicU64::new(0),
            last_commit: Mutex::new(Instant::now()),
            received: Mutex::default(),
            equivocations: Mutex::default(),
            synced: AtomicU64::new(0),
        })
    }

    /// Whether heights follow each other without idling.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
        self.work.notify_waiters();
    }

    pub(crate) fn height(&self) -> u64 {
        self.chain.lock().unwrap().len() as u64
    }

    pub(crate) fn block(&self, height: u64) -> Decided {
        self.chain.lock().unwrap()[usize::try_from(height - 1).unwrap()].clone()
    }

    pub(crate) fn ids(&self) -> Vec<BlockId> {
        self.chain.lock().unwrap().iter().map(|decided| decided.certificate.block).collect()
    }

    /// Something waits for a block.
    pub(crate) fn submit(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.work.notify_waiters();
    }

    /// Whether the newest block carries something: then one more is wanted at once.
    fn owes_a_block(&self) -> bool {
        self.chain.lock().unwrap().last().is_some_and(|decided| decided.bytes[1] > 0)
    }
}

/// Length of the certificate, length of the block, both.
fn chain_record(decided: &Decided) -> Vec<u8> {
    let certificate = cbor::to_vec(&decided.certificate);
    let mut record = u32::try_from(certificate.len()).unwrap().to_be_bytes().to_vec();
    record.extend(u32::try_from(decided.bytes.len()).unwrap().to_be_bytes());
    record.extend(certificate);
    record.extend(&decided.bytes);
    record
}

/// The chain in a file, and how many of its bytes that is.
fn read_chain(file: Vec<u8>, validators: &Arc<ValidatorSet>) -> (Vec<Decided>, usize) {
    let bytes = Bytes::from(file);
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut chain) = (0, Vec::new());
    // The last record may be in the middle of its write when another process reads along, or torn by a kill.
    while bytes.len() >= at + 8 && bytes.len() >= at + 8 + word(at) + word(at + 4) {
        let block = at + 8 + word(at);
        let end = block + word(at + 4);
        let certificate = cbor::from_slice(&bytes[at + 8..block]).unwrap();
        chain.push(Decided { certificate, validators: validators.clone(), bytes: bytes.slice(block..end) });
        at = end;
    }
    (chain, at)
}

/// The chain that a validator in another process has committed.
pub(crate) fn stored_chain(directory: &Path, index: usize) -> Vec<Decided> {
    let path = directory.join(format!("chain.{index}"));
    let nobody = Validator { public_key: [2; 33], peer_key: [0; 32], party: PartyId([0; 16]) };
    let validators = Arc::new(ValidatorSet::new(vec![nobody]).unwrap());
    if path.exists() { read_chain(std::fs::read(path).unwrap(), &validators).0 } else { Vec::new() }
}

fn id_of(bytes: &[u8]) -> BlockId {
    BlockId(Hash::tagged("test/block", &[bytes]).0)
}

pub(crate) fn timeouts() -> Timeouts {
    Timeouts {
        propose_ms: 1_000,
        propose_step_ms: 200,
        prevote_ms: 300,
        prevote_step_ms: 100,
        precommit_ms: 300,
        precommit_step_ms: 100,
    }
}

#[async_trait]
impl Application for App {
    async fn next(&self) -> Result<HeightStart, ApplicationError> {
        let height = self.height() + 1;
        if self.halt_at.load(Ordering::Relaxed) == height {
            return Err(ApplicationError::Halt { reason: "an unknown protocol version".into() });
        }
        Ok(HeightStart {
            height: Height(height),
            validators: self.validators.clone(),
            proposers: Arc::new(ProposerSchedule::new(self.validators.len())),
            timeouts: timeouts(),
            epoch_certificates: self.epoch_certificates.clone(),
        })
    }

    async fn work(&self, _height: Height) {
        let heartbeat = *self.last_commit.lock().unwrap() + self.heartbeat;
        loop {
            let notified = self.work.notified();
            if self.busy.load(Ordering::Relaxed) || self.pending.load(Ordering::Relaxed) > 0 || self.owes_a_block() {
                return;
            }
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep_until(heartbeat.into()) => return,
            }
        }
    }

    async fn propose(&self, height: Height, round: u32) -> Result<Proposed, ApplicationError> {
        let pending = self.pending.load(Ordering::Relaxed);
        let size = self.block_bytes.load(Ordering::Relaxed).max(64);
        let mut bytes = vec![0; size];
        // Not compressible, and different for every proposer and round.
        let mut state = height.0 << 32 | u64::from(round) << 8 | u64::from(self.validator.0[0]) | 1;
        for chunk in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        bytes[0] = if self.lies.load(Ordering::Relaxed) { POISON } else { 0 };
        bytes[1] = u8::try_from(pending.min(255)).unwrap();
        bytes[2..10].copy_from_slice(&height.0.to_be_bytes());
        bytes[10..42].copy_from_slice(self.validator.as_bytes());
        Ok(Proposed { id: id_of(&bytes), bytes: bytes.into() })
    }

    async fn validate(&self, candidate: Candidate) -> Verdict {
        if candidate.height.0 <= self.height() {
            return Verdict::Undecided;
        }
        assert_eq!(candidate.height.0, self.height() + 1, "nothing is judged before its parent is committed");
        let bytes = &candidate.bytes;
        if candidate.origin == Origin::Sync {
            self.synced.fetch_add(1, Ordering::Relaxed);
        }
        if bytes.len() < 42 || bytes[2..10] != candidate.height.0.to_be_bytes() {
            return Verdict::Malformed;
        }
        if bytes[0] == POISON { Verdict::Invalid(id_of(bytes), "poison") } else { Verdict::Valid(id_of(bytes)) }
    }

    async fn commit(&self, decided: Decided) -> Result<(), ApplicationError> {
        let mut chain = self.chain.lock().unwrap();
        assert_eq!(decided.certificate.height.0, chain.len() as u64 + 1, "heights are committed in order");
        assert_eq!(decided.certificate.block, id_of(&decided.bytes));
        assert!(decided.certificate.signatures.len() >= decided.validators.quorum());
        assert!(decided.certificate.is_ordered());
        if decided.bytes[10..42] == *self.validator.as_bytes() {
            self.pending.fetch_sub(usize::from(decided.bytes[1]), Ordering::Relaxed);
        }
        if let Some(file) = &self.file {
            file.append(&chain_record(&decided));
        }
        chain.push(decided);
        *self.last_commit.lock().unwrap() = Instant::now();
        Ok(())
    }

    async fn blocks(&self, from: Height, until: Height, bytes_max: usize) -> Result<Vec<Decided>, ApplicationError> {
        let chain = self.chain.lock().unwrap();
        let mut bytes = 0;
        let wanted = (from.0..=until.0).map_while(|height| chain.get(usize::try_from(height).ok()?.checked_sub(1)?));
        Ok(wanted
            .enumerate()
            .take_while(|(index, decided)| {
                bytes += decided.bytes.len();
                *index == 0 || bytes <= bytes_max
            })
            .map(|(_, decided)| decided.clone())
            .collect())
    }

    async fn history_start(&self) -> Height {
        Height(1)
    }

    async fn equivocation(&self, equivocation: Equivocation) {
        self.equivocations.lock().unwrap().push(equivocation);
    }

    async fn message(&self, from: ValidatorId, bytes: Bytes) {
        self.received.lock().unwrap().push((from, bytes));
    }
}
