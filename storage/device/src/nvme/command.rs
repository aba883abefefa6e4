//! Commands as Linux takes them.

use crate::request::Operation;

/// Bytes of a command: `struct nvme_passthru_cmd` and `struct nvme_uring_cmd` are laid out alike (linux/nvme_ioctl.h).
const COMMAND_BYTES: usize = 72;

/// Bytes that an entry of a ring has for a command.
const ENTRY_BYTES: usize = 80;

/// Opcodes (NVMe Base Specification 2.0, section 5.17 and section 7.1; NVM Command Set Specification 1.0, section 3.2).
const IDENTIFY: u8 = 0x06;
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;

/// Those of zones, the actions that two of them take in command dword 13 (Zoned Namespace Command Set Specification 1.1,
/// section 3.4), and the number of that command set.
const ZONE_SEND: u8 = 0x79;
const ZONE_RECEIVE: u8 = 0x7a;
const ZONE_APPEND: u8 = 0x7d;
const RESET: u32 = 0x04;
/// All zones, as many as there is room for.
const REPORT_PARTLY: u32 = 1 << 16;
const ZONED: u32 = 2;

/// Of command dword 12: the drive makes protection information as it writes, and strips it as it reads.
const PRACT: u32 = 1 << 29;
/// The guard, a CRC of the block, is checked.
const CHECK_GUARD: u32 = 1 << 28;
/// The reference tag, the block's address, is checked.
const CHECK_REFERENCE: u32 = 1 << 26;
/// Force Unit Access: the write is durable when it is answered.
const FUA: u32 = 1 << 30;

/// One command of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command([u8; COMMAND_BYTES]);

/// Logical blocks of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first one's address.
    pub(super) start: u64,
    /// How many, at least one.
    pub(super) count: u32,
    /// Whether each has protection information of type 1 and no other metadata.
    pub(super) protected: bool,
}

impl Command {
    /// Identify, with the number of the structure that is asked for (NVMe Base Specification 2.0, section 5.17).
    pub(super) fn identify(namespace: u32, structure: u8) -> Self {
        let mut command = Self::new(IDENTIFY, namespace);
        command.dword(10, u32::from(structure));
        command
    }

    /// The same, of the zoned command set.
    pub(super) fn identify_zoned(namespace: u32, structure: u8) -> Self {
        let mut command = Self::identify(namespace, structure);
        command.dword(11, ZONED << 24);
        command
    }

    /// Writes logical blocks behind what the zone holds that begins with the first of them, durably.
    pub(super) fn append(namespace: u32, extent: Extent) -> Self {
        let mut command = Self::transfer(Operation::WriteDurable, namespace, extent);
        command.0[0] = ZONE_APPEND;
        command
    }

    /// Makes the zone empty that begins with a block.
    pub(super) fn reset_zone(namespace: u32, start: u64) -> Self {
        let mut command = Self::new(ZONE_SEND, namespace);
        command.address(start);
        command.dword(13, RESET);
        command
    }

    /// Reports zones from the one on that begins with a block, in so many bytes.
    pub(super) fn report_zones(namespace: u32, start: u64, bytes: u32) -> Self {
        let mut command = Self::new(ZONE_RECEIVE, namespace);
        command.address(start);
        // The count is that of the dwords after the first one.
        command.dword(12, bytes / 4 - 1);
        command.dword(13, REPORT_PARTLY);
        command
    }

    /// Makes durable what the namespace has in a volatile cache.
    pub(super) fn flush(namespace: u32) -> Self {
        Self::new(FLUSH, namespace)
    }

    /// Reads or writes logical blocks.
    pub(super) fn transfer(operation: Operation, namespace: u32, extent: Extent) -> Self {
        let mut command = Self::new(if operation == Operation::Read { READ } else { WRITE }, namespace);
        let low = command.address(extent.start);
        let durable = if operation == Operation::WriteDurable { FUA } else { 0 };
        let protection = if extent.protected { PRACT | CHECK_GUARD | CHECK_REFERENCE } else { 0 };
        // The count is that of the blocks after the first one.
        let further = extent.count.checked_sub(1).expect("a transfer has a block");
        assert!(further <= u32::from(u16::MAX), "a command transfers 65,536 blocks at most");
        command.dword(12, further | durable | protection);
        if extent.protected {
            // Type 1: the tag of the first block is the low half of its address.
            command.dword(14, low);
        }
        command
    }

    /// The memory to transfer: where it begins and its length in bytes.
    pub(super) fn with_data(mut self, start: *mut u8, bytes: u32) -> Self {
        self.put(24, &(start.expose_provenance() as u64).to_ne_bytes());
        self.put(36, &bytes.to_ne_bytes());
        self
    }

    /// How long the driver waits for the drive, in milliseconds.
    pub(super) fn with_timeout(mut self, milliseconds: u32) -> Self {
        self.put(64, &milliseconds.to_ne_bytes());
        self
    }

