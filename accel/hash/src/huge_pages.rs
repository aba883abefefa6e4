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
/// millisecond for each huge page.
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
            libc::madvise(start.cast_mut().cast(), bytes, libc::MADV_COLLAPSE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
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
}
