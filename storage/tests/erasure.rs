//! Any k shards of a stripe give the others back, whatever made them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use stele_storage::{DATA_SHARDS_MAX, ErasureBackend, ErasureCode, ErasureError, PARITY_SHARDS_MAX};

/// All shards of a stripe, data first.
type Stripe = Vec<Vec<u8>>;

fn available() -> impl Iterator<Item = ErasureBackend> {
    ErasureBackend::ALL.into_iter().filter(|backend| backend.is_available())
}

fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

fn slices_mut(shards: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    shards.iter_mut().map(Vec::as_mut_slice).collect()
}

fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|index| ((index + seed).wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]).collect()
}

fn encoded(code: &ErasureCode, data: &[Vec<u8>]) -> Stripe {
    let length = data[0].len();
    let mut parity = vec![vec![0xee; length]; code.parity_shards()];
    code.encode(&slices(data), &mut slices_mut(&mut parity));
    [data, &parity].concat()
}

fn stripe(code: &ErasureCode, length: usize) -> Stripe {
    let data: Vec<Vec<u8>> = (0..code.data_shards()).map(|shard| bytes(length, shard * 1009)).collect();
    encoded(code, &data)
}

/// The shards that `lost` does not name are to give those that it does.
fn check_recovery(code: &ErasureCode, stripe: &[Vec<u8>], lost: &[usize]) {
    let shards = stripe.iter().map(Vec::as_slice).enumerate();
    let present: Vec<(usize, &[u8])> = shards.filter(|(index, _)| !lost.contains(index)).collect();
    let mut made = vec![vec![0xee; stripe[0].len()]; lost.len()];
    code.reconstruct(&present, lost, &mut slices_mut(&mut made)).unwrap();
    for (index, made) in lost.iter().zip(&made) {
        assert!(
            *made == stripe[*index],
            "shard {index} of {} lost {lost:?} by {}",
            stripe.len(),
            code.backend().name()
        );
    }
}

/// All ways to choose some of so many.
fn choices(of: usize, some: usize) -> Vec<Vec<usize>> {
    let sets = (0_u32..1 << of).filter(|set| set.count_ones() as usize == some);
    sets.map(|set| (0..of).filter(|index| set >> index & 1 == 1).collect()).collect()
}

/// Byte b of data shard j is `59 j + 7 b + 1`; the parity is what ISA-L 2.30 makes of that with `gf_gen_cauchy1_matrix`.
const GOLDEN: [(usize, usize, &[[u8; 8]]); 3] = [
    (
        8,
        3,
        &[
            *b"\x24\x61\xc3\xe7\x41\xee\xd3\x05",
            *b"\x2d\x54\x0b\xa1\xd9\xaa\x2f\xd8",
            *b"\xd6\x5d\x1a\xab\xb6\x0c\xb4\x96",
        ],
    ),
    (4, 2, &[*b"\x54\xbc\xc0\x0a\x4b\xd8\x6d\x0d", *b"\x8e\xd4\x88\x6b\xd1\x9d\x81\x99"]),
    (
        10,
        4,
        &[
            *b"\x38\x24\xf9\x30\x52\x94\xda\x5b",
            *b"\xcb\xda\x37\x5f\x12\x5b\x53\x35",
            *b"\xec\x36\x31\xcd\xd4\xf5\xb7\x98",
            *b"\x77\xbe\x21\xb2\xed\x79\xe5\xd5",
        ],
    ),
];

#[test]
fn parity_is_that_of_isa_l() {
    for (data, parity, expected) in GOLDEN {
        // The same eight bytes over and over, so that vectors see them, too.
        for repeats in [1, 8, 9, 33] {
            let shard = |shard: usize| (0..8 * repeats).map(move |at| (shard * 59 + at % 8 * 7 + 1).to_le_bytes()[0]);
            let shards: Vec<Vec<u8>> = (0..data).map(|index| shard(index).collect()).collect();
            let expected: Vec<Vec<u8>> = expected.iter().map(|row| row.repeat(repeats)).collect();
            for backend in available() {
                let code = ErasureCode::with_backend(data, parity, backend).unwrap();
                assert_eq!(encoded(&code, &shards)[data..], expected, "{data}+{parity} by {}", backend.name());
            }
        }
    }
}

#[test]
fn isa_l_is_there_or_its_absence_is_said() {
    if !ErasureBackend::IsaL.is_available() {
        assert!(std::env::var_os("CI").is_none(), "CI is to have ISA-L (libisal-dev) when storage is built");
        #[allow(clippy::print_stderr, reason = "a test that cannot be run says so")]
        {
            eprintln!("skipped ISA-L: pkg-config knew no libisal (package libisal-dev) when storage was built");
        }
    }
}

#[test]
fn every_loss_of_three_among_eleven_is_recovered_by_every_backend_from_every_other() {
    for writer in available() {
        let stripe = stripe(&ErasureCode::with_backend(8, 3, writer).unwrap(), 321);
        for reader in available() {
            let code = ErasureCode::with_backend(8, 3, reader).unwrap();
            let losses = choices(11, 3);
            assert_eq!(losses.len(), 165);
            for lost in losses {
                check_recovery(&code, &stripe, &lost);
            }
        }
    }
}

