//! Building a block from the pool.

use std::sync::Arc;
use std::sync::PoisonError;

use stele_ledger::SigningKeys;
use stele_order::ApplicationError;
use stele_types::{Block, Header, Height, NetworkId, Statement, ValidatorId};

use super::{Draw, Ordering};
use crate::admission::unix_ms;
use crate::chain::{ChainError, Head, Prepared, tree};

/// Room beside the statements: header, certificate of 128 validators, array heads.
const BLOCK_OVERHEAD_BYTES: usize = 32 * 1024;

impl Ordering {
    /// Builds the block of (`height`, `round`) on the newest head.
    pub(super) async fn build(&self, height: Height, round: u32) -> Result<Arc<Prepared>, ApplicationError> {
        let head = self.chain.head();
        let unavailable = |reason: &str| ApplicationError::Unavailable { reason: reason.to_owned() };
        if head.tip.height.next() != height {
            return Err(unavailable("the head is not the parent of this height"));
        }
        self.take_back(height);
        let parameters = &head.frame.parameters;
        let statements_max = usize::try_from(parameters.block_statements_max).unwrap_or(usize::MAX);
        let bytes_max = usize::try_from(parameters.block_bytes_max).unwrap_or(usize::MAX);
        let pool = Arc::clone(self.admission.pool());
        let drawn = pool.draw(statements_max, bytes_max.saturating_sub(BLOCK_OVERHEAD_BYTES));
        let (chain, validator) = (Arc::clone(&self.chain), self.validator);
        let built = tokio::task::spawn_blocking(move || {
            // A key may have ended since admission; a block with its statement would be invalid.
            let mut statements: Vec<Statement> = Vec::with_capacity(drawn.len());
            let mut kept = Vec::with_capacity(drawn.len());
            let mut dropped = Vec::new();
            chain.reading(|view| {
                let mut keys = SigningKeys::new(view);
                for (party, pooled) in drawn {
                    if keys.of(&pooled.statement).is_ok() {
                        statements.push(pooled.statement.clone());
                        kept.push((party, pooled));
                    } else {
                        dropped.push(pooled.statement.id());
                    }
                }
            })?;
            let leaf_hashes = tree::leaf_hashes(statements.iter().map(|statement| &**statement.entry()));
            let header = header(&head, chain.network(), validator, (height, round), unix_ms(), &leaf_hashes);
            let block = Block {
                header,
                parent_certificate: head.certificate.as_deref().cloned(),
                entries: statements.iter().map(|statement| Arc::clone(statement.entry())).collect(),
            };
            let bytes = block.to_bytes().into();
            let Block { header, parent_certificate, .. } = block;
            let prepared = Prepared::with_leaves(bytes, header, parent_certificate, statements, leaf_hashes);
            Ok((prepared, kept, dropped))
        })
        .await;
        let built: Result<_, ChainError> = built.map_err(|panicked| unavailable(&panicked.to_string()))?;
        let (prepared, kept, dropped) = built.map_err(|error| unavailable(&error.to_string()))?;
        pool.forget(dropped.iter());
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).push(Draw { height, statements: kept });
        Ok(Arc::new(prepared))
    }

    /// Puts back what an earlier round of the same height drew. If that block is decided after all, its statements are
    /// forgotten then; if one is proposed twice, the second gets the first one's outcome.
    fn take_back(&self, height: Height) {
        let earlier: Vec<Draw> = {
            let mut drawn = self.drawn();
            let (earlier, rest) = drawn.drain(..).partition(|draw| draw.height <= height);
            *drawn = rest;
            earlier
        };
        for draw in earlier {
            self.admission.pool().put_back(draw.statements);
        }
    }
}

/// The header of a block on `head`; `now_ms` is this node's clock.
pub(super) fn header(
    head: &Head,
    network: NetworkId,
    proposer: ValidatorId,
    (height, creation_round): (Height, u32),
    now_ms: u64,
    leaf_hashes: &[[u8; 32]],
) -> Header {
    let (tip, frame) = (&head.tip, &head.frame);
    Header {
        network,
        protocol_version: frame.protocol_version,
        height,
        creation_round,
        proposer,
        // A proposer whose clock lags behind the parent takes the next millisecond.
        time_ms: now_ms.max(tip.time_ms + 1),
        parent: tip.block,
        parent_certificate: head.certificate.as_deref().map(stele_types::CommitCertificate::hash).unwrap_or_default(),
        statements_root: stele_types::Hash(tree::root_of(leaf_hashes)),
        log_size: tip.log_size,
        log_root: tip.log_root,
        state_root: tip.state_root,
        outcomes_root: tip.outcomes_root,
        validators: frame.validators.hash(),
        next_validators: frame.next_validators.hash(),
        parameters: frame.parameters.hash(),
    }
}
