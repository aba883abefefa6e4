//! A naive model of the outcomes: plain maps, nothing expires but by comparison, nothing is layered or cached.
//!
//! Commands come as small [`Act`]s over few parties and ids, so that they often meet. The model says the code of each
//! statement; `properties.rs` compares it with the ledger's.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use stele_types::asset::{AssetCancel, CancelReason, RightClass};
use stele_types::cbor::{Blob, List};
use stele_types::governance::{Approve, Propose, Withdraw};
use stele_types::hash::{Hash, StatementId};
use stele_types::party::{
    KeyEnrol, KeyReset, KeyRevoke, KeyRotate, MandateWithdraw, PartyEnrol, PartyStanding, RevocationReason, Role,
    RoleChange, RoleSet, TlsPin,
};
use stele_types::{Code, Command};

use crate::custody::{correct, put};
use crate::mandates::give;
use crate::network::{AGENCY, GENESIS_MS, MINUTE_MS, OTHER_AGENCY, REGISTRAR, key, object, party, party_key};
use crate::registration::register;

/// Seed of a key that any party may try to use, beside its own first one.
pub(crate) fn spare_key(n: u8) -> u16 {
    10_000 + u16::from(n)
}

/// What a statement asks for. Parties are 1 to 9, of which 8 and 9 are enrolled later, if at all.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Put { record: u8, principal: Option<u8> },
    Correct { record: u8, follows: u32 },
    Give { mandate: u8, grantee: u8, family: u8, from_min: u8, life_min: u8 },
    WithdrawMandate { mandate: u8 },
    Register { asset: u8, holder: u8, content: u8, rights: u8 },
    Cancel { asset: u8 },
    EnrolKey { key: u8 },
    RotateKey { old: u8, new: u8 },
    RevokeKey { key: u8 },
    Pin { pins: Vec<u8> },
    Propose { inner: Inner, life_min: u8 },
    Approve { proposal: usize },
    Withdraw { proposal: usize },
    Alone(Inner),
    Opaque { subject: u8 },
}

/// What takes two.
#[derive(Clone, Debug)]
pub(crate) enum Inner {
    Enrol { party: u8, roles: u8, key: u8 },
    Suspend { party: u8 },
    Resume { party: u8 },
    Grant { party: u8, roles: u8 },
    Revoke { party: u8, roles: u8 },
    Reset { party: u8, key: u8 },
}

pub(crate) fn inner() -> impl Strategy<Value = Inner> {
    let (party, roles, key) = (1_u8..10, 0_u8..8, 0_u8..6);
    prop_oneof![
        (8_u8..10, roles.clone(), key.clone()).prop_map(|(party, roles, key)| Inner::Enrol { party, roles, key }),
        party.clone().prop_map(|party| Inner::Suspend { party }),
        party.clone().prop_map(|party| Inner::Resume { party }),
        (party.clone(), roles.clone()).prop_map(|(party, roles)| Inner::Grant { party, roles }),
        (party.clone(), roles).prop_map(|(party, roles)| Inner::Revoke { party, roles }),
        (party, key).prop_map(|(party, key)| Inner::Reset { party, key }),
    ]
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    let (party, id, key) = (1_u8..10, 0_u8..4, 0_u8..6);
    prop_oneof![
        4 => (id.clone(), proptest::option::of(party.clone()))
            .prop_map(|(record, principal)| Act::Put { record, principal }),
        2 => (id.clone(), 0_u32..4).prop_map(|(record, follows)| Act::Correct { record, follows }),
        2 => (id.clone(), party.clone(), 0_u8..8, 0_u8..10, 0_u8..40).prop_map(
            |(mandate, grantee, family, from_min, life_min)| Act::Give { mandate, grantee, family, from_min, life_min }
        ),
        1 => id.clone().prop_map(|mandate| Act::WithdrawMandate { mandate }),
        2 => (id.clone(), party, 0_u8..2, 1_u8..8)
            .prop_map(|(asset, holder, content, rights)| Act::Register { asset, holder, content, rights }),
        1 => id.prop_map(|asset| Act::Cancel { asset }),
        1 => key.clone().prop_map(|key| Act::EnrolKey { key }),
        1 => (key.clone(), key.clone()).prop_map(|(old, new)| Act::RotateKey { old, new }),
        1 => key.prop_map(|key| Act::RevokeKey { key }),
        1 => proptest::collection::vec(0_u8..5, 0..3).prop_map(|pins| Act::Pin { pins }),
        4 => (inner(), 0_u8..20).prop_map(|(inner, life_min)| Act::Propose { inner, life_min }),
        5 => (0_usize..4).prop_map(|proposal| Act::Approve { proposal }),
        1 => (0_usize..4).prop_map(|proposal| Act::Withdraw { proposal }),
        1 => inner().prop_map(Act::Alone),
        1 => (0_u8..3).prop_map(|subject| Act::Opaque { subject }),
    ]
}

