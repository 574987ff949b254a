//! An int8 matrix with a scale for each row, lying in a mapped base or owned.

use crate::kernels::tiles;
use crate::sys::map::FileMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Frozen int8 matrix `[rows, cols]`: `w[r, c] ≈ q[r, c] · scale[r]`. Clones share everything.
#[derive(Clone)]
pub struct QMatrix(Arc<Inner>);

struct Inner {
    rows: usize,
    cols: usize,
    order: Order,
    source: Source,
    sums: OnceLock<Vec<i32>>,
}

/// How the values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Row after row: what is looked up by row.
    Rows,
    /// In the tiles of [`tiles`]: what is multiplied.
    Tiles,
}

impl Order {
    /// Number of values of a matrix `[rows, cols]`, padding included; none if that overflows.
    fn len(self, rows: usize, cols: usize) -> Option<usize> {
        match self {
            Order::Rows => rows.checked_mul(cols),
            Order::Tiles => tiles::len(rows, cols),
        }
    }
}

enum Source {
    /// Byte ranges in a map, checked by [`QMatrix::from_map`].
    Map {
        map: Arc<FileMap>,
        data: Range<usize>,
        scale: Range<usize>,
    },
    Owned {
        data: Vec<i8>,
        scale: Vec<f32>,
    },
}

impl QMatrix {
    /// The weight of a Linear from its parts: `data` `[rows, cols]` row-major in [-127, 127], `scale` `[rows]`.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn linear(rows: usize, cols: usize, data: &[i8], scale: Vec<f32>) -> QMatrix {
        assert_eq!(data.len(), rows * cols, "data is [rows, cols]");
        assert_eq!(scale.len(), rows, "one scale a row");
        let data = tiles::of_rows(data, rows, cols);
        QMatrix::new(rows, cols, Order::Tiles, Source::Owned { data, scale })
    }

    /// The weight of a Linear with the values of this table, which lies row by row: a copy in memory.
    ///
    /// Where a row is all zeros its scale is 0, not 1: a backward folds the scales into its gradients, where a 1 beside
    /// scales of 0.001 would take the precision of a whole block.
    ///
    /// # Panics
    /// If this is the weight of a Linear already.
    pub fn to_linear(&self) -> QMatrix {
        assert_eq!(self.order(), Order::Rows, "a table");
        let rows = self.data().chunks_exact(self.cols()).zip(self.scale());
        let scale = rows.map(|(row, scale)| if row.iter().all(|q| *q == 0) { 0.0 } else { *scale }).collect();
        QMatrix::linear(self.rows(), self.cols(), self.data(), scale)
    }

    /// A matrix in a map. Fails with what is wrong if the ranges do not fit the map, the sizes or the alignment.
    pub(super) fn from_map(
        rows: usize,
        cols: usize,
        order: Order,
        map: &Arc<FileMap>,
        data: Range<usize>,
        scale: Range<usize>,
    ) -> Result<QMatrix, String> {
        let bytes = map.bytes();
        if bytes.get(data.clone()).map(<[u8]>::len) != order.len(rows, cols) {
            return Err(format!("values do not have the size of [{rows}, {cols}]"));
        }
        let scales = bytes.get(scale.clone()).map(bytemuck::try_cast_slice::<u8, f32>);
        match scales {
            Some(Ok(s)) if s.len() == rows => {}
            Some(Err(e)) => return Err(format!("scales cannot be read in place: {e}")),
            _ => return Err(format!("scales do not have the size of [{rows}]")),
        }
        Ok(QMatrix::new(rows, cols, order, Source::Map { map: map.clone(), data, scale }))
    }

    fn new(rows: usize, cols: usize, order: Order, source: Source) -> QMatrix {
        QMatrix(Arc::new(Inner { rows, cols, order, source, sums: OnceLock::new() }))
    }

    /// Output channels of a Linear, entries of a table.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Input channels.
    pub fn cols(&self) -> usize {
        self.0.cols
    }

    /// The values as they lie, see [`QMatrix::order`].
    pub fn data(&self) -> &[i8] {
        match &self.0.source {
            Source::Map { map, data, .. } => bytemuck::cast_slice(&map.bytes()[data.clone()]),
            Source::Owned { data, .. } => data,
        }
    }

    /// How the values lie.
    pub fn order(&self) -> Order {
        self.0.order
    }

    /// What `make` says of the weights, asked once: the sums of their blocks, for kernel sets that want them.
    pub fn sums(&self, make: impl FnOnce() -> Vec<i32>) -> &[i32] {
        self.0.sums.get_or_init(make)
    }

    /// The values of row `r`.
    ///
    /// # Panics
    /// If `r` is not a row.
    pub fn row(&self, r: usize) -> impl Iterator<Item = i8> {
        assert!(r < self.rows(), "row {r} of {}", self.rows());
        let (data, cols, order) = (self.data(), self.cols(), self.order());
        (0..cols).map(move |c| match order {
            Order::Rows => data[r * cols + c],
            Order::Tiles => data[tiles::index(cols, r, c)],
        })
    }

    /// The scales, `[rows]`.
    pub fn scale(&self) -> &[f32] {
        match &self.0.source {
            Source::Map { map, scale, .. } => bytemuck::cast_slice(&map.bytes()[scale.clone()]),
            Source::Owned { scale, .. } => scale,
        }
    }

    /// The whole matrix in f32, `[rows, cols]`, row-major.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows() * self.cols()];
        out.chunks_exact_mut(self.cols().max(1)).enumerate().for_each(|(r, row)| self.dequantize_row(r, row));
        out
    }

    /// Row `r` in f32 into `out` `[cols]`: `out[c] = q[r, c] · scale[r]`.
    ///
    /// # Panics
    /// If `r` is not a row or `out` has another length than a row.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols(), "out holds one row");
        let scale = self.scale()[r];
        out.iter_mut().zip(self.row(r)).for_each(|(y, q)| *y = f32::from(q) * scale);
    }
}

impl fmt::Debug for QMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QMatrix[{}, {}]", self.rows(), self.cols())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_small_matrix() {
        let m = QMatrix::linear(2, 3, &[1, -2, 3, -127, 127, 5], vec![0.5, 2.0]);
        assert_eq!(m.row(1).collect::<Vec<_>>(), [-127, 127, 5]);
        assert_eq!(m.dequantize(), [0.5, -1.0, 1.5, -254.0, 254.0, 10.0]);
        let mut row = [0.0; 3];
        m.dequantize_row(1, &mut row);
        assert_eq!(row, [-254.0, 254.0, 10.0]);
    }
}
