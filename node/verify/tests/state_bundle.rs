//! State bundles: what holds, and everything that must not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Network, state_key};
use stele_types::bundle::ProvenValue;
use stele_types::cbor::{self, Blob, List};
use stele_types::limits::STATE_BUNDLE_BYTES_MAX;
use stele_types::{Hash, Height, StateBundle};
use stele_verify::{StateVerdict, TrustAnchor, VerifyError, state, verdict};

fn anchor(network: &Network) -> TrustAnchor {
    TrustAnchor::genesis(&network.genesis.to_bytes()).unwrap()
}

fn verify(network: &Network, bundle: &StateBundle) -> Result<StateVerdict, VerifyError> {
    state::verify_bundle_bytes(&cbor::to_vec(bundle), &anchor(network))
}

fn changed(bundle: &StateBundle, change: impl FnOnce(&mut Vec<ProvenValue>)) -> StateBundle {
    let mut values = bundle.values.clone().into_vec();
    change(&mut values);
    StateBundle { values: List::new(values).unwrap(), ..bundle.clone() }
}

#[test]
fn values_and_absences_are_proven_from_genesis() {
    let network = Network::with_history("north");
    let (present, absent) = (network.statement(4).0, state_key("absent"));
    let verdict = verify(&network, &network.state_bundle(&[present, absent])).unwrap();
    assert_eq!((verdict.network, verdict.values.len()), (network.id, 2));
    let value = verdict.about(&Hash(present)).unwrap();
    assert_eq!((value.value.as_deref(), value.height), (Some(&6_u64.to_be_bytes()[..]), Height(6)));
    assert_eq!(value.time_ms, network.header(7).time_ms);
    assert_eq!(verdict.about(&Hash(absent)).unwrap().value, None);
    assert_eq!((verdict.as_str(), verdict.exit_code()), ("absent", verdict::EXIT_ABSENT));
    let verdict = verify(&network, &network.state_bundle(&[present])).unwrap();
    assert_eq!((verdict.as_str(), verdict.exit_code()), ("present", verdict::EXIT_PRESENT));
    let other = Hash(absent);
    assert_eq!(verdict.about(&other), Err(VerifyError::StateKeyMissing { key: other }));
}

/// The path to a key that is absent leads to its neighbours too: a proof of another absence is another truth, and none
/// about the key that was asked for.
#[test]
fn no_flipped_byte_and_no_shorter_bundle_is_accepted_as_an_untruth() {
    let network = Network::with_history("north");
    let anchor = anchor(&network);
    let (present, absent) = (network.statement(4).0, state_key("absent"));
    let bytes = cbor::to_vec(&network.state_bundle(&[present, absent]));
    assert!(state::verify_bundle_bytes(&bytes, &anchor).is_ok());
    let key = bytes.windows(32).position(|window| window == absent).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        if let Ok(verdict) = state::verify_bundle_bytes(&flipped, &anchor) {
            assert!((key..key + 32).contains(&at), "byte {at}");
            assert!(verdict.about(&Hash(absent)).is_err(), "byte {at}");
            assert!(
                verdict
                    .values
                    .iter()
                    .all(|proven| { proven.value.as_ref() == network.state.pairs().get(&proven.key.0) })
            );
        }
        assert!(state::verify_bundle_bytes(&bytes[..at], &anchor).is_err(), "cut at {at}");
    }
    let long = state::verify_bundle_bytes(&vec![0; STATE_BUNDLE_BYTES_MAX + 1], &anchor);
    assert_eq!(long.unwrap_err().code(), "too_large");
}

#[test]
fn lies_about_values_have_a_stable_code() {
    let network = Network::with_history("north");
    let sound = network.state_bundle(&[network.statement(4).0, state_key("absent")]);
    let code = |bundle: &StateBundle| verify(&network, bundle).unwrap_err().code();
    let at = |values: &[ProvenValue]| values.iter().position(|value| value.value.is_some()).unwrap();
    let other = changed(&sound, |values| {
        let at = at(values);
        values[at].value = Some(Blob::new(b"other".to_vec()).unwrap());
    });
    assert_eq!(code(&other), "state_proof_invalid");
    let denied = changed(&sound, |values| {
        let at = at(values);
        values[at].value = None;
    });
    assert_eq!(code(&denied), "state_proof_invalid");
    // The header of an older state, however well certified.
    let older = network.certified_header(1);
    let results = Height(older.header.height.0 - 1);
    let aged = changed(&sound, |values| values.iter_mut().for_each(|value| value.height = results));
    let aged = StateBundle { headers: List::new(vec![older.clone()]).unwrap(), ..aged };
    assert_eq!(code(&aged), "state_proof_invalid");
    // A quorum of another network, a header nobody signed, a version to come.
    assert_eq!(verify(&Network::with_history("south"), &sound).unwrap_err().code(), "other_network");
    let mut unsigned = network.certified_header(4);
    unsigned.header.state_root.0[0] ^= 1;
    let unsigned = StateBundle { headers: List::new(vec![unsigned]).unwrap(), ..sound.clone() };
    assert_eq!(code(&unsigned), "certificate_mismatch");
    assert_eq!(code(&StateBundle { version: 2, ..sound.clone() }), "version_unsupported");
    // Neither values without a header nor headers without a value, no key twice, no other order.
    let two = StateBundle { headers: List::new(vec![older, network.certified_header(4)]).unwrap(), ..sound.clone() };
    let backwards = |values: &mut Vec<ProvenValue>| values.reverse();
    let twice = |values: &mut Vec<ProvenValue>| values[1] = values[0].clone();
    for malformed in [
        StateBundle { headers: List::default(), ..sound.clone() },
        two,
        changed(&sound, Vec::clear),
        changed(&sound, backwards),
        changed(&sound, twice),
        changed(&sound, |values| values[0].height = Height(5)),
    ] {
        assert_eq!(code(&malformed), "state_bundle_form");
    }
}
