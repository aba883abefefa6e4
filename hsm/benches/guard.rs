//! What one guarded vote costs, with and without `fdatasync`.
//!
//! ```text
//! cargo bench -p stele-hsm --bench guard --profile dev -- [DIRECTORY]
//! ```
//!
//! The guard files are made in the directory, which decides the drive that is measured; the default is the present
//! one.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use stele_hsm::{GuardDurability, Signer, SoftwareSigner, Step, VoteGuard, VoteRequest};

/// Votes of one measurement.
const VOTES: u32 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().skip(1).find(|argument| argument != "--bench").map_or(".".into(), PathBuf::from);
    let directory = tempfile::tempdir_in(directory)?;
    for (name, durability) in [("process", GuardDurability::Process), ("sync", GuardDurability::Sync)] {
        let path = directory.path().join(name);
        VoteGuard::create(&path, [2; 32])?;
        let guard = Arc::new(VoteGuard::open(&path, [2; 32], durability)?);
        let signer = SoftwareSigner::ephemeral()?.with_vote_guard(Arc::clone(&guard));
        let mut times = Vec::new();
        for height in 0..VOTES {
            let bytes = prevote(height);
            let request = VoteRequest {
                validator: [2; 32],
                height: height.into(),
                round: 0,
                step: Step::Prevote,
                value_id: Some([9; 32]),
                bytes: &bytes,
            };
            let started = Instant::now();
            block_on(signer.sign_vote(&request))?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 1000];
        let write = Duration::from_nanos(guard.figures().write_nanoseconds / u64::from(VOTES));
        println!("{name:<8} vote p50 {:?} p99 {:?}, of which the guard's write on average {write:?}", at(500), at(990));
    }
    Ok(())
}

/// The bytes of a prevote at round 0 by the layout of `stele_hsm::request`.
fn prevote(height: u32) -> Vec<u8> {
    let mut bytes = b"\x88\x6dstele/vote/v1\x58\x20".to_vec();
    bytes.extend([7; 32]);
    bytes.push(0x02);
    match height {
        0..24 => bytes.push(height.to_le_bytes()[0]),
        24..256 => bytes.extend([0x18, height.to_le_bytes()[0]]),
        _ => bytes.extend([0x19, height.to_be_bytes()[2], height.to_be_bytes()[3]]),
    }
    bytes.extend([0x00, 0x58, 0x20]);
    bytes.extend([9; 32]);
    bytes.extend([0xf6, 0xf6]);
    bytes
}
