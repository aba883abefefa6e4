//! Eight field elements at a time, one in each lane of five registers.
//!
//! An element is five digits of 52 bits, the size that AVX-512 IFMA multiplies. Where the scalar code stores `x·2^256`,
//! the lanes hold `x·2^260`; where it stores `x`, so do they. Values are not reduced fully: a *small* element is below
//! `2p`, a *large* one below `4p`. Products take large elements and are small, because `16·p² / 2^260 + p < 2p`. Digits are
//! always below 2^52.
//!
//! No closures here: a library function that takes one is not compiled for these instructions, so that the closure would
//! be called instead of inlined.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64,
    _mm512_srai_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
};

use crate::curve::{
    limbs::{self, Limbs, limbs},
    moduli::{EdwardsField, P256Field, Sm2Field},
    residue::{Modulus, Residue},
};

/// Lanes of a register.
pub(super) const LANES: usize = 8;

/// Digits of an element.
const DIGITS: usize = 5;

/// Bits of a digit.
const DIGIT_BITS: u32 = 52;

/// Eight elements.
pub(super) type Element = [__m512i; DIGITS];

/// A word of each lane.
pub(super) type Words = [u64; LANES];

/// How products are reduced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// Montgomery's, for primes just below 2^256 with `p ≡ -1 mod 2^52`.
    Montgomery,
    /// `2^255 ≡ 19`.
    Fold,
}

/// A field that the lanes know.
pub(crate) trait LaneField: Modulus {
    const REDUCTION: Reduction;
}

impl LaneField for P256Field {
    const REDUCTION: Reduction = Reduction::Montgomery;
}

impl LaneField for Sm2Field {
    const REDUCTION: Reduction = Reduction::Montgomery;
}

impl LaneField for EdwardsField {
    const REDUCTION: Reduction = Reduction::Fold;
}

/// The digits of `integer · multiple`, which must be below 2^260.
const fn digits(integer: &Limbs, multiple: u64) -> [u64; DIGITS] {
    let [a, b, c, d] = *integer;
    let mask = (1 << DIGIT_BITS) - 1;
    let split = [a & mask, (a >> 52 | b << 12) & mask, (b >> 40 | c << 24) & mask, (c >> 28 | d << 36) & mask, d >> 16];
    let mut digits = [0; DIGITS];
    let (mut index, mut carry) = (0, 0);
    while index < DIGITS {
        let digit = split[index] * multiple + carry;
        digits[index] = digit & mask;
        carry = digit >> DIGIT_BITS;
        index += 1;
    }
    digits
}

/// `2^256 - p`, or the same for 2^255.
const fn complement<M: LaneField>() -> [u64; DIGITS] {
    match M::REDUCTION {
        Reduction::Montgomery => digits(&limbs::subtract(&limbs::ZERO, &M::MODULUS).0, 1),
        Reduction::Fold => [19, 0, 0, 0, 0],
    }
}

