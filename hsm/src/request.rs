//! What may be signed: one structure per kind, each with its own domain.
//!
//! The bytes to be signed are built by the caller, whose encoding is the protocol; the signer checks that
//! they begin with the domain of the request's kind. Domains are prefix-free, and none is a prefix of a
//! COSE `Sig_structure`, so a signature made for one kind is never valid for another.

use std::fmt;

use crate::error::SignerError;

/// Domain of a prevote or precommit: the head of its CBOR array and the text "stele/vote/v1".
pub const VOTE_DOMAIN: &[u8] = b"\x88\x6dstele/vote/v1";

/// Domain of a proposal: the head of its CBOR array and the text "stele/proposal/v1".
pub const PROPOSAL_DOMAIN: &[u8] = b"\x88\x71stele/proposal/v1";

/// Domain of an epoch certificate: the head of its CBOR array and the text "stele/epoch/v1".
pub const EPOCH_DOMAIN: &[u8] = b"\x87\x6estele/epoch/v1";

/// Domain of a peer binding.
pub const PEER_DOMAIN: &[u8] = b"stele/peer/v1";

/// Longest vote, epoch certificate or peer binding in bytes. Votes are under 200 bytes; the room is for
/// an SM2 or post-quantum epoch key.
pub const MESSAGE_LENGTH_MAX: usize = 4096;

/// Longest protected header of a checkpoint in bytes; ours are under 300.
pub const PROTECTED_LENGTH_MAX: usize = 4096;

/// A step of a consensus round, in the order in which a validator takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The proposer's message.
    Propose,
    /// First vote.
    Prevote,
    /// Second vote.
    Precommit,
}

impl Step {
    /// Stable lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
        }
    }

    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Propose => 0,
            Self::Prevote => 1,
            Self::Precommit => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Propose),
            1 => Some(Self::Prevote),
            2 => Some(Self::Precommit),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One consensus message of this validator.
#[derive(Clone, Copy, Debug)]
pub struct VoteRequest<'a> {
    /// The validator that votes; must be the one the guard belongs to.
    pub validator: [u8; 32],
    /// Height of the block that is voted on.
    pub height: u64,
    /// Round within the height, from 0.
    pub round: u32,
    /// Step within the round.
    pub step: Step,
    /// The block's id, or `None` for a vote for nil.
    pub value_id: Option<[u8; 32]>,
    /// The exact bytes to be signed. They begin with [`PROPOSAL_DOMAIN`] for [`Step::Propose`] and with
    /// [`VOTE_DOMAIN`] otherwise, and hold `value_id` verbatim.
    pub bytes: &'a [u8],
}

/// One signed tree head.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointRequest<'a> {
    /// Number of leaves of the log.
    pub tree_size: u64,
    /// Root over those leaves.
    pub root: [u8; 32],
    /// The COSE `Sig_structure` of RFC 9052 section 4.4 in deterministic encoding:
    /// `["Signature1", protected, h'', root]`.
    pub sig_structure: &'a [u8],
}

/// A certificate that lets an epoch key vote for a validator.
#[derive(Clone, Copy, Debug)]
pub struct EpochCertificateRequest<'a> {
    /// The validator that certifies.
    pub validator: [u8; 32],
    /// The epoch key, as its algorithm encodes it; held verbatim in `bytes`.
    pub epoch_key: &'a [u8],
    /// First height at which the epoch key may vote.
    pub height_first: u64,
    /// Last height at which the epoch key may vote.
    pub height_last: u64,
    /// The exact bytes to be signed; they begin with [`EPOCH_DOMAIN`].
    pub bytes: &'a [u8],
}

/// The statement that a network peer id speaks for a validator.
#[derive(Clone, Copy, Debug)]
pub struct PeerBindingRequest<'a> {
    /// The peer id, as the transport encodes it; held verbatim in `bytes`.
    pub peer_id: &'a [u8],
    /// The exact bytes to be signed; they begin with [`PEER_DOMAIN`].
    pub bytes: &'a [u8],
}

impl VoteRequest<'_> {
    /// Checks domain, size and value id.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        let domain = match self.step {
            Step::Propose => PROPOSAL_DOMAIN,
            Step::Prevote | Step::Precommit => VOTE_DOMAIN,
        };
        require_domain(self.bytes, domain)?;
        if let Some(value_id) = &self.value_id {
            require_held(self.bytes, value_id, "the bytes do not hold the value id")?;
        } else if self.step == Step::Propose {
            return Err(SignerError::MalformedRequest {
                reason: "a proposal needs a value id",
            });
        }
        Ok(())
    }
}

