//! The log of Linux's Integrity Measurement Architecture: what the kernel measured into PCR 10 after the boot.

use alloc::{string::String, vec::Vec};

use crate::{
    algorithm::{Digest, HashAlgorithm, from_hex},
    error::EvidenceError,
    event_log::Replay,
    reader::Reader,
};

/// The PCR that the kernel extends.
pub const IMA_PCR: u8 = 10;

/// Longest log in bytes: some hundred thousand measured files.
pub const LOG_LENGTH_MAX: usize = 64 << 20;

/// Longest template data in bytes: a digest, a path of 4,096 bytes and a signature.
const TEMPLATE_LENGTH_MAX: usize = 8192;

/// Name of the first entry: the digest of PCRs 0 to 9 when the kernel started.
pub const BOOT_AGGREGATE: &str = "boot_aggregate";

const STRUCTURE: &str = "IMA log";

/// A log of the templates `ima-ng` and `ima-sig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaLog {
    /// Entries in the order in which they were measured.
    pub entries: Vec<ImaEntry>,
}

/// One measured file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaEntry {
    /// Digest of the file; of no meaning for a violation.
    pub file_digest: Digest,
    /// Its path, as the kernel wrote it. Characters that are not printable ASCII are shown as `?`.
    pub path: String,
    /// What was hashed into the PCR; `None` for a violation, when the file was open for writing while it was measured.
    template: Option<Vec<u8>>,
}

impl ImaLog {
    /// Parses either form of the log: `binary_runtime_measurements` or `ascii_runtime_measurements`.
    ///
    /// # Errors
    /// [`EvidenceError`] unless every entry is of a known template and matches its SHA-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > LOG_LENGTH_MAX {
            return Err(EvidenceError::TooLarge { structure: STRUCTURE, limit: LOG_LENGTH_MAX });
        }
        // A binary log begins with the PCR's number in four bytes, an ASCII one with its digits.
        match bytes {
            [b'1', b'0', b' ', ..] => Self::parse_ascii(bytes),
            _ => Self::parse_binary(bytes),
        }
    }

    fn parse_binary(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new(STRUCTURE, bytes);
        let mut entries = Vec::new();
        while !reader.is_at_end() {
            if reader.u32_le()? != u32::from(IMA_PCR) {
                return Err(reader.malformed("an entry is of another PCR than 10"));
            }
            let template_digest: [u8; 20] = reader.array()?;
            let name = reader.sized_u32_le(16)?;
            let template = reader.sized_u32_le(TEMPLATE_LENGTH_MAX)?;
            if !matches!(name, b"ima-ng" | b"ima-sig") {
                return Err(reader.malformed("the template is neither ima-ng nor ima-sig"));
            }
            entries.push(ImaEntry::from_template(template, template_digest, name == b"ima-sig")?);
        }
        Ok(Self { entries })
    }

    fn parse_ascii(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let malformed = |reason| EvidenceError::Malformed { structure: STRUCTURE, reason };
        let text = core::str::from_utf8(bytes).map_err(|_| malformed("it is not text"))?;
        let mut entries = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or(malformed("a line has too few words"));
            if word()? != "10" {
                return Err(malformed("an entry is of another PCR than 10"));
            }
            let template_digest = from_hex(word()?, 20).and_then(|digest| digest.try_into().ok());
            let template_digest: [u8; 20] = template_digest.ok_or(malformed("a template digest is not one"))?;
            let with_signature = match word()? {
                "ima-ng" => false,
                "ima-sig" => true,
                _ => return Err(malformed("the template is neither ima-ng nor ima-sig")),
            };
            let file_digest = word()?;
            let path = word()?;
            let signature = if with_signature { words.next().unwrap_or_default() } else { "" };
            if words.next().is_some() {
                return Err(malformed("a line has too many words"));
            }
            let signature = from_hex(signature, TEMPLATE_LENGTH_MAX).ok_or(malformed("a signature is not one"))?;
            let template = template_of(file_digest, path, with_signature.then_some(&signature))
                .filter(|template| template.len() <= TEMPLATE_LENGTH_MAX)
                .ok_or(malformed("a file digest is not one"))?;
            entries.push(ImaEntry::from_template(&template, template_digest, with_signature)?);
        }
        Ok(Self { entries })
    }

    /// The number of entries after which PCR 10 of `bank` has this value; `None` if it never has. A quote is older than a
    /// log that was read after it, so entries may follow.
    ///
    /// The kernel hashes entries by the bank's own algorithm since Linux 5.9; before, it padded their SHA-1 with zeros,
    /// which is not accepted: it binds entries no better than SHA-1.
    #[must_use]
    pub fn entries_until(&self, bank: HashAlgorithm, value: &Digest) -> Option<usize> {
        let mut current = Digest::filled(bank, 0);
        if current == *value {
            return Some(0);
        }
        for (count, entry) in (1..).zip(&self.entries) {
            current = current.extended(entry.measured(bank).as_bytes());
            if current == *value {
                return Some(count);
            }
        }
        None
    }

    /// Whether the first entry is the boot aggregate of PCRs as they were replayed: of 0 to 9, or of 0 to 7 for SHA-1
    /// (Linux, `ima_calc_boot_aggregate`).
    #[must_use]
    pub fn begins_with_aggregate(&self, replay: &Replay) -> bool {
        let Some(entry) = self.entries.first().filter(|entry| entry.path == BOOT_AGGREGATE) else { return false };
        let algorithm = entry.file_digest.algorithm();
        let last = if algorithm == HashAlgorithm::Sha1 { 7 } else { 9 };
        let values: Option<Vec<&Digest>> = (0..=last).map(|pcr| replay.value(pcr)).collect();
        let Some(values) = values.filter(|values| values.iter().all(|value| value.algorithm() == algorithm)) else {
            return false;
        };
        let bytes: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        algorithm.digest(&bytes) == entry.file_digest
    }
}

