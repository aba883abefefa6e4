//! What nodes and clients say to each other over HTTP in CBOR, beside statements, receipts and bundles themselves.
//!
//! Nothing here is signed or hashed; what it carries proves itself. The JSON forms of the same answers are described by
//! the node's OpenAPI document.

use crate::block::Block;
use crate::bundle::{Bundle, ChainLink};
use crate::cbor::{Blob, List};
use crate::code::Code;
use crate::hash::{Hash, StatementId};
use crate::header::{Header, Height, LogIndex};
use crate::limits::{CHAIN_LINKS_MAX, VALIDATORS_MAX};
use crate::vote::{CommitCertificate, EpochCertificate};

/// One value of the state tree.
pub const STATE_VALUE_BYTES_MAX: usize = 64 * 1024;
/// One proof of the state tree: 256 siblings, a bitmap and another leaf.
pub const STATE_PROOF_BYTES_MAX: usize = 8 * 1024 + 128;

crate::codes! {
    /// How far a statement has come. Only `certified` is an acknowledgement.
    pub enum Progress: u8 {
        /// Queued or proposed; it promises nothing.
        Pending = 1 => "pending",
        /// In a committed block, with its outcome; the next header will certify it.
        Executed = 2 => "executed",
        /// The outcome is certified by a header: final and provable.
        Certified = 3 => "certified",
    }
}

crate::record! {
    /// Answer to one statement of a batch: taken with its id, or refused.
    pub struct Submitted {
        /// Id of the statement, when it could be parsed.
        1 => statement: Option<StatementId>,
        /// Why it was refused; absent when it was taken or was known already.
        2 => refusal: Option<Code>,
        /// When to try again, for refusals that pass.
        3 => retry_after_ms: Option<u32>,
    }
}

crate::record! {
    /// Where a statement is.
    pub struct StatementStatus {
        /// The statement.
        1 => statement: StatementId,
        /// How far it has come; absent when the node does not know it.
        2 => progress: Option<Progress>,
        /// Height of its block.
        3 => height: Option<Height>,
        /// Position in the block.
        4 => position: Option<u32>,
        /// Its outcome.
        5 => code: Option<Code>,
        /// Index of its leaf, when it applied.
        6 => index: Option<LogIndex>,
    }
}

crate::record! {
    /// A header with a quorum for it, and the way to that quorum from genesis or a pinned height.
    pub struct CertifiedHeader {
        /// The header.
        1 => header: Header,
        /// The quorum.
        2 => certificate: CommitCertificate,
        /// Epoch certificates that the signatures name, each once.
        3 => epoch_certificates: List<EpochCertificate, { VALIDATORS_MAX * 4 }>,
        /// Validator-set changes below the header, ascending.
        4 => chain: List<ChainLink, CHAIN_LINKS_MAX>,
    }
}

crate::record! {
    /// A block with a quorum for it.
    pub struct CertifiedBlock {
        /// The block.
        1 => block: Block,
        /// The quorum.
        2 => certificate: CommitCertificate,
    }
}

crate::record! {
    /// A value of the state, or its absence, with the proof under the state root of `header`.
    pub struct StateProof {
        /// Key of the state tree.
        1 => key: Hash,
        /// The value; absent when the proof is one of non-membership.
        2 => value: Option<Blob<STATE_VALUE_BYTES_MAX>>,
        /// The proof, in the encoding of the state tree.
        3 => proof: Blob<STATE_PROOF_BYTES_MAX>,
        /// The root that the proof leads to.
        4 => root: Hash,
        /// Height after which the root stands.
        5 => height: Height,
        /// The header whose state root this is, once there is one.
        6 => certified_by: Option<CertifiedHeader>,
    }
}

crate::record! {
    /// Answer to one statement id of a bulk request for bundles.
    pub struct BundleReply {
        /// The statement.
        1 => statement: StatementId,
        /// Its bundle.
        2 => bundle: Option<Bundle>,
        /// Why there is none.
        3 => refusal: Option<Code>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn answers_round_trip_and_leave_out_what_is_absent() {
        let statement = StatementId([7; 32]);
        let pending = StatementStatus {
            statement,
            progress: Some(Progress::Pending),
            height: None,
            position: None,
            code: None,
            index: None,
        };
        let bytes = cbor::to_vec(&pending);
        assert_eq!(bytes[0], 0xa2, "a map of two pairs");
        assert_eq!(cbor::from_slice::<StatementStatus>(&bytes), Ok(pending));
        let refused = Submitted { statement: None, refusal: Some(Code::Saturated), retry_after_ms: Some(250) };
        assert_eq!(cbor::from_slice::<Submitted>(&cbor::to_vec(&refused)), Ok(refused));
    }
}
