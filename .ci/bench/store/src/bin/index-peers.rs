//! The statement index against redb and fjall: puts and lookups on top of 10^7 entries.
//!
//! All three hold the same 16-byte keys and 8-byte values. They take turns round by round in one
//! process. In its turn a candidate puts blocks of 10,000 statements for a bounded time and then makes
//! them durable; on the way it makes them durable every 90 blocks (what our memtable holds), because the
//! index can be rebuilt and needs no more. Our time includes the merges that the puts caused; theirs
//! does not include compaction that goes on behind their back.
//!
//! Options: `--entries` preloaded (10,000,000), `--rounds` (3), `--seconds` a turn (15), `--lookups`
//! (100,000 a turn), `--json FILE`, `--directory DIR`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Durability, ReadableDatabase, TableDefinition};
use stele_bench_report::{Arguments, Figure, median};
use stele_bench_store::store::Location;
use stele_bench_store::store::index::{IndexOptions, StatementId, StatementIndex};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BLOCK_STATEMENTS: u64 = 10_000;
const BLOCKS_A_SYNC: u64 = 90;

/// Puts after which a turn ends early: several memtables, flushes and merges of ours.
const TURN_PUTS_MAX: u64 = 3_600_000;

/// Both peers get this much cache; ours has none of its own.
const CACHE_BYTES: usize = 1 << 30;

/// What a preload may take before it stops where it is.
const PRELOAD: Duration = Duration::from_secs(240);

fn main() -> Outcome<()> {
    let arguments = Arguments::read()?;
    let entries: u64 = arguments.number("entries", 10_000_000)?;
    let rounds: usize = arguments.number("rounds", 3)?;
    let turn = Duration::from_secs(arguments.number("seconds", 15)?);
    let lookups: u64 = arguments.number("lookups", 100_000)?;
    let directory = arguments.work_directory()?;
    let mut candidates: Vec<Turn> = vec![
        Turn::new(Box::new(Ours::open(&directory.path().join("ours"))?)),
        Turn::new(Box::new(Redb::open(&directory.path().join("redb"))?)),
        Turn::new(Box::new(Fjall::open(&directory.path().join("fjall"))?)),
    ];
    for candidate in &mut candidates {
        candidate.preload(entries / BLOCK_STATEMENTS)?;
    }
    for _ in 0..rounds {
        for candidate in &mut candidates {
            candidate.puts(turn)?;
            candidate.lookups(lookups)?;
        }
    }
    let best = |rates: fn(&Turn) -> &Vec<f64>| {
        candidates[1..].iter().map(|peer| median(rates(peer).clone())).fold(0.0, f64::max)
    };
    let ours = &candidates[0];
    println!("{}", ours.candidate.describe());
    arguments.report(&[
        Figure {
            name: "node.index.puts",
            value: median(ours.put_rates.clone()),
            unit: "1/s",
            peer: Some(best(|turn| &turn.put_rates)),
        },
        Figure {
            name: "node.index.lookups",
            value: median(ours.lookup_rates.clone()),
            unit: "1/s",
            peer: Some(best(|turn| &turn.lookup_rates)),
        },
    ])
}

/// A candidate and its figures so far.
struct Turn {
    candidate: Box<dyn Candidate>,
    /// Blocks put: statement number n lies at height n / 10,000.
    blocks: u64,
    put_rates: Vec<f64>,
    lookup_rates: Vec<f64>,
}

impl Turn {
    fn new(candidate: Box<dyn Candidate>) -> Self {
        Self { candidate, blocks: 0, put_rates: Vec::new(), lookup_rates: Vec::new() }
    }

    fn preload(&mut self, blocks: u64) -> Outcome<()> {
        let started = Instant::now();
        self.blocks = self.candidate.preload(blocks, started + PRELOAD)?;
        println!(
            "{}: {} entries preloaded in {:.1} s{}",
            self.candidate.name(),
            self.blocks * BLOCK_STATEMENTS,
            started.elapsed().as_secs_f64(),
            if self.blocks < blocks { " (too slow for all of them)" } else { "" },
        );
        Ok(())
    }

