//! The state from the command line: values are proven in files that verify offline, a snapshot is exported and certified,
//! and the files of a stopped node are checked. What was tampered with is refused or named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::command_line::{CommandLine, text_of};
use stele_testkit::{Cluster, Load, LoadOptions, agreement};

/// The node that is stopped.
const STOPPED: usize = 3;
const CONFIGURATION: &str = "[state]\nsnapshot_interval = 20\n";
/// The id of no party.
const NOBODY: &str = "party/00000000000000000000000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_proven_exported_and_checked_from_the_command_line() -> Result<()> {
    let mut cluster = Cluster::start_with(&InitOptions::default(), CONFIGURATION)?;
    let stele = CommandLine::of(&cluster)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    cluster.wait_height(0, 45, Duration::from_secs(120)).await?;
    for node in [0, STOPPED] {
        cluster.wait_log(node, "writing a snapshot for nodes that join", Duration::from_secs(30)).await?;
    }
    // While the network rests, no snapshot goes.
    let acknowledged = load.finish().await?;
    proves(&cluster, &stele).await?;
    exports(&stele).await?;

    let data = cluster.network.dir().node("node-4").data();
    let data_dir = data.display().to_string();
    let running = stele.run("stele", &format!("state fsck --data-dir {data_dir}")).await?;
    ensure!(running.code == 1 && running.err.contains("state_locked"), "{}{}", running.out, running.err);
    cluster.network.stop(STOPPED)?;
    checks(&stele, &data).await?;

    // Whatever was damaged was put back.
    cluster.network.start(STOPPED)?;
    cluster.network.wait_node_ready(STOPPED, READY_WAIT_MAX)?;
    println!("{:?}", agreement::check(&cluster, &acknowledged).await?);
    Ok(())
}

async fn proves(cluster: &Cluster, stele: &CommandLine) -> Result<()> {
    let party = text_of(&stele.json("--as agency-1 party show").await?, "party")?;
    let own = format!("party/{party}");
    let proven = stele.json(&format!("--as agency-1 state prove {own} --out own.state")).await?;
    ensure!(proven["verdict"] == "present" && proven["values"].as_array().map(Vec::len) == Some(1), "{proven}");
    let both = stele.json_with(&format!("--as agency-1 state prove {NOBODY} {own} {own} --out both.state"), 5).await?;
    ensure!(both["verdict"] == "absent" && both["values"].as_array().map(Vec::len) == Some(2), "{both}");
    stele.refused("--as agency-1 state prove party", "parameter_invalid").await?;

    // Offline, with either program, and for people too.
    let verified = stele.json(&format!("state verify own.state {own}")).await?;
    ensure!(verified == proven, "{verified} is not {proven}");
    let shown = stele.text(&format!("state verify own.state {own}")).await?;
    ensure!(shown.contains("present") && shown.contains("agency"), "{shown}");
    ensure!(stele.json_with(&format!("state verify both.state {own} {NOBODY}"), 5).await? == both);
    let genesis = cluster.network.dir().genesis().display().to_string();
    let lean = stele.run("stele-verify", &format!("own.state --genesis {genesis} --json")).await?;
    let lean: Value = serde_json::from_str(&lean.out).with_context(|| lean.err.clone())?;
    ensure!(lean == proven, "{lean} is not {proven}");

    // What is forged, cut, of another network or about something else.
    let refuses = async |file: &str, rest: &str, code: &str| -> Result<()> {
        let refusal = stele.json_with(&format!("state verify {file} {rest}"), 1).await?;
        ensure!(refusal["verdict"] == "invalid" && refusal["error"] == code, "{file} {rest}, not {code}: {refusal}");
        Ok(())
    };
    refuses("own.state", NOBODY, "state_key_missing").await?;
    let bytes = fs::read(stele.working_dir().join("own.state"))?;
    fs::write(stele.working_dir().join("cut.state"), &bytes[..bytes.len() - 1])?;
    refuses("cut.state", "", "malformed").await?;
    let value = hex::decode(text_of(&proven["values"][0], "value")?)?;
    let at = bytes.windows(value.len()).position(|window| window == value).context("the value in the file")?;
    let mut forged = bytes.clone();
    forged[at + value.len() - 1] ^= 1;
    fs::write(stele.working_dir().join("forged.state"), forged)?;
    refuses("forged.state", "", "state_proof_invalid").await?;
    let other = Cluster::prepare(&InitOptions::default(), "")?;
    let foreign = format!("--genesis {}", other.network.dir().genesis().display());
    refuses("own.state", &foreign, "other_network").await
}

