//! Votes: delegated keys, signers that fail, signers that refuse.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stele_types::{VoteKey, VoteKind};

use crate::network::{Network, Plan};

const ALL: [usize; 4] = [0, 1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delegated_votes_count_under_certificates_of_the_ledger() {
    let mut network = Network::new(4, Plan { delegated: true, ..Plan::default() });
    network.start_all().await;
    network.reach(&ALL, 10, Duration::from_secs(20)).await;
    let certificate = network.nodes[0].app.block(10).certificate;
    for signature in certificate.signatures.iter() {
        assert!(matches!(signature.signature.key, VoteKey::Delegated(_)), "{signature:?}");
    }
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_under_a_forged_epoch_certificate_do_not_count() {
    let mut network = Network::new(4, Plan { delegated: true, forged: Some(1), ..Plan::default() });
    network.start_all().await;
    // The others are a quorum without it; its turns to propose are lost.
    network.reach(&[0, 2, 3], 8, Duration::from_secs(30)).await;
    let forger = network.nodes[1].app.validator;
    for height in 1..=8 {
        let decided = network.nodes[0].app.block(height);
        let forged = decided
            .certificate
            .signatures
            .iter()
            .any(|signature| decided.validators.get(usize::from(signature.validator)).unwrap().id() == forger);
        assert!(!forged, "height {height} counts a forged vote");
    }
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_fails_sometimes_is_asked_again() {
    let mut network = Network::new(4, Plan::default());
    for node in &network.nodes {
        node.signer.fail_every.store(3, Ordering::Relaxed);
    }
    network.start_all().await;
    network.reach(&ALL, 12, Duration::from_secs(30)).await;
    let figures = network.nodes[2].order().figures();
    assert!(figures.signer_retries > 5, "{figures:?}");
    assert_eq!(figures.votes_withheld_double_sign + figures.votes_withheld_other, 0);
    assert_eq!(figures.engine_restarts, 0, "a failing signer does not stop the engine");
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_whose_guard_refuses_follows_without_voting() {
    let mut network = Network::new(4, Plan::default());
    network.start_all().await;
    network.reach(&ALL, 3, Duration::from_secs(20)).await;
    network.nodes[2].signer.refuse.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let from = network.top() + 1;
    network.reach(&ALL, from + 6, Duration::from_secs(30)).await;
    let silent = network.nodes[2].app.validator;
    for height in from..from + 6 {
        let decided = network.nodes[2].app.block(height);
        let voted = decided
            .certificate
            .signatures
            .iter()
            .any(|signature| decided.validators.get(usize::from(signature.validator)).unwrap().id() == silent);
        assert!(!voted, "a withheld vote is in the certificate of height {height}");
    }
    let figures = network.nodes[2].order().figures();
    assert!(figures.votes_withheld_double_sign >= 6, "{figures:?}");
    assert_eq!(figures.engine_restarts, 0);

    network.nodes[2].signer.refuse.store(false, Ordering::Relaxed);
    let top = network.top();
    network.reach(&ALL, top + 6, Duration::from_secs(30)).await;
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_signers_cost_time_but_no_rounds() {
    let mut network = Network::new(4, Plan::default());
    for node in &network.nodes {
        node.signer.delay_ms.store(50, Ordering::Relaxed);
    }
    network.start_all().await;
    network.reach(&ALL, 2, Duration::from_secs(20)).await;
    let (started, from) = (Instant::now(), network.top());
    let rounds = network.nodes[0].order().figures().rounds_extra;
    network.reach(&ALL, from + 12, Duration::from_secs(30)).await;
    eprintln!("signatures of 50 ms: {:.1} blocks/s", 12.0 / started.elapsed().as_secs_f64());
    let figures = network.nodes[0].order().figures();
    assert_eq!(figures.rounds_extra, rounds, "{figures:?}");
    assert!(figures.signature_ms_total >= 50 * figures.signatures);
    network.stop_all().await;
    network.assert_one_chain();
}

/// A validator is killed between signing a vote and sending it, and the two that are left beside the one that is away wait for
/// just that vote.
async fn goes_on_after_losing(kind: VoteKind) {
    let mut network = Network::new(4, Plan::default());
    network.start_all().await;
    network.reach(&ALL, 3, Duration::from_secs(20)).await;
    network.nodes[3].stop().await;
    let signer = Arc::clone(&network.nodes[2].signer);
    signer.lose.store(kind as u8, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !signer.lost.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "nothing was signed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    network.nodes[2].stop().await;
    signer.lose.store(0, Ordering::Relaxed);
    signer.lost.store(false, Ordering::Relaxed);
    // The others have done what they can by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let top = network.top();
    network.nodes[2].start().await;
    network.reach(&[0, 1, 2], top + 5, Duration::from_secs(25)).await;
    let figures = network.nodes[2].order().figures();
    assert_eq!(figures.votes_withheld_double_sign, 0, "a crash is no second validator: {figures:?}");
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_precommit_that_was_signed_and_never_sent_holds_nobody_up() {
    goes_on_after_losing(VoteKind::Precommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prevote_that_was_signed_and_never_sent_holds_nobody_up() {
    goes_on_after_losing(VoteKind::Prevote).await;
}
