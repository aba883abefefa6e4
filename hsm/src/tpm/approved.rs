//! Secrets that this TPM gives back while its PCRs have values that a release's policy key approved.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use stele_evidence::{Approval, Digest as PolicyDigest, PlatformState, PolicyKey, approval::APPROVAL_DOMAIN};
use tss_esapi::{
    attributes::SessionAttributesBuilder,
    constants::SessionType,
    handles::{ObjectHandle, SessionHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{Digest, EccParameter, EccSignature, Name, Nonce, Private, Public, Signature, VerifiedTicket},
    traits::UnMarshall as _,
};
use zeroize::Zeroizing;

use crate::{
    error::SignerError,
    tpm::{
        attestor::{read_values, selection_list},
        connection::{Connection, Key, start_session},
        device::TpmDevice,
        fault::Fault,
        key_file::read_sealed,
        sealed::TpmSealed,
    },
};

/// Approvals that are held against the PCRs: of the release that runs, of the one before and the one after, and room.
const APPROVALS_MAX: usize = 64;

/// An approval that its key signed, as the TPM takes it.
struct Approved {
    state: PlatformState,
    signature: [u8; 64],
}

impl TpmSealed {
    /// Seals a secret under a policy key, into a new file of mode 0600: it is of this TPM and of no state, and opens in every
    /// state that the key approves. Blocks.
    ///
    /// # Errors
    /// Those of [`Self::seal`].
    pub fn seal_approved(device: &TpmDevice, secret: &[u8], key: &PolicyKey, path: &Path) -> Result<(), SignerError> {
        Self::seal_under(device, secret, Some(key.sealing_policy()), path)
    }

    /// Opens such a file by the first approval that holds now; at most 64 are looked at. `folder` is where they came from, for
    /// messages. Blocks.
    ///
    /// # Errors
    /// [`SignerError::ApprovalMissing`], [`SignerError::ApprovalForeign`], [`SignerError::ApprovalStale`],
    /// [`SignerError::SealPolicy`] for a file that was sealed otherwise, and those of [`Self::open`].
    pub fn open_approved(
        device: &TpmDevice,
        path: &Path,
        key: &PolicyKey,
        approvals: &[Approval],
        folder: &Path,
    ) -> Result<Zeroizing<Vec<u8>>, SignerError> {
        let (public, private) = read_sealed(path)?;
        if !is_sealed_under(&public, &key.sealing_policy()) {
            return Err(SignerError::SealPolicy { path: path.to_owned() });
        }
        let folder = || folder.to_owned();
        if approvals.is_empty() {
            return Err(SignerError::ApprovalMissing { folder: folder() });
        }
        let signed = approvals.iter().filter(|approval| approval.verify(key).is_ok());
        let signed: Vec<Approved> = signed.filter_map(Approved::of).take(APPROVALS_MAX).collect();
        if signed.is_empty() {
            return Err(SignerError::ApprovalForeign { folder: folder() });
        }
        let key = key.clone();
        let opened = device.queue().call_blocking(move |worker| {
            worker.attempt(|connection| {
                for approved in &signed {
                    if connection.is_in(&approved.state)? {
                        return connection.unseal_approved((&public, &private), &key, approved);
                    }
                }
                Ok(None)
            })
        });
        opened?.ok_or_else(|| SignerError::ApprovalStale { folder: folder() })
    }
}

impl Approved {
    fn of(approval: &Approval) -> Option<Self> {
        Some(Self { state: approval.state().ok()?, signature: approval.signature_fixed()? })
    }
}

impl Connection {
    fn is_in(&mut self, state: &PlatformState) -> Result<bool, Fault> {
        let indices: Vec<u8> = state.indices().collect();
        Ok(read_values(self, &indices)? == *state.values())
    }

    /// None if the PCRs changed meanwhile.
    fn unseal_approved(
        &mut self,
        sealed: (&[u8], &[u8]),
        key: &PolicyKey,
        approved: &Approved,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let ticket = self.verified(key, approved)?;
        let storage = self.load(Key::Storage)?;
        let session = self.with_context(|context| {
            let session = start_session(context, Some(storage), SessionType::Policy)?;
            // What the TPM answers is encrypted on its way.
            let (attributes, mask) =
                SessionAttributesBuilder::new().with_continue_session(true).with_encrypt(true).build();
            context.tr_sess_set_attributes(session, attributes, mask)?;
            Ok::<AuthSession, Fault>(session)
        })?;
        let secret = self.unseal_in(session, sealed, key, &approved.state, ticket);
        let flushed = self.plain(|context| context.flush_context(SessionHandle::from(session).into()));
        let secret = secret?;
        flushed?;
        Ok(secret)
    }

    /// The TPM's own word that the key signed the approval.
    fn verified(&mut self, key: &PolicyKey, approved: &Approved) -> Result<VerifiedTicket, Fault> {
        let public = Public::unmarshall(&key.public_area())?;
        let [r, s] =
            [&approved.signature[..32], &approved.signature[32..]].map(|half| EccParameter::try_from(half.to_vec()));
        let signature = Signature::EcDsa(EccSignature::create(HashingAlgorithm::Sha256, r?, s?)?);
        let digest = Digest::try_from(Sha256::digest(approved.state.message()).to_vec())?;
        let loaded = self.plain(|context| context.load_external_public(public, Hierarchy::Owner))?;
        let ticket = self.plain(|context| context.verify_signature(loaded, digest, signature));
        // At once: a TPM has as few as three places.
        self.plain(|context| context.flush_context(ObjectHandle::from(loaded)))?;
        ticket
    }

    fn unseal_in(
        &mut self,
        session: AuthSession,
        (public, private): (&[u8], &[u8]),
        key: &PolicyKey,
        state: &PlatformState,
        ticket: VerifiedTicket,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        /// TPM_RC_VALUE of the first parameter: the session's policy is not the approved one.
        const OTHER_POLICY: u32 = 0x1c4;
        let policy = PolicySession::try_from(session)?;
        let indices: Vec<u8> = state.indices().collect();
        let selection = selection_list(&indices)?;
        self.plain(|context| context.policy_pcr(policy, Digest::default(), selection))?;
        let approved = Digest::try_from(state.policy().as_bytes().to_vec())?;
        let (reference, name) = (Nonce::try_from(APPROVAL_DOMAIN.to_vec())?, Name::try_from(key.name())?);
        match self.plain(|context| context.policy_authorize(policy, approved, reference, &name, ticket)) {
            Err(Fault::Refused(OTHER_POLICY)) => return Ok(None),
            other => other?,
        }
        let parent = self.load(Key::Storage)?;
        let (public, private) = (Public::unmarshall(public)?, Private::try_from(private.to_vec())?);
        let object = self.authorized(|context| context.load(parent, private, public))?;
        let secret = self.with_context(|context| {
            context.execute_with_session(Some(session), |context| context.unseal(object.into())).map_err(Fault::from)
        });
        self.plain(|context| context.flush_context(ObjectHandle::from(object)))?;
        Ok(Some(Zeroizing::new(secret?.value().to_vec())))
    }
}

/// Whether the public area of a secret names this policy and lets nothing else open it.
fn is_sealed_under(public: &[u8], policy: &PolicyDigest) -> bool {
    let Ok(Public::KeyedHash { object_attributes, auth_policy, .. }) = Public::unmarshall(public) else { return false };
    auth_policy.value() == policy.as_bytes() && !object_attributes.user_with_auth()
}
