//! What the TPM says about the machine and its keys: quotes, certifications, activation.

use std::sync::Arc;

use stele_evidence::{
    Attestation, Attested, Credential, Digest, HashAlgorithm, PcrSelection, PcrValues, TpmSignature,
    key_qualifying_data, quote_qualifying_data,
};
use tss_esapi::{
    Error,
    interface_types::algorithm::HashingAlgorithm,
    structures::{PcrSelectionList, PcrSlot},
    traits::Marshall,
};
use zeroize::Zeroizing;

use crate::{
    attested::{Certification, Quote},
    error::SignerError,
    request::CheckpointRequest,
    tpm::{
        connection::{Connection, Key},
        device::{TpmDevice, Worker},
        fault::Fault,
        key_file::TpmKeyFile,
        signer::TpmSigner,
    },
};

/// Quotes that are taken until one agrees with the values read beside it; the kernel may extend a PCR in between.
const QUOTES_MAX: u32 = 5;

/// A quote of PCRs that answers a verifier and names the head of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct QuoteRequest<'a> {
    /// The verifier's nonce.
    pub nonce: [u8; 32],
    /// The signed tree head that the quote speaks for.
    pub checkpoint: CheckpointRequest<'a>,
    /// PCRs of the SHA-256 bank, each below 24.
    pub pcrs: &'a [u8],
}

/// A quote that binds a key outside the TPM to this machine.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuoteRequest<'a> {
    /// The key, `SubjectPublicKeyInfo` in DER.
    pub spki: &'a [u8],
    /// PCRs of the SHA-256 bank, each below 24.
    pub pcrs: &'a [u8],
}

/// By what a TPM is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationIdentity {
    /// `TPM2B_PUBLIC` of the endorsement key: of those that the maker certified the first on P-256, P-384 or with RSA.
    pub endorsement_key: Vec<u8>,
    /// The maker's certificate of the endorsement key, DER, as long as its place; `None` if the TPM has none.
    pub endorsement_certificate: Option<Vec<u8>>,
    /// `TPM2B_PUBLIC` of the attestation key.
    pub attestation_key: Vec<u8>,
}

/// Asks a TPM to attest.
#[derive(Clone, Debug)]
pub struct TpmAttestor {
    device: TpmDevice,
}

impl TpmAttestor {
    /// An attestor of this TPM.
    #[must_use]
    pub fn new(device: &TpmDevice) -> Self {
        Self { device: device.clone() }
    }

    /// Endorsement key, its certificate, and attestation key.
    ///
    /// # Errors
    /// Errors of the TPM.
    pub async fn identity(&self) -> Result<AttestationIdentity, SignerError> {
        let work = |worker: &mut Worker| {
            worker.attempt(|connection| {
                let endorsement = connection.endorsement()?;
                Ok(AttestationIdentity {
                    endorsement_key: sized(&connection.public(Key::Endorsement(endorsement))?.marshall()?),
                    endorsement_certificate: connection.endorsement_certificate(endorsement)?,
                    attestation_key: sized(&connection.public(Key::Attestation)?.marshall()?),
                })
            })
        };
        self.device.queue().call(work).await
    }

    /// Gives the secret of a credential back, which proves that this TPM holds both keys.
    ///
    /// # Errors
    /// [`SignerError::TpmRefused`] or [`SignerError::TpmKeyForeign`] for a credential of another TPM or another attestation
    /// key, and errors of the TPM.
    pub async fn activate(&self, credential: Credential) -> Result<Zeroizing<Vec<u8>>, SignerError> {
        self.device.queue().call(move |worker| worker.attempt(|connection| connection.activate(&credential))).await
    }

