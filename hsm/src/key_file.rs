//! Private key files: PKCS#8 PEM, mode 0600, never overwritten, wiped from memory after use.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use p256::{
    SecretKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use zeroize::Zeroizing;

use crate::error::SignerError;

/// Longest key file in bytes; a P-256 key in PEM has about 240.
const KEY_FILE_LENGTH_MAX: usize = 4096;

/// Reads a key whose file only its owner may touch.
pub(crate) fn read(path: &Path) -> Result<SecretKey, SignerError> {
    let pem = read_private(path)?;
    let malformed = || SignerError::KeyFileMalformed { path: path.to_owned() };
    let text = std::str::from_utf8(&pem).map_err(|_| malformed())?;
    SecretKey::from_pkcs8_pem(text).map_err(|_| malformed())
}

/// Reads a file that only its owner may touch.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, SignerError> {
    let failed = |source| SignerError::KeyFileIo { path: path.to_owned(), source };
    let malformed = || SignerError::KeyFileMalformed { path: path.to_owned() };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode != 0o600 && mode != 0o400 {
        return Err(SignerError::KeyFilePermissions { path: path.to_owned(), mode });
    }
    let length = usize::try_from(metadata.len()).map_err(|_| malformed())?;
    if !metadata.is_file() || length > KEY_FILE_LENGTH_MAX {
        return Err(malformed());
    }
    // Reserved once, so that growing never leaves a copy behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(KEY_FILE_LENGTH_MAX + 64));
    file.take(metadata.len()).read_to_end(&mut pem).map_err(failed)?;
    Ok(pem)
}

/// Writes a key to a new file of mode 0600, durably.
pub(crate) fn write_new(path: &Path, key: &SecretKey) -> Result<(), SignerError> {
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| SignerError::KeyFileMalformed { path: path.to_owned() })?;
    write_new_private(path, pem.as_bytes())
}

/// Writes a new file of mode 0600, durably.
pub(crate) fn write_new_private(path: &Path, pem: &[u8]) -> Result<(), SignerError> {
    let failed = |source| SignerError::KeyFileIo { path: path.to_owned(), source };
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SignerError::KeyFileExists { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    file.write_all(pem).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new("."))).and_then(|file| file.sync_all()).map_err(failed)
}
