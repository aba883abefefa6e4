//! Writing a snapshot beside the commits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use stele_merkle::state::{Key, KeyRange, StateHash};

use super::{SnapshotBuilder, SnapshotHeader, file_name, prune};
use crate::StateError;
use crate::handover::Handover;
use crate::pages::{Page, PageAt, PageCopy, Store, check_pages};
use crate::record::{push_head, push_pair};
use crate::tree::{Standing, Tree, Undo};
use crate::values::{Files, ValueRef};

/// Parts that wait for the writer: enough to keep the disk busy, little memory.
const PARTS_WAITING_MAX: usize = 4;

/// A part has about so many pairs, those of a usual chunk: of ranges that hold little, several go to the writer at once. A
/// range counts as a pair more than it has, so that one commit does not copy a million that hold nothing.
const PART_PAIRS: usize = 4096;

/// The pairs of a range, on their way to the writer.
struct Copied {
    range: KeyRange,
    pairs: u32,
    body: Vec<u8>,
    distant: Distant,
}

/// What the writer has to read first.
enum Distant {
    /// Values, where they go in the body, and the files that they lie in now.
    Values(Vec<(usize, ValueRef)>, Files),
    /// The pages that hold the range, and where they are.
    Pages(Vec<PageAt>, Arc<Store>),
}

/// Where the pairs come from, and what commits have changed since; only what was not copied yet.
#[derive(Debug)]
enum Source {
    /// Leaves in memory, and for changed keys the value that they had.
    Leaves(BTreeMap<Key, Option<ValueRef>>),
    Pages {
        copy: PageCopy,
        /// The page that was taken last: it may hold the next range, too.
        last: Option<PageAt>,
        store: Arc<Store>,
    },
}

/// A snapshot in the making.
#[derive(Debug)]
pub(crate) struct SnapshotJob {
    header: SnapshotHeader,
    /// Index of the range that is copied next.
    next: u64,
    source: Source,
    /// Whether the owner still keeps the version for it.
    pinned: bool,
    parts: Handover<Vec<Copied>>,
    writer: JoinHandle<Result<u64, StateError>>,
}

impl std::fmt::Debug for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copied").field("range", &self.range).field("pairs", &self.pairs).finish_non_exhaustive()
    }
}

impl SnapshotJob {
    /// Starts the writer for the newest version, which the caller keeps retained until [`SnapshotJob::take_pin`].
    pub(crate) fn start(directory: &Path, header: SnapshotHeader, tree: &mut Tree) -> Result<Self, StateError> {
        let source = match tree.pages_mut() {
            None => Source::Leaves(BTreeMap::new()),
            Some(pages) => {
                // The writer reads them from the device.
                pages.settle()?;
                Source::Pages { copy: PageCopy::new(), last: None, store: Arc::clone(pages.store()) }
            }
        };
        let (sender, parts) = sync_channel(PARTS_WAITING_MAX);
        let path = directory.join(file_name(header.height));
        let builder = SnapshotBuilder::begin(directory, header)?;
        let directory = directory.to_owned();
        let writer = std::thread::Builder::new()
            .name("state-snapshot".to_owned())
            .spawn(move || write(&directory, builder, &parts))
            .map_err(StateError::io("start the writer of", &path))?;
        Ok(Self { header, next: 0, source, pinned: true, parts: Handover::new(sender), writer })
    }

    pub(crate) fn height(&self) -> u64 {
        self.header.height
    }

    /// Whether the version is not needed any more.
    fn is_copied(&self) -> bool {
        !self.parts.is_open()
    }

    /// The height whose version the owner need not keep any more; told once. Pages are needed until the writer has read
    /// them, values stay in the files that it holds.
    pub(crate) fn take_pin(&mut self) -> Option<u64> {
        let done = match &self.source {
            Source::Leaves(_) => self.is_copied(),
            Source::Pages { .. } => self.is_finished(),
        };
        (done && std::mem::take(&mut self.pinned)).then_some(self.header.height)
    }

