//! Slices in, slices out: the arithmetic under every op, once per instruction set.
//!
//! This folder knows nothing of tensors, models or files. Two rules hold for every kernel set:
//!
//! 1. **Integers are exact.** i32 accumulation of int8 products is associative, so every set equals
//!    `portable` by `==`.
//! 2. **Floats have one order.** Work on f32 is written once, generic over `lanes::Lanes`: 16 virtual
//!    lanes, a fixed tree at the end, `mul_add` as one rounding, our own polynomials for `exp`, `erf` and
//!    `tanh`. No order depends on the number of threads or on the width of a register. So all sets give the
//!    same bits, and the same training run gives the same file on every machine.
//!
//! NaNs count as equal whatever their sign and payload: those differ between CPUs.
//!
//! A set is a token (`isa::Isa`) that only its `detect` makes, and brings 16 lanes, an int8 microkernel and a
//! way to run generic code compiled for its instructions. `set.rs` makes a [`Kernels`] of every such token.
//!
//! `unsafe` is allowed here and nowhere else but the C ABI.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod epilogue;
mod float;
pub mod gelu;
mod gemm;
mod gemm_f32;
pub mod heap;
mod isa;
mod lanes;
pub mod map;
mod math;
mod norm;
pub mod peak;
mod portable;
mod set;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use std::sync::Arc;

/// The kernel sets this CPU can run, best first, `portable` last.
pub fn available() -> Vec<Arc<dyn Kernels>> {
    let mut all: Vec<Arc<dyn Kernels>> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(avx512::Avx512Vnni::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
        all.extend(avx2::Avx2::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
    }
    all.push(Arc::new(portable::Portable));
    all
}

/// The kernel set called `name`; without a name the one that the environment variable `TRIMTAB_KERNEL` names,
/// or else the best. `Error::Config` if this CPU has no set of that name.
pub fn select(name: Option<&str>) -> Result<Arc<dyn Kernels>> {
    let forced = std::env::var("TRIMTAB_KERNEL").ok().filter(|v| !v.is_empty());
    let all = available();
    match name.or(forced.as_deref()) {
        None => Ok(all[0].clone()),
        Some(name) => all.iter().find(|k| k.name() == name).cloned().ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|k| k.name()).collect();
            Error::Config(format!("no kernel set `{name}` on this CPU; there are: {}", names.join(", ")))
        }),
    }
}

/// Int8 matrix `[rows, cols]`, row-major: the frozen weight `[out, in]` of a Linear.
#[derive(Clone, Copy)]
pub struct MatI8<'a> {
    /// `rows * cols` values in [-127, 127].
    pub data: &'a [i8],
    /// Output channels.
    pub rows: usize,
    /// Input channels.
    pub cols: usize,
}

/// Columns of an activation row that share a scale.
///
/// One scale a row is not enough: a few columns of a BERT's LayerNorm outputs are ten times as large as the
/// others. On MiniLM the lowest cosine of a bias's gradient with PyTorch's is 0.994 with blocks of 64; simulated
/// in PyTorch, it is 0.73 with one scale a row and 0.986 with blocks of 128.
pub const BLOCK: usize = 64;

/// Int8 activations `[rows, k]` with one scale a row and block of [`BLOCK`] columns: `x ≈ q · scale`.
#[derive(Clone, Copy)]
pub struct RowsI8<'a> {
    /// `rows * k` values in [-127, 127], row-major.
    pub q: &'a [i8],
    /// `[rows, blocks]`, `blocks = ⌈k / BLOCK⌉`.
    pub scale: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Values in a row: the length of the contraction.
    pub k: usize,
}

/// Where a GEMM writes: columns `[col, col + n)` of an f32 matrix `[rows, ld]`.
pub struct Out<'a> {
    /// `rows * ld` values, row-major.
    pub data: &'a mut [f32],
    /// Values from one row to the next.
    pub ld: usize,
    /// First column written.
    pub col: usize,
}

/// GELU behind a Linear: replaces `y` by `gelu(y)` and, when training, keeps `gelu'(y)` in a byte.
pub struct GeluOut<'a> {
    /// Erf or tanh form.
    pub kind: Gelu,
    /// `[rows, n]` codes of the derivative, see [`gelu::encode`]; none for inference.
    pub derivative: Option<&'a mut [u8]>,
}

pub use crate::config::Gelu;

/// A strided f32 operand of [`Kernels::gemm_f32`]: element `(i, j)` is `data[i * rs + j * cs]`.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Step from one row to the next.
    pub rs: usize,
    /// Step from one column to the next.
    pub cs: usize,
}

