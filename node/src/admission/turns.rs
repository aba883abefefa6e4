//! A queue in which parties take turns.

use std::collections::{HashMap, VecDeque};

use stele_types::PartyId;

/// Items drawn from a lane before the next lane's turn. Small, so that a party with one statement waits for at most this
/// many of each other party.
const QUANTUM: usize = 8;

/// One lane per party, drawn round robin. How much a party may put in is decided by [`Shares`](super::shares::Shares).
#[derive(Debug)]
pub(super) struct Turns<T> {
    lanes: HashMap<PartyId, VecDeque<T>>,
    /// Parties with items, in the order of their turns.
    order: VecDeque<PartyId>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), order: VecDeque::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    /// Items in all lanes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
    /// Whether no item waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Adds an item behind those of its party.
    pub(super) fn push(&mut self, party: PartyId, item: T) {
        self.lane(party).push_back(item);
    }
    /// Puts items back before those of their parties, in the order in which they were taken.
    pub(super) fn put_back(&mut self, items: impl DoubleEndedIterator<Item = (PartyId, T)>) {
        for (party, item) in items.rev() {
            self.lane(party).push_front(item);
        }
    }
    /// The lane of a party that is about to grow by one.
    fn lane(&mut self, party: PartyId) -> &mut VecDeque<T> {
        self.len += 1;
        let lane = self.lanes.entry(party).or_default();
        if lane.is_empty() {
            self.order.push_back(party);
        }
        lane
    }
    /// Takes up to `count` items, a few per party and turn; an item for which `fits` says no ends the draw and stays.
    pub(super) fn take(&mut self, count: usize, mut fits: impl FnMut(&T) -> bool) -> Vec<(PartyId, T)> {
        let mut taken = Vec::with_capacity(count.min(self.len));
        while taken.len() < count
            && let Some(party) = self.order.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&party) else { continue };
            let before = taken.len();
            let turn = QUANTUM.min(count - before).min(lane.len());
            while taken.len() - before < turn && lane.front().is_some_and(&mut fits) {
                taken.extend(lane.pop_front().map(|item| (party, item)));
            }
            let drawn = taken.len() - before;
            self.len -= drawn;
            if lane.is_empty() {
                self.lanes.remove(&party);
            } else if drawn < turn {
                self.order.push_front(party);
                break;
            } else {
                self.order.push_back(party);
            }
        }
        taken
    }
    /// Keeps the items for which `keep` says yes.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(PartyId, &T) -> bool) {
        let mut len = 0;
        self.lanes.retain(|party, lane| {
            lane.retain(|item| keep(*party, item));
            len += lane.len();
            !lane.is_empty()
        });
        self.len = len;
        let lanes = &self.lanes;
        self.order.retain(|party| lanes.contains_key(party));
    }
    /// Every item, lane by lane.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lanes.values_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(byte: u8) -> PartyId {
        PartyId([byte; 16])
    }

    fn items(drawn: Vec<(PartyId, u32)>) -> Vec<u32> {
        drawn.into_iter().map(|(_, item)| item).collect()
    }

    #[test]
    fn draws_alternate_between_parties() {
        let mut turns = Turns::default();
        (0..500).for_each(|item| turns.push(party(1), item));
        (0..10).for_each(|item| turns.push(party(2), item));
        let drawn = turns.take(32, |_| true);
        let of_second = drawn.iter().filter(|(from, _)| *from == party(2)).count();
        assert_eq!(of_second, 10, "the small party is served within two turns");
    }

    #[test]
    fn order_within_a_lane_is_kept_and_a_misfit_stays() {
        let mut turns = Turns::default();
        (0..20).for_each(|item| turns.push(party(1), item));
        assert_eq!(items(turns.take(100, |item| *item != 11)), (0..11).collect::<Vec<_>>());
        assert_eq!(turns.len(), 9);
        turns.retain(|_, item| *item > 15);
        assert_eq!(items(turns.take(100, |_| true)), [16, 17, 18, 19]);
        assert!(turns.is_empty());
    }

    #[test]
    fn what_is_put_back_comes_first_and_in_its_old_order() {
        let mut turns = Turns::default();
        (0..6).for_each(|item| turns.push(party(1), item));
        let drawn = turns.take(4, |_| true);
        turns.put_back(drawn.into_iter());
        assert_eq!(items(turns.take(100, |_| true)), [0, 1, 2, 3, 4, 5]);
    }
}
