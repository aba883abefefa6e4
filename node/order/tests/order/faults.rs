//! Lying applications, stuck engines, halting nodes, lost disks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stele_order::{Order, OrderError, Peer, StopReason};

use crate::network::{Network, Plan};

const ALL: [usize; 4] = [0, 1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_a_lying_proposer_get_no_votes() {
    let mut network = Network::new(4, Plan::default());
    network.nodes[1].app.lies.store(true, Ordering::Relaxed);
    network.start_all().await;
    network.reach(&ALL, 8, Duration::from_secs(40)).await;
    let liar = network.nodes[1].app.validator;
    for height in 1..=8 {
        let decided = network.nodes[0].app.block(height);
        assert_ne!(decided.bytes[10..42], *liar.as_bytes(), "a poisoned block was decided at height {height}");
    }
    let figures = network.nodes[0].order().figures();
    assert!(figures.proposals_refused > 0 && figures.rounds_extra > 0, "{figures:?}");
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_engine_is_restarted_and_catches_up() {
    let mut network = Network::new(4, Plan { stall: Duration::from_secs(4), ..Plan::default() });
    network.start_all().await;
    network.reach(&ALL, 5, Duration::from_secs(20)).await;
    assert!(network.nodes[0].order().state_dump().await.contains("validator_set"));
    network.nodes[0].order().freeze_engine().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let frozen_at = network.nodes[0].app.height();
    network.reach(&[1, 2, 3], network.top() + 3, Duration::from_secs(20)).await;
    assert_eq!(network.nodes[0].app.height(), frozen_at, "the freeze works");

    let top = network.top() + 3;
    network.reach(&ALL, top, Duration::from_secs(20)).await;
    let figures = network.nodes[0].order().figures();
    // On a loaded machine the new engine may itself need longer than the short patience of this test.
    assert!((1..=2).contains(&figures.engine_restarts), "{figures:?}");
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_halts_stops_its_order_only() {
    let mut network = Network::new(4, Plan::default());
    network.nodes[3].app.halt_at.store(6, Ordering::Relaxed);
    network.start_all().await;
    let stopped = tokio::time::timeout(Duration::from_secs(20), network.nodes[3].order().stopped()).await.unwrap();
    assert_eq!(stopped, StopReason::Application("an unknown protocol version".into()));
    assert_eq!(network.nodes[3].app.height(), 5);
    network.reach(&[0, 1, 2], 8, Duration::from_secs(30)).await;
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_validators_stop_within_a_height_and_go_on() {
    let mut network = Network::new(4, Plan { block_bytes: 300_000, ..Plan::default() });
    for _ in 0..3 {
        network.start_all().await;
        let top = network.top();
        network.reach(&ALL, top + 4, Duration::from_secs(30)).await;
        network.stop_all().await;
        network.assert_one_chain();
    }
    let conflicts: u32 = network.nodes.iter().map(|node| node.signer.conflicts.load(Ordering::Relaxed)).sum();
    assert_eq!(conflicts, 0, "the journal and the undecided blocks make the engine ask for the same ballots again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_an_error_at_start() {
    let network = Network::new(1, Plan::default());
    let node = &network.nodes[0];
    let _taken = std::net::TcpListener::bind(node.config.listen).unwrap();
    let failure = Order::start(node.config.clone(), node.signer.clone(), node.app.clone()).await.unwrap_err();
    assert!(matches!(failure, OrderError::Listen { .. }), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_validator_decides_alone() {
    let mut network = Network::new(1, Plan::default());
    network.start_all().await;
    network.reach(&[0], 5, Duration::from_secs(10)).await;
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_with_the_same_key_is_proven_and_forks_nothing() {
    // Idling in between, so that the twin is not left behind and takes part in every height.
    let mut network = Network::new(4, Plan { busy: false, ..Plan::default() });
    network.add_twin();
    network.start_all().await;
    let deadline = Instant::now() + Duration::from_secs(40);
    while network.nodes[1].app.equivocations.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no proof of the double votes");
        let top = network.top();
        network.nodes[1].app.submit();
        network.reach(&[1, 2, 3, 4], top + 1, Duration::from_secs(20)).await;
        network.fall_idle(&[1, 2, 3, 4], Duration::from_secs(20)).await;
    }
    let guilty = network.nodes[0].app.validator;
    for proof in network.nodes[1].app.equivocations.lock().unwrap().iter() {
        let [(first, _), (second, _)] = proof.ballots;
        assert_eq!(proof.validator, guilty);
        assert_eq!((first.height, first.round, first.kind), (second.height, second.round, second.kind));
        assert_ne!((first.block, first.valid_round), (second.block, second.valid_round));
    }
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_pinned_and_can_be_pinned_anew() {
    let mut network = Network::new(4, Plan::default());
    let newcomer = network.nodes[0].config.peers[2].clone();
    for node in &mut network.nodes[..3] {
        node.config.peers.retain(|peer| *peer != newcomer);
    }
    network.start_all().await;
    network.reach(&[0, 1, 2], 5, Duration::from_secs(20)).await;
    assert_eq!(network.nodes[3].app.height(), 0, "a validator that nobody has pinned stays outside");
    let figures = network.nodes[0].order().figures();
    assert_eq!(figures.peers_connected.len(), 2);
    // The three may fetch blocks from each other when one of them lags; the stranger gets none.
    assert!(network.nodes[3].order().figures().peers_connected.is_empty(), "nobody lets a stranger in");

    // Its address is not known: pinned by its id alone, it is let in when it dials.
    for node in &network.nodes[..3] {
        let mut peers = node.config.peers.clone();
        peers.push(Peer { endpoint: None, ..newcomer.clone() });
        node.order().pin_peers(peers).await.unwrap();
    }
    let top = network.top();
    network.reach(&ALL, top + 3, Duration::from_secs(20)).await;
    network.stop_all().await;
    network.assert_one_chain();
}
