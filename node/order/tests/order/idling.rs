//! Idle validators start no heights, run into no timeouts, and wake together.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stele_order::BroadcastError;

use crate::network::{Network, Plan};

const ALL: [usize; 4] = [0, 1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_validators_beat_slowly_and_wake_at_once() {
    let plan = Plan { busy: false, heartbeat: Duration::from_secs(5), ..Plan::default() };
    let mut network = Network::new(4, plan);
    network.start_all().await;
    network.nodes[0].app.submit();
    network.reach(&ALL, 2, Duration::from_secs(20)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = network.top();
    let rounds_before: u64 = network.nodes.iter().map(|node| node.order().figures().rounds_extra).sum();
    tokio::time::sleep(Duration::from_secs(13)).await;
    let beats = network.top() - before;
    assert!((2..=3).contains(&beats), "13 s at a heartbeat of 5 s gave {beats} heights");
    let rounds: u64 = network.nodes.iter().map(|node| node.order().figures().rounds_extra).sum();
    assert_eq!(rounds, rounds_before, "idling costs no rounds");
    assert!(network.nodes.iter().all(|node| node.order().figures().idle));

    // Work at each node in turn, so that the proposer of the height is mostly another one.
    let mut fastest = Duration::MAX;
    for index in ALL {
        let top = network.top();
        let started = Instant::now();
        network.nodes[index].app.submit();
        network.reach(&ALL, top + 1, Duration::from_secs(5)).await;
        let elapsed = started.elapsed();
        eprintln!("woken at node {index}, the block took {elapsed:?}");
        fastest = fastest.min(elapsed);
        // What waits at a node that does not propose is proposed in that node's own turn.
        network.fall_idle(&ALL, Duration::from_secs(5)).await;
    }
    // The fastest of four, because the machine may be busy with something else now and then.
    assert!(fastest < Duration::from_millis(300), "{fastest:?}");
    let rounds: u64 = network.nodes.iter().map(|node| node.order().figures().rounds_extra).sum();
    assert_eq!(rounds, rounds_before, "waking costs no rounds");
    network.stop_all().await;
    network.assert_one_chain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_returns_to_an_idle_network_neither_disturbs_nor_misses_it() {
    let plan = Plan { busy: false, heartbeat: Duration::from_secs(60), ..Plan::default() };
    let mut network = Network::new(4, plan);
    network.start_all().await;
    network.nodes[0].app.submit();
    network.reach(&ALL, 2, Duration::from_secs(20)).await;
    network.nodes[3].stop().await;
    network.nodes[0].app.submit();
    network.reach(&[0, 1, 2], 4, Duration::from_secs(20)).await;
    network.fall_idle(&[0, 1, 2], Duration::from_secs(20)).await;
    let top = network.top();
    let rounds_before: u64 = network.nodes[..3].iter().map(|node| node.order().figures().rounds_extra).sum();
    network.nodes[3].start().await;
    network.reach(&[3], top, Duration::from_secs(10)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(network.top(), top, "nothing to decide, nothing decided");
    let rounds: u64 = network.nodes[..3].iter().map(|node| node.order().figures().rounds_extra).sum();
    assert_eq!(rounds, rounds_before);
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_while_idle_and_while_busy() {
    let plan = Plan { busy: false, heartbeat: Duration::from_secs(60), ..Plan::default() };
    let mut network = Network::new(4, plan);
    network.start_all().await;
    network.nodes[0].app.submit();
    network.reach(&ALL, 2, Duration::from_secs(20)).await;

    let oversized = Bytes::from(vec![0; stele_order::MESSAGE_BYTES_MAX + 1]);
    assert!(matches!(network.nodes[0].order().broadcast(oversized), Err(BroadcastError::TooLarge { .. })));
    for busy in [false, true] {
        network.set_busy(busy);
        for node in &network.nodes {
            node.app.received.lock().unwrap().clear();
        }
        for (index, node) in network.nodes.iter().enumerate() {
            let message = vec![u8::try_from(index).unwrap(); stele_order::MESSAGE_BYTES_MAX];
            node.order().broadcast(message.into()).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while network.nodes.iter().any(|node| node.app.received.lock().unwrap().len() < 3) {
            assert!(Instant::now() < deadline, "messages are missing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (index, node) in network.nodes.iter().enumerate() {
            let received = node.app.received.lock().unwrap();
            assert_eq!(received.len(), 3);
            for (from, bytes) in received.iter() {
                assert_eq!(*from, network.nodes[usize::from(bytes[0])].app.validator, "the sender is known");
                assert_ne!(usize::from(bytes[0]), index);
            }
        }
    }
    network.stop_all().await;
}
