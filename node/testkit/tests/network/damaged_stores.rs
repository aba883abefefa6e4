//! Files of one node's data directory are damaged while it is down. What is derived from the blocks is built again and
//! agrees with the other nodes; damaged blocks keep the node from starting, and it says which file it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_testkit::{Cluster, Load, LoadOptions, agreement, scale};
use stele_types::exchange::StatementStatus;

/// The node whose files are damaged.
const VICTIM: usize = 3;
const DERIVED: [&str; 6] = ["state", "log", "outcomes", "index", "links", "epochs"];

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Truncate,
    Delete,
}

impl Damage {
    const ALL: [Self; 3] = [Self::Flip, Self::Truncate, Self::Delete];

    fn inflict(self, path: &Path) -> Result<()> {
        let mut bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let middle = bytes.len() / 2;
        match self {
            Self::Delete => fs::remove_file(path)?,
            Self::Truncate => {
                bytes.truncate(middle);
                fs::write(path, bytes)?;
            }
            Self::Flip => {
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 0x10;
                }
                fs::write(path, bytes)?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_damaged_derived_file_builds_it_again_and_agrees() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(1_000, Duration::from_secs(120)).await?;
    let acknowledged = load.finish().await?;
    let chain = cluster.network.dir().node("node-4").data().join("chain");
    cluster.network.stop(VICTIM)?;
    let names: Vec<PathBuf> = files(&chain)?.into_keys().collect();
    ensure!(names.len() >= 8, "a node's derived files: {names:?}");

    // Every file gets one kind of damage, in the slow tier every kind.
    let kinds = scale(1, Damage::ALL.len());
    for (number, name) in names.iter().enumerate() {
        for kind in 0..kinds {
            let damage = Damage::ALL[(number + kind) % Damage::ALL.len()];
            let path = chain.join(name);
            // Names of files change when stores are built again.
            if !path.exists() {
                continue;
            }
            damage.inflict(&path)?;
            cluster.network.start(VICTIM)?;
            let started = cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX);
            started.with_context(|| format!("{damage:?} of {}", name.display()))?;
            agrees(&mut cluster, &acknowledged).await.with_context(|| format!("{damage:?} of {}", name.display()))?;
            cluster.network.stop(VICTIM)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_keep_a_node_from_starting_and_it_names_the_file() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(500, Duration::from_secs(120)).await?;
    cluster.network.stop(VICTIM)?;
    let blocks = cluster.network.dir().node("node-4").data().join("chain").join("blocks");
    let segment = fs::read_dir(&blocks)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 4_096))
        .min()
        .context("a segment")?;
    // Near its beginning: sound records follow, so no interrupted write explains it.
    let mut bytes = fs::read(&segment)?;
    bytes[2_000] ^= 0x10;
    fs::write(&segment, bytes)?;
    let before = cluster.log(VICTIM)?.len();
    cluster.network.start(VICTIM)?;
    let ended = cluster.wait_ended(VICTIM, Duration::from_secs(60)).await?;
    let said = cluster.log(VICTIM)?.split_off(before);
    let name = segment.file_name().and_then(std::ffi::OsStr::to_str).context("name")?;
    ensure!(ended.code() == Some(1), "ended with {ended}:\n{said}");
    ensure!(said.contains(name) && said.contains("the peers have the blocks"), "{said}");

    // What it says to do helps.
    cluster.network.wipe(VICTIM)?;
    cluster.network.start(VICTIM)?;
    cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX)?;
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

/// Compares the victim with another node. What its start did not notice is noticed when it is read: it answers that it
/// cannot, says so in its log, and the next start builds the stores again.
async fn agrees(cluster: &mut Cluster, acknowledged: &[StatementStatus]) -> Result<()> {
    let Err(error) = agreement::check_nodes(cluster, &[0, VICTIM], acknowledged).await else { return Ok(()) };
    ensure!(!format!("{error:#}").contains("is lost"), "a wrong answer: {error:#}");
    cluster.wait_log(VICTIM, "the next start builds it again", Duration::from_secs(1)).await.context(error)?;
    cluster.network.stop(VICTIM)?;
    cluster.network.start(VICTIM)?;
    cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX)?;
    agreement::check_nodes(cluster, &[0, VICTIM], acknowledged).await?;
    Ok(())
}

/// Derived files of a chain, by their path in it, with their lengths.
fn files(chain: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = DERIVED.iter().map(|name| chain.join(name)).collect();
    open.push(chain.join("checkpoint.cbor"));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?);
        } else if path.is_file() && !path.ends_with("lock") {
            found.insert(path.strip_prefix(chain)?.to_owned(), path.metadata()?.len());
        }
    }
    Ok(found)
}
