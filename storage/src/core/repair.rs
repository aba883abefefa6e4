//! All columns of a batch side by side: what is damaged in one is made again from the others.

use std::ops::Range;
use std::sync::PoisonError;

use stele_device::{Buffer, Request};
use tokio::sync::oneshot;

use super::cold::KnownCell;
use super::workbench::Place;
use super::write::unless_empty;
use super::{Inner, ports};
use crate::erasure::ErasureCode;
use crate::format::{BLOCK_BYTES, CellHeader, DIRECTORY_ENTRY_BYTES, Entry, Kind, SUM_BYTES, SlotHeader, Stage, sums};
use crate::location::Location;
use crate::object::{upload_key, upload_of, upload_of_manifest};
use crate::{DriveState, StorageError};

use super::batch::zeros;
use super::segment::Segment;

/// Uploads that are older are not going on any more, in milliseconds.
const UPLOAD_AGE_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// What a scrub has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Segments that were read.
    pub segments: u64,
    /// Batches that were read.
    pub batches: u64,
    /// Bytes of their cells.
    pub bytes: u64,
    /// Cells that were damaged or missing, and were written again.
    pub repaired: u64,
    /// Batches of which too little is left to make the rest again.
    pub lost: u64,
    /// Parts of uploads that came to nothing, and were removed.
    pub orphans: u64,
    /// The segment to go on with, if there is one.
    pub next: Option<u32>,
}

impl ScrubReport {
    /// Adds what was found later.
    pub fn add(&mut self, later: &Self) {
        self.segments += later.segments;
        self.batches += later.batches;
        self.bytes += later.bytes;
        self.repaired += later.repaired;
        self.lost += later.lost;
        self.orphans += later.orphans;
        self.next = later.next;
    }
}

/// A part of each column of a batch.
pub(super) struct Batchwise {
    /// The header of any column: what it says of the batch is the same in all of them.
    pub(super) header: CellHeader,
    columns: Vec<Column>,
    /// The pieces that were read, and where behind the headers they begin.
    pieces: Range<usize>,
    begin: usize,
    /// Bytes before them in each buffer.
    lead: usize,
}

enum Column {
    /// Was never written, and counts as zeros.
    Unwritten,
    /// Cannot be read, or says nothing of itself.
    Lost,
    /// Was read; for each piece, whether it is as it was written.
    Read { buffer: Buffer, sound: Vec<bool> },
}

impl Batchwise {
    /// Reads what all columns have of the pieces in which `range` lies, in bytes behind their headers.
    pub(super) async fn read_range(
        inner: &Inner,
        place: &Place<'_>,
        segment: u32,
        start: u32,
        range: Range<usize>,
    ) -> Result<Self, StorageError> {
        let pieces = range.start / SUM_BYTES..range.end.div_ceil(SUM_BYTES);
        Self::read(inner, place, segment, start, Some(pieces)).await
    }

    /// Reads the cells of all columns, headers included.
    pub(super) async fn read_whole(
        inner: &Inner,
        place: &Place<'_>,
        segment: u32,
        start: u32,
    ) -> Result<Self, StorageError> {
        Self::read(inner, place, segment, start, None).await
    }

