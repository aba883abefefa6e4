//! Verified statements that wait for a block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stele_types::{PartyId, Statement, StatementId};
use tokio::sync::Notify;

use super::lanes::Lanes;

/// A statement in the pool.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// The statement; its signature verified.
    pub statement: Statement,
    /// When it came.
    pub arrived: Instant,
    /// Whether it was offered to other proposers.
    forwarded: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Inner>,
    arrivals: Notify,
    bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    lanes: Lanes<Pooled>,
    /// Every statement known here: waiting, or drawn for a block that is not decided yet.
    known: HashMap<StatementId, Known>,
    bytes: usize,
}

/// A statement known here, with its exact bytes: another signature over the same content is not the same submission.
#[derive(Debug)]
struct Known {
    place: Place,
    entry: Arc<[u8]>,
}

/// Where a known statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Drawn,
}

impl Pool {
    /// An empty pool for `statements_max` statements, of which one party may hold `party_max`.
    pub fn new(statements_max: usize, party_max: usize, bytes_max: usize) -> Self {
        let inner = Inner { lanes: Lanes::new(statements_max, party_max), known: HashMap::new(), bytes: 0 };
        Self { inner: Mutex::new(inner), arrivals: Notify::new(), bytes_max }
    }
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Statements that wait.
    pub fn len(&self) -> usize {
        self.inner().lanes.len()
    }
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.inner().lanes.is_empty()
    }
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.inner().bytes
    }
    /// Statements that `party` may add now.
    pub fn room(&self, party: PartyId) -> usize {
        let inner = self.inner();
        if inner.bytes >= self.bytes_max { 0 } else { inner.lanes.room(party) }
    }
    /// Whether a statement waits or is in an undecided block of this node.
    pub fn contains(&self, id: &StatementId) -> bool {
        self.inner().known.contains_key(id)
    }
    /// Whether exactly these bytes wait or are in an undecided block of this node.
    pub fn holds(&self, statement: &Statement) -> bool {
        self.inner().known.get(&statement.id()).is_some_and(|known| known.entry == *statement.entry())
    }
    /// Wakes when statements arrive.
    pub fn arrivals(&self) -> &Notify {
        &self.arrivals
    }

    /// Adds verified statements; says of each whether it was taken. A statement that waits already is taken.
    pub fn add(&self, statements: Vec<(PartyId, Statement)>) -> Vec<bool> {
        let arrived = Instant::now();
        let taken = {
            let mut inner = self.inner();
            statements
                .into_iter()
                .map(|(party, statement)| {
                    let (id, bytes) = (statement.id(), statement.entry().len());
                    if inner.known.contains_key(&id) {
                        return true;
                    }
                    if inner.bytes + bytes > self.bytes_max {
                        return false;
                    }
                    let entry = Arc::clone(statement.entry());
                    let taken = inner.lanes.push(party, Pooled { statement, arrived, forwarded: false }).is_ok();
                    if taken {
                        inner.known.insert(id, Known { place: Place::Waiting, entry });
                        inner.bytes += bytes;
                    }
                    taken
                })
                .collect()
        };
        self.arrivals.notify_waiters();
        taken
    }

    /// Draws statements for a block of at most `statements_max` and `bytes_max`. They stay known until they are decided
    /// or put back.
    pub fn draw(&self, statements_max: usize, bytes_max: usize) -> Vec<(PartyId, Pooled)> {
        let mut inner = self.inner();
        let mut left = bytes_max;
        // Beside the entry itself a block holds the head of its byte string.
        let drawn = inner.lanes.take(statements_max, |pooled| {
            let bytes = pooled.statement.entry().len() + 5;
            let fits = bytes <= left;
            if fits {
                left -= bytes;
            }
            fits
        });
        for (_, pooled) in &drawn {
            if let Some(known) = inner.known.get_mut(&pooled.statement.id()) {
                known.place = Place::Drawn;
            }
        }
        inner.bytes -= drawn.iter().map(|(_, pooled)| pooled.statement.entry().len()).sum::<usize>();
        drawn
    }

    /// Puts drawn statements back: their block was not decided.
    pub fn put_back(&self, drawn: Vec<(PartyId, Pooled)>) {
        let mut inner = self.inner();
        for (party, pooled) in drawn {
            let (id, bytes) = (pooled.statement.id(), pooled.statement.entry().len());
            if !inner.known.contains_key(&id) {
                continue;
            }
            if inner.lanes.push(party, pooled).is_ok() {
                inner.bytes += bytes;
                if let Some(known) = inner.known.get_mut(&id) {
                    known.place = Place::Waiting;
                }
            } else {
                // The pool filled up meanwhile. Nothing was promised: the client asks for the status and submits again.
                inner.known.remove(&id);
            }
        }
    }

    /// Forgets statements that were decided, or that can no longer enter a block.
    pub fn forget<'s>(&self, ids: impl Iterator<Item = &'s StatementId>) {
        let mut inner = self.inner();
        let mut waiting = false;
        for id in ids {
            waiting |= inner.known.remove(id).is_some_and(|known| known.place == Place::Waiting);
        }
        if waiting {
            let Inner { lanes, known, bytes } = &mut *inner;
            lanes.retain(|pooled| known.contains_key(&pooled.statement.id()));
            *bytes = lanes.iter_mut().map(|pooled| pooled.statement.entry().len()).sum();
        }
    }

    /// Statements that have waited longer than `age` and were not offered to others yet, up to `bytes_max`; they are
    /// marked as offered.
    pub fn overdue(&self, age: Duration, bytes_max: usize) -> Vec<Statement> {
        let mut left = bytes_max;
        let mut inner = self.inner();
        let mut overdue = Vec::new();
        for pooled in inner.lanes.iter_mut().filter(|pooled| !pooled.forwarded && pooled.arrived.elapsed() > age) {
            let bytes = pooled.statement.entry().len() + 5;
            if bytes > left {
                break;
            }
            left -= bytes;
            pooled.forwarded = true;
            overdue.push(pooled.statement.clone());
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use stele_types::{KeyId, Suite, statement::Unsigned};

    use super::*;

    fn statement(number: u8) -> Statement {
        let unsigned =
            Unsigned::public(Suite::EdDsa, KeyId([1; 16]), PartyId([2; 16]), "test", "text/plain", &[number]).unwrap();
        Statement::parse(unsigned.into_entry(&[0; 64])).unwrap()
    }

    const PARTY: PartyId = PartyId([2; 16]);

    #[test]
    fn a_statement_is_held_once_until_it_is_decided() {
        let pool = Pool::new(100, 100, 1 << 20);
        assert_eq!(pool.add(vec![(PARTY, statement(1)), (PARTY, statement(1)), (PARTY, statement(2))]), [true; 3]);
        assert_eq!(pool.len(), 2);
        let drawn = pool.draw(10, 1 << 20);
        assert_eq!((drawn.len(), pool.len(), pool.bytes()), (2, 0, 0));
        assert!(pool.contains(&statement(1).id()), "drawn is still known");
        assert_eq!(pool.add(vec![(PARTY, statement(1))]), [true]);
        assert_eq!(pool.len(), 0, "and not queued twice");
        pool.put_back(drawn);
        assert_eq!(pool.len(), 2);
        pool.forget([statement(1).id()].iter());
        assert_eq!((pool.len(), pool.contains(&statement(1).id())), (1, false));
    }

    #[test]
    fn draws_keep_within_bytes() {
        let pool = Pool::new(100, 100, 1 << 20);
        pool.add((0..10).map(|number| (PARTY, statement(number))).collect());
        let one = statement(0).entry().len() + 5;
        assert_eq!(pool.draw(10, one * 3 + 1).len(), 3);
        assert_eq!(pool.len(), 7);
    }

    #[test]
    fn a_statement_is_offered_to_others_once() {
        let pool = Pool::new(100, 100, 1 << 20);
        pool.add(vec![(PARTY, statement(1))]);
        assert!(pool.overdue(Duration::from_secs(60), 1 << 20).is_empty());
        assert_eq!(pool.overdue(Duration::ZERO, 1 << 20).len(), 1);
        assert!(pool.overdue(Duration::ZERO, 1 << 20).is_empty());
    }
}
