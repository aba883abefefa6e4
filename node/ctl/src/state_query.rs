//! A value of the state, asked of one node and proven under a certified header.

use anyhow::{Context as _, Result, anyhow, bail};
use stele_client::Client;
use stele_types::exchange::{self, StateProof};
use stele_types::{Hash, Height};
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
    let proofs = client.state(object.kind(), &object.id()).await?;
    let first = proofs.first().ok_or_else(|| anyhow!("the node answered without a proof"))?;
    if first.key.0 != object.state_key() {
        bail!(
            Failure::new("proof_of_other_key", "the node proved another key than the one asked for")
                .hint("ask another node with --node, and tell the operator")
        );
    }
    proofs.iter().map(|proof| verify(anchor, proof)).collect()
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
    let Some(answer) = &proof.certified_by else {
        bail!(
            Failure::new("not_certified", "the node has no header that certifies this value yet")
                .hint("the next header certifies it; ask again in a moment")
        );
    };
    let certified = certify(anchor, answer).context("the header that certifies the value")?;
    let value = proof.value.as_deref();
    state::verify(anchor, certified, &proof.key.0, value, &proof.proof).context("the proof of the value")?;
    if certified.results_height() != proof.height {
        bail!(Failure::new("proof_height", "the header certifies another height than the proof names"));
    }
    Ok(Proven { value: value.map(<[u8]>::to_vec), height: proof.height, key: proof.key })
}
