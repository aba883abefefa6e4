//! Offline verification of bundles, receipts and values of the state, as `stele receipt verify`, `stele state verify` and
//! `stele-verify` share it. It needs files only: no network, no clock, no runtime.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stele_merkle::state::StateHash;
use stele_types::custody::CustodyReceipt;
use stele_types::limits::{BUNDLE_BYTES_MAX, GENESIS_BYTES_MAX, STATE_BUNDLE_BYTES_MAX, STATEMENT_BYTES_MAX};
use stele_types::{Hash, Height, NetworkId, StatementId, Suite, cbor};
use stele_verify::custody::{self, CUSTODY_RECEIPT_BYTES_MAX, InCustody};
use stele_verify::verdict::{EXIT_INVALID, EXIT_SIGNER_NOT_SHOWN, EXIT_USAGE};
use stele_verify::{Expectation, PublicKey, StateVerdict, TrustAnchor, Verdict, VerifyError, bundle, receipt, state};

use crate::signer::{SignerArguments, SignerVerdict};

/// Bytes of a statement file: attached receipts are allowed.
const STATEMENT_FILE_BYTES_MAX: usize = 64 * STATEMENT_BYTES_MAX;
/// Bytes of a public key file.
const KEY_FILE_BYTES_MAX: usize = 16 * 1024;
/// First byte of a receipt: CBOR tag 18. A bundle is a map.
const RECEIPT_HEAD: u8 = 0xd2;
/// First byte of a state bundle: a map of three pairs. Other bundles have more.
const STATE_BUNDLE_HEAD: u8 = 0xa3;

/// What to verify and what is known besides.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// A quorum bundle or a bare receipt.
    pub proof: PathBuf,
    /// The genesis file.
    pub genesis: Option<PathBuf>,
    /// The network, when there is a pin and no genesis file.
    pub network: Option<NetworkId>,
    /// A height with the hash of the validators that decide it.
    pub pin: Option<(Height, Hash)>,
    /// The statement, with or without attached receipts.
    pub statement: Option<PathBuf>,
    /// Id of the statement.
    pub id: Option<StatementId>,
    /// Public checkpoint key: a PEM or DER file, or a SEC1 point in hexadecimal.
    pub key: Option<String>,
    /// What is known of the node that signed.
    pub signer: SignerArguments,
}

/// What a bundle or receipt proves.
#[derive(Debug)]
pub struct Verified {
    /// The verdict.
    pub verdict: Verdict,
    /// What is shown of the key that signed the checkpoint, for a registration.
    pub signer: Option<SignerVerdict>,
}

impl Verified {
    /// The exit code that passes it on.
    pub fn exit_code(&self) -> u8 {
        match &self.signer {
            Some(signer) if signer.asked && !signer.origin.shown => EXIT_SIGNER_NOT_SHOWN,
            _ => self.verdict.exit_code(),
        }
    }

    /// It as named values, in order.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let mut values = verdict_values(&self.verdict);
        values.extend(self.signer.iter().flat_map(SignerVerdict::values));
        values
    }
}

/// Why nothing was verified.
#[derive(Debug)]
pub enum VerificationError {
    /// Files or arguments are missing or contradict each other.
    Usage(String),
    /// The proof does not hold.
    Invalid(VerifyError),
}

impl VerificationError {
    /// The exit code that passes it on.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Invalid(_) => EXIT_INVALID,
        }
    }
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Invalid(error) => error.code(),
        }
    }
    /// What to do about it.
    pub fn advice(&self) -> &str {
        match self {
            Self::Usage(_) => "see --help",
            Self::Invalid(error) => error.advice(),
        }
    }
}

impl fmt::Display for VerificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for VerificationError {}

impl From<VerifyError> for VerificationError {
    fn from(error: VerifyError) -> Self {
        Self::Invalid(error)
    }
}

