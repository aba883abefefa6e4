//! Backups of nodes that run, and nodes and a whole network made of them, through the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::{InitOptions, PayloadDrives};
use stele_testkit::command_line::text_of;
use stele_testkit::{Cluster, CommandLine, Load, LoadOptions};

const WAIT: Duration = Duration::from_secs(120);
const NODES: usize = 4;
const POLICY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// In every body, and in no backup.
const CANARY: &[u8] = b"the plaintext of a medical record";
const CONFIGURATION: &str = "[state]\nsnapshot_interval = 10\n";

async fn start() -> Result<(Cluster, CommandLine)> {
    let drives = PayloadDrives { drive_bytes: 32 << 20, slot_bytes: 2 << 20, ..PayloadDrives::SMALL };
    let options = InitOptions { payload: Some(drives), ..InitOptions::default() };
    let mut cluster = Cluster::prepare(&options, CONFIGURATION)?;
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    let stele = CommandLine::of(&cluster)?;
    for node in 0..NODES {
        open(&cluster, node).await?;
    }
    Ok((cluster, stele))
}

/// Waits until a node's store is open, which no receipt waits for.
async fn open(cluster: &Cluster, node: usize) -> Result<()> {
    let deadline = std::time::Instant::now() + WAIT;
    while cluster.metric(node, "stele_storage_unavailable").await? > 0.0 {
        ensure!(
            std::time::Instant::now() < deadline,
            "the store of node {node} does not open:\n{}",
            cluster.log(node)?
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn body(seed: u8, length: usize) -> Vec<u8> {
    let noise = (0..length).map(|index| u8::try_from((index * 31 + usize::from(seed)) % 251).unwrap_or_default());
    noise.chain(CANARY.iter().copied()).collect()
}

/// A record with its body at a node.
struct Put {
    node: usize,
    record: String,
    salt: String,
    statement: String,
    content: Vec<u8>,
}

async fn put(stele: &CommandLine, node: usize, seed: u8, length: usize) -> Result<Put> {
    let (content, file) = (body(seed, length), format!("body-{seed}"));
    fs::write(stele.working_dir().join(&file), &content)?;
    let put = stele
        .json(&format!(
            "--as agency-1 --node {} record put --class medical --event-day 2026-11-26 --sensitivity personal --policy \
             {POLICY} --body {file} --store --retention-year 2056",
            name(node)
        ))
        .await?;
    ensure!(put["outcome"] == "applied", "{put}");
    let (record, salt) = (text_of(&put, "record")?, text_of(&put, "salt_file")?);
    Ok(Put { node, record, salt, statement: text_of(&put, "statement")?, content })
}

/// Whether a node gives a body back as it was put.
async fn is_served(stele: &CommandLine, put: &Put) -> Result<()> {
    let out = stele.working_dir().join("fetched");
    let _ = fs::remove_file(&out);
    let fetched = stele
        .json(&format!(
            "--as agency-1 --node {} record fetch {} --salt {} --out fetched",
            name(put.node),
            put.record,
            put.salt
        ))
        .await?;
    ensure!(fetched["verified"] == true && fs::read(&out)? == put.content, "{fetched}");
    Ok(())
}

/// Has blocks made until a snapshot of the state is among them.
async fn blocks(cluster: &Cluster) -> Result<()> {
    let load = Load::start(cluster, "agency-1", LoadOptions::default())?;
    let deadline = std::time::Instant::now() + WAIT;
    while cluster.height(0).await? < 25 {
        ensure!(std::time::Instant::now() < deadline, "blocks are slow");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    load.finish().await?;
    Ok(())
}

fn destroy(cluster: &Cluster, node: usize) -> Result<()> {
    let node = cluster.network.dir().node(&name(node));
    fs::remove_dir_all(node.file("drives"))?;
    fs::remove_dir_all(node.data())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_everything_is_made_again_from_its_backup() -> Result<()> {
    let (mut cluster, stele) = start().await?;
    let recovery = stele.text("backup recovery-key --out recovery.key").await?;
    let first = put(&stele, 0, 1, 3_000_000).await?;
    blocks(&cluster).await?;
    let create = format!("--node node-1 backup create --repository repository --recovery-key {}", recovery.trim());
    let one = stele.json(&create).await?;
    ensure!(one["bodies"] == 1 && one["new_bodies"] == 1 && one["unreadable"] == 0, "{one}");
    ensure!(one["state_height"].as_u64() >= Some(10) && one["height"].as_u64() > Some(10), "{one}");

    let second = put(&stele, 0, 2, 200_000).await?;
    let two = stele.json(&create).await?;
    ensure!(two["backup"] == 2 && two["bodies"] == 2 && two["new_bodies"] == 1, "only what is new: {two}");
    ensure!(two["new_bytes"].as_u64() < Some(1_500_000), "the first body is not copied again: {two}");
    let verified = stele.json("backup verify --repository repository").await?;
    ensure!(verified["verdict"] == "sound" && verified["facts"]["bodies"] == 2, "{verified}");
    let listed = stele.json("backup list --repository repository").await?;
    ensure!(listed.as_array().map(Vec::len) == Some(2) && listed[1]["height"] == two["height"], "{listed}");
    holds_no_secret(&cluster, &stele)?;
    killed_backups_leave_a_sound_repository(&cluster, &stele).await?;
    damage_is_refused(&stele).await?;
    println!("{}", rehearsed(&stele).await?);

    // The network goes on while the node is away, and its keys and guards stay.
    cluster.network.kill(0)?;
    let away = stele.run("stele", "--node node-1 backup create --repository repository").await?;
    ensure!(away.code == 1 && away.err.contains("backup_node_away"), "{}", away.err);
    let stopped = stele.json("--node node-1 backup create --repository repository --stopped").await?;
    ensure!(stopped["bodies"] == 2, "{stopped}");
    destroy(&cluster, 0)?;
    let third = put(&stele, 1, 3, 100_000).await?;
    cut_off_restore_is_taken_up(&cluster, &stele).await?;
    let restored = stele.json("--node node-1 restore --repository repository").await?;
    ensure!(restored["guards_missing"] == serde_json::json!([]), "{restored}");
    ensure!(restored["height"] == stopped["height"] && restored["facts"]["bodies"] == 2, "{restored}");
    let again = stele.run("stele", "--node node-1 restore --repository repository").await?;
    ensure!(again.code == 1 && again.err.contains("restore_not_empty"), "{}", again.err);

    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    open(&cluster, 0).await?;
    let height = cluster.height(1).await?;
    cluster.wait_height(0, height, WAIT).await?;
    for put in [&first, &second, &third] {
        is_served(&stele, put).await?;
    }
    // Statements from before are found, and without node 2 its vote is needed.
    stele.json(&format!("--node node-1 receipt get {} --out first.bundle", first.statement)).await?;
    cluster.network.stop(2)?;
    let fourth = put(&stele, 0, 4, 1_000).await?;
    is_served(&stele, &fourth).await?;
    let next = stele.json("--node node-1 backup create --repository repository").await?;
    ensure!(next["new_bodies"].as_u64() >= Some(1), "the repository goes on: {next}");
    Ok(())
}

/// The drill says that it can be restored, also with the recovery key alone, and leaves nothing behind.
async fn rehearsed(stele: &CommandLine) -> Result<Value> {
    let mut last = Value::Null;
    let scratch = stele.working_dir().join("scratch");
    fs::create_dir(&scratch)?;
    for key in ["", "--unseal-key recovery.key"] {
        let drill = format!("--node node-1 backup drill --repository repository --scratch scratch {key}");
        let drilled = stele.json(&drill).await?;
        ensure!(drilled["verdict"] == "restorable" && drilled["opened_bodies"] == 2, "{drilled}");
        ensure!(fs::read_dir(&scratch)?.next().is_none(), "something was left behind");
        last = drilled;
    }
    let other = stele.run("stele", "--node node-2 backup drill --repository repository --scratch scratch").await?;
    ensure!(other.code == 1 && other.err.contains("backup_keys"), "another node's custody key: {}", other.err);
    ensure!(fs::read_dir(&scratch)?.next().is_none(), "something was left behind");
    Ok(last)
}

/// Kills backups at various moments, then makes one.
async fn killed_backups_leave_a_sound_repository(cluster: &Cluster, stele: &CommandLine) -> Result<()> {
    let config = cluster.network.dir().node("node-1").config();
    let repository = stele.working_dir().join("killed");
    for milliseconds in [1, 5, 10, 20, 40, 80, 120] {
        let mut command = Command::new(stele_testkit::cluster::steled()?);
        command.args(["backup", "create", "--config"]).arg(&config).arg("--repository").arg(&repository);
        let mut child = command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn()?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        child.kill()?;
        child.wait()?;
    }
    stele.json("--node node-1 backup create --repository killed").await?;
    let verified = stele.json("backup verify --repository killed").await?;
    ensure!(verified["verdict"] == "sound" && verified["bodies"] == 2, "{verified}");
    Ok(())
}

/// A restore that is killed is begun again by the same command.
async fn cut_off_restore_is_taken_up(cluster: &Cluster, stele: &CommandLine) -> Result<()> {
    let node = cluster.network.dir().node("node-1");
    for milliseconds in [20, 60, 120] {
        let mut command = Command::new(stele_testkit::cluster::steled()?);
        command.args(["restore", "--config"]).arg(node.config());
        command.arg("--repository").arg(stele.working_dir().join("repository"));
        let mut child = command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn()?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        child.kill()?;
        child.wait()?;
        if node.data().join("chain").exists() {
            // It had come to its end before.
            destroy(cluster, 0)?;
        }
    }
    Ok(())
}

/// Neither private keys nor plaintext are in the repository.
fn holds_no_secret(cluster: &Cluster, stele: &CommandLine) -> Result<()> {
    let mut secrets: Vec<Vec<u8>> = vec![CANARY.to_vec()];
    for node in 0..NODES {
        for entry in fs::read_dir(cluster.network.dir().node(&name(node)).root())? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("key") => {
                    let text = fs::read_to_string(&path)?;
                    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("-----")).collect();
                    secrets.push(lines.first().context("a key")?.as_bytes().to_vec());
                    secrets.extend(scalars(&base64(&lines.concat())));
                }
                // A guard's file begins with the mark of its kind.
                Some("votes" | "checkpoints") => secrets.extend(fs::read(&path)?.get(..8).map(<[u8]>::to_vec)),
                _ => {}
            }
        }
    }
    secrets.push(fs::read(cluster.network.dir().node("node-1").data().join("control.token"))?);
    secrets.retain(|secret| secret.iter().any(|byte| *byte != 0));
    ensure!(secrets.len() > 4 * NODES, "{} secrets", secrets.len());
    for file in files(&stele.working_dir().join("repository"))? {
        let bytes = fs::read(&file)?;
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            ensure!(!found, "{} holds {} bytes of a secret", file.display(), secret.len());
        }
    }
    Ok(())
}

/// Secret scalars of 32 bytes in a PKCS#8 key.
fn scalars(der: &[u8]) -> Vec<Vec<u8>> {
    (0..der.len().saturating_sub(33))
        .filter(|at| der[*at..].starts_with(&[4, 32]))
        .map(|at| der[at + 2..at + 34].to_vec())
        .collect()
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte)) {
        bits = (bits << 6) | u32::try_from(digit).unwrap_or_default();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
        }
    }
    bytes
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

