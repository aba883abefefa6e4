//! The nodes that keep copies for each other, and which of them a body goes to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use stele_client::{Bounds, Client, ClientError, ClientIdentity, Endpoint, RetryPolicy, TlsSettings};
use stele_hsm::custody::CustodyPublicKey;
use stele_types::Hash;
use stele_types::limits::BLOCK_BYTES_MAX;

use super::CustodyError;
use crate::config::CustodySection;

/// Bytes that are asked for at a time.
pub(super) const PULL_BYTES: usize = 1 << 20;

/// Roots in one question at most.
pub(super) const ROOTS_MAX: usize = 1024;

/// Tries of one request before another node is asked.
const RETRY: RetryPolicy =
    RetryPolicy { tries_max: 2, pause_min: Duration::from_millis(200), pause_max: Duration::from_secs(1) };

/// How long a node that did not answer is left alone.
const REST: Duration = Duration::from_secs(5);

/// Silence that nobody heard again for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// A node that does not answer for so long is counted as lost: what only it has is copied to others.
const LOST_AFTER: Duration = Duration::from_secs(30 * 60);

/// Another node.
pub(super) struct Keeper {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) custody_key: CustodyPublicKey,
    pub(super) receipt_key: [u8; 33],
    /// Since when it does not answer, and when it was asked last.
    silent: Mutex<Option<(Instant, Instant)>>,
}

impl Keeper {
    /// Whether it did not answer a moment ago.
    pub(super) fn rests(&self) -> bool {
        self.silent().is_some_and(|(_, asked)| asked.elapsed() < REST)
    }

    /// Whether it has not answered for so long that what it had is taken for gone.
    pub(super) fn is_lost(&self) -> bool {
        self.silent().is_some_and(|(since, _)| since.elapsed() > LOST_AFTER)
    }

    /// Takes note of an answer, or that there was none.
    pub(super) fn heard<T>(&self, answer: Result<T, ClientError>) -> Result<T, CustodyError> {
        let mut silent = self.silent();
        match answer {
            Ok(answer) => {
                *silent = None;
                Ok(answer)
            }
            Err(error) => {
                let now = Instant::now();
                // Whoever refuses is there. Whoever was not asked for long may have been.
                let since =
                    silent.filter(|(_, asked)| asked.elapsed() < FORGOTTEN_AFTER).map_or(now, |(since, _)| since);
                *silent = error.protocol_code().is_none().then_some((since, now));
                Err(CustodyError::Keeper { name: self.name.clone(), error: Box::new(error) })
            }
        }
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Instant)>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them.
pub(super) struct Keepers {
    all: Vec<Keeper>,
    own: CustodyPublicKey,
}

impl Keepers {
    /// Those of the configuration, without the node itself.
    ///
    /// # Errors
    /// `Configuration`.
    pub(super) fn new(section: &CustodySection, own: CustodyPublicKey) -> Result<Self, CustodyError> {
        let configuration = |reason: String| CustodyError::Configuration { reason };
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_err(|error| configuration(format!("{}: {error}", path.display())))
        };
        let client = |error: ClientError| configuration(error.to_string());
        let identity = ClientIdentity::from_pem(&read(&section.certificate)?, &read(&section.key)?).map_err(client)?;
        let tls = TlsSettings::new(&read(&section.authorities)?).map_err(client)?.with_identity(identity);
        // Whole ranges of a body, pages of roots, and blocks with their certificates.
        let answer_bytes_max = (4 * PULL_BYTES).max(2 * BLOCK_BYTES_MAX);
        let bounds = Bounds { connect: Duration::from_secs(2), answer_bytes_max, ..Bounds::default() };
        let mut all = Vec::with_capacity(section.keepers.len());
        for entry in &section.keepers {
            let key = |text: &str| hex::decode(text).ok();
            let custody_key = key(&entry.custody_key).and_then(|key| key.try_into().ok());
            let receipt_key = key(&entry.receipt_key).and_then(|key| key.try_into().ok());
            let (Some(custody_key), Some(receipt_key)) = (custody_key, receipt_key) else {
                return Err(configuration(format!("the keys of {} are no keys", entry.address)));
            };
            if custody_key == own {
                continue;
            }
            let endpoint = Endpoint::https(&entry.address).map_err(client)?;
            let node = Client::builder().endpoint(endpoint).tls(tls.clone()).retry(RETRY).bounds(bounds).build();
            let (name, client) = (entry.address.clone(), node.map_err(client)?);
            all.push(Keeper { name, client, custody_key, receipt_key, silent: Mutex::default() });
        }
        Ok(Self { all, own })
    }

