//! The drives of a store, and what they are good for.

use stele_device::{DeviceError, Request};

use super::Inner;
use super::write::ReadOnly;
use crate::DriveState;
use crate::format::{Member, SUPERBLOCK_COPIES, Superblock, superblock_offsets};

/// Numbers of segments that are taken at a time: far more than are begun while the superblocks are written.
const SEGMENTS_AT_ONCE: u32 = 1 << 12;

/// A drive that was asked for something, told from those in its place before and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) drive: usize,
    incarnation: u32,
}

/// The newest superblock, as it is in memory.
pub(super) struct Roster {
    pub(super) epoch: u64,
    pub(super) members: Vec<Member>,
    /// Bytes of each drive.
    pub(super) bytes: Vec<u64>,
    generation: u64,
    /// Segments may be numbered up to this.
    segments: u32,
    /// The generation that the sound drives have.
    written: u64,
    /// A task writes.
    writing: bool,
    /// What was last said by drives that failed.
    pub(super) reasons: Vec<Option<String>>,
    /// How many drives were in each place since the store was opened: what one of them still answers is not said of the next.
    pub(super) incarnations: Vec<u32>,
}

impl Roster {
    pub(super) fn new(superblock: &Superblock, bytes: Vec<u64>) -> Self {
        let Superblock { generation, epoch, members, segments, .. } = superblock.clone();
        let (reasons, incarnations) = (vec![None; members.len()], vec![0; members.len()]);
        Self { epoch, members, bytes, generation, segments, written: generation, writing: false, reasons, incarnations }
    }

    /// A drive that is about to be asked for something.
    pub(super) fn asked(&self, drive: usize) -> Asked {
        Asked { drive, incarnation: self.incarnations[drive] }
    }

    /// Counts as written what is only in memory: of a store that is looked at.
    pub(super) fn leave_unwritten(&mut self) {
        self.written = self.generation;
    }

    pub(super) fn state(&self, drive: usize) -> DriveState {
        self.members[drive].state
    }

    pub(super) fn set(&mut self, drive: usize, state: DriveState) {
        self.members[drive].state = state;
        self.generation += 1;
    }

    /// Takes numbers for segments, and says from which on.
    pub(super) fn reserve_segments(&mut self) -> u32 {
        let from = self.segments;
        self.segments = from.saturating_add(SEGMENTS_AT_ONCE);
        self.generation += 1;
        from
    }

    /// Whether so few numbers are left that more should be taken.
    pub(super) fn wants_segments(&self, next: u32) -> bool {
        next > self.segments.saturating_sub(SEGMENTS_AT_ONCE / 2)
    }

    /// Makes what is in memory newer than what the drives have.
    pub(super) fn renew(&mut self) {
        self.generation += 1;
    }

    /// Whether the drives know what is in memory.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.generation
    }

    /// Drives that are not failed.
    pub(super) fn usable(&self) -> usize {
        self.members.iter().filter(|member| member.state != DriveState::Failed).count()
    }
}

impl Inner {
    /// A drive failed to write: it is out of the store, and the others are told before anything counts on it.
    ///
    /// A drive that failed a write or a flush may have lost what it had promised before (Rebello et al., "Can applications
    /// recover from fsync failures?", USENIX ATC 2020), so it is not asked to try again.
    pub(super) fn fail_drive(&self, Asked { drive, incarnation }: Asked, error: &DeviceError) {
        {
            let mut roster = self.roster.borrow_mut();
            if roster.state(drive) == DriveState::Failed || roster.incarnations[drive] != incarnation {
                return;
            }
            roster.set(drive, DriveState::Failed);
            roster.reasons[drive] = Some(error.to_string());
        }
        self.check_drives();
        self.write_roster();
    }

    /// Writes nothing any more if too few drives are left to keep it.
    pub(super) fn check_drives(&self) {
        let (usable, needed) = (self.roster.borrow().usable(), self.drives_needed());
        if usable < needed {
            self.writing.borrow_mut().read_only.get_or_insert(ReadOnly::TooFewDrives(format!(
                "{usable} drives are left, and {needed} are needed to keep what is written"
            )));
        }
    }

    /// Has the superblocks written, unless that is going on.
    pub(super) fn write_roster(&self) {
        if self.observing.get() {
            self.roster.borrow_mut().leave_unwritten();
            return;
        }
        if std::mem::replace(&mut self.roster.borrow_mut().writing, true) {
            return;
        }
        let shared = self.handle();
        self.tasks.spawn(async move {
            while !shared.roster.borrow().is_written() {
                shared.write_superblocks().await;
            }
            shared.roster.borrow_mut().writing = false;
            shared.tasks.touch();
            shared.acknowledge();
        });
    }

    /// Writes the superblock as it is now to all drives that are not failed.
    pub(super) async fn write_superblocks(&self) {
        let (superblock, bytes) = {
            let roster = self.roster.borrow();
            (roster.superblock(&self.shape), roster.bytes.clone())
        };
        // One copy after the other: a crash meanwhile leaves the others whole.
        for copy in 0..SUPERBLOCK_COPIES {
            let mut begun = Vec::with_capacity(bytes.len());
            for (drive, bytes) in bytes.iter().enumerate() {
                if self.roster.borrow().state(drive) == DriveState::Failed {
                    continue;
                }
                let mut block = self.block().await;
                let drive_number = u16::try_from(drive).expect("few drives");
                Superblock { drive: drive_number, ..superblock.clone() }.encode(&mut block);
                let request = Request::write_durable(superblock_offsets(*bytes)[copy], block);
                let asked = self.roster.borrow().asked(drive);
                begun.push((asked, self.ports.begin(drive, request)));
            }
            for (asked, begun) in begun {
                if let Err(error) = self.ports.answer(&self.tasks, begun).await.result {
                    self.fail_drive(asked, &error);
                }
            }
        }
        self.roster.borrow_mut().written = superblock.generation;
    }
}

impl Roster {
    fn superblock(&self, shape: &super::Shape) -> Superblock {
        Superblock {
            generation: self.generation,
            store: shape.store,
            epoch: self.epoch,
            drive: 0,
            data: u8::try_from(shape.data).expect("few columns"),
            parity: u8::try_from(shape.parity).expect("few columns"),
            hash: shape.hash,
            slot_blocks: shape.slot_blocks,
            segments: self.segments,
            members: self.members.clone(),
        }
    }
}
