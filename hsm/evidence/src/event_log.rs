//! The boot event log: crypto-agile format of the TCG PC Client Platform Firmware Profile, sections 5.1 and 10.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    error::EvidenceError,
    event_type::EventType,
    pcr::PCR_COUNT,
    reader::Reader,
};

/// Longest log in bytes; those of servers have some tens of kilobytes, and a kernel keeps no more.
pub const LOG_LENGTH_MAX: usize = 4 << 20;

/// Events of a log at most.
pub const EVENTS_MAX: usize = 1 << 16;

/// Digest algorithms of a log at most; no TPM has more banks.
const ALGORITHMS_MAX: usize = 16;

const STRUCTURE: &str = "TCG event log";

/// A parsed log that borrows its bytes.
#[derive(Clone, Debug)]
pub struct EventLog<'a> {
    /// Identifier and digest length of each algorithm that events carry.
    algorithms: Vec<(u16, usize)>,
    events: Vec<Event<'a>>,
}

/// One measured event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its place in the log; the header is 0, as in what `tpm2_eventlog` prints.
    pub number: u32,
    /// The PCR that it was extended into; events of no PCR have `u32::MAX`.
    pub pcr: u32,
    /// What was measured.
    pub event_type: EventType,
    /// Identifier and digest, repeated.
    digests: &'a [u8],
    /// What the firmware says about it. Only for some types is it what the digest covers.
    pub data: &'a [u8],
}

/// What PCRs should hold after the events of a log.
#[derive(Clone, Debug)]
pub struct Replay {
    values: Vec<Digest>,
    extended: u32,
}

impl Replay {
    /// The value of a PCR below 24.
    #[must_use]
    pub fn value(&self, pcr: u8) -> Option<&Digest> {
        self.values.get(usize::from(pcr))
    }

    /// Whether the log has an event that was extended into this PCR.
    #[must_use]
    pub const fn is_extended(&self, pcr: u8) -> bool {
        pcr < PCR_COUNT && self.extended & 1 << pcr != 0
    }
}

impl<'a> EventLog<'a> {
    /// Parses a log, as Linux gives it in `binary_bios_measurements`.
    ///
    /// # Errors
    /// [`EvidenceError`] for anything else than a whole crypto-agile log; one with SHA-1 alone has no Spec ID event and is
    /// refused as malformed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > LOG_LENGTH_MAX {
            return Err(EvidenceError::TooLarge { structure: STRUCTURE, limit: LOG_LENGTH_MAX });
        }
        let mut reader = Reader::new(STRUCTURE, bytes);
        let algorithms = read_header(&mut reader)?;
        let mut events = Vec::new();
        while !reader.is_at_end() {
            if events.len() == EVENTS_MAX {
                return Err(EvidenceError::TooLarge { structure: STRUCTURE, limit: EVENTS_MAX });
            }
            let number = u32::try_from(events.len() + 1).unwrap_or(u32::MAX);
            events.push(read_event(&mut reader, number, &algorithms)?);
        }
        Ok(Self { algorithms, events })
    }

    /// The events, header excepted.
    #[must_use]
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// Whether events carry digests of a bank.
    #[must_use]
    pub fn has_bank(&self, bank: HashAlgorithm) -> bool {
        self.algorithms.iter().any(|(id, _)| *id == bank.id())
    }

    /// The digest of an event in a bank.
    #[must_use]
    pub fn digest(&self, event: &Event<'_>, bank: HashAlgorithm) -> Option<Digest> {
        let mut reader = Reader::new(STRUCTURE, event.digests);
        while !reader.is_at_end() {
            let id = reader.u16_le().ok()?;
            let (_, length) = self.algorithms.iter().find(|(known, _)| *known == id)?;
            let digest = reader.take(*length).ok()?;
            if id == bank.id() {
                return Digest::new(bank, digest).ok();
            }
        }
        None
    }

    /// The events that were extended into a PCR.
    pub fn events_of(&self, pcr: u8) -> impl Iterator<Item = &Event<'a>> {
        self.events.iter().filter(move |event| event.pcr == u32::from(pcr) && event.event_type.is_extended())
    }

    /// Extends every event's digest of a bank, from the values that PCRs have after a reset. `None` if the log has no such
    /// bank.
    #[must_use]
    pub fn replay(&self, bank: HashAlgorithm) -> Option<Replay> {
        if !self.has_bank(bank) {
            return None;
        }
        let initial = |pcr| Digest::filled(bank, if dynamic(pcr) { 0xff } else { 0 });
        let mut replay = Replay { values: (0..PCR_COUNT).map(initial).collect(), extended: 0 };
        replay.values[0].set_last_byte(self.startup_locality());
        for event in self.events.iter().filter(|event| event.event_type.is_extended()) {
            let place = usize::try_from(event.pcr).ok().and_then(|pcr| replay.values.get_mut(pcr));
            // Reading has refused events of other PCRs.
            let (Some(value), Some(digest)) = (place, self.digest(event, bank)) else { continue };
            *value = value.extended(digest.as_bytes());
            replay.extended |= 1 << event.pcr;
        }
        Some(replay)
    }

    /// The locality that started the TPM, which is where PCR 0 begins: PC Client Platform Firmware Profile, section
    /// 10.4.5.3.
    fn startup_locality(&self) -> u8 {
        let locality = |event: &Event<'_>| match event.data.strip_prefix(b"StartupLocality\0") {
            Some([locality]) if event.pcr == 0 && event.event_type == EventType::NO_ACTION => Some(*locality),
            _ => None,
        };
        self.events.iter().find_map(locality).unwrap_or(0)
    }
}