#[test]
fn stripes_of_every_length_are_recovered() {
    for backend in available() {
        for (data, parity, lost) in [(8, 3, &[0, 7, 9][..]), (1, 1, &[0]), (32, 8, &[3, 1, 2, 30, 31, 32, 39, 35])] {
            let code = ErasureCode::with_backend(data, parity, backend).unwrap();
            for length in [0, 1, 63, 64, 65, 4095, 4096, 8193] {
                check_recovery(&code, &stripe(&code, length), lost);
            }
        }
    }
}

#[test]
fn shards_are_made_in_the_order_asked_for_from_those_in_the_order_given() {
    let code = ErasureCode::new(4, 2).unwrap();
    let stripe = stripe(&code, 100);
    // Five are present: the first four serve. The last is both present and wanted.
    let decoder = code.decoder(&[5, 3, 0, 4, 2], &[2, 1, 4]).unwrap();
    assert_eq!(decoder.inputs(), [5, 3, 0, 4]);
    let inputs: Vec<&[u8]> = decoder.inputs().iter().map(|index| stripe[*index].as_slice()).collect();
    let mut made = vec![vec![0; 100]; 3];
    decoder.apply(&inputs, &mut slices_mut(&mut made));
    assert_eq!(made, [&stripe[2], &stripe[1], &stripe[4]].map(Vec::clone));
}

#[test]
fn a_stripe_without_parity_has_its_data_alone() {
    let code = ErasureCode::new(3, 0).unwrap();
    assert_eq!((code.data_shards(), code.parity_shards(), code.shards()), (3, 0, 3));
    let stripe = stripe(&code, 70);
    check_recovery(&code, &stripe, &[]);
    assert_eq!(code.decoder(&[0, 1], &[2]).unwrap_err(), ErasureError::TooFewShards { present: 2, needed: 3 });
}

#[test]
fn shapes_out_of_bounds_are_refused() {
    for (data, parity) in
        [(0, 0), (0, 3), (DATA_SHARDS_MAX + 1, 3), (8, PARITY_SHARDS_MAX + 1), (usize::MAX, usize::MAX)]
    {
        let refused = ErasureCode::new(data, parity).unwrap_err();
        assert_eq!(refused, ErasureError::Shape { data, parity });
        assert_eq!(refused.code(), "erasure_shape");
    }
    assert!(ErasureCode::new(DATA_SHARDS_MAX, PARITY_SHARDS_MAX).is_ok());
}

#[test]
fn backends_that_are_not_here_are_refused() {
    for backend in ErasureBackend::ALL.into_iter().filter(|backend| !backend.is_available()) {
        let refused = ErasureCode::with_backend(8, 3, backend).unwrap_err();
        assert_eq!(refused, ErasureError::Backend { backend });
        assert_eq!(refused.code(), "erasure_backend");
    }
}

#[test]
fn shards_that_are_too_few_unknown_or_named_twice_are_refused() {
    let code = ErasureCode::new(4, 2).unwrap();
    let refused = |present: &[usize], wanted: &[usize]| code.decoder(present, wanted).unwrap_err();
    assert_eq!(refused(&[0, 1, 5], &[2]), ErasureError::TooFewShards { present: 3, needed: 4 });
    assert_eq!(refused(&[0, 1, 5, 6], &[2]), ErasureError::ShardIndex { index: 6, shards: 6 });
    assert_eq!(refused(&[0, 1, 4, 5], &[usize::MAX]), ErasureError::ShardIndex { index: usize::MAX, shards: 6 });
    assert_eq!(refused(&[0, 1, 5, 1], &[2]), ErasureError::ShardRepeated { index: 1 });
    assert_eq!(refused(&[0, 1, 4, 5], &[2, 3, 2]), ErasureError::ShardRepeated { index: 2 });
    let refused = code.reconstruct(&[(0, &[1]), (1, &[2])], &[2], &mut [&mut [0]]).unwrap_err();
    assert_eq!(refused.code(), "erasure_too_few_shards");
}

#[test]
#[should_panic(expected = "shards of 4 and of 5 bytes in one stripe")]
fn shards_of_different_lengths_are_no_stripe() {
    ErasureCode::new(2, 1).unwrap().encode(&[&[0; 4], &[0; 5]], &mut [&mut [0; 4]]);
}

#[test]
#[should_panic(expected = "2 shards where 1 are to be made")]
fn parity_that_the_code_does_not_make_is_refused() {
    ErasureCode::new(2, 1).unwrap().encode(&[&[0; 4], &[0; 4]], &mut [&mut [0; 4], &mut [0; 4]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stripe_is_the_same_by_every_backend_and_survives_any_loss(
        data in 1..=DATA_SHARDS_MAX,
        parity in 0..=PARITY_SHARDS_MAX,
        length in 0..6000_usize,
        seed in any::<u32>(),
        order in Just((0..DATA_SHARDS_MAX + PARITY_SHARDS_MAX).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let shards: Vec<Vec<u8>> = (0..data).map(|shard| bytes(length, seed as usize + shard * 7919)).collect();
        let portable = ErasureCode::with_backend(data, parity, ErasureBackend::Portable).unwrap();
        let stripe = encoded(&portable, &shards);
        let lost: Vec<usize> = order.into_iter().filter(|index| *index < data + parity).take(parity).collect();
        for backend in available() {
            let code = ErasureCode::with_backend(data, parity, backend).unwrap();
            prop_assert!(encoded(&code, &shards) == stripe, "{data}+{parity} by {}", backend.name());
            check_recovery(&code, &stripe, &lost);
        }
    }
}
