//! Slow, idle, greedy and stalling clients.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Ask, Client, Stream};
use super::{Bench, Party};
use crate::config::ApiLimits;
use crate::metrics::label::{Handshake, Listener};

/// Reads until the peer closes; how long that took.
async fn closed(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("closed in time");
    begun.elapsed()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn short() -> ApiLimits {
    ApiLimits { handshake_timeout_ms: 300, header_timeout_ms: 300, body_timeout_ms: 300, ..ApiLimits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_sent_byte_by_byte_is_cut_off() {
    let bench = Bench::with_limits(short()).await;
    let mut stream = TcpStream::connect(bench.address(Listener::Plain)).await.unwrap();
    let begun = Instant::now();
    for byte in b"GET /v1/network HTTP/1.1\r\nx-padding: ".iter().chain([b'a'; 2_000].iter()) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "still open");
    }
    assert!(begun.elapsed() >= Duration::from_millis(250), "not before its time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_never_ends_is_cut_off() {
    let bench = Bench::with_limits(short()).await;
    let mut stream = TcpStream::connect(bench.address(Listener::Party)).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    assert!(closed(&mut stream).await < Duration::from_secs(10));
    eventually("counted", || bench.metrics.tls.handshakes(Handshake::TimedOut) == 1).await;
}

/// Sends the head of a batch and the first of its bytes, and no more.
async fn stall(client: &Client, first: &[u8]) -> Box<dyn Stream> {
    let mut stream = client.raw().await;
    let head = "POST /v1/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cbor-seq\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{:x}\r\n", first.len()).as_bytes()).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_ends_is_answered_and_its_memory_given_back() {
    let bench = Bench::with_limits(short()).await;
    let mut stalled = stall(&bench.party(Party::Agency), &[0; 70_000]).await;
    eventually("only what has arrived takes memory", || bench.metrics.http.body_bytes_held() == 131_072).await;
    let mut answer = vec![0; 4_096];
    let length = stalled.read(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..length]);
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("\"code\":\"request_timeout\""), "{text}");
    eventually("given back", || bench.metrics.http.body_bytes_held() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_whose_bodies_never_end_shuts_nobody_out() {
    let total = 8 << 20;
    let bench = Bench::with_limits(ApiLimits { body_memory_bytes_max: total, ..ApiLimits::default() }).await;
    let (greedy, other) = (bench.party(Party::Agency), bench.party(Party::Other));
    let mut stalled = Vec::new();
    for _ in 0..70 {
        stalled.push(stall(&greedy, &[0; 64 * 1024]).await);
    }
    eventually("it has its share", || bench.metrics.http.body_bytes_held() == 4 << 20).await;
    let mine = greedy.send(Ask::post("/entries", "application/cose", bench.ledger.record(Party::Agency, 1))).await;
    assert_eq!((mine.status, mine.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "share_exceeded"));
    let batch = bench.ledger.record(Party::Other, 2);
    let theirs = other.send(Ask::post("/v1/batch", "application/cbor-seq", batch)).await;
    assert_eq!(theirs.status, StatusCode::OK, "{theirs:?}");
    drop(stalled);
    eventually("given back", || bench.metrics.http.body_bytes_held() == 0).await;
}

/// A window of one byte, and pings all the while: the socket never blocks, and the connection is never silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_take_its_answer_is_cut_off() {
    let bench = Bench::with_limits(ApiLimits { write_timeout_ms: 300, ..short() }).await;
    let io = TokioIo::new(bench.public().http2().raw().await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.timer(TokioTimer::new()).keep_alive_interval(Duration::from_millis(100)).initial_stream_window_size(1);
    let (mut sender, connection) = client.handshake(io).await.unwrap();
    let ended = tokio::spawn(connection);
    let ask = |path: &str| Request::get(format!("https://localhost{path}")).body(Body::empty()).unwrap();
    let begun = Instant::now();
    let unread = sender.send_request(ask("/openapi.json")).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    assert_eq!(sender.send_request(ask("/livez")).await.unwrap().status(), StatusCode::OK);
    let _ = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("cut off in time");
    assert!(begun.elapsed() >= Duration::from_millis(300), "not before its time");
    eventually("its place is free", || bench.metrics.http.connections(Listener::Public) == 0).await;
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_no_host_is_refused() {
    let bench = Bench::new().await;
    let mut stream = TcpStream::connect(bench.address(Listener::Plain)).await.unwrap();
    stream.write_all(b"GET /v1/network HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"code\":\"parameter_invalid\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_the_bound_is_refused_over_both_protocols() {
    let bench = Bench::new().await;
    let header = || axum::http::HeaderName::from_static("x-padding");
    for (padding, refused) in [(15_000, false), (17_000, true), (60_000, true)] {
        let ask = || Ask::get("/v1/network").with(header(), "a".repeat(padding));
        let answer = bench.public().send(ask()).await;
        assert_eq!(answer.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, refused, "{padding}: {answer:?}");
        assert_eq!(answer.code() == "too_large", refused);
        let answer = bench.public().http2().try_send(ask()).await;
        assert_eq!(answer.is_ok_and(|answer| answer.status == StatusCode::OK), !refused, "{padding}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let bench = Bench::with_limits(ApiLimits { idle_timeout_ms: 1_500, ..ApiLimits::default() }).await;
    bench.ledger.hold();
    let entry = bench.ledger.record(Party::Agency, 1);
    let statement = stele_types::Statement::parse(entry.as_slice()).unwrap().id();
    let client = bench.party(Party::Agency);
    client.send(Ask::post("/entries", "application/cose", entry)).await;
    let busy = client.http2();
    let long_poll =
        tokio::spawn(async move { busy.try_send(Ask::get(format!("/v1/statements/{statement}?wait_ms=4000"))).await });
    let opened = Instant::now();
    let mut idle = TcpStream::connect(bench.address(Listener::Plain)).await.unwrap();
    let idle_http2 = client.http2().connect().await.unwrap();
    closed(&mut idle).await;
    assert!(opened.elapsed() >= Duration::from_millis(1_400), "not before its time");
    let answer = long_poll.await.unwrap().expect("a long poll outlives the idle time");
    assert_eq!(answer.json()["progress"], "pending");
    eventually("idle HTTP/2 connections are closed, too", || bench.metrics.http.connections(Listener::Party) == 0)
        .await;
    drop(idle_http2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_bound_are_told_to_come_back() {
    let bench = Bench::with_limits(ApiLimits { requests_max: 4, ..ApiLimits::default() }).await;
    bench.ledger.hold();
    let entry = bench.ledger.record(Party::Agency, 1);
    let statement = stele_types::Statement::parse(entry.as_slice()).unwrap().id();
    let (agency, other) = (bench.party(Party::Agency), bench.party(Party::Other));
    agency.send(Ask::post("/entries", "application/cose", entry)).await;
    let mut polls = Vec::new();
    let mut poll = async |client: &Client| {
        let client = client.clone();
        polls.push(tokio::spawn(async move { client.get(format!("/v1/statements/{statement}?wait_ms=20000")).await }));
        let waiting = i64::try_from(polls.len()).unwrap();
        eventually("it holds its place", || bench.metrics.http.inflight() == waiting).await;
    };
    let refused = async |client: &Client, code: &str| {
        let answer = client.get("/v1/network").await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, code));
    };
    // Half of the places are for one party, half of what is left for the next.
    poll(&agency).await;
    poll(&agency).await;
    refused(&agency, "share_exceeded").await;
    assert_eq!(other.get("/v1/network").await.status, StatusCode::OK, "another party has its own share");
    poll(&other).await;
    refused(&other, "share_exceeded").await;
    let regulator = bench.party(Party::Regulator);
    poll(&regulator).await;
    refused(&regulator, "saturated").await;
    assert_eq!(agency.get("/livez").await.status, StatusCode::OK, "health is answered when all places are taken");
    assert_eq!(bench.public().get("/v1/network").await.status, StatusCode::OK, "each listener has its own places");
    bench.ledger.release();
    for poll in polls {
        assert_eq!(poll.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(agency.get("/v1/network").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_half_of_the_connections_at_most() {
    let bench = Bench::with_limits(ApiLimits { connections_max: 4, ..ApiLimits::default() }).await;
    let (greedy, other) = (bench.party(Party::Agency), bench.party(Party::Other));
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut connection = greedy.connect().await.unwrap();
        assert_eq!(connection.send(Ask::get("/v1/network")).await.unwrap().status, StatusCode::OK);
        kept.push(connection);
    }
    assert!(greedy.try_send(Ask::get("/v1/network")).await.is_err(), "one too many is closed");
    eventually("counted", || bench.metrics.tls.handshakes(Handshake::ShareExceeded) == 1).await;
    assert_eq!(other.get("/v1/network").await.status, StatusCode::OK);
    kept.pop();
    eventually("a place is free again", || bench.metrics.http.connections(Listener::Party) <= 1).await;
    assert_eq!(greedy.get("/v1/network").await.status, StatusCode::OK);
}

/// Who says nothing has no name and no place among the parties' connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_shut_no_party_out() {
    let bench = Bench::with_limits(ApiLimits { connections_max: 4, ..ApiLimits::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(bench.address(Listener::Party)).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(bench.party(Party::Agency).get("/v1/network").await.status, StatusCode::OK);
    assert!(begun.elapsed() < Duration::from_secs(2), "before their handshakes time out");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let bench = Bench::with_limits(ApiLimits { connections_max: 2, ..ApiLimits::default() }).await;
    let first = TcpStream::connect(bench.address(Listener::Plain)).await.unwrap();
    let second = TcpStream::connect(bench.address(Listener::Plain)).await.unwrap();
    eventually("both are open", || bench.metrics.http.connections(Listener::Plain) == 2).await;
    let plain = bench.plain();
    let third = tokio::spawn(async move { plain.get("/v1/network").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!third.is_finished());
    assert_eq!(bench.metrics.http.connections(Listener::Plain), 2);
    drop(first);
    assert_eq!(third.await.unwrap().status, StatusCode::OK);
    drop(second);
}

/// 1,000 idle connections with TLS stay cheap while requests are served beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_served_beside_a_thousand_idle_connections() {
    let bench = Bench::new().await;
    let public = bench.public();
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(public.connect().await.unwrap());
    }
    eventually("all are open", || bench.metrics.http.connections(Listener::Public) == 1_000).await;
    let mut connection = public.connect().await.unwrap();
    for _ in 0..100 {
        assert_eq!(connection.send(Ask::get("/v1/network")).await.unwrap().status, StatusCode::OK);
    }
    drop(idle);
    eventually("their places are free again", || bench.metrics.http.connections(Listener::Public) <= 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_ends_its_requests_and_accepts_no_more() {
    let bench = Bench::new().await;
    bench.ledger.hold();
    let entry = bench.ledger.record(Party::Agency, 1);
    let client = bench.party(Party::Agency);
    let polling = client.clone();
    let poll =
        tokio::spawn(async move { polling.send(Ask::post("/entries?wait_ms=20000", "application/cose", entry)).await });
    let idle = bench.public().connect().await.unwrap();
    eventually("the statement waits", || bench.ledger.held_statements() == 1).await;
    bench.stop.cancel();
    bench.ledger.release();
    assert_eq!(poll.await.unwrap().json()["progress"], "certified", "a request in progress is answered");
    tokio::time::timeout(Duration::from_secs(10), bench.served).await.expect("stops within its grace").unwrap();
    assert!(client.try_send(Ask::get("/livez")).await.is_err(), "nothing is accepted any more");
    drop(idle);
}