/// PCRs of a dynamic launch begin with ones.
const fn dynamic(pcr: u8) -> bool {
    matches!(pcr, 17..=22)
}

impl Event<'_> {
    /// Whether the event's data is what its digest must cover, by the Platform Firmware Profile, section 10.4.1.
    #[must_use]
    pub const fn data_is_measured(&self) -> bool {
        self.event_type.data_is_measured()
    }

    /// A few words about the event for people, out of its data; empty if there are none. They are the firmware's word: only
    /// where [`Self::data_is_measured`] does the digest cover them.
    #[must_use]
    pub fn description(&self) -> String {
        match self.event_type {
            EventType::EFI_VARIABLE_DRIVER_CONFIG
            | EventType::EFI_VARIABLE_BOOT
            | EventType::EFI_VARIABLE_BOOT2
            | EventType::EFI_VARIABLE_AUTHORITY => variable_name(self.data).unwrap_or_default(),
            EventType::SEPARATOR | EventType::NO_ACTION => String::new(),
            _ => text(self.data),
        }
    }

    /// How messages call the event: its number, PCR, type and description.
    #[must_use]
    pub fn label(&self) -> String {
        let description = self.description();
        let colon = if description.is_empty() { "" } else { ": " };
        format!("event {} (PCR {}, {}{colon}{description})", self.number, self.pcr, self.event_type)
    }
}

/// Longest description in characters.
const DESCRIPTION_LENGTH_MAX: usize = 64;

/// The name in a `UEFI_VARIABLE_DATA`.
fn variable_name(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new("UEFI_VARIABLE_DATA", data);
    reader.take(16).ok()?;
    let length = usize::try_from(u64::from_le_bytes(reader.array().ok()?)).ok()?;
    reader.take(8).ok()?;
    let name = reader.take(length.checked_mul(2)?).ok()?;
    Some(text(name))
}

