//! Losses of pairs of vectors, by the cosine of the angle between them.
//!
//! With `â = a / |a|` and `c_ij = â_i · b̂_j`, over `n` pairs `(a_i, b_i)`:
//!
//! - each `b_j` of the others is a wrong answer to `a_i`: `L = 1/n Σ_i −log softmax_j(20 c_ij)[i]`,
//!   sentence-transformers' `MultipleNegativesRankingLoss`; `g_ij = dL/dc_ij = 20 (softmax_j(20 c_ij) − [i = j]) / n`.
//! - of texts `x` with labels ([`classes_loss`]): `L` is the mean of `(c_ij − t_ij)²` over the pairs of one label, `t = 1`, and of
//!   that over the pairs of two labels, `t = 0`, half and half; `c_ij = x̂_i · x̂_j`.
//!
//! Backward: `d_â_i = Σ_j g_ij b̂_j`, `d_b̂_j = Σ_i g_ij â_i`, `d_a = (d_â − (â · d_â) â) / |a|`.
//!
//! In f64, every sum in one order, so that the bits are the same everywhere.

use super::loss;
use super::ndarray::*;

/// What cosines are multiplied by in front of the softmax, as in sentence-transformers.
const SCALE: f64 = 20.0;
/// A shorter vector counts as this long (PyTorch's `normalize`).
const SHORTEST: f64 = 1e-12;

/// Vectors of length 1, and how long they were.
pub struct Units {
    units: Vec<f64>,
    lengths: Vec<f64>,
    hidden: usize,
}

impl Units {
    /// Of vectors `[hidden]`.
    pub fn of<'a>(vectors: impl IntoIterator<Item = &'a [f32]>, hidden: usize) -> Units {
        let mut all = Units { units: Vec::new(), lengths: Vec::new(), hidden };
        for v in vectors {
            let v: Vec<f64> = v.iter().map(|v| f64::from(*v)).collect();
            // NaN stays NaN, which `f64::max` would hide.
            let length = dot(&v, &v).sqrt();
            let length = if length < SHORTEST { SHORTEST } else { length };
            all.units.extend(v.iter().map(|v| v / length));
            all.lengths.push(length);
        }
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The cosine of the angle between the `i`-th of these and the `j`-th of the others.
    pub fn cosine(&self, i: usize, others: &Units, j: usize) -> f64 {
        dot(self.unit(i), others.unit(j))
    }

    fn unit(&self, i: usize) -> &[f64] {
        &self.units[i * self.hidden..][..self.hidden]
    }

    /// From the gradient of the units to that of the vectors, `[n, hidden]`.
    fn backward(&self, d_units: &[f64]) -> Array2<f32> {
        let mut d = Array2::zeros((self.len(), self.hidden));
        for (i, mut d) in d.rows_mut().into_iter().enumerate() {
            let (unit, d_unit) = (self.unit(i), &d_units[i * self.hidden..][..self.hidden]);
            let along = dot(unit, d_unit);
            for ((d, d_unit), unit) in d.iter_mut().zip(d_unit).zip(unit) {
                *d = ((d_unit - along * unit) / self.lengths[i]) as f32;
            }
        }
        d
    }
}

/// The loss of a batch of pairs and its gradients `d_a` and `d_b`. Shapes: all `[n, hidden]`.
pub fn loss(a: ArrayView2<f32>, b: ArrayView2<f32>) -> (f64, Array2<f32>, Array2<f32>) {
    let (n, hidden) = a.dim();
    let (a, b) = (units(a), units(b));
    let (mut d_a, mut d_b) = (vec![0.0; n * hidden], vec![0.0; n * hidden]);
    let mut total = 0.0;
    for i in 0..n {
        let p = loss::softmax(&scores(&a, i, &b));
        total += loss::surprise(p[i]);
        for (j, p) in p.iter().enumerate() {
            let g = SCALE * (p - f64::from(u8::from(i == j))) / n as f64;
            add_to(&mut d_a[i * hidden..][..hidden], g, b.unit(j));
            add_to(&mut d_b[j * hidden..][..hidden], g, a.unit(i));
        }
    }
    (total / n.max(1) as f64, a.backward(&d_a), b.backward(&d_b))
}

fn units(x: ArrayView2<f32>) -> Units {
    let (x, hidden) = (x.as_standard_layout(), x.ncols());
    Units::of(x.as_slice().expect("standard layout").chunks_exact(hidden), hidden)
}

