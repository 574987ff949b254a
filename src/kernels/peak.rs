//! What this CPU's multipliers can do at most: loops in registers, the yardstick of the benches.

/// A loop of one instruction, nothing but registers: its name, multiply-adds of a call, and the loop.
pub type Peak = (&'static str, u64, fn());

/// The loops this CPU can run; none where nobody has written one.
pub fn peaks() -> Vec<Peak> {
    #[cfg(target_arch = "x86_64")]
    {
        x86::peaks()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Vec::new()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Peak;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    const LOOPS: usize = 10_000;
    /// Independent sums: two units, latency 4 or 5.
    const SUMS: usize = 16;

    pub fn peaks() -> Vec<Peak> {
        let mut all: Vec<Peak> = Vec::new();
        if has_vnni() {
            all.push(("vpdpbusd", (LOOPS * SUMS * 64) as u64, || {
                assert!(has_vnni());
                // SAFETY: the CPU has AVX-512 VNNI (and so F), as just asserted.
                black_box(unsafe { vnni() });
            }));
        }
        if is_x86_feature_detected!("avx512f") {
            all.push(("vfmadd512", (LOOPS * SUMS * 16) as u64, || {
                assert!(is_x86_feature_detected!("avx512f"));
                // SAFETY: the CPU has AVX-512 F, as just asserted.
                black_box(unsafe { fma() });
            }));
        }
        all
    }

    fn has_vnni() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn vnni() -> __m512i {
        let (x, y) = (_mm512_set1_epi32(black_box(0x0102_0304)), _mm512_set1_epi32(black_box(0x7f7f_7f7f)));
        let mut sums = [x; SUMS];
        for _ in 0..LOOPS {
            for s in &mut sums {
                *s = _mm512_dpbusd_epi32(*s, x, y);
            }
        }
        sums.into_iter().fold(x, |a, b| _mm512_xor_si512(a, b))
    }

    #[target_feature(enable = "avx512f")]
    fn fma() -> __m512 {
        let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.1)));
        let mut sums = [x; SUMS];
        for _ in 0..LOOPS {
            for s in &mut sums {
                *s = _mm512_fmadd_ps(*s, x, y);
            }
        }
        sums.into_iter().fold(x, |a, b| _mm512_add_ps(a, b))
    }
}
