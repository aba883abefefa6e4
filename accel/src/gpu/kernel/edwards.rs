//! Ed25519 under ZIP-215: whether `[8](s·B - k·A - R) = 0`.
//!
//! Points are extended, `(X : Y : Z : T)` with `T = X·Y / Z`, and their addition is complete (Hisil, Wong, Carter, Dawson,
//! *Twisted Edwards curves revisited*, 2008): torsion is nothing apart.
//!
//! A key without a table takes four kernels: multiples of `-A`, which is decoded for that, the ladder, the decoding of
//! `R`, and the sum with its verdict. A key with a table takes the last two.

use crate::{
    curve::{Curve, Edwards25519, KeyComb, edwards},
    gpu::kernel::{
        COMB_SCRATCH, EdwardsItem, MULTIPLES, comb_loop, entry,
        formula::{Element, Formula},
        ladder_loop, line, mersenne, scratch_read, scratch_write,
    },
};

/// Words of a point in scratch memory.
pub(super) const POINT_WORDS: usize = 4 * mersenne::LIMBS;

/// Words of a table's entry: `y + x`, `y - x` and `2·d·x·y`.
const ENTRY_WORDS: usize = 24;

/// Where in scratch memory `R` is, in points: over the multiples, which are used up by then.
const R_SCRATCH: usize = 0;

/// `-A, -2A, .. -8A`, as `(Y + X, Y - X, Z, 2·d·T)`.
pub(super) fn multiples(source: &mut String) {
    functions(source);
    addition(source, "point_add", false);
    decoding(source);
    scratch(source);
    line(source, "fn cached(p: Point) -> Point {");
    let d2 = constant(&edwards::twice_d());
    line(source, &format!("return Point(fe_fold(fe_add(p.y, p.x)), fe_sub(p.y, p.x), p.z, fe_mul(p.t, {d2}));"));
    line(source, "}");
    entry(source);
    line(source, &format!("let at = {}u * index;", EdwardsItem::WORDS));
    line(source, &format!("var base = decode(at + {}u);", EdwardsItem::A));
    line(source, "base.x = fe_sub(fe_zero(), base.x);");
    line(source, "base.t = fe_sub(fe_zero(), base.t);");
    line(source, "let step = cached(base);");
    line(source, "var multiple = base;");
    line(source, "point_write(0u, index, step);");
    line(source, &format!("for (var number = 1u; number < {MULTIPLES}u; number++) {{"));
    line(source, "multiple = point_add(multiple, step);");
    line(source, "point_write(number, index, cached(multiple));");
    line(source, "}");
    line(source, "}");
}

/// `-k·A` from the multiples.
pub(super) fn ladder(source: &mut String) {
    functions(source);
    addition(source, "point_add", false);
    doubling(source);
    scratch(source);
    entry(source);
    line(source, &format!("let at = {}u * index + {}u;", EdwardsItem::WORDS, EdwardsItem::K));
    line(source, "var sum = point_identity();");
    ladder_loop(source, "term = Point(term.y, term.x, term.z, fe_sub(fe_zero(), term.t));");
}

/// `R`, with `Z = 0` where it is no point.
pub(super) fn decode(source: &mut String) {
    functions(source);
    decoding(source);
    scratch(source);
    entry(source);
    line(source, &format!("let at = {}u * (index + parameters.below);", EdwardsItem::WORDS));
    line(source, &format!("point_write({R_SCRATCH}u, index, decode(at + {}u));", EdwardsItem::R));
    line(source, "}");
}

