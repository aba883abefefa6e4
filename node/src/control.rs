//! Who may change a running node: whoever can read its data directory.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::store::durable;

/// File in the data directory.
pub(crate) const FILE: &str = "control.token";

/// A secret that is another at every start, in a file for the owner alone.
pub struct ControlToken(Zeroizing<String>);

impl ControlToken {
    /// Makes a token and writes it to `data_dir`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(data_dir: &Path) -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let token = Zeroizing::new(hex::encode(*bytes));
        let path = data_dir.join(FILE);
        durable::create_directory(data_dir)?;
        // A new file: one that others have open shows them nothing.
        durable::remove_if_present(&path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(token.as_bytes())?;
        Ok(Self(token))
    }

    /// Whether `shown` is the token, in a time that does not tell how much of it is right.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), shown).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_token_is_another_at_every_start_and_for_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let first = ControlToken::write(directory.path()).unwrap();
        let shown = std::fs::read(&path).unwrap();
        assert!(first.is(&shown) && !first.is(&shown[1..]) && !first.is(b""));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = ControlToken::write(directory.path()).unwrap();
        assert!(!second.is(&shown) && second.is(&std::fs::read(&path).unwrap()));
    }
}
