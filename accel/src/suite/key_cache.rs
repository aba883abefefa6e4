//! Decoded public keys, so that a known key costs no square root.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::figures::CacheFigures;

/// Shards, so that workers seldom meet at one lock.
const SHARDS: usize = 64;

/// Longest public key of any present suite in bytes.
const KEY_LENGTH_MAX: usize = 65;

/// A bounded cache from encoded to decoded keys.
///
/// Each shard has two generations. A key is inserted into the young one; when that is full it becomes the
/// old one and the previous old one is dropped. A hit in the old generation moves the key to the young one,
/// so keys in use stay. Only keys that decode are held: junk costs its sender a decoding each time, and
/// never more room than this.
#[derive(Debug)]
pub(super) struct KeyCache<V> {
    shards: [Shard<V>; SHARDS],
    /// Keys in one generation of one shard.
    generation_max: usize,
    /// Batches of look-ups, each of which begins at another shard.
    turns: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Apart from its neighbours in memory, whose locks others take meanwhile.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<V>(Mutex<Generations<V>>);

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<KeyBytes, V>,
    old: HashMap<KeyBytes, V>,
}

/// An encoded key, zero-padded; its length keeps padded keys apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyBytes {
    length: usize,
    bytes: [u8; KEY_LENGTH_MAX],
}

