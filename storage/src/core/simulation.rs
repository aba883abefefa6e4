//! The core on drives that lose power, tear what they were writing, rot, forget and fail: everything follows from a seed, so
//! that what fails once fails again.

mod attacks;
mod cold;
mod uploads;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stele_accel_hash::HashAlgorithm;
use stele_device::{Access, Backend, BlockDevice, Completed, Completion, DeviceError, Geometry, Operation, Request};
use tokio::sync::oneshot;

use self::cold::Objects;
use super::{CollectReport, Command, Core, NewDrive, Pools, Put, ScrubReport, Shape, Uploads, format, identify};
use crate::format::{BLOCK_BYTES, CELL_BLOCKS_MAX, Kind, MARGIN_BYTES, checksum};
use crate::index::{Index, Options};
use crate::location::Location;
use crate::{DriveState, Group, StorageError};

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// A drive's medium. Requests take effect when the simulation lets them.
struct Medium {
    bytes: RefCell<Vec<u8>>,
    failed: std::cell::Cell<bool>,
    /// A byte that cannot be read, for a while.
    unreadable: std::cell::Cell<Option<usize>>,
}

impl Medium {
    fn new(bytes: usize) -> Self {
        Self {
            bytes: RefCell::new(vec![0xa5; bytes]),
            failed: std::cell::Cell::new(false),
            unreadable: Default::default(),
        }
    }

    /// Carries a request out, whole.
    fn carry_out(&self, mut request: Request) -> Completed {
        if self.failed.get() {
            return request.answer(Err(DeviceError::Poisoned));
        }
        let (operation, from) = (request.operation(), usize::try_from(request.offset()).unwrap());
        let mut medium = self.bytes.borrow_mut();
        match (operation, request.buffer()) {
            (Operation::Read, Some(buffer)) => {
                let length = buffer.len();
                if self.unreadable.get().is_some_and(|byte| (from..from + length).contains(&byte)) {
                    return request.answer(Err(DeviceError::Poisoned));
                }
                buffer.copy_from_slice(&medium[from..from + length]);
            }
            (Operation::Write | Operation::WriteDurable, Some(buffer)) => {
                medium[from..from + buffer.len()].copy_from_slice(buffer);
            }
            _ => {}
        }
        request.answer(Ok(()))
    }

    /// The power fails while a request is under way: of a write, any blocks may be on the medium.
    fn tear(&self, mut request: Request, random: &mut Random) {
        let (operation, from) = (request.operation(), usize::try_from(request.offset()).unwrap());
        if operation == Operation::Read || self.failed.get() {
            return;
        }
        let share = random.below(5);
        let Some(buffer) = request.buffer() else { return };
        let mut medium = self.bytes.borrow_mut();
        for (block, bytes) in buffer.chunks(BLOCK_BYTES).enumerate() {
            if random.below(4) < share {
                medium[from + block * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(bytes);
            }
        }
    }
}

/// A medium as a device that answers at once: for formatting and finding stores.
struct Plain<'m> {
    medium: &'m Medium,
    access: Access,
}

// The simulation has one thread.
struct Alone<T>(T);
#[allow(unsafe_code, reason = "the trait wants it, and the simulation has one thread")]
// SAFETY: it never leaves the thread.
unsafe impl<T> Send for Alone<T> {}
#[allow(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl<T> Sync for Alone<T> {}

impl BlockDevice for Alone<Plain<'_>> {
    fn geometry(&self) -> Geometry {
        let blocks = self.0.medium.bytes.borrow().len() / BLOCK_BYTES;
        Geometry { block_bytes: 4096, blocks: blocks as u64 }
    }
    fn access(&self) -> &Access {
        &self.0.access
    }
    fn submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        for request in requests.drain(..) {
            completion.complete(self.0.medium.carry_out(request));
        }
        completion.settle();
    }
    fn try_submit(&self, requests: &mut VecDeque<Request>, completion: &Arc<dyn Completion>) {
        self.submit(requests, completion);
    }
    fn grow(&self, _blocks: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn plain(media: &[Medium]) -> Vec<Alone<Plain<'_>>> {
    let access = Access { backend: Backend::Threads, direct: true, registered: false, fallbacks: Vec::new() };
    media.iter().map(|medium| Alone(Plain { medium, access: access.clone() })).collect()
}

