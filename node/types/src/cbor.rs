//! Deterministic CBOR (RFC 8949 section 4.2.1): the one encoding of everything that is signed or hashed.
//!
//! Structures are maps with ascending unsigned keys, written by the [`record!`](crate::record) macro. Decoding reads
//! the declared keys in order, so a missing, unknown, repeated or unordered key is an error, and [`from_slice`]
//! re-encodes what it read and compares: indefinite lengths and overlong integers cannot pass.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use minicbor::data::Type;

/// Encoder over a growing byte vector; writing to memory cannot fail.
pub type Encoder<'a> = minicbor::Encoder<&'a mut Vec<u8>>;
/// Decoder over a byte slice.
pub type Decoder<'b> = minicbor::Decoder<'b>;

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CborError {
    /// Not well-formed CBOR, or another type than the schema names at this place.
    Malformed,
    /// Well-formed, but not the deterministic encoding of what it says.
    NotDeterministic,
    /// A key that the schema requires is missing; the key is carried.
    MissingKey(u64),
    /// A key that the schema does not know, repeats or that is out of order.
    UnknownKey,
    /// Longer, deeper or larger than the named bound.
    TooLarge,
    /// A value outside its range, for example an enumeration code that is not assigned.
    OutOfRange,
    /// Bytes follow the value.
    TrailingBytes,
}

impl fmt::Display for CborError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed CBOR"),
            Self::NotDeterministic => f.write_str("CBOR is not in deterministic form"),
            Self::MissingKey(key) => write!(f, "required key {key} is missing"),
            Self::UnknownKey => f.write_str("unknown, repeated or unordered key"),
            Self::TooLarge => f.write_str("value exceeds its size limit"),
            Self::OutOfRange => f.write_str("value is out of range"),
            Self::TrailingBytes => f.write_str("bytes follow the value"),
        }
    }
}

impl core::error::Error for CborError {}

impl From<minicbor::decode::Error> for CborError {
    fn from(_: minicbor::decode::Error) -> Self {
        Self::Malformed
    }
}

/// A value with one deterministic encoding.
pub trait Field: Sized {
    /// Whether a map carries this value at all; only absent options say no.
    fn is_present(&self) -> bool {
        true
    }
    /// The value that a missing key stands for, if the schema allows it to be missing.
    fn absent() -> Option<Self> {
        None
    }
    /// Writes the value.
    fn encode(&self, e: &mut Encoder<'_>);
    /// Reads the value.
    ///
    /// # Errors
    /// Any [`CborError`] but `NotDeterministic` and `TrailingBytes`, which [`from_slice`] finds.
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError>;
}

/// The deterministic encoding of `value`.
pub fn to_vec<T: Field>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut Encoder::new(&mut bytes));
    bytes
}

/// Decodes exactly one deterministic value from `bytes`.
///
/// # Errors
/// Any [`CborError`]; a value whose re-encoding differs from `bytes` is `NotDeterministic`.
pub fn from_slice<T: Field>(bytes: &[u8]) -> Result<T, CborError> {
    let mut decoder = Decoder::new(bytes);
    let value = T::decode(&mut decoder)?;
    if decoder.position() != bytes.len() {
        return Err(CborError::TrailingBytes);
    }
    if to_vec(&value) != bytes {
        return Err(CborError::NotDeterministic);
    }
    Ok(value)
}

/// Encoding into memory has no failure; the result type of the encoder is discarded here, once.
#[doc(hidden)]
pub fn put<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok(), "writing CBOR to memory cannot fail");
    let _ = result;
}

/// Length of a definite array, at most `max`.
pub(crate) fn array_len(d: &mut Decoder<'_>, max: usize) -> Result<usize, CborError> {
    bounded(d.array()?, max)
}

/// Length of a definite map, at most `max` pairs.
pub(crate) fn map_len(d: &mut Decoder<'_>, max: usize) -> Result<usize, CborError> {
    bounded(d.map()?, max)
}

