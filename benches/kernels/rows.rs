//! What goes row by row, and the attention of one group of heads.

use crate::{Work, empty, every_set, floats, plain};
use criterion::Criterion;
use half::f16;
use trimtab::kernels::{BLOCK, Block, HeadGroup, Kernels};

const ROWS: usize = 512;
const COLS: usize = 384;
/// Scores of a softmax: of 120 tokens, in rows of 128.
const SCORES: (usize, usize) = (120, 128);

pub fn benches(c: &mut Criterion) {
    for (name, op) in OPS {
        every_set(c, &format!("{name}/{ROWS}x{COLS}"), ROWS * COLS, |_| Elementwise::new(op));
    }
    for dim in [32, 64] {
        for len in [16, 64, 128, 512] {
            let square = len * len * dim * (BLOCK / dim);
            let shape = format!("len{len}dim{dim}");
            // Scores and context; scores, their gradient, and the gradients of q, k and v.
            every_set(c, &format!("attention_forward/{shape}"), 2 * square, |_| {
                Attention::new(len, dim, false)
            });
            every_set(c, &format!("attention_backward/{shape}"), 5 * square, |_| {
                Attention::new(len, dim, true)
            });
        }
    }
}

/// One timed method over `[ROWS, COLS]`: from the input to what it writes.
type Op = fn(&dyn Kernels, &mut Elementwise);

const OPS: [(&str, Op); 6] = [
    ("quantize_rows", |k, b| k.quantize_rows(&b.x, COLS, None, &mut b.to)),
    ("softmax_rows", |k, b| {
        // In place, so on a copy: softmax of its own result again and again would be of flat rows.
        b.y.copy_from_slice(&b.x);
        k.softmax_rows(&mut b.y, SCORES.0, SCORES.1, 0.125)
    }),
    ("add_norm", |k, b| {
        let saved = Some((&mut b.n[..], &mut b.rstd[..]));
        k.add_norm(&b.x, Some(&b.x), &b.cols, &b.cols, 1e-12, &mut b.y, Some(&mut b.to), saved)
    }),
    ("add_norm_inference", |k, b| {
        k.add_norm(&b.x, Some(&b.x), &b.cols, &b.cols, 1e-12, &mut b.y, Some(&mut b.to), None)
    }),
    ("add_norm_backward", |k, b| {
        k.add_norm_backward(&b.x, &b.n, &b.rstd, &b.cols, &mut b.y, Some((&b.cols, &mut b.to)))
    }),
    ("tanh", |k, b| k.tanh(&b.x, &mut b.y)),
];

struct Elementwise {
    op: Op,
    x: Vec<f32>,
    y: Vec<f32>,
    cols: Vec<f32>,
    n: Vec<f16>,
    rstd: Vec<f32>,
    to: Vec<Block>,
}

impl Elementwise {
    fn new(op: Op) -> Elementwise {
        let x = floats(ROWS * COLS);
        let n = x.iter().rev().map(|v| f16::from_f32(*v)).collect();
        let (cols, rstd, y) = (floats(COLS), vec![0.5; ROWS], vec![0.0; x.len()]);
        Elementwise { op, x, y, cols, n, rstd, to: empty(ROWS, COLS) }
    }
}

impl Work for Elementwise {
    fn run(&mut self, k: &dyn Kernels) {
        (self.op)(k, self);
    }

    fn written(&self, k: &dyn Kernels) -> Vec<f32> {
        let n = self.n.iter().map(|v| v.to_f32());
        // Blocks that an op leaves alone are zeros, which no flip makes equal.
        let to: Vec<f32> =
            if self.to.iter().any(|b| b.scale != 0.0) { plain(k, &self.to).collect() } else { vec![] };
        self.y.iter().chain(&self.rstd).copied().chain(n).chain(to).collect()
    }
}

/// As many heads as fill a block, which is what one task of a batch takes; three groups of them in the encoder.
struct Attention {
    h: HeadGroup,
    backward: bool,
    qkv: Vec<f16>,
    d_ctx: Vec<f32>,
    fold: Vec<f32>,
    to: [Vec<Block>; 3],
    sums: Vec<f32>,
}

impl Attention {
    fn new(len: usize, dim: usize, backward: bool) -> Attention {
        let h = HeadGroup { len, queries: len, hidden: 3 * BLOCK, dim, heads: 0..BLOCK / dim };
        Attention {
            qkv: floats(len * 3 * h.hidden).into_iter().map(f16::from_f32).collect(),
            d_ctx: floats(len * h.hidden),
            fold: floats(h.hidden),
            to: [(); 3].map(|()| empty(len, h.width())),
            sums: vec![0.0; 3 * h.width()],
            h,
            backward,
        }
    }
}

impl Work for Attention {
    fn run(&mut self, k: &dyn Kernels) {
        let [q, key, v] = &mut self.to;
        if self.backward {
            let to = [&mut q[..], &mut key[..], &mut v[..]];
            k.attention_backward(&self.h, &self.qkv, &self.d_ctx, [&self.fold; 3], to, &mut self.sums);
        } else {
            k.attention_forward(&self.h, &self.qkv, q);
        }
    }

    fn written(&self, k: &dyn Kernels) -> Vec<f32> {
        let parts = if self.backward { 3 } else { 1 };
        let to = self.to[..parts].iter().flat_map(|to| plain(k, to));
        self.sums.iter().copied().chain(to).collect()
    }
}
