//! Every kernel set at the shapes of MiniLM and BERT-base, on one thread.
//!
//! group = op, id = `{set}/{m}x{k}x{n}`, throughput in multiply-adds (or elements). Group `peak` is a loop over
//! registers only: what the instruction itself allows on this machine at this moment. Divide by it.
#![allow(missing_docs)]

use criterion::{Bencher, BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use criterion::{criterion_group, criterion_main};
use half::f16;
use std::sync::Arc;
use trimtab::kernels::{BLOCK, Gelu, GeluOut, Kernels, MatI8, Out, RowsI8, Strided, available};

/// Rows, length of the contraction, columns of the result.
const INT8: [(usize, usize, usize); 7] = [
    (1, 768, 768),
    (16, 768, 768),
    (128, 768, 768),
    (128, 768, 3072),
    (128, 3072, 768),
    (512, 384, 1536),
    (512, 1536, 384),
];
/// The two products of one head, and the transposed one of the backward.
const F32: [(usize, usize, usize, bool); 4] =
    [(128, 32, 128, false), (128, 128, 32, false), (128, 128, 64, true), (512, 64, 512, false)];
const ROWS: usize = 512;
const COLS: usize = 384;

/// Deterministic, finite and of ordinary size: zeros, subnormals or infinities would time something else.
fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1000) as f32 / 250.0 - 2.0).collect()
}

fn int8(n: usize) -> Vec<i8> {
    (0..n).map(|i| (i * 7919 % 255) as i8 ^ (i / 255) as i8).map(|v| v.max(-127)).collect()
}

/// Times `run` on every set, after comparing what it returns with portable's answer.
fn every_set<T: PartialEq>(
    g: &mut BenchmarkGroup<WallTime>,
    shape: &str,
    answer: impl Fn(&dyn Kernels) -> T,
    time: impl Fn(&dyn Kernels, &mut Bencher),
) {
    let sets: Vec<Arc<dyn Kernels>> = available();
    let wanted = answer(&**sets.last().expect("portable is always there"));
    for k in sets {
        assert!(answer(&*k) == wanted, "{} differs from portable at {shape}", k.name());
        g.bench_function(BenchmarkId::new(k.name(), shape), |b| time(&*k, b));
    }
}

fn products(c: &mut Criterion) {
    for op in ["forward", "gelu", "backward"] {
        let mut g = c.benchmark_group(format!("gemm_{op}"));
        for (m, k, n) in INT8 {
            let (x, w, scale) = (int8(m * k), int8(k * n), vec![1e-3; m * k.div_ceil(BLOCK)]);
            let (w_scale, bias) = (vec![1e-2; n], floats(n));
            let run = |s: &dyn Kernels, y: &mut [f32], code: &mut [u8]| {
                let (x, y) = (RowsI8 { q: &x, scale: &scale, rows: m, k }, Out { data: y, ld: n, col: 0 });
                let gelu = (op == "gelu").then_some(GeluOut { kind: Gelu::Erf, derivative: Some(code) });
                if op == "backward" {
                    s.gemm_backward(x, MatI8 { data: &w, rows: k, cols: n }, false, y);
                } else {
                    s.gemm_forward(x, MatI8 { data: &w, rows: n, cols: k }, &w_scale, &bias, gelu, y);
                }
            };
            g.throughput(Throughput::Elements((m * k * n) as u64));
            let buffers = || (vec![0.0; m * n], vec![0; m * n]);
            let answer = |s: &dyn Kernels| {
                let (mut y, mut code) = buffers();
                run(s, &mut y, &mut code);
                (y, code)
            };
            every_set(&mut g, &format!("{m}x{k}x{n}"), answer, |s, b| {
                let (mut y, mut code) = buffers();
                b.iter(|| run(s, &mut y, &mut code));
            });
        }
    }
    let mut g = c.benchmark_group("gemm_f32");
    for (m, k, n, transposed) in F32 {
        let (a, b) = (floats(m * k), floats(k * n));
        let (rs, cs) = if transposed { (1, m) } else { (k, 1) };
        let run =
            |s: &dyn Kernels, c: &mut [f32]| s.gemm_f32(m, n, k, Strided { data: &a, rs, cs }, &b, n, c, n);
        g.throughput(Throughput::Elements((m * k * n) as u64));
        let answer = |s: &dyn Kernels| {
            let mut c = vec![0.0; m * n];
            run(s, &mut c);
            c
        };
        every_set(
            &mut g,
            &format!("{m}x{k}x{n}{}", if transposed { "t" } else { "" }),
            answer,
            |s, bencher| {
                let mut c = vec![0.0; m * n];
                bencher.iter(|| run(s, &mut c));
            },
        );
    }
}

