//! Quotes, boot event logs and policies.

use std::process::Command;

use stele_evidence::{
    EventDifference, EventLog, EventType, FirmwareVersion, HashAlgorithm, Policy, Reason, quote_qualifying_data,
};

use crate::{
    boot::{self, Measured},
    platform::{Files, Platform, SELECTION, codes},
};

/// PCRs that a release of the image predicts.
const PREDICTED: [u8; 4] = [4, 7, 9, 11];

/// A booted platform and its evidence with the log, for this nonce.
fn booted(events: &[Measured], data: &[u8]) -> (Platform, Files) {
    let platform = Platform::new("ecc", "ecdsa");
    boot::extend(&platform.tpm, events);
    let mut files = platform.quote(SELECTION, data);
    files.event_log = Some(boot::log(events));
    (platform, files)
}

#[test]
fn evidence_of_every_key_kind_passes_here_and_with_the_tools() {
    let data = quote_qualifying_data(&[7; 32], b"checkpoint");
    let policy = boot::policy(&[], &PREDICTED);
    let policy = Policy { event_log_required: false, ..policy };
    for (kind, scheme) in [("ecc", "ecdsa"), ("rsa", "rsassa"), ("rsa", "rsapss")] {
        let platform = Platform::new(kind, scheme);
        let files = platform.quote(SELECTION, data.as_bytes());
        if scheme == "rsapss" {
            // The tools quote with it and do not check it.
            openssl_accepts_pss(&platform, &files);
        } else {
            platform.tool_accepts(&files, data.as_bytes()).unwrap();
        }
        let verdict = files.verdict(data.as_bytes(), &policy, None);
        assert!(verdict.passed, "{kind} {scheme}: {verdict}");
        let mut changed = files.clone();
        *changed.signature.last_mut().unwrap() ^= 1;
        assert_eq!(codes(&changed.verdict(data.as_bytes(), &policy, None)), ["signature_invalid"]);
        assert_eq!(verdict.facts.pcrs.len(), 12);
        let stale = files.verdict(&[7; 32], &policy, None);
        assert_eq!(codes(&stale), ["qualifying_data_differs"]);
        platform.tool_accepts(&files, &[7; 32]).unwrap_err();
    }
}

fn openssl_accepts_pss(platform: &Platform, files: &Files) {
    platform.tpm.tool(&["tpm2_readpublic", "-c", "ak.ctx", "-f", "pem", "-o", "ak.pem"]).unwrap();
    // After scheme, hash and length.
    platform.tpm.write("pss", &files.signature[6..]);
    let words = "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:auto -verify ak.pem -signature pss quote.msg";
    let mut command = Command::new("openssl");
    crate::swtpm::run(command.args(words.split(' ')).current_dir(platform.tpm.path(".")), "openssl", "openssl")
        .unwrap();
}

#[test]
fn a_shell_computes_the_same_qualifying_data() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("nonce"), [7; 32]).unwrap();
    std::fs::write(directory.path().join("checkpoint"), b"checkpoint").unwrap();
    let recipe =
        "{ printf stele/quote/v1; cat nonce; openssl dgst -sha256 -binary checkpoint; } | openssl dgst -sha256 -r";
    let mut shell = Command::new("sh");
    let output = crate::swtpm::run(shell.args(["-c", recipe]).current_dir(directory.path()), "openssl", "openssl");
    let digest = quote_qualifying_data(&[7; 32], b"checkpoint").to_string();
    assert_eq!(format!("sha256:{}", output.unwrap().split(' ').next().unwrap()), digest);
}

#[test]
fn a_whole_boot_replays_to_what_the_tools_and_the_tpm_say() {
    let events = boot::boot();
    let (platform, files) = booted(&events, &[1; 32]);
    platform.tool_accepts(&files, &[1; 32]).unwrap();
    let verdict = files.verdict(&[1; 32], &boot::policy(&events, &PREDICTED), None);
    assert!(verdict.passed, "{verdict}");
    assert_eq!(verdict.facts.events, Some(events.len()));
    let bytes = files.event_log.unwrap();
    let log = EventLog::parse(&bytes).unwrap();
    platform.tpm.write("log", &bytes);
    let shown = platform.tpm.tool(&["tpm2_eventlog", "log"]).unwrap();
    let read = platform.tpm.tool(&["tpm2_pcrread", "sha1:all+sha256:all+sha384:all"]).unwrap();
    for bank in boot::BANKS {
        let replay = log.replay(bank).unwrap();
        for pcr in (0..16).filter(|pcr| replay.is_extended(*pcr)) {
            let digits = replay.value(pcr).unwrap().to_string();
            let digits = digits.split(':').nth(1).unwrap().to_owned();
            assert!(shown.contains(&digits), "tpm2_eventlog has another PCR {pcr} of {bank}");
            assert!(read.to_lowercase().contains(&digits), "the TPM has another PCR {pcr} of {bank}");
        }
    }
}

