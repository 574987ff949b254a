//! How the weight of a Linear is stored: one copy that serves both contractions.
//!
//! `[out/16][in/4][16][4]` bytes, `out` and `in` padded with zeros to multiples of [`BLOCK`]. Sixteen outputs are a
//! panel, `[in/4][16][4]`: what a dot product of four bytes (`vpdpbusd`, `sdot`) takes, so the forward reads it where
//! it lies. The backward, which contracts over the outputs, packs squares of 16 × 16 as it goes.

use super::BLOCK;

/// Most rows of a tile in any set.
pub const MR_MAX: usize = 16;
/// The results of a tile before weight scales and bias: row `r`, column `c`.
#[repr(align(64))]
pub struct Tile(pub [[f32; BLOCK]; MR_MAX]);

/// Weights that come next, for `Int8::tile` to begin to fetch: of a square a block no more than is
/// needed until they come, so that the lines on their way leave room for those that the tile itself waits for.
#[derive(Clone, Copy)]
pub struct Ahead<'a> {
    /// Starts of the next squares, one for each block of the contraction. A square is 16 columns of a block. Empty if there is
    /// nothing to fetch.
    pub squares: &'a [*const i8],
    /// Where in the squares.
    pub at: usize,
    /// Whether all that is left of a square is wanted, not a piece: there are few tiles until then.
    pub whole: bool,
}

impl Ahead<'_> {
    /// Bytes of a piece: four cache lines.
    pub const PIECE: usize = 256;
    /// Bytes of a square, 16 columns and a block of the contraction.
    pub const SQUARE: usize = BLOCK * PANEL;
}

/// Outputs of a panel.
pub const PANEL: usize = 16;
/// Inputs that lie together.
pub const GROUP: usize = 4;

/// `n` rounded up to whole blocks.
pub const fn padded(n: usize) -> usize {
    n.next_multiple_of(BLOCK)
}

/// Bytes of the tiles of a weight `[rows, cols]`; none if that overflows.
pub fn len(rows: usize, cols: usize) -> Option<usize> {
    rows.checked_next_multiple_of(BLOCK)?.checked_mul(cols.checked_next_multiple_of(BLOCK)?)
}

/// The shape of the tiles of a weight `[rows, cols]`.
pub const fn shape(rows: usize, cols: usize) -> [usize; 4] {
    [padded(rows) / PANEL, padded(cols) / GROUP, PANEL, GROUP]
}

/// Place of element `(row, col)` of a weight of `cols` columns.
pub const fn index(cols: usize, row: usize, col: usize) -> usize {
    let group = row / PANEL * (padded(cols) / GROUP) + col / GROUP;
    (group * PANEL + row % PANEL) * GROUP + col % GROUP
}

/// Up to a panel of rows `[_, cols]` in their tiles, `[in/4][16][4]`.
pub fn panel_of_rows(rows: &[i8], cols: usize) -> Vec<i8> {
    let mut panel = vec![0; padded(cols) * PANEL];
    for (r, row) in rows.chunks_exact(cols.max(1)).enumerate() {
        for (c, v) in row.iter().enumerate() {
            panel[index(cols, r, c)] = *v;
        }
    }
    panel
}

/// The tiles of `data: [rows, cols]`, row-major.
pub fn of_rows(data: &[i8], rows: usize, cols: usize) -> Vec<i8> {
    let mut tiles = Vec::with_capacity(padded(rows) * padded(cols));
    for panel in data.chunks((PANEL * cols).max(1)) {
        tiles.extend(panel_of_rows(panel, cols));
    }
    tiles.resize(padded(rows) * padded(cols), 0);
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_at_its_index_and_zeros_around() {
        for (rows, cols) in [(1, 1), (16, 4), (17, 5), (64, 64), (70, 130), (0, 3)] {
            let data: Vec<i8> = (0..rows * cols).map(|i| (i % 127) as i8 + 1).collect();
            let tiles = of_rows(&data, rows, cols);
            assert_eq!(Some(tiles.len()), len(rows, cols));
            assert_eq!(tiles.len(), shape(rows, cols).iter().product::<usize>());
            for (i, v) in data.iter().enumerate() {
                assert_eq!(tiles[index(cols, i / cols, i % cols)], *v);
            }
            assert_eq!(tiles.iter().filter(|v| **v != 0).count(), data.len());
        }
    }
}
