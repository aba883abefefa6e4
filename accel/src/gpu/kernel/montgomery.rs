//! Fields of P-256 and SM2: nine limbs of 29 bits, Montgomery's reduction by `R = 2^261`.
//!
//! Elements are kept loosely reduced. One of *weight* 1 has limbs below 2^29 and is below 5/4·2^256, so its highest limb
//! is below 5/4·2^24; a sum of `k` of these has weight `k`. Products take factors of weight 2 at most: the result is below
//! `(5/2·2^256)² / R + p < (25/128 + 1)·2^256`, which is weight 1 again. Every function that subtracts folds what passes
//! 2^256, and its result is below `17/16·2^256`.

use crate::{
    curve::{
        Modulus,
        limbs::{self, Limbs},
        power_of_two,
    },
    gpu::kernel::{
        emit::{self, Body, Value},
        line,
    },
};

/// Limbs of an element.
pub(super) const LIMBS: usize = 9;

/// Bits of a limb.
const BITS: u32 = 29;

/// Bits of the highest limb of a number below 2^256.
const TOP_BITS: u32 = 256 - 8 * BITS;

/// Largest weight of a factor.
pub(super) const WEIGHT_MAX: u64 = 2;

/// The multiple of the prime that is added before a subtraction.
const SPREAD: u32 = 4;

/// The functions of a field.
pub(super) fn functions<M: Modulus>(source: &mut String) {
    let members: Vec<String> = (0..LIMBS).map(|limb| format!("l{limb}: u32")).collect();
    line(source, &format!("struct Fe {{ {} }}", members.join(", ")));
    function(source, "fe_add(a: Fe, b: Fe) -> Fe", 4, |body| {
        let limbs = (0..LIMBS).map(|limb| body.sum(&[low(limb, "a", 2), low(limb, "b", 2)]));
        limbs.collect()
    });
    function(source, "fe_fold(a: Fe) -> Fe", 1, |body| {
        let limbs: Vec<Value> = (0..LIMBS).map(|limb| low(limb, "a", 4)).collect();
        fold::<M>(body, &limbs)
    });
    function(source, "fe_sub(a: Fe, b: Fe) -> Fe", 1, |body| {
        let spread = spread::<M>();
        let limbs: Vec<Value> = (0..LIMBS)
            .map(|limb| {
                let raised = body.sum(&[low(limb, "a", 2), Value::constant(spread[limb])]);
                body.difference(&raised, &low(limb, "b", WEIGHT_MAX))
            })
            .collect();
        fold::<M>(body, &limbs)
    });
    function(source, "fe_mul(a: Fe, b: Fe) -> Fe", 1, |body| {
        let [a, b] = ["a", "b"].map(|name| factor(body, name));
        let columns = (0..2 * LIMBS - 1).map(|column| {
            let pairs = (0..LIMBS).filter(|i| (*i..*i + LIMBS).contains(&column));
            let terms: Vec<Value> = pairs.map(|i| body.product(&a[i], &b[column - i])).collect();
            body.sum(&terms)
        });
        let columns = columns.collect();
        reduce::<M>(body, columns)
    });
    function(source, "fe_sq(a: Fe) -> Fe", 1, |body| {
        let a = factor(body, "a");
        let twice: Vec<Value> = a.iter().map(|limb| body.times(limb, 2)).collect();
        let columns = (0..2 * LIMBS - 1).map(|column| {
            let pairs = (0..LIMBS).filter(|i| (*i..*i + LIMBS).contains(&column) && 2 * i <= column);
            let terms: Vec<Value> =
                pairs.map(|i| body.product(if 2 * i == column { &a[i] } else { &twice[i] }, &a[column - i])).collect();
            body.sum(&terms)
        });
        let columns = columns.collect();
        reduce::<M>(body, columns)
    });
    is_zero::<M>(source);
    unpack(source);
}

/// An element as text, of an integer below the prime that is its stored form here.
pub(super) fn constant(integer: &Limbs) -> String {
    let limbs: Vec<String> = split(integer).iter().map(|limb| format!("{limb}u")).collect();
    format!("Fe({})", limbs.join(", "))
}

