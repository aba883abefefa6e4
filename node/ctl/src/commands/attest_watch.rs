//! `stele attest watch`: judges nodes again and again, and puts each verdict on the ledger.
//!
//! A verdict is about a validator, so it passes only if the evidence shows that the validator's long-term key is in the
//! machine that was judged. A node that does not answer is not judged: nothing is recorded, and its last verdict grows
//! old by itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::DecodePublicKey as _;
use serde_json::{Value, json};
use stele_client::Client;
use stele_evidence::exchange::{Challenge, Enrolment};
use stele_evidence::package::{KeyTrust, PackageEncoding, PackageVerdict};
use stele_evidence::{EvidencePackage, NONCE_LENGTH, Policy};
use stele_types::attestation::{AttestationReport, Verdict};
use stele_types::{Code, Command, Hash, ValidatorId};

use crate::attestation::{Asked, EXIT_NOT_PASSED, Enrolled, read_enrolment, read_policy, read_previous};
use crate::author::{Author, now_ms, random};
use crate::commands::words;
use crate::failure::{self, Failure};
use crate::output::line;
use crate::registration::register;
use crate::session::Session;

/// Exit code when a node was not judged, or its verdict is not on the ledger.
const EXIT_NOT_JUDGED: u8 = 1;

/// Arguments of `attest watch`.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// What the platform must be: predicted values of PCRs (docs/attestation.md)
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// A node, and what `stele attest enrol` wrote of it; several may be given
    #[arg(long = "enrolment", value_name = "NODE=FILE", required = true, value_parser = node_file)]
    pub enrolments: Vec<(String, PathBuf)>,
    /// Folder for the packages and verdicts; it is made when there is none
    #[arg(long, value_name = "DIR")]
    pub keep: PathBuf,
    /// Time from one round to the next, as 90s, 15m or 12h
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "15m")]
    pub every: u64,
    /// Ends after so many rounds
    #[arg(long)]
    pub rounds: Option<u64>,
}

impl WatchArguments {
    /// Watches until the rounds are over. The exit code is that of the last round: 4 when a node did not pass, 1 when one
    /// was not judged or a verdict not recorded.
    ///
    /// # Errors
    /// When nothing can be watched: a file that cannot be read, a party without keys, an unknown node.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let policy = read_policy(&self.policy)?;
        let policy_hash = Hash::of(&fs::read(&self.policy)?);
        let watch = Watch { session, author: session.author()?, client: session.party_client()?, policy, policy_hash };
        let nodes = self.enrolments.iter().map(|(name, file)| Watched::open(session, name, file, &self.keep));
        let mut nodes = nodes.collect::<Result<Vec<_>>>()?;
        let mut round = 1;
        loop {
            let mut exit = 0;
            for node in &mut nodes {
                exit = exit.max(watch.look(node).await?);
            }
            if self.rounds.is_some_and(|rounds| round >= rounds) {
                return Ok(exit);
            }
            round += 1;
            tokio::time::sleep(Duration::from_millis(self.every)).await;
        }
    }
}

/// A node that is watched.
struct Watched {
    name: String,
    client: Client,
    enrolment: Enrolment,
    /// Its own part of the folder.
    folder: PathBuf,
}

impl Watched {
    fn open(session: &Session, name: &str, file: &Path, keep: &Path) -> Result<Self> {
        let single = Session { nodes: vec![name.to_owned()], ..session.clone() };
        // A URL is no name for a folder.
        single.chosen_nodes()?;
        let folder = keep.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { name: name.to_owned(), client: single.single()?, enrolment: read_enrolment(file)?, folder })
    }

    /// The newest verdict that passed.
    fn newest_passed(&self) -> PathBuf {
        self.folder.join("passed.json")
    }
}

/// What was found of one node.
struct Judged {
    verdict: Verdict,
    evidence: Hash,
    reasons: Vec<Value>,
}

/// Who watches, and by what.
struct Watch<'s> {
    session: &'s Session,
    author: Author,
    client: Client,
    policy: Policy,
    policy_hash: Hash,
}

