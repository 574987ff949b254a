//! `Kernels` for every instruction set: hands the generic work to [`Isa::vectorize`].

use super::attention::{AttentionBackward, AttentionForward};
use super::isa::Isa;
use super::quantize::QuantizeRows;
use super::{
    Backward, Block, Forward, HeadGroup, Kernels, MatI8, Part, Strided, float, gemm, gemm_f32, norm,
};
use half::f16;

impl<I: Isa> Kernels for I {
    fn name(&self) -> &'static str {
        I::NAME
    }

    fn flip(&self) -> u8 {
        I::FLIP
    }

    fn quantize_rows(&self, x: &[f32], k: usize, fold: Option<&[f32]>, to: &mut [Block]) {
        self.vectorize(QuantizeRows { x, k, fold, to });
    }

    fn weight_sums(&self, w: MatI8) -> Vec<i32> {
        gemm::weight_sums(*self, w)
    }

    fn gemm_forward(&self, x: &[Block], parts: &[Part], to: Forward) {
        gemm::forward(*self, x, parts, to);
    }

    fn gemm_backward(&self, d_y: &[Block], parts: &[MatI8], to: Backward) {
        gemm::backward(*self, d_y, parts, to);
    }

    fn attention_forward(&self, h: &HeadGroup, qkv: &[f16], to: &mut [Block]) {
        self.vectorize(AttentionForward { h, qkv, to });
    }

    fn attention_backward(
        &self,
        h: &HeadGroup,
        qkv: &[f16],
        d_ctx: &[f32],
        fold: [&[f32]; 3],
        to: [&mut [Block]; 3],
        sums: &mut [f32],
    ) {
        self.vectorize(AttentionBackward { h, qkv, d_ctx, fold, to, sums });
    }

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
    ) {
        self.vectorize(gemm_f32::GemmF32 { m, n, k, a, b, ldb, c, ldc });
    }

    fn softmax_rows(&self, s: &mut [f32], n: usize, ld: usize, scale: f32) {
        self.vectorize(float::SoftmaxRows { s, n, ld, scale });
    }

    fn softmax_backward_rows(&self, p: &[f32], d_p: &mut [f32], ld: usize, scale: f32) {
        self.vectorize(float::SoftmaxBackwardRows { p, d_p, ld, scale });
    }

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
    ) {
        self.vectorize(norm::AddNorm { x, r, g, b, eps, y, to, saved });
    }

    fn add_norm_backward(
        &self,
        d_y: &[f32],
        n: &[f16],
        rstd: &[f32],
        g: &[f32],
        d_x: &mut [f32],
        fold: Option<(&[f32], &mut [Block])>,
    ) {
        self.vectorize(norm::AddNormBackward { d_y, n, rstd, g, d_x, fold });
    }

    fn add_rows(&self, d: &[f32], sum: &mut [f32]) {
        self.vectorize(float::AddRows { d, sum });
    }

    fn tanh(&self, x: &[f32], y: &mut [f32]) {
        self.vectorize(float::Tanh { x, y });
    }
}
