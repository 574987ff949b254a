//! What this CPU's multipliers can do at most: loops in registers, the yardstick of the benches.

/// A loop of one instruction, nothing but registers: its name, multiply-adds of a call, and the loop.
pub type Peak = (&'static str, u64, fn());

/// The loops this CPU can run; none where nobody has written one.
pub fn peaks() -> Vec<Peak> {
    #[cfg(target_arch = "x86_64")]
    {
        x86::peaks()
    }
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    {
        arm::peaks()
    }
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
    {
        Vec::new()
    }
}

/// The instructions that bound a kernel set's int8 and its f32 products, by their names in [`peaks`]; none for
/// `portable`, whose instructions are the compiler's choice.
pub fn of_set(set: &str) -> Option<(&'static str, &'static str)> {
    match set {
        "avx512-vnni" => Some(("vpdpbusd", "vfmadd512")),
        "avx2" => Some(("vpmaddwd-vpaddd", "vfmadd256")),
        "i8mm" => Some(("smmla", "fmla")),
        "dotprod" => Some(("sdot", "fmla")),
        "neon" => Some(("smull-smlal-sadalp", "fmla")),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Peak;
    use std::arch::{asm, x86_64::*};
    use std::hint::black_box;

    const LOOPS: usize = 10_000;
    /// Independent sums: two units, latency 4 or 5.
    const SUMS: usize = 16;
    /// As many as 16 registers hold beside the operands.
    const SUMS_AVX2: usize = 12;

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
        if is_x86_feature_detected!("avx2") {
            all.push(("vpmaddwd-vpaddd", (LOOPS * SUMS_AVX2 * 16) as u64, || {
                assert!(is_x86_feature_detected!("avx2"));
                // SAFETY: the CPU has AVX2, as just asserted.
                black_box(unsafe { madd() });
            }));
        }
        if is_x86_feature_detected!("avx") && is_x86_feature_detected!("fma") {
            all.push(("vfmadd256", (LOOPS * SUMS_AVX2 * 8) as u64, || {
                assert!(is_x86_feature_detected!("avx") && is_x86_feature_detected!("fma"));
                // SAFETY: the CPU has AVX and FMA, as just asserted.
                black_box(unsafe { fma256() });
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

    #[target_feature(enable = "avx2")]
    fn madd() -> __m256i {
        let (x, y) = (_mm256_set1_epi16(black_box(0x0102)), _mm256_set1_epi16(black_box(0x7f)));
        let mut sums = [x; SUMS_AVX2];
        for _ in 0..LOOPS {
            for s in &mut sums {
                // In intrinsics the product, always the same one, would move out of the loop.
                // SAFETY: arithmetic on registers that are declared, with instructions of this function's features.
                unsafe {
                    asm!(
                        "vpmaddwd {t}, {x}, {y}", "vpaddd {s}, {s}, {t}",
                        t = out(ymm_reg) _, x = in(ymm_reg) x, y = in(ymm_reg) y, s = inout(ymm_reg) *s,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        sums.into_iter().fold(x, |a, b| _mm256_xor_si256(a, b))
    }

    #[target_feature(enable = "avx,fma")]
    fn fma256() -> __m256 {
        let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.1)));
        let mut sums = [x; SUMS_AVX2];
        for _ in 0..LOOPS {
            for s in &mut sums {
                *s = _mm256_fmadd_ps(*s, x, y);
            }
        }
        sums.into_iter().fold(x, |a, b| _mm256_add_ps(a, b))
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels;

    #[test]
    fn every_set_but_portable_has_its_peaks() {
        let peaks: Vec<_> = super::peaks().iter().map(|p| p.0).collect();
        for set in kernels::available().iter().map(|k| k.name()).filter(|name| *name != "portable") {
            let (int8, float) = super::of_set(set).unwrap_or_else(|| panic!("no peak is named for {set}"));
            assert!(peaks.contains(&int8) && peaks.contains(&float), "{set}: {int8} {float} of {peaks:?}");
        }
        super::peaks().iter().for_each(|(_, multiply_adds, run)| {
            assert!(*multiply_adds > 0);
            run();
        });
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod arm {
    use super::Peak;
    use std::arch::{asm, is_aarch64_feature_detected as has};

    const LOOPS: usize = 10_000;
    /// Instructions of one kind in the loop, independent: more than any core's pipes times their latency.
    const SUMS: usize = 16;

    pub fn peaks() -> Vec<Peak> {
        // The same mix as the set's tile: two products for each pairwise addition.
        let mut all: Vec<Peak> = vec![("smull-smlal-sadalp", (LOOPS * SUMS / 2 * 16) as u64, neon)];
        if has!("dotprod") {
            all.push(("sdot", (LOOPS * SUMS * 16) as u64, || {
                assert!(has!("dotprod"));
                // SAFETY: the CPU has dotprod, as just asserted.
                unsafe { dotprod() };
            }));
        }
        if has!("i8mm") {
            all.push(("smmla", (LOOPS * SUMS * 32) as u64, || {
                assert!(has!("i8mm"));
                // SAFETY: the CPU has i8mm, as just asserted.
                unsafe { i8mm() };
            }));
        }
        all.push(("fmla", (LOOPS * SUMS * 4) as u64, fma));
        all
    }

    macro_rules! zeros {
        ($($v:literal)*) => {
            concat!($("movi v", $v, ".4s, #0\n"),*)
        };
    }

    /// Runs a loop body `LOOPS` times. It may use `v0` to `v15`, which start
    /// from 0, and reads `v30` and `v31`.
    macro_rules! repeat {
        ($($line:expr,)*) => {
            // SAFETY: the loop counts a register down and does arithmetic on registers it declares as its own; the
            // instructions are those of the function's features.
            unsafe {
                asm!(
                    concat!(zeros!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15), "2:\n", $($line,)* "subs {n}, {n}, #1\n", "b.ne 2b"),
                    n = inout(reg) LOOPS => _,
                    inout("v30") 1.0f32 => _, inout("v31") 1.0f32 => _,
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
                    out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
                    out("v14") _, out("v15") _,
                    options(nomem, nostack)
                );
            }
        };
    }

    /// One instruction for each register of sums: its name, their suffix and the factors.
    macro_rules! each {
        ($op:literal $to:literal $factors:literal; $($v:literal)*) => {
            concat!($($op, " v", $v, $to, ", ", $factors, "\n"),*)
        };
    }

    fn neon() {
        repeat!(
            each!("smull" ".8h" "v30.8b, v31.8b"; 8 9 10 11 12 13 14 15),
            each!("smlal2" ".8h" "v30.16b, v31.16b"; 8 9 10 11 12 13 14 15),
            "sadalp v0.4s, v8.8h\n",
            "sadalp v1.4s, v9.8h\n",
            "sadalp v2.4s, v10.8h\n",
            "sadalp v3.4s, v11.8h\n",
            "sadalp v4.4s, v12.8h\n",
            "sadalp v5.4s, v13.8h\n",
            "sadalp v6.4s, v14.8h\n",
            "sadalp v7.4s, v15.8h\n",
        );
    }

    #[target_feature(enable = "neon,dotprod")]
    fn dotprod() {
        repeat!(each!("sdot" ".4s" "v30.16b, v31.16b"; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),);
    }

    #[target_feature(enable = "neon,i8mm")]
    fn i8mm() {
        repeat!(each!("smmla" ".4s" "v30.16b, v31.16b"; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),);
    }

    fn fma() {
        repeat!(each!("fmla" ".4s" "v30.4s, v31.4s"; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),);
    }
}
