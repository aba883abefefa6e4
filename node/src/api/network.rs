//! What the network is.

use axum::extract::{RawQuery, State as Extract};
use axum::http::HeaderMap;
use axum::response::Response;

use super::backend::SealedHead;
use super::cache::{self, Keep};
use super::format::{self, CBOR, JSON};
use super::parameters::Parameters;
use super::problem::Problem;
use super::router::State;
use super::statements::BUNDLES_MAX;
use super::view::{CheckpointKeyView, LimitsView, NetworkView, OctetsView, ValidatorView};

/// The network: its id, parameters and validators, and the key that signs this node's checkpoints.
#[utoipa::path(
    get, path = "/v1/network", tag = "network",
    responses(
        (status = 200, description = "The network", body = NetworkView),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn network(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[JSON])?;
    let backend = &state.backend;
    let (genesis, standing, in_force) = (backend.genesis(), backend.standing(), backend.in_force());
    let view = NetworkView {
        network: genesis.network().to_hex(),
        name: genesis.name.to_string(),
        region: genesis.region.get(),
        genesis_time_ms: genesis.time_ms,
        height: standing.height.0,
        certified_height: standing.certified.0,
        log_size: standing.log_size,
        parameters: (&in_force.parameters).into(),
        validators_hash: in_force.validators.hash().to_hex(),
        validators: in_force.validators.iter().map(ValidatorView::from).collect(),
        suspended_validators: in_force.suspended.iter().map(ValidatorView::from).collect(),
        checkpoint_key: backend.checkpoint().as_ref().map(checkpoint_key),
        limits: LimitsView {
            body_bytes_max: state.limits.body_bytes_max,
            batch_bytes_max: state.limits.batch_bytes_max,
            batch_statements_max: state.limits.batch_statements_max,
            bundles_max: BUNDLES_MAX,
            wait_max_ms: state.limits.wait_max_ms,
        },
    };
    Ok(cache::volatile(format::json(&view)))
}

fn checkpoint_key(head: &SealedHead) -> CheckpointKeyView {
    CheckpointKeyView {
        id: head.checkpoint.key.to_hex(),
        suite: head.checkpoint.suite.as_str(),
        public_key: hex::encode(head.public_key),
        pem: pem(&head.public_key),
    }
}

/// SubjectPublicKeyInfo (RFC 5480) of a compressed P-256 point, as PEM.
fn pem(public_key: &[u8; 33]) -> String {
    /// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 34 bytes with no unused bits }.
    const HEAD: [u8; 26] = [
        0x30, 0x39, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x22, 0x00,
    ];
    let der = [&HEAD[..], public_key].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64_lines(&der))
}

/// RFC 4648 base64 with padding, in lines of 64 characters (RFC 7468).
fn base64_lines(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut characters = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let octet = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = octet(0) << 16 | octet(1) << 8 | octet(2);
        for (position, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from(group >> shift & 63).unwrap_or(0);
            characters.push(if position <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    characters.chunks(64).map(|line| line.iter().collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// The genesis file, byte for byte; its SHA-256 is the network id.
#[utoipa::path(
    get, path = "/v1/genesis", tag = "network",
    responses(
        (status = 200, description = "The genesis file", body = OctetsView, content_type = "application/cbor"),
        (status = "4XX", description = "Refused", body = super::problem::ProblemView, content_type = "application/problem+json"),
    )
)]
pub(super) async fn genesis(
    Extract(state): Extract<State>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Parameters::read(query.as_deref(), &[])?;
    format::choose(&headers, &[CBOR])?;
    let tag = state.backend.genesis().network().to_hex();
    Ok(cache::immutable(&headers, &tag, Keep::Public, || format::bytes(CBOR, state.backend.genesis_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    use p256::pkcs8::DecodePublicKey as _;

    #[test]
    fn base64_pads_and_breaks_lines() {
        assert_eq!(base64_lines(b"f"), "Zg==");
        assert_eq!(base64_lines(b"fo"), "Zm8=");
        assert_eq!(base64_lines(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64_lines(&[0; 49]).lines().map(str::len).collect::<Vec<_>>(), [64, 4]);
    }

    #[test]
    fn the_checkpoint_keys_pem_is_read_by_others() {
        let key = p256::SecretKey::from_slice(&[7; 32]).unwrap().public_key();
        let compressed: [u8; 33] = key.to_encoded_point(true).as_bytes().try_into().unwrap();
        assert_eq!(p256::PublicKey::from_public_key_pem(&pem(&compressed)).unwrap(), key);
    }
}
