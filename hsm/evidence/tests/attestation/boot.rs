//! A boot of our own making: a crypto-agile event log in which every event is whole, so that the tools read it, too.

use stele_evidence::{
    Digest, EventType, HashAlgorithm,
    policy::{ExpectedEvent, PcrRule, Policy, Prediction},
};

use crate::swtpm::Swtpm;

/// Banks of the log, SHA-256 not first.
pub(crate) const BANKS: [HashAlgorithm; 3] = [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384];

/// One event, before it is encoded.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) pcr: u8,
    pub(crate) event_type: EventType,
    /// What is hashed.
    pub(crate) content: Vec<u8>,
    /// What the log says.
    pub(crate) data: Vec<u8>,
    pub(crate) description: &'static str,
}

/// A boot through systemd-boot's stub: firmware, Secure Boot variables, one application, command line and initrd.
pub(crate) fn boot() -> Vec<Measured> {
    let same = |pcr, event_type, content: Vec<u8>, description| Measured {
        pcr,
        event_type,
        data: content.clone(),
        content,
        description,
    };
    let described = |pcr, event_type, content: &[u8], data, description| Measured {
        pcr,
        event_type,
        content: content.into(),
        data,
        description,
    };
    let mut events = vec![
        same(0, EventType::S_CRTM_VERSION, utf16("Test 1.0"), "firmware version"),
        described(0, EventType::EFI_PLATFORM_FIRMWARE_BLOB, b"firmware volume", blob(), "firmware volume"),
    ];
    for name in ["SecureBoot", "PK", "KEK", "db", "dbx"] {
        events.push(same(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, variable(name, &[1]), "Secure Boot variable"));
    }
    events.push(same(4, EventType::EFI_ACTION, b"Calling EFI Application from Boot Option".into(), "boot attempt"));
    for pcr in 0..8 {
        events.push(same(pcr, EventType::SEPARATOR, vec![0; 4], "separator"));
    }
    events.push(described(4, EventType::EFI_BOOT_SERVICES_APPLICATION, b"node.efi", image(), "node image"));
    events.push(described(9, EventType::EVENT_TAG, b"initrd", tagged(b"initrd"), "initrd"));
    events.push(described(11, EventType::IPL, b".linux\0", utf16(".linux"), ".linux name"));
    events.push(described(11, EventType::IPL, b"kernel", utf16(".linux"), ".linux content"));
    events.push(described(12, EventType::IPL, b"quiet\0", utf16("quiet"), "command line"));
    events
}

/// The log of these events, header first.
pub(crate) fn log(events: &[Measured]) -> Vec<u8> {
    let mut header = b"Spec ID Event03\0".to_vec();
    header.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    header.extend(length(BANKS.len()));
    for bank in BANKS {
        header.extend(bank.id().to_le_bytes());
        header.extend(u16::try_from(bank.length()).unwrap().to_le_bytes());
    }
    header.push(0);
    let mut bytes = [&[0; 4][..], &EventType::NO_ACTION.0.to_le_bytes(), &[0; 20]].concat();
    bytes.extend(length(header.len()));
    bytes.extend(header);
    events.iter().for_each(|event| append(&mut bytes, event));
    bytes
}

/// Appends one event to a log.
pub(crate) fn append(bytes: &mut Vec<u8>, event: &Measured) {
    bytes.extend(u32::from(event.pcr).to_le_bytes());
    bytes.extend(event.event_type.0.to_le_bytes());
    bytes.extend(length(BANKS.len()));
    for bank in BANKS {
        bytes.extend(bank.id().to_le_bytes());
        let silent = event.event_type == EventType::NO_ACTION;
        let digest = if silent { Digest::filled(bank, 0) } else { bank.digest(&[&event.content]) };
        bytes.extend(digest.as_bytes());
    }
    bytes.extend(length(event.data.len()));
    bytes.extend(&event.data);
}

/// Extends the TPM's PCRs by what was measured.
pub(crate) fn extend(tpm: &Swtpm, events: &[Measured]) {
    for event in events.iter().filter(|event| event.event_type != EventType::NO_ACTION) {
        let digests = BANKS.map(|bank| bank.digest(&[&event.content]).to_string().replace(':', "="));
        tpm.tool(&["tpm2_pcrextend", &format!("{}:{}", event.pcr, digests.join(","))]).unwrap();
    }
}

/// The policy of a release that predicts these events in its PCRs.
pub(crate) fn policy(events: &[Measured], pcrs: &[u8]) -> Policy {
    let expected = |event: &Measured| ExpectedEvent {
        event_type: event.event_type,
        digest: HashAlgorithm::Sha256.digest(&[&event.content]),
        description: event.description.into(),
    };
    let rule = |pcr: &u8| {
        let of_pcr = events.iter().filter(|event| event.pcr == *pcr).map(expected).collect();
        PcrRule { pcr: *pcr, allowed: vec![Prediction::from_events(HashAlgorithm::Sha256, of_pcr)] }
    };
    Policy {
        bank: HashAlgorithm::Sha256,
        pcrs: pcrs.iter().map(rule).collect(),
        event_log_required: true,
        extended_after_boot: [].into(),
        ima: None,
        firmware_versions: [].into(),
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap().to_le_bytes()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// `UEFI_PLATFORM_FIRMWARE_BLOB`: address and length.
fn blob() -> Vec<u8> {
    [0x80_0000_u64.to_le_bytes(), 0x10_0000_u64.to_le_bytes()].concat()
}

/// `UEFI_VARIABLE_DATA` of a global variable.
fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    /// `EFI_GLOBAL_VARIABLE`.
    const GLOBAL: [u8; 16] =
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    let number = |number: usize| u64::try_from(number).unwrap().to_le_bytes();
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    [&GLOBAL[..], &number(name.len()), &number(value.len()), &wide, value].concat()
}

/// `UEFI_IMAGE_LOAD_EVENT` with a device path of nothing but its end.
fn image() -> Vec<u8> {
    let numbers = [0x7000_0000_u64, 0x10_0000, 0, 4].map(u64::to_le_bytes).concat();
    [&numbers[..], &[0x7f, 0xff, 4, 0]].concat()
}

/// `TCG_PCClientTaggedEvent`.
fn tagged(data: &[u8]) -> Vec<u8> {
    [&0x8f3b_22ec_u32.to_le_bytes()[..], &length(data.len()), data].concat()
}
