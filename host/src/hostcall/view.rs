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
