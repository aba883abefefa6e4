//! Registered data assets and their certificates.

use stele_types::asset::{AssetKind, AssetRegister, CancelReason, CertificateNumber, RightClass};
use stele_types::hash::{Hash, ObjectId, PartyId};
use stele_types::header::LogIndex;
use stele_types::record::{ContentHash, PlaceCode};

use crate::state::stored;

stele_types::record! {
    /// End of a certificate by its registrar.
    pub struct AssetEnd {
        /// Why.
        1 => reason: CancelReason,
        /// Leaf of the cancellation.
        2 => index: LogIndex,
        /// Block time, milliseconds.
        3 => time_ms: u64,
    }
}

stele_types::record! {
    /// A data asset with its certificate, under its id.
    pub struct AssetRecord {
        /// Who registered it and may cancel it.
        1 => registrar: PartyId,
        /// Number of the certificate.
        2 => number: CertificateNumber,
        /// What was registered.
        3 => certificate: AssetRegister,
        /// Leaf of the registration.
        4 => index: LogIndex,
        /// Block time of the registration, milliseconds.
        5 => registered_ms: u64,
        /// Its cancellation, if it was cancelled.
        6 => ended: Option<AssetEnd>,
    }
}
stored!(AssetRecord, Asset, ObjectId, |id| [&id.0]);

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// Civil days of the register begin at midnight in UTC+8.
const UTC_OFFSET_MS: u64 = 8 * 3_600_000;

/// The civil day of an instant in UTC+8, days since 1970-01-01.
pub(crate) fn civil_day(time_ms: u64) -> u64 {
    time_ms.saturating_add(UTC_OFFSET_MS) / DAY_MS
}

impl AssetRecord {
    /// Whether the certificate stands at `time_ms`: not cancelled, and its last day (UTC+8) not over.
    pub fn is_live(&self, time_ms: u64) -> bool {
        self.ended.is_none() && self.certificate.valid_until_day.is_none_or(|day| civil_day(time_ms) <= u64::from(day))
    }
}

stele_types::record! {
    /// The asset of a certificate number.
    pub struct CertificateRecord {
        /// The asset.
        1 => asset: ObjectId,
    }
}
stored!(CertificateRecord, Certificate, CertificateNumber, |number| [
    &number.region.get().to_be_bytes(),
    &[number.kind.number()],
    &number.year.to_be_bytes(),
    &number.serial.to_be_bytes()
]);

stele_types::record! {
    /// Certificates numbered so far, under (region, kind, civil year).
    pub struct SerialRecord {
        /// The last serial given.
        1 => last: u64,
    }
}
stored!(SerialRecord, Serial, (PlaceCode, AssetKind, u32), |(region, kind, year)| [
    &region.get().to_be_bytes(),
    &[kind.number()],
    &year.to_be_bytes()
]);

stele_types::record! {
    /// The newest asset registered with one right over one content, under (hash, content root, right): at most one
    /// live certificate holds it.
    pub struct ClaimRecord {
        /// The asset.
        1 => asset: ObjectId,
    }
}
stored!(ClaimRecord, Claim, (ContentHash, Hash, RightClass), |(hash, root, right)| [
    &[hash.number()],
    &root.0,
    &[right.number()]
]);
