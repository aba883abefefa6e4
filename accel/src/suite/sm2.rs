//! SM2 signatures with SM3 and the default identity, GB/T 32918.2-2016 section 7.

use std::sync::{
    Arc, LazyLock, OnceLock,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

use sm2::{
    AffinePoint, FieldBytes, ProjectivePoint, PublicKey, Scalar,
    dsa::Signature,
    elliptic_curve::{
        Group,
        ops::Reduce,
        point::AffineCoordinates,
        sec1::{Coordinates, ToEncodedPoint},
    },
};
use sm3::{Digest, Sm3};

use crate::{
    figures::CacheFigures,
    suite::{KeyError, Signed, Suite, Verdict, is_sec1, key_cache::KeyCache, sm2_comb::Comb},
};

/// The identity of every signer: the default of GM/T 0009-2012 section 10 and of common tools.
pub const DEFAULT_IDENTITY: &[u8; 16] = b"1234567812345678";

/// `ENTL ‖ ID ‖ a ‖ b ‖ x_G ‖ y_G` without the identity's part, GB/T 32918.5-2017 section 2.
const CURVE_PARAMETERS: [[u8; 32]; 4] = [
    bytes_of(0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF, 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFC),
    bytes_of(0x28E9FA9E_9D9F5E34_4D5A9E4B_CF6509A7, 0xF39789F5_15AB8F92_DDBCBD41_4D940E93),
    bytes_of(0x32C4AE2C_1F198119_5F990446_6A39C994, 0x8FE30BBF_F2660BE1_715A4589_334C74C7),
    bytes_of(0xBC3736A2_F4F6779C_59BDCEE3_6B692153, 0xD0A9877C_C62A4740_02DF32E5_2139F0A0),
];

/// Uses of a cached key after which it gets a table of its own. A table costs two verifications and then
/// saves four fifths of each.
const TABLE_AFTER_USES: u32 = 8;

/// Most keys with a table at one time, 92 KiB each: 94 MiB.
const TABLES_MAX: usize = 1024;

/// The table of the generator.
static GENERATOR: LazyLock<Comb> = LazyLock::new(|| Comb::new(&ProjectivePoint::GENERATOR));

/// Keys that have a table now.
static TABLES: AtomicUsize = AtomicUsize::new(0);

/// Verifies with a cache of decoded keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: KeyCache<Arc<DecodedKey>>,
}

/// A key's point and its `Z`, with a table once it is used often.
#[derive(Debug)]
struct DecodedKey {
    point: ProjectivePoint,
    z: [u8; 32],
    uses: AtomicU32,
    table: OnceLock<Comb>,
}

impl Verifier {
    pub(crate) fn new(key_cache_entries: usize) -> Self {
        Self { keys: KeyCache::new(key_cache_entries) }
    }

    pub(crate) fn cache_figures(&self) -> CacheFigures {
        self.keys.figures()
    }

    pub(crate) fn verify(&self, item: Signed<'_>) -> Verdict {
        let key = self.keys.find_or_decode(item.public_key, |bytes| decode(bytes).map(Arc::new));
        Verdict::from(key.is_some_and(|key| {
            key.count_use();
            verify_decoded(&key, item).is_some()
        }))
    }
}

impl DecodedKey {
    /// Makes the table when the key was used often enough and there is room.
    fn count_use(&self) {
        if self.table.get().is_some() || self.uses.fetch_add(1, Ordering::Relaxed) < TABLE_AFTER_USES {
            return;
        }
        // Two threads may come here at once; both count, and only the one whose table stays keeps its count.
        if TABLES.fetch_add(1, Ordering::Relaxed) >= TABLES_MAX || self.table.set(Comb::new(&self.point)).is_err() {
            TABLES.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn multiply(&self, scalar: &Scalar) -> ProjectivePoint {
        self.table.get().map_or_else(|| self.point * scalar, |table| table.multiply(scalar))
    }
}

impl Drop for DecodedKey {
    fn drop(&mut self) {
        if self.table.get().is_some() {
            TABLES.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

pub(crate) fn verify_one(item: Signed<'_>) -> Verdict {
    Verdict::from(decode(item.public_key).is_some_and(|key| verify_decoded(&key, item).is_some()))
}

pub(crate) fn check_public_key(public_key: &[u8]) -> Result<(), KeyError> {
    if !is_sec1(public_key) {
        return Err(KeyError::Malformed(Suite::Sm2));
    }
    decode(public_key).map(drop).ok_or(KeyError::NotOnCurve(Suite::Sm2))
}

fn decode(public_key: &[u8]) -> Option<DecodedKey> {
    if !is_sec1(public_key) {
        return None;
    }
    let key = PublicKey::from_sec1_bytes(public_key).ok()?;
    let z = identity_hash(key.as_affine())?;
    let (uses, table) = (AtomicU32::new(0), OnceLock::new());
    Some(DecodedKey { point: key.to_projective(), z, uses, table })
}

/// `Z = SM3(ENTL ‖ ID ‖ a ‖ b ‖ x_G ‖ y_G ‖ x_A ‖ y_A)`, section 5.5.
fn identity_hash(point: &AffinePoint) -> Option<[u8; 32]> {
    /// Length of the identity in bits.
    const IDENTITY_BITS: [u8; 2] = [0x00, 0x80];
    let encoded = point.to_encoded_point(false);
    let Coordinates::Uncompressed { x, y } = encoded.coordinates() else { return None };
    let hash = Sm3::new()
        .chain_update(IDENTITY_BITS)
        .chain_update(DEFAULT_IDENTITY)
        .chain_update(CURVE_PARAMETERS.as_flattened())
        .chain_update(x)
        .chain_update(y)
        .finalize();
    Some(hash.into())
}

/// Steps B1 to B7 of section 7.1; `None` is invalid.
fn verify_decoded(key: &DecodedKey, item: Signed<'_>) -> Option<()> {
    // B1, B2: refuses r and s outside 1..n.
    let signature = Signature::from_slice(item.signature).ok()?;
    let (r, s) = (*signature.r(), *signature.s());
    // B3, B4.
    let hash = Sm3::new().chain_update(key.z).chain_update(item.message).finalize();
    let e = <Scalar as Reduce<_>>::reduce_bytes(FieldBytes::from_slice(&hash));
    // B5.
    let t = r + s;
    if t == Scalar::ZERO {
        return None;
    }
    // B6. The point at infinity has no x-coordinate; a key's owner can construct a signature that leads
    // there, which a library that takes x = 0 would accept.
    let point = GENERATOR.multiply(&s) + key.multiply(&t);
    if bool::from(point.is_identity()) {
        return None;
    }
    // B7.
    let x = <Scalar as Reduce<_>>::reduce_bytes(&point.to_affine().x());
    (e + x == r).then_some(())
}

const fn bytes_of(high: u128, low: u128) -> [u8; 32] {
    let (high, low) = (high.to_be_bytes(), low.to_be_bytes());
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 16 {
        bytes[index] = high[index];
        bytes[16 + index] = low[index];
        index += 1;
    }
    bytes
}
