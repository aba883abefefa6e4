//! Faults that were found by looking for them: each test fails without its mend.

use super::*;

fn new_drive(bytes: u64) -> NewDrive {
    NewDrive { id: [99; 16], was: None, bytes }
}

impl World {
    fn must_put(&mut self, number: u64, bytes: usize, class: u8) {
        let mut answer = self.ask_put(number, bytes, class);
        self.finish();
        answer.try_recv().expect("a put is answered").unwrap();
    }

    fn try_read(&mut self, number: u64) -> Result<Bytes, StorageError> {
        let (reply, mut answer) = oneshot::channel();
        let location = self.location(number).unwrap();
        self.core.command(Command::Read { location, reply });
        self.core.settle();
        self.finish();
        answer.try_recv().expect("a read is answered")
    }

    fn try_remove(&mut self, number: u64) -> Result<bool, StorageError> {
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Remove { key: key(number), time_ms: 2, reply });
        self.core.settle();
        self.finish();
        answer.try_recv().expect("a removal is answered")
    }

    fn must_collect(&mut self, live_percent: u8, segments_max: usize) -> CollectReport {
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Collect { live_percent, segments_max, reply });
        self.core.settle();
        self.finish();
        answer.try_recv().expect("collecting ends").unwrap()
    }

    fn segment_of(&self, number: u64) -> u32 {
        self.location(number).unwrap().segment
    }

    /// The power fails with nothing on its way.
    fn restart(&mut self) {
        self.finish();
        self.reopen();
    }

    /// Puts large records from `number` on until one lies in a new segment; those that were put.
    fn advance(&mut self, number: &mut u64, class: u8) -> Vec<u64> {
        let mut put = Vec::new();
        let mut before = None;
        loop {
            let filler = *number;
            *number += 1;
            self.must_put(filler, 1 << 20, class);
            put.push(filler);
            let segment = self.segment_of(filler);
            if before.is_some_and(|before| before != segment) {
                return put;
            }
            before = Some(segment);
        }
    }
}

/// Two clients put the same content under two classes at the same time, and somebody removes it.
#[test]
fn a_record_that_was_put_twice_and_removed_stays_removed_after_a_crash() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(100, 10, 1);
    world.must_put(101, 10, 0);
    assert!(world.segment_of(100) < world.segment_of(101));
    let mut first = world.ask_put(7, 1_000, 0);
    let mut second = world.ask_put(7, 1_000, 1);
    while !world.pending.is_empty() {
        let (drive, request) = world.pending.remove(0);
        let completed = world.media[drive].carry_out(request);
        world.core.completed(completed);
        world.core.settle();
        world.collect();
    }
    first.try_recv().unwrap().unwrap();
    second.try_recv().unwrap().unwrap();
    assert!(world.try_remove(7).unwrap());
    assert!(world.location(7).is_none());
    world.restart();
    assert!(world.location(7).is_none(), "the record was removed and is back");
}

/// The same with the index flushed: what was removed must not come back either when the index is lost later.
#[test]
fn a_record_that_was_put_twice_and_removed_stays_removed_when_the_index_is_made_again() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(101, 1 << 20, 0);
    world.must_put(100, 10, 1);
    let _first = world.ask_put(7, 1_000, 0);
    let _second = world.ask_put(7, 1_000, 1);
    while !world.pending.is_empty() {
        let (drive, request) = world.pending.remove(0);
        let completed = world.media[drive].carry_out(request);
        world.core.completed(completed);
        world.core.settle();
        world.collect();
    }
    // The second found the first: a key is written to once at a time.
    assert_eq!(world.segment_of(7), world.segment_of(101));
    assert!(world.try_remove(7).unwrap());
    assert!(world.try_remove(100).unwrap());
    world.flush();
    world.restart();
    assert_eq!(world.must_collect(0, 10).segments, 1);
    assert!(world.location(7).is_none());
    world.restart();
    assert!(world.location(7).is_none());
    // The index is lost.
    let lost = tempfile::tempdir().unwrap();
    world.directory = lost;
    world.restart();
    assert!(world.location(101).is_some());
    assert!(world.location(7).is_none(), "the record was removed and is back");
}

