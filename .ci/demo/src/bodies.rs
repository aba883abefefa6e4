//! Bodies of records: put, copied, referred to, read with a drive gone; the drive replaced, then the whole store lost and made
//! again from the other nodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stele_client::{BlobView, Client, Endpoint};
use stele_ctl::author::object_id;
use stele_ctl::localnet::READY_WAIT_MAX;
use stele_types::custody::RecordPut;
use stele_types::record::{ContentHash, RecordClass, Sensitivity};
use stele_types::{Command, Hash, ObjectId};
use tokio::task::JoinSet;

use crate::input::{self, SCHEMA_FHIR_R4};
use crate::stage::Stage;

const DICOM: &str = "pydicom-3.0.2";
/// Published schema of DICOM images in the demo.
const SCHEMA_DICOM: u32 = 12_052;
/// The largest FHIR resources, beside the images.
const FHIR_BODIES: usize = 20;
/// Bodies on their way at a time.
const IN_FLIGHT: usize = 8;
/// Bytes of a body that are fetched at a time.
const PIECE_BYTES: u64 = 8 << 20;
/// The node that keeps them, and the drive that it loses.
const NODE: usize = 0;
const DRIVE: usize = 4;
/// How long figures may take to become metrics.
const METRICS_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long making a drive again may take.
const REPLACE_WAIT_MAX: Duration = Duration::from_secs(120);

/// What keeping bodies took.
pub(crate) struct Kept {
    pub(crate) images: usize,
    pub(crate) resources: usize,
    pub(crate) bytes: u64,
    pub(crate) put_seconds: f64,
    pub(crate) read_seconds: f64,
    /// Records that were made again from the other drives when they were read.
    pub(crate) reconstructed: u64,
    /// Segments of which the new drive got its column.
    pub(crate) segments: u64,
    /// Cells that a scrub afterwards found damaged, and batches beyond repair.
    pub(crate) scrubbed: (u64, u64),
    /// Bodies that the node got back from the others after it had lost all, and how long that took.
    pub(crate) rebuilt: u64,
    pub(crate) rebuild_seconds: f64,
}

struct BodyFile {
    path: PathBuf,
    record: ObjectId,
    blob: BlobView,
    bytes: u64,
}

/// Puts DICOM images and FHIR resources to one node, anchors each as a record, takes a drive away, reads everything back,
/// and replaces the drive.
pub(crate) async fn keep(stage: &mut Stage, data: &Path) -> Result<Kept> {
    let (images, resources) = files(data)?;
    let client = stage.client("agency-1", NODE)?;
    let started = Instant::now();
    let mut bodies = put(&client, &images).await?;
    bodies.extend(put(&client, &resources).await?);
    let put_seconds = started.elapsed().as_secs_f64();
    let bytes = bodies.iter().map(|body| body.bytes).sum();
    for (index, body) in bodies.iter().enumerate() {
        let schema = if index < images.len() { SCHEMA_DICOM } else { SCHEMA_FHIR_R4 };
        let command = anchor(body, schema)?;
        stage.settle("agency-1", stage.author("agency-1")?.command(&command)?).await.context("anchoring a body")?;
    }

    let drive =
        stage.network.dir().node(&stage.network.profile().nodes[NODE].name).file("drives").join(DRIVE.to_string());
    stage.network.kill(NODE)?;
    std::fs::remove_file(&drive).with_context(|| format!("cannot remove {}", drive.display()))?;
    stage.network.start(NODE)?;
    stage.network.wait_node_ready(NODE, READY_WAIT_MAX)?;
    let started = Instant::now();
    read_back(stage, &bodies).await?;
    let read_seconds = started.elapsed().as_secs_f64();
    let operator = operator(stage)?;
    let status = operator.storage().await?;
    let failed: Vec<usize> = (0..)
        .zip(status["drives"].as_array().into_iter().flatten())
        .filter(|(_, drive)| drive["state"] == "failed")
        .map(|(number, _)| number)
        .collect();
    ensure!(failed == [DRIVE], "drive {DRIVE} was removed, and {failed:?} have failed");
    let reconstructed = reconstructed(&operator).await?;

    let new = drive.with_file_name("new");
    let length = stele_ctl::network::init::PayloadDrives::APPLIANCE.drive_bytes;
    std::fs::File::create_new(&new).and_then(|file| file.set_len(length)).context("cannot make a new drive")?;
    let token = std::fs::read_to_string(
        stage.network.dir().node(&stage.network.profile().nodes[NODE].name).data().join("control.token"),
    )
    .context("cannot read the control token")?;
    operator.replace_drive(&token, DRIVE, &new).await?;
    let segments = job(&operator).await?.0;
    operator.scrub_storage(&token).await?;
    let (_, repaired, lost) = job(&operator).await?;
    ensure!(lost == 0, "{lost} batches are lost");
    read_back(stage, &bodies).await?;

    let node = stage.network.dir().node(&stage.network.profile().nodes[NODE].name);
    stage.network.kill(NODE)?;
    std::fs::remove_dir_all(node.file("drives")).context("cannot remove the drives")?;
    std::fs::remove_dir_all(node.data().join("payload")).context("cannot remove the index and the keys")?;
    stage.network.start(NODE)?;
    stage.network.wait_node_ready(NODE, READY_WAIT_MAX)?;
    let operator = self::operator(stage)?;
    wait_for_store(&operator).await?;
    let token = std::fs::read_to_string(node.data().join("control.token")).context("cannot read the control token")?;
    let started = Instant::now();
    operator.rebuild_storage(&token).await?;
    job(&operator).await?;
    let rebuild_seconds = started.elapsed().as_secs_f64();
    let rebuilt = operator.storage().await?["job"]["bodies"].as_u64().unwrap_or_default();
    ensure!(rebuilt >= bodies.len() as u64, "{rebuilt} of {} bodies came back", bodies.len());
    read_back(stage, &bodies).await?;
    Ok(Kept {
        images: images.len(),
        resources: resources.len(),
        bytes,
        put_seconds,
        read_seconds,
        reconstructed,
        segments,
        scrubbed: (repaired, lost),
        rebuilt,
        rebuild_seconds,
    })
}