impl<V> KeyCache<V> {
    /// A cache of at most `entries` keys, rounded up to two in each shard.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| {
                Shard(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
            }),
            generation_max: (entries / SHARDS / 2).max(1),
            turns: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What `take` makes of each decoded key, which comes from the cache or through `decode`, whose failures are not
    /// remembered. A shard is locked once for all its keys, and `take`, which is to be quick, sees them where they are.
    pub(super) fn find_or_decode_all<R>(
        &self,
        public_keys: &[&[u8]],
        decode: impl Fn(&[u8]) -> Option<V>,
        take: impl Fn(usize, &V) -> R,
    ) -> Vec<Option<R>> {
        let mut found: Vec<Option<R>> = public_keys.iter().map(|_| None).collect();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let shard = |index: usize| shard(public_keys[index]);
        let mut order: Vec<usize> = (0..public_keys.len()).collect();
        order.sort_unstable_by_key(|index| shard(*index).wrapping_sub(turn) % SHARDS);
        let mut missing = Vec::new();
        for of_shard in order.chunk_by(|left, right| shard(*left) == shard(*right)) {
            let Some(first) = of_shard.first() else { continue };
            let mut generations = self.lock(shard(*first));
            for index in of_shard {
                let key = KeyBytes::new(public_keys[*index]);
                let taken = key.and_then(|key| generations.find(&key, self.generation_max, |key| take(*index, key)));
                if taken.is_none() {
                    missing.push(*index);
                }
                found[*index] = taken;
            }
        }
        self.hits.fetch_add((order.len() - missing.len()) as u64, Ordering::Relaxed);
        for index in missing {
            found[index] = self.find_or_decode(public_keys[index], &decode, |key| take(index, key));
        }
        found
    }

    /// One key: it may have come since it was missed, or twice in a batch.
    fn find_or_decode<R>(
        &self,
        public_key: &[u8],
        decode: impl FnOnce(&[u8]) -> Option<V>,
        take: impl Fn(&V) -> R,
    ) -> Option<R> {
        let Some(key) = KeyBytes::new(public_key) else {
            return decode(public_key).as_ref().map(take);
        };
        let shard = shard(public_key);
        if let Some(taken) = self.lock(shard).find(&key, self.generation_max, &take) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Some(taken);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let value = decode(public_key)?;
        let taken = take(&value);
        self.lock(shard).insert(key, value, self.generation_max);
        Some(taken)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Generations<V>> {
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> CacheFigures {
        CacheFigures {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..CacheFigures::default()
        }
    }
}

impl<V> Generations<V> {
    fn find<R>(&mut self, key: &KeyBytes, generation_max: usize, take: impl FnOnce(&V) -> R) -> Option<R> {
        if let Some(value) = self.young.get(key) {
            return Some(take(value));
        }
        let value = self.old.remove(key)?;
        let taken = take(&value);
        self.insert(*key, value, generation_max);
        Some(taken)
    }

    fn insert(&mut self, key: KeyBytes, value: V, generation_max: usize) {
        if self.young.len() >= generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

impl KeyBytes {
    fn new(public_key: &[u8]) -> Option<Self> {
        let mut bytes = [0; KEY_LENGTH_MAX];
        bytes.get_mut(..public_key.len())?.copy_from_slice(public_key);
        Some(Self { length: public_key.len(), bytes })
    }
}

impl Hash for KeyBytes {
    /// Without the padding, which is half of it for most keys.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.get(..self.length).hash(state);
    }
}

/// Any byte of a curve point is evenly spread; a crafted clash only slows its sender's keys down.
fn shard(public_key: &[u8]) -> usize {
    public_key.get(8).map_or(0, |byte| usize::from(*byte)) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u16) -> [u8; 32] {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn find<V: Clone>(cache: &KeyCache<V>, public_key: &[u8], decode: impl Fn(&[u8]) -> Option<V>) -> Option<V> {
        cache.find_or_decode_all(&[public_key], decode, |_, value| value.clone()).pop().flatten()
    }

    #[test]
    fn keys_in_use_stay_and_the_cache_is_bounded() {
        // All keys of this test fall into one shard, which holds two generations of four.
        let cache = KeyCache::new(4 * 2 * SHARDS);
        let decode = |bytes: &[u8]| Some(bytes.to_vec());
        for number in 0..100 {
            find(&cache, &key(number), decode);
            assert!(find(&cache, &key(0), |_| None).is_some(), "in use after {number}");
        }
        let held = cache.shards[0].0.lock().map(|shard| shard.young.len() + shard.old.len()).expect("lock");
        assert!(held <= 8, "{held} keys held");
        assert!(find(&cache, &key(50), |_| None).is_none(), "long unused");
        assert_eq!(cache.figures(), CacheFigures { hits: 100, misses: 101, ..CacheFigures::default() });
    }

    #[test]
    fn keys_that_do_not_decode_are_not_held() {
        let cache = KeyCache::<()>::new(64);
        assert!(find(&cache, &key(1), |_| None).is_none());
        assert!(find(&cache, &key(1), |_| Some(())).is_some());
        assert!(find(&cache, &[0; 66], |_| None).is_none(), "longer than any key");
    }

    #[test]
    fn a_padded_key_is_not_its_prefix() {
        let cache = KeyCache::new(64);
        let length = |bytes: &[u8]| Some(bytes.len());
        assert_eq!(find(&cache, &[0; 32], length), Some(32));
        assert_eq!(find(&cache, &[0; 33], length), Some(33));
    }

    #[test]
    fn a_batch_finds_each_key_in_its_place() {
        let cache = KeyCache::new(1 << 14);
        let keys: Vec<[u8; 32]> =
            (0..300u16).map(|number| key(number).map(|byte| byte ^ (number >> 1).to_le_bytes()[0])).collect();
        // Some twice, one of another length, and one that does not decode.
        let mut wanted: Vec<&[u8]> = keys.iter().chain(&keys[100..110]).map(|key| &key[..]).collect();
        wanted.extend([&[7; 66][..], &[]]);
        let decode = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
        for round in 0..2 {
            let found = cache.find_or_decode_all(&wanted, decode, |index, key| (index, key.clone()));
            let expected = wanted.iter().enumerate().map(|(index, bytes)| Some((index, decode(bytes)?)));
            assert!(found.into_iter().eq(expected), "round {round}");
        }
        // The empty one is missed each time, and the one of another length is not counted.
        assert_eq!(cache.figures(), CacheFigures { hits: 10 + 310, misses: 300 + 2, ..CacheFigures::default() });
    }
}
