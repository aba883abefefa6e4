//! Statement signing keys in files: PKCS#8 PEM, mode 0600, one key a file.
//!
//! These are keys of parties, not of nodes: a node's keys sign only typed structures and live behind `stele-hsm`.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::{
    AssociatedOid as _, DecodePrivateKey as _, EncodePrivateKey as _, LineEnding, ObjectIdentifier, PrivateKeyInfo,
    SecretDocument,
};
use stele_types::party::{EnrolledKey, PublicKey};
use stele_types::{KeyId, Suite};
use zeroize::{Zeroize as _, Zeroizing};

use crate::failure::Failure;

/// Longest key file in bytes; the keys we write have under 300.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;
/// id-Ed25519 (RFC 8410 section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// id-ecPublicKey (RFC 5480 section 2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// PKCS#8 around an Ed25519 seed: version 0, id-Ed25519, OCTET STRING of an OCTET STRING of 32 bytes (RFC 8410).
const ED25519_PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The OCTET STRING head inside the private key of an Ed25519 PKCS#8 file.
const ED25519_SEED_HEAD: [u8; 2] = [0x04, 0x20];
/// User id of SM2 signatures (GB/T 32918.2, GB/T 35276): the default that the suite names.
const SM2_USER_ID: &str = "1234567812345678";

/// A statement signing key of one of the network's suites. `Debug` shows its id only.
#[derive(Clone)]
pub struct SigningKey {
    secret: Secret,
    public_key: Vec<u8>,
}

#[derive(Clone)]
enum Secret {
    Es256(p256::ecdsa::SigningKey),
    EdDsa(ed25519_zebra::SigningKey),
    Sm2(sm2::dsa::SigningKey, sm2::SecretKey),
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the suite is reserved only, or the system gives no random bytes.
    pub fn generate(suite: Suite) -> Result<Self> {
        // A P-256 or SM2 scalar is out of range once in 2^32 draws.
        const DRAWS_MAX: usize = 8;
        for _ in 0..DRAWS_MAX {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(|error| anyhow!("no random bytes for a key: {error}"))?;
            let secret = match suite {
                Suite::Es256 => p256::ecdsa::SigningKey::from_slice(seed.as_slice()).ok().map(Secret::Es256),
                Suite::EdDsa => Some(Secret::EdDsa(ed25519_zebra::SigningKey::from(*seed))),
                Suite::Sm2Sm3 => sm2::SecretKey::from_slice(seed.as_slice()).ok().and_then(|key| Secret::sm2(key).ok()),
                Suite::MlDsa44 | Suite::MlDsa65 | Suite::MlDsa87 => {
                    bail!(
                        Failure::new("algorithm_unsupported", format!("no key of suite {suite} can be made"))
                            .hint("choose es256, eddsa or sm2_sm3; the post-quantum suites are reserved")
                    )
                }
            };
            if let Some(secret) = secret {
                return Ok(Self::of(secret));
            }
        }
        bail!("no usable key in {DRAWS_MAX} draws of random bytes")
    }

