//! What `apply` costs: blocks of `record.put`, of opaque statements and of rejections, on a state in memory with a full
//! replay window. Run with `cargo bench -p stele-ledger --profile dev`.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;

use stele_ledger::apply;
use stele_types::{Command, Statement};

use crate::network::{AGENCY, HOLDER, Network, OTHER_AGENCY, party_key};

#[path = "../tests/ledger/network.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the benchmark needs a part of the test network")]
mod network;

const STATEMENTS: usize = 10_000;
const BLOCKS: usize = 40;

fn record_put(network: &Network, issuer: u8, number: u128) -> Statement {
    use stele_types::custody::RecordPut;
    use stele_types::hash::{Cti, Hash, ObjectId};
    use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};
    let command = Command::RecordPut(RecordPut {
        record: ObjectId(number.to_be_bytes()),
        class: RecordClass::Medical,
        schema: 7,
        subject: Some([5; 16]),
        place: PlaceCode::new(110_101),
        event_day: 20_000,
        sensitivity: Sensitivity::SensitivePersonal,
        retention: 3,
        policy: Hash([1; 32]),
        commitment: Hash::of(&number.to_be_bytes()),
        body_root: Some(Hash::of(&number.to_le_bytes())),
        body_hash: Some(ContentHash::Sha256),
        on_behalf_of: None,
    });
    let issued_at = network.time_ms / 1000 + 1;
    network.signed(issuer, party_key(issuer, 0).id(), issued_at, Cti(number.to_be_bytes()), &command)
}

/// Nanoseconds that this thread has computed: other work on the machine does not count.
fn processor_time() -> f64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    let first = statistics.split(' ').next().and_then(|field| field.parse().ok());
    first.expect("the first field is the time on the processor")
}

fn measure(name: &str, network: &mut Network, mut block: impl FnMut(&Network, usize) -> Vec<Statement>) {
    let mut best = f64::MAX;
    let mut total = 0.0;
    let mut writes = 0;
    for round in 0..BLOCKS {
        let statements = block(network, round);
        let header = network.header(1_000);
        let start = processor_time();
        let applied = black_box(apply(&network.state, &header, black_box(&statements)));
        let micros = (processor_time() - start) / 1e3 / STATEMENTS as f64;
        best = best.min(micros);
        total += micros;
        writes += applied.writes.len();
        network.commit(&header, &statements);
    }
    let mean = total / BLOCKS as f64;
    println!(
        "{name:24} best {best:6.2} us  mean {mean:6.2} us a statement  {:5.2} writes each  {:9.0} statements/s a core",
        writes as f64 / (BLOCKS * STATEMENTS) as f64,
        1e6 / mean
    );
}

fn main() {
    let numbers = |round: usize| (0..STATEMENTS).map(move |n| (round * STATEMENTS + n) as u128);
    let mut network = Network::new();
    measure("record.put", &mut network, |network, round| {
        numbers(round).map(|n| record_put(network, if n % 2 == 0 { AGENCY } else { OTHER_AGENCY }, n)).collect()
    });
    measure("record.put, rejected", &mut network, |network, round| {
        numbers(round).map(|n| record_put(network, HOLDER, n)).collect()
    });
    network.pass(14 * network::MINUTE_MS);
    println!("state of {} values before the sweep", network.state.0.len());
    let start = processor_time();
    let header = network.header(2 * network::MINUTE_MS);
    let applied = apply(&network.state, &header, &[]);
    let swept = applied.writes.len();
    println!("sweep of {swept} values in one block: {:.1} ms", (processor_time() - start) / 1e6);
}