/// Every image of the DICOM package, and the largest resources of the FHIR package.
fn files(data: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut images = Vec::new();
    let mut folders = vec![data.join(DICOM)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("{} is missing: run cargo xtask setup", folder.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "dcm") {
                images.push(path);
            }
        }
    }
    images.sort();
    ensure!(!images.is_empty(), "the DICOM package holds no images");
    let mut resources = input::fhir_files(data)?;
    resources.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).map_or(0, |metadata| metadata.len())));
    resources.truncate(FHIR_BODIES);
    Ok((images, resources))
}

async fn put(client: &Client, paths: &[PathBuf]) -> Result<Vec<BodyFile>> {
    let mut bodies = Vec::new();
    for paths in paths.chunks(IN_FLIGHT) {
        let mut puts = JoinSet::new();
        for path in paths {
            let (client, path) = (client.clone(), path.clone());
            puts.spawn(async move {
                let record = object_id()?;
                let bytes = std::fs::metadata(&path)?.len();
                let blob = client.put_body(&record, RecordClass::Medical, Some(2056), &path).await?;
                ensure!(blob.custody.is_reached(), "{} has no copy on another node", path.display());
                ensure!(blob.length == bytes, "{} has {bytes} bytes, the node took {}", path.display(), blob.length);
                Ok(BodyFile { path, record, blob, bytes })
            });
        }
        while let Some(put) = puts.join_next().await {
            bodies.push(put.context("a put panicked")??);
        }
    }
    Ok(bodies)
}

fn anchor(body: &BodyFile, schema: u32) -> Result<Command> {
    let hash = |text: &str| Hash::from_hex(text).context("the node's answer is malformed");
    Ok(Command::RecordPut(RecordPut {
        record: body.record,
        class: RecordClass::Medical,
        schema,
        subject: None,
        place: None,
        event_day: input::event_day()?,
        sensitivity: Sensitivity::SensitivePersonal,
        retention: 30,
        policy: Hash::of(b"policy: treating staff and subject"),
        commitment: hash(&body.blob.commitment)?,
        body_root: Some(hash(&body.blob.root)?),
        body_hash: Some(ContentHash::Sha256),
        on_behalf_of: None,
    }))
}

/// Fetches every body and compares it with its file.
async fn read_back(stage: &Stage, bodies: &[BodyFile]) -> Result<()> {
    let client = Arc::new(stage.client("agency-1", NODE)?);
    for bodies in bodies.chunks(IN_FLIGHT) {
        let mut reads = JoinSet::new();
        for body in bodies {
            let root = Hash::from_hex(&body.blob.root).context("root")?;
            let (client, path, length) = (Arc::clone(&client), body.path.clone(), body.bytes);
            reads.spawn(async move {
                let mut read = Vec::new();
                while (read.len() as u64) < length {
                    read.extend_from_slice(&client.body(&root, read.len() as u64, PIECE_BYTES).await?.0);
                }
                ensure!(read == std::fs::read(&path)?, "{} comes back changed", path.display());
                Ok(())
            });
        }
        while let Some(read) = reads.join_next().await {
            read.context("a read panicked")??;
        }
    }
    Ok(())
}

/// The operator's listener of the node.
fn operator(stage: &Stage) -> Result<Client> {
    let address = &stage.network.profile().nodes[NODE].metrics;
    Ok(Client::of(Endpoint::http(address)?, None)?)
}

/// Records that were made again, of which there must be some. Figures become metrics once a second.
async fn reconstructed(operator: &Client) -> Result<u64> {
    let deadline = Instant::now() + METRICS_WAIT_MAX;
    loop {
        let metrics = operator.metrics().await?;
        let series = metrics.lines().find_map(|line| line.strip_prefix("stele_storage_reconstructed_total "));
        match series.context("no figure of what was made again")?.parse()? {
            0 => ensure!(Instant::now() < deadline, "a drive is gone, and nothing was made again from the others"),
            records => return Ok(records),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until a store that is made anew is open.
async fn wait_for_store(operator: &Client) -> Result<()> {
    let deadline = Instant::now() + REPLACE_WAIT_MAX;
    while let Err(error) = operator.storage().await {
        ensure!(Instant::now() < deadline, "the store does not open: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Waits for the end of a job: segments, repaired cells and lost batches.
async fn job(operator: &Client) -> Result<(u64, u64, u64)> {
    let deadline = Instant::now() + REPLACE_WAIT_MAX;
    loop {
        let job = operator.storage().await?["job"].take();
        if job["running"] == false {
            if let Some(failure) = job["failure"].as_str() {
                bail!("{} failed: {failure}", job["job"]);
            }
            let number = |name: &str| job[name].as_u64().unwrap_or_default();
            return Ok((number("segments"), number("repaired"), number("lost")));
        }
        ensure!(Instant::now() < deadline, "{} goes on for too long", job["job"]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
