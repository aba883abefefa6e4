//! A custody key of another process.

use std::fmt;

use async_trait::async_trait;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;

use crate::{
    custody::{ClassKey, Custodian, CustodyPublicKey, OpenClassKeys, SealedClassKey},
    error::SignerError,
    kind::SignerKind,
    remote::{
        socket::{SignerSocket, unexpected},
        wire::{Answer, KeyBytes, KeyDescription, Request},
    },
};

/// The custody key that `stele-signer` holds. It opens class keys, which then are in this process's memory, as many as a
/// network has classes and nodes; bodies under those that are open do not wait for the signer.
///
/// An answer is not sealed on its way: it goes through a socket of this machine's kernel, between two processes that both have
/// the class key in clear, and whoever could read it there could read either's memory.
pub struct RemoteCustodian {
    socket: SignerSocket,
    name: KeyBytes,
    public_key: CustodyPublicKey,
    open: OpenClassKeys,
}

impl RemoteCustodian {
    /// The key of a description, which must be of the kind that the caller expects.
    ///
    /// # Errors
    /// [`SignerError::SignerKey`], [`SignerError::SignerAnswer`] if it describes no key.
    pub(super) fn new(socket: &SignerSocket, key: &KeyDescription, kind: SignerKind) -> Result<Self, SignerError> {
        if key.kind()? != kind {
            let reason = "another backend holds it than the configuration names";
            return Err(SignerError::SignerKey { role: key.role.name(), reason });
        }
        let invalid = SignerError::SignerAnswer { reason: "its key is no point of P-256" };
        let point = p256::PublicKey::from_sec1_bytes(&key.public_key).ok();
        let public_key = point.and_then(|point| point.to_encoded_point(false).as_bytes().try_into().ok());
        let public_key = public_key.ok_or(invalid)?;
        Ok(Self { socket: socket.clone(), name: key.public_key, public_key, open: OpenClassKeys::default() })
    }
}

#[async_trait]
impl Custodian for RemoteCustodian {
    fn public_key(&self) -> &CustodyPublicKey {
        &self.public_key
    }

    async fn class_key(&self, key: &SealedClassKey) -> Result<ClassKey, SignerError> {
        if let Some(known) = self.open.find(&key.name) {
            return Ok(known);
        }
        let Answer::Secret { secret } = self.socket.ask(&Request::open_class_key(self.name, key)).await? else {
            return Err(unexpected());
        };
        let opened = ClassKey::from_bytes(&secret.0)?;
        self.open.keep(key.name, &opened);
        Ok(opened)
    }
}

impl fmt::Debug for RemoteCustodian {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RemoteCustodian").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}
