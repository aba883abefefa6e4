//! A bounded memory of signatures that verified, so that no node verifies the same bytes twice.
//!
//! Only positive results are kept: keyed by SHA-256 of rule version, public key and full bytes, so a hit can never stand
//! for another rule, key or signature. Two generations bound it: when the younger is full, the older is dropped.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use stele_types::{Hash, Statement};

/// Entries of one generation: 262,144 × about 56 bytes = 15 MB for both.
const GENERATION_MAX: usize = 131_072;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Verified {
    generations: Mutex<[HashSet<Hash>; 2]>,
}

impl Verified {
    /// The key of a statement under a rule and a public key.
    pub fn key(rule_version: u16, public_key: &[u8], statement: &Statement) -> Hash {
        Hash::tagged("stele/verified/v1", &[&rule_version.to_be_bytes(), public_key, statement.entry()])
    }
    /// Remembers keys of statements that verified.
    pub fn add(&self, keys: impl Iterator<Item = Hash>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if generations[0].len() >= GENERATION_MAX {
                generations.swap(0, 1);
                generations[0].clear();
            }
            generations[0].insert(key);
        }
    }
    /// Whether a key is remembered.
    pub fn contains(&self, key: &Hash) -> bool {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().any(|generation| generation.contains(key))
    }
}
