//! Views from and to Rust's own slices. Both sides of the boundary use these.
#![expect(unsafe_code, reason = "turns the boundary's views into slices")]

use crate::abi::{BytesView, StrView};

impl StrView {
    /// The empty text.
    pub const EMPTY: StrView = StrView { ptr: std::ptr::null(), len: 0 };

    /// A view of `text`. The caller keeps `text` alive for as long as the view is used.
    pub const fn new(text: &str) -> StrView {
        StrView { ptr: text.as_ptr(), len: text.len() }
    }

    /// Borrows the bytes of the text, which the other side promised to be UTF-8.
    ///
    /// # Safety
    ///
    /// If `ptr` is non-null, `len` bytes from it are initialised and stay unchanged for `'a`.
    pub const unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        // SAFETY: the contract of `BytesView::as_slice` is this function's.
        unsafe { BytesView { ptr: self.ptr, len: self.len }.as_slice() }
    }
}

impl BytesView {
    /// No bytes.
    pub const EMPTY: BytesView = BytesView { ptr: std::ptr::null(), len: 0 };

    /// A view of `bytes`. The caller keeps them alive for as long as the view is used.
    pub const fn new(bytes: &[u8]) -> BytesView {
        BytesView { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// Borrows the bytes.
    ///
    /// A null `ptr` yields no bytes whatever `len` says: C callers pass `(NULL, 0)` for "empty", and
    /// `slice::from_raw_parts` is undefined for a null pointer even at length 0.
    ///
    /// # Safety
    ///
    /// If `ptr` is non-null, `len` bytes from it are initialised and stay unchanged for `'a`.
    pub const unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: non-null by the check above; readable and unchanged for `'a` by this function's
        // contract; `u8` has no alignment or validity requirement.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}
