//! All three stores together, against a process that is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stele_merkle::Hash;
use stele_merkle::log::{Frontier, leaf_hash};

use super::Location;
use super::blocks::{BlockStore, BlockStoreOptions};
use super::index::{IndexOptions, StatementIndex};
use super::log::LogStore;

/// Names the directory to a child process of the test below.
const CHILD_DIRECTORY: &str = "STELE_STORE_TEST_DIRECTORY";

const BLOCKS: BlockStoreOptions =
    BlockStoreOptions { segment_bytes_max: 64 << 10, extend_bytes: 16 << 10, durable: true };
const INDEX: IndexOptions = IndexOptions { memtable_entries: 100, lag_statements_max: 200, fresh_runs_max: 4 };

/// Statements in the block of a height.
const STATEMENTS: u64 = 13;

fn leaves(height: u64) -> Vec<Hash> {
    (0..STATEMENTS).map(|position| leaf_hash(&(height * STATEMENTS + position).to_be_bytes())).collect()
}

fn locations(height: u64) -> Vec<Location> {
    (0..13).map(|position| Location::new(height, position).unwrap()).collect()
}

fn block(height: u64) -> Vec<u8> {
    leaves(height).concat()
}

/// Opens all three, feeds what the derived ones lack, checks all of it, and returns the tip.
fn recover(directory: &Path) -> (BlockStore, super::log::LogWriter, StatementIndex, u64) {
    let blocks = BlockStore::open(&directory.join("blocks"), BLOCKS).unwrap();
    let tip = blocks.tip().unwrap().unwrap_or(0);
    let mut frontier = Frontier::new();
    for height in 1..=tip {
        assert_eq!(blocks.read(height).unwrap().block(), block(height));
        frontier.append_many(&leaves(height));
    }
    let (log, mut writer) = LogStore::open(&directory.join("log"), tip * STATEMENTS, Some(&frontier.root())).unwrap();
    assert_eq!(log.size() % STATEMENTS, 0, "blocks enter the log whole");
    for height in log.size() / STATEMENTS + 1..=tip {
        writer.append(&leaves(height), &locations(height)).unwrap();
    }
    assert_eq!(writer.root(), frontier.root());
    log.verify().unwrap();
    let index = StatementIndex::open(&directory.join("index"), INDEX).unwrap();
    let complete = index.complete_through().unwrap_or(0);
    assert!(complete <= tip, "the index may lag, never lead");
    let assert_found = |heights: std::ops::RangeInclusive<u64>| {
        for height in heights {
            for (id, location) in leaves(height).iter().zip(locations(height)) {
                assert_eq!(index.lookup(id).unwrap(), Some(location));
            }
        }
    };
    assert_found(1..=complete);
    for height in complete + 1..=tip {
        index.put_block(height, &leaves(height)).unwrap();
    }
    assert_found(complete + 1..=tip);
    (blocks, writer, index, tip)
}

/// Appends until it is killed, and says after each block that it is durable.
fn append_for_ever(directory: &Path) {
    let (blocks, mut writer, index, tip) = recover(directory);
    for height in tip + 1.. {
        blocks.append(height, &[7; 32], &block(height), b"certificate").unwrap();
        println!("durable {height}");
        writer.append(&leaves(height), &locations(height)).unwrap();
        if height % 5 == 0 {
            writer.store().sync().unwrap();
        }
        index.put_block(height, &leaves(height)).unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_called_durable() {
    if let Some(directory) = std::env::var_os(CHILD_DIRECTORY) {
        append_for_ever(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let name = module_path!().split_once("::").map(|(_, path)| path).unwrap();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&format!("{name}::a_killed_process_loses_nothing_that_it_called_durable"), "--exact", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable = |line: String| line.strip_prefix("durable ").map(|height| height.parse::<u64>().unwrap());
        // Recovery comes first, then the appends: the kill hits another moment each round.
        let mut last = lines.by_ref().map_while(Result::ok).find_map(durable).expect("the child appends");
        std::thread::sleep(Duration::from_millis(60 + round * 31));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.map_while(Result::ok).filter_map(durable).last().unwrap_or(last);
        let (_, _, _, tip) = recover(directory.path());
        assert!(tip >= last, "block {last} was durable, the tip is {tip}");
    }
}
