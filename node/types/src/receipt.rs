//! Receipts: COSE Receipts of inclusion in an RFC 9162 SHA-256 tree (RFC 9942, `vds` 395 = 1).
//!
//! The signature covers the protected header and the detached root, which are the same for every leaf of one tree head:
//! *the checkpoint is the receipt's signature*. Height, log size, state root and time are private CWT claims in the
//! protected header; the inclusion proof sits in the unprotected header 396.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::cbor::{self, Blob, CborError, Decoder, Encoder, Field, List, array_len, map_len, put};
use crate::hash::{Hash, KeyId, NetworkId};
use crate::header::{Height, LogIndex};
use crate::limits::{PATH_MAX, PROTECTED_BYTES_MAX, RECEIPT_PROOFS_MAX};
use crate::statement::sig_structure;
use crate::suite::Suite;

/// Header label of the verifiable data structure (RFC 9942 section 2).
pub const LABEL_VDS: i64 = 395;
/// Header label of the verifiable data proofs.
pub const LABEL_VDP: i64 = 396;
/// RFC9162_SHA256.
pub const VDS_RFC9162_SHA256: i64 = 1;
/// Proof type in `vdp`: inclusion.
const PROOF_INCLUSION: i64 = -1;
/// Header label of CWT claims (RFC 9597).
const LABEL_CWT_CLAIMS: i64 = 15;
/// The `sub` claim of every receipt: RFC 9943 wants an issuer and a subject, and the subject of a tree head is the log.
const SUBJECT: &str = "log";
/// Private claims of a checkpoint; see docs/protocol.md.
const CLAIM_HEIGHT: i64 = -70_001;
const CLAIM_LOG_SIZE: i64 = -70_002;
const CLAIM_STATE_ROOT: i64 = -70_003;
const CLAIM_TIME_MS: i64 = -70_004;

/// A tree head as a node's checkpoint key signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Suite of the checkpoint key.
    pub suite: Suite,
    /// Id of the checkpoint key.
    pub key: KeyId,
    /// The network; the `iss` claim is its hexadecimal form.
    pub network: NetworkId,
    /// Height after which the tree head stands.
    pub height: Height,
    /// Leaves of the log.
    pub log_size: u64,
    /// Root of the state tree.
    pub state_root: Hash,
    /// Time of the block at `height`, milliseconds.
    pub time_ms: u64,
}

impl Checkpoint {
    /// The protected header, deterministic.
    pub fn protected(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(224);
        let mut e = Encoder::new(&mut bytes);
        put(e.map(4));
        put(e.u8(1));
        put(e.i64(self.suite.cose_algorithm()));
        put(e.u8(4));
        self.key.encode(&mut e);
        put(e.i64(LABEL_CWT_CLAIMS));
        put(e.map(7));
        put(e.u8(1));
        put(e.str(&self.network.to_hex()));
        put(e.u8(2));
        put(e.str(SUBJECT));
        put(e.u8(6));
        put(e.u64(self.time_ms / 1000));
        put(e.i64(CLAIM_HEIGHT));
        self.height.encode(&mut e);
        put(e.i64(CLAIM_LOG_SIZE));
        self.log_size.encode(&mut e);
        put(e.i64(CLAIM_STATE_ROOT));
        self.state_root.encode(&mut e);
        put(e.i64(CLAIM_TIME_MS));
        self.time_ms.encode(&mut e);
        put(e.i64(LABEL_VDS));
        put(e.i64(VDS_RFC9162_SHA256));
        bytes
    }
    /// What the checkpoint key signs: the `Sig_structure` over the detached log root.
    pub fn signing_bytes(&self, log_root: &Hash) -> Vec<u8> {
        sig_structure(&self.protected(), &log_root.0)
    }
    /// Reads a protected header; anything but the form of [`Checkpoint::protected`] is refused.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn from_protected(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > PROTECTED_BYTES_MAX {
            return Err(CborError::TooLarge);
        }
        let d = &mut Decoder::new(bytes);
        let expect = |d: &mut Decoder<'_>, label: i64| match d.i64() {
            Ok(found) if found == label => Ok(()),
            Ok(_) => Err(CborError::UnknownKey),
            Err(_) => Err(CborError::Malformed),
        };
        if map_len(d, 4)? != 4 {
            return Err(CborError::Malformed);
        }
        expect(d, 1)?;
        let suite = Suite::from_cose_algorithm(d.i64()?).ok_or(CborError::OutOfRange)?;
        expect(d, 4)?;
        let key = KeyId::decode(d)?;
        expect(d, LABEL_CWT_CLAIMS)?;
        if map_len(d, 7)? != 7 {
            return Err(CborError::Malformed);
        }
        expect(d, 1)?;
        let network = NetworkId::from_hex(d.str()?).ok_or(CborError::OutOfRange)?;
        expect(d, 2)?;
        let _subject = d.str()?;
        expect(d, 6)?;
        let _seconds = d.u64()?;
        expect(d, CLAIM_HEIGHT)?;
        let height = Height::decode(d)?;
        expect(d, CLAIM_LOG_SIZE)?;
        let log_size = u64::decode(d)?;
        expect(d, CLAIM_STATE_ROOT)?;
        let state_root = Hash::decode(d)?;
        expect(d, CLAIM_TIME_MS)?;
        let time_ms = u64::decode(d)?;
        let checkpoint = Self { suite, key, network, height, log_size, state_root, time_ms };
        // The remaining label, the subject, the seconds and determinism are settled by writing the header again.
        if checkpoint.protected() == bytes { Ok(checkpoint) } else { Err(CborError::NotDeterministic) }
    }
    /// The issuer of receipts: the network in hexadecimal.
    pub fn issuer(&self) -> String {
        self.network.to_hex().to_string()
    }
}