impl Request {
    /// Verifies.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn run(&self) -> Result<Verified, VerificationError> {
        let usage = |what: &str| VerificationError::Usage(what.to_owned());
        let proof = read(&self.proof, BUNDLE_BYTES_MAX)?;
        let statement = self.statement.as_ref().map(|path| read(path, STATEMENT_FILE_BYTES_MAX)).transpose()?;
        let key = self.key.as_deref().map(public_key).transpose()?;
        if proof.first() == Some(&RECEIPT_HEAD) {
            if self.signer.is_asked() {
                return Err(usage("a bare receipt says nothing of its signer's key; ask for a bundle with it"));
            }
            let statement =
                statement.ok_or_else(|| usage("a bare receipt needs the statement it is for (--statement)"))?;
            let key = key.ok_or_else(|| usage("a bare receipt needs the node's public checkpoint key (--key)"))?;
            let verdict = receipt::verify_bytes(&proof, &statement, &key)?;
            let other_network = match &verdict {
                Verdict::VouchedByOneNode(vouched) => {
                    self.known_network()?.filter(|known| *known != vouched.network).map(|_| vouched.network)
                }
                Verdict::Registered(_) | Verdict::Rejected(_) => None,
            };
            return match other_network {
                Some(found) => Err(VerifyError::OtherNetwork { found }.into()),
                None => self.expected(verdict).map(|verdict| Verified { verdict, signer: None }),
            };
        }
        let beliefs = self.signer.read().map_err(|error| VerificationError::Usage(format!("{error:#}")))?;
        let expectation = Expectation { statement: self.id, entry: statement.as_deref(), checkpoint_key: key.as_ref() };
        let anchor = self.anchor()?;
        let bundle = bundle::decode(&proof)?;
        let verdict = bundle::verify(&bundle, &anchor, &expectation)?;
        // The receipt's signature verified under this key.
        let checkpoint_key = bundle.checkpoint_key.as_ref().map(<[u8; 33]>::as_slice);
        let checkpoint_key = checkpoint_key.or_else(|| key.as_ref().map(PublicKey::as_bytes));
        let signer = match (&bundle.receipt, checkpoint_key) {
            (Some(receipt), Some(key)) => Some(beliefs.judge(&bundle, receipt, key)),
            _ => None,
        };
        Ok(Verified { verdict, signer })
    }

    /// Whether the file is a state bundle by its first byte; what cannot be read is none.
    pub fn is_about_state(&self) -> bool {
        use std::io::Read as _;
        let mut head = [0];
        fs::File::open(&self.proof).and_then(|mut file| file.read_exact(&mut head)).is_ok()
            && head == [STATE_BUNDLE_HEAD]
    }

    /// Whether the file is a custody receipt; what cannot be read is none.
    pub fn is_about_custody(&self) -> bool {
        let bytes = read(&self.proof, CUSTODY_RECEIPT_BYTES_MAX);
        bytes.is_ok_and(|bytes| cbor::from_slice::<CustodyReceipt>(&bytes).is_ok())
    }

    /// Verifies a custody receipt under the key of the node that gave it.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn run_custody(&self) -> Result<InCustody, VerificationError> {
        let key = self.key.as_deref().map(public_key).transpose()?.ok_or_else(|| {
            VerificationError::Usage("a custody receipt needs the node's public checkpoint key (--key)".to_owned())
        })?;
        let verdict = custody::verify_bytes(&read(&self.proof, CUSTODY_RECEIPT_BYTES_MAX)?, &key)?;
        match self.known_network()? {
            Some(known) if known != verdict.network => Err(VerifyError::OtherNetwork { found: verdict.network }.into()),
            _ => Ok(verdict),
        }
    }

    /// Verifies a state bundle, which has to prove something about each of `keys`.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn run_state(&self, keys: &[Hash]) -> Result<StateVerdict, VerificationError> {
        let proof = read(&self.proof, STATE_BUNDLE_BYTES_MAX)?;
        let verdict = state::verify_bundle_bytes(&proof, &self.anchor()?)?;
        keys.iter().try_for_each(|key| verdict.about(key).map(drop))?;
        Ok(verdict)
    }

    fn expected(&self, verdict: Verdict) -> Result<Verdict, VerificationError> {
        match self.id {
            Some(id) if id != verdict.statement() => Err(VerifyError::StatementMismatch.into()),
            _ => Ok(verdict),
        }
    }

    fn known_network(&self) -> Result<Option<NetworkId>, VerificationError> {
        match &self.genesis {
            Some(path) => Ok(Some(TrustAnchor::genesis(&read(path, GENESIS_BYTES_MAX)?)?.network())),
            None => Ok(self.network),
        }
    }

    /// Where trust begins.
    ///
    /// # Errors
    /// `Usage` when neither a genesis file nor a network with a pin is named.
    pub fn anchor(&self) -> Result<TrustAnchor, VerificationError> {
        match (&self.genesis, self.pin, self.network) {
            (Some(path), pin, _) => {
                let anchor = TrustAnchor::genesis(&read(path, GENESIS_BYTES_MAX)?)?;
                Ok(pin.map_or(anchor.clone(), |(height, validators)| anchor.pinned_at(height, validators)))
            }
            (None, Some((height, validators)), Some(network)) => {
                Ok(TrustAnchor::pinned(network, StateHash::Sha256, height, validators))
            }
            _ => Err(VerificationError::Usage(
                "name what to trust: --genesis FILE, or --network ID with --pin HEIGHT:VALIDATORS_HASH".into(),
            )),
        }
    }
}

/// Reads `HEIGHT:HASH`.
///
/// # Errors
/// What is expected.
pub fn parse_pin(text: &str) -> Result<(Height, Hash), String> {
    let parts =
        text.split_once(':').and_then(|(height, hash)| Some((Height(height.parse().ok()?), Hash::from_hex(hash)?)));
    parts.ok_or_else(|| "expected HEIGHT:HASH with the 64 hexadecimal digits of a validator set's hash".to_owned())
}

