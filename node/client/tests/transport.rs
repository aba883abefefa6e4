//! The client against a server that fails, refuses and recovers.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use stele_client::{Bounds, Client, ClientError, Endpoint, RetryPolicy, Wait};
use stele_types::cbor;
use stele_types::exchange::{Progress, StatementStatus, Submitted};
use stele_types::{Code, StatementId};
use tokio::net::TcpListener;

type Answer = Response<Full<Bytes>>;

/// A server that gives scripted answers, then the last one for ever; it counts connections and requests.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<fn() -> Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(VecDeque::from(answers)));
        let (counted, seen) = (connections.clone(), requests.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (script, seen) = (script.clone(), seen.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
                        let mut script = script.lock().unwrap();
                        let answer = if script.len() > 1 { script.pop_front().unwrap() } else { script[0] };
                        async move { Ok::<_, std::convert::Infallible>(answer()) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, connections, requests }
    }
    fn endpoint(&self) -> Endpoint {
        Endpoint::http(&self.address.to_string()).unwrap()
    }
    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn quick() -> RetryPolicy {
    RetryPolicy { tries_max: 6, pause_min: Duration::from_millis(5), pause_max: Duration::from_millis(500) }
}

fn client(servers: &[&Server]) -> Client {
    let builder = Client::builder().retry(quick());
    servers.iter().fold(builder, |builder, server| builder.endpoint(server.endpoint())).build().unwrap()
}

fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).header("content-type", content_type).body(Full::new(body.into())).unwrap()
}

fn problem(status: u16, code: &str, retry_after_ms: u64) -> Answer {
    let body = format!(r#"{{"code":"{code}","detail":"what to do","retry_after_ms":{retry_after_ms},"new":1}}"#);
    let mut answer = answer(status, "application/problem+json", body);
    answer.headers_mut().insert("retry-after", "9".parse().unwrap());
    answer
}

fn status() -> Answer {
    let status = StatementStatus {
        statement: StatementId([7; 32]),
        progress: Some(Progress::Certified),
        height: None,
        position: None,
        code: Some(Code::Applied),
        index: None,
    };
    answer(200, "application/cbor", cbor::to_vec(&status))
}

#[tokio::test]
async fn a_saturated_node_is_asked_again_after_the_time_it_named() {
    let server =
        Server::start(vec![|| problem(429, "saturated", 120), || problem(429, "share_exceeded", 120), status]).await;
    let started = Instant::now();
    let found = client(&[&server]).statement(&StatementId([7; 32]), Wait::None).await.unwrap();
    assert_eq!(found.progress, Some(Progress::Certified));
    assert!(started.elapsed() >= Duration::from_millis(240), "twice the named time, {:?}", started.elapsed());
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_not_repeated() {
    let server = Server::start(vec![|| problem(400, "signature_invalid", 0)]).await;
    let error = client(&[&server]).register(Bytes::from_static(b"x"), Wait::None).await.unwrap_err();
    assert_eq!(
        (error.code(), error.protocol_code(), error.is_retryable()),
        ("signature_invalid", Some(Code::SignatureInvalid), false)
    );
    assert!(error.to_string().contains("what to do"));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_dead_node_and_one_that_is_not_ready_are_passed_over() {
    let dead = Endpoint::http(&{
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    })
    .unwrap();
    let starting = Server::start(vec![|| problem(503, "not_ready", 2_000)]).await;
    let good = Server::start(vec![status]).await;
    let builder = Client::builder().retry(quick()).endpoint(dead);
    let client = builder.endpoint(starting.endpoint()).endpoint(good.endpoint()).build().unwrap();
    let started = Instant::now();
    for _ in 0..3 {
        client.statement(&StatementId([7; 32]), Wait::None).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(400), "another node is asked at once");
    assert_eq!((starting.count(), good.count()), (1, 3), "the node that answered is asked first from then on");
    assert_eq!(good.connections.load(Ordering::SeqCst), 1, "its connection is kept");
}

#[tokio::test]
async fn tries_end_and_the_last_error_is_told() {
    let server = Server::start(vec![|| problem(503, "not_ready", 1)]).await;
    let error = client(&[&server]).network().await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("not_ready", true));
    assert_eq!(server.count(), 6);
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_too_late_is_an_error() {
    let server = Server::start(vec![|| answer(200, "application/cbor", vec![0; 10_000])]).await;
    let bounds = Bounds { answer_bytes_max: 1_000, ..Bounds::default() };
    let client = Client::builder().endpoint(server.endpoint()).bounds(bounds).build().unwrap();
    assert!(matches!(client.checkpoint().await, Err(ClientError::TooLarge { bytes_max: 1_000, .. })));

    // A listener that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::http(&silent.local_addr().unwrap().to_string()).unwrap();
    let bounds = Bounds { answer: Duration::from_millis(50), ..Bounds::default() };
    let client = Client::builder().endpoint(endpoint).bounds(bounds).retry(RetryPolicy::NONE).build().unwrap();
    assert_eq!(client.checkpoint().await.unwrap_err().code(), "node_timeout");
}

#[tokio::test]
async fn a_sequence_of_answers_keeps_its_order() {
    fn batch() -> Answer {
        let taken = Submitted { statement: Some(StatementId([1; 32])), refusal: None, retry_after_ms: None };
        let refused = Submitted { statement: None, refusal: Some(Code::Saturated), retry_after_ms: Some(250) };
        answer(200, "application/cbor-seq", [cbor::to_vec(&taken), cbor::to_vec(&refused)].concat())
    }
    let server = Server::start(vec![batch]).await;
    let items = client(&[&server]).submit_batch(Bytes::from_static(b"")).await.unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!((items[0].statement, items[1].refusal), (Some(StatementId([1; 32])), Some(Code::Saturated)));
}

#[tokio::test]
async fn nonsense_is_told_apart_from_a_refusal() {
    let server =
        Server::start(vec![|| answer(200, "application/json", "<html>"), || answer(502, "text/html", "<html>")]).await;
    let one = Client::builder().endpoint(server.endpoint()).retry(RetryPolicy::NONE).build().unwrap();
    assert_eq!(one.network().await.unwrap_err().code(), "answer_unexpected");
    let error = one.network().await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("http_502", true));
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_costs_no_error() {
    let server = Server::start(vec![|| {
        let mut last = status();
        last.headers_mut().insert("connection", "close".parse().unwrap());
        last
    }])
    .await;
    let client = client(&[&server]);
    for _ in 0..3 {
        client.statement(&StatementId([7; 32]), Wait::None).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}
