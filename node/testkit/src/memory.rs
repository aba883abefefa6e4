//! Changes bytes in the memory of a running process, as a failing memory module would.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};

/// A mapping that is larger is not searched: nodes of tests have none.
const MAPPING_BYTES_MAX: u64 = 1 << 30;

/// Flips one bit in every copy of `bytes` in the writable memory of a process, and returns how many there were.
///
/// # Errors
/// When the process is gone or may not be touched, or holds no copy.
pub fn flip(process: u32, bytes: &[u8]) -> Result<usize> {
    let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem")).context("memory")?;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).context("mappings")?;
    let mut copies = 0;
    for (start, end) in maps.lines().filter_map(writable) {
        copies += flip_in(&memory, start, end, bytes);
    }
    ensure!(copies > 0, "process {process} holds no copy");
    Ok(copies)
}

/// Bounds of a writable private mapping, from a line of `/proc/PID/maps` (proc(5)).
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    fields.next().filter(|rights| rights.starts_with("rw") && rights.ends_with('p'))?;
    let bounds = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (bounds.1 - bounds.0 <= MAPPING_BYTES_MAX).then_some(bounds)
}

fn flip_in(memory: &File, start: u64, end: u64, bytes: &[u8]) -> usize {
    let Ok(length) = usize::try_from(end - start) else { return 0 };
    let mut content = vec![0; length];
    // Mappings come and go while the process runs.
    if memory.read_exact_at(&mut content, start).is_err() {
        return 0;
    }
    let found = content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
    found.filter(|(at, _)| memory.write_all_at(&[bytes[0] ^ 1], start + *at as u64).is_ok()).count()
}