async fn exports(stele: &CommandLine) -> Result<()> {
    let stranger = stele.run("stele", "--as agency-1 state export --out none").await?;
    ensure!(stranger.code == 1 && stranger.err.contains("forbidden"), "{}{}", stranger.out, stranger.err);
    let said = stele.text("--as operator-1 state export --from node-1 --out exported").await?;
    ensure!(said.contains("every chunk verified") && said.contains("certified by"), "{said}");
    let directory = stele.working_dir().join("exported");
    let (snapshot, header) = (newest_of(&directory, "map")?, newest_of(&directory, "cbor")?);
    let again = stele.run("stele", "--as operator-1 state export --out exported").await?;
    ensure!(again.code == 1 && again.err.contains("state_not_empty"), "{}{}", again.out, again.err);
    let checked = stele.json("state fsck --data-dir exported").await?;
    ensure!(checked["verdict"] == "sound" && checked["directories"][0]["certified"] == true, "{checked}");
    let height = checked["directories"][0]["height"].as_u64().context("height")?;

    // What was interrupted begins anew.
    let interrupted = stele.working_dir().join("interrupted");
    fs::create_dir(&interrupted)?;
    fs::write(interrupted.join(snapshot.file_name().context("name")?).with_extension("tmp"), "half")?;
    stele.text(&format!("--as regulator state export --height {height} --out interrupted")).await?;
    let again = newest_of(&interrupted, "map")?;
    ensure!(again.file_name() == snapshot.file_name(), "another snapshot: {}", again.display());
    ensure!(fs::metadata(again)?.len() == fs::metadata(&snapshot)?.len(), "the same state");

    damaged(stele, "exported", &snapshot, 100).await?;
    let certified = fs::read(&header)?;
    let mut forged = certified.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    fs::write(&header, forged)?;
    let checked = stele.json_with("state fsck --data-dir exported", 4).await?;
    ensure!(checked["directories"][0]["certified"] == false, "{checked}");
    fs::write(&header, certified)?;
    Ok(())
}

/// The data directory of a stopped node.
async fn checks(stele: &CommandLine, data: &Path) -> Result<()> {
    let data_dir = data.display().to_string();
    let checked = stele.json(&format!("state fsck --data-dir {data_dir}")).await?;
    let state = &checked["directories"][0];
    ensure!(checked["verdict"] == "sound" && state["damages"] == 0, "{checked}");
    ensure!(state["height"].as_u64() >= Some(40) && state["records"].as_u64() >= Some(40), "{checked}");
    ensure!(checked["directories"][1]["snapshots"].as_u64() > Some(0), "{checked}");
    let log = newest_of(&data.join("chain/state"), "log")?;
    damaged(stele, &data_dir, &log, fs::metadata(&log)?.len() / 2).await?;
    let said = stele.run("stele", &format!("state fsck --data-dir {data_dir}")).await?;
    ensure!(said.code == 0 && said.out.contains("sound"), "{}{}", said.out, said.err);

    // Without a connection, and past a snapshot that is damaged.
    stele.text(&format!("state export --data-dir {data_dir} --out offline")).await?;
    let copied = stele.json("state fsck --data-dir offline").await?;
    ensure!(copied["verdict"] == "sound" && copied["directories"][0]["certified"].is_null(), "{copied}");
    let height = copied["directories"][0]["height"].as_u64().context("height")?;
    let newest = data.join(format!("chain/snapshots/snapshot-{height:020}.map"));
    damaged(stele, &data_dir, &newest, 100).await
}

/// Flips a byte of a file and puts it back; between, the check names file and place and changes nothing.
async fn damaged(stele: &CommandLine, data_dir: &str, path: &Path, at: u64) -> Result<()> {
    let sound = fs::read(path)?;
    let mut flipped = sound.clone();
    flipped[usize::try_from(at)?] ^= 1;
    fs::write(path, &flipped)?;
    let checked = stele.json_with(&format!("state fsck --data-dir {data_dir}"), 4).await?;
    let directories = checked["directories"].as_array().context("directories")?;
    let findings = directories.iter().flat_map(|directory| directory["findings"].as_array().into_iter().flatten());
    let name = path.file_name().and_then(|name| name.to_str()).context("name")?;
    let named = findings.filter(|finding| finding["kind"] == "damaged");
    let mut named = named.filter(|finding| finding["file"].as_str().is_some_and(|file| file.ends_with(name)));
    let offset = named.next().and_then(|finding| finding["offset"].as_u64());
    ensure!(checked["verdict"] == "damaged" && offset.is_some_and(|offset| offset <= at), "{name}: {checked}");
    ensure!(fs::read(path)? == flipped, "the check changed {name}");
    fs::write(path, sound)?;
    Ok(())
}

/// The newest file of a kind.
fn newest_of(directory: &Path, kind: &str) -> Result<PathBuf> {
    let paths: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let of_kind = paths.into_iter().filter(|path| path.extension().is_some_and(|found| found == kind));
    of_kind.max().with_context(|| format!("no {kind} in {}", directory.display()))
}
