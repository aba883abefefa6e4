//! Who proposes: rotation by height and round, with deterministic demotion of silent proposers.
//!
//! Evidence is only the creation round in committed headers: a block created in round r tells that the proposers of
//! rounds 0 to r−1 stayed silent. Certificates are never evidence, because their signer sets differ per node.

use alloc::vec::Vec;

use crate::cbor::List;
use crate::limits::VALIDATORS_MAX;

/// Turns skipped after the first missed round; doubled by every further one.
pub const SKIP_TURNS_MIN: u32 = 16;
/// Longest skip.
pub const SKIP_TURNS_MAX: u32 = 1_024;

crate::record! {
    /// Silence of one validator.
    pub struct Silence {
        /// Missed rounds in a row, capped where the skip no longer grows.
        1 => misses: u8,
        /// Turns still to be skipped.
        2 => skip_turns: u32,
        /// Height of the first miss in this row.
        3 => since_height: u64,
    }
}

impl Silence {
    const NONE: Self = Self { misses: 0, skip_turns: 0, since_height: 0 };
}

crate::record! {
    /// The rotation after a height, by validator index. It is consensus state.
    pub struct ProposerSchedule {
        /// One entry per validator.
        1 => silences: List<Silence, VALIDATORS_MAX>,
    }
}

impl ProposerSchedule {
    /// A schedule in which nobody was silent; it starts anew when the validator set changes.
    pub fn new(validators: usize) -> Self {
        let silences = core::iter::repeat_n(Silence::NONE, validators.min(VALIDATORS_MAX)).collect();
        Self { silences: List::new(silences).unwrap_or_default() }
    }

    /// Index of the proposer of (`height`, `round`): the round-th validator that is not demoted, counted cyclically from
    /// the validator whose turn the height is.
    pub fn proposer(&self, height: u64, round: u32) -> usize {
        let count = self.silences.len().max(1);
        let demoted = self.demoted();
        let turn = turn_of(height, count);
        let eligible: Vec<usize> =
            (0..count).map(|step| (turn + step) % count).filter(|index| !demoted.contains(index)).collect();
        // At most f of n validators are demoted, so at least one is eligible.
        eligible[usize::try_from(round).unwrap_or(0) % eligible.len()]
    }

    /// Indices that are passed over: at most f, the longest silent first, ties by index.
    pub fn demoted(&self) -> Vec<usize> {
        let faulty_max = self.silences.len().saturating_sub(1) / 3;
        let mut silent: Vec<usize> =
            (0..self.silences.len()).filter(|index| self.silences[*index].skip_turns > 0).collect();
        silent.sort_by_key(|index| (self.silences[*index].since_height, *index));
        silent.truncate(faulty_max);
        silent
    }

    /// The schedule after a committed block at `height` that `proposer` created in `creation_round`.
    pub fn after(&self, height: u64, creation_round: u32, proposer: usize) -> Self {
        let count = self.silences.len();
        let demoted = self.demoted();
        let mut silences: Vec<Silence> = self.silences.to_vec();
        let turn = turn_of(height, count.max(1));
        if demoted.contains(&turn) {
            silences[turn].skip_turns -= 1;
        }
        // After a full cycle of rounds every eligible validator was counted once.
        let rounds = creation_round.min(u32::try_from(count).unwrap_or(u32::MAX));
        for round in 0..rounds {
            let silent = self.proposer(height, round);
            if silent != proposer {
                silences[silent] = silences[silent].missed(height);
            }
        }
        if let Some(own) = silences.get_mut(proposer) {
            *own = Silence::NONE;
        }
        Self { silences: List::new(silences).unwrap_or_default() }
    }
}

impl Silence {
    fn missed(&self, height: u64) -> Self {
        let steps_max = (SKIP_TURNS_MAX / SKIP_TURNS_MIN).ilog2();
        let misses = u8::try_from(steps_max + 1).unwrap_or(u8::MAX).min(self.misses + 1);
        Self {
            misses,
            skip_turns: SKIP_TURNS_MIN << (misses - 1),
            since_height: if self.misses == 0 { height } else { self.since_height },
        }
    }
}

fn turn_of(height: u64, count: usize) -> usize {
    usize::try_from(height % count as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs heights in which `dead` validators never propose; returns the rounds lost per height.
    fn run(schedule: &mut ProposerSchedule, heights: core::ops::Range<u64>, dead: &[usize]) -> Vec<u32> {
        heights
            .map(|height| {
                let round = (0..100).find(|round| !dead.contains(&schedule.proposer(height, *round))).unwrap();
                *schedule = schedule.after(height, round, schedule.proposer(height, round));
                round
            })
            .collect()
    }

    #[test]
    fn rotation_is_fair_when_nobody_is_silent() {
        let mut schedule = ProposerSchedule::new(4);
        assert!(run(&mut schedule, 1..101, &[]).iter().all(|round| *round == 0));
        assert_eq!((1..5).map(|height| schedule.proposer(height, 0)).collect::<Vec<_>>(), [1, 2, 3, 0]);
    }

    #[test]
    fn a_dead_proposer_costs_a_round_ever_more_rarely() {
        let mut schedule = ProposerSchedule::new(4);
        let lost = run(&mut schedule, 1..10_000, &[2]);
        let misses: Vec<usize> = lost.iter().enumerate().filter(|(_, r)| **r > 0).map(|(h, _)| h).collect();
        assert!(misses.len() < 10, "{misses:?}");
        let gaps: Vec<usize> = misses.windows(2).map(|pair| (pair[1] - pair[0]) / 4).collect();
        assert_eq!(gaps[..4], [17, 33, 65, 129], "skips of 16, 32, 64, 128 turns, then its own turn");
    }

    #[test]
    fn at_most_f_are_demoted_and_a_block_clears() {
        let mut schedule = ProposerSchedule::new(4);
        run(&mut schedule, 1..20, &[1, 2]);
        assert_eq!(schedule.demoted().len(), 1);
        let mut height = 20;
        while !schedule.demoted().is_empty() {
            run(&mut schedule, height..height + 1, &[]);
            height += 1;
            assert!(height < 2_000, "a validator that proposes again is cleared");
        }
        run(&mut schedule, height..height + 4, &[]);
        assert_eq!(schedule, ProposerSchedule::new(4), "every validator had a turn and a block of its own");
    }

    #[test]
    fn a_single_validator_always_proposes() {
        let schedule = ProposerSchedule::new(1).after(7, 3, 0);
        assert_eq!(schedule.proposer(8, 5), 0);
    }
}
