//! Straight-line integer code whose every intermediate value is proven to fit.
//!
//! Each value carries the largest number it can have, and each operation checks its own result against the width of its
//! type while the text is made. A generator that could overflow therefore cannot make a kernel.

use std::fmt::Write as _;

/// A value of the code that is being made: an unsigned integer of 32 or 64 bits.
#[derive(Clone, Debug)]
pub(super) struct Value {
    text: String,
    low: u64,
    high: u64,
    wide: bool,
}

/// The body of a function.
#[derive(Debug, Default)]
pub(super) struct Body {
    text: String,
    names: u32,
}

impl Value {
    /// A parameter of 32 bits.
    pub(super) fn parameter(text: &str, high: u64) -> Self {
        Self::checked(text.to_owned(), 0, high.into(), false)
    }

    /// A constant of 32 bits.
    pub(super) fn constant(value: u64) -> Self {
        Self::checked(format!("{value}u"), value, value.into(), false)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) const fn high(&self) -> u64 {
        self.high
    }

    fn checked(text: String, low: u64, high: u128, wide: bool) -> Self {
        let limit = if wide { u64::MAX } else { u32::MAX.into() };
        let high = u64::try_from(high).unwrap_or_else(|_| panic!("{text} passes 64 bits"));
        assert!(high <= limit, "{text} can be {high}");
        Self { text, low, high, wide }
    }
}

impl Body {
    /// The text so far.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Appends a line that computes nothing.
    pub(super) fn line(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.text, "{text}");
    }

    /// The same number in 64 bits.
    pub(super) fn widen(&mut self, value: &Value) -> Value {
        if value.wide {
            return value.clone();
        }
        self.bind(format!("u64({})", value.text), value.low, value.high.into(), true)
    }

    /// The same number in 32 bits, where it fits.
    pub(super) fn narrow(&mut self, value: &Value) -> Value {
        self.bind(format!("u32({})", value.text), value.low, value.high.into(), false)
    }

    /// A product of two values of 64 bits.
    pub(super) fn product(&mut self, a: &Value, b: &Value) -> Value {
        let high = u128::from(a.high) * u128::from(b.high);
        self.bind(format!("{} * {}", a.text, b.text), 0, high, true)
    }

    /// A product with a constant, by a shift where that will do.
    pub(super) fn times(&mut self, a: &Value, factor: u64) -> Value {
        let high = u128::from(a.high) * u128::from(factor);
        let text = match factor {
            1 => return a.clone(),
            _ if factor.is_power_of_two() => format!("{} << {}u", a.text, factor.trailing_zeros()),
            _ if a.wide => format!("{} * {factor}lu", a.text),
            _ => format!("{} * {factor}u", a.text),
        };
        self.bind(text, 0, high, a.wide)
    }

    /// A sum of values of one width; of none: zero in 64 bits.
    pub(super) fn sum(&mut self, terms: &[Value]) -> Value {
        match terms {
            [] => Value::checked("0lu".to_owned(), 0, 0, true),
            [only] => only.clone(),
            [first, ..] => {
                assert!(terms.iter().all(|term| term.wide == first.wide), "terms of one width");
                let text = terms.iter().map(|term| term.text.as_str()).collect::<Vec<_>>().join(" + ");
                let low = terms.iter().map(|term| term.low).sum();
                self.bind(text, low, terms.iter().map(|term| u128::from(term.high)).sum(), first.wide)
            }
        }
    }

    /// `a - b`, where `a` is never less.
    pub(super) fn difference(&mut self, a: &Value, b: &Value) -> Value {
        assert!(a.low >= b.high, "{} - {} can be negative", a.text, b.text);
        self.bind(format!("{} - {}", a.text, b.text), a.low - b.high, (a.high - b.low).into(), a.wide)
    }

    /// The lowest bits, in the same width.
    pub(super) fn lowest(&mut self, a: &Value, bits: u32) -> Value {
        let mask = (1u64 << bits) - 1;
        let suffix = if a.wide { "lu" } else { "u" };
        self.bind(format!("{} & {mask:#x}{suffix}", a.text), 0, mask.min(a.high).into(), a.wide)
    }

    /// All but the lowest bits.
    pub(super) fn rest(&mut self, a: &Value, bits: u32) -> Value {
        self.bind(format!("{} >> {bits}u", a.text), a.low >> bits, (a.high >> bits).into(), a.wide)
    }

    /// The same value with a bound that follows from what is known of the whole number.
    pub(super) fn known_below(&mut self, a: &Value, bound: u64) -> Value {
        Value { high: a.high.min(bound - 1), ..a.clone() }
    }

    fn bind(&mut self, text: String, low: u64, high: u128, wide: bool) -> Value {
        let name = format!("v{}", self.names);
        self.names += 1;
        let value = Value::checked(text, low, high, wide);
        self.line(&format!("let {name} = {};", value.text));
        Value { text: name, ..value }
    }
}

/// A function that returns a field element whose limbs are at most what `limit` says of each.
pub(super) fn element_function(
    source: &mut String,
    head: &str,
    limit: impl Fn(usize) -> u64,
    make: impl FnOnce(&mut Body) -> Vec<Value>,
) {
    let mut body = Body::default();
    body.line(&format!("fn {head} {{"));
    let limbs = make(&mut body);
    for (place, limb) in limbs.iter().enumerate() {
        assert!(limb.high() <= limit(place), "{head}: limb {place} can be {}", limb.high());
    }
    let limbs: Vec<&str> = limbs.iter().map(Value::text).collect();
    body.line(&format!("return Fe({});", limbs.join(", ")));
    body.line("}");
    source.push_str(&body.into_text());
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn what_can_overflow_cannot_be_made() {
        let fails = |make: &dyn Fn(&mut Body)| catch_unwind(AssertUnwindSafe(|| make(&mut Body::default()))).is_err();
        let a = Value::parameter("a", u32::MAX.into());
        let small = Value::parameter("b", 7);
        assert!(fails(&|body| drop(body.sum(&[a.clone(), small.clone()]))));
        assert!(fails(&|body| drop(body.times(&a, 2))));
        assert!(fails(&|body| drop(body.difference(&small, &small))));
        assert!(fails(&|body| {
            let wide = body.widen(&a);
            let square = body.product(&wide, &wide);
            drop(body.sum(&[square.clone(), square]));
        }));
        assert!(!fails(&|body| {
            let sum = body.sum(&[Value::constant(7), small.clone()]);
            drop(body.difference(&sum, &small));
            let wide = body.widen(&a);
            let product = body.product(&wide, &wide);
            let high = body.rest(&product, 32);
            drop(body.narrow(&high));
        }));
    }
}
