//! Multiplies shards by a matrix.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions that not every CPU has")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions that not every CPU has")]
mod gfni;
#[cfg(isal)]
#[allow(unsafe_code, reason = "a library in C")]
mod isal;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions that not every CPU has")]
mod lanes;
mod portable;

use crate::erasure::{DATA_SHARDS_MAX, ErasureBackend, PARITY_SHARDS_MAX, matrix::Matrix};

/// Most shards that are made at once: all of a stripe.
const OUTPUTS_MAX: usize = DATA_SHARDS_MAX + PARITY_SHARDS_MAX;

/// A matrix, made ready for one backend. Each row makes an output shard from all input shards, one for each column.
#[derive(Debug)]
pub(super) struct Transform {
    inputs: usize,
    matrix: Matrix,
    factors: Factors,
}

/// The elements of the matrix as a backend wants them.
#[derive(Debug)]
enum Factors {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Vec<avx2::Factor>),
    #[cfg(target_arch = "x86_64")]
    Gfni256(Vec<gfni::Factor>),
    #[cfg(target_arch = "x86_64")]
    Gfni512(Vec<gfni::Factor>),
    #[cfg(isal)]
    IsaL(isal::Tables),
}

impl Transform {
    /// Makes ready a matrix of `inputs` columns and any number of rows, for a backend that is available.
    pub(super) fn new(backend: ErasureBackend, inputs: usize, matrix: Matrix) -> Self {
        // Pairs with `apply`, which runs the backend's code without asking again.
        assert!(backend.is_available(), "erasure backend {} is not available", backend.name());
        assert!((1..=DATA_SHARDS_MAX).contains(&inputs) && matrix.rows().len() <= OUTPUTS_MAX);
        assert!(matrix.rows().all(|row| row.len() == inputs), "a row has an element for each of {inputs} inputs");
        let factors = match backend {
            #[cfg(target_arch = "x86_64")]
            ErasureBackend::Avx2 => Factors::Avx2(lanes::factors(&matrix, avx2::factor)),
            #[cfg(target_arch = "x86_64")]
            ErasureBackend::Gfni256 => Factors::Gfni256(lanes::factors(&matrix, gfni::factor)),
            #[cfg(target_arch = "x86_64")]
            ErasureBackend::Gfni512 => Factors::Gfni512(lanes::factors(&matrix, gfni::factor)),
            #[cfg(isal)]
            ErasureBackend::IsaL => Factors::IsaL(isal::Tables::new(inputs, &matrix)),
            _ => Factors::Portable,
        };
        Self { inputs, matrix, factors }
    }

    /// Overwrites each output with the sum of all inputs times their factors.
    ///
    /// # Panics
    ///
    /// Unless there are as many inputs as columns and as many outputs as rows, all of one length.
    pub(super) fn apply(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let rows = self.matrix.rows().len();
        assert!(inputs.len() == self.inputs, "{} shards where {} are to be read", inputs.len(), self.inputs);
        assert!(outputs.len() == rows, "{} shards where {rows} are to be made", outputs.len());
        let length = inputs[0].len();
        let lengths = inputs.iter().map(|shard| shard.len()).chain(outputs.iter().map(|shard| shard.len()));
        for other in lengths {
            assert!(other == length, "shards of {length} and of {other} bytes in one stripe");
        }
        #[allow(unsafe_code, reason = "vector instructions that not every CPU has")]
        match &self.factors {
            Factors::Portable => portable::apply(&self.matrix, inputs, outputs),
            #[cfg(isal)]
            Factors::IsaL(tables) => tables.apply(inputs, outputs),
            #[cfg(target_arch = "x86_64")]
            _ if length < lanes::BYTES_MAX => portable::apply(&self.matrix, inputs, outputs),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU was asked when this was made, and the shards were counted and measured just now.
            Factors::Avx2(factors) => unsafe { avx2::apply(factors, inputs, outputs) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Factors::Gfni256(factors) => unsafe { gfni::apply_256(factors, inputs, outputs) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Factors::Gfni512(factors) => unsafe { gfni::apply_512(factors, inputs, outputs) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erasure::field;

    /// Lengths around the borders of vectors, groups of vectors, blocks and strips.
    const LENGTHS: [usize; 14] = [0, 1, 31, 63, 64, 65, 95, 127, 128, 129, 320, 4095, 4096, 4097];

    fn bytes(count: usize, seed: usize) -> Vec<u8> {
        (0..count).map(|index| ((index + seed).wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]).collect()
    }

    /// The product by the definition, byte by byte.
    fn expected(matrix: &Matrix, inputs: &[&[u8]], length: usize) -> Vec<Vec<u8>> {
        let byte = |row: &[u8], place: usize| {
            let products = row.iter().zip(inputs).map(|(factor, input)| field::product(*factor, input[place]));
            products.fold(0, |sum, product| sum ^ product)
        };
        matrix.rows().map(|row| (0..length).map(|place| byte(row, place)).collect()).collect()
    }

    fn check(backend: ErasureBackend, inputs: usize, outputs: usize, length: usize) {
        let rows: Vec<usize> = (inputs..inputs + outputs).collect();
        let matrix = Matrix::generator(inputs, outputs).selected(&rows);
        // One byte more in front, so that nothing is aligned; and a byte more behind, which is to stay as it is.
        let buffers: Vec<Vec<u8>> = (0..inputs).map(|input| bytes(length + 1, input * 71)).collect();
        let shards: Vec<&[u8]> = buffers.iter().map(|buffer| &buffer[1..]).collect();
        let mut made = vec![vec![0xee; length + 2]; outputs];
        let mut targets: Vec<&mut [u8]> = made.iter_mut().map(|target| &mut target[1..=length]).collect();
        Transform::new(backend, inputs, matrix.clone()).apply(&shards, &mut targets);
        for (made, expected) in made.iter().zip(expected(&matrix, &shards, length)) {
            assert_eq!((made[0], made[length + 1]), (0xee, 0xee), "{}: bytes beside the shard", backend.name());
            assert!(made[1..=length] == expected, "{}: {inputs}+{outputs} of {length} bytes", backend.name());
        }
    }

    #[test]
    fn every_kernel_gives_the_products_of_the_definition() {
        for backend in ErasureBackend::ALL.into_iter().filter(|backend| backend.is_available()) {
            for length in LENGTHS {
                for outputs in 0..=PARITY_SHARDS_MAX {
                    check(backend, 3, outputs, length);
                }
                check(backend, 1, 1, length);
                check(backend, DATA_SHARDS_MAX, 5, length);
            }
        }
    }

    #[test]
    fn every_element_multiplies_every_byte() {
        let input: Vec<u8> = (0..=255).collect();
        for backend in ErasureBackend::ALL.into_iter().filter(|backend| backend.is_available()) {
            for element in 0..=255 {
                let matrix = Matrix::of_rows(vec![vec![element]]);
                let mut output = vec![0; input.len()];
                Transform::new(backend, 1, matrix).apply(&[&input], &mut [&mut output]);
                let expected: Vec<u8> = input.iter().map(|byte| field::product(element, *byte)).collect();
                assert_eq!(output, expected, "{} times {element}", backend.name());
            }
        }
    }
}
