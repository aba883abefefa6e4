//! One conversation with the TPM: context, session, and the keys that are loaded.

use stele_evidence::Credential;
use tss_esapi::{
    Context, Error,
    attributes::SessionAttributesBuilder,
    constants::{
        CapabilityType, SessionType, StartupType,
        tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK},
    },
    handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        Attest, CapabilityData, Data, Digest, EncryptedSecret, HashcheckTicket, IdObject, PcrSelectionList, Private,
        Public, Signature, SignatureScheme, SymmetricDefinition,
    },
    tcti_ldr::TctiNameConf,
    traits::UnMarshall,
    tss2_esys::TPMT_TK_HASHCHECK,
};
use zeroize::Zeroizing;

use crate::tpm::{endorsement::Endorsement, fault::Fault, key_file::TpmKeyFile, template};

/// A key that the TPM can load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'a> {
    /// Parent of signing keys.
    Storage,
    /// Signs attestations.
    Attestation,
    /// Opens credentials.
    Endorsement(Endorsement),
    /// Signs.
    Signing(&'a TpmKeyFile),
}

/// How a loaded key is told from another.
#[derive(Debug, PartialEq, Eq)]
enum KeyId {
    Storage,
    Attestation,
    Endorsement(Endorsement),
    Signing(stele_evidence::Name),
}

impl Key<'_> {
    fn id(&self) -> KeyId {
        match self {
            Self::Storage => KeyId::Storage,
            Self::Attestation => KeyId::Attestation,
            Self::Endorsement(endorsement) => KeyId::Endorsement(*endorsement),
            Self::Signing(file) => KeyId::Signing(file.public().name()),
        }
    }
}

/// A conversation that lasts until the TPM is lost or reset.
pub(super) struct Connection {
    context: Context,
    session: AuthSession,
    /// Keys that are loaded.
    loaded: Vec<(KeyId, KeyHandle)>,
}

impl Connection {
    /// Connects and starts the session. `alone`: there is no resource manager in between, and so nobody else.
    pub(super) fn open(tcti: TctiNameConf, alone: bool) -> Result<Self, Fault> {
        let mut context = Context::new(tcti)?;
        if alone {
            flush_strangers(&mut context)?;
        }
        let storage = match create_primary(&mut context, Hierarchy::Owner, template::storage_key()?) {
            // Nobody has started it since it was switched on: the kernel does for its device, a bare emulator's socket
            // has no one else.
            Err(Fault::Reset) => {
                context.execute_without_session(|context| context.startup(StartupType::Clear))?;
                create_primary(&mut context, Hierarchy::Owner, template::storage_key()?)?
            }
            other => other?,
        };
        let session = start_session(&mut context, Some(storage), SessionType::Hmac)?;
        Ok(Self { context, session, loaded: vec![(KeyId::Storage, storage)] })
    }

    /// Makes a signing key.
    pub(super) fn create_signing_key(&mut self) -> Result<(Public, Private), Fault> {
        let parent = self.load(Key::Storage)?;
        let made =
            self.authorized(|context| context.create(parent, template::signing_key()?, None, None, None, None))?;
        Ok((made.out_public, made.out_private))
    }

    /// Public area of a key.
    pub(super) fn public(&mut self, key: Key<'_>) -> Result<Public, Fault> {
        let handle = self.load(key)?;
        let (public, ..) = self.context.execute_without_session(|context| context.read_public(handle))?;
        Ok(public)
    }

    /// Signs a SHA-256 digest.
    pub(super) fn sign(&mut self, key: Key<'_>, digest: &[u8; 32]) -> Result<Signature, Fault> {
        let handle = self.load(key)?;
        let digest = Digest::try_from(digest.to_vec())?;
        let ticket = no_ticket()?;
        let signed = self.authorized(|context| context.sign(handle, digest, SignatureScheme::Null, ticket))?;
        Ok(signed)
    }

