//! `steled state`: a snapshot of the state for others than nodes, and the check of a stopped node's state.
//!
//! Every chunk of a snapshot is checked against its root before it is written, wherever it comes from. A snapshot that was
//! fetched from nodes stands beside the certified header that vouches for its root, so that whoever gets the directory and
//! the genesis file needs to trust nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use stele_state::{Finding, KeyRange, Report, SnapshotBuilder, SnapshotReader, StateError, StateHash};
use stele_types::exchange::CertifiedHeader;
use stele_types::limits::BUNDLE_BYTES_MAX;
use stele_types::{Hash, Height, cbor};
use stele_verify::TrustAnchor;
use tracing::{info, warn};

use crate::fetch::{self, Offer, Peers, Source};
use crate::store::durable;

/// Exit status of a check that found damage; that of `fsck(8)` for errors which are left as they are.
const EXIT_DAMAGED: u8 = 4;

/// Export and check the state
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StateCommand {
    Fetch(Fetch),
    Copy(Copy),
    Fsck(Fsck),
}

/// Write a snapshot of running nodes to a directory, every chunk of it verified from the genesis file on
///
/// What was interrupted begins anew: nothing is taken for a snapshot before all of it is there.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fetch {
    /// Genesis file of the network: trust begins here
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Where from
    #[command(flatten)]
    peers: Peers,
    /// Directory to write to, which holds no snapshot yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Height of the snapshot [default: the newest that a node offers]
    #[arg(long)]
    height: Option<u64>,
}

/// Write the newest sound snapshot in a node's data directory to another directory; the node need not run
///
/// Every chunk is checked against the root that the snapshot names. No header goes with it: `stele query header` shows the
/// root that a quorum certifies.
#[derive(Clone, Debug, Args)]
pub(crate) struct Copy {
    /// Data directory of the node
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Directory to write to, which holds no snapshot yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Height of the snapshot [default: the newest that is there]
    #[arg(long)]
    height: Option<u64>,
}

/// Check the state of a stopped node, or an exported snapshot: every file is read, nothing is changed
///
/// Exit codes: 0 sound, 1 not checked, 4 damaged.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fsck {
    /// Data directory of the node, or a directory with an exported snapshot
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Genesis file of the network
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StateCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; damage that a check found is an exit code.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Fetch(fetch) => fetch.run(),
            Self::Copy(copy) => copy.run(),
            Self::Fsck(fsck) => fsck.run(),
        }
    }
}

impl Fetch {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let anchor = anchor(&self.genesis)?;
        let sources = self.peers.sources()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (certifying, fetched) = runtime.block_on(async {
            let prove = async |source: &Source, offer: &Offer| {
                let certifying = fetch::certified(&source.client, offer.height, &anchor).await?;
                fetch::check_root(offer, &certifying)?;
                anyhow::Ok(certifying)
            };
            let begin = |offer: &Offer, certifying: &CertifiedHeader| {
                let root = certifying.header.state_root.0;
                let builder = builder(&self.out, anchor.state_hash(), offer.height.0, root, offer.depth)?;
                let name = header_name(certifying.header.height);
                // Before the snapshot has its name: it never stands there without its header.
                durable::replace_file(&self.out, &name, &cbor::to_vec(certifying))
                    .context("write the certified header")?;
                anyhow::Ok(builder)
            };
            fetch::newest(&sources, self.height, prove, begin).await
        })?;
        let height = certifying.header.height.0.saturating_sub(1);
        let seconds = fetched.elapsed.as_secs_f64();
        say(&[
            ("directory", self.out.display().to_string()),
            ("height", height.to_string()),
            ("state root", certifying.header.state_root.to_hex()),
            ("certified by", format!("header {}, {}", certifying.header.height, header_name(certifying.header.height))),
            (
                "state",
                format!("{} pairs, {} bytes, in {seconds:.1} s, every chunk verified", fetched.pairs, fetched.bytes),
            ),
        ]);
        Ok(ExitCode::SUCCESS)
    }
}

