//! A batch while records are put into it, and what becomes of it when it is closed.

use stele_device::{Buffer, BufferPool};
use tokio::sync::OwnedSemaphorePermit;

use super::roster::Roster;
use super::segment::Segment;
use super::{Queued, Reply, Shape, Turn};
use crate::erasure::ErasureCode;
use crate::format::{
    BLOCK_BYTES, CELL_BLOCKS_MAX, CellHeader, DIRECTORY_ENTRY_BYTES, Directory, ENTRIES_MAX, Entry, Kind, SlotHeader,
    Stage, UNIT_BYTES, checksum, sums,
};
use crate::location::Location;

/// Bytes of a buffer that holds the longest cell, and before its header that of its slot, which goes with the first cell.
pub(crate) const CELL_BUFFER_BYTES: usize = (2 + CELL_BLOCKS_MAX) * BLOCK_BYTES;

/// Columns of records, and the buffers that their parity will take: a batch that could be begun can be closed.
pub(super) struct Batch {
    pub(super) segment: u32,
    /// The block of the slots in which the cells begin.
    start: u32,
    /// Blocks before the cell's header in a buffer.
    lead: usize,
    /// Blocks that a cell may have behind its header.
    room: usize,
    columns: Vec<Option<Column>>,
    parity: Vec<Buffer>,
    /// The column that is filled first: another one in each batch, so that small batches wear all drives.
    first: usize,
    /// Somebody waits for a record in it.
    pub(super) urgent: bool,
    /// The newest segment that one of its tombstones is needed for, if it has nothing but such as were carried on.
    carried: Option<u32>,
    pub(super) records: Vec<Record>,
}

struct Column {
    buffer: Buffer,
    /// Bytes behind the header that are taken.
    filled: usize,
    entries: Vec<Entry>,
}

/// A record on its way.
pub(super) struct Record {
    pub(super) key: [u8; 32],
    pub(super) location: Location,
    pub(super) bytes: usize,
    pub(super) reply: Reply<()>,
    /// Returned when it is answered.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
    /// The next write to the key waits for it.
    pub(super) _turn: Option<Turn>,
}

/// A closed batch.
pub(super) struct Closed {
    /// The buffer of each column that is to be written, and where it goes within the column's slot, in blocks.
    pub(super) cells: Vec<(usize, Buffer)>,
    pub(super) start: u32,
    /// Blocks that the batch takes of each slot.
    pub(super) blocks: u32,
    /// See [`Batch::carried`].
    pub(super) carried: Option<u32>,
    pub(super) records: Vec<Record>,
}

impl Batch {
    /// A batch at the end of a segment. None if there are no buffers for it, or no room in the segment for a record of
    /// `bytes`.
    pub(super) fn begin(shape: &Shape, segment: (u32, &Segment), first: usize, pool: &BufferPool) -> Option<Self> {
        let (id, segment) = segment;
        let parity = (0..shape.parity).map(|_| pool.try_take()).collect::<Option<Vec<_>>>()?;
        let buffer = pool.try_take()?;
        let lead = usize::from(segment.is_empty());
        let mut columns: Vec<Option<Column>> = (0..shape.data).map(|_| None).collect();
        columns[first] = Some(Column { buffer, filled: 0, entries: Vec::new() });
        let room = segment.room(shape).min(CELL_BLOCKS_MAX);
        Some(Self {
            segment: id,
            start: segment.used,
            lead,
            room,
            columns,
            parity,
            first,
            urgent: false,
            carried: Some(0),
            records: Vec::new(),
        })
    }

