//! Many messages, one prefix, digests in order.

use crate::{
    algorithm::{Digest, HashAlgorithm},
    kernel,
    span::{Span, SpanError},
};

/// Hashes `prefix ‖ message` for each message; digests are in the order of `messages`.
#[must_use]
pub fn digest_batch(algorithm: HashAlgorithm, prefix: &[u8], messages: &[&[u8]]) -> Vec<Digest> {
    let mut digests = vec![[0; 32]; messages.len()];
    kernel::digest_into(algorithm, prefix, &|index| messages[index], &mut digests);
    digests
}

/// Hashes `prefix ‖ span` for each span of `arena`; digests are in the order of `spans`.
///
/// # Errors
/// [`SpanError`] for the first span that leaves the arena; nothing is hashed then.
pub fn digest_spans(
    algorithm: HashAlgorithm,
    prefix: &[u8],
    arena: &[u8],
    spans: &[Span],
) -> Result<Vec<Digest>, SpanError> {
    let messages = spans.iter().map(|span| span.slice(arena)).collect::<Result<Vec<_>, _>>()?;
    Ok(digest_batch(algorithm, prefix, &messages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::digest;

    #[test]
    fn spans_and_slices_agree_and_bad_spans_are_refused() {
        let arena: Vec<u8> = (0..=255u8).cycle().take(5000).collect();
        let spans: Vec<Span> = (0..90).map(|index| Span { offset: index * 7, length: index * 13 }).collect();
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sm3] {
            let digests = digest_spans(algorithm, &[0], &arena, &spans).expect("inside");
            for (span, found) in spans.iter().zip(&digests) {
                let message = span.slice(&arena).expect("inside");
                assert_eq!(*found, digest(algorithm, &[0], message));
            }
            let outside = [Span { offset: 4999, length: 2 }];
            assert!(digest_spans(algorithm, &[], &arena, &outside).is_err());
        }
    }

    #[test]
    fn an_empty_batch_has_no_digests() {
        assert!(digest_batch(HashAlgorithm::Sm3, &[1], &[]).is_empty());
    }
}
