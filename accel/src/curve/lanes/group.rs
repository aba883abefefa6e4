//! Points of eight items at a time.

use std::arch::x86_64::__mmask8;

use crate::curve::{
    lanes::element::{
        Element, LANES, LaneField, Words, add, blend, fold, invert, load, multiply, one, shift, square, store,
        subtract, subtract_both, zero, zero_lanes,
    },
    point::Affine,
    residue::Residue,
};

/// One point of each lane, where there is one. Coordinates are small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Points {
    pub(super) x: Element,
    pub(super) y: Element,
    pub(super) present: __mmask8,
}

/// A Jacobian point of each lane; an absent one is the point at infinity. `x` and `y` are small, `z` is large.
#[derive(Clone, Copy, Debug)]
pub(super) struct JacobianPoints {
    x: Element,
    y: Element,
    z: Element,
    present: __mmask8,
}

/// Points on their way into lanes: `x` and `y` word by word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathered {
    words: [[Words; 4]; 2],
    present: __mmask8,
}

/// The lists of eight items: point `i` of each at `i`.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) points: Vec<Points>,
    /// Lanes in which two points had the same x-coordinate.
    pub(super) exceptional: __mmask8,
}

/// What the inverse of one addition's difference is made of.
#[derive(Debug)]
pub(super) struct Factor {
    /// The product of the differences before it.
    before: Element,
    run: Element,
    /// Lanes that have both points.
    both: __mmask8,
}

impl Gathered {
    /// Forgets the points; the words stay and mean nothing.
    pub(super) fn clear(&mut self) {
        self.present = 0;
    }

    pub(super) fn put<M: LaneField>(&mut self, lane: usize, point: &Affine<M>) {
        for (words, coordinate) in self.words.iter_mut().zip([point.x, point.y]) {
            for (word, limb) in words.iter_mut().zip(coordinate.stored()) {
                word[lane] = *limb;
            }
        }
        self.present |= 1 << lane;
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn load<M: LaneField>(&self) -> Points {
        let [x, y] = &self.words;
        Points { x: load::<M>(x), y: load::<M>(y), present: self.present }
    }
}

/// Adds neighbours of each list at distance `stride`, all groups with one inversion.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add_level<M: LaneField>(groups: &mut [Group], stride: usize, factors: &mut Vec<Factor>) {
    factors.clear();
    let mut product = one::<M>();
    for group in groups.iter_mut() {
        for left in (0..group.points.len().saturating_sub(stride)).step_by(2 * stride) {
            let (left, right) = (&group.points[left], &group.points[left + stride]);
            let run = subtract::<M>(&right.x, &left.x);
            let same = zero_lanes::<M>(&run) & left.present & right.present;
            group.exceptional |= same;
            let both = left.present & right.present & !same;
            factors.push(Factor { before: product, run, both });
            product = blend(both, &product, &multiply::<M>(&product, &run));
        }
    }
    let mut inverse = invert::<M>(&product);
    for group in groups.iter_mut().rev() {
        for left in (0..group.points.len().saturating_sub(stride)).step_by(2 * stride).rev() {
            let Some(Factor { before, run, both }) = factors.pop() else { return };
            let (p, q) = (group.points[left], group.points[left + stride]);
            let sum = chord::<M>(&p, &q, &multiply::<M>(&inverse, &before));
            inverse = blend(both, &inverse, &multiply::<M>(&inverse, &run));
            // Where only one is present, it is the sum.
            let right_only = q.present & !p.present;
            group.points[left] = Points {
                x: blend(right_only, &blend(both, &p.x, &sum.0), &q.x),
                y: blend(right_only, &blend(both, &p.y, &sum.1), &q.y),
                present: p.present | q.present,
            };
        }
    }
}

/// The sums of points by chords; `inverse` is that of the difference of the x-coordinates.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn chord<M: LaneField>(p: &Points, q: &Points, inverse: &Element) -> (Element, Element) {
    let slope = multiply::<M>(&subtract::<M>(&q.y, &p.y), inverse);
    let x = subtract_both::<M, 4>(&square::<M>(&slope), &p.x, &q.x);
    let rise = multiply::<M>(&slope, &subtract::<M>(&p.x, &x));
    (x, fold::<M>(&subtract::<M>(&rise, &p.y)))
}

