//! Bytes to put.

use bytes::Bytes;

/// Bytes that follow from a number, and differ from those of any other.
pub(crate) fn content(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend(state.rotate_left(23).to_le_bytes());
    }
    content.truncate(bytes);
    content.into()
}
