//! The products: int8 against a naive i64 loop, f32 against a naive chain of `mul_add`.

use super::super::{
    BLOCK, Backward, Block, Forward, Gelu, Kernels, MatI8, Part, Strided, available, blocks, gelu,
    portable::Portable, tiles,
};
use super::{Failures, Rng, others};
use half::f16;
use proptest::prelude::*;

/// Rows of ordinary int8 values and scales, unflipped; what pads the last block is zero.
fn quantized(g: &mut Rng, rows: usize, k: usize) -> Vec<Block> {
    let mut all = vec![Block { q: [0; BLOCK], scale: 0.0 }; rows * blocks(k)];
    for row in all.chunks_exact_mut(blocks(k).max(1)) {
        for (b, block) in row.iter_mut().enumerate() {
            let n = BLOCK.min(k - b * BLOCK);
            block.q[..n].copy_from_slice(&g.int8(n));
            block.scale = g.floats(1, 1e-2)[0];
        }
    }
    all
}

/// As the set wants them.
fn flipped(k: &dyn Kernels, x: &[Block]) -> Vec<Block> {
    x.iter().map(|b| Block { q: b.q.map(|q| (q as u8 ^ k.flip()) as i8), ..*b }).collect()
}

/// Operands of products of `rows` by two weights `[outs, ins]`, the second one transposed in size where it is alone.
struct Case {
    rows: usize,
    outs: [usize; 2],
    ins: usize,
    x: Vec<Block>,
    /// A gradient of both parts' outputs, each part from a whole block on.
    d: Vec<Block>,
    w: [Vec<i8>; 2],
    tiles: [Vec<i8>; 2],
    scale: [Vec<f32>; 2],
    bias: [Vec<f32>; 2],
    fold: Vec<f32>,
    code: Vec<u8>,
    offsets: Vec<i32>,
}

/// What the methods give.
#[derive(Default)]
struct Results {
    forward: Vec<f32>,
    half: Vec<f32>,
    gelu: Vec<f32>,
    codes: Vec<f32>,
    inference: Vec<f32>,
    backward: Vec<f32>,
    added: Vec<f32>,
    gelu_backward: Vec<f32>,
    gelu_backward_alone: Vec<f32>,
    sums: Vec<f32>,
}

impl Case {
    fn new(rows: usize, outs: [usize; 2], ins: usize, seed: u64) -> Case {
        let mut g = Rng(seed);
        let d = quantized(&mut g, rows, outs.map(tiles::padded).iter().sum());
        let w = outs.map(|o| g.int8(o * ins));
        // Texts of one row, then of two, and so on.
        let mut offsets = vec![0];
        while *offsets.last().unwrap() < rows as i32 {
            offsets.push((offsets.last().unwrap() + offsets.len() as i32).min(rows as i32));
        }
        Case {
            rows,
            outs,
            ins,
            x: quantized(&mut g, rows, ins),
            d,
            tiles: [0, 1].map(|i| tiles::of_rows(&w[i], outs[i], ins)),
            w,
            scale: outs.map(|o| g.floats(o, 1e-2)),
            bias: outs.map(|o| g.floats(o, 1.0)),
            fold: g.floats(ins, 1e-2),
            code: (0..rows * ins).map(|_| g.next() as u8).collect(),
            offsets,
        }
    }

