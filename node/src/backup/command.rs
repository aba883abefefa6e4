//! `steled backup` and `steled restore`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use stele_hsm::custody::{Custodian as _, CustodyPublicKey, SoftwareCustodian};
use stele_types::Genesis;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::BackupError;
use super::check::{Facts, verify};
use super::create::{Made, Wanted, create};
use super::drill::{Rehearsal, Rehearsed, Scratch, drill};
use super::manifest::Manifest;
use super::point::{Newest, recovery_point};
use super::repository::Repository;
use super::restore::{Restored, Target, Times, restore};
use crate::config::Config;
use crate::node::read_genesis;

/// Exit status where something is damaged, or bodies are in no backup; that of `fsck(8)` for errors that are left.
const EXIT_DAMAGED: u8 = 4;

/// Back up a node, and prove that the backup is one
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Add a backup of the node to a repository, while the node runs
    ///
    /// The repository is a directory, best on another machine's storage. The first backup copies everything, each later one
    /// what is new. One that is broken off leaves the others as they are, and the next goes on where it ended. No private key
    /// and no guard is in it. Exit codes: 0 made, 1 not made, 4 made, but bodies could not be read and are not in it.
    Create(Create),
    /// Verify a backup without a node and without keys, from its genesis file on
    ///
    /// Every header with its quorum, entries, outcomes and log of every block, the state under its root, every body under
    /// its own. Exit codes: 0 sound, 1 not checked, 4 damaged.
    Verify(Verify),
    /// List the backups of a repository
    List(List),
    /// Show where a network that was lost begins again, from the repositories of its nodes
    ///
    /// Compares the newest backups of all repositories: one network, no two blocks at one height, and the highest is the
    /// recovery point.
    Point(Point),
    /// Rehearse a restore: into a scratch directory, bodies opened, nothing left behind
    ///
    /// Exit codes: 0 it can be restored, 1 not rehearsed, 4 damaged.
    Drill(Drill),
    /// Remove all but the newest backups, and the files that no other needs
    Prune(Prune),
    /// Make a recovery key, whose private half opens class keys when the node's custody key is lost
    RecoveryKey(RecoveryKey),
}

/// Which repository.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Directory of the backups
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which backup.
#[derive(Clone, Debug, Args)]
pub(crate) struct Which {
    /// Number of the backup [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    backup: Option<u64>,
}

/// Which node.
#[derive(Clone, Debug, Args)]
pub(crate) struct Node {
    /// Configuration file
    #[arg(long, env = "STELED_CONFIG", default_value = "/etc/stele/steled.toml")]
    config: PathBuf,
}

/// What opens class keys.
#[derive(Clone, Debug, Args)]
pub(crate) struct Unseal {
    /// Private half of the recovery key, or custody key of the node of the backup, where this node's custody key is another
    #[arg(long, value_name = "FILE")]
    unseal_key: Option<PathBuf>,
}

/// Arguments of `backup create`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    place: Place,
    /// Public recovery key, in hexadecimal or a file that has it: class keys are sealed for it, too
    #[arg(long, value_name = "KEY")]
    recovery_key: Option<String>,
    /// The node does not run: read its drives; it cannot start meanwhile
    #[arg(long)]
    stopped: bool,
}

/// Arguments of `backup verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Genesis file of the network, to have a backup of another one refused
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

/// Arguments of `backup list`.
#[derive(Clone, Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,
}

/// Arguments of `backup point`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Point {
    /// Directories of the backups of the nodes
    #[arg(long, value_name = "DIR", required = true, value_delimiter = ',')]
    repository: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `backup drill`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Drill {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    unseal: Unseal,
    /// Folder for the scratch directory, with room for all that is restored
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Bodies that are opened, taken at random; every one is restored and has its root
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    bodies: usize,
}

/// Arguments of `backup prune`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    place: Place,
    /// Backups that stay, the newest
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
}

