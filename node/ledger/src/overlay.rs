//! Layers over the state: one statement's writes over its block's writes over the view.
//!
//! A statement writes into its own [`Transaction`]; only when it applied do the writes join the [`Overlay`] of the
//! block, so nothing half-applies. Parties and keys, which every statement needs, are decoded once per block; any
//! committed change of one of them forgets them all, because such changes are rare.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use stele_types::hash::{KeyId, PartyId};

use crate::state::{Domain, StateKey, StateView, Stored, Write, decode, encode};
use crate::value::{KeyRecord, PartyRecord};

/// The writes of a block over the view.
pub(crate) struct Overlay<'v> {
    view: &'v dyn StateView,
    writes: BTreeMap<StateKey, Option<Vec<u8>>>,
    parties: BTreeMap<PartyId, Option<Rc<PartyRecord>>>,
    keys: BTreeMap<KeyId, Option<Rc<KeyRecord>>>,
}

impl<'v> Overlay<'v> {
    pub(crate) fn new(view: &'v dyn StateView) -> Self {
        Self { view, writes: BTreeMap::new(), parties: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// The value under `id`, as the block stands.
    pub(crate) fn read<T: Stored>(&self, id: &T::Id) -> Option<T> {
        self.read_key(&T::state_key(id))
    }

    /// The value under a key that was computed before.
    pub(crate) fn read_key<T: Stored>(&self, key: &StateKey) -> Option<T> {
        match self.writes.get(key) {
            Some(written) => written.as_deref().map(decode),
            None => self.view.get(key).map(|bytes| decode(&bytes)),
        }
    }

    /// A value that genesis writes and nothing deletes.
    pub(crate) fn singleton<T: Stored<Id = ()>>(&self) -> T {
        self.read(&()).unwrap_or_else(|| panic!("the state has no {:?}: genesis was not written", T::DOMAIN))
    }

    /// A party, decoded once per block.
    pub(crate) fn party(&mut self, id: &PartyId) -> Option<Rc<PartyRecord>> {
        if let Some(known) = self.parties.get(id) {
            return known.clone();
        }
        let party = self.read(id).map(Rc::new);
        self.parties.insert(*id, party.clone());
        party
    }

    /// A key, decoded once per block.
    pub(crate) fn key(&mut self, id: &KeyId) -> Option<Rc<KeyRecord>> {
        if let Some(known) = self.keys.get(id) {
            return known.clone();
        }
        let key = self.read(id).map(Rc::new);
        self.keys.insert(*id, key.clone());
        key
    }

    /// Writes a value.
    pub(crate) fn put<T: Stored>(&mut self, id: &T::Id, value: &T) {
        self.put_key(T::state_key(id), value);
    }

    /// Writes a value under a key that was computed before. Parties and keys are written by transactions only, which
    /// keep the decoded ones true.
    pub(crate) fn put_key<T: Stored>(&mut self, key: StateKey, value: &T) {
        debug_assert!(!is_decoded_once(T::DOMAIN), "parties and keys are written by transactions");
        self.writes.insert(key, Some(encode(value)));
    }

    /// Deletes a key.
    pub(crate) fn remove_key(&mut self, key: StateKey) {
        self.writes.insert(key, None);
    }

    /// Deletes a value.
    pub(crate) fn remove<T: Stored>(&mut self, id: &T::Id) {
        self.remove_key(T::state_key(id));
    }

    /// All writes, by ascending key.
    pub(crate) fn into_writes(self) -> Vec<Write> {
        self.writes.into_iter().collect()
    }

    fn commit(&mut self, writes: Vec<Write>, identity: bool) {
        if identity {
            self.parties.clear();
            self.keys.clear();
        }
        self.writes.extend(writes);
    }
}

/// Whether values of the domain are kept decoded.
fn is_decoded_once(domain: Domain) -> bool {
    matches!(domain, Domain::Party | Domain::Key)
}

/// The writes of one statement. Dropped without [`Transaction::commit`], it leaves no trace.
pub(crate) struct Transaction<'b, 'v> {
    overlay: &'b mut Overlay<'v>,
    /// In the order of writing. A statement writes few values, so the newest is found by looking from the end.
    writes: Vec<Write>,
    /// Whether a party or a key was written.
    identity: bool,
    /// Whether parameters were written.
    parameters: bool,
}

impl<'b, 'v> Transaction<'b, 'v> {
    pub(crate) fn new(overlay: &'b mut Overlay<'v>) -> Self {
        Self { overlay, writes: Vec::new(), identity: false, parameters: false }
    }

    /// The value under `id`, as the statement sees it.
    pub(crate) fn read<T: Stored>(&self, id: &T::Id) -> Option<T> {
        let key = T::state_key(id);
        match self.writes.iter().rev().find(|(written, _)| *written == key) {
            Some((_, value)) => value.as_deref().map(decode),
            None => self.overlay.read_key(&key),
        }
    }

    /// Whether there is a value under `id`.
    pub(crate) fn contains<T: Stored>(&self, id: &T::Id) -> bool {
        self.read::<T>(id).is_some()
    }

    /// A value that genesis writes and nothing deletes.
    pub(crate) fn singleton<T: Stored<Id = ()>>(&self) -> T {
        self.read(&()).unwrap_or_else(|| panic!("the state has no {:?}: genesis was not written", T::DOMAIN))
    }

    /// A party as the statement sees it.
    pub(crate) fn party(&mut self, id: &PartyId) -> Option<Rc<PartyRecord>> {
        if self.identity { self.read(id).map(Rc::new) } else { self.overlay.party(id) }
    }

    /// A key as the statement sees it.
    pub(crate) fn key(&mut self, id: &KeyId) -> Option<Rc<KeyRecord>> {
        if self.identity { self.read(id).map(Rc::new) } else { self.overlay.key(id) }
    }

    /// Writes a value.
    pub(crate) fn put<T: Stored>(&mut self, id: &T::Id, value: &T) {
        self.identity |= is_decoded_once(T::DOMAIN);
        self.parameters |= T::DOMAIN == Domain::Parameters;
        self.writes.push((T::state_key(id), Some(encode(value))));
    }

    /// Deletes a value.
    pub(crate) fn remove<T: Stored>(&mut self, id: &T::Id) {
        self.identity |= is_decoded_once(T::DOMAIN);
        self.writes.push((T::state_key(id), None));
    }

    /// Whether the statement wrote what decides who governs: parties or parameters.
    pub(crate) fn wrote_rules(&self) -> bool {
        self.identity || self.parameters
    }

    /// Hands the writes to the block.
    pub(crate) fn commit(self) {
        self.overlay.commit(self.writes, self.identity);
    }
}
