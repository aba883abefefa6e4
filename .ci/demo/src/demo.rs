//! The demo: a network, real input, every bundle verified offline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use stele_client::Client;
use stele_ctl::author::{Author, Signed, object_id, random};
use stele_ctl::keys::SigningKey;
use stele_ctl::network::init::{InitOptions, PayloadDrives};
use stele_types::asset::{AssetKind, AssetRegister, Origin};
use stele_types::cbor::List;
use stele_types::party::{MandateGive, PartyEnrol, Role, RoleSet};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
use stele_types::{Command, Family, Height, PartyId, StatementId, Suite};
use stele_verify::{TrustAnchor, Verdict, bundle};

use crate::DemoArguments;
use crate::attest;
use crate::bodies;
use crate::figures::{Figures, quantile};
use crate::input::{self, Input};
use crate::keeping;
use crate::newcomer;
use crate::pipeline::{self, Load};
use crate::stage::Stage;

/// Batches in flight on each node.
const IN_FLIGHT: usize = 3;
/// Bundles of one request.
const BUNDLES: usize = 200;

pub(crate) async fn run(arguments: DemoArguments) -> Result<()> {
    let mut figures = Figures::to(arguments.json.as_deref())?;
    let started = Instant::now();
    println!(
        "Stele demo: {} validators on loopback, each with a TPM (swtpm) behind stele-signer; the last one's checkpoint key in a \
         PKCS#11 token (SoftHSM)",
        arguments.validators
    );
    let archive_blocks_after_ms = Some(keeping::ARCHIVE_AFTER_MS);
    let payload = Some(PayloadDrives { archive_blocks_after_ms, ..PayloadDrives::APPLIANCE });
    let options = InitOptions { validators: arguments.validators, payload, ..InitOptions::default() };
    let mut stage = Stage::start_held(&options, newcomer::CONFIGURATION)?;
    println!("[{:>5.1} s] network {} is ready", started.elapsed().as_secs_f64(), stage.network.profile().network);

    let hospital = enrol(&stage, "hospital group").await?;
    let registry = enrol(&stage, "land registry").await?;
    println!("[{:>5.1} s] two agencies enrolled under dual control", started.elapsed().as_secs_f64());
    let attested = attest::attest(&stage)?;
    println!(
        "[{:>5.1} s] {} nodes attested: TPMs of a pinned maker, quotes of fresh nonces and signed checkpoints, verdicts on the \
         ledger; {} keys certified in these TPMs, {} in a token vouched for",
        started.elapsed().as_secs_f64(),
        attested.nodes,
        attested.certified,
        attested.quoted
    );

    let medical = input::medical(&arguments.data)?;
    let property = input::property(&arguments.data, arguments.records)?;
    println!(
        "[{:>5.1} s] input read: {} FHIR resources ({:.1} MB), {} property records",
        started.elapsed().as_secs_f64(),
        medical.commands.len(),
        medical.bytes as f64 / 1e6,
        property.commands.len()
    );
    let mut signed = pipeline::sign(&hospital, &medical.commands)?;
    signed.extend(pipeline::sign(&registry, &property.commands)?);
    let ids: Vec<StatementId> = signed.iter().map(|signed| signed.id).collect();
    println!("[{:>5.1} s] {} statements signed", started.elapsed().as_secs_f64(), ids.len());

    let clients = stage.clients("agency-1")?;
    let load = pipeline::submit(&clients, signed, IN_FLIGHT, 0.0).await?;
    println!("[{:>5.1} s] every outcome is certified", started.elapsed().as_secs_f64());

    let certificates = [
        register_asset(&stage, &hospital, &medical, RecordClass::Medical, input::SCHEMA_FHIR_R4).await?,
        register_asset(&stage, &registry, &property, RecordClass::Property, input::SCHEMA_LADM).await?,
    ];
    let anchor = stage.session.anchor()?;
    let verified = verify_all(&clients, &ids, &anchor).await?;
    println!("[{:>5.1} s] {verified} bundles verified offline", started.elapsed().as_secs_f64());
    let kept = bodies::keep(&mut stage, &arguments.data).await?;
    println!(
        "[{:>5.1} s] {} DICOM images and {} FHIR resources ({:.1} MB) kept sealed on eleven drives and on a second node, \
         which signed for each, in {:.1} s; one drive removed: all read back in {:.1} s, {} records made again from the \
         others; a new drive got its columns of {} segments; scrubbed: {} damaged, {} lost; then the whole store removed: \
         {} bodies brought back from the other nodes in {:.1} s, all read back",
        started.elapsed().as_secs_f64(),
        kept.images,
        kept.resources,
        kept.bytes as f64 / 1e6,
        kept.put_seconds,
        kept.read_seconds,
        kept.reconstructed,
        kept.segments,
        kept.scrubbed.0,
        kept.scrubbed.1,
        kept.rebuilt,
        kept.rebuild_seconds
    );
    figures.write("demo.bodies_mb_s", kept.bytes as f64 / 1e6 / kept.put_seconds, "MB/s", None)?;
    let old = keeping::keep(&stage, &clients, &ids, &anchor).await?;
    println!(
        "[{:>5.1} s] {} of {} blocks moved from a node's data directory into its sealed store; {} bundles proven from \
         there; node backed up ({:.1} MB) in {:.1} s, and the restore rehearsed in {:.1} s, {} bodies opened",
        started.elapsed().as_secs_f64(),
        old.archived,
        old.height,
        old.proven,
        old.backup_bytes as f64 / 1e6,
        old.backup_seconds,
        old.drill_seconds,
        old.bodies
    );
    figures.write("demo.drill_s", old.drill_seconds, "s", None)?;
    let joined = newcomer::join(&mut stage).await?;
    println!(
        "[{:>5.1} s] a node joined by the snapshot of height {}: {} pairs, {:.1} MB, each chunk verified; {} blocks \
         executed instead of {}; {:.1} s until it served; its leaves lie in {} pages on disk",
        started.elapsed().as_secs_f64(),
        joined.height,
        joined.pairs,
        joined.bytes as f64 / 1e6,
        joined.reached - joined.height,
        joined.reached,
        joined.seconds,
        joined.pages
    );
    figures.write("demo.join_s", joined.seconds, "s", None)?;
    let clients = stage.clients("agency-1")?;
    let (height, log_size) = compare_roots(&clients).await?;

    summary(&load, verified, height, log_size, &certificates, clients.len(), &mut figures)?;
    if arguments.exit {
        stage.network.stop_all()?;
        return Ok(());
    }
    stay(&mut stage).await
}

