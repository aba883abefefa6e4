//! Blocks that sync fetched, prepared before their turn comes.
//!
//! A node that catches up judges and executes block after block. What of that does not depend on the block before is done
//! ahead, for all blocks of a response at once: they are parsed and hashed, and their signatures go to the accelerator as
//! one bulk job, which is large enough for a GPU and leaves no core idle meanwhile. Keys are those of the newest state;
//! whoever's key comes in between is verified when the block is judged, and so is all that was found invalid: what is done
//! here can only spare work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use stele_accel::Priority;
use stele_ledger::SigningKeys;
use stele_order::Fetched;
use stele_types::party::EnrolledKey;
use stele_types::{Block, Hash, Height};
use tokio::sync::{Semaphore, watch};
use tracing::debug;

use crate::admission::Verified;
use crate::chain::{Chain, Prepared};
use crate::signatures::{Signatures, Signed};

/// Heights above the tip that are looked at: more than sync asks for at once.
const HEIGHTS_MAX: u64 = 256;

/// Bytes of blocks that wait for their turn, whoever sent them: what honest peers send in answer to all requests in flight.
/// Their statements fit the memory of what was verified.
const BYTES_MAX: usize = 48 * 1024 * 1024;

/// Responses that are prepared at once: as many as sync has requests in flight.
const RESPONSES_MAX: usize = 4;

/// Blocks that are prepared, or being prepared.
pub(super) struct Ahead {
    chain: Arc<Chain>,
    signatures: Signatures,
    verified: Arc<Verified>,
    /// What bulk work verified, perhaps on a GPU: it counts for decided blocks only, never for a vote.
    verified_bulk: Verified,
    waiting: Mutex<Waiting>,
    responses: Arc<Semaphore>,
}

struct Entry {
    bytes: Bytes,
    prepared: Coming,
    /// The response that it came with: once one block of it is not what was decided, the others are not believed.
    response: u64,
}

/// The blocks that wait, and how many responses there were.
#[derive(Default)]
struct Waiting {
    blocks: BTreeMap<Height, Entry>,
    responses: u64,
}

impl Waiting {
    /// Drops what came with a response.
    fn drop_response(&mut self, response: u64) {
        self.blocks.retain(|_, entry| entry.response != response);
    }
}

/// A block, or none while it is prepared. Its sender goes without a block that cannot be.
type Coming = watch::Receiver<Option<Arc<Prepared>>>;
type Promise = watch::Sender<Option<Arc<Prepared>>>;

/// A statement whose key is known.
struct Candidate {
    block: usize,
    statement: usize,
    key: EnrolledKey,
    /// Its place in the memory of what was verified.
    memory: Hash,
}

impl Ahead {
    pub(super) fn new(chain: Arc<Chain>, signatures: Signatures, verified: Arc<Verified>) -> Arc<Self> {
        let responses = Arc::new(Semaphore::new(RESPONSES_MAX));
        let verified_bulk = Verified::default();
        Arc::new(Self { chain, signatures, verified, verified_bulk, waiting: Mutex::default(), responses })
    }

    /// The block of that height, if it was fetched with these bytes, once its signatures were verified.
    pub(super) async fn take(&self, height: Height, bytes: &Bytes) -> Option<Arc<Prepared>> {
        let mut coming = {
            let mut waiting = self.waiting();
            let Entry { bytes: found, prepared, response } = waiting.blocks.remove(&height)?;
            if found != *bytes {
                // The engine asked another peer meanwhile: it did not believe this one either.
                waiting.drop_response(response);
                return None;
            }
            prepared
        };
        let prepared = coming.wait_for(Option::is_some).await.ok()?;
        prepared.clone()
    }

    /// Whether a signature of a decided block was verified before.
    pub(super) fn knows(&self, memory: &Hash) -> bool {
        self.verified.contains(memory) || self.verified_bulk.contains(memory)
    }

    /// Remembers signatures of decided blocks.
    pub(super) fn learn(&self, memory: impl Iterator<Item = Hash>) {
        self.verified_bulk.add(memory);
    }

    /// Forgets what is decided.
    pub(super) fn settle(&self, height: Height) {
        self.waiting().blocks.retain(|at, _| *at > height);
    }

