//! Validators agree, lose one another, and find together again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::network::{Network, Plan};

const ALL: [usize; 4] = [0, 1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_agree_and_stop_cleanly() {
    let mut network = Network::new(4, Plan::default());
    network.start_all().await;
    network.reach(&ALL, 20, Duration::from_secs(20)).await;
    let figures = network.nodes[0].order().figures();
    assert_eq!((figures.validators, figures.quorum, figures.peers_connected.len()), (4, 3, 3));
    assert!(figures.committed >= 20 && figures.journal_bytes > 0 && figures.proposals_made > 0, "{figures:?}");
    network.stop_all().await;
    network.assert_one_chain();
    let stopped_at = network.top();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(network.top(), stopped_at, "a stopped order commits nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_validator_is_not_needed_and_catches_up() {
    let mut network = Network::new(4, Plan::default());
    network.start_all().await;
    network.reach(&ALL, 5, Duration::from_secs(20)).await;
    network.nodes[3].stop().await;
    let left_at = network.nodes[3].app.height();
    // Every fourth height waits for the silent proposer: propose and precommit timeouts, about 1.3 s.
    network.reach(&[0, 1, 2], network.top() + 8, Duration::from_secs(20)).await;
    let rounds = network.nodes[0].order().figures().rounds_extra;
    assert!((1..=6).contains(&rounds), "one extra round for each turn of the silent proposer, not {rounds}");

    network.nodes[3].start().await;
    let top = network.top();
    assert!(top > left_at + 5);
    network.reach(&[3], top, Duration::from_secs(10)).await;
    assert!(network.nodes[3].app.synced.load(Ordering::Relaxed) > 0, "missed blocks are fetched");

    network.nodes[2].stop().await;
    network.wipe(2);
    network.nodes[2].start().await;
    let top = network.top();
    network.reach(&[2], top, Duration::from_secs(15)).await;
    network.reach(&ALL, top + 5, Duration::from_secs(15)).await;
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_decided_until_one_returns() {
    let mut network = Network::new(4, Plan::default());
    network.start_all().await;
    network.reach(&ALL, 3, Duration::from_secs(20)).await;
    network.nodes[0].stop().await;
    network.nodes[1].stop().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let top = network.top();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(network.top(), top, "two of four decide nothing");
    assert_eq!(network.nodes[2].order().figures().engine_restarts, 0, "and it is not the engine's fault");
    network.nodes[0].start().await;
    network.reach(&[0, 2, 3], top + 3, Duration::from_secs(20)).await;
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_blocks_flow_and_a_new_node_fetches_them() {
    let plan = Plan { block_bytes: 1024 * 1024, ..Plan::default() };
    let mut network = Network::new(4, plan);
    for node in &mut network.nodes[..3] {
        node.start().await;
    }
    network.nodes[3].start().await;
    network.reach(&ALL, 2, Duration::from_secs(20)).await;
    let (started, from) = (Instant::now(), network.top());
    network.reach(&ALL, from + 30, Duration::from_secs(60)).await;
    let rate = 30.0 / started.elapsed().as_secs_f64();
    eprintln!("1 MiB blocks: {rate:.1} blocks/s");
    let figures = network.nodes[1].order().figures();
    assert_eq!((figures.parts_refused, figures.proposals_refused), (0, 0), "{figures:?}");

    network.nodes[3].stop().await;
    network.wipe(3);
    network.set_busy(false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let top = network.top();
    let started = Instant::now();
    network.nodes[3].start().await;
    network.reach(&[3], top, Duration::from_secs(60)).await;
    let rate = top as f64 / started.elapsed().as_secs_f64();
    eprintln!("{top} blocks of 1 MiB fetched: {rate:.1} blocks/s");
    assert!(rate * 60.0 > 50.0, "at least 50 MiB a minute");
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_blocks_are_fetched_quickly() {
    let mut network = Network::new(4, Plan::default());
    network.start_all().await;
    let started = Instant::now();
    network.reach(&ALL, 200, Duration::from_secs(60)).await;
    eprintln!("256 B blocks: {:.1} blocks/s", 200.0 / started.elapsed().as_secs_f64());
    network.nodes[3].stop().await;
    network.wipe(3);
    network.set_busy(false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let top = network.top();
    let started = Instant::now();
    network.nodes[3].start().await;
    network.reach(&[3], top, Duration::from_secs(60)).await;
    let rate = top as f64 / started.elapsed().as_secs_f64();
    eprintln!("{top} small blocks fetched: {rate:.0} blocks/s");
    // An idle machine fetches many times more than this; a loaded one must still gain on those that make blocks.
    assert!(rate > 10.0, "{rate:.0} blocks/s");
    network.stop_all().await;
    network.assert_one_chain();
}
