//! Labels: enumerations only, so that nothing from outside can make a series.

use stele_types::asset::AssetKind;
use stele_types::record::RecordClass;
use stele_types::{Code, Command, Statement, Suite};

/// One label value.
pub trait Label: Copy + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value.
    fn every() -> Vec<Self>;
    /// The value as text.
    fn text(self) -> &'static str;
}

/// The labels of one series.
pub trait Labels: Copy {
    /// Names, in order.
    const NAMES: &'static [&'static str];
    /// Text of the values.
    type Values: AsRef<[&'static str]>;
    /// Every combination.
    fn all() -> Vec<Self>;
    /// The values, in the order of the names.
    fn values(self) -> Self::Values;
}

impl Labels for () {
    const NAMES: &'static [&'static str] = &[];
    type Values = [&'static str; 0];
    fn all() -> Vec<Self> {
        vec![()]
    }
    fn values(self) -> Self::Values {
        []
    }
}

impl<A: Label> Labels for A {
    const NAMES: &'static [&'static str] = &[A::NAME];
    type Values = [&'static str; 1];
    fn all() -> Vec<Self> {
        A::every()
    }
    fn values(self) -> Self::Values {
        [self.text()]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME];
    type Values = [&'static str; 2];
    fn all() -> Vec<Self> {
        A::every().into_iter().flat_map(|a| B::every().into_iter().map(move |b| (a, b))).collect()
    }
    fn values(self) -> Self::Values {
        [self.0.text(), self.1.text()]
    }
}

impl<A: Label, B: Label, C: Label> Labels for (A, B, C) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME, C::NAME];
    type Values = [&'static str; 3];
    fn all() -> Vec<Self> {
        <(A, B)>::all().into_iter().flat_map(|(a, b)| C::every().into_iter().map(move |c| (a, b, c))).collect()
    }
    fn values(self) -> Self::Values {
        [self.0.text(), self.1.text(), self.2.text()]
    }
}

macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident $label:literal { $($(#[$vmeta:meta])* $variant:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant),* }
        impl Label for $name {
            const NAME: &'static str = $label;
            fn every() -> Vec<Self> { vec![$(Self::$variant),*] }
            fn text(self) -> &'static str { match self { $(Self::$variant => $word),* } }
        }
    )*};
}

impl From<stele_hsm::SignerKind> for Provider {
    fn from(kind: stele_hsm::SignerKind) -> Self {
        match kind {
            stele_hsm::SignerKind::Software => Self::Software,
            stele_hsm::SignerKind::Tpm => Self::Tpm,
            stele_hsm::SignerKind::Pkcs11 => Self::Pkcs11,
        }
    }
}

/// Number of a drive of the payload store. Its series exist once the drive does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drive(&'static str);

impl Drive {
    /// The label of drive `number`, if a store can have so many.
    #[must_use]
    pub fn new(number: usize) -> Option<Self> {
        const NUMBERS: [&str; 64] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18",
            "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33", "34", "35", "36",
            "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48", "49", "50", "51", "52", "53", "54",
            "55", "56", "57", "58", "59", "60", "61", "62", "63",
        ];
        NUMBERS.get(number).copied().map(Self)
    }
}

impl Label for Drive {
    const NAME: &'static str = "device";
    fn every() -> Vec<Self> {
        Vec::new()
    }
    fn text(self) -> &'static str {
        self.0
    }
}