/// What the world knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Was asked for and not answered.
    PutAsked,
    /// Was acknowledged.
    Put,
    RemoveAsked,
    Removed,
}

type Waiting<T> = oneshot::Receiver<Result<T, StorageError>>;

struct World {
    random: Random,
    media: Vec<Medium>,
    directory: tempfile::TempDir,
    shape: Shape,
    core: Core,
    index: Arc<Index>,
    /// Requests under way, in any order.
    pending: Vec<(usize, Request)>,
    /// Records by number, with their lengths.
    records: BTreeMap<u64, (usize, Known)>,
    puts: Vec<(u64, Waiting<()>)>,
    removes: Vec<(u64, Waiting<bool>)>,
    reads: Vec<(u64, Location, Waiting<Bytes>)>,
    collects: Vec<Waiting<CollectReport>>,
    replaces: Vec<Waiting<ScrubReport>>,
    drops: Vec<Waiting<()>>,
    objects: Objects,
    next: u64,
    /// Drives that may not be damaged any further, because so many are already.
    damaged: Vec<usize>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    operations: u64,
    crashes: u64,
    acknowledged: u64,
    read: u64,
    rot: u64,
    scrubs: u64,
    repaired: u64,
    full: u64,
    collected: u64,
    moved: u64,
    replaced: u64,
    copied: u64,
    dropped: u64,
    read_cold: u64,
    recalled: u64,
    cleared: u64,
}

fn key(number: u64) -> [u8; 32] {
    let mut random = Random(number.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let mut key = [0; 32];
    key.chunks_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_le_bytes()));
    key
}

fn content(number: u64, bytes: usize) -> Bytes {
    let mut random = Random(!number);
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        content.extend(random.next().to_le_bytes());
    }
    content.truncate(bytes);
    content.into()
}

fn open(shape: &Shape, media: &[Medium], directory: &Path) -> (Core, Arc<Index>, Vec<(usize, Request)>) {
    let devices = plain(media);
    let devices: Vec<&dyn BlockDevice> = devices.iter().map(|device| device as _).collect();
    let found = identify(&devices).unwrap();
    let options = Options { memtable_entries: 64, shards: 1, fanout: 2 };
    let index = Arc::new(Index::open(directory, options).unwrap());
    let bytes = devices.iter().map(|device| device.geometry().bytes()).collect();
    let pools = Pools::new(shape).unwrap();
    let (core, opening) = Core::open(&found, bytes, Arc::clone(&index), pools, Uploads::default()).unwrap();
    let mut pending = Vec::new();
    while opening.borrow().is_none() {
        core.settle();
        pending.extend(std::iter::from_fn(|| core.next()).map(|outgoing| (outgoing.drive, outgoing.request)));
        for (drive, request) in pending.drain(..) {
            core.completed(media[drive].carry_out(request));
        }
    }
    opening.borrow_mut().take().unwrap().unwrap();
    (core, index, pending)
}

