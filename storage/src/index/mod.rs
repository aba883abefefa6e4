//! The key index: where each object lies, found by its content root.
//!
//! ```text
//!  put, remove ──► memtable ──flush(position)──► level zero: tables over all keys
//!                                                     │ maintain()
//!                                                     ▼
//!                    shard 0     shard 1    …     shard n - 1        each a range of keys, of its own tables:
//!                    ▫▫ ▫▫▫▫     ▫ ▫▫▫▫▫          ▫▫▫ ▫▫▫▫▫▫         newest and smallest first, the base last
//! ```
//!
//! A log-structured merge tree of a single purpose. The keys are uniform hashes and what they lead to has a fixed size, so
//! an entry is half of the key and the location, 32 bytes, 127 of them to a page of 4 KiB, and there is nothing else to a
//! table than its pages in order. In memory are the first key of each page and a Bloom filter of its own for each page:
//! 176 bytes for 127 entries. A get therefore reads one page, seldom two; of an absent key, seldom any.
//!
//! **It can be rebuilt** from the segments of the store, which spares it a log. What is put is in memory until
//! [`Index::flush`] makes it a table and lets the manifest say, in one step, that all changes up to a position of the store
//! are in. After a crash the index opens as of the last such position; the store replays what is behind. A file that is
//! damaged is named by an [`IndexError`], and [`Index::open_empty`] begins anew.
//!
//! **Half of the key** is kept: its first 128 bits. That two of 10^12 objects share those has a chance of 10^-15; to make
//! two on purpose costs 2^64 hashes. The newer one is then found under both keys, and removed under both. The store
//! compares the root of what it reads with the key in any case, so it sees a damaged object there, never a wrong one.
//!
//! **Merges** keep what is superseded below a sixth. New tables of level zero are merged, a fanout of them at a time, and
//! divided by shard. In a shard, the tables are merged into its base as soon as they weigh a sixth of it; before that, a
//! fanout of tables of one level becomes one of the next. (This is lazy leveling: Dayan and Idreos, "Dostoevsky", SIGMOD
//! 2018.) Only one shard is rewritten at a time, so the copy takes the room of a shard, not that of the index:
//!
//! | bytes of an object | flash | memory |
//! |---|---|---|
//! | only new keys | 33.6 | 1.4 |
//! | a sixth superseded | 39.2 | 1.7 |
//! | a quarter, which a flush does not let pass | 42.0 | 1.8 |
//! | and the largest merge, of one in 16 shards, is at its end | 44.7 | 1.9 |
//!
//! The memtable and level zero come on top of it, and do not grow with the objects. An entry is rewritten once by level
//! zero, once for each level of its shard, and some six times by the base: at 32 bytes, that is nothing beside its object.
//!
//! The owner merges, by [`Index::maintain`], on a thread of its choice: there is no thread here to start, to stop or to
//! fail unseen. Gets go on beside it, and beside a flush; they see the tables as they were when they began.

#![forbid(unsafe_code)]

mod directory;
mod engine;
mod entry;
mod error;
mod filter;
mod manifest;
mod merge;
mod page;
mod policy;
mod table;
mod tables;
mod writer;

pub use engine::{Entries, Figures, Index};
pub use entry::{KEY_BYTES, Key, KeyPrefix, LOCATION_BYTES, Location, PREFIX_BYTES};
pub use error::IndexError;
pub use policy::{FANOUT_MAX, MEMTABLE_ENTRIES_MAX, Options, SHARDS_MAX};
