//! Tags of results: the same function as `tag_fold` of the kernels.

use stele_accel_hash::Digest;

/// One step; a change of any bit of either argument changes about half of the result.
const fn fold(state: u32, word: u32) -> u32 {
    let mixed = (state ^ word).wrapping_mul(0x9e37_79b1);
    mixed ^ (mixed >> 15)
}

const fn start(nonce: [u32; 2], index: u32) -> u32 {
    fold(fold(fold(0, nonce[0]), index), nonce[1])
}

/// The tag of a digest at a place in the output.
pub(crate) fn of_digest(nonce: [u32; 2], index: u32, words: &[u32; 8]) -> u32 {
    words.iter().fold(start(nonce, index), |state, word| fold(state, *word))
}

/// The digests of tagged results that start at a place of the output, or `None` if a tag is wrong.
pub(crate) fn digests(nonce: [u32; 2], first: u32, words: &[u32]) -> Option<Vec<Digest>> {
    let (results, []) = words.as_chunks::<9>() else { return None };
    let mut digests = Vec::with_capacity(results.len());
    for (index, [words @ .., tag]) in (first..).zip(results) {
        if of_digest(nonce, index, words) != *tag {
            return None;
        }
        let mut digest: Digest = [0; 32];
        for (part, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *part = word.to_le_bytes();
        }
        digests.push(digest);
    }
    Some(digests)
}

/// The verdict that a word stands for, or `None` if it stands for none.
pub(crate) fn verdict(nonce: [u32; 2], index: u32, word: u32) -> Option<bool> {
    let start = start(nonce, index);
    [false, true].into_iter().find(|verdict| fold(start, u32::from(*verdict)) == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_found() {
        let nonce = [7, 9];
        let mut words: Vec<u32> = (0..18u32).map(|word| word.wrapping_mul(0x0101_3377)).collect();
        for index in 0..2u32 {
            let at = 9 * usize::try_from(index).expect("small");
            let digest = words[at..at + 8].try_into().expect("eight");
            words[at + 8] = of_digest(nonce, 3 + index, &digest);
        }
        let found = digests(nonce, 3, &words).expect("whole");
        assert_eq!(found[1][..4], words[9].to_le_bytes());
        for bit in 0..18 * 32 {
            let mut broken = words.clone();
            broken[bit / 32] ^= 1 << (bit % 32);
            assert_eq!(digests(nonce, 3, &broken), None, "bit {bit}");
        }
        assert_eq!(digests([7, 8], 3, &words), None, "another nonce");
        assert_eq!(digests(nonce, 4, &words), None, "another place");
        assert_eq!(digests(nonce, 3, &words[1..]), None);
        assert_eq!(digests(nonce, 0, &[0; 9]), None, "memory that was never written");
    }

    #[test]
    fn a_word_is_one_verdict_or_none() {
        for index in 0..1000 {
            let words = [false, true].map(|verdict| fold(start([5, 6], index), u32::from(verdict)));
            assert_eq!(words.map(|word| verdict([5, 6], index, word)), [Some(false), Some(true)]);
            assert!(words.iter().all(|word| verdict([5, 7], index, *word).is_none()));
            assert!([0, 1, u32::MAX].iter().all(|word| verdict([5, 6], index, *word).is_none()));
        }
    }
}
