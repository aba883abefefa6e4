//! The public half of RSA (RFC 8017): signatures of certificate authorities and of older attestation keys, and the seed of
//! a credential for an RSA endorsement key.
//!
//! Nothing here is secret but the padded seed, so speed and side channels do not matter; a signature is checked by making
//! the one encoding that is right and comparing, never by reading what the signer wrote.

use alloc::{vec, vec::Vec};

use crypto_bigint::{
    Encoding, U64, U2048, U3072, U4096,
    modular::runtime_mod::{DynResidue, DynResidueParams},
};

use crate::algorithm::HashAlgorithm;

/// A public key: 2,048, 3,072 or 4,096 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaPublicKey {
    /// Big-endian, without leading zeros.
    modulus: Vec<u8>,
    exponent: u32,
}

impl RsaPublicKey {
    /// A key from its big-endian modulus and exponent; `None` for sizes that are not supported, an even modulus, and an
    /// exponent that is even or below 3.
    #[must_use]
    pub fn new(modulus: &[u8], exponent: u32) -> Option<Self> {
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = &modulus[zeros..];
        let sized = matches!(modulus.len(), 256 | 384 | 512) && modulus[0] >= 0x80;
        let odd = modulus.last().is_some_and(|byte| byte % 2 == 1) && exponent % 2 == 1;
        (sized && odd && exponent >= 3).then(|| Self { modulus: modulus.into(), exponent })
    }

    /// Big-endian modulus without leading zeros.
    #[must_use]
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// Public exponent.
    #[must_use]
    pub const fn exponent(&self) -> u32 {
        self.exponent
    }

    /// Size of the modulus in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.modulus.len() * 8
    }

    /// RSASSA-PKCS1-v1_5, RFC 8017 section 8.2.2.
    #[must_use]
    pub fn verify_pkcs1(&self, algorithm: HashAlgorithm, digest: &[u8], signature: &[u8]) -> bool {
        let Some(prefix) = digest_info_prefix(algorithm) else { return false };
        let Some(encoded) = self.power(signature) else { return false };
        let tail = [prefix, digest].concat();
        let Some(padding) = encoded.len().checked_sub(tail.len() + 3).filter(|length| *length >= 8) else {
            return false;
        };
        let expected = [&[0x00, 0x01][..], &vec![0xff; padding], &[0x00], &tail].concat();
        digest.len() == algorithm.length() && encoded == expected
    }

    /// RSASSA-PSS with MGF1 of the same hash, RFC 8017 section 9.1.2. TPMs choose the salt's length, so any is accepted.
    #[must_use]
    pub fn verify_pss(&self, algorithm: HashAlgorithm, digest: &[u8], signature: &[u8]) -> bool {
        let length = algorithm.length();
        let Some(encoded) = self.power(signature) else { return false };
        // The modulus has its highest bit set, so the encoding has one bit less and as many bytes.
        let Some((masked, hash)) = encoded.split_at_checked(encoded.len() - length - 1) else { return false };
        let Some((0xbc, hash)) = hash.split_last().map(|(last, hash)| (*last, hash)) else { return false };
        if masked[0] & 0x80 != 0 || digest.len() != length {
            return false;
        }
        let mut block = mask(algorithm, masked, hash);
        block[0] &= 0x7f;
        let zeros = block.iter().take_while(|byte| **byte == 0).count();
        let Some((0x01, salt)) = block[zeros..].split_first().map(|(first, salt)| (*first, salt)) else { return false };
        algorithm.digest(&[&[0; 8], digest, salt]).as_bytes() == hash
    }

    /// RSAES-OAEP with MGF1 of the same hash, RFC 8017 section 7.1.1; `None` if the message is too long or `seed` is not
    /// as long as a digest. `label` ends with a zero byte where the TPM's do (TPM 2.0 Part 1 section B.4).
    #[must_use]
    pub(crate) fn encrypt_oaep(
        &self,
        algorithm: HashAlgorithm,
        label: &[u8],
        message: &[u8],
        seed: &[u8],
    ) -> Option<Vec<u8>> {
        let (length, whole) = (algorithm.length(), self.modulus.len());
        let padding = whole.checked_sub(message.len() + 2 * length + 2)?;
        if seed.len() != length {
            return None;
        }
        let label = algorithm.digest(&[label]);
        let block = [label.as_bytes(), &vec![0; padding], &[0x01], message].concat();
        let block = mask(algorithm, &block, seed);
        let seed = mask(algorithm, seed, &block);
        self.power(&[&[0x00][..], &seed, &block].concat())
    }

    /// `message ^ exponent mod modulus`, as long as the modulus; `None` unless the message is as long and below it.
    fn power(&self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() != self.modulus.len() || message >= self.modulus.as_slice() {
            return None;
        }
        let power = match self.modulus.len() {
            256 => power_of_width::<{ U2048::LIMBS }, U2048>(&self.modulus, self.exponent, message),
            384 => power_of_width::<{ U3072::LIMBS }, U3072>(&self.modulus, self.exponent, message),
            _ => power_of_width::<{ U4096::LIMBS }, U4096>(&self.modulus, self.exponent, message),
        };
        Some(power)
    }
}

fn power_of_width<const LIMBS: usize, U>(modulus: &[u8], exponent: u32, message: &[u8]) -> Vec<u8>
where
    U: Encoding + From<crypto_bigint::Uint<LIMBS>>,
{
    let integer = crypto_bigint::Uint::<LIMBS>::from_be_slice;
    // Every key's modulus is odd, as Montgomery's form needs it.
    let base = DynResidue::new(&integer(message), DynResidueParams::new(&integer(modulus)));
    let power = base.pow_bounded_exp(&U64::from(exponent), 32).retrieve();
    U::from(power).to_be_bytes().as_ref().to_vec()
}

/// `block` with MGF1 of `seed` over it, RFC 8017 section B.2.1.
fn mask(algorithm: HashAlgorithm, block: &[u8], seed: &[u8]) -> Vec<u8> {
    let mut masked = block.to_vec();
    for (counter, chunk) in (0_u32..).zip(masked.chunks_mut(algorithm.length())) {
        let stream = algorithm.digest(&[seed, &counter.to_be_bytes()]);
        chunk.iter_mut().zip(stream.as_bytes()).for_each(|(byte, mask)| *byte ^= mask);
    }
    masked
}

/// DER of `DigestInfo` before the digest, RFC 8017 section 9.2 note 1.
const fn digest_info_prefix(algorithm: HashAlgorithm) -> Option<&'static [u8]> {
    match algorithm {
        // A certificate authority that still signs with it is refused; so is SM3, which no RSA signature uses.
        HashAlgorithm::Sha1 | HashAlgorithm::Sm3 => None,
        HashAlgorithm::Sha256 => Some(b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"),
        HashAlgorithm::Sha384 => Some(b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"),
        HashAlgorithm::Sha512 => Some(b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"),
    }
}