/// Put, removed, put again, removed again; then its first tombstone is carried into the segment of the second.
#[test]
fn collecting_two_tombstones_of_a_key_ends() {
    let mut world = World::new(1, 1, 0, 1, 40);
    let mut number = 1_000;
    world.must_put(7, 100, 0);
    let mut fillers = world.advance(&mut number, 0);
    assert!(world.try_remove(7).unwrap());
    let tombstone_in = world.segment_of(*fillers.last().unwrap());
    fillers.extend(world.advance(&mut number, 0));
    world.must_put(7, 100, 0);
    fillers.extend(world.advance(&mut number, 0));
    assert!(world.try_remove(7).unwrap());
    let second_in = world.segment_of(*fillers.last().unwrap());
    let dead: Vec<u64> = fillers.iter().copied().filter(|filler| world.segment_of(*filler) == tombstone_in).collect();
    for filler in dead {
        assert!(world.try_remove(filler).unwrap());
    }
    fillers.retain(|filler| world.location(*filler).is_some());
    let report = world.must_collect(0, 1);
    assert_eq!(report.segments, 1, "{report:?}");
    fillers.extend(world.advance(&mut number, 0));
    let dead: Vec<u64> = fillers.iter().copied().filter(|filler| world.segment_of(*filler) == second_in).collect();
    for filler in dead {
        assert!(world.try_remove(filler).unwrap());
    }
    // The first tombstone was carried on into this one, and counts as needed.
    let report = world.must_collect(50, 10);
    assert!(report.segments > 0, "{report:?}");
}

/// Tombstones wait for the segment of an old record. Each came in a batch of its own, was moved by every collecting that
/// could find nothing emptier, and together they took the room that removing needs itself.
#[test]
fn tombstones_that_wait_for_an_old_record_leave_room() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(1, 100, 0);
    world.restart();
    let mut number = 1_000;
    for round in 0..60 {
        for class in 0..3 {
            for _ in 0..40 {
                world.must_put(number, 4_000, class);
                assert!(world.try_remove(number).unwrap());
                number += 1;
            }
        }
        world.must_collect(70, 4);
        if round % 4 == 3 {
            world.restart();
        }
    }
    let lost = tempfile::tempdir().unwrap();
    world.directory = lost;
    world.restart();
    assert!((1_000..number).all(|number| world.location(number).is_none()), "a record was removed and is back");
    assert!(world.try_remove(1).unwrap());
}

/// A store that is opened and closed often has segments with little in them, all of which lives.
#[test]
fn segments_that_were_closed_soon_are_put_together() {
    let mut world = World::new(1, 1, 0, 1, 24);
    for number in 0..8 {
        world.must_put(number, 100 << 10, 0);
        world.restart();
    }
    let report = world.must_collect(60, 10);
    assert_eq!(report.segments, 8, "{report:?}");
    let together = world.segment_of(0);
    assert!((1..8).all(|number| world.segment_of(number) == together));
    assert_eq!(world.must_collect(60, 10).moved, 0, "nothing is gained a second time");
    world.restart();
    assert_eq!(world.must_collect(60, 10).moved, 0, "nor by what is sealed");
}

/// A write fails, and one behind it in the segment, which was under way, does not.
#[test]
fn nothing_is_acknowledged_behind_a_batch_that_was_lost() {
    let mut world = World::new(1, 1, 0, 1, 24);
    let mut first = world.ask_put(1, 700 << 10, 0);
    let mut second = world.ask_put(2, 700 << 10, 0);
    let mut third = world.ask_put(3, 700 << 10, 0);
    assert_eq!(world.pending.len(), 2);
    let (_, lost) = world.pending.remove(0);
    let (drive, kept) = world.pending.remove(0);
    world.core.completed(lost.answer(Err(DeviceError::Poisoned)));
    world.core.completed(world.media[drive].carry_out(kept));
    world.core.settle();
    world.finish();
    assert!(first.try_recv().unwrap().is_err());
    let acknowledged = second.try_recv().unwrap().is_ok();
    let answered = third.try_recv().is_ok();
    world.restart();
    assert!(!acknowledged || world.location(2).is_some(), "record 2 was acknowledged and is lost");
    assert!(answered, "the record behind the lost ones is never answered");
}