impl EpochCertificateRequest<'_> {
    /// Checks domain, size, key and height range.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        require_domain(self.bytes, EPOCH_DOMAIN)?;
        require_held(
            self.bytes,
            self.epoch_key,
            "the bytes do not hold the epoch key",
        )?;
        if self.height_first > self.height_last {
            return Err(SignerError::MalformedRequest {
                reason: "the height range is empty",
            });
        }
        Ok(())
    }
}

impl PeerBindingRequest<'_> {
    /// Checks domain, size and peer id.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        require_domain(self.bytes, PEER_DOMAIN)?;
        require_held(
            self.bytes,
            self.peer_id,
            "the bytes do not hold the peer id",
        )
    }
}

impl CheckpointRequest<'_> {
    /// Parses the `Sig_structure` and checks that it signs exactly `root`.
    ///
    /// # Errors
    /// [`SignerError::MalformedRequest`].
    pub fn validate(&self) -> Result<(), SignerError> {
        /// Array of four, then the text string "Signature1" (RFC 8949 section 3).
        const HEAD: &[u8] = b"\x84\x6aSignature1";
        /// An empty byte string: no externally supplied data.
        const EXTERNAL_AAD: u8 = 0x40;
        /// A byte string of 32 bytes: the detached payload is the root.
        const ROOT_HEAD: [u8; 2] = [0x58, 0x20];
        let malformed = |reason| SignerError::MalformedRequest { reason };

        let rest = self
            .sig_structure
            .strip_prefix(HEAD)
            .ok_or(malformed("the bytes are not a Sig_structure of COSE_Sign1"))?;
        let (protected, rest) = take_byte_string(rest).ok_or(malformed(
            "the protected header is not a byte string in shortest form",
        ))?;
        if protected.is_empty() || protected.len() > PROTECTED_LENGTH_MAX {
            return Err(malformed("the protected header is empty or too long"));
        }
        let rest = rest
            .strip_prefix(&[EXTERNAL_AAD])
            .ok_or(malformed("the external data is not empty"))?;
        let payload = rest
            .strip_prefix(&ROOT_HEAD)
            .ok_or(malformed("the payload is not a root"))?;
        if payload != self.root {
            return Err(malformed("the payload is not the root of the request"));
        }
        Ok(())
    }
}

fn require_domain(bytes: &[u8], domain: &[u8]) -> Result<(), SignerError> {
    if bytes.len() > MESSAGE_LENGTH_MAX {
        return Err(SignerError::MalformedRequest {
            reason: "the bytes are too long",
        });
    }
    if !bytes.starts_with(domain) {
        return Err(SignerError::MalformedRequest {
            reason: "the bytes have another domain",
        });
    }
    Ok(())
}

fn require_held(bytes: &[u8], field: &[u8], reason: &'static str) -> Result<(), SignerError> {
    if field.is_empty() || !bytes.windows(field.len()).any(|window| window == field) {
        return Err(SignerError::MalformedRequest { reason });
    }
    Ok(())
}

