//! Decoded public keys, so that a known key costs no square root.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::figures::CacheFigures;

/// Shards, so that workers seldom meet at one lock.
const SHARDS: usize = 16;

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
    shards: [Mutex<Generations<V>>; SHARDS],
    /// Keys in one generation of one shard.
    generation_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<KeyBytes, V>,
    old: HashMap<KeyBytes, V>,
}

/// An encoded key, zero-padded; its length keeps padded keys apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct KeyBytes {
    length: usize,
    bytes: [u8; KEY_LENGTH_MAX],
}

impl<V: Clone> KeyCache<V> {
    /// A cache of at most `entries` keys, rounded up to two in each shard.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() })),
            generation_max: (entries / SHARDS / 2).max(1),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The decoded key, from the cache or through `decode`, whose failures are not remembered.
    pub(super) fn find_or_decode(&self, public_key: &[u8], decode: impl FnOnce(&[u8]) -> Option<V>) -> Option<V> {
        let Some(key) = KeyBytes::new(public_key) else {
            return decode(public_key);
        };
        let shard = &self.shards[key.shard()];
        if let Some(value) = shard.lock().unwrap_or_else(PoisonError::into_inner).find(&key, self.generation_max) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Some(value);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let value = decode(public_key)?;
        let mut generations = shard.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(key, value.clone(), self.generation_max);
        Some(value)
    }

    pub(super) fn figures(&self) -> CacheFigures {
        CacheFigures {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..CacheFigures::default()
        }
    }
}

impl<V: Clone> Generations<V> {
    fn find(&mut self, key: &KeyBytes, generation_max: usize) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone(), generation_max);
        Some(value)
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

    /// Any byte of a curve point is evenly spread; a crafted clash only slows its sender's keys down.
    fn shard(&self) -> usize {
        usize::from(self.bytes[8]) % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u16) -> [u8; 32] {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn keys_in_use_stay_and_the_cache_is_bounded() {
        // All keys of this test fall into one shard, which holds two generations of four.
        let cache = KeyCache::new(4 * 2 * SHARDS);
        let decode = |bytes: &[u8]| Some(bytes.to_vec());
        for number in 0..100 {
            cache.find_or_decode(&key(number), decode);
            assert!(cache.find_or_decode(&key(0), |_| None).is_some(), "in use after {number}");
        }
        let held = cache.shards[0].lock().map(|shard| shard.young.len() + shard.old.len()).expect("lock");
        assert!(held <= 8, "{held} keys held");
        assert!(cache.find_or_decode(&key(50), |_| None).is_none(), "long unused");
        assert_eq!(cache.figures(), CacheFigures { hits: 100, misses: 101, ..CacheFigures::default() });
    }

    #[test]
    fn keys_that_do_not_decode_are_not_held() {
        let cache = KeyCache::<()>::new(64);
        assert!(cache.find_or_decode(&key(1), |_| None).is_none());
        assert!(cache.find_or_decode(&key(1), |_| Some(())).is_some());
        assert!(cache.find_or_decode(&[0; 66], |_| None).is_none(), "longer than any key");
    }

    #[test]
    fn a_padded_key_is_not_its_prefix() {
        let cache = KeyCache::new(64);
        let length = |bytes: &[u8]| Some(bytes.len());
        assert_eq!(cache.find_or_decode(&[0; 32], length), Some(32));
        assert_eq!(cache.find_or_decode(&[0; 33], length), Some(33));
    }
}
