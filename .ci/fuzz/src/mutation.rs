//! Mutations of valid inputs, from a seeded generator: the same seed tries the same inputs on every machine.

/// Bytes of a mutated input at most; longer ones are cut, as libFuzzer's `max_len` would.
pub const INPUT_BYTES_MAX: usize = 20_000;

/// Bytes that decoders stumble over: ends of ranges, long and indefinite lengths, tags, floats, a break.
const INTERESTING: [u8; 16] =
    [0x00, 0x01, 0x17, 0x18, 0x1b, 0x20, 0x3b, 0x40, 0x5b, 0x5f, 0x80, 0x9b, 0x9f, 0xbf, 0xf6, 0xff];

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Generator(u64);

impl Generator {
    /// A generator from a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }
    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Changes `bytes` in one to four places; `other` lends a piece now and then.
pub fn mutate(generator: &mut Generator, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=generator.below(4) {
        let at = generator.below(bytes.len() + 1).min(bytes.len());
        let length = 1 + generator.below(1 + bytes.len() / 4);
        let end = (at + length).min(bytes.len());
        match generator.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << generator.below(8),
            1 if at < bytes.len() => bytes[at] = INTERESTING[generator.below(INTERESTING.len())],
            2 if at < bytes.len() => bytes[at] = generator.byte(),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let from = generator.below(other.len() + 1).min(other.len());
                let piece = other[from..(from + length).min(other.len())].to_vec();
                bytes.splice(at..end, piece);
            }
            6 => {
                let value = INTERESTING[generator.below(INTERESTING.len())];
                bytes.insert(at, value);
            }
            _ => bytes.truncate(at),
        }
        bytes.truncate(INPUT_BYTES_MAX);
    }
}
