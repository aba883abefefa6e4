//! Sums of affine points, many at once.
//!
//! An affine addition is an inversion and three multiplications; one inversion serves any number of additions for three
//! multiplications each, which makes six in all against eleven of the Jacobian kind. Lists of points are therefore added
//! up pairwise, level by level, over all lists together.

use crate::curve::{
    point::Affine,
    residue::{Modulus, Residue},
};

/// Additions below which a shared inversion, about 320 multiplications, is not worth it: each saves five.
const PAIRS_MIN: usize = 64;

/// Lists of points and their sums under way.
#[derive(Debug)]
pub(crate) struct Sums<M> {
    points: Vec<Affine<M>>,
    lists: Vec<List>,
    /// Distance of the points of a list that still count.
    stride: usize,
}

#[derive(Clone, Copy, Debug)]
struct List {
    start: usize,
    end: usize,
    /// Two of its points had the same x-coordinate, so that no chord adds them.
    exceptional: bool,
}

/// Which points to add, by index, and where the sum goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) left: usize,
    pub(crate) right: usize,
    pub(crate) target: usize,
}

impl<M: Modulus> Sums<M> {
    /// Room for `lists` lists of `length` points.
    pub(crate) fn with_capacity(lists: usize, length: usize) -> Self {
        Self { points: Vec::with_capacity(lists * length), lists: Vec::with_capacity(lists), stride: 1 }
    }

    /// Begins the next list; `fill` pushes its points.
    pub(crate) fn push_list(&mut self, fill: impl FnOnce(&mut Vec<Affine<M>>)) {
        let start = self.points.len();
        fill(&mut self.points);
        self.lists.push(List { start, end: self.points.len(), exceptional: false });
    }

    /// Adds neighbours until too few additions are left on a level to share an inversion.
    pub(crate) fn reduce(&mut self) {
        let mut pairs = Vec::with_capacity(self.points.len() / 2);
        loop {
            pairs.clear();
            for list in self.lists.iter().filter(|list| !list.exceptional) {
                let lefts = (list.start..list.end).step_by(2 * self.stride);
                let both = lefts.map(|left| Pair { left, right: left + self.stride, target: left });
                pairs.extend(both.filter(|pair| pair.right < list.end));
            }
            if pairs.len() < PAIRS_MIN {
                return;
            }
            let lists = &mut self.lists;
            add_pairs(&mut self.points, &pairs, |pair| {
                let list = lists.partition_point(|list| list.end <= pair.left);
                lists[list].exceptional = true;
            });
            self.stride *= 2;
        }
    }

    /// The points that are left of a list, or `None` if its sum cannot be had by chords.
    pub(crate) fn rest(&self, list: usize) -> Option<impl Iterator<Item = &Affine<M>>> {
        let List { start, end, exceptional } = self.lists[list];
        (!exceptional).then(|| self.points[start..end].iter().step_by(self.stride))
    }
}

/// Adds pairs of points of different x-coordinates with one inversion. A pair that has none is reported and its sum left
/// undefined. A target may be the left point of its own pair, and no other point of a pair.
pub(crate) fn add_pairs<M: Modulus>(points: &mut [Affine<M>], pairs: &[Pair], mut exceptional: impl FnMut(&Pair)) {
    let mut before = Vec::with_capacity(pairs.len());
    let mut product = Residue::ONE;
    for pair in pairs {
        before.push(product);
        let run = points[pair.right].x - points[pair.left].x;
        if !run.is_zero() {
            product = product * run;
        }
    }
    let mut inverse = product.invert();
    for (pair, before) in pairs.iter().zip(&before).rev() {
        let (left, right) = (points[pair.left], points[pair.right]);
        let run = right.x - left.x;
        if run.is_zero() {
            exceptional(pair);
            continue;
        }
        let slope = (right.y - left.y) * (inverse * *before);
        inverse = inverse * run;
        points[pair.target] = chord(&left, &right.x, &slope);
    }
}

/// The sum of `left` and a point with x-coordinate `right_x` on a chord of the given slope.
#[inline(always)]
fn chord<M: Modulus>(left: &Affine<M>, right_x: &Residue<M>, slope: &Residue<M>) -> Affine<M> {
    let x = slope.square() - left.x - *right_x;
    Affine { x, y: *slope * (left.x - x) - left.y }
}
