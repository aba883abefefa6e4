//! The constants of SM3, GB/T 32905-2016.

/// `T_j <<< j`, section 4.2.
pub(super) const CONSTANTS: [u32; 64] = {
    let mut constants = [0u32; 64];
    let mut j = 0;
    while j < 64 {
        let constant: u32 = if j < 16 { 0x79cc_4519 } else { 0x7a87_9d8a };
        constants[j as usize] = constant.rotate_left(j % 32);
        j += 1;
    }
    constants
};

/// Section 4.1.
pub(super) const INITIAL: [u32; 8] =
    [0x7380_166f, 0x4914_b2b9, 0x1724_42d7, 0xda8a_0600, 0xa96f_30bc, 0x1631_38aa, 0xe38d_ee4d, 0xb0fb_0e4e];
