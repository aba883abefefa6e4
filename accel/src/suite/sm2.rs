//! SM2 signatures with SM3 and the default identity, GB/T 32918.2-2016 section 7.

use stele_accel_hash::{Digest, HashAlgorithm, digest, digest_batch};

use crate::{
    curve::{
        Affine, Curve, Modulus, PrimeCurve, Residue, Sm2,
        limbs::{self, Limbs},
    },
    figures::CacheFigures,
    suite::{
        KeyError, Signed, Suite, Verdict,
        equation::{Equation, Equations, Key, KeyTable, decide, decode, scalars},
        is_sec1,
        keys::{Keyed, Keys, Known},
    },
};

/// The identity of every signer: the default of GM/T 0009-2012 section 10 and of common tools.
pub const DEFAULT_IDENTITY: &[u8; 16] = b"1234567812345678";

/// Length of the identity in bits, the `ENTL` of section 5.5.
const IDENTITY_BITS: [u8; 2] = [0x00, 0x80];

/// `a` of the curve, `p - 3`.
const A: Limbs = limbs::subtract(&<Sm2 as Curve>::Field::MODULUS, &[3, 0, 0, 0]).0;

type Scalar = Residue<<Sm2 as PrimeCurve>::Order>;

/// A key with its `Z`.
type Sm2Key = Key<Sm2, Digest>;

type Sm2Equations = Equations<Equation<Sm2>, KeyTable<Sm2>>;

/// Verifies with a cache of decoded keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys<Sm2Key, KeyTable<Sm2>>,
}

impl Verifier {
    pub(crate) fn new(key_cache_entries: usize, table_bytes: usize) -> Self {
        Self { keys: Keys::new(key_cache_entries, table_bytes, KeyTable::<Sm2>::BYTES) }
    }

    pub(crate) fn cache_figures(&self) -> CacheFigures {
        self.keys.figures()
    }

    /// Verifies a batch; `verdicts` has one entry for each item. Neighbours under the same key are cheapest.
    pub(crate) fn verify(&self, items: &[Signed<'_>], verdicts: &mut [Verdict]) {
        verdicts.fill(Verdict::Invalid);
        decide(&self.equations(items), verdicts);
    }

    /// What is left to decide of a batch; items without an equation are invalid.
    pub(crate) fn equations(&self, items: &[Signed<'_>]) -> Sm2Equations {
        equations(items, self.keys.of(items, |bytes| decode(bytes, identity_hash), Key::table))
    }
}

pub(crate) fn verify_one(item: Signed<'_>) -> Verdict {
    let mut verdict = [Verdict::Invalid];
    let items = [item];
    let keys = Keyed::unremembered(&items, |bytes| decode(bytes, identity_hash));
    decide(&equations(&items, keys), &mut verdict);
    verdict[0]
}

pub(crate) fn check_public_key(public_key: &[u8]) -> Result<(), KeyError> {
    if !is_sec1(public_key) {
        return Err(KeyError::Malformed(Suite::Sm2));
    }
    Sm2::decode(public_key).map(drop).ok_or(KeyError::NotOnCurve(Suite::Sm2))
}

/// Steps B1 to B7 of section 7.1 for each item.
fn equations(items: &[Signed<'_>], keys: Keyed<Sm2Key, KeyTable<Sm2>>) -> Sm2Equations {
    let digests = digests(items, &keys);
    let all = items.iter().zip(keys.iter()).zip(&digests).enumerate();
    let equations = all
        .filter_map(|(index, ((item, key), digest))| equation(index, key?, digest, &scalars::<Sm2>(item.signature)?));
    Equations { items: equations.collect(), tables: keys.tables }
}

/// Steps B5 to B7. The coordinate is `x₁ ≡ r - e`; the point at infinity has none, although a key's owner can construct
/// a signature that leads there, which a library that takes `x = 0` accepts.
fn equation(index: usize, known: &Known<Sm2Key>, digest: &Digest, [r, s]: &[Limbs; 2]) -> Option<Equation<Sm2>> {
    let [r, s_residue, e] = [*r, *s, limbs::from_be_bytes(digest)].map(|integer| Scalar::from_integer(&integer));
    let t = r + s_residue;
    if t.is_zero() {
        return None;
    }
    let (point, table) = (known.key.point, known.table);
    Some(Equation { index, generator: *s, key: t.to_integer(), point, table, x: (r - e).to_integer() })
}

/// Steps B3 and B4: `SM3(Z ‖ M)` of each item; of one without a key, whatever.
fn digests(items: &[Signed<'_>], keys: &Keyed<Sm2Key, KeyTable<Sm2>>) -> Vec<Digest> {
    let length = |item: &Signed<'_>| size_of::<Digest>() + item.message.len();
    let mut arena = Vec::with_capacity(items.iter().map(length).sum());
    for (item, known) in items.iter().zip(keys.iter()) {
        arena.extend_from_slice(known.map_or(&[0; 32], |known| &known.key.derived));
        arena.extend_from_slice(item.message);
    }
    let mut rest = arena.as_slice();
    let take = |item: &Signed<'_>| {
        let (message, after) = rest.split_at(length(item));
        rest = after;
        message
    };
    let messages: Vec<&[u8]> = items.iter().map(take).collect();
    digest_batch(HashAlgorithm::Sm3, &[], &messages)
}

/// `Z = SM3(ENTL ‖ ID ‖ a ‖ b ‖ x_G ‖ y_G ‖ x_A ‖ y_A)`, section 5.5.
fn identity_hash(point: &Affine<<Sm2 as Curve>::Field>) -> Digest {
    let [x, y] = Sm2::GENERATOR;
    let integers = [A, Sm2::B, x, y, point.x.to_integer(), point.y.to_integer()];
    let identity = [&IDENTITY_BITS[..], DEFAULT_IDENTITY].concat();
    digest(HashAlgorithm::Sm3, &identity, integers.map(|integer| limbs::to_be_bytes(&integer)).as_flattened())
}
