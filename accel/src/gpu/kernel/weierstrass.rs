//! ECDSA and SM2: whether `u·G + v·Q` has one of two x-coordinates.
//!
//! Points are projective, `(X/Z, Y/Z)`, and the formulas are complete (Renes, Costello, Batina, *Complete addition
//! formulas for prime order elliptic curves*, 2016, algorithms 4 and 6 for `a = -3`): no case is exceptional, so lanes do
//! not part and no signature can be built to reach one.
//!
//! A key without a table takes three kernels: multiples of `Q`, then the ladder over windows of four bits, then the sum
//! of table entries, which is all that a key with a table takes.

use crate::{
    curve::{KeyComb, PrimeCurve, Residue},
    gpu::kernel::{
        COMB_SCRATCH, MULTIPLES, PrimeItem, comb_loop, entry,
        formula::{Element, Formula},
        ladder_loop, line, montgomery, scratch_read, scratch_write,
    },
};

/// Words of a point in scratch memory.
pub(super) const POINT_WORDS: usize = 3 * montgomery::LIMBS;

/// `Q, 2Q, .. 8Q`.
pub(super) fn multiples<C: PrimeCurve>(source: &mut String) {
    functions::<C>(source);
    addition::<C>(source);
    scratch(source);
    entry(source);
    line(source, &format!("let at = {}u * index;", PrimeItem::WORDS));
    line(source, &format!("let convert = {};", montgomery::from_stored::<C::Field>()));
    for (name, first) in [("x", PrimeItem::X), ("y", PrimeItem::Y)] {
        line(source, &format!("let {name} = fe_mul({}, convert);", unpacked("input", "at", first)));
    }
    line(source, &format!("let base = Point(x, y, {});", montgomery::one::<C::Field>()));
    line(source, "var multiple = base;");
    line(source, "point_write(0u, index, multiple);");
    line(source, &format!("for (var number = 1u; number < {MULTIPLES}u; number++) {{"));
    line(source, "multiple = point_add(multiple, base);");
    line(source, "point_write(number, index, multiple);");
    line(source, "}");
    line(source, "}");
}

/// `v·Q` from the multiples.
pub(super) fn ladder<C: PrimeCurve>(source: &mut String) {
    functions::<C>(source);
    addition::<C>(source);
    doubling::<C>(source);
    scratch(source);
    entry(source);
    line(source, &format!("let at = {}u * index + {}u;", PrimeItem::WORDS, PrimeItem::V));
    line(source, "var sum = point_infinity();");
    ladder_loop(source, "term.y = fe_sub(fe_zero(), term.y);");
}

/// The sum with the table entries, and the verdict.
pub(super) fn comb<C: PrimeCurve>(source: &mut String) {
    functions::<C>(source);
    addition::<C>(source);
    scratch(source);
    line(source, "fn table_read(entry: u32) -> Point {");
    line(source, "let at = 16u * entry;");
    let coordinates = [0, 8].map(|first| unpacked("tables", "at", first));
    line(source, &format!("return Point({}, {});", coordinates.join(", "), montgomery::one::<C::Field>()));
    line(source, "}");
    line(source, "fn point_opposite(point: Point) -> Point {");
    line(source, "return Point(point.x, fe_sub(fe_zero(), point.y), point.z);");
    line(source, "}");
    entry(source);
    line(source, "let item = index + parameters.below;");
    line(source, &format!("let at = {}u * item;", PrimeItem::WORDS));
    line(source, "var sum = point_infinity();");
    line(source, &format!("if (parameters.ladder == 1u) {{ sum = point_read({COMB_SCRATCH}u, index); }}"));
    comb_loop(source, PrimeItem::U, PrimeItem::V, PrimeItem::TABLE, KeyComb::<C::Field>::ROWS);
    // x·Z = X for one of the two coordinates that the residue modulo the order stands for.
    line(source, &format!("let convert = {};", montgomery::from_integer::<C::Field>()));
    line(source, "var valid = false;");
    line(source, &format!("var coordinate = {};", unpacked("input", "at", PrimeItem::COORDINATES)));
    line(source, "for (var choice = 0u; choice < 2u; choice++) {");
    line(source, "let x = fe_mul(fe_mul(coordinate, convert), sum.z);");
    line(source, "valid = valid || fe_is_zero(fe_sub(x, sum.x));");
    line(source, &format!("coordinate = {};", unpacked("input", "at", PrimeItem::COORDINATES + 8)));
    line(source, "}");
    line(source, "valid = valid && !fe_is_zero(sum.z);");
    line(source, "output[item] = tag_fold(tag_start(item), select(0u, 1u, valid));");
    line(source, "}");
}

fn functions<C: PrimeCurve>(source: &mut String) {
    montgomery::functions::<C::Field>(source);
    let zeros = ["0u"; montgomery::LIMBS].join(", ");
    line(source, &format!("fn fe_zero() -> Fe {{ return Fe({zeros}); }}"));
    line(source, "struct Point { x: Fe, y: Fe, z: Fe }");
    let one = montgomery::one::<C::Field>();
    line(source, &format!("fn point_infinity() -> Point {{ return Point(fe_zero(), {one}, fe_zero()); }}"));
}

