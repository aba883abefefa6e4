//! The tar of a package beside other people's tar, and tars that were made to hurt.

use std::process::Command;

use stele_evidence::EvidencePackage;

use crate::{packages::sample, swtpm::run};

const BLOCK: usize = 512;

/// A header with a right checksum, around which a test builds what no tar of ours has.
fn header(name: &[u8], size: &[u8; 12], kind: u8) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[124..136].copy_from_slice(size);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    header
}

/// Puts in the checksum of a header.
fn seal(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn code(bytes: &[u8]) -> &'static str {
    EvidencePackage::from_tar(bytes).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn a_tar_that_others_made_is_read_and_ours_is_unpacked_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let package = sample();
    std::fs::write(directory.path().join("package.tar"), package.to_tar().unwrap()).unwrap();
    let tar =
        |words: &[&str]| run(Command::new("tar").args(words).current_dir(directory.path()), "tar", "tar").unwrap();
    std::fs::create_dir(directory.path().join("files")).unwrap();
    tar(&["-xf", "package.tar", "-C", "files"]);
    let listed = tar(&["-tvf", "package.tar"]);
    assert!(listed.lines().all(|line| line.starts_with("-rw-r--r-- 0/0") && line.contains("1970-01-01")), "{listed}");
    for (format, from) in [("gnu", "."), ("ustar", "."), ("ustar", "keys")] {
        let option = format!("--format={format}");
        if from == "." {
            tar(&["-cf", "again.tar", &option, "-C", "files", "."]);
        } else {
            let names = ["nonce", "checkpoint", "quote.msg", "quote.sig", "pcrs.bin", "ak.pub", "bios_measurements"];
            let rest = ["ima_log", "manifest.json", "keys"];
            tar(&[&["-cf", "again.tar", &option, "-C", "files"][..], &names, &rest].concat());
        }
        let again = std::fs::read(directory.path().join("again.tar")).unwrap();
        assert_eq!(EvidencePackage::decode(&again).unwrap(), package, "{format} from {from}");
    }
    // Its extended headers are no part of a package.
    tar(&["-cf", "pax.tar", "--format=pax", "-C", "files", "."]);
    assert_eq!(code(&std::fs::read(directory.path().join("pax.tar")).unwrap()), "package_malformed");
}

#[test]
fn tars_that_were_made_to_hurt_are_refused_with_their_code() {
    let good = sample().to_tar().unwrap();
    let with = |entry: &[u8]| code(&[entry, &good].concat());
    let zero = b"00000000000\0";
    // Sizes: beyond the part, beyond the tar, beyond any machine, in GNU's base 256, negative, empty.
    let huge = b"77777777777\0";
    assert_eq!(with(&header(b"manifest.json", huge, b'0')), "package_too_large");
    assert_eq!(
        code(&[&good[..good.len() - 1024], &header(b"keys/a.spki", b"00000007777\0", b'0')].concat()),
        "package_truncated"
    );
    assert_eq!(with(&header(b"manifest.json", b"777777777777", b'0')), "package_too_large");
    assert_eq!(with(&header(b"manifest.json", b"\x80\0\0\0\0\0\0\0\0\0\0\x01", b'0')), "package_malformed");
    assert_eq!(with(&header(b"manifest.json", b"-0000000001\0", b'0')), "package_malformed");
    assert_eq!(with(&header(b"manifest.json", &[0; 12], b'0')), "package_malformed");
    // Names: paths, absolute ones, unknown ones, none, one that fills its field, one twice.
    for name in
        [&b"../nonce"[..], b"/etc/passwd", b"keys/../nonce", "key\u{1f511}".as_bytes(), b"\xff", b"", &[b'a'; 100]]
    {
        assert_eq!(with(&header(name, zero, b'0')), "package_part_unknown", "{name:?}");
    }
    assert_eq!(with(&header(b"manifest.json", zero, b'0')), "package_part_repeated");
    assert_eq!(with(&header(b"./manifest.json", zero, b'0')), "package_part_repeated");
    // Kinds: links, devices, long names and extended headers of others, folders elsewhere.
    for kind in *b"123467xgLKV" {
        assert_eq!(with(&header(b"manifest.json", zero, kind)), "package_malformed", "{kind}");
    }
    assert_eq!(with(&header(b"other/", zero, b'5')), "package_malformed");
    assert_eq!(with(&header(b"keys/", b"00000000001\0", b'5')), "package_malformed");
    assert_eq!(with(&header(b"keys/", zero, b'5')), "accepted");
    // Folders without end.
    let folders = header(b"keys/", zero, b'5').repeat(4096);
    assert_eq!(with(&folders), "package_too_large");
    // Another magic number, a prefix, a checksum.
    let mut other = header(b"manifest.json", zero, b'0');
    other[257] = b'x';
    seal(&mut other);
    assert_eq!(with(&other), "package_malformed");
    let mut prefixed = header(b"manifest.json", zero, b'0');
    prefixed[345..348].copy_from_slice(b"../");
    seal(&mut prefixed);
    assert_eq!(with(&prefixed), "package_malformed");
    for bit in (0..BLOCK * 8).step_by(13) {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(code(&changed), "accepted", "bit {bit} of a header");
    }
    let mut wrong = header(b"manifest.json", zero, b'0');
    wrong[200] = 1;
    assert_eq!(with(&wrong), "package_checksum");
    // An end in between, and something behind the end.
    assert_eq!(with(&[0; BLOCK]), "package_malformed");
    assert_eq!(code(&[&good[..], &good].concat()), "package_malformed");
    assert_eq!(code(&[&good[..], &[0; 8192]].concat()), "accepted");
    assert_eq!(code(&[0; 1024]), "package_part_missing");
}