impl Copy {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let chain = self.data_dir.join("chain");
        let mut files = Vec::new();
        for directory in ["snapshots", "state"].map(|name| chain.join(name)) {
            if directory.is_dir() {
                files.extend(SnapshotReader::files(&directory).map_err(coded)?);
            }
        }
        files.retain(|(height, _)| self.height.is_none_or(|wanted| *height == wanted));
        files.sort_by_key(|(height, _)| std::cmp::Reverse(*height));
        let sound = files.into_iter().find_map(|(height, path)| {
            let checked = SnapshotReader::open(&path).and_then(|reader| reader.check().map(|()| reader));
            checked.inspect_err(|error| warn!(height, code = error.code(), %error, "a snapshot is passed over")).ok()
        });
        let Some(reader) = sound else {
            bail!("snapshot_missing: no such snapshot that is sound in {}", chain.display())
        };
        let mut builder = builder(&self.out, reader.hash(), reader.height(), reader.root(), reader.depth())?;
        for range in (0..1 << reader.depth()).filter_map(|index| KeyRange::new(reader.depth(), index)) {
            let chunk = reader.chunk(range).map_err(coded)?.context("a range of the snapshot's own depth")?;
            builder.add(&chunk).map_err(coded)?.context("a chunk that was sound a moment ago")?;
        }
        let bytes = builder.finish().map_err(coded)?;
        let next = Height(reader.height()).next();
        say(&[
            ("directory", self.out.display().to_string()),
            ("height", reader.height().to_string()),
            ("state root", Hash(reader.root()).to_hex()),
            ("certified by", format!("nothing here; compare the state root of `stele query header {next}`")),
            ("state", format!("{} pairs, {bytes} bytes, every chunk checked", reader.pairs())),
        ]);
        Ok(ExitCode::SUCCESS)
    }
}

/// What was found in one directory.
struct Checked {
    directory: PathBuf,
    report: Report,
    /// Whether a header beside it certifies the state: none when there is no such header.
    certified: Option<bool>,
}

impl Fsck {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let anchor = anchor(&self.genesis)?;
        let checked: Vec<Checked> = self
            .directories()?
            .into_iter()
            .map(|directory| check(directory, &anchor))
            .collect::<anyhow::Result<_>>()?;
        let sound = checked.iter().all(Checked::is_sound);
        if self.json {
            let verdict = if sound { "sound" } else { "damaged" };
            let directories: Vec<Value> = checked.iter().map(Checked::to_json).collect();
            print(&serde_json::to_string_pretty(&json!({ "verdict": verdict, "directories": directories }))?);
        } else {
            checked.iter().for_each(Checked::say);
            let advice = "start the node: it opens what is sound and builds the rest again from its blocks. One that joined \
                          by a snapshot and says history_missing has no such blocks: move its chain directory away, then \
                          `stele network join`";
            let last = if sound {
                [("verdict", "sound".to_owned())].to_vec()
            } else {
                [("verdict", "damaged".to_owned()), ("what to do", advice.to_owned())].to_vec()
            };
            say(&last);
        }
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGED) })
    }

    /// Those of a node, or the one that was exported to.
    fn directories(&self) -> anyhow::Result<Vec<PathBuf>> {
        let chain = self.data_dir.join("chain");
        if !chain.is_dir() {
            return Ok(vec![self.data_dir.clone()]);
        }
        let snapshots = chain.join("snapshots");
        let mut directories = vec![chain.join("state")];
        if snapshots.is_dir() && !SnapshotReader::files(&snapshots).map_err(coded)?.is_empty() {
            directories.push(snapshots);
        }
        Ok(directories)
    }
}

fn check(directory: PathBuf, anchor: &TrustAnchor) -> anyhow::Result<Checked> {
    info!(directory = %directory.display(), "reading every file");
    let report = stele_state::fsck(&directory, anchor.state_hash()).map_err(coded)?;
    let certified = match report.reaches {
        Some((height, root)) => is_certified(&directory.join(header_name(Height(height).next())), root, anchor)?,
        None => None,
    };
    Ok(Checked { directory, report, certified })
}

