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
    fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>())
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
                    table.add_row([(*name).replace('_', " "), cell(value)]);
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
                    table.add_row(record.0.iter().map(|(_, value)| cell(value)));
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

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Array(values) if values.is_empty() => "-".into(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_are_null_for_programs_and_a_dash_for_people() {
        let record = Record::new().with("height", 7).with_option("index", None::<u64>).with("roles", vec!["a", "b"]);
        assert_eq!(record.to_json().to_string(), r#"{"height":7,"index":null,"roles":["a","b"]}"#);
        assert_eq!(record.0.iter().map(|(_, value)| cell(value)).collect::<Vec<_>>(), ["7", "-", "a, b"]);
    }
}
