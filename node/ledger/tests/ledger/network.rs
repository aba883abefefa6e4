//! A network in memory: genesis, a state map, and blocks that keep the invariants which hold for every block.

use std::collections::BTreeMap;
use std::sync::Mutex;

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use stele_ledger::{Applied, Event, StateKey, StateView, VALUE_BYTES_MAX, apply, check_genesis, frame, genesis_writes};
use stele_types::cbor::{Blob, List, Text};
use stele_types::governance::{Approve, Propose};
use stele_types::hash::{BlockId, Cti, Hash, KeyId, NetworkId, ObjectId, PartyId, ValidatorId};
use stele_types::header::{Header, Height, LogIndex};
use stele_types::parameters::Parameters;
use stele_types::party::{EnrolledKey, Founder, Role, RoleSet};
use stele_types::record::PlaceCode;
use stele_types::statement::Unsigned;
use stele_types::suite::Suite;
use stele_types::validator::{Validator, ValidatorSet};
use stele_types::vote::EpochCertificate;
use stele_types::{Code, Command, Genesis, Outcome, Statement};

/// 2026-03-01T00:00:00Z.
pub(crate) const GENESIS_MS: u64 = 1_772_323_200_000;
pub(crate) const MINUTE_MS: u64 = 60_000;

pub(crate) const GOVERNORS: [u8; 3] = [1, 2, 3];
pub(crate) const AGENCY: u8 = 4;
pub(crate) const OTHER_AGENCY: u8 = 5;
pub(crate) const REGISTRAR: u8 = 6;
pub(crate) const HOLDER: u8 = 7;

/// A state in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) BTreeMap<StateKey, Vec<u8>>);

impl StateView for Memory {
    fn get(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.0.get(key).cloned()
    }
}

impl Memory {
    pub(crate) fn write(&mut self, writes: &[(StateKey, Option<Vec<u8>>)]) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(*key, value.clone()),
                None => self.0.remove(key),
            };
        }
    }
}

pub(crate) fn party(number: u8) -> PartyId {
    PartyId([number; 16])
}

pub(crate) fn object(number: u8) -> ObjectId {
    ObjectId([number; 16])
}

/// A P-256 key pair; every seed has its own.
pub(crate) fn signing_key(seed: u16) -> SigningKey {
    let mut scalar = [0; 32];
    scalar[30..].copy_from_slice(&(seed + 1).to_be_bytes());
    SigningKey::from_slice(&scalar).unwrap()
}

pub(crate) fn public_point(seed: u16) -> [u8; 33] {
    // Thousands of statements name the same few keys.
    static POINTS: Mutex<BTreeMap<u16, [u8; 33]>> = Mutex::new(BTreeMap::new());
    let point = || signing_key(seed).verifying_key().to_encoded_point(true).as_bytes().try_into().unwrap();
    *POINTS.lock().unwrap().entry(seed).or_insert_with(point)
}

pub(crate) fn key(seed: u16) -> EnrolledKey {
    EnrolledKey { suite: Suite::Es256, public_key: Blob::new(public_point(seed).to_vec()).unwrap() }
}

/// Key number `n` of a party: 0 is its first one.
pub(crate) fn party_key(number: u8, n: u8) -> EnrolledKey {
    key(u16::from(number) * 16 + u16::from(n))
}

pub(crate) fn ed25519_key(seed: u8) -> [u8; 32] {
    let scalar = curve25519_dalek::Scalar::from(u64::from(seed) + 1);
    curve25519_dalek::EdwardsPoint::mul_base(&scalar).compress().to_bytes()
}

pub(crate) fn validator_key(n: u8) -> u16 {
    50_000 + u16::from(n)
}

pub(crate) fn validator(n: u8) -> Validator {
    Validator { public_key: public_point(validator_key(n)), peer_key: ed25519_key(n), party: party(GOVERNORS[0]) }
}

/// An epoch certificate of validator `n`, signed by its long-term key.
pub(crate) fn epoch_certificate(network: NetworkId, n: u8, from: u64, until: u64) -> EpochCertificate {
    let mut certificate = EpochCertificate {
        network,
        validator: validator(n).id(),
        public_key: public_point(60_000 + u16::from(n)),
        from_height: Height(from),
        until_height: Height(until),
        pcr_policy: Hash([0; 32]),
        signature: [0; 64],
    };
    let signature: Signature = signing_key(validator_key(n)).sign(&certificate.signing_bytes());
    certificate.signature = signature.to_bytes().into();
    certificate
}