impl Watch<'_> {
    /// Judges one node, records the verdict and says so; the exit code.
    async fn look(&self, node: &mut Watched) -> Result<u8> {
        let seen = async {
            let validator = self.validator_of(&node.enrolment).await?;
            let judged = self.judge(node, &validator).await?;
            let report = AttestationReport {
                validator: validator.id,
                verdict: judged.verdict,
                evidence: judged.evidence,
                policy: self.policy_hash,
            };
            let signed = self.author.command(&Command::AttestationReport(report))?;
            let status = register(&self.client, &signed).await?;
            anyhow::Ok((validator.id, judged, signed.id, status.code))
        };
        match seen.await {
            Ok((validator, judged, statement, code)) => {
                let recorded = code == Some(Code::Applied);
                self.say(&json!({
                    "time_ms": now_ms()?, "node": node.name, "validator": validator.to_hex(),
                    "verdict": judged.verdict.as_str(), "reasons": judged.reasons,
                    "evidence": judged.evidence.to_hex(), "statement": statement.to_hex(),
                    "outcome": code.map(Code::as_str),
                }))?;
                Ok(match (judged.verdict, recorded) {
                    (Verdict::Failed, _) => EXIT_NOT_PASSED,
                    (Verdict::Passed, false) => EXIT_NOT_JUDGED,
                    (Verdict::Passed, true) => 0,
                })
            }
            Err(error) => {
                failure::report(&error.context(format!("node {} is not judged", node.name)), self.session.output);
                Ok(EXIT_NOT_JUDGED)
            }
        }
    }

    /// The validator whose key was enrolled with the node.
    async fn validator_of(&self, enrolment: &Enrolment) -> Result<EnrolledValidator> {
        let network = self.client.network().await?;
        for validator in network.validators.iter().chain(&network.suspended_validators) {
            let key = enrolment.keys.iter().find(|key| compressed(&key.spki).as_deref() == Some(&validator.public_key));
            if let Some(key) = key {
                let id =
                    ValidatorId::from_hex(&validator.id).ok_or_else(|| anyhow!("the node named no validator id"))?;
                return Ok(EnrolledValidator { id, key: key.name.clone() });
            }
        }
        bail!(
            Failure::new("validator_unknown", "no key of this enrolment is a validator's long-term key")
                .hint("enrol the node again if its keys were changed; only validators have a verdict on the ledger")
        )
    }

    async fn judge(&self, node: &Watched, validator: &EnrolledValidator) -> Result<Judged> {
        let nonce: [u8; NONCE_LENGTH] = random()?;
        let passed = node.newest_passed();
        let previous = passed.exists().then(|| read_previous(&passed)).transpose()?;
        let answer = node.client.attest_quote(&Challenge { nonce }, PackageEncoding::Tar).await?;
        let evidence = Hash::of(&answer);
        write(&node.folder.join(format!("{evidence}.tar")), &answer)?;
        write(&node.folder.join(format!("{evidence}.nonce")), hex::encode(nonce).as_bytes())?;
        let package = match EvidencePackage::decode(&answer) {
            Ok(package) => package,
            Err(error) => {
                let reason = json!({ "code": error.code(), "message": error.to_string() });
                return Ok(Judged { verdict: Verdict::Failed, evidence, reasons: vec![reason] });
            }
        };
        let asked = Asked {
            nonce,
            enrolled: Enrolled::Whole(node.enrolment.clone()),
            policy: self.policy.clone(),
            previous,
            keys_proven: false,
        };
        let found = asked.judge(&package);
        let document = serde_json::to_value(&found)?;
        let mut reasons: Vec<Value> = document["reasons"].as_array().cloned().unwrap_or_default();
        if !shows(&found, &validator.key) {
            let message = format!("nothing shows that the validator's key, {}, is in this machine", validator.key);
            reasons.push(json!({ "code": "validator_key_unproven", "message": message }));
        }
        let verdict = if reasons.is_empty() && found.passed { Verdict::Passed } else { Verdict::Failed };
        let text = serde_json::to_vec_pretty(&document)?;
        write(&node.folder.join(format!("{evidence}.json")), &text)?;
        if verdict == Verdict::Passed {
            // Whole or not at all, also when the power fails: it is the next appraisal's clock.
            let next = node.folder.join("passed.json.next");
            write(&next, &text)?;
            let replaced = File::open(&next).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&next, &passed));
            replaced.with_context(|| format!("cannot write {}", passed.display()))?;
        }
        Ok(Judged { verdict, evidence, reasons })
    }

    /// One line for a verdict: JSON for programs, words for people.
    fn say(&self, said: &Value) -> Result<()> {
        if self.session.output.is_json() {
            return line(&said.to_string());
        }
        let word = |name: &str| said[name].as_str().unwrap_or("unknown").to_owned();
        let reasons = said["reasons"].as_array().into_iter().flatten();
        let codes: Vec<&str> = reasons.filter_map(|reason| reason["code"].as_str()).collect();
        let why = if codes.is_empty() { String::new() } else { format!(": {}", codes.join(", ")) };
        let (node, verdict, outcome) = (word("node"), word("verdict"), word("outcome"));
        line(&format!("{node} {verdict}{why}; recorded as {} ({outcome})", word("statement")))
    }
}

/// A validator, and the name of its key in the node's evidence.
struct EnrolledValidator {
    id: ValidatorId,
    key: String,
}

/// Whether the evidence shows that the key of this name, the one that was enrolled, is in the machine.
fn shows(verdict: &PackageVerdict, name: &str) -> bool {
    let shown = |trust| matches!(trust, KeyTrust::Certified | KeyTrust::Quoted);
    verdict.keys.iter().any(|key| key.name == name && key.enrolled == Some(true) && shown(key.trust))
}

/// The SEC1 compressed form of a P-256 key, hexadecimal.
fn compressed(spki: &[u8]) -> Option<String> {
    let key = p256::PublicKey::from_public_key_der(spki).ok()?;
    Some(hex::encode(key.to_encoded_point(true).as_bytes()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn interval(text: &str) -> Result<u64, String> {
    let every = words::duration_ms(text)?;
    if every == 0 { Err("a second at least".to_owned()) } else { Ok(every) }
}

fn node_file(text: &str) -> Result<(String, PathBuf), String> {
    let (node, file) = text.split_once('=').ok_or("NODE=FILE, as node1=node1.json")?;
    Ok((node.to_owned(), PathBuf::from(file)))
}