/// Bits of the highest digit that stay when what lies above the prime's size is folded.
const fn top_bits<M: LaneField>() -> u32 {
    match M::REDUCTION {
        Reduction::Montgomery => 48,
        Reduction::Fold => 47,
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn splat(digit: u64) -> __m512i {
    _mm512_set1_epi64(digit.cast_signed())
}

#[target_feature(enable = "avx512f")]
#[inline]
fn mask() -> __m512i {
    splat((1 << DIGIT_BITS) - 1)
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn zero() -> Element {
    [_mm512_setzero_si512(); DIGITS]
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn one<M: LaneField>() -> Element {
    let one = match M::REDUCTION {
        Reduction::Montgomery => const { digits(&power_of_two_260::<M>(), 1) },
        Reduction::Fold => [1, 0, 0, 0, 0],
    };
    splat_all(&one)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn splat_all(digits: &[u64; DIGITS]) -> Element {
    let mut element = zero();
    for (register, digit) in element.iter_mut().zip(digits) {
        *register = splat(*digit);
    }
    element
}

const fn power_of_two_260<M: LaneField>() -> Limbs {
    crate::curve::residue::power_of_two(260, &M::MODULUS)
}

/// Takes eight stored residues, word by word; the result is small.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn load<M: LaneField>(words: &[Words; 4]) -> Element {
    let [a, b, c, d] = words;
    let (a, b, c, d) = (load_words(a), load_words(b), load_words(c), load_words(d));
    match M::REDUCTION {
        // Times 16 on the way: from `x·2^256` to `x·2^260`.
        Reduction::Montgomery => {
            let digits = [
                _mm512_slli_epi64::<4>(a),
                or(_mm512_srli_epi64::<48>(a), _mm512_slli_epi64::<16>(b)),
                or(_mm512_srli_epi64::<36>(b), _mm512_slli_epi64::<28>(c)),
                or(_mm512_srli_epi64::<24>(c), _mm512_slli_epi64::<40>(d)),
                _mm512_srli_epi64::<12>(d),
            ];
            fold::<M>(&masked(digits))
        }
        Reduction::Fold => {
            let digits = [
                a,
                or(_mm512_srli_epi64::<52>(a), _mm512_slli_epi64::<12>(b)),
                or(_mm512_srli_epi64::<40>(b), _mm512_slli_epi64::<24>(c)),
                or(_mm512_srli_epi64::<28>(c), _mm512_slli_epi64::<36>(d)),
                _mm512_srli_epi64::<16>(d),
            ];
            masked(digits)
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn masked(mut digits: Element) -> Element {
    for digit in &mut digits {
        *digit = _mm512_and_si512(*digit, mask());
    }
    digits
}

/// Gives eight residues.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn store<M: LaneField>(element: &Element) -> [Residue<M>; LANES] {
    let element = match M::REDUCTION {
        Reduction::Montgomery => {
            let factor = const { digits(&crate::curve::residue::power_of_two(256, &M::MODULUS), 1) };
            multiply::<M>(element, &splat_all(&factor))
        }
        Reduction::Fold => *element,
    };
    // Below 2^256, so that at most one prime is left to subtract.
    let [a, b, c, d, e] = fold::<M>(&element);
    join(&[store_words(a), store_words(b), store_words(c), store_words(d), store_words(e)])
}

fn join<M: LaneField>(digits: &[Words; DIGITS]) -> [Residue<M>; LANES] {
    std::array::from_fn(|lane| {
        let [a, b, c, d, e] = digits.each_ref().map(|digit| digit[lane]);
        let limbs = [a | b << 52, b >> 12 | c << 40, c >> 24 | d << 28, d >> 36 | e << 16];
        let (less, borrow) = limbs::subtract(&limbs, &M::MODULUS);
        Residue::from_stored(limbs::select(&limbs, &less, !borrow))
    })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn or(a: __m512i, b: __m512i) -> __m512i {
    std::arch::x86_64::_mm512_or_si512(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_words(words: &Words) -> __m512i {
    // SAFETY: eight words are as many bytes as the unaligned load reads.
    unsafe { std::arch::x86_64::_mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_words(register: __m512i) -> Words {
    let mut words = [0; LANES];
    // SAFETY: eight words are as many bytes as the unaligned store writes.
    unsafe { std::arch::x86_64::_mm512_storeu_si512(words.as_mut_ptr().cast(), register) };
    words
}

/// Brings digits, which may be negative, below 2^52; the value must not be negative and below 2^260.
#[target_feature(enable = "avx512f")]
#[inline]
fn carry(mut digits: Element) -> Element {
    let mask = mask();
    for index in 0..DIGITS - 1 {
        digits[index + 1] = _mm512_add_epi64(digits[index + 1], _mm512_srai_epi64::<52>(digits[index]));
        digits[index] = _mm512_and_si512(digits[index], mask);
    }
    digits
}

/// A small element that is congruent to one below 2^260.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn fold<M: LaneField>(element: &Element) -> Element {
    let mut digits = *element;
    let top = digits[DIGITS - 1];
    let kept = splat((1 << const { top_bits::<M>() }) - 1);
    let excess = match M::REDUCTION {
        Reduction::Montgomery => _mm512_srli_epi64::<48>(top),
        Reduction::Fold => _mm512_srli_epi64::<47>(top),
    };
    digits[DIGITS - 1] = _mm512_and_si512(top, kept);
    let complement = const { complement::<M>() };
    for index in 0..DIGITS {
        if complement[index] != 0 {
            let digit = splat(complement[index]);
            digits[index] = _mm512_madd52lo_epu64(digits[index], excess, digit);
            if index + 1 < DIGITS {
                digits[index + 1] = _mm512_madd52hi_epu64(digits[index + 1], excess, digit);
            }
        }
    }
    carry(digits)
}

/// `a + b`, large from small.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn add(a: &Element, b: &Element) -> Element {
    let mut sum = *a;
    for (digit, other) in sum.iter_mut().zip(b) {
        *digit = _mm512_add_epi64(*digit, *other);
    }
    carry(sum)
}

/// `a + MULTIPLE·p - b - c`, small, for `b + c` below `MULTIPLE·p` and a sum below 2^260.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn subtract_both<M: LaneField, const MULTIPLE: u64>(a: &Element, b: &Element, c: &Element) -> Element {
    let offset = const { digits(&M::MODULUS, MULTIPLE) };
    let mut difference = *a;
    for (index, digit) in difference.iter_mut().enumerate() {
        let taken = _mm512_add_epi64(b[index], c[index]);
        *digit = _mm512_sub_epi64(_mm512_add_epi64(*digit, splat(offset[index])), taken);
    }
    fold::<M>(&carry(difference))
}

/// `a - b`, large from small.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn subtract<M: LaneField>(a: &Element, b: &Element) -> Element {
    let offset = const { digits(&M::MODULUS, 2) };
    let mut difference = *a;
    for (index, digit) in difference.iter_mut().enumerate() {
        *digit = _mm512_sub_epi64(_mm512_add_epi64(*digit, splat(offset[index])), b[index]);
    }
    carry(difference)
}

/// `a·2^BITS`, not folded; the value must stay below 2^260.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn shift<const BITS: u32>(a: &Element) -> Element {
    let mut shifted = *a;
    for digit in &mut shifted {
        *digit = _mm512_slli_epi64::<BITS>(*digit);
    }
    carry(shifted)
}

/// `a·b`, small from large.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn multiply<M: LaneField>(a: &Element, b: &Element) -> Element {
    let mut wide = [_mm512_setzero_si512(); 2 * DIGITS];
    for i in 0..DIGITS {
        for j in 0..DIGITS {
            wide[i + j] = _mm512_madd52lo_epu64(wide[i + j], a[i], b[j]);
            wide[i + j + 1] = _mm512_madd52hi_epu64(wide[i + j + 1], a[i], b[j]);
        }
    }
    reduce::<M>(wide)
}

/// `a²`, small from large: mixed products once, doubled, and the squares.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn square<M: LaneField>(a: &Element) -> Element {
    let mut wide = [_mm512_setzero_si512(); 2 * DIGITS];
    for i in 0..DIGITS {
        for j in i + 1..DIGITS {
            wide[i + j] = _mm512_madd52lo_epu64(wide[i + j], a[i], a[j]);
            wide[i + j + 1] = _mm512_madd52hi_epu64(wide[i + j + 1], a[i], a[j]);
        }
    }
    for digit in &mut wide {
        *digit = _mm512_slli_epi64::<1>(*digit);
    }
    for i in 0..DIGITS {
        wide[2 * i] = _mm512_madd52lo_epu64(wide[2 * i], a[i], a[i]);
        wide[2 * i + 1] = _mm512_madd52hi_epu64(wide[2 * i + 1], a[i], a[i]);
    }
    reduce::<M>(wide)
}

/// Digits of `wide` are below `2^57`: ten products of at most 52 bits each, and a doubling.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn reduce<M: LaneField>(wide: [__m512i; 2 * DIGITS]) -> Element {
    match M::REDUCTION {
        Reduction::Montgomery => reduce_montgomery::<M>(wide),
        Reduction::Fold => reduce_fold::<M>(wide),
    }
}

/// Clears the lower digits by multiples of the prime. Because `p ≡ -1 mod 2^52`, the multiple is the digit itself, and
/// adding `digit·p` is taking the digit away and adding `digit·(p + 1)`, whose lowest digit is zero.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn reduce_montgomery<M: LaneField>(mut wide: [__m512i; 2 * DIGITS]) -> Element {
    let successor = const { digits(&limbs::add(&M::MODULUS, &limbs(0, 1)).0, 1) };
    for i in 0..DIGITS {
        let digit = _mm512_and_si512(wide[i], mask());
        wide[i + 1] = _mm512_add_epi64(wide[i + 1], _mm512_srli_epi64::<52>(wide[i]));
        for j in 1..DIGITS {
            if successor[j] != 0 {
                let factor = splat(successor[j]);
                wide[i + j] = _mm512_madd52lo_epu64(wide[i + j], digit, factor);
                wide[i + j + 1] = _mm512_madd52hi_epu64(wide[i + j + 1], digit, factor);
            }
        }
    }
    let [.., a, b, c, d, e] = wide;
    carry([a, b, c, d, e])
}

/// `2^260 ≡ 19·2^5`; what then lies above 2^255 is folded once more.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn reduce_fold<M: LaneField>(mut wide: [__m512i; 2 * DIGITS]) -> Element {
    for i in 0..2 * DIGITS - 1 {
        wide[i + 1] = _mm512_add_epi64(wide[i + 1], _mm512_srli_epi64::<52>(wide[i]));
        wide[i] = _mm512_and_si512(wide[i], mask());
    }
    let factor = splat(19 << 5);
    for i in 0..DIGITS {
        let high = wide[DIGITS + i];
        wide[i] = _mm512_madd52lo_epu64(wide[i], high, factor);
        // A large times a large element is below 2^514, so the highest digit has 46 bits and leaves a few here.
        let next = if i + 1 < DIGITS { wide[i + 1] } else { _mm512_setzero_si512() };
        let next = _mm512_madd52hi_epu64(next, high, factor);
        if i + 1 < DIGITS {
            wide[i + 1] = next;
        } else {
            wide[0] = _mm512_madd52lo_epu64(wide[0], next, factor);
        }
    }
    let [a, b, c, d, e, ..] = wide;
    fold::<M>(&carry([a, b, c, d, e]))
}

/// `1 / a`, small; zero for zero.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn invert<M: LaneField>(a: &Element) -> Element {
    let mut powers = [one::<M>(); 16];
    for index in 1..16 {
        powers[index] = multiply::<M>(&powers[index - 1], a);
    }
    let exponent = limbs::subtract(&M::MODULUS, &[2, 0, 0, 0]).0;
    let mut power = one::<M>();
    for limb in exponent.iter().rev() {
        for place in (0..16).rev() {
            for _ in 0..4 {
                power = square::<M>(&power);
            }
            let digit = usize::try_from(limb >> (4 * place) & 15).unwrap_or(0);
            power = multiply::<M>(&power, &powers[digit]);
        }
    }
    power
}

