//! What Linux measured after the boot: the IMA log in both forms, against PCR 10 of a real TPM.

use stele_evidence::{EventLog, HashAlgorithm, ImaLog, Policy, Reason, policy::ImaRule};

use crate::{
    boot,
    platform::{Files, Platform, SELECTION, codes},
};

/// An entry: template data, and whether it is a violation.
type Entry = (Vec<u8>, bool);

fn entry(digest: &stele_evidence::Digest, path: &str, signature: Option<&[u8]>) -> Vec<u8> {
    let name = format!("{}:\0", digest.algorithm());
    let fields = [[name.as_bytes(), digest.as_bytes()].concat(), [path.as_bytes(), b"\0"].concat()];
    let mut template = Vec::new();
    for field in fields.iter().map(Vec::as_slice).chain(signature) {
        template.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
        template.extend(field);
    }
    template
}

fn template_digest((template, violation): &Entry) -> Vec<u8> {
    if *violation { vec![0; 20] } else { HashAlgorithm::Sha1.digest(&[template]).as_bytes().to_vec() }
}

fn binary(entries: &[Entry], name: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut bytes = Vec::new();
    for one in entries {
        bytes.extend(10_u32.to_le_bytes());
        bytes.extend(template_digest(one));
        bytes.extend(length(name.as_bytes()));
        bytes.extend(name.as_bytes());
        bytes.extend(length(&one.0));
        bytes.extend(&one.0);
    }
    bytes
}

/// What the kernel extends: the template's hash of the bank, or ones.
fn extend(platform: &Platform, entries: &[Entry]) {
    for (template, violation) in entries {
        let digest = HashAlgorithm::Sha256.digest(&[template]);
        let digits = if *violation { "f".repeat(64) } else { hex::encode(digest.as_bytes()) };
        platform.tpm.tool(&["tpm2_pcrextend", &format!("10:sha256={digits}")]).unwrap();
    }
}

/// A platform that booted and measured a file, its policy, and the entries.
fn measured() -> (Platform, Policy, Vec<u8>, Vec<Entry>) {
    let platform = Platform::new("ecc", "ecdsa");
    let events = boot::boot();
    boot::extend(&platform.tpm, &events);
    let log = boot::log(&events);
    let replay = EventLog::parse(&log).unwrap().replay(HashAlgorithm::Sha256).unwrap();
    let values: Vec<&[u8]> = (0..10).map(|pcr| replay.value(pcr).unwrap().as_bytes()).collect();
    let aggregate = entry(&HashAlgorithm::Sha256.digest(&values), "boot_aggregate", None);
    let file = HashAlgorithm::Sha256.digest(&[b"steled"]);
    let mut policy = boot::policy(&events, &[4, 7]);
    policy.ima = Some(ImaRule { files: [file].into() });
    (platform, policy, log, vec![(aggregate, false), (entry(&file, "/usr/bin/steled", None), false)])
}

fn quoted(platform: &Platform, event_log: &[u8], ima_log: Vec<u8>) -> Files {
    let mut files = platform.quote(SELECTION, &[1; 32]);
    (files.event_log, files.ima_log) = (Some(event_log.into()), Some(ima_log));
    files
}

#[test]
fn allowed_files_pass_and_later_entries_are_told_apart() {
    let (platform, policy, event_log, entries) = measured();
    extend(&platform, &entries);
    let later = (entry(&HashAlgorithm::Sha256.digest(&[b"later"]), "/usr/bin/later", None), false);
    let files = quoted(&platform, &event_log, binary(&[&entries[..], &[later]].concat(), "ima-ng"));
    let verdict = files.verdict(&[1; 32], &policy, None);
    assert!(verdict.passed, "{verdict}");
    assert_eq!((verdict.facts.ima_entries, verdict.facts.ima_entries_later), (Some(2), Some(1)));
    let cut = Files { ima_log: Some(binary(&entries[..1], "ima-ng")), ..files.clone() };
    assert_eq!(codes(&cut.verdict(&[1; 32], &policy, None)), ["ima_log_differs"]);
    let absent = Files { ima_log: None, ..files };
    assert_eq!(codes(&absent.verdict(&[1; 32], &policy, None)), ["log_missing"]);
}

#[test]
fn files_that_are_not_allowed_and_violations_are_named() {
    let (platform, policy, event_log, mut entries) = measured();
    let file = HashAlgorithm::Sha256.digest(&[b"shell"]);
    entries.push((entry(&file, "/usr/bin/shell", None), false));
    entries.push((entry(&file, "/usr/bin/open", None), true));
    extend(&platform, &entries);
    let files = quoted(&platform, &event_log, binary(&entries, "ima-ng"));
    let verdict = files.verdict(&[1; 32], &policy, None);
    assert_eq!(codes(&verdict), ["ima_entry_not_allowed"; 2]);
    assert!(matches!(&verdict.reasons[0], Reason::ImaEntry { line: 3, path, digest: Some(found) }
        if path == "/usr/bin/shell" && *found == file));
    assert!(matches!(&verdict.reasons[1], Reason::ImaEntry { line: 4, digest: None, .. }));
}

#[test]
fn a_log_of_another_boot_is_refused() {
    let (platform, policy, event_log, mut entries) = measured();
    entries[0] = (entry(&HashAlgorithm::Sha256.digest(&[b"other"]), "boot_aggregate", None), false);
    extend(&platform, &entries);
    let files = quoted(&platform, &event_log, binary(&entries, "ima-ng"));
    assert_eq!(codes(&files.verdict(&[1; 32], &policy, None)), ["ima_boot_aggregate_differs"]);
}

#[test]
fn both_forms_and_both_templates_say_the_same() {
    let digest = HashAlgorithm::Sha256.digest(&[b"steled"]);
    for (name, signature) in [("ima-ng", None), ("ima-sig", Some(&[3, 2, 4][..])), ("ima-sig", Some(&[]))] {
        let template = entry(&digest, "/usr/bin/steled", signature);
        let one = (template, false);
        let digits = hex::encode(template_digest(&one));
        let signature = signature.map_or(String::new(), |signature| format!(" {}", hex::encode(signature)));
        let ascii = format!("10 {digits} {name} {digest} /usr/bin/steled{signature}\n");
        let parsed = ImaLog::parse(&binary(&[one], name)).unwrap();
        assert_eq!(ImaLog::parse(ascii.as_bytes()), Ok(parsed), "{ascii}");
    }
    for wrong in
        ["10 00 ima-ng", "10 zz ima-ng sha256:00 /x", "10 a ima sha1:00 /x", "11 00 ima-ng sha256:00 /x", "10 "]
    {
        ImaLog::parse(wrong.as_bytes()).unwrap_err();
    }
}

/// A log of two entries in both forms.
pub(crate) fn sample_logs() -> (Vec<u8>, Vec<u8>) {
    let digest = |content: &[u8]| HashAlgorithm::Sha256.digest(&[content]);
    let entries = [("boot_aggregate", digest(b"boot")), ("/usr/bin/steled", digest(b"steled"))];
    let templates = entries.map(|(path, digest)| (entry(&digest, path, None), false));
    let lines = entries.iter().zip(&templates).map(|((path, digest), template)| {
        format!("10 {} ima-ng {digest} {path}\n", hex::encode(template_digest(template)))
    });
    (binary(&templates, "ima-ng"), lines.collect::<String>().into_bytes())
}