/// Whether the header of a file is certified and is that of a state root; none when there is no file.
fn is_certified(path: &Path, root: [u8; 32], anchor: &TrustAnchor) -> anyhow::Result<Option<bool>> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if metadata.len() > BUNDLE_BYTES_MAX as u64 {
        return Ok(Some(false));
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Ok(answer) = cbor::from_slice::<CertifiedHeader>(&bytes) else { return Ok(Some(false)) };
    let certified = stele_verify::chain::certify(
        anchor,
        &answer.chain,
        &answer.epoch_certificates,
        &answer.header,
        &answer.certificate,
    );
    let names = header_name(answer.header.height);
    Ok(Some(certified.is_ok() && answer.header.state_root.0 == root && path.ends_with(names)))
}

impl Checked {
    fn is_sound(&self) -> bool {
        self.report.damages == 0 && self.certified != Some(false)
    }

    fn to_json(&self) -> Value {
        let Self { directory, report, certified } = self;
        let finding = |finding: &Finding| {
            json!({
                "kind": finding.kind.code(),
                "file": finding.path.display().to_string(),
                "offset": finding.offset,
                "what": finding.what,
            })
        };
        json!({
            "directory": directory.display().to_string(),
            "height": report.reaches.map(|(height, _)| height),
            "state_root": report.reaches.map(|(_, root)| Hash(root).to_hex()),
            "certified": certified,
            "snapshots": report.snapshots,
            "chunks": report.chunks,
            "tables": report.tables,
            "pages": report.pages,
            "logs": report.logs,
            "records": report.records,
            "damages": report.damages,
            "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
            "findings_left_out": report.findings_left_out,
        })
    }

    fn say(&self) {
        let Self { directory, report, certified } = self;
        let reaches = report.reaches.map(|(height, root)| format!("height {height}, root {}", Hash(root).to_hex()));
        let mut lines = vec![
            ("directory", directory.display().to_string()),
            ("leads to", reaches.unwrap_or_else(|| "no state".to_owned())),
            ("snapshots", format!("{}, {} chunks sound", report.snapshots, report.chunks)),
            ("log", format!("{} files, {} records", report.logs, report.records)),
        ];
        if report.tables > 0 {
            lines.push(("pages", format!("{} tables, {} pages sound", report.tables, report.pages)));
        }
        if let Some(certified) = certified {
            lines.push((
                "certified",
                if *certified { "by the header beside it" } else { "no: the header is of no such state" }.to_owned(),
            ));
        }
        lines.extend(report.findings.iter().map(|Finding { kind, path, offset, what }| {
            (kind.code(), format!("{}, byte {offset}: {what}", path.display()))
        }));
        if report.findings_left_out > 0 {
            lines.push(("more", format!("{} findings are left out", report.findings_left_out)));
        }
        say(&lines);
    }
}

fn anchor(genesis: &Path) -> anyhow::Result<TrustAnchor> {
    let bytes = fs::read(genesis).with_context(|| format!("cannot read {}", genesis.display()))?;
    TrustAnchor::genesis(&bytes).with_context(|| genesis.display().to_string())
}

/// Beside a snapshot, the header that certifies it.
fn header_name(height: Height) -> String {
    format!("header-{:020}.cbor", height.0)
}

/// Begins a snapshot. What is in the state is for the owner alone.
fn builder(out: &Path, hash: StateHash, height: u64, root: [u8; 32], depth: u8) -> anyhow::Result<SnapshotBuilder> {
    durable::create_directory(out).with_context(|| format!("cannot make {}", out.display()))?;
    SnapshotBuilder::create(out, hash, height, root, depth).map_err(coded)
}

/// The stable code goes before the words.
fn coded(error: StateError) -> anyhow::Error {
    let code = error.code();
    anyhow::Error::new(error).context(code)
}

/// Lines of a name and a value.
fn say(lines: &[(&str, String)]) {
    lines.iter().for_each(|(name, value)| print(&format!("{name:<13} {value}")));
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn print(line: &str) {
    println!("{line}");
}