fn role_set(bits: u8) -> RoleSet {
    let roles = [Role::Governor, Role::Agency, Role::Registrar];
    RoleSet::of(&roles.into_iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, r)| r).collect::<Vec<_>>())
}

pub(crate) fn right_classes(bits: u8) -> Vec<RightClass> {
    RightClass::ALL.iter().copied().filter(|right| bits >> (right.number() - 1) & 1 == 1).collect()
}

impl Inner {
    pub(crate) fn command(&self) -> Command {
        match *self {
            Self::Enrol { party: number, roles, key: n } => Command::PartyEnrol(PartyEnrol {
                party: party(number),
                organisation: None,
                roles: role_set(roles),
                key: key(spare_key(n)),
                tls_pins: List::default(),
            }),
            Self::Suspend { party: number } => Command::PartySuspend(PartyStanding { party: party(number) }),
            Self::Resume { party: number } => Command::PartyResume(PartyStanding { party: party(number) }),
            Self::Grant { party: number, roles } => {
                Command::RoleGrant(RoleChange { party: party(number), roles: role_set(roles) })
            }
            Self::Revoke { party: number, roles } => {
                Command::RoleRevoke(RoleChange { party: party(number), roles: role_set(roles) })
            }
            Self::Reset { party: number, key: n } => {
                Command::KeyReset(KeyReset { party: party(number), key: key(spare_key(n)) })
            }
        }
    }
}

impl Act {
    /// The command of the act; none for an opaque statement. `proposals` are all that were ever made.
    pub(crate) fn command(&self, now_ms: u64, proposals: &[StatementId]) -> Option<Command> {
        let nth = |n: usize| proposals.iter().rev().nth(n).copied().unwrap_or(StatementId([9; 32]));
        Some(match self {
            Self::Put { record, principal } => Command::RecordPut(put(*record, *principal)),
            Self::Correct { record, follows } => Command::RecordCorrect(correct(*record, *follows)),
            Self::Give { mandate, grantee, family, from_min, life_min } => {
                let from = now_ms + u64::from(*from_min) * MINUTE_MS;
                let until = (now_ms + u64::from(*life_min) * MINUTE_MS).saturating_sub(MINUTE_MS);
                Command::MandateGive(give(*mandate, *grantee, &[*family], from, until))
            }
            Self::WithdrawMandate { mandate } => {
                Command::MandateWithdraw(MandateWithdraw { mandate: object(*mandate) })
            }
            Self::Register { asset, holder, content, rights } => {
                Command::AssetRegister(register(*asset, *holder, *content, &right_classes(*rights)))
            }
            Self::Cancel { asset } => {
                Command::AssetCancel(AssetCancel { asset: object(*asset), reason: CancelReason::UnlawfulTitle })
            }
            Self::EnrolKey { key: n } => Command::KeyEnrol(KeyEnrol { key: key(spare_key(*n)) }),
            Self::RotateKey { old, new } => {
                Command::KeyRotate(KeyRotate { old: key(spare_key(*old)).id(), new: key(spare_key(*new)) })
            }
            Self::RevokeKey { key: n } => {
                Command::KeyRevoke(KeyRevoke { key: key(spare_key(*n)).id(), reason: RevocationReason::Superseded })
            }
            Self::Pin { pins } => {
                let pins = List::new(pins.iter().map(|pin| Hash([100 + pin; 32])).collect()).unwrap();
                Command::TlsPin(TlsPin { pins })
            }
            Self::Propose { inner, life_min } => {
                let command = Blob::new(inner.command().to_bytes()).unwrap();
                Command::Propose(Propose { command, expires_ms: now_ms + u64::from(*life_min) * MINUTE_MS })
            }
            Self::Approve { proposal } => Command::Approve(Approve { proposal: nth(*proposal) }),
            Self::Withdraw { proposal } => Command::Withdraw(Withdraw { proposal: nth(*proposal) }),
            Self::Alone(inner) => inner.command(),
            Self::Opaque { .. } => return None,
        })
    }
}