/// `b` where the mask is set, else `a`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn blend(chosen: __mmask8, a: &Element, b: &Element) -> Element {
    let mut blended = *a;
    for (digit, other) in blended.iter_mut().zip(b) {
        *digit = _mm512_mask_blend_epi64(chosen, *digit, *other);
    }
    blended
}

/// Lanes of a difference that are zero modulo the prime: it lies strictly between 0 and `4p`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn zero_lanes<M: LaneField>(difference: &Element) -> __mmask8 {
    let multiples = const { [digits(&M::MODULUS, 1), digits(&M::MODULUS, 2), digits(&M::MODULUS, 3)] };
    let mut zero = 0;
    for multiple in multiples {
        let mut equal = 0xff;
        for index in 0..DIGITS {
            equal &= _mm512_cmpeq_epi64_mask(difference[index], splat(multiple[index]));
        }
        zero |= equal;
    }
    zero
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every operation on eight pairs at once against the scalar field, at the largest values that it may be given.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and IFMA.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn check<M: LaneField>(a: &[Residue<M>; LANES], b: &[Residue<M>; LANES]) {
        let (x, y) = (element(a), element(b));
        let equal = |name: &str, found: &Element, expected: &dyn Fn(Residue<M>, Residue<M>) -> Residue<M>| {
            for (lane, found) in store::<M>(found).into_iter().enumerate() {
                assert_eq!(found, expected(a[lane], b[lane]), "{name} of {:x?} and {:x?}", a[lane], b[lane]);
            }
        };
        equal("value", &x, &|a, _| a);
        equal("sum", &add(&x, &y), &|a, b| a + b);
        equal("difference", &subtract::<M>(&x, &y), &|a, b| a - b);
        equal("both", &subtract_both::<M, 6>(&x, &y, &add(&y, &x)), &|a, b| a - b - b - a);
        equal("eightfold", &fold::<M>(&shift::<3>(&x)), &|a, _| a.double().double().double());
        equal("product", &multiply::<M>(&x, &y), &|a, b| a * b);
        equal("square", &square::<M>(&x), &|a, _| a.square());
        // As large as operands get, and a little larger.
        let large = subtract::<M>(&add_prime::<M>(&x), &zero());
        equal("large product", &multiply::<M>(&large, &large), &|a, _| a.square());
        equal("large square", &square::<M>(&large), &|a, _| a.square());
        equal("inverse", &invert::<M>(&x), &|a, _| a.invert());
        let zero = zero_lanes::<M>(&subtract::<M>(&x, &y));
        for lane in 0..LANES {
            assert_eq!(zero >> lane & 1 == 1, a[lane] == b[lane], "lane {lane}");
        }
    }

    /// `a + p`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add_prime<M: LaneField>(a: &Element) -> Element {
        add(a, &splat_all(&digits(&M::MODULUS, 1)))
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn element<M: LaneField>(residues: &[Residue<M>; LANES]) -> Element {
        let mut words = [[0; LANES]; 4];
        for (lane, residue) in residues.iter().enumerate() {
            for (word, limb) in words.iter_mut().zip(residue.stored()) {
                word[lane] = *limb;
            }
        }
        load::<M>(&words)
    }

    /// Stored forms at the edges: zero, one, the prime's neighbours and limbs of all ones.
    fn edges<M: LaneField>() -> Vec<Residue<M>> {
        let [p0, p1, p2, p3] = M::MODULUS;
        let mut edges = vec![Residue::ZERO, Residue::ONE, -Residue::ONE];
        for stored in [
            [1, 0, 0, 0],
            [p0 - 1, p1, p2, p3],
            [p0 - 2, p1, p2, p3],
            [u64::MAX, u64::MAX, u64::MAX, p3 - 1],
            [u64::MAX, 0, u64::MAX, p3 - 1],
            [0, 0, 0, p3],
            [u64::MAX, 0, 0, 0],
            [0, u64::MAX, 0, 0],
        ] {
            edges.push(Residue::from_stored(stored));
        }
        edges
    }

    fn check_edges<M: LaneField>() {
        let edges = edges::<M>();
        for shift in 0..edges.len() {
            let a = std::array::from_fn(|lane| edges[lane % edges.len()]);
            let b = std::array::from_fn(|lane| edges[(lane + shift) % edges.len()]);
            let c = std::array::from_fn(|lane| edges[(lane + 3) % edges.len()]);
            // SAFETY: the caller asked the CPU.
            unsafe {
                check::<M>(&a, &b);
                check::<M>(&c, &b);
            }
        }
    }

    #[test]
    fn lanes_equal_the_scalar_field_at_its_edges() {
        if crate::curve::lanes::available() {
            check_edges::<P256Field>();
            check_edges::<Sm2Field>();
            check_edges::<EdwardsField>();
        }
    }

    fn any_residues<M: LaneField>() -> impl Strategy<Value = [Residue<M>; LANES]> {
        let limb = || prop_oneof![1 => Just(0), 1 => Just(u64::MAX), 4 => any::<u64>()];
        prop::array::uniform8(prop::array::uniform4(limb()).prop_map(|limbs| Residue::from_integer(&limbs)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn lanes_equal_the_scalar_field(
            p256 in (any_residues(), any_residues()),
            sm2 in (any_residues(), any_residues()),
            edwards in (any_residues(), any_residues()),
        ) {
            if crate::curve::lanes::available() {
                // SAFETY: the CPU was asked just now.
                unsafe {
                    check::<P256Field>(&p256.0, &p256.1);
                    check::<Sm2Field>(&sm2.0, &sm2.1);
                    check::<EdwardsField>(&edwards.0, &edwards.1);
                }
            }
        }
    }
}
