//! Formulas over field elements, which fold a sum before it is too heavy for the next operation.

use std::fmt::Write as _;

/// Heaviest operand of `fe_add`, so that a sum has at most twice this weight.
const TERM_MAX: u64 = 2;

/// An element in the code that is being made, with its weight as its field defines it.
#[derive(Clone, Debug)]
pub(super) struct Element {
    text: String,
    weight: u64,
}

/// The code of a formula.
#[derive(Debug)]
pub(super) struct Formula {
    text: String,
    names: u32,
    /// Heaviest operand of products and differences.
    weight_max: u64,
}

impl Element {
    /// An element of weight 1.
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), weight: 1 }
    }
}

impl Formula {
    pub(super) const fn new(weight_max: u64) -> Self {
        Self { text: String::new(), names: 0, weight_max }
    }

    pub(super) fn mul(&mut self, a: &Element, b: &Element) -> Element {
        let [a, b] = [a, b].map(|operand| self.at_most(operand, self.weight_max));
        self.bind(&format!("fe_mul({}, {})", a.text, b.text), 1)
    }

    pub(super) fn square(&mut self, a: &Element) -> Element {
        let a = self.at_most(a, self.weight_max);
        self.bind(&format!("fe_sq({})", a.text), 1)
    }

    pub(super) fn add(&mut self, a: &Element, b: &Element) -> Element {
        let [a, b] = [a, b].map(|operand| self.at_most(operand, TERM_MAX));
        self.bind(&format!("fe_add({}, {})", a.text, b.text), a.weight + b.weight)
    }

    pub(super) fn sub(&mut self, a: &Element, b: &Element) -> Element {
        let [a, b] = [a, b].map(|operand| self.at_most(operand, TERM_MAX));
        self.bind(&format!("fe_sub({}, {})", a.text, b.text), 1)
    }

    /// The formula as a function's body that returns a point of these coordinates, each of weight 1.
    pub(super) fn returns(mut self, coordinates: &[&Element]) -> String {
        let folded: Vec<String> = coordinates.iter().map(|coordinate| self.at_most(coordinate, 1).text).collect();
        // Writing to a string cannot fail.
        let _written = writeln!(self.text, "return Point({});", folded.join(", "));
        self.text
    }

    fn at_most(&mut self, operand: &Element, weight: u64) -> Element {
        if operand.weight <= weight {
            return operand.clone();
        }
        self.bind(&format!("fe_fold({})", operand.text), 1)
    }

    fn bind(&mut self, text: &str, weight: u64) -> Element {
        let name = format!("e{}", self.names);
        self.names += 1;
        let _written = writeln!(self.text, "let {name} = {text};");
        Element { text: name, weight }
    }
}
