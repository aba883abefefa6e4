//! Hard bounds of the encoding. Consensus parameters may ask for less, never for more.

/// One statement with its signature: an ML-DSA-87 signature (4,627 B), a 4 KiB public payload and the header.
pub const STATEMENT_BYTES_MAX: usize = 16 * 1024;
/// Protected header of a statement: room for SCITT extensions of opaque statements.
pub const PROTECTED_BYTES_MAX: usize = 2 * 1024;
/// Labels in a protected header; duplicates are found by comparing pairs, so the count stays small.
pub const PROTECTED_LABELS_MAX: usize = 32;
/// Nesting of an uninterpreted header value.
pub const HEADER_DEPTH_MAX: usize = 8;
/// Payload of a command.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024;
/// Payload of an opaque statement that is flagged public (design: at most 4 KiB).
pub const PUBLIC_PAYLOAD_BYTES_MAX: usize = 4 * 1024;
/// `sub` claim.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Signature: ML-DSA-87, rounded up (design: signatures to 5 KB).
pub const SIGNATURE_BYTES_MAX: usize = 5 * 1024;
/// Public key: ML-DSA-87.
pub const PUBLIC_KEY_BYTES_MAX: usize = 2_592;
/// Bytes of one block, header and certificate included; the engine's transport is sized by it.
pub const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Statements in one block: the outcomes of a block stay within a few megabytes.
pub const BLOCK_STATEMENTS_MAX: usize = 50_000;
/// Validators: commit certificates are lists of signatures.
pub const VALIDATORS_MAX: usize = 128;
/// Parties that genesis founds.
pub const FOUNDERS_MAX: usize = 1_024;
/// Live keys of one party.
pub const PARTY_KEYS_MAX: usize = 32;
/// TLS keys pinned by one party.
pub const PARTY_PINS_MAX: usize = 8;
/// Regions, fields or purposes listed by one command.
pub const LIST_MAX: usize = 32;
/// Nodes of an inclusion path: a log of 2^63 leaves.
pub const PATH_MAX: usize = 63;
/// Inclusion proofs in one receipt; Stele writes one.
pub const RECEIPT_PROOFS_MAX: usize = 4;
/// Validator-set changes between the pinned height and the receipt.
pub const CHAIN_LINKS_MAX: usize = 4_096;
/// One encoded quorum bundle.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Values of one state bundle.
pub const STATE_BUNDLE_VALUES_MAX: usize = 256;
/// One encoded state bundle.
pub const STATE_BUNDLE_BYTES_MAX: usize = 4 * BUNDLE_BYTES_MAX;
/// One encoded genesis file.
pub const GENESIS_BYTES_MAX: usize = 8 * 1024 * 1024;
