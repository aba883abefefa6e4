//! Real input as commands: FHIR resources as salted commitments, property records under real place codes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use stele_ctl::author::{object_id, random};
use stele_types::cbor::List;
use stele_types::custody::RecordPut;
use stele_types::record::{PlaceCode, RecordClass, Sensitivity};
use stele_types::{Command, Hash, PartyId};

const FHIR: &str = "hl7.fhir.r4.examples-4.0.1";
const DIVISIONS: &str = "china-division-2.7.0";
/// Published schemas of the demo: FHIR R4 resources, LADM property records.
pub(crate) const SCHEMA_FHIR_R4: u32 = 4_001;
pub(crate) const SCHEMA_LADM: u32 = 19_152;

/// Records of one class, as commands, with the size of their bodies.
pub(crate) struct Input {
    pub(crate) commands: Vec<Command>,
    pub(crate) commitments: Vec<Hash>,
    pub(crate) bytes: u64,
}

impl Input {
    /// RFC 9162 root over the commitments: the content root of the data set.
    pub(crate) fn content_root(&self) -> Hash {
        let leaves: Vec<_> = self.commitments.iter().map(|hash| stele_merkle::log::leaf_hash(&hash.0)).collect();
        Hash(stele_merkle::log::root_of(&leaves))
    }
}

/// Commitment to a body: `HMAC-SHA-256(salt, body)`; the salt stays with the body's owner.
fn commitment(body: &[u8]) -> Result<Hash> {
    let salt: [u8; 32] = random()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&salt).map_err(|_| anyhow::anyhow!("salt length"))?;
    mac.update(body);
    Ok(Hash(mac.finalize().into_bytes().into()))
}

/// Every example resource of the FHIR package.
pub(crate) fn medical(data: &Path) -> Result<Input> {
    let paths = fhir_files(data)?;
    let policy = Hash::of(b"policy: treating staff, subject, insurer for claims");
    let mut input = Input { commands: Vec::new(), commitments: Vec::new(), bytes: 0 };
    for path in paths {
        let body = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let commitment = commitment(&body)?;
        input.bytes += body.len() as u64;
        input.commitments.push(commitment);
        input.commands.push(Command::RecordPut(RecordPut {
            record: object_id()?,
            class: RecordClass::Medical,
            schema: SCHEMA_FHIR_R4,
            subject: Some(random()?),
            place: None,
            event_day: event_day()?,
            sensitivity: Sensitivity::SensitivePersonal,
            retention: 15,
            policy,
            commitment,
            body_root: None,
            body_hash: None,
            on_behalf_of: None,
        }));
    }
    Ok(input)
}

/// The files of these resources, by name.
pub(crate) fn fhir_files(data: &Path) -> Result<Vec<PathBuf>> {
    let directory = data.join(FHIR);
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .with_context(|| format!("{} is missing: run cargo xtask setup", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name != "package.json" && !name.starts_with('.')
        })
        .collect();
    paths.sort();
    Ok(paths)
}

/// `count` property records, each in a village or neighbourhood that exists.
pub(crate) fn property(data: &Path, count: usize) -> Result<Input> {
    let path = data.join(DIVISIONS).join("dist/villages.json");
    let text = std::fs::read(&path).with_context(|| format!("{} is missing: run cargo xtask setup", path.display()))?;
    let villages: serde_json::Value = serde_json::from_slice(&text).context("villages.json")?;
    let villages = villages.as_array().context("villages.json is not a list")?;
    let policy = Hash::of(b"policy: registry, holder, bank by mandate; existence is public");
    let mut input = Input { commands: Vec::new(), commitments: Vec::new(), bytes: 0 };
    for village in villages {
        if input.commands.len() == count {
            break;
        }
        let code = village["code"].as_str().unwrap_or_default();
        let Some(place) = code.parse().ok().and_then(PlaceCode::new) else { continue };
        let body = serde_json::to_vec(&serde_json::json!({
            "unit": format!("{code}-{:06}", input.commands.len() + 1),
            "cell": code,
            "right": "ownership",
            "share": "1/1",
            "basis": "first registration",
        }))?;
        let commitment = commitment(&body)?;
        input.bytes += body.len() as u64;
        input.commitments.push(commitment);
        input.commands.push(Command::RecordPut(RecordPut {
            record: object_id()?,
            class: RecordClass::Property,
            schema: SCHEMA_LADM,
            subject: None,
            place: Some(place),
            event_day: event_day()?,
            sensitivity: Sensitivity::Personal,
            retention: 0,
            policy,
            commitment,
            body_root: None,
            body_hash: None,
            on_behalf_of: None,
        }));
    }
    if input.commands.len() < count {
        bail!("only {} place codes are known, {count} records were asked for", input.commands.len());
    }
    Ok(input)
}

/// A load that is no one's record, for benchmarks.
pub(crate) fn synthetic(count: usize, on_behalf_of: Option<PartyId>) -> Result<Vec<Command>> {
    let policy = Hash::of(b"policy: benchmark");
    let day = event_day()?;
    (0..count)
        .map(|_| {
            Ok(Command::RecordPut(RecordPut {
                record: object_id()?,
                class: RecordClass::Transport,
                schema: 1,
                subject: None,
                place: None,
                event_day: day,
                sensitivity: Sensitivity::General,
                retention: 1,
                policy,
                commitment: Hash(random()?),
                body_root: None,
                body_hash: None,
                on_behalf_of,
            }))
        })
        .collect()
}

pub(crate) fn event_day() -> Result<u32> {
    Ok(u32::try_from(stele_ctl::author::now_ms()? / 86_400_000)?)
}

/// Rights in the order that the register wants.
pub(crate) fn rights() -> Result<List<stele_types::asset::RightClass, 3>> {
    use stele_types::asset::RightClass;
    Ok(List::new(vec![RightClass::Hold, RightClass::Use])?)
}
