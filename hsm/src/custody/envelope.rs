//! HPKE in base mode: what is sealed for the owner of a P-256 key.

use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha256, kem::DhP256HkdfSha256,
    single_shot_open, single_shot_seal,
};
use hpke_rand_core::{OsRng, TryRngCore as _};
use p256::SecretKey;
use zeroize::Zeroizing;

type Kem = DhP256HkdfSha256;

/// Bytes of an encapsulated key: an uncompressed SEC1 point.
const ENCAPSULATED_LENGTH: usize = 65;

/// Bytes that a seal adds: the encapsulated key before, the tag behind.
pub(super) const OVERHEAD: usize = ENCAPSULATED_LENGTH + 16;

/// Public half of a custody key: an uncompressed SEC1 point.
pub type CustodyPublicKey = [u8; ENCAPSULATED_LENGTH];

/// The public half of a key.
pub(super) fn public_key(key: &SecretKey) -> Option<CustodyPublicKey> {
    Kem::sk_to_pk(&private_key(key)?).to_bytes().as_slice().try_into().ok()
}

/// Seals bytes for `recipient`, bound to `info`; none if it is no public key.
pub(super) fn seal(recipient: &CustodyPublicKey, info: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let recipient = <Kem as hpke::Kem>::PublicKey::from_bytes(recipient).ok()?;
    let mut random = OsRng.unwrap_err();
    let sealed =
        single_shot_seal::<AesGcm256, HkdfSha256, Kem, _>(&OpModeS::Base, &recipient, info, bytes, &[], &mut random);
    let (encapsulated, ciphertext) = sealed.ok()?;
    Some([&encapsulated.to_bytes()[..], &ciphertext].concat())
}

/// Opens what was sealed for `key` and bound to `info`; none for anything else.
pub(super) fn open(key: &SecretKey, info: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED_LENGTH)?;
    let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    let opened = single_shot_open::<AesGcm256, HkdfSha256, Kem>(
        &OpModeR::Base,
        &private_key(key)?,
        &encapsulated,
        info,
        ciphertext,
        &[],
    );
    opened.ok().map(Zeroizing::new)
}

/// Fills `bytes` with random ones; none if the system gives none.
pub(super) fn random(bytes: &mut [u8]) -> Option<()> {
    OsRng.try_fill_bytes(bytes).ok()
}

fn private_key(key: &SecretKey) -> Option<<Kem as hpke::Kem>::PrivateKey> {
    let bytes = Zeroizing::new(key.to_bytes());
    <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes).ok()
}