impl ImaEntry {
    /// Whether the file was open for writing while it was measured, so that nothing is known about what was run.
    #[must_use]
    pub const fn is_violation(&self) -> bool {
        self.template.is_none()
    }

    /// What the kernel extended PCR 10 of a bank by; ones for a violation.
    fn measured(&self, bank: HashAlgorithm) -> Digest {
        self.template.as_ref().map_or(Digest::filled(bank, 0xff), |template| bank.digest(&[template]))
    }

    fn from_template(template: &[u8], template_digest: [u8; 20], with_signature: bool) -> Result<Self, EvidenceError> {
        let mut reader = Reader::new("IMA template", template);
        let digest = reader.sized_u32_le(TEMPLATE_LENGTH_MAX)?;
        let path = reader.sized_u32_le(TEMPLATE_LENGTH_MAX)?;
        if with_signature {
            reader.sized_u32_le(TEMPLATE_LENGTH_MAX)?;
        }
        let file_digest = parse_file_digest(digest).ok_or(reader.malformed("a file digest is not one"))?;
        let path = path.strip_suffix(b"\0").ok_or(reader.malformed("a path does not end with zero"))?;
        reader.finish()?;
        let violation = template_digest == [0; 20];
        if !violation && HashAlgorithm::Sha1.digest(&[template]).as_bytes() != template_digest {
            return Err(reader.malformed("an entry is not what its template digest says"));
        }
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
        let path = path.iter().map(shown).collect();
        Ok(Self { file_digest, path, template: (!violation).then(|| template.into()) })
    }
}

/// `algorithm ':' 0 digest`.
fn parse_file_digest(field: &[u8]) -> Option<Digest> {
    let colon = field.iter().position(|byte| *byte == b':')?;
    let algorithm: HashAlgorithm = core::str::from_utf8(&field[..colon]).ok()?.parse().ok()?;
    Digest::new(algorithm, field.get(colon + 1..)?.strip_prefix(b"\0")?).ok()
}

/// The template data of an entry's text.
fn template_of(file_digest: &str, path: &str, signature: Option<&Vec<u8>>) -> Option<Vec<u8>> {
    let (name, digits) = file_digest.split_once(':')?;
    let digest = from_hex(digits, Digest::LENGTH_MAX)?;
    let digest = [name.as_bytes(), b":\0", &digest].concat();
    let path = [path.as_bytes(), b"\0"].concat();
    let mut template = Vec::new();
    for field in [&digest, &path].into_iter().chain(signature) {
        template.extend(u32::try_from(field.len()).ok()?.to_le_bytes());
        template.extend(field);
    }
    Some(template)
}