    /// Reads a key file of any suite; the algorithm in the file tells which.
    ///
    /// # Errors
    /// When it cannot be read, others may read it, or it holds no key of a known suite.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_secret(path)?;
        Self::from_pem(&text).map_err(|error| {
            Failure::new("key_file_malformed", format!("{}: {error:#}", path.display()))
                .hint("a key file is PKCS#8 PEM of a P-256, Ed25519 or SM2 key")
                .into()
        })
    }

    /// Reads PKCS#8 PEM.
    ///
    /// # Errors
    /// When it holds no key of a known suite.
    pub fn from_pem(text: &str) -> Result<Self> {
        let (label, document) = SecretDocument::from_pem(text).map_err(|_| anyhow!("not a PEM file"))?;
        if label != "PRIVATE KEY" {
            bail!("PEM of `{label}` is not a PKCS#8 private key");
        }
        let info = PrivateKeyInfo::try_from(document.as_bytes()).map_err(|_| anyhow!("malformed PKCS#8"))?;
        let secret = if info.algorithm.oid == ED25519 {
            let seed =
                info.private_key.strip_prefix(&ED25519_SEED_HEAD).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
            let mut seed = seed.ok_or_else(|| anyhow!("malformed Ed25519 key"))?;
            let key = ed25519_zebra::SigningKey::from(seed);
            seed.zeroize();
            Secret::EdDsa(key)
        } else if info.algorithm.oid == EC_PUBLIC_KEY {
            let curve = info.algorithm.parameters_oid().map_err(|_| anyhow!("elliptic curve is not named"))?;
            if curve == p256::NistP256::OID {
                let key =
                    p256::SecretKey::from_pkcs8_der(document.as_bytes()).map_err(|_| anyhow!("malformed P-256 key"))?;
                Secret::Es256(p256::ecdsa::SigningKey::from(key))
            } else if curve == sm2::Sm2::OID {
                let key =
                    sm2::SecretKey::from_pkcs8_der(document.as_bytes()).map_err(|_| anyhow!("malformed SM2 key"))?;
                Secret::sm2(key)?
            } else {
                bail!("elliptic curve {curve} is not one of this network's suites");
            }
        } else {
            bail!("algorithm {} is not one of this network's suites", info.algorithm.oid);
        };
        Ok(Self::of(secret))
    }

    /// PKCS#8 PEM.
    ///
    /// # Errors
    /// When the key has no encoding, which no valid key lacks.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        let failed = |_| anyhow!("the key has no PKCS#8 encoding");
        match &self.secret {
            Secret::Es256(key) => {
                p256::SecretKey::from(key.as_nonzero_scalar()).to_pkcs8_pem(LineEnding::LF).map_err(failed)
            }
            Secret::Sm2(_, key) => key.to_pkcs8_pem(LineEnding::LF).map_err(failed),
            Secret::EdDsa(key) => {
                let der = Zeroizing::new([&ED25519_PKCS8_HEAD[..], key.as_ref()].concat());
                let document = SecretDocument::try_from(der.as_slice()).map_err(|_| anyhow!("malformed PKCS#8"))?;
                document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| anyhow!("the key has no PEM encoding"))
            }
        }
    }

    /// Writes the key to a new file of mode 0600.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save_new(&self, path: &Path) -> Result<()> {
        write_secret_new(path, self.to_pem()?.as_bytes())
    }

    /// Suite of the key.
    pub const fn suite(&self) -> Suite {
        match &self.secret {
            Secret::Es256(_) => Suite::Es256,
            Secret::EdDsa(_) => Suite::EdDsa,
            Secret::Sm2(..) => Suite::Sm2Sm3,
        }
    }

    /// Canonical public key of the suite.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The COSE `kid`.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.suite(), &self.public_key)
    }

    /// The key as the ledger enrols it.
    pub fn enrolled(&self) -> EnrolledKey {
        let public_key = PublicKey::new(self.public_key.clone()).unwrap_or_default();
        EnrolledKey { suite: self.suite(), public_key }
    }

    /// The Ed25519 key of a seed.
    pub(crate) fn from_ed25519_seed(seed: [u8; 32]) -> Self {
        Self::of(Secret::EdDsa(ed25519_zebra::SigningKey::from(seed)))
    }

    /// The seed of an Ed25519 key, for the file of a node's peer key.
    pub(crate) fn ed25519_seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        match &self.secret {
            Secret::EdDsa(key) => Some(Zeroizing::new((*key).into())),
            Secret::Es256(_) | Secret::Sm2(..) => None,
        }
    }

    /// Signs `message`; 64 bytes in the suite's form.
    ///
    /// # Errors
    /// When the arithmetic of the curve fails, which happens with negligible probability.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64]> {
        Ok(match &self.secret {
            Secret::Es256(key) => {
                let signature: p256::ecdsa::Signature =
                    key.try_sign(message).map_err(|_| anyhow!("ES256 signature"))?;
                signature.to_bytes().into()
            }
            Secret::EdDsa(key) => key.sign(message).into(),
            Secret::Sm2(key, _) => {
                let signature: sm2::dsa::Signature =
                    sm2::dsa::signature::Signer::try_sign(key, message).map_err(|_| anyhow!("SM2 signature"))?;
                signature.to_bytes()
            }
        })
    }

    fn of(secret: Secret) -> Self {
        let public_key = match &secret {
            Secret::Es256(key) => key.verifying_key().to_encoded_point(true).as_bytes().to_vec(),
            Secret::EdDsa(key) => <[u8; 32]>::from(ed25519_zebra::VerificationKeyBytes::from(key)).to_vec(),
            Secret::Sm2(_, key) => key.public_key().as_affine().to_encoded_point(true).as_bytes().to_vec(),
        };
        Self { secret, public_key }
    }
}

