//! Block headers: what a commit certificate vouches for.

use core::fmt;

use crate::cbor::{self, CborError, Decoder, Encoder, Field};
use crate::hash::{BlockId, Hash, NetworkId, ValidatorId};

macro_rules! counter {
    ($($(#[$meta:meta])* $name:ident),*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);
        impl $name {
            /// The following one; saturates at the end of the range, which no network reaches.
            pub const fn next(self) -> Self { Self(self.0.saturating_add(1)) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl Field for $name {
            fn encode(&self, e: &mut Encoder<'_>) { self.0.encode(e); }
            fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> { Field::decode(d).map(Self) }
        }
    )*};
}
counter! {
    /// Height of a block; the first block has height 1, genesis is height 0.
    Height,
    /// Index of a leaf in the log, from 0.
    LogIndex
}

crate::record! {
    /// The header of height h. Keys 9 to 16 but the statements root speak of the state *after h−1*, so the certificate of
    /// h vouches for the results of h−1.
    pub struct Header {
        /// The network.
        1 => network: NetworkId,
        /// Protocol version in force at h.
        2 => protocol_version: u32,
        /// h.
        3 => height: Height,
        /// Round in which the block was made; a re-proposal keeps it.
        4 => creation_round: u32,
        /// Who made it.
        5 => proposer: ValidatorId,
        /// Block time, milliseconds since 1970; strictly greater than the parent's.
        6 => time_ms: u64,
        /// Id of the block at h−1; for h = 1 the network id's bytes.
        7 => parent: BlockId,
        /// Hash of the parent's commit certificate in the body; zeros for h = 1.
        8 => parent_certificate: Hash,
        /// RFC 9162 root over the exact entry bytes of the body, signatures included.
        9 => statements_root: Hash,
        /// Leaves of the log after h−1.
        10 => log_size: u64,
        /// RFC 9162 root of the log after h−1.
        11 => log_root: Hash,
        /// Root of the state tree after h−1.
        12 => state_root: Hash,
        /// RFC 9162 root over the outcomes of h−1; the root of the empty tree for h = 1.
        13 => outcomes_root: Hash,
        /// Hash of the validator set of h.
        14 => validators: Hash,
        /// Hash of the validator set of h+1.
        15 => next_validators: Hash,
        /// Hash of the parameters of h.
        16 => parameters: Hash,
    }
}

impl Header {
    /// SHA-256("stele/header/v1" ‖ header): the value that votes name.
    pub fn id(&self) -> BlockId {
        BlockId(Hash::tagged("stele/header/v1", &[&cbor::to_vec(self)]).0)
    }
}
