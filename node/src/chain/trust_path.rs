//! The way from the validators that a verifier trusts to those that decide a header.

use std::collections::BTreeSet;

use stele_types::cbor::{self, List};
use stele_types::exchange::CertifiedHeader;
use stele_types::{ChainLink, CommitCertificate, EpochCertificate, Hash, Header, Height, VoteKey};

use super::{Chain, ChainError};

/// Bytes of the links of one way: with an entry, a receipt and epoch certificates they stay within a bundle.
const LINKS_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What leads from the validator set of a trusted height to a header.
pub(super) struct TrustPath<const EPOCHS: usize, const LINKS: usize> {
    /// Epoch certificates that the signatures name, each once.
    pub(super) epoch_certificates: List<EpochCertificate, EPOCHS>,
    /// Validator-set changes, ascending.
    pub(super) links: List<ChainLink, LINKS>,
}

impl Chain {
    /// The header of `height` with its quorum and the way to it from the validator set of `from`; none when the height is
    /// not committed.
    ///
    /// # Errors
    /// `trust_path_too_long`; failure of a store.
    pub fn certified_header(&self, height: Height, from: Height) -> Result<Option<CertifiedHeader>, ChainError> {
        let Some((header, certificate)) = self.header(height)? else { return Ok(None) };
        let TrustPath { epoch_certificates, links } = self.trust_path(&header, &certificate, from)?;
        Ok(Some(CertifiedHeader { header, certificate, epoch_certificates, chain: links }))
    }

    /// The way to `header`, certified by `certificate`, from the validator set of `from`: every later change, and the
    /// last one before, which brings that set to whoever knows only its hash.
    ///
    /// # Errors
    /// `trust_path_too_long`.
    pub(super) fn trust_path<const EPOCHS: usize, const LINKS: usize>(
        &self,
        header: &Header,
        certificate: &CommitCertificate,
        from: Height,
    ) -> Result<TrustPath<EPOCHS, LINKS>, ChainError> {
        let mut links = self.links.below(header.height);
        let below = links.iter().take_while(|link| link.header.height < from).count();
        links.drain(..below.saturating_sub(1));
        let bytes: usize = links.iter().map(|link| cbor::to_vec(link).len()).sum();
        let epoch_certificates = self.epoch_certificates(certificate, &links);
        if bytes > LINKS_BYTES_MAX || links.len() > LINKS || epoch_certificates.len() > EPOCHS {
            return Err(ChainError::TrustPathTooLong { links: links.len() });
        }
        Ok(TrustPath { epoch_certificates: List::new(epoch_certificates)?, links: List::new(links)? })
    }

    /// The epoch certificates that the signatures of `certificate` and of the links name, each once.
    fn epoch_certificates(&self, certificate: &CommitCertificate, links: &[ChainLink]) -> Vec<EpochCertificate> {
        named_epochs(certificate, links).iter().filter_map(|hash| self.epochs.find(hash)).collect()
    }
}

/// Hashes of the epoch certificates that the signatures of `certificate` and of the links name.
pub(crate) fn named_epochs(certificate: &CommitCertificate, links: &[ChainLink]) -> BTreeSet<Hash> {
    let certificates = std::iter::once(certificate).chain(links.iter().map(|link| &link.certificate));
    let keys = certificates.flat_map(|certificate| certificate.signatures.iter()).map(|vote| vote.signature.key);
    keys.filter_map(|key| match key {
        VoteKey::Delegated(hash) => Some(hash),
        VoteKey::Direct => None,
    })
    .collect()
}
