//! What the node's TPM says, for regulators' own tools: raw TCG bytes, in JSON, tar or a CMW collection.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use stele_evidence::EvidencePackage;
use stele_evidence::exchange::{Activated, Activation, Challenge};
use stele_evidence::package::PackageEncoding;
use stele_hsm::remote::wire::Log;
use stele_types::party::Role;
use stele_types::{CheckpointSigner, Code};
use tracing::info;

use super::access::Caller;
use super::body::content_type;
use super::cache;
use super::format::{self, JSON, OCTETS};
use super::parameters::Named;
use super::problem::Problem;
use super::router::State;
use super::view::{ActivatedView, ActivationView, ChallengeView, IdentityView, OctetsView};
use crate::attestor::{Asker, AttestError, Attestor, provider};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Code of a signer that has no TPM.
const NO_TPM: &str = "attestation_missing";

/// Media types of a package; the first is the default.
const ENCODINGS: [PackageEncoding; 3] = PackageEncoding::ALL;

/// Endorsement key and certificate, attestation key, and what the TPM says of the node's keys.
#[utoipa::path(
    get, path = "/v1/attest/identity", tag = "attestation",
    responses(
        (status = 200, description = "Claims, until a credential and the keys' proofs show them", body = IdentityView),
        (status = "4XX", description = "The node has no TPM", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn identity(Extract(state): Extract<State>, headers: HeaderMap) -> Result<Response, Problem> {
    format::choose(&headers, &[JSON])?;
    let identity = attestor(&state)?.identity().await.map_err(problem)?;
    Ok(cache::volatile(format::json(&identity)))
}

/// Opens a credential: who gets its secret back knows that one TPM holds endorsement and attestation key.
#[utoipa::path(
    post, path = "/v1/attest/activate", tag = "attestation",
    request_body(content = ActivationView),
    responses(
        (status = 200, description = "The secret", body = ActivatedView),
        (status = "4XX", description = "The credential is not for this TPM", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn activate(Extract(state): Extract<State>, request: Request) -> Result<Response, Problem> {
    let asked: Activation = read(request, "send the base64 of id_object and encrypted_seed").await?;
    let opened = attestor(&state)?.activate(&asked.id_object, &asked.encrypted_seed).await.map_err(problem)?;
    // The verifier's own secret, of use once: it goes out in clear.
    Ok(cache::volatile(format::json(&Activated { secret: opened.to_vec() })))
}

/// Quotes the PCRs for the verifier's nonce and the newest signed checkpoint.
#[utoipa::path(
    post, path = "/v1/attest/quote", tag = "attestation",
    request_body(content = ChallengeView),
    responses(
        (status = 200, description = "Quote, logs, manifest and proofs of keys; by Accept also application/x-tar and application/cmw+cbor", body = OctetsView, content_type = "application/json"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn quote(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let encoding = choose(&headers)?;
    let asked: Challenge = read(request, "send {\"nonce\": \"64 hexadecimal digits\"}").await?;
    let attestor = attestor(&state)?;
    let head = state.backend.checkpoint();
    let client = caller.party()?;
    let asker = match client.roles.contains(Role::Regulator) || client.roles.contains(Role::Operator) {
        true => Asker::Overseer,
        false => Asker::Party(client.party),
    };
    let package = attestor.quote(asked.nonce, head.as_ref(), asker).await.map_err(problem)?;
    info!(party = %client.party, height = head.map(|head| head.checkpoint.height.0), "quoted");
    pack(&package, encoding)
}

/// The same without a nonce: one for all who ask within a second, as old as the checkpoint in it.
#[utoipa::path(
    get, path = "/v1/attest/evidence", tag = "attestation",
    responses(
        (status = 200, description = "As /v1/attest/quote, for a nonce of zeros", body = OctetsView, content_type = "application/json"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn evidence(Extract(state): Extract<State>, headers: HeaderMap) -> Result<Response, Problem> {
    let encoding = choose(&headers)?;
    let attestor = attestor(&state)?;
    let package = attestor.shared(state.backend.checkpoint().as_ref()).await.map_err(problem)?;
    pack(&package, encoding)
}

/// What was measured: `boot` by the firmware, `ima` by the kernel; or the release `manifest` with its predictions.
#[utoipa::path(
    get, path = "/v1/attest/log/{log}", tag = "attestation",
    params(("log" = String, Path, description = "boot, ima or manifest")),
    responses(
        (status = 200, description = "As the kernel gives it", body = OctetsView, content_type = "application/octet-stream"),
        (status = "4XX", description = "The machine has no such log", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn log(
    Extract(state): Extract<State>,
    Named(name): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (log, media_type) = match name.as_str() {
        "boot" => (Log::Boot, OCTETS),
        "ima" => (Log::Ima, OCTETS),
        "manifest" => (Log::Manifest, JSON),
        _ => return Err(Problem::not_found("log")),
    };
    format::choose(&headers, &[media_type])?;
    let bytes = attestor(&state)?.log(log).await.map_err(problem)?;
    let bytes = bytes.ok_or_else(|| Problem::new(Code::NotFound).detail("this machine has no such log"))?;
    Ok(cache::volatile(format::bytes(media_type, bytes)))
}

/// What is known of the checkpoint key: what the TPM says of it, or the kind of its signer where no TPM is.
pub(super) async fn checkpoint_signer(state: &State) -> Result<CheckpointSigner, Problem> {
    let bare =
        CheckpointSigner { provider: provider(state.backend.checkpoint_key_kind()), tpm: None, attestation: None };
    let Some(attestor) = state.backend.attestor() else { return Ok(bare) };
    match attestor.checkpoint_signer().await {
        Err(AttestError::Signer(failed)) if failed.code() == NO_TPM => Ok(bare),
        other => other.map_err(problem),
    }
}

fn attestor(state: &State) -> Result<Arc<Attestor>, Problem> {
    state.backend.attestor().ok_or_else(no_tpm)
}

fn no_tpm() -> Problem {
    Problem::new(Code::NotFound).detail("this node has no TPM: it cannot attest")
}

async fn read<T: for<'de> Deserialize<'de>>(request: Request, hint: &'static str) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    content_type(&parts.headers, &[JSON])?;
    let malformed = || Problem::new(Code::Malformed).detail(hint);
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| malformed())?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| malformed())
}

fn choose(headers: &HeaderMap) -> Result<PackageEncoding, Problem> {
    let offered = ENCODINGS.map(PackageEncoding::media_type);
    let chosen = format::choose(headers, &offered)?;
    Ok(ENCODINGS.into_iter().find(|encoding| encoding.media_type() == chosen).unwrap_or(PackageEncoding::Json))
}

fn pack(package: &EvidencePackage, encoding: PackageEncoding) -> Result<Response, Problem> {
    let bytes = package.encode(encoding).map_err(|error| problem(error.into()))?;
    Ok(cache::volatile(format::bytes(encoding.media_type(), bytes)))
}

fn problem(error: AttestError) -> Problem {
    let milliseconds = |wait: Duration| Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1));
    match &error {
        AttestError::NoCheckpoint => Problem::new(Code::NotReady).detail("no checkpoint is signed yet; ask again"),
        AttestError::Saturated { retry_after } => {
            let detail = "the TPM signs for the ledger first; ask again later";
            Problem::new(Code::Saturated).detail(detail).retry_after(milliseconds(*retry_after))
        }
        AttestError::Signer(failed) if failed.is_retryable() => {
            Problem::new(Code::NotReady).detail(format!("the TPM cannot be asked now ({})", failed.code()))
        }
        AttestError::Signer(failed) => match failed.code() {
            NO_TPM => no_tpm(),
            "tpm_refused" | "tpm_key_foreign" => {
                Problem::new(Code::FieldInvalid).detail("the credential was not made for this node's TPM and key")
            }
            _ => failed_itself(error),
        },
        AttestError::Package(_) | AttestError::Identity => failed_itself(error),
    }
}

fn failed_itself(error: AttestError) -> Problem {
    super::backend::BackendError::Failed(Box::new(error)).into()
}
