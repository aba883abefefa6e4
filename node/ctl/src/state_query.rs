//! Values of the state, asked of one node and proven under certified headers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use stele_client::Client;
use stele_types::bundle::ProvenValue;
use stele_types::cbor::List;
use stele_types::exchange::{self, StateProof};
use stele_types::{Hash, Height, StateBundle};
use stele_verify::state::STATE_BUNDLE_VERSION;
use stele_verify::{CertifiedHeader, TrustAnchor, chain, state};

use crate::describe::Object;
use crate::failure::Failure;

/// A value, or its absence, as a quorum certifies it.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The value's bytes; none when it is proven absent.
    pub value: Option<Vec<u8>>,
    /// Height after which it stands.
    pub height: Height,
    /// Its key in the state tree.
    pub key: Hash,
}

/// Asks for `object` and verifies every answer; a certificate number has two: the asset's id, and the asset.
///
/// # Errors
/// A refusal, or a proof that does not hold.
pub async fn query(client: &Client, anchor: &TrustAnchor, object: &Object) -> Result<Vec<Proven>> {
    ask(client, object).await?.iter().map(|proof| verify(anchor, proof)).collect()
}

/// Asks for objects and puts everything that proves them into one bundle, unverified. A certificate number brings two
/// values, as in [`query`].
///
/// # Errors
/// A refusal, or a value that no header certifies yet.
pub async fn bundle(client: &Client, objects: &[Object]) -> Result<StateBundle> {
    let (mut values, mut headers) = (BTreeMap::new(), BTreeMap::new());
    for object in objects {
        for StateProof { key, value, proof, height, certified_by, .. } in ask(client, object).await? {
            let header = certified_by.ok_or_else(not_certified)?;
            // A key that two objects bring is proven once, and its first header is enough.
            if let std::collections::btree_map::Entry::Vacant(vacant) = values.entry(key) {
                vacant.insert(ProvenValue { key, value, proof, height });
                headers.insert(height, header);
            }
        }
    }
    Ok(StateBundle {
        version: STATE_BUNDLE_VERSION,
        values: List::new(values.into_values().collect())?,
        headers: List::new(headers.into_values().collect())?,
    })
}

async fn ask(client: &Client, object: &Object) -> Result<Vec<StateProof>> {
    let proofs = client.state(object.kind(), &object.id()).await?;
    let first = proofs.first().ok_or_else(|| anyhow!("the node answered without a proof"))?;
    if first.key.0 != object.state_key() {
        bail!(
            Failure::new("proof_of_other_key", "the node proved another key than the one asked for")
                .hint("ask another node with --node, and tell the operator")
        );
    }
    Ok(proofs)
}

fn not_certified() -> Failure {
    Failure::new("not_certified", "the node has no header that certifies this value yet")
        .hint("the next header certifies it; ask again in a moment")
}

/// Walks from the anchor to the header of an answer and checks its quorum.
///
/// # Errors
/// When the way does not lead there.
pub fn certify<'a>(anchor: &TrustAnchor, answer: &'a exchange::CertifiedHeader) -> Result<CertifiedHeader<'a>> {
    let exchange::CertifiedHeader { header, certificate, epoch_certificates, chain: links } = answer;
    Ok(chain::certify(anchor, links, epoch_certificates, header, certificate)?)
}

fn verify(anchor: &TrustAnchor, proof: &StateProof) -> Result<Proven> {
    let answer = proof.certified_by.as_ref().ok_or_else(not_certified)?;
    let certified = certify(anchor, answer).context("the header that certifies the value")?;
    let value = proof.value.as_deref();
    state::verify(anchor, certified, &proof.key.0, value, &proof.proof).context("the proof of the value")?;
    if certified.results_height() != proof.height {
        bail!(Failure::new("proof_height", "the header certifies another height than the proof names"));
    }
    Ok(Proven { value: value.map(<[u8]>::to_vec), height: proof.height, key: proof.key })
}
