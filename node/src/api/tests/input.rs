//! Bad input: a clear error with a stable code, and nothing else happens.

use axum::http::{StatusCode, header};
use stele_types::{Code, cbor};

use super::client::Ask;
use super::{Bench, Party};
use crate::api::Refusal;

/// Each line: what is wrong, the request, status and code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_get_their_codes() {
    let bench = Bench::new().await;
    let entry = bench.ledger.record(Party::Agency, 1);
    let cose = |body: &[u8]| Ask::post("/entries", "application/cose", body);
    let mut unprotected = entry.clone();
    let empty_map = entry.iter().skip(4).position(|byte| *byte == 0xa0).unwrap() + 4;
    unprotected.splice(empty_map..=empty_map, [0xa1, 0x04, 0x41, 0x00]);
    let mut other_algorithm = entry.clone();
    let algorithm = other_algorithm.windows(2).position(|pair| pair == [0x01, 0x26]).unwrap();
    other_algorithm[algorithm + 1] = 0x27 + 0x08;
    let id = "ab".repeat(32);
    let cases: Vec<(&str, Ask, u16, &str)> = vec![
        ("not CBOR", cose(b"hello"), 400, "malformed"),
        ("empty body", cose(b""), 400, "malformed"),
        ("cut short", cose(&entry[..entry.len() - 1]), 400, "malformed"),
        ("bytes behind", cose(&[&entry[..], &[0]].concat()), 400, "malformed"),
        ("unprotected header", cose(&unprotected), 400, "unprotected_not_empty"),
        ("another algorithm", cose(&other_algorithm), 400, "algorithm_unsupported"),
        ("oversize body", cose(&[0; 70_000]), 413, "too_large"),
        ("oversize statement", cose(&[0x58; 20_000]), 413, "too_large"),
        ("no content type", Ask { headers: Vec::new(), ..cose(&entry) }, 415, "content_type_unsupported"),
        ("JSON statement", Ask::post("/entries", "application/json", "{}"), 415, "content_type_unsupported"),
        ("compressed", cose(&entry).with(header::CONTENT_ENCODING, "gzip"), 415, "content_type_unsupported"),
        ("HTML wanted", cose(&entry).with(header::ACCEPT, "text/html"), 406, "content_type_unsupported"),
        (
            "unknown parameter",
            Ask::post("/entries?wait=1s", "application/cose", entry.clone()),
            400,
            "parameter_invalid",
        ),
        (
            "wait too long",
            Ask::post("/entries?wait_ms=999999", "application/cose", entry.clone()),
            400,
            "parameter_invalid",
        ),
        ("empty batch", Ask::post("/v1/batch", "application/cbor-seq", ""), 400, "malformed"),
        ("broken batch", Ask::post("/v1/batch", "application/cbor-seq", &entry[..20]), 400, "malformed"),
        (
            "batch of another type",
            Ask::post("/v1/batch", "application/cose", entry.clone()),
            415,
            "content_type_unsupported",
        ),
        ("long batch", Ask::post("/v1/batch", "application/cbor-seq", [0x00; 5_000]), 413, "too_large"),
        ("ids of no length", Ask::post("/v1/statuses", "application/cbor-seq", [0x41, 0x00]), 400, "malformed"),
        ("ids in bad JSON", Ask::post("/v1/statuses", "application/json", "{\"statements\": 5}"), 400, "malformed"),
        (
            "many bundles",
            Ask::post("/v1/bundles", "application/cbor-seq", [0x58, 0x20].repeat(17 * 513)),
            413,
            "too_large",
        ),
        ("unknown statement", Ask::get(format!("/v1/statements/{id}")), 404, "not_found"),
        ("upper case id", Ask::get(format!("/v1/statements/{}", id.to_uppercase())), 400, "parameter_invalid"),
        ("short id", Ask::get("/v1/statements/abcd"), 400, "parameter_invalid"),
        ("neither id nor index", Ask::get("/entries/-1"), 400, "parameter_invalid"),
        ("index with a leading zero", Ask::get("/receipts/007"), 400, "parameter_invalid"),
        ("index beyond the log", Ask::get("/receipts/99"), 404, "not_found"),
        ("height 0", Ask::get("/v1/headers/0"), 400, "parameter_invalid"),
        ("height beyond the chain", Ask::get("/v1/headers/18446744073709551615"), 404, "not_found"),
        ("percent signs", Ask::get("/v1/statements/%00%ff"), 400, "parameter_invalid"),
        ("tile with zeros", Ask::get("/tile/0/x000/001"), 400, "parameter_invalid"),
        ("tile beyond the log", Ask::get("/tile/0/005"), 404, "not_found"),
        ("consistency backwards", Ask::get("/v1/consistency?old=5&new=1"), 400, "parameter_invalid"),
        ("kind of state", Ask::get(format!("/v1/state/balance/{id}")), 400, "parameter_invalid"),
        ("check digits", Ask::get("/v1/state/certificate/ST-110000-DR-2026-00000042-00"), 400, "parameter_invalid"),
        ("feed limit", Ask::get("/v1/feed?limit=1001"), 400, "parameter_invalid"),
        ("feed parameter twice", Ask::get("/v1/feed?limit=5&limit=6"), 400, "parameter_invalid"),
        ("no such path", Ask::get("/v2/entries"), 404, "not_found"),
        (
            "no such method",
            Ask { method: "DELETE".parse().unwrap(), ..Ask::get("/entries/0") },
            405,
            "method_unsupported",
        ),
        ("wrong method", Ask::get("/entries"), 405, "method_unsupported"),
    ];
    for client in [bench.party(Party::Agency), bench.party(Party::Agency).http2()] {
        for (what, ask, status, code) in &cases {
            let ask = Ask {
                method: ask.method.clone(),
                path: ask.path.clone(),
                headers: ask.headers.clone(),
                body: ask.body.clone(),
            };
            let answer = client.send(ask).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (*status, *code), "{what}: {answer:?}");
            let problem = answer.json();
            assert_eq!(problem["type"], format!("/problems/{code}"), "{what}");
            assert_eq!(problem["status"], *status, "{what}");
            assert!(problem["detail"].as_str().unwrap().len() > 10, "{what}");
        }
    }
    assert_eq!(bench.ledger.standing_height(), 0, "nothing of it reached the ledger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_admission_reaches_the_client_with_its_code() {
    let bench = Bench::new().await;
    let client = bench.party(Party::Agency);
    for code in Code::ALL.iter().filter(|code| **code != Code::Applied) {
        bench.ledger.refuse(Some(Refusal { code: *code, retry_after_ms: code.is_retryable().then_some(1_500) }));
        let entry = bench.ledger.record(Party::Agency, 1);
        let single = client.send(Ask::post("/entries", "application/cose", entry.clone())).await;
        assert_eq!(single.code(), code.as_str());
        let throttled = matches!(code, Code::Saturated | Code::ShareExceeded);
        assert_eq!(single.status == StatusCode::TOO_MANY_REQUESTS, throttled, "{code}");
        assert_eq!(single.header(header::RETRY_AFTER) == "2", code.is_retryable(), "{code}");
        let batch = client.send(Ask::post("/v1/batch", "application/cbor-seq", entry.repeat(2))).await;
        if throttled {
            assert_eq!(
                (batch.status, batch.header(header::RETRY_AFTER)),
                (StatusCode::TOO_MANY_REQUESTS, "2"),
                "{code}"
            );
        } else {
            assert_eq!(batch.status, StatusCode::OK, "{code}");
            let reply: stele_types::exchange::Submitted =
                cbor::from_slice(&batch.body[..batch.body.len() / 2]).unwrap();
            assert_eq!(reply.refusal, Some(*code));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_no_part_takes_no_statements_and_says_so() {
    let bench = Bench::new().await;
    bench.ledger.set_not_ready(Some("catching up with the network"));
    let entry = bench.ledger.record(Party::Agency, 1);
    let answer = bench.party(Party::Agency).send(Ask::post("/entries", "application/cose", entry)).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not_ready"));
    assert!(!answer.header(header::RETRY_AFTER).is_empty());
    let ready = bench.admin().get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["detail"], "catching up with the network");
    assert_eq!(bench.admin().get("/livez").await.status, StatusCode::OK, "it lives all the same");
    assert_eq!(bench.public().get("/v1/network").await.status, StatusCode::OK, "and what it knows can be read");
}

/// Errors name what was expected, never what was sent, and no label of a metric comes from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_sent_comes_back_in_an_error() {
    let bench = Bench::new().await;
    let secret = "patient-4711-diagnosis";
    for ask in [
        Ask::post("/entries", "application/cose", secret),
        Ask::post("/v1/batch", "application/cbor-seq", secret),
        Ask::post("/v1/statuses", "application/json", format!("{{\"statements\":[\"{secret}\"]}}")),
        Ask::get(format!("/v1/statements/{secret}")),
        Ask::get(format!("/v1/state/record/{secret}")),
        Ask::get(format!("/v1/state/{secret}/00")),
        Ask::get(format!("/v1/feed?{secret}=1")),
        Ask::get(format!("/{secret}")),
    ] {
        let path = ask.path.clone();
        let answer = bench.party(Party::Agency).send(ask).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status.is_client_error() && !text.contains(secret), "{path}: {text}");
        assert!(!bench.metrics.render().contains(secret), "{path}: no label comes from outside");
    }
}