#[derive(Clone, Debug)]
struct ModelParty {
    roles: u8,
    suspended: bool,
    /// Live keys by seed.
    keys: BTreeSet<u16>,
    pins: Vec<u8>,
}

#[derive(Clone, Debug)]
struct ModelMandate {
    grantor: u8,
    grantee: u8,
    family: u8,
    from: u64,
    until: u64,
    withdrawn: bool,
}

#[derive(Clone, Debug)]
struct ModelProposal {
    proposer: u8,
    inner: Inner,
    expires: u64,
    open: bool,
}

const GOVERNOR: u8 = 1;
const AGENT: u8 = 2;
const REGISTERS: u8 = 4;

/// The model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    parties: BTreeMap<u8, ModelParty>,
    /// Every key that was ever enrolled, with its holder.
    keys: BTreeMap<u16, u8>,
    records: BTreeMap<u8, (u8, Option<u8>, u32)>,
    mandates: BTreeMap<u8, ModelMandate>,
    /// Asset: registrar, content, rights, live.
    assets: BTreeMap<u8, (u8, u8, u8, bool)>,
    proposals: BTreeMap<StatementId, ModelProposal>,
}

type Result = std::result::Result<(), Code>;

fn check(holds: bool, code: Code) -> Result {
    if holds { Ok(()) } else { Err(code) }
}

impl Model {
    pub(crate) fn new() -> Self {
        let roles = |number| match number {
            1..=3 => GOVERNOR,
            AGENCY | OTHER_AGENCY => AGENT,
            REGISTRAR => REGISTERS,
            _ => 0,
        };
        let first_key = |number: u8| u16::from(number) * 16;
        let party = |number: u8| ModelParty {
            roles: roles(number),
            suspended: false,
            keys: [first_key(number)].into(),
            pins: Vec::new(),
        };
        Self {
            parties: (1..8).map(|number| (number, party(number))).collect(),
            keys: (1..8).map(|number| (first_key(number), number)).collect(),
            records: BTreeMap::new(),
            mandates: BTreeMap::new(),
            assets: BTreeMap::new(),
            proposals: BTreeMap::new(),
        }
    }

    /// What becomes of a statement signed by `seed`; the model changes only when it applies.
    pub(crate) fn run(
        &mut self,
        issuer: u8,
        seed: u16,
        id: StatementId,
        act: &Act,
        command: Option<&Command>,
        now: u64,
    ) -> Code {
        let mut next = self.clone();
        match next.try_run(issuer, seed, id, act, command, now) {
            Ok(()) => {
                *self = next;
                Code::Applied
            }
            Err(code) => code,
        }
    }

    /// Whether a key speaks for an issuer; what fails here is not remembered by the replay window.
    pub(crate) fn check_key(&self, issuer: u8, seed: u16) -> Result {
        let holder = self.keys.get(&seed).ok_or(Code::KeyUnknown)?;
        check(*holder == issuer, Code::IssuerMismatch)?;
        check(self.parties[&issuer].keys.contains(&seed), Code::KeyRevoked)
    }

    /// Governors that can act.
    pub(crate) fn able_governors(&self) -> usize {
        self.parties.values().filter(|p| p.roles & GOVERNOR != 0 && !p.suspended && !p.keys.is_empty()).count()
    }

    fn active(&self, number: u8) -> Result {
        let party = self.parties.get(&number).ok_or(Code::PartyUnknown)?;
        check(!party.suspended, Code::PartySuspended)
    }

    fn role(&self, number: u8, role: u8) -> Result {
        check(self.parties[&number].roles & role != 0, Code::RoleMissing)
    }

    fn mandated(&self, principal: u8, actor: u8, family: u8, now: u64) -> Result {
        self.active(principal).map_err(|_| Code::MandateMissing)?;
        let covers = |m: &ModelMandate| {
            m.grantor == principal
                && m.grantee == actor
                && m.family == family
                && !m.withdrawn
                && m.from <= now
                && now <= m.until
        };
        check(self.mandates.values().any(covers), Code::MandateMissing)
    }

    fn new_key(&self, seed: u16) -> Result {
        check(!self.keys.contains_key(&seed), Code::AlreadyExists)
    }

