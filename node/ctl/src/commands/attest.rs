//! `stele attest`: whether a node runs what was released, judged from evidence that others can judge, too.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use stele_client::Client;
use stele_evidence::exchange::{Activation, Challenge, EnrolledKey, Enrolment};
use stele_evidence::package::PackageEncoding;
use stele_evidence::{
    Credential, Digest, ENTROPY_LENGTH, Endorsement, EndorsementAnchors, EvidenceError, EvidencePackage, NONCE_LENGTH,
    Name, PackageError, Public, verify_endorsement,
};
use zeroize::Zeroizing;

use crate::attestation::{
    Asked, Enrolled, RECIPE, parse_fingerprint, parse_name, read_certificates, read_enrolment, read_package,
    read_policy, read_previous, show, show_refused,
};
use crate::commands::attest_watch::WatchArguments;
use crate::failure::Failure;
use crate::output::{Record, line, note};
use crate::session::Session;

/// Whether a node runs what was released.
#[derive(Debug, Subcommand)]
pub enum AttestCommand {
    /// Ask one node for evidence with a fresh nonce, and judge it
    ///
    /// Exit codes: 0 passed, 1 not judged, 4 the evidence does not pass.
    Node(NodeArguments),
    /// Judge an evidence package offline: a tar, JSON or CMW file, or a folder with the tar's files
    ///
    /// Exit codes: 0 passed, 1 not judged, 4 the evidence does not pass.
    Verify(VerifyArguments),
    /// Enrol one node: check its endorsement key, and that its TPM holds the attestation key
    ///
    /// Exit codes: 0 enrolled, 1 not asked, 4 the endorsement key is not believed, or the TPM does not hold the attestation
    /// key.
    Enrol(EnrolArguments),
    /// Judge nodes again and again, and put each verdict on the ledger, as a regulator
    ///
    /// Every package is kept under its SHA-256, with its nonce and verdict. Validators whose last passing verdict is older
    /// than the network's rule of admission allows leave the set, `stele query validators` shows them.
    ///
    /// Exit codes, of the last round: 0 all passed, 1 not judged or not recorded, 4 a node does not pass.
    Watch(WatchArguments),
    /// Print a shell script that checks a package with openssl and tpm2-tools alone
    ///
    /// `stele attest recipe > check.sh`, then `bash check.sh package.tar NONCE ATTESTATION-KEY-NAME [PCRS]`. It is
    /// docs/attestation/check.sh, so that nothing of ours is needed to have it.
    Recipe,
}

/// What the verifier believes.
#[derive(Debug, Args)]
pub struct Beliefs {
    /// What the platform must be: predicted values of PCRs (docs/attestation.md)
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// The node as `stele attest enrol` wrote it
    #[arg(long, value_name = "FILE")]
    pub enrolment: Option<PathBuf>,
    /// Name of the attestation key, if it came another way than by an enrolment
    #[arg(long, value_name = "HEX", value_parser = parse_name, conflicts_with = "enrolment", required_unless_present = "enrolment")]
    pub attestation_key_name: Option<Name>,
    /// The verdict before, as JSON: clock and counters of the TPM may not be behind it
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
    /// Refuse keys of the node for which nothing shows where they are
    #[arg(long)]
    pub keys_proven: bool,
}

/// Arguments of `attest node`.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// What the verifier believes.
    #[command(flatten)]
    pub beliefs: Beliefs,
    /// Keep the package as a tar, for others to judge
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// Arguments of `attest verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The package
    #[arg(value_name = "FILE|DIR")]
    pub package: PathBuf,
    /// The nonce with which the package was asked for
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    pub nonce: [u8; NONCE_LENGTH],
    /// What the verifier believes.
    #[command(flatten)]
    pub beliefs: Beliefs,
}

/// Arguments of `attest enrol`.
#[derive(Debug, Args)]
pub struct EnrolArguments {
    /// Certificate of an authority of endorsement keys, PEM or DER; several may be given
    #[arg(long, value_name = "FILE", required_unless_present = "fingerprint")]
    pub anchor: Vec<PathBuf>,
    /// Fingerprint of the endorsement key: SHA-256 of its SubjectPublicKeyInfo, as the machine's console shows it
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    pub fingerprint: Vec<Digest>,
    /// Certificate between the endorsement key's and the authority's; several may be given
    #[arg(long, value_name = "FILE")]
    pub intermediate: Vec<PathBuf>,
    /// File to write; it must not exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

impl AttestCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed; evidence that does not pass is an exit code.
    pub async fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Node(arguments) => arguments.run(session).await,
            Self::Verify(arguments) => arguments.run(session),
            Self::Enrol(arguments) => arguments.run(session).await,
            Self::Watch(arguments) => arguments.run(session).await,
            Self::Recipe => line(RECIPE.trim_end()).map(|()| 0),
        }
    }
}

impl Beliefs {
    fn read(self, nonce: [u8; NONCE_LENGTH]) -> Result<Asked> {
        let enrolled = match (self.enrolment, self.attestation_key_name) {
            (Some(path), _) => Enrolled::Whole(read_enrolment(&path)?),
            (None, Some(name)) => Enrolled::Name(name),
            (None, None) => {
                bail!(Failure::new("enrolment_missing", "the node is known neither by enrolment nor by name"))
            }
        };
        Ok(Asked {
            nonce,
            enrolled,
            policy: read_policy(&self.policy)?,
            previous: self.previous.as_deref().map(read_previous).transpose()?,
            keys_proven: self.keys_proven,
        })
    }
}