fn verdict_values(verdict: &Verdict) -> Vec<(&'static str, Value)> {
    let mut values: Vec<(_, Value)> =
        vec![("verdict", verdict.as_str().into()), ("statement", verdict.statement().to_hex().into())];
    match verdict {
        Verdict::Registered(it) => values.extend([
            ("network", it.network.to_hex().into()),
            ("issuer", it.issuer.to_hex().into()),
            ("key", it.key.to_hex().into()),
            ("index", it.index.0.into()),
            ("height", it.height.0.into()),
            ("log_size", it.log_size.into()),
            ("time_ms", it.time_ms.into()),
            ("header", it.header.to_hex().into()),
        ]),
        Verdict::Rejected(it) => values.extend([
            ("network", it.network.to_hex().into()),
            ("code", it.code.as_str().into()),
            ("height", it.height.0.into()),
            ("time_ms", it.time_ms.into()),
            ("header", it.header.to_hex().into()),
        ]),
        Verdict::VouchedByOneNode(it) => values.extend([
            ("network", it.network.to_hex().into()),
            ("issuer", it.issuer.to_hex().into()),
            ("key", it.key.to_hex().into()),
            ("index", it.index.0.into()),
            ("checkpoint_key", it.checkpoint_key.to_hex().into()),
            ("height", it.height.0.into()),
            ("log_size", it.log_size.into()),
            ("time_ms", it.time_ms.into()),
        ]),
    }
    values
}

/// What is proven about the state as named values, in order.
pub fn state_values(verdict: &StateVerdict) -> Vec<(&'static str, Value)> {
    let value = |proven: &state::ProvenState| {
        serde_json::json!({
            "key": proven.key.to_hex(),
            "value": proven.value.as_ref().map(hex::encode),
            "height": proven.height.0,
            "time_ms": proven.time_ms,
            "header": proven.header.to_hex(),
        })
    };
    vec![
        ("verdict", verdict.as_str().into()),
        ("network", verdict.network.to_hex().into()),
        ("values", verdict.values.iter().map(value).collect()),
    ]
}

/// What a node says that it holds, as named values, in order.
pub fn custody_values(verdict: &InCustody) -> Vec<(&'static str, Value)> {
    vec![
        ("verdict", "vouched_by_one_node".into()),
        ("network", verdict.network.to_hex().into()),
        ("body_root", verdict.body_root.to_hex().into()),
        ("body_hash", verdict.body_hash.as_str().into()),
        ("length", verdict.length.into()),
        ("checkpoint_key", verdict.checkpoint_key.to_hex().into()),
        ("height", verdict.height.0.into()),
        ("time_ms", verdict.time_ms.into()),
    ]
}

/// A refusal as named values, in order: what scripts read in place of a verdict.
pub fn refusal_values(error: &VerificationError) -> Vec<(&'static str, Value)> {
    vec![
        ("verdict", if error.exit_code() == EXIT_INVALID { "invalid" } else { "none" }.into()),
        ("error", error.code().into()),
        ("message", error.to_string().into()),
        ("what_to_do", error.advice().into()),
    ]
}

fn public_key(text: &str) -> Result<PublicKey, VerificationError> {
    if text.len() == 66
        && let Ok(bytes) = hex::decode(text)
    {
        return Ok(PublicKey::new(Suite::Es256, &bytes)?);
    }
    Ok(PublicKey::from_spki(&read(Path::new(text), KEY_FILE_BYTES_MAX)?)?)
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, VerificationError> {
    use std::io::Read as _;
    let usage = |what: String| VerificationError::Usage(format!("{}: {what}", path.display()));
    let file = fs::File::open(path).map_err(|error| usage(error.to_string()))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| usage(error.to_string()))?;
    if bytes.len() > bytes_max { Err(usage(format!("longer than {bytes_max} bytes"))) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_a_height_and_a_hash() {
        let hash = Hash([0xab; 32]);
        assert_eq!(parse_pin(&format!("7:{hash}")), Ok((Height(7), hash)));
        for text in ["", "7", "7:", "x:00", &format!("{hash}:7")] {
            assert!(parse_pin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn missing_files_and_missing_trust_are_usage_errors() {
        let directory = tempfile::tempdir().unwrap();
        let proof = directory.path().join("bundle");
        fs::write(&proof, [0xa1, 1, 1]).unwrap();
        let request = Request { proof: proof.clone(), ..Request::default() };
        assert_eq!(request.run().unwrap_err().exit_code(), EXIT_USAGE, "no trust anchor");
        let request = Request { proof: directory.path().join("none"), ..Request::default() };
        assert_eq!(request.run().unwrap_err().exit_code(), EXIT_USAGE, "no file");
        fs::write(&proof, [RECEIPT_HEAD]).unwrap();
        let request = Request { proof, ..Request::default() };
        assert!(request.run().unwrap_err().to_string().contains("--statement"));
    }

    #[test]
    fn a_broken_bundle_is_invalid() {
        let directory = tempfile::tempdir().unwrap();
        let (proof, genesis) = (directory.path().join("bundle"), directory.path().join("net"));
        fs::write(&proof, [0xa1, 1, 1]).unwrap();
        let options = crate::network::InitOptions { validators: 1, ..crate::network::InitOptions::default() };
        let network = crate::network::init(&genesis, &options).unwrap();
        let request = Request { proof, genesis: Some(network.dir.genesis()), ..Request::default() };
        let error = request.run().unwrap_err();
        assert_eq!((error.exit_code(), error.code()), (EXIT_INVALID, "malformed"));
    }
}
