//! The field of edwards25519, `2^255 - 19`: ten limbs of 26 and 25 bits in turn (Bernstein, *Curve25519*, 2006).
//!
//! An element of *weight* 1 has limbs that pass their width by less than 2^17; a sum of `k` of these has weight `k`.
//! Products take factors of weight 2 at most. All other functions but the sum give weight 1.

use crate::{
    curve::limbs::Limbs,
    gpu::kernel::{
        emit::{self, Body, Value},
        line,
    },
};

/// Limbs of an element.
pub(super) const LIMBS: usize = 10;

/// Largest weight of a factor.
pub(super) const WEIGHT_MAX: u64 = 2;

/// What a limb of weight 1 may pass its width by.
const SLACK: u64 = 1 << 17;

/// `2^255 ≡ 19`.
const FOLD: u64 = 19;

/// The functions of the field.
pub(super) fn functions(source: &mut String) {
    let members: Vec<String> = (0..LIMBS).map(|limb| format!("l{limb}: u32")).collect();
    line(source, &format!("struct Fe {{ {} }}", members.join(", ")));
    function(source, "fe_add(a: Fe, b: Fe) -> Fe", 4, |body| {
        (0..LIMBS).map(|limb| body.sum(&[parameter(limb, "a", 2), parameter(limb, "b", 2)])).collect()
    });
    function(source, "fe_fold(a: Fe) -> Fe", 1, |body| {
        let limbs = (0..LIMBS).map(|limb| parameter(limb, "a", 4)).collect();
        carry(body, limbs)
    });
    function(source, "fe_sub(a: Fe, b: Fe) -> Fe", 1, |body| {
        let limbs = (0..LIMBS).map(|limb| {
            let raised = body.sum(&[parameter(limb, "a", 2), Value::constant(4 * prime(limb))]);
            body.difference(&raised, &parameter(limb, "b", 2))
        });
        let limbs = limbs.collect();
        carry(body, limbs)
    });
    function(source, "fe_mul(a: Fe, b: Fe) -> Fe", 1, |body| {
        let columns = (0..LIMBS).map(|column| {
            let terms = (0..LIMBS).map(|i| {
                let j = (column + LIMBS - i) % LIMBS;
                product(body, (i, "a"), (j, "b"), 1, i > column)
            });
            let terms: Vec<Value> = terms.collect();
            body.sum(&terms)
        });
        let columns = columns.collect();
        carry(body, columns)
    });
    function(source, "fe_sq(a: Fe) -> Fe", 1, |body| {
        let columns = (0..LIMBS).map(|column| {
            let pairs = (0..LIMBS).map(|i| (i, (column + LIMBS - i) % LIMBS)).filter(|(i, j)| i <= j);
            let terms =
                pairs.map(|(i, j)| product(body, (i, "a"), (j, "a"), if i < j { 2 } else { 1 }, i + j > column));
            let terms: Vec<Value> = terms.collect();
            body.sum(&terms)
        });
        let columns = columns.collect();
        carry(body, columns)
    });
    tests_of_value(source);
    unpack(source);
}

/// An element as text.
pub(super) fn constant(integer: &Limbs) -> String {
    let limb = |limb: usize| {
        let (bit, bits) = (first_bit(limb), width(limb));
        let (word, shift) = (bit / 64, bit % 64);
        let high = integer.get(word + 1).map_or(0, |next| if shift == 0 { 0 } else { next << (64 - shift) });
        format!("{}u", (integer[word] >> shift | high) & ((1 << bits) - 1))
    };
    format!("Fe({})", (0..LIMBS).map(limb).collect::<Vec<_>>().join(", "))
}

const fn width(limb: usize) -> u32 {
    if limb.is_multiple_of(2) { 26 } else { 25 }
}

const fn first_bit(limb: usize) -> usize {
    (51 * limb).div_ceil(2)
}

/// A limb of the prime.
const fn prime(limb: usize) -> u64 {
    let ones = (1 << width(limb)) - 1;
    if limb == 0 { ones - (FOLD - 1) } else { ones }
}

fn parameter(limb: usize, name: &str, weight: u64) -> Value {
    Value::parameter(&format!("{name}.l{limb}"), weight * highest(limb))
}

const fn highest(limb: usize) -> u64 {
    (1 << width(limb)) - 1 + SLACK
}

