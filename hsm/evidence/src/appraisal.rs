//! Evidence against expectation: one quote with its logs, judged whole, every reason collected.

use alloc::{format, string::String, vec::Vec};

use crate::{
    algorithm::{Digest, HashAlgorithm},
    attest::{Attestation, Attested, ClockInfo},
    certification::attestation_key_fault,
    event_log::{Event, EventLog, Replay},
    ima::{BOOT_AGGREGATE, IMA_PCR, ImaLog},
    pcr::{PCR_COUNT, PcrSelection, PcrValues},
    policy::{ExpectedEvent, PcrRule, Policy, Prediction},
    public::{Name, Public},
    signature::TpmSignature,
    verdict::{EventDifference, Facts, Part, PcrFact, REASONS_MAX, Reason, Verdict},
};

/// Evidence in raw TCG bytes, as tpm2-tools write and read them.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// `TPMS_ATTEST`.
    pub quote: &'a [u8],
    /// `TPMT_SIGNATURE`.
    pub signature: &'a [u8],
    /// Values of the quoted PCRs in the `serialized` format of `tpm2_quote --pcr`.
    pub pcrs: &'a [u8],
    /// `TPM2B_PUBLIC` of the attestation key.
    pub attestation_key: &'a [u8],
    /// Boot event log, as Linux gives it in `binary_bios_measurements`.
    pub event_log: Option<&'a [u8]>,
    /// IMA log, binary or ASCII.
    pub ima_log: Option<&'a [u8]>,
}

/// What the verifier asked and believes.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// Name of the attestation key that was enrolled with the platform's endorsement key.
    pub attestation_key_name: &'a Name,
    /// What the quote must be qualified by; see [`crate::quote_qualifying_data`].
    pub qualifying_data: &'a [u8],
    /// What the platform must be.
    pub policy: &'a Policy,
    /// The clock of the previous verdict on this platform.
    pub previous: Option<&'a ClockInfo>,
}

/// Judges evidence. Nothing in it makes this panic; work and memory are bounded by its length.
#[must_use]
pub fn appraise(evidence: &Evidence<'_>, expectation: &Expectation<'_>) -> Verdict {
    let mut appraisal = Appraisal { policy: expectation.policy, reasons: Reasons::default(), facts: Facts::default() };
    if let Err(error) = expectation.policy.check() {
        appraisal.reasons.add(Reason::Policy(error));
    }
    let key = appraisal.attestation_key(evidence, expectation);
    if let Some(quoted) = appraisal.quote(evidence, expectation, key.as_ref()) {
        let log = appraisal.event_log(evidence);
        appraisal.pcrs(&quoted, log.as_ref());
        let replay = log.as_ref().and_then(|log| appraisal.replay(&quoted, log));
        appraisal.ima(evidence, &quoted, replay.as_ref());
    }
    let Appraisal { reasons, facts, .. } = appraisal;
    Verdict { passed: reasons.kept.is_empty(), reasons: reasons.kept, reasons_left_out: reasons.left_out, facts }
}

/// Values that the quote's digest covers.
struct Quoted {
    selection: PcrSelection,
    values: PcrValues,
}

impl Quoted {
    fn value(&self, bank: HashAlgorithm, pcr: u8) -> Option<&Digest> {
        self.values.value(bank, pcr).filter(|_| self.selection.contains(bank, pcr))
    }
}

#[derive(Default)]
struct Reasons {
    kept: Vec<Reason>,
    left_out: usize,
}

impl Reasons {
    fn add(&mut self, reason: Reason) {
        if self.kept.len() < REASONS_MAX {
            self.kept.push(reason);
        } else {
            self.left_out += 1;
        }
    }
}

struct Appraisal<'a> {
    policy: &'a Policy,
    reasons: Reasons,
    facts: Facts,
}

