//! A fifth validator joins four that run, and nobody restarts: the others let it in when its change is decided, and when
//! one of them is killed its vote is needed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::{READY_WAIT_MAX, free_ports};
use stele_ctl::network::init::{NewParty, found_party};
use stele_ctl::network::{NewNode, add_node};
use stele_ctl::pki::Authority;
use stele_testkit::{Cluster, Load, LoadOptions, agreement};
use stele_types::cbor::List;
use stele_types::governance::ValidatorsChange;
use stele_types::party::Role;
use stele_types::{Command, PartyId, Suite, Validator};

/// The node that joins.
const NEW: usize = 4;
/// Heights between the decision and the activation: propose and approve take some.
const AHEAD: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_joins_while_the_others_run_and_its_vote_is_needed() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let processes: Vec<_> = (0..NEW).map(|node| cluster.network.process_id(node)).collect();
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let operator = enrol_operator(&cluster).await?;
    let validator = add_fifth(&mut cluster, operator)?;

    // It starts before the network knows it, and is a stranger until the change is decided.
    cluster.network.start(NEW)?;
    let activation_height = cluster.height(0).await? + AHEAD;
    let change =
        ValidatorsChange { activation_height, upsert: List::new(vec![validator.clone()])?, remove: List::default() };
    cluster.govern(&Command::ValidatorsChange(change)).await?;
    ensure!(cluster.height(0).await? < activation_height, "the decision took more than {AHEAD} heights");
    for node in 0..NEW {
        cluster.wait_log(node, "peers are pinned anew", Duration::from_secs(20)).await?;
    }
    cluster.wait_height(NEW, activation_height + 5, Duration::from_secs(120)).await?;
    cluster.network.wait_node_ready(NEW, READY_WAIT_MAX)?;
    let set = cluster.client("agency-1", 0)?.network().await?.validators;
    ensure!(set.len() == NEW + 1, "{} validators are in force", set.len());
    for (node, process) in processes.iter().enumerate() {
        ensure!(cluster.network.process_id(node) == *process, "node {node} was restarted");
    }

    // Four of five are a quorum: without node 0, the new validator must vote.
    println!("{:?}", agreement::check_without(&mut cluster, load, 0).await?);

    dial_it_as_well(&mut cluster, &validator).await
}

pub(super) async fn enrol_operator(cluster: &Cluster) -> Result<PartyId> {
    let dir = cluster.network.dir();
    let authority = Authority::open(&dir.ca_certificate(), &dir.ca_key())?;
    let new = NewParty { name: "operator-5", roles: &[Role::Operator], suite: Suite::Es256, organisation: None };
    let (_, founder) = found_party(dir, &authority, &new)?;
    let party = founder.party;
    cluster.govern(&Command::PartyEnrol(founder.into())).await?;
    Ok(party)
}

pub(super) fn add_fifth(cluster: &mut Cluster, operator: PartyId) -> Result<Validator> {
    let peer = &cluster.network.profile().nodes.last().context("a node")?.peer;
    let last: u16 = peer.rsplit_once(':').context("port")?.1.parse()?;
    let new = NewNode {
        name: "node-5".into(),
        host: "127.0.0.1".into(),
        first_port: free_ports(last + 10, 1)?,
        operator,
        payload: None,
        held: None,
    };
    let (node, validator) = add_node(cluster.network.dir(), &new)?;
    cluster.network.add(node);
    Ok(validator)
}

/// The others learn its address when their configuration is read again.
async fn dial_it_as_well(cluster: &mut Cluster, validator: &Validator) -> Result<()> {
    let node = cluster.network.profile().nodes.get(NEW).context("node")?;
    let entry = format!(
        "persistent = [\n    {{ address = \"{}\", peer_id = \"{}\" }},",
        node.peer,
        hex::encode(validator.peer_id())
    );
    let path = cluster.network.dir().node("node-2").config();
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, text.replace("persistent = [", &entry))?;
    let before = cluster.log(1)?.matches("peers are pinned anew").count();
    cluster.network.reload(1)?;
    cluster.wait_log(1, "configuration reloaded", Duration::from_secs(10)).await?;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while cluster.log(1)?.matches("peers are pinned anew").count() == before {
        ensure!(std::time::Instant::now() < deadline, "the address was not taken over:\n{}", cluster.log(1)?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let height = cluster.height(0).await?;
    let status = cluster.settle("agency-1", &stele_testkit::load::records(&cluster.author("agency-1")?, 1)?[0]).await?;
    ensure!(status.height.is_some_and(|settled| settled.0 > height), "no block after the reload");
    Ok(())
}