/// `2^261 mod p`: one.
pub(super) fn one<M: Modulus>() -> String {
    constant(&power_of_two(261, &M::MODULUS))
}

/// `2^266 mod p`: a product with it takes the CPU's stored form to the one here.
pub(super) fn from_stored<M: Modulus>() -> String {
    constant(&power_of_two(266, &M::MODULUS))
}

/// `2^522 mod p`: a product with it takes an integer to its stored form.
pub(super) fn from_integer<M: Modulus>() -> String {
    constant(&power_of_two(522, &M::MODULUS))
}

/// A limb of a parameter of some weight.
fn low(limb: usize, name: &str, weight: u64) -> Value {
    Value::parameter(&format!("{name}.l{limb}"), weight * highest(limb))
}

const fn highest(limb: usize) -> u64 {
    if limb == LIMBS - 1 { (1 << TOP_BITS) + (1 << (TOP_BITS - 2)) - 1 } else { (1 << BITS) - 1 }
}

fn factor(body: &mut Body, name: &str) -> Vec<Value> {
    (0..LIMBS).map(|limb| body.widen(&low(limb, name, WEIGHT_MAX))).collect()
}

/// A function that returns an element of a weight.
fn function(source: &mut String, head: &str, weight: u64, make: impl FnOnce(&mut Body) -> Vec<Value>) {
    emit::element_function(source, head, |limb| weight * highest(limb), make);
}

/// Montgomery's reduction, limb by limb. The prime is `-1 mod 2^29`, so a digit is the lowest limb itself; and the
/// product of a digit with the limbs of all ones in front is one term: `Σ_{j<q} m·(2^29 - 1)·2^(29j) = m·2^(29q) - m`.
fn reduce<M: Modulus>(body: &mut Body, mut columns: Vec<Value>) -> Vec<Value> {
    let prime = split(&M::MODULUS);
    let ones = prime.iter().take_while(|limb| **limb == (1 << BITS) - 1).count();
    assert!(ones > 0, "the prime ends in ones");
    columns.push(body.sum(&[]));
    for column in 0..LIMBS {
        let digit = body.lowest(&columns[column], BITS);
        let carry = body.rest(&columns[column], BITS);
        for (limb, factor) in prime.iter().enumerate().skip(ones) {
            let factor = if limb == ones { factor + 1 } else { *factor };
            if factor > 0 {
                let term = body.times(&digit, factor);
                columns[column + limb] = body.sum(&[columns[column + limb].clone(), term]);
            }
        }
        columns[column + 1] = body.sum(&[columns[column + 1].clone(), carry]);
    }
    let mut limbs = Vec::with_capacity(LIMBS);
    for column in LIMBS..2 * LIMBS - 1 {
        let limb = body.lowest(&columns[column], BITS);
        limbs.push(body.narrow(&limb));
        let carry = body.rest(&columns[column], BITS);
        columns[column + 1] = body.sum(&[columns[column + 1].clone(), carry]);
    }
    // By the bound of the whole number; see above.
    let top = body.known_below(&columns[2 * LIMBS - 1], (1 << TOP_BITS) + (1 << (TOP_BITS - 2)));
    limbs.push(body.narrow(&top));
    limbs
}