/// Enrols an agency by proposal and approval, with a fresh Ed25519 key. It submits through a founding agency's
/// connection: who signs and who delivers need not be the same.
async fn enrol(stage: &Stage, what: &str) -> Result<Author> {
    let party = PartyId(random()?);
    let key = SigningKey::generate(Suite::EdDsa)?;
    let command = Command::PartyEnrol(PartyEnrol {
        party,
        organisation: None,
        roles: RoleSet::of(&[Role::Agency]),
        key: key.enrolled(),
        tls_pins: List::default(),
    });
    stage.govern(&command).await.with_context(|| format!("enrolling the {what}"))?;
    let network = stage.author("governor-1")?.network();
    Ok(Author::new(party, key, network))
}

/// The holder gives the registrar a mandate; the registrar registers the data set. Returns the certificate number.
async fn register_asset(
    stage: &Stage,
    holder: &Author,
    input: &Input,
    class: RecordClass,
    schema: u32,
) -> Result<String> {
    let registrar = stage.author("registrar")?;
    let now_ms = stele_ctl::author::now_ms()?;
    let mandate = Command::MandateGive(MandateGive {
        mandate: object_id()?,
        grantee: registrar.party(),
        families: List::new(vec![Family::Registration.number()])?,
        valid_from_ms: now_ms - 60_000,
        valid_until_ms: now_ms + 3_600_000,
    });
    stage.settle("agency-1", holder.command(&mandate)?).await.context("giving a mandate")?;
    let day = input::event_day()?;
    let asset = object_id()?;
    let register = Command::AssetRegister(AssetRegister {
        asset,
        kind: AssetKind::Resource,
        region: PlaceCode::new(110_000).context("region")?,
        holder: holder.party(),
        rights: input::rights()?,
        origin: Origin::PublicDuty,
        class,
        sensitivity: Sensitivity::SensitivePersonal,
        schema,
        records: input.commands.len() as u64,
        bytes: input.bytes,
        first_day: day,
        last_day: day,
        content_root: input.content_root(),
        content_hash: ContentHash::Sha256,
        quality_report: None,
        compliance_opinion: None,
        valid_until_day: None,
    });
    let signed: Signed = registrar.command(&register)?;
    stage.settle("registrar", signed).await.context("registering the data set")?;
    let client = stage.client("registrar", 0)?;
    let proofs = client.state("asset", &asset.to_hex()).await?;
    let value = proofs.into_iter().find_map(|proof| proof.value).context("the registered asset is not in the state")?;
    let record: stele_ledger::value::AssetRecord = stele_types::cbor::from_slice(&value)?;
    Ok(record.number.to_text())
}

