//! Certificates of endorsement keys: those of the emulator's maker, and chains that OpenSSL makes.

use std::{path::Path, process::Command};

use stele_evidence::{CertificateError, Endorsement, EndorsementAnchors, Public, verify_endorsement};
use tempfile::TempDir;

use crate::{
    platform::Platform,
    swtpm::{Swtpm, run},
};

/// 2030, in seconds since 1970: within the validity of all certificates that are made here.
const LATER: u64 = 1_893_456_000;

fn openssl(directory: &Path, words: &str) -> String {
    let mut command = Command::new("openssl");
    run(command.args(words.split(' ')).current_dir(directory), "openssl", "openssl").unwrap()
}

fn authorities(certificates: &[&Vec<u8>]) -> EndorsementAnchors {
    let authorities = certificates.iter().map(|certificate| certificate.to_vec()).collect();
    EndorsementAnchors { authorities, fingerprints: Vec::new() }
}

/// A platform with an RSA endorsement key, the maker's certificate of it, and the maker's authorities in DER, root first.
pub(crate) fn certified() -> (Platform, Vec<u8>, Vec<Vec<u8>>) {
    let (tpm, authority_pems) = Swtpm::start_certified();
    let platform = Platform::with_tpm(tpm, "rsa", "rsassa");
    platform.tpm.tool(&["tpm2_nvread", "0x1c00002", "-o", "ek.crt"]).unwrap();
    let certificate = platform.tpm.read("ek.crt");
    let mut ders = Vec::new();
    for pem in &authority_pems {
        platform.tpm.write("authority.pem", pem.as_bytes());
        openssl(&platform.tpm.path("."), "x509 -in authority.pem -outform DER -out authority.der");
        ders.push(platform.tpm.read("authority.der"));
    }
    (platform, certificate, ders)
}

#[test]
fn the_makers_certificate_leads_to_the_makers_authority() {
    let (platform, certificate, ders) = certified();
    let key = Public::parse_sized(&platform.tpm.read("ek.pub")).unwrap();
    let [root, issuer] = &ders[..] else { panic!("two authorities") };
    let verify = |intermediates: &[&[u8]], anchors: &EndorsementAnchors| {
        verify_endorsement(&key, Some(&certificate), intermediates, anchors, LATER)
    };
    let Ok(Endorsement::Authority { intermediates: 1, authority, .. }) = verify(&[issuer], &authorities(&[root]))
    else {
        panic!("no way to the root: {:?}", verify(&[issuer], &authorities(&[root])));
    };
    assert!(authority.contains("swtpm-localca-rootca"), "{authority}");
    assert!(matches!(verify(&[], &authorities(&[issuer])), Ok(Endorsement::Authority { intermediates: 0, .. })));
    assert_eq!(verify(&[], &authorities(&[root])), Err(CertificateError::NoPath));
    assert_eq!(verify(&[issuer], &EndorsementAnchors::default()), Err(CertificateError::NoPath));
    let early = verify_endorsement(&key, Some(&certificate), &[issuer], &authorities(&[root]), 1_000_000_000);
    assert_eq!(early, Err(CertificateError::NotValidAtTime));
    // As an NV index that is larger than the certificate gives it.
    let padded = [&certificate[..], &[0xff; 100]].concat();
    verify_endorsement(&key, Some(&padded), &[issuer], &authorities(&[root]), LATER).unwrap();
    // Another TPM's key.
    let stranger = Platform::new("rsa", "rsassa");
    let other = Public::parse_sized(&stranger.tpm.read("ek.pub")).unwrap();
    let refused = verify_endorsement(&other, Some(&certificate), &[issuer], &authorities(&[root]), LATER);
    assert_eq!(refused, Err(CertificateError::OtherKey));
    // Every flipped bit of the signed part or the signature ends the way.
    for at in (0..certificate.len()).step_by(7) {
        let mut changed = certificate.clone();
        changed[at] ^= 4;
        verify_endorsement(&key, Some(&changed), &[issuer], &authorities(&[root]), LATER).unwrap_err();
    }
}

/// A root on P-384, an authority on P-256 below it, and a certificate of a TPM's P-256 endorsement key.
struct Chain {
    directory: TempDir,
    key: Public,
}

impl Chain {
    fn new() -> Self {
        let platform = Platform::new("ecc", "ecdsa");
        let directory = tempfile::tempdir().unwrap();
        platform.tpm.tool(&["tpm2_readpublic", "-c", "ek.ctx", "-f", "pem", "-o", "ek.pem"]).unwrap();
        std::fs::write(directory.path().join("ek.pem"), platform.tpm.read("ek.pem")).unwrap();
        let chain = Self { directory, key: Public::parse_sized(&platform.tpm.read("ek.pub")).unwrap() };
        for (name, curve) in [("root", "P-384"), ("issuer", "P-256"), ("other", "P-256")] {
            chain.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {name}.key"));
        }
        chain.extensions("root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign");
        chain.openssl("req -new -key root.key -subj /CN=root -out root.csr");
        chain.openssl(
            "x509 -req -in root.csr -signkey root.key -sha384 -days 9999 -extfile root.ext -outform DER -out root.crt",
        );
        chain.openssl("x509 -inform DER -in root.crt -out root.pem");
        chain
    }