    /// Begins to prepare the blocks of one response; those that are too far ahead are left for their turn, and so are all
    /// while there is no room.
    pub(super) fn begin(self: &Arc<Self>, blocks: Vec<Fetched>) {
        let Ok(turn) = Arc::clone(&self.responses).try_acquire_owned() else { return };
        let tip = self.chain.tip().height;
        let mut fetched = Vec::new();
        {
            let mut waiting = self.waiting();
            // A height is fetched again when what came first was not believed, so its whole response gives way.
            for block in &blocks {
                let before = waiting.blocks.get(&block.height).filter(|entry| entry.bytes != block.bytes);
                if let Some(response) = before.map(|entry| entry.response) {
                    waiting.drop_response(response);
                }
            }
            waiting.responses += 1;
            let response = waiting.responses;
            let mut room = BYTES_MAX.saturating_sub(waiting.blocks.values().map(|entry| entry.bytes.len()).sum());
            for block in blocks {
                let wanted = block.height > tip && block.height.0 - tip.0 <= HEIGHTS_MAX;
                if wanted && block.bytes.len() <= room && !waiting.blocks.contains_key(&block.height) {
                    room -= block.bytes.len();
                    let (promise, prepared) = watch::channel(None);
                    waiting.blocks.insert(block.height, Entry { bytes: block.bytes.clone(), prepared, response });
                    fetched.push((block, promise));
                }
            }
        }
        let ahead = Arc::clone(self);
        // It ends with the accelerator's verdicts.
        tokio::spawn(async move {
            ahead.prepare(fetched).await;
            drop(turn);
        });
    }

    async fn prepare(self: &Arc<Self>, fetched: Vec<(Fetched, Promise)>) {
        let ahead = Arc::clone(self);
        let parsed = tokio::task::spawn_blocking(move || {
            let prepared = |(fetched, promise): (Fetched, Promise)| {
                let block = Block::from_bytes(&fetched.bytes).ok()?;
                // One that is not what its certificate names is not worth verifying.
                let named = block.header.height == fetched.height && block.header.id() == fetched.block;
                let prepared = Prepared::new(block, fetched.bytes).ok().filter(|_| named)?;
                Some((Arc::new(prepared), promise))
            };
            let blocks: Vec<_> = fetched.into_iter().filter_map(prepared).collect();
            let candidates = ahead.candidates(blocks.iter().map(|(block, _)| &**block));
            (blocks, candidates)
        });
        // A panic leaves the blocks to their turn, as whatever cannot be prepared.
        let Ok((blocks, candidates)) = parsed.await else { return };
        let signed = candidates
            .iter()
            .map(|candidate| Signed::of(&blocks[candidate.block].0.statements[candidate.statement], &candidate.key));
        match self.signatures.verify(Priority::Bulk, signed).await {
            Ok(verdicts) => {
                let valid = candidates.iter().zip(&verdicts).filter(|(_, valid)| **valid);
                self.verified_bulk.add(valid.map(|(candidate, _)| candidate.memory));
            }
            // They are verified when their blocks are judged.
            Err(error) => debug!(%error, "blocks were not verified ahead"),
        }
        for (prepared, promise) in blocks {
            promise.send_replace(Some(prepared));
        }
    }

    /// Signatures that were not verified before and whose keys are known now.
    fn candidates<'b>(&self, blocks: impl Iterator<Item = &'b Prepared>) -> Vec<Candidate> {
        let head = self.chain.head();
        let parameters = &head.frame.parameters;
        let mut found = Vec::new();
        for (at, block) in blocks.enumerate() {
            // Commits wait for whoever reads the state, so every block is read for by itself.
            let known = self.chain.reading(|view| {
                let mut keys = SigningKeys::new(view);
                block.statements.iter().map(|statement| keys.of(statement).ok().cloned()).collect()
            });
            let known: Vec<Option<EnrolledKey>> = known.unwrap_or_default();
            for (place, (statement, key)) in block.statements.iter().zip(known).enumerate() {
                let (Some(key), Some(version)) = (key, parameters.rule_version(statement.suite())) else { continue };
                let memory = Verified::key(version, &key.public_key, statement);
                if !self.knows(&memory) {
                    found.push(Candidate { block: at, statement: place, key, memory });
                }
            }
        }
        found
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
