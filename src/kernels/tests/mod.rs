//! One suite for every kernel set: whatever `portable` answers, the others answer to the bit.

mod accuracy;
mod attention;
mod float;
mod gemm;

use super::isa::{Isa, Op};
use super::{Kernels, available, portable::Portable, select};
use crate::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

/// Small and fixed: the data of a failing case can be made again.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u32 {
        // Knuth's MMIX constants; the high half is good enough to fill matrices.
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }
    fn int8(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.next() % 255) as i8 as i32 as i8).map(|v| v.max(-127)).collect()
    }
    /// Uniform in (-size, size).
    fn floats(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| (self.next() as f32 / 2f32.powi(31) - 1.0) * size).collect()
    }
}

/// Collects what differs, so that one run shows all of it.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn check(&mut self, ok: bool, what: impl FnOnce() -> String) {
        if !ok {
            self.0.push(what());
        }
    }
    /// Same bits; a NaN equals a NaN.
    fn same(&mut self, what: &dyn Debug, name: &str, got: &[f32], wanted: &[f32]) {
        let differs = |(g, w): (&f32, &f32)| g.to_bits() != w.to_bits() && !(g.is_nan() && w.is_nan());
        self.check(got.len() == wanted.len(), || format!("{name} {what:?}: length"));
        if let Some(i) = got.iter().zip(wanted).position(differs) {
            self.0.push(format!("{name} {what:?}: [{i}] is {:?}, not {:?}", got[i], wanted[i]));
        }
    }
    fn finish(self) {
        let n = self.0.len();
        assert!(n == 0, "{n} failures, the first ones:\n{}", self.0[..n.min(20)].join("\n"));
    }
}

/// All sets but portable.
fn others() -> Vec<Arc<dyn Kernels>> {
    available().into_iter().filter(|k| k.name() != Portable.name()).collect()
}

/// What is tested below [`Kernels`], on the lanes of a set.
trait OnSet {
    fn on<I: Isa>(&mut self, isa: I);
}

fn on_every_set(test: &mut impl OnSet) {
    #[cfg(target_arch = "x86_64")]
    {
        super::avx512::Avx512Vnni::detect().into_iter().for_each(|isa| test.on(isa));
        super::avx2::Avx2::detect().into_iter().for_each(|isa| test.on(isa));
    }
    test.on(Portable);
}

/// A closure as an op: lanes must be used within [`Isa::vectorize`].
struct Each<F: FnOnce()>(F);

impl<F: FnOnce()> Op for Each<F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        (self.0)()
    }
}

/// A skipped set is not a passed set: CI names the ones its machine must run.
#[test]
fn expected_sets_are_there() {
    let names: Vec<_> = available().iter().map(|k| k.name()).collect();
    println!("kernel sets under test: {}", names.join(", "));
    assert_eq!(names.last(), Some(&"portable"));
    let expected = std::env::var("TRIMTAB_EXPECT_KERNELS").unwrap_or_default();
    for name in expected.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        assert!(names.contains(&name), "{name} is expected here but only {names:?} can run");
    }
}

#[test]
fn select_by_name() {
    for k in available() {
        assert_eq!(select(Some(k.name())).unwrap().name(), k.name());
    }
    let Err(Error::Config(message)) = select(Some("mmx")) else { panic!("mmx is no kernel set") };
    assert!(message.contains("`mmx`") && message.contains("portable"), "{message}");
}
