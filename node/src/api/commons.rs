//! A bounded resource that no party can take all of.
//!
//! Whoever holds a part of it may take more only while it then holds no more than was left (dynamic thresholds: Choudhury
//! and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, with a factor of one). Somebody alone gets half; each of
//! `n` that all want more gets one part in `n + 1`, and one such part is always left for a newcomer. No share has to be
//! configured, and nobody has to be known beforehand.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stele_types::Code;

/// The resource, counted in places or bytes.
#[derive(Debug)]
pub(super) struct Commons<H> {
    total: usize,
    taken: Mutex<Taken<H>>,
}

#[derive(Debug)]
struct Taken<H> {
    all: usize,
    /// What each holder has; none has nothing.
    by: HashMap<H, usize>,
}

/// A part of the resource, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Part<H: Copy + Eq + Hash> {
    commons: Arc<Commons<H>>,
    holder: Option<H>,
    amount: usize,
}

impl<H: Copy + Eq + Hash> Commons<H> {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, taken: Mutex::new(Taken { all: 0, by: HashMap::new() }) })
    }

    /// Takes a part for a holder; nobody's share is looked at where there is no holder.
    ///
    /// # Errors
    /// `saturated` when less is left, `share_exceeded` when the holder has its share.
    pub(super) fn take(self: &Arc<Self>, holder: Option<H>, amount: usize) -> Result<Part<H>, Code> {
        let mut part = Part { commons: Arc::clone(self), holder, amount: 0 };
        part.grow(amount)?;
        Ok(part)
    }

    /// Whether [`Commons::take`] would succeed now.
    ///
    /// # Errors
    /// As [`Commons::take`].
    pub(super) fn ask(&self, holder: Option<H>, amount: usize) -> Result<(), Code> {
        self.judge(&self.taken(), holder, amount)
    }

    fn judge(&self, taken: &Taken<H>, holder: Option<H>, amount: usize) -> Result<(), Code> {
        let left = self.total.saturating_sub(taken.all);
        let held = holder.and_then(|holder| taken.by.get(&holder)).copied().unwrap_or(0);
        if amount > left {
            Err(Code::Saturated)
        } else if holder.is_some() && held.saturating_add(amount) > left {
            Err(Code::ShareExceeded)
        } else {
            Ok(())
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken<H>> {
        // Nothing that panics happens while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Copy + Eq + Hash> Part<H> {
    /// Takes more of the resource.
    ///
    /// # Errors
    /// As [`Commons::take`]; the part stays as it is.
    pub(super) fn grow(&mut self, amount: usize) -> Result<(), Code> {
        let mut taken = self.commons.taken();
        self.commons.judge(&taken, self.holder, amount)?;
        taken.all += amount;
        if let Some(holder) = self.holder.filter(|_| amount > 0) {
            *taken.by.entry(holder).or_default() += amount;
        }
        self.amount += amount;
        Ok(())
    }

    pub(super) fn amount(&self) -> usize {
        self.amount
    }
}

impl<H: Copy + Eq + Hash> Drop for Part<H> {
    fn drop(&mut self) {
        let mut taken = self.commons.taken();
        taken.all -= self.amount;
        let Some(holder) = self.holder else { return };
        if let Entry::Occupied(mut held) = taken.by.entry(holder) {
            *held.get_mut() -= self.amount;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_gets_half_and_a_newcomer_always_finds_room() {
        let commons = Commons::new(100);
        let mut held: Vec<Vec<Part<u8>>> = Vec::new();
        for holder in 0..5_u8 {
            let mut parts = Vec::new();
            let refusal = loop {
                match commons.take(Some(holder), 1) {
                    Ok(part) => parts.push(part),
                    Err(code) => break code,
                }
            };
            assert_eq!(refusal, Code::ShareExceeded);
            assert!(!parts.is_empty(), "there is always something left for the next");
            held.push(parts);
        }
        assert_eq!(held[0].len(), 50);
        assert_eq!(held[1].len(), 25);
        held.remove(0);
        assert!(commons.take(Some(1), 1).is_ok(), "what one gives back is there for all");
        held.clear();
        assert!(commons.taken().by.is_empty());
        assert_eq!(commons.taken().all, 0);
    }

    #[test]
    fn without_a_holder_only_the_whole_is_bounded() {
        let commons = Commons::<u8>::new(10);
        let mut part = commons.take(None, 9).expect("there are ten");
        assert_eq!(part.grow(2), Err(Code::Saturated));
        assert_eq!(part.grow(1), Ok(()));
        assert_eq!(part.amount(), 10);
        assert_eq!(commons.ask(Some(1), 1), Err(Code::Saturated));
        drop(part);
        assert_eq!(commons.ask(Some(1), 10), Ok(()));
    }
}
