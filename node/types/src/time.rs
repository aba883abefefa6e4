//! Time as the ledger knows it: block time in milliseconds, and the calendar that certificate numbers need.

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = u64;

/// The proleptic Gregorian year of an instant in UTC+8, the civil time of the register.
pub fn civil_year(time_ms: Millis) -> u32 {
    const UTC_OFFSET_MS: u64 = 8 * 3_600_000;
    let days = time_ms.saturating_add(UTC_OFFSET_MS) / 86_400_000;
    // Days since 0000-03-01, in 400-year eras of 146,097 days (Howard Hinnant, "chrono-compatible date algorithms").
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin on 1 March here, so January and February (from day 306) belong to the next civil year.
    let year = year_of_era + era * 400 + u64::from(day_of_year >= 306);
    u32::try_from(year).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_turn_at_midnight_in_beijing() {
        let new_year_2026_utc = 1_767_225_600_000;
        assert_eq!(civil_year(new_year_2026_utc - 8 * 3_600_000 - 1), 2025);
        assert_eq!(civil_year(new_year_2026_utc - 8 * 3_600_000), 2026);
        assert_eq!(civil_year(0), 1970);
        assert_eq!(civil_year(951_782_400_000), 2000, "29 February 2000");
        assert_eq!(civil_year(1_709_164_800_000), 2024, "29 February 2024");
    }
}
