//! Bodies of records: sealed on the way in, opened on the way out, by whom and for whom.

use std::path::Path;
use std::sync::Arc;

use axum::http::{Method, StatusCode, header};
use stele_hsm::custody::SoftwareCustodian;
use stele_types::{Height, NetworkId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{Answer, Ask, Client};
use super::{Bench, Party};
use crate::config::{ApiLimits, DriveEntry, PayloadSection, SignerName};
use crate::payload::{CHUNK_BYTES, HEADER_BYTES, Ledger, Payload, PayloadError};

const RECORD: &str = "000102030405060708090a0b0c0d0e0f";
const DRIVES: usize = 4;

fn section(directory: &Path) -> PayloadSection {
    let drive = |number: usize| DriveEntry {
        path: directory.join("drives").join(format!("{number}.drive")),
        bytes: Some(24 << 20),
    };
    PayloadSection {
        signer: SignerName::Software,
        custody_key: Some(directory.join("custody.key")),
        drives: (0..DRIVES).map(drive).collect(),
        data_columns: 2,
        parity_columns: 1,
        slot_bytes: 2 << 20,
        blob_bytes_max: 8 << 20,
        unreferenced_ms: 86_400_000,
        scrub_days: 14,
        collect_live_percent: 50,
        archive_blocks_after_ms: None,
        delete_after_retention: false,
        custody: None,
        cold: None,
    }
}

async fn open(directory: &Path) -> Payload {
    try_open(directory).await.unwrap()
}

async fn try_open(directory: &Path) -> Result<Payload, PayloadError> {
    let section = section(directory);
    let key = section.custody_key.clone().unwrap();
    let custodian = if key.exists() { SoftwareCustodian::open(&key) } else { SoftwareCustodian::generate(&key) };
    let custodian = custodian.unwrap();
    let ledger = Ledger { network: NetworkId([1; 32]), height: Height(1), time_ms: 0, history_min: Height(1) };
    Payload::open(&section, directory, ledger, Arc::new(custodian)).await
}

/// A node's API with a payload store behind it.
async fn bench(limits: ApiLimits) -> (Bench, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::with_limits(limits).await;
    bench.ledger.keep_bodies(Arc::new(open(directory.path()).await));
    (bench, directory)
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect()
}

fn put(class: &str, body: Vec<u8>) -> Ask {
    let path = format!("/v1/records/{RECORD}/body?class={class}&retention_year=2056");
    Ask { method: Method::PUT, path, headers: Vec::new(), body }
}

async fn taken(client: &Client, body: Vec<u8>) -> serde_json::Value {
    let answer = client.send(put("medical", body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()
}

fn path(blob: &serde_json::Value) -> String {
    format!("/v1/blobs/{}", blob["root"].as_str().unwrap())
}

async fn ranged(client: &Client, path: &str, range: &str) -> Answer {
    client.send(Ask::get(path).with(header::RANGE, range)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_comes_back_to_whom_it_belongs_whatever_its_length() {
    let (bench, _directory) = bench(ApiLimits::default()).await;
    let agency = bench.party(Party::Agency);
    let first = CHUNK_BYTES - HEADER_BYTES - 16;
    let each = CHUNK_BYTES - 16;
    for length in [0, 1, first - 1, first, first + 1, first + each, first + each + 1, 3_000_000] {
        let body = body(length);
        let blob = taken(&agency, body.clone()).await;
        assert_eq!(blob["length"], length);
        let answer = agency.get(path(&blob)).await;
        assert_eq!(answer.status, StatusCode::OK, "{length}");
        assert_eq!(answer.header(header::CONTENT_LENGTH), length.to_string());
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
        assert!(answer.body == body, "{length}");
        // Over HTTP/2, too.
        assert!(agency.http2().get(path(&blob)).await.body == body, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_opens_alone() {
    let (bench, _directory) = bench(ApiLimits::default()).await;
    let agency = bench.party(Party::Agency);
    let body = body(2_200_000);
    let path = path(&taken(&agency, body.clone()).await);
    for (from, last) in [(0, 0), (65_423, 65_424), (65_424, 65_424), (1_000_000, 1_200_000), (2_199_999, 9_999_999)] {
        let answer = ranged(&agency, &path, &format!("bytes={from}-{last}")).await;
        let end = body.len().min(last + 1);
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer.header(header::CONTENT_RANGE), format!("bytes {from}-{}/{}", end - 1, body.len()));
        assert!(answer.body == body[from..end], "{from}-{last}");
    }
    assert!(ranged(&agency, &path, "bytes=-10").await.body == body[body.len() - 10..]);
    assert_eq!(ranged(&agency, &path, "bytes=0-1,5-6").await.status, StatusCode::OK, "several are ignored");
    let behind = ranged(&agency, &path, "bytes=2200000-").await;
    assert_eq!((behind.status, behind.code().as_str()), (StatusCode::RANGE_NOT_SATISFIABLE, "range_invalid"));
    assert_eq!(behind.header(header::CONTENT_RANGE), "bytes */2200000");
    let tag = agency.get(path.clone()).await.header(header::ETAG).to_owned();
    let asked = |tag: &str| Ask::get(&*path).with(header::RANGE, "bytes=0-1").with(header::IF_RANGE, tag);
    assert_eq!(agency.send(asked(&tag)).await.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(agency.send(asked("\"other\"")).await.status, StatusCode::OK);
    let mut head = Ask::get(&*path);
    head.method = Method::HEAD;
    let head = agency.send(head).await;
    assert_eq!((head.header(header::CONTENT_LENGTH), head.body.len()), ("2200000", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_the_sealed_form_and_its_root_is_told() {
    let (bench, directory) = bench(ApiLimits::default()).await;
    let agency = bench.party(Party::Agency);
    let canary = b"CANARY of a patient's record";
    let body: Vec<u8> = canary.repeat(30_000);
    let blob = taken(&agency, body.clone()).await;
    let sealed = bench.party(Party::Regulator).get(format!("{}/sealed", path(&blob))).await;
    assert_eq!(sealed.status, StatusCode::OK);
    let root = stele_storage::content_root(stele_accel_hash::HashAlgorithm::Sha256, &sealed.body);
    assert_eq!(blob["root"], hex::encode(root));
    assert_eq!(blob["hash"], "sha256");
    // The commitment is what the salt says.
    let salt = hex::decode(blob["salt"].as_str().unwrap()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &salt);
    assert_eq!(blob["commitment"], hex::encode(aws_lc_rs::hmac::sign(&key, &body)));
    // The same body again is another blob under another key.
    let again = taken(&agency, body).await;
    assert!(again["root"] != blob["root"] && again["commitment"] != blob["commitment"]);
    // No file of the node has a plaintext.
    let mut files = vec![directory.path().to_owned()];
    let mut searched = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        searched += bytes.len();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary), "{}", path.display());
    }
    assert!(searched > DRIVES * (24 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_for_who_put_them_and_sealed_ones_for_who_keeps_or_samples_copies() {
    let (bench, _directory) = bench(ApiLimits::default()).await;
    let path = path(&taken(&bench.party(Party::Agency), body(1000)).await);
    for (party, open, sealed) in [
        (Party::Agency, 200, 200),
        (Party::Other, 404, 404),
        (Party::Regulator, 404, 200),
        (Party::Operator, 404, 200),
        (Party::Suspended, 403, 403),
    ] {
        let client = bench.party(party);
        assert_eq!(client.get(path.clone()).await.status, open, "{party:?}");
        assert_eq!(client.get(format!("{path}/sealed")).await.status, sealed, "{party:?}");
    }
    for client in [bench.public(), bench.plain()] {
        assert_eq!(client.get(path.clone()).await.code(), "client_unauthenticated");
        assert_eq!(client.send(put("medical", body(1))).await.code(), "client_unauthenticated");
    }
    assert_eq!(bench.admin().get(path).await.status, StatusCode::NOT_FOUND);
    // Who may not put records puts no bodies.
    assert_eq!(bench.party(Party::Regulator).send(put("medical", body(1))).await.code(), "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_a_word() {
    let (bench, _directory) = bench(ApiLimits::default()).await;
    let agency = bench.party(Party::Agency);
    let code = async |ask: Ask| agency.send(ask).await.code();
    assert_eq!(code(put("poems", body(9))).await, "parameter_invalid");
    let ask = |path: &str| Ask { path: path.to_owned(), ..put("medical", body(9)) };
    assert_eq!(code(ask("/v1/records/xyz/body?class=medical")).await, "parameter_invalid");
    assert_eq!(code(ask(&format!("/v1/records/{RECORD}/body"))).await, "parameter_invalid");
    let year = format!("/v1/records/{RECORD}/body?class=medical&retention_year=12");
    assert_eq!(code(ask(&year)).await, "parameter_invalid");
    let encoded = put("medical", body(9)).with(header::CONTENT_ENCODING, "gzip");
    assert_eq!(code(encoded).await, "content_type_unsupported");
    // By its announced length, and without one.
    assert_eq!(code(put("medical", body((8 << 20) + 1))).await, "too_large");
    for path in ["/v1/blobs/xyz", "/v1/blobs/00/sealed"] {
        assert_eq!(code(Ask::get(path)).await, "parameter_invalid");
    }
    let unknown = format!("/v1/blobs/{}", "00".repeat(32));
    assert_eq!(code(Ask::get(&*unknown)).await, "not_found");
    let nowhere = Bench::new().await;
    assert_eq!(nowhere.party(Party::Agency).send(put("medical", body(1))).await.code(), "not_found");
    assert_eq!(nowhere.admin().get("/v1/storage").await.code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_room_says_so_and_goes_on_serving() {
    let (bench, _directory) = bench(ApiLimits::default()).await;
    let agency = bench.party(Party::Agency);
    let kept = body(1_000_000);
    let path = path(&taken(&agency, kept.clone()).await);
    let mut refused = None;
    for _ in 0..40 {
        let answer = agency.send(put("medical", body(4_000_000))).await;
        if answer.status != StatusCode::CREATED {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("96 MiB of drives hold less than 160 MB");
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::INSUFFICIENT_STORAGE, "storage_full"));
    assert!(agency.get(path).await.body == kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_party_cannot_take_all_transfers() {
    let (bench, _directory) = bench(ApiLimits { transfers_max: 4, ..ApiLimits::default() }).await;
    let agency = bench.party(Party::Agency);
    // Announced and never sent. `100 Continue` tells that the node waits for the body, so has given it its place.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = agency.raw().await;
        let head = format!(
            "PUT /v1/records/{RECORD}/body?class=medical HTTP/1.1\r\nhost: localhost\r\n\
             content-length: 1000\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut line = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        slow.push(stream);
    }
    assert_eq!(agency.send(put("medical", body(10))).await.code(), "share_exceeded");
    assert_eq!(bench.party(Party::Other).send(put("medical", body(10))).await.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_with_a_drive_missing_and_after_a_restart() {
    let (bench, directory) = bench(ApiLimits::default()).await;
    let blob = taken(&bench.party(Party::Agency), body(3_000_000)).await;
    bench.ledger.forget_bodies().close().await.unwrap();
    std::fs::remove_file(directory.path().join("drives").join("1.drive")).unwrap();
    bench.ledger.keep_bodies(Arc::new(open(directory.path()).await));
    let agency = bench.party(Party::Agency);
    assert!(agency.get(path(&blob)).await.body == body(3_000_000));
    let storage = bench.admin().get("/v1/storage").await.json();
    let states: Vec<&str> =
        storage["drives"].as_array().unwrap().iter().map(|drive| drive["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "failed").count(), 1, "{states:?}");
    assert_eq!(states.len(), DRIVES);
    assert_eq!(storage["unreferenced"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_made_once_and_nothing_is_taken_for_a_new_one() {
    let (bench, directory) = bench(ApiLimits::default()).await;
    let blob = taken(&bench.party(Party::Agency), body(100_000)).await;
    bench.ledger.forget_bodies().close().await.unwrap();
    let at = directory.path();
    // What was being made somewhere else, and never was.
    std::fs::write(at.join("payload").join("making"), "/somewhere/else\n").unwrap();
    bench.ledger.keep_bodies(Arc::new(open(at).await));
    assert!(bench.party(Party::Agency).get(path(&blob)).await.body == body(100_000));
    bench.ledger.forget_bodies().close().await.unwrap();
    // All drives away: they are not new.
    std::fs::rename(at.join("drives"), at.join("away")).unwrap();
    assert!(try_open(at).await.is_err());
    assert!(!at.join("drives").exists());
    std::fs::rename(at.join("away"), at.join("drives")).unwrap();
    // The keys gone, or those of another node.
    let keys = at.join("payload").join("class-keys");
    std::fs::rename(&keys, at.join("class-keys")).unwrap();
    assert_eq!(try_open(at).await.err().unwrap().code(), "payload_class_keys");
    std::fs::rename(at.join("class-keys"), &keys).unwrap();
    std::fs::rename(at.join("custody.key"), at.join("other.key")).unwrap();
    assert_eq!(try_open(at).await.err().unwrap().code(), "custody_key");
    std::fs::remove_file(at.join("custody.key")).unwrap();
    std::fs::rename(at.join("other.key"), at.join("custody.key")).unwrap();
    bench.ledger.keep_bodies(Arc::new(open(at).await));
    assert!(bench.party(Party::Agency).get(path(&blob)).await.body == body(100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_can_read_the_nodes_files_changes_the_store() {
    let (bench, _directory) = bench(ApiLimits::default()).await;
    let scrub = || Ask::post("/v1/storage/scrub", "application/json", "");
    assert_eq!(bench.admin().send(scrub()).await.code(), "forbidden");
    let with = |token: &str| scrub().with(header::AUTHORIZATION, format!("Bearer {token}"));
    assert_eq!(bench.admin().send(with("0123")).await.code(), "forbidden");
    assert_eq!(bench.party(Party::Operator).send(with("0123")).await.code(), "not_found");
}
