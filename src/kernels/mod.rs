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
//! `unsafe` is allowed here, in `sys` and in the C ABI.
#![allow(unsafe_code)]

#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod arm;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod dotprod;
mod epilogue;
mod float;
pub mod gelu;
mod gemm;
mod gemm_f32;
#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod i8mm;
mod isa;
mod lanes;
mod math;
#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod neon;
#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod neon_lanes;
mod norm;
pub mod peak;
mod portable;
mod quantize;
mod set;
#[cfg(test)]
mod tests;
pub mod tiles;

use crate::error::{Error, Result};
use bytemuck::{Pod, Zeroable};
use std::sync::Arc;

/// The kernel sets this CPU can run, best first, `portable` last.
pub fn available() -> Vec<Arc<dyn Kernels>> {
    let mut all: Vec<Arc<dyn Kernels>> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(avx512::Avx512Vnni::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
        all.extend(avx2::Avx2::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
    }
    #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
    {
        all.extend(i8mm::I8mm::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
        all.extend(dotprod::DotProd::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
        all.extend(neon::Neon::detect().map(|k| Arc::new(k) as Arc<dyn Kernels>));
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

/// The frozen weight `[rows, cols]` = `[out, in]` of a Linear, in the tiles of [`tiles`].
#[derive(Clone, Copy)]
pub struct MatI8<'a> {
    /// [`tiles::len`] values in [-127, 127].
    pub tiles: &'a [i8],
    /// Output channels.
    pub rows: usize,
    /// Input channels.
    pub cols: usize,
}

/// Columns of an activation row that share a scale.
///
/// One scale a row is not enough: a few columns of a BERT's LayerNorm outputs are ten times as large as the
/// others. On MiniLM the lowest cosine of a bias's gradient with PyTorch's is 0.995 with blocks of 64; simulated
/// in PyTorch, it is 0.73 with one scale a row and 0.986 with blocks of 128.
pub const BLOCK: usize = 64;

/// [`BLOCK`] columns of an activation row in int8: `x ≈ q · scale`. A row of `k` columns is `⌈k / BLOCK⌉` blocks,
/// the last one padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    /// Values in [-127, 127], each byte xor [`Kernels::flip`] of the set that wrote it.
    pub q: [i8; BLOCK],
    /// Largest magnitude of the block by 127; 0 for a block of zeros; NaN where a value is not finite.
    pub scale: f32,
}

/// Blocks in a row of `k` columns.
pub const fn blocks(k: usize) -> usize {
    k.div_ceil(BLOCK)
}

/// One of the Linears that read the same rows (q, k and v), with what its outputs take.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// Weight `[out, in]`.
    pub w: MatI8<'a>,
    /// What [`Kernels::weight_sums`] gives for it.
    pub sums: &'a [i32],
    /// `[out]`
    pub scale: &'a [f32],
    /// `[out]`
    pub bias: &'a [f32],
}

/// What becomes of a forward product's results `[rows, n]`, `n` the outputs of all parts side by side.
pub enum Forward<'a> {
    /// `y`, row-major.
    F32(&'a mut [f32]),
    /// `y` narrowed to f16, row-major.
    F16(&'a mut [f16]),
    /// `gelu(y)`, quantized for the next product; one part only.
    Gelu {
        /// Erf or tanh form.
        kind: Gelu,
        /// `[rows, blocks(n)]`
        to: &'a mut [Block],
        /// `[rows, n]` codes of `gelu'(y)` for the backward, see [`gelu::encode`]; none for inference.
        derivative: Option<&'a mut [u8]>,
    },
}

/// What becomes of a backward product's results `d: [rows, n]`, `n` the inputs.
pub enum Backward<'a> {
    /// `d`, row-major.
    Set(&'a mut [f32]),
    /// Added to what is there: a residual joins.
    Add(&'a mut [f32]),
    /// `d ∘ gelu'` with the column sums that are a bias's gradient, then `∘ fold`, quantized for the next product.
    Gelu {
        /// `[rows, n]` codes of the derivative.
        derivative: &'a [u8],
        /// `[texts + 1]`: where the rows of each text begin.
        offsets: &'a [i32],
        /// `[texts, n]`: sums over the rows of each text, ascending; overwritten.
        sums: Option<&'a mut [f32]>,
        /// `[n]`: output-channel scales of the Linear below.
        fold: &'a [f32],
        /// `[rows, blocks(n)]`
        to: &'a mut [Block],
    },
}

pub use crate::config::Gelu;
use half::f16;

/// A few heads of one text's attention.
#[derive(Clone, Debug)]
pub struct HeadGroup {
    /// Tokens of the text.
    pub len: usize,
    /// How many of them ask: the first ones. What nobody reads of the others' results is not computed.
    pub queries: usize,
    /// Columns of q, of k and of v.
    pub hidden: usize,
    /// Columns of a head.
    pub dim: usize,
    /// The heads; together they begin at a whole block of columns.
    pub heads: std::ops::Range<usize>,
}

impl HeadGroup {
    /// Columns of the group.
    pub fn width(&self) -> usize {
        self.heads.len() * self.dim
    }
}

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

/// One instruction set's kernels. Every method's result is the same, bit for bit, in every set (of a [`Block`]'s
/// bytes: after [`Kernels::flip`]).
///
/// Methods that take `[rows, …]` matrices work row by row, so a caller may cut the rows among threads.
/// The two int8 GEMMs cut their own work among the threads of the current rayon pool (by columns, so that a
/// packed panel of weights is used by one thread only) and run inline where that pool has one thread.
pub trait Kernels: Send + Sync {
    /// The name that `TRIMTAB_KERNEL` takes.
    fn name(&self) -> &'static str;

    /// What this set's [`Block`] bytes are xor'ed with.
    fn flip(&self) -> u8;

    /// Quantizes rows to int8, each block of columns by its own `scale = max|x| / 127`:
    /// `q = round_half_even(x · (127 / max|x|))`.
    ///
    /// `x: [rows, k]`, `to: [rows, blocks(k)]`; with `fold: [k]`, `x ∘ fold` is quantized instead of `x`.
    fn quantize_rows(&self, x: &[f32], k: usize, fold: Option<&[f32]>, to: &mut [Block]);

    /// What this set wants to know of a weight beside its values, once for all: nothing, or the sums of its blocks.
    fn weight_sums(&self, w: MatI8) -> Vec<i32>;

    /// Forward of Linears that read the same rows `x: [rows, blocks(in)]`: `y[r, o] = fma(f, scale[o], bias[o])`.
    ///
    /// `f` goes over the blocks of the contraction in ascending order: `f = acc_0 · x.scale[r, 0]`, then
    /// `f = fma(acc_b, x.scale[r, b], f)`, with `acc_b = Σ_i x[r,i] w[o,i]` over the block, exact.
    fn gemm_forward(&self, x: &[Block], parts: &[Part], to: Forward);

    /// Backward of the same Linears to their input: `d[r, i] = f`, the contraction being over the outputs of all
    /// parts: `acc_b = Σ_o d_y[r,o] w[o,i]`. `d_y: [rows, Σ blocks(out)]` has each part begin at a whole block;
    /// the output-channel scales were folded into it before it was quantized.
    fn gemm_backward(&self, d_y: &[Block], parts: &[MatI8], to: Backward);

    /// `ctx = softmax(Q Kᵀ / √dim) V` of some heads, quantized. `qkv: [len, 3·hidden]`,
    /// `to: [queries, blocks(width)]`.
    fn attention_forward(&self, h: &HeadGroup, qkv: &[f16], to: &mut [Block]);

    /// Gradients of q, k and v of some heads, times the scales of their Linears, quantized.
    ///
    /// `d_ctx: [queries, hidden]`, zero for the other tokens; `fold: [hidden]` each, `to: [len, blocks(width)]` each;
    /// `sums: [3, width]` gets the sums of the gradients over the rows, ascending.
    fn attention_backward(
        &self,
        h: &HeadGroup,
        qkv: &[f16],
        d_ctx: &[f32],
        fold: [&[f32]; 3],
        to: [&mut [Block]; 3],
        sums: &mut [f32],
    );

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

    /// Residual add and LayerNorm, `[rows, cols]`: `n = (x + r − mean) · rstd`, `y = fma(g, n, b)`; `y` also
    /// quantized where asked, `to: [rows, blocks(cols)]`. When training, keeps `n` in f16 and `rstd`.
    #[allow(clippy::too_many_arguments)]
    fn add_norm(
        &self,
        x: &[f32],
        r: Option<&[f32]>,
        g: &[f32],
        b: &[f32],
        eps: f32,
        y: &mut [f32],
        to: Option<&mut [Block]>,
        saved: Option<(&mut [f16], &mut [f32])>,
    );

    /// LayerNorm backward to the input: `d_n = d_y ∘ g`, `d_x = rstd (d_n − mean(d_n) − n · mean(d_n ∘ n))`.
    /// With `fold`, `d_x ∘ fold.0` is also quantized, to `fold.1: [rows, blocks(cols)]`.
    fn add_norm_backward(
        &self,
        d_y: &[f32],
        n: &[f16],
        rstd: &[f32],
        g: &[f32],
        d_x: &mut [f32],
        fold: Option<(&[f32], &mut [Block])>,
    );

    /// Adds every row of `d: [rows, cols]` to `sum: [cols]`, rows ascending.
    fn add_rows(&self, d: &[f32], sum: &mut [f32]);

    /// `y[i] = tanh(x[i])`.
    fn tanh(&self, x: &[f32], y: &mut [f32]);
}
