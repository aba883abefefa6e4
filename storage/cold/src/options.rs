//! How the cold tier is reached, and what is asked of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use stele_accel_hash::HashAlgorithm;
use stele_storage::PIECE_BYTES;

use crate::ColdError;

/// Least and most bytes of a part. S3 takes none below the first but the last of an object; more than the second only waits
/// longer when it has to be sent again.
const PART_BYTES: std::ops::RangeInclusive<usize> = 5 << 20..=64 << 20;

/// Most requests at a time: a gateway's default for all its clients is 1,024.
const REQUESTS_MAX: std::ops::RangeInclusive<usize> = 1..=256;

/// Most days of a retention: a hundred years. Beyond, somebody meant something else.
const DAYS_MAX: u32 = 36_525;

/// How a [`ColdTier`](crate::ColdTier) is opened.
#[derive(Clone, Debug)]
pub struct ColdOptions {
    /// Where the gateway is: `https://host:port`; `http` only on this host, since nothing else keeps off who listens.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket of objects. With a retention it has Object Lock.
    pub objects: String,
    /// The bucket of seals, where what is there cannot be created again. It may be the same.
    pub seals: String,
    /// What the names of all objects in both buckets begin with, without a slash at its end. Not empty.
    pub prefix: String,
    /// Who asks.
    pub credentials: Credentials,
    /// File of the certificates, PEM, that an `https` endpoint's is signed by. The system's are not taken.
    pub authorities: Option<PathBuf>,
    /// How long objects are locked from when they are put; none if they are not.
    pub retention: Option<Retention>,
    /// Hash of content roots.
    pub hash: HashAlgorithm,
    /// Bytes of a part: whole pieces of 64 KiB, 5 to 64 MiB.
    pub part_bytes: usize,
    /// Requests at a time, 1 to 256.
    pub requests_max: usize,
    /// Bytes of objects that are in memory at a time, on their way in either direction. At least a part.
    pub memory_bytes_max: usize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long one request may take, its body included.
    pub request_timeout: Duration,
    /// How often a request is made again that failed without the endpoint's refusing it.
    pub retries_max: usize,
    /// Time after which none is made again.
    pub retry_timeout: Duration,
}

impl ColdOptions {
    /// Options of an endpoint, with the customary bounds.
    #[must_use]
    pub fn new(endpoint: &str, objects: &str, seals: &str, credentials: Credentials) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            region: "default".to_owned(),
            objects: objects.to_owned(),
            seals: seals.to_owned(),
            prefix: "stele".to_owned(),
            credentials,
            authorities: None,
            retention: None,
            hash: HashAlgorithm::Sha256,
            part_bytes: 8 << 20,
            requests_max: 16,
            memory_bytes_max: 64 << 20,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            retries_max: 5,
            retry_timeout: Duration::from_secs(60),
        }
    }

    /// Whether every option is what it can be.
    ///
    /// # Errors
    /// `Option`, which names the first that is not.
    pub fn check(&self) -> Result<(), ColdError> {
        let uri: Uri = self.endpoint.parse().map_err(|error| ColdError::option("endpoint", format!("{error}")))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let local = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        let bare = uri.path().trim_end_matches('/').is_empty() && uri.query().is_none();
        match uri.scheme_str() {
            _ if !bare || host.is_empty() => Err(ColdError::option("endpoint", "is not scheme, host and port alone")),
            Some("https") if self.authorities.is_none() => {
                Err(ColdError::option("authorities", "is missing: who vouches for the endpoint's certificate?"))
            }
            Some("https") => Ok(()),
            Some("http") if local => Ok(()),
            _ => Err(ColdError::option("endpoint", "is neither https nor http on this host")),
        }?;
        bucket("objects", &self.objects)?;
        bucket("seals", &self.seals)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let parts = self.prefix.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !parts || self.prefix.len() > 200 || !self.prefix.bytes().all(plain) {
            return Err(ColdError::option(
                "prefix",
                "is not parts of letters, digits, dots and dashes between slashes",
            ));
        }
        if self.credentials.key_id.is_empty() || self.credentials.secret.is_empty() {
            return Err(ColdError::option("credentials", "are empty"));
        }
        if self.retention.is_some_and(|retention| !(1..=DAYS_MAX).contains(&retention.days)) {
            return Err(ColdError::option("retention", format!("is not of 1 to {DAYS_MAX} days")));
        }
        if !PART_BYTES.contains(&self.part_bytes) || !self.part_bytes.is_multiple_of(PIECE_BYTES) {
            return Err(ColdError::option("part_bytes", "is not whole pieces of 64 KiB, 5 to 64 MiB"));
        }
        if !REQUESTS_MAX.contains(&self.requests_max) {
            return Err(ColdError::option("requests_max", "is not 1 to 256"));
        }
        if self.memory_bytes_max < self.part_bytes || self.memory_bytes_max > 64 << 30 {
            return Err(ColdError::option("memory_bytes_max", "is less than a part, or more than 64 GiB"));
        }
        let times = [self.connect_timeout, self.request_timeout, self.retry_timeout];
        // Signatures expire after fifteen minutes.
        if times.iter().any(|time| time.is_zero() || *time > Duration::from_secs(600)) || self.retries_max > 20 {
            return Err(ColdError::option("timeouts or retries", "are none, over 600 s, or more than 20"));
        }
        Ok(())
    }
}

