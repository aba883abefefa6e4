//! What this node's TPM says to verifiers: one quote at a time for each, bound to the head of the ledger.
//!
//! A quote costs a chip some 300 ms, and the same chip signs checkpoints. So one request at a time goes to it, on a
//! connection that votes do not use; quotes have a rate, of which half is for regulators and operators and a party takes one
//! in five seconds at most; and those who bring no nonce share one for a second.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stele_evidence::exchange::Identity;
use stele_evidence::{EvidencePackage, PackageError, Public};
use stele_hsm::remote::wire::{self, Log, Role};
use stele_hsm::remote::{RemoteAttestor, SignerSocket};
use stele_hsm::{CheckpointRequest, SignerError, SignerKind};
use stele_types::PartyId;
use stele_types::cbor::Blob;
use stele_types::signer::{self, CheckpointSigner, KeyAttestation, TpmIdentity};
use zeroize::Zeroizing;

use crate::api::SealedHead;
use crate::metrics::Metrics;

/// Quotes that may be asked for at once after a pause, by each side.
const QUOTES_BURST: f64 = 4.0;
/// Quotes a second in the long run, of each side.
const QUOTES_PER_SECOND: f64 = 0.5;
/// Least time between two quotes of one party.
const PARTY_PAUSE: Duration = Duration::from_secs(5);
/// Parties that are remembered for it.
const PARTIES_MAX: usize = 1024;
/// How long the identity is given again: what a TPM says of keys does not age, but the machine may get another TPM.
const IDENTITY_FOR: Duration = Duration::from_secs(60);
/// How long a quote without a nonce is given again.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// Nonce of quotes that nobody brought one for: their age shows in the checkpoint alone.
pub(crate) const NO_NONCE: [u8; 32] = [0; 32];

/// Why nothing was attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// No checkpoint is signed yet that a quote could speak for.
    #[error("no checkpoint is signed yet")]
    NoCheckpoint,
    /// Too many quotes were asked for.
    #[error("too many quotes were asked for")]
    Saturated {
        /// When there will be one.
        retry_after: Duration,
    },
    /// The signer, or its TPM.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// What the signer gives is no evidence.
    #[error("the evidence of the signer cannot be packed: {0}")]
    Package(#[from] PackageError),
    /// The keys of the TPM cannot be read.
    #[error("the signer gives no keys of a TPM")]
    Identity,
}

/// Who asks for a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A regulator, or who runs a validator.
    Overseer,
    /// Another party.
    Party(PartyId),
}

/// Asks `stele-signer` to attest.
pub struct Attestor {
    remote: RemoteAttestor,
    pcrs: Vec<u8>,
    metrics: Arc<Metrics>,
    rates: Mutex<Rates>,
    /// Held by whoever asks the TPM.
    turn: tokio::sync::Mutex<()>,
    identity: tokio::sync::Mutex<Option<(Instant, wire::Identity)>>,
    shared: tokio::sync::Mutex<Option<(Instant, Arc<EvidencePackage>)>>,
}

