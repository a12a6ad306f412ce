//! Reading views that a plugin passed. All pointers of the boundary are read here.
#![expect(unsafe_code, reason = "reads the boundary's views")]

use plugin_api::abi::{BytesView, StrView};

use super::Failure;

/// Borrows the bytes of a view.
///
/// # Safety
///
/// If `view.ptr` is non-null, `view.len` bytes from it are initialised and stay unchanged for `'a`.
pub(crate) unsafe fn bytes<'a>(view: BytesView) -> &'a [u8] {
    // SAFETY: the contract of `BytesView::as_slice` is this function's.
    unsafe { view.as_slice() }
}

/// Copies a struct that may be older, and so shorter, than this host knows it: what it lacks is as in
/// `default`. Nothing for a null pointer.
///
/// # Safety
///
/// `T` is a `repr(C)` struct of the boundary that begins with its size in bytes. `view` is null or
/// points to at least that many initialised bytes, which are the beginning of a valid `T`.
pub(crate) unsafe fn sized<T: Copy>(view: *const T, default: T) -> Option<T> {
    if view.is_null() {
        return None;
    }
    // SAFETY: non-null by the check above; a `usize` is the first field by this function's contract.
    let size = unsafe { view.cast::<usize>().read() };
    let mut copy = default;
    let len = size.min(size_of::<T>());
    // SAFETY: `len` bytes are readable by this function's contract and fit into `copy`, which is
    // ours alone. Fields are whole: tables of the boundary grow by fields.
    unsafe { std::ptr::copy_nonoverlapping(view.cast::<u8>(), (&raw mut copy).cast::<u8>(), len) };
    Some(copy)
}

/// Borrows the text of a view; `what` names it in the error.
///
/// # Errors
///
/// `INVALID` if the bytes are not UTF-8.
///
/// # Safety
///
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(view: StrView, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the contract of `StrView::as_bytes` is this function's.
    let bytes = unsafe { view.as_bytes() };
    std::str::from_utf8(bytes).map_err(|_| Failure::invalid(format!("{what} is not UTF-8")))
}

/// Borrows an array that came as pointer and length.
///
/// # Safety
///
/// If `ptr` is non-null, `len` values of type `T` from it are initialised and stay unchanged for `'a`.
pub(crate) unsafe fn slice<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: non-null by the check above; the rest is this function's contract.
    unsafe { std::slice::from_raw_parts(ptr, len) }
}
