//! What commands print: one model, shown as a table for people or as JSON for programs.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};

/// Form of what is printed to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// JSON for programs: an object, or an array of objects.
    Json,
}

/// Named values in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(Vec<(&'static str, Value)>);

impl Record {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a value.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }
    /// Adds a value that may be missing; then it is null.
    #[must_use]
    pub fn with_option(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        self.with(name, value.map_or(Value::Null, Into::into))
    }
    /// Appends the values of another record.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
    fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>())
    }
}

impl From<Vec<(&'static str, Value)>> for Record {
    fn from(values: Vec<(&'static str, Value)>) -> Self {
        Self(values)
    }
}

/// Prints records in the chosen form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Output in `format`.
    pub const fn new(format: Format) -> Self {
        Self { format }
    }
    /// Whether programs read it.
    pub const fn is_json(self) -> bool {
        matches!(self.format, Format::Json)
    }
    /// Prints one record: a line for each value.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn record(self, record: &Record) -> Result<()> {
        match self.format {
            Format::Json => self.json(&record.to_json()),
            Format::Table => {
                let mut table = plain_table();
                for (name, value) in &record.0 {
                    add_rows(&mut table, name, value);
                }
                line(&trimmed(&table))
            }
        }
    }
    /// Prints records: a line for each, under their names.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn records(self, records: &[Record]) -> Result<()> {
        match self.format {
            Format::Json => self.json(&Value::Array(records.iter().map(Record::to_json).collect())),
            Format::Table => {
                let Some(first) = records.first() else { return line("(none)") };
                let mut table = plain_table();
                table.set_header(first.0.iter().map(|(name, _)| name.replace('_', " ").to_uppercase()));
                for record in records {
                    table.add_row(record.0.iter().map(|(name, value)| cell(name, value)));
                }
                line(&trimmed(&table))
            }
        }
    }
    /// Prints text for people; programs get nothing of it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn text(self, text: &str) -> Result<()> {
        if self.is_json() { Ok(()) } else { line(text) }
    }
    fn json(self, value: &Value) -> Result<()> {
        line(&serde_json::to_string_pretty(value)?)
    }
}

/// One line to standard output.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// One line to standard error, where people look and programs do not; a closed one is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn trimmed(table: &Table) -> String {
    // The style without borders still indents by one.
    let strip = |line: String| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned();
    table.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// One row, or one for each value of an object.
fn add_rows(table: &mut Table, name: &str, value: &Value) {
    match value {
        Value::Object(values) => {
            values.iter().for_each(|(inner, value)| add_rows(table, &format!("{name}.{inner}"), value));
        }
        value => {
            table.add_row([name.replace('_', " "), cell(name, value)]);
        }
    }
}

/// Milliseconds from here on are instants (2001 and later); below, durations.
const INSTANT_MS_MIN: u64 = 1_000_000_000_000;

fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Number(number) if name.ends_with("_ms") => match number.as_u64().filter(|ms| *ms >= INSTANT_MS_MIN) {
            Some(ms) => format!("{number} ({})", instant(ms)),
            None => number.to_string(),
        },
        Value::Number(number) if name.ends_with("_day") => match number.as_u64() {
            Some(days) => date(days),
            None => number.to_string(),
        },
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Array(values) if values.is_empty() => "-".into(),
        Value::Array(values) => values.iter().map(|value| cell(name, value)).collect::<Vec<_>>().join(", "),
        Value::Object(values) => values.values().map(|value| cell(name, value)).collect::<Vec<_>>().join(" "),
        Value::Number(number) => number.to_string(),
    }
}

/// An instant in UTC, to the second (RFC 3339).
fn instant(ms: u64) -> String {
    let seconds = ms / 1_000;
    let of_day = seconds % 86_400;
    format!("{}T{:02}:{:02}:{:02}Z", date(seconds / 86_400), of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// The day so many days after 1970-01-01, as `YYYY-MM-DD`.
fn date(days: u64) -> String {
    // Civil from days (Howard Hinnant, "chrono-compatible date algorithms"): years begin on 1 March, eras of 400 years.
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year_of_era + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_are_null_for_programs_and_a_dash_for_people() {
        let record = Record::new().with("height", 7).with_option("index", None::<u64>).with("roles", vec!["a", "b"]);
        assert_eq!(record.to_json().to_string(), r#"{"height":7,"index":null,"roles":["a","b"]}"#);
        assert_eq!(record.0.iter().map(|(name, value)| cell(name, value)).collect::<Vec<_>>(), ["7", "-", "a, b"]);
    }

    #[test]
    fn people_read_times_and_days_as_such() {
        assert_eq!(cell("enrolled_ms", &1_795_595_042_748_u64.into()), "1795595042748 (2026-11-25T08:24:02Z)");
        assert_eq!(cell("heartbeat_ms", &10_000.into()), "10000");
        for day in ["1970-01-01", "2000-02-29", "2026-11-23", "2026-12-31", "2400-02-29"] {
            assert_eq!(date(u64::from(crate::commands::words::day(day).unwrap())), day);
        }
    }
}
