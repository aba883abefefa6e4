//! Reading the file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::sections::Config;

/// A configuration has a few kilobytes; anything larger is another file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Digits of the file's hash that are shown: enough to tell files apart.
const HASH_DIGITS: usize = 16;

impl Config {
    /// Reads a file, resolves its relative paths, and checks what needs no look at the machine.
    ///
    /// # Errors
    /// [`ConfigError`]; its text names the line or the key and says what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source: io::Error| ConfigError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned(), max: FILE_BYTES_MAX });
        }
        Self::parse(&text, path)
    }

    /// What [`Config::load`] does with the text of the file at `path`.
    ///
    /// # Errors
    /// `Syntax`, `Invalid`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| syntax(text, path, &error))?;
        config.hash = stele_types::Hash::of(text.as_bytes()).to_hex().chars().take(HASH_DIGITS).collect();
        config.resolve(path.parent().unwrap_or(Path::new("")));
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { path: path.to_owned(), faults }) }
    }

    fn resolve(&mut self, directory: &Path) {
        let mut paths = vec![
            &mut self.node.data_dir,
            &mut self.node.genesis,
            &mut self.peers.key,
            &mut self.api.certificate,
            &mut self.api.key,
            &mut self.api.client_ca,
        ];
        paths.extend(&mut self.seal.key);
        paths.extend(self.signer.as_mut().map(|section| &mut section.socket));
        if let Some(validator) = &mut self.validator {
            paths.extend(&mut validator.long_term_key);
            paths.extend(validator.epoch_keys.iter_mut());
        }
        if let Some(payload) = &mut self.payload {
            paths.extend(&mut payload.custody_key);
            paths.extend(payload.drives.iter_mut().map(|drive| &mut drive.path));
            if let Some(custody) = &mut payload.custody {
                paths.extend([&mut custody.authorities, &mut custody.certificate, &mut custody.key]);
            }
            if let Some(cold) = &mut payload.cold {
                paths.push(&mut cold.credentials);
                paths.extend(&mut cold.authorities);
            }
        }
        for path in paths {
            // `join` keeps an absolute path as it is.
            let resolved: PathBuf = directory.join(&*path);
            *path = resolved;
        }
    }
}

fn syntax(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let message = error.message().trim().replace('\n', "; ");
    ConfigError::Syntax { path: path.to_owned(), line, column, message }
}
