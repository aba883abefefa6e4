//! Bodies of records on running nodes, through the command line: kept, given back, mended, and removed when nobody refers to
//! them.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::{InitOptions, PayloadDrives};
use stele_testkit::command_line::text_of;
use stele_testkit::{Cluster, CommandLine};
use stele_types::record::RecordClass;
use stele_types::{Hash, ObjectId};

const WAIT: Duration = Duration::from_secs(60);
const NODE: &str = "node-1";
const POLICY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A network whose first node keeps bodies, and forgets those without a statement after so many milliseconds.
fn start(unreferenced_ms: u64) -> Result<Cluster> {
    let drives = PayloadDrives { drive_bytes: 32 << 20, slot_bytes: 2 << 20, ..PayloadDrives::SMALL };
    let mut cluster = Cluster::prepare(&InitOptions { payload: Some(drives), ..InitOptions::default() }, "")?;
    for node in 1..=4 {
        let path = cluster.network.dir().node(&format!("node-{node}")).config();
        let text = fs::read_to_string(&path)?;
        let (before, after) = text.split_once("[payload]\n").context("a section")?;
        let text = match node {
            1 => {
                let (payload, _) = after.split_once("[payload.custody]\n").context("a section")?;
                let rest = &after[after.find("[metrics]").context("a section")?..];
                format!("{before}[payload]\nunreferenced_ms = {unreferenced_ms}\n{payload}{rest}")
            }
            // The others keep none.
            _ => format!("{before}{}", &after[after.find("[metrics]").context("a section")?..]),
        };
        fs::write(&path, text)?;
    }
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    Ok(cluster)
}

fn put(file: &str) -> String {
    format!(
        "--as agency-1 --node {NODE} record put --class medical --event-day 2026-11-26 --sensitivity personal --policy \
         {POLICY} --body {file} --store --retention-year 2056"
    )
}

fn body(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 31 + usize::from(seed)) % 251).unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_records_refer_to_stay_and_the_others_go() -> Result<()> {
    let mut cluster = start(4_000)?;
    let stele = CommandLine::of(&cluster)?;
    fs::write(stele.working_dir().join("scan.dcm"), body(1, 3_000_000))?;
    let kept = stele.json(&put("scan.dcm")).await?;
    ensure!(kept["outcome"] == "applied", "{kept}");
    let root = Hash::from_hex(&text_of(&kept, "body_root")?).context("root")?;

    let client = cluster.client("agency-1", 0)?;
    let nameless = stele.working_dir().join("nameless");
    fs::write(&nameless, body(2, 200_000))?;
    let blob = client.put_body(&ObjectId([9; 16]), RecordClass::Tax, None, &nameless).await?;
    let gone = Hash::from_hex(&blob.root).context("root")?;
    ensure!(client.body(&gone, 0, 10).await?.0.len() == 10, "it is there at first");
    cluster.wait_metric(0, "stele_storage_unreferenced_removed_total", 1.0, WAIT).await?;
    let refused = client.body(&gone, 0, 10).await.err().context("it is gone")?;
    ensure!(refused.code() == "not_found", "{refused}");
    ensure!(client.body(&root, 0, 10).await?.0.len() == 10, "a record refers to it");

    // What the journal says is what counts after a crash, too.
    cluster.network.kill(0)?;
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let client = cluster.client("agency-1", 0)?;
    ensure!(client.body(&root, 0, 10).await?.0.len() == 10, "a record refers to it");
    ensure!(cluster.metric(0, "stele_storage_unreferenced").await? == 0.0, "nothing waits");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_is_lost_and_replaced_by_the_command_line() -> Result<()> {
    let mut cluster = start(3_600_000)?;
    let stele = CommandLine::of(&cluster)?;
    let scan = body(3, 5_000_000);
    fs::write(stele.working_dir().join("scan.dcm"), &scan)?;
    let kept = stele.json(&put("scan.dcm")).await?;
    let record = text_of(&kept, "record")?;
    let salt = text_of(&kept, "salt_file")?;
    let fetch = format!("--as agency-1 --node {NODE} record fetch {record} --salt {salt} --out");
    let fetched = stele.json(&format!("{fetch} one.dcm")).await?;
    ensure!(fetched["verified"] == true && fetched["bytes"] == scan.len(), "{fetched}");
    ensure!(fs::read(stele.working_dir().join("one.dcm"))? == scan, "it comes back as it was");
    stele.refused(&format!("--as agency-1 --node node-2 record fetch {record} --out two.dcm"), "not_found").await?;
    ensure!(!stele.working_dir().join("two.dcm").exists(), "what failed leaves no file");
    fs::write(stele.working_dir().join("other.salt"), "00".repeat(32))?;
    std::process::Command::new("chmod").arg("600").arg(stele.working_dir().join("other.salt")).status()?;
    let other = format!("--as agency-1 --node {NODE} record fetch {record} --salt other.salt --out two.dcm");
    stele.refused(&other, "commitment_differs").await?;

    let drives = cluster.network.dir().node(NODE).file("drives");
    cluster.network.stop(0)?;
    fs::remove_file(drives.join("2"))?;
    let checked = stele.json(&format!("--node {NODE} storage fsck")).await?;
    ensure!(checked["verdict"] == "sound" && checked["drives_failed"][0] == 2, "{checked}");
    ensure!(checked["bodies"] == 1 && checked["lost"] == 0, "{checked}");
    cluster.network.start(0)?;
    cluster.network.wait_node_ready(0, READY_WAIT_MAX)?;
    stele.json(&format!("{fetch} three.dcm")).await?;
    ensure!(fs::read(stele.working_dir().join("three.dcm"))? == scan, "it comes from the other drives");
    let status = stele.json_with(&format!("--node {NODE} storage status"), 1).await?;
    ensure!(status[2]["state"] == "failed" && status[0]["state"] == "sound", "{status}");
    // The series of a drive come with the first figures of the store.
    cluster.wait_metric(0, "stele_storage_segments{state=\"used\"}", 1.0, WAIT).await?;
    cluster.wait_metric(0, "stele_storage_device_failed{device=\"2\"}", 1.0, WAIT).await?;

    let new = drives.join("new");
    fs::File::create_new(&new)?.set_len(32 << 20)?;
    let replace = format!("--node {NODE} storage drive replace 2 {}", new.display());
    let replaced = stele.json(&replace).await?;
    ensure!(replaced["job"] == "replace" && replaced["lost"] == 0, "{replaced}");
    let scrubbed = stele.json(&format!("--node {NODE} storage scrub")).await?;
    ensure!(scrubbed["repaired"] == 0 && scrubbed["lost"] == 0, "{scrubbed}");
    let status = stele.json(&format!("--node {NODE} storage status")).await?;
    ensure!(status[2]["state"] == "sound", "{status}");
    stele.refused("storage scrub", "node_missing").await?;
    stele.refused(&format!("--node {NODE} storage drive replace 9 {}", new.display()), "parameter_invalid").await?;
    stele.refused("--node node-2 storage status", "not_found").await?;
    Ok(())
}
