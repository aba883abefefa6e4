//! Matrices over GF(2^8).

use crate::erasure::field::{inverse, product};

/// A matrix, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    rows: Vec<Vec<u8>>,
}

impl Matrix {
    /// The matrix that makes all shards from the data: the identity over a Cauchy matrix of 1 / (i xor j), i being the row
    /// from `data` on and j the column. It is that of `gf_gen_cauchy1_matrix` in ISA-L.
    pub(super) fn generator(data: usize, parity: usize) -> Self {
        assert!(data + parity <= 256, "a field of 256 elements names no more rows and columns");
        let identity = (0..data).map(|row| unit(row, data));
        let cauchy = (data..data + parity).map(|row| (0..data).map(|column| cauchy_element(row, column)).collect());
        Self { rows: identity.chain(cauchy).collect() }
    }

    /// A matrix of any rows.
    #[cfg(test)]
    pub(super) fn of_rows(rows: Vec<Vec<u8>>) -> Self {
        Self { rows }
    }

    /// Rows, in order.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// The matrix of the rows that are named.
    pub(super) fn selected(&self, rows: &[usize]) -> Self {
        Self { rows: rows.iter().map(|row| self.rows[*row].clone()).collect() }
    }

    /// This matrix times another, which has as many rows as this has columns.
    pub(super) fn times(&self, right: &Self) -> Self {
        let row_times_right = |row: &Vec<u8>| {
            let mut sum = vec![0; right.rows.first().map_or(0, Vec::len)];
            for (factor, source) in row.iter().zip(&right.rows) {
                add_multiple(&mut sum, *factor, source);
            }
            sum
        };
        Self { rows: self.rows.iter().map(row_times_right).collect() }
    }

    /// The inverse of a square matrix, by Gauss and Jordan; nothing if it is singular.
    pub(super) fn inverted(self) -> Option<Self> {
        let size = self.rows.len();
        // The identity to the right of the matrix takes part in all that makes the matrix the identity.
        let wide = self.rows.into_iter().enumerate().map(|(index, row)| [row, unit(index, size)].concat());
        let mut rows: Vec<Vec<u8>> = wide.collect();
        for column in 0..size {
            let pivot = (column..size).find(|row| rows[*row][column] != 0)?;
            rows.swap(pivot, column);
            let scale = inverse(rows[column][column]);
            let source: Vec<u8> = rows[column].iter().map(|element| product(scale, *element)).collect();
            for row in &mut rows {
                let factor = row[column];
                add_multiple(row, factor, &source);
            }
            rows[column] = source;
        }
        Some(Self { rows: rows.into_iter().map(|mut row| row.split_off(size)).collect() })
    }
}

fn unit(place: usize, length: usize) -> Vec<u8> {
    (0..length).map(|column| u8::from(column == place)).collect()
}

fn cauchy_element(row: usize, column: usize) -> u8 {
    inverse((row ^ column).to_le_bytes()[0])
}

fn add_multiple(sum: &mut [u8], factor: u8, source: &[u8]) {
    for (sum, element) in sum.iter_mut().zip(source) {
        *sum ^= product(factor, *element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `gf_gen_cauchy1_matrix(a, 11, 8)` of ISA-L 2.30.
    const CAUCHY_8_3: [[u8; 8]; 3] = [
        [0xad, 0x9d, 0xdd, 0x98, 0x3d, 0xaa, 0x5d, 0x96],
        [0x9d, 0xad, 0x98, 0xdd, 0xaa, 0x3d, 0x96, 0x5d],
        [0xdd, 0x98, 0xad, 0x9d, 0x5d, 0x96, 0x3d, 0xaa],
    ];

    #[test]
    fn the_generator_is_the_identity_over_the_cauchy_matrix_of_isa_l() {
        let generator = Matrix::generator(8, 3);
        assert_eq!(generator.selected(&[8, 9, 10]).rows, CAUCHY_8_3);
        assert_eq!(generator.selected(&[0, 1, 2, 3, 4, 5, 6, 7]), Matrix::generator(8, 0));
    }

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        for size in [1, 2, 7, 8, 32] {
            // The last rows backwards, so that pivots are to be looked for.
            let rows: Vec<usize> = (8..size + 8).rev().collect();
            let matrix = Matrix::generator(size, 8).selected(&rows);
            let inverse = matrix.clone().inverted().unwrap();
            assert_eq!(inverse.times(&matrix), Matrix::generator(size, 0));
            assert_eq!(matrix.times(&inverse), Matrix::generator(size, 0));
        }
    }

    #[test]
    fn a_singular_matrix_has_no_inverse() {
        assert_eq!(Matrix::generator(3, 1).selected(&[0, 3, 0]).inverted(), None);
    }
}
