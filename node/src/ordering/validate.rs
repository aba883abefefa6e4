//! Judging a block: it must say what this node would say, and every signature in it must verify.

use std::sync::Arc;

use bytes::Bytes;
use stele_accel::Priority;
use stele_ledger::SigningKeys;
use stele_order::{Candidate, Origin};
use stele_types::party::EnrolledKey;
use stele_types::{
    Block, BlockId, Code, CommitCertificate, ContentKind, Hash, Header, Height, ValidatorId, ValidatorSet, VoteKey,
};

use super::Ordering;
use crate::admission::{Verified, unix_ms};
use crate::chain::{Chain, ChainError, Head, Prepared, check_results};
use crate::signatures::Signed;

/// Why a block does not get this node's vote.
pub(super) enum Refusal {
    /// It decodes but breaks a rule.
    Invalid(BlockId, &'static str),
    /// It certifies other results than this node has: which result differs.
    OtherResults(BlockId, &'static str),
    /// It is not a block.
    Malformed(&'static str),
    /// This node cannot tell now.
    Undecided(&'static str),
}

/// What is left to check after the rules that need no signature.
struct Checked {
    prepared: Arc<Prepared>,
    /// The block certifies other results than this node has, and came with a quorum: see [`check`].
    diverged: bool,
    keys: Vec<EnrolledKey>,
    rule_versions: Vec<u16>,
}

impl Ordering {
    pub(super) async fn judge(&self, candidate: Candidate) -> Result<Arc<Prepared>, Refusal> {
        let chain = Arc::clone(&self.chain);
        let now_ms = unix_ms();
        let (statements, ahead) = match candidate.origin {
            Origin::Sync => (Priority::Bulk, self.ahead.take(candidate.height, &candidate.bytes).await),
            Origin::Fresh | Origin::Repeated => (Priority::Live, None),
        };
        let checked = tokio::task::spawn_blocking(move || check(&chain, &candidate, ahead, now_ms)).await;
        let Checked { prepared, diverged, keys, rule_versions } =
            checked.map_err(|_| Refusal::Undecided("a check panicked"))??;
        if diverged {
            return Ok(prepared);
        }
        if self.judged(&prepared.id, statements) {
            // In an earlier round, or when it was fetched.
            return Ok(prepared);
        }
        self.verify_statements(statements, &prepared, &keys, &rule_versions).await?;
        self.verify_parent_certificate(&prepared).await?;
        Ok(prepared)
    }

    async fn verify_statements(
        &self,
        priority: Priority,
        prepared: &Prepared,
        keys: &[EnrolledKey],
        rule_versions: &[u16],
    ) -> Result<(), Refusal> {
        let memory: Vec<Hash> = prepared
            .statements
            .iter()
            .zip(keys)
            .zip(rule_versions)
            .map(|((statement, key), version)| Verified::key(*version, &key.public_key, statement))
            .collect();
        let known = |memory: &Hash| match priority {
            Priority::Bulk => self.ahead.knows(memory),
            Priority::Live | Priority::Quorum => self.verified.contains(memory),
        };
        let open: Vec<usize> = (0..memory.len()).filter(|at| !known(&memory[*at])).collect();
        self.metrics.accel.cached((memory.len() - open.len()) as u64);
        let signed = open.iter().map(|at| Signed::of(&prepared.statements[*at], &keys[*at]));
        let verdicts = self
            .signatures
            .verify(priority, signed)
            .await
            .map_err(|_| Refusal::Undecided("the accelerator is saturated"))?;
        if verdicts.iter().any(|valid| !valid) {
            return Err(Refusal::Invalid(prepared.id, "signature_invalid"));
        }
        let verified = open.into_iter().map(|at| memory[at]);
        // What a GPU may have verified must not stand for a vote.
        match priority {
            Priority::Bulk => self.ahead.learn(verified),
            Priority::Live | Priority::Quorum => self.verified.add(verified),
        }
        Ok(())
    }

    /// The parent's certificate as the proposer has it: its signers may differ from those that this node knows.
    async fn verify_parent_certificate(&self, prepared: &Prepared) -> Result<(), Refusal> {
        let head = self.chain.head();
        let Some(certificate) = &prepared.parent_certificate else { return Ok(()) };
        if head.certificate.as_deref().is_some_and(|own| own.hash() == certificate.hash()) {
            return Ok(());
        }
        let invalid = || Refusal::Invalid(prepared.id, "parent_certificate_invalid");
        let validators = self.chain.validators_at(certificate.height);
        let keys = certificate_keys(&self.chain, certificate, &validators).ok_or_else(invalid)?;
        let ballot = certificate.ballot(self.chain.network());
        let signed = certificate.signatures.iter().zip(&keys).map(|(signature, key)| {
            Signed::p256(key, &signature.signature.signature, ballot.signing_bytes(&signature.signature.key))
        });
        let verdicts = self
            .signatures
            .verify(Priority::Quorum, signed)
            .await
            .map_err(|_| Refusal::Undecided("the accelerator is saturated"))?;
        if verdicts.into_iter().all(|valid| valid) { Ok(()) } else { Err(invalid()) }
    }
}

/// The key of each signature; none when the certificate has no quorum or names a key that does not count.
fn certificate_keys(
    chain: &Chain,
    certificate: &CommitCertificate,
    validators: &ValidatorSet,
) -> Option<Vec<[u8; 33]>> {
    if !certificate.is_ordered() || certificate.signatures.len() < validators.quorum() {
        return None;
    }
    certificate
        .signatures
        .iter()
        .map(|signature| {
            let validator = validators.get(usize::from(signature.validator))?;
            match signature.signature.key {
                VoteKey::Direct => Some(validator.public_key),
                VoteKey::Delegated(hash) => {
                    // The ledger verified the certificate when it took it in.
                    let epoch = chain.epoch_certificate(&hash)?;
                    (epoch.validator == validator.id() && epoch.covers(certificate.height)).then_some(epoch.public_key)
                }
            }
        })
        .collect()
}

/// A block that is to be checked: parsed ahead, or only decoded, because most that are refused are so by their header.
enum Contents {
    Parsed(Arc<Prepared>),
    Decoded(Box<Block>),
}

impl Contents {
    fn header(&self) -> &Header {
        match self {
            Self::Parsed(prepared) => &prepared.header,
            Self::Decoded(block) => &block.header,
        }
    }

    fn parent_certificate(&self) -> Option<&CommitCertificate> {
        match self {
            Self::Parsed(prepared) => prepared.parent_certificate.as_ref(),
            Self::Decoded(block) => block.parent_certificate.as_ref(),
        }
    }

    fn entry_lengths(&self) -> Vec<usize> {
        match self {
            Self::Parsed(prepared) => prepared.statements.iter().map(|statement| statement.entry().len()).collect(),
            Self::Decoded(block) => block.entries.iter().map(|entry| entry.len()).collect(),
        }
    }

    /// The block with its statements, or the code of the first that does not parse.
    fn parse(self, bytes: &Bytes) -> Result<Arc<Prepared>, Code> {
        match self {
            Self::Parsed(prepared) => Ok(prepared),
            Self::Decoded(block) => Prepared::new(*block, bytes.clone()).map(Arc::new),
        }
    }
}

/// `ahead` is the candidate, if it was parsed before.
fn check(chain: &Chain, candidate: &Candidate, ahead: Option<Arc<Prepared>>, now_ms: u64) -> Result<Checked, Refusal> {
    let contents = match ahead {
        Some(prepared) => Contents::Parsed(prepared),
        None => Block::from_bytes(&candidate.bytes)
            .map(|block| Contents::Decoded(Box::new(block)))
            .map_err(|_| Refusal::Malformed("not a deterministic block"))?,
    };
    let head = chain.head();
    let header = contents.header().clone();
    let id = header.id();
    if head.tip.height.next() != candidate.height {
        return Err(Refusal::Undecided("the parent is not committed here"));
    }
    let invalid = |reason| Refusal::Invalid(id, reason);
    check_header(chain.network(), &head, &header, candidate.height).map_err(invalid)?;
    // Before the results: execution asserts that time increases, and a block that diverges is executed, too.
    check_time(&head, &header, candidate.origin, now_ms).map_err(invalid)?;
    if let Err(ChainError::Diverged { what, .. }) = check_results(&head, &header) {
        // A decided block that certifies other results than this node has: refusing it would leave the node waiting for
        // ever. It goes on to its commit, which is reached only if the engine finds the quorum for it, and halts there.
        if candidate.origin == Origin::Sync {
            let prepared = contents.parse(&candidate.bytes).map_err(|code| invalid(code.as_str()))?;
            return Ok(Checked { prepared, diverged: true, keys: Vec::new(), rule_versions: Vec::new() });
        }
        return Err(Refusal::OtherResults(id, what));
    }
    check_proposer(&head, &header, candidate).map_err(invalid)?;
    check_parent_certificate(&head, &header, contents.parent_certificate()).map_err(invalid)?;

    let parameters = &head.frame.parameters;
    let entries = contents.entry_lengths();
    let within = |value: usize, max: u32| usize::try_from(max).is_ok_and(|max| value <= max);
    if !within(candidate.bytes.len(), parameters.block_bytes_max)
        || !within(entries.len(), parameters.block_statements_max)
        || !entries.iter().all(|length| within(*length, parameters.statement_bytes_max))
    {
        return Err(invalid("block_too_large"));
    }
    let prepared = contents.parse(&candidate.bytes).map_err(|code| invalid(code.as_str()))?;
    if prepared.statements_root() != header.statements_root {
        return Err(invalid("statements_root_mismatch"));
    }
    let mut keys = Vec::with_capacity(prepared.statements.len());
    let mut rule_versions = Vec::with_capacity(prepared.statements.len());
    let read = chain.reading(|view| {
        let mut signing_keys = SigningKeys::new(view);
        for statement in &prepared.statements {
            if let ContentKind::Command { audience, .. } = statement.content()
                && *audience != chain.network()
            {
                return Err(Code::ForeignNetwork);
            }
            rule_versions.push(parameters.rule_version(statement.suite()).ok_or(Code::SuiteDisabled)?);
            keys.push(signing_keys.of(statement)?.clone());
        }
        Ok(())
    });
    read.map_err(|_| Refusal::Undecided("the state cannot be read"))?.map_err(|code| invalid(code.as_str()))?;
    Ok(Checked { prepared, diverged: false, keys, rule_versions })
}

fn check_header(
    network: stele_types::NetworkId,
    head: &Head,
    header: &Header,
    height: Height,
) -> Result<(), &'static str> {
    if header.network != network {
        return Err("foreign_network");
    }
    if header.protocol_version != head.frame.protocol_version {
        return Err("protocol_version_mismatch");
    }
    if header.height != height {
        return Err("height_mismatch");
    }
    if header.parent != head.tip.block {
        return Err("parent_mismatch");
    }
    Ok(())
}

/// Stable code for a result that [`check_results`] found to differ.
pub(super) fn mismatch_code(what: &str) -> &'static str {
    match what {
        "state root" => "state_root_mismatch",
        "log root" | "log size" => "log_root_mismatch",
        "outcomes root" => "outcomes_root_mismatch",
        "parameters" => "parameters_mismatch",
        _ => "validators_mismatch",
    }
}

fn check_proposer(head: &Head, header: &Header, candidate: &Candidate) -> Result<(), &'static str> {
    let frame = &head.frame;
    let index = frame.schedule.proposer(header.height.0, header.creation_round);
    let expected: Option<ValidatorId> = frame.validators.get(index).map(stele_types::Validator::id);
    if expected != Some(header.proposer) {
        return Err("proposer_mismatch");
    }
    match candidate.origin {
        // A fresh block is made in the round in which it is proposed, by its proposer.
        Origin::Fresh if header.creation_round != candidate.round || header.proposer != candidate.proposer => {
            Err("creation_round_mismatch")
        }
        Origin::Repeated | Origin::Sync if header.creation_round > candidate.round => Err("creation_round_mismatch"),
        _ => Ok(()),
    }
}

fn check_time(head: &Head, header: &Header, origin: Origin, now_ms: u64) -> Result<(), &'static str> {
    if header.time_ms <= head.tip.time_ms {
        return Err("time_not_increasing");
    }
    let parameters = &head.frame.parameters;
    // Re-proposed, decided and synced values were judged by the clocks of their own round.
    if origin == Origin::Fresh {
        if header.time_ms > now_ms.saturating_add(parameters.clock_ahead_ms) {
            return Err("time_ahead");
        }
        // A proposer that lags behind the parent may only add a millisecond; then its time is old but not its fault.
        let oldest = now_ms.saturating_sub(parameters.clock_behind_ms);
        if header.time_ms < oldest && header.time_ms != head.tip.time_ms + 1 {
            return Err("time_behind");
        }
    }
    Ok(())
}

fn check_parent_certificate(
    head: &Head,
    header: &Header,
    certificate: Option<&CommitCertificate>,
) -> Result<(), &'static str> {
    let Some(certificate) = certificate else {
        let first = head.tip.height == Height(0) && header.parent_certificate == Hash::default();
        return if first { Ok(()) } else { Err("parent_certificate_missing") };
    };
    if head.tip.height == Height(0)
        || certificate.hash() != header.parent_certificate
        || certificate.height != head.tip.height
        || certificate.block != head.tip.block
    {
        return Err("parent_certificate_mismatch");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
