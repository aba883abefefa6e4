//! Every route for everyone who could ask.

use axum::http::{Method, StatusCode};
use stele_types::{Statement, StatementId};

use super::certificates::Authority;
use super::client::{Answer, Ask, Client};
use super::{Bench, Party};
use crate::api::{Route, Rule};
use crate::metrics::label::{Handshake, Listener};

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Who {
    Public,
    Plain,
    Owner,
    Other,
    Regulator,
    Operator,
    Suspended,
    Unpinned,
    Admin,
}

const EVERYONE: [Who; 9] = [
    Who::Public,
    Who::Plain,
    Who::Owner,
    Who::Other,
    Who::Regulator,
    Who::Operator,
    Who::Suspended,
    Who::Unpinned,
    Who::Admin,
];

impl Who {
    fn client(self, bench: &Bench) -> Client {
        match self {
            Self::Public => bench.public(),
            Self::Plain => bench.plain(),
            Self::Owner => bench.party(Party::Agency),
            Self::Other => bench.party(Party::Other),
            Self::Regulator => bench.party(Party::Regulator),
            Self::Operator => bench.party(Party::Operator),
            Self::Suspended => bench.party(Party::Suspended),
            // Issued by the network CA, pinned by nobody.
            Self::Unpinned => {
                Client::mutual(bench.address(Listener::Party), &bench.authority, &bench.authority.client())
            }
            Self::Admin => bench.admin(),
        }
    }
}