/// 512 buffers for headers are 16 for each of 32 drives.
#[test]
fn a_store_of_more_than_32_drives_is_found_again() {
    let mut world = World::new(1, 1, 0, 34, 16);
    for number in 0..80 {
        world.must_put(number, 1 << 20, 0);
    }
    world.restart();
    let lost = (0..80).filter(|number| world.location(*number).is_none()).count();
    assert_eq!(lost, 0, "of 80 acknowledged records");
}

/// A batch was closed while a drive had failed, and lands after that one was replaced and made again.
#[test]
fn a_replaced_drive_gets_what_was_under_way() {
    let mut world = World::new(1, 4, 2, 6, 24);
    world.must_put(0, 100, 0);
    let columns = world.core.inner.segments.borrow().all.values().next().unwrap().columns.clone();
    let drive = usize::from(columns[1].0);
    world.media[drive].failed.set(true);
    world.must_put(1, 100, 0);
    assert_eq!(world.core.inner.roster.borrow().state(drive), DriveState::Failed);
    // A full stripe, behind one that makes it wait.
    let mut waiting: Vec<Waiting<()>> = (10..15).map(|number| world.ask_put(number, 65_536, 0)).collect();
    let first: Vec<(usize, Request)> = world.pending.drain(..).collect();
    for (drive, request) in first {
        world.core.completed(world.media[drive].carry_out(request));
    }
    world.core.settle();
    world.collect();
    let held = world.pending.pop().expect("the stripe is under way");
    world.media[drive].failed.set(false);
    world.media[drive].bytes.borrow_mut().fill(0x5a);
    let (reply, mut replaced) = oneshot::channel();
    let bytes = world.media[drive].bytes.borrow().len() as u64;
    assert!(world.core.replace(drive, &new_drive(bytes), reply));
    world.core.settle();
    world.finish();
    let early = replaced.try_recv().is_ok();
    let (on, request) = held;
    world.core.completed(world.media[on].carry_out(request));
    world.core.settle();
    world.finish();
    println!("replaced before the stripe landed: {early}");
    for answer in &mut waiting {
        answer.try_recv().unwrap().unwrap();
    }
    if !early {
        replaced.try_recv().unwrap().unwrap();
    }
    assert_eq!(world.core.inner.roster.borrow().state(drive), DriveState::Sound);
    // Two drives are lost, as many as there is parity for.
    for column in [4, 5] {
        let (drive, _) = columns[column];
        let margin = usize::try_from(MARGIN_BYTES).unwrap();
        world.media[usize::from(drive)].bytes.borrow_mut()[margin..].fill(0);
    }
    for number in 10..15 {
        let read = world.try_read(number);
        assert!(read.is_ok(), "record {number}: {read:?}");
    }
}