/// What is done to a copy of the repository.
type Damage = fn(&Path) -> Result<()>;

/// Every kind of damage is refused, with a reason of its own and the file's name.
async fn damage_is_refused(stele: &CommandLine) -> Result<()> {
    let corpus: [(&str, &str, Damage); 15] = [
        ("blocks cut off", "backup_file_length", |root| cut(&one(root, "blocks")?)),
        ("a pack cut off", "backup_file_length", |root| cut(&one(root, "bodies")?)),
        ("a bit of a body", "backup_file_damaged", |root| flip(&one(root, "bodies")?, 5_000)),
        ("a bit of the state", "backup_file_damaged", |root| flip(&newest(root, "state")?, 200)),
        ("a bit of a block", "backup_file_damaged", |root| flip(&one(root, "blocks")?, 300)),
        ("a bit of the class keys", "backup_file_damaged", |root| flip(&root.join("backups/00000002/class-keys"), 50)),
        ("a bit of the manifest", "backup_file_damaged", |root| flip(&root.join("backups/00000002/manifest.json"), 30)),
        ("a pack is gone", "backup_file_missing", |root| Ok(fs::remove_file(one(root, "bodies")?)?)),
        ("the sum is gone", "backup_file_missing", |root| {
            Ok(fs::remove_file(root.join("backups/00000002/manifest.sha256"))?)
        }),
        ("packs are swapped", "backup_file_length", |root| {
            let packs = files(&root.join("bodies"))?;
            fs::rename(&packs[0], root.join("aside"))?;
            fs::rename(&packs[1], &packs[0])?;
            Ok(fs::rename(root.join("aside"), &packs[1])?)
        }),
        ("the manifest of another backup", "backup_manifest", |root| {
            for file in ["manifest.json", "manifest.sha256"] {
                fs::copy(root.join("backups/00000001").join(file), root.join("backups/00000002").join(file))?;
            }
            Ok(())
        }),
        ("a manifest that leads outside", "backup_manifest", |root| {
            forge(root, |manifest| manifest["files"][0]["path"] = "../../etc/passwd".into())
        }),
        // Sums that fit, as whoever writes to the repository can make them.
        ("a forged block", "backup_chain", |root| {
            flip(&one(root, "blocks")?, 300)?;
            forge(root, |_| ())
        }),
        ("a forged state", "backup_state", |root| {
            flip(&newest(root, "state")?, 200)?;
            forge(root, |_| ())
        }),
        ("a forged body", "backup_body", |root| {
            flip(&one(root, "bodies")?, 5_000)?;
            forge(root, |_| ())
        }),
    ];
    for (what, code, damage) in corpus {
        let copy = stele.working_dir().join("damaged");
        let _ = fs::remove_dir_all(&copy);
        copy_all(&stele.working_dir().join("repository"), &copy)?;
        damage(&copy)?;
        let verified = stele.json_with("backup verify --repository damaged --backup 2", 4).await;
        let verified = verified.with_context(|| what.to_owned())?;
        ensure!(verified["code"] == code, "{what}: {verified}");
    }
    let other = Cluster::prepare(&InitOptions::default(), "")?;
    let genesis = other.network.dir().genesis();
    let verify = format!("backup verify --repository repository --genesis {}", genesis.display());
    let foreign = stele.run("stele", &verify).await?;
    ensure!(foreign.code == 1 && foreign.err.contains("backup_foreign"), "{}", foreign.err);
    let config = other.network.dir().node("node-1").config();
    let restore = format!("restore --repository repository --config {}", config.display());
    let foreign = stele.run("stele", &restore).await?;
    ensure!(foreign.code == 1 && foreign.err.contains("backup_foreign"), "{}", foreign.err);
    Ok(())
}