/// Arguments of `backup recovery-key`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RecoveryKey {
    /// File for the private half; keep it away from nodes and backups
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Restore a node from a backup, onto an empty data directory
///
/// Keys, guards and configuration are in place already; they are in no backup. Everything is verified from the genesis file
/// on while it is restored. One that is broken off is begun again by the same command. The node catches up with the others
/// when it starts.
#[derive(Clone, Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    unseal: Unseal,
}

impl BackupCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; damage that was found is an exit code.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(),
            Self::Verify(verify) => verify.run(),
            Self::List(list) => list.run(),
            Self::Point(point) => point.run(),
            Self::Drill(drill) => drill.run(),
            Self::Prune(prune) => prune.run(),
            Self::RecoveryKey(recovery) => recovery.run(),
        }
    }
}

impl Node {
    fn read(&self) -> anyhow::Result<(Config, Vec<u8>, Genesis)> {
        let config = Config::load(&self.config)?;
        let (bytes, genesis) = read_genesis(&config.node.genesis)?;
        Ok((config, bytes, genesis))
    }
}

impl Unseal {
    fn open(&self) -> anyhow::Result<Option<SoftwareCustodian>> {
        Ok(self.unseal_key.as_deref().map(SoftwareCustodian::open).transpose()?)
    }
}

impl Create {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let (config, bytes, genesis) = self.node.read()?;
        let recovery_key = self.recovery_key.as_deref().map(public_key).transpose().map_err(coded)?;
        let wanted = Wanted { repository: self.place.repository.clone(), recovery_key, stopped: self.stopped };
        let made = create(&config, (&bytes, &genesis), &wanted, &runtime()?).map_err(coded)?;
        let Made { manifest, new_bytes, new_blocks, new_bodies, unreadable } = &made;
        if self.place.json {
            let mut view = view(manifest);
            view["new_bytes"] = json!(new_bytes);
            view["new_blocks"] = json!(new_blocks);
            view["new_bodies"] = json!(new_bodies);
            view["unreadable"] = json!(unreadable);
            print_json(&view)?;
        } else {
            let mut lines = lines(manifest);
            lines.push(("new", format!("{new_blocks} blocks, {new_bodies} bodies, {new_bytes} bytes written")));
            if *unreadable > 0 {
                let what = format!("{unreadable} bodies or lists of bodies are not in it: stele storage scrub");
                lines.push(("unreadable", what));
            }
            say(&lines);
        }
        Ok(if *unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGED) })
    }
}

