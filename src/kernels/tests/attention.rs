//! Attention of a group of heads: f64 loops for what it means, portable for its bits.

use super::super::{BLOCK, Block, HeadGroup, Kernels, available, blocks, portable::Portable};
use super::{Failures, Rng};
use half::f16;

struct Case {
    h: HeadGroup,
    qkv: Vec<f16>,
    d_ctx: Vec<f32>,
    fold: [Vec<f32>; 3],
}

impl Case {
    fn new(len: usize, hidden: usize, dim: usize, heads: std::ops::Range<usize>, queries: usize) -> Case {
        let seed = (len * hidden + queries) as u64;
        let mut g = Rng(seed);
        let qkv = g.floats(len * 3 * hidden, 2.0).iter().map(|v| f16::from_f32(*v)).collect();
        let fold = [0, 1, 2].map(|_| g.floats(hidden, 1.0));
        let h = HeadGroup { len, queries, hidden, dim, heads };
        Case { d_ctx: g.floats(queries * hidden, 1.0), h, qkv, fold }
    }

    /// ctx, and the gradients of q, k and v times fold, dequantized, `[len, width]`; then the sums `[3, width]`.
    fn run(&self, k: &dyn Kernels) -> [Vec<f32>; 5] {
        let h = &self.h;
        let wide = blocks(h.width());
        let none = |rows: usize| vec![Block { q: [99; BLOCK], scale: f32::NAN }; rows * wide];
        let [mut ctx, mut q, mut key, mut v] = [none(h.queries), none(h.len), none(h.len), none(h.len)];
        let mut sums = vec![f32::NAN; 3 * h.width()];
        k.attention_forward(h, &self.qkv, &mut ctx);
        let fold = [0, 1, 2].map(|i| &self.fold[i][..]);
        k.attention_backward(h, &self.qkv, &self.d_ctx, fold, [&mut q, &mut key, &mut v], &mut sums);
        let plain = |x: Vec<Block>| -> Vec<f32> {
            let value = |b: &Block, i: usize| f32::from((b.q[i] as u8 ^ k.flip()) as i8) * b.scale;
            let row =
                |row: &[Block]| (0..h.width()).map(|c| value(&row[c / BLOCK], c % BLOCK)).collect::<Vec<_>>();
            x.chunks_exact(wide).flat_map(row).collect()
        };
        [plain(ctx), plain(q), plain(key), plain(v), sums]
    }

    fn exact(&self) -> [Vec<f64>; 5] {
        let h = &self.h;
        let (t, w) = (h.len, h.width());
        let [mut ctx, mut sums] = [vec![0.0; h.queries * w], vec![0.0; 3 * w]];
        let mut grads = [vec![0.0; t * w], vec![0.0; t * w], vec![0.0; t * w]];
        for (i, head) in h.heads.clone().enumerate() {
            let at = |part: usize, r: usize, c: usize| {
                f64::from(self.qkv[r * 3 * h.hidden + part * h.hidden + head * h.dim + c].to_f32())
            };
            let d_out = |r: usize, c: usize| f64::from(self.d_ctx[r * h.hidden + head * h.dim + c]);
            let scale = 1.0 / (h.dim as f64).sqrt();
            for r in 0..h.queries {
                let s: Vec<f64> = (0..t)
                    .map(|j| (0..h.dim).map(|c| at(0, r, c) * at(1, j, c)).sum::<f64>() * scale)
                    .collect();
                let max = s.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = s.iter().map(|s| (s - max).exp()).sum();
                let p: Vec<f64> = s.iter().map(|s| (s - max).exp() / sum).collect();
                let d_p: Vec<f64> =
                    (0..t).map(|j| (0..h.dim).map(|c| d_out(r, c) * at(2, j, c)).sum()).collect();
                let dot: f64 = p.iter().zip(&d_p).map(|(p, d)| p * d).sum();
                for j in 0..t {
                    let d_s = p[j] * (d_p[j] - dot) * scale;
                    for c in 0..h.dim {
                        let col = i * h.dim + c;
                        ctx[r * w + col] += p[j] * at(2, j, c);
                        grads[0][r * w + col] += d_s * at(1, j, c);
                        grads[1][j * w + col] += d_s * at(0, r, c);
                        grads[2][j * w + col] += p[j] * d_out(r, c);
                    }
                }
            }
        }
        for (part, grad) in grads.iter_mut().enumerate() {
            for row in grad.chunks_exact_mut(w) {
                for (c, g) in row.iter_mut().enumerate() {
                    sums[part * w + c] += *g;
                    *g *= f64::from(self.fold[part][h.heads.start * h.dim + c]);
                }
            }
        }
        let [q, k, v] = grads;
        [ctx, q, k, v, sums]
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (hidden, dim, heads) in
        [(128, 32, 2..4), (128, 64, 1..2), (48, 12, 0..4), (5, 5, 0..1), (60, 20, 0..3), (384, 32, 10..12)]
    {
        for len in [1, 2, 7, 16, 17, 64, 65, 130] {
            cases.push(Case::new(len, hidden, dim, heads.clone(), len));
            cases.push(Case::new(len, hidden, dim, heads.clone(), 1));
        }
    }
    cases
}

#[test]
fn every_set_gives_portables_bits() {
    let mut failures = Failures::default();
    for case in cases() {
        let wanted = case.run(&Portable);
        for k in available() {
            for (name, (got, wanted)) in
                ["ctx", "d_q", "d_k", "d_v", "sums"].iter().zip(case.run(&*k).iter().zip(&wanted))
            {
                failures.same(&(name, &case.h), k.name(), got, wanted);
            }
        }
    }
    failures.finish();
}

#[test]
fn portable_is_close_to_exact() {
    for case in cases() {
        let (got, exact) = (case.run(&Portable), case.exact());
        for (name, (got, exact)) in ["ctx", "d_q", "d_k", "d_v", "sums"].iter().zip(got.iter().zip(&exact)) {
            let largest = exact.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            // Half a step of a block's largest value, and f32's own rounding.
            let bound = if *name == "sums" { 1e-4 } else { 0.51 / 127.0 } * largest;
            for (g, e) in got.iter().zip(exact) {
                assert!((f64::from(*g) - e).abs() <= bound, "{name} {:?}: {g} is not {e}", case.h);
            }
        }
    }
}