/// The sum with the table entries, and the verdict.
pub(super) fn comb(source: &mut String) {
    functions(source);
    line(source, "struct Entry { x: Fe, y: Fe, t: Fe }");
    addition(source, "point_add", true);
    addition(source, "point_add_cached", false);
    doubling(source);
    scratch(source);
    line(source, "fn table_read(entry: u32) -> Entry {");
    line(source, &format!("let at = {ENTRY_WORDS}u * entry;"));
    let elements = [0, 8, 16].map(|first| unpacked("tables", first));
    line(source, &format!("return Entry({});", elements.join(", ")));
    line(source, "}");
    line(source, "fn point_opposite(entry: Entry) -> Entry {");
    line(source, "return Entry(entry.y, entry.x, fe_sub(fe_zero(), entry.t));");
    line(source, "}");
    entry(source);
    line(source, "let item = index + parameters.below;");
    line(source, &format!("let at = {}u * item;", EdwardsItem::WORDS));
    line(source, "var sum = point_identity();");
    line(source, &format!("if (parameters.ladder == 1u) {{ sum = point_read({COMB_SCRATCH}u, index); }}"));
    let rows = KeyComb::<<Edwards25519 as Curve>::Field>::ROWS;
    comb_loop(source, EdwardsItem::S, EdwardsItem::K, EdwardsItem::TABLE, rows);
    line(source, &format!("let r = point_read({R_SCRATCH}u, index);"));
    // -R, ready to be added.
    let d2 = constant(&edwards::twice_d());
    line(source, &format!("let t = fe_sub(fe_zero(), fe_mul(r.t, {d2}));"));
    line(source, "sum = point_add_cached(sum, Point(fe_sub(r.y, r.x), fe_fold(fe_add(r.y, r.x)), r.z, t));");
    line(source, "for (var time = 0u; time < 3u; time++) { sum = point_double(sum); }");
    line(source, "let valid = !fe_is_zero(r.z) && fe_is_zero(sum.x) && fe_is_zero(fe_sub(sum.y, sum.z));");
    line(source, "output[item] = tag_fold(tag_start(item), select(0u, 1u, valid));");
    line(source, "}");
}

fn functions(source: &mut String) {
    mersenne::functions(source);
    line(source, &format!("fn fe_zero() -> Fe {{ return {}; }}", constant(&[0; 4])));
    line(source, &format!("fn fe_one() -> Fe {{ return {}; }}", constant(&[1, 0, 0, 0])));
    line(source, "struct Point { x: Fe, y: Fe, z: Fe, t: Fe }");
    line(source, "fn point_identity() -> Point { return Point(fe_zero(), fe_one(), fe_one(), fe_zero()); }");
}

fn constant(integer: &[u64; 4]) -> String {
    mersenne::constant(integer)
}

fn scratch(source: &mut String) {
    let members: Vec<String> = ["x", "y", "z", "t"]
        .iter()
        .flat_map(|coordinate| (0..mersenne::LIMBS).map(move |limb| format!("{coordinate}.l{limb}")))
        .collect();
    scratch_write(source, &members);
    let coordinates: Vec<String> = (0..4).map(|c| scratch_read(c * mersenne::LIMBS, mersenne::LIMBS)).collect();
    line(source, "fn point_read(place: u32, index: u32) -> Point {");
    line(source, &format!("let at = {POINT_WORDS}u * place;"));
    line(source, &format!("return Point({});", coordinates.join(", ")));
    line(source, "}");
}

fn unpacked(buffer: &str, first: usize) -> String {
    let words: Vec<String> = (first..first + 8).map(|word| format!("{buffer}[at + {word}u]")).collect();
    format!("fe_unpack({})", words.join(", "))
}

/// The sum of a point and one that is ready for it: `x` holds `y + x` and `y` holds `y - x`; of an entry, `Z` is 1.
fn addition(source: &mut String, name: &str, entry: bool) {
    let mut f = Formula::new(mersenne::WEIGHT_MAX);
    let [x1, y1, z1, t1] = ["p.x", "p.y", "p.z", "p.t"].map(Element::new);
    let [sum2, difference2, z2, t2] = ["q.x", "q.y", "q.z", "q.t"].map(Element::new);
    let difference = f.sub(&y1, &x1);
    let a = f.mul(&difference, &difference2);
    let sum = f.add(&y1, &x1);
    let b = f.mul(&sum, &sum2);
    let c = f.mul(&t1, &t2);
    let d = if entry { z1 } else { f.mul(&z1, &z2) };
    let d = f.add(&d, &d);
    let (e, h) = (f.sub(&b, &a), f.add(&b, &a));
    let (g, d) = (f.add(&d, &c), f.sub(&d, &c));
    let (x3, y3, z3, t3) = (f.mul(&e, &d), f.mul(&g, &h), f.mul(&d, &g), f.mul(&e, &h));
    line(source, &format!("fn {name}(p: Point, q: {}) -> Point {{", if entry { "Entry" } else { "Point" }));
    source.push_str(&f.returns(&[&x3, &y3, &z3, &t3]));
    line(source, "}");
}