    fn mat(&self, i: usize) -> MatI8<'_> {
        MatI8 { tiles: &self.tiles[i], rows: self.outs[i], cols: self.ins }
    }

    fn part<'a>(&'a self, i: usize, sums: &'a [i32]) -> Part<'a> {
        Part { w: self.mat(i), sums, scale: &self.scale[i], bias: &self.bias[i] }
    }

    fn run(&self, k: &dyn Kernels, kind: Gelu) -> Results {
        let (rows, ins, both) = (self.rows, self.ins, self.outs[0] + self.outs[1]);
        let (x, d) = (flipped(k, &self.x), flipped(k, &self.d));
        let sums = [k.weight_sums(self.mat(0)), k.weight_sums(self.mat(1))];
        let parts = [self.part(0, &sums[0]), self.part(1, &sums[1])];
        let mut r = Results {
            forward: vec![f32::NAN; rows * both],
            backward: vec![f32::NAN; rows * ins],
            added: vec![0.25; rows * ins],
            sums: vec![f32::NAN; (self.offsets.len() - 1) * ins],
            ..Results::default()
        };
        k.gemm_forward(&x, &parts, Forward::F32(&mut r.forward));
        let mut half = vec![f16::NAN; rows * both];
        k.gemm_forward(&x, &parts, Forward::F16(&mut half));
        r.half = half.iter().map(|h| h.to_f32()).collect();

        let none = Block { q: [99; BLOCK], scale: f32::NAN };
        let mut to = vec![none; rows * blocks(self.outs[0])];
        let mut codes = vec![99; rows * self.outs[0]];
        k.gemm_forward(&x, &parts[..1], Forward::Gelu { kind, to: &mut to, derivative: Some(&mut codes) });
        r.gelu = self.plain(k, &to);
        r.codes = codes.iter().map(|c| f32::from(*c)).collect();
        k.gemm_forward(&x, &parts[..1], Forward::Gelu { kind, to: &mut to, derivative: None });
        r.inference = self.plain(k, &to);

        let parts = [self.mat(0), self.mat(1)];
        k.gemm_backward(&d, &parts, Backward::Set(&mut r.backward));
        k.gemm_backward(&d, &parts, Backward::Add(&mut r.added));
        let mut to = vec![none; rows * blocks(ins)];
        let run = |to: &mut [Block], sums| {
            let (derivative, offsets, fold) = (&self.code[..], &self.offsets[..], &self.fold[..]);
            k.gemm_backward(&d, &parts, Backward::Gelu { derivative, offsets, sums, fold, to });
            self.plain(k, to)
        };
        r.gelu_backward = run(&mut to, Some(&mut r.sums));
        to.fill(none);
        r.gelu_backward_alone = run(&mut to, None);
        r
    }

    /// Bytes and scales of blocks, unflipped.
    fn plain(&self, k: &dyn Kernels, x: &[Block]) -> Vec<f32> {
        flipped(k, x).iter().flat_map(|b| b.q.map(f32::from).into_iter().chain([b.scale])).collect()
    }

    /// The definition in its plainest form; what is quantized by portable's quantization of it.
    fn naive(&self) -> Results {
        let (rows, ins) = (self.rows, self.ins);
        let matrix = |n: usize, f: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            (0..rows).flat_map(|r| (0..n).map(move |c| f(r, c))).collect()
        };
        // Σ over blocks of k: exact within a block, then one fma with the block's scale.
        let chain = |x: &[Block], product: &dyn Fn(usize, i64) -> i64| {
            x.iter().enumerate().fold(0f32, |f, (b, x)| {
                let acc: i64 =
                    x.q.iter().enumerate().map(|(i, q)| product(b * BLOCK + i, i64::from(*q))).sum();
                if b == 0 { acc as f32 * x.scale } else { (acc as f32).mul_add(x.scale, f) }
            })
        };
        let forward = |r: usize, col: usize| {
            let (p, o) = if col < self.outs[0] { (0, col) } else { (1, col - self.outs[0]) };
            let w = |i: usize, q: i64| if i < ins { q * i64::from(self.w[p][o * ins + i]) } else { 0 };
            let k = blocks(ins);
            chain(&self.x[r * k..][..k], &w).mul_add(self.scale[p][o], self.bias[p][o])
        };
        let backward = |r: usize, i: usize| {
            let second = tiles::padded(self.outs[0]);
            let w = |o: usize, q: i64| match o.checked_sub(second) {
                None if o < self.outs[0] => q * i64::from(self.w[0][o * ins + i]),
                Some(o) if o < self.outs[1] => q * i64::from(self.w[1][o * ins + i]),
                _ => 0,
            };
            let k = self.outs.map(blocks).iter().sum();
            chain(&self.d[r * k..][..k], &w)
        };
        let quantized = |x: &[f32], n: usize, fold: Option<&[f32]>| {
            let mut to = vec![Block { q: [0; BLOCK], scale: 0.0 }; rows * blocks(n)];
            Portable.quantize_rows(x, n, fold, &mut to);
            self.plain(&Portable, &to)
        };
        let d_f = matrix(ins, &|r, i| backward(r, i) * gelu::decode(self.code[r * ins + i]));
        let text = |t: usize| self.offsets[t] as usize..self.offsets[t + 1] as usize;
        let both = matrix(self.outs[0] + self.outs[1], &forward);
        Results {
            half: both.iter().map(|v| f16::from_f32(*v).to_f32()).collect(),
            forward: both,
            backward: matrix(ins, &backward),
            added: matrix(ins, &|r, i| 0.25 + backward(r, i)),
            sums: (0..self.offsets.len() - 1)
                .flat_map(|t| (0..ins).map(move |c| (t, c)))
                .map(|(t, c)| text(t).fold(0.0, |sum, r| sum + d_f[r * ins + c]))
                .collect(),
            gelu_backward: quantized(&d_f, ins, Some(&self.fold)),
            ..Results::default()
        }
    }

    fn check(&self, kind: Gelu, failures: &mut Failures) {
        let shape = ("rows, outs, ins", self.rows, self.outs, self.ins, kind);
        let (naive, portable) = (self.naive(), self.run(&Portable, kind));
        for k in available() {
            let (name, r) = (k.name(), self.run(&*k, kind));
            failures.same(&("forward", shape), name, &r.forward, &naive.forward);
            failures.same(&("half", shape), name, &r.half, &naive.half);
            failures.same(&("backward", shape), name, &r.backward, &naive.backward);
            failures.same(&("added", shape), name, &r.added, &naive.added);
            failures.same(&("sums", shape), name, &r.sums, &naive.sums);
            failures.same(&("gelu backward", shape), name, &r.gelu_backward, &naive.gelu_backward);
            failures.same(&("without sums", shape), name, &r.gelu_backward_alone, &r.gelu_backward);
            failures.same(&("gelu", shape), name, &r.gelu, &portable.gelu);
            failures.same(&("inference", shape), name, &r.inference, &r.gelu);
            failures.same(&("codes", shape), name, &r.codes, &portable.codes);
        }
    }
}

