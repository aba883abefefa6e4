//! Values of the state tree under a certified header, and bundles of them.

use alloc::vec::Vec;

use stele_merkle::state::{Key, Proof, StateHash};
use stele_types::cbor;
use stele_types::limits::STATE_BUNDLE_BYTES_MAX;
use stele_types::{Hash, Height, NetworkId, StateBundle};

use crate::anchor::TrustAnchor;
use crate::chain::{self, CertifiedHeader};
use crate::error::{Part, VerifyError};
use crate::verdict::{EXIT_ABSENT, EXIT_PRESENT};

/// The version of the state bundle's form that this crate reads.
pub const STATE_BUNDLE_VERSION: u8 = 1;

/// Checks that after the block below `header` the state held `value` under `key`, or nothing, and returns it.
///
/// The proof is encoded as docs/protocol.md, "State tree", says.
///
/// # Errors
/// `state_proof_invalid`.
pub fn verify<'v>(
    anchor: &TrustAnchor,
    header: CertifiedHeader<'_>,
    key: &Key,
    value: Option<&'v [u8]>,
    proof: &[u8],
) -> Result<Option<&'v [u8]>, VerifyError> {
    verify_root(anchor.state_hash(), &header.header().state_root.0, key, value, proof)?;
    Ok(value)
}

/// [`verify`] against a bare root: as good as whoever vouches for the root.
///
/// # Errors
/// `state_proof_invalid`.
pub fn verify_root(
    hash: StateHash,
    root: &[u8; 32],
    key: &Key,
    value: Option<&[u8]>,
    proof: &[u8],
) -> Result<(), VerifyError> {
    Proof::decode(proof)?.verify(hash, root, key, value)?;
    Ok(())
}

/// A value of the state, or its absence, certified by a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenState {
    /// Key of the state tree.
    pub key: Hash,
    /// The value; none when it is absent.
    pub value: Option<Vec<u8>>,
    /// It stands so after this height.
    pub height: Height,
    /// It stood so before this time: that of the header which certifies it, milliseconds.
    pub time_ms: u64,
    /// The header that certifies it.
    pub header: Hash,
}

/// What a state bundle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateVerdict {
    /// The network.
    pub network: NetworkId,
    /// The values, ascending by key.
    pub values: Vec<ProvenState>,
}

impl StateVerdict {
    /// What is proven about a key.
    ///
    /// # Errors
    /// `state_key_missing`.
    pub fn about(&self, key: &Hash) -> Result<&ProvenState, VerifyError> {
        let at = self.values.binary_search_by_key(key, |proven| proven.key);
        at.ok().and_then(|at| self.values.get(at)).ok_or(VerifyError::StateKeyMissing { key: *key })
    }
    /// Whether every value is present.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.values.iter().all(|proven| proven.value.is_some())
    }
    /// Stable word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        if self.is_present() { "present" } else { "absent" }
    }
    /// The exit code that passes it on. Errors are [`crate::verdict::EXIT_INVALID`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_present() { EXIT_PRESENT } else { EXIT_ABSENT }
    }
}

/// [`verify_bundle`] over the bytes of a state bundle.
///
/// # Errors
/// Those of [`verify_bundle`], `malformed`, `too_large`.
pub fn verify_bundle_bytes(bytes: &[u8], anchor: &TrustAnchor) -> Result<StateVerdict, VerifyError> {
    if bytes.len() > STATE_BUNDLE_BYTES_MAX {
        return Err(VerifyError::TooLarge { part: Part::StateBundle, length: bytes.len() });
    }
    let bundle =
        cbor::from_slice(bytes).map_err(|source| VerifyError::Malformed { part: Part::StateBundle, source })?;
    verify_bundle(&bundle, anchor)
}

/// Verifies a state bundle under `anchor`: every header from the anchor on, and every value under its header.
///
/// # Errors
/// `version_unsupported`, `state_bundle_form`, `state_proof_invalid`, and those of [`chain::certify`].
pub fn verify_bundle(bundle: &StateBundle, anchor: &TrustAnchor) -> Result<StateVerdict, VerifyError> {
    if bundle.version != STATE_BUNDLE_VERSION {
        return Err(VerifyError::VersionUnsupported { version: bundle.version });
    }
    // The form first: it costs no signature.
    let heights = bundle.headers.iter().map(|answer| answer.header.height);
    let is_used = |height: Height| bundle.values.iter().any(|value| value.height.next() == height);
    let sound = !bundle.values.is_empty()
        && bundle.values.is_sorted_by(|left, right| left.key < right.key)
        && heights.clone().is_sorted_by(|left, right| left < right)
        && heights.clone().all(is_used);
    if !sound {
        return Err(VerifyError::StateBundleForm);
    }
    let certified = bundle.headers.iter().map(|answer| {
        chain::certify(anchor, &answer.chain, &answer.epoch_certificates, &answer.header, &answer.certificate)
    });
    let certified: Vec<CertifiedHeader<'_>> = certified.collect::<Result<_, _>>()?;
    let proven = bundle.values.iter().map(|proven| {
        let at = certified.binary_search_by_key(&proven.height, |header| header.results_height());
        let header = *at.ok().and_then(|at| certified.get(at)).ok_or(VerifyError::StateBundleForm)?;
        let value = verify(anchor, header, &proven.key.0, proven.value.as_deref(), &proven.proof)?;
        Ok(ProvenState {
            key: proven.key,
            value: value.map(<[u8]>::to_vec),
            height: proven.height,
            time_ms: header.header().time_ms,
            header: header.id(),
        })
    });
    Ok(StateVerdict { network: anchor.network(), values: proven.collect::<Result<_, VerifyError>>()? })
}