/// One timed method over `[ROWS, COLS]`: from the input to what it writes.
type Elementwise = (&'static str, fn(&dyn Kernels, &mut Buffers));

struct Buffers {
    x: Vec<f32>,
    y: Vec<f32>,
    cols: Vec<f32>,
    q: Vec<i8>,
    n: Vec<f16>,
    code: Vec<u8>,
    rows: Vec<f32>,
    scale: Vec<f32>,
}

impl Buffers {
    fn new() -> Buffers {
        let n = ROWS * COLS;
        let code = (0..n).map(|i| (i % 256) as u8).collect();
        let (cols, rows) = (floats(COLS), vec![0.5; ROWS]);
        Buffers {
            x: floats(n),
            y: floats(n),
            cols,
            q: vec![0; n],
            n: vec![f16::ONE; n],
            code,
            rows,
            scale: vec![0.0; ROWS * COLS.div_ceil(BLOCK)],
        }
    }
}

const ELEMENTWISE: [Elementwise; 6] = [
    ("quantize_rows", |k, b| k.quantize_rows(&b.x, COLS, None, &mut b.q, &mut b.scale)),
    ("softmax_rows", |k, b| {
        // In place, so on a copy: softmax of its own result again and again would be of flat rows.
        b.y.copy_from_slice(&b.x);
        k.softmax_rows(&mut b.y, 120, 128, 0.125)
    }),
    ("add_norm", |k, b| {
        let saved = Some((&mut b.n[..], &mut b.rows[..]));
        k.add_norm(&b.x, Some(&b.x), &b.cols, &b.cols, 1e-12, &mut b.y, saved)
    }),
    ("add_norm_backward", |k, b| k.add_norm_backward(&b.x, &b.n, &b.rows, &b.cols, &mut b.y)),
    ("gelu_backward", |k, b| {
        // As above: repeated in place it would run into subnormals.
        b.y.copy_from_slice(&b.x);
        k.gelu_backward(&mut b.y, &b.code)
    }),
    ("tanh", |k, b| k.tanh(&b.x, &mut b.y)),
];

fn elementwise(c: &mut Criterion) {
    for (op, run) in ELEMENTWISE {
        let mut g = c.benchmark_group(op);
        g.throughput(Throughput::Elements((ROWS * COLS) as u64));
        let answer = |k: &dyn Kernels| {
            let mut b = Buffers::new();
            run(k, &mut b);
            (b.y, b.q, b.n, b.rows, b.scale)
        };
        every_set(&mut g, &format!("{ROWS}x{COLS}"), answer, |k, bencher| {
            let mut b = Buffers::new();
            bencher.iter(|| run(k, &mut b));
        });
    }
}

fn peak(c: &mut Criterion) {
    let mut g = c.benchmark_group("peak");
    for (name, multiply_adds, run) in trimtab::kernels::peak::peaks() {
        g.throughput(Throughput::Elements(multiply_adds));
        g.bench_function(name, |b| b.iter(run));
    }
}

fn one_thread(c: &mut Criterion) {
    // The GEMMs share their work among the threads of the pool they are called in, here the global one.
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .expect("nothing has used the global pool yet");
    peak(c);
    products(c);
    elementwise(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = one_thread
}
criterion_main!(benches);
