//! `steled storage`: the payload store of a node that does not run.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use stele_accel_hash::HashAlgorithm;
use stele_cold::{ColdError, ColdOptions, ColdTier, lost_stores};
use stele_hsm::{Signer as _, SoftwareSigner};
use stele_storage::fsck::{CheckReport, check};
use stele_storage::{LostStore, cold_prefix};
use tracing::info;

use super::cold::TAKE_BACK;
use super::drives;
use crate::config::{Config, PayloadSection};
use crate::keys::NodeKeys;
use crate::store::durable;

/// Exit status of a check that found damage; that of `fsck(8)` for errors which are left as they are.
const EXIT_DAMAGED: u8 = 4;

/// Roots of bodies that are printed.
const SHOWN_MAX: usize = 20;

/// Make and check the payload store of a stopped node
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Make a store on the drives of the configuration; whatever is on them is lost
    ///
    /// Drives that are files are made by the node itself where there has never been a store. With `--from-cold` the new
    /// store takes the place of one that was lost with all its drives: when the node starts, it takes back what the cold tier
    /// has of that. Class keys come back from the other nodes, or from a backup of `data/payload/class-keys`.
    Format(Format),
    /// Make the buckets of the cold tier if they are missing, and try whether it is safe to use
    ///
    /// It is tried whether what is there can be replaced, whether what was written is there at once, and whether locks hold.
    Cold(Cold),
    /// Print what other nodes name this one by, to keep copies for each other (`payload.custody.keepers`)
    Identity(Identity),
    /// Check the store: every cell and every body is read, the index derived again and compared; nothing is changed
    ///
    /// Exit codes: 0 sound, 1 not checked, 4 damaged.
    Fsck(Fsck),
}

/// Arguments of `storage format`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Format {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
    /// Say that what is on the drives may be lost
    #[arg(long)]
    erase: bool,
    /// Take the place of a lost store that has segments in the cold tier
    #[arg(long)]
    from_cold: bool,
    /// Its id, if the cold tier has segments of several
    #[arg(long, value_name = "ID", requires = "from_cold")]
    store: Option<String>,
}

/// Arguments of `storage cold`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Cold {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
}

/// Arguments of `storage identity`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Identity {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
}

/// Arguments of `storage fsck`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fsck {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
    /// Folder for the index that is derived, with room for it twice: some 70 bytes a record
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StorageCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; damage that a check found is an exit code.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Format(format) => format.run(),
            Self::Cold(cold) => cold.run(),
            Self::Identity(identity) => identity.run(),
            Self::Fsck(fsck) => fsck.run(),
        }
    }
}

fn section(config: &Config) -> anyhow::Result<&PayloadSection> {
    config.payload.as_ref().context("payload_absent: the configuration has no [payload]: this node keeps no bodies")
}

impl Format {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let section = section(&config)?;
        if !self.erase {
            let paths: Vec<String> = section.drives.iter().map(|drive| drive.path.display().to_string()).collect();
            bail!("erase_missing: this would erase {}; say so with --erase", paths.join(", "));
        }
        let successor_of = if self.from_cold { Some(self.lost_store(section)?) } else { None };
        drives::make_missing(section)?;
        let directory = config.node.data_dir.join("payload");
        if successor_of.is_some() {
            durable::create_directory(&directory)?;
            durable::replace_file(&directory, TAKE_BACK, b"")?;
        }
        drives::format(section, successor_of)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The store in the cold tier whose place the new one takes.
    fn lost_store(&self, section: &PayloadSection) -> anyhow::Result<LostStore> {
        with_tier(section, async |tier| {
            let stores = lost_stores(&tier).await?;
            let named = |lost: &LostStore| self.store.as_ref().is_none_or(|id| *id == cold_prefix(&lost.id));
            let names = stores.iter().map(|lost| cold_prefix(&lost.id)).collect::<Vec<_>>().join(", ");
            match stores.iter().filter(|lost| named(lost)).collect::<Vec<_>>()[..] {
                [lost] => Ok(*lost),
                [] if names.is_empty() => bail!("cold_not_found: the cold tier has no segments under this prefix"),
                [] => bail!("cold_not_found: the cold tier has segments of these stores alone: {names}"),
                _ => {
                    bail!("store_missing: the cold tier has segments of several stores; name one with --store: {names}")
                }
            }
        })
    }
}