impl Appraisal<'_> {
    /// A part that was read, or the reason why it could not be.
    fn read<T>(&mut self, part: Part, read: Result<T, crate::EvidenceError>) -> Option<T> {
        read.map_err(|error| self.reasons.add(Reason::Unreadable { part, error })).ok()
    }

    fn attestation_key(&mut self, evidence: &Evidence<'_>, expectation: &Expectation<'_>) -> Option<Public> {
        let key = self.read(Part::AttestationKey, Public::parse_sized(evidence.attestation_key))?;
        let name = key.name();
        self.facts.attestation_key_name = Some(name.to_hex());
        if name != *expectation.attestation_key_name {
            let expected = expectation.attestation_key_name.to_hex();
            self.reasons.add(Reason::OtherKey { expected, found: name.to_hex() });
        }
        if let Some(attribute) = attestation_key_fault(&key) {
            self.reasons.add(Reason::KeyAttributes { attribute });
        }
        Some(key)
    }

    /// Checks signature, freshness and clock; gives the values that were quoted.
    fn quote(
        &mut self,
        evidence: &Evidence<'_>,
        expectation: &Expectation<'_>,
        key: Option<&Public>,
    ) -> Option<Quoted> {
        let attestation = self.read(Part::Quote, Attestation::parse(evidence.quote));
        let signature = self.read(Part::Signature, TpmSignature::parse(evidence.signature));
        if let (Some(key), Some(signature)) = (key, &signature)
            && !signature.verifies(&key.key, evidence.quote)
        {
            self.reasons.add(Reason::Signature);
        }
        let attestation = attestation?;
        if attestation.extra_data != expectation.qualifying_data {
            self.reasons.add(Reason::QualifyingData);
        }
        self.clock(&attestation, expectation.previous);
        let Attested::Quote { selection, digest } = attestation.attested else {
            self.reasons.add(Reason::NotAQuote);
            return None;
        };
        let values = self.read(Part::Pcrs, PcrValues::parse_tools(evidence.pcrs))?;
        let computed = signature.and_then(|signature| values.quote_digest(&selection, signature.hash));
        if computed.is_none_or(|computed| computed.as_bytes() != digest) {
            self.reasons.add(Reason::PcrDigest);
            return None;
        }
        Some(Quoted { selection, values })
    }

    fn clock(&mut self, attestation: &Attestation, previous: Option<&ClockInfo>) {
        /// The most by which a clock may fall behind when power is cut: the longest time between two writes of it, TPM 2.0
        /// Part 1 section 36.3.
        const CLOCK_LAG_MS_MAX: u64 = 1 << 22;
        let clock = attestation.clock;
        self.facts.clock = Some(clock);
        self.facts.firmware_version = Some(attestation.firmware_version);
        let versions = &self.policy.firmware_versions;
        if !versions.is_empty() && !versions.contains(&attestation.firmware_version) {
            self.reasons.add(Reason::FirmwareVersion { found: attestation.firmware_version });
        }
        let Some(previous) = previous else { return };
        self.facts.resets_since_previous = clock.reset_count.checked_sub(previous.reset_count);
        let same_boot = clock.reset_count == previous.reset_count;
        let lag = if same_boot { 0 } else { CLOCK_LAG_MS_MAX };
        let went_back = if clock.reset_count < previous.reset_count {
            Some(("reset_count", previous.reset_count.into(), clock.reset_count.into()))
        } else if same_boot && clock.restart_count < previous.restart_count {
            Some(("restart_count", previous.restart_count.into(), clock.restart_count.into()))
        } else if clock.clock_ms.saturating_add(lag) < previous.clock_ms {
            Some(("clock_ms", previous.clock_ms, clock.clock_ms))
        } else {
            None
        };
        if let Some((counter, previous, found)) = went_back {
            self.reasons.add(Reason::ClockWentBack { counter, previous, found });
        }
    }

    fn event_log<'l>(&mut self, evidence: &Evidence<'l>) -> Option<EventLog<'l>> {
        let Some(bytes) = evidence.event_log else {
            if self.policy.event_log_required {
                self.reasons.add(Reason::LogMissing { part: Part::EventLog });
            }
            return None;
        };
        let log = self.read(Part::EventLog, EventLog::parse(bytes))?;
        self.facts.events = Some(log.events().len());
        if !log.has_bank(self.policy.bank) {
            self.reasons.add(Reason::LogBankMissing { bank: self.policy.bank });
            return None;
        }
        Some(log)
    }

    /// Compares quoted values with what the policy allows.
    fn pcrs(&mut self, quoted: &Quoted, log: Option<&EventLog<'_>>) {
        let policy = self.policy;
        for (bank, pcr) in quoted.selection.iter().filter(|(bank, _)| *bank == policy.bank) {
            if let Some(value) = quoted.value(bank, pcr) {
                let judged = policy.pcrs.iter().any(|rule| rule.pcr == pcr);
                self.facts.pcrs.push(PcrFact { pcr, value: *value, judged });
            }
        }
        for rule in &policy.pcrs {
            let Some(found) = quoted.value(policy.bank, rule.pcr) else {
                self.reasons.add(Reason::PcrNotQuoted { pcr: rule.pcr, bank: policy.bank });
                continue;
            };
            if rule.allowed.iter().any(|prediction| prediction.value == *found) {
                continue;
            }
            let difference = log.and_then(|log| difference(log, policy.bank, rule));
            let expected = rule.allowed.iter().map(|prediction| prediction.value).collect();
            self.reasons.add(Reason::Pcr { pcr: rule.pcr, found: *found, expected, difference });
        }
    }

    /// Compares quoted values with what the log gives. A static PCR that the log says nothing about must be untouched, so
    /// that whole events cannot be left out; the kernel's PCR has a log of its own.
    fn replay(&mut self, quoted: &Quoted, log: &EventLog<'_>) -> Option<Replay> {
        /// The last PCR that only a reset sets back.
        const STATIC_PCR_LAST: u8 = 15;
        let policy = self.policy;
        let replay = log.replay(policy.bank)?;
        for pcr in (0..PCR_COUNT).filter(|pcr| *pcr <= STATIC_PCR_LAST || replay.is_extended(*pcr)) {
            if pcr == IMA_PCR || policy.extended_after_boot.contains(&pcr) {
                continue;
            }
            let (Some(replayed), Some(quoted)) = (replay.value(pcr), quoted.value(policy.bank, pcr)) else { continue };
            if replayed != quoted {
                let rule = policy.pcrs.iter().find(|rule| rule.pcr == pcr);
                let difference = rule.and_then(|rule| difference(log, policy.bank, rule));
                self.reasons.add(Reason::LogDiffers { pcr, replayed: *replayed, quoted: *quoted, difference });
            }
        }
        for event in log.events().iter().filter(|event| event.data_is_measured()) {
            if log.digest(event, policy.bank) != Some(policy.bank.digest(&[event.data])) {
                self.reasons.add(Reason::EventData { event: event.label() });
            }
        }
        Some(replay)
    }

    fn ima(&mut self, evidence: &Evidence<'_>, quoted: &Quoted, replay: Option<&Replay>) {
        let (bank, rule) = (self.policy.bank, self.policy.ima.as_ref());
        let Some(bytes) = evidence.ima_log else {
            if rule.is_some() {
                self.reasons.add(Reason::LogMissing { part: Part::ImaLog });
            }
            return;
        };
        let Some(log) = self.read(Part::ImaLog, ImaLog::parse(bytes)) else { return };
        let Some(value) = quoted.value(bank, IMA_PCR) else {
            if rule.is_some() {
                self.reasons.add(Reason::PcrNotQuoted { pcr: IMA_PCR, bank });
            }
            return;
        };
        let Some(covered) = log.entries_until(bank, value) else {
            self.reasons.add(Reason::ImaDiffers { quoted: *value });
            return;
        };
        self.facts.ima_entries = Some(covered);
        self.facts.ima_entries_later = Some(log.entries.len() - covered);
        let Some(rule) = rule else { return };
        // Without a boot event log the aggregate of PCRs that were not quoted cannot be checked.
        if covered == 0 || replay.is_some_and(|replay| !log.begins_with_aggregate(replay)) {
            self.reasons.add(Reason::ImaAggregate);
        }
        for (line, entry) in (1..).zip(&log.entries[..covered]) {
            let aggregate = line == 1 && entry.path == BOOT_AGGREGATE;
            let digest = (!entry.is_violation()).then_some(entry.file_digest);
            if !aggregate && digest.is_none_or(|digest| !rule.files.contains(&digest)) {
                self.reasons.add(Reason::ImaEntry { line, path: entry.path.clone(), digest });
            }
        }
    }
}