impl World {
    fn new(seed: u64, data: usize, parity: usize, drives: usize, slots: usize) -> Self {
        let slot_blocks = u32::try_from(2 * CELL_BLOCKS_MAX).unwrap();
        let shape = Shape { store: [7; 16], data, parity, hash: HashAlgorithm::Sha256, slot_blocks };
        let bytes = 2 * usize::try_from(MARGIN_BYTES).unwrap() + slots * slot_blocks as usize * BLOCK_BYTES;
        let media: Vec<Medium> = (0..drives).map(|_| Medium::new(bytes)).collect();
        {
            let devices = plain(&media);
            let devices: Vec<&dyn BlockDevice> = devices.iter().map(|device| device as _).collect();
            let ids: Vec<[u8; 16]> = (0..drives).map(|drive| [u8::try_from(drive).unwrap(); 16]).collect();
            format(&devices, &shape, &ids, 0).unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let (core, index, pending) = open(&shape, &media, directory.path());
        Self {
            random: Random(seed),
            media,
            directory,
            shape,
            core,
            index,
            pending,
            records: BTreeMap::new(),
            puts: Vec::new(),
            removes: Vec::new(),
            reads: Vec::new(),
            collects: Vec::new(),
            replaces: Vec::new(),
            drops: Vec::new(),
            objects: Objects::default(),
            next: 0,
            damaged: Vec::new(),
            figures: Figures::default(),
        }
    }

    /// Does one thing.
    fn step(&mut self) {
        self.figures.operations += 1;
        match self.random.below(100) {
            0..=29 => self.put(),
            30..=34 => self.remove(),
            35..=49 => self.read(),
            50..=94 => self.complete_some(),
            95..=96 => self.carry(),
            97 if self.random.chance(4) => self.rot(),
            98 if self.random.chance(4) => self.flush(),
            99 if self.random.chance(8) => self.crash(),
            99 if self.random.chance(8) => drop(self.scrub()),
            98 if self.random.chance(2) => self.collect_dead(),
            97 if self.random.chance(4) => self.replace(),
            98 if self.random.chance(24) => self.lose_index_now(),
            97 if self.random.chance(2) => self.hurry(),
            _ => {}
        }
        self.hear();
    }

    fn put(&mut self) {
        let bytes = match self.random.below(10) {
            0 => 0,
            1..=4 => self.random.below(4_096),
            5..=8 => 65_536,
            _ => self.random.below((1 << 20) + 1),
        };
        let number = self.next;
        self.next += 1;
        self.records.insert(number, (bytes, Known::PutAsked));
        let class = u8::try_from(self.random.below(2)).unwrap();
        let urgent = !self.random.chance(4);
        let answer = self.ask_record(number, bytes, class, urgent);
        self.puts.push((number, answer));
    }

    fn ask_put(&mut self, number: u64, bytes: usize, class: u8) -> Waiting<()> {
        self.ask_record(number, bytes, class, true)
    }

    fn ask_record(&mut self, number: u64, bytes: usize, class: u8, urgent: bool) -> Waiting<()> {
        let bytes = content(number, bytes);
        let (reply, answer) = oneshot::channel();
        let (sum, group) = (checksum(&bytes), Group { class, year: 0 });
        let put = Put {
            group,
            key: key(number),
            kind: Kind::Whole,
            bytes,
            sum,
            time_ms: 1,
            ends: 0,
            moved: false,
            urgent,
            permit: None,
            reply,
        };
        self.core.command(Command::Put(put));
        self.core.settle();
        self.collect();
        answer
    }

    fn hurry(&mut self) {
        self.core.command(Command::Hurry);
        self.core.settle();
    }

    /// A record that is known to be there.
    fn any(&mut self) -> Option<u64> {
        let there: Vec<u64> =
            self.records.iter().filter(|(_, (_, known))| *known == Known::Put).map(|(number, _)| *number).collect();
        (!there.is_empty()).then(|| there[self.random.below(there.len())])
    }

    fn remove(&mut self) {
        let Some(number) = self.any() else { return };
        self.records.get_mut(&number).unwrap().1 = Known::RemoveAsked;
        let (reply, answer) = oneshot::channel();
        self.core.command(Command::Remove { key: key(number), time_ms: 2, reply });
        self.removes.push((number, answer));
        self.core.settle();
    }

    fn read(&mut self) {
        let Some(number) = self.any() else { return };
        let location = self.location(number).unwrap_or_else(|| panic!("record {number} was acknowledged and is lost"));
        self.read_at(number, location);
    }

    fn read_at(&mut self, number: u64, location: Location) {
        let (reply, answer) = oneshot::channel();
        self.core.command(Command::Read { location, reply });
        self.reads.push((number, location, answer));
        self.core.settle();
    }

    fn location(&self, number: u64) -> Option<Location> {
        self.index.get(&key(number)).unwrap().and_then(|location| Location::decode(&location))
    }

    fn collect(&mut self) {
        let core = &self.core;
        self.pending.extend(std::iter::from_fn(|| core.next()).map(|outgoing| (outgoing.drive, outgoing.request)));
    }

    fn complete_some(&mut self) {
        for _ in 0..=self.random.below(8) {
            self.collect();
            if self.pending.is_empty() {
                break;
            }
            let at = self.random.below(self.pending.len());
            let (drive, request) = self.pending.swap_remove(at);
            let completed = self.media[drive].carry_out(request);
            self.core.completed(completed);
            self.core.settle();
        }
    }

    /// Takes the answers that have come.
    fn hear(&mut self) {
        let mut puts = std::mem::take(&mut self.puts);
        puts.retain_mut(|(number, answer)| match answer.try_recv() {
            Ok(Ok(())) => {
                self.records.get_mut(number).unwrap().1 = Known::Put;
                self.figures.acknowledged += 1;
                assert!(self.location(*number).is_some(), "record {number} was acknowledged and is not in the index");
                false
            }
            Ok(Err(StorageError::Full { .. })) => {
                self.records.remove(number);
                self.figures.full += 1;
                false
            }
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => true,
        });
        self.puts = puts;
        let mut removes = std::mem::take(&mut self.removes);
        removes.retain_mut(|(number, answer)| match answer.try_recv() {
            Ok(Ok(was_there)) => {
                assert!(was_there, "record {number} was there when it was removed");
                self.records.get_mut(number).unwrap().1 = Known::Removed;
                false
            }
            Ok(Err(StorageError::Full { .. })) => {
                self.records.get_mut(number).unwrap().1 = Known::Put;
                false
            }
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => true,
        });
        self.removes = removes;
        let mut reads = std::mem::take(&mut self.reads);
        let mut moved = Vec::new();
        reads.retain_mut(|(number, location, answer)| match answer.try_recv() {
            Ok(Ok(piece)) => {
                assert!(piece[..] == content(*number, piece.len())[..], "record {number} is another one");
                assert_eq!(self.records[number].0, piece.len());
                self.figures.read += 1;
                false
            }
            Ok(Err(error)) => {
                moved.push((*number, *location, error));
                false
            }
            Err(_) => true,
        });
        self.reads = reads;
        for (number, from, error) in moved {
            // Collecting may have moved it meanwhile, and it may have been removed.
            let Some(location) = self.location(number) else {
                if self.core.has_unread() {
                    continue;
                }
                assert_ne!(self.records[&number].1, Known::Put, "record {number} at {from:?}: {error}");
                continue;
            };
            if location == from {
                // Its segment is in the cold tier alone; or it was ended, and is there no more.
                let read = self.read_cold(number, location);
                assert!(read.is_ok(), "record {number}: {error}, and {read:?}");
                continue;
            }
            self.read_at(number, location);
        }
        self.collects.retain_mut(|answer| match answer.try_recv() {
            Ok(report) => {
                let report = report.unwrap();
                self.figures.collected += report.segments;
                self.figures.moved += report.moved;
                false
            }
            Err(_) => true,
        });
        self.hear_drops();
        self.replaces.retain_mut(|answer| match answer.try_recv() {
            Ok(report) => {
                assert_eq!(report.unwrap().lost, 0);
                false
            }
            Err(_) => true,
        });
    }

    /// Spoils a part of a drive, of as many drives as may be spoiled until a scrub has mended them.
    fn rot(&mut self) {
        let drive = self.random.below(self.media.len());
        if !self.may_spoil(drive) {
            return;
        }
        self.figures.rot += 1;
        let mut medium = self.media[drive].bytes.borrow_mut();
        let blocks = medium.len() / BLOCK_BYTES;
        let margin = usize::try_from(MARGIN_BYTES).unwrap() / BLOCK_BYTES;
        for _ in 0..=self.random.below(64) {
            let block = margin + self.random.below(blocks - 2 * margin);
            match self.random.below(3) {
                // A bit.
                0 => medium[block * BLOCK_BYTES + self.random.below(BLOCK_BYTES)] ^= 1 << self.random.below(8),
                // A block that another one was written over.
                1 => {
                    let other = margin + self.random.below(blocks - 2 * margin);
                    medium.copy_within(other * BLOCK_BYTES..(other + 1) * BLOCK_BYTES, block * BLOCK_BYTES);
                }
                // A block that was lost.
                _ => medium[block * BLOCK_BYTES..][..BLOCK_BYTES].fill(0),
            }
        }
    }

    /// Whether a drive may be spoilt: if no more are than there is parity. A drive that is being rebuilt is.
    fn may_spoil(&mut self, drive: usize) -> bool {
        let roster = self.core.inner.roster.borrow();
        let mut spoilt = self.damaged.clone();
        spoilt.extend((0..self.media.len()).filter(|drive| roster.state(*drive) != DriveState::Sound));
        spoilt.push(drive);
        spoilt.sort_unstable();
        spoilt.dedup();
        drop(roster);
        let may = spoilt.len() <= self.shape.parity;
        if may && !self.damaged.contains(&drive) {
            self.damaged.push(drive);
        }
        may
    }

    fn collect_dead(&mut self) {
        let (reply, answer) = oneshot::channel();
        let live_percent = u8::try_from(self.random.below(101)).unwrap();
        self.core.command(Command::Collect { live_percent, segments_max: 1 + self.random.below(4), reply });
        self.collects.push(answer);
        self.core.settle();
    }

    fn replace(&mut self) {
        let drive = self.random.below(self.media.len());
        if !self.replaces.is_empty() || !self.may_spoil(drive) {
            return;
        }
        // What is on its way to the old drive is answered by it.
        self.finish();
        self.figures.replaced += 1;
        self.media[drive].bytes.borrow_mut().fill(0x5a);
        let (reply, answer) = oneshot::channel();
        let bytes = self.media[drive].bytes.borrow().len() as u64;
        let id = std::array::from_fn(|_| u8::try_from(self.random.below(256)).unwrap());
        assert!(self.core.replace(drive, &NewDrive { id, was: None, bytes }, reply));
        self.replaces.push(answer);
        self.core.settle();
    }

    fn flush(&mut self) {
        self.index.flush(self.core.position()).unwrap();
        while self.index.maintain().unwrap() {}
    }

    /// Lets everything that is under way come to its end.
    fn finish(&mut self) {
        loop {
            while self.core.wants_turn() {
                self.core.settle();
            }
            self.collect();
            if self.pending.is_empty() {
                break;
            }
            self.complete_some();
        }
        self.hear();
    }

    fn scrub(&mut self) -> ScrubReport {
        self.finish();
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Scrub { from: 0, segments_max: usize::MAX, now_ms: 3, reply });
        self.core.settle();
        self.finish();
        let report = answer.try_recv().expect("a scrub ends").unwrap();
        assert_eq!(report.lost, 0, "{report:?}");
        self.figures.scrubs += 1;
        self.figures.repaired += report.repaired;
        self.damaged.clear();
        report
    }

