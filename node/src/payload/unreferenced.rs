//! Bodies that no statement refers to yet, and those of which no other node has a copy yet: each is here before anybody
//! learns its root.
//!
//! A file of lines of fixed size, appended to and flushed in groups; what is in it after its last line of a root is what
//! counts. A statement that refers to a body takes it out. The file says up to which height the blocks were looked at, so
//! that a crash looks at some of them again and at none too few, and of which network they are. A body whose line is lost, in a crash before its root was
//! told or by damage, is never taken for one that may be removed; `fsck` lists it.
//!
//! Whoever has bodies wait may have one more wait only while it has no more of them than there is room left (dynamic
//! thresholds, as in `api::commons`): nobody uses up the room of all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use stele_hsm::custody::CustodyPublicKey;
use stele_types::{Hash, Height, NetworkId, PartyId};
use tokio::sync::oneshot;

use super::{Ledger, PayloadError};
use crate::store::durable;

pub(super) const FILE: &str = "unreferenced";

/// Kind, root, number, checksum.
const LINE_BYTES: usize = 1 + 32 + 8 + 4;

/// The file is written anew when it is this long and most of it counts no more.
const COMPACT_BYTES: u64 = 4 << 20;

/// Bodies that may wait for a statement at a time, of all holders together. One costs about 120 bytes of memory.
const WAITING_MAX: usize = 4_000_000;

/// Lines that are flushed together at most.
const GROUP_MAX: usize = 4096;

const WAITS: u8 = 1;
const SETTLED: u8 = 2;
const HEIGHT: u8 = 3;
const NETWORK: u8 = 4;
const ALONE: u8 = 5;
const COPIED: u8 = 6;
/// Says whose the bodies are in the lines behind it that say of one that it waits. Files from before have none.
const HOLDER: u8 = 7;

/// Who has bodies wait: a party, or another node whose copies are kept here. The default stands for whoever it was that an
/// older file does not name; nobody's share is compared with what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Holder([u8; 16]);

impl Holder {
    pub(super) const fn party(party: &PartyId) -> Self {
        Self(party.0)
    }
    pub(super) fn node(custody_key: &CustodyPublicKey) -> Self {
        let hash = Hash::tagged("stele/holder/v1", &[custody_key]);
        Self(*hash.0.first_chunk().expect("half of a hash"))
    }
}

/// A body without a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// When it was put, milliseconds since 1970.
    pub(super) put_ms: u64,
    pub(super) holder: Holder,
}

/// Bodies without a statement.
pub(super) struct Unreferenced {
    state: Arc<Mutex<State>>,
    lines: Option<Sender<Line>>,
    thread: Option<JoinHandle<()>>,
    waiting_max: usize,
}

#[derive(Clone, Default)]
struct State {
    network: NetworkId,
    waiting: HashMap<Hash, Waiting>,
    /// How many of them are whose.
    held: HashMap<Holder, usize>,
    /// Bodies that another node is to have, too, and since when.
    alone: HashMap<Hash, u64>,
    /// Blocks up to this height were looked at.
    height: Height,
    failed: Option<String>,
}

impl State {
    /// Takes note that a body waits.
    fn enter(&mut self, root: Hash, waiting: Waiting) {
        self.leave(&root);
        self.waiting.insert(root, waiting);
        *self.held.entry(waiting.holder).or_default() += 1;
    }

    /// Takes note that a body does not wait any more.
    fn leave(&mut self, root: &Hash) -> Option<Waiting> {
        let waiting = self.waiting.remove(root)?;
        if let Entry::Occupied(mut held) = self.held.entry(waiting.holder) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        Some(waiting)
    }

    /// Lines that say all of it.
    fn lines(&self) -> usize {
        2 + self.waiting.len() + self.held.len() + self.alone.len()
    }
}

struct Line {
    kind: u8,
    root: Hash,
    number: u64,
    holder: Holder,
    done: Option<oneshot::Sender<Result<(), PayloadError>>>,
}

impl Unreferenced {
    /// Opens the file in `directory`. In a new one, blocks of the ledger count from its newest on: bodies that earlier ones
    /// refer to cannot be here.
    ///
    /// # Errors
    /// `Journal`.
    pub(super) fn open(directory: &Path, ledger: Ledger) -> Result<Self, PayloadError> {
        Self::open_bounded(directory, ledger, WAITING_MAX)
    }

