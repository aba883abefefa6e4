//! Sequences of statements by several parties, against the model and against themselves.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use stele_ledger::value::{GovernorsRecord, ParametersRecord, ReplayChunk, ReplayEntry, ReplayQueue};
use stele_ledger::{Applied, StateKey, Stored, apply, genesis_writes, query};
use stele_merkle::state::StateHash;
use stele_merkle::state::reference::ReferenceMap;
use stele_types::hash::{Cti, PartyId, StatementId};
use stele_types::header::LogIndex;
use stele_types::statement::{ContentKind, Unsigned};
use stele_types::suite::Suite;
use stele_types::{Code, Statement};

use crate::model::{Act, Model, act, spare_key};
use crate::network::{
    AGENCY, GOVERNORS, HOLDER, MINUTE_MS, Memory, Network, REGISTRAR, command_statement, genesis, key, party,
};

const PAST_MS: u64 = 15 * MINUTE_MS;

/// One statement of a sequence.
#[derive(Clone, Debug)]
enum Step {
    /// A new statement; `skew_min` moves its `iat`.
    New { issuer: u8, act: Act, skew_min: i64, signer: Signer },
    /// A statement that was submitted before.
    Again { nth: usize },
    /// Another content under a name that was used before.
    Clash { nth: usize, act: Act },
    /// Ends the block; the next is this many seconds later.
    Cut { seconds: u64 },
}

/// Which key signs.
#[derive(Clone, Copy, Debug)]
enum Signer {
    /// The oldest live key of the issuer.
    First,
    /// The newest one.
    Newest,
    /// A key that anybody may have enrolled, rotated or revoked, or nobody.
    Any(u8),
}

fn signer() -> impl Strategy<Value = Signer> {
    prop_oneof![6 => Just(Signer::First), 3 => Just(Signer::Newest), 1 => (0_u8..6).prop_map(Signer::Any)]
}

/// Mostly somebody who may ask for the act, sometimes anybody.
fn issued_act() -> impl Strategy<Value = (u8, Act)> {
    (act(), 0_u8..8, 1_u8..10, 0_u8..3).prop_map(|(act, suits, anybody, nth)| {
        let issuer = match act {
            _ if suits == 0 => anybody,
            Act::Put { .. } | Act::Correct { .. } => AGENCY + nth % 2,
            Act::Register { .. } | Act::Cancel { .. } => REGISTRAR,
            Act::Propose { .. } | Act::Approve { .. } | Act::Withdraw { .. } => GOVERNORS[usize::from(nth)],
            _ => anybody.min(HOLDER),
        };
        (issuer, act)
    })
}

fn step() -> impl Strategy<Value = Step> {
    let skew = prop_oneof![12 => Just(0_i64), 1 => -20_i64..3];
    let seconds = prop_oneof![6 => 1_u64..5, 2 => 60_u64..600, 1 => 800_u64..2_000];
    prop_oneof![
        14 => (issued_act(), skew, signer())
            .prop_map(|((issuer, act), skew_min, signer)| Step::New { issuer, act, skew_min, signer }),
        2 => (0_usize..40).prop_map(|nth| Step::Again { nth }),
        1 => (0_usize..40, act()).prop_map(|(nth, act)| Step::Clash { nth, act }),
        4 => seconds.prop_map(|seconds| Step::Cut { seconds }),
    ]
}

/// What a statement was made of.
#[derive(Clone, Debug)]
struct Made {
    issuer: u8,
    seed: u16,
    act: Act,
    statement: Statement,
}

/// Instant of the first statement of a name, the statement and its outcome.
type First = (u64, StatementId, Code, Option<LogIndex>);

/// The window as a plain list: every first outcome with its instant.
#[derive(Default)]
struct Names {
    floor: u64,
    entries: BTreeMap<(u8, Cti), First>,
}

struct Run {
    network: Network,
    model: Model,
    names: Names,
    made: Vec<Made>,
    proposals: Vec<StatementId>,
    /// What the model says of the statements of the open block.
    expected: Vec<(Code, Option<LogIndex>)>,
    block: Vec<Statement>,
    log_size: u64,
    block_after_ms: u64,
    issued: u64,
    /// Codes of all statements.
    codes: Vec<Code>,
}

