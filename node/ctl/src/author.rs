//! A party that signs: commands, hash envelopes and public payloads.

use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow};
use stele_types::statement::Unsigned;
use stele_types::{Command, Cti, Hash, NetworkId, ObjectId, PartyId, StatementId};

use crate::keys::SigningKey;

/// A signed statement: its id and its exact bytes.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The id, which does not depend on the signature.
    pub id: StatementId,
    /// The entry.
    pub entry: Vec<u8>,
}

/// A party with a key, on one network.
#[derive(Clone, Debug)]
pub struct Author {
    party: PartyId,
    key: SigningKey,
    network: NetworkId,
}

impl Author {
    /// The party `party` signing with `key`.
    pub const fn new(party: PartyId, key: SigningKey, network: NetworkId) -> Self {
        Self { party, key, network }
    }
    /// The party.
    pub const fn party(&self) -> PartyId {
        self.party
    }
    /// The key.
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }
    /// The network.
    pub const fn network(&self) -> NetworkId {
        self.network
    }
    /// Signs a command with the present time and a fresh idempotency id.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn command(&self, command: &Command) -> Result<Signed> {
        self.command_at(command, now_ms()? / 1000, Cti(random()?))
    }
    /// Signs a command with a given time in seconds and idempotency id.
    ///
    /// # Errors
    /// When the key fails.
    pub fn command_at(&self, command: &Command, issued_at: u64, cti: Cti) -> Result<Signed> {
        let (suite, key) = (self.key.suite(), self.key.id());
        self.sign(Unsigned::command(suite, key, self.party, self.network, issued_at, cti, command))
    }
    /// Signs a hash envelope: only the SHA-256 of `content` leaves this machine.
    ///
    /// # Errors
    /// When the subject is empty or too long.
    pub fn hash_envelope(&self, subject: &str, content_type: &str, content: &[u8]) -> Result<Signed> {
        let (suite, key) = (self.key.suite(), self.key.id());
        self.sign(
            Unsigned::hash_envelope(suite, key, self.party, subject, content_type, Hash::of(content))
                .context("subject or content type")?,
        )
    }
    /// Signs a payload that anyone may read.
    ///
    /// # Errors
    /// When the payload is over 4 KiB, or the subject is empty or too long.
    pub fn public(&self, subject: &str, content_type: &str, content: &[u8]) -> Result<Signed> {
        let (suite, key) = (self.key.suite(), self.key.id());
        let unsigned = Unsigned::public(suite, key, self.party, subject, content_type, content);
        self.sign(unsigned.context("public payload (at most 4 KiB) or subject")?)
    }
    fn sign(&self, unsigned: Unsigned) -> Result<Signed> {
        let id = unsigned.id();
        let signature = self.key.sign(&unsigned.signing_bytes())?;
        Ok(Signed { id, entry: unsigned.into_entry(&signature) })
    }
}

/// Milliseconds since 1970.
///
/// # Errors
/// When the clock is before 1970.
pub fn now_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    u64::try_from(now.as_millis()).context("the clock is far ahead")
}

/// Random bytes of the system.
///
/// # Errors
/// When it gives none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

/// A fresh object id: a UUID of version 7 (RFC 9562 section 5.7), so that ids ascend with time.
///
/// # Errors
/// When the system gives no random bytes.
pub fn object_id() -> Result<ObjectId> {
    let mut id: [u8; 16] = random()?;
    id[..6].copy_from_slice(&now_ms()?.to_be_bytes()[2..]);
    id[6] = 0x70 | id[6] & 0x0f;
    id[8] = 0x80 | id[8] & 0x3f;
    Ok(ObjectId(id))
}

#[cfg(test)]
mod tests {
    use stele_types::party::{KeyRevoke, RevocationReason};
    use stele_types::{KeyId, Statement, Suite};

    use super::*;

    #[test]
    fn what_is_signed_parses_and_keeps_its_id() {
        let author = Author::new(PartyId([1; 16]), SigningKey::generate(Suite::Sm2Sm3).unwrap(), NetworkId([2; 32]));
        let command = Command::KeyRevoke(KeyRevoke { key: KeyId([3; 16]), reason: RevocationReason::Ceased });
        let signed = [
            author.command(&command).unwrap(),
            author.hash_envelope("report", "application/pdf", b"body").unwrap(),
            author.public("notice", "text/plain", b"open").unwrap(),
        ];
        for signed in signed {
            let statement = Statement::parse(signed.entry).unwrap();
            assert_eq!(
                (statement.id(), statement.issuer(), statement.key()),
                (signed.id, author.party(), author.key().id())
            );
        }
        assert!(author.public("notice", "text/plain", &[0; 5000]).is_err());
    }

    #[test]
    fn object_ids_ascend_with_time() {
        let first = object_id().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(first < object_id().unwrap());
        assert_eq!(first.0[6] >> 4, 7);
    }
}
