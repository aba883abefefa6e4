//! The endorsement key by which a TPM is known: the one that its maker certified.
//!
//! A TPM can derive several endorsement keys from one seed, and makers certify some of them. Another key than a certified one
//! would have to be pinned machine by machine. Which it is depends on the certificates alone, so every start finds the same.

use tss_esapi::{
    Error,
    abstraction::{AsymmetricAlgorithmSelection, ek},
    interface_types::{ecc::EccCurve, key_bits::RsaKeyBits, resource_handles::NvAuth},
    structures::Public,
};

use crate::tpm::{connection::Connection, fault::Fault};

/// An endorsement key of the TCG EK Credential Profile. Templates of a maker's own (NV indices beside the certificate's) are
/// not followed: what they derive is known by its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endorsement {
    /// Template L-2.
    P256,
    /// Template H-3.
    P384,
    /// Template L-1.
    Rsa2048,
}

impl Endorsement {
    /// In the order in which they are looked for. A chip derives a point of a curve in a blink and takes half a minute for
    /// primes. The first is used by a TPM without any certificate.
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::Rsa2048];

    /// NV index of the maker's certificate, TCG EK Credential Profile sections 2.2.1.4 and 2.2.1.5.
    const fn certificate_index(self) -> u32 {
        match self {
            Self::P256 => 0x01c0_000a,
            Self::P384 => 0x01c0_0016,
            Self::Rsa2048 => 0x01c0_0002,
        }
    }

    /// The profile's template of it, sections B.3 and B.4.
    pub(super) fn template(self) -> Result<Public, Error> {
        let algorithm = match self {
            Self::P256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
            Self::P384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
            Self::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
        };
        ek::create_ek_public_from_default_template_2(algorithm, None)
    }

    /// Whether the key is used by its authorization value, which is empty: so are those of the high range. Keys of the low
    /// range know their policy alone.
    pub(super) const fn is_used_by_value(self) -> bool {
        matches!(self, Self::P384)
    }
}

impl Connection {
    /// The endorsement key that the maker certified.
    pub(super) fn endorsement(&mut self) -> Result<Endorsement, Fault> {
        for endorsement in Endorsement::ALL {
            if self.has_index(endorsement.certificate_index())? {
                return Ok(endorsement);
            }
        }
        Ok(Endorsement::ALL[0])
    }

    /// The maker's certificate of an endorsement key, as long as its place.
    pub(super) fn endorsement_certificate(&mut self, endorsement: Endorsement) -> Result<Option<Vec<u8>>, Fault> {
        /// Bytes read at once: every TPM's `TPM_PT_NV_BUFFER_MAX` is at least that.
        const PART: u16 = 512;
        let index = endorsement.certificate_index();
        if !self.has_index(index)? {
            return Ok(None);
        }
        let certificate = self.with_index(index, |context, index| {
            let (public, _) = context.execute_without_session(|context| context.nv_read_public(index))?;
            let size = u16::try_from(public.data_size()).unwrap_or(u16::MAX);
            let mut certificate = Vec::new();
            for offset in (0..size).step_by(usize::from(PART)) {
                let part = context.nv_read(NvAuth::NvIndex(index), index, PART.min(size - offset), offset)?;
                certificate.extend_from_slice(part.value());
            }
            Ok(certificate)
        })?;
        Ok(Some(certificate))
    }
}
