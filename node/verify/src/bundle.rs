//! The quorum bundle: registration or rejection, offline, from the anchor down to the statement.

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use stele_merkle::log;
use stele_types::bundle::OutcomeProof;
use stele_types::cbor;
use stele_types::limits::BUNDLE_BYTES_MAX;
use stele_types::{Bundle, Hash, Receipt, StatementId};

use crate::anchor::TrustAnchor;
use crate::chain::{self, CertifiedHeader};
use crate::checkpoint::SignedCheckpoint;
use crate::error::{Part, VerifyError};
use crate::key::PublicKey;
use crate::receipt;
use crate::statement::{parse, strip_receipts};
use crate::verdict::{Registered, Rejected, Verdict};

/// The version of the bundle's form that this crate reads.
pub const BUNDLE_VERSION: u8 = 1;

/// What the caller knows of the statement, so that a bundle of another one is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectation<'a> {
    /// Id of the statement.
    pub statement: Option<StatementId>,
    /// Bytes of the statement, attached receipts allowed. Needed when the bundle does not carry the entry.
    pub entry: Option<&'a [u8]>,
    /// The node's checkpoint key, when it is known from elsewhere; needed when the bundle does not carry it.
    pub checkpoint_key: Option<&'a PublicKey>,
}

/// [`verify`] over the bytes of a bundle.
///
/// # Errors
/// Those of [`verify`], `malformed`, `too_large`.
pub fn verify_bytes(bytes: &[u8], anchor: &TrustAnchor, expected: &Expectation<'_>) -> Result<Verdict, VerifyError> {
    verify(&decode(bytes)?, anchor, expected)
}

/// Reads a bundle.
///
/// # Errors
/// `malformed`, `too_large`, `version_unsupported`.
pub fn decode(bytes: &[u8]) -> Result<Bundle, VerifyError> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(VerifyError::TooLarge { part: Part::Bundle, length: bytes.len() });
    }
    let bundle: Bundle =
        cbor::from_slice(bytes).map_err(|source| VerifyError::Malformed { part: Part::Bundle, source })?;
    if bundle.version == BUNDLE_VERSION {
        Ok(bundle)
    } else {
        Err(VerifyError::VersionUnsupported { version: bundle.version })
    }
}

/// Verifies a bundle under `anchor`. The verdict is [`Verdict::Registered`] or [`Verdict::Rejected`], both certified by
/// a quorum; anything less is an error.
///
/// # Errors
/// Any [`VerifyError`] but `state_proof_invalid`.
pub fn verify(bundle: &Bundle, anchor: &TrustAnchor, expected: &Expectation<'_>) -> Result<Verdict, VerifyError> {
    Memory::default().verify(bundle, anchor, expected)
}

/// Proofs that verified before, for who verifies many bundles: those of one tree head share header, quorum and
/// checkpoint, and only their leaves and paths differ. Only what held is remembered, by a hash over all of its bytes and the anchor,
/// so that a memory never makes a verdict more than [`verify`] would.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeSet<Hash>);

/// Proofs remembered: a few hundred kilobytes.
const MEMORY_MAX: usize = 8_192;

impl Memory {
    /// What [`verify`] does, without checking again what held before.
    ///
    /// # Errors
    /// Those of [`verify`].
    pub fn verify(
        &mut self,
        bundle: &Bundle,
        anchor: &TrustAnchor,
        expected: &Expectation<'_>,
    ) -> Result<Verdict, VerifyError> {
        if bundle.version != BUNDLE_VERSION {
            return Err(VerifyError::VersionUnsupported { version: bundle.version });
        }
        let certified = self.certify(bundle, anchor)?;
        let entry = entry(bundle, expected)?;
        match (&bundle.receipt, &bundle.outcome) {
            (Some(receipt), None) => {
                let entry = entry.ok_or(VerifyError::EntryMissing)?;
                registered(bundle, receipt, &entry, certified, expected, self).map(Verdict::Registered)
            }
            // No receipt is signed by it, so a key here would be bytes that nothing vouches for; so would a signer.
            (None, Some(_)) if bundle.checkpoint_key.is_some() || bundle.checkpoint_signer.is_some() => {
                Err(VerifyError::BundleForm)
            }
            (None, Some(proof)) => rejected(proof, entry.as_deref(), certified, expected).map(Verdict::Rejected),
            _ => Err(VerifyError::BundleForm),
        }
    }

