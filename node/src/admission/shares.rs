//! How much of a bounded queue each party may hold.
//!
//! Three bounds, the least of which counts:
//!
//! 1. A party may hold as much as would still be free (dynamic thresholds, Choudhury and Hahne, IEEE/ACM Transactions on
//!    Networking 1998): the more others hold, the less it gets, and a newcomer always finds room.
//! 2. It never holds more than a configured part of the queue.
//! 3. Parties that want more than they get take equal amounts over time. A party that was refused counts as *contending*
//!    for a second, whether or not it holds anything: who listens to `Retry-After` is away for most of that time, and the
//!    queue drains meanwhile. While others contend, a party may be ahead of the one that got least by one share of the
//!    queue (the counters of start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM 1996).
//!
//! Without the third bound whoever asks more often finds the free places more often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stele_types::PartyId;

/// How long a refused party counts as contending: twice what it is asked to wait.
const CONTENDING: Duration = Duration::from_secs(1);
/// Parties that are followed as contending. Beyond, the first two bounds must do.
const CONTENDING_MAX: usize = 1_024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Shares {
    held: HashMap<PartyId, usize>,
    total: usize,
    capacity: usize,
    party_max: usize,
    contending: HashMap<PartyId, Contender>,
}

/// A party that wants more than it gets.
#[derive(Debug)]
struct Contender {
    until: Instant,
    /// What it got; only differences between contenders count.
    taken: u64,
}

impl Shares {
    /// Shares of `capacity` places, of which one party may hold `party_max`.
    pub(super) fn new(capacity: usize, party_max: usize) -> Self {
        Self { held: HashMap::new(), total: 0, capacity, party_max, contending: HashMap::new() }
    }
    /// Whether no place is free.
    pub(super) fn is_full(&self) -> bool {
        self.total >= self.capacity
    }
    /// Places that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.total
    }
    /// Gives `party` up to `count` places; it holds what is returned until it is [released](Self::release).
    pub(super) fn take(&mut self, party: PartyId, count: usize, now: Instant) -> usize {
        self.contending.retain(|_, contender| contender.until > now);
        let taken = count.min(self.room(party)).min(self.lead(party));
        if taken < count {
            self.contend(party, now);
        }
        if let Some(contender) = self.contending.get_mut(&party) {
            contender.taken += taken as u64;
        }
        self.hold(party, taken);
        taken
    }
    /// Gives back places that were taken a moment ago and are of no use, as if they had not been taken.
    pub(super) fn give_back(&mut self, party: PartyId, count: usize) {
        if let Some(contender) = self.contending.get_mut(&party) {
            contender.taken = contender.taken.saturating_sub(count as u64);
        }
        self.release(party, count);
    }
    /// Takes places whether or not they are free: the party had them before.
    pub(super) fn hold(&mut self, party: PartyId, count: usize) {
        if count > 0 {
            *self.held.entry(party).or_default() += count;
            self.total += count;
        }
    }
    /// Gives places back.
    pub(super) fn release(&mut self, party: PartyId, count: usize) {
        let Some(held) = self.held.get_mut(&party) else { return };
        let released = count.min(*held);
        *held -= released;
        self.total -= released;
        if *held == 0 {
            self.held.remove(&party);
        }
    }

    fn room(&self, party: PartyId) -> usize {
        let free = self.capacity.saturating_sub(self.total);
        let held = self.held.get(&party).copied().unwrap_or_default();
        // It may hold as much as would still be free: held + x ≤ free − x.
        free.saturating_sub(held).div_ceil(2).min(free).min(self.party_max.saturating_sub(held))
    }

    /// What it may take before it is a share of the queue ahead of the contender that got least.
    fn lead(&self, party: PartyId) -> usize {
        let others = || self.contending.iter().filter(|(other, _)| **other != party).map(|(_, contender)| contender);
        let Some(least) = others().map(|contender| contender.taken).min() else { return usize::MAX };
        let share = self.capacity / (others().count() + 2);
        let taken = self.contending.get(&party).map_or(least, |contender| contender.taken);
        usize::try_from((least + share as u64).saturating_sub(taken)).unwrap_or(usize::MAX)
    }

    /// A newcomer starts level with the one that got least: what it did not ask for before is no claim.
    fn contend(&mut self, party: PartyId, now: Instant) {
        let until = now + CONTENDING;
        if let Some(contender) = self.contending.get_mut(&party) {
            contender.until = until;
        } else if self.contending.len() < CONTENDING_MAX {
            let taken = self.contending.values().map(|contender| contender.taken).min().unwrap_or_default();
            self.contending.insert(party, Contender { until, taken });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(byte: u8) -> PartyId {
        PartyId([byte; 16])
    }

    #[test]
    fn a_flood_leaves_room_for_others() {
        let mut shares = Shares::new(1_000, 1_000);
        let now = Instant::now();
        let flood: usize = (0..1_000).map(|_| shares.take(party(1), 1, now)).sum();
        assert!((500..=501).contains(&flood), "{flood}");
        let second = shares.take(party(2), 1_000, now);
        assert!((249..=251).contains(&second), "{second}");
        assert!(shares.take(party(3), 1_000, now) > 120);
        assert!(!shares.is_full());
    }

    #[test]
    fn no_party_holds_more_than_its_part_and_places_come_back() {
        let mut shares = Shares::new(1_000, 100);
        let now = Instant::now();
        assert_eq!(shares.take(party(1), 500, now), 100);
        assert_eq!(shares.take(party(1), 1, now), 0);
        shares.release(party(1), 60);
        assert_eq!(shares.take(party(1), 500, now), 60);
        shares.release(party(1), 1_000);
        assert_eq!((shares.total, shares.held.len()), (0, 0));
    }

    /// The queue drains all at once, as blocks empty it, and one party asks ten times as often as the other, which comes
    /// back only every half second. That both have room after every draw did not make them equal.
    #[test]
    fn who_asks_ten_times_as_often_gets_no_more() {
        let mut shares = Shares::new(2_000, 500);
        let start = Instant::now();
        let mut got = [0_usize; 2];
        for tick in 0..20_000_u64 {
            let now = start + Duration::from_millis(tick);
            let mut ask = |party: PartyId, got: &mut usize| *got += shares.take(party, 500, now);
            if tick % 50 == 0 {
                ask(party(1), &mut got[0]);
            }
            if tick % 500 == 0 {
                ask(party(2), &mut got[1]);
                ask(party(2), &mut got[1]);
            }
            if tick % 200 == 0 {
                shares.release(party(1), usize::MAX);
                shares.release(party(2), usize::MAX);
            }
        }
        let percent = got[0] * 100 / (got[0] + got[1]);
        assert!(percent <= 55, "{percent} %: {got:?}");
    }

    #[test]
    fn a_party_alone_gets_all_that_it_asks_for_again_when_the_other_is_gone() {
        let mut shares = Shares::new(1_000, 1_000);
        let start = Instant::now();
        shares.take(party(1), 1_000, start);
        shares.take(party(2), 1_000, start);
        shares.release(party(1), usize::MAX);
        shares.release(party(2), usize::MAX);
        let later = start + CONTENDING + Duration::from_millis(1);
        let total: usize = (0..100)
            .map(|_| {
                let taken = shares.take(party(1), 500, later);
                shares.release(party(1), taken);
                taken
            })
            .sum();
        assert_eq!(total, 50_000);
    }
}
