//! Secrets that only this TPM gives back.

use std::path::Path;

use tss_esapi::{
    Error,
    attributes::{ObjectAttributesBuilder, SessionAttributesBuilder},
    constants::SessionType,
    handles::{ObjectHandle, SessionHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        session_handles::AuthSession,
    },
    structures::{Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters, SensitiveData},
    traits::{Marshall as _, UnMarshall as _},
};
use zeroize::Zeroizing;

use crate::{
    error::SignerError,
    key_file,
    tpm::{
        connection::{Connection, Key, start_session},
        device::TpmDevice,
        fault::Fault,
        key_file::{read_sealed, sealed_to_pem},
    },
};

/// Longest secret in bytes: `MAX_SYM_DATA` of the TPM 2.0 reference code.
pub const SEALED_LENGTH_MAX: usize = 128;

/// A secret in a file that only the TPM that sealed it can open: a `TSS2 PRIVATE KEY` of type `id-sealedkey`, which
/// tpm2-tools and OpenSSL's provider name alike. On its way to and from the TPM it is encrypted under the salted session.
#[derive(Debug)]
pub struct TpmSealed;

impl TpmSealed {
    /// Seals a secret of 1 to [`SEALED_LENGTH_MAX`] bytes into a new file of mode 0600. Blocks.
    ///
    /// # Errors
    /// [`SignerError::KeyFileExists`], [`SignerError::KeyFileIo`], and errors of the TPM.
    pub fn seal(device: &TpmDevice, secret: &[u8], path: &Path) -> Result<(), SignerError> {
        Self::seal_under(device, secret, None, path)
    }

    /// Seals under a policy, or under none.
    pub(super) fn seal_under(
        device: &TpmDevice,
        secret: &[u8],
        policy: Option<stele_evidence::Digest>,
        path: &Path,
    ) -> Result<(), SignerError> {
        let secret = Zeroizing::new(secret.to_vec());
        let (public, private) = device.queue().call_blocking(move |worker| {
            worker.attempt(|connection| {
                let (public, private) = connection.seal(&secret, policy.as_ref())?;
                Ok((public.marshall()?, private.value().to_vec()))
            })
        })?;
        let pem = sealed_to_pem(&public, &private).ok_or(SignerError::SigningFailed)?;
        key_file::write_new_private(path, pem.as_bytes())
    }

    /// Opens such a file. Blocks.
    ///
    /// # Errors
    /// [`SignerError::KeyFilePermissions`], [`SignerError::KeyFileIo`], [`SignerError::TpmKeyFileMalformed`],
    /// [`SignerError::TpmKeyForeign`] for the secret of another TPM, and errors of the TPM.
    pub fn open(device: &TpmDevice, path: &Path) -> Result<Zeroizing<Vec<u8>>, SignerError> {
        let (public, private) = read_sealed(path)?;
        device.queue().call_blocking(move |worker| worker.attempt(|connection| connection.unseal(&public, &private)))
    }
}

impl Connection {
    fn seal(&mut self, secret: &[u8], policy: Option<&stele_evidence::Digest>) -> Result<(Public, Private), Fault> {
        let parent = self.load(Key::Storage)?;
        let data = SensitiveData::try_from(secret.to_vec())?;
        let template = template(policy)?;
        let made = self.confidential(|context| context.create(parent, template, None, Some(data), None, None))?;
        Ok((made.out_public, made.out_private))
    }

    fn unseal(&mut self, public: &[u8], private: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let parent = self.load(Key::Storage)?;
        let (public, private) = (Public::unmarshall(public)?, Private::try_from(private.to_vec())?);
        let object = self.authorized(|context| context.load(parent, private, public))?;
        let secret = self.confidential(|context| context.unseal(object.into()));
        self.plain(|context| context.flush_context(ObjectHandle::from(object)))?;
        Ok(Zeroizing::new(secret?.value().to_vec()))
    }

    /// Runs a command in a session of its own, whose first parameters are encrypted both ways.
    fn confidential<T>(
        &mut self,
        command: impl FnOnce(&mut tss_esapi::Context) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let storage = self.load(Key::Storage)?;
        let session = self.with_context(|context| {
            let session = start_session(context, Some(storage), SessionType::Hmac)?;
            let (attributes, mask) = SessionAttributesBuilder::new()
                .with_continue_session(true)
                .with_encrypt(true)
                .with_decrypt(true)
                .build();
            context.tr_sess_set_attributes(session, attributes, mask)?;
            Ok::<AuthSession, Fault>(session)
        })?;
        let done = self.with_context(|context| Ok::<_, Fault>(context.execute_with_session(Some(session), command)))?;
        let flushed = self.plain(|context| context.flush_context(SessionHandle::from(session).into()));
        let done = done?;
        flushed?;
        Ok(done)
    }
}

/// Data that was brought from outside, bound to this TPM. It has no password to guess; under a policy nothing else opens it.
fn template(policy: Option<&stele_evidence::Digest>) -> Result<Public, Error> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(policy.is_none())
        .with_admin_with_policy(policy.is_some())
        .with_no_da(true)
        .build()?;
    let policy = policy.map(|digest| Digest::try_from(digest.as_bytes().to_vec())).transpose()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy.unwrap_or_default())
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Default::default())
        .build()
}
