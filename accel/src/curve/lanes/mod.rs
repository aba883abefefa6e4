//! `u·G + v·Q` for eight items at a time, on AVX-512 with IFMA.
//!
//! Lanes are items, so all lanes do the same work: a term of each item, then the next. Affine additions of all groups of
//! eight share an inversion as in [`sums`](crate::curve::sums). Exceptional additions are not followed here: their lanes
//! are recognised, and [`combine`] gives `None` for them, which asks for the complete scalar way.

mod element;
mod group;

use crate::curve::{
    comb::{GeneratorComb, KeyComb},
    combination::{Combination, Generator, Multiplicand},
    point::{Curve, Jacobian},
    recode::dense_digits,
    residue::Residue,
};

pub(crate) use self::element::LaneField;
use self::{
    element::LANES,
    group::{Factor, Gathered, Group, JacobianPoints, Points, add_level, choose, multiples},
};

/// Vectors of additions below which a shared inversion, about 320 multiplications, is not worth it: each saves five.
const PAIRS_MIN: usize = 64;

/// Digits of a scalar in lanes, four bits each.
const DIGITS: usize = 64;

/// Whether the CPU and the operating system have what the lanes use; remembered by the standard library.
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
}

/// Most items that go through the levels together: their points then stay in the second-level cache.
pub(crate) const ITEMS_MAX: usize = 128;

/// Memory that is used again from batch to batch, because fresh memory costs a fault for each page: about 1.3 MB for
/// [`ITEMS_MAX`] items.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    terms: Vec<Gathered>,
    groups: Vec<Group>,
    factors: Vec<Factor>,
}

/// Computes all combinations, in order; `None` for one that met an exceptional addition or is the point at infinity. All
/// of them have tables or none has.
///
/// # Safety
/// The CPU has AVX-512 F and IFMA.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn combine<C: Generator>(
    combinations: &[&Combination<'_, C>],
    scratch: &mut Scratch,
) -> Vec<Option<Jacobian<C>>>
where
    C::Field: LaneField,
{
    let Scratch { terms, groups, factors } = scratch;
    let chunks = combinations.chunks(LANES);
    groups.resize_with(chunks.len(), Group::default);
    for (items, group) in chunks.clone().zip(groups.iter_mut()) {
        gather(items, terms, group);
    }
    let mut stride = 1;
    while additions(groups, stride) >= PAIRS_MIN {
        add_level::<C::Field>(groups, stride, factors);
        stride *= 2;
    }
    let mut products = multiply_points::<C>(&chunks.clone().collect::<Vec<_>>()).into_iter();
    let mut results = Vec::with_capacity(combinations.len());
    for (items, group) in chunks.zip(groups.iter()) {
        let mut sum = products.next().unwrap_or_else(|| JacobianPoints::infinity::<C::Field>());
        for points in group.points.iter().step_by(stride) {
            sum = sum.add::<C::Field>(points);
        }
        let coordinates = sum.store::<C::Field>();
        results.extend((0..items.len()).map(|lane| result(&coordinates, group, lane)));
    }
    results
}

fn additions(groups: &[Group], stride: usize) -> usize {
    groups.iter().map(|group| group.points.len().saturating_sub(stride).div_ceil(2 * stride)).sum()
}

fn result<C: Curve>(coordinates: &[[Residue<C::Field>; LANES]; 3], group: &Group, lane: usize) -> Option<Jacobian<C>> {
    let [x, y, z] = coordinates.each_ref().map(|coordinate| coordinate[lane]);
    let exceptional = group.exceptional >> lane & 1 == 1;
    (!exceptional && !z.is_zero()).then_some(Jacobian { x, y, z })
}

/// The terms from tables of up to eight items.
#[target_feature(enable = "avx512f,avx512ifma")]
fn gather<C: Generator>(items: &[&Combination<'_, C>], terms: &mut Vec<Gathered>, group: &mut Group)
where
    C::Field: LaneField,
{
    gather_terms(items, terms);
    group.exceptional = 0;
    group.points.clear();
    for gathered in terms {
        group.points.push(gathered.load::<C::Field>());
    }
}

fn gather_terms<C: Generator>(items: &[&Combination<'_, C>], terms: &mut Vec<Gathered>) {
    let rows = GeneratorComb::<C::Field>::ROWS;
    let with_table = items.iter().any(|item| matches!(item.multiplicand, Multiplicand::Table(_)));
    terms.resize(rows + if with_table { KeyComb::<C::Field>::ROWS } else { 0 }, Gathered::default());
    terms.iter_mut().for_each(Gathered::clear);
    for (lane, item) in items.iter().enumerate() {
        C::comb().each_term(&item.generator, |row, point| terms[row].put(lane, &point));
        if let Multiplicand::Table(table) = item.multiplicand {
            table.each_term(&item.key, |row, point| terms[rows + row].put(lane, &point));
        }
    }
}

/// The products `v·Q` of groups whose keys have no table; empty if they have.
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_points<C: Curve>(groups: &[&[&Combination<'_, C>]]) -> Vec<JacobianPoints>
where
    C::Field: LaneField,
{
    let mut bases: Vec<Points> = Vec::with_capacity(groups.len());
    let mut digits = Vec::with_capacity(groups.len());
    for items in groups {
        let mut gathered = Gathered::default();
        let mut rows = [[0i8; LANES]; DIGITS];
        for (lane, item) in items.iter().enumerate() {
            let Multiplicand::Point(point) = &item.multiplicand else { return Vec::new() };
            gathered.put(lane, &point.negated_if(item.key.negative));
            for (row, digit) in rows.iter_mut().zip(dense_digits::<4>(&item.key.magnitude)) {
                row[lane] = i8::try_from(digit).unwrap_or(0);
            }
        }
        bases.push(gathered.load::<C::Field>());
        digits.push(rows);
    }
    let mut products = Vec::with_capacity(bases.len());
    for (table, rows) in multiples::<C::Field>(&bases).iter().zip(&digits) {
        products.push(multiply::<C>(table, rows));
    }
    products
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply<C: Curve>(table: &[Points; 8], rows: &[[i8; LANES]; DIGITS]) -> JacobianPoints
where
    C::Field: LaneField,
{
    let mut product = JacobianPoints::infinity::<C::Field>();
    for digits in rows.iter().rev() {
        for _ in 0..4 {
            product = product.double::<C::Field>();
        }
        product = product.add::<C::Field>(&choose::<C::Field>(table, digits));
    }
    product
}
