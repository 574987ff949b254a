//! The products: int8 with each of what may follow, and the small ones in f32.

use crate::{Work, empty, every_set, floats, plain, quantized};
use criterion::Criterion;
use half::f16;
use trimtab::kernels::{Backward, Block, Forward, Gelu, Kernels, MatI8, Part, Strided, tiles};

/// Rows, length of the contraction, columns of the result. Few rows are what a keyboard or a sensor sends.
const INT8: [(usize, usize, usize); 12] = [
    (1, 384, 384),
    (1, 768, 768),
    (8, 384, 384),
    (8, 768, 768),
    (16, 384, 384),
    (16, 768, 768),
    (32, 384, 384),
    (32, 768, 768),
    (128, 768, 768),
    (128, 768, 3072),
    (128, 3072, 768),
    (512, 384, 1536),
];
/// The products of one head, and a transposed one of the backward.
const F32: [(usize, usize, usize, bool); 4] =
    [(128, 32, 128, false), (128, 128, 32, false), (128, 128, 64, true), (512, 64, 512, false)];
/// Rows of a text, where sums go text by text.
const TEXT: usize = 16;

#[derive(Clone, Copy)]
enum Op {
    F32,
    F16,
    Gelu,
    GeluInference,
    Set,
    Add,
    GeluBackward,
}

const OPS: [(&str, Op); 7] = [
    ("gemm_forward", Op::F32),
    ("gemm_forward_f16", Op::F16),
    ("gemm_gelu", Op::Gelu),
    ("gemm_gelu_inference", Op::GeluInference),
    ("gemm_backward", Op::Set),
    ("gemm_backward_add", Op::Add),
    ("gemm_gelu_backward", Op::GeluBackward),
];

pub fn benches(c: &mut Criterion) {
    for (name, op) in OPS {
        for (m, k, n) in INT8 {
            every_set(c, &format!("{name}/{m}x{k}x{n}"), m * k * n, |set| Int8::new(set, op, m, k, n));
        }
    }
    for (m, k, n, transposed) in F32 {
        let t = if transposed { "t" } else { "" };
        every_set(c, &format!("gemm_f32/{m}x{k}x{n}{t}"), m * k * n, |_| {
            let (rs, cs) = if transposed { (1, m) } else { (k, 1) };
            F32Product { m, k, n, rs, cs, a: floats(m * k), b: floats(k * n), c: vec![0.0; m * n] }
        });
    }
}

/// Bytes that begin at a multiple of 64, as weights in a mapped base do.
struct Aligned {
    bytes: Vec<i8>,
    start: usize,
}

impl Aligned {
    fn new(values: &[i8]) -> Aligned {
        let mut bytes = vec![0; values.len() + 63];
        let start = bytes.as_ptr().addr().wrapping_neg() % 64;
        bytes[start..][..values.len()].copy_from_slice(values);
        bytes.truncate(start + values.len());
        Aligned { bytes, start }
    }

    fn get(&self) -> &[i8] {
        &self.bytes[self.start..]
    }
}

struct Int8 {
    op: Op,
    x: Vec<Block>,
    w: Aligned,
    /// Of the weight: outputs, inputs.
    shape: (usize, usize),
    w_sums: Vec<i32>,
    w_scale: Vec<f32>,
    bias: Vec<f32>,
    fold: Vec<f32>,
    offsets: Vec<i32>,
    y: Vec<f32>,
    half: Vec<f16>,
    to: Vec<Block>,
    code: Vec<u8>,
    sums: Vec<f32>,
}

impl Int8 {
    fn new(set: &dyn Kernels, op: Op, m: usize, k: usize, n: usize) -> Int8 {
        // The forward contracts over the inputs, the backward over the outputs.
        let (outs, ins) = match op {
            Op::Set | Op::Add | Op::GeluBackward => (k, n),
            _ => (n, k),
        };
        let w: Vec<i8> = (0..k * n).map(|i| (i * 7919 % 255) as i8 ^ (i / 255) as i8).collect();
        let w: Vec<i8> = w.into_iter().map(|v| v.max(-127)).collect();
        let offsets: Vec<i32> = (0..m).step_by(TEXT).chain([m]).map(|r| r as i32).collect();
        let w = Aligned::new(&tiles::of_rows(&w, outs, ins));
        Int8 {
            op,
            x: quantized(set, m, k),
            w_sums: set.weight_sums(MatI8 { tiles: w.get(), rows: outs, cols: ins }),
            w,
            shape: (outs, ins),
            // Small enough for GELU to see both of its sides.
            w_scale: vec![1e-4; outs],
            bias: floats(outs),
            fold: floats(n),
            y: vec![0.0; m * n],
            half: vec![f16::ZERO; m * n],
            to: empty(m, n),
            code: (0..m * n).map(|i| (i * 31 % 256) as u8).collect(),
            sums: vec![0.0; (offsets.len() - 1) * n],
            offsets,
        }
    }
}

impl Work for Int8 {
    fn run(&mut self, k: &dyn Kernels) {
        let w = MatI8 { tiles: self.w.get(), rows: self.shape.0, cols: self.shape.1 };
        let parts = [Part { w, sums: &self.w_sums, scale: &self.w_scale, bias: &self.bias }];
        let (to, code) = (&mut self.to[..], &mut self.code[..]);
        match self.op {
            Op::F32 => k.gemm_forward(&self.x, &parts, Forward::F32(&mut self.y)),
            Op::F16 => k.gemm_forward(&self.x, &parts, Forward::F16(&mut self.half)),
            Op::Gelu => {
                k.gemm_forward(&self.x, &parts, Forward::Gelu { kind: Gelu::Erf, to, derivative: Some(code) })
            }
            Op::GeluInference => {
                k.gemm_forward(&self.x, &parts, Forward::Gelu { kind: Gelu::Erf, to, derivative: None })
            }
            Op::Set => k.gemm_backward(&self.x, &[w], Backward::Set(&mut self.y)),
            Op::Add => k.gemm_backward(&self.x, &[w], Backward::Add(&mut self.y)),
            Op::GeluBackward => {
                let (offsets, fold, sums) = (&self.offsets[..], &self.fold[..], Some(&mut self.sums[..]));
                k.gemm_backward(&self.x, &[w], Backward::Gelu { derivative: code, offsets, sums, fold, to })
            }
        }
    }

    fn written(&self, k: &dyn Kernels) -> Vec<f32> {
        let narrow = self.half.iter().map(|v| v.to_f32()).chain(self.code.iter().map(|c| f32::from(*c)));
        // Blocks that an op leaves alone are zeros, which no flip makes equal.
        let blocks = matches!(self.op, Op::Gelu | Op::GeluInference | Op::GeluBackward);
        let to = plain(k, if blocks { &self.to } else { &[] });
        self.y.iter().chain(&self.sums).copied().chain(narrow).chain(to).collect()
    }
}

struct F32Product {
    m: usize,
    k: usize,
    n: usize,
    rs: usize,
    cs: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Work for F32Product {
    fn run(&mut self, set: &dyn Kernels) {
        let a = Strided { data: &self.a, rs: self.rs, cs: self.cs };
        set.gemm_f32(self.m, self.n, self.k, a, &self.b, self.n, &mut self.c, self.n);
    }

    fn written(&self, _: &dyn Kernels) -> Vec<f32> {
        self.c.clone()
    }
}