    async fn read(
        inner: &Inner,
        place: &Place<'_>,
        id: u32,
        start: u32,
        pieces: Option<Range<usize>>,
    ) -> Result<Self, StorageError> {
        let damaged = StorageError::Damaged { segment: id, sound: 0, needed: inner.shape.data };
        let Some(segment) = inner.segments.borrow().all.get(&id).cloned() else { return Err(StorageError::NotFound) };
        let headers = inner.cell_headers(id, &segment, start).await;
        let Some(header) = agreed(&headers) else { return Err(damaged) };
        let (lead, pieces) = match pieces {
            Some(pieces) => (0, pieces.start..pieces.end.min(header.sums.len())),
            None => (BLOCK_BYTES, 0..header.sums.len()),
        };
        if pieces.is_empty() {
            return Err(damaged);
        }
        let begin = header.piece(pieces.start).start;
        let bytes = header.piece(pieces.end - 1).end - begin;
        let block = start + u32::try_from((BLOCK_BYTES + begin - lead) / BLOCK_BYTES).expect("inside a slot");

        let mut begun = Vec::with_capacity(segment.columns.len());
        for (column, (drive, slot)) in segment.columns.iter().enumerate() {
            let drive = usize::from(*drive);
            let written = header.is_written(column);
            let known = headers[column].as_ref().is_some_and(|own| own.is_beside(&header));
            if !written || !known || inner.roster.borrow().state(drive) == DriveState::Failed {
                begun.push(Err(if written { Column::Lost } else { Column::Unwritten }));
                continue;
            }
            let buffer = place.buffer().with_length(lead + bytes);
            let request = Request::read(inner.shape.offset(*slot, block), buffer);
            begun.push(Ok(inner.ports.begin(drive, request)));
        }
        let mut columns = Vec::with_capacity(begun.len());
        for (at, begun) in begun.into_iter().enumerate() {
            let column = match begun {
                Err(column) => column,
                Ok(begun) => {
                    let completed = inner.ports.answer(&inner.tasks, begun).await;
                    let own = headers[at].as_ref().expect("only a column with a header was read");
                    match ports::read(completed) {
                        Some(buffer) => {
                            let sound = pieces
                                .clone()
                                .map(|piece| {
                                    let Range { start, end } = own.piece(piece);
                                    own.is_sound(piece, &buffer[lead + start - begin..lead + end - begin])
                                })
                                .collect();
                            Column::Read { buffer, sound }
                        }
                        None => inner.read_by_piece(place, &segment, (at, own), (lead, block), &pieces).await,
                    }
                }
            };
            columns.push(column);
        }
        Ok(Self { header, columns, pieces, begin, lead })
    }

    /// Whether every piece can be told or made.
    pub(super) fn is_whole(&self, data: usize) -> bool {
        self.pieces.clone().all(|piece| self.sound(piece).count() >= data)
    }

    /// Copies bytes of a column, in bytes behind its header, making again what is damaged; or says how few columns are
    /// sound where too few are.
    pub(super) fn copy(
        &self,
        code: &ErasureCode,
        column: usize,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), usize> {
        let read = self.begin..self.begin + self.header.piece(self.pieces.end - 1).end - self.begin;
        if range.start < read.start || range.end > read.end {
            // What is asked for lies in no cell of this batch.
            return Err(0);
        }
        let mut at = range.start;
        while at < range.end {
            let piece = at / SUM_BYTES;
            let end = range.end.min((piece + 1) * SUM_BYTES);
            self.make(code, column, piece, at..end, &mut into[at - range.start..end - range.start])?;
            at = end;
        }
        Ok(())
    }

    /// Makes a part of one piece of a column.
    fn make(
        &self,
        code: &ErasureCode,
        column: usize,
        piece: usize,
        range: Range<usize>,
        into: &mut [u8],
    ) -> Result<(), usize> {
        let sound: Vec<usize> = self.sound(piece).collect();
        if sound.contains(&column) {
            into.copy_from_slice(self.bytes(column, range));
            return Ok(());
        }
        let Some(inputs) = sound.get(..code.data_shards()) else { return Err(sound.len()) };
        let decoder = code.decoder(inputs, &[column]).map_err(|_| sound.len())?;
        let shards: Vec<&[u8]> = decoder.inputs().iter().map(|input| self.bytes(*input, range.clone())).collect();
        decoder.apply(&shards, &mut [into]);
        Ok(())
    }

    /// Columns of which a piece is known.
    fn sound(&self, piece: usize) -> impl Iterator<Item = usize> {
        let at = piece - self.pieces.start;
        self.columns.iter().enumerate().filter_map(move |(number, column)| match column {
            Column::Unwritten => Some(number),
            Column::Lost => None,
            Column::Read { sound, .. } => sound[at].then_some(number),
        })
    }

    /// Bytes of a column as they were read, in bytes behind its header.
    fn bytes(&self, column: usize, range: Range<usize>) -> &[u8] {
        match &self.columns[column] {
            Column::Read { buffer, .. } => {
                &buffer[self.lead + range.start - self.begin..self.lead + range.end - self.begin]
            }
            Column::Unwritten | Column::Lost => zeros(range.len()),
        }
    }

    /// Columns that were written and are not as they were.
    fn damaged(&self) -> Vec<usize> {
        let damaged = |column: &Column| match column {
            Column::Unwritten => false,
            Column::Lost => true,
            Column::Read { sound, .. } => !sound.iter().all(|sound| *sound),
        };
        (0..self.columns.len()).filter(|column| damaged(&self.columns[*column])).collect()
    }
}