    fn puts(&mut self, turn: Duration) -> Outcome<()> {
        let mut elapsed = Duration::ZERO;
        let mut put = 0;
        while elapsed < turn && put < TURN_PUTS_MAX {
            let ids = block(self.blocks);
            let started = Instant::now();
            self.candidate.put_block(self.blocks, &ids)?;
            self.blocks += 1;
            put += BLOCK_STATEMENTS;
            if (put / BLOCK_STATEMENTS).is_multiple_of(BLOCKS_A_SYNC) {
                self.candidate.make_durable()?;
            }
            elapsed += started.elapsed();
        }
        let started = Instant::now();
        self.candidate.make_durable()?;
        self.candidate.settle();
        let rate = put as f64 / (elapsed + started.elapsed()).as_secs_f64();
        println!("{}: {rate:.0} puts/s over {put} puts at {} entries", self.candidate.name(), self.entries());
        self.put_rates.push(rate);
        Ok(())
    }

    fn lookups(&mut self, count: u64) -> Outcome<()> {
        let entries = self.entries();
        let numbers: Vec<u64> = (0..count).map(|step| mix(step ^ entries) % entries).collect();
        let started = Instant::now();
        for number in numbers {
            let found = self.candidate.lookup(&id(number))?;
            assert_eq!(found, Some(place(number).pack()), "{} lost {number}", self.candidate.name());
        }
        let rate = count as f64 / started.elapsed().as_secs_f64();
        println!("{}: {rate:.0} lookups/s", self.candidate.name());
        self.lookup_rates.push(rate);
        Ok(())
    }

    fn entries(&self) -> u64 {
        self.blocks * BLOCK_STATEMENTS
    }
}

trait Candidate {
    fn name(&self) -> &'static str;
    /// Puts blocks from height 0 on, in whatever way is fastest; returns how many until the deadline.
    fn preload(&mut self, blocks: u64, deadline: Instant) -> Outcome<u64>;
    fn put_block(&mut self, height: u64, ids: &[StatementId]) -> Outcome<()>;
    fn make_durable(&mut self) -> Outcome<()>;
    /// Waits for background work that the puts caused.
    fn settle(&mut self) {}
    fn lookup(&self, id: &StatementId) -> Outcome<Option<u64>>;
    fn describe(&self) -> String {
        String::new()
    }
}

struct Ours(StatementIndex);

impl Ours {
    fn open(directory: &Path) -> Outcome<Self> {
        Ok(Self(StatementIndex::open(directory, IndexOptions::default())?))
    }
}