/// What stands in the ledger of these tests: leaf 0 and 1 are the owner's, and so is a rejected statement.
struct Scene {
    bench: Bench,
    record: StatementId,
    rejected: StatementId,
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let ledger = &bench.ledger;
        let record = ledger.record(Party::Agency, 1);
        let asset = ledger.asset(Party::Agency, 2);
        // The same record again under another cti: `already_exists`.
        let again = Statement::parse(record.as_slice()).unwrap().command().unwrap().clone();
        let rejected = ledger.sign(Party::Agency, 9, &again);
        let id = |entry: &[u8]| Statement::parse(entry).unwrap().id();
        let (record_id, rejected_id) = (id(&record), id(&rejected));
        ledger.commit(vec![record.into(), asset.into(), rejected.into()]);
        ledger.commit(Vec::new());
        Self { bench, record: record_id, rejected: rejected_id }
    }

    /// A request of each route that succeeds for whoever may use it.
    fn ask(&self, route: Route) -> Ask {
        let ids = [&[0x58, 0x20][..], &self.record.0].concat();
        let path = route.path();
        match route {
            Route::RegisterEntry => Ask::post(path, "application/cose", self.bench.ledger.record(Party::Agency, 1)),
            Route::RegisterBatch => Ask::post(path, "application/cbor-seq", self.bench.ledger.record(Party::Agency, 1)),
            Route::Statuses | Route::Bundles => Ask::post(path, "application/cbor-seq", ids),
            Route::Entry => Ask::get(format!("/entries/{}", self.record)),
            Route::Receipt => Ask::get(format!("/receipts/{}", self.record)),
            Route::Bundle => Ask::get(format!("/bundles/{}", self.record)),
            Route::Status => Ask::get(format!("/v1/statements/{}", self.record)),
            Route::Header => Ask::get("/v1/headers/1"),
            Route::Block => Ask::get("/v1/blocks/1"),
            Route::Snapshot => Ask::get(format!("/v1/snapshots/{}", self.snapshot())),
            Route::SnapshotChunk => Ask::get(format!("/v1/snapshots/{}/1", self.snapshot())),
            Route::Tile => Ask::get("/tile/0/000.p/2"),
            // This bench keeps no bodies.
            Route::PutBody => {
                let path = format!("/v1/records/{}/body?class=medical", "01".repeat(16));
                Ask { method: Method::PUT, path, headers: Vec::new(), body: b"body".to_vec() }
            }
            Route::Blob => Ask::get(format!("/v1/blobs/{}", "01".repeat(32))),
            Route::SealedBlob => Ask::get(format!("/v1/blobs/{}/sealed", "01".repeat(32))),
            Route::BodyCustody => Ask::get(format!("/v1/blobs/{}/custody", "01".repeat(32))),
            Route::KeptBodies => Ask::get(format!("/v1/custody/bodies?origin={}", "04".repeat(65))),
            Route::ClassKeys => Ask::get(format!("/v1/custody/class-keys?for={}", "04".repeat(65))),
            Route::MissingBodies => Ask::post(path, "application/json", "{\"roots\":[]}"),
            Route::CopyBody => {
                let key = format!("{{\"origin\":\"{0}\",\"class\":1,\"id\":\"\",\"sealed\":\"\"}}", "04".repeat(65));
                let asked =
                    format!("{{\"origin\":\"\",\"root\":\"\",\"length\":1,\"retention_year\":0,\"class_key\":{key}}}");
                Ask::post(path, "application/json", asked)
            }
            Route::ScrubStorage | Route::RebuildStorage | Route::ReplaceDrive => {
                Ask::post(path.replace("{drive}", "0"), "application/json", "{\"path\":\"/dev/null\"}")
            }
            Route::StoredBody => Ask::get(path.replace("{root}", &"01".repeat(32))),
            Route::StoredBlocks => Ask::get(path.replace("{root}", &"01".repeat(32)) + "?bytes=64"),
            // This bench has no TPM.
            Route::AttestQuote => Ask::post(path, "application/json", format!("{{\"nonce\":\"{}\"}}", "01".repeat(32))),
            Route::AttestActivate => {
                Ask::post(path, "application/json", "{\"id_object\":\"AAA=\",\"encrypted_seed\":\"AAA=\"}")
            }
            Route::AttestLog => Ask::get("/v1/attest/log/boot"),
            Route::Consistency => Ask::get("/v1/consistency?old=1&new=2"),
            Route::State => Ask::get(format!("/v1/state/certificate/{}", self.number())),
            _ => Ask::get(path),
        }
    }

    /// Height of the newest snapshot.
    fn snapshot(&self) -> u64 {
        use crate::api::Backend as _;
        self.bench.ledger.snapshots().unwrap()[0].height.0
    }

    /// Number of the certificate of the registered asset.
    fn number(&self) -> String {
        use stele_types::asset::{AssetKind, CertificateNumber};
        use stele_types::record::PlaceCode;
        // The network's time lies in 2027.
        let region = PlaceCode::new(110_000).unwrap();
        CertificateNumber { region, kind: AssetKind::Resource, year: 2027, serial: 1 }.to_text()
    }
}

