//! What a verification says, and the exit codes under which command lines pass it on.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | registered, or every value present; certified by a quorum |
//! | 1 | invalid: the proof does not hold |
//! | 2 | usage: files or arguments are missing |
//! | 3 | vouched by one node only |
//! | 4 | rejected, certified by a quorum |
//! | 5 | a value of the state is absent, certified by a quorum |
//! | 6 | registered, but it was asked where the checkpoint key was, and that is not shown |

use stele_types::{Code, Hash, Height, KeyId, LogIndex, NetworkId, PartyId, StatementId};

/// Exit code: registered, certified by a quorum.
pub const EXIT_REGISTERED: u8 = 0;
/// Exit code: every value of the state is present, certified by a quorum.
pub const EXIT_PRESENT: u8 = 0;
/// Exit code: the proof does not hold.
pub const EXIT_INVALID: u8 = 1;
/// Exit code: files or arguments are missing or contradict each other.
pub const EXIT_USAGE: u8 = 2;
/// Exit code: the receipt holds, but only one node vouches.
pub const EXIT_VOUCHED_BY_ONE_NODE: u8 = 3;
/// Exit code: rejected, certified by a quorum.
pub const EXIT_REJECTED: u8 = 4;
/// Exit code: a value of the state is absent, certified by a quorum.
pub const EXIT_ABSENT: u8 = 5;
/// Exit code: registered, certified by a quorum, but where the checkpoint key was is asked for and not shown.
pub const EXIT_SIGNER_NOT_SHOWN: u8 = 6;

/// A statement in the log, certified by a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The network.
    pub network: NetworkId,
    /// The statement.
    pub statement: StatementId,
    /// Who made it.
    pub issuer: PartyId,
    /// The key that signs it.
    pub key: KeyId,
    /// Its leaf.
    pub index: LogIndex,
    /// The statement was applied at this height or below.
    pub height: Height,
    /// The statement was applied before this time: that of the header which certifies the log, milliseconds.
    pub time_ms: u64,
    /// Leaves of the certified log.
    pub log_size: u64,
    /// The header that certifies the log.
    pub header: Hash,
}

/// A statement that was refused, certified by a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The network.
    pub network: NetworkId,
    /// The statement.
    pub statement: StatementId,
    /// Why.
    pub code: Code,
    /// Height of the block that refused it.
    pub height: Height,
    /// The block was made before this time: that of the header above it, milliseconds.
    pub time_ms: u64,
    /// The header that certifies the outcome.
    pub header: Hash,
}

/// What one node vouches for with its checkpoint key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The network.
    pub network: NetworkId,
    /// The statement.
    pub statement: StatementId,
    /// Who made it.
    pub issuer: PartyId,
    /// The key that signs the statement.
    pub key: KeyId,
    /// Its leaf.
    pub index: LogIndex,
    /// The checkpoint key.
    pub checkpoint_key: KeyId,
    /// Height after which the tree head stands.
    pub height: Height,
    /// Leaves of the log.
    pub log_size: u64,
    /// Root of the log.
    pub log_root: Hash,
    /// Root of the state tree.
    pub state_root: Hash,
    /// Time of the block at that height, as the node says, milliseconds.
    pub time_ms: u64,
}

/// What a verification says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the log.
    Registered(Registered),
    /// Refused.
    Rejected(Rejected),
    /// In the log as one node says.
    VouchedByOneNode(Vouched),
}

impl Verdict {
    /// Stable word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Registered(_) => "registered",
            Self::Rejected(_) => "rejected",
            Self::VouchedByOneNode(_) => "vouched_by_one_node",
        }
    }
    /// The exit code that passes it on. Errors are [`EXIT_INVALID`].
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Registered(_) => EXIT_REGISTERED,
            Self::Rejected(_) => EXIT_REJECTED,
            Self::VouchedByOneNode(_) => EXIT_VOUCHED_BY_ONE_NODE,
        }
    }
    /// The statement that it is about.
    #[must_use]
    pub const fn statement(&self) -> StatementId {
        match self {
            Self::Registered(registered) => registered.statement,
            Self::Rejected(rejected) => rejected.statement,
            Self::VouchedByOneNode(vouched) => vouched.statement,
        }
    }
}