fn founder(number: u8, roles: &[Role]) -> Founder {
    Founder {
        party: party(number),
        organisation: None,
        roles: RoleSet::of(roles),
        key: party_key(number, 0),
        tls_pins: List::new([Hash([number; 32])].into()).unwrap(),
    }
}

pub(crate) fn genesis(validators: u8) -> Genesis {
    let founders = vec![
        founder(1, &[Role::Governor, Role::Operator]),
        founder(2, &[Role::Governor]),
        founder(3, &[Role::Governor]),
        founder(AGENCY, &[Role::Agency]),
        founder(OTHER_AGENCY, &[Role::Agency]),
        founder(REGISTRAR, &[Role::Registrar]),
        founder(HOLDER, &[]),
    ];
    Genesis {
        name: Text::new("test").unwrap(),
        region: PlaceCode::new(110_000).unwrap(),
        time_ms: GENESIS_MS,
        parameters: Parameters::default(),
        validators: ValidatorSet::new((0..validators).map(validator).collect()).unwrap(),
        epoch_certificates: List::default(),
        founders: List::new(founders).unwrap(),
    }
}

/// A network and the state after its newest block.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) id: NetworkId,
    pub(crate) state: Memory,
    pub(crate) height: u64,
    pub(crate) time_ms: u64,
    pub(crate) log_size: u64,
    /// Every block, for replays.
    pub(crate) blocks: Vec<(Header, Vec<Statement>)>,
    ctis: u64,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self::found(&genesis(4))
    }

    pub(crate) fn found(genesis: &Genesis) -> Self {
        genesis.check().unwrap();
        check_genesis(genesis).unwrap();
        let mut state = Memory::default();
        state.write(&genesis_writes(genesis));
        Self {
            id: genesis.network(),
            state,
            height: 0,
            time_ms: genesis.time_ms,
            log_size: 0,
            blocks: Vec::new(),
            ctis: 0,
        }
    }

    /// The header of the next block, `after_ms` later.
    pub(crate) fn header(&self, after_ms: u64) -> Header {
        let height = Height(self.height + 1);
        let frame = frame(&self.state, height);
        let proposer = frame.validators.get(frame.schedule.proposer(height.0, 0)).unwrap().id();
        header(self.id, height, self.time_ms + after_ms, proposer)
    }

    /// Commits a block one second after its parent.
    pub(crate) fn block(&mut self, statements: &[Statement]) -> Applied {
        let header = self.header(1000);
        self.commit(&header, statements)
    }

    pub(crate) fn commit(&mut self, header: &Header, statements: &[Statement]) -> Applied {
        let applied = apply(&self.state, header, statements);
        self.check(&applied, statements);
        self.state.write(&applied.writes);
        self.height = header.height.0;
        self.time_ms = header.time_ms;
        self.log_size += applied.leaves.len() as u64;
        self.blocks.push((header.clone(), statements.to_vec()));
        applied
    }

    /// What holds for every block.
    fn check(&self, applied: &Applied, statements: &[Statement]) {
        assert!(applied.writes.windows(2).all(|pair| pair[0].0 < pair[1].0), "writes ascend");
        assert!(applied.writes.iter().all(|(_, value)| value.as_ref().is_none_or(|v| v.len() <= VALUE_BYTES_MAX)));
        assert_eq!(applied.outcomes.len(), statements.len());
        assert_eq!(applied.first_index, LogIndex(self.log_size));
        for (outcome, statement) in applied.outcomes.iter().zip(statements) {
            assert_eq!(outcome.statement, statement.id());
            assert!(outcome.code.is_outcome());
            assert_eq!(outcome.index.is_some(), outcome.is_applied());
        }
        for (index, position) in (self.log_size..).zip(&applied.leaves) {
            assert_eq!(applied.outcomes[*position as usize].index, Some(LogIndex(index)), "indices have no gap");
        }
        let new = |outcome: &&Outcome| outcome.index.is_some_and(|index| index.0 >= self.log_size);
        let first: std::collections::BTreeSet<_> = applied.outcomes.iter().filter(new).map(|o| o.statement).collect();
        assert_eq!(first.len(), applied.leaves.len(), "every applied statement is one leaf");
        assert!(applied.events.iter().all(|event| event.index.is_none_or(|index| index.0 >= self.log_size)));
    }

    /// Lets time pass in empty blocks: ten minutes each, longer ones when it is long.
    pub(crate) fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min((10 * MINUTE_MS).max(ms / 16));
            let header = self.header(step);
            self.commit(&header, &[]);
            ms -= step;
        }
    }

    /// Empty blocks up to `height`.
    pub(crate) fn reach(&mut self, height: u64) {
        while self.height < height {
            self.block(&[]);
        }
    }

    pub(crate) fn cti(&mut self) -> Cti {
        self.ctis += 1;
        Cti(u128::from(self.ctis).to_be_bytes())
    }

    /// A command with its own id, issued now, under the first key of the party.
    pub(crate) fn issue(&mut self, issuer: u8, command: &Command) -> Statement {
        let cti = self.cti();
        self.signed(issuer, party_key(issuer, 0).id(), self.time_ms / 1000, cti, command)
    }

    pub(crate) fn signed(&self, issuer: u8, key: KeyId, issued_at: u64, cti: Cti, command: &Command) -> Statement {
        command_statement(self.id, issuer, key, issued_at, cti, command)
    }

    /// Issues a command in a block of its own.
    pub(crate) fn run(&mut self, issuer: u8, command: &Command) -> Code {
        self.run_applied(issuer, command).outcomes[0].code
    }

    pub(crate) fn run_applied(&mut self, issuer: u8, command: &Command) -> Applied {
        let statement = self.issue(issuer, command);
        self.block(&[statement])
    }

    /// Proposes and approves a command; the outcome of the approval.
    pub(crate) fn dual(&mut self, command: &Command) -> Code {
        let (outcome, _) = self.dual_by(GOVERNORS[0], GOVERNORS[1], command);
        outcome
    }

    pub(crate) fn dual_by(&mut self, proposer: u8, approver: u8, command: &Command) -> (Code, Vec<Event>) {
        let propose = self.propose(command);
        let statement = self.issue(proposer, &propose);
        let proposal = statement.id();
        let proposed = self.block(&[statement]).outcomes[0].code;
        assert_eq!(proposed, Code::Applied, "proposing");
        let applied = self.run_applied(approver, &Command::Approve(Approve { proposal }));
        (applied.outcomes[0].code, applied.events)
    }

    pub(crate) fn propose(&self, command: &Command) -> Command {
        let command = Blob::new(command.to_bytes()).unwrap();
        Command::Propose(Propose { command, expires_ms: self.time_ms + 10 * MINUTE_MS })
    }

    pub(crate) fn frame(&self) -> stele_ledger::Frame {
        frame(&self.state, Height(self.height + 1))
    }
}

