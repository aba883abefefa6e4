//! The public halves of a node's keys, as a file: what an operator gives to whoever makes the network.

use serde::{Deserialize, Serialize};

use crate::{
    error::SignerError,
    hexadecimal::{from_hex, to_hex},
    kind::SignerKind,
    signer::Signature,
};

/// A point, SEC 1 compressed.
type Point = [u8; 33];

/// The public halves of a node's keys.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NodeKeys {
    /// Long-term key of the validator; none for a node that follows.
    pub validator: Option<PublishedKey>,
    /// The checkpoint key.
    pub seal: PublishedKey,
    /// The first epoch key, certified for genesis.
    pub epoch: Option<PublishedEpoch>,
    /// The custody key; none for a node that keeps no bodies, or keeps its custody key in a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custody: Option<PublishedKey>,
}

/// A public key and what holds its private half.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PublishedKey {
    /// The backend's name ([`SignerKind::name`]).
    pub signer: String,
    /// SEC 1 compressed, lower-case hexadecimal.
    pub public_key: String,
}

/// An epoch key with the long-term key's signature over its certificate, whose network is zeros: the network's id is the
/// hash of the file that will hold it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PublishedEpoch {
    /// SEC 1 compressed, lower-case hexadecimal.
    pub public_key: String,
    /// First height at which it votes.
    pub from_height: u64,
    /// Last height at which it votes.
    pub until_height: u64,
    /// ECDSA, `r ‖ s`, lower-case hexadecimal.
    pub signature: String,
}

impl PublishedKey {
    /// A key and its backend.
    #[must_use]
    pub fn new(kind: SignerKind, public_key: &Point) -> Self {
        Self { signer: kind.name().into(), public_key: to_hex(public_key) }
    }

    /// What holds it.
    ///
    /// # Errors
    /// [`SignerError::BackendUnknown`].
    pub fn kind(&self) -> Result<SignerKind, SignerError> {
        self.signer.parse()
    }

    /// The point.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`] for text that is none.
    pub fn point(&self) -> Result<Point, SignerError> {
        point(&self.public_key)
    }
}

impl PublishedEpoch {
    /// A key with the heights and the signature of its certificate.
    #[must_use]
    pub fn new(public_key: &Point, (from_height, until_height): (u64, u64), signature: &Signature) -> Self {
        Self { public_key: to_hex(public_key), from_height, until_height, signature: to_hex(signature) }
    }

    /// The point.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`] for text that is none.
    pub fn point(&self) -> Result<Point, SignerError> {
        point(&self.public_key)
    }

    /// The signature.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`] for text that is none.
    pub fn signature(&self) -> Result<Signature, SignerError> {
        from_hex(&self.signature)
            .ok_or(SignerError::MalformedRequest { reason: "the signature is no hexadecimal text" })
    }
}

fn point(text: &str) -> Result<Point, SignerError> {
    let point: Option<Point> = from_hex(text).filter(|point| p256::PublicKey::from_sec1_bytes(point).is_ok());
    point.ok_or(SignerError::MalformedRequest { reason: "the public key is no point of P-256" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back_and_nothing_else() {
        let mut point = [0x02; 33];
        // The base point's x coordinate, SEC 2 section 2.4.2.
        let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
        point[1..].copy_from_slice(&from_hex::<32>(x).expect("hexadecimal"));
        point[0] = 3;
        let key = PublishedKey::new(SignerKind::Tpm, &point);
        assert_eq!((key.kind().expect("known"), key.point().expect("point")), (SignerKind::Tpm, point));
        let epoch = PublishedEpoch::new(&point, (1, 9), &[7; 64]);
        assert_eq!((epoch.point().expect("point"), epoch.signature().expect("signature")), (point, [7; 64]));
        for text in ["", "03", &"0".repeat(66), &format!("03{}", &x[1..]), &format!("+3{x}")] {
            let key = PublishedKey { public_key: text.into(), ..key.clone() };
            assert_eq!(key.point().expect_err(text).code(), "malformed_request");
        }
    }
}