    pub(super) fn all(&self) -> &[Keeper] {
        &self.all
    }

    /// The one with this custody key.
    pub(super) fn get(&self, key: &CustodyPublicKey) -> Option<&Keeper> {
        self.all.iter().find(|keeper| keeper.custody_key == *key)
    }

    /// The nodes that a body of this node goes to, the first one first.
    pub(super) fn for_own(&self, root: &Hash) -> Vec<&Keeper> {
        let mut ranked: Vec<&Keeper> = self.all.iter().collect();
        ranked.sort_by_key(|keeper| rank(&keeper.custody_key, root));
        ranked
    }

    /// Whether this node is the first that a body of another one goes to, if that has the same others around it.
    pub(super) fn is_first_for(&self, origin: &CustodyPublicKey, root: &Hash) -> bool {
        let own = rank(&self.own, root);
        self.all.iter().filter(|keeper| keeper.custody_key != *origin).all(|other| own < rank(&other.custody_key, root))
    }
}

/// Rendezvous hashing (Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998): bodies spread evenly, and
/// when a node comes or goes, only those move of which it was the first.
fn rank(key: &CustodyPublicKey, root: &Hash) -> [u8; 32] {
    Hash::tagged("stele/keeper/v1", &[key, &root.0]).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepers(own: u8, others: &[u8]) -> Keepers {
        let keeper = |number: &u8| Keeper {
            name: number.to_string(),
            client: Client::of(Endpoint::http("127.0.0.1:1").unwrap(), None).unwrap(),
            custody_key: [*number; 65],
            receipt_key: [*number; 33],
            silent: Mutex::default(),
        };
        Keepers { all: others.iter().map(keeper).collect(), own: [own; 65] }
    }

    #[test]
    fn bodies_spread_evenly_and_everybody_knows_where_they_go() {
        let (first, second) = (keepers(1, &[2, 3, 4]), keepers(2, &[1, 3, 4]));
        let mut goes_to = [0; 5];
        for number in 0..300_u16 {
            let root = Hash::of(&number.to_be_bytes());
            let order = first.for_own(&root);
            assert_eq!(order.len(), 3);
            goes_to[usize::from(order[0].custody_key[0])] += 1;
            assert_eq!(second.is_first_for(&[1; 65], &root), order[0].custody_key[0] == 2);
            // Without that node it goes to the next, and the others stay where they are.
            let fewer = keepers(1, &[3, 4]);
            let expected = order.iter().find(|keeper| keeper.custody_key[0] != 2).unwrap();
            assert_eq!(fewer.for_own(&root)[0].custody_key, expected.custody_key);
        }
        assert!(goes_to[2..].iter().all(|count| (70..130).contains(count)), "{goes_to:?}");
    }

    #[test]
    fn who_does_not_answer_rests_and_is_heard_again() {
        let keepers = keepers(1, &[2]);
        let keeper = &keepers.all()[0];
        assert!(!keeper.rests());
        let silence = ClientError::Unexpected { endpoint: "there".to_owned(), reason: "nothing".to_owned() };
        assert_eq!(keeper.heard::<()>(Err(silence)).unwrap_err().code(), "custody_keeper");
        assert!(keeper.rests() && !keeper.is_lost());
        assert!(keeper.heard(Ok(())).is_ok() && !keeper.rests());
    }
}
