//! Bundles: everything that proves an outcome or values of the state offline, from genesis (or a pinned height) on.

use crate::cbor::{Blob, List};
use crate::exchange::{CertifiedHeader, STATE_PROOF_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use crate::hash::Hash;
use crate::header::{Header, Height};
use crate::limits::{CHAIN_LINKS_MAX, PATH_MAX, STATE_BUNDLE_VALUES_MAX, STATEMENT_BYTES_MAX, VALIDATORS_MAX};
use crate::outcome::Outcome;
use crate::receipt::Receipt;
use crate::signer::CheckpointSigner;
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
        /// What the node says of that key, for who asks; readers of before this field refuse it.
        10 => checkpoint_signer: Option<CheckpointSigner>,
    }
}

crate::record! {
    /// A value of the state, or its absence, in a state bundle.
    pub struct ProvenValue {
        /// Key of the state tree.
        1 => key: Hash,
        /// The value; absent when the proof is one of non-membership.
        2 => value: Option<Blob<STATE_VALUE_BYTES_MAX>>,
        /// The proof, in the encoding of the state tree.
        3 => proof: Blob<STATE_PROOF_BYTES_MAX>,
        /// Height after which it stands: one below that of the header that certifies it.
        4 => height: Height,
    }
}

crate::record! {
    /// Proof of values of the state, vouched for by a quorum. Three pairs, where a [`Bundle`] has six or more.
    pub struct StateBundle {
        /// Version of this form: 1.
        1 => version: u8,
        /// The values, ascending by key.
        2 => values: List<ProvenValue, STATE_BUNDLE_VALUES_MAX>,
        /// The headers that certify them, ascending by height; each certifies one value at least.
        3 => headers: List<CertifiedHeader, STATE_BUNDLE_VALUES_MAX>,
    }
}
