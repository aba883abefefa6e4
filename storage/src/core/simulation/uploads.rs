//! Parts of uploads, which wait for each other to fill a batch: that they do, and that nobody waits for ever.

use super::*;
use crate::format::RECORD_BYTES_MAX;

/// Puts parts one after the other, and stops while too many are not answered.
struct Uploader {
    class: u8,
    on_their_way: VecDeque<Waiting<()>>,
}

impl Uploader {
    /// Forgets the parts that were answered, in order, as an upload does.
    fn hear(&mut self) {
        while let Some(oldest) = self.on_their_way.front_mut() {
            match oldest.try_recv() {
                Ok(Ok(()) | Err(StorageError::Full { .. })) => drop(self.on_their_way.pop_front()),
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => return,
            }
        }
    }
}

impl World {
    fn part(&mut self, uploader: &mut Uploader) {
        let number = self.next;
        self.next += 1;
        uploader.on_their_way.push_back(self.ask_record(number, RECORD_BYTES_MAX, uploader.class, false));
    }

    /// As many parts as an upload has on their way.
    fn window(&self) -> usize {
        2 * self.shape.data + 1
    }

    fn close(&mut self) {
        let (reply, mut answer) = oneshot::channel();
        self.core.command(Command::Close { reply });
        self.core.settle();
        self.finish();
        answer.try_recv().expect("closing ends").unwrap();
    }

    /// Blocks of each column that are taken, in all segments.
    fn blocks_taken(&self) -> usize {
        let segments = self.core.inner.segments.borrow();
        segments.all.values().map(|segment| segment.used as usize).sum()
    }
}

/// Each part of a client that is slower than the drives was a batch of its own: a cell in all k columns, for one of them. An
/// object of 18 MB took four segments of 32 MiB.
#[test]
fn an_upload_by_itself_takes_its_own_length() {
    let mut world = World::new(1, 4, 2, 6, 24);
    let mut uploader = Uploader { class: 0, on_their_way: VecDeque::new() };
    let parts = 64;
    for _ in 0..parts {
        world.part(&mut uploader);
        // Everything is durable before the client sends more.
        world.finish();
        uploader.hear();
        assert!(uploader.on_their_way.len() < world.window(), "an upload waits for itself");
    }
    world.close();
    uploader.hear();
    assert!(uploader.on_their_way.is_empty());
    let (taken, put) = (world.blocks_taken() * 4 * BLOCK_BYTES, parts * RECORD_BYTES_MAX);
    assert!(taken < put * 102 / 100, "{taken} bytes of columns for {put} bytes of parts");
    assert_eq!(world.core.status().counters.batches, 64 / 4);
}

/// What somebody waits for joins the parts that are there, and takes them along.
#[test]
fn an_urgent_record_closes_the_batch_that_it_joins() {
    let mut world = World::new(1, 4, 2, 6, 24);
    let mut uploader = Uploader { class: 0, on_their_way: VecDeque::new() };
    world.part(&mut uploader);
    world.part(&mut uploader);
    world.finish();
    uploader.hear();
    assert_eq!((uploader.on_their_way.len(), world.core.status().counters.batches), (2, 0));
    let mut other = world.ask_put(1_000, 100, 1);
    world.finish();
    other.try_recv().expect("another group waits for nobody").unwrap();
    let mut urgent = world.ask_put(1_001, 100, 0);
    world.finish();
    urgent.try_recv().expect("an urgent put is answered").unwrap();
    uploader.hear();
    assert!(uploader.on_their_way.is_empty());
    assert_eq!(world.core.status().counters.batches, 2);
    world.part(&mut uploader);
    world.hurry();
    world.finish();
    uploader.hear();
    assert!(uploader.on_their_way.is_empty());
}

/// Parts are in a batch that waits for more when every drive fails: a put that finds no buffers is refused, and not forgotten.
#[test]
fn what_waits_for_buffers_is_refused_when_all_drives_fail() {
    let mut world = World::new(1, 1, 0, 1, 24);
    let buffers = u8::try_from(world.core.inner.pools.cells.buffers()).unwrap();
    let mut uploaders: Vec<Uploader> =
        (0..buffers).map(|class| Uploader { class, on_their_way: VecDeque::new() }).collect();
    uploaders.iter_mut().for_each(|uploader| world.part(uploader));
    world.media[0].failed.set(true);
    let mut urgent = world.ask_put(1_000, 100, buffers);
    world.finish();
    assert!(matches!(urgent.try_recv(), Ok(Err(StorageError::ReadOnly { .. }))));
}

/// Uploads of more groups than there are buffers, or places for groups, and puts that somebody waits for between them.
#[test]
fn nobody_waits_for_ever() {
    let seeds = std::env::var("STELE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        for ((data, parity, drives), groups) in [((1, 0, 1), 9), ((2, 1, 3), 9), ((4, 0, 4), 18), ((4, 2, 8), 2)] {
            println!("seed {seed}: {data}+{parity}, {groups} uploads");
            let mut world = World::new(seed, data, parity, drives, 24);
            let mut uploaders: Vec<Uploader> =
                (0..groups).map(|class| Uploader { class, on_their_way: VecDeque::new() }).collect();
            let mut urgent = Vec::new();
            for _ in 0..200 {
                match world.random.below(8) {
                    0 => {
                        let (number, bytes) = (world.next, world.random.below(100_000));
                        world.next += 1;
                        let class = u8::try_from(world.random.below(groups.into())).unwrap();
                        urgent.push(world.ask_put(number, bytes, class));
                    }
                    1 | 2 => world.complete_some(),
                    3 if world.random.chance(4) => {
                        world.finish();
                        uploaders.iter_mut().for_each(Uploader::hear);
                        let stuck = |uploader: &&Uploader| uploader.on_their_way.len() >= world.window();
                        assert_eq!(uploaders.iter().find(stuck).map(|uploader| uploader.class), None);
                        for mut answer in urgent.drain(..) {
                            assert!(matches!(answer.try_recv(), Ok(Ok(()) | Err(StorageError::Full { .. }))));
                        }
                    }
                    _ => {
                        let at = world.random.below(uploaders.len());
                        uploaders[at].hear();
                        if uploaders[at].on_their_way.len() < world.window() {
                            world.part(&mut uploaders[at]);
                        }
                    }
                }
            }
            world.close();
            uploaders.iter_mut().for_each(Uploader::hear);
            assert!(uploaders.iter().all(|uploader| uploader.on_their_way.is_empty()), "closing leaves nothing behind");
        }
    }
}
