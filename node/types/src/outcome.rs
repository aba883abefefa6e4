//! What became of each statement of a block; leaf of the outcomes tree.

use crate::code::Code;
use crate::hash::StatementId;
use crate::header::LogIndex;

crate::record! {
    /// The outcome of one statement: applied with its log index, or a code and no index.
    pub struct Outcome {
        /// The statement.
        1 => statement: StatementId,
        /// `applied`, or why not.
        2 => code: Code,
        /// Index of its leaf when it applied.
        3 => index: Option<LogIndex>,
    }
}

impl Outcome {
    /// The leaf entry of the outcomes tree (RFC 9162): the deterministic encoding.
    pub fn to_bytes(&self) -> alloc::vec::Vec<u8> {
        crate::cbor::to_vec(self)
    }
    /// Whether the statement is a leaf of the log.
    pub const fn is_applied(&self) -> bool {
        matches!(self.code, Code::Applied)
    }
}