/// The loss of texts `[n, hidden]` with labels `[n]`, and its gradient.
pub fn classes_loss(x: ArrayView2<f32>, classes: &[usize]) -> (f64, Array2<f32>) {
    let (n, hidden) = x.dim();
    let x = units(x);
    let pairs = || (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    let same = pairs().filter(|&(i, j)| classes[i] == classes[j]).count();
    let kinds = [pairs().count() - same, same];
    let present = kinds.iter().filter(|n| **n > 0).count() as f64;
    let (mut total, mut d) = (0.0, vec![0.0; n * hidden]);
    for (i, j) in pairs() {
        let is_same = classes[i] == classes[j];
        let weight = 1.0 / (present * kinds[usize::from(is_same)] as f64);
        let off = x.cosine(i, &x, j) - f64::from(u8::from(is_same));
        total += weight * off * off;
        let g = 2.0 * weight * off;
        add_to(&mut d[i * hidden..][..hidden], g, x.unit(j));
        add_to(&mut d[j * hidden..][..hidden], g, x.unit(i));
    }
    (total, x.backward(&d))
}

/// `20 c_ij` for every `j`.
pub fn scores(a: &Units, i: usize, b: &Units) -> Vec<f32> {
    (0..b.len()).map(|j| (SCALE * a.cosine(i, b, j)) as f32).collect()
}

fn add_to(sum: &mut [f64], g: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += g * x);
}

/// In the fixed order of the project: 16 lanes, then a tree.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0f64; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((l, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *l += a * b;
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch 2.9:
    /// ```python
    /// a = torch.tensor([[1., 2., 0.], [0., -1., 3.]], requires_grad=True)
    /// b = torch.tensor([[2., 1., 1.], [1., 1., 0.]], requires_grad=True)
    /// c = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    /// loss = F.cross_entropy(20 * c, torch.arange(2))
    /// loss.backward(); print(loss, a.grad, b.grad)
    /// ```
    #[test]
    fn equals_pytorch() {
        let a = arr2(&[[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]);
        let b = arr2(&[[2.0, 1.0, 1.0], [1.0, 1.0, 0.0]]);
        let wanted = [
            7.008255, -0.9143847, 0.4571925, -1.802881, 0.3458984, -0.4632376, -0.1544124, -0.2596463,
            -4.125055, 4.644348, -2.679302, 2.679303, -6.707766,
        ];
        let (loss, d_a, d_b) = loss(a.view(), b.view());
        close(std::iter::once(loss as f32).chain(d_a).chain(d_b), &wanted);
    }

    fn close(ours: impl Iterator<Item = f32>, wanted: &[f32]) {
        for (ours, wanted) in ours.zip(wanted) {
            assert!((ours - wanted).abs() <= 2e-6, "{ours}, not {wanted}");
        }
    }

    /// torch 2.9:
    /// ```python
    /// x = torch.tensor([[1., 2., 0.], [0., -1., 3.], [2., 1., 1.], [1., 1., 0.]], requires_grad=True)
    /// c = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    /// t = torch.tensor([0, 1, 0, 0]); same = (t[:, None] == t).float()
    /// below = torch.ones(4, 4).tril(-1).bool()
    /// off = (c - same) ** 2
    /// loss = (off[below & (same == 1)].mean() + off[below & (same == 0)].mean()) / 2
    /// loss.backward(); print(loss, x.grad)
    /// ```
    #[test]
    fn classes_equal_pytorch() {
        let x = arr2(&[[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [2.0, 1.0, 1.0], [1.0, 1.0, 0.0]]);
        let (loss, d) = classes_loss(x.view(), &[0, 1, 0, 0]);
        let wanted = [
            0.0483315, -0.0271934, 0.0135967, -0.0564136, -0.0077778, -0.0256667, -0.0085556, -0.0019362,
            -0.0431455, 0.0470179, -0.0120746, 0.0120746, -0.0628917,
        ];
        close(std::iter::once(loss as f32).chain(d), &wanted);
        let (alone, d) = classes_loss(x.view(), &[0, 1, 2, 3]);
        assert!(alone > 0.0 && d.iter().any(|d| *d != 0.0), "of two labels only");
        assert_eq!(classes_loss(x.slice(s![..1, ..]), &[0]).0, 0.0, "nothing to compare with");
    }

    #[test]
    fn nothing_is_divided_by() {
        let zero = Array2::zeros((2, 3));
        let (loss, d_a, d_b) = loss(zero.view(), zero.view());
        assert!((loss - 2f64.ln()).abs() < 1e-6 && d_a.iter().chain(&d_b).all(|d| *d == 0.0));
        let mut bad = zero.clone();
        bad[[0, 0]] = f32::NAN;
        assert!(super::loss(bad.view(), zero.view()).0.is_nan());
    }
}