/// Splits a definite byte string with a shortest-form length off the front (RFC 8949 section 4.2.1).
fn take_byte_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&head, rest) = bytes.split_first()?;
    let (length, rest) = match head {
        0x40..=0x57 => (usize::from(head - 0x40), rest),
        0x58 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x59 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let shortest = match head {
        0x58 => length >= 24,
        0x59 => length >= 256,
        _ => true,
    };
    if !shortest {
        None
    } else {
        rest.split_at_checked(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sig_structure(protected: &[u8], root: &[u8; 32]) -> Vec<u8> {
        let mut bytes = b"\x84\x6aSignature1".to_vec();
        if protected.len() < 24 {
            bytes.push(0x40 + u8::try_from(protected.len()).expect("short"));
        } else if protected.len() < 256 {
            bytes.extend([0x58, u8::try_from(protected.len()).expect("short")]);
        } else {
            bytes.push(0x59);
            bytes.extend(u16::try_from(protected.len()).expect("short").to_be_bytes());
        }
        bytes.extend(protected);
        bytes.push(0x40);
        bytes.extend([0x58, 0x20]);
        bytes.extend(root);
        bytes
    }

    fn checkpoint(root: [u8; 32], bytes: &[u8]) -> Result<(), SignerError> {
        CheckpointRequest {
            tree_size: 1,
            root,
            sig_structure: bytes,
        }
        .validate()
    }

    #[test]
    fn a_sig_structure_of_any_header_length_is_accepted() {
        let root = [7; 32];
        for length in [1usize, 23, 24, 255, 256, PROTECTED_LENGTH_MAX] {
            let bytes = sig_structure(&vec![0xa0; length], &root);
            checkpoint(root, &bytes).unwrap_or_else(|error| panic!("length {length}: {error}"));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_framing_byte_is_refused() {
        let root = [7; 32];
        let bytes = sig_structure(&[0xa1, 0x01, 0x26], &root);
        checkpoint(root, &bytes).expect("whole");
        for end in 0..bytes.len() {
            checkpoint(root, &bytes[..end]).expect_err("cut");
        }
        for index in (0..bytes.len()).filter(|index| !(13..16).contains(index)) {
            let mut flipped = bytes.clone();
            flipped[index] ^= 0x20;
            checkpoint(root, &flipped).expect_err("flipped");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        checkpoint(root, &longer).expect_err("trailing byte");
        checkpoint([8; 32], &bytes).expect_err("other root");
        let too_long = sig_structure(&vec![0xa0; PROTECTED_LENGTH_MAX + 1], &root);
        checkpoint(root, &too_long).expect_err("too long");
        checkpoint(root, &sig_structure(&[], &root)).expect_err("empty header");
    }

    #[test]
    fn a_length_that_is_not_in_shortest_form_is_refused() {
        let root = [7; 32];
        let mut bytes = b"\x84\x6aSignature1\x58\x01\xa0\x40\x58\x20".to_vec();
        bytes.extend(root);
        checkpoint(root, &bytes).expect_err("one-byte length for one byte");
    }

    #[test]
    fn a_vote_needs_the_domain_of_its_step_and_its_value() {
        let value = [9; 32];
        let bytes = [VOTE_DOMAIN, &value].concat();
        let vote = |step, value_id, bytes: &[u8]| {
            VoteRequest {
                validator: [1; 32],
                height: 1,
                round: 0,
                step,
                value_id,
                bytes,
            }
            .validate()
        };
        vote(Step::Prevote, Some(value), &bytes).expect("vote");
        vote(Step::Precommit, None, VOTE_DOMAIN).expect("nil vote");
        vote(Step::Propose, Some(value), &bytes).expect_err("vote domain on a proposal");
        let proposal = [PROPOSAL_DOMAIN, &value].concat();
        vote(Step::Propose, Some(value), &proposal).expect("proposal");
        vote(Step::Propose, None, &proposal).expect_err("proposal of nothing");
        vote(Step::Prevote, Some(value), &proposal).expect_err("proposal domain on a vote");
        vote(Step::Prevote, Some([8; 32]), &bytes).expect_err("another value in the bytes");
        vote(Step::Prevote, None, b"\x84\x6aSignature1").expect_err("a checkpoint");
        let long = [VOTE_DOMAIN, &[0; MESSAGE_LENGTH_MAX]].concat();
        vote(Step::Prevote, None, &long).expect_err("too long");
    }

    #[test]
    fn epoch_certificates_and_peer_bindings_name_what_they_bind() {
        let bytes = [EPOCH_DOMAIN, b"key"].concat();
        let epoch = |height_first, height_last, epoch_key: &[u8], bytes: &[u8]| {
            EpochCertificateRequest {
                validator: [1; 32],
                epoch_key,
                height_first,
                height_last,
                bytes,
            }
            .validate()
        };
        epoch(1, 1, b"key", &bytes).expect("certificate");
        epoch(2, 1, b"key", &bytes).expect_err("empty range");
        epoch(1, 2, b"yek", &bytes).expect_err("other key");
        epoch(1, 2, b"", &bytes).expect_err("no key");
        epoch(1, 2, b"key", b"stele/vote/v1key").expect_err("other domain");
        let bytes = [PEER_DOMAIN, b"peer"].concat();
        PeerBindingRequest {
            peer_id: b"peer",
            bytes: &bytes,
        }
        .validate()
        .expect("binding");
        PeerBindingRequest {
            peer_id: b"reep",
            bytes: &bytes,
        }
        .validate()
        .expect_err("other peer");
    }

    #[test]
    fn no_domain_is_a_prefix_of_another() {
        let domains = [
            VOTE_DOMAIN,
            PROPOSAL_DOMAIN,
            EPOCH_DOMAIN,
            PEER_DOMAIN,
            b"\x84\x6aSignature1",
        ];
        for (first, one) in domains.iter().enumerate() {
            for (second, other) in domains.iter().enumerate() {
                assert!(first == second || !one.starts_with(other));
            }
        }
    }
}