/// Printable ASCII out of ASCII or UTF-16; empty if it is something else.
fn text(data: &[u8]) -> String {
    let wide = data.len() >= 2 && data.len().is_multiple_of(2) && data.iter().skip(1).step_by(2).all(|byte| *byte == 0);
    let narrow: Vec<u8> = data.iter().copied().step_by(if wide { 2 } else { 1 }).collect();
    let end = narrow.iter().position(|byte| *byte == 0).unwrap_or(narrow.len());
    let printable = narrow[..end].iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    if !printable {
        return String::new();
    }
    let shown: String = narrow[..end].iter().take(DESCRIPTION_LENGTH_MAX).map(|byte| char::from(*byte)).collect();
    shown.trim().to_string()
}

/// The first event, in the format of TPM 1.2, whose data is the `TCG_EfiSpecIdEvent`.
fn read_header(reader: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, EvidenceError> {
    /// Bytes of the header's data at most: sixteen algorithms and the vendor's 255 bytes need 360.
    const HEADER_LENGTH_MAX: usize = 1024;
    let pcr = reader.u32_le()?;
    let event_type = EventType(reader.u32_le()?);
    let digest: [u8; 20] = reader.array()?;
    let data = reader.sized_u32_le(HEADER_LENGTH_MAX)?;
    if pcr != 0 || event_type != EventType::NO_ACTION || digest != [0; 20] {
        return Err(reader.malformed("it does not begin with a Spec ID event"));
    }
    let mut header = Reader::new("TCG_EfiSpecIdEvent", data);
    if &header.array::<16>()? != b"Spec ID Event03\0" {
        return Err(reader.malformed("it is not crypto-agile"));
    }
    let _platform_class = header.u32_le()?;
    let _version_errata_width: [u8; 4] = header.array()?;
    let count = usize::try_from(header.u32_le()?).unwrap_or(usize::MAX);
    if count == 0 || count > ALGORITHMS_MAX {
        return Err(EvidenceError::TooLarge { structure: "TCG_EfiSpecIdEvent", limit: ALGORITHMS_MAX });
    }
    let mut algorithms: Vec<(u16, usize)> = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, length) = (header.u16_le()?, usize::from(header.u16_le()?));
        let wrong = HashAlgorithm::from_id(id).is_some_and(|algorithm| algorithm.length() != length);
        if wrong || length == 0 || length > Digest::LENGTH_MAX || algorithms.iter().any(|(known, _)| *known == id) {
            return Err(header.malformed("an algorithm has a wrong digest length or stands twice"));
        }
        algorithms.push((id, length));
    }
    let vendor_length = usize::from(header.u8()?);
    header.take(vendor_length)?;
    header.finish()?;
    Ok(algorithms)
}

/// A `TCG_PCR_EVENT2`.
fn read_event<'a>(
    reader: &mut Reader<'a>,
    number: u32,
    algorithms: &[(u16, usize)],
) -> Result<Event<'a>, EvidenceError> {
    let pcr = reader.u32_le()?;
    let event_type = EventType(reader.u32_le()?);
    if pcr >= u32::from(PCR_COUNT) && event_type.is_extended() {
        return Err(reader.malformed("an event is of a PCR above 23"));
    }
    let count = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
    if count != algorithms.len() {
        return Err(reader.malformed("an event has not one digest of each algorithm"));
    }
    let start = *reader;
    let mut length = 0;
    let mut seen = 0_u32;
    for _ in 0..count {
        let id = reader.u16_le()?;
        let known = algorithms.iter().position(|(known, _)| *known == id);
        let place = known.ok_or(reader.malformed("an event has a digest of an algorithm that the header lacks"))?;
        seen |= 1 << place;
        reader.take(algorithms[place].1)?;
        length += 2 + algorithms[place].1;
    }
    if usize::try_from(seen.count_ones()).unwrap_or(0) != count {
        return Err(reader.malformed("an event has two digests of one algorithm"));
    }
    let digests = start.rest().get(..length).unwrap_or_default();
    let data = reader.sized_u32_le(LOG_LENGTH_MAX)?;
    Ok(Event { number, pcr, event_type, digests, data })
}