/// One instruction set's kernels. Every method's result is the same, bit for bit, in every set.
///
/// Methods that take `[rows, …]` matrices work row by row, so a caller may cut the rows among threads.
/// The two int8 GEMMs cut their own work among the threads of the current rayon pool (by columns, so that a
/// packed panel of weights is used by one thread only) and run inline where that pool has one thread.
pub trait Kernels: Send + Sync {
    /// The name that `TRIMTAB_KERNEL` takes.
    fn name(&self) -> &'static str;

    /// Quantizes rows to int8, each block of [`BLOCK`] columns by its own `scale = max|x| / 127`:
    /// `q = round_half_even(x · (127 / max|x|))`.
    ///
    /// `x: [rows, k]`, `scale: [rows, ⌈k / BLOCK⌉]`; with `fold: [k]`, `x ∘ fold` is quantized instead of `x`. A
    /// block that holds a NaN or an infinity gets a NaN scale, so that it shows in the result; one of zeros gets 0.
    fn quantize_rows(&self, x: &[f32], k: usize, fold: Option<&[f32]>, q: &mut [i8], scale: &mut [f32]);

    /// Forward of a Linear: `y[r, o] = fma(f, w_scale[o], bias[o])`, then GELU where asked.
    ///
    /// `f` goes over the blocks of the contraction in ascending order: `f = acc_0 · x.scale[r, 0]`, then
    /// `f = fma(acc_b, x.scale[r, b], f)`, with `acc_b = Σ_i x[r,i] w[o,i]` over the block, exact.
    #[allow(clippy::too_many_arguments)]
    fn gemm_forward(&self, x: RowsI8, w: MatI8, w_scale: &[f32], bias: &[f32], gelu: Option<GeluOut>, y: Out);

    /// Backward of a Linear to its input: `d_x[r, i] = f`, or `d_x + f` with `accumulate`.
    ///
    /// `f` as in the forward, the contraction being over the outputs: `acc_b = Σ_o d[r,o] w[o,i]`.
    ///
    /// The output-channel scales are folded into `d` before it is quantized.
    fn gemm_backward(&self, d: RowsI8, w: MatI8, accumulate: bool, d_x: Out);

    /// Small f32 product `c[i, j] = Σ_p a[i, p] · b[p, j]`, `p` ascending from 0, one `fma` each.
    ///
    /// `a: [m, k]` strided; `b: [k, ldb]` and `c: [m, ldc]` row-major. `n`, `ldb` and `ldc` are multiples of 16.
    #[allow(clippy::too_many_arguments)]
    fn gemm_f32(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: Strided,
        b: &[f32],
        ldb: usize,
        c: &mut [f32],
        ldc: usize,
    );

    /// Softmax in place over the first `n` of each row's `ld` values, after a factor `scale > 0`;
    /// the values from `n` to `ld` become 0. `ld` is a multiple of 16.
    fn softmax_rows(&self, s: &mut [f32], n: usize, ld: usize, scale: f32);

    /// Softmax backward in place: `d_s = scale · p ∘ (d_p − Σ_j d_p p)`; rows of `ld` (multiple of 16), pads 0 in `p`.
    fn softmax_backward_rows(&self, p: &[f32], d_p: &mut [f32], ld: usize, scale: f32);

    /// Residual add and LayerNorm, `[rows, cols]`: `n = (x + r − mean) · rstd`, `y = fma(g, n, b)`.
    /// When training, keeps `n` as f16 bits and `rstd`.
    #[allow(clippy::too_many_arguments)]
    fn add_norm(
        &self,
        x: &[f32],
        r: Option<&[f32]>,
        g: &[f32],
        b: &[f32],
        eps: f32,
        y: &mut [f32],
        saved: Option<(&mut [half::f16], &mut [f32])>,
    );

    /// LayerNorm backward to the input: `d_n = d_y ∘ g`, `d_x = rstd (d_n − mean(d_n) − n · mean(d_n ∘ n))`.
    fn add_norm_backward(&self, d_y: &[f32], n: &[half::f16], rstd: &[f32], g: &[f32], d_x: &mut [f32]);

    /// GELU backward in place: `d[i] *= decode(code[i])`, see [`gelu::decode`].
    fn gelu_backward(&self, d: &mut [f32], code: &[u8]);

    /// Adds every row of `d: [rows, cols]` to `sum: [cols]`, rows ascending.
    fn add_rows(&self, d: &[f32], sum: &mut [f32]);

    /// `y[i] = tanh(x[i])`.
    fn tanh(&self, x: &[f32], y: &mut [f32]);

    /// Narrows to f16, rounding half to even.
    fn to_f16(&self, x: &[f32], y: &mut [half::f16]);

    /// Widens from f16 (exact).
    #[allow(clippy::wrong_self_convention)]
    fn from_f16(&self, x: &[half::f16], y: &mut [f32]);
}
