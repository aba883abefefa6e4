//! Command line and output that the benchmarks share.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

/// Options every benchmark takes: `--json FILE` appends its figures, `--directory DIR` is where it works.
pub struct Arguments {
    /// Options with a value, in order.
    options: Vec<(String, String)>,
}

impl Arguments {
    /// Reads `--name value` pairs.
    pub fn read() -> Result<Self, Box<dyn Error>> {
        let mut options = Vec::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("unexpected argument {word}"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            options.push((name.to_owned(), value));
        }
        Ok(Self { options })
    }

    /// The value of an option or its default.
    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Box<dyn Error>>
    where
        T::Err: Error + 'static,
    {
        self.find(name).map_or(Ok(default), |value| Ok(value.parse()?))
    }

    /// The value of an option that is one of a few words.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.find(name)
    }

    /// A fresh directory below `--directory`, removed at the end.
    pub fn work_directory(&self) -> Result<tempfile::TempDir, Box<dyn Error>> {
        let parent = self.find("directory").map_or_else(std::env::temp_dir, PathBuf::from);
        Ok(tempfile::TempDir::with_prefix_in("stele-bench-", parent)?)
    }

    /// Prints the figures and appends them to `--json FILE` if it is given.
    pub fn report(&self, figures: &[Figure]) -> Result<(), Box<dyn Error>> {
        let lines: String = figures.iter().map(Figure::json).collect();
        print!("{lines}");
        if let Some(path) = self.find("json") {
            File::options().create(true).append(true).open(path)?.write_all(lines.as_bytes())?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }
}

/// One measured figure and, where there is one, the best peer's in the same run.
pub struct Figure {
    /// Dotted name, such as `node.index.puts`.
    pub name: &'static str,
    /// What we measured.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The best peer's figure.
    pub peer: Option<f64>,
}

impl Figure {
    fn json(&self) -> String {
        let number = |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{value:.3}"));
        let ratio = self.peer.map(|peer| self.value / peer);
        format!(
            "{{\"name\":\"{}\",\"value\":{},\"unit\":\"{}\",\"peer\":{},\"ratio\":{}}}\n",
            self.name,
            number(Some(self.value)),
            self.unit,
            number(self.peer),
            number(ratio),
        )
    }
}

/// Median of what several rounds gave.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
