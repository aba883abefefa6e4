//! What a rejection means for the one who caused it, and what to do about it.

use stele_types::Code;

use crate::output::{Output, note};

/// Tells people on standard error why a statement did not apply and what to do; programs read the code.
pub fn explain(output: Output, code: Option<Code>) {
    let Some(code) = code.filter(|code| *code != Code::Applied && !output.is_json()) else { return };
    let (why, what_to_do) = meaning(code);
    note(&format!("rejected[{code}]: {why}"));
    note(&format!("  what to do: {what_to_do}"));
}

/// Why, and what to do.
pub const fn meaning(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Applied => ("the statement is in the log", "nothing"),
        Code::Stale => ("it was signed too long ago", "check the clock of this machine and sign it again"),
        Code::Early => ("it was signed ahead of the network's time", "check the clock of this machine and try again"),
        Code::IdConflict => ("its idempotency id was used for other content", "sign it again with a fresh id"),
        Code::KeyUnknown => (
            "the key is not enrolled",
            "see the party's keys with `stele party show`; enrol one with `stele key enrol`",
        ),
        Code::KeyRevoked => (
            "the signing key has ended",
            "sign with another key of the party (`stele key use`); without one, governors reset it (`stele key reset`)",
        ),
        Code::IssuerMismatch => ("the key is another party's", "sign with a key of the issuing party"),
        Code::RoleMissing => {
            ("the party lacks the role that this needs", "two governors grant it with `stele party role --grant`")
        }
        Code::MandateMissing => {
            ("no live mandate covers acting for that party", "that party gives one with `stele mandate give`")
        }
        Code::DualControlRequired => ("it takes two governors", "propose it, and let another governor approve"),
        Code::SelfApproval => ("proposer and approver are one party", "let another governor approve it"),
        Code::ProposalUnknown => ("there is no such proposal", "check its id: it is the statement id of the proposal"),
        Code::ProposalClosed => {
            ("the proposal is decided, withdrawn or expired", "see `stele proposal show`; propose it again if need be")
        }
        Code::PartyUnknown => ("there is no such party", "check its id; new parties come with `stele party enrol`"),
        Code::AlreadyExists => ("the id, key or certificate is taken", "choose a fresh one"),
        Code::ObjectUnknown => ("there is no such record, asset or mandate", "check its id"),
        Code::NotHolder => ("it belongs to another party", "act as the party that made it (--as)"),
        Code::StateConflict => (
            "its present state does not allow it, or nothing would change",
            "look at it first: `stele query` and the `show` commands tell its state",
        ),
        Code::FieldInvalid => {
            ("its fields contradict each other or a bound", "docs/protocol.md names the rules of commands")
        }
        Code::CommandUnsupported => {
            ("this network does not execute such commands yet", "wait for an upgrade of its protocol")
        }
        Code::ActivationInvalid => (
            "the activation height is too near or too far, or another change waits",
            "name a later --activation-height, or wait for the other change",
        ),
        Code::ValidatorsInvalid => (
            "too many validators would change at once, or too few would stay",
            "change fewer at a time: at most a third leave or are replaced, and four stay",
        ),
        Code::KeyInvalid => ("the public key is not one that may be enrolled", "make one with `stele key generate`"),
        Code::LimitReached => ("a bound on live objects is reached", "end some that are no longer needed first"),
        Code::SuiteDisabled => {
            ("the network does not accept this suite", "`stele query network` lists those it accepts")
        }
        Code::PartySuspended => ("the party is suspended", "ask the governors to resume it"),
        Code::EpochInvalid => (
            "the epoch certificate does not fit",
            "begin later than the validator's last certificate; the key must be a validator's",
        ),
        _ => {
            ("the node did not take it", "try again as the code says; `stele status` shows whether the nodes are well")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_says_what_to_do() {
        let other = meaning(Code::Internal);
        for code in Code::ALL.iter().filter(|code| code.is_outcome()) {
            assert_ne!(meaning(*code), other, "{code}");
        }
    }
}