fn bucket(option: &'static str, name: &str) -> Result<(), ColdError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let good = (3..=63).contains(&name.len()) && name.bytes().all(plain) && !name.contains("..");
    if good { Ok(()) } else { Err(ColdError::option(option, "is no name of a bucket (3 to 63 of a-z, 0-9, - and .)")) }
}

/// Who asks. The secret is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the key.
    pub key_id: String,
    /// The key.
    pub secret: String,
}

impl Credentials {
    /// Those in a file: the key's name in the first line, the key in the second.
    ///
    /// # Errors
    /// `Option` if it cannot be read, or has anything else in it.
    pub fn read(path: &Path) -> Result<Self, ColdError> {
        let wrong = |what: String| ColdError::option("credentials", format!("in {}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        match text.lines().collect::<Vec<_>>()[..] {
            [key_id, secret] if !key_id.is_empty() && !secret.is_empty() => {
                Ok(Self { key_id: key_id.to_owned(), secret: secret.to_owned() })
            }
            _ => {
                Err(wrong("not two lines, of which the first is the name of the key and the second the key".to_owned()))
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// How long objects cannot be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Who may shorten it.
    pub mode: RetentionMode,
    /// Days from when an object was put.
    pub days: u32,
}

/// Who may shorten a retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionMode {
    /// Who has the right to.
    Governance,
    /// Nobody.
    Compliance,
}

impl RetentionMode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ColdOptions {
        let credentials = Credentials { key_id: "key".to_owned(), secret: "hush-hush".to_owned() };
        ColdOptions::new("http://127.0.0.1:7480", "objects", "seals", credentials)
    }

    #[test]
    fn nobody_sees_the_secret() {
        let shown = format!("{:?} {:#?}", options(), options());
        assert!(shown.contains("key_id") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        assert!(options().check().is_ok());
        let refused = |change: fn(&mut ColdOptions)| {
            let mut changed = options();
            change(&mut changed);
            match changed.check() {
                Err(ColdError::Option { option, .. }) => option,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(|options| options.endpoint = "http://10.1.2.3:7480".to_owned()), "endpoint");
        assert_eq!(refused(|options| options.endpoint = "ftp://127.0.0.1".to_owned()), "endpoint");
        assert_eq!(refused(|options| options.endpoint = "http://127.0.0.1/bucket".to_owned()), "endpoint");
        assert_eq!(refused(|options| options.endpoint = String::new()), "endpoint");
        assert_eq!(refused(|options| options.endpoint = "https://s3.example".to_owned()), "authorities");
        assert_eq!(refused(|options| options.seals = "No".to_owned()), "seals");
        assert_eq!(refused(|options| options.prefix = "a//b".to_owned()), "prefix");
        assert_eq!(refused(|options| options.prefix = "../b".to_owned()), "prefix");
        assert_eq!(refused(|options| options.credentials.secret.clear()), "credentials");
        assert_eq!(refused(|options| options.part_bytes = (5 << 20) + 1), "part_bytes");
        assert_eq!(refused(|options| options.requests_max = 0), "requests_max");
        assert_eq!(refused(|options| options.memory_bytes_max = 1), "memory_bytes_max");
        assert_eq!(
            refused(|options| options.retention = Some(Retention { mode: RetentionMode::Compliance, days: u32::MAX })),
            "retention"
        );
    }
}