/// An inclusion proof of RFC 9942 section 5.2: `[tree size, leaf index, path]` inside a byte string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// Leaves of the tree.
    pub tree_size: u64,
    /// The leaf.
    pub index: LogIndex,
    /// Sibling hashes from the leaf up.
    pub path: List<Hash, PATH_MAX>,
}

impl Field for InclusionProof {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.array(3));
        self.tree_size.encode(e);
        self.index.encode(e);
        self.path.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        if array_len(d, 3)? != 3 {
            return Err(CborError::Malformed);
        }
        Ok(Self { tree_size: Field::decode(d)?, index: Field::decode(d)?, path: Field::decode(d)? })
    }
}

/// A COSE Receipt: one signed tree head with one inclusion proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The tree head's claims.
    pub checkpoint: Checkpoint,
    /// The proof.
    pub proof: InclusionProof,
    /// Signature over [`Checkpoint::signing_bytes`].
    pub signature: [u8; 64],
}

/// Bytes of an encoded inclusion proof at most.
const PROOF_BYTES_MAX: usize = 24 + PATH_MAX * 34;

impl Field for Receipt {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.tag(minicbor::data::Tag::new(18)));
        put(e.array(4));
        put(e.bytes(&self.checkpoint.protected()));
        put(e.map(1));
        put(e.i64(LABEL_VDP));
        put(e.map(1));
        put(e.i64(PROOF_INCLUSION));
        put(e.array(1));
        put(e.bytes(&cbor::to_vec(&self.proof)));
        put(e.null());
        self.signature.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        if d.tag()?.as_u64() != 18 || array_len(d, 4)? != 4 {
            return Err(CborError::Malformed);
        }
        let checkpoint = Checkpoint::from_protected(d.bytes()?)?;
        if map_len(d, 1)? != 1 || d.i64()? != LABEL_VDP || map_len(d, 1)? != 1 || d.i64()? != PROOF_INCLUSION {
            return Err(CborError::Malformed);
        }
        let mut proofs = List::<Blob<PROOF_BYTES_MAX>, RECEIPT_PROOFS_MAX>::decode(d)?.into_vec();
        let (Some(proof), true) = (proofs.pop(), proofs.is_empty()) else { return Err(CborError::Malformed) };
        let proof = cbor::from_slice(&proof)?;
        d.null()?;
        Ok(Self { checkpoint, proof, signature: Field::decode(d)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_round_trip_and_refuse_other_forms() {
        let checkpoint = Checkpoint {
            suite: Suite::Es256,
            key: KeyId([3; 16]),
            network: NetworkId([4; 32]),
            height: Height(9),
            log_size: 5,
            state_root: Hash([6; 32]),
            time_ms: 1_700_000_000_123,
        };
        let proof =
            InclusionProof { tree_size: 5, index: LogIndex(2), path: List::new([Hash([7; 32])].into()).unwrap() };
        let receipt = Receipt { checkpoint, proof, signature: [8; 64] };
        let bytes = cbor::to_vec(&receipt);
        assert_eq!(cbor::from_slice::<Receipt>(&bytes).unwrap(), receipt);
        for cut in 0..bytes.len() {
            assert!(cbor::from_slice::<Receipt>(&bytes[..cut]).is_err());
        }
    }
}
