//! NVMe passthrough on drives that QEMU emulates, in a guest without KVM: its kernel is Debian's, its only program this one.
//!
//! ```text
//!  this test ──► QEMU ──► kernel ──► this program as init: `guest` ──► checks on /dev/ng0nX ──► power off
//!      ▲                                       │
//!      └────────────── serial console ◄────────┘
//! ```

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]
#![expect(clippy::print_stdout, reason = "the guest's console, and shown when a test fails")]

#[path = "contract/checks.rs"]
mod checks;
#[path = "nvme/machine.rs"]
mod machine;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use checks::{BLOCK, Place, filled, is_filled, one};
use machine::{Drive, Machine, PASSED};
use stele_device::{Backend, Batch, BlockDevice, BufferPool, Disk, Options, Request, Zone, ZoneState};

/// Blocks of each drive. The checks want some 500.
const BLOCKS: u64 = 4096;

/// The namespaces, by number.
const PLAIN: u32 = 1;
const SMALL: u32 = 2;
const PROTECTED: u32 = 3;
const ZONED: u32 = 4;
const FAILING: u32 = 5;
const METADATA: u32 = 6;

/// A block that the failing drive can neither read nor write, from its begin in bytes.
const BROKEN: u64 = 8 * BLOCK as u64;

/// How long the guest waits for its drives to appear.
const APPEARANCE: Duration = Duration::from_secs(20);

#[test]
fn drives_of_a_guest_keep_the_contract() {
    let Some(machine) = Machine::available() else { return };
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let drive = |number: u32, bytes: u64, options: &'static str| {
        let image = directory.path().join(format!("drive-{number}"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        Drive { number, image, options, broken: None }
    };
    let (bytes, protected) =
        (BLOCKS * 4096, drive(PROTECTED, BLOCKS * (4096 + 8), "logical_block_size=4096,ms=8,pi=1"));
    // Blocks come first and their protection after them; that of the last one stays zero, which is not its guard.
    let last = (BLOCKS - 1) * BLOCK as u64;
    File::options().write(true).open(&protected.image).unwrap().write_all_at(&[7; BLOCK], last).unwrap();
    let failing = drive(FAILING, bytes, "logical_block_size=4096");
    let drives = [
        drive(PLAIN, bytes, "logical_block_size=4096"),
        drive(SMALL, bytes, "logical_block_size=512"),
        protected,
        drive(ZONED, bytes, "logical_block_size=4096,zoned=on,zoned.zone_size=4M,zoned.zone_capacity=3M"),
        Drive { broken: Some(BROKEN), ..failing },
        drive(METADATA, BLOCKS * (4096 + 16), "logical_block_size=4096,ms=16"),
    ];
    let said = machine.run(directory.path(), &drives);
    println!("{said}");
    assert!(said.contains(PASSED), "the guest did not pass");
}

#[test]
fn passthrough_is_for_drives_and_files_are_not() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options { backend: Some(Backend::NvmePassthrough), ..Options::default() };
    let refused = |path: &Path, options| Disk::open(path, options).unwrap_err().to_string();
    Disk::create(&directory.path().join("disk"), 1, &Options::default()).unwrap();
    assert!(refused(&directory.path().join("disk"), &options).contains("passthrough is for"));
    assert!(refused(Path::new("/dev/null"), &options).contains("nor the character device"));
    assert!(refused(Path::new("/dev/null"), &Options::default()).contains("nor the character device"));
}

