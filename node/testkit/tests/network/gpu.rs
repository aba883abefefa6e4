//! A node with a GPU catches up on it: the kernels are real, the device is Mesa's software one.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_testkit::{Cluster, Load, LoadOptions, agreement, scale};

/// A software device compiles for minutes on a busy machine, the first time.
const START_WAIT_MAX: Duration = Duration::from_secs(300);

const ABSENT: &str = "stele_accel_device_state{state=\"absent\"}";
const SERVING: &str = "stele_accel_device_state{state=\"serving\"}";
const ACCEPTED: &str = "stele_accel_items_verified_total{backend=\"gpu\",scheme=\"eddsa\",verdict=\"valid\"}";
const BATCHES: &str = "stele_accel_batches_total{backend=\"gpu\",op=\"verify\",result=\"success\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_verifies_what_it_missed_on_the_gpu() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(100, Duration::from_secs(60)).await?;
    cluster.network.kill(3)?;
    load.wait_more(scale(600, 20_000), Duration::from_secs(600)).await?;
    configure(&cluster, "software_device = true\nshare = \"all\"\nrecheck_one_in = 16")?;

    // The others stand still until the device serves: a node does not wait for it to catch up.
    let target = cluster.height(0).await?;
    freeze(&cluster, Signal::STOP)?;
    cluster.network.start(3)?;
    let started = serves(&cluster).await;
    freeze(&cluster, Signal::CONT)?;
    let Some(started) = started? else {
        println!("not tested: no Vulkan device");
        return Ok(());
    };
    cluster.wait_height(3, target, Duration::from_secs(180)).await?;
    // Figures become metrics once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (accepted, batches) = (cluster.metric(3, ACCEPTED).await?, cluster.metric(3, BATCHES).await?);
    println!(
        "the device served after {:.1} s; {accepted} signatures up to height {target} in {batches} batches",
        started.as_secs_f64()
    );
    ensure!(accepted > 200.0 && batches >= 1.0, "what was missed went to the device:\n{}", cluster.log(3)?);
    ensure!(cluster.metric(3, "stele_accel_device_memory_bytes").await? > 0.0, "it has memory");
    ensure!(cluster.metric(3, "stele_accel_device_rechecked_total").await? > 0.0, "a share was computed again");
    ensure!(cluster.metric(3, "stele_accel_fallbacks_total").await? == 0.0, "nothing came back unanswered");

    // At the tip all is live work, and that is the cores'.
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Where the machine is busy the node may miss a block and fetch it, which is no live work.
    let mut untouched = false;
    for _ in 0..8 {
        let batches = cluster.metric(3, BATCHES).await?;
        load.wait_more(200, Duration::from_secs(60)).await?;
        untouched = cluster.metric(3, BATCHES).await? == batches;
        if untouched {
            break;
        }
    }
    ensure!(untouched, "live work went to the device");
    ensure!(cluster.metric(3, SERVING).await? == 1.0, "it still serves");
    let log = cluster.log(3)?;
    ensure!(log.matches("the GPU serves bulk work").count() == 1 && !log.contains("wrong answer"), "{log}");

    // Three of four are a quorum: without node 0, the node must vote on what it verified.
    println!("{:?}", agreement::check_without(&mut cluster, load, 0).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_device_that_may_serve_the_cores_do_everything() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.network.stop(3)?;
    // Where there is a software device it is refused, unless it is asked for.
    configure(&cluster, "adapter = \"llvmpipe\"")?;
    cluster.network.start(3)?;
    cluster.network.wait_node_ready(3, READY_WAIT_MAX)?;
    cluster.wait_log(3, "no GPU: the cores do everything", Duration::from_secs(30)).await?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(200, Duration::from_secs(60)).await?;
    ensure!(cluster.metric(3, ABSENT).await? == 1.0, "monitoring sees it");
    ensure!(cluster.metric(3, "stele_accel_backend_active{backend=\"cpu\"}").await? == 1.0, "the cores serve");
    let said = cluster.log(3)?.matches("GPU").count();
    ensure!(said == 1, "it is said once, not {said} times");
    println!("{:?}", agreement::check(&cluster, &load.finish().await?).await?);
    Ok(())
}

/// The table that operators decide by has every figure, and a device that nobody asked for is refused.
#[test]
fn the_benchmark_measures_cores_device_and_both() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("figures.json");
    let run = |device: &str| -> Result<std::process::Output> {
        let mut command = Command::new(stele_testkit::cluster::steled()?);
        command.args(["bench-accel", "--seconds", "0", "--batch", "256", "--leaves", "16384", "--gpu"]);
        Ok(command.args(device.split_whitespace()).arg("--json").arg(&json).output()?)
    };
    let refused = run("--adapter llvmpipe")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("gpu_absent"), "{said}");
    ensure!(std::fs::read(&json).is_ok_and(|lines| lines.is_empty()), "no figures of a run that failed");
    if said.contains("no Vulkan device:") || said.ends_with("no Vulkan device\n") {
        ensure!(std::env::var_os("CI").is_none(), "CI is to have a Vulkan device (mesa-vulkan-drivers)");
        println!("not tested: no Vulkan device");
        return Ok(());
    }
    let measured = run("--software-device")?;
    ensure!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
    let lines = std::fs::read_to_string(&json)?;
    for place in ["cores", "gpu", "both"] {
        for what in ["ed25519.enrolled", "p256.enrolled", "sm2.enrolled", "ed25519.unknown", "p256.unknown"] {
            ensure!(lines.contains(&format!("\"accel.{what}.{place}\"")), "{what} {place} is missing from {lines}");
        }
        for what in ["sm2.unknown", "sha256.1k", "sm3.1k", "merkle.sha256", "merkle.sm3"] {
            ensure!(lines.contains(&format!("\"accel.{what}.{place}\"")), "{what} {place} is missing from {lines}");
        }
    }
    ensure!(String::from_utf8_lossy(&measured.stdout).contains("items a second"), "the table is printed");
    Ok(())
}

fn configure(cluster: &Cluster, gpu: &str) -> Result<()> {
    let path = cluster.network.dir().node("node-4").config();
    let text = std::fs::read_to_string(&path)?;
    Ok(std::fs::write(path, format!("{text}\n[accel]\nbackend = \"gpu\"\n[accel.gpu]\n{gpu}\n"))?)
}

/// Waits until the device serves; none where there is no Vulkan at all, which fails where tests are meant to have it.
async fn serves(cluster: &Cluster) -> Result<Option<Duration>> {
    let started = Instant::now();
    while started.elapsed() < START_WAIT_MAX {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Not even its listeners may be there yet.
        let Ok(serving) = cluster.metric(3, SERVING).await else { continue };
        if serving == 1.0 {
            return Ok(Some(started.elapsed()));
        }
        if cluster.metric(3, ABSENT).await? == 1.0 {
            let log = cluster.log(3)?;
            ensure!(log.contains("no Vulkan device"), "the device does not serve:\n{log}");
            ensure!(std::env::var_os("CI").is_none(), "CI is to have a Vulkan device (mesa-vulkan-drivers)");
            return Ok(None);
        }
    }
    anyhow::bail!("the device does not serve:\n{}", cluster.log(3)?)
}

/// Stops the three other nodes, or lets them go on.
fn freeze(cluster: &Cluster, signal: Signal) -> Result<()> {
    for node in 0..3 {
        let id = cluster.network.process_id(node).context("the node runs")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(pid, signal)?;
    }
    Ok(())
}
