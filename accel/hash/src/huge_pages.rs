//! Memory in huge pages.

use std::mem::MaybeUninit;

/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Asks the system to back memory with huge pages, so that an access anywhere in it needs a translation that the processor
/// has at hand, not one that it must look up in memory. It changes no content, and where it is refused the memory stays in
/// small pages.
///
/// Whole huge pages that the memory lies in are asked for, so pieces side by side get theirs together. Memory that an
/// allocator has used before has its small pages already: they are exchanged at once (Linux 6.1 and later), a fraction of a
/// millisecond for each huge page. That exchange does not ask what the operator has set, so it is asked for only where huge
/// pages are not switched off.
#[allow(unsafe_code, reason = "an advice to the system")]
pub fn prefer_huge_pages<T>(memory: &[MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        let range = memory.as_ptr_range();
        let start = range.start.map_addr(|start| start / HUGE_PAGE * HUGE_PAGE);
        let bytes = range.end.addr().next_multiple_of(HUGE_PAGE) - start.addr();
        // SAFETY: the advice changes how the system backs memory, never what is read there or what may be accessed; whatever
        // else of this process lies in the first and the last page is as it was. Addresses without memory are passed over.
        unsafe {
            libc::madvise(start.cast_mut().cast(), bytes, libc::MADV_HUGEPAGE);
            if are_allowed() {
                libc::madvise(start.cast_mut().cast(), bytes, libc::MADV_COLLAPSE);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Whether the operator lets programs that ask have huge pages; where nobody can say, they do not.
#[cfg(target_os = "linux")]
fn are_allowed() -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}"));
    read("enabled").is_ok_and(|all| allows(&all, read("hugepages-2048kB/enabled").ok().as_deref()))
}

/// What the setting for all sizes and that for this one (Linux 6.8 and later) say: `always [madvise] never`.
#[cfg(target_os = "linux")]
fn allows(all: &str, own: Option<&str>) -> bool {
    let deciding = own.filter(|own| !own.contains("[inherit]")).unwrap_or(all);
    deciding.contains('[') && !deciding.contains("[never]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_it_holds() {
        let mut memory: Vec<u64> = Vec::with_capacity(3 * HUGE_PAGE / size_of::<u64>());
        memory.extend(0..1000);
        prefer_huge_pages(memory.spare_capacity_mut());
        memory.extend(1000..memory.capacity() as u64);
        assert!(memory.iter().copied().eq(0..memory.len() as u64));
        prefer_huge_pages::<u64>(&[]);
    }

    /// The exchange of pages that are in use takes no notice of the setting: the memory of a system whose operator had
    /// switched huge pages off was in them.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_operator_who_switched_them_off_is_listened_to() {
        assert!(allows("always [madvise] never\n", None) && allows("[always] madvise never\n", None));
        assert!(!allows("always madvise [never]\n", None) && !allows("", None));
        let inherit = "always [inherit] madvise never\n";
        assert!(
            allows("always [madvise] never\n", Some(inherit)) && !allows("always madvise [never]\n", Some(inherit))
        );
        assert!(!allows("[always] madvise never\n", Some("always inherit madvise [never]\n")));
        assert!(allows("always madvise [never]\n", Some("always inherit [madvise] never\n")));
    }

    /// Bytes of huge pages in the mapping that holds an address.
    #[cfg(target_os = "linux")]
    fn huge_bytes(address: usize) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux tells a process of its memory");
        let mut here = false;
        for line in maps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let bound = |text| usize::from_str_radix(text, 16).ok();
            if let Some((start, end)) = range.and_then(|(start, end)| Some((bound(start)?, bound(end)?))) {
                here = (start..end).contains(&address);
            } else if let Some(kilobytes) = line.strip_prefix("AnonHugePages:").filter(|_| here) {
                return 1024 * kilobytes.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
            }
        }
        0
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_in_use_comes_into_huge_pages_where_they_are_allowed() {
        let mut memory: Vec<u8> = vec![1; 4 * HUGE_PAGE];
        let middle = memory.as_ptr().addr() + 2 * HUGE_PAGE;
        let before = huge_bytes(middle);
        memory.clear();
        prefer_huge_pages(memory.spare_capacity_mut());
        if !are_allowed() {
            eprintln!("skipped: huge pages are switched off here, or nobody says");
            assert_eq!(huge_bytes(middle), before);
            return;
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let version = release.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
        if version.take(2).lt([6, 1]) {
            eprintln!("skipped: Linux {release} does not exchange pages that are in use");
            return;
        }
        assert!(huge_bytes(middle) >= 2 * HUGE_PAGE, "{} bytes, {before} before", huge_bytes(middle));
    }
}
