//! What rules of Ed25519 disagree about: encodings that are not canonical, small orders, torsion.

use curve25519_dalek::{
    Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    edwards::CompressedEdwardsY,
};
use sha2::{Digest, Sha512};
use stele_accel::Suite;

use super::Material;

/// p + `low` in little-endian, with a sign bit.
pub(crate) fn non_canonical_field_element(low: u8, sign: bool) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + low;
    bytes[31] = if sign { 0xff } else { 0x7f };
    bytes
}

/// Every encoding that decodes to a point but is not the point's canonical one: `y` in `p..2^255`, and
/// `x = 0` with a sign.
pub(crate) fn non_canonical_encodings() -> Vec<[u8; 32]> {
    let mut candidates = Vec::new();
    for sign in [false, true] {
        candidates.extend((0..19).map(|low| non_canonical_field_element(low, sign)));
    }
    let mut one = [0; 32];
    (one[0], one[31]) = (1, 0x80);
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    candidates.extend([one, minus_one]);
    candidates
        .retain(|bytes| CompressedEdwardsY(*bytes).decompress().is_some_and(|point| point.compress().0 != *bytes));
    candidates
}

/// The 8 canonical and 6 other encodings of the points of small order.
pub(crate) fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut encodings: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
    encodings.extend(
        non_canonical_encodings()
            .into_iter()
            .filter(|bytes| CompressedEdwardsY(*bytes).decompress().is_some_and(|point| point.is_small_order())),
    );
    encodings
}

/// All pairs of small-order `A` and `R` with `s = 0`: the "196 vectors".
pub(crate) fn small_order_items() -> Vec<Material> {
    let encodings = small_order_encodings();
    let mut items = Vec::new();
    for public_key in &encodings {
        for r in &encodings {
            items.push(Material {
                suite: Suite::Ed25519,
                public_key: public_key.to_vec(),
                signature: [*r, [0; 32]].concat(),
                message: b"Zcash".to_vec(),
            });
        }
    }
    items
}

pub(crate) fn challenge(r: &[u8], public_key: &[u8], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(public_key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// A signature by a key with a torsion component, with a torsion component in `R`: valid under ZIP-215 only.
pub(crate) fn torsion_item(number: u64, key_torsion: usize, r_torsion: usize) -> Material {
    let secret = Scalar::from(number + 77);
    let nonce = Scalar::from(number + 7777);
    let key = (ED25519_BASEPOINT_POINT * secret + EIGHT_TORSION[key_torsion]).compress().0;
    let r = (ED25519_BASEPOINT_POINT * nonce + EIGHT_TORSION[r_torsion]).compress().0;
    let message = number.to_be_bytes().to_vec();
    let s = nonce + challenge(&r, &key, &message) * secret;
    Material { suite: Suite::Ed25519, public_key: key.to_vec(), signature: [r, s.to_bytes()].concat(), message }
}

pub(crate) fn torsion_items() -> Vec<Material> {
    (0..64u64)
        .map(|number| {
            let number_small = usize::try_from(number).expect("small");
            torsion_item(number, number_small % 8, number_small / 8)
        })
        .collect()
}

/// `s + ℓ` in place of `s`: the same signature, written so that it must be refused.
pub(crate) fn with_large_s(mut item: Material) -> Material {
    // ℓ = 2^252 + 27742317777372353535851937790883648493, little-endian.
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").expect("hex");
    let mut carry = 0;
    for (byte, add) in item.signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    item
}

/// `A` and `R` of every encoding that is strange, with some `s`.
pub(crate) fn encoding_items() -> Vec<Material> {
    let mut encodings = small_order_encodings();
    encodings.extend(non_canonical_encodings());
    let honest = Material::valid(Suite::Ed25519, 1, b"m");
    encodings.push(honest.public_key.try_into().expect("32 bytes"));
    // Not points at all.
    encodings.extend([[2; 32], [0x55; 32], non_canonical_field_element(2, false)]);
    let mut items = Vec::new();
    for public_key in &encodings {
        for r in &encodings {
            for s in [[0; 32], Scalar::ONE.to_bytes(), [0xff; 32]] {
                items.push(Material {
                    suite: Suite::Ed25519,
                    public_key: public_key.to_vec(),
                    signature: [*r, s].concat(),
                    message: b"m".to_vec(),
                });
            }
        }
    }
    items
}

/// Message, public key and signature of the cases of Chalkias, Garillot and Nikolaenko, *Taming the many EdDSAs* (SSR
/// 2020), section 5, numbers 0 to 11: small and mixed orders, cofactored only, `s ≥ ℓ`, `R` and `A` that are not canonical.
pub(crate) const TAMING: [(&str, &str, &str); 14] = [
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
    ),
    (
        "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    // As 8 and 9 with another encoding of R that is not canonical: y = p.
    (
        "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
    ),
    (
        "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
    ),
];
