//! Drives that fail as real ones do: files that `qemu-storage-daemon` exports through FUSE, with sectors that cannot be read,
//! flushes that fail once, and a log of every write, from which each state is made that a power cut could leave.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stele_device::{Backend, BlockDevice, Disk};
use stele_storage::{DriveState, Group, Layout, Options, StorageError, Store};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// A file as the daemon shows it.
struct Export {
    daemon: Child,
    path: PathBuf,
}

impl Export {
    /// Exports the block node `top`, which one of `nodes` describes; none, with the reason printed, where there is no daemon.
    fn new(path: PathBuf, top: &str, nodes: &[String]) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            // No package brings it.
            println!("skipped: this kernel has no FUSE");
            return None;
        }
        File::create(&path).unwrap();
        let mut command = Command::new("qemu-storage-daemon");
        for node in nodes {
            command.args(["--blockdev", node]);
        }
        command
            .arg("--export")
            .arg(format!("type=fuse,id=export,node-name={top},mountpoint={},writable=on", path.display()))
            .stdin(Stdio::null());
        let mut daemon = match command.spawn() {
            Ok(daemon) => daemon,
            Err(error) => {
                let what = "qemu-storage-daemon (Debian's qemu-utils)";
                assert!(std::env::var_os("CI").is_none(), "{what} is not there: {error}");
                println!("skipped: {what} is not there: {error}");
                return None;
            }
        };
        let begun = Instant::now();
        while std::fs::metadata(&path).unwrap().len() == 0 {
            assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
            assert!(begun.elapsed() < Duration::from_secs(10), "the daemon exports nothing");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { daemon, path })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // What it was mounted on stays mounted after a kill.
        let _ = Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status();
    }
}

fn file_node(name: &str, path: &Path) -> String {
    format!("driver=file,node-name={name},filename={}", path.display())
}

fn content(number: u64, length: usize) -> Bytes {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().into_iter().cycle().take(length).collect()
}

/// A store of `data` + `parity` columns on as many files of 24 MiB.
fn format(directory: &Path, data: usize, parity: usize) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = (0..data + parity).map(|drive| directory.join(format!("drive-{drive}"))).collect();
    let create = |path: &PathBuf| Disk::create(path, 24 * MIB / 4096, &stele_device::Options::default()).unwrap();
    let disks: Vec<Disk> = paths.iter().map(create).collect();
    let devices: Vec<&dyn BlockDevice> = disks.iter().map(|disk| disk as _).collect();
    Store::format(&devices, &Layout { data, parity, slot_bytes: 2 * MIB, ..Layout::default() }).unwrap();
    paths
}

fn open(paths: &[PathBuf], directory: &Path) -> Store {
    Store::open(paths, &directory.join("index"), &Options::default()).unwrap()
}

async fn put(store: &Store, numbers: std::ops::Range<u64>) -> Vec<(u64, [u8; 32])> {
    let put = |number| async move {
        let stored = store.put(Group::default(), 1, content(number, 65_536)).await.unwrap();
        (number, stored.root)
    };
    futures::future::join_all(numbers.map(put)).await
}

