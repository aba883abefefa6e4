//! Query strings and path parameters: few, short, each known; anything else is refused, so that a misspelt parameter is
//! never ignored silently.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use stele_types::exchange::Progress;
use stele_types::{Code, Hash, Height, LogIndex, StatementId};

use super::problem::Problem;

/// Longest query string.
const QUERY_BYTES_MAX: usize = 256;

/// The parameters of a path; what does not decode is a problem like any other.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|_| Problem::parameter("path", "UTF-8 behind percent signs"))
    }
}

/// A query string.
pub(super) struct Parameters<'q> {
    pairs: Vec<(&'q str, &'q str)>,
}

impl<'q> Parameters<'q> {
    /// Reads a query string that may hold `known` names, each once.
    pub(super) fn read(query: Option<&'q str>, known: &[&'static str]) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(Problem::parameter("query", "longer than any that this node knows"));
        }
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let expected = if known.is_empty() { "none is known here".into() } else { known.join(", ") };
                return Err(Problem::parameter("query", &format!("an unknown parameter; known here: {expected}")));
            }
            if pairs.iter().any(|(seen, _)| *seen == name) {
                return Err(Problem::parameter(name, "given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    fn value(&self, name: &str) -> Option<&'q str> {
        self.pairs.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &'static str, low: u64, high: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let value = decimal(text).filter(|value| (low..=high).contains(value));
        value.map(Some).ok_or_else(|| Problem::parameter(name, &format!("a whole number from {low} to {high}")))
    }

    /// Where to go on with a list of what is stored, `from` and `skip`: the segment, and the objects to skip in it.
    pub(super) fn place(&self) -> Result<(u32, u32), Problem> {
        let number = |name| {
            let number = self.number(name, 0, u64::from(u32::MAX))?.unwrap_or_default();
            Ok::<_, Problem>(u32::try_from(number).unwrap_or(u32::MAX))
        };
        Ok((number("from")?, number("skip")?))
    }

    /// A word.
    pub(super) fn word(&self, name: &str) -> Option<&'q str> {
        self.value(name)
    }

    /// A flag: absent, `0` or `1`.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.value(name) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(Problem::parameter(name, "0 or 1")),
        }
    }

    /// `from`: the height whose validators the caller trusts; without it, those of genesis.
    pub(super) fn from(&self) -> Result<Height, Problem> {
        Ok(Height(self.number("from", 1, u64::MAX)?.unwrap_or(1)))
    }

    /// `wait_ms` and `wait`: how long to wait for how much.
    pub(super) fn wait(&self, wait_max_ms: u64) -> Result<Wait, Problem> {
        let milliseconds = self.number("wait_ms", 0, wait_max_ms)?.unwrap_or(0);
        let target = match self.value("wait") {
            None => Progress::Certified,
            Some(word) => Progress::from_word(word)
                .filter(|target| *target != Progress::Pending)
                .ok_or_else(|| Problem::parameter("wait", "executed or certified"))?,
        };
        Ok(Wait { time: Duration::from_millis(milliseconds), target })
    }
}

/// How long a request waits, for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) time: Duration,
    pub(super) target: Progress,
}

/// A statement by its id or by the index of its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryName {
    Id(StatementId),
    Index(LogIndex),
}

impl EntryName {
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        let index = || decimal(text).map(|index| Self::Index(LogIndex(index)));
        StatementId::from_hex(text).map(Self::Id).or_else(index).ok_or_else(|| {
            Problem::parameter("entry", "a statement id (64 hexadecimal digits, lower case) or a log index")
        })
    }
}

/// A statement id in a path.
pub(super) fn statement(text: &str) -> Result<StatementId, Problem> {
    StatementId::from_hex(text)
        .ok_or_else(|| Problem::parameter("statement", "a statement id: 64 hexadecimal digits, lower case"))
}

/// The root of something that is stored, in a path.
pub(super) fn root(text: &str) -> Result<Hash, Problem> {
    Hash::from_hex(text).ok_or_else(|| Problem::parameter("root", "64 hexadecimal digits, lower case"))
}

/// A height in a path.
pub(super) fn height(text: &str) -> Result<Height, Problem> {
    decimal(text)
        .filter(|height| *height > 0)
        .map(Height)
        .ok_or_else(|| Problem::parameter("height", "a whole number from 1"))
}