/// Fetches every bundle and verifies it from the genesis file alone, on all cores.
pub(crate) async fn verify_all(clients: &[Client], ids: &[StatementId], anchor: &TrustAnchor) -> Result<usize> {
    let shares = clients.len().max(1);
    let mut workers = tokio::task::JoinSet::new();
    for (share, client) in clients.iter().enumerate() {
        let own: Vec<Vec<StatementId>> =
            ids.chunks(BUNDLES).skip(share).step_by(shares).map(<[StatementId]>::to_vec).collect();
        let (client, anchor) = (client.clone(), anchor.clone());
        workers.spawn(async move {
            let mut verified = 0;
            let memory = Arc::new(Mutex::new(bundle::Memory::default()));
            for ids in own {
                let replies = client.bundles(&ids, true).await?;
                let (anchor, memory) = (anchor.clone(), Arc::clone(&memory));
                verified += tokio::task::spawn_blocking(move || {
                    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                    for (id, reply) in ids.iter().zip(&replies) {
                        let found = reply.bundle.as_ref().with_context(|| {
                            format!("no bundle of {id}: {:?}", reply.refusal.map(stele_types::Code::as_str))
                        })?;
                        let expected = bundle::Expectation { statement: Some(*id), ..bundle::Expectation::default() };
                        match memory.verify(found, &anchor, &expected)? {
                            Verdict::Registered(_) => {}
                            other => bail!("bundle of {id} proves {}", other.as_str()),
                        }
                    }
                    Ok(ids.len())
                })
                .await
                .context("a verifier panicked")??;
            }
            Ok::<usize, anyhow::Error>(verified)
        });
    }
    let mut verified = 0;
    while let Some(worker) = workers.join_next().await {
        verified += worker.context("a verifier panicked")??;
    }
    Ok(verified)
}

/// Compares log and state roots of all nodes at the highest height that all have. Returns it with the log's size.
async fn compare_roots(clients: &[Client]) -> Result<(Height, u64)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut height = u64::MAX;
    for client in clients {
        height = height.min(client.network().await?.height);
    }
    let mut headers = Vec::new();
    for client in clients {
        loop {
            match client.header(Height(height)).await {
                Ok(certified) => {
                    headers.push(certified.header);
                    break;
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    let first = headers.first().context("no node")?;
    if let Some(other) = headers.iter().find(|header| {
        (header.state_root, header.log_root, header.outcomes_root)
            != (first.state_root, first.log_root, first.outcomes_root)
    }) {
        bail!("roots differ at height {height}: {} and {}", first.state_root, other.state_root);
    }
    Ok((Height(height), first.log_size))
}

fn summary(
    load: &Load,
    verified: usize,
    height: Height,
    log_size: u64,
    certificates: &[String],
    validators: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut latencies = load.latencies_ms.clone();
    println!("\nResult");
    println!("  registration certificates: {}", certificates.join(", "));
    println!("  log of {log_size} leaves at height {height}; log, state and outcome roots equal on {validators} nodes");
    figures.write("demo.validators", validators as f64, "count", None)?;
    figures.write("demo.statements", load.applied as f64, "count", None)?;
    figures.write("demo.receipts_verified", verified as f64, "count", None)?;
    figures.write("demo.roots_equal", 1.0, "bool", None)?;
    figures.write("demo.statements_per_s", load.per_second(), "1/s", None)?;
    figures.write("demo.receipt_p99_ms", quantile(&mut latencies, 0.99), "ms", None)
}

/// Prints where everything is and waits for Ctrl-C.
async fn stay(stage: &mut Stage) -> Result<()> {
    println!("\nThe network stays up; Ctrl-C stops it.");
    for node in &stage.network.profile().nodes {
        println!(
            "  {}: parties https://{}  public https://{}  metrics http://{}/metrics",
            node.name, node.party, node.public, node.metrics
        );
    }
    println!("  try: stele --network-dir {} status", stage.root()?.display());
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    println!("stopping");
    stage.network.stop_all()
}