async fn check(store: &Store, stored: &[(u64, [u8; 32])]) {
    for (number, root) in stored {
        assert_eq!(store.get(root, 1 << 20).await.unwrap(), content(*number, 65_536));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sectors_that_cannot_be_read_are_made_from_the_other_drives() {
    let directory = tempfile::tempdir().unwrap();
    let mut paths = format(directory.path(), 4, 2);
    let stored = {
        let store = open(&paths, directory.path());
        let stored = put(&store, 0..200).await;
        store.close().await.unwrap();
        stored
    };
    // On two drives, sectors that are gone amid what was written.
    let mut exports = Vec::new();
    for drive in [1, 4] {
        let rules: String = (0..12)
            .map(|at| {
                let (rule, sector) = (format!("inject-error.{at}"), (MIB + (1 + at) * 100 * 1024) / SECTOR);
                format!(",{rule}.event=none,{rule}.iotype=read,{rule}.errno=5,{rule}.sector={sector}")
            })
            .collect();
        let nodes = [file_node("file", &paths[drive]), format!("driver=blkdebug,node-name=faulty,image=file{rules}")];
        let Some(export) = Export::new(directory.path().join(format!("export-{drive}")), "faulty", &nodes) else {
            return;
        };
        paths[drive].clone_from(&export.path);
        exports.push(export);
    }
    let mut byte = [0; 1];
    let refused = File::open(&exports[0].path).unwrap().read_at(&mut byte, MIB + 100 * 1024);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(5), "the fault is there");

    let store = open(&paths, directory.path());
    check(&store, &stored).await;
    let status = store.status().await.unwrap();
    assert!(status.counters.reconstructed > 0, "{status:?}");
    // Nothing is lost by them, and no drive is given up for a sector.
    assert_eq!(store.scrub(3).await.unwrap().lost, 0);
    let status = store.status().await.unwrap();
    assert!(status.drives.iter().all(|drive| drive.state == DriveState::Sound), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_fails_costs_the_drive_and_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut paths = format(directory.path(), 4, 2);
    let plain = paths.clone();
    // The first is spent when the file is closed after a look at it: closing flushes, too, and nobody hears of that.
    let rules: String = (0..2)
        .map(|rule| {
            let rule = format!("inject-error.{rule}");
            format!(",{rule}.event=none,{rule}.iotype=flush,{rule}.errno=5,{rule}.once=on")
        })
        .collect();
    let nodes = [file_node("file", &paths[3]), format!("driver=blkdebug,node-name=faulty,image=file{rules}")];
    let Some(export) = Export::new(directory.path().join("export"), "faulty", &nodes) else { return };
    // FUSE forgets that a write is to be durable if it comes through io_uring, and the flush with it.
    let uring = stele_device::Options { backend: Some(Backend::Uring), ..Default::default() };
    assert_eq!(Disk::open(&plain[3], &uring).unwrap().access().backend, Backend::Uring);
    assert_eq!(Disk::open(&export.path, &uring).unwrap_err().code(), "device_unsuitable");
    paths[3].clone_from(&export.path);
    let store = open(&paths, directory.path());
    let stored = put(&store, 0..200).await;
    let status = store.status().await.unwrap();
    assert_eq!(status.drives[3].state, DriveState::Failed, "{status:?}");
    check(&store, &stored).await;
    drop(store);
    drop(export);
    // The drive works again, and what it holds is not what it promised: it stays out.
    let store = open(&plain, directory.path());
    assert_eq!(store.status().await.unwrap().drives[3].state, DriveState::Failed);
    check(&store, &stored).await;
}

/// An entry of a log of writes, as Linux's device mapper target of that name and the daemon keep it
/// (Documentation/admin-guide/device-mapper/log-writes.rst).
struct Logged {
    sector: u64,
    flush: bool,
    /// Where in the log its bytes are.
    at: u64,
    bytes: u64,
}

const LOG_MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH_FLAG: u64 = 1;
const DISCARD_FLAG: u64 = 4;

/// The entries that are in the log by now.
fn read_log(log: &Path) -> Vec<Logged> {
    let file = File::open(log).unwrap();
    let word = |at: u64| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at).map(|()| u64::from_le_bytes(word)).unwrap_or(0)
    };
    let mut sector_size = [0; 4];
    file.read_exact_at(&mut sector_size, 24).unwrap();
    let sector_size = u64::from(u32::from_le_bytes(sector_size)).max(SECTOR);
    let length = file.metadata().unwrap().len();
    let (mut entries, mut at) = (Vec::new(), sector_size);
    while at + 32 <= length {
        let (sector, sectors, flags) = (word(at), word(at + 8), word(at + 16));
        let has_data = flags & DISCARD_FLAG == 0;
        if (sector, sectors, flags) == (0, 0, 0) {
            break;
        }
        let bytes = if has_data { sectors * sector_size } else { 0 };
        entries.push(Logged {
            sector: sector * sector_size,
            flush: flags & FLUSH_FLAG != 0,
            at: at + sector_size,
            bytes,
        });
        at += sector_size + bytes;
    }
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_that_a_power_cut_can_leave_has_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let paths = format(directory.path(), 1, 0);
    let before = std::fs::read(&paths[0]).unwrap();
    let log = directory.path().join("log");
    File::create(&log).unwrap().set_len(64 * MIB).unwrap();
    let nodes = [
        file_node("file", &paths[0]),
        file_node("record", &log),
        "driver=blklogwrites,node-name=logged,file=file,log=record,log-sector-size=512,log-super-update-interval=1"
            .to_owned(),
    ];
    let Some(export) = Export::new(directory.path().join("export"), "logged", &nodes) else { return };

    // Puts and removals, a few at a time, and after each the length of the log by then.
    let mut acknowledged: Vec<(usize, u64, [u8; 32], bool)> = Vec::new();
    let mut asked = BTreeSet::new();
    {
        let store = open(std::slice::from_ref(&export.path), directory.path());
        for round in 0..10_u64 {
            let numbers = round * 4..round * 4 + 4;
            asked.extend(numbers.clone());
            for (number, root) in put(&store, numbers).await {
                acknowledged.push((read_log(&log).len(), number, root, true));
            }
            let (_, number, root, _) = acknowledged[usize::try_from(round).unwrap() * 3];
            if store.remove(&root, 2).await.unwrap() {
                acknowledged.push((read_log(&log).len(), number, root, false));
            }
        }
    }
    drop(export);
    let entries = read_log(&log);
    let mut bytes = Vec::new();
    File::open(&log).unwrap().read_to_end(&mut bytes).unwrap();
    let mut magic = [0; 8];
    magic.copy_from_slice(&bytes[..8]);
    assert_eq!(u64::from_le_bytes(magic), LOG_MAGIC);
    assert!(entries.len() > 20 && entries.iter().any(|entry| entry.flush), "{} entries", entries.len());

    // For each flush: everything before it is on the disk, and of what came after it until the next one, some.
    let state_path = directory.path().join("state");
    let mut states = 0;
    let mut settled = 0;
    for flush in (0..entries.len()).filter(|at| entries[*at].flush) {
        let next = (flush + 1..entries.len()).find(|at| entries[*at].flush).unwrap_or(entries.len());
        let loose: Vec<usize> = (flush + 1..next).filter(|at| entries[*at].bytes > 0).collect();
        for variant in 0..3 {
            let mut state = before.clone();
            let mut apply = |entry: &Logged, whole: bool| {
                let [from, at] = [entry.sector, entry.at].map(|at| usize::try_from(at).unwrap());
                let length = usize::try_from(entry.bytes).unwrap() / if whole { 1 } else { 2 };
                // Torn at a block.
                let length = if whole { length } else { length / 4096 * 4096 };
                state[from..from + length].copy_from_slice(&bytes[at..at + length]);
            };
            entries[..=flush].iter().for_each(|entry| apply(entry, true));
            match variant {
                0 => {}
                1 => loose.iter().for_each(|at| apply(&entries[*at], false)),
                // The later ones without the earlier.
                _ => loose.iter().skip(1).for_each(|at| apply(&entries[*at], true)),
            }
            std::fs::write(&state_path, &state).unwrap();
            let index = tempfile::tempdir().unwrap();
            let store = open(std::slice::from_ref(&state_path), index.path());
            states += 1;
            for number in &asked {
                let known: Vec<bool> = acknowledged
                    .iter()
                    .filter(|(at, other, ..)| other == number && *at <= flush + 1)
                    .map(|(.., there)| *there)
                    .collect();
                let ever: Vec<bool> =
                    acknowledged.iter().filter(|(_, other, ..)| other == number).map(|(.., there)| *there).collect();
                let bytes = content(*number, 65_536);
                let found = store.get(&stele_storage::content_root(store.hash(), &bytes), 1 << 20).await;
                match found {
                    Ok(found) => {
                        assert_eq!(found, bytes);
                        assert_ne!(known, [true, false], "object {number} was removed and is back, flush {flush}");
                    }
                    Err(StorageError::NotFound) => {
                        let there = known == [true] && ever == [true];
                        assert!(
                            !there,
                            "object {number} was acknowledged and is lost, flush {flush}, variant {variant}"
                        );
                    }
                    Err(error) => panic!("{error}"),
                }
                settled += known.len();
            }
        }
    }
    println!("{} writes and flushes, {states} states, {settled} acknowledgements checked", entries.len());
}
