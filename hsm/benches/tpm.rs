//! Signatures a second through the TPM's thread, against the bare TSS with one session, on the same emulated TPM.
//!
//! ```text
//! cargo xtask bench trust [--json FILE]
//! ```
//!
//! All sides take turns in one run; `sign.vs_bare` goes through the process `stele-signer` and its socket. An emulator's rate says nothing about a chip's, which is some five a second; the ratio
//! says what the thread and the queue cost. `sign.password` is the bare TSS without the HMAC session that protects the
//! way to the TPM: the difference is its cost, most of it in the TSS's use of OpenSSL 3.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops by panicking")]

mod process;
#[path = "../tests/swtpm/mod.rs"]
mod swtpm;

use std::{
    error::Error,
    fs::OpenOptions,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use stele_evidence::{
    Evidence, Expectation, HashAlgorithm, Policy, Public, appraise,
    policy::{PcrRule, Prediction},
    quote_qualifying_data,
};
use stele_hsm::{
    CheckpointGuard, CheckpointRequest, GuardDurability, Signer,
    tpm::{QuoteRequest, TpmAttestor, TpmDevice, TpmSigner},
};
use swtpm::Swtpm;
use tss_esapi::{
    Context,
    attributes::SessionAttributesBuilder,
    constants::{
        SessionType,
        tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK},
    },
    handles::KeyHandle,
    interface_types::{
        algorithm::HashingAlgorithm, ecc::EccCurve, resource_handles::Hierarchy, session_handles::AuthSession,
    },
    structures::{
        Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket, PublicBuilder, PublicEccParametersBuilder,
        SignatureScheme, SymmetricDefinition,
    },
    tcti_ldr::TctiNameConf,
    tss2_esys::TPMT_TK_HASHCHECK,
};

/// Rounds in which both sides take turns, and signatures of each in one.
const ROUNDS: u32 = 9;
const SIGNATURES: u32 = 300;

/// Quotes whose verification is timed.
const QUOTES: u32 = 50;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let json = match &words[..] {
        [] => None,
        [option, path] if option == "--json" => Some(path.as_str()),
        _ => return Err("usage: [--json FILE]".into()),
    };
    let tpm = Swtpm::start();
    let directory = tempfile::tempdir()?;
    CheckpointGuard::create(&directory.path().join("guard"), [7; 32])?;
    drop(TpmSigner::generate(&TpmDevice::open(&tpm.tcti())?, &directory.path().join("key.pem"))?);
    let (mut ours, mut guarded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bare, mut password) = (Vec::new(), Vec::new());
    let (mut through, mut through_ratios) = (Vec::new(), Vec::new());
    let process = process::SignerProcess::make(&tpm)?;
    let mut size = 0_u32;
    for _ in 0..ROUNDS {
        let device = TpmDevice::open(&tpm.tcti())?;
        let guard = CheckpointGuard::open(&directory.path().join("guard"), [7; 32], GuardDurability::Sync)?;
        let signer =
            TpmSigner::open(&device, &directory.path().join("key.pem"))?.with_checkpoint_guard(Arc::new(guard));
        let public_key = signer.public_key().sec1_compressed.clone();
        let binding = stele_hsm::PeerBindingRequest { public_key: &public_key, peer_id: b"peer" };
        let rate = rate_of(|| Ok(block_on(signer.sign_peer_binding(&binding)).map(drop)?))?;
        let with_guard = rate_of(|| {
            size += 1;
            let bytes = checkpoint(size);
            let request = CheckpointRequest { tree_size: size.into(), root: [1; 32], sig_structure: &bytes };
            Ok(block_on(signer.sign_checkpoint(&request)).map(drop)?)
        })?;
        drop((signer, device));
        let by_process = process.rate(|sign| rate_of(sign))?;
        let (peer, without_session) = bare_rates(&tpm)?;
        ours.push(rate);
        guarded.push(with_guard);
        bare.push(peer);
        password.push(without_session);
        ratios.push(rate / peer);
        through.push(by_process);
        through_ratios.push(by_process / peer);
    }
    let verify = verify_milliseconds(&tpm)?;
    let lines = [
        line("sign.tpm", median(&mut ours), "1/s", Some((median(&mut bare), median(&mut ratios)))),
        line("sign.vs_bare", median(&mut through), "1/s", Some((median(&mut bare), median(&mut through_ratios)))),
        line("sign.tpm_guarded", median(&mut guarded), "1/s", None),
        line("sign.password", median(&mut password), "1/s", None),
        line("attest.verify_ms", verify, "ms", None),
    ]
    .concat();
    print!("{lines}");
    if let Some(path) = json {
        OpenOptions::new().create(true).append(true).open(path)?.write_all(lines.as_bytes())?;
    }
    Ok(())
}