fn scratch(source: &mut String) {
    let members: Vec<String> =
        ["x", "y", "z"].iter().flat_map(|c| (0..montgomery::LIMBS).map(move |limb| format!("{c}.l{limb}"))).collect();
    scratch_write(source, &members);
    let coordinates: Vec<String> = (0..3).map(|c| scratch_read(c * montgomery::LIMBS, montgomery::LIMBS)).collect();
    line(source, "fn point_read(place: u32, index: u32) -> Point {");
    line(source, &format!("let at = {POINT_WORDS}u * place;"));
    line(source, &format!("return Point({});", coordinates.join(", ")));
    line(source, "}");
}

fn unpacked(buffer: &str, at: &str, first: usize) -> String {
    let words: Vec<String> = (first..first + 8).map(|word| format!("{buffer}[{at} + {word}u]")).collect();
    format!("fe_unpack({})", words.join(", "))
}

/// `b` of the curve in its stored form, which is the CPU's times `2^5`.
fn curve_b<C: PrimeCurve>() -> Element {
    let b = (0..5).fold(Residue::<C::Field>::from_integer(&C::B), |b, _| b.double());
    Element::new(&montgomery::constant(b.stored()))
}

/// Algorithm 4.
fn addition<C: PrimeCurve>(source: &mut String) {
    let mut f = Formula::new(montgomery::WEIGHT_MAX);
    let [x1, y1, z1, x2, y2, z2] = ["p.x", "p.y", "p.z", "q.x", "q.y", "q.z"].map(Element::new);
    let b = curve_b::<C>();
    let (t0, t1, t2) = (f.mul(&x1, &x2), f.mul(&y1, &y2), f.mul(&z1, &z2));
    let mut mixed = |a1: &Element, a2: &Element, b1: &Element, b2: &Element, ab: &Element, cd: &Element| {
        let (left, right) = (f.add(a1, b1), f.add(a2, b2));
        let product = f.mul(&left, &right);
        let both = f.add(ab, cd);
        f.sub(&product, &both)
    };
    let t3 = mixed(&x1, &x2, &y1, &y2, &t0, &t1);
    let t4 = mixed(&y1, &y2, &z1, &z2, &t1, &t2);
    let y3 = mixed(&x1, &x2, &z1, &z2, &t0, &t2);
    let z3 = f.mul(&b, &t2);
    let x3 = f.sub(&y3, &z3);
    let twice = f.add(&x3, &x3);
    let x3 = f.add(&x3, &twice);
    let z3 = f.sub(&t1, &x3);
    let x3 = f.add(&t1, &x3);
    let y3 = f.mul(&b, &y3);
    let twice = f.add(&t2, &t2);
    let t2 = f.add(&twice, &t2);
    let y3 = f.sub(&y3, &t2);
    let y3 = f.sub(&y3, &t0);
    let twice = f.add(&y3, &y3);
    let y3 = f.add(&twice, &y3);
    let twice = f.add(&t0, &t0);
    let t0 = f.add(&twice, &t0);
    let t0 = f.sub(&t0, &t2);
    let t1 = f.mul(&t4, &y3);
    let t2 = f.mul(&t0, &y3);
    let y3 = f.mul(&x3, &z3);
    let y3 = f.add(&y3, &t2);
    let x3 = f.mul(&t3, &x3);
    let x3 = f.sub(&x3, &t1);
    let z3 = f.mul(&t4, &z3);
    let t1 = f.mul(&t3, &t0);
    let z3 = f.add(&z3, &t1);
    line(source, "fn point_add(p: Point, q: Point) -> Point {");
    source.push_str(&f.returns(&[&x3, &y3, &z3]));
    line(source, "}");
}

/// Algorithm 6.
fn doubling<C: PrimeCurve>(source: &mut String) {
    let mut f = Formula::new(montgomery::WEIGHT_MAX);
    let [x, y, z] = ["p.x", "p.y", "p.z"].map(Element::new);
    let b = curve_b::<C>();
    let (t0, t1, t2, t3) = (f.square(&x), f.square(&y), f.square(&z), f.mul(&x, &y));
    let t3 = f.add(&t3, &t3);
    let z3 = f.mul(&x, &z);
    let z3 = f.add(&z3, &z3);
    let y3 = f.mul(&b, &t2);
    let y3 = f.sub(&y3, &z3);
    let twice = f.add(&y3, &y3);
    let y3 = f.add(&twice, &y3);
    let x3 = f.sub(&t1, &y3);
    let y3 = f.add(&t1, &y3);
    let y3 = f.mul(&x3, &y3);
    let x3 = f.mul(&x3, &t3);
    let twice = f.add(&t2, &t2);
    let t2 = f.add(&t2, &twice);
    let z3 = f.mul(&b, &z3);
    let z3 = f.sub(&z3, &t2);
    let z3 = f.sub(&z3, &t0);
    let twice = f.add(&z3, &z3);
    let z3 = f.add(&z3, &twice);
    let twice = f.add(&t0, &t0);
    let t0 = f.add(&twice, &t0);
    let t0 = f.sub(&t0, &t2);
    let t0 = f.mul(&t0, &z3);
    let y3 = f.add(&y3, &t0);
    let t0 = f.mul(&y, &z);
    let t0 = f.add(&t0, &t0);
    let z3 = f.mul(&t0, &z3);
    let x3 = f.sub(&x3, &z3);
    let z3 = f.mul(&t0, &t1);
    let z3 = f.add(&z3, &z3);
    let z3 = f.add(&z3, &z3);
    line(source, "fn point_double(p: Point) -> Point {");
    source.push_str(&f.returns(&[&x3, &y3, &z3]));
    line(source, "}");
}