labels! {
    /// What room is used for.
    Room "state" {
        /// It holds something.
        Used = "used",
        /// It is free.
        Free = "free",
    }

    /// What a drive is asked for.
    DriveOperation "op" {
        /// To read.
        Read = "read",
        /// To write, durably or not.
        Write = "write",
        /// To make durable what was written.
        Flush = "flush",
    }

    /// What a statement is about: a record class, or what else the platforms do.
    Class "class" {
        /// Medical records.
        Medical = "medical",
        /// Records of cultural tourism.
        Tourism = "tourism",
        /// Records of driver misconduct.
        Driver = "driver",
        /// Records of taxpayer financials.
        Tax = "tax",
        /// Records of social insurance.
        Social = "social",
        /// Records of civil status.
        Civil = "civil",
        /// Records of property rights.
        Property = "property",
        /// Records of state transport logistics.
        Transport = "transport",
        /// New versions of records, whose statements do not name the class.
        Correction = "correction",
        /// Data assets.
        Asset = "asset",
        /// Parties, keys, mandates, parameters, validators.
        Governance = "governance",
        /// Statements that the node does not interpret.
        Opaque = "opaque",
        /// Bytes that could not be parsed.
        Unparsed = "unparsed",
    }
    /// Steps of admission.
    AdmissionStage "stage" {
        /// Parsing.
        Decode = "decode",
        /// Checks that need no signature: network, key, window, known statements.
        Precheck = "precheck",
        /// The signature.
        Verify = "verify",
        /// Waiting for a place in the queue.
        Enqueue = "enqueue",
    }
    /// Why a statement was turned away for now.
    ThrottleReason "reason" {
        /// The queue is full.
        Saturated = "saturated",
        /// The party is over its share.
        ShareExceeded = "share_exceeded",
    }
    /// What a batch computes.
    AccelOperation "op" {
        /// Signatures.
        Verify = "verify",
        /// Merkle trees.
        Hash = "hash",
    }
    /// Where a batch is computed.
    AccelBackend "backend" {
        /// Cores.
        Cpu = "cpu",
        /// A graphics processor.
        Gpu = "gpu",
    }
    /// What a device that is not a core is doing.
    DeviceState "state" {
        /// None is configured.
        Off = "off",
        /// It is opened and its kernels are compiled.
        Starting = "starting",
        /// It serves.
        Serving = "serving",
        /// There is none that may serve.
        Absent = "absent",
        /// It was lost, or did not answer.
        Lost = "lost",
        /// It gave a wrong answer.
        Quarantined = "quarantined",
    }
    /// How a device was found wrong.
    DeviceFault "reason" {
        /// An answer without the tag of its batch.
        Tag = "tag",
        /// A digest that the cores compute differently.
        Digest = "digest",
        /// A wrong verdict on a signature of known verdict.
        Canary = "canary",
        /// A signature called valid that is not.
        Valid = "valid",
        /// A signature called invalid that is valid.
        Invalid = "invalid",
    }
    /// Which way bytes went.
    DeviceDirection "direction" {
        /// To the device.
        Up = "up",
        /// From it.
        Down = "down",
    }
    /// How something ended.
    Outcome "result" {
        /// Well.
        Success = "success",
        /// Not well.
        Failure = "failure",
    }
    /// What verification said.
    Verdict "verdict" {
        /// The signature verifies.
        Valid = "valid",
        /// It does not.
        Invalid = "invalid",
    }
    /// Steps of consensus.
    OrderStep "step" {
        /// Waiting for a proposal.
        Propose = "propose",
        /// First votes.
        Prevote = "prevote",
        /// Second votes.
        Precommit = "precommit",
    }
    /// Direction of traffic.
    Direction "direction" {
        /// To this node.
        Received = "received",
        /// From this node.
        Sent = "sent",
    }
    /// What is proven.
    ProofKind "kind" {
        /// A receipt.
        Receipt = "receipt",
        /// A quorum bundle.
        Bundle = "bundle",
        /// A tile of the log.
        Tile = "tile",
        /// A consistency proof of the log.
        Consistency = "consistency",
        /// A value of the state.
        State = "state",
    }
    /// Who signs.
    Provider "provider" {
        /// A key file.
        Software = "software",
        /// A TPM.
        Tpm = "tpm",
        /// A hardware security module.
        Pkcs11 = "pkcs11",
    }
    /// What for.
    SealKey "key" {
        /// Checkpoints.
        Checkpoint = "checkpoint",
        /// Votes with the long-term key.
        LongTerm = "long_term",
        /// Votes with an epoch key.
        Epoch = "epoch",
    }
    /// Stages that can be behind the newest committed block.
    Stage "stage" {
        /// Execution.
        Execute = "execute",
        /// The log tree.
        Log = "log",
        /// The index of statement ids.
        Index = "index",
        /// The state map's checkpoint on disk.
        State = "state",
        /// The signed checkpoint.
        Seal = "seal",
    }
    /// Severity of a line of the node's own log.
    Severity "level" {
        /// Failures.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// What happened.
        Info = "info",
        /// How it happened.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
    /// Where a connection arrives.
    Listener "listener" {
        /// Parties.
        Party = "party",
        /// The public.
        Public = "public",
        /// Loopback without TLS.
        Plain = "plain",
        /// The operator.
        Admin = "admin",
    }
    /// How a TLS handshake ended.
    Handshake "result" {
        /// With a connection.
        Completed = "completed",
        /// The client gave no certificate, or one that the network CA did not issue or that is out of its time.
        CertificateRefused = "certificate_refused",
        /// The client holds its share of the listener's connections already; this one was closed.
        ShareExceeded = "share_exceeded",
        /// Too many others were waiting and this one had had its time.
        Displaced = "displaced",
        /// The client took too long.
        TimedOut = "timed_out",
        /// Anything else: no common version, closed connection, noise.
        Failed = "failed",
    }
    /// Version and cipher of a TLS connection, coarse.
    TlsSuite "suite" {
        /// TLS 1.3 with AES-256-GCM.
        Aes256 = "tls13_aes256",
        /// TLS 1.3 with AES-128-GCM.
        Aes128 = "tls13_aes128",
        /// TLS 1.3 with ChaCha20-Poly1305.
        ChaCha20 = "tls13_chacha20",
        /// TLS 1.2.
        Tls12 = "tls12",
        /// None was agreed.
        None = "none",
    }
}

impl Class {
    /// The class of a statement.
    pub fn of(statement: &Statement) -> Self {
        match statement.command() {
            None => Self::Opaque,
            Some(Command::RecordPut(body)) => Self::from(body.class),
            Some(Command::RecordCorrect(_)) => Self::Correction,
            Some(Command::AssetRegister(_) | Command::AssetCancel(_)) => Self::Asset,
            Some(_) => Self::Governance,
        }
    }
}

impl From<RecordClass> for Class {
    fn from(class: RecordClass) -> Self {
        match class {
            RecordClass::Medical => Self::Medical,
            RecordClass::Tourism => Self::Tourism,
            RecordClass::Driver => Self::Driver,
            RecordClass::Tax => Self::Tax,
            RecordClass::Social => Self::Social,
            RecordClass::Civil => Self::Civil,
            RecordClass::Property => Self::Property,
            RecordClass::Transport => Self::Transport,
        }
    }
}

/// What became of a submission: accepted, or a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Verified and queued, or known already.
    Accepted,
    /// Refused.
    Refused(Code),
}

impl Label for Admitted {
    const NAME: &'static str = "result";
    fn every() -> Vec<Self> {
        let refused = Code::ALL.iter().filter(|code| **code != Code::Applied).map(|code| Self::Refused(*code));
        std::iter::once(Self::Accepted).chain(refused).collect()
    }
    fn text(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(code) => code.as_str(),
        }
    }
}

impl Label for Code {
    const NAME: &'static str = "result";
    fn every() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|code| code.is_outcome()).collect()
    }
    fn text(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Suite {
    const NAME: &'static str = "scheme";
    fn every() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|suite| suite.rule_version_max() > 0).collect()
    }
    fn text(self) -> &'static str {
        self.as_str()
    }
}

impl Label for AssetKind {
    const NAME: &'static str = "kind";
    fn every() -> Vec<Self> {
        Self::ALL.to_vec()
    }
    fn text(self) -> &'static str {
        self.as_str()
    }
}
