//! Signature suites and the rule versions under which their signatures are accepted.

crate::codes! {
    /// A signature suite. The number is Stele's own; [`Suite::cose_algorithm`] is what a statement's header carries.
    pub enum Suite: u8 {
        /// ECDSA on P-256 with SHA-256; high and low s are both accepted.
        Es256 = 1 => "es256",
        /// Ed25519 under ZIP-215, the one rule under which single and batch verification accept the same set.
        EdDsa = 2 => "eddsa",
        /// SM2 with SM3 (GB/T 32918.2), default user id 1234567812345678.
        Sm2Sm3 = 3 => "sm2_sm3",
        /// ML-DSA-44 (RFC 9964); the number is reserved, no rule accepts it yet.
        MlDsa44 = 4 => "ml_dsa_44",
        /// ML-DSA-65 (RFC 9964); reserved.
        MlDsa65 = 5 => "ml_dsa_65",
        /// ML-DSA-87 (RFC 9964); reserved.
        MlDsa87 = 6 => "ml_dsa_87",
    }
}

/// COSE algorithm of SM2-SM3. None is registered with IANA, so it is taken from the private-use range (< -65536).
pub const COSE_SM2_SM3: i64 = -70_001;

impl Suite {
    /// The COSE algorithm number (RFC 9053 section 2, RFC 9964, private use for SM2).
    pub const fn cose_algorithm(self) -> i64 {
        match self {
            Self::Es256 => -7,
            Self::EdDsa => -8,
            Self::Sm2Sm3 => COSE_SM2_SM3,
            Self::MlDsa44 => -48,
            Self::MlDsa65 => -49,
            Self::MlDsa87 => -50,
        }
    }
    /// The suite of a COSE algorithm number.
    pub fn from_cose_algorithm(algorithm: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|suite| suite.cose_algorithm() == algorithm)
    }
    /// Bytes of a canonical public key: SEC1 compressed for the curves, raw for Ed25519 and ML-DSA.
    pub const fn public_key_len(self) -> usize {
        match self {
            Self::Es256 | Self::Sm2Sm3 => 33,
            Self::EdDsa => 32,
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }
    /// Bytes of a signature.
    pub const fn signature_len(self) -> usize {
        match self {
            Self::Es256 | Self::Sm2Sm3 | Self::EdDsa => 64,
            Self::MlDsa44 => 2420,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }
    /// Newest acceptance rule of this suite that this program implements; 0 means none.
    pub const fn rule_version_max(self) -> u16 {
        match self {
            Self::Es256 | Self::EdDsa | Self::Sm2Sm3 => 1,
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => 0,
        }
    }
}