/// The product of two limbs where it counts: twice if both are odd ones, whose places are half a bit too high, and by 19
/// if it passed the highest place. Factors are multiplied in 32 bits, so that the product is one of 32 by 32.
fn product(body: &mut Body, (i, a): (usize, &str), (j, b): (usize, &str), times: u64, passed: bool) -> Value {
    let odd = !i.is_multiple_of(2) && !j.is_multiple_of(2);
    let left = body.times(&parameter(i, a, WEIGHT_MAX), if odd { 2 * times } else { times });
    let right = body.times(&parameter(j, b, WEIGHT_MAX), if passed { FOLD } else { 1 });
    let (left, right) = (body.widen(&left), body.widen(&right));
    body.product(&left, &right)
}

/// Carries from the lowest limb to the highest, and once more from there over the two lowest.
fn carry(body: &mut Body, mut columns: Vec<Value>) -> Vec<Value> {
    let mut limbs = Vec::with_capacity(LIMBS);
    for limb in 0..LIMBS {
        limbs.push(body.lowest(&columns[limb], width(limb)));
        let carry = body.rest(&columns[limb], width(limb));
        if limb + 1 < LIMBS {
            columns[limb + 1] = body.sum(&[columns[limb + 1].clone(), carry]);
        } else {
            let folded = body.times(&carry, FOLD);
            let lowest = body.sum(&[limbs[0].clone(), folded]);
            limbs[0] = body.lowest(&lowest, width(0));
            let carry = body.rest(&lowest, width(0));
            limbs[1] = body.sum(&[limbs[1].clone(), carry]);
        }
    }
    limbs.iter().map(|limb| body.narrow(limb)).collect()
}

/// A function that returns an element of a weight.
fn function(source: &mut String, head: &str, weight: u64, make: impl FnOnce(&mut Body) -> Vec<Value>) {
    emit::element_function(source, head, |limb| weight * highest(limb), make);
}

/// `fe_is_zero` and `fe_is_odd`. Folded twice, an element is below 2^255: the second time, whatever passes the highest
/// limb does so because it rippled through limbs of all ones, which leaves room in the lowest two. So the only multiples
/// of the prime that it can be are zero and the prime.
fn tests_of_value(source: &mut String) {
    let zero: Vec<String> = (0..LIMBS).map(|limb| format!("r.l{limb}")).collect();
    let same: Vec<String> = (0..LIMBS).map(|limb| format!("(r.l{limb} ^ {}u)", prime(limb))).collect();
    line(source, "fn fe_is_zero(a: Fe) -> bool {");
    line(source, "let r = fe_fold(fe_fold(a));");
    line(source, &format!("return ({}) == 0u || ({}) == 0u;", zero.join(" | "), same.join(" | ")));
    line(source, "}");
    line(source, "fn fe_is_odd(a: Fe) -> bool {");
    line(source, "let r = fe_fold(fe_fold(a));");
    let ones = &same[1..];
    line(source, &format!("let passes = ({}) == 0u && r.l0 >= {}u;", ones.join(" | "), prime(0)));
    line(source, "return ((r.l0 & 1u) == 1u) != passes;");
    line(source, "}");
}

/// An element of the lower 255 bits of eight words.
fn unpack(source: &mut String) {
    let parameters: Vec<String> = (0..8).map(|word| format!("w{word}: u32")).collect();
    line(source, &format!("fn fe_unpack({}) -> Fe {{", parameters.join(", ")));
    let limb = |limb: usize| {
        let (bit, bits) = (first_bit(limb), width(limb) as usize);
        let (word, shift) = (bit / 32, bit % 32);
        let low = if shift == 0 { format!("w{word}") } else { format!("(w{word} >> {shift}u)") };
        let both = if shift + bits > 32 { format!("({low} | (w{} << {}u))", word + 1, 32 - shift) } else { low };
        format!("({both} & {:#x}u)", (1u32 << bits) - 1)
    };
    line(source, &format!("return Fe({});", (0..LIMBS).map(limb).collect::<Vec<_>>().join(", ")));
    line(source, "}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limbs_cover_255_bits() {
        assert_eq!((first_bit(0), first_bit(1), first_bit(2), first_bit(9)), (0, 26, 51, 230));
        for limb in 1..LIMBS {
            assert_eq!(first_bit(limb), first_bit(limb - 1) + width(limb - 1) as usize);
        }
        assert_eq!(first_bit(9) + width(9) as usize, 255);
    }
}