impl Run {
    fn new() -> Self {
        Self {
            network: Network::new(),
            model: Model::new(),
            names: Names::default(),
            made: Vec::new(),
            proposals: Vec::new(),
            expected: Vec::new(),
            block: Vec::new(),
            log_size: 0,
            block_after_ms: 1_000,
            issued: 0,
            codes: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.network.time_ms + self.block_after_ms
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::New { issuer, act, skew_min, signer } => {
                self.issued += 1;
                let cti = Cti(u128::from(self.issued).to_be_bytes());
                let seconds = (self.now() / 1000).saturating_add_signed(skew_min * 60);
                let seed = match signer {
                    Signer::First => self.model.some_key(*issuer, false),
                    Signer::Newest => self.model.some_key(*issuer, true),
                    Signer::Any(n) => spare_key(*n),
                };
                self.submit_new(*issuer, seed, act, seconds, cti);
            }
            Step::Clash { nth, act } => {
                let Some(first) = self.nth(*nth) else { return };
                let ContentKind::Command { cti, .. } = *first.statement.content() else { return };
                let seconds = self.now() / 1000;
                self.submit_new(first.issuer, first.seed, act, seconds, cti);
            }
            Step::Again { nth } => {
                if let Some(made) = self.nth(*nth) {
                    self.submit(made);
                }
            }
            Step::Cut { seconds } => {
                self.cut();
                self.block_after_ms = seconds * 1000;
            }
        }
    }

    fn nth(&self, nth: usize) -> Option<Made> {
        self.made.iter().rev().nth(nth).cloned()
    }

    fn submit_new(&mut self, issuer: u8, seed: u16, act: &Act, seconds: u64, cti: Cti) {
        let kid = key(seed).id();
        let statement = match act.command(self.now(), &self.proposals) {
            Some(command) => command_statement(self.network.id, issuer, kid, seconds, cti, &command),
            None => {
                let Act::Opaque { subject } = act else { unreachable!() };
                let digest = stele_types::Hash([*subject; 32]);
                let unsigned = Unsigned::hash_envelope(Suite::Es256, kid, party(issuer), "x", "text/plain", digest);
                Statement::parse(unsigned.unwrap().into_entry(&[1; 64])).unwrap()
            }
        };
        self.submit(Made { issuer, seed, act: act.clone(), statement });
    }

    fn submit(&mut self, made: Made) {
        let expected = self.expect(&made);
        if expected.1 == Some(LogIndex(self.log_size)) {
            self.log_size += 1;
            if matches!(made.act, Act::Propose { .. }) {
                self.proposals.push(made.statement.id());
            }
        }
        self.expected.push(expected);
        self.block.push(made.statement.clone());
        self.made.push(made);
    }

    /// What the model says.
    fn expect(&mut self, made: &Made) -> (Code, Option<LogIndex>) {
        let (now, id) = (self.now(), made.statement.id());
        self.names.floor = self.names.floor.max(now - PAST_MS);
        let (cti, issued_ms) = match made.statement.content() {
            ContentKind::Command { cti, issued_at, .. } => (*cti, issued_at * 1000),
            ContentKind::Opaque => (Cti(id.0[..16].try_into().unwrap()), now / 1000 * 1000),
        };
        if issued_ms > now + 30_000 {
            return (Code::Early, None);
        }
        if issued_ms < self.names.floor {
            return (Code::Stale, None);
        }
        let floor = self.names.floor;
        match self.names.entries.get(&(made.issuer, cti)) {
            Some((at, first, code, index)) if *at >= floor && *first == id => return (*code, *index),
            Some((at, ..)) if *at >= floor => return (Code::IdConflict, None),
            _ => {}
        }
        if let Err(code) = self.model.check_key(made.issuer, made.seed) {
            return (code, None);
        }
        let command = made.statement.command();
        let code = self.model.run(made.issuer, made.seed, id, &made.act, command, now);
        let index = (code == Code::Applied).then_some(LogIndex(self.log_size));
        self.names.entries.insert((made.issuer, cti), (issued_ms, id, code, index));
        (code, index)
    }

