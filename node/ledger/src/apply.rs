//! A block, applied.

use alloc::rc::Rc;
use alloc::vec::Vec;

use stele_types::code::Code;
use stele_types::command::Command;
use stele_types::hash::NetworkId;
use stele_types::header::{Header, Height, LogIndex};
use stele_types::outcome::Outcome;
use stele_types::parameters::{PROTOCOL_REHEARSALS, PROTOCOL_VERSION, Parameters};
use stele_types::statement::{ContentKind, Statement};

use crate::change;
use crate::event::{Event, EventKind};
use crate::execute::{CurveBudget, Execution};
use crate::overlay::{Overlay, Transaction};
use crate::replay::{Name, Verdict, Window};
use crate::signing;
use crate::state::{StateKey, StateView, Stored as _, Write};
use crate::value::{ChainRecord, ParametersRecord, ProtocolRecord, RecordAnchor};

/// Statements whose keys are prefetched at once: their paths fit into a core's second-level cache.
const PREFETCHED_STATEMENTS: usize = 128;

/// What a block did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Changes of the state by ascending key, each key once.
    pub writes: Vec<Write>,
    /// One outcome per statement, in block order. A statement that was applied before has the index of its first leaf.
    pub outcomes: Vec<Outcome>,
    /// Positions in the block of the statements that applied now; leaf n of these has the log index
    /// `first_index + n`.
    pub leaves: Vec<u32>,
    /// Log size before the block.
    pub first_index: LogIndex,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// The block as every statement of it sees it.
pub(crate) struct BlockContext {
    pub(crate) network: NetworkId,
    pub(crate) height: Height,
    pub(crate) time_ms: u64,
    pub(crate) parameters: Rc<Parameters>,
}

/// Applies the statements of a committed block to the state after its parent.
///
/// It cannot fail: a statement that may not apply becomes an outcome. Block validity (signatures, header fields) is the
/// caller's to check before.
///
/// # Panics
/// When the header does not follow the state, when the state asks for a protocol version that this program does not
/// execute (the caller halts before), or when a value of the state is damaged.
pub fn apply(view: &dyn StateView, header: &Header, statements: &[Statement]) -> Applied {
    let mut block = BlockRun::open(view, header, statements.len());
    for (position, statement) in statements.iter().enumerate() {
        if position.is_multiple_of(PREFETCHED_STATEMENTS) {
            let ahead = &statements[position..statements.len().min(position + PREFETCHED_STATEMENTS)];
            prefetch(view, ahead.iter(), header.time_ms);
        }
        block.statement(position, statement);
    }
    block.close(header)
}

/// Prefetches what every statement reads: its place in the replay window, and the record that it is about.
pub fn prefetch<'s>(view: &dyn StateView, statements: impl Iterator<Item = &'s Statement> + Clone, time_ms: u64) {
    let replay = statements.clone().map(|statement| Name::of(statement, time_ms).state_key());
    let records = statements.filter_map(|statement| match statement.command()? {
        Command::RecordPut(body) => Some(RecordAnchor::state_key(&body.record)),
        _ => None,
    });
    view.prefetch(&replay.chain(records).collect::<Vec<StateKey>>());
}

struct BlockRun<'v> {
    overlay: Overlay<'v>,
    context: BlockContext,
    window: Window,
    budget: CurveBudget,
    log_size: u64,
    first_index: LogIndex,
    outcomes: Vec<Outcome>,
    leaves: Vec<u32>,
    events: Vec<Event>,
}

impl<'v> BlockRun<'v> {
    fn open(view: &'v dyn StateView, header: &Header, statements: usize) -> Self {
        let mut overlay = Overlay::new(view);
        let chain: ChainRecord = overlay.singleton();
        assert_eq!(header.height, chain.height.next(), "a block follows the state that it is applied to");
        assert!(header.time_ms > chain.time_ms, "block time increases strictly");
        let protocol: ProtocolRecord = overlay.singleton();
        assert!(
            protocol.version <= PROTOCOL_VERSION || protocol.version >= PROTOCOL_REHEARSALS,
            "the caller halts at a protocol version that it does not know"
        );
        let parameters = Rc::new(overlay.singleton::<ParametersRecord>().current);
        let window = Window::open(&mut overlay, header.time_ms, &parameters);
        let (network, height, time_ms) = (header.network, header.height, header.time_ms);
        Self {
            overlay,
            context: BlockContext { network, height, time_ms, parameters },
            window,
            budget: CurveBudget::default(),
            log_size: chain.log_size,
            first_index: LogIndex(chain.log_size),
            outcomes: Vec::with_capacity(statements),
            leaves: Vec::with_capacity(statements),
            events: Vec::with_capacity(statements),
        }
    }

    fn statement(&mut self, position: usize, statement: &Statement) {
        let (code, index) = self.judge(statement);
        if code == Code::Applied && index == Some(LogIndex(self.log_size)) {
            self.leaves.push(u32::try_from(position).expect("a block has fewer statements than a u32 counts"));
            self.log_size += 1;
        }
        debug_assert!(code.is_outcome() && index.is_some() == (code == Code::Applied));
        self.outcomes.push(Outcome { statement: statement.id(), code, index });
    }

    fn judge(&mut self, statement: &Statement) -> (Code, Option<LogIndex>) {
        if let ContentKind::Command { audience, .. } = statement.content()
            && *audience != self.context.network
        {
            // No valid block carries it; nothing of another network is remembered here.
            return (Code::FieldInvalid, None);
        }
        let name = Name::of(statement, self.context.time_ms);
        let vacancy = match self.window.judge(&self.overlay, &name, &statement.id()) {
            Verdict::New(vacancy) => vacancy,
            Verdict::Known(code, index) => return (code, index),
            Verdict::Refused(code) => return (code, None),
        };
        if let Err(code) = self.check_key(statement) {
            return (code, None);
        }
        let (code, index) = match self.execute(statement) {
            Ok(()) => (Code::Applied, Some(LogIndex(self.log_size))),
            Err(code) => (code, None),
        };
        self.window.record(&mut self.overlay, vacancy, statement.id(), code, index);
        (code, index)
    }

    fn check_key(&mut self, statement: &Statement) -> Result<(), Code> {
        let key = self.overlay.key(&statement.key());
        signing::check(key.as_deref(), statement, &self.context.parameters)
    }

    fn execute(&mut self, statement: &Statement) -> Result<(), Code> {
        let transaction = Transaction::new(&mut self.overlay);
        let index = LogIndex(self.log_size);
        let events_before = self.events.len();
        let mut execution =
            Execution::new(&self.context, &mut self.budget, transaction, &mut self.events, statement, index);
        let result = execution.run(statement.command());
        match result {
            Ok(()) => execution.commit(),
            // Events of a command that failed half-way did not happen.
            Err(_) => self.events.truncate(events_before),
        }
        result
    }

    fn close(mut self, header: &Header) -> Applied {
        self.window.close(&mut self.overlay);
        let chain = ChainRecord { height: self.context.height, time_ms: self.context.time_ms, log_size: self.log_size };
        let grown = self.log_size - self.first_index.0;
        assert_eq!(grown, self.leaves.len() as u64, "the log grows by the statements that applied");
        self.overlay.put(&(), &chain);
        let activated = change::close_height(&mut self.overlay, header);
        self.events.extend(activated.into_iter().map(|kind: EventKind| Event { index: None, kind }));
        Applied {
            writes: self.overlay.into_writes(),
            outcomes: self.outcomes,
            leaves: self.leaves,
            first_index: self.first_index,
            events: self.events,
        }
    }
}
