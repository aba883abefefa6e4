//! A new drive in the place of another: what that one held is made again from the others.

use std::collections::BTreeSet;

use super::Inner;
use super::repair::ScrubReport;
use super::write::ReadOnly;
use crate::format::Member;
use crate::{DriveState, StorageError};

impl Inner {
    /// Makes again on a drive that was admitted what it should hold. Records are put and read meanwhile.
    pub(super) async fn replace(&self, drive: usize) -> Result<ScrubReport, StorageError> {
        self.write_roster();
        self.tasks.until(|| self.roster.borrow().is_written().then_some(())).await;
        // What was on its way to the old drive is not on the new one; it is made again once it counts as written.
        let begun = self.writing.borrow().next_sequence;
        let landed = || self.writing.borrow().oldest_flight().is_none_or(|oldest| oldest >= begun);
        self.tasks.until(|| landed().then_some(())).await;
        self.rebuild(drive).await
    }

    /// Makes again what a drive should hold.
    pub(super) async fn rebuild(&self, drive: usize) -> Result<ScrubReport, StorageError> {
        let id = self.roster.borrow().members[drive].id;
        let mut report = ScrubReport::default();
        // Segments that are begun meanwhile have all their columns.
        let ids: Vec<u32> = self.segments.borrow().all.keys().copied().collect();
        for segment in ids {
            if self.roster.borrow().members[drive].id != id {
                return Err(StorageError::shape(format!("drive {drive} was replaced again")));
            }
            let concerned = {
                let segments = self.segments.borrow();
                let on_drive = |(number, _): &(u16, u32)| usize::from(*number) == drive;
                segments.all.get(&segment).is_some_and(|segment| segment.columns.iter().any(on_drive))
            };
            if concerned {
                self.scrub_segment(segment, &mut report).await;
            }
        }
        if self.roster.borrow().members[drive].id != id {
            return Err(StorageError::shape(format!("drive {drive} was replaced again")));
        }
        let state = self.roster.borrow().state(drive);
        if state != DriveState::Rebuilding {
            let reason = self.roster.borrow().reasons[drive].clone().unwrap_or_default();
            return Err(StorageError::Drive { drive, reason });
        }
        // What is lost is lost on all drives: it is no reason to do without this one.
        self.roster.borrow_mut().set(drive, DriveState::Sound);
        self.write_roster();
        self.tasks.until(|| self.roster.borrow().is_written().then_some(())).await;
        Ok(report)
    }

    /// Takes a new drive of `bytes` bytes in the place of drive `drive`. `was` is its id, if it was made for this store.
    pub(super) fn admit(
        &self,
        drive: usize,
        id: [u8; 16],
        was: Option<[u8; 16]>,
        bytes: u64,
    ) -> Result<(), StorageError> {
        let mut roster = self.roster.borrow_mut();
        let mut segments = self.segments.borrow_mut();
        if drive >= roster.members.len() {
            return Err(StorageError::shape(format!("there is no drive {drive}")));
        }
        let in_use = |member: &Member| member.state != DriveState::Failed && Some(member.id) == was;
        if let Some(other) = roster.members.iter().position(in_use) {
            return Err(StorageError::shape(format!("the device is drive {other} of this store, and in use")));
        }
        let weak = |(other, member): &(usize, &Member)| *other != drive && member.state != DriveState::Sound;
        let weak = roster.members.iter().enumerate().filter(weak).count();
        if weak >= self.shape.parity {
            // What is on this drive could not be made again.
            let parity = self.shape.parity;
            return Err(StorageError::shape(format!(
                "{weak} other drives are failed or not yet rebuilt, and with this one at most {parity} may be"
            )));
        }
        let slots = self.shape.slots(bytes);
        let taken: BTreeSet<u32> = segments
            .all
            .values()
            .flat_map(|segment| segment.columns.iter())
            .filter(|(number, _)| usize::from(*number) == drive)
            .map(|(_, slot)| *slot)
            .collect();
        let needed = taken.last().map_or(0, |slot| slot + 1);
        if slots < needed {
            return Err(StorageError::shape(format!("the drive has room for {slots} slots, and {needed} are in use")));
        }
        segments.slots[drive] = slots;
        segments.free[drive] = (0..slots).filter(|slot| !taken.contains(slot)).collect();
        roster.bytes[drive] = bytes;
        roster.members[drive].id = id;
        roster.reasons[drive] = None;
        roster.incarnations[drive] += 1;
        roster.set(drive, DriveState::Rebuilding);
        let usable = roster.usable();
        drop((roster, segments));
        let mut writing = self.writing.borrow_mut();
        if usable >= self.drives_needed() && matches!(writing.read_only, Some(ReadOnly::TooFewDrives(_))) {
            writing.read_only = None;
            self.observing.set(false);
        }
        Ok(())
    }

    /// Drives without which nothing is written: one more than it takes to read, where there is parity at all, and more than
    /// half, so that the others cannot go on by themselves.
    pub(super) fn drives_needed(&self) -> usize {
        let drives = self.roster.borrow().members.len();
        let spare = self.shape.parity.saturating_sub(1);
        (drives - spare).max(drives / 2 + 1)
    }
}
