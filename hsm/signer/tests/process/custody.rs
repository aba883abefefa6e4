//! The custody key: where it lies, in which states it opens, and how it comes back.

use std::{collections::BTreeMap, fs, path::PathBuf, thread, time::Duration};

use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use stele_evidence::{Approval, Digest, HashAlgorithm, PlatformState};
use stele_hsm::{
    SignerKind,
    custody::{Custodian, CustodyKey, SealedClassKey, SealedShare, SoftwareCustodian},
    remote::wire::Role,
};
use stele_types::NetworkId;

use crate::{
    custodians::{self, block_on},
    host::{Backing, Host, genesis},
    ledger::vote,
};

/// As long as a refusal stands, and a little.
const REFUSAL_TIME: Duration = Duration::from_millis(1_100);

fn custodian(host: &Host, kind: SignerKind) -> Box<dyn Custodian> {
    Box::new(host.runtime.block_on(host.socket().custodian(kind)).unwrap())
}

/// What opening a class key says, by a custodian that remembers nothing.
fn opened(host: &Host, key: &SealedClassKey) -> Result<[u8; 32], String> {
    let opened = block_on(custodian(host, SignerKind::Tpm).blob_key(key, &[1; 32]));
    opened.map(|key| *key.derive(b"test")).map_err(|error| error.code().to_owned())
}

fn made(host: &Host) -> SealedClassKey {
    block_on(custodian(host, SignerKind::Tpm).make_class_key(&genesis().network().0, 7)).unwrap()
}

#[test]
fn a_node_opens_class_keys_through_the_signer_as_by_a_file() {
    let network = genesis().network().0;
    for (backing, kind) in [(Backing::Tpm, SignerKind::Tpm), (Backing::Files, SignerKind::Software)] {
        let mut host = Host::made_with(backing, &format!("[custody]\nsigner = \"{kind}\"\n"));
        host.start();
        let first = custodian(&host, kind);
        custodians::a_class_key_opens_under_its_own_name_alone(&network, || custodian(&host, kind));
        let (class_key, other_network) = (block_on(first.make_class_key(&network, 7)).unwrap(), NetworkId([9; 32]).0);
        let foreign = block_on(first.make_class_key(&other_network, 7)).unwrap();
        let error = block_on(first.blob_key(&foreign, &[1; 32])).unwrap_err();
        assert_eq!(error.code(), "malformed_request", "of another network");
        let directory = tempfile::tempdir().unwrap();
        let second = SoftwareCustodian::generate(&directory.path().join("second.key")).unwrap();
        custodians::another_opens_what_was_sealed_for_it_and_nothing_else(&network, &*first, &second);
        custodians::another_opens_what_was_sealed_for_it_and_nothing_else(&network, &second, &*first);
        // Restarted, it has the same key.
        let before = custodians::derived(&*first, &class_key, 1);
        host.kill();
        host.start();
        let again = custodian(&host, kind);
        custodians::a_blob_key_follows_from_class_key_and_salt(&network, &*first, &*again);
        assert_eq!(custodians::derived(&*again, &class_key, 1), before);
        let published = host.keys().custody.unwrap();
        assert_eq!(published.kind().unwrap(), kind);
        // By no other name, and for nothing else.
        let error = host.runtime.block_on(host.socket().custodian(SignerKind::Pkcs11)).unwrap_err();
        assert_eq!(error.code(), "signer_key");
        let sealed = host.path("state/custody.sealed").exists();
        assert_eq!(
            (sealed, host.path("state/custody.key").exists()),
            (kind == SignerKind::Tpm, kind == SignerKind::Software)
        );
    }
    let host = Host::running(Backing::Files);
    let error = host.runtime.block_on(host.socket().custodian(SignerKind::Software)).unwrap_err();
    assert_eq!(error.code(), "signer_key", "it has none");
}

#[test]
fn a_class_key_that_is_open_does_not_wait_for_the_signer() {
    let mut host = Host::made_with(Backing::Tpm, "[custody]\nsigner = \"tpm\"\n");
    host.start();
    let custodian = custodian(&host, SignerKind::Tpm);
    let [known, unknown] =
        [7, 8].map(|class| block_on(custodian.make_class_key(&genesis().network().0, class)).unwrap());
    let before = custodians::derived(&*custodian, &known, 1);
    host.kill();
    assert_eq!(custodians::derived(&*custodian, &known, 1), before);
    let error = block_on(custodian.blob_key(&unknown, &[1; 32])).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("signer_away", true));
}

/// A release's policy key, and its approvals in the folder of a host.
struct Release {
    key: SigningKey,
}

impl Release {
    fn new(secret: u8) -> Self {
        Self { key: SigningKey::from_slice(&[secret; 32]).unwrap() }
    }