/// `200` for whoever may, else the code of the refusal.
fn verdict(answer: &Answer) -> String {
    if answer.status.is_success() { "ok".into() } else { answer.code() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_everyone_as_its_rule_says() {
    let scene = Scene::new().await;
    for route in Route::ALL {
        for who in EVERYONE {
            let found = verdict(&who.client(&scene.bench).send(scene.ask(*route)).await);
            let health = matches!(route, Route::Live | Route::Ready);
            let party_only = matches!(
                route,
                Route::RegisterEntry | Route::RegisterBatch | Route::Statuses | Route::Bundles | Route::Feed
            );
            let body = matches!(route, Route::PutBody | Route::Blob | Route::SealedBlob | Route::BodyCustody);
            let copies = matches!(route, Route::CopyBody | Route::MissingBodies | Route::KeptBodies | Route::ClassKeys);
            let control = route.rule() == Rule::Control;
            let bulk = matches!(route, Route::Block | Route::Snapshots | Route::Snapshot | Route::SnapshotChunk);
            let attested = matches!(route, Route::AttestQuote | Route::AttestEvidence);
            let measured = matches!(route, Route::AttestActivate | Route::AttestLog);
            let expected = match (who, route) {
                (Who::Suspended, _) => "party_suspended",
                (Who::Unpinned, _) => "client_unauthenticated",
                (Who::Admin, Route::Metrics) => "ok",
                (Who::Admin, _) if health => "ok",
                // Without the token.
                (Who::Admin, _) if control => "forbidden",
                (Who::Admin, _) | (_, Route::Metrics | Route::Storage) => "not_found",
                _ if control => "not_found",
                (_, Route::AttestIdentity) => "not_found",
                (Who::Public | Who::Plain, _) if attested || measured => "client_unauthenticated",
                (Who::Regulator | Who::Operator, _) if measured => "not_found",
                _ if attested => "not_found",
                _ if measured => "forbidden",
                (Who::Public | Who::Plain, _) if bulk => "client_unauthenticated",
                (Who::Public | Who::Plain, _) if party_only || body || copies => "client_unauthenticated",
                (Who::Operator, _) if copies => "not_found",
                _ if copies => "forbidden",
                (Who::Regulator | Who::Operator, Route::PutBody) => "forbidden",
                _ if body => "not_found",
                (Who::Regulator | Who::Operator, _) if bulk => "ok",
                _ if bulk => "forbidden",
                _ => "ok",
            };
            assert_eq!(found, expected, "{who:?} asks {route:?}");
        }
    }
}

/// What depends on whose the object is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_read_by_those_whom_they_concern() {
    let scene = Scene::new().await;
    let record = "01".repeat(16);
    let asset = "02".repeat(16);
    let rejected = scene.rejected;
    let cases: [(String, [&str; 5]); 13] = [
        // path, then: public, owner, other, regulator, operator
        ("/entries/0".into(), ["client_unauthenticated", "ok", "not_found", "ok", "not_found"]),
        (format!("/entries/{rejected}"), ["not_found", "ok", "not_found", "ok", "not_found"]),
        (format!("/v1/statements/{rejected}"), ["ok", "ok", "ok", "ok", "ok"]),
        (format!("/receipts/{rejected}"), ["not_found", "not_found", "not_found", "not_found", "not_found"]),
        ("/receipts/1".into(), ["ok", "ok", "ok", "ok", "ok"]),
        ("/tile/entries/000.p/2".into(), ["client_unauthenticated", "forbidden", "forbidden", "ok", "forbidden"]),
        (format!("/v1/state/record/{record}"), ["client_unauthenticated", "ok", "not_found", "ok", "not_found"]),
        // Registrars see the assets of each other: they check for conflicts.
        (format!("/v1/state/asset/{asset}"), ["client_unauthenticated", "ok", "ok", "ok", "not_found"]),
        (format!("/v1/state/party/{record}"), ["client_unauthenticated", "ok", "ok", "ok", "ok"]),
        (format!("/v1/state/key/{record}"), ["client_unauthenticated", "ok", "ok", "ok", "ok"]),
        // Absence: nobody but a regulator may probe for records.
        (
            format!("/v1/state/record/{}", "77".repeat(16)),
            ["client_unauthenticated", "not_found", "not_found", "ok", "not_found"],
        ),
        (
            format!("/v1/state/mandate/{}", "77".repeat(16)),
            ["client_unauthenticated", "not_found", "not_found", "ok", "not_found"],
        ),
        (format!("/v1/state/certificate/{}", scene.number()), ["ok", "ok", "ok", "ok", "ok"]),
    ];
    for (path, expected) in cases {
        let who = [Who::Public, Who::Owner, Who::Other, Who::Regulator, Who::Operator];
        for (who, expected) in who.into_iter().zip(expected) {
            let answer = who.client(&scene.bench).get(path.as_str()).await;
            assert_eq!(verdict(&answer), expected, "{who:?} asks {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_tells_a_party_its_own_statements_and_a_regulator_all() {
    let scene = Scene::new().await;
    scene.bench.ledger.commit(vec![scene.bench.ledger.record(Party::Other, 5).into()]);
    scene.bench.ledger.commit(Vec::new());
    for (who, expected) in [
        (Who::Owner, vec!["0", "1"]),
        (Who::Other, vec!["2"]),
        (Who::Regulator, vec!["0", "1", "2"]),
        (Who::Operator, vec![]),
    ] {
        let answer = who.client(&scene.bench).get("/v1/feed").await;
        let events = answer.json();
        let cursors: Vec<&str> =
            events.as_array().unwrap().iter().map(|event| event["subject"].as_str().unwrap()).collect();
        assert_eq!(cursors, expected, "{who:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_carries_a_rejected_statement_for_its_issuer_only() {
    let scene = Scene::new().await;
    for (who, carries) in [(Who::Public, false), (Who::Owner, true), (Who::Other, false), (Who::Regulator, true)] {
        let answer = who.client(&scene.bench).get(format!("/bundles/{}?entry=1", scene.rejected)).await;
        let bundle: stele_types::Bundle = stele_types::cbor::from_slice(&answer.body).unwrap();
        assert_eq!(bundle.entry.is_some(), carries, "{who:?}");
    }
}

/// Authorisation is asked per request: a ledger event ends what an open connection may do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_key_is_refused_on_an_open_connection() {
    let scene = Scene::new().await;
    let bench = &scene.bench;
    for client in [bench.party(Party::Agency), bench.party(Party::Other).http2()] {
        let party = if client.http2_is_on() { Party::Other } else { Party::Agency };
        let mut connection = client.connect().await.unwrap();
        assert_eq!(connection.send(Ask::get("/v1/feed")).await.unwrap().status, StatusCode::OK);
        let fresh = bench.authority.client();
        bench.ledger.commit(vec![bench.ledger.pins(party, 40, vec![fresh.pin()]).into()]);
        let refused = connection.send(Ask::get("/v1/feed")).await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (StatusCode::FORBIDDEN, "client_unauthenticated"));
        let renewed = Client::mutual(bench.address(Listener::Party), &bench.authority, &fresh);
        assert_eq!(renewed.get("/v1/feed").await.status, StatusCode::OK, "the new certificate is taken at once");
    }
}

/// A certificate that the network CA did not issue, or whose time is over, or none at all: there is no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_expired_and_missing_certificates_end_in_the_handshake() {
    let bench = Bench::new().await;
    let address = bench.address(Listener::Party);
    let foreign = Authority::new("network").client();
    let clients = [
        ("foreign", Client::mutual(address, &bench.authority, &foreign)),
        ("expired", Client::mutual(address, &bench.authority, &bench.authority.expired_client())),
        ("none", Client::tls(address, &bench.authority)),
    ];
    for (index, (name, client)) in clients.iter().enumerate() {
        client.try_send(Ask::get("/v1/network")).await.expect_err(name);
        // The client may learn of its refusal before the listener has counted it.
        let wanted = u64::try_from(index).unwrap() + 1;
        let refused = || bench.metrics.tls.handshakes(Handshake::CertificateRefused);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while refused() < wanted && std::time::Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(refused(), wanted, "{name}");
    }
    assert_eq!(bench.metrics.tls.handshakes(Handshake::Completed), 0);
}

/// A connection may outlive its certificate; its requests may not.
#[tokio::test]
async fn a_certificate_that_expires_on_an_open_connection_is_refused() {
    use crate::api::access::{Caller, Peer};
    use crate::tls::{ClientCertificate, Validity};
    let bench = Bench::new().await;
    let key = bench.identity(Party::Agency).pin();
    let validity = Validity { not_before: 1_000, not_after: 2_000 };
    let peer = Peer { listener: Listener::Party, certificate: Some(ClientCertificate { key, validity }) };
    let admit = |now| Caller::admit(Route::Feed, &peer, &*bench.ledger, now).map(|_| ()).map_err(|p| p.code().as_str());
    assert_eq!(admit(2_000), Ok(()));
    assert_eq!(admit(2_001), Err("client_unauthenticated"));
    assert_eq!(admit(999), Err("client_unauthenticated"));
}
