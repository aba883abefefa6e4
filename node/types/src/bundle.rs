//! The quorum bundle: everything that proves an outcome offline, from genesis (or a pinned height) to the receipt.

use crate::cbor::{Blob, List};
use crate::hash::Hash;
use crate::header::Header;
use crate::limits::{CHAIN_LINKS_MAX, PATH_MAX, STATEMENT_BYTES_MAX, VALIDATORS_MAX};
use crate::outcome::Outcome;
use crate::receipt::Receipt;
use crate::validator::ValidatorSet;
use crate::vote::{CommitCertificate, EpochCertificate};

crate::record! {
    /// A change of validators: the header at whose height the old set decides for the last time.
    pub struct ChainLink {
        /// Its `next_validators` is the hash of `validators`.
        1 => header: Header,
        /// Quorum of the set that decided the header.
        2 => certificate: CommitCertificate,
        /// The set from the next height on.
        3 => validators: ValidatorSet,
    }
}

crate::record! {
    /// An outcome with its path in the outcomes tree of its block.
    pub struct OutcomeProof {
        /// The outcome.
        1 => outcome: Outcome,
        /// Statements of the block.
        2 => tree_size: u64,
        /// Position in the block.
        3 => position: u64,
        /// Sibling hashes from the leaf up.
        4 => path: List<Hash, PATH_MAX>,
    }
}

crate::record! {
    /// Proof of registration (with a receipt) or of rejection (with an outcome), vouched for by a quorum.
    pub struct Bundle {
        /// Version of this form: 1.
        1 => version: u8,
        /// The statement's entry, when the bundle carries it.
        2 => entry: Option<Blob<STATEMENT_BYTES_MAX>>,
        /// Receipt whose checkpoint equals what `header` certifies: height − 1, log size, log root, state root.
        3 => receipt: Option<Receipt>,
        /// The outcome, for a rejection; `header.height − 1` is the height of its block.
        4 => outcome: Option<OutcomeProof>,
        /// Header one above the results it certifies.
        5 => header: Header,
        /// Quorum for the header.
        6 => certificate: CommitCertificate,
        /// Epoch certificates that the signatures name, each once.
        7 => epoch_certificates: List<EpochCertificate, { VALIDATORS_MAX * 4 }>,
        /// Validator-set changes from genesis or the pinned height on, ascending.
        8 => chain: List<ChainLink, CHAIN_LINKS_MAX>,
        /// The checkpoint key (SPKI of the node's seal key), P-256 SEC1 compressed, for the receipt's signature.
        9 => checkpoint_key: Option<[u8; 33]>,
    }
}