/// The other side: what the guest's only process does.
#[test]
#[ignore = "runs in the guest of the other test"]
fn guest() {
    if std::process::id() != 1 {
        return;
    }
    machine::settle();
    let began = Instant::now();
    while !Path::new(&device(METADATA)).exists() {
        assert!(began.elapsed() < APPEARANCE, "the drives did not appear");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (number, name) in [(PLAIN, "4 KiB"), (SMALL, "512 bytes"), (PROTECTED, "protection information")] {
        keeps_the_contract(number, name);
    }
    a_block_with_a_wrong_guard_is_an_error();
    a_drive_that_fails_says_what_and_is_poisoned();
    zones_take_appends_and_are_emptied();
    what_does_not_serve_is_refused_with_a_reason();
    println!("{PASSED}");
    machine::power_off();
}

fn device(number: u32) -> String {
    format!("/dev/ng0n{number}")
}

fn passthrough() -> Options {
    Options { backend: Some(Backend::NvmePassthrough), ..Options::default() }
}

fn keeps_the_contract(number: u32, name: &str) {
    let place = Place { path: device(number).into(), options: passthrough(), is_new: false };
    let disk = Disk::open(&place.path, &Options::default()).unwrap();
    assert_eq!(disk.access().backend, Backend::NvmePassthrough, "it is chosen by the path alone");
    assert_eq!((disk.geometry().blocks, disk.geometry().block_bytes), (BLOCKS, 4096));
    assert_eq!(disk.has_volatile_cache(), Some(true));
    assert_eq!(disk.grow(BLOCKS + 1).unwrap_err().code(), "device_unsuitable");
    drop(disk);
    for (name, check) in checks::EACH {
        let began = Instant::now();
        check(&place);
        println!("{:>6} ms  {name}", began.elapsed().as_millis());
    }
    // Sixteen commands of the drive's 64 KiB; from small pages, and from large ones.
    for buffers in [1, 4] {
        let pool = BufferPool::new(buffers, 256 * BLOCK).unwrap();
        let disk = Disk::open(&place.path, &Options { pools: vec![pool.clone()], ..passthrough() }).unwrap();
        assert!(!disk.access().registered && disk.access().fallbacks.len() == 1, "{:?}", disk.access());
        for request in [Request::write, Request::write_durable] {
            one(&disk, request(7 * BLOCK as u64, filled(&pool, 7, 9))).into_buffer().unwrap();
            let mut buffer = pool.take();
            buffer.fill(0);
            let read = one(&disk, Request::read(7 * BLOCK as u64, buffer)).into_buffer().unwrap();
            assert!(is_filled(&read, 7, 9));
        }
    }
    println!("namespace {number} ({name}): the contract holds");
}

fn a_block_with_a_wrong_guard_is_an_error() {
    let pool = BufferPool::new(1, BLOCK).unwrap();
    let disk = Disk::open(Path::new(&device(PROTECTED)), &passthrough()).unwrap();
    let offset = disk.geometry().bytes() - BLOCK as u64;
    let error = one(&disk, Request::read(offset, pool.take())).into_buffer().unwrap_err();
    assert!(said(&error).contains("guard check failed"), "{error:?}");
    one(&disk, Request::write_durable(offset, filled(&pool, 1, 1))).into_buffer().unwrap();
    assert!(is_filled(&one(&disk, Request::read(offset, pool.take())).into_buffer().unwrap(), 1, 1));
    println!("namespace {PROTECTED}: {}, and written anew it is whole", said(&error));
}

fn a_drive_that_fails_says_what_and_is_poisoned() {
    let pool = BufferPool::new(1, BLOCK).unwrap();
    let disk = Disk::open(Path::new(&device(FAILING)), &passthrough()).unwrap();
    let error = one(&disk, Request::read(BROKEN, pool.take())).into_buffer().unwrap_err();
    assert!(error.code() == "device_io" && said(&error).contains("unrecovered read error"), "{error:?}");
    println!("namespace {FAILING}: {}", said(&error));
    one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
    one(&disk, Request::write(0, filled(&pool, 0, 1))).into_buffer().unwrap();
    let error = one(&disk, Request::flush()).result.unwrap_err();
    assert_eq!(error.code(), "device_io");
    println!("namespace {FAILING}: flush: {}", said(&error));
    for request in [Request::write, Request::write_durable] {
        assert_eq!(one(&disk, request(0, pool.take())).result.unwrap_err().code(), "device_poisoned");
    }
    one(&disk, Request::read(0, pool.take())).into_buffer().unwrap();
    // QEMU answers a write with FUA whether it can flush or not, so this one fails by its place.
    let disk = Disk::open(Path::new(&device(FAILING)), &passthrough()).unwrap();
    let error = one(&disk, Request::write(BROKEN, pool.take())).result.unwrap_err();
    assert!(said(&error).contains("write fault"), "{error:?}");
    one(&disk, Request::write(0, pool.take())).result.unwrap();
    assert_eq!(one(&disk, Request::write_durable(BROKEN, pool.take())).result.unwrap_err().code(), "device_io");
    assert_eq!(one(&disk, Request::write(0, pool.take())).result.unwrap_err().code(), "device_poisoned");
}

fn zones_take_appends_and_are_emptied() {
    const ZONE: u64 = 4 << 20;
    const CAPACITY: u64 = 3 << 20;
    let disk = Disk::open(Path::new(&device(ZONED)), &Options { zoned: true, ..passthrough() }).unwrap();
    let zone = |number: u64, written, state| Zone { start: number * ZONE, capacity: CAPACITY, written, state };
    let empty: Vec<Zone> = (0..4).map(|number| zone(number, 0, ZoneState::Empty)).collect();
    assert_eq!(disk.zones().unwrap(), empty);
    let most = disk.append_bytes_max().unwrap();
    assert_eq!(most, 64 << 10, "the drive's transfers");
    let pool = BufferPool::new(16, most).unwrap();

    // Many together: each lies somewhere, whole, and none where another does.
    let mut batch = Batch::new(&disk, pool.buffers());
    for number in 0..16 {
        assert!(batch.push(Request::append(ZONE, filled(&pool, number, 1)).tagged(number)).is_none());
    }
    let mut places = Vec::new();
    while let Some(done) = batch.wait() {
        places.push((done.offset, done.tag));
        done.into_buffer().unwrap();
    }
    places.sort_unstable();
    for ((place, number), expected) in places.into_iter().zip((ZONE..).step_by(most)) {
        assert_eq!(place, expected);
        assert!(is_filled(&one(&disk, Request::read(place, pool.take())).into_buffer().unwrap(), number, 1));
    }
    assert_eq!(disk.zones().unwrap()[1], zone(1, 1 << 20, ZoneState::Open));

    // A block is as good as many; a zone that is full says so, and the others go on.
    let short = filled(&pool, 99, 2).with_length(BLOCK);
    assert_eq!(one(&disk, Request::append(0, short)).offset, 0);
    let mut appended = 1 << 20;
    let error = loop {
        match one(&disk, Request::append(ZONE, pool.take())).result {
            Ok(()) => appended += most as u64,
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), appended), ("device_full", CAPACITY), "{error:?}");
    println!("namespace {ZONED}: {}", said(&error));
    assert_eq!(disk.zones().unwrap()[1], zone(1, CAPACITY, ZoneState::Full));
    let second = one(&disk, Request::append(0, filled(&pool, 7, 7)));
    assert_eq!((second.offset, second.result.is_ok()), (BLOCK as u64, true), "it is not poisoned");

    // Emptied, it begins anew; and everything survives opening again.
    one(&disk, Request::reset_zone(ZONE)).result.unwrap();
    assert_eq!(disk.zones().unwrap()[1], zone(1, 0, ZoneState::Empty));
    assert_eq!(one(&disk, Request::append(ZONE, filled(&pool, 8, 8))).offset, ZONE);
    drop(disk);
    let disk = Disk::open(Path::new(&device(ZONED)), &Options { zoned: true, ..passthrough() }).unwrap();
    assert_eq!(disk.zones().unwrap()[1].written, most as u64);
    assert!(is_filled(&one(&disk, Request::read(ZONE, pool.take())).into_buffer().unwrap(), 8, 8));
    assert!(is_filled(&one(&disk, Request::read(BLOCK as u64, pool.take())).into_buffer().unwrap(), 7, 7));

    let large = BufferPool::new(1, 2 * most).unwrap();
    for request in [
        Request::write(0, pool.take()),
        Request::write_durable(0, pool.take()),
        Request::append(ZONE + BLOCK as u64, pool.take()),
        Request::append(4 * ZONE, pool.take()),
        Request::append(0, large.take()),
        Request::reset_zone(BLOCK as u64),
        Request::reset_zone(4 * ZONE),
    ] {
        let error = one(&disk, request).result.unwrap_err();
        assert_eq!(error.code(), "device_zone", "{error}");
        println!("refused: {error}");
    }
    one(&disk, Request::flush()).result.unwrap();
    let plain = Disk::open(Path::new(&device(PLAIN)), &Options { zoned: true, ..passthrough() }).unwrap();
    assert_eq!(plain.zones().unwrap_err().code(), "device_unsuitable");
    for request in [Request::append(0, pool.take()), Request::reset_zone(0)] {
        assert_eq!(one(&plain, request).result.unwrap_err().code(), "device_zone");
    }
    println!("namespace {ZONED}: zones take appends and are emptied");
}

fn what_does_not_serve_is_refused_with_a_reason() {
    let served = Options { backend: Some(Backend::Uring), ..Options::default() };
    for (path, options, reason) in [
        (device(ZONED), passthrough(), "zoned"),
        (device(METADATA), passthrough(), "metadata without protection"),
        (device(PLAIN), served, "passthrough alone"),
        ("/dev/nvme0".into(), passthrough(), "nor the character device"),
        ("/dev/nvme0n1".into(), passthrough(), "passthrough is for"),
    ] {
        let error = Disk::open(Path::new(&path), &options).unwrap_err();
        assert!(error.code() == "device_unsuitable" && error.to_string().contains(reason), "{error}");
        println!("refused: {error}");
    }
}

/// What lies under an error.
fn said(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