impl JacobianPoints {
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn infinity<M: LaneField>() -> Self {
        Self { x: zero(), y: zero(), z: one::<M>(), present: 0 }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn from_affine<M: LaneField>(points: &Points) -> Self {
        Self { x: points.x, y: points.y, z: one::<M>(), present: points.present }
    }

    /// `2·self` for `a = -3`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn double<M: LaneField>(&self) -> Self {
        let y_squared = square::<M>(&self.y);
        let z_squared = square::<M>(&self.z);
        let beta = fold::<M>(&shift::<2>(&multiply::<M>(&self.x, &y_squared)));
        let third = multiply::<M>(&subtract::<M>(&self.x, &z_squared), &add(&self.x, &z_squared));
        let alpha = fold::<M>(&add(&add(&third, &third), &third));
        let x = subtract_both::<M, 4>(&square::<M>(&alpha), &beta, &beta);
        let z = shift::<1>(&multiply::<M>(&self.y, &self.z));
        let rise = multiply::<M>(&alpha, &subtract::<M>(&beta, &x));
        let eight = fold::<M>(&shift::<3>(&square::<M>(&y_squared)));
        let y = fold::<M>(&subtract::<M>(&rise, &eight));
        Self { x, y, z, present: self.present }
    }

    /// `self + points`. Where both are the same or opposite, `z` becomes zero and stays so.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn add<M: LaneField>(&self, points: &Points) -> Self {
        let z_squared = square::<M>(&self.z);
        let h = subtract::<M>(&multiply::<M>(&points.x, &z_squared), &self.x);
        let s = multiply::<M>(&points.y, &multiply::<M>(&self.z, &z_squared));
        let slope = subtract::<M>(&s, &self.y);
        let h_squared = square::<M>(&h);
        let h_cubed = multiply::<M>(&h, &h_squared);
        let v = multiply::<M>(&self.x, &h_squared);
        let x = subtract_both::<M, 6>(&square::<M>(&slope), &h_cubed, &add(&v, &v));
        let rise = multiply::<M>(&slope, &subtract::<M>(&v, &x));
        let y = fold::<M>(&subtract::<M>(&rise, &multiply::<M>(&self.y, &h_cubed)));
        let z = multiply::<M>(&self.z, &h);
        let (first, kept) = (!self.present, !points.present);
        Self {
            x: blend(kept, &blend(first, &x, &points.x), &self.x),
            y: blend(kept, &blend(first, &y, &points.y), &self.y),
            z: blend(kept, &blend(first, &z, &one::<M>()), &self.z),
            present: self.present | points.present,
        }
    }

    /// The coordinates of each lane; a `z` of zero asks for another way.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn store<M: LaneField>(&self) -> [[Residue<M>; LANES]; 3] {
        // A point at infinity is stored with `z` zero.
        let z = blend(self.present, &zero(), &self.z);
        [store::<M>(&self.x), store::<M>(&self.y), store::<M>(&fold::<M>(&z))]
    }
}

/// `P, 2P, .. 8P` of each lane of each group, with one inversion; lanes without a point stay so.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn multiples<M: LaneField>(bases: &[Points]) -> Vec<[Points; 8]> {
    let mut jacobian = Vec::with_capacity(bases.len() * 7);
    for base in bases {
        let mut multiple = JacobianPoints::from_affine::<M>(base).double::<M>();
        jacobian.push(multiple);
        for _ in 0..6 {
            multiple = multiple.add::<M>(base);
            jacobian.push(multiple);
        }
    }
    let mut product = one::<M>();
    let mut before = Vec::with_capacity(jacobian.len());
    for point in &jacobian {
        before.push(product);
        // Absent lanes hold zeros.
        product = blend(point.present, &product, &multiply::<M>(&product, &point.z));
    }
    let mut inverse = invert::<M>(&product);
    let mut tables: Vec<[Points; 8]> = bases.iter().map(|base| [*base; 8]).collect();
    for (index, (point, before)) in jacobian.iter().zip(&before).enumerate().rev() {
        let z_inverse = multiply::<M>(&inverse, before);
        inverse = blend(point.present, &inverse, &multiply::<M>(&inverse, &point.z));
        let squared = square::<M>(&z_inverse);
        let x = multiply::<M>(&point.x, &squared);
        let y = multiply::<M>(&point.y, &multiply::<M>(&squared, &z_inverse));
        tables[index / 7][1 + index % 7] = Points { x, y, present: point.present };
    }
    tables
}

/// The multiple that each lane's digit names, -8 to 8; none for zero.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn choose<M: LaneField>(table: &[Points; 8], digits: &[i8; LANES]) -> Points {
    let mut chosen = Points { present: 0, ..table[0] };
    for (multiple, points) in (1..=8).zip(table) {
        let mask = lanes_of(digits, |digit| digit.unsigned_abs() == multiple);
        chosen.x = blend(mask, &chosen.x, &points.x);
        chosen.y = blend(mask, &chosen.y, &points.y);
        chosen.present |= mask & points.present;
    }
    let opposite = fold::<M>(&subtract::<M>(&zero(), &chosen.y));
    chosen.y = blend(lanes_of(digits, |digit| digit < 0), &chosen.y, &opposite);
    chosen
}

fn lanes_of(digits: &[i8; LANES], wanted: impl Fn(i8) -> bool) -> __mmask8 {
    digits.iter().enumerate().fold(0, |mask, (lane, digit)| mask | __mmask8::from(wanted(*digit)) << lane)
}