impl Attestor {
    /// The attestor of the signer that listens at `socket`; `pcrs` are quoted, or those of the signer if there are none. To
    /// be called within a runtime.
    pub fn new(socket: &Path, pcrs: Vec<u8>, metrics: Arc<Metrics>) -> Self {
        Self {
            remote: SignerSocket::new(socket).attestor(),
            pcrs,
            metrics,
            rates: Mutex::new(Rates::new(Instant::now())),
            turn: tokio::sync::Mutex::default(),
            identity: tokio::sync::Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// By what TPM and keys are known.
    ///
    /// # Errors
    /// `Signer`, `Identity`.
    pub async fn identity(&self) -> Result<Identity, AttestError> {
        let known = self.known().await?;
        let public = Public::parse_sized(&known.attestation_key).map_err(|_| AttestError::Identity)?;
        Ok(Identity {
            endorsement_key: known.endorsement_key,
            endorsement_certificate: known.endorsement_certificate,
            attestation_key: known.attestation_key,
            attestation_key_name: public.name(),
            keys: known.keys.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }

    /// What shows where the checkpoint key is, for bundles that name their signer.
    ///
    /// # Errors
    /// `Signer`, `Identity`.
    pub async fn checkpoint_signer(&self) -> Result<CheckpointSigner, AttestError> {
        let known = self.known().await?;
        let key = known.keys.into_iter().find(|key| key.key.role == Role::Seal).ok_or(AttestError::Identity)?;
        let provider = provider(key.key.kind()?);
        let attestation = match (key.certification, key.quote) {
            (Some(certification), _) => Some(KeyAttestation {
                message: blob(certification.message)?,
                signature: blob(certification.signature)?,
                public_area: Some(blob(certification.public)?),
                pcr_values: None,
            }),
            (None, Some(quote)) => Some(KeyAttestation {
                message: blob(quote.message)?,
                signature: blob(quote.signature)?,
                public_area: None,
                pcr_values: Some(blob(quote.pcrs)?),
            }),
            (None, None) => None,
        };
        let tpm = TpmIdentity {
            endorsement_key: blob(known.endorsement_key)?,
            endorsement_certificate: known.endorsement_certificate.map(blob).transpose()?,
            attestation_key: blob(known.attestation_key)?,
        };
        Ok(CheckpointSigner { provider, tpm: Some(tpm), attestation })
    }

    /// Opens a credential.
    ///
    /// # Errors
    /// `Signer`.
    pub async fn activate(&self, id_object: &[u8], encrypted_seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, AttestError> {
        self.spend(Asker::Overseer)?;
        let _turn = self.turn.lock().await;
        Ok(self.remote.activate(id_object, encrypted_seed).await?)
    }

    /// Evidence for a verifier's nonce.
    ///
    /// # Errors
    /// See [`AttestError`].
    pub async fn quote(
        &self,
        nonce: [u8; 32],
        checkpoint: Option<&SealedHead>,
        asker: Asker,
    ) -> Result<EvidencePackage, AttestError> {
        let checkpoint = checkpoint.ok_or(AttestError::NoCheckpoint)?;
        self.spend(asker)?;
        self.ask(nonce, checkpoint).await
    }

    async fn ask(&self, nonce: [u8; 32], checkpoint: &SealedHead) -> Result<EvidencePackage, AttestError> {
        let _turn = self.turn.lock().await;
        let started = Instant::now();
        let quoted = self.package(nonce, checkpoint).await;
        self.metrics.attest.quoted(quoted.is_ok(), started.elapsed());
        quoted
    }

    /// Evidence without a nonce, the same for all who ask within a second.
    ///
    /// # Errors
    /// See [`AttestError`].
    pub async fn shared(&self, checkpoint: Option<&SealedHead>) -> Result<Arc<EvidencePackage>, AttestError> {
        // Those who ask meanwhile wait for this one.
        let mut shared = self.shared.lock().await;
        if let Some((quoted_at, package)) = &*shared
            && quoted_at.elapsed() < SHARED_FOR
        {
            return Ok(Arc::clone(package));
        }
        let package = Arc::new(self.ask(NO_NONCE, checkpoint.ok_or(AttestError::NoCheckpoint)?).await?);
        *shared = Some((Instant::now(), Arc::clone(&package)));
        Ok(package)
    }

    /// A log of what was measured.
    ///
    /// # Errors
    /// `Signer`.
    pub async fn log(&self, log: Log) -> Result<Option<Vec<u8>>, AttestError> {
        Ok(self.remote.log(log).await?)
    }

    async fn package(&self, nonce: [u8; 32], head: &SealedHead) -> Result<EvidencePackage, AttestError> {
        let sig_structure = head.checkpoint.signing_bytes(&head.log_root);
        let request = CheckpointRequest {
            tree_size: head.checkpoint.log_size,
            root: head.log_root.0,
            sig_structure: &sig_structure,
        };
        let identity = self.known().await?;
        let quote = self.remote.quote(nonce, &request, &self.pcrs).await?;
        // After the quote: what is measured meanwhile is in the log and not in the quote, which verifiers tell apart.
        let (event_log, ima_log) = (self.remote.log(Log::Boot).await?, self.remote.log(Log::Ima).await?);
        Ok(EvidencePackage {
            nonce,
            sig_structure,
            quote_message: quote.message,
            quote_signature: quote.signature,
            pcrs: quote.pcrs,
            attestation_key: identity.attestation_key,
            event_log,
            ima_log,
            manifest: self.remote.log(Log::Manifest).await?,
            keys: identity.keys.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }

    /// What the signer says of TPM and keys, asked by one for all who want to know.
    async fn known(&self) -> Result<wire::Identity, AttestError> {
        let mut identity = self.identity.lock().await;
        if let Some((asked_at, known)) = &*identity
            && asked_at.elapsed() < IDENTITY_FOR
        {
            return Ok(known.clone());
        }
        let known = self.remote.identity().await?;
        *identity = Some((Instant::now(), known.clone()));
        Ok(known)
    }

    fn spend(&self, asker: Asker) -> Result<(), AttestError> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.spend(asker, Instant::now()).map_err(|retry_after| AttestError::Saturated { retry_after })
    }
}

/// How many quotes who may have.
struct Rates {
    overseers: Bucket,
    parties: Bucket,
    asked: HashMap<PartyId, Instant>,
}

impl Rates {
    fn new(now: Instant) -> Self {
        Self { overseers: Bucket::full(now), parties: Bucket::full(now), asked: HashMap::new() }
    }

    /// Takes a quote for who asks, or says when there will be one.
    fn spend(&mut self, asker: Asker, now: Instant) -> Result<(), Duration> {
        let Asker::Party(party) = asker else { return self.overseers.spend(now) };
        let passed = self.asked.get(&party).map(|asked| now.saturating_duration_since(*asked));
        if let Some(wait) = passed.and_then(|passed| PARTY_PAUSE.checked_sub(passed)).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.parties.spend(now)?;
        if self.asked.len() >= PARTIES_MAX {
            self.asked.retain(|_, asked| now.saturating_duration_since(*asked) < PARTY_PAUSE);
        }
        self.asked.insert(party, now);
        Ok(())
    }
}

/// Tokens that come back with time.
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    const fn full(now: Instant) -> Self {
        Self { tokens: QUOTES_BURST, filled_at: now }
    }

    /// Takes a token, or says when there will be one.
    fn spend(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = passed.mul_add(QUOTES_PER_SECOND, self.tokens).min(QUOTES_BURST);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / QUOTES_PER_SECOND))
    }
}

/// A part of a bundle; what is longer than any TPM's is no evidence.
fn blob<const MAX: usize>(bytes: Vec<u8>) -> Result<Blob<MAX>, AttestError> {
    Blob::new(bytes).map_err(|_| AttestError::Identity)
}

/// Where a key is, as bundles say it.
pub(crate) const fn provider(kind: SignerKind) -> signer::KeyProvider {
    match kind {
        SignerKind::Tpm => signer::KeyProvider::Tpm,
        SignerKind::Pkcs11 => signer::KeyProvider::Pkcs11,
        SignerKind::Software => signer::KeyProvider::Software,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_given_and_then_one_in_two_seconds() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        for _ in 0..4 {
            bucket.spend(start).unwrap();
        }
        let wait = bucket.spend(start + Duration::from_millis(500)).unwrap_err();
        assert!(wait > Duration::from_millis(1490) && wait <= Duration::from_millis(1500), "{wait:?}");
        bucket.spend(start + Duration::from_millis(2010)).unwrap();
        // A long pause fills it and no more.
        for _ in 0..4 {
            bucket.spend(start + Duration::from_secs(3600)).unwrap();
        }
        bucket.spend(start + Duration::from_secs(3600)).unwrap_err();
    }

    #[test]
    fn parties_take_nothing_from_each_other_nor_from_overseers() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let party = |number| Asker::Party(PartyId([number; 16]));
        rates.spend(party(1), start).unwrap();
        let wait = rates.spend(party(1), start + Duration::from_secs(2)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(3), "a party's own pause");
        rates.spend(party(2), start + Duration::from_secs(2)).unwrap();
        rates.spend(party(1), start + Duration::from_secs(5)).unwrap();
        for number in 3..200 {
            rates.spend(party(number), start + Duration::from_secs(5)).ok();
        }
        rates.spend(party(201), start + Duration::from_secs(5)).unwrap_err();
        rates.spend(Asker::Overseer, start + Duration::from_secs(5)).unwrap();
        assert!(rates.asked.len() <= PARTIES_MAX);
    }
}