    /// The power fails, and comes back.
    fn crash(&mut self) {
        self.figures.crashes += 1;
        self.collect();
        for (drive, request) in self.pending.drain(..) {
            self.media[drive].tear(request, &mut self.random);
        }
        let (puts, removes) = (std::mem::take(&mut self.puts), std::mem::take(&mut self.removes));
        self.reads.clear();
        self.collects.clear();
        self.replaces.clear();
        self.drops.clear();
        self.reopen();
        self.recall_all();
        for (number, _) in puts {
            match self.location(number) {
                Some(_) => self.records.get_mut(&number).unwrap().1 = Known::Put,
                None => drop(self.records.remove(&number)),
            }
        }
        for (number, _) in removes {
            let known = if self.location(number).is_some() { Known::Put } else { Known::Removed };
            self.records.get_mut(&number).unwrap().1 = known;
        }
        self.check();
    }

    fn reopen(&mut self) {
        // Something has to take the place of what is closed first, since the index is locked.
        let empty = tempfile::tempdir().unwrap();
        let options = Options { memtable_entries: 1, shards: 1, fanout: 2 };
        self.index = Arc::new(Index::open(empty.path(), options).unwrap());
        let spare = Shape { ..self.shape.clone() };
        let devices = plain(&self.media);
        let devices: Vec<&dyn BlockDevice> = devices.iter().map(|device| device as _).collect();
        let found = identify(&devices).unwrap();
        let (stale, _) = Core::open(
            &found,
            vec![0; self.media.len()],
            Arc::clone(&self.index),
            Pools::new(&spare).unwrap(),
            Uploads::default(),
        )
        .unwrap();
        self.core = stale;
        let (core, index, pending) = open(&self.shape, &self.media, self.directory.path());
        (self.core, self.index, self.pending) = (core, index, pending);
    }

