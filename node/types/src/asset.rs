//! Data registration: what a registrar says of a data asset, and the number of the certificate.

use alloc::format;
use alloc::string::String;

use crate::cbor::List;
use crate::hash::{Hash, ObjectId, PartyId};
use crate::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};

crate::codes! {
    /// What is registered.
    pub enum AssetKind: u8 {
        /// A data resource: raw or processed data.
        Resource = 1 => "resource",
        /// A data product: a data set, report, model or interface built on resources.
        Product = 2 => "product",
    }
}

impl AssetKind {
    /// Two letters in the certificate number.
    pub const fn letters(self) -> &'static str {
        match self {
            Self::Resource => "DR",
            Self::Product => "DP",
        }
    }
}

crate::codes! {
    /// The split rights of data.
    pub enum RightClass: u8 {
        /// To hold the data.
        Hold = 1 => "hold",
        /// To process and use it.
        Use = 2 => "use",
        /// To operate products made of it.
        Operate = 3 => "operate",
    }
}

crate::codes! {
    /// Where the data comes from.
    pub enum Origin: u8 {
        /// Produced by the holder.
        Own = 1 => "own",
        /// Processed under an authorisation.
        Authorised = 2 => "authorised",
        /// Bought.
        Bought = 3 => "bought",
        /// Collected in a public duty.
        PublicDuty = 4 => "public_duty",
    }
}

crate::codes! {
    /// Why a certificate ended.
    pub enum CancelReason: u8 {
        /// The holder asked.
        HolderRequest = 1 => "holder_request",
        /// Title was not lawful.
        UnlawfulTitle = 2 => "unlawful_title",
        /// The registration was wrong.
        RegistrarError = 3 => "registrar_error",
        /// The data no longer exists.
        DataGone = 4 => "data_gone",
    }
}

crate::record! {
    /// `asset.register`: first registration of a data asset. `apply` assigns the certificate number.
    pub struct AssetRegister {
        /// Id of the asset.
        1 => asset: ObjectId,
        /// Resource or product.
        2 => kind: AssetKind,
        /// Region of the register: a division code of six digits.
        3 => region: PlaceCode,
        /// Holder of the rights. The registrar needs its mandate unless it is the registrar itself.
        4 => holder: PartyId,
        /// Rights registered, ascending, at least one.
        5 => rights: List<RightClass, 3>,
        /// Origin of the data.
        6 => origin: Origin,
        /// Class of the records in it.
        7 => class: RecordClass,
        /// Highest sensitivity in it.
        8 => sensitivity: Sensitivity,
        /// Published schema.
        9 => schema: u32,
        /// Number of records.
        10 => records: u64,
        /// Bytes of the bodies.
        11 => bytes: u64,
        /// First day covered, days since 1970-01-01.
        12 => first_day: u32,
        /// Last day covered.
        13 => last_day: u32,
        /// Merkle root over the content (leaves: record commitments in id order).
        14 => content_root: Hash,
        /// Hash of the content root.
        15 => content_hash: ContentHash,
        /// Hash of the quality report.
        16 => quality_report: Option<Hash>,
        /// Hash of the compliance opinion.
        17 => compliance_opinion: Option<Hash>,
        /// Last day of validity; without it the certificate stands until it is cancelled.
        18 => valid_until_day: Option<u32>,
    }
}

crate::record! {
    /// `asset.cancel`: ends a certificate.
    pub struct AssetCancel {
        /// The asset.
        1 => asset: ObjectId,
        /// Why.
        2 => reason: CancelReason,
    }
}

crate::record! {
    /// Number of a registration certificate: `ST-<region>-<type>-<yyyy>-<serial>-<check>`.
    pub struct CertificateNumber {
        /// Region, six digits.
        1 => region: PlaceCode,
        /// Resource or product.
        2 => kind: AssetKind,
        /// Civil year of the block that applied the registration.
        3 => year: u32,
        /// Counted from 1 per region, kind and year.
        4 => serial: u64,
    }
}

impl CertificateNumber {
    /// The number as printed on the certificate, with ISO 7064 MOD 97-10 check digits.
    pub fn to_text(&self) -> String {
        let body = self.body();
        format!(
            "ST-{:06}-{}-{:04}-{:08}-{:02}",
            self.region.get(),
            self.kind.letters(),
            self.year,
            self.serial,
            check_digits(&body)
        )
    }
    /// Reads a printed number; wrong check digits and other spellings are refused.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("ST-")?.split('-');
        let region = PlaceCode::new(parts.next()?.parse().ok()?)?;
        let letters = parts.next()?;
        let kind = AssetKind::ALL.iter().copied().find(|kind| kind.letters() == letters)?;
        let year = parts.next()?.parse().ok()?;
        let serial = parts.next()?.parse().ok()?;
        let number = Self { region, kind, year, serial };
        (number.to_text() == text).then_some(number)
    }
    fn body(&self) -> String {
        format!("ST{:06}{}{:04}{:08}", self.region.get(), self.kind.letters(), self.year, self.serial)
    }
}

/// ISO 7064 MOD 97-10 over digits and upper-case letters (A = 10 … Z = 35), as IBAN and LEI use it.
fn check_digits(body: &str) -> u32 {
    let push = |rest: u32, character: char| match character.to_digit(36) {
        Some(value) if value < 10 => (rest * 10 + value) % 97,
        Some(value) => (rest * 100 + value) % 97,
        None => rest,
    };
    let rest = body.chars().chain("00".chars()).fold(0, push);
    98 - rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_digits_agree_with_a_published_lei() {
        // Legal entity identifiers use the same scheme (ISO 17442): body and check digits of a published example.
        assert_eq!(check_digits("529900T8BM49AURSDO"), 55);
    }

    #[test]
    fn certificate_numbers_round_trip_and_detect_slips() {
        let number = CertificateNumber {
            region: PlaceCode::new(110_000).unwrap(),
            kind: AssetKind::Resource,
            year: 2026,
            serial: 42,
        };
        let text = number.to_text();
        assert!(text.starts_with("ST-110000-DR-2026-00000042-"), "{text}");
        assert_eq!(CertificateNumber::parse(&text), Some(number));
        assert_eq!(CertificateNumber::parse(&text.replace("42-", "24-")), None, "transposed digits");
        assert_eq!(CertificateNumber::parse(&text.replace("DR", "DP")), None, "another kind");
    }
}
