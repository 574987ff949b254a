//! The base.

use super::border::{all, free, given, guard, out, text, told, trimtab_status};
use crate::quant::Base;
use std::ffi::c_char;

/// The frozen part of a model, mapped from its file; made by `trimtab quantize`.
///
/// Any number of models share one; each keeps what it needs of it, so a base may be freed before they are.
pub struct trimtab_base(pub(super) Base);

/// Opens a base file, which is mapped and must not be changed while it is in use.
///
/// `base` gets the handle, to be freed by `trimtab_base_free`, or NULL where this fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_base_open(
    path: *const c_char,
    base: *mut *mut trimtab_base,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a text, and a place for a handle (the header's rule)
        let (base, path) = unsafe { (out(base, "base")?, text(path, "path")?) };
        base.set(trimtab_base(Base::open(path)?));
        Ok(())
    })
}

/// A base from the `length` bytes of its file, which are copied: for an app whose base lies in an archive. A file that can
/// be mapped takes less memory (`trimtab_base_open`).
///
/// `base` gets the handle, to be freed by `trimtab_base_free`, or NULL where this fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_base_of_bytes(
    bytes: *const u8,
    length: usize,
    base: *mut *mut trimtab_base,
) -> trimtab_status {
    guard(|| {
        // SAFETY: so many bytes or NULL, and a place for a handle (the header's rule)
        let (base, bytes) = unsafe { (out(base, "base")?, all(bytes, length, "bytes")?) };
        base.set(trimtab_base(Base::from_bytes(bytes)?));
        Ok(())
    })
}

/// Floats of a text's vector, for `trimtab_model_embed` of a model that pools as the base does; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_base_width(base: *const trimtab_base) -> usize {
    // SAFETY: a handle or NULL (the header's rule)
    told(0, || unsafe { given(base, "base") }.map_or(0, |base| base.0.embedding_width()))
}

/// Frees a base; NULL does nothing. Models that were made of it stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_base_free(base: *mut trimtab_base) {
    // SAFETY: a handle that nobody uses any more, or NULL (the header's rule)
    unsafe { free(base) }
}
