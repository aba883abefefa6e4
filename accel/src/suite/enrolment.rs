//! Which keys have a table of their own.
//!
//! A table is worth its memory only for a key that is seen again and again, so a key earns it by use. When the bound is
//! reached, a newcomer takes the place of the coldest holder, but only of one that was not used since the newcomer
//! began to count: a round of more keys than there is room for then leaves the tables where they are instead of
//! rebuilding each of them every time.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock, TryLockError, Weak,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Uses after which a key asks for a table. A table costs four verifications and saves most of each later one.
const USES_MIN: usize = 8;

/// The tables of one suite, bounded in bytes.
#[derive(Debug)]
pub(super) struct Enrolment<T> {
    holders: Mutex<Vec<Weak<Place<T>>>>,
    holders_max: usize,
    table_bytes: usize,
    /// Counts uses of all keys.
    clock: AtomicU64,
}

/// What a decoded key carries: its table, or how far it is from one.
#[derive(Debug)]
pub(super) struct Place<T> {
    table: RwLock<Option<Arc<T>>>,
    uses: AtomicUsize,
    /// When counting began.
    since: AtomicU64,
    used: AtomicU64,
}

/// What a key has.
#[derive(Debug)]
pub(super) enum Asked<T> {
    Without,
    Held(Arc<T>),
    /// It has earned a table: [`Enrolment::admit`] makes it.
    Earned(Arc<Place<T>>),
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self { table: RwLock::new(None), uses: AtomicUsize::new(0), since: AtomicU64::new(0), used: AtomicU64::new(0) }
    }
}

impl<T> Enrolment<T> {
    /// Room for `bytes` of tables of `table_bytes` each; less than one means that no key gets one.
    pub(super) fn new(bytes: usize, table_bytes: usize) -> Self {
        Self { holders: Mutex::default(), holders_max: bytes / table_bytes, table_bytes, clock: AtomicU64::new(1) }
    }

    /// Counts the uses of so many keys, each of which is to [ask](Self::ask) at a time of its own, from the first on.
    pub(super) fn tick(&self, keys: usize) -> u64 {
        // Where there is no room nobody counts, which all cores would do in one place.
        if self.holders_max == 0 { 0 } else { self.clock.fetch_add(keys as u64, Ordering::Relaxed) }
    }

    /// What a key has that is used so many times now.
    pub(super) fn ask(&self, place: &Arc<Place<T>>, uses: usize, now: u64) -> Asked<T> {
        if self.holders_max == 0 {
            return Asked::Without;
        }
        place.used.store(now, Ordering::Relaxed);
        if let Some(table) = place.held() {
            return Asked::Held(table);
        }
        let before = place.uses.fetch_add(uses, Ordering::Relaxed);
        if before == 0 {
            place.since.store(now, Ordering::Relaxed);
        }
        if before + uses <= USES_MIN {
            return Asked::Without;
        }
        // Granted or not, the next request is as many uses away.
        place.uses.store(0, Ordering::Relaxed);
        Asked::Earned(Arc::clone(place))
    }

    /// Keys with a table, and the bytes of memory that their tables take.
    pub(super) fn figures(&self) -> (u64, u64) {
        let count = self.count();
        (count as u64, (count * self.table_bytes) as u64)
    }

    fn count(&self) -> usize {
        self.holders().iter().filter_map(Weak::upgrade).filter(|place| place.held().is_some()).count()
    }

    /// Makes the table that a key has earned; `make` may refuse, for keys that cannot have one. That is under the lock, so
    /// that no more are made than there is room for; whoever finds the lock taken goes on without a table.
    pub(super) fn admit(&self, place: &Arc<Place<T>>, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let mut holders = match self.holders.try_lock() {
            Ok(holders) => holders,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if let Some(table) = place.held() {
            return Some(table);
        }
        holders.retain(|holder| holder.strong_count() > 0);
        let full = holders.len() >= self.holders_max;
        let coldest = if full { Some(coldest_before(&holders, place.since.load(Ordering::Relaxed))?) } else { None };
        let table = Arc::new(make()?);
        if let Some(holder) = coldest.and_then(|coldest| holders.swap_remove(coldest).upgrade()) {
            holder.set(None);
        }
        place.set(Some(Arc::clone(&table)));
        holders.push(Arc::downgrade(place));
        Some(table)
    }

    fn holders(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Place<T>>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The holder that was not used for longest, if it was not used since then.
fn coldest_before<T>(holders: &[Weak<Place<T>>], since: u64) -> Option<usize> {
    let used = |holder: &Weak<Place<T>>| holder.upgrade().map_or(0, |place| place.used.load(Ordering::Relaxed));
    let (index, used) = holders.iter().map(used).enumerate().min_by_key(|(_, used)| *used)?;
    (used < since).then_some(index)
}

impl<T> Place<T> {
    fn held(&self) -> Option<Arc<T>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, table: Option<Arc<T>>) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Enrolment<T> {
        fn table(&self, place: &Arc<Place<T>>, uses: usize, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
            match self.ask(place, uses, self.tick(1)) {
                Asked::Without => None,
                Asked::Held(table) => Some(table),
                Asked::Earned(place) => self.admit(&place, make),
            }
        }
    }

    /// Uses a key until it has a table; false if it has none after many.
    fn enrols(enrolment: &Enrolment<u8>, place: &Arc<Place<u8>>) -> bool {
        (0..20).any(|_| enrolment.table(place, 1, || Some(7)).is_some())
    }

    #[test]
    fn a_key_gets_its_table_after_some_uses_and_no_more_are_held_than_fit() {
        let enrolment = Enrolment::new(350, 100);
        let places: Vec<Arc<Place<u8>>> = (0..10).map(|_| Arc::default()).collect();
        assert!((0..USES_MIN).all(|_| enrolment.table(&places[0], 1, || Some(7)).is_none()));
        assert!(enrolment.table(&places[0], 1, || Some(7)).is_some());
        // One key after the other is used, so each finds the others cold.
        assert!(places.iter().all(|place| enrols(&enrolment, place)));
        assert_eq!(enrolment.count(), 3);
        assert!(places[7..].iter().all(|place| place.held().is_some()), "the last ones hold them");
    }

    #[test]
    fn a_round_of_too_many_keys_leaves_the_tables_alone() {
        let enrolment = Enrolment::new(300, 100);
        let places: Vec<Arc<Place<u8>>> = (0..4).map(|_| Arc::default()).collect();
        let mut made = 0;
        for _ in 0..200 {
            for place in &places {
                enrolment.table(place, 1, || {
                    made += 1;
                    Some(7)
                });
            }
        }
        assert_eq!((made, enrolment.count()), (3, 3));
    }

    #[test]
    fn a_key_that_is_forgotten_frees_its_place() {
        let enrolment = Enrolment::new(100, 100);
        let first = Arc::default();
        assert!(enrols(&enrolment, &first));
        drop(first);
        assert_eq!(enrolment.count(), 0);
        assert!(enrols(&enrolment, &Arc::default()));
    }

    #[test]
    fn nothing_is_held_without_room_or_when_the_table_cannot_be_made() {
        assert!(!enrols(&Enrolment::new(99, 100), &Arc::default()));
        let enrolment = Enrolment::<u8>::new(100, 100);
        let place = Arc::default();
        assert!((0..100).all(|_| enrolment.table(&place, 1, || None).is_none()));
        assert_eq!(enrolment.count(), 0);
    }
}
