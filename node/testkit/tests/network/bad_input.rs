//! Everything wrong that a client can send over the real listeners: each gets a stable code, nothing of it reaches the
//! log, and the node's memory stays bounded.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use stele_ctl::author::{Author, Signed, now_ms, random};
use stele_ctl::keys::SigningKey;
use stele_ctl::pki::{Authority, Usage};
use stele_testkit::load::record;
use stele_testkit::wire::{Answer, Speaker};
use stele_testkit::{Cluster, agreement, process, scale};
use stele_types::cbor::List;
use stele_types::party::TlsPin;
use stele_types::{Code, Command, Cti, NetworkId, Suite};

const ENTRIES: &str = "POST /entries?wait_ms=20000";
const BATCH: &str = "POST /v1/batch";
const COSE: &str = "application/cose";
const SEQUENCE: &str = "application/cbor-seq";
/// What bodies in flight may cost at most, by configuration; the default is 256 MiB.
const BODY_MEMORY_BYTES: u64 = 32 * 1024 * 1024;
/// Growth of a node's memory under a flood of bodies: the bound of the bodies, TLS buffers of the connections and what the
/// allocator keeps.
const GROWTH_BYTES_MAX: u64 = BODY_MEMORY_BYTES + 96 * 1024 * 1024;

struct Stage {
    cluster: Cluster,
    party: String,
    public: String,
    agency: Speaker,
    author: Author,
}

impl Stage {
    fn start() -> Result<Self> {
        let limits = format!("[api.limits]\nbody_memory_bytes_max = {BODY_MEMORY_BYTES}\n");
        let cluster = Cluster::start_with(&stele_ctl::network::init::InitOptions::default(), &limits)?;
        let node = cluster.network.profile().nodes[0].clone();
        let agency = speaker_of(&cluster, "agency-1")?;
        let author = cluster.author("agency-1")?;
        Ok(Self { cluster, party: node.party, public: node.public, agency, author })
    }

    async fn post(&self, head: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        self.agency.request(&self.party, head, content_type, body).await
    }

    /// The statement must be refused at the gate with a code.
    async fn refused(&self, what: &str, entry: &[u8], code: Code) -> Result<()> {
        let answer = self.post(ENTRIES, COSE, entry).await.context(what.to_owned())?;
        ensure!(
            (400..500).contains(&answer.status) && answer.code() == Some(code.as_str()),
            "{what}: {} instead of {code}: {}",
            answer.status,
            answer.text
        );
        ensure!(answer.text.contains("application/problem+json"), "{what}: no problem document: {}", answer.text);
        // The same in a batch: one bad statement spoils no other.
        let good = self.author.command(&Command::RecordPut(record()?))?;
        let answer = self.post(BATCH, SEQUENCE, &[&good.entry, entry].concat()).await?;
        // Noise that is no sequence of items refuses the batch as a whole.
        if code == Code::Malformed && answer.status != 200 {
            ensure!(answer.code() == Some(code.as_str()), "{what} in a batch: {}", answer.text);
        } else {
            ensure!(
                answer.status == 200
                    && answer.text.contains(code.as_str())
                    && answer.text.contains(&good.id.to_string()),
                "{what} in a batch: {}",
                answer.text
            );
        }
        Ok(())
    }

    /// The certified outcome of a statement.
    async fn outcome(&self, signed: &Signed) -> Result<(Option<Code>, Option<u64>)> {
        let status = self.cluster.settle("agency-1", signed).await?;
        Ok((status.code, status.index.map(|index| index.0)))
    }
}

fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn speaker_of(cluster: &Cluster, party: &str) -> Result<Speaker> {
    let dir = cluster.network.dir();
    let party = dir.party(party);
    Speaker::new(&read(&dir.ca_certificate())?, Some((&read(&party.tls_certificate())?, &read(&party.tls_key())?)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_gets_a_stable_code_and_leaves_no_trace() -> Result<()> {
    let stage = Stage::start()?;
    statements(&stage).await?;
    bodies(&stage).await?;
    certificates(&stage).await?;
    memory(&stage).await?;
    logs(&stage)?;
    let good = stage.author.command(&Command::RecordPut(record()?))?;
    let acknowledged = [stage.cluster.settle("agency-1", &good).await?];
    println!("{:?}", agreement::check(&stage.cluster, &acknowledged).await?);
    Ok(())
}

async fn statements(stage: &Stage) -> Result<()> {
    let author = &stage.author;
    let command = Command::RecordPut(record()?);
    let now = now_ms()? / 1000;
    let cti = || Ok::<_, anyhow::Error>(Cti(random()?));

    let good = author.command(&command)?;
    let mut mutated = good.entry.clone();
    *mutated.last_mut().context("empty")? ^= 1;
    stage.refused("mutated signature", &mutated, Code::SignatureInvalid).await?;
    let key = SigningKey::generate(Suite::EdDsa)?;
    let stranger = Author::new(author.party(), key, author.network()).command(&command)?;
    stage.refused("unknown key", &stranger.entry, Code::KeyUnknown).await?;
    let foreign = Author::new(author.party(), author.key().clone(), NetworkId(random()?)).command(&command)?;
    stage.refused("foreign network", &foreign.entry, Code::ForeignNetwork).await?;
    let stale = author.command_at(&command, now - 16 * 60, cti()?)?;
    stage.refused("stale", &stale.entry, Code::Stale).await?;
    let early = author.command_at(&command, now + 120, cti()?)?;
    stage.refused("early", &early.entry, Code::Early).await?;
    stage.refused("noise", &[0xff; 200], Code::Malformed).await?;
    stage.refused("cut off", &good.entry[..good.entry.len() / 2], Code::Malformed).await?;

    // The same bytes twice: one statement, one outcome.
    let first = stage.outcome(&good).await?;
    ensure!(first.0 == Some(Code::Applied), "{first:?}");
    ensure!(stage.outcome(&good).await? == first, "a replayed statement has another outcome");
    // The same idempotency id with other content.
    let id = cti()?;
    let one = author.command_at(&Command::RecordPut(record()?), now, id)?;
    let other = author.command_at(&Command::RecordPut(record()?), now, id)?;
    ensure!(stage.outcome(&one).await?.0 == Some(Code::Applied), "the first holder of an id applies");
    let conflict = stage.outcome(&other).await?;
    ensure!(conflict == (Some(Code::IdConflict), None), "the second holder of an id: {conflict:?}");
    Ok(())
}

async fn bodies(stage: &Stage) -> Result<()> {
    let good = stage.author.command(&Command::RecordPut(record()?))?.entry;
    let refused = |what: &'static str, answer: Answer, status: u16, code: Code| {
        ensure!(
            answer.status == status && answer.code() == Some(code.as_str()),
            "{what}: {} instead of {status} {code}: {}",
            answer.status,
            answer.text
        );
        Ok(())
    };
    for content_type in ["application/json", "text/plain", ""] {
        let answer = stage.post(ENTRIES, content_type, &good).await?;
        refused("content type", answer, 415, Code::ContentTypeUnsupported)?;
    }
    refused("statement type for a batch", stage.post(BATCH, COSE, &good).await?, 415, Code::ContentTypeUnsupported)?;
    refused("oversize statement", stage.post(ENTRIES, COSE, &vec![0; 65 * 1024]).await?, 413, Code::TooLarge)?;
    refused("oversize batch", stage.post(BATCH, SEQUENCE, &vec![0; 5 << 20]).await?, 413, Code::TooLarge)?;
    refused("empty batch", stage.post(BATCH, SEQUENCE, &[]).await?, 400, Code::Malformed)?;
    let answer = stage.post("GET /v1/statements/zz", COSE, &[]).await?;
    ensure!(answer.status == 400 && answer.code() == Some("parameter_invalid"), "an id of nonsense: {}", answer.text);
    let answer = stage.post("POST /entries?wait_ms=-1", COSE, &good).await?;
    refused("a negative wait", answer, 400, Code::ParameterInvalid)?;
    // Nobody submits without a certificate.
    let anyone = Speaker::new(&read(&stage.cluster.network.dir().ca_certificate())?, None)?;
    let answer = anyone.request(&stage.public, ENTRIES, COSE, &good).await?;
    ensure!(
        answer.status == 403 && answer.code() == Some("client_unauthenticated"),
        "on the public listener: {}",
        answer.text
    );
    Ok(())
}

async fn certificates(stage: &Stage) -> Result<()> {
    let dir = stage.cluster.network.dir();
    let ca = read(&dir.ca_certificate())?;
    let good = stage.author.command(&Command::RecordPut(record()?))?.entry;
    let handshake_fails = async |what: &str, speaker: Speaker| {
        let answer = speaker.request(&stage.party, ENTRIES, COSE, &good).await;
        ensure!(answer.is_err(), "{what}: {answer:?}");
        Ok(())
    };
    handshake_fails("no certificate", Speaker::new(&ca, None)?).await?;
    let foreign = Authority::create("elsewhere")?.issue("agency-1", &[], Usage::Client)?;
    handshake_fails("a foreign authority", Speaker::new(&ca, Some((&foreign.certificate, &foreign.key)))?).await?;
    let (certificate, key) = expired(&ca, &read(&dir.ca_key())?)?;
    handshake_fails("an expired certificate", Speaker::new(&ca, Some((&certificate, &key)))?).await?;

    let authority = Authority::open(&dir.ca_certificate(), &dir.ca_key())?;
    let leaf = authority.issue("agency-1", &[], Usage::Client)?;
    let speaker = Speaker::new(&ca, Some((&leaf.certificate, &leaf.key)))?;
    let unauthenticated = async |what: &str| {
        let answer = speaker.request(&stage.party, ENTRIES, COSE, &good).await?;
        let code = answer.code().map(str::to_owned);
        ensure!(answer.status == 403 && code.as_deref() == Some("client_unauthenticated"), "{what}: {}", answer.text);
        Ok(())
    };
    unauthenticated("a certificate that nobody pinned").await?;
    // Pinned it speaks for the party; unpinned, which is how a certificate is revoked, it does not any more.
    let own = stele_types::Hash::from_hex(&stele_ctl::network::profile::PartyProfile::load(dir, "agency-1")?.tls_pin)
        .context("pin")?;
    let pin = async |mut pins: Vec<stele_types::Hash>| {
        pins.sort();
        stage.cluster.apply("agency-1", &Command::TlsPin(TlsPin { pins: List::new(pins)? })).await
    };
    pin(vec![own, leaf.pin]).await?;
    let fresh = stage.author.command(&Command::RecordPut(record()?))?.entry;
    let answer = speaker.request(&stage.party, ENTRIES, COSE, &fresh).await?;
    ensure!(answer.status == 201, "a pinned certificate: {}", answer.text);
    pin(vec![own]).await?;
    unauthenticated("a revoked certificate").await
}

/// A client certificate of the network's own authority that ran out in 2021.
fn expired(ca: &str, ca_key: &str) -> Result<(String, String)> {
    let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::from_pem(ca_key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

/// Many large bodies of nonsense at once cost what the configuration allows, and the node still answers.
#[expect(clippy::print_stdout, reason = "what was measured belongs into the test's output")]
async fn memory(stage: &Stage) -> Result<()> {
    const SENDERS: usize = 24;
    let pid = stage.cluster.network.process_id(0).context("node 1 does not run")?;
    let before = process::resident_bytes(pid)?;
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (agency, party) = (stage.agency.clone(), stage.party.clone());
        let rounds = scale(3, 60);
        senders.spawn(async move {
            // A sequence of empty arrays: each is an item, none is a statement.
            let body = vec![0x80; 4 * 1024 * 1024];
            let mut codes = Vec::new();
            for _ in 0..rounds {
                let answer = agency.request(&party, BATCH, SEQUENCE, &body).await?;
                codes.push((answer.status, answer.code().unwrap_or_default().to_owned()));
            }
            Ok::<_, anyhow::Error>(codes)
        });
    }
    let mut highest = before;
    let mut codes = Vec::new();
    loop {
        tokio::select! {
            sender = senders.join_next() => match sender {
                Some(answered) => codes.extend(answered.context("a sender panicked")??),
                None => break,
            },
            () = tokio::time::sleep(Duration::from_millis(50)) => highest = highest.max(process::resident_bytes(pid)?),
        }
    }
    codes.sort();
    codes.dedup();
    for (status, code) in &codes {
        ensure!(
            (400..500).contains(status)
                && ["malformed", "saturated", "share_exceeded", "too_large"].contains(&code.as_str()),
            "a body of nonsense got {status} {code}"
        );
    }
    let growth = highest.saturating_sub(before);
    println!("{SENDERS} senders of 4 MiB: {} MiB more, answers {codes:?}", growth >> 20);
    ensure!(growth < GROWTH_BYTES_MAX, "the node grew by {} MiB", growth >> 20);
    Ok(())
}

/// Nothing that a client sent and no secret is in the log of any node, in any of the usual spellings.
fn logs(stage: &Stage) -> Result<()> {
    let cluster = &stage.cluster;
    let mut secrets = Vec::new();
    for party in stele_ctl::network::profile::PartyProfile::names(cluster.network.dir())? {
        let dir = cluster.network.dir().party(&party);
        secrets.extend(secret_lines(&read(&dir.signing_key())?));
        secrets.extend(secret_lines(&read(&dir.tls_key())?));
    }
    let names = cluster.network.profile().nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    for name in &names {
        let dir = cluster.network.dir().node(name);
        for file in ["validator.key", "seal.key", "epoch.key", "peer.key", "tls.key"] {
            secrets.extend(secret_lines(&read(&dir.file(file))?));
        }
    }
    ensure!(secrets.len() > names.len() * 5, "too few secrets were looked for");
    for (node, name) in names.iter().enumerate() {
        let log = cluster.log(node)?;
        for secret in &secrets {
            ensure!(!log.contains(secret.as_str()), "{} logged a line of a key", name);
        }
        for (what, text) in [
            ("nonsense in hexadecimal", hex::encode([0xff; 16])),
            ("nonsense as a list", "255, 255, 255, 255".to_owned()),
            ("a batch of nonsense", "80808080".to_owned()),
            ("a private key", "PRIVATE KEY".to_owned()),
            ("a panic", "panicked".to_owned()),
        ] {
            ensure!(!log.contains(&text), "{} logged {what}", name);
        }
        // Refused requests are counted, not logged one by one: a client must not fill the disk.
        ensure!(log.len() < 256 * 1024, "{} logged {} bytes", name, log.len());
    }
    Ok(())
}

/// Lines that only a secret file has.
fn secret_lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.starts_with("-----") && line.len() >= 32).map(str::to_owned).collect()
}