/// The first event of a PCR that differs from the prediction with the longest beginning in common; `None` if no prediction
/// has events, or the log has just those of one.
fn difference(log: &EventLog<'_>, bank: HashAlgorithm, rule: &PcrRule) -> Option<EventDifference> {
    let found: Vec<(&Event<'_>, Digest)> =
        log.events_of(rule.pcr).filter_map(|event| Some((event, log.digest(event, bank)?))).collect();
    let in_common = |prediction: &&Prediction| {
        let pairs = prediction.events.iter().zip(&found);
        pairs.take_while(|(expected, (_, digest))| expected.digest == *digest).count()
    };
    let with_events = rule.allowed.iter().filter(|prediction| !prediction.events.is_empty());
    let closest = with_events.max_by_key(in_common)?;
    let at = in_common(&closest);
    match (found.get(at), closest.events.get(at)) {
        (Some((event, found)), Some(expected)) => Some(EventDifference::Other {
            event: event.label(),
            found: *found,
            expected: expected.digest,
            prediction: prediction_label(expected),
        }),
        (Some((event, found)), None) => Some(EventDifference::Additional { event: event.label(), found: *found }),
        (None, Some(expected)) => {
            Some(EventDifference::Missing { prediction: prediction_label(expected), expected: expected.digest })
        }
        (None, None) => None,
    }
}

fn prediction_label(expected: &ExpectedEvent) -> String {
    if expected.description.is_empty() {
        format!("{}", expected.event_type)
    } else {
        format!("{} ({})", expected.event_type, expected.description)
    }
}
