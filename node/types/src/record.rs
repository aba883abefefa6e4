//! What all platforms say about a record: its class, sensitivity and places. No body, no name, no free text.

use crate::cbor::{CborError, Decoder, Encoder, Field};

crate::codes! {
    /// The eight classes of records.
    pub enum RecordClass: u8 {
        /// Medical.
        Medical = 1 => "medical",
        /// Cultural tourism.
        Tourism = 2 => "tourism",
        /// Driver misconduct.
        Driver = 3 => "driver",
        /// Taxpayer financials.
        Tax = 4 => "tax",
        /// Social insurance.
        Social = 5 => "social",
        /// Civil status.
        Civil = 6 => "civil",
        /// Property rights.
        Property = 7 => "property",
        /// State transport logistics.
        Transport = 8 => "transport",
    }
}

crate::codes! {
    /// Level of the Data Security Law; core data is refused by the register.
    pub enum Sensitivity: u8 {
        /// General data.
        General = 1 => "general",
        /// Personal information.
        Personal = 2 => "personal",
        /// Sensitive personal information (PIPL article 28).
        SensitivePersonal = 3 => "sensitive_personal",
        /// Important data.
        Important = 4 => "important",
    }
}

crate::codes! {
    /// Hash of a content root or commitment.
    pub enum ContentHash: u8 {
        /// SHA-256.
        Sha256 = 1 => "sha256",
        /// SM3 (GB/T 32905).
        Sm3 = 2 => "sm3",
    }
}

/// Administrative division code: 2 to 12 digits (GB/T 2260, GB/T 10114), as a number without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceCode(u64);

impl PlaceCode {
    /// A code of 2, 4, 6, 9 or 12 digits whose province is assigned (11 to 82).
    pub fn new(code: u64) -> Option<Self> {
        let digits = code.checked_ilog10()? + 1;
        let province = match digits {
            2 | 4 | 6 | 9 | 12 => code / 10_u64.pow(digits - 2),
            _ => return None,
        };
        (11..=82).contains(&province).then_some(Self(code))
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Field for PlaceCode {
    fn encode(&self, e: &mut Encoder<'_>) {
        self.0.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        Self::new(u64::decode(d)?).ok_or(CborError::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_codes_have_assigned_lengths_and_provinces() {
        for code in [11, 1101, 110_101, 110_101_001, 110_101_001_001] {
            assert!(PlaceCode::new(code).is_some(), "{code}");
        }
        for code in [0, 1, 9, 110, 101, 99, 1_101_010, 1_101_010_010_011] {
            assert!(PlaceCode::new(code).is_none(), "{code}");
        }
    }
}