impl Inner {
    /// The headers of the cells that begin at a block of a segment's slots; none where there is no such cell.
    pub(super) async fn cell_headers(&self, id: u32, segment: &Segment, start: u32) -> Vec<Option<CellHeader>> {
        let mut begun = Vec::with_capacity(segment.columns.len());
        for (drive, slot) in &segment.columns {
            let number = usize::from(*drive);
            if self.roster.borrow().state(number) == DriveState::Failed || start >= self.shape.slot_blocks {
                begun.push(None);
                continue;
            }
            let block = self.block().await;
            begun.push(Some(self.ports.begin(number, Request::read(self.shape.offset(*slot, start), block))));
        }
        let mut headers = Vec::with_capacity(begun.len());
        for (at, (begun, (drive, slot))) in begun.into_iter().zip(&segment.columns).enumerate() {
            let Some(begun) = begun else {
                headers.push(None);
                continue;
            };
            let block = ports::read(self.ports.answer(&self.tasks, begun).await);
            if block.is_none() {
                self.refused.set(self.refused.get() + 1);
            }
            let header = block.and_then(|block| CellHeader::decode(&block, &self.shape.store, *drive, *slot, start));
            headers.push(header.filter(|header| {
                let inside = start + 1 + u32::from(header.blocks) <= self.shape.slot_blocks;
                let shaped = header.directories.len() == self.shape.data;
                let here = (header.segment, header.epoch) == (id, segment.epoch) && usize::from(header.column) == at;
                inside && shaped && here
            }));
        }
        headers
    }

    /// Reads a cell piece by piece after the drive refused to read it at once: a sector that is gone takes one piece with it.
    async fn read_by_piece(
        &self,
        place: &Place<'_>,
        segment: &Segment,
        (column, header): (usize, &CellHeader),
        (lead, block): (usize, u32),
        pieces: &Range<usize>,
    ) -> Column {
        let (drive, slot) = segment.columns[column];
        let drive = usize::from(drive);
        let mut buffer = place.buffer();
        buffer.fill(0);
        let begin = header.piece(pieces.start).start;
        let first = block + u32::try_from(lead / BLOCK_BYTES).expect("a block or none");
        let mut sound = Vec::with_capacity(pieces.len());
        // The place's own: whoever waits for a place may hold those for reading.
        let mut spare = Some(place.buffer());
        for piece in pieces.clone() {
            let Range { start, end } = header.piece(piece);
            let at = first + u32::try_from((start - begin) / BLOCK_BYTES).expect("inside a slot");
            let Some(into) = spare.take() else {
                sound.push(false);
                continue;
            };
            let request = Request::read(self.shape.offset(slot, at), into.with_length(end - start));
            let completed = self.ports.answer(&self.tasks, self.ports.begin(drive, request)).await;
            let read = completed.result.is_ok();
            let good = completed.buffer.as_ref().is_some_and(|bytes| read && header.is_sound(piece, bytes));
            sound.push(good);
            if let Some(bytes) = &completed.buffer
                && good
            {
                buffer[lead + start - begin..lead + end - begin].copy_from_slice(bytes);
            }
            spare = completed.buffer;
        }
        Column::Read { buffer, sound }
    }

    /// Writes again what is damaged of a batch. The batch's header, and how many cells were written.
    pub(super) async fn mend(&self, id: u32, start: u32) -> Result<(CellHeader, u64), StorageError> {
        let place = self.place_at_workbench().await;
        let Some(_pin) = self.pin(id) else { return Err(StorageError::NotFound) };
        let mut cells = Batchwise::read_whole(self, &place, id, start).await?;
        let damaged = cells.damaged();
        let written = self.write_columns(&place, (id, start), &mut cells, damaged).await?;
        Ok((cells.header, written))
    }

