//! Codes of one shape, and decoders for one pattern of loss.

use crate::erasure::{ErasureBackend, ErasureError, kernel::Transform, matrix::Matrix};

/// Most data shards of a stripe. A stripe lies within one node, of some 24 to 36 drives; and so many pointers and factors
/// still lie on the stack and in the first cache.
pub const DATA_SHARDS_MAX: usize = 32;

/// Most parity shards of a stripe: twice the four of the widest layouts in use, beyond which drives that fail each for
/// itself are no longer what loses stripes.
pub const PARITY_SHARDS_MAX: usize = 8;

/// Most shards of a stripe.
const SHARDS_MAX: usize = DATA_SHARDS_MAX + PARITY_SHARDS_MAX;

/// A Reed-Solomon code of k data and m parity shards. Shards are numbered from zero, data first.
#[derive(Debug)]
pub struct ErasureCode {
    data: usize,
    generator: Matrix,
    backend: ErasureBackend,
    encoder: Transform,
}

impl ErasureCode {
    /// The code of `data` and `parity` shards. Without parity it is no more than a stripe, which can lose nothing.
    ///
    /// # Errors
    ///
    /// [`ErasureError::Shape`] unless `data` is from 1 to [`DATA_SHARDS_MAX`] and `parity` at most [`PARITY_SHARDS_MAX`].
    pub fn new(data: usize, parity: usize) -> Result<Self, ErasureError> {
        check_shape(data, parity)?;
        // Asked for after the check: the backends are timed with codes of their own.
        Self::with_backend(data, parity, ErasureBackend::active())
    }

    /// The same code by a named backend, for tests and benchmarks.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; [`ErasureError::Backend`] if the backend is not available here.
    pub fn with_backend(data: usize, parity: usize, backend: ErasureBackend) -> Result<Self, ErasureError> {
        check_shape(data, parity)?;
        if !backend.is_available() {
            return Err(ErasureError::Backend { backend });
        }
        let generator = Matrix::generator(data, parity);
        let parity_rows: Vec<usize> = (data..data + parity).collect();
        let encoder = Transform::new(backend, data, generator.selected(&parity_rows));
        Ok(Self { data, generator, backend, encoder })
    }

    /// Data shards of a stripe, k.
    #[must_use]
    pub fn data_shards(&self) -> usize {
        self.data
    }

    /// Parity shards of a stripe, m: how many shards it can lose.
    #[must_use]
    pub fn parity_shards(&self) -> usize {
        self.shards() - self.data
    }

    /// All shards of a stripe, k + m.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.generator.rows().len()
    }

    /// The backend that multiplies.
    #[must_use]
    pub fn backend(&self) -> ErasureBackend {
        self.backend
    }

    /// Makes the parity of a stripe: from k data shards m parity shards, all of one length in bytes, whatever it is. What
    /// was in `parity` is overwritten.
    ///
    /// # Panics
    ///
    /// If the shards are more or fewer, or of different lengths.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        self.encoder.apply(data, parity);
    }

    /// What makes the shards `wanted`, data or parity, from shards `present`; if more than k are, from the first k of them.
    ///
    /// # Errors
    ///
    /// [`ErasureError::TooFewShards`] if fewer than k shards are present, [`ErasureError::ShardIndex`] if a stripe has no
    /// such shard, [`ErasureError::ShardRepeated`] if one is named twice in either list.
    pub fn decoder(&self, present: &[usize], wanted: &[usize]) -> Result<Decoder, ErasureError> {
        self.check_indices(present)?;
        self.check_indices(wanted)?;
        if present.len() < self.data {
            return Err(ErasureError::TooFewShards { present: present.len(), needed: self.data });
        }
        let inputs = present[..self.data].to_vec();
        let inverse = self.generator.selected(&inputs).inverted();
        let inverse = inverse.expect("any k rows of the identity over a Cauchy matrix are independent");
        let matrix = self.generator.selected(wanted).times(&inverse);
        Ok(Decoder { inputs, transform: Transform::new(self.backend, self.data, matrix) })
    }

    /// Makes the shards `wanted` of one stripe from those `present`, each with its index. For more than one stripe with the
    /// same shards lost, a [`Self::decoder`] spares the inversion.
    ///
    /// # Errors
    ///
    /// As [`Self::decoder`].
    ///
    /// # Panics
    ///
    /// If `out` is not as long as `wanted`, or shards differ in length.
    pub fn reconstruct(
        &self,
        present: &[(usize, &[u8])],
        wanted: &[usize],
        out: &mut [&mut [u8]],
    ) -> Result<(), ErasureError> {
        let (indices, shards): (Vec<usize>, Vec<&[u8]>) = present.iter().copied().unzip();
        let decoder = self.decoder(&indices, wanted)?;
        decoder.apply(&shards[..self.data], out);
        Ok(())
    }

    fn check_indices(&self, indices: &[usize]) -> Result<(), ErasureError> {
        let mut seen = [false; SHARDS_MAX];
        for &index in indices {
            if index >= self.shards() {
                return Err(ErasureError::ShardIndex { index, shards: self.shards() });
            }
            if std::mem::replace(&mut seen[index], true) {
                return Err(ErasureError::ShardRepeated { index });
            }
        }
        Ok(())
    }
}

/// Makes certain shards of a stripe from k certain others; it serves for all stripes that lost the same ones.
#[derive(Debug)]
pub struct Decoder {
    inputs: Vec<usize>,
    transform: Transform,
}

impl Decoder {
    /// The indices of the k shards that [`Self::apply`] takes, in its order.
    #[must_use]
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// Makes the wanted shards of a stripe, in the order in which they were asked for, from the shards [`Self::inputs`], all
    /// of one length in bytes. What was in `outputs` is overwritten.
    ///
    /// # Panics
    ///
    /// If the shards are more or fewer, or of different lengths.
    pub fn apply(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        self.transform.apply(inputs, outputs);
    }
}

fn check_shape(data: usize, parity: usize) -> Result<(), ErasureError> {
    if (1..=DATA_SHARDS_MAX).contains(&data) && parity <= PARITY_SHARDS_MAX {
        Ok(())
    } else {
        Err(ErasureError::Shape { data, parity })
    }
}
