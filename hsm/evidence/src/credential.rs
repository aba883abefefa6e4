//! Credentials: a secret that only the TPM with a given endorsement key, holding a given object, gives back. It proves that
//! an attestation key and an endorsement key are in one TPM. TPM 2.0 Part 1 section 24; no TPM is needed to make one.

use alloc::vec::Vec;

use aes::{
    Aes128, Aes256,
    cipher::{BlockEncrypt, KeyInit, generic_array::GenericArray},
};
use hmac::{Hmac, Mac};
use p256::elliptic_curve::{
    self, AffinePoint, CurveArithmetic, FieldBytesSize, SecretKey, ecdh,
    sec1::{FromEncodedPoint, ModulusSize, ToEncodedPoint},
};
use sha2::{Sha256, Sha384};

use crate::{
    algorithm::HashAlgorithm,
    error::EvidenceError,
    key::PublicKey,
    public::{Name, Public},
};

/// Random bytes that a credential takes: the seed or ephemeral key, and the seed of OAEP. They must come from a
/// cryptographic generator and be used once.
pub const ENTROPY_LENGTH: usize = 64;

/// A credential, as `TPM2_ActivateCredential` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// `TPM2B_ID_OBJECT`: integrity value and encrypted secret.
    pub id_object: Vec<u8>,
    /// `TPM2B_ENCRYPTED_SECRET`: the seed, for the endorsement key alone.
    pub encrypted_seed: Vec<u8>,
}

impl Credential {
    /// Wraps `secret` for the TPM that holds both the endorsement key and the object of that name.
    ///
    /// # Errors
    /// [`EvidenceError::UnsupportedAlgorithm`] for endorsement keys other than those on P-256 and RSA with SHA-256 and on
    /// P-384 with SHA-384 of the TCG EK Credential Profile, [`EvidenceError::SecretLength`] for a secret that is empty or
    /// longer than a digest of that hash, [`EvidenceError::UnusableEntropy`] in one of 2^32 cases with a P-256 key.
    pub fn make(
        endorsement_key: &Public,
        name: &Name,
        secret: &[u8],
        entropy: &[u8; ENTROPY_LENGTH],
    ) -> Result<Self, EvidenceError> {
        let hash = endorsement_key.name_algorithm;
        if secret.is_empty() || secret.len() > hash.length() {
            return Err(EvidenceError::SecretLength);
        }
        let unsupported = |id| EvidenceError::UnsupportedAlgorithm { structure: "endorsement key", id };
        let key_bits = endorsement_key.symmetric.map_or(0, |cipher| cipher.key_bits);
        if !matches!(key_bits, 128 | 256) {
            return Err(unsupported(key_bits));
        }
        let (seed, encrypted_seed) = match (&endorsement_key.key, hash) {
            (PublicKey::P256(key), HashAlgorithm::Sha256) => agree(key, hash, &entropy[..32])?,
            (PublicKey::P384(key), HashAlgorithm::Sha384) => agree(key, hash, &entropy[..48])?,
            (PublicKey::Rsa(key), HashAlgorithm::Sha256) => {
                let (seed, padding) = entropy.split_at(32);
                let sealed = key.encrypt_oaep(hash, b"IDENTITY\0", seed, padding);
                let sealed = sealed.ok_or(EvidenceError::InvalidKey)?;
                (seed.to_vec(), sized(&sealed))
            }
            _ => return Err(unsupported(hash.id())),
        };
        let key = kdfa(hash, &seed, "STORAGE", name.as_bytes(), usize::from(key_bits));
        let encrypted = encrypt_cfb(&key, &sized(secret));
        let integrity_key = kdfa(hash, &seed, "INTEGRITY", &[], 8 * hash.length());
        let integrity = hmac(hash, &integrity_key, &[&encrypted, name.as_bytes()]);
        Ok(Self { id_object: sized(&[sized(&integrity), encrypted].concat()), encrypted_seed })
    }

    /// The file that `tpm2_makecredential` writes and `tpm2_activatecredential` reads.
    #[must_use]
    pub fn to_tools(&self) -> Vec<u8> {
        /// Magic number and version of the format.
        const HEAD: &[u8] = &[0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        [HEAD, &self.id_object, &self.encrypted_seed].concat()
    }
}

/// The seed that an ephemeral key and the endorsement key agree on, and the ephemeral point as `TPM2B_ENCRYPTED_SECRET`.
/// TPM 2.0 Part 1 section C.6.1.
fn agree<C>(
    key: &elliptic_curve::PublicKey<C>,
    hash: HashAlgorithm,
    entropy: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), EvidenceError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromEncodedPoint<C> + ToEncodedPoint<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let ephemeral = SecretKey::<C>::from_slice(entropy).map_err(|_| EvidenceError::UnusableEntropy)?;
    let shared = ecdh::diffie_hellman::<C>(ephemeral.to_nonzero_scalar(), key.as_affine());
    let ours = ephemeral.public_key().to_encoded_point(false);
    let theirs = key.to_encoded_point(false);
    let (Some(x), Some(y), Some(peer)) = (ours.x(), ours.y(), theirs.x()) else {
        return Err(EvidenceError::InvalidKey);
    };
    // KDFe, TPM 2.0 Part 1 section 11.4.10.3: one block of the hash gives all of its bits.
    let parts: [&[u8]; 5] = [&1_u32.to_be_bytes(), shared.raw_secret_bytes(), b"IDENTITY\0", x, peer];
    let seed = hash.digest(&parts).as_bytes().to_vec();
    Ok((seed, sized(&[sized(x), sized(y)].concat())))
}

/// KDFa with one context, TPM 2.0 Part 1 section 11.4.10.2; one block gives as many bits as the hash has.
fn kdfa(hash: HashAlgorithm, key: &[u8], label: &str, context: &[u8], bits: usize) -> Vec<u8> {
    let size = u32::try_from(bits).unwrap_or_default().to_be_bytes();
    let mut derived = hmac(hash, key, &[&1_u32.to_be_bytes(), label.as_bytes(), &[0], context, &size]);
    derived.truncate(bits / 8);
    derived
}

/// HMAC with SHA-384 or, for every other key that credentials are made for, SHA-256.
fn hmac(hash: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    match hash {
        HashAlgorithm::Sha384 => hmac_with::<Hmac<Sha384>>(key, parts),
        _ => hmac_with::<Hmac<Sha256>>(key, parts),
    }
}

fn hmac_with<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // Any length of key is taken.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// AES in cipher feedback mode with an initial value of zero, which is safe because the key is used once.
fn encrypt_cfb(key: &[u8], plain: &[u8]) -> Vec<u8> {
    match key.len() {
        16 => encrypt_cfb_with(&Aes128::new(GenericArray::from_slice(key)), plain),
        _ => encrypt_cfb_with(&Aes256::new(GenericArray::from_slice(key)), plain),
    }
}

fn encrypt_cfb_with<C>(cipher: &C, plain: &[u8]) -> Vec<u8>
where
    C: BlockEncrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let mut feedback = [0; 16];
    let mut encrypted = Vec::with_capacity(plain.len());
    for block in plain.chunks(16) {
        let mut stream = GenericArray::from(feedback);
        cipher.encrypt_block(&mut stream);
        let start = encrypted.len();
        encrypted.extend(block.iter().zip(&stream).map(|(plain, mask)| plain ^ mask));
        feedback[..block.len()].copy_from_slice(&encrypted[start..]);
    }
    encrypted
}

/// A `TPM2B`. What is wrapped here is far shorter than its 64 KiB.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    [&length.to_be_bytes(), bytes].concat()
}