#[test]
fn int8_at_awkward_sizes() {
    let mut failures = Failures::default();
    for rows in [0, 1, 2, 4, 5, 6, 7, 11, 12, 13, 16, 17, 25, 33] {
        for outs in [[0, 1], [1, 0], [3, 15], [16, 17], [31, 32], [33, 64], [67, 100]] {
            for ins in [1, 3, 4, 5, 16, 31, 63, 64, 65, 130] {
                let kind = if (rows + outs[0] + ins) % 2 == 0 { Gelu::Erf } else { Gelu::Tanh };
                Case::new(rows, outs, ins, (rows * 10_000 + outs[0] * 100 + ins) as u64)
                    .check(kind, &mut failures);
            }
        }
    }
    failures.finish();
}

#[test]
fn int8_on_several_threads() {
    let case = Case::new(330, [70, 130], 700, 5);
    let mut failures = Failures::default();
    let one = case.run(&Portable, Gelu::Erf);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for k in available() {
        let three = pool.install(|| case.run(&*k, Gelu::Erf));
        failures.same(&"forward on 3 threads", k.name(), &three.forward, &one.forward);
        failures.same(&"gelu on 3 threads", k.name(), &three.gelu, &one.gelu);
        failures.same(&"backward on 3 threads", k.name(), &three.backward, &one.backward);
        failures.same(&"sums on 3 threads", k.name(), &three.sums, &one.sums);
    }
    failures.finish();
}

