//! What the node implements: everything the order needs to know about blocks.
//!
//! Methods take `&self` and run in tasks of their own, so a slow `validate` never delays an answer to a syncing peer.
//! Only [`Application::commit`] and [`Application::next`] are called strictly one after the other, in height order.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use stele_types::parameters::Timeouts;
use stele_types::vote::Ballot;
use stele_types::{
    BlockId, CommitCertificate, EpochCertificate, Height, ProposerSchedule, ValidatorId, ValidatorSet, VoteSignature,
};

/// What the engine must know to start a height.
#[derive(Clone, Debug)]
pub struct HeightStart {
    /// The height after the newest committed one.
    pub height: Height,
    /// Who votes at this height.
    pub validators: Arc<ValidatorSet>,
    /// Who proposes at this height.
    pub proposers: Arc<ProposerSchedule>,
    /// Timeouts of this height.
    pub timeouts: Timeouts,
    /// Epoch certificates that the ledger knows before this height. Delegated votes under others do not count, so
    /// every validator must hold the same list.
    pub epoch_certificates: Arc<[EpochCertificate]>,
}

/// A block to propose.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// Its id: what votes carry.
    pub id: BlockId,
    /// Its encoding, as [`Application::validate`] will see it elsewhere.
    pub bytes: Bytes,
}

/// Where a block to be validated comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Proposed in the current round for the first time: the only case in which the block's time is checked.
    Fresh,
    /// Proposed before and now again, or read back after a restart.
    Repeated,
    /// Decided by others and fetched from a peer; its certificate has been verified. Were it invalid here, this node and
    /// the network would disagree about the rules: the application raises its alarm and halts.
    Sync,
}

/// A block to be validated.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Height it is for: that of the last [`HeightStart`] when the call was made, but sync may commit it meanwhile.
    pub height: Height,
    /// Round it was proposed in.
    pub round: u32,
    /// Who proposed it in that round.
    pub proposer: ValidatorId,
    /// The validator that sent it over its own authenticated link; none for what was fetched or read back.
    pub sender: Option<ValidatorId>,
    /// Where it comes from.
    pub origin: Origin,
    /// The block.
    pub bytes: Bytes,
}

/// A block that sync fetched, as the peer that sent it says. Nothing about it has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its height.
    pub height: Height,
    /// Its id, which the certificate names that came with it.
    pub block: BlockId,
    /// The block.
    pub bytes: Bytes,
}

/// What the application says about a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The block may be voted for.
    Valid(BlockId),
    /// The block decodes but must not be voted for: the node votes nil. The reason is a stable snake_case code.
    Invalid(BlockId, &'static str),
    /// Not a block at all: it is dropped, and its sender is blamed when it came by sync.
    Malformed,
    /// The application cannot tell now (its storage is busy, say): dropped without blame.
    Undecided,
}

/// A decided block.
#[derive(Clone, Debug)]
pub struct Decided {
    /// A quorum of verified precommits.
    pub certificate: CommitCertificate,
    /// The validators whose indices the certificate uses.
    pub validators: Arc<ValidatorSet>,
    /// The block.
    pub bytes: Bytes,
}

/// Proof that a validator signed two different things for one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// Who did.
    pub validator: ValidatorId,
    /// The two ballots and their signatures; height, round and kind are equal, the blocks differ.
    pub ballots: [(Ballot, VoteSignature); 2],
}

/// Why the application could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplicationError {
    /// Passing trouble: the call is repeated.
    #[error("the application is not ready: {reason}")]
    Unavailable {
        /// For the log.
        reason: String,
    },
    /// The node must not go on: a poisoned store, or a protocol version this binary does not speak. The order stops
    /// cleanly and [`crate::Order::stopped`] tells why.
    #[error("the application halts: {reason}")]
    Halt {
        /// For the log.
        reason: String,
    },
}

/// The node behind the order.
///
/// Calls come from tasks of the runtime in which [`crate::Order::start`] was called: computation of more than a
/// millisecond belongs on a thread of its own (`spawn_blocking`).
#[async_trait]
pub trait Application: Send + Sync + 'static {
    /// The height after the newest committed one, and its parameters. Asked at every start of the engine and after
    /// every commit; answers at once.
    ///
    /// # Errors
    /// See [`ApplicationError`].
    async fn next(&self) -> Result<HeightStart, ApplicationError>;

    /// Resolves when the node wants `height` to start: statements wait, results want a certificate, or the heartbeat is
    /// due. Until then validators idle without running into timeouts. Dropped when a peer starts the height first, so
    /// it must be safe to cancel.
    async fn work(&self, height: Height);

    /// Builds a block. Called only for a round whose proposer this node is, at most once per round.
    ///
    /// # Errors
    /// See [`ApplicationError`]; the round then passes without a proposal of this node.
    async fn propose(&self, height: Height, round: u32) -> Result<Proposed, ApplicationError>;

    /// Judges a block that a peer proposed or that was decided elsewhere. May be called concurrently, again for the same
    /// block, and while its height is being committed: `Undecided` is the answer for a height that is over.
    async fn validate(&self, candidate: Candidate) -> Verdict;

    /// Commits a decided block. Durable when it returns; called once per height, in order, never concurrently.
    ///
    /// # Errors
    /// `Unavailable` is retried, `Halt` stops the order.
    async fn commit(&self, decided: Decided) -> Result<(), ApplicationError>;

    /// Committed blocks from `from` up to `until`, for a peer that catches up: consecutive, as many as fit into
    /// `bytes_max`, the first one always if it exists.
    ///
    /// # Errors
    /// See [`ApplicationError`]; the peer then gets nothing and asks another one.
    async fn blocks(&self, from: Height, until: Height, bytes_max: usize) -> Result<Vec<Decided>, ApplicationError>;

    /// The first height that [`Application::blocks`] can serve.
    async fn history_start(&self) -> Height;

    /// Records a proof of misbehaviour.
    async fn equivocation(&self, equivocation: Equivocation);

    /// A message another validator sent with [`crate::Order::broadcast`]. Delivered in no particular order, possibly
    /// never; dropped when this call falls behind.
    async fn message(&self, from: ValidatorId, bytes: Bytes);

    /// Blocks of one response of sync, before their turn comes: a hint, so that they can be prepared in bulk. Must not
    /// block.
    fn fetched(&self, blocks: Vec<Fetched>) {
        drop(blocks);
    }
}
