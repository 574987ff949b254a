//! The products: int8 against a naive i64 loop, f32 against a naive chain of `mul_add`.

use super::super::{
    BLOCK, Gelu, GeluOut, Kernels, MatI8, Out, RowsI8, Strided, available, portable::Portable,
};
use super::{Failures, Rng, others};
use proptest::prelude::*;

/// Operands of a product of `rows` by `outs × ins`.
struct Case {
    rows: usize,
    outs: usize,
    ins: usize,
    x: Vec<i8>,
    d: Vec<i8>,
    w: Vec<i8>,
    scale: Vec<f32>,
    w_scale: Vec<f32>,
    bias: Vec<f32>,
}

/// What the methods give, with the columns around the result.
#[derive(Default)]
struct Results {
    forward: Vec<f32>,
    gelu: Vec<f32>,
    codes: Vec<u8>,
    inference: Vec<f32>,
    backward: Vec<f32>,
    accumulated: Vec<f32>,
}

/// Columns before and behind the result; they must stay as they are.
const AROUND: (usize, usize) = (3, 2);

impl Case {
    fn new(rows: usize, outs: usize, ins: usize, seed: u64) -> Case {
        let mut g = Rng(seed);
        Case {
            rows,
            outs,
            ins,
            x: g.int8(rows * ins),
            d: g.int8(rows * outs),
            w: g.int8(outs * ins),
            scale: g.floats(rows * outs.max(ins).div_ceil(BLOCK), 1e-2),
            w_scale: g.floats(outs, 1e-2),
            bias: g.floats(outs, 1.0),
        }
    }

    fn w(&self) -> MatI8<'_> {
        MatI8 { data: &self.w, rows: self.outs, cols: self.ins }
    }

    fn run(&self, k: &dyn Kernels, kind: Gelu) -> Results {
        let rows = self.rows;
        let scale = |k: usize| &self.scale[..rows * k.div_ceil(BLOCK)];
        let x = RowsI8 { q: &self.x, scale: scale(self.ins), rows, k: self.ins };
        let d = RowsI8 { q: &self.d, scale: scale(self.outs), rows, k: self.outs };
        let matrix = |n: usize, v: f32| vec![v; self.rows * (AROUND.0 + n + AROUND.1)];
        let out = |data, n| Out { data, ld: AROUND.0 + n + AROUND.1, col: AROUND.0 };
        let (outs, ins) = (self.outs, self.ins);

        let mut r = Results {
            forward: matrix(outs, f32::NAN),
            gelu: matrix(outs, f32::NAN),
            codes: vec![99; self.rows * outs],
            inference: matrix(outs, f32::NAN),
            backward: matrix(ins, f32::NAN),
            accumulated: matrix(ins, 0.25),
        };
        k.gemm_forward(x, self.w(), &self.w_scale, &self.bias, None, out(&mut r.forward, outs));
        let gelu = Some(GeluOut { kind, derivative: Some(&mut r.codes) });
        k.gemm_forward(x, self.w(), &self.w_scale, &self.bias, gelu, out(&mut r.gelu, outs));
        let gelu = Some(GeluOut { kind, derivative: None });
        k.gemm_forward(x, self.w(), &self.w_scale, &self.bias, gelu, out(&mut r.inference, outs));
        k.gemm_backward(d, self.w(), false, out(&mut r.backward, ins));
        k.gemm_backward(d, self.w(), true, out(&mut r.accumulated, ins));
        r
    }

    /// The definition in its plainest form, without GELU.
    fn naive(&self) -> Results {
        let frame = |n: usize, around: f32, f: &dyn Fn(usize, usize) -> f32| {
            let row = |r: usize| {
                let inner = (0..n).map(move |c| f(r, c));
                let before = std::iter::repeat_n(around, AROUND.0);
                before.chain(inner).chain(std::iter::repeat_n(around, AROUND.1))
            };
            (0..self.rows).flat_map(row).collect::<Vec<_>>()
        };
        let w = |o: usize, i: usize| self.w[o * self.ins + i] as i64;
        // Σ over blocks of k: exact within a block, then one fma with the block's scale.
        let blocks = |r: usize, k: usize, product: &dyn Fn(usize) -> i64| {
            let scale = &self.scale[r * k.div_ceil(BLOCK)..];
            (0..k.div_ceil(BLOCK)).fold(0f32, |f, b| {
                let acc: i64 = (b * BLOCK..k.min((b + 1) * BLOCK)).map(product).sum();
                if b == 0 { acc as f32 * scale[0] } else { (acc as f32).mul_add(scale[b], f) }
            })
        };
        let forward = |r: usize, o: usize| {
            let product = |i: usize| self.x[r * self.ins + i] as i64 * w(o, i);
            blocks(r, self.ins, &product).mul_add(self.w_scale[o], self.bias[o])
        };
        let backward = |r: usize, i: usize| {
            let product = |o: usize| self.d[r * self.outs + o] as i64 * w(o, i);
            blocks(r, self.outs, &product)
        };
        Results {
            forward: frame(self.outs, f32::NAN, &forward),
            backward: frame(self.ins, f32::NAN, &backward),
            accumulated: frame(self.ins, 0.25, &|r, i| 0.25 + backward(r, i)),
            ..Results::default()
        }
    }

    fn check(&self, kind: Gelu, failures: &mut Failures) {
        let shape = ("rows, outs, ins", self.rows, self.outs, self.ins, kind);
        let (naive, portable) = (self.naive(), self.run(&Portable, kind));
        for k in available() {
            let (name, r) = (k.name(), self.run(&*k, kind));
            failures.same(&("forward", shape), name, &r.forward, &naive.forward);
            failures.same(&("backward", shape), name, &r.backward, &naive.backward);
            failures.same(&("accumulated", shape), name, &r.accumulated, &naive.accumulated);
            failures.same(&("gelu", shape), name, &r.gelu, &portable.gelu);
            failures.same(&("inference", shape), name, &r.inference, &r.gelu);
            failures.check(r.codes == portable.codes, || format!("{name} codes {shape:?}"));
        }
    }
}