/// A TPM that was started from locality 3 counts PCR 0 from there.
#[test]
fn the_startup_locality_is_where_pcr_0_begins() {
    let mut events = boot::boot();
    let locality = Measured {
        pcr: 0,
        event_type: EventType::NO_ACTION,
        content: Vec::new(),
        data: b"StartupLocality\0\x03".into(),
        description: "",
    };
    events.insert(0, locality);
    let bytes = boot::log(&events);
    let log = EventLog::parse(&bytes).unwrap();
    let value = *log.replay(HashAlgorithm::Sha256).unwrap().value(0).unwrap();
    let start =
        HashAlgorithm::Sha256.digest(&[&[0; 31], &[3], HashAlgorithm::Sha256.digest(&[&events[1].content]).as_bytes()]);
    let of_pcr = events[2..].iter().filter(|event| event.pcr == 0);
    let expected =
        of_pcr.fold(start, |value, event| value.extended(HashAlgorithm::Sha256.digest(&[&event.content]).as_bytes()));
    assert_eq!(value, expected);
    assert_ne!(
        value,
        *EventLog::parse(&boot::log(&events[1..])).unwrap().replay(HashAlgorithm::Sha256).unwrap().value(0).unwrap()
    );
}

#[test]
fn another_image_is_named_by_the_event_that_differs() {
    let released = boot::boot();
    let mut events = released.clone();
    let image = events.iter_mut().find(|event| event.event_type == EventType::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    image.content = b"evil.efi".into();
    let (platform, files) = booted(&events, &[2; 32]);
    // The evidence is honest: the tools, which know no release, accept it.
    platform.tool_accepts(&files, &[2; 32]).unwrap();
    let verdict = files.verdict(&[2; 32], &boot::policy(&released, &PREDICTED), None);
    assert_eq!(codes(&verdict), ["pcr_differs"]);
    let Some(EventDifference::Other { event, found, expected, prediction }) = verdict.reasons[0].difference() else {
        panic!("{verdict}");
    };
    assert!(event.contains("event 17 (PCR 4, EV_EFI_BOOT_SERVICES_APPLICATION"), "{event}");
    assert_eq!(*found, HashAlgorithm::Sha256.digest(&[b"evil.efi"]));
    assert_eq!(*expected, HashAlgorithm::Sha256.digest(&[b"node.efi"]));
    assert_eq!(prediction, "EV_EFI_BOOT_SERVICES_APPLICATION (node image)");
    let text = verdict.to_string();
    assert!(text.contains("PCR 4 is sha256:") && text.contains("node image"), "{text}");
}

#[test]
fn events_too_many_and_too_few_are_named() {
    let released = boot::boot();
    let policy = boot::policy(&released, &[11]);
    let (_, files) = booted(&released[..released.len() - 2], &[3; 32]);
    let verdict = files.verdict(&[3; 32], &policy, None);
    assert!(
        matches!(verdict.reasons[0].difference(), Some(EventDifference::Missing { prediction, .. })
        if prediction == "EV_IPL (.linux content)"),
        "{verdict}"
    );
    let additional = Measured { description: "", ..released[released.len() - 2].clone() };
    let (_, files) = booted(&[&released[..], &[additional]].concat(), &[3; 32]);
    let verdict = files.verdict(&[3; 32], &policy, None);
    assert!(
        matches!(verdict.reasons[0].difference(), Some(EventDifference::Additional { event, .. })
        if event == "event 22 (PCR 11, EV_IPL: .linux)"),
        "{verdict}"
    );
}

#[test]
fn an_alternative_of_a_prediction_passes_and_an_unquoted_pcr_does_not() {
    let events = boot::boot();
    let (platform, files) = booted(&events, &[4; 32]);
    let mut policy = boot::policy(&[], &[11]);
    policy.pcrs[0].allowed.push(boot::policy(&events, &[11]).pcrs.remove(0).allowed.remove(0));
    assert!(files.verdict(&[4; 32], &policy, None).passed);
    let mut fewer = platform.quote("sha256:4,7", &[4; 32]);
    fewer.event_log = files.event_log;
    assert_eq!(codes(&fewer.verdict(&[4; 32], &policy, None)), ["pcr_not_quoted"]);
    // A quote of another bank does not count, whatever its digest is.
    let mut other = platform.quote("sha384:11", &[4; 32]);
    other.event_log = fewer.event_log;
    assert_eq!(codes(&other.verdict(&[4; 32], &policy, None)), ["pcr_not_quoted"]);
}

#[test]
fn a_log_that_was_changed_is_refused_here_and_by_the_tools() {
    let events = boot::boot();
    let (platform, files) = booted(&events, &[5; 32]);
    let policy = boot::policy(&events, &PREDICTED);
    let digest = HashAlgorithm::Sha256.digest(&[b"node.efi"]);
    let log = files.event_log.clone().unwrap();
    let at = log.windows(32).position(|window| window == digest.as_bytes()).unwrap();
    let mut flipped = log.clone();
    flipped[at] ^= 1;
    let changed = Files { event_log: Some(flipped), ..files.clone() };
    platform.tool_accepts(&changed, &[5; 32]).unwrap_err();
    let verdict = changed.verdict(&[5; 32], &policy, None);
    assert_eq!(codes(&verdict), ["event_log_differs"]);
    assert!(verdict.to_string().contains("event 17 (PCR 4"), "{verdict}");
    // Cut after whole events.
    let cut = Files { event_log: Some(boot::log(&events[..events.len() - 3])), ..files.clone() };
    assert_eq!(codes(&cut.verdict(&[5; 32], &policy, None)), ["event_log_differs"; 2]);
    // An event of a PCR of the firmware left out.
    let without: Vec<Measured> = events.iter().filter(|event| event.pcr != 7).cloned().collect();
    let without = Files { event_log: Some(boot::log(&without)), ..files.clone() };
    assert_eq!(codes(&without.verdict(&[5; 32], &policy, None)), ["event_log_differs"]);
    // A PCR that the running system extends is judged by the policy alone.
    let exempt = Policy { extended_after_boot: [11, 12].into(), ..policy.clone() };
    assert!(cut.verdict(&[5; 32], &exempt, None).passed);
    // Data that lies about what was measured.
    let mut lying = events.clone();
    lying[2].data = lying[3].data.clone();
    let lying = Files { event_log: Some(boot::log(&lying)), ..files.clone() };
    assert_eq!(codes(&lying.verdict(&[5; 32], &policy, None)), ["event_data_differs"]);
    let absent = Files { event_log: None, ..files };
    assert_eq!(codes(&absent.verdict(&[5; 32], &policy, None)), ["log_missing"]);
}

#[test]
fn a_quote_that_was_changed_is_refused_here_and_by_the_tools() {
    let events = boot::boot();
    let (platform, files) = booted(&events, &[6; 32]);
    let policy = boot::policy(&events, &PREDICTED);
    let mut other_values = files.clone();
    other_values.pcrs[132 + 4 + 4 + 2] ^= 1;
    let mut other_quote = files.clone();
    *other_quote.quote.last_mut().unwrap() ^= 1;
    let mut other_signature = files.clone();
    *other_signature.signature.last_mut().unwrap() ^= 1;
    let second = Platform::new("ecc", "ecdsa");
    let other_key = Files { attestation_key: second.tpm.read("ak.pub"), ..files.clone() };
    for (changed, expected) in [
        (other_values, &["pcr_digest_differs"][..]),
        (other_quote, &["signature_invalid", "pcr_digest_differs"]),
        (other_signature, &["signature_invalid"]),
        (other_key.clone(), &["signature_invalid"]),
    ] {
        platform.tool_accepts(&changed, &[6; 32]).unwrap_err();
        assert_eq!(codes(&changed.verdict(&[6; 32], &policy, None)), expected);
    }
    // Enrolled is the first platform's key.
    let name = platform.attestation_key().name();
    let expectation = stele_evidence::Expectation {
        attestation_key_name: &name,
        qualifying_data: &[6; 32],
        policy: &policy,
        previous: None,
    };
    let verdict = stele_evidence::appraise(&other_key.evidence(), &expectation);
    assert_eq!(codes(&verdict), ["attestation_key_other", "signature_invalid"]);
}

#[test]
fn an_older_quote_and_a_clock_that_went_back_are_refused() {
    let mut platform = Platform::new("ecc", "ecdsa");
    let policy = Policy { event_log_required: false, ..boot::policy(&[], &PREDICTED) };
    let first = platform.quote(SELECTION, &[8; 32]);
    let before = first.verdict(&[8; 32], &policy, None).facts.clock.unwrap();
    let second = platform.quote(SELECTION, &[8; 32]);
    let verdict = second.verdict(&[8; 32], &policy, Some(&before));
    assert!(verdict.passed, "{verdict}");
    assert_eq!(verdict.facts.resets_since_previous, Some(0));
    let after = verdict.facts.clock.unwrap();
    assert_eq!(codes(&first.verdict(&[8; 32], &policy, Some(&after))), ["clock_went_back"]);
    platform.tpm.power_off();
    platform.tpm.power_on();
    // The saved context of the attestation key is void after a reset; its blobs are not.
    platform.tpm.tool(&["tpm2_createek", "-c", "ek.ctx", "-G", "ecc", "-u", "ek.pub"]).unwrap();
    platform.load_attestation_key();
    let third = platform.quote(SELECTION, &[8; 32]);
    let verdict = third.verdict(&[8; 32], &policy, Some(&after));
    assert!(verdict.passed, "{verdict}");
    assert_eq!(verdict.facts.resets_since_previous, Some(1));
    let reset = verdict.facts.clock.unwrap();
    let old = second.verdict(&[8; 32], &policy, Some(&reset));
    assert!(matches!(old.reasons[..], [Reason::ClockWentBack { counter: "reset_count", previous: 2.., .. }]), "{old}");
}

#[test]
fn a_policy_that_judges_nothing_or_contradicts_itself_is_refused() {
    let events = boot::boot();
    let (_, files) = booted(&events, &[9; 32]);
    let good = boot::policy(&events, &PREDICTED);
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), good);
    assert!(serde_json::from_str::<Policy>(&text.replacen("\"bank\"", "\"banc\"", 1)).is_err());
    let mut empty = good.clone();
    empty.pcrs.clear();
    let mut broken = good.clone();
    broken.bank = HashAlgorithm::Sha1;
    let mut twice = good.clone();
    twice.pcrs.push(twice.pcrs[0].clone());
    let mut above = good.clone();
    above.pcrs[0].pcr = 24;
    let mut none = good.clone();
    none.pcrs[0].allowed.clear();
    let mut inconsistent = good.clone();
    inconsistent.pcrs[0].allowed[0].events.pop();
    for (policy, code) in [
        (empty, "policy_pins_nothing"),
        (broken, "policy_bank_broken"),
        (twice, "policy_pcr_index"),
        (above, "policy_pcr_index"),
        (none, "policy_no_value"),
        (inconsistent, "policy_value"),
    ] {
        assert!(codes(&files.verdict(&[9; 32], &policy, None)).contains(&code), "{code}");
    }
    let verdict = files.verdict(&[9; 32], &good, None);
    let facts = serde_json::to_value(&verdict).unwrap();
    assert_eq!(facts["passed"], true);
    assert_eq!(facts["facts"]["pcrs"][4]["pcr"], 4);
    let firmware = verdict.facts.firmware_version.unwrap();
    assert_eq!(facts["facts"]["firmware_version"], firmware.to_string());
    let older = Policy { firmware_versions: [FirmwareVersion(firmware.0 - 1)].into(), ..good.clone() };
    let text = serde_json::to_string(&older).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), older);
    assert_eq!(codes(&files.verdict(&[9; 32], &older, None)), ["firmware_version_not_allowed"]);
    let same = Policy { firmware_versions: [firmware].into(), ..good };
    assert!(files.verdict(&[9; 32], &same, None).passed);
}