/// Tombstones take the room that was kept for collecting, and restarts seal the segments that they began.
#[test]
fn a_full_store_can_be_emptied_after_restarts() {
    let mut world = World::new(1, 1, 0, 1, 8);
    let mut there = Vec::new();
    for number in 0.. {
        let mut answer = world.ask_put(number, 1 << 20, 0);
        world.finish();
        match answer.try_recv().unwrap() {
            Ok(()) => there.push(number),
            Err(StorageError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    for number in there.iter().step_by(2) {
        world.restart();
        if world.try_remove(*number).is_err() {
            break;
        }
    }
    for _ in 0..4 {
        let report = world.must_collect(100, 100);
        println!("{report:?}");
    }
    let status = world.core.status();
    assert!(status.segments_free > 0, "nothing can be removed, and nothing collected: {status:?}");
}

impl World {
    /// Lets everything but the requests that `hold` wants come to its end; those are returned.
    fn finish_but(&mut self, hold: impl Fn(usize, &Request) -> bool) -> Vec<(usize, Request)> {
        let mut held = Vec::new();
        loop {
            self.collect();
            let Some((drive, request)) = (!self.pending.is_empty()).then(|| self.pending.remove(0)) else { break };
            if hold(drive, &request) {
                held.push((drive, request));
                continue;
            }
            let completed = self.media[drive].carry_out(request);
            self.core.completed(completed);
            self.core.settle();
        }
        held
    }
}

/// A scrub writes a cell again while its segment is collected and its slots are given to another one.
#[test]
fn what_is_mended_never_lands_in_another_segment() {
    let mut world = World::new(1, 1, 2, 3, 24);
    let mut number = 1_000;
    let fillers = world.advance(&mut number, 0);
    let old = world.location(fillers[0]).unwrap();
    let columns = world.core.inner.segments.borrow().all[&old.segment].columns.clone();
    // The last column is damaged.
    let (drive, slot) = columns[2];
    let drive = usize::from(drive);
    let at = usize::try_from(world.shape.offset(slot, old.start + 1)).unwrap();
    world.media[drive].bytes.borrow_mut()[at] ^= 1;
    for filler in &fillers {
        if world.segment_of(*filler) == old.segment {
            assert!(world.try_remove(*filler).unwrap());
        }
        if world.location(*filler).is_some() {
            break;
        }
    }
    let (reply, _scrubbed) = oneshot::channel();
    world.core.command(Command::Scrub { from: old.segment, segments_max: 1, now_ms: 3, reply });
    world.core.settle();
    let cell = world.shape.offset(slot, old.start);
    let held = world.finish_but(|on, request| {
        on == drive && request.offset() == cell && request.operation() == Operation::WriteDurable
    });
    assert_eq!(held.len(), 1, "the scrub mends");
    let (reply, mut collected) = oneshot::channel();
    world.core.command(Command::Collect { live_percent: 0, segments_max: 10, reply });
    world.core.settle();
    world.finish();
    let collected_early = collected.try_recv().is_ok();
    println!("collected while it was mended: {collected_early}");
    let more: Vec<u64> = (2_000..2_010).collect();
    for number in &more {
        world.must_put(*number, 1 << 20, 0);
    }
    for (on, request) in held {
        world.core.completed(world.media[on].carry_out(request));
        world.core.settle();
    }
    world.finish();
    // The two other drives are lost, as many as there is parity for.
    let margin = usize::try_from(MARGIN_BYTES).unwrap();
    for other in (0..3).filter(|other| *other != drive) {
        world.media[other].bytes.borrow_mut()[margin..].fill(0);
    }
    for number in more {
        let read = world.try_read(number);
        assert!(read.is_ok(), "record {number}: {read:?}");
    }
}

/// A drive is slow with the header that says that a segment is sealed, and meanwhile that one is collected.
#[test]
fn a_late_seal_never_lands_in_another_segment() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(1, 1 << 20, 0);
    world.must_put(2, 1 << 20, 0);
    let old = world.location(1).unwrap();
    assert_eq!(world.segment_of(2), old.segment);
    let slot = world.core.inner.segments.borrow().all[&old.segment].columns[0].1;
    let header = world.shape.offset(slot, 0);
    let mut third = world.ask_put(3, 1 << 20, 0);
    let held =
        world.finish_but(|_, request| request.offset() == header && request.operation() == Operation::WriteDurable);
    third.try_recv().unwrap().unwrap();
    assert_eq!(held.len(), 1, "the seal");
    for number in [1, 2] {
        assert!(world.try_remove(number).unwrap());
    }
    let (reply, _collected) = oneshot::channel();
    world.core.command(Command::Collect { live_percent: 0, segments_max: 10, reply });
    world.core.settle();
    world.finish();
    for number in 10..14 {
        world.must_put(number, 1 << 20, 0);
    }
    for (on, request) in held {
        world.core.completed(world.media[on].carry_out(request));
        world.core.settle();
    }
    world.restart();
    for number in 10..14 {
        assert!(world.location(number).is_some(), "record {number} was acknowledged and is lost");
    }
}

/// A header cannot be read at the moment of opening, as when a cable is loose; later it can.
#[test]
fn a_slot_whose_header_could_not_be_read_is_not_written_over() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(1, 1 << 20, 0);
    world.flush();
    let old = world.location(1).unwrap();
    let slot = world.core.inner.segments.borrow().all[&old.segment].columns[0].1;
    world.media[0].unreadable.set(Some(usize::try_from(world.shape.offset(slot, 0)).unwrap()));
    world.restart();
    for number in 10..14 {
        world.must_put(number, 1 << 20, 0);
    }
    world.media[0].unreadable.set(None);
    world.restart();
    let read = world.try_read(1);
    assert!(read.is_ok(), "{read:?}");
}

/// While the index is looked through, others have their turn.
#[test]
fn collecting_lets_others_have_their_turn() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(1, 100, 0);
    let location = world.location(1).unwrap().encode();
    for number in 10_000..30_000 {
        if world.index.needs_flush() {
            world.index.flush(world.index.position()).unwrap();
            while world.index.maintain().unwrap() {}
        }
        world.index.put(&key(number), location).unwrap();
    }
    let (reply, mut answer) = oneshot::channel();
    world.core.command(Command::Collect { live_percent: 0, segments_max: 1, reply });
    world.core.settle();
    assert!(answer.try_recv().is_err(), "the engine did nothing else until all of the index was read");
}