    fn section(&self) -> String {
        let point = self.key.verifying_key().to_encoded_point(true);
        let digits: String = point.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[custody]\nsigner = \"tpm\"\napprovals = \"approvals\"\npolicy_key = \"{digits}\"\n")
    }

    fn approve(&self, host: &Host, name: &str, pcr_11: Digest) {
        let pcrs: BTreeMap<u8, Digest> = [(4, Digest::filled(HashAlgorithm::Sha256, 0)), (11, pcr_11)].into();
        let signature: Signature = self.key.sign(&PlatformState::new(&pcrs).unwrap().message());
        let approval = Approval::new(name.into(), pcrs, signature.to_der().as_bytes());
        fs::create_dir_all(host.path("approvals")).unwrap();
        let path = host.path("approvals").join(format!("{name}.json"));
        fs::write(path, serde_json::to_string(&approval).unwrap()).unwrap();
    }
}

#[test]
fn a_key_under_the_releases_policy_key_opens_by_its_approvals_alone() {
    let untouched = Digest::filled(HashAlgorithm::Sha256, 0);
    let (release, stranger) = (Release::new(5), Release::new(6));
    let mut host = Host::made_with(Backing::Tpm, &release.section());
    host.start();
    // Nothing is approved: it votes, and opens no body.
    let long_term = host.signer(Role::Validator, SignerKind::Tpm);
    vote(&host, &long_term, 5, 9).unwrap();
    let class_key = made(&host);
    assert_eq!(opened(&host, &class_key), Err("approval_missing".into()));
    assert!(host.log().contains("approval_missing"), "{}", host.log());
    stranger.approve(&host, "stranger", untouched);
    thread::sleep(REFUSAL_TIME);
    assert_eq!(opened(&host, &class_key), Err("approval_foreign".into()));
    release.approve(&host, "2", untouched.extended(&[1; 32]));
    fs::write(host.path("approvals/broken.json"), "{}").unwrap();
    thread::sleep(REFUSAL_TIME);
    assert_eq!(opened(&host, &class_key), Err("approval_stale".into()));
    release.approve(&host, "1", untouched);
    thread::sleep(REFUSAL_TIME);
    let key = opened(&host, &class_key).unwrap();
    // Restarted, it opens again by itself.
    host.kill();
    host.start();
    assert_eq!(opened(&host, &class_key), Ok(key));

    // An update that was not approved, and then is: a signature opens what was sealed long before.
    host.kill();
    fs::remove_file(host.path("approvals/2.json")).unwrap();
    let extend = format!("11:sha256={}", "01".repeat(32));
    host.swtpm.as_ref().unwrap().tool(&["tpm2_pcrextend", &extend]).unwrap();
    host.start();
    assert_eq!(opened(&host, &class_key), Err("approval_stale".into()));
    release.approve(&host, "2", untouched.extended(&[1; 32]));
    thread::sleep(REFUSAL_TIME);
    assert_eq!(opened(&host, &class_key), Ok(key));

    // Another policy key in the configuration opens nothing that was sealed under the first.
    host.kill();
    host.configure_with(Backing::Tpm, &stranger.section());
    stranger.approve(&host, "stranger", untouched.extended(&[1; 32]));
    host.start();
    assert_eq!(opened(&host, &class_key), Err("seal_policy".into()));
}

#[test]
fn a_key_in_a_file_moves_into_the_signer_once() {
    let mut host = Host::made(Backing::Tpm);
    let file = host.shown("custody.key");
    let before = SoftwareCustodian::generate(&host.path("custody.key")).unwrap();
    let class_key = block_on(before.make_class_key(&genesis().network().0, 7)).unwrap();
    assert!(host.program(&["custody", "import", &file]).unwrap_err().contains("no [custody]"));
    host.configure_with(Backing::Tpm, "[custody]\nsigner = \"tpm\"\n");
    let (status, said) = host.refuse();
    assert!(status == 1 && said.contains("custody import"), "{status}: {said}");
    let published = host.program(&["custody", "import", &file]).unwrap();
    assert_eq!(published, host.program(&["keys"]).unwrap());
    assert!(host.program(&["custody", "import", &file]).unwrap_err().contains("never replaced"));
    host.start();
    assert_eq!(opened(&host, &class_key), Ok(custodians::derived(&before, &class_key, 1)));
    let status = host.program(&["status"]).unwrap();
    assert!(status.contains("\"custody\""), "{status}");
    let secret = fs::read_to_string(host.path("custody.key")).unwrap();
    assert!(!host.log().contains(secret.lines().nth(1).unwrap()));
}

/// People who keep shares.
struct Holders(Vec<CustodyKey>);

