//! Endpoints that nothing may be trusted to. What they do wrong no Ceph does, so these are small servers of our own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endpoint;

use std::time::Duration;

use stele_cold::{ColdError, ColdOptions, ColdTier, Credentials};

use endpoint::{Fault, serve};

async fn open(fault: Fault) -> ColdError {
    let address = serve(fault).await;
    let credentials = Credentials { key_id: "key".to_owned(), secret: "secret".to_owned() };
    let mut options = ColdOptions::new(&format!("http://{address}"), "objects", "seals", credentials);
    options.retries_max = 1;
    options.request_timeout = Duration::from_secs(10);
    ColdTier::open(options).await.unwrap_err()
}

#[tokio::test]
async fn one_that_creates_what_is_there_is_refused() {
    let error = open(Fault::Overwrites).await;
    assert_eq!(error.code(), "cold_tier_unsafe");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn one_that_answers_without_end_takes_no_memory() {
    let error = open(Fault::Floods).await;
    assert_eq!(error.code(), "cold_unavailable");
    assert!(error.to_string().contains("longer than what was asked for"), "{error}");
}

#[tokio::test]
async fn one_that_counts_beyond_all_numbers_stops_nobody() {
    let error = open(Fault::Endless).await;
    assert_eq!(error.code(), "cold_unavailable");
    assert!(error.to_string().contains("a range that no object has"), "{error}");
}

#[tokio::test]
async fn none_at_all_is_told() {
    let credentials = Credentials { key_id: "key".to_owned(), secret: "secret".to_owned() };
    // The discard port: nobody listens.
    let mut options = ColdOptions::new("http://127.0.0.1:9", "objects", "seals", credentials);
    options.retries_max = 1;
    let error = ColdTier::open(options).await.unwrap_err();
    assert_eq!(error.code(), "cold_unavailable");
    assert!(error.retry_after().is_some());
}
