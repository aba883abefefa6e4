//! From the anchor to a header: the chain of validator sets.
//!
//! The set that decides a height is announced by the header before, so a change of validators is one link: the last
//! header of the old set, its certificate, and the new set. Between two links nothing has to be shown.

use stele_types::bundle::ChainLink;
use stele_types::{CommitCertificate, EpochCertificate, Hash, Header, Height, ValidatorSet};

use crate::anchor::TrustAnchor;
use crate::certificate::{self, EpochCertificates};
use crate::error::VerifyError;

/// A header for which a quorum of the right validators vouches. Only [`certify`] makes one, or a memory of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertifiedHeader<'a>(&'a Header);

impl<'a> CertifiedHeader<'a> {
    /// A header that [`certify`] accepted before, from the same proof.
    pub(crate) const fn known(header: &'a Header) -> Self {
        Self(header)
    }
    /// The header.
    pub const fn header(self) -> &'a Header {
        self.0
    }
    /// Height whose results it certifies: one below its own.
    pub const fn results_height(self) -> Height {
        Height(self.0.height.0.saturating_sub(1))
    }
    /// Its id.
    pub fn id(self) -> Hash {
        Hash(self.0.id().0)
    }
}

/// Walks from `anchor` along `links` to the set that decides `header`, and checks the header's certificate under it.
///
/// Every link is certified by the set before; heights ascend; each header names the set that decides it, and a link's
/// header names the set it brings. Links below a pinned height are passed over, except that one of them may bring the
/// pinned set.
///
/// # Errors
/// `anchor_set_missing`, `below_anchor`, `link_order`, `validators_mismatch`, `link_invalid`, and those of
/// [`certificate::verify`].
pub fn certify<'a>(
    anchor: &TrustAnchor,
    links: &[ChainLink],
    epoch_certificates: &[EpochCertificate],
    header: &'a Header,
    certificate: &CommitCertificate,
) -> Result<CertifiedHeader<'a>, VerifyError> {
    let network = anchor.network();
    if header.network != network {
        return Err(VerifyError::OtherNetwork { found: header.network });
    }
    let mut epochs = EpochCertificates::new(network, epoch_certificates, anchor.epoch_certificates());
    let mut height = anchor.height();
    if header.height < height {
        return Err(VerifyError::BelowAnchor { height: header.height, pinned: height });
    }
    let (mut validators, links) = start(anchor, links)?;
    for link in links {
        decided_by(validators, height, &link.header)?;
        certificate::verify(network, &link.header, &link.certificate, validators, &mut epochs)?;
        let next = link.validators.hash();
        if link.header.next_validators != next || next == link.header.validators {
            return Err(VerifyError::LinkInvalid { height: link.header.height });
        }
        validators = &link.validators;
        height = link.header.height.next();
    }
    decided_by(validators, height, header)?;
    certificate::verify(network, header, certificate, validators, &mut epochs)?;
    Ok(CertifiedHeader(header))
}

/// The anchor's set, and the links above it.
fn start<'l>(
    anchor: &'l TrustAnchor,
    links: &'l [ChainLink],
) -> Result<(&'l ValidatorSet, &'l [ChainLink]), VerifyError> {
    let below = links.iter().take_while(|link| link.header.height < anchor.height()).count();
    let (below, above) = links.split_at(below);
    // The pin itself vouches for a set of its hash, wherever it comes from.
    let brought = || below.last().map(|link| &link.validators).filter(|set| set.hash() == anchor.validators());
    let set = anchor.set().or_else(brought);
    let set = set.ok_or(VerifyError::AnchorSetMissing { validators: anchor.validators() })?;
    Ok((set, above))
}

/// Whether `header` is at or above the first height of `validators` and names them.
fn decided_by(validators: &ValidatorSet, from: Height, header: &Header) -> Result<(), VerifyError> {
    if header.height < from {
        return Err(VerifyError::LinkOrder { height: header.height });
    }
    if header.validators != validators.hash() {
        return Err(VerifyError::ValidatorsMismatch { height: header.height });
    }
    Ok(())
}

/// Checks that the log of `new` continues the log of `old` unchanged, by an RFC 9162 consistency path.
///
/// # Errors
/// `log_proof_invalid`.
pub fn verify_consistency(
    old: CertifiedHeader<'_>,
    new: CertifiedHeader<'_>,
    path: &[Hash],
) -> Result<(), VerifyError> {
    let path: alloc::vec::Vec<_> = path.iter().map(|hash| hash.0).collect();
    let (old, new) = (old.header(), new.header());
    stele_merkle::log::verify_consistency(old.log_size, &old.log_root.0, new.log_size, &new.log_root.0, &path)?;
    Ok(())
}
