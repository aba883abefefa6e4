//! Arithmetic of GF(2^8), for matrices; bytes of shards are multiplied by kernels.

/// x^8 modulo the polynomial `0x11d`: what a carry out of the top bit adds.
pub(super) const CARRY: u8 = 0x1d;

/// Order of the multiplicative group, of which x is a generator.
const ORDER: usize = 255;

/// Powers of x over two rounds, so that the sum of two logarithms needs no modulo.
const POWERS: [u8; 2 * ORDER] = powers();

/// Logarithms to base x; zero has none.
const LOGARITHMS: [u8; 256] = logarithms();

/// `a` times x.
pub(super) const fn double(a: u8) -> u8 {
    (a << 1) ^ ((a >> 7) * CARRY)
}

/// `a` times `b`.
pub(super) const fn product(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    POWERS[LOGARITHMS[a as usize] as usize + LOGARITHMS[b as usize] as usize]
}

/// One divided by `a`, which is not zero.
pub(super) const fn inverse(a: u8) -> u8 {
    assert!(a != 0, "zero has no inverse");
    POWERS[ORDER - LOGARITHMS[a as usize] as usize]
}

const fn powers() -> [u8; 2 * ORDER] {
    let mut powers = [1; 2 * ORDER];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = double(powers[exponent - 1]);
        exponent += 1;
    }
    powers
}

const fn logarithms() -> [u8; 256] {
    let mut logarithms = [0; 256];
    let mut exponent: u8 = 0;
    while (exponent as usize) < ORDER {
        logarithms[POWERS[exponent as usize] as usize] = exponent;
        exponent += 1;
    }
    logarithms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as the definition has it: of polynomials, then modulo `0x11d`.
    fn product_by_definition(a: u8, b: u8) -> u8 {
        let product = (0..8).filter(|bit| b >> bit & 1 == 1).fold(0, |sum, bit| sum ^ (u16::from(a) << bit));
        let reduced = (8..16)
            .rev()
            .fold(product, |rest, bit| if rest >> bit & 1 == 1 { rest ^ (0x11d << (bit - 8)) } else { rest });
        reduced.to_le_bytes()[0]
    }

    #[test]
    fn products_are_those_of_the_definition() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(product(a, b), product_by_definition(a, b), "{a} times {b}");
            }
        }
    }

    #[test]
    fn a_number_times_its_inverse_is_one() {
        for a in 1..=255 {
            assert_eq!(product(a, inverse(a)), 1, "{a}");
        }
    }
}
