//! The order: one sequence of blocks that all validators agree on.
//!
//! A thin, owned interface around an embedded BFT engine (Malachite, Tendermint consensus). The node implements
//! [`Application`] (it builds, judges, commits and serves blocks) and [`VoteSigner`] (its votes), and holds an
//! [`Order`]. No type of the engine or of its peer-to-peer transport appears outside this crate.
//!
//! ```text
//!   application ◄── heights (commit, idle, start) ◄──┐
//!        ▲ ▲                                         │
//!        │ └────── host (propose, serve, sync) ◄── engine ◄──► peers (Noise, pinned ids)
//!        └──────── inbox (assemble, validate) ◄──────────────┘
//!                    └── undecided blocks (on disk before a vote)
//! ```
//!
//! What it adds to the engine:
//!
//! * **Idling.** While nothing waits, no height runs: the answer to "what next?" is held back until
//!   [`Application::work`] resolves or a peer starts the height. Timeouts of a round never run meanwhile.
//! * **Abstaining.** The engine cannot: here a refused signature is neither counted nor sent ([`VoteSigner`]).
//! * **Durability of what is voted for.** A proposed block is on disk before the engine may vote for it.
//! * **Liveness.** A watchdog restarts a stuck engine, not the process ([`Watchdog`]).
//! * **Delegated votes.** Epoch keys count only under certificates that the ledger knows ([`HeightStart`]).
//! * **Application messages** over the same authenticated links ([`Order::broadcast`]).
//!
//! What it is not: it does not know what a block contains, keeps no decided block, and decides nothing about time,
//! demotion of proposers or the validator set. Those are the ledger's; they arrive with every [`HeightStart`].
//!
//! Safety rests on three independent records: the engine's journal (votes of the running height), the undecided blocks
//! beside it, and the signer's own guard, which outlives both. When the journal is lost or damaged, the guard still refuses
//! a second vote in the same round; that a later one could break a lock is prevented by abstaining from the whole height
//! ([`VoteSigner::abstain`]), and the node follows by sync until it is over.

#![forbid(unsafe_code)]

mod application;
mod assembly;
mod codec;
mod config;
mod context;
mod engine;
mod figures;
mod gate;
mod heights;
mod host;
mod inbox;
mod journal;
mod order;
mod peer_identity;
mod shared;
mod signer;
mod undecided;
mod verifier;
mod wire;

pub use application::{
    Application, ApplicationError, Candidate, Decided, Equivocation, Fetched, HeightStart, Origin, Proposed, Verdict,
};
pub use config::{
    Endpoint, MESSAGE_BYTES_MAX, MESSAGE_BYTES_PER_SECOND_MAX, OrderConfig, PART_BYTES, Peer, SyncConfig, Watchdog,
};
pub use figures::{DECISION_BUCKETS_MS, Figures};
pub use order::{BroadcastError, Order, OrderError, StopReason};
pub use peer_identity::{PeerIdentity, PeerIdentityError};
pub use signer::{LastBallot, SignerError, VoteSigner};
