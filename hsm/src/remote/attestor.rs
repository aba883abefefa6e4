//! The TPM of another process, asked to attest.

use zeroize::Zeroizing;

use crate::{
    attested::Quote,
    error::SignerError,
    remote::{
        socket::{SignerSocket, unexpected},
        wire::{Answer, Identity, Log, Request},
    },
    request::CheckpointRequest,
};

/// Asks the TPM of `stele-signer` to attest.
#[derive(Clone, Debug)]
pub struct RemoteAttestor {
    socket: SignerSocket,
}

impl RemoteAttestor {
    pub(super) fn new(socket: &SignerSocket) -> Self {
        Self { socket: socket.clone() }
    }

    /// Endorsement key, its certificate, attestation key, and the long-term keys with what the TPM says of them.
    ///
    /// # Errors
    /// [`SignerError::AttestationMissing`] for a signer without a TPM, errors of TPM and socket.
    pub async fn identity(&self) -> Result<Identity, SignerError> {
        match self.socket.ask(&Request::Identity).await? {
            Answer::Identity { identity } => Ok(*identity),
            _ => Err(unexpected()),
        }
    }

    /// Gives the secret of a credential back: `id_object` a `TPM2B_ID_OBJECT`, `encrypted_seed` a
    /// `TPM2B_ENCRYPTED_SECRET`.
    ///
    /// # Errors
    /// [`SignerError::TpmRefused`] for the credential of another TPM, errors of TPM and socket.
    pub async fn activate(&self, id_object: &[u8], encrypted_seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SignerError> {
        match self.socket.ask(&Request::Activate { id_object, encrypted_seed }).await? {
            Answer::Secret { secret } => Ok(secret.0),
            _ => Err(unexpected()),
        }
    }

    /// Quotes PCRs, each below 24, for a verifier's nonce and the head of the ledger.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`], errors of TPM and socket.
    pub async fn quote(
        &self,
        nonce: [u8; 32],
        checkpoint: &CheckpointRequest<'_>,
        pcrs: &[u8],
    ) -> Result<Quote, SignerError> {
        checkpoint.validate()?;
        let CheckpointRequest { tree_size, root, sig_structure: bytes } = *checkpoint;
        match self.socket.ask(&Request::Quote { nonce, tree_size, root, bytes, pcrs }).await? {
            Answer::Quote { quote } => Ok(quote),
            _ => Err(unexpected()),
        }
    }

    /// A log of what was measured; none if the machine has no such log.
    ///
    /// # Errors
    /// [`SignerError::AttestationLog`] if it cannot be read, errors of the socket.
    pub async fn log(&self, log: Log) -> Result<Option<Vec<u8>>, SignerError> {
        match self.socket.ask(&Request::Log { log }).await? {
            Answer::Log { bytes } => Ok(bytes),
            _ => Err(unexpected()),
        }
    }
}