    /// Quotes PCRs.
    pub(super) fn quote(&mut self, data: &[u8], selection: PcrSelectionList) -> Result<(Attest, Signature), Fault> {
        let key = self.load(Key::Attestation)?;
        let data = Data::try_from(data.to_vec())?;
        let quoted = self.authorized(|context| context.quote(key, data, SignatureScheme::Null, selection))?;
        Ok(quoted)
    }

    /// Values of PCRs, as many as the TPM gives at once, with the selection that they are of.
    pub(super) fn read_pcrs(&mut self, selection: PcrSelectionList) -> Result<(PcrSelectionList, Vec<Digest>), Fault> {
        let (_, read, digests) = self.context.execute_without_session(|context| context.pcr_read(selection))?;
        Ok((read, digests.value().to_vec()))
    }

    /// Lets the attestation key say that a key is of this TPM.
    pub(super) fn certify(&mut self, key: Key<'_>, data: &[u8]) -> Result<(Attest, Signature), Fault> {
        let signer = self.load(Key::Attestation)?;
        let object = self.load(key)?;
        let data = Data::try_from(data.to_vec())?;
        // One session can authorize one of the two; the object has no password to hide.
        let sessions = (Some(AuthSession::Password), Some(self.session), None);
        let certified = self.context.execute_with_sessions(sessions, |context| {
            context.certify(object.into(), signer, data, SignatureScheme::Null)
        })?;
        Ok(certified)
    }

    /// Gives the secret of a credential back.
    pub(super) fn activate(&mut self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let endorsement = self.endorsement()?;
        let keys = (self.load(Key::Attestation)?, self.load(Key::Endorsement(endorsement))?);
        if endorsement.is_used_by_value() {
            return self.activate_with(AuthSession::Password, keys, credential);
        }
        let policy = start_session(&mut self.context, None, SessionType::Policy)?;
        let secret = self.satisfy(policy).and_then(|()| self.activate_with(policy, keys, credential));
        let flushed = self.context.flush_context(SessionHandle::from(policy).into());
        let secret = secret?;
        flushed?;
        Ok(secret)
    }

    /// The policy of endorsement keys of the low range is PolicySecret of the endorsement hierarchy.
    fn satisfy(&mut self, policy: AuthSession) -> Result<(), Fault> {
        let policy = PolicySession::try_from(policy)?;
        let hierarchy = AuthHandle::Endorsement;
        self.authorized(|context| {
            context.policy_secret(policy, hierarchy, Default::default(), Default::default(), Default::default(), None)
        })
        .map(drop)
    }

    /// `session` is for the endorsement key.
    fn activate_with(
        &mut self,
        session: AuthSession,
        (attestation_key, endorsement_key): (KeyHandle, KeyHandle),
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let unsized_buffer = |bytes: &[u8]| bytes.get(2..).unwrap_or_default().to_vec();
        let id_object = IdObject::try_from(unsized_buffer(&credential.id_object))?;
        let seed = EncryptedSecret::try_from(unsized_buffer(&credential.encrypted_seed))?;
        let sessions = (Some(self.session), Some(session), None);
        let secret = self.context.execute_with_sessions(sessions, |context| {
            context.activate_credential(attestation_key, endorsement_key, id_object, seed)
        })?;
        Ok(Zeroizing::new(secret.value().to_vec()))
    }

    /// Runs commands that the long session authorizes.
    pub(super) fn authorized<T>(&mut self, command: impl FnOnce(&mut Context) -> Result<T, Error>) -> Result<T, Fault> {
        let session = self.session;
        Ok(self.context.execute_with_session(Some(session), command)?)
    }

    /// Runs commands that need no authorization.
    pub(super) fn plain<T>(&mut self, command: impl FnOnce(&mut Context) -> Result<T, Error>) -> Result<T, Fault> {
        Ok(self.context.execute_without_session(command)?)
    }

    /// The context itself, for what needs a session of its own.
    pub(super) fn with_context<T>(&mut self, work: impl FnOnce(&mut Context) -> T) -> T {
        work(&mut self.context)
    }

