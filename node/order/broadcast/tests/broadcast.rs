//! Swarms on loopback that broadcast to each other.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{DialError, SwarmEvent, dial_opts::DialOpts, dial_opts::PeerCondition};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_scatter::{Behaviour, Config, Event, Topic};

const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const WAIT: Duration = Duration::from_secs(20);

fn topic() -> Topic {
    Topic::new(b"/votes")
}

fn swarm(key: &Keypair) -> Swarm<Behaviour> {
    let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| Behaviour::new(Config { max_buf_size: MESSAGE_BYTES_MAX }))
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(WAIT))
        .build();
    swarm.behaviour_mut().subscribe(topic());
    swarm
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    let address = "/ip4/127.0.0.1/tcp/0".parse().expect("an address");
    swarm.listen_on(address).expect("a socket");
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

fn dial(from: &mut Swarm<Behaviour>, to: &Swarm<Behaviour>, address: Multiaddr) -> Result<(), DialError> {
    let peer = DialOpts::peer_id(*to.local_peer_id());
    from.dial(peer.condition(PeerCondition::Always).addresses(vec![address]).build())
}

/// Runs both until one of them has been told of a peer, and the other too.
async fn connected(one: &mut Swarm<Behaviour>, other: &mut Swarm<Behaviour>) {
    let (mut here, mut there) = (false, false);
    let both = async {
        while !(here && there) {
            tokio::select! {
                event = one.select_next_some() => {
                    here |= matches!(event, SwarmEvent::ConnectionEstablished { .. });
                }
                event = other.select_next_some() => {
                    there |= matches!(event, SwarmEvent::ConnectionEstablished { .. });
                }
            }
        }
    };
    tokio::time::timeout(WAIT, both).await.expect("no connection");
}

/// Messages that `to` has from `from`, as soon as they are so many.
async fn received(from: &mut Swarm<Behaviour>, to: &mut Swarm<Behaviour>, count: usize) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let sender = *from.local_peer_id();
    let all = async {
        while messages.len() < count {
            tokio::select! {
                _ = from.select_next_some() => {}
                event = to.select_next_some() => {
                    if let SwarmEvent::Behaviour(Event::Received(peer, about, message)) = event {
                        assert_eq!((peer, about), (sender, topic()));
                        messages.push(message);
                    }
                }
            }
        }
    };
    let complete = tokio::time::timeout(WAIT, all).await.is_ok();
    assert!(complete, "{} of {count} messages came", messages.len());
    messages
}

#[tokio::test]
async fn messages_come_in_order_and_both_ways() {
    let (mut one, mut other) = (swarm(&Keypair::generate_ed25519()), swarm(&Keypair::generate_ed25519()));
    let address = listening(&mut one).await;
    dial(&mut other, &one, address).unwrap();
    connected(&mut one, &mut other).await;
    // More than a socket takes at once, and of every length.
    let sent: Vec<Bytes> =
        (0..500_usize).map(|i| vec![u8::try_from(i % 251).unwrap(); i * i % 60_000].into()).collect();
    for message in &sent {
        one.behaviour_mut().broadcast(&topic(), message.clone());
    }
    assert_eq!(received(&mut one, &mut other, sent.len()).await, sent);
    other.behaviour_mut().broadcast(&topic(), Bytes::from_static(b"back"));
    assert_eq!(received(&mut other, &mut one, 1).await, [Bytes::from_static(b"back")]);
}

/// A validator lost power, and is back before anybody has seen its connection die.
#[tokio::test]
async fn a_peer_that_is_back_too_early_hears_and_is_heard() {
    let key = Keypair::generate_ed25519();
    let (mut stays, mut dies) = (swarm(&Keypair::generate_ed25519()), swarm(&key));
    let address = listening(&mut stays).await;
    dial(&mut dies, &stays, address.clone()).unwrap();
    connected(&mut stays, &mut dies).await;
    dies.behaviour_mut().broadcast(&topic(), Bytes::from_static(b"before"));
    received(&mut dies, &mut stays, 1).await;

    // Its socket stays open from here on, and nobody reads from it.
    let mut back = swarm(&key);
    dial(&mut back, &stays, address).unwrap();
    connected(&mut stays, &mut back).await;
    for round in 0..2 {
        back.behaviour_mut().broadcast(&topic(), Bytes::from_static(b"vote"));
        received(&mut back, &mut stays, 1).await;
        stays.behaviour_mut().broadcast(&topic(), Bytes::from_static(b"proposal"));
        received(&mut stays, &mut back, 1).await;
        if round == 0 {
            // Now the old connection is seen to be dead.
            let closed =
                async { while !matches!(stays.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
            let unused = swarm(&key);
            drop(std::mem::replace(&mut dies, unused));
            tokio::time::timeout(WAIT, closed).await.expect("the old connection stays");
        }
    }
}

#[tokio::test]
async fn who_comes_later_is_told_of_every_topic() {
    let (mut one, mut other) = (swarm(&Keypair::generate_ed25519()), swarm(&Keypair::generate_ed25519()));
    one.behaviour_mut().subscribe(Topic::new(b"/sync"));
    let address = listening(&mut one).await;
    dial(&mut other, &one, address).unwrap();
    let peer = *other.local_peer_id();
    let mut topics = Vec::new();
    let both = async {
        while topics.len() < 2 {
            tokio::select! {
                event = one.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Subscribed(who, topic)) if who == peer => topics.push(topic),
                    _ => {}
                },
                _ = other.select_next_some() => {}
            }
        }
    };
    tokio::time::timeout(WAIT, both).await.expect("a topic is missing");
    assert_eq!(topics, [topic(), Topic::new(b"/sync")]);
}

#[tokio::test]
async fn what_is_too_long_is_not_sent_and_cuts_nobody_off() {
    let (mut one, mut other) = (swarm(&Keypair::generate_ed25519()), swarm(&Keypair::generate_ed25519()));
    let address = listening(&mut one).await;
    dial(&mut other, &one, address).unwrap();
    connected(&mut one, &mut other).await;
    let longest: Bytes = vec![7; MESSAGE_BYTES_MAX].into();
    one.behaviour_mut().broadcast(&topic(), vec![7; MESSAGE_BYTES_MAX + 1].into());
    one.behaviour_mut().broadcast(&topic(), longest.clone());
    assert_eq!(received(&mut one, &mut other, 1).await, [longest]);
}
