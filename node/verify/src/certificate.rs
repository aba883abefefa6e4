//! Commit certificates: a quorum of precommits for one block.

use alloc::collections::{BTreeMap, BTreeSet};

use stele_types::parameters::PROTOCOL_VERSION;
use stele_types::{
    CommitCertificate, EpochCertificate, Hash, Header, Height, NetworkId, Suite, Validator, ValidatorId, ValidatorSet,
    VoteKey,
};

use crate::error::{Signer, VerifyError};
use crate::signature;

/// The epoch certificates that votes may name: those that a proof brings and those of the pinned genesis file.
#[derive(Clone, Debug)]
pub struct EpochCertificates<'a> {
    network: NetworkId,
    by_hash: BTreeMap<Hash, &'a EpochCertificate>,
    /// Certificates of the pinned genesis file, the only ones that may carry the zero network.
    genesis: BTreeSet<Hash>,
    /// Certificates whose long-term signature was checked already, so that a long chain pays for each once.
    checked: BTreeSet<Hash>,
}

impl<'a> EpochCertificates<'a> {
    /// Certificates of a proof, and those of the pinned genesis file.
    pub fn new(network: NetworkId, brought: &'a [EpochCertificate], genesis: &'a [EpochCertificate]) -> Self {
        let by_hash = brought.iter().chain(genesis).map(|certificate| (certificate.hash(), certificate)).collect();
        let genesis = genesis.iter().map(EpochCertificate::hash).collect();
        Self { network, by_hash, genesis, checked: BTreeSet::new() }
    }

    /// The epoch key with which `validator` votes at `height` under the certificate with `hash`.
    fn key(&mut self, hash: Hash, index: u16, validator: &Validator, height: Height) -> Result<[u8; 33], VerifyError> {
        let certificate = *self.by_hash.get(&hash).ok_or(VerifyError::EpochCertificateMissing { certificate: hash })?;
        // The network id hashes the genesis file, so certificates inside that file cannot name it.
        let of_network = certificate.network == self.network
            || (certificate.network == NetworkId::default() && self.genesis.contains(&hash));
        if !of_network || certificate.validator != validator.id() {
            return Err(VerifyError::EpochCertificateForeign { certificate: hash });
        }
        let heights = certificate.until_height.0.checked_sub(certificate.from_height.0);
        if !certificate.covers(height) || heights.is_none_or(|heights| heights >= EpochCertificate::HEIGHTS_MAX) {
            return Err(VerifyError::EpochCertificateExpired { certificate: hash, height });
        }
        if !self.checked.contains(&hash) {
            let message = certificate.signing_bytes();
            signature::verify(Suite::Es256, &validator.public_key, &message, &certificate.signature)
                .map_err(|_| VerifyError::SignatureInvalid(Signer::Epoch(index)))?;
            self.checked.insert(hash);
        }
        Ok(certificate.public_key)
    }
}

/// Checks that `certificate` is a quorum of `validators` for exactly `header`.
///
/// Every signature has to verify, not only a quorum of them: an honest node writes no others. That `validators` is the
/// set of the height is the [chain](crate::chain)'s to check.
///
/// # Errors
/// `other_network`, `protocol_unsupported`, `certificate_mismatch`, `certificate_unordered`, `quorum_missing`,
/// `signer_unknown`, `epoch_certificate_missing`, `epoch_certificate_foreign`, `epoch_certificate_expired`,
/// `signature_invalid`.
pub fn verify(
    network: NetworkId,
    header: &Header,
    certificate: &CommitCertificate,
    validators: &ValidatorSet,
    epochs: &mut EpochCertificates<'_>,
) -> Result<(), VerifyError> {
    let height = header.height;
    if header.network != network {
        return Err(VerifyError::OtherNetwork { found: header.network });
    }
    if !(1..=PROTOCOL_VERSION).contains(&header.protocol_version) {
        return Err(VerifyError::ProtocolUnsupported { version: header.protocol_version });
    }
    if certificate.height != height || certificate.block != header.id() {
        return Err(VerifyError::CertificateMismatch { height });
    }
    if !certificate.is_ordered() {
        return Err(VerifyError::CertificateUnordered { height });
    }
    let (signatures, quorum) = (certificate.signatures.len(), validators.quorum());
    if signatures < quorum {
        return Err(VerifyError::QuorumMissing { height, signatures, quorum });
    }
    let ballot = certificate.ballot(network);
    for vote in certificate.signatures.iter() {
        let index = vote.validator;
        let validator = validators.get(usize::from(index)).ok_or(VerifyError::SignerUnknown { validator: index })?;
        let key = match vote.signature.key {
            VoteKey::Direct => validator.public_key,
            VoteKey::Delegated(hash) => epochs.key(hash, index, validator, height)?,
        };
        let message = ballot.signing_bytes(&vote.signature.key);
        signature::verify(Suite::Es256, &key, &message, &vote.signature.signature)
            .map_err(|_| VerifyError::SignatureInvalid(Signer::Validator(index)))?;
    }
    Ok(())
}

/// The validators that a certificate names, by id; indices beyond the set are left out.
pub fn signers<'a>(
    certificate: &'a CommitCertificate,
    validators: &'a ValidatorSet,
) -> impl Iterator<Item = ValidatorId> + 'a {
    certificate.signatures.iter().filter_map(|vote| validators.get(usize::from(vote.validator))).map(Validator::id)
}
