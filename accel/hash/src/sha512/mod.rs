//! SHA-512 of many messages at once, for the challenges of Ed25519, FIPS 180-4 section 6.4.

#[cfg(any(test, target_arch = "x86_64"))]
mod lanes;

use sha2::{Digest as _, Sha512};

/// Hashes many messages, each given as pieces that are hashed one after the other; digests are in the order of the
/// messages. With AVX-512 many go through together, elsewhere one at a time is as fast.
#[must_use]
pub fn sha512_batch<const PIECES: usize>(messages: &[[&[u8]; PIECES]]) -> Vec<[u8; 64]> {
    #[cfg(target_arch = "x86_64")]
    if messages.len() >= lanes::LANES_MIN && is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU was asked just now for what the function uses.
        return lanes::digests(messages, |state, blocks| unsafe { lanes::compress_avx512(state, blocks) });
    }
    messages.iter().map(one).collect()
}

fn one<const PIECES: usize>(message: &[&[u8]; PIECES]) -> [u8; 64] {
    let mut hash = Sha512::new();
    message.iter().for_each(|piece| hash.update(piece));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_any_lengths_equal_one_at_a_time_hashing() {
        let bytes: Vec<u8> = (0..6000u32).map(|index| index.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]).collect();
        for count in [0usize, 1, 2, 3, 7, 8, 9, 16, 19, 300] {
            for step in [0usize, 1, 7, 16] {
                let message = |index: usize| {
                    let (first, rest) = bytes[index..][..index * step].split_at(index * step / 3);
                    [first, &[][..], rest]
                };
                let messages: Vec<_> = (0..count).map(message).collect();
                let expected: Vec<[u8; 64]> = messages.iter().map(one).collect();
                assert_eq!(sha512_batch(&messages), expected, "{count} messages");
                // The code of the lanes is the same on every CPU.
                assert_eq!(lanes::digests(&messages, lanes::compress), expected, "{count} messages");
            }
        }
    }

    #[test]
    fn every_length_over_the_block_edges_is_right() {
        let bytes = [0xa5; 20_000];
        // And lengths about the longest that goes into lanes.
        let messages: Vec<_> =
            (0..600).chain(16_300..16_400).chain([20_000; 9]).map(|length| [&bytes[..length]]).collect();
        let expected: Vec<[u8; 64]> = messages.iter().map(one).collect();
        assert_eq!(lanes::digests(&messages, lanes::compress), expected);
    }
}