impl Holders {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| CustodyKey::generate().unwrap()).collect())
    }

    fn section(&self, required: u8) -> String {
        let holder = |(at, key): (usize, &CustodyKey)| {
            let digits: String = key.public_key().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{ name = \"holder-{at}\", public_key = \"{digits}\" }}")
        };
        let holders: Vec<String> = self.0.iter().enumerate().map(holder).collect();
        format!(
            "[custody]\nsigner = \"tpm\"\n[custody.shares]\nrequired = {required}\nholders = [{}]\n",
            holders.join(", ")
        )
    }

    /// The shares of a folder, sealed by their holders for a recovery key; files of `to`.
    fn give(&self, from: PathBuf, to: &Host, recovery_key: &str) -> Vec<String> {
        let point = p256::PublicKey::from_sec1_bytes(&decode(recovery_key)).unwrap();
        let point = p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&point, false);
        let recipient = point.as_bytes().try_into().unwrap();
        let folder = from.file_name().unwrap().to_str().unwrap();
        let give = |(at, key): (usize, &CustodyKey)| {
            let text = fs::read_to_string(from.join(format!("share-{}-holder-{at}.json", at + 1))).unwrap();
            let share: SealedShare = serde_json::from_str(&text).unwrap();
            let given = share.open(key).unwrap().seal(&recipient).unwrap();
            let path = to.path(&format!("{folder}-{at}.json"));
            fs::write(&path, serde_json::to_string(&given).unwrap()).unwrap();
            path.display().to_string()
        };
        self.0.iter().enumerate().map(give).collect()
    }
}

fn decode(text: &str) -> Vec<u8> {
    let digits = text.trim().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn holders_of_shares_bring_the_key_back_into_another_tpm() {
    let holders = Holders::new(3);
    let mut lost = Host::configured_with(Backing::Tpm, &holders.section(2));
    assert!(lost.program(&["init"]).unwrap_err().contains("--shares"));
    lost.program(&["init", "--out", &lost.shown("node-keys.json"), "--shares", &lost.shown("shares")]).unwrap();
    lost.adopt();
    lost.start();
    let class_key = made(&lost);
    let key = opened(&lost, &class_key).unwrap();
    lost.kill();
    // Split anew, the same key has other shares.
    lost.program(&["custody", "split", "--out", &lost.shown("again")]).unwrap();

    let mut found = Host::configured_with(Backing::Tpm, &holders.section(2));
    found.program(&["init", "--without-custody", "--out", &found.shown("node-keys.json")]).unwrap();
    found.adopt();
    let (status, said) = found.refuse();
    assert!(status == 1 && said.contains("custody recover"), "{status}: {said}");
    let refused =
        |found: &Host, shares: &[&str]| found.program(&[&["custody", "recover"], shares].concat()).unwrap_err();
    let early = holders.give(lost.path("shares"), &found, BASE_POINT);
    assert!(refused(&found, &[&early[0], &early[1]]).contains("recovery-key"));
    let recovery_key = found.program(&["custody", "recovery-key"]).unwrap();
    assert_eq!(found.program(&["custody", "recovery-key"]).unwrap(), recovery_key, "made once");
    assert!(refused(&found, &[&early[0], &early[1]]).contains("share_foreign"));
    let shares = holders.give(lost.path("shares"), &found, &recovery_key);
    let again = holders.give(lost.path("again"), &found, &recovery_key);
    assert!(refused(&found, &[&shares[0]]).contains("shares_too_few"));
    assert!(refused(&found, &[&shares[0], &shares[0]]).contains("share_repeated"));
    assert!(refused(&found, &[&shares[0], &again[1]]).contains("shares_mixed"));
    let damaged = fs::read_to_string(&shares[1]).unwrap().replace("holder-1", "holder-2");
    fs::write(found.path("damaged.json"), damaged).unwrap();
    assert!(refused(&found, &[&shares[0], &found.shown("damaged.json")]).contains("share_damaged"));
    fs::write(found.path("none.json"), "{}").unwrap();
    assert!(refused(&found, &[&shares[0], &found.shown("none.json")]).contains("share_malformed"));

    found.program(&["custody", "recover", &shares[2], &shares[0]]).unwrap();
    assert!(!found.path("state/recovery.sealed").exists());
    assert!(found.program(&["custody", "recover", &shares[2], &shares[0]]).unwrap_err().contains("never replaced"));
    found.start();
    assert_eq!(opened(&found, &class_key), Ok(key));
    // New shares bring the same key back, too, without the old ones.
    let mut third = Host::configured_with(Backing::Tpm, &holders.section(2));
    third.program(&["init", "--without-custody", "--out", &third.shown("node-keys.json")]).unwrap();
    third.adopt();
    let recovery_key = third.program(&["custody", "recovery-key"]).unwrap();
    let again = holders.give(lost.path("again"), &third, &recovery_key);
    third.program(&["custody", "recover", &again[1], &again[2]]).unwrap();
    third.start();
    assert_eq!(opened(&third, &class_key), Ok(key));
}

/// SEC 2 section 2.4.2: a key that nobody here has.
const BASE_POINT: &str = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
