//! Drives of SPDK's driver: what every backend owes, where such a drive can be had, and a reason where not.
//!
//! ```text
//! STELE_SPDK_DRIVE="spdk:trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2026-11.stele:test" \
//!     cargo test -p stele-device --features spdk --test spdk
//! ```
//!
//! Whatever is on the drive is lost. Its target is whatever serves NVMe there, such as SPDK's own `nvmf_tgt`.

#![cfg_attr(spdk, expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it"))]

#[cfg(spdk)]
#[path = "contract/checks.rs"]
mod checks;

use std::path::Path;

use stele_device::{Backend, Disk, Options};

const NAME: &str = "spdk:trtype:PCIe traddr:0000:00:00.0 ns:1";

#[cfg(not(spdk))]
#[test]
fn a_program_without_spdk_refuses_its_drives() {
    let error = Disk::open(Path::new(NAME), &Options::default()).unwrap_err();
    assert_eq!(error.code(), "device_driver_missing");
    assert!(error.to_string().contains("SPDK's NVMe driver"), "{error}");
}

#[test]
fn its_drives_are_chosen_by_their_names() {
    assert!(Disk::is_of_driver(Path::new(NAME)) && !Disk::is_of_driver(Path::new("/dev/ng0n1")));
    assert_eq!(Disk::create(Path::new(NAME), 1, &Options::default()).unwrap_err().code(), "device_unsuitable");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options { backend: Some(Backend::Spdk), ..Options::default() };
    let error = Disk::create(&directory.path().join("disk"), 1, &options).unwrap_err();
    assert!(error.code() == "device_unsuitable" && error.to_string().contains("transport id"), "{error}");
}

/// One test: the environment is the process's, and so is the order in which its drives come and go.
#[cfg(spdk)]
#[test]
fn a_drive_keeps_the_contract() {
    use stele_device::{BlockDevice as _, BufferPool, Request};

    let Some(name) = std::env::var_os("STELE_SPDK_DRIVE") else {
        println!("not run: STELE_SPDK_DRIVE names no drive");
        return;
    };
    let options = Options { backend: Some(Backend::Spdk), ..Options::default() };
    let place = checks::Place { path: name.into(), options, is_new: false };
    let disk = Disk::open(&place.path, &Options::default()).unwrap();
    println!("{:?}, {:?}", disk.geometry(), disk.access());
    assert_eq!(disk.access().backend, Backend::Spdk);
    assert_eq!(disk.grow(u64::MAX).unwrap_err().code(), "device_unsuitable");
    drop(disk);
    for (name, check) in checks::EACH {
        println!("{name}");
        check(&place);
    }
    // Several commands for one request.
    let pool = BufferPool::new(1, 256 * checks::BLOCK).unwrap();
    let disk = Disk::open(&place.path, &Options { pools: vec![pool.clone()], ..place.options.clone() }).unwrap();
    for request in [Request::write, Request::write_durable] {
        let offset = 7 * checks::BLOCK as u64;
        checks::one(&disk, request(offset, checks::filled(&pool, 7, 9))).into_buffer().unwrap();
        let mut buffer = pool.take();
        buffer.fill(0);
        let read = checks::one(&disk, Request::read(offset, buffer)).into_buffer().unwrap();
        assert!(checks::is_filled(&read, 7, 9));
    }
    let absent = format!("{} ns:4000", place.path.display());
    drop(disk);
    assert_eq!(Disk::open(Path::new(&absent), &place.options).unwrap_err().code(), "device_unsuitable");
}