/// One figure; the peer is the bare TSS on the same TPM.
fn line(name: &str, value: f64, unit: &str, peer: Option<(f64, f64)>) -> String {
    let (peer, ratio) =
        peer.map_or(("null".into(), "null".into()), |(peer, ratio)| (format!("{peer:.3}"), format!("{ratio:.3}")));
    format!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\",\"peer\":{peer},\"ratio\":{ratio}}}\n")
}

/// Calls a second, the first left out: it may load the key.
fn rate_of(mut sign: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    sign()?;
    let started = Instant::now();
    for _ in 0..SIGNATURES {
        sign()?;
    }
    Ok(f64::from(SIGNATURES) / started.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The same signatures with the TSS alone: one context, one key, and one long session, or a password in the clear.
fn bare_rates(tpm: &Swtpm) -> Outcome<(f64, f64)> {
    let mut context = Context::new(tpm.tcti().parse::<TctiNameConf>()?)?;
    let attributes = tss_esapi::attributes::ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build()?;
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let template = PublicBuilder::new()
        .with_public_algorithm(tss_esapi::interface_types::algorithm::PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(
            PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, EccCurve::NistP256).build()?,
        )
        .with_ecc_unique_identifier(EccPoint::default())
        .build()?;
    let key = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.create_primary(Hierarchy::Owner, template, None, None, None, None)
    })?;
    let session = context
        .start_auth_session(
            None,
            None,
            None,
            SessionType::Hmac,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )?
        .ok_or("no session")?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).build();
    context.tr_sess_set_attributes(session, attributes, mask)?;
    let digest = Digest::try_from(vec![1; 32])?;
    let mut rate = |session| {
        context.set_sessions((Some(session), None, None));
        rate_of(|| sign(&mut context, key.key_handle, &digest))
    };
    Ok((rate(session)?, rate(AuthSession::Password)?))
}

fn sign(context: &mut Context, key: KeyHandle, digest: &Digest) -> Outcome<()> {
    let ticket = TPMT_TK_HASHCHECK { tag: TPM2_ST_HASHCHECK, hierarchy: TPM2_RH_NULL, digest: Default::default() };
    context.sign(key, digest.clone(), SignatureScheme::Null, HashcheckTicket::try_from(ticket)?)?;
    Ok(())
}

/// What the verification of a quote takes, without the TPM's own time.
fn verify_milliseconds(tpm: &Swtpm) -> Outcome<f64> {
    let device = TpmDevice::open(&tpm.tcti())?;
    let attestor = TpmAttestor::new(&device);
    let identity = block_on(attestor.identity())?;
    let name = Public::parse_sized(&identity.attestation_key)?.name();
    let head = checkpoint(1);
    let policy = Policy {
        bank: HashAlgorithm::Sha256,
        pcrs: vec![PcrRule { pcr: 4, allowed: vec![Prediction::from_events(HashAlgorithm::Sha256, Vec::new())] }],
        event_log_required: false,
        extended_after_boot: [].into(),
        ima: None,
        firmware_versions: [].into(),
    };
    let mut spent = Duration::ZERO;
    for _ in 0..QUOTES {
        let checkpoint = CheckpointRequest { tree_size: 1, root: [1; 32], sig_structure: &head };
        let request = QuoteRequest { nonce: [5; 32], checkpoint, pcrs: &[0, 1, 2, 3, 4, 5, 6, 7, 9, 11] };
        let quote = block_on(attestor.quote(&request))?;
        let started = Instant::now();
        let data = quote_qualifying_data(&[5; 32], &head);
        let evidence = Evidence {
            quote: &quote.message,
            signature: &quote.signature,
            pcrs: &quote.pcrs,
            attestation_key: &identity.attestation_key,
            event_log: None,
            ima_log: None,
        };
        let expectation = Expectation {
            attestation_key_name: &name,
            qualifying_data: data.as_bytes(),
            policy: &policy,
            previous: None,
        };
        let verdict = appraise(&evidence, &expectation);
        spent += started.elapsed();
        if !verdict.passed {
            return Err(verdict.to_string().into());
        }
    }
    Ok(spent.as_secs_f64() * 1e3 / f64::from(QUOTES))
}

/// The `Sig_structure` of a checkpoint of some leaves.
fn checkpoint(size: u32) -> Vec<u8> {
    let mut bytes = b"\x84\x6aSignature1\x4d\xa1\x0f\xa1\x3a\x00\x01\x11\x71".to_vec();
    let size = match size {
        0..24 => vec![size.to_be_bytes()[3]],
        24..256 => vec![0x18, size.to_be_bytes()[3]],
        _ => vec![0x19, size.to_be_bytes()[2], size.to_be_bytes()[3]],
    };
    // Length of the protected header: eight bytes and the size.
    bytes[12] = 0x40 + 8 + u8::try_from(size.len()).unwrap();
    bytes.extend(size);
    bytes.extend([0x40, 0x58, 0x20]);
    bytes.extend([1; 32]);
    bytes
}