impl Cold {
    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    fn run(&self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let section = section(&config)?;
        let options = cold_options(section)?;
        runtime()?.block_on(ColdTier::make_buckets(&options)).map_err(coded)?;
        with_tier(section, async |tier| {
            let stores = lost_stores(&tier).await?;
            println!("endpoint     {}", tier.options().endpoint);
            println!("buckets      {} and {}", tier.options().objects, tier.options().seals);
            println!("replacing    refused, as it must be");
            match tier.options().retention {
                Some(retention) => println!("lock         {:?}, {} days", retention.mode, retention.days),
                None => println!("lock         none: whoever has the credentials can delete"),
            }
            for LostStore { id, segments } in stores {
                println!("store        {}, segments below {segments}", cold_prefix(&id));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn cold_options(section: &PayloadSection) -> anyhow::Result<ColdOptions> {
    let absent = "cold_absent: the configuration has no [payload.cold]: this node has no cold tier";
    section.cold.as_ref().context(absent)?.options(HashAlgorithm::Sha256).map_err(coded)
}

/// Does something with the cold tier of the configuration.
fn with_tier<T>(section: &PayloadSection, what: impl AsyncFnOnce(ColdTier) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let options = cold_options(section)?;
    runtime()?.block_on(async { what(ColdTier::open(options).await.map_err(coded)?).await })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn coded(error: ColdError) -> anyhow::Error {
    let code = error.code();
    anyhow::Error::new(error).context(code)
}

impl Identity {
    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    fn run(&self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let custodian = runtime()?.block_on(async {
            NodeKeys::new(&config).custodian(section(&config)?).await.map_err(anyhow::Error::from)
        })?;
        let receipt_key = receipt_key(&config)?;
        println!(
            "{{ address = \"{}\", custody_key = \"{}\", receipt_key = \"{receipt_key}\" }}",
            config.api.party_listen,
            hex::encode(custodian.public_key()),
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// The key that signs custody receipts: the checkpoint key.
fn receipt_key(config: &Config) -> anyhow::Result<String> {
    let network = stele_types::NetworkId::default();
    let public_key = match &config.seal.key {
        Some(key) => SoftwareSigner::open(key)?.public_key().sec1_compressed.clone(),
        None => {
            let signer =
                runtime()?.block_on(async { NodeKeys::new(config).checkpoint_signer(config, network).await })?;
            signer.public_key().sec1_compressed.clone()
        }
    };
    Ok(hex::encode(public_key))
}

impl Fsck {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let section = section(&config)?;
        let (present, missing) = drives::sort(section).map_err(|error| {
            let code = error.code();
            anyhow::Error::new(error).context(code)
        })?;
        let index = config.node.data_dir.join("payload").join(drives::INDEX);
        let scratch = Scratch::new(&self.scratch)?;
        info!(drives = present.len(), "reading every cell and every body");
        let runtime = runtime()?;
        let options = stele_storage::Options::default();
        let checked = check(&present, &index, &scratch.0, &options, |_| ());
        let report = runtime.block_on(checked).map_err(|error| {
            let code = error.code();
            anyhow::Error::new(error).context(code)
        })?;
        if self.json {
            self.print_json(&report, &missing)?;
        } else {
            say(&report, &missing);
        }
        Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGED) })
    }

    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    fn print_json(&self, report: &CheckReport, missing: &[PathBuf]) -> anyhow::Result<()> {
        let unreadable: Vec<_> = report
            .unreadable
            .iter()
            .map(
                |(root, error)| json!({ "root": hex::encode(root), "code": error.code(), "reason": error.to_string() }),
            )
            .collect();
        let view = json!({
            "verdict": verdict(report),
            "drives": report.drives,
            "drives_failed": report.drives_failed,
            "missing": missing,
            "segments": report.segments,
            "bodies": report.objects,
            "body_bytes": report.object_bytes,
            "repairable": report.repairable,
            "lost": report.lost,
            "unlisted": report.unlisted,
            "cold": report.cold,
            "unreadable_count": report.unreadable_count,
            "unreadable": unreadable,
            "index": report.index,
        });
        println!("{}", serde_json::to_string_pretty(&view)?);
        Ok(())
    }
}

const fn verdict(report: &CheckReport) -> &'static str {
    if report.is_sound() { "sound" } else { "damaged" }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn say(report: &CheckReport, missing: &[PathBuf]) {
    println!("drives       {} of {}", report.drives - report.drives_failed.len(), report.drives);
    for path in missing {
        println!("missing      {}", path.display());
    }
    println!("segments     {}", report.segments);
    println!("bodies       {} of {} bytes, sealed, read to their end", report.objects, report.object_bytes);
    println!("repairable   {} damaged cells", report.repairable);
    println!("lost         {} batches", report.lost);
    println!("index        {}", report.index.as_deref().unwrap_or("is what the drives give"));
    for (root, error) in report.unreadable.iter().take(SHOWN_MAX) {
        println!("unreadable   {}: {error}", hex::encode(root));
    }
    if report.unreadable_count > SHOWN_MAX as u64 {
        println!("unreadable   {} in all", report.unreadable_count);
    }
    println!("verdict      {}", verdict(report));
    if !report.is_sound() {
        let advice = if report.lost > 0 {
            "keep every drive that was taken out; see docs/runbooks/StorageLost.md"
        } else {
            "start the node: it makes a damaged index again; then stele storage scrub mends the cells"
        };
        println!("what to do   {advice}");
    }
}

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &std::path::Path) -> anyhow::Result<Self> {
        let path = parent.join(format!("stele-fsck-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