fn bounded(len: Option<u64>, max: usize) -> Result<usize, CborError> {
    let len = len.ok_or(CborError::Malformed)?;
    let len = usize::try_from(len).map_err(|_| CborError::TooLarge)?;
    if len > max { Err(CborError::TooLarge) } else { Ok(len) }
}

macro_rules! unsigned_field {
    ($($ty:ident),*) => {$(
        impl Field for $ty {
            fn encode(&self, e: &mut Encoder<'_>) { put(e.$ty(*self)); }
            fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> { Ok(d.$ty()?) }
        }
    )*};
}
unsigned_field!(u8, u16, u32, u64, i64, bool);

impl<const N: usize> Field for [u8; N] {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.bytes(self));
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        d.bytes()?.try_into().map_err(|_| CborError::OutOfRange)
    }
}

/// A missing key is `None`; the same type inside an array is `null`.
impl<T: Field> Field for Option<T> {
    fn is_present(&self) -> bool {
        self.is_some()
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn encode(&self, e: &mut Encoder<'_>) {
        match self {
            Some(value) => value.encode(e),
            None => put(e.null()),
        }
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        if d.datatype()? == Type::Null {
            d.null()?;
            return Ok(None);
        }
        T::decode(d).map(Some)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.array(2));
        self.0.encode(e);
        self.1.encode(e);
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        if array_len(d, 2)? != 2 {
            return Err(CborError::Malformed);
        }
        Ok((A::decode(d)?, B::decode(d)?))
    }
}

/// An array of at most `MAX` values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// Takes `values` when there are at most `MAX` of them.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn new(values: Vec<T>) -> Result<Self, CborError> {
        if values.len() > MAX { Err(CborError::TooLarge) } else { Ok(Self(values)) }
    }
    /// The values, given up.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Field, const MAX: usize> Field for List<T, MAX> {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.array(self.0.len() as u64));
        for value in &self.0 {
            value.encode(e);
        }
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let len = array_len(d, MAX)?;
        // Every element takes at least one byte, so the input bounds the allocation.
        let mut values = Vec::with_capacity(len.min(d.input().len()));
        for _ in 0..len {
            values.push(T::decode(d)?);
        }
        Ok(Self(values))
    }
}

/// A byte string of at most `MAX` bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Blob<MAX> {
    /// Takes `bytes` when there are at most `MAX` of them.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn new(bytes: Vec<u8>) -> Result<Self, CborError> {
        if bytes.len() > MAX { Err(CborError::TooLarge) } else { Ok(Self(bytes)) }
    }
}

impl<const MAX: usize> Deref for Blob<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> Field for Blob<MAX> {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.bytes(&self.0));
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        let bytes = d.bytes()?;
        if bytes.len() > MAX { Err(CborError::TooLarge) } else { Ok(Self(bytes.to_vec())) }
    }
}

/// A text of at most `MAX` bytes of UTF-8. Only names of networks, never of persons, are texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Takes `text` when it has at most `MAX` bytes.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn new(text: impl Into<String>) -> Result<Self, CborError> {
        let text = text.into();
        if text.len() > MAX { Err(CborError::TooLarge) } else { Ok(Self(text)) }
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Field for Text<MAX> {
    fn encode(&self, e: &mut Encoder<'_>) {
        put(e.str(&self.0));
    }
    fn decode(d: &mut Decoder<'_>) -> Result<Self, CborError> {
        Self::new(d.str()?)
    }
}

/// Reads one map in key order; the cursor behind [`record!`](crate::record).
pub struct MapReader<'d, 'b> {
    decoder: &'d mut Decoder<'b>,
    left: usize,
}