/// Sums of the largest products: what saturates or overflows in 16 bits shows here.
#[test]
fn int8_extremes() {
    let mut failures = Failures::default();
    for (rows, x, w) in [(5, 127, 127), (20, 127, -127), (20, -127, 127), (5, -127, -127), (20, -127, -127)] {
        let mut case = Case::new(rows, [64, 448], 512, 9);
        case.x.iter_mut().chain(&mut case.d).for_each(|b| b.q = [x; BLOCK]);
        for i in [0, 1] {
            case.w[i].fill(w);
            case.tiles[i] = tiles::of_rows(&case.w[i], case.outs[i], case.ins);
        }
        case.check(Gelu::Erf, &mut failures);
    }
    failures.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn int8_at_random_sizes(rows in 0usize..80, a in 1usize..150, b in 0usize..80, ins in 1usize..300, seed: u64, erf: bool) {
        let mut failures = Failures::default();
        Case::new(rows, [a, b], ins, seed).check(if erf { Gelu::Erf } else { Gelu::Tanh }, &mut failures);
        prop_assert!(failures.0.is_empty(), "{:?}", failures.0);
    }
}

#[test]
fn f32_at_awkward_sizes() {
    let mut failures = Failures::default();
    let mut g = Rng(3);
    for m in [0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 17, 64] {
        for n in [0, 16, 32, 48, 64, 80, 96, 128, 144] {
            for k in [0, 1, 2, 3, 7, 15, 16, 17, 31, 32, 64, 100, 128] {
                let (ldb, ldc) = (n + 16, n + 32);
                let b = g.floats(k * ldb, 1.0);
                // Rows, with a step of a row's own length and a longer one; columns (a transposed operand).
                for (rs, cs) in [(k, 1), (k + 5, 1), (1, m), (1, m + 3), (2 * k + 1, 2)] {
                    let a = g.floats(m * rs + k * cs, 1.0);
                    let a = Strided { data: &a, rs, cs };
                    let mut wanted = vec![f32::NAN; m * ldc];
                    for (i, row) in wanted.chunks_exact_mut(ldc).enumerate() {
                        for (j, c) in row[..n].iter_mut().enumerate() {
                            let mul_add =
                                |c: f32, p: usize| a.data[i * rs + p * cs].mul_add(b[p * ldb + j], c);
                            *c = (0..k).fold(0.0, mul_add);
                        }
                    }
                    for kernels in available() {
                        let mut c = vec![f32::NAN; m * ldc];
                        kernels.gemm_f32(m, n, k, a, &b, ldb, &mut c, ldc);
                        failures.same(&("m, n, k, rs, cs", m, n, k, rs, cs), kernels.name(), &c, &wanted);
                    }
                }
            }
        }
    }
    failures.finish();
}

/// What is too small is refused before a pointer is made of it.
#[test]
fn f32_refuses_short_operands() {
    for k in others().iter().chain(&[std::sync::Arc::new(Portable) as std::sync::Arc<dyn Kernels>]) {
        let run = |a: usize, b: usize, c: usize, rs: usize| {
            let (a, b, mut c) = (vec![0.0; a], vec![0.0; b], vec![0.0; c]);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                k.gemm_f32(3, 16, 4, Strided { data: &a, rs, cs: 1 }, &b, 16, &mut c, 16)
            }))
            .is_ok()
        };
        assert!(run(12, 64, 48, 4), "{}: exact sizes", k.name());
        assert!(!run(11, 64, 48, 4) && !run(12, 63, 48, 4) && !run(12, 64, 47, 4), "{}: short", k.name());
        assert!(!run(12, 64, 48, usize::MAX / 2), "{}: a step that overflows", k.name());
    }
}
