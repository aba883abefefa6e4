//! Fields of a header, one behind the other, in a block that sums up.

use super::{BLOCK_BYTES, checksum};

/// Where the checksum of a block lies: at its end, over all before it.
const SUM_AT: usize = BLOCK_BYTES - 4;

/// Writes fields into a block.
pub(super) struct Writer<'b> {
    block: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    /// A writer of a block, which begins with `magic`.
    pub(super) fn new(block: &'b mut [u8], magic: [u8; 8]) -> Self {
        assert_eq!(block.len(), BLOCK_BYTES, "a header is a block");
        block.fill(0);
        let mut writer = Self { block, at: 0 };
        writer.bytes(&magic);
        writer
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        assert!(end <= SUM_AT, "the fields of a header fit into a block");
        self.block[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Sums the block up.
    pub(super) fn finish(self) {
        let sum = checksum(&self.block[..SUM_AT]);
        self.block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads fields of a block. Past the end there are zeros: what is made of them fails the checks of whoever reads.
pub(super) struct Reader<'b> {
    block: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    /// A reader of a block that begins with `magic` and sums up; none of any other.
    pub(super) fn new(block: &'b [u8], magic: [u8; 8]) -> Option<Self> {
        let block = block.get(..BLOCK_BYTES)?;
        let (fields, sum) = block.split_at(SUM_AT);
        let sound = fields.starts_with(&magic) && sum == checksum(fields).to_le_bytes();
        sound.then_some(Self { block: fields, at: magic.len() })
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.block.get(self.at..).and_then(|rest| rest.first_chunk()).copied();
        self.at += N;
        bytes.unwrap_or([0; N])
    }

    pub(super) fn u8(&mut self) -> u8 {
        let [value] = self.bytes();
        value
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}
