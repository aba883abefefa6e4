//! Intel's ISA-L, <https://github.com/intel/isa-l>: it chooses its own kernel for the CPU.

use std::ffi::{c_int, c_uchar};

use crate::erasure::{DATA_SHARDS_MAX, kernel::OUTPUTS_MAX, matrix::Matrix};

/// Bytes of the tables of one element of a matrix (`erasure_code.h`, `ec_init_tables`).
const TABLE_BYTES: usize = 32;

/// Most bytes of a shard in one call: lengths are of type `int`.
const CALL_BYTES_MAX: usize = 1 << 30;

// Linked by build.rs. The declarations are those of `erasure_code.h`, the same in all releases of version 2.
unsafe extern "C" {
    fn ec_init_tables(columns: c_int, rows: c_int, matrix: *mut c_uchar, tables: *mut c_uchar);
    fn ec_encode_data(
        length: c_int,
        columns: c_int,
        rows: c_int,
        tables: *mut c_uchar,
        inputs: *mut *mut c_uchar,
        outputs: *mut *mut c_uchar,
    );
}

/// A matrix as ISA-L wants it.
#[derive(Debug)]
pub(super) struct Tables {
    columns: usize,
    rows: usize,
    bytes: Vec<u8>,
}

impl Tables {
    pub(super) fn new(columns: usize, matrix: &Matrix) -> Self {
        let mut elements: Vec<u8> = matrix.rows().flatten().copied().collect();
        let rows = matrix.rows().len();
        assert!(columns * rows == elements.len());
        let mut bytes = vec![0; elements.len() * TABLE_BYTES];
        // SAFETY: it reads columns times rows elements, and writes as many tables.
        unsafe { ec_init_tables(int(columns), int(rows), elements.as_mut_ptr(), bytes.as_mut_ptr()) };
        Self { columns, rows, bytes }
    }

    /// Overwrites each output with the sum of all inputs times their factors.
    ///
    /// # Panics
    ///
    /// Unless there are as many inputs as columns and as many outputs as rows, all of one length.
    pub(super) fn apply(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert!(inputs.len() == self.columns && outputs.len() == self.rows);
        let length = inputs[0].len();
        assert!(inputs.iter().all(|shard| shard.len() == length) && outputs.iter().all(|shard| shard.len() == length));
        for start in (0..length).step_by(CALL_BYTES_MAX) {
            let part = start..length.min(start + CALL_BYTES_MAX);
            let mut sources = [std::ptr::null_mut(); DATA_SHARDS_MAX];
            for (source, input) in sources.iter_mut().zip(inputs) {
                *source = input[part.clone()].as_ptr().cast_mut();
            }
            let mut targets = [std::ptr::null_mut(); OUTPUTS_MAX];
            for (target, output) in targets.iter_mut().zip(&mut *outputs) {
                *target = output[part.clone()].as_mut_ptr();
            }
            let (length, columns, rows) = (int(part.len()), int(self.columns), int(self.rows));
            let tables = self.bytes.as_ptr().cast_mut();
            // SAFETY: there are as many sources, targets and tables as it is told, and as many bytes behind each pointer.
            // It writes through the targets alone, though only newer releases say `const` of the rest.
            unsafe { ec_encode_data(length, columns, rows, tables, sources.as_mut_ptr(), targets.as_mut_ptr()) };
        }
    }
}

/// A count that was bounded before, as C has it.
fn int(count: usize) -> c_int {
    c_int::try_from(count).expect("counts are at most CALL_BYTES_MAX")
}