    /// The handle of a key, loaded if it is not.
    pub(super) fn load(&mut self, key: Key<'_>) -> Result<KeyHandle, Fault> {
        let id = key.id();
        if let Some((_, handle)) = self.loaded.iter().find(|(loaded, _)| *loaded == id) {
            return Ok(*handle);
        }
        let handle = match key {
            Key::Storage => create_primary(&mut self.context, Hierarchy::Owner, template::storage_key()?)?,
            Key::Attestation => {
                create_primary(&mut self.context, Hierarchy::Endorsement, template::attestation_key()?)?
            }
            Key::Endorsement(endorsement) => {
                create_primary(&mut self.context, Hierarchy::Endorsement, endorsement.template()?)?
            }
            Key::Signing(file) => {
                let parent = self.load(Key::Storage)?;
                self.load_child(parent, file)?
            }
        };
        self.loaded.push((id, handle));
        Ok(handle)
    }

    /// Flushes every key, so that the next commands load only what they need. A TPM without a resource manager has as few
    /// as three places; with one this is never called.
    pub(super) fn make_room(&mut self) -> Result<(), Fault> {
        while let Some((_, handle)) = self.loaded.pop() {
            self.context.flush_context(ObjectHandle::from(handle))?;
        }
        Ok(())
    }

    fn load_child(&mut self, parent: KeyHandle, file: &TpmKeyFile) -> Result<KeyHandle, Fault> {
        let public = Public::unmarshall(file.public().as_bytes())?;
        let private = Private::try_from(file.private().to_vec())?;
        self.authorized(|context| context.load(parent, private, public))
    }
}

/// Flushes what a process before left loaded, because it was killed: a TPM has as few as three places. A resource manager does
/// that by itself.
fn flush_strangers(context: &mut Context) -> Result<(), Fault> {
    /// First handles of transient objects and of loaded sessions, TPM 2.0 Library part 2, section 7.2.
    const FIRST: [u32; 2] = [0x8000_0000, 0x0200_0000];
    /// More than any TPM has places.
    const HANDLES_MAX: u32 = 64;
    for first in FIRST {
        let listed = context
            .execute_without_session(|context| context.get_capability(CapabilityType::Handles, first, HANDLES_MAX));
        let handles = match listed {
            Ok((CapabilityData::Handles(handles), _)) => handles.into_inner(),
            // Nobody has started it since it was switched on, so nobody left anything.
            Ok(_) => continue,
            Err(error) => match Fault::from(error) {
                Fault::Reset => return Ok(()),
                fault => return Err(fault),
            },
        };
        for handle in handles.into_iter().filter(|handle| u32::from(*handle) >> 24 == first >> 24) {
            let object = context.execute_without_session(|context| context.tr_from_tpm_public(handle))?;
            context.execute_without_session(|context| context.flush_context(object))?;
        }
    }
    Ok(())
}

/// Derives a primary key. Hierarchies have no password on a node: who reaches the device is the operating system's to say.
fn create_primary(context: &mut Context, hierarchy: Hierarchy, template: Public) -> Result<KeyHandle, Fault> {
    let made = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.create_primary(hierarchy, template, None, None, None, None)
    })?;
    Ok(made.key_handle)
}

pub(super) fn start_session(
    context: &mut Context,
    salt: Option<KeyHandle>,
    kind: SessionType,
) -> Result<AuthSession, Fault> {
    let session = context.execute_without_session(|context| {
        context.start_auth_session(salt, None, None, kind, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)
    })?;
    // The TSS gives a session whenever it gives no error.
    let session = session.ok_or(Fault::Refused(0))?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).build();
    context.tr_sess_set_attributes(session, attributes, mask)?;
    Ok(session)
}

/// An unrestricted key signs any digest; restricted ones would want the TPM's word that it hashed the data itself.
fn no_ticket() -> Result<HashcheckTicket, Error> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })
}
