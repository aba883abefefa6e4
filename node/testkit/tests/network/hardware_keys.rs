//! Validators whose keys TPMs and a token hold, and what happens when one of them goes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_ctl::network::init::InitOptions;
use stele_testkit::signers::SealIn;
use stele_testkit::{Cluster, CommandLine, Load, LoadOptions, agreement};

const WAIT_MAX: Duration = Duration::from_secs(120);

/// Checkpoints that a node's key signed.
const fn sealed(provider: &str) -> &str {
    match provider.as_bytes() {
        b"tpm" => "stele_seal_signatures_total{key=\"checkpoint\",provider=\"tpm\",result=\"success\"}",
        _ => "stele_seal_signatures_total{key=\"checkpoint\",provider=\"pkcs11\",result=\"success\"}",
    }
}

/// Waits for one more checkpoint of a node than it has signed.
async fn wait_sealed(cluster: &Cluster, node: usize, provider: &str) -> Result<()> {
    let series = sealed(provider);
    let so_far = cluster.metric(node, series).await?;
    cluster.wait_metric(node, series, so_far + 1.0, WAIT_MAX).await
}

fn seals(node: usize) -> SealIn {
    if node == 3 { SealIn::Token } else { SealIn::Tpm }
}

#[tokio::test(flavor = "multi_thread")]
async fn signers_tpms_and_the_power_go_and_come_back_and_nothing_is_lost() -> Result<()> {
    let mut cluster = Cluster::start_held(&InitOptions::default(), "", seals)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(100, WAIT_MAX).await?;
    for (node, provider) in ["tpm", "tpm", "tpm", "pkcs11"].into_iter().enumerate() {
        wait_sealed(&cluster, node, provider).await.with_context(|| format!("node {node}"))?;
    }

    // A signer is killed: the node goes on reading, and the network goes on.
    cluster.signers[0].kill();
    let before = cluster.height(0).await?;
    load.wait_more(200, WAIT_MAX).await?;
    cluster.wait_height(0, before + 3, WAIT_MAX).await.context("the node follows without its signer")?;
    let withheld = "stele_seal_signatures_total{key=\"checkpoint\",provider=\"tpm\",result=\"failure\"}";
    cluster.wait_metric(0, withheld, 1.0, WAIT_MAX).await?;
    cluster.wait_log(0, "vote withheld", WAIT_MAX).await.context("neither votes nor proposals")?;
    cluster.signers[0].start()?;
    wait_sealed(&cluster, 0, "tpm").await.context("the signer is found again without a restart")?;

    // A TPM loses power: the epoch key in the signer's memory votes on, checkpoints wait.
    cluster.signers[1].power_off();
    let ballots = "stele_seal_signatures_total{key=\"epoch\",provider=\"software\",result=\"success\"}";
    let signed = cluster.metric(1, ballots).await?;
    load.wait_more(200, WAIT_MAX).await?;
    cluster.wait_metric(1, ballots, signed + 6.0, WAIT_MAX).await.context("votes without the TPM")?;
    cluster.signers[1].power_on()?;
    wait_sealed(&cluster, 1, "tpm").await.context("the TPM is found again without a restart")?;

    // Everything loses power.
    cluster.network.kill_all()?;
    for host in &mut cluster.signers {
        host.kill();
        host.power_off();
    }
    for host in &mut cluster.signers {
        host.power_on()?;
        host.start()?;
    }
    cluster.network.start_all()?;
    cluster.network.wait_ready(READY_WAIT_MAX)?;
    load.wait_more(100, WAIT_MAX).await?;
    let acknowledged = load.finish().await?;
    agreement::check(&cluster, &acknowledged).await?;
    for (node, provider) in ["tpm", "tpm", "tpm", "pkcs11"].into_iter().enumerate() {
        wait_sealed(&cluster, node, provider).await.with_context(|| format!("node {node} after the power cut"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_key_is_replaced_while_the_network_runs() -> Result<()> {
    let cluster = Cluster::start_held(&InitOptions::default(), "", seals)?;
    let load = Load::start(&cluster, "agency-1", LoadOptions::default())?;
    load.wait_more(50, WAIT_MAX).await?;
    let from = cluster.height(0).await? + 20;
    let socket = cluster.signers[0].socket();
    let socket = socket.to_str().context("path")?;
    let stele = CommandLine::of(&cluster)?;
    stele.text(&format!("--as operator-1 key epoch --signer {socket} --from-height {from}")).await?;
    let epochs = || -> Result<Vec<String>> {
        let status: serde_json::Value = serde_json::from_str(&cluster.signers[0].signer(&["status"])?)?;
        let keys = status["keys"].as_array().context("keys")?.iter();
        Ok(keys
            .filter(|key| key["role"] == "epoch")
            .filter_map(|key| Some(key["public_key"].as_str()?.into()))
            .collect())
    };
    let keys = epochs()?;
    ensure!(keys.len() == 2, "{keys:?}");
    cluster.wait_height(0, from + 5, WAIT_MAX).await?;
    // The first key is destroyed; whoever still voted with it would be missed.
    let genesis_key = cluster.signers[0].held_keys()?.keys.epoch.context("epoch key")?.public_key;
    stele.text(&format!("key retire-epoch --signer {socket} {genesis_key}")).await?;
    stele.refused(&format!("key retire-epoch --signer {socket} {genesis_key}"), "signer_key").await?;
    ensure!(epochs()?.len() == 1 && !epochs()?.contains(&genesis_key), "it is still there");
    load.wait_more(200, WAIT_MAX).await?;
    ensure!(!cluster.log(0)?.contains("vote withheld"), "votes are withheld:\n{}", cluster.log(0)?);
    let acknowledged = load.finish().await?;
    agreement::check(&cluster, &acknowledged).await?;
    Ok(())
}