impl Candidate for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn preload(&mut self, blocks: u64, deadline: Instant) -> Outcome<u64> {
        for height in 0..blocks {
            if Instant::now() > deadline {
                return Ok(height);
            }
            self.0.put_block(height, &block(height))?;
        }
        self.0.flush()?;
        self.settle();
        Ok(blocks)
    }

    fn put_block(&mut self, height: u64, ids: &[StatementId]) -> Outcome<()> {
        Ok(self.0.put_block(height, ids)?)
    }

    fn make_durable(&mut self) -> Outcome<()> {
        Ok(self.0.flush()?)
    }

    fn settle(&mut self) {
        // The merger counts its time after every step of milliseconds: no change means that it rests.
        let mut before = -1.0;
        while self.0.figures().merge_seconds != before {
            before = self.0.figures().merge_seconds;
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    fn lookup(&self, id: &StatementId) -> Outcome<Option<u64>> {
        Ok(self.0.lookup(id)?.map(Location::pack))
    }

    fn describe(&self) -> String {
        format!("ours: {:?}", self.0.figures())
    }
}

struct Redb(redb::Database);

const TABLE: TableDefinition<'_, [u8; 16], u64> = TableDefinition::new("statements");

impl Redb {
    fn open(directory: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(directory)?;
        let database = redb::Database::builder().set_cache_size(CACHE_BYTES).create(directory.join("redb"))?;
        Ok(Self(database))
    }

    fn insert(&self, durability: Durability, pairs: impl Iterator<Item = ([u8; 16], u64)>) -> Outcome<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, location) in pairs {
                table.insert(&key, location)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Candidate for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn preload(&mut self, blocks: u64, deadline: Instant) -> Outcome<u64> {
        let pairs = sorted_pairs(blocks);
        for chunk in pairs.chunks(500_000) {
            if Instant::now() > deadline {
                // Sorted, so a part of the keys is useless to the lookups: start over with fewer.
                return Err("redb is too slow to preload that many entries; give fewer".into());
            }
            self.insert(Durability::Immediate, chunk.iter().copied())?;
        }
        Ok(blocks)
    }

    fn put_block(&mut self, height: u64, ids: &[StatementId]) -> Outcome<()> {
        self.insert(Durability::None, pairs(height, ids))
    }

    fn make_durable(&mut self) -> Outcome<()> {
        self.insert(Durability::Immediate, std::iter::empty())
    }

    fn lookup(&self, id: &StatementId) -> Outcome<Option<u64>> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        Ok(table.get(&prefix(id))?.map(|location| location.value()))
    }
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Fjall {
    fn open(directory: &Path) -> Outcome<Self> {
        let database = fjall::Database::builder(directory).cache_size(CACHE_BYTES as u64).open()?;
        let keyspace = database.keyspace("statements", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace })
    }
}

impl Candidate for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn preload(&mut self, blocks: u64, _deadline: Instant) -> Outcome<u64> {
        let mut ingestion = self.keyspace.start_ingestion()?;
        for (key, location) in sorted_pairs(blocks) {
            ingestion.write(key, location.to_le_bytes())?;
        }
        ingestion.finish()?;
        Ok(blocks)
    }

    fn put_block(&mut self, height: u64, ids: &[StatementId]) -> Outcome<()> {
        let mut batch = self.database.batch();
        for (key, location) in pairs(height, ids) {
            batch.insert(&self.keyspace, key, location.to_le_bytes());
        }
        Ok(batch.commit()?)
    }

    fn make_durable(&mut self) -> Outcome<()> {
        Ok(self.database.persist(fjall::PersistMode::SyncData)?)
    }

    fn lookup(&self, id: &StatementId) -> Outcome<Option<u64>> {
        let value = self.keyspace.get(prefix(id))?;
        Ok(value.map(|value| value.as_ref().try_into().map(u64::from_le_bytes)).transpose()?)
    }
}

/// SplitMix64.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// Id of the statement with a number, uniform.
fn id(number: u64) -> StatementId {
    let mut id = [0; 32];
    for (part, bytes) in (0..).zip(id.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&mix(number * 4 + part).to_be_bytes());
    }
    id
}

fn place(number: u64) -> Location {
    let position = u32::try_from(number % BLOCK_STATEMENTS).expect("small");
    Location::new(number / BLOCK_STATEMENTS, position).expect("in range")
}

fn block(height: u64) -> Vec<StatementId> {
    (height * BLOCK_STATEMENTS..(height + 1) * BLOCK_STATEMENTS).map(id).collect()
}

fn prefix(id: &StatementId) -> [u8; 16] {
    id[..16].try_into().expect("16 bytes")
}

fn pairs(height: u64, ids: &[StatementId]) -> impl Iterator<Item = ([u8; 16], u64)> {
    ids.iter().zip(height * BLOCK_STATEMENTS..).map(|(id, number)| (prefix(id), place(number).pack()))
}

fn sorted_pairs(blocks: u64) -> Vec<([u8; 16], u64)> {
    let mut all: Vec<_> =
        (0..blocks * BLOCK_STATEMENTS).map(|number| (prefix(&id(number)), place(number).pack())).collect();
    all.sort_unstable();
    all
}
