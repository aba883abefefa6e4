//! Platform configuration registers: which were quoted, and their values.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    error::EvidenceError,
    reader::Reader,
};

/// PCRs of a PC Client platform: 0 to 23.
pub const PCR_COUNT: u8 = 24;

/// Selections of one list, and banks of one TPM: `TPM2_NUM_PCR_BANKS` of the TCG's software stack.
const SELECTIONS_MAX: usize = 16;

/// PCRs of one or more banks, in the order of a `TPML_PCR_SELECTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrSelection {
    /// Bank and bit mask of indices; bit 0 is PCR 0.
    banks: Vec<(HashAlgorithm, u32)>,
}

impl PcrSelection {
    /// PCRs of one bank; `None` if an index is above 23.
    #[must_use]
    pub fn new(bank: HashAlgorithm, indices: &[u8]) -> Option<Self> {
        let known = indices.iter().all(|index| *index < PCR_COUNT);
        let mask = indices.iter().fold(0, |mask, index| mask | 1_u32 << (index % 32));
        known.then(|| Self { banks: [(bank, mask)].into() })
    }

    /// The PCRs, bank by bank, ascending within each: the order in which their values are hashed.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, u8)> {
        let indices = |(bank, mask): &(HashAlgorithm, u32)| {
            let (bank, mask) = (*bank, *mask);
            (0..PCR_COUNT).filter(move |index| mask & 1 << index != 0).map(move |index| (bank, index))
        };
        self.banks.iter().flat_map(indices)
    }

    /// Whether a PCR is among them.
    #[must_use]
    pub fn contains(&self, bank: HashAlgorithm, index: u8) -> bool {
        self.iter().any(|one| one == (bank, index))
    }

    /// Reads a `TPML_PCR_SELECTION`, TPM 2.0 Part 2 section 10.9.7.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, EvidenceError> {
        let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        if count > SELECTIONS_MAX {
            return Err(EvidenceError::TooLarge { structure: "TPML_PCR_SELECTION", limit: SELECTIONS_MAX });
        }
        let mut banks = Vec::with_capacity(count);
        for _ in 0..count {
            let id = reader.u16()?;
            let bank = HashAlgorithm::from_id(id).ok_or(reader.unsupported(id))?;
            let length = usize::from(reader.u8()?);
            banks.push((bank, mask_of(reader.take(length)?).ok_or(reader.malformed("a PCR above 23 is selected"))?));
        }
        Self::of_banks(banks).ok_or(reader.malformed("a bank is selected twice"))
    }

    /// The marshalled `TPML_PCR_SELECTION`, as PolicyPCR hashes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.banks.len()).unwrap_or_default();
        let mut bytes = count.to_be_bytes().to_vec();
        for (bank, mask) in &self.banks {
            bytes.extend(bank.id().to_be_bytes());
            bytes.push(3);
            bytes.extend(&mask.to_le_bytes()[..3]);
        }
        bytes
    }

    /// A bank that is listed twice would give one PCR two places; no TPM writes that when asked for it once.
    fn of_banks(banks: Vec<(HashAlgorithm, u32)>) -> Option<Self> {
        let twice = banks.iter().enumerate().any(|(at, (bank, _))| banks[..at].iter().any(|(other, _)| other == bank));
        (!twice).then_some(Self { banks })
    }
}

/// The mask of up to four bytes of a selection; `None` if a PCR above 23 is selected.
fn mask_of(bytes: &[u8]) -> Option<u32> {
    let (known, beyond) = bytes.split_at(bytes.len().min(3));
    let bits = known.iter().enumerate().map(|(at, byte)| u32::from(*byte) << (8 * at));
    beyond.iter().all(|byte| *byte == 0).then(|| bits.sum())
}

/// Values of PCRs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrValues {
    values: BTreeMap<(HashAlgorithm, u8), Digest>,
}

impl PcrValues {
    /// The value of one PCR.
    #[must_use]
    pub fn value(&self, bank: HashAlgorithm, index: u8) -> Option<&Digest> {
        self.values.get(&(bank, index))
    }

    /// Puts in the value of one PCR; its bank is the digest's algorithm.
    pub fn insert(&mut self, index: u8, value: Digest) {
        self.values.insert((value.algorithm(), index), value);
    }