    /// Writes again what is damaged of a batch, of which other cells are known to be right: those of its data columns.
    pub(super) async fn write_from(&self, id: u32, known: &[KnownCell<'_>]) -> Result<u64, StorageError> {
        let place = self.place_at_workbench().await;
        let Some(_pin) = self.pin(id) else { return Err(StorageError::NotFound) };
        let Some(KnownCell { header, .. }) = known.first() else { return Err(StorageError::NotFound) };
        let start = header.start;
        let mut damaged = {
            let written = (0..self.shape.columns()).filter(|column| header.is_written(*column)).collect();
            let whole = Batchwise::read_whole(self, &place, id, start).await;
            whole.ok().filter(|cells| cells.header.is_beside(header)).map_or(written, |cells| cells.damaged())
        };
        // Parity first: it is made of all the others.
        damaged.reverse();
        let mut columns: Vec<Column> = (0..self.shape.columns())
            .map(|column| if header.is_written(column) { Column::Lost } else { Column::Unwritten })
            .collect();
        let pieces = 0..header.sums.len();
        for KnownCell { column, content, .. } in known {
            let mut buffer = place.buffer();
            buffer[BLOCK_BYTES..BLOCK_BYTES + content.len()].copy_from_slice(content);
            columns[*column] = Column::Read { buffer, sound: vec![true; pieces.len()] };
        }
        let mut cells = Batchwise { header: header.clone(), columns, pieces, begin: 0, lead: BLOCK_BYTES };
        self.write_columns(&place, (id, start), &mut cells, damaged).await
    }

    /// Writes columns of a batch again: what is sound of them as it is, and the rest as the others make it.
    async fn write_columns(
        &self,
        place: &Place<'_>,
        (id, start): (u32, u32),
        cells: &mut Batchwise,
        columns: Vec<usize>,
    ) -> Result<u64, StorageError> {
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return Err(StorageError::NotFound) };
        let mut written = 0;
        for column in columns {
            let (drive, slot) = segment.columns[column];
            let number = usize::from(drive);
            if self.roster.borrow().state(number) == DriveState::Failed || self.observing.get() {
                continue;
            }
            let bytes = cells.header.bytes();
            // Lost columns hold no buffer, and a damaged one's is put aside to be read from.
            let mut cell = match std::mem::replace(&mut cells.columns[column], Column::Lost) {
                Column::Read { mut buffer, sound } => {
                    for (piece, sound) in cells.pieces.clone().zip(sound) {
                        if sound {
                            continue;
                        }
                        let range = cells.header.piece(piece);
                        let at = BLOCK_BYTES + range.start..BLOCK_BYTES + range.end;
                        self.made(cells, column, range, &mut buffer[at])?;
                    }
                    buffer
                }
                Column::Lost | Column::Unwritten => {
                    let mut buffer = place.buffer();
                    self.made(cells, column, 0..bytes, &mut buffer[BLOCK_BYTES..BLOCK_BYTES + bytes])?;
                    buffer
                }
            };
            cell = cell.with_length(BLOCK_BYTES + bytes);
            let mut header = cells.header.clone();
            (header.drive, header.slot, header.column) = (drive, slot, u8::try_from(column).expect("few columns"));
            sums(&cell[BLOCK_BYTES..], &[], &mut header.sums);
            header.encode(&mut cell[..BLOCK_BYTES]);
            let asked = self.roster.borrow().asked(number);
            let begun = self.ports.begin(number, Request::write_durable(self.shape.offset(slot, start), cell));
            let completed = self.ports.answer(&self.tasks, begun).await;
            match completed.result {
                Ok(()) => {
                    written += 1;
                    self.counters.borrow_mut().repaired += 1;
                }
                Err(error) => self.fail_drive(asked, &error),
            }
        }
        Ok(written)
    }

    fn made(&self, cells: &Batchwise, column: usize, range: Range<usize>, into: &mut [u8]) -> Result<(), StorageError> {
        let made = cells.copy(&self.code, column, range, into);
        made.map_err(|sound| {
            self.counters.borrow_mut().lost += 1;
            StorageError::Damaged { segment: cells.header.segment, sound, needed: self.shape.data }
        })
    }

    /// Reads so many segments from `from` on, and mends what is damaged.
    pub(super) async fn scrub(&self, from: u32, segments_max: usize, now_ms: u64) -> ScrubReport {
        let mut report = ScrubReport::default();
        let mut ids: Vec<u32> =
            self.segments.borrow().all.range(from..).map(|(id, _)| *id).take(segments_max.saturating_add(1)).collect();
        report.next = (ids.len() > segments_max).then(|| ids.pop()).flatten();
        for id in ids {
            self.scrub_segment(id, &mut report).await;
            self.remove_orphans(id, now_ms, &mut report).await;
        }
        report
    }

    /// Removes parts of uploads that came to nothing.
    async fn remove_orphans(&self, id: u32, now_ms: u64, report: &mut ScrubReport) {
        if self.is_incomplete() {
            return;
        }
        let old = now_ms.saturating_sub(UPLOAD_AGE_MAX_MS);
        let Some(segment) = self.segments.borrow().all.get(&id).cloned().filter(Segment::is_settled) else { return };
        let batches = self.walk(id, Stage::Sealed { blocks: segment.used, sequence: segment.sequence }).await;
        for batch in &batches {
            for (column, directory) in batch.header.directories.iter().enumerate() {
                if directory.entries == 0 {
                    continue;
                }
                let Ok(listing) = self.directory(id, batch, column, directory).await else { continue };
                for entry in listing.chunks_exact(DIRECTORY_ENTRY_BYTES).filter_map(Entry::decode) {
                    let old_part = matches!(entry.kind, Kind::Part | Kind::Upload) && entry.time_ms < old;
                    let location = entry.location(id, batch.start, column);
                    if old_part
                        && self.is_orphan(&entry.key, &location).await
                        && self.remove(entry.key, now_ms).await.is_ok()
                    {
                        report.orphans += 1;
                    }
                }
            }
        }
    }

