//! Loading memory before it is read.

/// Asks the processor to bring a value into its caches. It returns at once and changes nothing; on processors without
/// such an instruction it does nothing.
///
/// Walks over many independent paths use it: the loads of one step overlap instead of waiting for each other.
#[inline]
#[allow(unsafe_code, reason = "an intrinsic of the processor")]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let start = std::ptr::from_ref(value).cast::<i8>();
        for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
            // SAFETY: SSE belongs to every x86-64 processor; a prefetch never faults, and the address lies in `value`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
        if size_of::<T>() > 1 {
            // A value that does not begin with a line may end in one more.
            // SAFETY: as above; this is the value's last byte.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(size_of::<T>() - 1)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