    /// Quotes PCRs, qualified by nonce and checkpoint ([`quote_qualifying_data`]).
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`], and errors of the TPM.
    pub async fn quote(&self, request: &QuoteRequest<'_>) -> Result<Quote, SignerError> {
        request.checkpoint.validate()?;
        let data = quote_qualifying_data(&request.nonce, request.checkpoint.sig_structure);
        self.quote_qualified(data, request.pcrs).await
    }

    /// Quotes PCRs, qualified by a key ([`key_qualifying_data`]).
    ///
    /// # Errors
    /// As [`Self::quote`].
    pub async fn quote_key(&self, request: &KeyQuoteRequest<'_>) -> Result<Quote, SignerError> {
        /// The longest key of the suites that are reserved has 3 KiB.
        const SPKI_LENGTH_MAX: usize = 4096;
        if request.spki.is_empty() || request.spki.len() > SPKI_LENGTH_MAX {
            return Err(SignerError::MalformedRequest { reason: "the key is empty or too long" });
        }
        self.quote_qualified(key_qualifying_data(request.spki), request.pcrs).await
    }

    /// Certifies a key of this TPM, qualified by the key itself ([`key_qualifying_data`]): the statement does not age.
    ///
    /// # Errors
    /// Errors of the TPM.
    pub async fn certify(&self, signer: &TpmSigner) -> Result<Certification, SignerError> {
        let key: Arc<TpmKeyFile> = Arc::clone(signer.key());
        let data = key_qualifying_data(&key.public_key().spki_der);
        let work = move |worker: &mut Worker| {
            worker.attempt(|connection| {
                let (attest, signature) = connection.certify(Key::Signing(&key), data.as_bytes())?;
                let public = key.public().as_bytes().to_vec();
                Ok(Certification { message: attest.marshall()?, signature: signature.marshall()?, public })
            })
        };
        self.device.queue().call(work).await
    }

    async fn quote_qualified(&self, data: Digest, pcrs: &[u8]) -> Result<Quote, SignerError> {
        let unknown = SignerError::MalformedRequest { reason: "a PCR is not below 24, or there is none" };
        let selection = PcrSelection::new(HashAlgorithm::Sha256, pcrs).filter(|_| !pcrs.is_empty()).ok_or(unknown)?;
        let work = move |worker: &mut Worker| worker.attempt(|connection| quote(connection, &data, &selection));
        self.device.queue().call(work).await
    }
}

/// Quotes and reads until both say the same.
fn quote(connection: &mut Connection, data: &Digest, selection: &PcrSelection) -> Result<Quote, Fault> {
    let indices: Vec<u8> = selection.iter().map(|(_, pcr)| pcr).collect();
    for _ in 0..QUOTES_MAX {
        let (attest, signature) = connection.quote(data.as_bytes(), selection_list(&indices)?)?;
        let values = read_values(connection, &indices)?;
        let (message, signature) = (attest.marshall()?, signature.marshall()?);
        if agrees(&message, &signature, selection, &values)
            && let Some(pcrs) = values.to_tools(selection)
        {
            return Ok(Quote { message, signature, pcrs });
        }
    }
    // Something extends them without pause.
    Err(Fault::Busy)
}

fn agrees(message: &[u8], signature: &[u8], selection: &PcrSelection, values: &PcrValues) -> bool {
    let (Ok(attestation), Ok(signature)) = (Attestation::parse(message), TpmSignature::parse(signature)) else {
        return false;
    };
    let Attested::Quote { digest, .. } = attestation.attested else { return false };
    values.quote_digest(selection, signature.hash).is_some_and(|computed| computed.as_bytes() == digest)
}

/// A TPM gives eight values at once.
pub(super) fn read_values(connection: &mut Connection, indices: &[u8]) -> Result<PcrValues, Fault> {
    let mut values = PcrValues::default();
    for some in indices.chunks(8) {
        let (_, digests) = connection.read_pcrs(selection_list(some)?)?;
        for (index, digest) in some.iter().zip(digests) {
            if let Ok(digest) = Digest::new(HashAlgorithm::Sha256, digest.value()) {
                values.insert(*index, digest);
            }
        }
    }
    Ok(values)
}

pub(super) fn selection_list(indices: &[u8]) -> Result<PcrSelectionList, Error> {
    let slots: Result<Vec<PcrSlot>, Error> = indices.iter().map(|index| PcrSlot::try_from(1_u32 << index)).collect();
    PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots?).build()
}

/// A `TPM2B`. Public areas are far shorter than its 64 KiB.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    [&length.to_be_bytes(), bytes].concat()
}
