//! The keys of a batch, and the tables of those that have one.
//!
//! A large job under many keys looks up a key for almost each item, on all cores at once. What such a look-up writes to
//! memory that others use as well (a lock, a count, a shared owner) costs more than all else that is done for the item
//! before a device verifies it, so it is written once for a batch, or not at all.

use std::sync::Arc;

use crate::{
    figures::CacheFigures,
    suite::{
        Signed,
        enrolment::{Asked, Enrolment, Place},
        key_cache::KeyCache,
    },
};

/// The decoded keys of a suite, with tables of those that are used often.
#[derive(Debug)]
pub(super) struct Keys<K, T> {
    decoded: KeyCache<Remembered<K, T>>,
    enrolment: Enrolment<T>,
}

/// A decoded key and its place among the tables, which never leaves the cache but for a table that was earned: all cores
/// would count its owners in one place.
#[derive(Debug)]
struct Remembered<K, T> {
    key: K,
    place: Arc<Place<T>>,
}

/// The keys of items, each once for neighbours under it.
pub(super) struct Keyed<K, T> {
    keys: Vec<Option<Known<K>>>,
    /// Which key each item has.
    of_items: Vec<usize>,
    pub(super) tables: Vec<Arc<T>>,
}

/// A key that decodes, and its table if it has one.
type Found<K, T> = (K, Option<Arc<T>>);

/// A key that decodes, among those of a batch.
#[derive(Debug)]
pub(super) struct Known<K> {
    pub(super) key: K,
    /// Place of its table in [`Keyed::tables`], if it has one.
    pub(super) table: Option<usize>,
}

impl<K: Copy, T> Keys<K, T> {
    /// Remembers so many keys, and has tables of `table_bytes_each` in so many bytes.
    pub(super) fn new(cache_entries: usize, table_bytes: usize, table_bytes_each: usize) -> Self {
        Self { decoded: KeyCache::new(cache_entries), enrolment: Enrolment::new(table_bytes, table_bytes_each) }
    }

    /// The keys of items, from the cache or decoded, with the tables that they have earned. Neighbours under the same key
    /// cost one look-up.
    pub(super) fn of(
        &self,
        items: &[Signed<'_>],
        decode: impl Fn(&[u8]) -> Option<K>,
        make: impl Fn(&K) -> Option<T>,
    ) -> Keyed<K, T> {
        Keyed::new(items, |keys, uses| {
            let now = self.enrolment.tick(keys.len());
            let found = self.decoded.find_or_decode_all(
                keys,
                |bytes| Some(Remembered { key: decode(bytes)?, place: Arc::default() }),
                |index, Remembered { key, place }| {
                    (*key, self.enrolment.ask(place, uses[index], now.wrapping_add(index as u64)))
                },
            );
            // Tables are made when no shard of the cache is locked.
            let with_table = |(key, asked)| match asked {
                Asked::Without => (key, None),
                Asked::Held(table) => (key, Some(table)),
                Asked::Earned(place) => (key, self.enrolment.admit(&place, || make(&key))),
            };
            found.into_iter().map(|found| found.map(with_table)).collect()
        })
    }

    pub(super) fn figures(&self) -> CacheFigures {
        let (tables, table_bytes) = self.enrolment.figures();
        CacheFigures { tables, table_bytes, ..self.decoded.figures() }
    }
}

impl<K, T> Keyed<K, T> {
    /// The keys of items, each of which `find` gives with its table; it is told how many neighbours are under each.
    fn new(items: &[Signed<'_>], find: impl FnOnce(&[&[u8]], &[usize]) -> Vec<Option<Found<K, T>>>) -> Self {
        let (mut keys, mut uses, mut of_items) = (Vec::new(), Vec::new(), Vec::with_capacity(items.len()));
        for neighbours in items.chunk_by(|left, right| left.public_key == right.public_key) {
            of_items.extend(std::iter::repeat_n(keys.len(), neighbours.len()));
            keys.extend(neighbours.first().map(|item| item.public_key));
            uses.push(neighbours.len());
        }
        let mut tables = Vec::new();
        let known = find(&keys, &uses).into_iter().map(|found| {
            let (key, table) = found?;
            let table = table.map(|table| {
                tables.push(table);
                tables.len() - 1
            });
            Some(Known { key, table })
        });
        Self { keys: known.collect(), of_items, tables }
    }

    /// Keys that are not remembered and have no tables.
    pub(super) fn unremembered(items: &[Signed<'_>], decode: impl Fn(&[u8]) -> Option<K>) -> Self {
        Self::new(items, |keys, _| keys.iter().map(|bytes| Some((decode(bytes)?, None))).collect())
    }

    /// The key of each item, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&Known<K>>> {
        self.of_items.iter().map(|key| self.keys[*key].as_ref())
    }
}
