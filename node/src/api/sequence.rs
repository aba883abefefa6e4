//! A CBOR sequence (RFC 8742) of signed statements, cut without copying.

use bytes::Bytes;
use stele_types::Code;
use stele_types::cbor::Decoder;

use super::problem::Problem;

/// Cuts a body into its items: at least one, at most `max`. What an item is, is not looked at.
pub(super) fn split(body: &Bytes, max: usize) -> Result<Vec<Bytes>, Problem> {
    let mut items = Vec::new();
    let mut start = 0;
    while start < body.len() {
        if items.len() == max {
            return Err(Problem::new(Code::TooLarge).detail(format!("at most {max} statements in one batch")));
        }
        let mut decoder = Decoder::new(&body[start..]);
        if decoder.skip().is_err() {
            // Where an item does not end, no later one begins: nothing of the batch is taken.
            let detail = format!("item {} at byte {start} is not well-formed CBOR; nothing was taken", items.len());
            return Err(Problem::new(Code::Malformed).detail(detail));
        }
        let end = start + decoder.position();
        items.push(body.slice(start..end));
        start = end;
    }
    if items.is_empty() {
        return Err(Problem::new(Code::Malformed).detail("the batch is empty; send at least one statement"));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An entry in form, not in meaning: tag 18, array of four.
    fn entry(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xd2, 0x84, 0x41, 0xa0, 0xa0, 0x59];
        bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes.push(0x40);
        bytes
    }

    proptest! {
        #[test]
        fn a_sequence_is_cut_where_it_was_joined(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 256..400), 1..8),
        ) {
            let entries: Vec<Vec<u8>> = payloads.iter().map(|payload| entry(payload)).collect();
            let items = split(&Bytes::from(entries.concat()), 8).unwrap();
            prop_assert_eq!(items.iter().map(|item| item.to_vec()).collect::<Vec<_>>(), entries);
        }

        #[test]
        fn any_bytes_are_cut_or_refused_and_lose_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(items) = split(&Bytes::from(body.clone()), 1_000) {
                prop_assert_eq!(items.concat(), body);
            }
        }
    }

    #[test]
    fn cut_short_overlong_and_empty_batches_are_refused_whole() {
        let entry = entry(&[0; 300]);
        let code = |body: &[u8], max| split(&Bytes::copy_from_slice(body), max).unwrap_err().code();
        assert_eq!(code(&[], 8), Code::Malformed);
        assert_eq!(code(&entry[..entry.len() - 1], 8), Code::Malformed);
        assert_eq!(code(&entry.repeat(3), 2), Code::TooLarge);
        // A head that promises more than a body can hold, and deep nesting, cost nothing.
        assert_eq!(code(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 8), Code::Malformed);
        assert_eq!(code(&[0x81; 100_000], 8), Code::Malformed);
    }
}
