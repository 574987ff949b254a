//! Two texts' vectors made one that compares them: how far apart and how alike they are, feature by feature.
//!
//! With `â = √h a / |a|`, so that its values are around 1 whatever `h` is, and `δ = â − b̂`:
//! `x = [√(1 + δ²) − 1, â ∘ b̂]`. InferSent (Conneau et al. 2017, arXiv 1705.02364) hands `|δ|` and `â ∘ b̂` to a classifier
//! of pairs, beside the vectors themselves. These two do not change when the texts change places; the sum of the second is
//! `h` times the cosine of the vectors. The first is rounded at 0 (pseudo-Huber), for the sign of a difference of two texts
//! that are alike is the rounding's of int8: a head on either is as good, and the gradient keeps its direction.
//!
//! Backward, `s = δ / √(1 + δ²)`: `d_â = s ∘ d_x₁ + b̂ ∘ d_x₂`, `d_b̂ = −s ∘ d_x₁ + â ∘ d_x₂`,
//! `d_a = √h / |a| (d_â − â (â · d_â) / h)`.
//!
//! In f64, every sum in one order, so that the bits are the same everywhere.

use super::ndarray::*;

/// A shorter vector counts as this long.
const SHORTEST: f64 = 1e-12;

/// `â`, and what `a` was multiplied by.
fn scaled(a: &[f32]) -> (Vec<f64>, f64) {
    let length = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    // NaN stays NaN, which `f64::max` would hide.
    let length = if length < SHORTEST { SHORTEST } else { length };
    let factor = (a.len() as f64).sqrt() / length;
    (a.iter().map(|v| f64::from(*v) * factor).collect(), factor)
}

/// Shapes: `pairs: [2n, hidden]`, the two texts of a pair one after another; `x: [n, 2 hidden]`.
pub fn forward(pairs: ArrayView2<f32>, mut x: ArrayViewMut2<f32>) {
    let hidden = pairs.ncols();
    for (i, mut x) in x.rows_mut().into_iter().enumerate() {
        let [(a, _), (b, _)] = both(&pairs, i);
        for (c, (a, b)) in a.iter().zip(&b).enumerate() {
            x[c] = ((1.0 + (a - b).powi(2)).sqrt() - 1.0) as f32;
            x[hidden + c] = (a * b) as f32;
        }
    }
}

/// Shapes as in [`forward`]; `d_x` as `x`. Returns the gradient of `pairs`.
pub fn backward(pairs: ArrayView2<f32>, d_x: ArrayView2<f32>) -> Array2<f32> {
    let hidden = pairs.ncols();
    let mut d_pairs = Array2::zeros(pairs.raw_dim());
    for (i, d_x) in d_x.rows().into_iter().enumerate() {
        let [(a, by_a), (b, by_b)] = both(&pairs, i);
        let d = |own: &[f64], other: &[f64]| -> Vec<f64> {
            let one = |c: usize| {
                let delta = own[c] - other[c];
                delta / (1.0 + delta * delta).sqrt() * f64::from(d_x[c])
                    + other[c] * f64::from(d_x[hidden + c])
            };
            (0..hidden).map(one).collect()
        };
        for (row, own, factor, d) in [(2 * i, &a, by_a, d(&a, &b)), (2 * i + 1, &b, by_b, d(&b, &a))] {
            let along = own.iter().zip(&d).map(|(v, d)| v * d).sum::<f64>() / hidden as f64;
            for ((to, v), d) in d_pairs.row_mut(row).iter_mut().zip(own).zip(d) {
                *to = (factor * (d - v * along)) as f32;
            }
        }
    }
    d_pairs
}

/// The two vectors of a pair, scaled, and by what.
fn both(pairs: &ArrayView2<f32>, i: usize) -> [(Vec<f64>, f64); 2] {
    [2 * i, 2 * i + 1].map(|row| scaled(&pairs.row(row).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(rows: usize, cols: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(r, c)| ((r * 31 + c * 17 + seed * 7) % 23) as f32 / 11.0 - 1.0)
    }

    fn compared(pairs: &Array2<f32>) -> Array2<f32> {
        let mut x = Array2::zeros((pairs.nrows() / 2, 2 * pairs.ncols()));
        forward(pairs.view(), x.view_mut());
        x
    }

    #[test]
    fn equal_texts_are_not_apart_and_the_length_does_not_matter() {
        let mut pairs = some(2, 6, 1);
        let longer = pairs.row(0).mapv(|v| 3.0 * v);
        pairs.row_mut(1).assign(&longer);
        let x = compared(&pairs);
        assert!(x.iter().take(6).all(|v| *v < 1e-6), "{x}");
        let alike: f32 = x.iter().skip(6).sum();
        assert!((alike - 6.0).abs() < 1e-5, "the width times a cosine of 1, not {alike}");
    }

    #[test]
    fn the_order_of_the_texts_does_not_matter() {
        let pairs = some(2, 6, 2);
        let turned = Array2::from_shape_fn(pairs.raw_dim(), |(r, c)| pairs[[1 - r, c]]);
        assert_eq!(compared(&pairs), compared(&turned));
    }

    #[test]
    fn backward_is_the_slope() {
        let (pairs, d_x) = (some(4, 5, 3), some(2, 10, 4));
        let d = backward(pairs.view(), d_x.view());
        let loss = |pairs: &Array2<f32>| -> f64 {
            compared(pairs).iter().zip(&d_x).map(|(x, d)| f64::from(x * d)).sum()
        };
        for place in [(0, 0), (1, 2), (2, 4), (3, 1), (3, 3)] {
            let (mut more, mut less, step) = (pairs.clone(), pairs.clone(), 1e-3);
            more[place] += step;
            less[place] -= step;
            let slope = (loss(&more) - loss(&less)) / (2.0 * f64::from(step));
            assert!((slope - f64::from(d[place])).abs() < 2e-3, "{place:?}: {} and {slope}", d[place]);
        }
    }

    #[test]
    fn a_vector_of_zeros_breaks_nothing() {
        let pairs = Array2::zeros((2, 4));
        assert_eq!(compared(&pairs), Array2::<f32>::zeros((1, 8)));
        assert!(backward(pairs.view(), some(1, 8, 5).view()).iter().all(|d| d.is_finite()));
    }
}