    /// Every record that was acknowledged is there, and none that was removed.
    fn check(&mut self) {
        let records: Vec<(u64, usize, Known)> =
            self.records.iter().map(|(number, (bytes, known))| (*number, *bytes, *known)).collect();
        for (number, _, known) in records {
            match known {
                Known::Put => {
                    let location = self.location(number);
                    let location = location.unwrap_or_else(|| panic!("record {number} was acknowledged and is lost"));
                    self.read_at(number, location);
                    self.finish();
                }
                Known::Removed => {
                    assert!(self.location(number).is_none(), "record {number} was removed and is back");
                }
                Known::PutAsked | Known::RemoveAsked => {}
            }
        }
        assert!(self.reads.is_empty(), "every read was answered");
    }
}

fn simulate(seed: u64, (data, parity, drives): (usize, usize, usize), steps: u64) -> Figures {
    println!("seed {seed}: {data}+{parity} on {drives} drives");
    let mut world = World::new(seed, data, parity, drives, 24);
    for _ in 0..steps {
        world.step();
    }
    world.finish();
    world.check();
    world.scrub();
    world.crash();
    println!("{:?}", world.figures);
    assert!(world.figures.acknowledged > 0 && world.figures.crashes > 0);
    world.figures
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_removed_comes_back() {
    let seeds = std::env::var("STELE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    let mut cold = [0; 5];
    for seed in 0..seeds {
        for shape in [(1, 0, 1), (2, 1, 3), (4, 2, 8), (1, 2, 3)] {
            let Figures { copied, dropped, read_cold, recalled, cleared, .. } = simulate(seed, shape, 2_000);
            cold.iter_mut().zip([copied, dropped, read_cold, recalled, cleared]).for_each(|(all, one)| *all += one);
        }
    }
    assert!(cold.iter().all(|figure| *figure > 0), "the cold tier was hardly used: {cold:?}");
}

#[test]
fn a_drive_that_fails_is_done_without() {
    let mut world = World::new(9, 4, 2, 6, 24);
    for _ in 0..300 {
        world.put();
        world.complete_some();
        world.hear();
    }
    world.media[2].failed.set(true);
    for _ in 0..300 {
        world.put();
        world.complete_some();
        world.hear();
    }
    world.finish();
    assert_eq!(world.core.inner.roster.borrow().state(2), DriveState::Failed);
    world.check();
    // Gone for good, and what it had is made from the others after a restart, too.
    world.media[2].bytes.borrow_mut().fill(0);
    world.crash();
    world.finish();
    world.check();
    assert!(world.core.status().counters.reconstructed > 0);
}
