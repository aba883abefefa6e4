//! Readers of argument values that are words of the protocol, ids or lists of them.

use stele_types::asset::{AssetKind, CancelReason, Origin, RightClass};
use stele_types::hash::{Hash, KeyId, ObjectId, StatementId};
use stele_types::party::{OrganisationCode, RevocationReason, Role};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::{Family, Suite, ValidatorId};

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident -> $ty:ty;)*) => {$(
        $(#[$meta])*
        ///
        /// # Errors
        /// The words that there are.
        pub fn $name(word: &str) -> Result<$ty, String> {
            <$ty>::from_word(word).ok_or_else(|| {
                format!("one of {}", <$ty>::ALL.iter().map(|each| each.as_str()).collect::<Vec<_>>().join(", "))
            })
        }
    )*};
}

words! {
    /// A role.
    role -> Role;
    /// A class of records.
    record_class -> RecordClass;
    /// A level of sensitivity.
    sensitivity -> Sensitivity;
    /// A kind of asset.
    asset_kind -> AssetKind;
    /// A right.
    right -> RightClass;
    /// An origin of data.
    origin -> Origin;
    /// A reason for the end of a certificate.
    cancel_reason -> CancelReason;
    /// A reason for the end of a key.
    revocation_reason -> RevocationReason;
    /// A family of commands.
    family -> Family;
    /// A hash of content.
    content_hash -> ContentHash;
}

/// A suite that keys can have.
///
/// # Errors
/// The words that there are.
pub fn suite(word: &str) -> Result<Suite, String> {
    Suite::from_word(word)
        .filter(|suite| suite.rule_version_max() > 0)
        .ok_or_else(|| "one of es256, eddsa, sm2_sm3".to_owned())
}

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident -> $ty:ty;)*) => {$(
        $(#[$meta])*
        ///
        /// # Errors
        /// The form of the id.
        pub fn $name(text: &str) -> Result<$ty, String> {
            <$ty>::from_hex(text).ok_or_else(|| format!("{} lower-case hexadecimal digits", <$ty>::LEN * 2))
        }
    )*};
}

ids! {
    /// A SHA-256 digest or root.
    hash -> Hash;
    /// A key id.
    key_id -> KeyId;
    /// An object id.
    object_id -> ObjectId;
    /// A statement id.
    statement_id -> StatementId;
    /// A validator id.
    validator_id -> ValidatorId;
}

/// A division code.
///
/// # Errors
/// The form of a code.
pub fn place(text: &str) -> Result<PlaceCode, String> {
    let code = text.parse().ok().and_then(PlaceCode::new);
    code.ok_or_else(|| "a division code of 2, 4, 6, 9 or 12 digits".to_owned())
}

/// A unified social credit code.
///
/// # Errors
/// The form of a code.
pub fn organisation(text: &str) -> Result<OrganisationCode, String> {
    OrganisationCode::new(text).ok_or_else(|| "18 upper-case letters and digits".to_owned())
}

/// A duration such as `90s`, `15m`, `12h` or `7d`, in milliseconds.
///
/// # Errors
/// The form of a duration.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let expected = || "a number with s, m, h or d behind it, as in 7d".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let factor: u64 = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(expected()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| expected())?;
    number.checked_mul(factor).ok_or_else(expected)
}

/// A day as `YYYY-MM-DD`, days since 1970-01-01.
///
/// # Errors
/// The form of a day.
pub fn day(text: &str) -> Result<u32, String> {
    let expected = || "a day as YYYY-MM-DD, from 1970 on".to_owned();
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (Some(Some(year)), Some(Some(month)), Some(Some(day))) = (parts.next(), parts.next(), parts.next()) else {
        return Err(expected());
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(expected());
    }
    // Days from civil (Howard Hinnant, "chrono-compatible date algorithms"): years begin on 1 March.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era_days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    u32::try_from(era_days + day_of_year - 719_468).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970() {
        assert_eq!(day("1970-01-01"), Ok(0));
        assert_eq!(day("2000-02-29"), Ok(11_016));
        assert_eq!(day("2026-11-23"), Ok(20_780));
        for text in ["", "2026", "1969-12-31", "2026-13-01", "x-y-z"] {
            assert!(day(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_carry_a_unit() {
        assert_eq!(duration_ms("7d"), Ok(604_800_000));
        assert_eq!(duration_ms("90s"), Ok(90_000));
        for text in ["", "7", "d", "-1d", "99999999999999999999d", "7w", "7é"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_words_name_the_right_ones() {
        assert!(role("king").unwrap_err().contains("governor"));
        assert!(suite("ml_dsa_44").is_err(), "reserved suites have no keys");
    }
}