    fn openssl(&self, words: &str) {
        openssl(self.directory.path(), words);
    }

    fn extensions(&self, name: &str, lines: &str) {
        std::fs::write(self.directory.path().join(format!("{name}.ext")), lines).unwrap();
    }

    /// Certifies the issuer with these extensions.
    fn issuer(&self, extensions: &str) -> Vec<u8> {
        self.extensions("issuer", extensions);
        self.openssl("req -new -key issuer.key -subj /CN=issuer -out issuer.csr");
        let sign = "x509 -req -in issuer.csr -CA root.pem -CAkey root.key -CAcreateserial -sha384 -days 9999 -extfile issuer.ext";
        self.openssl(&format!("{sign} -out issuer.pem"));
        self.openssl("x509 -in issuer.pem -outform DER -out issuer.crt");
        self.read("issuer.crt")
    }

    /// Certifies the endorsement key with these extensions, by the issuer.
    fn leaf(&self, extensions: &str) -> Vec<u8> {
        self.extensions("leaf", extensions);
        self.openssl("req -new -key other.key -subj /CN=tpm -out leaf.csr");
        let sign = "x509 -req -in leaf.csr -force_pubkey ek.pem -CA issuer.pem -CAkey issuer.key -CAcreateserial";
        self.openssl(&format!("{sign} -sha256 -days 9999 -extfile leaf.ext -outform DER -out leaf.crt"));
        self.read("leaf.crt")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path().join(name)).unwrap()
    }

    fn verify(&self, leaf: &[u8], issuer: &[u8]) -> Result<Endorsement, CertificateError> {
        let anchors = authorities(&[&self.read("root.crt")]);
        verify_endorsement(&self.key, Some(leaf), &[issuer], &anchors, LATER)
    }
}

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign";
const LEAF: &str = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=2.23.133.8.1\n\
                    subjectAltName=critical,dirName:tpm\n[tpm]\nCN=STELE";

#[test]
fn a_chain_over_two_curves_is_followed_and_its_rules_are_kept() {
    let chain = Chain::new();
    let issuer = chain.issuer(AUTHORITY);
    let leaf = chain.leaf(LEAF);
    assert!(matches!(chain.verify(&leaf, &issuer), Ok(Endorsement::Authority { intermediates: 1, .. })));
    let other_use = chain.leaf("extendedKeyUsage=serverAuth");
    assert_eq!(chain.verify(&other_use, &issuer), Err(CertificateError::OtherUse));
    let unknown = chain.leaf("1.2.3.4=critical,ASN1:UTF8String:x");
    assert_eq!(chain.verify(&unknown, &issuer), Err(CertificateError::CriticalExtension));
    for extensions in [
        "basicConstraints=critical,CA:FALSE",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign",
        "subjectKeyIdentifier=hash",
    ] {
        let issuer = chain.issuer(extensions);
        assert_eq!(chain.verify(&chain.leaf(LEAF), &issuer), Err(CertificateError::NoPath), "{extensions}");
    }
}

#[test]
fn a_pinned_fingerprint_needs_no_certificate_but_the_attributes() {
    let platform = Platform::new("ecc", "ecdsa");
    let key = Public::parse_sized(&platform.tpm.read("ek.pub")).unwrap();
    let pinned = EndorsementAnchors { authorities: Vec::new(), fingerprints: vec![key.key.fingerprint()] };
    assert!(matches!(verify_endorsement(&key, None, &[], &pinned, 0), Ok(Endorsement::Fingerprint { .. })));
    let refused = verify_endorsement(&key, None, &[], &EndorsementAnchors::default(), 0);
    assert_eq!(refused, Err(CertificateError::NotPinned));
    let attestation_key = platform.attestation_key();
    let refused = verify_endorsement(&attestation_key, None, &[], &pinned, 0);
    assert_eq!(refused, Err(CertificateError::KeyAttributes));
    // What OpenSSL computes is what is pinned.
    platform.tpm.tool(&["tpm2_readpublic", "-c", "ek.ctx", "-f", "der", "-o", "ek.der"]).unwrap();
    let digest = openssl(&platform.tpm.path("."), "dgst -sha256 -r ek.der");
    assert_eq!(format!("sha256:{}", digest.split(' ').next().unwrap()), key.key.fingerprint().to_string());
}
