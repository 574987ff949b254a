//! What every function does at the border: arguments in, errors and panics out.

use crate::error::{Error, Result};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How a call ended. 0 is success; `trimtab_last_error` has the message of any other.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum trimtab_status {
    /// It did what was asked.
    Ok = 0,
    /// A file could not be read, written or mapped.
    Io = 1,
    /// A file is not what it claims to be, or needs something that this version does not have.
    Format = 2,
    /// Examples that cannot be used.
    Data = 3,
    /// A bias file of another base.
    WrongBase = 4,
    /// An argument that makes no sense: NULL, text that is not UTF-8, a setting out of range.
    Argument = 5,
    /// The loss or a gradient became infinite or no number; try a lower learning rate.
    Diverged = 6,
    /// The progress callback cancelled the run.
    Cancelled = 7,
    /// A bug in trimtab.
    Internal = 8,
}

impl trimtab_status {
    fn of(error: &Error) -> trimtab_status {
        match error {
            Error::Io { .. } => trimtab_status::Io,
            Error::Format { .. } | Error::Tensor { .. } | Error::Unsupported { .. } => trimtab_status::Format,
            Error::Data { .. } => trimtab_status::Data,
            Error::WrongBase { .. } => trimtab_status::WrongBase,
            Error::Config(_) | Error::NotBetter(_) => trimtab_status::Argument,
            Error::Diverged(_) => trimtab_status::Diverged,
            Error::Interrupted(_) => trimtab_status::Cancelled,
            Error::Internal(_) => trimtab_status::Internal,
        }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The message of the last call of this thread that failed; "" where none did. Never NULL.
///
/// It stays until another call of this thread fails or the thread ends: copy what is to be kept.
#[unsafe(no_mangle)]
pub extern "C" fn trimtab_last_error() -> *const c_char {
    // A destructor of a thread that ends may ask when there is no message any more.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The library's version, such as "0.1.0". A constant. Until 1.0 a new minor version may change this interface.
#[unsafe(no_mangle)]
pub extern "C" fn trimtab_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Runs what a function does, and turns how it ends into a status and a message of this thread.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> trimtab_status {
    let ended = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)));
    match ended {
        Ok(()) => trimtab_status::Ok,
        Err(error) => {
            let message = c_string(&error.to_string());
            LAST.try_with(|last| last.replace(message)).ok();
            trimtab_status::of(&error)
        }
    }
}

/// The same of a function that only tells something: `otherwise` where it panics.
pub(super) fn told<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

pub(super) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let what = panic.downcast_ref::<&str>().copied();
    let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::Internal(format!("a panic, please report it: {}", what.unwrap_or("of no words")))
}

/// Text for C, which ends at the first NUL: one inside becomes U+FFFD.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

fn null(name: &str) -> Error {
    Error::Config(format!("{name} is NULL"))
}

/// The thing behind a pointer that is not NULL.
///
/// # Safety
/// `pointer` is NULL or points to a valid `T`, which nobody changes or frees during `'a`.
pub(super) unsafe fn given<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// `length` bytes that are not NULL.
///
/// # Safety
/// `pointer` is NULL or points to so many bytes, which nobody changes or frees during `'a`.
pub(super) unsafe fn all<'a>(pointer: *const u8, length: usize, name: &str) -> Result<&'a [u8]> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if isize::try_from(length).is_err() {
        return Err(Error::Config(format!("{name}: no buffer has {length} bytes")));
    }
    // SAFETY: not NULL, so they are there and stay; no more than a slice may have
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// A text that is not NULL.
///
/// # Safety
/// `pointer` is NULL or points to bytes that end in a NUL, which nobody changes or frees during `'a`.
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise
    unsafe { text_or_null(pointer, name) }?.ok_or_else(|| null(name))
}

/// A text, or none.
///
/// # Safety
/// As of [`text`].
pub(super) unsafe fn text_or_null<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, so it ends in a NUL and stays
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|e| Error::Config(format!("{name} is not UTF-8: {e}")))
}

/// Where a result goes: set to NULL at once, so that whatever happens it holds no garbage.
///
/// # Safety
/// `out` is NULL, or a pointer may be written there until the call ends.
pub(super) unsafe fn out<'a, T>(out: *mut *mut T, name: &str) -> Result<Out<'a, T>> {
    if out.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, so it may be written, also where it was never set
    unsafe { out.write(std::ptr::null_mut()) };
    // SAFETY: the same, and it now holds a valid pointer
    Ok(Out(unsafe { &mut *out }))
}

/// A place for one handle.
pub(super) struct Out<'a, T>(&'a mut *mut T);

impl<T> Out<'_, T> {
    /// Hands a new handle to the caller, who frees it.
    pub fn set(self, handle: T) {
        *self.0 = Box::into_raw(Box::new(handle));
    }
}

/// Frees a handle.
///
/// # Safety
/// `handle` is NULL, or came of [`Out::set`] and was not freed, and nobody uses it any more.
pub(super) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        told((), || {
            // SAFETY: it came of `Box::into_raw`, once, and ends here
            drop(unsafe { Box::from_raw(handle) });
        });
    }
}

/// A lock that a panic did not break: what it guards is replaced whole or not at all.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The same, to write.
pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: it ends in a NUL and is copied before the next call
        unsafe { CStr::from_ptr(trimtab_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_ends_at_the_border() {
        assert_eq!(guard(|| panic!("broken rule {}", 7)), trimtab_status::Internal);
        assert_eq!(last(), "internal: a panic, please report it: broken rule 7");
        assert_eq!(told(3, || panic!("of something else")), 3);
        assert_eq!(guard(|| std::panic::panic_any(7)), trimtab_status::Internal);
        assert_eq!(guard(|| Ok(())), trimtab_status::Ok);
        assert!(last().contains("of no words"), "success leaves the message: {}", last());
    }

    #[test]
    fn a_message_belongs_to_its_thread() {
        guard(|| Err(Error::Config("here".into())));
        let there = std::thread::spawn(|| {
            let before = last();
            guard(|| Err(Error::Config("the\0re".into())));
            (before, last())
        });
        assert_eq!(there.join().unwrap(), (String::new(), "the\u{fffd}re".to_owned()));
        assert_eq!(last(), "here");
    }
}
