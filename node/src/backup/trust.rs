//! What proofs of headers need beside the blocks: changes of validators, epoch certificates, and where a log begins that does
//! not begin with its first leaf.
//!
//! ```text
//!  file ::= "STELTRU1" links (4) link*  certificates (4) certificate*  frontier bytes (4) frontier
//! ```
//!
//! Each link and certificate is its length (4) and its CBOR. What is in the file counts when the headers verify under it.

use stele_merkle::log::Frontier;
use stele_types::cbor::{self, Field};
use stele_types::{ChainLink, EpochCertificate};

const MAGIC: [u8; 8] = *b"STELTRU1";

/// The file at most: a network changes its validators a few times a year.
pub(super) const BYTES_MAX: u64 = 256 << 20;

/// See the [module](self).
pub(super) struct Trust {
    pub(super) links: Vec<ChainLink>,
    pub(super) epochs: Vec<EpochCertificate>,
    pub(super) base: Option<Frontier>,
}

impl Trust {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        push_all(&mut bytes, &self.links);
        push_all(&mut bytes, &self.epochs);
        push(&mut bytes, &self.base.as_ref().map(Frontier::encode).unwrap_or_default());
        bytes
    }

    /// None if the bytes are no such file.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let links = take_all(&mut rest)?;
        let epochs = take_all(&mut rest)?;
        let base = take(&mut rest)?;
        let base = if base.is_empty() { None } else { Some(Frontier::decode(base).ok()?) };
        rest.is_empty().then_some(Self { links, epochs, base })
    }
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn push_all<T: Field>(bytes: &mut Vec<u8>, parts: &[T]) {
    bytes.extend_from_slice(&u32::try_from(parts.len()).unwrap_or(u32::MAX).to_le_bytes());
    parts.iter().for_each(|part| push(bytes, &cbor::to_vec(part)));
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

fn take<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = number(rest)?;
    let (part, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

fn take_all<T: Field>(rest: &mut &[u8]) -> Option<Vec<T>> {
    // Each takes four bytes at least, so the length of the file bounds them.
    (0..number(rest)?).map(|_| cbor::from_slice(take(rest)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use stele_types::{Hash, Height, NetworkId, ValidatorId};

    use super::*;

    #[test]
    fn the_file_comes_back_and_no_other_bytes_pass() {
        let mut base = Frontier::new();
        (0..5).for_each(|leaf| base.append([leaf; 32]));
        let epoch = EpochCertificate {
            network: NetworkId([1; 32]),
            validator: ValidatorId([2; 32]),
            public_key: [3; 33],
            from_height: Height(1),
            until_height: Height(100),
            pcr_policy: Hash::default(),
            signature: [0; 64],
        };
        let trust = Trust { links: Vec::new(), epochs: vec![epoch.clone()], base: Some(base.clone()) };
        let bytes = trust.encode();
        let again = Trust::decode(&bytes).unwrap();
        assert_eq!((again.epochs, again.base, again.links.len()), (vec![epoch], Some(base), 0));
        (0..bytes.len()).for_each(|length| assert!(Trust::decode(&bytes[..length]).is_none(), "{length}"));
        let mut many = MAGIC.to_vec();
        many.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(Trust::decode(&many).is_none());
    }
}
