//! A key in a TPM that signs the typed requests.

use std::{path::Path, sync::Arc};

use sha2::{Digest as _, Sha256};
use stele_evidence::{SignatureScheme, TpmSignature};
use tss_esapi::traits::Marshall;

use crate::{
    backend::{Backend, HardwareSigner},
    error::SignerError,
    kind::SignerKind,
    signer::Signature,
    tpm::{
        connection::Key,
        device::{TpmDevice, Worker},
        fault::Fault,
        key_file::TpmKeyFile,
    },
};

/// A P-256 key that a TPM made and never gives away.
pub type TpmSigner = HardwareSigner<Worker>;

impl HardwareSigner<Worker> {
    /// Lets the TPM make a new key, and writes its wrapped half to a new file of mode 0600. Blocks.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`], and errors of the TPM.
    pub fn generate(device: &TpmDevice, path: &Path) -> Result<Self, SignerError> {
        let made = device.queue().call_blocking(|worker| {
            worker.attempt(|connection| {
                let (public, private) = connection.create_signing_key()?;
                Ok((public.marshall()?, private.value().to_vec()))
            })
        });
        let (public, private) = made?;
        let key = TpmKeyFile::from_parts(&public, private).ok_or(SignerError::SigningFailed)?;
        key.write_new(path)?;
        Self::with_key(device, key)
    }

    /// Opens a key file and lets the TPM load it. Guards are added with [`Self::with_vote_guard`] and
    /// [`Self::with_checkpoint_guard`]; without one the signer refuses requests of that kind. Blocks.
    ///
    /// # Errors
    /// Those of [`TpmKeyFile::read`], [`SignerError::TpmKeyForeign`] for the key of another TPM, and errors of the TPM.
    pub fn open(device: &TpmDevice, path: &Path) -> Result<Self, SignerError> {
        Self::with_key(device, TpmKeyFile::read(path)?)
    }

    fn with_key(device: &TpmDevice, key: TpmKeyFile) -> Result<Self, SignerError> {
        let public_key = key.public_key().clone();
        let signer = Self::new(device.queue(), key, public_key);
        let loaded = Arc::clone(signer.key());
        device.queue().call_blocking(move |worker| {
            worker.attempt(|connection| connection.public(Key::Signing(&loaded)).map(drop))
        })?;
        Ok(signer)
    }
}

impl Backend for Worker {
    type Key = TpmKeyFile;

    const KIND: SignerKind = SignerKind::Tpm;
    const LOST: fn() -> SignerError = || SignerError::TpmLost;
    const BUSY: fn() -> SignerError = || SignerError::TpmBusy;

    fn sign(&mut self, key: &TpmKeyFile, bytes: &[u8]) -> Result<Signature, SignerError> {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let signature: Result<Vec<u8>, SignerError> = self.attempt(|connection| {
            let signature = connection.sign(Key::Signing(key), &digest)?;
            signature.marshall().map_err(Fault::from)
        });
        fixed(&signature?).ok_or(SignerError::SigningFailed)
    }

    fn reset(&mut self) {
        self.disconnect();
    }
}

/// `r ‖ s` at full width: a TPM may leave leading zeros out.
fn fixed(signature: &[u8]) -> Option<Signature> {
    let SignatureScheme::Ecdsa { r, s } = TpmSignature::parse(signature).ok()?.scheme else { return None };
    let mut bytes = [0; 64];
    for (half, value) in bytes.chunks_exact_mut(32).zip([r, s]) {
        half.get_mut(32_usize.checked_sub(value.len())?..)?.copy_from_slice(value);
    }
    Some(bytes)
}
