//! A real process, killed with SIGKILL in the middle of its commits and snapshots.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use stele_state::{Layout, Options, StateHash, StateMap, TreeMap, Write};
use tempfile::TempDir;

const DIRECTORY: &str = "STELE_STATE_KILL_DIRECTORY";
const PAGED: &str = "STELE_STATE_KILL_PAGED";
const KILLS: u64 = 25;
/// Small, so that a snapshot is nearly always being written.
fn options(layout: Layout) -> Options {
    Options { snapshot_log_bytes: 20_000, layout, page_cache_bytes: 100_000, ..Options::new(StateHash::Sha256) }
}

fn batch(height: u64) -> Vec<Write> {
    let mut batch = BTreeMap::new();
    for offset in 0..40 {
        let key = StateHash::Sha256.value(&(height * 31 + offset * 17 % 2_000).to_be_bytes());
        batch.insert(key, (offset % 5 > 0).then(|| height.to_be_bytes().repeat(12)));
    }
    batch.into_iter().collect()
}

fn commit(map: &mut TreeMap, height: u64) {
    let staged = map.stage(&map.root(), batch(height)).unwrap();
    map.commit(staged, height).unwrap();
}

/// The process that gets killed. It commits for ever and says which heights are durable.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn commits_until_killed() {
    // Nothing to do when somebody runs the ignored tests.
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let layout = if std::env::var_os(PAGED).is_some() { Layout::Paged } else { Layout::Memory };
    let opened = TreeMap::open(&directory, options(layout)).unwrap();
    let mut map = opened.map;
    for height in opened.height.map_or(0, |height| height + 1).. {
        commit(&mut map, height);
        println!("durable {height}");
    }
}

#[test]
fn no_acknowledged_commit_is_lost_when_the_process_is_killed() {
    kill_in_turn(|_| Layout::Memory);
}

#[test]
fn no_acknowledged_commit_of_a_map_with_pages_is_lost_when_the_process_is_killed() {
    kill_in_turn(|_| Layout::Paged);
}

#[test]
fn no_acknowledged_commit_is_lost_when_the_process_is_killed_while_it_moves_into_pages_and_back() {
    kill_in_turn(|kill| if kill / 2 % 2 == 0 { Layout::Memory } else { Layout::Paged });
}

fn kill_in_turn(layout: impl Fn(u64) -> Layout) {
    let directory = TempDir::new().unwrap();
    let mut model = TreeMap::ephemeral(StateHash::Sha256);
    let mut next = 0;
    let mut snapshots = std::collections::BTreeSet::new();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        if layout(kill) == Layout::Paged {
            child.env(PAGED, "1");
        }
        let mut child = child
            .args(["--exact", "commits_until_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let heights = lines.filter_map(|line| line.rsplit_once("durable ")?.1.parse::<u64>().ok());
        let mut acknowledged = None;
        for (count, height) in (1..).zip(heights) {
            acknowledged = Some(height);
            if count == 3 + kill * 7 % 40 {
                child.kill().unwrap();
                // Lines that were already in the pipe are acknowledged too.
            }
        }
        child.wait().unwrap();
        let acknowledged = acknowledged.unwrap();
        let opened = TreeMap::open(directory.path(), options(layout(kill))).unwrap();
        let height = opened.height.unwrap();
        assert!(height >= acknowledged, "height {acknowledged} was durable, {height} came back");
        assert!(opened.recovery.snapshots_refused.is_empty());
        snapshots.extend(opened.recovery.snapshot_height);
        for height in next..=height {
            commit(&mut model, height);
        }
        next = height + 1;
        assert_eq!(opened.root, model.root());
        assert!(opened.map.iter().map(Result::unwrap).eq(model.iter().map(Result::unwrap)));
    }
    assert!(snapshots.len() > 3, "kills hit running snapshots: {snapshots:?}");
}