    fn cut(&mut self) {
        let statements = std::mem::take(&mut self.block);
        let header = self.network.header(self.block_after_ms);
        let before = self.network.state.clone();
        let applied = self.network.commit(&header, &statements);
        let found: Vec<_> = applied.outcomes.iter().map(|outcome| (outcome.code, outcome.index)).collect();
        let expected = std::mem::take(&mut self.expected);
        for (position, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "statement {position}: {:?}", self.describe(&statements[position]));
        }
        assert_eq!(found.len(), expected.len());
        self.codes.extend(found.iter().map(|(code, _)| *code));
        assert_eq!(apply(&before, &header, &statements), applied, "deterministic");
        self.rejected_leave_nothing(&before, &header, &statements, &applied);
        let governors: GovernorsRecord = decode(&self.network.state);
        let parameters: ParametersRecord = decode(&self.network.state);
        assert_eq!(governors.able(&parameters) as usize, self.model.able_governors());
        assert!(self.model.able_governors() >= 2);
    }

    fn describe(&self, statement: &Statement) -> Option<&Made> {
        self.made.iter().find(|made| made.statement.id() == statement.id())
    }

    /// The same block without its rejected statements changes the same things, but for the replay window.
    fn rejected_leave_nothing(
        &self,
        before: &Memory,
        header: &stele_types::Header,
        statements: &[Statement],
        applied: &Applied,
    ) {
        let kept: Vec<Statement> =
            applied.leaves.iter().map(|position| statements[*position as usize].clone()).collect();
        let alone = apply(before, header, &kept);
        assert_eq!(alone.events, applied.events);
        let window: std::collections::BTreeSet<StateKey> = replay_keys(before, statements);
        let outside = |applied: &Applied| {
            applied.writes.iter().filter(|(key, _)| !window.contains(key)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(outside(&alone), outside(applied));
    }
}

fn decode<T: Stored<Id = ()>>(state: &Memory) -> T {
    T::from_value(&state.0[&T::state_key(&())]).unwrap()
}

/// Keys of the window that a block with `statements` may touch.
fn replay_keys(state: &Memory, statements: &[Statement]) -> std::collections::BTreeSet<StateKey> {
    let name = |statement: &Statement| -> (PartyId, Cti) {
        let cti = match statement.content() {
            ContentKind::Command { cti, .. } => *cti,
            ContentKind::Opaque => Cti(statement.id().0[..16].try_into().unwrap()),
        };
        (statement.issuer(), cti)
    };
    let queue: ReplayQueue = decode(state);
    let chunks = queue.head..queue.tail + statements.len() as u64 + 1;
    let entries = statements.iter().map(|statement| ReplayEntry::state_key(&name(statement)));
    entries.chain(chunks.map(|number| ReplayChunk::state_key(&number))).chain([ReplayQueue::state_key(&())]).collect()
}

fn play(steps: &[Step]) -> Run {
    let mut run = Run::new();
    for step in steps {
        run.step(step);
    }
    run.cut();
    run
}

/// The sequences are worth their time only if they reach the rules: over a fixed sample, every code that the model can
/// give does occur.
#[test]
fn sequences_reach_every_rule_of_the_model() {
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<Code, usize> = BTreeMap::new();
    for _ in 0..120 {
        let steps = proptest::collection::vec(step(), 40..80).new_tree(&mut runner).unwrap().current();
        for code in play(&steps).codes {
            *reached.entry(code).or_default() += 1;
        }
    }
    let expected = [
        Code::Applied,
        Code::Stale,
        Code::Early,
        Code::IdConflict,
        Code::KeyUnknown,
        Code::IssuerMismatch,
        Code::KeyRevoked,
        Code::RoleMissing,
        Code::MandateMissing,
        Code::DualControlRequired,
        Code::SelfApproval,
        Code::ProposalUnknown,
        Code::ProposalClosed,
        Code::PartyUnknown,
        Code::AlreadyExists,
        Code::ObjectUnknown,
        Code::NotHolder,
        Code::StateConflict,
        Code::FieldInvalid,
        Code::PartySuspended,
    ];
    let missing: Vec<_> = expected.iter().filter(|code| !reached.contains_key(code)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}; reached: {reached:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Codes and indices are the model's; blocks are deterministic; rejected statements leave no trace; two governors
    /// remain; and the state is a fold over the blocks, byte for byte, with the root of the state tree.
    #[test]
    fn outcomes_are_the_models_and_state_is_a_fold(steps in proptest::collection::vec(step(), 1..80)) {
        let run = play(&steps);
        let mut replayed = Memory::default();
        let mut tree = ReferenceMap::new(StateHash::Sha256);
        let mut write = |replayed: &mut Memory, writes: &[(StateKey, Option<Vec<u8>>)]| {
            replayed.write(writes);
            writes.iter().for_each(|(key, value)| tree.set(*key, value.clone()));
        };
        write(&mut replayed, &genesis_writes(&genesis(4)));
        for (header, statements) in &run.network.blocks {
            let applied = apply(&replayed, header, statements);
            write(&mut replayed, &applied.writes);
        }
        prop_assert_eq!(&replayed, &run.network.state);
        let mut live = ReferenceMap::new(StateHash::Sha256);
        run.network.state.0.iter().for_each(|(key, value)| live.set(*key, Some(value.clone())));
        prop_assert_eq!(tree.root(), live.root());
    }

    /// Where blocks are cut does not matter to what becomes of a statement, as long as no window ends in between.
    #[test]
    fn outcomes_do_not_depend_on_where_blocks_are_cut(
        acts in proptest::collection::vec(issued_act(), 1..40),
        cuts in proptest::collection::vec(any::<bool>(), 40),
    ) {
        // Times far from every block, because time is what may matter.
        let timeless = |act: &Act| match act.clone() {
            Act::Give { mandate, grantee, family, life_min, .. } => {
                Act::Give { mandate, grantee, family, from_min: 0, life_min: life_min.max(3) }
            }
            Act::Propose { inner, life_min } => Act::Propose { inner, life_min: life_min.max(3) },
            other => other,
        };
        let step = |(issuer, act): &(u8, Act)| {
            Step::New { issuer: *issuer, act: timeless(act), skew_min: 0, signer: Signer::First }
        };
        let whole = play(&acts.iter().map(step).collect::<Vec<_>>());
        let mut cut = Network::new();
        let mut outcomes = Vec::new();
        let mut block = Vec::new();
        for (position, statement) in whole.network.blocks[0].1.iter().enumerate() {
            block.push(statement.clone());
            if cuts[position] {
                outcomes.extend(cut.block(&std::mem::take(&mut block)).outcomes);
            }
        }
        outcomes.extend(cut.block(&block).outcomes);
        let mut again = Network::new();
        let header = again.header(1_000);
        let together = again.commit(&header, &whole.network.blocks[0].1).outcomes;
        prop_assert_eq!(outcomes, together);
        for record in 0..4 {
            let id = crate::network::object(record);
            prop_assert_eq!(query::record(&cut.state, &id), query::record(&again.state, &id));
        }
    }

    /// Once everything has left the window, no entry and no chunk of it is left.
    #[test]
    fn the_window_empties(steps in proptest::collection::vec(step(), 1..40)) {
        let mut run = play(&steps);
        run.network.pass(PAST_MS + 40_000);
        let queue: ReplayQueue = decode(&run.network.state);
        prop_assert_eq!(queue.head, queue.tail);
        let mut all = run.network.state.clone();
        all.0.insert(
            ReplayQueue::state_key(&()),
            stele_types::cbor::to_vec(&ReplayQueue { floor_ms: 0, head: 0, tail: queue.tail }),
        );
        let statements: Vec<Statement> = run.made.iter().map(|made| made.statement.clone()).collect();
        let mut window = replay_keys(&all, &statements);
        window.remove(&ReplayQueue::state_key(&()));
        prop_assert!(window.iter().all(|key| !run.network.state.0.contains_key(key)));
    }
}
