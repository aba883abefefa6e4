//! Receipts and quorum bundles, built when they are asked for.

use stele_merkle::log::MemoryTree;
use stele_types::bundle::OutcomeProof;
use stele_types::cbor::{Blob, List};
use stele_types::{Bundle, Hash, Height, InclusionProof, LogIndex, Outcome, Receipt, StatementId};

use super::trust_path::TrustPath;
use super::{Chain, ChainError, Location, SignedCheckpoint, tree};

/// Version of the bundle's form.
const BUNDLE_VERSION: u8 = 1;

impl Chain {
    /// A receipt for a leaf under the newest signed and certified checkpoint; none when there is no such leaf.
    ///
    /// # Errors
    /// `not_certified` while no such checkpoint covers the leaf; failure of a store.
    pub fn receipt(&self, index: LogIndex) -> Result<Option<Receipt>, ChainError> {
        let Some(location) = self.location_of_leaf(index)? else { return Ok(None) };
        let (receipt, _) = self.receipt_at(index, location)?;
        Ok(Some(receipt))
    }

    fn receipt_at(&self, index: LogIndex, location: Location) -> Result<(Receipt, SignedCheckpoint), ChainError> {
        let seal = self.certified_checkpoint(Height(location.height())).ok_or(ChainError::NotCertified)?;
        let path = self.log.inclusion_proof(index.0, seal.checkpoint.log_size).map_err(ChainError::from);
        let path = self.noticed(path)?;
        let proof = InclusionProof {
            tree_size: seal.checkpoint.log_size,
            index,
            path: List::new(path.into_iter().map(Hash).collect())?,
        };
        Ok((Receipt { checkpoint: seal.checkpoint.clone(), proof, signature: seal.signature }, seal))
    }

    /// The quorum bundle of a statement that was executed, registered or rejected, for verifiers that trust the validator
    /// set of `from`; none when it is unknown.
    ///
    /// # Errors
    /// `not_certified` while no committed header certifies its result; `trust_path_too_long`; failure of a store.
    pub fn bundle(&self, id: &StatementId, with_entry: bool, from: Height) -> Result<Option<Bundle>, ChainError> {
        let Some(location) = self.locate(id)? else { return Ok(None) };
        let Some(outcome) = self.outcome(location)? else { return Ok(None) };
        if outcome.statement != *id {
            return Ok(None);
        }
        let (receipt, proof, results, key) = match outcome.index {
            Some(index) => {
                let (receipt, seal) = self.receipt_at(index, location)?;
                (Some(receipt), None, seal.checkpoint.height, Some(seal.public_key))
            }
            None => (None, Some(self.outcome_proof(location, outcome)?), Height(location.height()), None),
        };
        let Some((header, certificate)) = self.header(results.next())? else { return Err(ChainError::NotCertified) };
        let TrustPath { epoch_certificates, links } = self.trust_path(&header, &certificate, from)?;
        let entry = match with_entry.then(|| self.entry(location)).transpose()?.flatten() {
            Some(entry) => Some(Blob::new(entry.to_vec())?),
            None => None,
        };
        Ok(Some(Bundle {
            version: BUNDLE_VERSION,
            entry,
            receipt,
            outcome: proof,
            header,
            certificate,
            epoch_certificates,
            chain: links,
            checkpoint_key: key,
            checkpoint_signer: None,
        }))
    }

    fn outcome_proof(&self, location: Location, outcome: Outcome) -> Result<OutcomeProof, ChainError> {
        let outcomes = self.outcomes(Height(location.height()))?.ok_or(ChainError::NotCertified)?;
        let outcomes: Vec<Vec<u8>> = outcomes.iter().map(Outcome::to_bytes).collect();
        let leaves = tree::leaf_hashes(outcomes.iter().map(Vec::as_slice));
        let position = u64::from(location.position());
        let path = MemoryTree::from_leaf_hashes(&leaves)
            .inclusion_proof(position)
            .map_err(|_| self.damaged("outcomes", location.height()))?;
        let path = List::new(path.into_iter().map(Hash).collect())?;
        Ok(OutcomeProof { outcome, tree_size: leaves.len() as u64, position, path })
    }
}