    /// As an argument of ioctl(2), which also writes to it.
    pub(super) fn argument(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// As an entry of a ring holds it.
    pub(super) fn entry(&self) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..COMMAND_BYTES].copy_from_slice(&self.0);
        entry
    }

    fn new(opcode: u8, namespace: u32) -> Self {
        let mut command = Self([0; COMMAND_BYTES]);
        command.0[0] = opcode;
        command.put(4, &namespace.to_ne_bytes());
        command
    }

    /// Sets the address of the first block; its low half.
    fn address(&mut self, start: u64) -> u32 {
        let [low, high] = [start & u64::from(u32::MAX), start >> 32]
            .map(|half| u32::try_from(half).expect("half of 64 bits is 32 bits"));
        self.dword(10, low);
        self.dword(11, high);
        low
    }

    /// Sets one of the dwords 10 to 15.
    fn dword(&mut self, number: usize, value: u32) {
        self.put(number * 4, &value.to_ne_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dwords of a command, those that are not zero, by number.
    fn dwords(command: &Command) -> Vec<(usize, u32)> {
        let words = command.0.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        words.enumerate().filter(|(_, word)| *word != 0).collect()
    }

    #[test]
    fn commands_are_laid_out_as_the_kernel_reads_them() {
        // The offsets of linux/nvme_ioctl.h: opcode 0, nsid 4, addr 24, data_len 36, cdw10 40, timeout_ms 64.
        let plain = Extent { start: 0x1_2345_6789, count: 8, protected: false };
        let start = std::ptr::without_provenance_mut(0x7fff_0000_1000);
        let read = Command::transfer(Operation::Read, 3, plain).with_data(start, 4096);
        let data = [(6, 0x0000_1000), (7, 0x7fff), (9, 4096)];
        let address = [(10, 0x2345_6789), (11, 1)];
        assert_eq!(dwords(&read), [&[(0, 0x02), (1, 3)][..], &data, &address, &[(12, 7)]].concat());
        let write = Command::transfer(Operation::Write, 3, plain);
        assert_eq!(dwords(&write), [&[(0, 0x01), (1, 3)][..], &address, &[(12, 7)]].concat());
        let durable = Command::transfer(Operation::WriteDurable, 3, plain);
        assert_eq!(dwords(&durable), [&[(0, 0x01), (1, 3)][..], &address, &[(12, 0x4000_0007)]].concat());
        assert_eq!(dwords(&Command::flush(3)), [(1, 3)]);
        assert_eq!(dwords(&Command::identify(3, 0).with_timeout(500)), [(0, 0x06), (1, 3), (16, 500)]);
        assert_eq!(dwords(&Command::identify(0, 1)), [(0, 0x06), (10, 1)]);
    }

    #[test]
    fn commands_of_zones_are_laid_out_as_the_drive_reads_them() {
        let extent = Extent { start: 0x1_0000_0400, count: 16, protected: false };
        let address = [(10, 0x400), (11, 1)];
        assert_eq!(
            dwords(&Command::append(4, extent)),
            [&[(0, 0x7d), (1, 4)][..], &address, &[(12, 0x4000_000f)]].concat()
        );
        assert_eq!(
            dwords(&Command::reset_zone(4, extent.start)),
            [&[(0, 0x79), (1, 4)][..], &address, &[(13, 4)]].concat()
        );
        let report = Command::report_zones(4, extent.start, 65_536);
        assert_eq!(dwords(&report), [&[(0, 0x7a), (1, 4)][..], &address, &[(12, 0x3fff), (13, 0x1_0000)]].concat());
        assert_eq!(dwords(&Command::identify_zoned(4, 5)), [(0, 0x06), (1, 4), (10, 5), (11, 0x0200_0000)]);
    }

    #[test]
    fn protected_blocks_are_made_and_checked_by_the_drive() {
        let extent = Extent { start: 0x1_2345_6789, count: 1, protected: true };
        for (operation, flags) in [(Operation::Read, 0x3400_0000), (Operation::WriteDurable, 0x7400_0000)] {
            let words = dwords(&Command::transfer(operation, 1, extent));
            let opcode = if operation == Operation::Read { 2 } else { 1 };
            let tag = 0x2345_6789;
            assert_eq!(words, [(0, opcode), (1, 1), (10, tag), (11, 1), (12, flags), (14, tag)]);
        }
    }

    #[test]
    fn an_entry_is_the_command_and_zeros() {
        let command = Command::transfer(Operation::Read, 1, Extent { start: 5, count: 65_536, protected: false });
        let entry = command.entry();
        assert_eq!((&entry[..72], &entry[72..]), (&command.0[..], &[0; 8][..]));
        assert_eq!(entry[48..52], 0xffff_u32.to_ne_bytes());
    }
}