    fn try_run(
        &mut self,
        issuer: u8,
        seed: u16,
        id: StatementId,
        act: &Act,
        command: Option<&Command>,
        now: u64,
    ) -> Result {
        self.check_key(issuer, seed)?;
        self.active(issuer)?;
        match act {
            Act::Put { record, principal } => {
                self.role(issuer, AGENT)?;
                check(*principal != Some(issuer), Code::FieldInvalid)?;
                if let Some(principal) = principal {
                    self.mandated(*principal, issuer, 3, now)?;
                }
                check(!self.records.contains_key(record), Code::AlreadyExists)?;
                self.records.insert(*record, (issuer, *principal, 1));
            }
            Act::Correct { record, follows } => {
                self.role(issuer, AGENT)?;
                let (owner, principal, version) = *self.records.get(record).ok_or(Code::ObjectUnknown)?;
                check(owner == issuer, Code::NotHolder)?;
                if let Some(principal) = principal {
                    self.mandated(principal, issuer, 3, now)?;
                }
                check(version == *follows, Code::StateConflict)?;
                self.records.insert(*record, (owner, principal, version + 1));
            }
            Act::Give { mandate, grantee, family, .. } => {
                let Some(Command::MandateGive(body)) = command else { unreachable!() };
                let (from, until) = (body.valid_from_ms, body.valid_until_ms);
                check(
                    (1..6).contains(family) && from <= until && now <= until && *grantee != issuer,
                    Code::FieldInvalid,
                )?;
                check(self.parties.contains_key(grantee), Code::PartyUnknown)?;
                check(!self.mandates.contains_key(mandate), Code::AlreadyExists)?;
                let (grantor, grantee, family) = (issuer, *grantee, *family);
                self.mandates
                    .insert(*mandate, ModelMandate { grantor, grantee, family, from, until, withdrawn: false });
            }
            Act::WithdrawMandate { mandate } => {
                let mandate = self.mandates.get_mut(mandate).ok_or(Code::ObjectUnknown)?;
                check(mandate.grantor == issuer, Code::NotHolder)?;
                check(!mandate.withdrawn && now <= mandate.until, Code::StateConflict)?;
                mandate.withdrawn = true;
            }
            Act::Register { asset, holder, content, rights } => {
                self.role(issuer, REGISTERS)?;
                check(self.parties.contains_key(holder), Code::PartyUnknown)?;
                if *holder != issuer {
                    self.mandated(*holder, issuer, 1, now)?;
                }
                check(!self.assets.contains_key(asset), Code::AlreadyExists)?;
                let clashes =
                    |(_, other, taken, live): &(u8, u8, u8, bool)| *live && other == content && taken & rights != 0;
                check(!self.assets.values().any(clashes), Code::StateConflict)?;
                self.assets.insert(*asset, (issuer, *content, *rights, true));
            }
            Act::Cancel { asset } => {
                self.role(issuer, REGISTERS)?;
                let asset = self.assets.get_mut(asset).ok_or(Code::ObjectUnknown)?;
                check(asset.0 == issuer, Code::NotHolder)?;
                check(asset.3, Code::StateConflict)?;
                asset.3 = false;
            }
            Act::EnrolKey { key } => {
                self.new_key(spare_key(*key))?;
                self.begin(issuer, spare_key(*key));
            }
            Act::RotateKey { old, new } => {
                self.own_key(issuer, spare_key(*old))?;
                self.new_key(spare_key(*new))?;
                self.parties.get_mut(&issuer).unwrap().keys.remove(&spare_key(*old));
                self.begin(issuer, spare_key(*new));
            }
            Act::RevokeKey { key } => {
                self.own_key(issuer, spare_key(*key))?;
                self.parties.get_mut(&issuer).unwrap().keys.remove(&spare_key(*key));
            }
            Act::Pin { pins } => {
                let distinct: BTreeSet<_> = pins.iter().collect();
                check(distinct.len() == pins.len(), Code::FieldInvalid)?;
                let others = |pin: &u8| self.parties.iter().any(|(n, p)| *n != issuer && p.pins.contains(pin));
                check(!pins.iter().any(others), Code::AlreadyExists)?;
                self.parties.get_mut(&issuer).unwrap().pins = pins.clone();
            }
            Act::Propose { inner, .. } => {
                self.role(issuer, GOVERNOR)?;
                let Some(Command::Propose(body)) = command else { unreachable!() };
                check(body.expires_ms > now, Code::FieldInvalid)?;
                let (inner, expires) = (inner.clone(), body.expires_ms);
                self.proposals.insert(id, ModelProposal { proposer: issuer, inner, expires, open: true });
            }
            Act::Approve { .. } => {
                self.role(issuer, GOVERNOR)?;
                let Some(Command::Approve(body)) = command else { unreachable!() };
                let proposal = self.open_proposal(body.proposal, now)?;
                check(proposal.proposer != issuer, Code::SelfApproval)?;
                self.active(proposal.proposer)?;
                self.role(proposal.proposer, GOVERNOR)?;
                self.proposals.get_mut(&body.proposal).unwrap().open = false;
                self.dual(&proposal.inner)?;
            }
            Act::Withdraw { .. } => {
                let Some(Command::Withdraw(body)) = command else { unreachable!() };
                let proposal = self.open_proposal(body.proposal, now)?;
                check(proposal.proposer == issuer, Code::NotHolder)?;
                self.proposals.get_mut(&body.proposal).unwrap().open = false;
            }
            Act::Alone(_) => return Err(Code::DualControlRequired),
            Act::Opaque { .. } => {}
        }
        check(self.able_governors() >= 2, Code::StateConflict)
    }

