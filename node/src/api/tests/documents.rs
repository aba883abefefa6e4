use std::collections::BTreeSet;

use crate::api::access::Rule;
use crate::api::{Route, document};

/// Run with `STELE_UPDATE_DOCS=1` to write the document anew.
#[test]
fn the_committed_document_is_the_programs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let text = document();
    if std::env::var_os("STELE_UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(committed, text, "docs/openapi.json is behind: run this test with STELE_UPDATE_DOCS=1");
}

/// Nothing is served that is not described, and nothing described that is not served.
#[test]
fn the_document_describes_every_route_and_no_other() {
    let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    let routes = Route::ALL.iter().map(|route| {
        let method = route.method().unwrap().as_str().to_lowercase();
        format!("{method} {}", route.path().replace("{*", "{"))
    });
    assert_eq!(described, routes.collect());
}

/// The rules of docs/protocol.md as a list, so that a change of one is seen in review.
#[test]
fn the_rules_are_these() {
    let of = |rule: Rule| Route::ALL.iter().copied().filter(|route| route.rule() == rule).collect::<Vec<_>>();
    let party = [
        Route::RegisterEntry,
        Route::RegisterBatch,
        Route::Statuses,
        Route::Bundles,
        Route::PutBody,
        Route::Blob,
        Route::SealedBlob,
        Route::BodyCustody,
        Route::AttestQuote,
        Route::AttestEvidence,
        Route::Feed,
    ];
    assert_eq!(of(Rule::Party), party);
    let overseers = [
        Route::Block,
        Route::Snapshots,
        Route::Snapshot,
        Route::SnapshotChunk,
        Route::AttestActivate,
        Route::AttestLog,
    ];
    assert_eq!(of(Rule::RegulatorOrOperator), overseers);
    let copies = [Route::CopyBody, Route::MissingBodies, Route::KeptBodies, Route::ClassKeys];
    assert_eq!(of(Rule::Operator), copies);
    assert_eq!(of(Rule::Administrator), [Route::Storage, Route::Metrics]);
    let control = [
        Route::ScrubStorage,
        Route::RebuildStorage,
        Route::ReplaceDrive,
        Route::StoredBodies,
        Route::StoredBody,
        Route::StoredBlocks,
    ];
    assert_eq!(of(Rule::Control), control);
    assert_eq!(of(Rule::Health), [Route::Live, Route::Ready]);
    assert_eq!(of(Rule::Anyone).len(), Route::ALL.len() - 31);
}
