//! `Kernels` for every instruction set: hands the generic work to [`Isa::vectorize`].

use super::isa::Isa;
use super::{GeluOut, Kernels, MatI8, Out, RowsI8, Strided, float, gemm, gemm_f32, norm};
use half::f16;

impl<I: Isa> Kernels for I {
    fn name(&self) -> &'static str {
        I::NAME
    }

    fn quantize_rows(&self, x: &[f32], k: usize, fold: Option<&[f32]>, q: &mut [i8], scale: &mut [f32]) {
        self.vectorize(float::QuantizeRows { x, k, fold, q, scale });
    }

    fn gemm_forward(
        &self,
        x: RowsI8,
        w: MatI8,
        w_scale: &[f32],
        bias: &[f32],
        gelu: Option<GeluOut>,
        y: Out,
    ) {
        gemm::forward(*self, x, w, w_scale, bias, gelu, y);
    }

    fn gemm_backward(&self, d: RowsI8, w: MatI8, accumulate: bool, d_x: Out) {
        gemm::backward(*self, d, w, accumulate, d_x);
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
        saved: Option<(&mut [f16], &mut [f32])>,
    ) {
        self.vectorize(norm::AddNorm { x, r, g, b, eps, y, saved });
    }

    fn add_norm_backward(&self, d_y: &[f32], n: &[f16], rstd: &[f32], g: &[f32], d_x: &mut [f32]) {
        self.vectorize(norm::AddNormBackward { d_y, n, rstd, g, d_x });
    }

    fn gelu_backward(&self, d: &mut [f32], code: &[u8]) {
        self.vectorize(float::GeluBackward { d, code });
    }

    fn add_rows(&self, d: &[f32], sum: &mut [f32]) {
        self.vectorize(float::AddRows { d, sum });
    }

    fn tanh(&self, x: &[f32], y: &mut [f32]) {
        self.vectorize(float::Tanh { x, y });
    }

    fn to_f16(&self, x: &[f32], y: &mut [f16]) {
        self.vectorize(float::ToF16 { x, y });
    }

    fn from_f16(&self, x: &[f16], y: &mut [f32]) {
        self.vectorize(float::FromF16 { x, y });
    }
}
