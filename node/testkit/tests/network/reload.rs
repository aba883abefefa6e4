//! SIGHUP: certificates are replaced while the node serves, and a configuration that cannot be used changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use stele_ctl::network::init::InitOptions;
use stele_ctl::pki::{Authority, Usage};
use stele_testkit::wire::Speaker;
use stele_testkit::{Cluster, agreement, load};

const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_the_node_serves_and_a_bad_configuration_changes_nothing() -> Result<()> {
    let mut cluster = Cluster::start_with(&InitOptions { validators: 1, ..InitOptions::default() }, "")?;
    let first = served(&cluster).await?;
    ensure!(first == on_disk(&cluster)?, "the certificate on disk is served");
    let open = Speaker::new(&authority_pem(&cluster)?, None)?.connect(&public(&cluster)?).await?;

    renew(&cluster)?;
    ensure!(served(&cluster).await? == first, "nothing changes before the signal");
    cluster.network.reload(0)?;
    let renewed = on_disk(&cluster)?;
    let deadline = Instant::now() + WAIT;
    while served(&cluster).await? != renewed {
        ensure!(Instant::now() < deadline, "the new certificate is not served:\n{}", cluster.log(0)?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(open);

    let dir = cluster.network.dir().node("node-1");
    let configuration = std::fs::read_to_string(dir.config())?;
    for (text, code) in
        [(configuration.clone() + "\nnonsense = 1\n", "config_syntax"), (String::new(), "config_syntax")]
    {
        std::fs::write(dir.config(), text)?;
        refused(&mut cluster, code).await?;
    }
    std::fs::write(dir.config(), &configuration)?;
    let key = std::fs::read(dir.file("tls.key"))?;
    std::fs::copy(cluster.network.dir().party("agency-1").tls_key(), dir.file("tls.key"))?;
    refused(&mut cluster, "tls").await?;
    ensure!(served(&cluster).await? == renewed, "the certificate in force stays");
    std::fs::write(dir.file("tls.key"), key)?;

    std::fs::write(dir.config(), configuration + "\n[admission]\nparty_share_percent = 30\n")?;
    cluster.network.reload(0)?;
    cluster.wait_log(0, "wait for a restart", WAIT).await?;
    cluster.wait_metric(0, "stele_config_restart_pending", 1.0, WAIT).await?;
    let one = load::records(&cluster.author("agency-1")?, 1)?;
    let status = cluster.settle("agency-1", &one[0]).await?;
    println!("{:?}", agreement::check(&cluster, &[status]).await?);
    Ok(())
}

/// Sends the signal and waits for one more refusal in the log.
async fn refused(cluster: &mut Cluster, code: &str) -> Result<()> {
    const REFUSED: &str = "the new configuration is refused";
    let before = cluster.log(0)?.matches(REFUSED).count();
    cluster.network.reload(0)?;
    let deadline = Instant::now() + WAIT;
    while cluster.log(0)?.matches(REFUSED).count() == before {
        ensure!(Instant::now() < deadline, "the new configuration was not refused:\n{}", cluster.log(0)?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = cluster.log(0)?;
    let line = log.lines().rfind(|line| line.contains(REFUSED)).context("line")?;
    ensure!(line.contains(code), "refused with another code than {code}: {line}");
    cluster.session.probe(&cluster.network.profile().nodes[0])?.ready().await.context("the node must go on")?;
    Ok(())
}

fn renew(cluster: &Cluster) -> Result<()> {
    let dir = cluster.network.dir();
    let authority = Authority::open(&dir.ca_certificate(), &dir.ca_key())?;
    let leaf = authority.issue("node-1", &["127.0.0.1".into(), "localhost".into()], Usage::Server)?;
    let node = dir.node("node-1");
    std::fs::write(node.file("tls.pem"), &leaf.certificate)?;
    // The file exists with mode 0600 and keeps it.
    std::fs::write(node.file("tls.key"), leaf.key.as_bytes())?;
    Ok(())
}

/// The certificate that a new handshake gets.
async fn served(cluster: &Cluster) -> Result<Vec<u8>> {
    let stream = Speaker::new(&authority_pem(cluster)?, None)?.connect(&public(cluster)?).await?;
    let (_, session) = stream.get_ref();
    Ok(session.peer_certificates().and_then(<[_]>::first).context("a certificate")?.to_vec())
}

fn on_disk(cluster: &Cluster) -> Result<Vec<u8>> {
    let path = cluster.network.dir().node("node-1").file("tls.pem");
    Ok(CertificateDer::from_pem_file(path)?.to_vec())
}

fn authority_pem(cluster: &Cluster) -> Result<String> {
    Ok(std::fs::read_to_string(cluster.network.dir().ca_certificate())?)
}

fn public(cluster: &Cluster) -> Result<String> {
    Ok(cluster.network.profile().nodes.first().context("node")?.public.clone())
}
