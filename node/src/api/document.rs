//! The OpenAPI document, made from the handlers.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::response::Response;
use stele_types::Hash;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{SecurityRequirement, SecurityScheme};

use super::access::Rule;
use super::cache::{self, Keep};
use super::format::{self, JSON};
use super::route::Route;
use super::{attest, blobs, chain, custody, feed, health, network, snapshots, state, statements, storage, submit};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stele",
        description = "A node of a Stele network: registers signed statements and hands out receipts that anyone can \
                       verify offline. Parties connect to the party listener with a client certificate (mutual TLS) \
                       whose key their ledger record pins; the public listener serves what needs none. Requests are \
                       idempotent. Errors are RFC 9457 problem details with stable codes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        submit::entry, submit::batch,
        statements::status, statements::statuses, statements::entry, statements::receipt, statements::bundle,
        statements::bundles,
        chain::header, chain::block, chain::checkpoint, chain::tile, chain::consistency,
        snapshots::snapshots, snapshots::snapshot, snapshots::chunk,
        blobs::put, blobs::body, blobs::sealed, custody::of_body, custody::copy, custody::missing, custody::bodies,
        custody::class_keys, attest::identity, attest::activate, attest::quote, attest::evidence, attest::log,
        storage::status, storage::scrub, storage::rebuild, storage::replace,
        storage::bodies, storage::body, storage::blocks,
        state::state, feed::feed, network::network, network::genesis,
        health::live, health::ready, health::metrics, openapi,
    ),
    tags(
        (name = "registration", description = "Registering signed statements (SCITT)"),
        (name = "statements", description = "What became of them"),
        (name = "log", description = "The log: checkpoints, tiles, the feed"),
        (name = "chain", description = "Headers and blocks"),
        (name = "state", description = "The state, with proofs"),
        (name = "payload", description = "Bodies of records, sealed"),
        (name = "attestation", description = "What the node's TPM says, for verifiers' own tools"),
        (name = "network", description = "What the network is"),
        (name = "health", description = "For operators"),
    ),
)]
struct Document;

/// Name of the security scheme: a client certificate of the network.
const CLIENT_CERTIFICATE: &str = "clientCertificate";

/// The OpenAPI 3.1 document in JSON, as committed in `docs/openapi.json`.
pub fn document() -> String {
    let mut document = Document::openapi();
    let certificate = "A certificate of the network CA whose key a party of the ledger has pinned (tls.pin)";
    let scheme =
        SecurityScheme::MutualTls { description: Some(certificate.to_owned()), deprecated: None, extensions: None };
    document.components.get_or_insert_default().add_security_scheme(CLIENT_CERTIFICATE, scheme);
    for route in Route::ALL {
        let path = route.path().replace("{*", "{");
        let item = document.paths.paths.get_mut(&path);
        let operation = item.and_then(|item| match route.method_text() {
            "POST" => item.post.as_mut(),
            "PUT" => item.put.as_mut(),
            _ => item.get.as_mut(),
        });
        if let Some(operation) = operation {
            name(operation, *route);
        }
    }
    // The document is made of constants; a test reads it.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Names an operation after its route and says whether it needs a certificate.
fn name(operation: &mut Operation, route: Route) {
    operation.operation_id = Some(route.operation());
    if matches!(route.rule(), Rule::Party | Rule::RegulatorOrOperator | Rule::Operator) {
        let required = SecurityRequirement::new(CLIENT_CERTIFICATE, Vec::<String>::new());
        operation.security = Some(vec![required]);
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "network", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn openapi(headers: HeaderMap) -> Response {
    static TEXT: LazyLock<(String, String)> = LazyLock::new(|| {
        let text = document();
        let tag = Hash::of(text.as_bytes()).to_hex();
        (text, tag)
    });
    let (text, tag) = &*TEXT;
    let mut response = cache::immutable(&headers, tag, Keep::Public, || format::bytes(JSON, text.as_str()));
    // The path outlives the version of the program.
    response = cache::volatile(response);
    response
}
