//! Logs of what was measured, and the release manifest: files that the kernel or the image gives.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use stele_hsm::{
    SignerError,
    remote::wire::{ANSWER_LENGTH_MAX, Log},
};

use crate::config::TpmSection;

/// Room for the rest of the frame.
const LENGTH_MAX: usize = ANSWER_LENGTH_MAX - 1024;

/// Reads a log; none if this machine has no such file.
///
/// # Errors
/// [`SignerError::AttestationLog`] if it cannot be read, or is longer than an answer.
pub(crate) fn read(section: &TpmSection, log: Log) -> Result<Option<Vec<u8>>, SignerError> {
    let path = match log {
        Log::Boot => &section.boot_log,
        Log::Ima => &section.ima_log,
        Log::Manifest => &section.manifest,
    };
    match read_file(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SignerError::AttestationLog { path: path.clone(), source }),
    }
}

/// The kernel's files have no length before they are read.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(LENGTH_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LENGTH_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
