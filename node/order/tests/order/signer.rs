//! Software signers: a key, a guard against second votes, and knobs to make them fail.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use stele_order::{LastBallot, SignerError, VoteSigner};
use stele_types::vote::Ballot;
use stele_types::{BlockId, EpochCertificate, Height, VoteKey, VoteKind, VoteSignature};

use crate::network::NETWORK;
use crate::records::Records;

pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The key in `path`, made when it is missing.
    pub(crate) fn open(path: &Path) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        if !path.exists() {
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
            std::fs::write(path, document.as_ref()).unwrap();
        }
        Self(EcdsaKeyPair::from_pkcs8(algorithm, &std::fs::read(path).unwrap()).unwrap())
    }

    /// SEC1 compressed.
    pub(crate) fn public(&self) -> [u8; 33] {
        let point = self.0.public_key().as_ref();
        let mut compressed = [0; 33];
        compressed[0] = 2 + (point[64] & 1);
        compressed[1..].copy_from_slice(&point[1..33]);
        compressed
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap()
    }
}

type Step = (u64, u32, u8);

/// A software signer with a guard, and knobs to make it fail.
pub(crate) struct Signer {
    pub(crate) key: Key,
    pub(crate) epoch: Option<(Key, EpochCertificate)>,
    /// Every n-th request is not answered at first; 0 = never.
    pub(crate) fail_every: AtomicU32,
    /// How long one signature takes, as in a TPM.
    pub(crate) delay_ms: AtomicU64,
    /// Refuses everything as if the guard held another ballot.
    pub(crate) refuse: AtomicBool,
    /// The next ballot of this kind is signed and never given out, and nothing is signed after it; 0: none. As if the node
    /// were killed between the two.
    pub(crate) lose: AtomicU8,
    /// Whether one was lost.
    pub(crate) lost: AtomicBool,
    requests: AtomicU32,
    guard: Mutex<HashMap<Step, (Ballot, VoteSignature)>>,
    /// Requests for a ballot that differs from the one signed for the step.
    pub(crate) conflicts: AtomicU32,
    /// Where the guard is kept, when it must outlive the process.
    pub(crate) file: Option<Records>,
}

impl Signer {
    pub(crate) fn open(key: Key, guard: Option<&Path>) -> Self {
        let mut signed = HashMap::new();
        let file = guard.map(|path| {
            Records::open(path, |bytes| {
                let records = bytes.chunks_exact(GUARD_RECORD_BYTES);
                let whole = records.len() * GUARD_RECORD_BYTES;
                signed = records.filter(|record| record[0] == 1).map(guard_entry).collect();
                whole
            })
        });
        Self {
            key,
            epoch: None,
            fail_every: AtomicU32::new(0),
            delay_ms: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
            lose: AtomicU8::new(0),
            lost: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            guard: Mutex::new(signed),
            conflicts: AtomicU32::new(0),
            file,
        }
    }

    fn record(&self, tag: u8, ballot: &Ballot, signature: &[u8; 64]) {
        let Some(file) = &self.file else { return };
        let mut record = vec![tag, ballot.kind as u8, u8::from(ballot.block.is_some())];
        record.extend(ballot.height.0.to_be_bytes());
        record.extend(ballot.round.to_be_bytes());
        record.extend(ballot.block.unwrap_or_default().as_bytes());
        record.extend(ballot.valid_round.map_or(0, |round| u64::from(round) + 1).to_be_bytes());
        record.extend(signature);
        assert_eq!(record.len(), GUARD_RECORD_BYTES);
        file.append(&record);
    }
}

/// Tag (1 signed, 2 conflict), kind, whether there is a block, height, round, block, valid round + 1, signature.
const GUARD_RECORD_BYTES: usize = 3 + 8 + 4 + 32 + 8 + 64;

fn guard_entry(record: &[u8]) -> (Step, (Ballot, VoteSignature)) {
    let word =
        |range: std::ops::Range<usize>| record[range].iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let kind = [VoteKind::Proposal, VoteKind::Prevote, VoteKind::Precommit][usize::from(record[1]) - 1];
    let ballot = Ballot {
        network: NETWORK,
        kind,
        height: Height(word(3..11)),
        round: u32::try_from(word(11..15)).unwrap(),
        block: (record[2] == 1).then(|| BlockId(record[15..47].try_into().unwrap())),
        valid_round: word(47..55).checked_sub(1).map(|round| u32::try_from(round).unwrap()),
    };
    let signature = VoteSignature { key: VoteKey::Direct, signature: record[55..].try_into().unwrap() };
    ((ballot.height.0, ballot.round, step_of(kind)), (ballot, signature))
}

/// Conflicting requests that a stored guard has seen.
pub(crate) fn stored_conflicts(directory: &Path, index: usize) -> usize {
    let bytes = std::fs::read(directory.join(format!("guard.{index}"))).unwrap();
    bytes.chunks_exact(GUARD_RECORD_BYTES).filter(|record| record[0] == 2).count()
}

fn step_of(kind: VoteKind) -> u8 {
    match kind {
        VoteKind::Proposal => 0,
        VoteKind::Prevote => 1,
        VoteKind::Precommit => 2,
    }
}

#[async_trait]
impl VoteSigner for Signer {
    async fn sign(&self, ballot: Ballot) -> Result<VoteSignature, SignerError> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let fail_every = self.fail_every.load(Ordering::Relaxed);
        if fail_every > 0 && request.is_multiple_of(fail_every) {
            return Err(SignerError::Unavailable { reason: "the test says so".into() });
        }
        if self.refuse.load(Ordering::Relaxed) {
            return Err(SignerError::DoubleSign);
        }
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))).await;
        if self.lost.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let signature = self.sign_once(ballot)?;
        if self.lose.load(Ordering::Relaxed) == ballot.kind as u8 {
            self.lost.store(true, Ordering::Relaxed);
            return std::future::pending().await;
        }
        Ok(signature)
    }

    async fn last(&self) -> Result<Option<LastBallot>, SignerError> {
        let guard = self.guard.lock().unwrap();
        let last = guard.iter().max_by_key(|(step, _)| **step);
        Ok(last.map(|(_, (ballot, _))| LastBallot { height: ballot.height, round: ballot.round, kind: ballot.kind }))
    }

    async fn prove_peer(&self, statement: &[u8]) -> Result<Option<[u8; 64]>, SignerError> {
        Ok(Some(self.key.sign(statement)))
    }
}

impl Signer {
    fn sign_once(&self, ballot: Ballot) -> Result<VoteSignature, SignerError> {
        let kind = step_of(ballot.kind);
        let mut guard = self.guard.lock().unwrap();
        if let Some((signed, signature)) = guard.get(&(ballot.height.0, ballot.round, kind)) {
            if signed == &ballot {
                return Ok(*signature);
            }
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            self.record(2, &ballot, &[0; 64]);
            return Err(SignerError::DoubleSign);
        }
        let signature = match &self.epoch {
            Some((key, certificate)) => {
                let name = VoteKey::Delegated(certificate.hash());
                VoteSignature { key: name, signature: key.sign(&ballot.signing_bytes(&name)) }
            }
            None => {
                let name = VoteKey::Direct;
                VoteSignature { key: name, signature: self.key.sign(&ballot.signing_bytes(&name)) }
            }
        };
        self.record(1, &ballot, &signature.signature);
        guard.insert((ballot.height.0, ballot.round, kind), (ballot, signature));
        Ok(signature)
    }
}
