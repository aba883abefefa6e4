//! A platform with a TPM, its endorsement and attestation keys, and the evidence that it gives.

use stele_evidence::{ClockInfo, Evidence, Expectation, Policy, Public, Verdict, appraise};

use crate::swtpm::Swtpm;

/// PCRs that are quoted unless a test says otherwise.
pub(crate) const SELECTION: &str = "sha256:0,1,2,3,4,5,6,7,9,10,11,12";

/// A TPM with an endorsement and an attestation key in `ek.ctx` and `ak.ctx`.
pub(crate) struct Platform {
    pub(crate) tpm: Swtpm,
    scheme: String,
}

/// Evidence as a node sends it.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) quote: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) pcrs: Vec<u8>,
    pub(crate) attestation_key: Vec<u8>,
    pub(crate) event_log: Option<Vec<u8>>,
    pub(crate) ima_log: Option<Vec<u8>>,
}

impl Platform {
    /// A platform whose keys are of a kind: `ecc` with `ecdsa`, or `rsa` with `rsassa` or `rsapss`.
    pub(crate) fn new(kind: &str, scheme: &str) -> Self {
        Self::with_tpm(Swtpm::start(), kind, scheme)
    }

    pub(crate) fn with_tpm(tpm: Swtpm, kind: &str, scheme: &str) -> Self {
        tpm.tool(&["tpm2_createek", "-c", "ek.ctx", "-G", kind, "-u", "ek.pub"]).unwrap();
        let words = ["tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", kind, "-g", "sha256", "-s", scheme];
        tpm.tool(&[&words[..], &["-u", "ak.pub", "-n", "ak.name", "-r", "ak.priv"]].concat()).unwrap();
        tpm.flush();
        Self { tpm, scheme: scheme.into() }
    }

    pub(crate) fn attestation_key(&self) -> Public {
        Public::parse_sized(&self.tpm.read("ak.pub")).unwrap()
    }

    /// A quote of `selection` qualified by `data`.
    pub(crate) fn quote(&self, selection: &str, data: &[u8]) -> Files {
        let data = hex::encode(data);
        let mut words = vec!["tpm2_quote", "-c", "ak.ctx", "-l", selection, "-q", &data, "-g", "sha256"];
        words.extend(["--scheme", &self.scheme]);
        let files = ["-m", "quote.msg", "-s", "quote.sig", "-o", "quote.pcrs"];
        words.extend(files);
        self.tpm.tool(&words).unwrap();
        self.tpm.flush();
        Files {
            quote: self.tpm.read("quote.msg"),
            signature: self.tpm.read("quote.sig"),
            pcrs: self.tpm.read("quote.pcrs"),
            attestation_key: self.tpm.read("ak.pub"),
            event_log: None,
            ima_log: None,
        }
    }

    /// What `tpm2_checkquote` says to these files.
    pub(crate) fn tool_accepts(&self, files: &Files, data: &[u8]) -> Result<String, String> {
        for (name, bytes) in [
            ("check.msg", &files.quote),
            ("check.sig", &files.signature),
            ("check.pcrs", &files.pcrs),
            ("check.pub", &files.attestation_key),
        ] {
            self.tpm.write(name, bytes);
        }
        let data = hex::encode(data);
        let mut words = vec!["tpm2_checkquote", "-u", "check.pub", "-m", "check.msg", "-s", "check.sig"];
        words.extend(["-f", "check.pcrs", "-g", "sha256", "-q", &data]);
        if let Some(log) = &files.event_log {
            self.tpm.write("check.log", log);
            words.extend(["-e", "check.log"]);
        }
        self.tpm.tool(&words)
    }
}

impl Files {
    pub(crate) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            quote: &self.quote,
            signature: &self.signature,
            pcrs: &self.pcrs,
            attestation_key: &self.attestation_key,
            event_log: self.event_log.as_deref(),
            ima_log: self.ima_log.as_deref(),
        }
    }

    /// The verdict of a verifier that enrolled this key and asked with this data.
    pub(crate) fn verdict(&self, data: &[u8], policy: &Policy, previous: Option<&ClockInfo>) -> Verdict {
        let name = Public::parse_sized(&self.attestation_key).unwrap().name();
        let expectation = Expectation { attestation_key_name: &name, qualifying_data: data, policy, previous };
        appraise(&self.evidence(), &expectation)
    }
}

/// The codes of a verdict's reasons.
pub(crate) fn codes(verdict: &Verdict) -> Vec<&'static str> {
    assert_eq!(verdict.passed, verdict.reasons.is_empty());
    verdict.reasons.iter().map(stele_evidence::Reason::code).collect()
}

impl Platform {
    /// Loads the attestation key again after a reset.
    pub(crate) fn load_attestation_key(&self) {
        self.endorse(&["tpm2_load", "-C", "ek.ctx", "-u", "ak.pub", "-r", "ak.priv", "-c", "ak.ctx"]).unwrap();
    }

    /// Runs a tool with a session that may use the endorsement key.
    pub(crate) fn endorse(&self, words: &[&str]) -> Result<String, String> {
        self.tpm.flush();
        self.tpm.tool(&["tpm2_startauthsession", "--policy-session", "-S", "session.ctx"]).unwrap();
        self.tpm.tool(&["tpm2_policysecret", "-S", "session.ctx", "-c", "e"]).unwrap();
        let output = self.tpm.tool(&[words, &["-P", "session:session.ctx"]].concat());
        self.tpm.flush();
        output
    }
}
