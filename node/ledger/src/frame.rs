//! What a header of the next height names and what the order engine needs to decide it.

use alloc::vec::Vec;

use stele_types::header::Height;
use stele_types::parameters::Parameters;
use stele_types::proposer::ProposerSchedule;
use stele_types::validator::{Validator, ValidatorSet};
use stele_types::vote::EpochCertificate;

use crate::change;
use crate::state::{StateView, Stored, read};
use crate::value::{ChainRecord, EpochRecord, ParametersRecord, ProtocolRecord, ValidatorsRecord};

/// The rules of one height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Parameters of the height.
    pub parameters: Parameters,
    /// Validators of the height.
    pub validators: ValidatorSet,
    /// Validators of the height after it.
    pub next_validators: ValidatorSet,
    /// Rotation of the proposers.
    pub schedule: ProposerSchedule,
    /// Epoch certificates of all these validators, by validator id and ascending first height; some may not cover
    /// the height.
    pub epoch_certificates: Vec<EpochCertificate>,
    /// Leaves of the log before the height.
    pub log_size: u64,
    /// Protocol version of the height. A program that does not know it halts.
    pub protocol_version: u32,
}

/// The rules of `next_height`, from the state after the height before it.
///
/// # Panics
/// When `next_height` does not follow the state, genesis was not written, or a value of the state is damaged.
pub fn frame(view: &dyn StateView, next_height: Height) -> Frame {
    let chain: ChainRecord = singleton(view);
    assert_eq!(chain.height.next(), next_height, "a frame is made from the state before its height");
    let record: ValidatorsRecord = singleton(view);
    let validators = change::validator_set(&record.current, |id| read(view, id));
    let pending = record.pending.map(|head| (change::validator_set(&head, |id| read(view, id)), head));
    let mut members: Vec<_> = validators.iter().map(Validator::id).collect();
    members.extend(pending.iter().flat_map(|(set, _)| set.iter().map(Validator::id)));
    members.sort_unstable();
    members.dedup();
    let epoch_certificates = members
        .iter()
        .filter_map(|id| read::<EpochRecord>(view, id))
        .flat_map(|record| record.certificates.into_vec())
        .collect();
    let next_validators = match pending {
        Some((set, head)) if head.since <= next_height.next() => set,
        _ => validators.clone(),
    };
    Frame {
        parameters: singleton::<ParametersRecord>(view).current,
        validators,
        next_validators,
        schedule: singleton(view),
        epoch_certificates,
        log_size: chain.log_size,
        protocol_version: singleton::<ProtocolRecord>(view).version,
    }
}

fn singleton<T: Stored<Id = ()>>(view: &dyn StateView) -> T {
    read(view, &()).unwrap_or_else(|| panic!("the state has no {:?}: genesis was not written", T::DOMAIN))
}