#[test]
fn int8_at_awkward_sizes() {
    let mut failures = Failures::default();
    for rows in [0, 1, 2, 4, 5, 6, 7, 11, 12, 13, 16, 17, 25, 33] {
        for outs in [0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 64, 67] {
            for ins in [0, 1, 2, 3, 4, 5, 16, 31, 63, 64, 65, 130] {
                let kind = if (rows + outs + ins) % 2 == 0 { Gelu::Erf } else { Gelu::Tanh };
                Case::new(rows, outs, ins, (rows * 10_000 + outs * 100 + ins) as u64)
                    .check(kind, &mut failures);
            }
        }
    }
    failures.finish();
}

#[test]
fn int8_over_several_blocks_of_rows_and_threads() {
    let case = Case::new(530, 70, 2100, 5);
    let mut failures = Failures::default();
    case.check(Gelu::Erf, &mut failures);
    let one = case.run(&Portable, Gelu::Erf);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for k in available() {
        let three = pool.install(|| case.run(&*k, Gelu::Erf));
        failures.same(&"forward on 3 threads", k.name(), &three.forward, &one.forward);
        failures.same(&"gelu on 3 threads", k.name(), &three.gelu, &one.gelu);
        failures.same(&"backward on 3 threads", k.name(), &three.backward, &one.backward);
        failures.check(three.codes == one.codes, || format!("{} codes on 3 threads", k.name()));
    }
    failures.finish();
}

/// Sums of the largest products: what saturates or overflows in 16 bits shows here.
#[test]
fn int8_extremes() {
    let mut failures = Failures::default();
    for (rows, x, w) in [(5, 127, 127), (40, 127, -127), (40, -127, 127), (5, -127, -127), (40, -127, -127)] {
        let mut case = Case::new(rows, 1030, 1031, 9);
        (case.x, case.d) = (vec![x; rows * 1031], vec![x; rows * 1030]);
        case.w.fill(w);
        case.check(Gelu::Erf, &mut failures);
    }
    failures.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn int8_at_random_sizes(rows in 0usize..80, outs in 0usize..150, ins in 0usize..400, seed: u64, erf: bool) {
        let mut failures = Failures::default();
        Case::new(rows, outs, ins, seed).check(if erf { Gelu::Erf } else { Gelu::Tanh }, &mut failures);
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