/// A decimal number in its one form: no sign, no leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

/// The body of a bulk query: statement ids as a CBOR sequence of byte strings, or in JSON.
pub(super) fn statements(content_type: &str, body: &[u8], max: usize) -> Result<Vec<StatementId>, Problem> {
    let ids = if content_type == super::format::JSON { json_ids(body, max)? } else { cbor_ids(body, max)? };
    if ids.is_empty() {
        return Err(Problem::new(Code::Malformed).detail("name at least one statement id"));
    }
    Ok(ids)
}

fn too_many(max: usize) -> Problem {
    Problem::new(Code::TooLarge).detail(format!("at most {max} statement ids in one request"))
}

fn json_ids(body: &[u8], max: usize) -> Result<Vec<StatementId>, Problem> {
    let malformed = || Problem::new(Code::Malformed).detail("send {\"statements\": [\"64 hexadecimal digits\", …]}");
    let query: super::view::StatementsView = serde_json::from_slice(body).map_err(|_| malformed())?;
    if query.statements.len() > max {
        return Err(too_many(max));
    }
    query.statements.iter().map(|text| StatementId::from_hex(text).ok_or_else(malformed)).collect()
}

fn cbor_ids(body: &[u8], max: usize) -> Result<Vec<StatementId>, Problem> {
    /// Head and bytes of a 32-byte string.
    const ID_BYTES: usize = 34;
    let (ids, rest) = body.as_chunks::<ID_BYTES>();
    if ids.len() > max {
        return Err(too_many(max));
    }
    let id = |bytes: &[u8; ID_BYTES]| match bytes {
        [0x58, 0x20, id @ ..] => Some(StatementId(*id)),
        _ => None,
    };
    let read: Option<Vec<_>> = ids.iter().map(id).collect();
    read.filter(|_| rest.is_empty())
        .ok_or_else(|| Problem::new(Code::Malformed).detail("send a CBOR sequence of byte strings of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_repeated_and_overlong_parameters_are_refused() {
        let read = |query: &str| Parameters::read(Some(query), &["wait_ms", "wait"]).map(drop).map_err(|p| p.code());
        assert_eq!(read(""), Ok(()));
        assert_eq!(read("wait_ms=5&wait=executed"), Ok(()));
        assert_eq!(read("wait_s=5"), Err(Code::ParameterInvalid));
        assert_eq!(read("wait_ms=5&wait_ms=6"), Err(Code::ParameterInvalid));
        assert_eq!(read(&"wait_ms=5&".repeat(40)), Err(Code::ParameterInvalid));
    }

    #[test]
    fn numbers_have_one_form_and_keep_their_bounds() {
        let number = |query: &str| {
            let parameters = Parameters::read(Some(query), &["limit"]).unwrap();
            parameters.number("limit", 1, 100).map_err(|problem| problem.code())
        };
        assert_eq!(number("limit=100"), Ok(Some(100)));
        assert_eq!(number(""), Ok(None));
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=+5", "limit=05", "limit=", "limit=99999999999999999999"]
        {
            assert_eq!(number(bad), Err(Code::ParameterInvalid), "{bad}");
        }
    }

    #[test]
    fn ids_come_as_cbor_or_json_and_are_counted() {
        let id = StatementId([0xab; 32]);
        let one = [&[0x58, 0x20], &id.0[..]].concat();
        let json = format!("{{\"statements\":[\"{}\"]}}", id.to_hex()).into_bytes();
        assert_eq!(statements("application/cbor-seq", &one, 1).unwrap(), [id]);
        assert_eq!(statements("application/json", &json, 1).unwrap(), [id]);
        let code = |content_type, body: &[u8], max| statements(content_type, body, max).unwrap_err().code();
        assert_eq!(code("application/cbor-seq", &one.repeat(2), 1), Code::TooLarge);
        assert_eq!(code("application/cbor-seq", &one[..33], 1), Code::Malformed);
        assert_eq!(code("application/cbor-seq", &[], 1), Code::Malformed);
        assert_eq!(code("application/json", b"{\"statements\":[\"AB\"]}", 1), Code::Malformed);
        assert_eq!(code("application/json", b"{\"statement\":[]}", 1), Code::Malformed);
    }
}