    /// All values, by bank and index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Digest)> {
        self.values.iter().map(|((_, index), value)| (*index, value))
    }

    /// The digest that a quote of `selection` has when these are the values: TPM 2.0 Part 3 section 18.4. `None` if a
    /// value is missing.
    #[must_use]
    pub fn quote_digest(&self, selection: &PcrSelection, hash: HashAlgorithm) -> Option<Digest> {
        let values: Option<Vec<&[u8]>> =
            selection.iter().map(|(bank, index)| self.value(bank, index).map(Digest::as_bytes)).collect();
        Some(hash.digest(&values?))
    }

    /// Reads the file that `tpm2_quote --pcr` writes in its default format, `serialized`: the little-endian memory of
    /// `TPML_PCR_SELECTION`, a count, and as many `TPML_DIGEST` of eight places each.
    ///
    /// # Errors
    /// [`EvidenceError`] unless it holds exactly one value for each PCR that it selects.
    pub fn parse_tools(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new("PCR file", bytes);
        let count = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
        if count > SELECTIONS_MAX {
            return Err(EvidenceError::TooLarge { structure: "PCR file", limit: SELECTIONS_MAX });
        }
        let mut banks = Vec::with_capacity(count);
        for at in 0..SELECTIONS_MAX {
            let id = reader.u16_le()?;
            let length = usize::from(reader.u8()?).min(4);
            let bits = reader.take(4)?;
            let _padding = reader.u8()?;
            if at < count {
                let bank = HashAlgorithm::from_id(id).ok_or(reader.unsupported(id))?;
                let mask = mask_of(&bits[..length]).ok_or(reader.malformed("a PCR above 23 is selected"))?;
                banks.push((bank, mask));
            }
        }
        let selection = PcrSelection::of_banks(banks).ok_or(reader.malformed("a bank is selected twice"))?;
        let digests = read_digest_lists(&mut reader)?;
        reader.finish()?;
        let mut values = Self::default();
        let mut digests = digests.into_iter();
        for (bank, index) in selection.iter() {
            let digest = digests.next().ok_or(reader.malformed("a selected PCR has no value"))?;
            values.insert(index, Digest::new(bank, digest)?);
        }
        match digests.next() {
            None => Ok(values),
            Some(_) => Err(reader.malformed("a value belongs to no selected PCR")),
        }
    }

    /// Writes the values of `selection` in that format; `None` if one is missing.
    #[must_use]
    pub fn to_tools(&self, selection: &PcrSelection) -> Option<Vec<u8>> {
        let count = |number: usize| u32::try_from(number).unwrap_or_default().to_le_bytes();
        let mut bytes = count(selection.banks.len()).to_vec();
        for (bank, mask) in &selection.banks {
            bytes.extend(bank.id().to_le_bytes());
            bytes.push(3);
            bytes.extend(mask.to_le_bytes());
            bytes.push(0);
        }
        bytes.resize(4 + 8 * SELECTIONS_MAX, 0);
        let digests: Option<Vec<&Digest>> = selection.iter().map(|(bank, index)| self.value(bank, index)).collect();
        let digests = digests?;
        let lists = digests.chunks(DIGESTS_OF_LIST);
        bytes.extend(count(lists.len()));
        for list in lists {
            bytes.extend(count(list.len()));
            for at in 0..DIGESTS_OF_LIST {
                let digest = list.get(at).map_or(&[][..], |digest| digest.as_bytes());
                bytes.extend(u16::try_from(digest.len()).unwrap_or_default().to_le_bytes());
                bytes.extend(digest);
                bytes.resize(bytes.len() + Digest::LENGTH_MAX - digest.len(), 0);
            }
        }
        Some(bytes)
    }
}

/// Places of a `TPML_DIGEST`.
const DIGESTS_OF_LIST: usize = 8;

fn read_digest_lists<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, EvidenceError> {
    /// All PCRs of all banks, eight a list.
    const LISTS_MAX: usize = SELECTIONS_MAX * PCR_COUNT as usize / DIGESTS_OF_LIST;
    let lists = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
    if lists > LISTS_MAX {
        return Err(EvidenceError::TooLarge { structure: "PCR file", limit: LISTS_MAX });
    }
    let mut digests = Vec::new();
    for _ in 0..lists {
        let count = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
        for at in 0..DIGESTS_OF_LIST {
            let length = usize::from(reader.u16_le()?);
            let place = reader.take(Digest::LENGTH_MAX)?;
            if at < count {
                digests.push(place.get(..length).ok_or(reader.malformed("a value is longer than its place"))?);
            }
        }
        if count > DIGESTS_OF_LIST {
            return Err(reader.malformed("a list has more values than places"));
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_tools_round_trips_with_more_than_one_list() {
        let indices: Vec<u8> = (0..PCR_COUNT).collect();
        let selection = PcrSelection::new(HashAlgorithm::Sha256, &indices).expect("known indices");
        let mut values = PcrValues::default();
        for index in indices {
            values.insert(index, Digest::filled(HashAlgorithm::Sha256, index));
        }
        let bytes = values.to_tools(&selection).expect("all there");
        assert_eq!(bytes.len(), 132 + 4 + 3 * (4 + 8 * 66));
        assert_eq!(PcrValues::parse_tools(&bytes), Ok(values));
    }

    #[test]
    fn a_pcr_above_23_and_a_bank_listed_twice_are_refused() {
        assert_eq!(PcrSelection::new(HashAlgorithm::Sha256, &[24]), None);
        let above = [0, 0, 0, 1, 0, 0x0b, 4, 0, 0, 0, 1];
        let twice = [0, 0, 0, 2, 0, 0x0b, 3, 1, 0, 0, 0, 0x0b, 3, 2, 0, 0];
        for bytes in [&above[..], &twice] {
            let refused = PcrSelection::read(&mut Reader::new("TPML_PCR_SELECTION", bytes)).expect_err("refused");
            assert_eq!(refused.code(), "evidence_malformed");
        }
    }
}