/// What is above the group's queue in a batch that is open is answered, too, when the only drive fails.
#[test]
fn every_put_is_answered_when_the_drive_fails() {
    let mut world = World::new(1, 1, 0, 1, 24);
    let mut answers: Vec<Waiting<()>> = (1..4).map(|number| world.ask_put(number, 10_000, 0)).collect();
    world.media[0].failed.set(true);
    world.finish();
    for (at, answer) in answers.iter_mut().enumerate() {
        assert!(answer.try_recv().is_ok(), "put {at} is never answered");
    }
}

#[test]
fn a_superblock_with_impossible_slots_is_none() {
    for slot_blocks in [0, 1, u32::MAX] {
        let superblock = crate::format::Superblock {
            generation: 1,
            store: [7; 16],
            epoch: 0,
            drive: 0,
            data: 1,
            parity: 0,
            hash: HashAlgorithm::Sha256,
            slot_blocks,
            segments: 0,
            members: vec![crate::format::Member { id: [0; 16], state: DriveState::Sound }],
        };
        let mut block = vec![0; BLOCK_BYTES];
        superblock.encode(&mut block);
        assert!(crate::format::Superblock::decode(&block).is_none(), "{slot_blocks} blocks");
    }
}

/// A drive that was replaced because it hung answers at last: with errors, to what it was asked before.
#[test]
fn late_errors_of_a_replaced_drive_are_not_its_successors() {
    let mut world = World::new(1, 4, 2, 6, 24);
    world.must_put(0, 100, 0);
    let columns = world.core.inner.segments.borrow().all.values().next().unwrap().columns.clone();
    let drive = usize::from(columns[4].0);
    let mut answer = world.ask_put(1, 100, 0);
    let mut held = world.finish_but(|on, _| on == drive);
    assert_eq!(held.len(), 1);
    let (reply, _replaced) = oneshot::channel();
    let bytes = world.media[drive].bytes.borrow().len() as u64;
    assert!(world.core.replace(drive, &new_drive(bytes), reply));
    world.core.settle();
    let (_, request) = held.pop().unwrap();
    world.core.completed(request.answer(Err(DeviceError::Poisoned)));
    world.core.settle();
    world.finish();
    answer.try_recv().unwrap().unwrap();
    assert_ne!(world.core.inner.roster.borrow().state(drive), DriveState::Failed, "the new drive failed nothing");
}

