//! A bounded queue with one lane per party, drawn round robin.

use std::collections::{HashMap, VecDeque};

use stele_types::PartyId;

/// Items drawn from a lane before the next lane's turn. Small, so that a party with one statement waits for at most this
/// many of each other party.
const QUANTUM: usize = 8;

/// See the [module](self). A lane may hold as much as is free in the whole queue (dynamic thresholds, Choudhury and Hahne,
/// IEEE/ACM ToN 1998): alone, a party uses half of the capacity; the more others wait, the less it gets.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: HashMap<PartyId, VecDeque<T>>,
    /// Parties with items, in the order of their turns.
    turns: VecDeque<PartyId>,
    len: usize,
    capacity: usize,
    lane_max: usize,
}

impl<T> Lanes<T> {
    /// An empty queue for `capacity` items, of which one party may hold `lane_max`.
    pub fn new(capacity: usize, lane_max: usize) -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), len: 0, capacity, lane_max }
    }
    /// Items in all lanes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Parties that wait.
    pub fn parties(&self) -> usize {
        self.lanes.len()
    }
    /// Items that `party` may add now.
    pub fn room(&self, party: PartyId) -> usize {
        let free = self.capacity.saturating_sub(self.len);
        let held = self.lanes.get(&party).map_or(0, VecDeque::len);
        // It may hold as much as would still be free: held + x ≤ free − x.
        free.saturating_sub(held).div_ceil(2).min(free).min(self.lane_max.saturating_sub(held))
    }
    /// Adds an item, or gives it back.
    ///
    /// # Errors
    /// The item, when the lane is full.
    pub fn push(&mut self, party: PartyId, item: T) -> Result<(), T> {
        if self.room(party) == 0 {
            return Err(item);
        }
        let lane = self.lanes.entry(party).or_default();
        if lane.is_empty() {
            self.turns.push_back(party);
        }
        lane.push_back(item);
        self.len += 1;
        Ok(())
    }
    /// Takes up to `count` items, a few per party and turn; an item for which `fits` says no ends the draw and stays.
    pub fn take(&mut self, count: usize, mut fits: impl FnMut(&T) -> bool) -> Vec<(PartyId, T)> {
        let mut taken = Vec::with_capacity(count.min(self.len));
        while taken.len() < count
            && let Some(party) = self.turns.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&party) else { continue };
            let mut full = false;
            for _ in 0..QUANTUM.min(count - taken.len()) {
                match lane.front() {
                    Some(item) if fits(item) => {}
                    Some(_) => {
                        full = true;
                        break;
                    }
                    None => break,
                }
                if let Some(item) = lane.pop_front() {
                    self.len -= 1;
                    taken.push((party, item));
                }
            }
            if lane.is_empty() {
                self.lanes.remove(&party);
            } else if full {
                self.turns.push_front(party);
                break;
            } else {
                self.turns.push_back(party);
            }
        }
        taken
    }
    /// Keeps the items for which `keep` says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut len = 0;
        self.lanes.retain(|_, lane| {
            lane.retain(|item| keep(item));
            len += lane.len();
            !lane.is_empty()
        });
        self.len = len;
        let lanes = &self.lanes;
        self.turns.retain(|party| lanes.contains_key(party));
    }
    /// Every item, lane by lane.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lanes.values_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(byte: u8) -> PartyId {
        PartyId([byte; 16])
    }

    fn fill(lanes: &mut Lanes<u32>, from: PartyId) -> usize {
        (0..).take_while(|item| lanes.push(from, *item).is_ok()).count()
    }

    #[test]
    fn a_flood_leaves_room_for_others() {
        let mut lanes = Lanes::new(1_000, 1_000);
        let flood = fill(&mut lanes, party(1));
        assert!((500..=501).contains(&flood), "{flood}");
        assert!((250..=251).contains(&fill(&mut lanes, party(2))));
        assert!(fill(&mut lanes, party(3)) > 120);
        assert!(lanes.len() <= 1_000);
    }

    #[test]
    fn draws_alternate_between_parties() {
        let mut lanes = Lanes::new(1_000, 1_000);
        fill(&mut lanes, party(1));
        for item in 0..10 {
            lanes.push(party(2), item).unwrap();
        }
        let drawn = lanes.take(32, |_| true);
        let of_second = drawn.iter().filter(|(from, _)| *from == party(2)).count();
        assert_eq!(of_second, 10, "the small party is served within two turns");
    }

    #[test]
    fn order_within_a_lane_is_kept_and_a_misfit_stays() {
        let mut lanes = Lanes::new(100, 100);
        for item in 0..20 {
            lanes.push(party(1), item).unwrap();
        }
        let drawn: Vec<u32> = lanes.take(100, |item| *item != 11).into_iter().map(|(_, item)| item).collect();
        assert_eq!(drawn, (0..11).collect::<Vec<_>>());
        assert_eq!(lanes.len(), 9);
        lanes.retain(|item| *item > 15);
        assert_eq!(lanes.take(100, |_| true).len(), 4);
        assert!(lanes.is_empty() && lanes.parties() == 0);
    }
}