/// Carries, and replaces `h·2^256` by `h·(2^256 - p)`. The result is below `2^256 + h·2^225`, and `h` is below 128.
fn fold<M: Modulus>(body: &mut Body, limbs: &[Value]) -> Vec<Value> {
    let residue = split(&limbs::subtract(&limbs::ZERO, &M::MODULUS).0);
    let mut carried = Vec::with_capacity(LIMBS);
    let mut carry = None;
    for limb in &limbs[..LIMBS - 1] {
        let sum = body.sum(&[Some(limb.clone()), carry].into_iter().flatten().collect::<Vec<_>>());
        carried.push(body.lowest(&sum, BITS));
        carry = Some(body.rest(&sum, BITS));
    }
    let top = body.sum(&[Some(limbs[LIMBS - 1].clone()), carry].into_iter().flatten().collect::<Vec<_>>());
    carried.push(body.lowest(&top, TOP_BITS));
    let passed = body.rest(&top, TOP_BITS);
    assert!(passed.high() < 128, "{} passes", passed.high());
    let passed = body.widen(&passed);
    let mut folded = Vec::with_capacity(LIMBS);
    let mut carry = body.sum(&[]);
    for (place, (limb, factor)) in carried.iter().zip(residue).enumerate() {
        let mut terms = vec![body.widen(limb), carry.clone()];
        if factor > 0 {
            terms.push(body.times(&passed, factor));
        }
        let sum = body.sum(&terms);
        if place == LIMBS - 1 {
            let top = body.known_below(&sum, (1 << TOP_BITS) + (1 << (TOP_BITS - 4)));
            folded.push(body.narrow(&top));
        } else {
            let limb = body.lowest(&sum, BITS);
            folded.push(body.narrow(&limb));
            carry = body.rest(&sum, BITS);
        }
    }
    folded
}

/// `SPREAD` times 4 the prime, in limbs that are each at least what a limb of weight 2 can be.
fn spread<M: Modulus>() -> [u64; LIMBS] {
    let mut limbs = split(&M::MODULUS).map(|limb| limb * u64::from(4 * SPREAD));
    // Limbs below 2^29 again, as the highest takes what is over.
    for limb in 0..LIMBS - 1 {
        limbs[limb + 1] += limbs[limb] >> BITS;
        limbs[limb] &= (1 << BITS) - 1;
    }
    // Each limb but the highest borrows two of the next.
    limbs[..LIMBS - 1].iter_mut().for_each(|limb| *limb += 1 << (BITS + 1));
    limbs[1..].iter_mut().for_each(|limb| *limb -= 2);
    limbs
}

/// Zero and the prime are the only multiples of the prime below `17/16·2^256`.
fn is_zero<M: Modulus>(source: &mut String) {
    let prime = split(&M::MODULUS);
    let zero: Vec<String> = (0..LIMBS).map(|limb| format!("r.l{limb}")).collect();
    let same: Vec<String> = (0..LIMBS).map(|limb| format!("(r.l{limb} ^ {}u)", prime[limb])).collect();
    line(source, "fn fe_is_zero(a: Fe) -> bool {");
    line(source, "let r = fe_fold(a);");
    line(source, &format!("return ({}) == 0u || ({}) == 0u;", zero.join(" | "), same.join(" | ")));
    line(source, "}");
}

/// An element of eight words.
fn unpack(source: &mut String) {
    let parameters: Vec<String> = (0..8).map(|word| format!("w{word}: u32")).collect();
    line(source, &format!("fn fe_unpack({}) -> Fe {{", parameters.join(", ")));
    let limbs: Vec<String> = (0..LIMBS)
        .map(|limb| {
            let bit = limb * BITS as usize;
            let (word, shift) = (bit / 32, bit % 32);
            let low = if shift == 0 { format!("w{word}") } else { format!("(w{word} >> {shift}u)") };
            let both = if shift + (BITS as usize) > 32 && word < 7 {
                format!("({low} | (w{} << {}u))", word + 1, 32 - shift)
            } else {
                low
            };
            format!("({both} & {:#x}u)", (1u32 << BITS) - 1)
        })
        .collect();
    line(source, &format!("return Fe({});", limbs.join(", ")));
    line(source, "}");
}

/// The limbs of an integer below 2^256.
fn split(integer: &Limbs) -> [u64; LIMBS] {
    std::array::from_fn(|limb| {
        let bit = limb * BITS as usize;
        let (word, shift) = (bit / 64, bit % 64);
        let high = integer.get(word + 1).map_or(0, |next| if shift == 0 { 0 } else { next << (64 - shift) });
        (integer[word] >> shift | high) & ((1 << BITS) - 1)
    })
}
