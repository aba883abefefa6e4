//! Files of one node's data directory are damaged while it is down. What is derived from the blocks is built again and
//! agrees with the other nodes; damaged blocks keep the node from starting, and it says which file it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stele_client::Wait;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::{Cluster, Load, LoadOptions, agreement, scale};
use stele_types::Code;
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

/// Without its journal a validator does not know what its votes at the running height bind it to.
#[tokio::test(flavor = "multi_thread")]
async fn a_validator_whose_journal_is_damaged_or_lost_goes_on_and_forks_nothing() -> Result<()> {
    /// What a journal becomes, if anything is left of it.
    type Damaged = fn(Vec<u8>) -> Option<Vec<u8>>;
    let damages: [(&str, Damaged); 4] = [
        ("never flushed", |bytes| Some([bytes, vec![0; 5_000]].concat())),
        ("of no version", |mut bytes| {
            bytes[0] ^= 1;
            Some(bytes)
        }),
        ("another height's", |mut bytes| {
            bytes[5] ^= 1;
            Some(bytes)
        }),
        ("lost", |_| None),
    ];
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    let journal = cluster.network.dir().node("node-4").data().join("order").join("consensus.wal");
    for (what, damage) in damages {
        load.wait_more(200, Duration::from_secs(60)).await?;
        cluster.network.kill(VICTIM)?;
        match damage(fs::read(&journal)?) {
            Some(bytes) => fs::write(&journal, bytes)?,
            None => fs::remove_file(&journal)?,
        }
        cluster.network.start(VICTIM)?;
        cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX).context(what)?;
        let decided = cluster.height(0).await?;
        cluster.wait_height(VICTIM, decided + 3, Duration::from_secs(60)).await.context(what)?;
    }
    ensure!(cluster.log(VICTIM)?.contains("the journal is damaged"), "the damage was told");
    // Three of four are a quorum: without node 0, the victim must vote again.
    println!("{:?}", agreement::check_without(&mut cluster, load, 0).await?);
    Ok(())
}

/// How long a node that just started may take to know a certified outcome.
const SETTLE_WAIT: Duration = Duration::from_secs(20);

/// How a statement's 16 bytes in `outcomes.dat` are changed: log index + 1, code, zeros.
type Change = fn(&mut [u8; 16]);

/// A code was changed from 0 to 1 while a node was down. It started, and said `certified` and `stale` of a statement that
/// the network had applied: the read of an old height passed its checksum by.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_outcome_of_an_old_height_is_refused_and_never_another_one() -> Result<()> {
    let changes: [(&str, Change); 3] = [
        ("code", |outcome| outcome[8] ^= 1),
        ("index", |outcome| outcome[..8].fill(0)),
        ("both", |outcome| {
            outcome[..8].fill(0);
            outcome[8] ^= 1;
        }),
    ];
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(1_000, Duration::from_secs(120)).await?;
    let acknowledged = load.finish().await?;
    agreement::check_nodes(&cluster, &[0, VICTIM], &acknowledged).await?;
    let applied = acknowledged.iter().filter(|status| status.code == Some(Code::Applied));
    let old = applied.min_by_key(|status| status.index).context("none applied")?;
    // The tip is executed again at every start, which would write its outcomes anew.
    let tip = cluster.height(VICTIM).await?;
    ensure!(old.height.is_some_and(|height| height.0 + 1 < tip), "height {:?} of {tip} is not old", old.height);

    for (what, change) in changes {
        refuses_until_rebuilt(&mut cluster, old, change).await.with_context(|| format!("{what} changed"))?;
        agreement::check_nodes(&cluster, &[0, VICTIM], &acknowledged)
            .await
            .with_context(|| format!("{what} changed"))?;
    }
    Ok(())
}

/// Changes an outcome of the victim, which must not give another one, and starts it twice: the second start builds its
/// stores again.
async fn refuses_until_rebuilt(cluster: &mut Cluster, old: &StatementStatus, change: Change) -> Result<()> {
    let outcomes = cluster.network.dir().node("node-4").data().join("chain").join("outcomes").join("outcomes.dat");
    cluster.network.stop(VICTIM)?;
    change_outcome(&outcomes, old, change)?;
    let before = cluster.log(VICTIM)?.len();
    cluster.network.start(VICTIM)?;
    cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX)?;
    // A refusal is as good as the truth; what is wrong is any other outcome.
    if let Ok(now) = cluster.client("agency-1", VICTIM)?.statement(&old.statement, Wait::None).await {
        ensure!((now.code, now.index) == (old.code, old.index), "a wrong answer: {now:?} for {old:?}");
    }
    // Said by the read, or by a start that happened to read there: else nothing was damaged.
    said_since(cluster, before, "from the blocks").await?;

    let before = cluster.log(VICTIM)?.len();
    cluster.network.stop(VICTIM)?;
    cluster.network.start(VICTIM)?;
    cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX)?;
    let now = cluster.client("agency-1", VICTIM)?.statement(&old.statement, Wait::Certified(SETTLE_WAIT)).await;
    let now = now.with_context(|| {
        let said = cluster.log(VICTIM).unwrap_or_default();
        format!("after the second start:\n{}", said.get(before..).unwrap_or_default())
    })?;
    ensure!((now.code, now.index) == (old.code, old.index), "a wrong answer: {now:?} for {old:?}");
    Ok(())
}

/// Changes the outcome of `status`, found by its leaf, in a file of outcomes.
fn change_outcome(file: &Path, status: &StatementStatus, change: Change) -> Result<()> {
    let leaf = status.index.context("no leaf")?.0 + 1;
    let mut bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let outcome = bytes.as_chunks_mut::<16>().0.iter_mut().find(|outcome| outcome.starts_with(&leaf.to_le_bytes()));
    change(outcome.context("no such outcome")?);
    fs::write(file, bytes)?;
    Ok(())
}

/// Waits until what the victim's log holds beyond `before` bytes has `text` in it.
async fn said_since(cluster: &Cluster, before: usize, text: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let said = cluster.log(VICTIM)?.split_off(before);
        if said.contains(text) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "never said {text:?}:\n{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Values of the state lie in files. One that is not what was committed is no answer: nothing is decided by it.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_damaged_under_a_running_node_stop_it_and_the_state_is_built_again() -> Result<()> {
    let mut cluster = Cluster::start_with(&InitOptions::default(), "[state]\nvalues_memory_bytes = 0\n")?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(500, Duration::from_secs(120)).await?;
    let state = cluster.network.dir().node("node-4").data().join("chain").join("state");
    let before = cluster.log(VICTIM)?.len();
    for entry in fs::read_dir(&state)? {
        let path = entry?.path();
        if path.extension().is_none_or(|kind| kind != "log") {
            continue;
        }
        // In place, behind the file's header: the node has the file open. Hardly a value is longer than the step.
        let file = fs::File::options().read(true).write(true).open(&path)?;
        for offset in (100..file.metadata()?.len()).step_by(24) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset)?;
            file.write_all_at(&[byte[0] ^ 1], offset)?;
        }
    }
    cluster.wait_ended(VICTIM, Duration::from_secs(60)).await?;
    let said = cluster.log(VICTIM)?.split_off(before);
    ensure!(said.contains("a value of the state cannot be read"), "{said}");

    cluster.network.start(VICTIM)?;
    cluster.network.wait_node_ready(VICTIM, READY_WAIT_MAX)?;
    ensure!(cluster.log(VICTIM)?.contains("rebuilding"), "{}", cluster.log(VICTIM)?);
    let acknowledged = load.finish().await?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
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
