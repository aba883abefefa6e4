//! What the routes answer when all is well.

use axum::http::{StatusCode, header};
use stele_merkle::log::{leaf_hash, verify_consistency, verify_inclusion};
use stele_merkle::state::{Proof, StateHash};
use stele_types::exchange::{
    BundleReply, CertifiedBlock, CertifiedHeader, Progress, StateProof, StatementStatus, Submitted,
};
use stele_types::signer::{CheckpointSigner, KeyProvider};
use stele_types::{Bundle, Code, Receipt, Statement, StatementId, cbor};

use super::client::Ask;
use super::{Bench, Party};

fn id(entry: &[u8]) -> StatementId {
    Statement::parse(entry).unwrap().id()
}

/// Values of a CBOR sequence.
fn sequence<T: cbor::Field>(bytes: &[u8]) -> Vec<T> {
    let mut decoder = cbor::Decoder::new(bytes);
    let mut values = Vec::new();
    while decoder.position() < bytes.len() {
        values.push(T::decode(&mut decoder).unwrap());
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_registered_once_and_gets_the_same_answer_ever_after() {
    let bench = Bench::new().await;
    let entry = bench.ledger.record(Party::Agency, 1);
    let statement = id(&entry);
    for client in [bench.party(Party::Agency), bench.party(Party::Agency).http2()] {
        let answer = client.send(Ask::post("/entries", "application/cose", entry.clone())).await;
        // The ledger of these tests certifies within the submission, so even the first answer finds it known.
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header(header::LOCATION), format!("/entries/{statement}"));
        assert_eq!(answer.json()["progress"], "certified");
        assert_eq!((answer.json()["code"].as_str(), answer.json()["index"].as_u64()), (Some("applied"), Some(0)));
    }
    let fetched = bench.public().get(format!("/entries/{statement}")).await;
    assert_eq!(fetched.body, entry, "byte for byte");
    assert_eq!(fetched.header(header::CONTENT_TYPE), "application/cose");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_turns_202_into_201_when_the_outcome_is_certified() {
    let bench = Bench::new().await;
    bench.ledger.hold();
    let entry = bench.ledger.record(Party::Agency, 1);
    let statement = id(&entry);
    let client = bench.party(Party::Agency);
    let taken = client.send(Ask::post("/entries", "application/cose", entry.clone())).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED);
    assert_eq!(taken.header(header::LOCATION), format!("/v1/statements/{statement}"));
    assert_eq!(taken.json()["progress"], "pending");
    assert!(taken.json().get("index").is_none(), "202 promises nothing");
    let (waiting, polling) = (client.clone(), client.clone());
    let waiting =
        tokio::spawn(async move { waiting.send(Ask::post("/entries?wait_ms=20000", "application/cose", entry)).await });
    let polling = tokio::spawn(async move { polling.get(format!("/v1/statements/{statement}?wait_ms=20000")).await });
    // Long enough for both to have begun waiting on a busy machine.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!waiting.is_finished() && !polling.is_finished());
    bench.ledger.release();
    let registered = waiting.await.unwrap();
    assert_eq!(registered.status, StatusCode::CREATED);
    assert_eq!(registered.header(header::LOCATION), format!("/entries/{statement}"));
    assert_eq!(polling.await.unwrap().json()["progress"], "certified");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_statement_is_acknowledged_with_its_code_and_no_index() {
    let bench = Bench::new().await;
    let entry = bench.ledger.record(Party::Regulator, 1);
    let answer = bench.party(Party::Regulator).send(Ask::post("/entries", "application/cose", entry)).await;
    assert_eq!((answer.status, answer.header(header::LOCATION)), (StatusCode::OK, ""));
    assert_eq!(answer.json()["code"], "role_missing");
    assert!(answer.json().get("index").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_statement_by_statement_in_both_forms() {
    let bench = Bench::new().await;
    let good: Vec<Vec<u8>> = (1..4).map(|number| bench.ledger.record(Party::Agency, number)).collect();
    let body = [&good[0][..], &[0x05], &good[1], &good[2]].concat();
    let client = bench.party(Party::Agency);
    let answer = client.send(Ask::post("/v1/batch", "application/cbor-seq", body.clone())).await;
    let replies: Vec<Submitted> = sequence(&answer.body);
    let expected = [Ok(id(&good[0])), Err(Code::Malformed), Ok(id(&good[1])), Ok(id(&good[2]))];
    let found = replies.iter().map(|reply| reply.statement.ok_or_else(|| reply.refusal.unwrap()));
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let ask = Ask::post("/v1/batch", "application/cbor-seq", body).with(header::ACCEPT, "application/json");
    let json = client.send(ask).await.json();
    assert_eq!(json["results"][1]["refusal"], "malformed");
    assert_eq!(json["results"][2]["statement"], id(&good[1]).to_hex());
    let ids: Vec<u8> = good.iter().flat_map(|entry| [&[0x58, 0x20][..], &id(entry).0].concat()).collect();
    let answer = client.send(Ask::post("/v1/statuses", "application/cbor-seq", ids.clone())).await;
    let statuses: Vec<StatementStatus> = sequence(&answer.body);
    assert!(statuses.iter().all(|status| status.progress == Some(Progress::Certified)));
    let answer = client.send(Ask::post("/v1/bundles?entry=1", "application/cbor-seq", ids)).await;
    let bundles: Vec<BundleReply> = sequence(&answer.body);
    for (reply, entry) in bundles.iter().zip(&good) {
        assert_eq!(&**reply.bundle.as_ref().unwrap().entry.as_ref().unwrap(), entry.as_slice());
    }
    assert_eq!(bundles.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_names_its_signer_where_it_is_asked_for_and_nowhere_else() {
    let bench = Bench::new().await;
    let entry = bench.ledger.record(Party::Agency, 1);
    bench.ledger.commit(vec![entry.as_slice().into()]);
    bench.ledger.commit(Vec::new());
    let client = bench.party(Party::Agency);
    let path = format!("/bundles/{}", id(&entry));
    let bare: Bundle = cbor::from_slice(&client.get(&path).await.body).unwrap();
    assert!(bare.receipt.is_some() && bare.checkpoint_signer.is_none());
    let named: Bundle = cbor::from_slice(&client.get(format!("{path}?signer=1")).await.body).unwrap();
    // No TPM here: the kind of the signer is all there is to say.
    let signer = CheckpointSigner { provider: KeyProvider::Software, tpm: None, attestation: None };
    assert_eq!(named, Bundle { checkpoint_signer: Some(signer), ..bare });
    assert_eq!(client.get(format!("{path}?signer=2")).await.json()["code"], "parameter_invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_tiles_and_consistency_prove_against_the_checkpoint() {
    let bench = Bench::new().await;
    let entries: Vec<Vec<u8>> = (1..6).map(|number| bench.ledger.record(Party::Agency, number)).collect();
    for entry in &entries {
        bench.ledger.commit(vec![entry.as_slice().into()]);
    }
    bench.ledger.commit(Vec::new());
    let public = bench.public();
    let checkpoint = public.get("/v1/checkpoint").await.json();
    assert_eq!(checkpoint["log_size"], 5);
    let mut root = [0; 32];
    hex::decode_to_slice(checkpoint["log_root"].as_str().unwrap(), &mut root).unwrap();
    let answer = public.get("/receipts/3").await;
    let receipt: Receipt = cbor::from_slice(&answer.body).unwrap();
    let path: Vec<[u8; 32]> = receipt.proof.path.iter().map(|hash| hash.0).collect();
    verify_inclusion(&leaf_hash(&entries[3]), 3, 5, &path, &root).unwrap();
    let cose = public.send(Ask::get("/v1/checkpoint").with(header::ACCEPT, "application/cose")).await;
    assert_eq!(cose.header(header::CONTENT_TYPE), "application/cose");
    assert!(cose.body.starts_with(&[0xd2, 0x84, 0x58]) && cose.body.windows(32).any(|window| window == root));
    let tile = public.get("/tile/0/000.p/5").await;
    assert_eq!(&tile.body[3 * 32..4 * 32], leaf_hash(&entries[3]));
    assert!(tile.header(header::CACHE_CONTROL).contains("immutable"));
    let bundle = bench.party(Party::Regulator).get("/tile/entries/000.p/5").await;
    let parsed = stele_merkle::tile::parse_entry_bundle(&bundle.body, 5).unwrap();
    assert_eq!(parsed, entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let proof = public.get("/v1/consistency?old=2&new=5").await.json();
    let path: Vec<[u8; 32]> = proof["path"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hash| stele_types::Hash::from_hex(hash.as_str().unwrap()).unwrap().0)
        .collect();
    let old_root = stele_merkle::log::root_of(&[leaf_hash(&entries[0]), leaf_hash(&entries[1])]);
    verify_consistency(2, &old_root, 5, &root, &path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_proven_present_or_absent_and_a_certificate_leads_to_its_asset() {
    let bench = Bench::new().await;
    bench.ledger.commit(vec![bench.ledger.asset(Party::Agency, 2).into()]);
    bench.ledger.commit(Vec::new());
    let asset = bench.party(Party::Agency).get(format!("/v1/state/asset/{}", "02".repeat(16))).await.json();
    let number = asset[0]["record"]["number"].as_str().unwrap().to_owned();
    let ask = |form: &str| Ask::get(format!("/v1/state/certificate/{number}")).with(header::ACCEPT, form);
    let json = bench.public().send(ask("application/json")).await.json();
    assert_eq!(json[0]["record"]["asset"], "02".repeat(16));
    assert_eq!(json[1]["record"]["holder"], super::ledger::party_id(Party::Agency).to_hex());
    let answer = bench.public().send(ask("application/cbor-seq")).await;
    let proofs: Vec<StateProof> = sequence(&answer.body);
    assert_eq!(proofs.len(), 2);
    let absent = bench.party(Party::Agency).get(format!("/v1/state/party/{}", "ee".repeat(16))).await;
    let ask = Ask::get(format!("/v1/state/party/{}", "ee".repeat(16))).with(header::ACCEPT, "application/cbor-seq");
    let absence: Vec<StateProof> = sequence(&bench.party(Party::Agency).send(ask).await.body);
    assert!(absent.json()[0].get("record").is_none());
    for proof in proofs.iter().chain(&absence) {
        let decoded = Proof::decode(&proof.proof).unwrap();
        decoded.verify(StateHash::Sha256, &proof.root.0, &proof.key.0, proof.value.as_deref()).unwrap();
    }
    assert_eq!(absence[0].value, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_is_paged_by_cursor_and_waits_for_what_is_new() {
    let bench = Bench::new().await;
    for number in 1..6 {
        bench.ledger.commit(vec![bench.ledger.record(Party::Agency, number).into()]);
    }
    let client = bench.party(Party::Agency);
    let first = client.get("/v1/feed?limit=3").await;
    assert_eq!(first.json().as_array().unwrap().len(), 3);
    assert_eq!(first.json()[0]["specversion"], "1.0");
    assert_eq!(first.json()[0]["type"], "stele.record.put");
    assert_eq!(first.header(header::LINK), "</v1/feed?cursor=3&limit=3>; rel=\"next\"");
    assert_eq!(first.header(header::CONTENT_TYPE), "application/cloudevents-batch+json");
    let rest = client.get("/v1/feed?cursor=3&limit=3").await;
    assert_eq!(rest.json().as_array().unwrap().len(), 1, "leaf 4 is executed and not certified yet");
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.get("/v1/feed?cursor=4&wait_ms=20000").await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    bench.ledger.commit(Vec::new());
    assert_eq!(waiting.await.unwrap().json()[0]["subject"], "4");
    let end = client.get("/v1/feed?cursor=5").await;
    assert_eq!(
        (end.json(), end.header(header::LINK)),
        (serde_json::json!([]), "</v1/feed?cursor=5&limit=100>; rel=\"next\"")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_blocks_genesis_and_the_network_are_served_and_cached() {
    let bench = Bench::new().await;
    let entry = bench.ledger.record(Party::Agency, 1);
    bench.ledger.commit(vec![entry.as_slice().into()]);
    bench.ledger.commit(Vec::new());
    let public = bench.public();
    let answer = public.send(Ask::get("/v1/headers/2").with(header::ACCEPT, "application/cbor")).await;
    let certified: CertifiedHeader = cbor::from_slice(&answer.body).unwrap();
    assert_eq!((certified.header.height.0, certified.header.log_size), (2, 1));
    let tag = answer.header(header::ETAG).to_owned();
    let ask = Ask::get("/v1/headers/2").with(header::ACCEPT, "application/cbor").with(header::IF_NONE_MATCH, tag);
    let again = public.send(ask).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let json = public.get("/v1/headers/2").await.json();
    assert_eq!(json["block"], certified.header.id().to_hex());
    let answer = bench.party(Party::Operator).get("/v1/blocks/1").await;
    let block: CertifiedBlock = cbor::from_slice(&answer.body).unwrap();
    assert_eq!(&*block.block.entries[0], entry.as_slice());
    let operator = bench.party(Party::Operator);
    let listed = operator.get("/v1/snapshots").await.json();
    let snapshot = &listed["snapshots"][0];
    assert_eq!((snapshot["height"].as_u64(), snapshot["depth"].as_u64()), (Some(1), Some(1)), "{listed}");
    let standpoint = operator.get("/v1/snapshots/1").await.json();
    assert_eq!(standpoint["log_frontier"], "0000000000000000");
    assert_eq!(&*operator.get("/v1/snapshots/1/1").await.body, b"chunk 1".as_slice());
    for (path, code) in
        [("2", "not_found"), ("1/2", "not_found"), ("x", "parameter_invalid"), ("1/x", "parameter_invalid")]
    {
        assert_eq!(operator.get(&format!("/v1/snapshots/{path}")).await.code(), code, "{path}");
    }
    let genesis = public.get("/v1/genesis").await;
    assert_eq!(stele_types::Hash::of(&genesis.body).0, bench.ledger.network().0);
    let network = public.get("/v1/network").await.json();
    assert_eq!(network["network"], bench.ledger.network().to_hex());
    assert_eq!((network["height"].as_u64(), network["log_size"].as_u64()), (Some(2), Some(1)));
    assert_eq!(network["parameters"]["suites"][0]["suite"], "es256");
    assert!(network["checkpoint_key"]["pem"].as_str().unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_eq!(public.get("/openapi.json").await.body, crate::api::document());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_listener_shows_what_was_counted() {
    let bench = Bench::new().await;
    bench.public().get("/v1/network").await;
    bench.public().get("/v1/feed").await;
    let text = String::from_utf8(bench.admin().get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "stele_http_requests_total{code=\"200\",method=\"GET\",route=\"/v1/network\"} 1",
        "stele_http_requests_total{code=\"403\",method=\"GET\",route=\"/v1/feed\"} 1",
        "stele_tls_handshakes_total{result=\"completed\",suite=\"tls13_aes256\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
    }
}
