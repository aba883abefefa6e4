//! Verified statements that wait for a block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stele_types::{Code, PartyId, Statement, StatementId};
use tokio::sync::Notify;

use super::shares::Shares;
use super::turns::Turns;

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
    place_bytes: usize,
}

/// A place in the pool for a statement that is on its way there. It is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pool: Arc<Pool>,
    party: PartyId,
    cost: usize,
    used: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            self.pool.inner().shares.release(self.party, self.cost);
        }
    }
}

#[derive(Debug)]
struct Inner {
    turns: Turns<Pooled>,
    /// Places of the statements that wait, and of those whose signatures are being verified.
    shares: Shares,
    /// Every statement known here: waiting, or drawn for a block that is not decided yet.
    known: HashMap<StatementId, Known>,
    bytes: usize,
}

/// A statement known here, with its exact bytes: another signature over the same content is not the same submission.
#[derive(Debug)]
struct Known {
    place: Whereabouts,
    entry: Arc<[u8]>,
}

/// Where a known statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    Waiting,
    Drawn,
}

/// What became of a statement that was added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    New,
    Known,
    Not,
}

impl Inner {
    fn add(&mut self, statement: Statement, party: PartyId, arrived: Instant, bytes_max: usize) -> Taken {
        let (id, bytes) = (statement.id(), statement.entry().len());
        if self.known.contains_key(&id) {
            return Taken::Known;
        }
        if self.bytes + bytes > bytes_max {
            return Taken::Not;
        }
        let entry = Arc::clone(statement.entry());
        self.known.insert(id, Known { place: Whereabouts::Waiting, entry });
        self.turns.push(party, Pooled { statement, arrived, forwarded: false });
        self.bytes += bytes;
        Taken::New
    }
}