    /// Whether a part that lies here belongs to no object.
    async fn is_orphan(&self, key: &[u8; 32], location: &Location) -> bool {
        let going_on = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).contains(upload_of(key));
        if going_on || !self.find(key).is_ok_and(|known| known.as_ref() == Some(location)) {
            return false;
        }
        // Whatever cannot be told counts as somebody's.
        let end = match self.find(&upload_key(upload_of(key))) {
            Ok(Some(end)) => end,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let (reply, mut answer) = oneshot::channel();
        self.read(end, reply);
        let Ok(root) = self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await else {
            return false;
        };
        let Some(root) = root.first_chunk::<32>() else { return false };
        match self.find(root) {
            Ok(None) => true,
            // Another upload may have become the same object after it.
            Ok(Some(object)) if object.kind == Kind::Manifest => {
                let (reply, mut answer) = oneshot::channel();
                self.read(object, reply);
                let manifest = self.tasks.until(|| answer.try_recv().map_or_else(unless_empty, Some)).await;
                manifest.is_ok_and(|manifest| upload_of_manifest(&manifest).is_some_and(|own| own != upload_of(key)))
            }
            _ => false,
        }
    }

    pub(super) async fn scrub_segment(&self, id: u32, report: &mut ScrubReport) {
        report.segments += 1;
        report.repaired += self.mend_slot_headers(id).await;
        let (mut start, mut batch) = (1, 0);
        loop {
            let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return };
            let open = !segment.is_settled() && batch >= segment.durable;
            if open || start >= segment.used {
                return;
            }
            report.batches += 1;
            match self.mend(id, start).await {
                Ok((header, written)) => {
                    report.repaired += written;
                    report.bytes += (header.bytes() * header.written.count_ones() as usize) as u64;
                    start += u32::from(header.blocks) + 1;
                }
                // Collected meanwhile.
                Err(StorageError::NotFound) => return,
                Err(_) => {
                    report.lost += 1;
                    // The next batch is found by what any header of this one says.
                    let headers = self.cell_headers(id, &segment, start).await;
                    let Some(header) = agreed(&headers) else { return };
                    start += u32::from(header.blocks) + 1;
                }
            }
            batch += 1;
        }
    }

    /// Writes the headers of a segment's slots again, if one of them is not what it should be.
    async fn mend_slot_headers(&self, id: u32) -> u64 {
        let Some(segment) = self.segments.borrow().all.get(&id).cloned() else { return 0 };
        if segment.is_empty() {
            return 0;
        }
        let stage = if segment.sealed && segment.durable == segment.batches {
            Stage::Sealed { blocks: segment.used, sequence: segment.sequence }
        } else {
            Stage::Open
        };
        let mut missing = 0;
        for (column, (drive, slot)) in segment.columns.iter().enumerate() {
            let number = usize::from(*drive);
            if self.roster.borrow().state(number) == DriveState::Failed {
                continue;
            }
            let block = self.block().await;
            let begun = self.ports.begin(number, Request::read(self.shape.offset(*slot, 0), block));
            let read = ports::read(self.ports.answer(&self.tasks, begun).await);
            let member = self.roster.borrow().members[number].id;
            let header = read.and_then(|block| SlotHeader::decode(&block, &self.shape.store, &member, *drive, *slot));
            if header
                .is_none_or(|header| header != segment.header(&self.shape, &self.roster.borrow(), id, column, stage))
            {
                missing += 1;
            }
        }
        if missing > 0 {
            self.write_slot_headers(id, stage).await;
        }
        missing
    }
}

/// What most headers say of the batch.
pub(super) fn agreed(headers: &[Option<CellHeader>]) -> Option<CellHeader> {
    let found = headers.iter().flatten();
    let agreeing = |header: &&CellHeader| headers.iter().flatten().filter(|other| other.is_beside(header)).count();
    found.max_by_key(agreeing).cloned()
}