impl Verify {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let genesis = self.genesis.as_deref().map(read_genesis).transpose()?;
        let checked = || {
            let repository = Repository::open(&self.place.repository)?;
            if let Some((_, genesis)) = &genesis {
                repository.check_network(genesis.network())?;
            }
            let manifest = repository.find(self.which.backup)?;
            Ok((manifest.clone(), verify(&repository, manifest)?))
        };
        match checked() {
            Ok((manifest, facts)) => {
                if self.place.json {
                    let mut view = view(&manifest);
                    view["verdict"] = json!("sound");
                    view["facts"] = serde_json::to_value(&facts)?;
                    print_json(&view)?;
                } else {
                    let mut lines = lines(&manifest);
                    lines.extend(facts_lines(&facts));
                    lines.push(("verdict", "sound".to_owned()));
                    say(&lines);
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => damaged(error, self.place.json),
        }
    }
}

impl List {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let repository = Repository::open(&self.place.repository).map_err(coded)?;
        let numbers = repository.numbers().map_err(coded)?;
        let manifests: Vec<Manifest> = numbers
            .into_iter()
            .map(|number| repository.manifest(number).map_err(coded))
            .collect::<anyhow::Result<_>>()?;
        if self.place.json {
            print_json(&manifests.iter().map(view).collect())?;
            return Ok(ExitCode::SUCCESS);
        }
        print("backup  finished                 height      bodies    bytes           node");
        for manifest in &manifests {
            let Manifest { number, height, bodies, node, .. } = manifest;
            let (finished, bytes) = (utc(manifest.finished_ms), manifest.bytes());
            print(&format!("{number:<7} {finished:<24} {height:<11} {:<9} {bytes:<15} {node}", bodies.count));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Point {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let newest = recovery_point(&self.repository).map_err(coded)?;
        let Some(Newest { manifest: highest, .. }) = newest.first() else { return Ok(ExitCode::FAILURE) };
        if self.json {
            let repositories: Vec<Value> = newest
                .iter()
                .map(|Newest { path, manifest, .. }| {
                    let mut view = view(manifest);
                    view["repository"] = json!(path.display().to_string());
                    view
                })
                .collect();
            let next = highest.height + 1;
            print_json(&json!({ "recovery_point": view(highest), "from_height": next, "repositories": repositories }))?;
            return Ok(ExitCode::SUCCESS);
        }
        for Newest { path, manifest, .. } in &newest {
            let Manifest { number, node, height, bodies, .. } = manifest;
            let text = format!("{}: {node}, backup {number}, height {height}, {} bodies", path.display(), bodies.count);
            say(&[("repository", text)]);
        }
        let Manifest { height, header, log, time_ms, .. } = highest;
        say(&[
            ("point", format!("height {height}, header {header}")),
            ("time", format!("{} by the network's clock", utc(*time_ms))),
            ("log", format!("{} leaves, root {}", log.size, log.root)),
            (
                "lost",
                "whatever was acknowledged at a greater height: it has to be signed and submitted again".to_owned(),
            ),
            (
                "guards",
                format!(
                    "once all governors agree on this point: keep the old guards as evidence, and beside each \
                                validator key: stele key guard --validator-key … --from-height {}",
                    height + 1
                ),
            ),
        ]);
        Ok(ExitCode::SUCCESS)
    }
}

impl Drill {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let (config, _, genesis) = self.node.read()?;
        let unseal = self.unseal.open()?;
        let runtime = runtime()?;
        let scratch = Scratch::new(&self.scratch).map_err(coded)?;
        remove_at_signal(&runtime, scratch.path());
        let rehearsal = Rehearsal { number: self.which.backup, bodies: self.bodies, unseal };
        let drilled = Repository::open(&self.place.repository)
            .and_then(|repository| drill(&repository, &config, genesis.network(), rehearsal, &scratch, &runtime));
        drop(scratch);
        let rehearsed = match drilled {
            Ok(rehearsed) => rehearsed,
            Err(error) => return damaged(error, self.place.json),
        };
        if self.place.json {
            let mut view = serde_json::to_value(&rehearsed)?;
            view["verdict"] = json!("restorable");
            print_json(&view)?;
        } else {
            let Rehearsed { backup, height, state_root, facts, opened_bodies, opened_bytes, times, total_seconds } =
                &rehearsed;
            let mut lines = vec![("backup", backup.to_string()), ("height", height.to_string())];
            lines.push(("state root", state_root.clone()));
            lines.extend(facts_lines(facts));
            lines.push(("opened", format!("{opened_bodies} bodies, {opened_bytes} bytes")));
            lines.push((
                "time",
                format!(
                    "{total_seconds:.1} s: chain {:.1} s, bodies {:.1} s, opening {:.1} s",
                    times.chain_seconds, times.bodies_seconds, times.open_seconds
                ),
            ));
            lines.push(("verdict", "restorable; nothing was left behind".to_owned()));
            say(&lines);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Prune {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let pruned = Repository::open_to_prune(&self.place.repository)
            .and_then(|repository| repository.prune(usize::try_from(self.keep).unwrap_or(usize::MAX)));
        let (backups, bytes) = pruned.map_err(coded)?;
        if self.place.json {
            print_json(&json!({ "removed_backups": backups, "removed_bytes": bytes }))?;
        } else {
            say(&[("removed", format!("{backups} backups, {bytes} bytes"))]);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl RecoveryKey {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let custodian = SoftwareCustodian::generate(&self.out)?;
        print(&hex::encode(custodian.public_key()));
        Ok(ExitCode::SUCCESS)
    }
}

impl Restore {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; a damaged backup is an exit code.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let (config, _, genesis) = self.node.read()?;
        let target = Target { config: &config, network: genesis.network(), unseal: self.unseal.open()? };
        let runtime = runtime()?;
        let restored = Repository::open(&self.place.repository)
            .and_then(|repository| restore(&repository, self.which.backup, &target, &runtime));
        let restored = match restored {
            Ok(restored) => restored,
            Err(error) => return damaged(error, self.place.json),
        };
        let Restored { facts, tip, times, resealed } = &restored;
        let guards = guards(&config);
        if self.place.json {
            let missing: Vec<&str> = guards.iter().filter(|guard| !guard.kept).map(|guard| guard.name).collect();
            print_json(&json!({
                "height": tip.height.0,
                "header": tip.block.to_string(),
                "state_root": tip.state_root.to_hex(),
                "facts": facts,
                "times": times,
                "class_keys_resealed": resealed,
                "guards_missing": missing,
            }))?;
        } else {
            self.say(&config, &restored, &guards);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn say(&self, config: &Config, restored: &Restored, guards: &[Guard]) {
        let Restored { facts, tip, times, resealed } = restored;
        let mut lines = vec![
            ("directory", config.node.data_dir.display().to_string()),
            ("height", tip.height.to_string()),
            ("state root", tip.state_root.to_hex()),
        ];
        lines.extend(facts_lines(facts));
        let Times { chain_seconds, bodies_seconds, open_seconds } = times;
        lines.push((
            "time",
            format!("chain {chain_seconds:.1} s, bodies {bodies_seconds:.1} s, opening {open_seconds:.1} s"),
        ));
        if *resealed {
            let what = "sealed for this node's custody key; other nodes name it in payload.custody.keepers";
            lines.push(("class keys", what.to_owned()));
        }
        lines.extend(guards.iter().map(|guard| (guard.name, guard.advice(config))));
        let at = format!("the recovery point is height {}: what came later comes from the other nodes", tip.height);
        lines.push(("recovery", at));
        lines.push(("next", format!("steled run --config {}", self.node.config.display())));
        say(&lines);
    }
}

/// A file that knows what a key has signed.
struct Guard {
    name: &'static str,
    key: PathBuf,
    kept: bool,
}

fn guards(config: &Config) -> Vec<Guard> {
    let guard = |name, key: &Path, extension| {
        let kept = key.with_extension(extension).exists();
        Guard { name, key: key.to_owned(), kept }
    };
    // Those of keys that stele-signer holds are in its keeping, and no part of any restore.
    let votes = config.validator.as_ref().and_then(|section| section.long_term_key.as_deref());
    let votes = votes.map(|key| guard("vote guard", key, "votes"));
    let log = config.seal.key.as_deref().map(|key| guard("log guard", key, "checkpoints"));
    votes.into_iter().chain(log).collect()
}

impl Guard {
    fn advice(&self, config: &Config) -> String {
        let key = self.key.display();
        match (self.kept, self.name) {
            (true, "vote guard") => {
                "kept: the node does not vote again at heights that its chain has forgotten".to_owned()
            }
            (true, _) => "kept: the node signs no smaller log".to_owned(),
            (false, "vote guard") => format!(
                "MISSING: the node does not start. Make one two above the network's newest height: stele key guard \
                 --validator-key {key} --from-height HEIGHT"
            ),
            (false, _) => format!(
                "MISSING: the node does not start. Make one above the size of the log: stele key guard --seal-key {key} \
                 --from-size LEAVES --genesis {}",
                config.node.genesis.display()
            ),
        }
    }
}

/// What a manifest says, for programs.
fn view(manifest: &Manifest) -> Value {
    json!({
        "backup": manifest.number,
        "network": manifest.network,
        "node": manifest.node,
        "begun_ms": manifest.begun_ms,
        "finished_ms": manifest.finished_ms,
        "oldest": manifest.oldest,
        "height": manifest.height,
        "header": manifest.header,
        "time_ms": manifest.time_ms,
        "log_size": manifest.log.size,
        "log_root": manifest.log.root,
        "state_height": manifest.state.as_ref().map(|state| state.height),
        "state_root": manifest.state.as_ref().map(|state| &state.root),
        "bodies": manifest.bodies.count,
        "body_bytes": manifest.bodies.bytes,
        "class_keys": manifest.class_keys,
        "recovery_key": manifest.recovery_key,
        "files": manifest.files.len(),
        "bytes": manifest.bytes(),
    })
}

fn lines(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let Manifest { number, network, node, height, header, log, state, bodies, class_keys, .. } = manifest;
    let state = state.as_ref().map_or("none: it is made of the blocks".to_owned(), |state| {
        format!("height {}, root {}", state.height, state.root)
    });
    let recovery = if manifest.recovery_key.is_some() { ", also for the recovery key" } else { "" };
    vec![
        ("backup", format!("{number} of {node}, {}", utc(manifest.finished_ms))),
        ("network", network.clone()),
        ("height", format!("{height}, header {header}")),
        ("log", format!("{} leaves, root {}", log.size, log.root)),
        ("state", state),
        ("bodies", format!("{}, {} bytes, sealed", bodies.count, bodies.bytes)),
        ("class keys", format!("{class_keys}, sealed{recovery}")),
        ("files", format!("{}, {} bytes", manifest.files.len(), manifest.bytes())),
    ]
}

fn facts_lines(facts: &Facts) -> Vec<(&'static str, String)> {
    let Facts { blocks, statements, state_pairs, bodies, body_bytes, bodies_elsewhere, .. } = facts;
    let mut lines = vec![
        ("verified", format!("{blocks} blocks, {statements} statements, each header with its quorum")),
        ("", format!("{state_pairs} pairs of the state, {bodies} bodies of {body_bytes} bytes")),
    ];
    if *bodies_elsewhere > 0 {
        lines.push(("elsewhere", format!("{bodies_elsewhere} bodies that records name are on other nodes")));
    }
    lines
}

/// Says what is damaged; anything else failed.
fn damaged(error: BackupError, as_json: bool) -> anyhow::Result<ExitCode> {
    if !error.is_damage() {
        return Err(coded(error));
    }
    if as_json {
        print_json(&json!({ "verdict": "damaged", "code": error.code(), "reason": error.to_string() }))?;
    } else {
        say(&[("verdict", "damaged".to_owned()), ("what", format!("{}: {error}", error.code()))]);
    }
    Ok(ExitCode::from(EXIT_DAMAGED))
}

/// The stable code goes before the words.
fn coded(error: BackupError) -> anyhow::Error {
    let code = error.code().to_owned();
    anyhow::Error::new(error).context(code)
}

fn runtime() -> anyhow::Result<Arc<Runtime>> {
    Ok(Arc::new(Runtime::new()?))
}

/// A public key in hexadecimal, or in a file.
fn public_key(text: &str) -> Result<CustodyPublicKey, BackupError> {
    let key = |text: &str| hex::decode(text.trim()).ok()?.try_into().ok();
    let read = || key(&String::from_utf8(super::file::read_bounded(Path::new(text), 4096).ok()?).ok()?);
    let refused = || BackupError::keys("--recovery-key is neither 130 hexadecimal digits nor a file that has them");
    key(text).or_else(read).ok_or_else(refused)
}

/// A drill that somebody ends leaves nothing behind either.
fn remove_at_signal(runtime: &Runtime, scratch: &Path) {
    let scratch = scratch.to_owned();
    runtime.spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        let _ = std::fs::remove_dir_all(&scratch);
        std::process::exit(130);
    });
}

/// A time in UTC.
fn utc(milliseconds: u64) -> String {
    let days = i64::try_from(milliseconds / 86_400_000).unwrap_or_default();
    let seconds = milliseconds / 1000 % 86_400;
    // Civil date of a number of days (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted_month + 2) / 5 + 1, (shifted_month + 2) % 12 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn print_json(value: &Value) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Lines of a name and a value.
fn say(lines: &[(&str, String)]) {
    lines.iter().for_each(|(name, value)| print(&format!("{name:<13} {value}")));
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn print(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_733_552_000), "2026-11-26T22:52:32Z");
    }
}
