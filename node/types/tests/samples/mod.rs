//! One sample of every structure, with every optional field and with none of them, and their decoders.
//!
//! The CDDL check, the golden encodings, the mutation tests and the fuzz targets share them. Contents are fixed, so the
//! encodings are too; signatures are filler bytes, for these crates check none.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod structures;

use stele_types::cbor::{self, Field};
use stele_types::{Block, Command, Genesis, Receipt, Statement};

/// Decodes bytes and encodes what was read; an error is any refusal.
pub type Recode = fn(&[u8]) -> Result<Vec<u8>, String>;

/// A structure: the name of its CDDL rule, its keys if it is a map of the `record!` kind, and its decoder.
pub struct Structure {
    /// Name of the rule in `protocol.cddl`.
    pub rule: &'static str,
    /// Keys and field names, in order; empty for structures that are not maps.
    pub keys: &'static [(u64, &'static str)],
    /// Decodes and encodes again.
    pub recode: Recode,
    /// Encodings: first with everything present.
    pub samples: Vec<Vec<u8>>,
}

/// Decoder of any [`Field`].
pub fn field<T: Field>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    cbor::from_slice::<T>(bytes).map(|value| cbor::to_vec(&value)).map_err(|error| error.to_string())
}

/// Decoder of a statement.
pub fn statement(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let statement = Statement::parse(bytes).map_err(|code| code.to_string())?;
    assert!(statement.signing_bytes().len() > statement.payload().len());
    Ok(statement.entry().to_vec())
}

/// Decoder of a command, number included.
pub fn command(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let command = Command::from_bytes(bytes).map_err(|error| error.to_string())?;
    assert_eq!(Command::number_of(bytes), Some(command.number()));
    assert!(Command::SCHEMA.iter().any(|(number, word, _)| (*number, *word) == (command.number(), command.as_str())));
    let _ = (command.family(), command.subject());
    Ok(command.to_bytes())
}

/// Decoder of a block; its entries are parsed too when they can be.
pub fn block(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let block = Block::from_bytes(bytes).map_err(|error| error.to_string())?;
    assert_eq!(Block::header_from_bytes(bytes).as_ref(), Ok(&block.header));
    Ok(block.to_bytes())
}

/// Decoder of a genesis file, with its checks.
pub fn genesis(bytes: &[u8]) -> Result<Vec<u8>, String> {
    Genesis::from_bytes(bytes).map(|genesis| genesis.to_bytes()).map_err(|error| error.to_string())
}

/// Decoder of a receipt.
pub fn receipt(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let receipt = cbor::from_slice::<Receipt>(bytes).map_err(|error| error.to_string())?;
    assert_eq!(
        stele_types::Checkpoint::from_protected(&receipt.checkpoint.protected()).as_ref(),
        Ok(&receipt.checkpoint)
    );
    Ok(cbor::to_vec(&receipt))
}