    fn begin(&mut self, holder: u8, seed: u16) {
        self.keys.insert(seed, holder);
        self.parties.get_mut(&holder).unwrap().keys.insert(seed);
    }

    fn own_key(&self, issuer: u8, seed: u16) -> Result {
        let holder = self.keys.get(&seed).ok_or(Code::KeyUnknown)?;
        check(*holder == issuer, Code::NotHolder)?;
        check(self.parties[&issuer].keys.contains(&seed), Code::StateConflict)
    }

    fn open_proposal(&self, id: StatementId, now: u64) -> std::result::Result<ModelProposal, Code> {
        let proposal = self.proposals.get(&id).ok_or(Code::ProposalUnknown)?;
        check(proposal.open && now <= proposal.expires, Code::ProposalClosed)?;
        Ok(proposal.clone())
    }

    fn dual(&mut self, inner: &Inner) -> Result {
        if let Inner::Enrol { party, roles, key } = *inner {
            check(!self.parties.contains_key(&party), Code::AlreadyExists)?;
            self.new_key(spare_key(key))?;
            let newcomer = ModelParty { roles, suspended: false, keys: BTreeSet::new(), pins: Vec::new() };
            self.parties.insert(party, newcomer);
            self.begin(party, spare_key(key));
            return Ok(());
        }
        let (Inner::Suspend { party }
        | Inner::Resume { party }
        | Inner::Grant { party, .. }
        | Inner::Revoke { party, .. }
        | Inner::Reset { party, .. }
        | Inner::Enrol { party, .. }) = *inner;
        if let Inner::Grant { roles: 0, .. } | Inner::Revoke { roles: 0, .. } = inner {
            return Err(Code::FieldInvalid);
        }
        let target = self.parties.get(&party).cloned().ok_or(Code::PartyUnknown)?;
        let mut changed = target.clone();
        match *inner {
            Inner::Suspend { .. } => {
                check(!target.suspended, Code::StateConflict)?;
                changed.suspended = true;
            }
            Inner::Resume { .. } => {
                check(target.suspended, Code::StateConflict)?;
                changed.suspended = false;
            }
            Inner::Grant { roles, .. } => {
                changed.roles |= roles;
                check(changed.roles != target.roles, Code::StateConflict)?;
            }
            Inner::Revoke { roles, .. } => {
                changed.roles &= !roles;
                check(changed.roles != target.roles, Code::StateConflict)?;
            }
            Inner::Reset { key, .. } => {
                self.new_key(spare_key(key))?;
                changed.keys.clear();
            }
            Inner::Enrol { .. } => unreachable!(),
        }
        self.parties.insert(party, changed);
        if let Inner::Reset { key, .. } = *inner {
            self.begin(party, spare_key(key));
        }
        Ok(())
    }

    /// A live key of a party, or its first one.
    pub(crate) fn some_key(&self, number: u8, spare: bool) -> u16 {
        let first = u16::from(number) * 16;
        let live = self.parties.get(&number).map(|party| party.keys.clone()).unwrap_or_default();
        let pick = if spare { live.iter().next_back() } else { live.iter().next() };
        pick.copied().unwrap_or(first)
    }
}

#[test]
fn the_model_starts_as_the_test_network_does() {
    let network = crate::network::Network::new();
    let model = Model::new();
    for number in 1..10 {
        let record = stele_ledger::query::party(&network.state, &party(number));
        assert_eq!(record.is_some(), model.parties.contains_key(&number));
        assert_eq!(record.map(|record| record.keys[0].0), (number < 8).then(|| party_key(number, 0).id()));
    }
    assert_eq!(network.time_ms, GENESIS_MS);
}