impl Secret {
    fn sm2(key: sm2::SecretKey) -> Result<Self> {
        let signer = sm2::dsa::SigningKey::new(SM2_USER_ID, &key).map_err(|_| anyhow!("malformed SM2 key"))?;
        Ok(Self::Sm2(signer, key))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("suite", &self.suite()).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Reads a secret text file that only its owner may touch.
///
/// # Errors
/// When it cannot be read, is too long, or others may read it.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>> {
    let file = fs::File::open(path).with_context(|| format!("cannot open key file {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("cannot read key file {}", path.display()))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(
            Failure::new("key_file_permissions", format!("key file {} has mode {mode:o}", path.display()))
                .hint(format!("others can read it; run: chmod 600 {}", path.display()))
        );
    }
    if metadata.len() > KEY_FILE_BYTES_MAX {
        bail!("key file {} is longer than {KEY_FILE_BYTES_MAX} bytes", path.display());
    }
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read key file {}", path.display()))?;
    Ok(text)
}

/// Writes a secret to a new file of mode 0600; an existing file is never overwritten.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_secret_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = open.with_context(|| format!("cannot create key file {}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_suite_survive_their_file() {
        let directory = tempfile::tempdir().unwrap();
        for suite in [Suite::Es256, Suite::EdDsa, Suite::Sm2Sm3] {
            let key = SigningKey::generate(suite).unwrap();
            let path = directory.path().join(suite.as_str());
            key.save_new(&path).unwrap();
            let loaded = SigningKey::load(&path).unwrap();
            assert_eq!((loaded.suite(), loaded.public_key()), (suite, key.public_key()));
            assert_eq!(key.public_key().len(), suite.public_key_len());
            assert!(key.save_new(&path).is_err(), "never overwritten");
            assert!(!format!("{key:?}").contains(key.to_pem().unwrap().lines().nth(1).unwrap()));
        }
    }

    #[test]
    fn signatures_verify_under_their_suite() {
        use p256::ecdsa::signature::Verifier as _;
        let message = b"statement";
        let key = SigningKey::generate(Suite::Es256).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(&key.sign(message).unwrap()).unwrap();
        p256::ecdsa::VerifyingKey::from_sec1_bytes(key.public_key()).unwrap().verify(message, &signature).unwrap();

        let key = SigningKey::generate(Suite::EdDsa).unwrap();
        let verifier = ed25519_zebra::VerificationKey::try_from(key.public_key()).unwrap();
        verifier.verify(&ed25519_zebra::Signature::from(key.sign(message).unwrap()), message).unwrap();

        let key = SigningKey::generate(Suite::Sm2Sm3).unwrap();
        let verifier = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_USER_ID, key.public_key()).unwrap();
        let signature = sm2::dsa::Signature::from_bytes(&key.sign(message).unwrap()).unwrap();
        sm2::dsa::signature::Verifier::verify(&verifier, message, &signature).unwrap();
    }

    #[test]
    fn files_that_others_can_read_and_broken_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        SigningKey::generate(Suite::EdDsa).unwrap().save_new(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SigningKey::load(&path).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().code(), "key_file_permissions");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for broken in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, broken).unwrap();
            assert_eq!(
                SigningKey::load(&path).unwrap_err().downcast_ref::<Failure>().unwrap().code(),
                "key_file_malformed"
            );
        }
    }
}