/// The first file of a directory of the repository.
fn one(root: &Path, directory: &str) -> Result<PathBuf> {
    files(&root.join(directory))?.into_iter().next().context("a file")
}

/// The last one.
fn newest(root: &Path, directory: &str) -> Result<PathBuf> {
    files(&root.join(directory))?.into_iter().next_back().context("a file")
}

fn cut(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    Ok(fs::write(path, &bytes[..bytes.len() - 1])?)
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    bytes[at] ^= 1;
    Ok(fs::write(path, bytes)?)
}

/// Changes the manifest of the second backup, and writes it with sums that fit.
fn forge(root: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    let directory = root.join("backups/00000002");
    let path = directory.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path)?)?;
    for entry in manifest["files"].as_array_mut().context("files")? {
        let file = root.join(entry["path"].as_str().context("path")?);
        entry["sha256"] = sum(&file)?.into();
    }
    change(&mut manifest);
    fs::write(&path, serde_json::to_vec_pretty(&manifest)?)?;
    Ok(fs::write(directory.join("manifest.sha256"), format!("{}  manifest.json\n", sum(&path)?))?)
}

fn sum(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("a sum")?.trim_start_matches('\\').to_owned())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            copy_all(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_was_lost_goes_on_from_its_recovery_point() -> Result<()> {
    let (mut cluster, stele) = start().await?;
    let kept = [put(&stele, 0, 1, 400_000).await?, put(&stele, 1, 2, 50_000).await?];
    stele.json(&format!("receipt get {} --out kept.bundle", kept[0].statement)).await?;
    blocks(&cluster).await?;
    for node in 0..NODES {
        let create = format!("--node {} backup create --repository repository-{node}", name(node));
        stele.json(&create).await?;
    }
    // Acknowledged after the last backup: what the recovery point costs.
    let lost = put(&stele, 0, 3, 1_000).await?;
    cluster.network.kill_all()?;
    for node in 0..NODES {
        destroy(&cluster, node)?;
    }
    let repositories: Vec<String> = (0..NODES).map(|node| format!("repository-{node}")).collect();
    let point = stele.json(&format!("backup point --repository {}", repositories.join(","))).await?;
    let (from_height, leaves) = (&point["from_height"], &point["recovery_point"]["log_size"]);
    for (node, repository) in repositories.iter().enumerate() {
        let restored = stele.json(&format!("--node {} restore --repository {repository}", name(node))).await?;
        ensure!(restored["height"].as_u64() < from_height.as_u64(), "{restored} beyond {point}");
        // The governors have agreed on the point; what was signed beyond it is kept as evidence.
        let directory = cluster.network.dir().node(&name(node)).root().to_owned();
        for guard in ["validator.votes", "seal.checkpoints"] {
            fs::rename(directory.join(guard), directory.join(format!("{guard}.evidence")))?;
        }
        let key = directory.join("validator.key");
        stele.json(&format!("key guard --validator-key {} --from-height {from_height}", key.display())).await?;
        let key = directory.join("seal.key");
        stele.json(&format!("key guard --seal-key {} --from-size {leaves}", key.display())).await?;
    }
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    for node in 0..NODES {
        open(&cluster, node).await?;
    }
    stele.refused(&format!("receipt get {} --out lost.bundle", lost.statement), "not_found").await?;
    let new = put(&stele, 2, 4, 2_000).await?;
    for put in kept.iter().chain([&new]) {
        is_served(&stele, put).await?;
    }
    let verified = stele.run("stele-verify", "kept.bundle --genesis network/genesis.cbor").await?;
    ensure!(verified.code == 0, "a receipt from before verifies: {}{}", verified.out, verified.err);
    stele.json(&format!("receipt get {} --out kept-again.bundle", kept[1].statement)).await?;
    let verified = stele.run("stele-verify", "kept-again.bundle --genesis network/genesis.cbor").await?;
    ensure!(verified.code == 0, "one of a statement from before, fetched now: {}{}", verified.out, verified.err);
    let heights = cluster.heights().await;
    ensure!(heights.iter().all(|height| *height >= from_height.as_u64()), "{heights:?} from {from_height}");
    Ok(())
}