fn doubling(source: &mut String) {
    let mut f = Formula::new(mersenne::WEIGHT_MAX);
    let [x, y, z] = ["p.x", "p.y", "p.z"].map(Element::new);
    let (a, b, c) = (f.square(&x), f.square(&y), f.square(&z));
    let c = f.add(&c, &c);
    let both = f.add(&x, &y);
    let both = f.square(&both);
    let h = f.add(&a, &b);
    let e = f.sub(&h, &both);
    let g = f.sub(&a, &b);
    let c = f.add(&c, &g);
    let (x3, y3, z3, t3) = (f.mul(&e, &c), f.mul(&g, &h), f.mul(&c, &g), f.mul(&e, &h));
    line(source, "fn point_double(p: Point) -> Point {");
    source.push_str(&f.returns(&[&x3, &y3, &z3, &t3]));
    line(source, "}");
}

/// The point of an encoding, RFC 8032 section 5.1.3 as ZIP-215 has it: `y` may pass the prime, and the sign of `x = 0` is
/// ignored. `Z = 0` says that there is none.
fn decoding(source: &mut String) {
    // z^(2^252 - 3). With e(n) = z^(2^n - 1): e(2n) = e(n)^(2^n)·e(n) and e(n + 1) = e(n)²·z, by the bits of 250.
    line(source, "fn fe_power(z: Fe) -> Fe {");
    line(source, "var power = z;");
    line(source, "var ones = 1u;");
    line(source, "for (var bit = 7u; bit > 0u; bit--) {");
    line(source, "let before = power;");
    line(source, "for (var time = 0u; time < ones; time++) { power = fe_sq(power); }");
    line(source, "power = fe_mul(power, before);");
    line(source, "ones = 2u * ones;");
    line(source, "if (((250u >> (bit - 1u)) & 1u) == 1u) { power = fe_mul(fe_sq(power), z); ones++; }");
    line(source, "}");
    line(source, "for (var time = 0u; time < 2u; time++) { power = fe_sq(power); }");
    line(source, "return fe_mul(power, z);");
    line(source, "}");
    line(source, "fn decode(at: u32) -> Point {");
    line(source, &format!("let y = {};", unpacked("input", 0)));
    line(source, "let odd = (input[at + 7u] >> 31u) == 1u;");
    line(source, "let y2 = fe_sq(y);");
    line(source, "let u = fe_sub(y2, fe_one());");
    line(source, &format!("let v = fe_fold(fe_add(fe_mul(y2, {}), fe_one()));", constant(&edwards::d())));
    line(source, "let v3 = fe_mul(fe_sq(v), v);");
    line(source, "let uv7 = fe_mul(u, fe_mul(fe_sq(v3), v));");
    line(source, "var x = fe_mul(fe_mul(u, v3), fe_power(uv7));");
    line(source, "let check = fe_mul(v, fe_sq(x));");
    line(source, "let right = fe_is_zero(fe_sub(check, u));");
    line(source, "let opposite = fe_is_zero(fe_add(check, u));");
    let root = constant(&edwards::root_of_minus_one());
    line(source, &format!("if (!right && opposite) {{ x = fe_mul(x, {root}); }}"));
    line(source, "if (fe_is_odd(x) != odd) { x = fe_sub(fe_zero(), x); }");
    line(source, "if (!right && !opposite) { return Point(fe_zero(), fe_one(), fe_zero(), fe_zero()); }");
    line(source, "return Point(x, y, fe_one(), fe_mul(x, y));");
    line(source, "}");
}
