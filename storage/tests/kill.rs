//! A real process, killed with SIGKILL while it puts, removes and collects.
//!
//! `STELE_SLOW=1` kills it a thousand times.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stele_device::{BlockDevice, Disk};
use stele_storage::{Group, Layout, Options, Store};

const DIRECTORY: &str = "STELE_STORAGE_KILL_DIRECTORY";
const SEED: &str = "STELE_STORAGE_KILL_SEED";
const DRIVES: usize = 6;
const GROUPS: u64 = 3;
/// Numbers of objects that one process may use.
const NUMBERS: u64 = 1_000_000;

/// How long a process may take to open the store, on a machine that does much else.
const BEGIN_MAX: Duration = Duration::from_secs(120);

fn paths(directory: &std::path::Path) -> Vec<PathBuf> {
    (0..DRIVES).map(|drive| directory.join(format!("drive-{drive}"))).collect()
}

fn open(directory: &std::path::Path) -> Store {
    let index = stele_storage::index::Options { memtable_entries: 50, ..Default::default() };
    Store::open(&paths(directory), &directory.join("index"), &Options { index, ..Options::default() }).unwrap()
}

/// An object that follows from its number.
fn content(number: u64) -> Bytes {
    let some = usize::try_from(number % 1_000_003).unwrap();
    let length = match number % 8 {
        0 => some % 50,
        1..=5 => 20_000 + some * 7_919 % 60_000,
        6 => 500_000,
        _ => 1_200_000,
    };
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().into_iter().cycle().take(length + 9).collect()
}

/// The process that gets killed. It says what it was acknowledged, line by line.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn puts_until_killed() {
    // Nothing to do when somebody runs the ignored tests.
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let first: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let store = open(&directory);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let said = std::sync::Mutex::new(std::io::stdout());
    let say = |what: String| {
        let mut said = said.lock().unwrap();
        writeln!(said, "{what}").unwrap();
        said.flush().unwrap();
    };
    let worker = |worker: u64| {
        let (store, say) = (&store, &say);
        async move {
            for step in 0.. {
                let number = first + step * 8 + worker;
                let bytes = content(number);
                say(format!("put {number}"));
                let group = Group { class: u8::try_from(number % GROUPS).unwrap(), year: 0 };
                match store.put(group, 1, bytes).await {
                    Ok(stored) => say(format!("stored {number} {}", hex(&stored.root))),
                    Err(error) if error.code() == "storage_full" => {
                        store.collect(70, 2).await.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
                // Nearly everything goes again, so that the store does not stay full.
                if let Some(old) = step.checked_sub(3).filter(|old| old % 16 != 0) {
                    let old = first + old * 8 + worker;
                    let root = stele_storage::content_root(store.hash(), &content(old));
                    say(format!("remove {old}"));
                    match store.remove(&root, 2).await {
                        Ok(true) => say(format!("removed {old}")),
                        Ok(false) => {}
                        Err(error) if error.code() == "storage_full" => {
                            store.collect(70, 2).await.unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    };
    runtime.block_on(futures::future::join_all((0..8).map(worker)));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Asked,
    Stored,
    RemoveAsked,
    Removed,
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let kills = if std::env::var_os("STELE_SLOW").is_some() { 1_000 } else { 12 };
    let directory = tempfile::tempdir().unwrap();
    {
        let disk = |path: PathBuf| Disk::create(&path, 64 * 256, &stele_device::Options::default()).unwrap();
        let disks: Vec<Disk> = paths(directory.path()).into_iter().map(disk).collect();
        let devices: Vec<&dyn BlockDevice> = disks.iter().map(|disk| disk as _).collect();
        let layout = Layout { data: 4, parity: 2, slot_bytes: 3 << 20, ..Layout::default() };
        Store::format(&devices, &layout).unwrap();
    }
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let (mut stored, mut removed) = (0, 0);
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "puts_until_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(SEED, (kill * NUMBERS).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (puts, has_put) = mpsc::channel();
        let note = move |line: &String| {
            if line.starts_with("put ") {
                // Nobody listens after the first.
                let _ = puts.send(());
            }
        };
        let reader = std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).inspect(note).collect::<Vec<_>>()
        });
        // It is killed after a time, whatever it is doing. That begins when it has begun to do something, or else it would do
        // nothing on a busy machine; but for one in four, which may still open the store.
        if kill % 4 != 3 {
            has_put.recv_timeout(BEGIN_MAX).expect("the process puts something in time");
        }
        drop(has_put);
        let begun = Instant::now();
        let life = Duration::from_millis(150 + kill * 37 % 400);
        while begun.elapsed() < life {
            std::thread::sleep(Duration::from_millis(5));
            assert!(child.try_wait().unwrap().is_none(), "the process ended by itself");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let mut words = line.split(' ');
            let (Some(what), Some(Ok(number))) = (words.next(), words.next().map(str::parse::<u64>)) else { continue };
            match what {
                "put" => drop(known.insert(number, Known::Asked)),
                "stored" => {
                    stored += 1;
                    known.insert(number, Known::Stored);
                }
                "remove" => drop(known.insert(number, Known::RemoveAsked)),
                "removed" => {
                    removed += 1;
                    known.insert(number, Known::Removed);
                }
                _ => {}
            }
        }
        check(directory.path(), &mut known, kill);
    }
    println!("{kills} kills, {stored} objects stored, {removed} removed, {} there", known.len());
    assert!(stored > usize::try_from(kills).unwrap(), "{stored} objects are too few to tell");
}

fn check(directory: &std::path::Path, known: &mut BTreeMap<u64, Known>, kill: u64) {
    let store = open(directory);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    known.retain(|number, state| {
        let bytes = content(*number);
        let root = stele_storage::content_root(store.hash(), &bytes);
        let found = runtime.block_on(store.get(&root, 1 << 24));
        match (&found, *state) {
            (Ok(read), Known::Stored | Known::Asked | Known::RemoveAsked) => {
                assert_eq!(*read, bytes, "object {number}");
                *state = Known::Stored;
                true
            }
            (Err(error), Known::Asked | Known::RemoveAsked | Known::Removed) => {
                assert_eq!(error.code(), "storage_not_found", "object {number} is {state:?}");
                false
            }
            _ => panic!("object {number} is {state:?}: {found:?}"),
        }
    });
    assert_eq!(runtime.block_on(store.scrub(3)).unwrap().lost, 0);
    // What killed processes left is nobody's to remove any more, and would fill the store: most of it goes now, some stays for
    // the next twenty.
    known.retain(|number, _| {
        let before = number / NUMBERS;
        let stays = before == kill || (number % 16 == 0 && kill - before < 20);
        if !stays {
            let root = stele_storage::content_root(store.hash(), &content(*number));
            let mut removed = runtime.block_on(store.remove(&root, 3));
            for live_percent in [70, 80, 90, 95, 95, 95] {
                if removed.as_ref().is_ok_and(|removed| *removed) {
                    break;
                }
                runtime.block_on(store.collect(live_percent, 8)).unwrap();
                removed = runtime.block_on(store.remove(&root, 3));
            }
            let status = || runtime.block_on(store.status());
            assert!(matches!(removed, Ok(true)), "object {number} after kill {kill}: {removed:?}, {:?}", status());
        }
        stays
    });
    runtime.block_on(store.collect(70, 3)).unwrap();
    assert!(runtime.block_on(store.status()).unwrap().read_only.is_none());
}