    fn certify<'b>(&mut self, bundle: &'b Bundle, anchor: &TrustAnchor) -> Result<CertifiedHeader<'b>, VerifyError> {
        let proof = Hash::tagged(
            "stele/verified-header/v1",
            &[
                anchor.fingerprint().as_ref(),
                &cbor::to_vec(&bundle.header),
                &cbor::to_vec(&bundle.certificate),
                &cbor::to_vec(&bundle.epoch_certificates),
                &cbor::to_vec(&bundle.chain),
            ],
        );
        if self.0.contains(&proof) {
            return Ok(CertifiedHeader::known(&bundle.header));
        }
        let certified = certify(bundle, anchor)?;
        self.add(proof);
        Ok(certified)
    }

    fn check(&mut self, signed: &SignedCheckpoint, key: &PublicKey) -> Result<(), VerifyError> {
        let proof = Hash::tagged(
            "stele/verified-checkpoint/v1",
            &[key.as_bytes(), &signed.checkpoint.signing_bytes(&signed.log_root), &signed.signature],
        );
        if !self.0.contains(&proof) {
            signed.verify(key)?;
            self.add(proof);
        }
        Ok(())
    }

    fn add(&mut self, proof: Hash) {
        if self.0.len() >= MEMORY_MAX {
            self.0.clear();
        }
        self.0.insert(proof);
    }
}

/// The header of a bundle, certified.
///
/// # Errors
/// Those of [`chain::certify`].
pub fn certify<'b>(bundle: &'b Bundle, anchor: &TrustAnchor) -> Result<CertifiedHeader<'b>, VerifyError> {
    chain::certify(anchor, &bundle.chain, &bundle.epoch_certificates, &bundle.header, &bundle.certificate)
}

/// The entry that the bundle or the caller brings; when both do, they have to be the same.
fn entry<'b>(bundle: &'b Bundle, expected: &Expectation<'_>) -> Result<Option<Cow<'b, [u8]>>, VerifyError> {
    let given = expected.entry.map(strip_receipts).transpose()?.map(|stripped| stripped.entry);
    match (bundle.entry.as_deref(), given) {
        (Some(carried), Some(given)) if *carried != *given => Err(VerifyError::StatementMismatch),
        (Some(carried), _) => Ok(Some(Cow::Borrowed(carried))),
        (None, given) => Ok(given.map(Cow::Owned)),
    }
}

fn expect(expected: &Expectation<'_>, statement: StatementId) -> Result<(), VerifyError> {
    match expected.statement {
        Some(id) if id != statement => Err(VerifyError::StatementMismatch),
        _ => Ok(()),
    }
}

/// The receipt's checkpoint is what the header certifies, and the entry is a leaf under it.
fn registered(
    bundle: &Bundle,
    receipt: &Receipt,
    entry: &[u8],
    certified: CertifiedHeader<'_>,
    expected: &Expectation<'_>,
    memory: &mut Memory,
) -> Result<Registered, VerifyError> {
    let header = certified.header();
    if receipt.checkpoint.network != header.network {
        return Err(VerifyError::OtherNetwork { found: receipt.checkpoint.network });
    }
    let signed = receipt::signed_checkpoint(receipt, entry)?;
    if let Some(claim) = signed.difference(header) {
        return Err(VerifyError::CheckpointMismatch(claim));
    }
    let carried = bundle.checkpoint_key.map(|key| PublicKey::new(receipt.checkpoint.suite, &key)).transpose()?;
    let key = match (&carried, expected.checkpoint_key) {
        (Some(carried), Some(given)) if carried != given => return Err(VerifyError::KeyMismatch),
        (_, Some(key)) | (Some(key), None) => key,
        (None, None) => return Err(VerifyError::CheckpointKeyMissing),
    };
    let vouched = receipt::vouched(receipt, entry, |signed| memory.check(signed, key))?;
    expect(expected, vouched.statement)?;
    Ok(Registered {
        network: header.network,
        statement: vouched.statement,
        issuer: vouched.issuer,
        key: vouched.key,
        index: vouched.index,
        height: certified.results_height(),
        time_ms: header.time_ms,
        log_size: header.log_size,
        header: certified.id(),
    })
}

/// The outcome is a leaf of the outcomes tree that the header certifies, and it is a rejection.
fn rejected(
    proof: &OutcomeProof,
    entry: Option<&[u8]>,
    certified: CertifiedHeader<'_>,
    expected: &Expectation<'_>,
) -> Result<Rejected, VerifyError> {
    let (header, outcome) = (certified.header(), &proof.outcome);
    if outcome.is_applied() || !outcome.code.is_outcome() || outcome.index.is_some() {
        return Err(VerifyError::OutcomeNotRejection);
    }
    let path: Vec<_> = proof.path.iter().map(|hash| hash.0).collect();
    let leaf = log::leaf_hash(&outcome.to_bytes());
    log::verify_inclusion(&leaf, proof.position, proof.tree_size, &path, &header.outcomes_root.0)?;
    expect(expected, outcome.statement)?;
    if let Some(entry) = entry
        && parse(entry)?.id() != outcome.statement
    {
        return Err(VerifyError::StatementMismatch);
    }
    Ok(Rejected {
        network: header.network,
        statement: outcome.statement,
        code: outcome.code,
        height: certified.results_height(),
        time_ms: header.time_ms,
        header: certified.id(),
    })
}
