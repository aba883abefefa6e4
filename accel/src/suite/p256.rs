//! ES256: ECDSA over P-256 with SHA-256, FIPS 186-5 section 6.4.2.

use stele_accel_hash::{HashAlgorithm, digest_batch};

use crate::{
    curve::{P256, PrimeCurve, Residue, invert_all, limbs},
    figures::CacheFigures,
    suite::{
        KeyError, Signed, Suite, Verdict,
        equation::{Equation, Equations, Key, KeyTable, decide, decode, scalars},
        is_sec1,
        keys::{Keyed, Keys},
    },
};

type Scalar = Residue<<P256 as PrimeCurve>::Order>;

/// Verifies with a cache of decoded keys.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys<Key<P256, ()>, KeyTable<P256>>,
}

impl Verifier {
    pub(crate) fn new(key_cache_entries: usize, table_bytes: usize) -> Self {
        Self { keys: Keys::new(key_cache_entries, table_bytes, KeyTable::<P256>::BYTES) }
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
    pub(crate) fn equations(&self, items: &[Signed<'_>]) -> Equations<Equation<P256>, KeyTable<P256>> {
        equations(items, self.keys.of(items, |bytes| decode(bytes, |_| ()), Key::table))
    }
}

pub(crate) fn verify_one(item: Signed<'_>) -> Verdict {
    let mut verdict = [Verdict::Invalid];
    let items = [item];
    let keys = Keyed::unremembered(&items, |bytes| decode(bytes, |_| ()));
    decide(&equations(&items, keys), &mut verdict);
    verdict[0]
}

pub(crate) fn check_public_key(public_key: &[u8]) -> Result<(), KeyError> {
    if !is_sec1(public_key) {
        return Err(KeyError::Malformed(Suite::P256));
    }
    P256::decode(public_key).map(drop).ok_or(KeyError::NotOnCurve(Suite::P256))
}

/// The equation of an item is `(e/s)·G + (r/s)·Q`; the divisions of all items share one inversion.
fn equations(
    items: &[Signed<'_>],
    keys: Keyed<Key<P256, ()>, KeyTable<P256>>,
) -> Equations<Equation<P256>, KeyTable<P256>> {
    let messages: Vec<&[u8]> = items.iter().map(|item| item.message).collect();
    let digests = digest_batch(HashAlgorithm::Sha256, &[], &messages);
    let mut equations = Vec::with_capacity(items.len());
    let mut inverses = Vec::with_capacity(items.len());
    for (index, ((item, key), digest)) in items.iter().zip(keys.iter()).zip(&digests).enumerate() {
        let (Some(known), Some([r, s])) = (key, scalars::<P256>(item.signature)) else { continue };
        inverses.push(Scalar::from_integer(&s));
        // Before division: `e·G + r·Q`.
        equations.push(Equation {
            index,
            generator: limbs::from_be_bytes(digest),
            key: r,
            point: known.key.point,
            table: known.table,
            x: r,
        });
    }
    invert_all(&mut inverses);
    for (equation, inverse) in equations.iter_mut().zip(inverses) {
        equation.generator = (Scalar::from_integer(&equation.generator) * inverse).to_integer();
        equation.key = (Scalar::from_integer(&equation.key) * inverse).to_integer();
    }
    Equations { items: equations, tables: keys.tables }
}