    fn open_bounded(directory: &Path, ledger: Ledger, waiting_max: usize) -> Result<Self, PayloadError> {
        let Ledger { network, height, history_min, .. } = ledger;
        let failed = |error: io::Error| PayloadError::journal(&error.to_string());
        let path = directory.join(FILE);
        let fresh = State { network, height, ..State::default() };
        let mut state = match std::fs::read(&path) {
            Ok(bytes) => replay(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh.clone(),
            Err(error) => return Err(failed(error)),
        };
        if state.network != network || state.height.next() < history_min {
            // Nobody can tell what the blocks between refer to, or those of another ledger.
            tracing::warn!(waiting = state.waiting.len(), "blocks are missing: bodies without a statement stay");
            state = State { alone: state.alone, ..fresh };
        }
        // A ledger that begins anew, or went back, is looked at from where it is.
        state.height = state.height.min(height);
        let (file, holder) = rewritten(directory, &state).map_err(failed)?;
        let state = Arc::new(Mutex::new(state));
        let (lines, received) = mpsc::channel();
        let writer = Writer { directory: directory.to_owned(), file, holder, state: Arc::clone(&state) };
        let thread = std::thread::Builder::new().name("unreferenced".to_owned());
        let thread = thread.spawn(move || writer.run(&received)).map_err(failed)?;
        Ok(Self { state, lines: Some(lines), thread: Some(thread), waiting_max })
    }

    /// Notes that a body of `holder` was put, at `now_ms`, and whether another node is to have it, too. Durable when it
    /// returns.
    ///
    /// # Errors
    /// `TooManyWaiting`, `WaitingShare`; `Journal`.
    pub(super) async fn put(&self, root: Hash, holder: Holder, now_ms: u64, alone: bool) -> Result<(), PayloadError> {
        let (done, answer) = oneshot::channel();
        {
            let mut state = self.state();
            self.judge(&state, holder)?;
            if alone {
                self.note_alone(&mut state, root, now_ms);
            }
            state.enter(root, Waiting { put_ms: now_ms, holder });
            // Before anybody can take it out: of a copy a statement may know already, and its line comes behind this one.
            self.tell(Line { kind: WAITS, root, number: now_ms, holder, done: Some(done) });
        }
        answer.await.unwrap_or_else(|_| Err(PayloadError::journal("its thread is gone")))
    }

    /// Notes that another node is to have a body, too, and has it not.
    pub(super) fn alone(&self, root: Hash, now_ms: u64) {
        self.note_alone(&mut self.state(), root, now_ms);
    }

    fn note_alone(&self, state: &mut State, root: Hash, now_ms: u64) {
        if !state.alone.contains_key(&root) && state.alone.len() < WAITING_MAX {
            state.alone.insert(root, now_ms);
            self.tell(Line::of(ALONE, root, now_ms));
        }
    }

    /// Notes that another node has a body, or that it is gone.
    pub(super) fn copied(&self, root: &Hash) {
        if self.state().alone.remove(root).is_some() {
            self.tell(Line::of(COPIED, *root, 0));
        }
    }

    /// Bodies that another node is to have since before `before_ms`: the first `max` behind `after` in the order of their
    /// roots, so that those which cannot be copied do not stand in the way of the others.
    pub(super) fn to_copy(&self, before_ms: u64, after: &Hash, max: usize) -> Vec<Hash> {
        let mut roots: Vec<Hash> = {
            let state = self.state();
            let due = state.alone.iter().filter(|(root, since)| **since < before_ms && *root > after);
            due.map(|(root, _)| *root).collect()
        };
        if roots.len() > max {
            roots.select_nth_unstable(max);
            roots.truncate(max);
        }
        roots.sort_unstable();
        roots
    }

    /// Of how many bodies no other node has a copy, and since when of the oldest.
    pub(super) fn alone_since(&self) -> (usize, Option<u64>) {
        let state = self.state();
        (state.alone.len(), state.alone.values().min().copied())
    }

    /// Whether another node is to have a body, and has it not.
    pub(super) fn is_alone(&self, root: &Hash) -> bool {
        self.state().alone.contains_key(root)
    }

    /// Whether a body waits for a statement.
    pub(super) fn contains(&self, root: &Hash) -> bool {
        self.state().waiting.contains_key(root)
    }

    /// Whether one more of `holder` may wait.
    ///
    /// # Errors
    /// `TooManyWaiting`, `WaitingShare`; `Journal` after a failed write.
    pub(super) fn check_room(&self, holder: Holder) -> Result<(), PayloadError> {
        self.judge(&self.state(), holder)
    }

    fn judge(&self, state: &State, holder: Holder) -> Result<(), PayloadError> {
        let left = self.waiting_max.saturating_sub(state.waiting.len());
        let held = state.held.get(&holder).copied().unwrap_or(0);
        match &state.failed {
            Some(reason) => Err(PayloadError::journal(reason)),
            None if left == 0 => Err(PayloadError::TooManyWaiting),
            None if held >= left => Err(PayloadError::WaitingShare),
            None => Ok(()),
        }
    }

    /// Notes that the blocks up to `height` were looked at, those behind `from` just now, and which bodies they refer to.
    pub(super) fn looked_at(&self, from: Height, height: Height, roots: impl IntoIterator<Item = Hash>) {
        for root in roots {
            self.settle(root);
        }
        let mut state = self.state();
        // Unless it was set back meanwhile: then they are looked at again.
        if state.height == from && from != height {
            state.height = height;
            // What is flushed later is looked at again after a crash, which does no harm.
            self.tell(Line::of(HEIGHT, Hash([0; 32]), height.0));
        }
    }

    /// Has the blocks behind `height` looked at again: somebody knows of a body that none up to there refers to.
    pub(super) fn look_again(&self, height: Height) {
        let mut state = self.state();
        if height < state.height {
            state.height = height;
            self.tell(Line::of(HEIGHT, Hash([0; 32]), height.0));
        }
    }

    /// Takes a body out: a statement refers to it, or it was removed.
    pub(super) fn settle(&self, root: Hash) {
        if self.state().leave(&root).is_some() {
            self.tell(Line::of(SETTLED, root, 0));
        }
    }

    /// The height up to which blocks were looked at.
    pub(super) fn height(&self) -> Height {
        self.state().height
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Takes a body out to remove it, if it still waits and was put before `before_ms`. Whoever cannot remove it puts it back
    /// with [`Unreferenced::put_back`].
    pub(super) fn claim(&self, root: &Hash, before_ms: u64) -> Option<Waiting> {
        let mut state = self.state();
        let is_due = state.waiting.get(root).is_some_and(|waiting| waiting.put_ms < before_ms);
        if is_due && state.failed.is_none() { state.leave(root) } else { None }
    }

    /// The body that was claimed is still there. The file says that it waits.
    pub(super) fn put_back(&self, root: Hash, waiting: Waiting) {
        self.state().enter(root, waiting);
    }

    /// The body that was claimed was removed.
    pub(super) fn removed(&self, root: Hash) {
        self.copied(&root);
        self.tell(Line::of(SETTLED, root, 0));
    }

    /// Bodies that were put before `before_ms`, at most `max`.
    pub(super) fn overdue(&self, before_ms: u64, max: usize) -> Vec<Hash> {
        let state = self.state();
        let overdue = state.waiting.iter().filter(|(_, waiting)| waiting.put_ms < before_ms);
        overdue.map(|(root, _)| *root).take(max).collect()
    }

    fn tell(&self, line: Line) {
        if let Some(lines) = &self.lines {
            // Without its thread the answer says so; the others are only lost, and looked at again.
            let _ = lines.send(line);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unreferenced {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Line {
    /// One that nobody waits for.
    const fn of(kind: u8, root: Hash, number: u64) -> Self {
        Self { kind, root, number, holder: Holder([0; 16]), done: None }
    }
}

struct Writer {
    directory: PathBuf,
    file: File,
    /// Whose the bodies in lines at the end of the file are.
    holder: Holder,
    state: Arc<Mutex<State>>,
}

impl Writer {
    fn run(mut self, received: &Receiver<Line>) {
        while let Ok(first) = received.recv() {
            let mut group = vec![first];
            group.extend(received.try_iter().take(GROUP_MAX - 1));
            // A line that is missing may be the one that takes a body out; the height behind it must be missing, too.
            let failed = self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.is_some();
            let outcome = if failed { Ok(()) } else { self.write(&group) };
            if let Err(error) = &outcome {
                tracing::error!(%error, "the journal of unreferenced bodies fails: no body is taken or removed any more");
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.failed.get_or_insert_with(|| error.to_string());
            }
            let failed = self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.clone();
            for done in group.into_iter().filter_map(|line| line.done) {
                // After a failed flush nobody knows what the file holds.
                let answer = failed.as_ref().map_or(Ok(()), |reason| Err(PayloadError::journal(reason)));
                let _ = done.send(answer);
            }
        }
    }

    fn write(&mut self, group: &[Line]) -> io::Result<()> {
        let mut lines = Vec::with_capacity(group.len() * LINE_BYTES);
        for line in group {
            if line.kind == WAITS && line.holder != self.holder {
                self.holder = line.holder;
                lines.extend_from_slice(&encode_holder(line.holder));
            }
            lines.extend_from_slice(&encode(line.kind, &line.root, line.number));
        }
        self.file.write_all(&lines)?;
        // Only those who wait need it.
        if group.iter().any(|line| line.done.is_some()) {
            self.file.sync_data()?;
        }
        let length = self.file.metadata()?.len();
        if length < COMPACT_BYTES {
            return Ok(());
        }
        // What is told meanwhile comes behind it.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if length > 2 * (state.lines() * LINE_BYTES) as u64 {
            (self.file, self.holder) = rewritten(&self.directory, &state)?;
        }
        Ok(())
    }
}

fn encode(kind: u8, root: &Hash, number: u64) -> [u8; LINE_BYTES] {
    let mut line = [0; LINE_BYTES];
    line[0] = kind;
    line[1..33].copy_from_slice(&root.0);
    line[33..41].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&line[..41]);
    line[41..].copy_from_slice(&sum.to_le_bytes());
    line
}

fn encode_holder(holder: Holder) -> [u8; LINE_BYTES] {
    let mut root = Hash([0; 32]);
    root.0[..16].copy_from_slice(&holder.0);
    encode(HOLDER, &root, 0)
}

/// What counts after these lines, up to the first that is not whole. Behind it, a line may be lost that took a body out;
/// without the heights that come later, the blocks are looked at again from there and take it out again. A body that was
/// put behind it waits for ever, which costs room and loses nothing.
fn replay(bytes: &[u8]) -> State {
    let (mut state, mut holder) = (State::default(), Holder::default());
    for line in bytes.as_chunks::<LINE_BYTES>().0 {
        let (Some(root), Some(number)) = (line[1..].first_chunk::<32>(), line[33..].first_chunk::<8>()) else { break };
        let (root, number) = (Hash(*root), u64::from_le_bytes(*number));
        if encode(line[0], &root, number) != *line {
            break;
        }
        match line[0] {
            WAITS => state.enter(root, Waiting { put_ms: number, holder }),
            SETTLED => drop(state.leave(&root)),
            HOLDER => holder.0.copy_from_slice(&root.0[..16]),
            HEIGHT => state.height = Height(number),
            NETWORK => state.network = NetworkId(root.0),
            ALONE => drop(state.alone.insert(root, number)),
            COPIED => drop(state.alone.remove(&root)),
            _ => {}
        }
    }
    state
}

/// Writes a file with what counts and opens it to append; also says whose the bodies in its last lines are.
fn rewritten(directory: &Path, state: &State) -> io::Result<(File, Holder)> {
    let mut bytes = encode(NETWORK, &Hash(state.network.0), 0).to_vec();
    bytes.extend_from_slice(&encode(HEIGHT, &Hash([0; 32]), state.height.0));
    let mut waiting: Vec<(Holder, &Hash, u64)> =
        state.waiting.iter().map(|(root, waiting)| (waiting.holder, root, waiting.put_ms)).collect();
    waiting.sort_unstable();
    let mut last = Holder::default();
    for (holder, root, put_ms) in waiting {
        if holder != last {
            last = holder;
            bytes.extend_from_slice(&encode_holder(holder));
        }
        bytes.extend_from_slice(&encode(WAITS, root, put_ms));
    }
    for (root, since) in &state.alone {
        bytes.extend_from_slice(&encode(ALONE, root, *since));
    }
    durable::replace_file(directory, FILE, &bytes)?;
    Ok((OpenOptions::new().append(true).mode(0o600).open(directory.join(FILE))?, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(height: u64, history_min: u64) -> Ledger {
        Ledger { network: NetworkId([1; 32]), height: Height(height), time_ms: 0, history_min: Height(history_min) }
    }

    const A: Holder = Holder([0xa; 16]);
    const B: Holder = Holder([0xb; 16]);

    fn root(number: u8) -> Hash {
        Hash([number; 32])
    }

    #[tokio::test]
    async fn what_waits_and_what_was_looked_at_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let unreferenced = Unreferenced::open(directory.path(), ledger(5, 1)).unwrap();
        for number in 1..=3 {
            unreferenced.put(root(number), A, 1000 * u64::from(number), number % 2 == 1).await.unwrap();
        }
        unreferenced.looked_at(Height(5), Height(9), [root(2), root(77)]);
        assert_eq!(unreferenced.overdue(3000, 10), [root(1)]);
        drop(unreferenced);
        let unreferenced = Unreferenced::open(directory.path(), ledger(20, 1)).unwrap();
        assert_eq!((unreferenced.height(), unreferenced.len()), (Height(9), 2));
        assert!(unreferenced.contains(&root(1)) && !unreferenced.contains(&root(2)));
        assert_eq!(unreferenced.overdue(u64::MAX, 1).len(), 1);
        // 1 and 3 are alone, too.
        assert_eq!(unreferenced.to_copy(u64::MAX, &root(0), 1), [root(1)]);
        assert_eq!(unreferenced.to_copy(u64::MAX, &root(1), 5), [root(3)]);
        unreferenced.copied(&root(1));
        assert_eq!(unreferenced.alone_since(), (1, Some(3000)));
        // Who set it back has not been looked at, whoever was at it.
        unreferenced.look_again(Height(7));
        unreferenced.looked_at(Height(9), Height(10), []);
        assert_eq!(unreferenced.height(), Height(7));
        unreferenced.looked_at(Height(7), Height(8), []);
        assert_eq!(unreferenced.height(), Height(8));
    }

    #[tokio::test]
    async fn what_comes_behind_damage_waits_for_ever_or_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let unreferenced = Unreferenced::open(directory.path(), ledger(5, 1)).unwrap();
        for number in 1..=3 {
            unreferenced.put(root(number), A, 1, false).await.unwrap();
        }
        unreferenced.looked_at(Height(5), Height(9), [root(2)]);
        drop(unreferenced);
        let bytes = std::fs::read(&path).unwrap();
        for damage in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[damage] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let unreferenced = Unreferenced::open(directory.path(), ledger(20, 1)).unwrap();
            // Whoever still counts 2 looks at the block again that refers to it.
            assert!(unreferenced.height() < Height(9) || !unreferenced.contains(&root(2)), "{damage}");
            drop(unreferenced);
            std::fs::write(&path, &bytes[..damage]).unwrap();
            let unreferenced = Unreferenced::open(directory.path(), ledger(20, 1)).unwrap();
            assert!(unreferenced.height() < Height(9) || !unreferenced.contains(&root(2)), "{damage}");
        }
    }

    #[tokio::test]
    async fn nothing_is_removed_whose_statement_may_lie_in_blocks_that_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let unreferenced = Unreferenced::open(directory.path(), ledger(5, 1)).unwrap();
        unreferenced.put(root(1), A, 1, false).await.unwrap();
        drop(unreferenced);
        let unreferenced = Unreferenced::open(directory.path(), ledger(9, 7)).unwrap();
        assert_eq!((unreferenced.height(), unreferenced.len()), (Height(9), 0));
        // Nor by a ledger that is another, or that went back.
        unreferenced.put(root(2), A, 1, false).await.unwrap();
        drop(unreferenced);
        let unreferenced = Unreferenced::open(directory.path(), ledger(3, 1)).unwrap();
        assert_eq!((unreferenced.height(), unreferenced.len()), (Height(3), 1));
        drop(unreferenced);
        let other = Ledger { network: NetworkId([2; 32]), ..ledger(4, 1) };
        let unreferenced = Unreferenced::open(directory.path(), other).unwrap();
        assert_eq!((unreferenced.height(), unreferenced.len()), (Height(4), 0));
    }

    #[tokio::test]
    async fn a_body_is_claimed_once_and_only_while_it_waits() {
        let directory = tempfile::tempdir().unwrap();
        let unreferenced = Unreferenced::open(directory.path(), ledger(5, 1)).unwrap();
        unreferenced.put(root(1), A, 1000, false).await.unwrap();
        assert_eq!(unreferenced.claim(&root(1), 1000), None, "it is not due");
        let claimed = Waiting { put_ms: 1000, holder: A };
        assert_eq!(unreferenced.claim(&root(1), 1001), Some(claimed));
        assert_eq!(unreferenced.claim(&root(1), 1001), None, "somebody has it");
        unreferenced.put_back(root(1), claimed);
        unreferenced.looked_at(unreferenced.height(), Height(6), [root(1)]);
        assert_eq!(unreferenced.claim(&root(1), 1001), None, "a statement refers to it");
    }

    #[tokio::test]
    async fn one_holder_cannot_use_up_the_room_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let unreferenced = Unreferenced::open_bounded(directory.path(), ledger(5, 1), 12).unwrap();
        for number in 1..=6 {
            unreferenced.put(root(number), A, 1, false).await.unwrap();
        }
        let refused = unreferenced.put(root(7), A, 1, false).await.unwrap_err();
        assert_eq!(refused.code(), "payload_waiting_share");
        assert!(unreferenced.check_room(A).is_err() && unreferenced.check_room(B).is_ok());
        drop(unreferenced);
        // A restart forgets nobody's share, whether it was written with the others' or by itself.
        for number in 11..=13 {
            let unreferenced = Unreferenced::open_bounded(directory.path(), ledger(5, 1), 12).unwrap();
            assert!(unreferenced.check_room(A).is_err());
            unreferenced.put(root(number), B, 1, false).await.unwrap();
        }
        let unreferenced = Unreferenced::open_bounded(directory.path(), ledger(5, 1), 12).unwrap();
        assert!(unreferenced.check_room(B).is_err(), "three, with three left");
        assert!(unreferenced.check_room(Holder([0xc; 16])).is_ok(), "and a newcomer always finds room");
        // What no longer waits is there for all.
        (1..=6).for_each(|number| unreferenced.settle(root(number)));
        assert!(unreferenced.check_room(A).is_ok() && unreferenced.check_room(B).is_ok());
        assert_eq!(unreferenced.state().held, HashMap::from([(B, 3)]));
        drop(unreferenced);
        let full = Unreferenced::open_bounded(directory.path(), ledger(5, 1), 3).unwrap();
        assert_eq!(full.check_room(A).unwrap_err().code(), "payload_too_many_waiting");
    }

    /// Earlier versions did not say whose bodies wait.
    #[tokio::test]
    async fn a_file_that_names_no_holders_is_read() {
        let lines = [
            "040101010101010101010101010101010101010101010101010101010101010101000000000000000067282ad5",
            "030000000000000000000000000000000000000000000000000000000000000000050000000000000035062899",
            "010707070707070707070707070707070707070707070707070707070707070707e80300000000000022d6bd48",
            "050707070707070707070707070707070707070707070707070707070707070707e80300000000000000acc2a4",
        ];
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), hex::decode(lines.concat()).unwrap()).unwrap();
        let unreferenced = Unreferenced::open_bounded(directory.path(), ledger(9, 1), 2).unwrap();
        assert_eq!((unreferenced.height(), unreferenced.len()), (Height(5), 1));
        assert!(unreferenced.contains(&root(7)) && unreferenced.is_alone(&root(7)));
        // It takes room, and nobody's share.
        unreferenced.put(root(1), A, 1, false).await.unwrap();
        assert_eq!(unreferenced.check_room(B).unwrap_err().code(), "payload_too_many_waiting");
        let waiting = Waiting { put_ms: 1000, holder: Holder::default() };
        assert_eq!(unreferenced.claim(&root(7), 1001), Some(waiting));
    }
}
