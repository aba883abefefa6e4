//! What `object_store` has no words for: locks and versions of objects, in requests of our own.
//!
//! Retention is asked for after an object was read back and sealed, not with the request that makes it: a copy that came
//! wrong can still be deleted, and gateways ignore the headers of a lock on objects that come in parts (Ceph 16.2 does). What
//! counts in the end is what the object says of itself, which is asked.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpErrorKind, HttpRequest, HttpRequestBody};
use stele_accel_hash::{HashAlgorithm, digest};

use crate::transport::{Answer, Transport};
use crate::{ColdError, ColdOptions, RetentionMode};

/// The first pause before a request is made again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A header, and what it says.
type Header = (&'static str, &'static str);

/// Requests of our own to one endpoint.
#[derive(Debug)]
pub(crate) struct Locks {
    transport: Transport,
    credential: AwsCredential,
    endpoint: String,
    region: String,
    retries_max: usize,
    retry_timeout: Duration,
}

/// The newest version of an object, and how it is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Its id; none in a bucket that keeps no versions.
    pub(crate) id: Option<String>,
    pub(crate) bytes: u64,
    /// Nobody deletes it before.
    pub(crate) until: Option<SystemTime>,
    pub(crate) compliance: bool,
}

impl Locks {
    pub(crate) fn new(options: &ColdOptions, transport: Transport) -> Self {
        let credentials = options.credentials.clone();
        Self {
            transport,
            credential: AwsCredential { key_id: credentials.key_id, secret_key: credentials.secret, token: None },
            endpoint: options.endpoint.trim_end_matches('/').to_owned(),
            region: options.region.clone(),
            retries_max: options.retries_max,
            retry_timeout: options.retry_timeout,
        }
    }

    /// Makes a bucket, unless it is there.
    pub(crate) async fn make_bucket(&self, bucket: &str, lockable: bool) -> Result<(), ColdError> {
        let headers: &[Header] = if lockable { &[("x-amz-bucket-object-lock-enabled", "true")] } else { &[] };
        let answer = self.ask_with(&Method::PUT, bucket, "", headers).await?;
        let there = answer.status == StatusCode::CONFLICT && says(&answer, "BucketAlreadyOwnedByYou");
        if answer.status.is_success() || there { Ok(()) } else { Err(unexpected(bucket, &answer)) }
    }

    /// Whether objects of a bucket can be locked.
    pub(crate) async fn can_lock(&self, bucket: &str) -> Result<bool, ColdError> {
        let answer = self.ask(&Method::GET, &format!("{bucket}/?object-lock"), "").await?;
        match answer.status {
            StatusCode::OK => Ok(says(&answer, "<ObjectLockEnabled>Enabled</ObjectLockEnabled>")),
            StatusCode::NOT_FOUND if says(&answer, "ObjectLockConfigurationNotFoundError") => Ok(false),
            _ => Err(unexpected(bucket, &answer)),
        }
    }

    /// The newest version of an object; none if there is no object.
    pub(crate) async fn version(&self, bucket: &str, key: &str) -> Result<Option<Version>, ColdError> {
        let answer = self.ask(&Method::HEAD, &format!("{bucket}/{key}"), "").await?;
        match answer.status {
            StatusCode::OK => Ok(Some(Version::of(&answer.headers))),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(unexpected(key, &answer)),
        }
    }

