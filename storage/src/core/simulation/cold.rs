//! The cold tier as a model: objects that are there or are not, beside drives that lose power whenever it suits them least.

use super::*;
use crate::core::{ColdCommand, ColdStatus};
use crate::format::ColdHeader;

/// What is in the cold tier: by segment, the object.
#[derive(Default)]
pub(super) struct Objects {
    all: BTreeMap<u32, Vec<u8>>,
}

impl World {
    /// Asks, and lets everything come to its end.
    fn ask<T>(&mut self, command: impl FnOnce(crate::core::Reply<T>) -> ColdCommand) -> Result<T, StorageError> {
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Cold(command(reply)));
        self.core.settle();
        self.finish();
        answer.try_recv().expect("it is answered")
    }

    fn list(&mut self) -> Vec<ColdStatus> {
        self.ask(|reply| ColdCommand::List { reply }).unwrap()
    }

    /// One thing that whoever carries segments does, to one of them; the power may fail between any two.
    pub(super) fn carry(&mut self) {
        let list = self.list();
        if let Some(status) = list.iter().find(|status| status.unread) {
            return self.recall(status.segment);
        }
        let local: Vec<u32> =
            list.iter().filter(|status| status.held && status.local).map(|status| status.segment).collect();
        match self.random.below(4) {
            0 | 1 => self.copy(),
            2 => {
                if let Some(segment) = (!local.is_empty()).then(|| local[self.random.below(local.len())]) {
                    // Also while much is on its way.
                    let (reply, answer) = oneshot::channel();
                    self.core.command(Command::Cold(ColdCommand::Drop { segment, reply }));
                    self.core.settle();
                    self.drops.push(answer);
                }
            }
            _ if self.random.chance(2) => self.empty_one(&list),
            _ => self.clear(),
        }
    }

    fn copy(&mut self) {
        let Ok(candidates) =
            self.ask(|reply| ColdCommand::Candidates { before_ms: Box::new(|_| u64::MAX), segments_max: 1, reply })
        else {
            return;
        };
        let Some(segment) = candidates.first().copied() else { return };
        let header = match self.ask(|reply| ColdCommand::Intend { segment, reply }) {
            Ok(header) => header,
            Err(StorageError::Full { .. } | StorageError::NotFound) => return,
            Err(error) => panic!("{error}"),
        };
        if self.random.chance(4) {
            return;
        }
        let object = self.object(&header);
        let root = crate::content_root(HashAlgorithm::Sha256, &object);
        // An earlier attempt made the same, bit by bit, whatever happened to the drives since.
        let known = self.objects.all.entry(segment).or_insert_with(|| object.clone());
        assert!(*known == object, "segment {segment} is another one now");
        if self.random.chance(4) {
            return;
        }
        match self.ask(|reply| ColdCommand::Hold { segment, root, reply }) {
            Ok(()) => self.figures.copied += 1,
            Err(StorageError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn object(&mut self, header: &ColdHeader) -> Vec<u8> {
        let mut object = header.encode();
        for number in 0..header.batches.len() {
            assert_eq!(header.batch_range(number).unwrap().start, object.len() as u64);
            let segment = header.segment;
            object.extend_from_slice(&self.ask(|reply| ColdCommand::Cells { segment, number, reply }).unwrap());
        }
        assert_eq!(object.len() as u64, header.object_bytes());
        object
    }

    fn batch(&self, header: &ColdHeader, number: usize) -> Bytes {
        let range = header.batch_range(number).unwrap();
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
        Bytes::copy_from_slice(&self.objects.all[&header.segment][start..end])
    }

    fn header_of(&self, segment: u32) -> ColdHeader {
        ColdHeader::decode(&self.objects.all[&segment], &self.shape.store).unwrap()
    }

    /// Reads an object for an index that was lost.
    fn recall(&mut self, segment: u32) {
        let header = self.header_of(segment);
        for number in 0..header.batches.len() {
            let cells = self.batch(&header, number);
            self.ask(|reply| ColdCommand::Replay { segment, number, cells, reply }).unwrap();
        }
        self.ask(|reply| ColdCommand::Replayed { segment, reply }).unwrap();
        self.figures.recalled += 1;
    }

    /// Reads what has to be read, all of it.
    pub(super) fn recall_all(&mut self) {
        for status in self.list().into_iter().filter(|status| status.unread) {
            self.recall(status.segment);
        }
    }

    /// Removes everything that only one object has.
    fn empty_one(&mut self, list: &[ColdStatus]) {
        let gone: Vec<u32> = list.iter().filter(|status| !status.local).map(|status| status.segment).collect();
        if gone.is_empty() {
            return;
        }
        let segment = gone[self.random.below(gone.len())];
        let there: Vec<u64> =
            self.records.iter().filter(|(_, (_, known))| *known == Known::Put).map(|(number, _)| *number).collect();
        for number in there {
            if self.location(number).is_some_and(|location| location.segment == segment) {
                self.records.get_mut(&number).unwrap().1 = Known::RemoveAsked;
                let (reply, answer) = oneshot::channel();
                self.core.command(Command::Remove { key: key(number), time_ms: 2, reply });
                self.removes.push((number, answer));
                self.core.settle();
            }
        }
    }

    /// Deletes what nobody needs.
    fn clear(&mut self) {
        let Ok(dead) = self.ask(|reply| ColdCommand::Dead { reply }) else { return };
        for segment in dead {
            if self.list().iter().any(|status| status.segment == segment && status.held) {
                let header = self.header_of(segment);
                for number in (0..header.batches.len()).filter(|_| header.ends.is_some()) {
                    let cells = self.batch(&header, number);
                    match self.ask(|reply| ColdCommand::Carry { segment, number, cells, reply }) {
                        Ok(()) => {}
                        Err(StorageError::Full { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            match self.ask(|reply| ColdCommand::Release { segment, reply }) {
                Ok(()) => {}
                Err(StorageError::Full { .. }) => return,
                Err(error) => panic!("{error}"),
            }
            self.objects.all.remove(&segment);
            if self.random.chance(4) {
                return;
            }
            match self.ask(|reply| ColdCommand::Forget { segment, reply }) {
                Ok(()) => self.figures.cleared += 1,
                Err(StorageError::Full { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A record from its object.
    pub(super) fn read_cold(&mut self, number: u64, location: Location) -> Result<(), StorageError> {
        let place = self.ask(|reply| ColdCommand::Locate { location, reply })?;
        let object = &self.objects.all[&place.segment];
        assert_eq!(crate::content_root(HashAlgorithm::Sha256, object), place.root);
        let read = &object[usize::try_from(place.start).unwrap()..][..place.bytes as usize];
        assert_eq!(checksum(read), place.sum);
        assert!(read == &content(number, read.len())[..], "record {number} is another one");
        self.figures.read_cold += 1;
        Ok(())
    }

    pub(super) fn hear_drops(&mut self) {
        self.drops.retain_mut(|answer| match answer.try_recv() {
            Ok(Ok(())) => {
                self.figures.dropped += 1;
                false
            }
            // It was dropped meanwhile, or is not known to be whole.
            Ok(Err(StorageError::NotFound | StorageError::Busy { .. })) => false,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => true,
        });
    }
}

/// The index is lost with segments that only the cold tier has: what was removed stays removed, also what is removed while
/// they are read, and what was put again is the newer one.
#[test]
fn an_index_is_made_again_from_the_cold_tier() {
    let mut world = World::new(3, 2, 1, 3, 24);
    let mut number = 0;
    let put = world.advance_all(&mut number, 3);
    assert!(world.try_remove_now(put[0]));
    world.move_all();
    assert!(world.try_remove_now(put[1]), "its record is in the cold tier, and its tombstone on the drives");
    world.lose_index();
    assert!(world.list().iter().all(|status| status.unread && !status.local));
    assert!(world.location(put[2]).is_none());
    assert!(!world.try_remove_now(put[2]), "it is not said to be absent");
    world.recall_all();
    assert!(world.location(put[0]).is_none() && world.location(put[1]).is_none());
    assert!(world.try_remove_now(put[2]));
    world.lose_index();
    world.recall_all();
    for (number, there) in [(put[0], false), (put[1], false), (put[2], false), (put[3], true)] {
        assert_eq!(world.location(number).is_some(), there, "record {number}");
    }
    let location = world.location(put[3]).unwrap();
    world.read_cold(put[3], location).unwrap();
}

/// The power fails before the store was told of an object, and drives and index lose the segment: the object is all there is.
#[test]
fn an_object_that_was_begun_is_not_taken_for_dead() {
    let mut world = World::new(7, 2, 1, 3, 24);
    let mut number = 0;
    let put = world.advance_all(&mut number, 1);
    world.restart_alone();
    let segment = world.segment_of_record(put[0]);
    let header = world.ask(|reply| ColdCommand::Intend { segment, reply }).unwrap();
    let object = world.object(&header);
    let root = crate::content_root(HashAlgorithm::Sha256, &object);
    world.objects.all.insert(segment, object);
    let columns = world.core.inner.segments.borrow().all[&segment].columns.clone();
    for (drive, slot) in columns {
        let from = usize::try_from(world.shape.offset(slot, 0)).unwrap();
        let bytes = world.shape.slot_blocks as usize * BLOCK_BYTES;
        world.media[usize::from(drive)].bytes.borrow_mut()[from..from + bytes].fill(0);
    }
    world.lose_index();
    assert!(world.location(put[0]).is_none());
    assert!(world.ask(|reply| ColdCommand::Dead { reply }).unwrap().is_empty());
    assert!(world.ask(|reply| ColdCommand::Release { segment, reply }).is_err());
    world.ask(|reply| ColdCommand::Hold { segment, root, reply }).unwrap();
    world.recall_all();
    let location = world.location(put[0]).unwrap();
    world.read_cold(put[0], location).unwrap();
}

/// Objects go when everything in them was removed.
#[test]
fn an_object_that_nobody_needs_is_given_up() {
    let mut world = World::new(4, 2, 1, 3, 24);
    let mut number = 0;
    let put = world.advance_all(&mut number, 3);
    world.move_all();
    assert!(world.ask(|reply| ColdCommand::Dead { reply }).unwrap().is_empty());
    let held = world.list().len();
    for number in put {
        assert!(world.try_remove_now(number));
    }
    let dead = world.ask(|reply| ColdCommand::Dead { reply }).unwrap();
    assert_eq!(dead.len(), held);
    for segment in dead {
        world.ask(|reply| ColdCommand::Forget { segment, reply }).unwrap();
    }
    assert!(world.list().is_empty());
    world.lose_index();
    assert!(world.list().is_empty());
}

/// An object is needed for a record without bytes, too: it was given up, and the record with it.
#[test]
fn an_object_that_has_an_empty_record_is_not_given_up() {
    let mut world = World::new(4, 2, 1, 3, 24);
    let mut answer = world.ask_put(1_000, 0, 1);
    world.finish();
    answer.try_recv().unwrap().unwrap();
    world.records.insert(1_000, (0, Known::Put));
    let segment = world.segment_of_record(1_000);
    let mut number = 0;
    for number in world.advance_all(&mut number, 2) {
        if world.segment_of_record(number) == segment {
            assert!(world.try_remove_now(number));
        }
    }
    world.move_all();
    assert!(!world.ask(|reply| ColdCommand::Dead { reply }).unwrap().contains(&segment));
    let location = world.location(1_000).unwrap();
    world.read_cold(1_000, location).unwrap();
}

/// A segment that no slots hold is listed from its object.
#[test]
fn an_object_says_what_is_found_in_it() {
    let mut world = World::new(8, 2, 1, 3, 24);
    let mut number = 0;
    let mut put = world.advance_all(&mut number, 2);
    world.move_all();
    assert!(world.try_remove_now(put.remove(0)));
    let mut found = Vec::new();
    for status in world.list() {
        assert_eq!(status.group, world.header_of(status.segment).group);
        let header = world.header_of(status.segment);
        for number in 0..header.batches.len() {
            let (segment, cells) = (status.segment, world.batch(&header, number));
            found.extend(world.ask(|reply| ColdCommand::Objects { segment, number, cells, reply }).unwrap());
        }
    }
    let mut expected: Vec<_> = put.iter().map(|number| key(*number)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "all of it, and not what was removed");
}

/// More is lost on the drives than parity is good for, of a segment that the cold tier has, too.
#[test]
fn what_the_drives_have_lost_is_made_from_the_object() {
    let mut world = World::new(5, 4, 2, 6, 24);
    let mut number = 0;
    let put = world.advance_all(&mut number, 2);
    let segment = world.segment_of_record(put[0]);
    world.copy_all();
    let columns = world.core.inner.segments.borrow().all[&segment].columns.clone();
    // One column of records in each batch, and all parity.
    for (drive, slot) in [columns[0], columns[1], columns[4], columns[5]] {
        let from = usize::try_from(world.shape.offset(slot, 1)).unwrap();
        let bytes = (world.shape.slot_blocks as usize - 1) * BLOCK_BYTES;
        world.media[usize::from(drive)].bytes.borrow_mut()[from..from + bytes].fill(0x77);
    }
    assert!(world.scrub_one(segment).lost > 0, "it can be made again without the cold tier");
    let header = world.header_of(segment);
    // Cells of another batch are refused.
    if header.batches.len() > 1 {
        let cells = world.batch(&header, 1);
        assert!(world.ask(|reply| ColdCommand::Restore { segment, number: 0, cells, reply }).is_err());
    }
    let mut restored = 0;
    for number in 0..header.batches.len() {
        let cells = world.batch(&header, number);
        restored += world.ask(|reply| ColdCommand::Restore { segment, number, cells, reply }).unwrap();
    }
    assert!(restored > 0);
    let report = world.scrub_one(segment);
    assert_eq!((report.repaired, report.lost), (0, 0), "{report:?}");
    // Bit by bit, and readable from each drive.
    let again = world.object(&header);
    assert!(again == world.objects.all[&segment]);
}

/// The drives have lost the store's own records, and the index is gone: what the tier lists is enough.
#[test]
fn objects_that_nobody_knows_are_taken_back() {
    let mut world = World::new(6, 2, 1, 3, 24);
    let mut number = 0;
    let put = world.advance_all(&mut number, 2);
    assert!(world.try_remove_now(put[0]));
    world.move_all();
    let own: Vec<(u16, u32)> = {
        let segments = world.core.inner.segments.borrow();
        let own = segments.all.values().filter(|segment| segment.group == crate::core::cold::OWN);
        own.flat_map(|segment| segment.columns.to_vec()).collect()
    };
    assert!(!own.is_empty());
    for (drive, slot) in own {
        let from = usize::try_from(world.shape.offset(slot, 0)).unwrap();
        let bytes = world.shape.slot_blocks as usize * BLOCK_BYTES;
        world.media[usize::from(drive)].bytes.borrow_mut()[from..from + bytes].fill(0);
    }
    world.lose_index();
    assert!(world.list().is_empty());
    assert!(world.location(put[1]).is_none(), "nothing on the drives leads there");
    for (segment, object) in world.objects.all.clone() {
        let root = crate::content_root(HashAlgorithm::Sha256, &object);
        let header = Bytes::from(object);
        let adopt = |header: &Bytes| {
            let header = header.clone();
            move |reply| ColdCommand::Adopt { header, root, reply }
        };
        world.ask(adopt(&header)).unwrap();
        assert!(matches!(world.ask(adopt(&header)), Err(StorageError::NotFound)), "segment {segment} is known now");
        assert!(matches!(world.ask(adopt(&Bytes::new())), Err(StorageError::WrongContent)));
    }
    world.recall_all();
    assert!(world.location(put[0]).is_none());
    let location = world.location(put[1]).unwrap();
    world.read_cold(put[1], location).unwrap();
}

impl World {
    /// Puts large records until so many segments are full; those that were put.
    fn advance_all(&mut self, number: &mut u64, segments: usize) -> Vec<u64> {
        let mut put = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() <= segments {
            let record = *number;
            *number += 1;
            let mut answer = self.ask_put(record, 1 << 20, 1);
            self.finish();
            answer.try_recv().unwrap().unwrap();
            self.records.insert(record, (1 << 20, Known::Put));
            seen.insert(self.segment_of_record(record));
            put.push(record);
        }
        put
    }

    fn segment_of_record(&self, number: u64) -> u32 {
        self.location(number).unwrap().segment
    }

    fn try_remove_now(&mut self, number: u64) -> bool {
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Remove { key: key(number), time_ms: 2, reply });
        self.core.settle();
        self.finish();
        let removed = answer.try_recv().unwrap().is_ok_and(|removed| removed);
        if removed {
            self.records.get_mut(&number).unwrap().1 = Known::Removed;
        }
        removed
    }

    fn scrub_one(&mut self, segment: u32) -> ScrubReport {
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Scrub { from: segment, segments_max: 1, now_ms: 3, reply });
        self.core.settle();
        self.finish();
        answer.try_recv().unwrap().unwrap()
    }

    /// The power fails with nothing on its way; what is open is sealed then.
    fn restart_alone(&mut self) {
        self.finish();
        self.reopen();
    }

    /// Copies all that is settled.
    fn copy_all(&mut self) {
        self.restart_alone();
        loop {
            let before = self.figures.copied;
            for _ in 0..32 {
                self.copy();
            }
            if self.figures.copied == before {
                return;
            }
        }
    }

    /// Copies all that is settled, and gives up its slots.
    fn move_all(&mut self) {
        self.copy_all();
        for status in self.list().into_iter().filter(|status| status.held && status.local) {
            self.ask(|reply| ColdCommand::Drop { segment: status.segment, reply }).unwrap();
        }
        assert!(self.list().iter().all(|status| !status.local));
    }

    /// The power fails, and the index is lost with it.
    pub(super) fn lose_index_now(&mut self) {
        self.directory = tempfile::tempdir().unwrap();
        self.crash();
    }

    /// The index is lost, and what is left is opened.
    pub(super) fn lose_index(&mut self) {
        self.finish();
        self.hear_drops();
        let empty = tempfile::tempdir().unwrap();
        self.directory = empty;
        self.reopen();
    }
}