impl Pool {
    /// An empty pool for `statements_max` statements, of which one party may hold `party_max`.
    pub fn new(statements_max: usize, party_max: usize, bytes_max: usize) -> Self {
        let shares = Shares::new(statements_max, party_max);
        let inner = Inner { turns: Turns::default(), shares, known: HashMap::new(), bytes: 0 };
        let place_bytes = (bytes_max / statements_max.max(1)).max(1);
        Self { inner: Mutex::new(inner), arrivals: Notify::new(), bytes_max, place_bytes }
    }
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Statements that wait.
    pub fn len(&self) -> usize {
        self.inner().turns.len()
    }
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.inner().turns.is_empty()
    }
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.inner().bytes
    }
    /// Places that a statement of `bytes` takes: a long one takes several, so that shares of places are shares of bytes.
    fn cost(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.place_bytes).max(1)
    }
    /// Places for the first of `party`'s statements of these lengths, before any work is spent on them; beside them, why
    /// there are no more: `saturated` when the pool is full, `share_exceeded` when the party is over its share.
    pub(super) fn places(self: &Arc<Self>, party: PartyId, lengths: impl Iterator<Item = usize>) -> (Vec<Place>, Code) {
        let costs: Vec<usize> = lengths.map(|bytes| self.cost(bytes)).collect();
        let mut inner = self.inner();
        let full = inner.shares.is_full();
        let mut left = inner.shares.take(party, costs.iter().sum(), Instant::now());
        let mut places = Vec::with_capacity(costs.len());
        for cost in costs {
            let Some(rest) = left.checked_sub(cost) else { break };
            left = rest;
            places.push(Place { pool: Arc::clone(self), party, cost, used: false });
        }
        inner.shares.give_back(party, left);
        (places, if full { Code::Saturated } else { Code::ShareExceeded })
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
    pub(super) fn add(&self, statements: Vec<(Place, Statement)>) -> Vec<bool> {
        let arrived = Instant::now();
        let mut spare = Vec::new();
        let taken = {
            let mut inner = self.inner();
            let mut add = |(mut place, statement): (Place, Statement)| {
                let taken = inner.add(statement, place.party, arrived, self.bytes_max);
                place.used = taken == Taken::New;
                spare.push(place);
                taken != Taken::Not
            };
            statements.into_iter().map(&mut add).collect()
        };
        // Places that were not used go back, which takes the lock again.
        drop(spare);
        self.arrivals.notify_waiters();
        taken
    }

    /// Draws statements for a block of at most `statements_max` and `bytes_max`. They stay known until they are decided
    /// or put back.
    pub fn draw(&self, statements_max: usize, bytes_max: usize) -> Vec<(PartyId, Pooled)> {
        let mut inner = self.inner();
        let mut left = bytes_max;
        // Beside the entry itself a block holds the head of its byte string.
        let drawn = inner.turns.take(statements_max, |pooled| {
            let bytes = pooled.statement.entry().len() + 5;
            let fits = bytes <= left;
            if fits {
                left -= bytes;
            }
            fits
        });
        for (party, pooled) in &drawn {
            let cost = self.cost(pooled.statement.entry().len());
            inner.shares.release(*party, cost);
            if let Some(known) = inner.known.get_mut(&pooled.statement.id()) {
                known.place = Whereabouts::Drawn;
            }
        }
        inner.bytes -= drawn.iter().map(|(_, pooled)| pooled.statement.entry().len()).sum::<usize>();
        drawn
    }

    /// Puts drawn statements back: their block was not decided. They go before what came later, and over the bounds if
    /// the pool filled up meanwhile, by one block at most.
    pub fn put_back(&self, drawn: Vec<(PartyId, Pooled)>) {
        let mut inner = self.inner();
        let Inner { turns, shares, known, bytes } = &mut *inner;
        let open = drawn.into_iter().filter(|(party, pooled)| {
            let Some(known) = known.get_mut(&pooled.statement.id()) else { return false };
            known.place = Whereabouts::Waiting;
            let length = pooled.statement.entry().len();
            shares.hold(*party, self.cost(length));
            *bytes += length;
            true
        });
        turns.put_back(open.collect::<Vec<_>>().into_iter());
    }

    /// Forgets statements that were decided, or that can no longer enter a block.
    pub fn forget<'s>(&self, ids: impl Iterator<Item = &'s StatementId>) {
        let mut inner = self.inner();
        let mut waiting = false;
        for id in ids {
            waiting |= inner.known.remove(id).is_some_and(|known| known.place == Whereabouts::Waiting);
        }
        if waiting {
            let Inner { turns, shares, known, bytes } = &mut *inner;
            turns.retain(|party, pooled| {
                let keep = known.contains_key(&pooled.statement.id());
                if !keep {
                    shares.release(party, self.cost(pooled.statement.entry().len()));
                }
                keep
            });
            *bytes = turns.iter_mut().map(|pooled| pooled.statement.entry().len()).sum();
        }
    }

    /// Statements that have waited longer than `age` and were not offered to others yet, up to `bytes_max`; they are
    /// marked as offered.
    pub fn overdue(&self, age: Duration, bytes_max: usize) -> Vec<Statement> {
        let mut left = bytes_max;
        let mut inner = self.inner();
        let mut overdue = Vec::new();
        for pooled in inner.turns.iter_mut().filter(|pooled| !pooled.forwarded && pooled.arrived.elapsed() > age) {
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

    fn pool() -> Arc<Pool> {
        Arc::new(Pool::new(100, 100, 1 << 20))
    }

    fn add(pool: &Arc<Pool>, numbers: &[u8]) -> Vec<bool> {
        let (places, _) = pool.places(PARTY, numbers.iter().map(|number| statement(*number).entry().len()));
        pool.add(places.into_iter().zip(numbers.iter().map(|number| statement(*number))).collect())
    }

    fn places_held(pool: &Pool) -> usize {
        pool.inner().shares.held()
    }

    #[test]
    fn a_statement_is_held_once_until_it_is_decided() {
        let pool = pool();
        assert_eq!(add(&pool, &[1, 1, 2]), [true; 3]);
        assert_eq!(pool.len(), 2);
        let drawn = pool.draw(10, 1 << 20);
        assert_eq!((drawn.len(), pool.len(), pool.bytes()), (2, 0, 0));
        assert!(pool.contains(&statement(1).id()), "drawn is still known");
        assert_eq!(add(&pool, &[1]), [true]);
        assert_eq!(pool.len(), 0, "and not queued twice");
        pool.put_back(drawn);
        assert_eq!(pool.len(), 2);
        pool.forget([statement(1).id()].iter());
        assert_eq!((pool.len(), pool.contains(&statement(1).id()), places_held(&pool)), (1, false, 1));
    }

    #[test]
    fn places_that_are_not_used_come_back() {
        let pool = pool();
        let (places, _) = pool.places(PARTY, std::iter::repeat_n(100, 1_000));
        assert_eq!((places.len(), places_held(&pool)), (50, 50), "half of what is free");
        let (none, code) = pool.places(PARTY, std::iter::once(100));
        assert_eq!((none.len(), code), (0, Code::ShareExceeded));
        drop(places);
        assert_eq!(places_held(&pool), 0);
        assert_eq!(add(&pool, &[1, 1]), [true; 2]);
        assert_eq!(places_held(&pool), 1, "a statement that is known needs no second place");
    }

    #[test]
    fn long_statements_take_as_many_places_as_their_bytes_are_worth() {
        let pool = pool();
        let ten_places = 10 * ((1 << 20) / 100);
        let (places, code) = pool.places(PARTY, std::iter::repeat_n(ten_places, 100));
        assert_eq!((places.len(), places_held(&pool), code), (5, 50, Code::ShareExceeded));
        let (others, _) = pool.places(PartyId([3; 16]), std::iter::repeat_n(100, 100));
        assert!(others.len() >= 20, "{}", others.len());
        drop((places, others));
        assert_eq!(places_held(&pool), 0);
    }

    #[test]
    fn draws_keep_within_bytes() {
        let pool = pool();
        add(&pool, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let one = statement(0).entry().len() + 5;
        assert_eq!(pool.draw(10, one * 3 + 1).len(), 3);
        assert_eq!(pool.len(), 7);
    }

    #[test]
    fn a_statement_is_offered_to_others_once() {
        let pool = pool();
        add(&pool, &[1]);
        assert!(pool.overdue(Duration::from_secs(60), 1 << 20).is_empty());
        assert_eq!(pool.overdue(Duration::ZERO, 1 << 20).len(), 1);
        assert!(pool.overdue(Duration::ZERO, 1 << 20).is_empty());
    }
}
