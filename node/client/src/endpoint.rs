//! Where a node listens.

use std::fmt;
use std::str::FromStr;

use crate::error::ClientError;

/// Plain HTTP (loopback only) or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Scheme, host and port of one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    /// Host without brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// A TLS endpoint from `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`].
    pub fn https(address: &str) -> Result<Self, ClientError> {
        Self::parse(Scheme::Https, address, address)
    }
    /// A plain endpoint from `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`].
    pub fn http(address: &str) -> Result<Self, ClientError> {
        Self::parse(Scheme::Http, address, address)
    }
    /// The scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }
    /// `host:port` as a request names it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn parse(scheme: Scheme, address: &str, whole: &str) -> Result<Self, ClientError> {
        let malformed = || ClientError::Endpoint { address: whole.chars().take(128).collect() };
        let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(malformed)?,
            None if host.contains(':') => return Err(malformed()),
            None => host,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_host) {
            return Err(malformed());
        }
        Ok(Self { scheme, host: host.to_owned(), port: port.parse().map_err(|_| malformed())? })
    }
}

impl FromStr for Endpoint {
    type Err = ClientError;

    /// Reads `https://host:port` or `http://host:port`.
    fn from_str(text: &str) -> Result<Self, ClientError> {
        let trimmed = text.trim_end_matches('/');
        if let Some(address) = trimmed.strip_prefix("https://") {
            Self::parse(Scheme::Https, address, text)
        } else if let Some(address) = trimmed.strip_prefix("http://") {
            Self::parse(Scheme::Http, address, text)
        } else {
            Err(ClientError::Endpoint { address: text.chars().take(128).collect() })
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_nonsense_is_refused() {
        for text in ["https://127.0.0.1:7401", "http://localhost:80", "https://[::1]:443"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:1",
            "https://",
            "https://host",
            "https://host:99999",
            "ftp://a:1",
            "https://a b:1",
            "https://::1:4",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