impl VerifyArguments {
    fn run(self, session: &Session) -> Result<u8> {
        let asked = self.beliefs.read(self.nonce)?;
        match read_package(&self.package) {
            Ok(package) => show(&package, &asked.judge(&package), session.output),
            Err(error) => match error.downcast_ref::<PackageError>() {
                Some(refused) => show_refused(refused, session.output),
                None => Err(error),
            },
        }
    }
}

impl NodeArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let nonce: [u8; NONCE_LENGTH] = *random()?;
        // What the verifier believes is read before anything is asked.
        let asked = self.beliefs.read(nonce)?;
        let answer = session.single()?.attest_quote(&Challenge { nonce }, PackageEncoding::Tar).await?;
        if let Some(path) = &self.save {
            write_new(path, &answer)?;
            let nonce = hex::encode(nonce);
            note(&format!("The package is in {}; it was asked for with nonce {nonce}", path.display()));
        }
        match EvidencePackage::decode(&answer) {
            Ok(package) => show(&package, &asked.judge(&package), session.output),
            Err(refused) => show_refused(&refused, session.output),
        }
    }
}

impl EnrolArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let mut anchors = EndorsementAnchors { authorities: Vec::new(), fingerprints: self.fingerprint };
        for path in &self.anchor {
            anchors.authorities.extend(read_certificates(path)?);
        }
        let mut intermediates = Vec::new();
        for path in &self.intermediate {
            intermediates.extend(read_certificates(path)?);
        }
        let client = session.single()?;
        let identity = client.attest_identity().await?;
        let endorsement_key = Public::parse_sized(&identity.endorsement_key).context("the node's endorsement key")?;
        let attestation_key = Public::parse_sized(&identity.attestation_key).context("the node's attestation key")?;
        let intermediates: Vec<&[u8]> = intermediates.iter().map(Vec::as_slice).collect();
        let certificate = identity.endorsement_certificate.as_deref();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
        let believed = verify_endorsement(&endorsement_key, certificate, &intermediates, &anchors, now.as_secs());
        let endorsement = match believed {
            Ok(endorsement) => endorsement,
            Err(error) => {
                let fingerprint = endorsement_key.key.fingerprint();
                let what = format!("the endorsement key {fingerprint} is not believed: {error}");
                let hint = "compare the fingerprint with what the machine's console shows; --fingerprint pins it";
                return refuse(session, Failure::new(error.code(), what).hint(hint));
            }
        };
        let name = attestation_key.name();
        if !opens_credential(&client, &endorsement_key, &name).await? {
            let what =
                "the node's TPM did not open the credential: its endorsement and attestation key are not in one TPM";
            return refuse(session, Failure::new("credential_not_opened", what));
        }
        let keys: Vec<EnrolledKey> = identity.keys.iter().map(EnrolledKey::from).collect();
        let enrolment = Enrolment { attestation_key_name: name, endorsement, keys };
        let mut text = serde_json::to_vec_pretty(&enrolment)?;
        text.push(b'\n');
        write_new(&self.out, &text)?;
        let by = match &enrolment.endorsement {
            Endorsement::Fingerprint { .. } => "fingerprint".to_owned(),
            Endorsement::Authority { authority, .. } => authority.clone(),
        };
        let names: Vec<&str> = enrolment.keys.iter().map(|key| key.name.as_str()).collect();
        let record = Record::new()
            .with("file", self.out.display().to_string())
            .with("attestation_key_name", enrolment.attestation_key_name.to_hex())
            .with("endorsement_key", endorsement_key.key.fingerprint().to_string())
            .with("endorsed_by", by)
            .with("keys", names);
        session.output.record(&record)?;
        Ok(0)
    }
}

/// Says that a node is not enrolled; the exit code is that of evidence that does not pass.
fn refuse(session: &Session, failure: Failure) -> Result<u8> {
    crate::failure::report(&failure.into(), session.output);
    Ok(crate::attestation::EXIT_NOT_PASSED)
}

/// Whether the node's TPM opens a credential that only the one with both keys can.
async fn opens_credential(client: &Client, endorsement_key: &Public, name: &Name) -> Result<bool> {
    /// Random bytes give no key once in 2^32 draws.
    const DRAWS_MAX: usize = 4;
    let secret = random::<32>()?;
    for _ in 0..DRAWS_MAX {
        let credential = match Credential::make(endorsement_key, name, secret.as_slice(), &*random::<ENTROPY_LENGTH>()?)
        {
            Err(EvidenceError::UnusableEntropy) => continue,
            made => made.context("cannot make a credential for the node's endorsement key")?,
        };
        return match client.attest_activate(&Activation::from(credential)).await {
            Ok(activated) => Ok(activated.secret == secret.as_slice()),
            // The TPM's own refusal is an answer; a node that cannot be asked is none.
            Err(error) if error.code() == "field_invalid" => Ok(false),
            Err(error) => Err(error.into()),
        };
    }
    bail!("no usable key in {DRAWS_MAX} draws of random bytes")
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn nonce(text: &str) -> Result<[u8; NONCE_LENGTH], String> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "64 hexadecimal digits".to_owned())
}