impl<'d, 'b> MapReader<'d, 'b> {
    /// Opens a map of at most `max` pairs.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn new(decoder: &'d mut Decoder<'b>, max: usize) -> Result<Self, CborError> {
        let left = map_len(decoder, max)?;
        Ok(Self { decoder, left })
    }
    /// The value under `key`, or what its absence stands for.
    ///
    /// # Errors
    /// `MissingKey`, or what the value's decoder says.
    pub fn field<T: Field>(&mut self, key: u64) -> Result<T, CborError> {
        if self.left > 0 {
            let mut probe = self.decoder.probe();
            if probe.u64()? == key {
                self.decoder.u64()?;
                self.left -= 1;
                return T::decode(self.decoder);
            }
        }
        T::absent().ok_or(CborError::MissingKey(key))
    }
    /// Ends the map.
    ///
    /// # Errors
    /// `UnknownKey` when pairs are left.
    pub fn finish(self) -> Result<(), CborError> {
        if self.left == 0 { Ok(()) } else { Err(CborError::UnknownKey) }
    }
}

/// Declares a structure that is a CBOR map with ascending unsigned keys.
///
/// Gives `KEYS` (for the CDDL check) and [`Field`]; keys start at 1 because commands keep key 0 for their type.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* $key:literal => $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl $name {
            /// Keys of the map with the names of their fields, in order.
            pub const KEYS: &'static [(u64, &'static str)] = &[$(($key, stringify!($field))),*];

            /// Number of pairs that this value writes.
            #[allow(unused_mut, reason = "a record without fields writes none")]
            pub(crate) fn pairs(&self) -> u64 {
                let mut pairs = 0;
                $(if $crate::cbor::Field::is_present(&self.$field) { pairs += 1; })*
                pairs
            }
            /// Writes the pairs without the map header.
            #[allow(unused_variables, reason = "a record without fields writes none")]
            pub(crate) fn encode_pairs(&self, e: &mut $crate::cbor::Encoder<'_>) {
                $(if $crate::cbor::Field::is_present(&self.$field) {
                    $crate::cbor::put(e.u64($key));
                    $crate::cbor::Field::encode(&self.$field, e);
                })*
            }
            /// Reads the pairs from an open map.
            #[allow(unused_variables, reason = "a record without fields reads none")]
            pub(crate) fn decode_pairs(map: &mut $crate::cbor::MapReader<'_, '_>) -> Result<Self, $crate::cbor::CborError> {
                Ok(Self { $($field: map.field($key)?),* })
            }
        }

        impl $crate::cbor::Field for $name {
            fn encode(&self, e: &mut $crate::cbor::Encoder<'_>) {
                $crate::cbor::put(e.map(self.pairs()));
                self.encode_pairs(e);
            }
            fn decode(d: &mut $crate::cbor::Decoder<'_>) -> Result<Self, $crate::cbor::CborError> {
                let mut map = $crate::cbor::MapReader::new(d, Self::KEYS.len())?;
                let value = Self::decode_pairs(&mut map)?;
                map.finish()?;
                Ok(value)
            }
        }
    };
}

/// Declares an enumeration that is an unsigned code on the wire and a snake_case word for people.
#[macro_export]
macro_rules! codes {
    ($(#[$meta:meta])* pub enum $name:ident : $repr:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal => $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vmeta])* $variant = $code),* }

        impl $name {
            /// Every assigned value, in code order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The number on the wire.
            pub const fn number(self) -> $repr {
                match self { $(Self::$variant => $code),* }
            }
            /// The stable snake_case word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
            /// The value of a number, if it is assigned.
            pub const fn from_number(number: $repr) -> Option<Self> {
                match number { $($code => Some(Self::$variant),)* _ => None }
            }
            /// The value of a word, if there is one.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::cbor::Field for $name {
            fn encode(&self, e: &mut $crate::cbor::Encoder<'_>) {
                $crate::cbor::Field::encode(&self.number(), e);
            }
            fn decode(d: &mut $crate::cbor::Decoder<'_>) -> Result<Self, $crate::cbor::CborError> {
                let number = <$repr as $crate::cbor::Field>::decode(d)?;
                Self::from_number(number).ok_or($crate::cbor::CborError::OutOfRange)
            }
        }
    };
}