    /// Whether the writer has ended, well or not.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_copied() && self.writer.is_finished()
    }

    /// The range that is copied next, `None` after the last.
    fn range(&self) -> Option<KeyRange> {
        KeyRange::new(self.header.depth, self.next)
    }

    /// Takes note of what a commit changed. It has been applied to `tree`.
    pub(crate) fn record(&mut self, tree: &Tree, undo: &Undo) {
        let Some(range) = self.range().filter(|_| self.parts.is_open()) else { return };
        match &mut self.source {
            Source::Leaves(before) => {
                let first = range.first();
                for (key, value) in undo.changed(tree).filter(|(key, _)| *key >= first) {
                    before.entry(key).or_insert(value);
                }
            }
            Source::Pages { copy, .. } => copy.record(tree, undo),
        }
    }

    /// Copies ranges until they have `pairs_max` pairs or more. When the writer is behind, waits for it if `wait`, else
    /// stops early.
    pub(crate) fn step(&mut self, tree: &Tree, pairs_max: usize, wait: bool) {
        let mut pairs = 0;
        while self.parts.pass(wait) && pairs < pairs_max {
            if self.range().is_none() {
                return self.parts.close();
            }
            let (mut part, until) = (Vec::new(), pairs_max.min(pairs.saturating_add(PART_PAIRS)));
            while pairs < until
                && let Some(range) = self.range()
            {
                let chunk = self.copy(tree, range);
                pairs += 1 + chunk.size();
                part.push(chunk);
            }
            self.parts.put(part);
        }
    }

    /// The pairs of a range as they were at the snapshot's height.
    fn copy(&mut self, tree: &Tree, range: KeyRange) -> Copied {
        self.next += 1;
        let next = self.range();
        let before = match &mut self.source {
            Source::Leaves(before) => before,
            Source::Pages { copy, last, store } => {
                let first = range.first();
                let mut pages: Vec<PageAt> =
                    last.take().filter(|page| page.end().is_none_or(|end| end > first)).into_iter().collect();
                pages.extend(copy.take(tree, usize::MAX, next.map(KeyRange::first).as_ref()));
                *last = pages.last().copied();
                let distant = Distant::Pages(pages, Arc::clone(store));
                return Copied { range, pairs: 0, body: Vec::new(), distant };
            }
        };
        let later = next.map_or_else(BTreeMap::new, |next| before.split_off(&next.first()));
        let mut changed = std::mem::replace(before, later).into_iter().peekable();
        let leaves = tree.walk(&range.first()).filter_map(|standing| match standing {
            Standing::Leaf(leaf, _) => Some((&leaf.key, leaf.value)),
            Standing::Page(..) => None,
        });
        let mut leaves = leaves.take_while(|(key, _)| range.contains(key)).peekable();
        // Values move between files meanwhile, so each chunk holds those that it was copied with.
        let files = tree.values().files.clone();
        let (mut body, mut count, mut distant) = (Vec::new(), 0, Vec::new());
        loop {
            let pair = match (changed.peek(), leaves.peek()) {
                (Some((key, _)), leaf) if leaf.is_none_or(|(leaf, _)| key <= *leaf) => {
                    if leaf.is_some_and(|(leaf, _)| key == *leaf) {
                        leaves.next();
                    }
                    changed.next()
                }
                _ => leaves.next().map(|(key, value)| (*key, Some(value))),
            };
            let Some((key, value)) = pair else {
                return Copied { range, pairs: count, body, distant: Distant::Values(distant, files) };
            };
            let Some(value) = value else { continue };
            count += 1;
            match tree.values().at(value) {
                Some(bytes) => push_pair(&mut body, &key, Some(bytes)),
                None => {
                    push_head(&mut body, &key, value.length());
                    distant.push((body.len(), value));
                    body.resize(body.len() + value.length(), 0);
                }
            }
        }
    }

    /// Waits for the writer: the size of the file, or why there is none. Before everything was copied this abandons
    /// the snapshot.
    pub(crate) fn finish(self) -> Result<u64, StateError> {
        drop(self.parts);
        // A writer that panicked left no complete file, which is the same as one that failed.
        self.writer.join().unwrap_or(Err(StateError::Poisoned))
    }
}

impl Copied {
    /// Pairs, about.
    fn size(&self) -> usize {
        match &self.distant {
            Distant::Values(..) => self.pairs as usize,
            Distant::Pages(pages, _) => pages.iter().map(|page| usize::from(page.wanted.page.pairs)).sum(),
        }
    }

    /// Reads what is not there yet.
    fn fill(&mut self, hash: StateHash) -> Result<(), StateError> {
        match &mut self.distant {
            Distant::Values(values, files) => {
                // In the order of the files. Whether it is right shows in the root.
                values.sort_unstable_by_key(|(_, value)| value.order());
                for (at, value) in values {
                    files.read(*value, &mut self.body[*at..*at + value.length()])?;
                }
            }
            Distant::Pages(pages, store) => {
                let blocks: Vec<Page> = pages.iter().map(|page| page.wanted.page).collect();
                let mut wanted = pages.iter().map(|page| page.wanted);
                store.read(&blocks, |bodies| {
                    let pages = wanted.by_ref().take(bodies.len()).zip(bodies).collect();
                    for page in check_pages(hash, pages) {
                        let page = page.map_err(|page| store.corrupt(page))?;
                        for pair in page.pairs().filter(|pair| self.range.contains(pair.key)) {
                            push_pair(&mut self.body, pair.key, Some(pair.value));
                            self.pairs += 1;
                        }
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

/// Writes the file; returns its size, or 0 when the owner gave up before the last chunk.
fn write(directory: &Path, mut builder: SnapshotBuilder, parts: &Receiver<Vec<Copied>>) -> Result<u64, StateError> {
    for mut chunk in parts.iter().flatten() {
        let filled = chunk.fill(builder.hash());
        if let Err(error) = filled.and_then(|()| builder.append(chunk.range, chunk.pairs, &chunk.body)) {
            builder.abandon();
            return Err(error);
        }
    }
    if !builder.is_complete() {
        builder.abandon();
        return Ok(0);
    }
    let size = builder.finish()?;
    prune(directory)?;
    Ok(size)
}