    /// Takes a record, or gives it back: there is no room for it in any column, or no buffer for another column.
    pub(super) fn add(&mut self, queued: Queued, pool: &BufferPool) -> Option<Queued> {
        let put = &queued.put;
        let count = self.columns.len();
        let filled = |column: &Option<Column>| column.as_ref().map_or(0, |column| column.filled);
        let order = (0..count).map(|step| (self.first + step) % count);
        // A tombstone has no bytes to spread.
        let candidate = match put.kind {
            Kind::Tombstone => order
                .filter(|column| self.columns[*column].is_some())
                .min_by_key(|column| self.columns[*column].as_ref().map_or(0, |column| column.entries.len())),
            _ => order.min_by_key(|column| filled(&self.columns[*column])),
        };
        let Some(at) = candidate else { return Some(queued) };
        let (slot, fits) = (&mut self.columns[at], self.room);
        let column = match slot {
            Some(column) => column,
            None => {
                let Some(buffer) = pool.try_take() else { return Some(queued) };
                slot.insert(Column { buffer, filled: 0, entries: Vec::new() })
            }
        };
        let alignment = if put.bytes.len() < BLOCK_BYTES { UNIT_BYTES } else { BLOCK_BYTES };
        let offset = column.filled.next_multiple_of(alignment);
        let end = offset + put.bytes.len();
        let entries = column.entries.len() + 1;
        let directory = (entries * DIRECTORY_ENTRY_BYTES).div_ceil(BLOCK_BYTES);
        if end.div_ceil(BLOCK_BYTES) + directory > fits || entries > ENTRIES_MAX {
            return Some(queued);
        }
        let Queued { put, turn } = queued;
        self.urgent |= put.urgent;
        let is_carried = put.moved && put.kind == Kind::Tombstone;
        self.carried = self.carried.filter(|_| is_carried).map(|ends| ends.max(put.ends));
        let data = (self.lead + 1) * BLOCK_BYTES;
        // What lies between two records is whatever the buffer held before: it is summed and coded as it is, but nothing of
        // another record should outlive it there.
        column.buffer[data + column.filled..data + offset].fill(0);
        column.buffer[data + offset..data + end].copy_from_slice(&put.bytes);
        column.filled = end;
        let [offset, bytes] = [offset, put.bytes.len()].map(|at| u32::try_from(at).expect("inside a cell"));
        column.entries.push(Entry {
            key: put.key,
            kind: put.kind,
            offset,
            bytes,
            sum: put.sum,
            time_ms: put.time_ms,
            ends: put.ends,
        });
        let column = u8::try_from(at).expect("few columns");
        let location =
            Location { segment: self.segment, start: self.start, column, offset, bytes, sum: put.sum, kind: put.kind };
        self.records.push(Record {
            key: put.key,
            location,
            bytes: put.bytes.len(),
            reply: put.reply,
            _turn: turn,
            _permit: put.permit,
        });
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Makes cells of the columns: directories, parity and headers.
    pub(super) fn close(
        self,
        shape: &Shape,
        code: &ErasureCode,
        roster: &Roster,
        segment: &Segment,
        sequence: u64,
    ) -> Closed {
        let Self { segment: id, start, lead, columns, parity, carried, records, .. } = self;
        let data = (lead + 1) * BLOCK_BYTES;
        let directory_blocks = |column: &Column| (column.entries.len() * DIRECTORY_ENTRY_BYTES).div_ceil(BLOCK_BYTES);
        let blocks = columns
            .iter()
            .flatten()
            .map(|column| column.filled.div_ceil(BLOCK_BYTES) + directory_blocks(column))
            .max()
            .expect("a batch that is closed has a record");
        let end = data + blocks * BLOCK_BYTES;

        let mut directories = Vec::with_capacity(columns.len());
        let mut listed: Vec<Vec<Entry>> = Vec::with_capacity(shape.columns());
        let mut buffers: Vec<Option<Buffer>> = Vec::with_capacity(shape.columns());
        for column in columns {
            let Some(Column { mut buffer, filled, entries }) = column else {
                directories.push(Directory::default());
                listed.push(Vec::new());
                buffers.push(None);
                continue;
            };
            let at = filled.next_multiple_of(BLOCK_BYTES);
            buffer[data + filled..end].fill(0);
            let listing = &mut buffer[data + at..][..entries.len() * DIRECTORY_ENTRY_BYTES];
            for (entry, into) in entries.iter().zip(listing.chunks_exact_mut(DIRECTORY_ENTRY_BYTES)) {
                entry.encode(into);
            }
            directories.push(Directory {
                block: u16::try_from(at / BLOCK_BYTES).expect("inside a cell"),
                entries: u16::try_from(entries.len()).expect("few entries"),
                sum: checksum(listing),
            });
            listed.push(entries);
            buffers.push(Some(buffer));
        }
        listed.resize_with(shape.columns(), Vec::new);
        buffers.extend(parity.into_iter().map(Some));
        encode_parity(shape, code, &mut buffers, data..end);

        let written = (0..).zip(&buffers).filter(|(_, buffer)| buffer.is_some()).fold(0, |all, (at, _)| all | 1 << at);
        let mut header = CellHeader {
            store: shape.store,
            drive: 0,
            slot: 0,
            start,
            segment: id,
            epoch: segment.epoch,
            batch: segment.batches,
            sequence,
            durable: segment.durable,
            column: 0,
            written,
            blocks: u16::try_from(blocks).expect("a cell is bounded"),
            directories,
            sums: Vec::new(),
        };
        let mut cells = Vec::with_capacity(buffers.len());
        for (at, buffer) in buffers.into_iter().enumerate() {
            let Some(mut buffer) = buffer else { continue };
            let (drive, slot) = segment.columns[at];
            sums(&buffer[data..end], &listed[at], &mut header.sums);
            header.column = u8::try_from(at).expect("few columns");
            (header.drive, header.slot) = (drive, slot);
            header.encode(&mut buffer[lead * BLOCK_BYTES..][..BLOCK_BYTES]);
            if lead == 1 {
                segment.header(shape, roster, id, at, Stage::Open).encode(&mut buffer[..BLOCK_BYTES]);
            }
            cells.push((at, buffer.with_length(end)));
        }
        Closed { cells, start, blocks: u32::try_from(blocks + 1).expect("a cell is bounded"), carried, records }
    }
}

/// Makes the parity of the columns; those that hold nothing count as zeros.
fn encode_parity(shape: &Shape, code: &ErasureCode, buffers: &mut [Option<Buffer>], range: std::ops::Range<usize>) {
    if shape.parity == 0 {
        return;
    }
    let (data, parity) = buffers.split_at_mut(shape.data);
    let inputs: Vec<&[u8]> =
        data.iter().map(|column| column.as_ref().map_or(zeros(range.len()), |column| &column[range.clone()])).collect();
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().flatten().map(|column| &mut column[range.clone()]).collect();
    code.encode(&inputs, &mut outputs);
}

/// So many zeros: what a column holds that was not written.
pub(super) fn zeros(bytes: usize) -> &'static [u8] {
    static ZEROS: [u8; CELL_BLOCKS_MAX * BLOCK_BYTES] = [0; CELL_BLOCKS_MAX * BLOCK_BYTES];
    &ZEROS[..bytes]
}

impl Segment {
    /// The header of the slot of one of its columns.
    pub(super) fn header(&self, shape: &Shape, roster: &Roster, id: u32, column: usize, stage: Stage) -> SlotHeader {
        let (drive, slot) = self.columns[column];
        SlotHeader {
            store: shape.store,
            member: roster.members[usize::from(drive)].id,
            drive,
            slot,
            segment: id,
            epoch: self.epoch,
            stage,
            group: self.group,
            column: u8::try_from(column).expect("few columns"),
            columns: self.columns.to_vec(),
        }
    }
}