/// A drive that failed comes back as its own successor, with what it held when it failed.
#[test]
fn what_a_new_drive_held_before_is_no_segment() {
    let mut world = World::new(1, 1, 2, 3, 24);
    let mut number = 1_000;
    let fillers = world.advance(&mut number, 0);
    let old = world.segment_of(fillers[0]);
    world.restart();
    world.media[2].failed.set(true);
    for filler in fillers.iter().filter(|filler| world.segment_of(**filler) == old).copied().collect::<Vec<_>>() {
        assert!(world.try_remove(filler).unwrap());
    }
    assert_eq!(world.core.inner.roster.borrow().state(2), DriveState::Failed);
    world.must_collect(0, 1);
    assert!(!world.core.inner.segments.borrow().all.contains_key(&old));
    world.media[2].failed.set(false);
    let (reply, mut replaced) = oneshot::channel();
    let bytes = world.media[2].bytes.borrow().len() as u64;
    assert!(world.core.replace(2, &new_drive(bytes), reply));
    world.core.settle();
    world.finish();
    replaced.try_recv().unwrap().unwrap();
    world.restart();
    assert!(!world.core.inner.segments.borrow().all.contains_key(&old), "a segment that was given up is back");
}

/// A tombstone is carried out of a segment while its record is on its way again.
#[test]
fn a_record_that_is_put_again_outlives_the_tombstone_that_is_carried_on() {
    let mut world = World::new(1, 1, 0, 1, 40);
    let mut number = 1_000;
    world.must_put(7, 100, 0);
    let mut fillers = world.advance(&mut number, 0);
    let tombstone_in = world.segment_of(*fillers.last().unwrap());
    assert!(world.try_remove(7).unwrap());
    fillers.extend(world.advance(&mut number, 0));
    let dead: Vec<u64> = fillers.iter().copied().filter(|filler| world.segment_of(*filler) == tombstone_in).collect();
    for filler in dead {
        assert!(world.try_remove(filler).unwrap());
    }
    let mut again = world.ask_put(7, 100, 0);
    let held = std::mem::take(&mut world.pending);
    assert!(!held.is_empty(), "the record is on its way");
    let (reply, mut collected) = oneshot::channel();
    world.core.command(Command::Collect { live_percent: 0, segments_max: 10, reply });
    world.core.settle();
    world.finish();
    for (drive, request) in held {
        world.core.completed(world.media[drive].carry_out(request));
        world.core.settle();
    }
    world.finish();
    again.try_recv().unwrap().unwrap();
    assert!(collected.try_recv().unwrap().unwrap().segments > 0);
    assert!(world.location(7).is_some(), "the record was acknowledged and is lost");
    world.restart();
    assert!(world.location(7).is_some(), "the record was acknowledged and is lost after a restart");
}

/// The first cell of a segment cannot be read at the moment of opening: the segment is not empty, and not free.
#[test]
fn a_segment_that_cannot_be_read_is_not_collected() {
    let mut world = World::new(1, 1, 0, 1, 24);
    world.must_put(1, 1 << 20, 0);
    world.flush();
    let old = world.location(1).unwrap();
    let slot = world.core.inner.segments.borrow().all[&old.segment].columns[0].1;
    world.media[0].unreadable.set(Some(usize::try_from(world.shape.offset(slot, old.start)).unwrap()));
    world.restart();
    let (reply, mut collected) = oneshot::channel();
    world.core.command(Command::Collect { live_percent: 100, segments_max: 10, reply });
    world.core.settle();
    world.finish();
    assert!(collected.try_recv().unwrap().is_err(), "nothing is known to be dead");
    world.media[0].unreadable.set(None);
    world.restart();
    let read = world.try_read(1);
    assert!(read.is_ok(), "{read:?}");
}