pub(crate) fn header(network: NetworkId, height: Height, time_ms: u64, proposer: ValidatorId) -> Header {
    // The roots speak of the state before; `apply` reads the state itself.
    let root = Hash([0; 32]);
    Header {
        network,
        protocol_version: 1,
        height,
        creation_round: 0,
        proposer,
        time_ms,
        parent: BlockId([0; 32]),
        parent_certificate: root,
        statements_root: root,
        log_size: 0,
        log_root: root,
        state_root: root,
        outcomes_root: root,
        validators: root,
        next_validators: root,
        parameters: root,
    }
}

pub(crate) fn command_statement(
    network: NetworkId,
    issuer: u8,
    key: KeyId,
    issued_at: u64,
    cti: Cti,
    command: &Command,
) -> Statement {
    let unsigned = Unsigned::command(Suite::Es256, key, party(issuer), network, issued_at, cti, command);
    Statement::parse(unsigned.into_entry(&[1; 64])).unwrap()
}

/// A hash envelope about object `subject`.
pub(crate) fn opaque(issuer: u8, subject: u8) -> Statement {
    let key = party_key(issuer, 0).id();
    let digest = Hash([subject; 32]);
    let unsigned = Unsigned::hash_envelope(Suite::Es256, key, party(issuer), "thing", "text/plain", digest).unwrap();
    Statement::parse(unsigned.into_entry(&[1; 64])).unwrap()
}