    /// Locks an object until a time. That it is locked is for [`Locks::version`] to tell.
    pub(crate) async fn lock(
        &self,
        bucket: &str,
        key: &str,
        mode: RetentionMode,
        until: SystemTime,
    ) -> Result<(), ColdError> {
        let (mode, until) = (mode.name(), humantime::format_rfc3339_seconds(until));
        let retention = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode>\
             <RetainUntilDate>{until}</RetainUntilDate></Retention>"
        );
        let answer = self.ask(&Method::PUT, &format!("{bucket}/{key}?retention"), &retention).await?;
        if answer.status.is_success() { Ok(()) } else { Err(unexpected(key, &answer)) }
    }

    /// Deletes a version of an object, or the object where there are no versions. That it is not there is as good.
    pub(crate) async fn delete(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<(), ColdError> {
        let version = version.map(|id| format!("?versionId={}", escaped(id))).unwrap_or_default();
        let answer = self.ask(&Method::DELETE, &format!("{bucket}/{key}{version}"), "").await?;
        let gone = answer.status.is_success() || answer.status == StatusCode::NOT_FOUND;
        if gone { Ok(()) } else { Err(unexpected(key, &answer)) }
    }

    /// Asks, and asks again if the endpoint did not answer: each of these requests may be carried out twice.
    async fn ask(&self, method: &Method, path: &str, body: &str) -> Result<Answer, ColdError> {
        self.ask_with(method, path, body, &[]).await
    }

    async fn ask_with(&self, method: &Method, path: &str, body: &str, headers: &[Header]) -> Result<Answer, ColdError> {
        let begun = tokio::time::Instant::now();
        let mut pause = PAUSES.0;
        for attempt in 0.. {
            let reason = match self.transport.ask(self.request(method, path, body, headers)?).await {
                Ok(answer) if !answer.status.is_server_error() && answer.status != StatusCode::TOO_MANY_REQUESTS => {
                    return Ok(answer);
                }
                Ok(answer) => format!("{method} {path}: {}", answer.status),
                Err(error) if error.kind() == HttpErrorKind::Decode => {
                    return Err(ColdError::unavailable(format!("{method} {path}: {error}")));
                }
                Err(error) => format!("{method} {path}: {error}"),
            };
            if attempt >= self.retries_max || begun.elapsed() + pause > self.retry_timeout {
                return Err(ColdError::unavailable(reason));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        unreachable!("attempts are bounded")
    }

    /// A signed request (AWS Signature Version 4).
    fn request(&self, method: &Method, path: &str, body: &str, headers: &[Header]) -> Result<HttpRequest, ColdError> {
        let bad = |error: &dyn std::fmt::Display| ColdError::refused(format!("no request for {path}: {error}"));
        let builder = http::Request::builder().method(method).uri(format!("{}/{path}", self.endpoint));
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        // What carries a lock has to say what it sums to.
        let sum = base64::display::Base64Display::new(
            &digest(HashAlgorithm::Sha256, &[], body.as_bytes()),
            &base64::engine::general_purpose::STANDARD,
        )
        .to_string();
        let builder = if body.is_empty() { builder } else { builder.header("x-amz-checksum-sha256", sum) };
        let body = HttpRequestBody::from(body.to_owned());
        let mut request = builder.body(body).map_err(|error| bad(&error))?;
        let signed = AwsAuthorizer::new(&self.credential, "s3", &self.region).try_authorize(&mut request, None);
        signed.map_err(|error| bad(&error))?;
        Ok(request)
    }
}

impl Version {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            // "null" is how a bucket whose versions are suspended says that there is none.
            id: header("x-amz-version-id").filter(|id| *id != "null").map(str::to_owned),
            bytes: header("content-length").and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
            until: header("x-amz-object-lock-retain-until-date").and_then(|until| humantime::parse_rfc3339(until).ok()),
            compliance: header("x-amz-object-lock-mode") == Some(RetentionMode::Compliance.name()),
        }
    }
}

fn says(answer: &Answer, what: &str) -> bool {
    answer.body.windows(what.len()).any(|window| window == what.as_bytes())
}

fn unexpected(name: &str, answer: &Answer) -> ColdError {
    let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(512)]).into_owned();
    let reason = format!("{name}: {} {said}", answer.status);
    match answer.status {
        StatusCode::NOT_FOUND => ColdError::NotFound { name: name.to_owned() },
        status if status.is_client_error() => ColdError::refused(reason),
        _ => ColdError::unavailable(reason),
    }
}

/// A value in a query, with everything escaped that is not plain.
fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_endpoint_says() {
        let headers = HeaderMap::from_iter(
            [
                ("x-amz-version-id", "dnr7"),
                ("content-length", "42"),
                ("x-amz-object-lock-mode", "COMPLIANCE"),
                ("x-amz-object-lock-retain-until-date", "2026-11-27T12:33:58.176380Z"),
            ]
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())),
        );
        let version = Version::of(&headers);
        let until = humantime::parse_rfc3339("2026-11-27T12:33:58.176380Z").unwrap();
        let expected = Version { id: Some("dnr7".to_owned()), bytes: 42, until: Some(until), compliance: true };
        assert_eq!(version, expected);
        let nothing = Version { id: None, bytes: 0, until: None, compliance: false };
        assert_eq!(Version::of(&HeaderMap::new()), nothing);
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("-iDg.K~_ae/&=+ %"), "-iDg.K~_ae%2F%26%3D%2B%20%25");
    }
}
