//! Arguments and answers as bytes.
//!
//! Numbers are little-endian in their own width (`usize` and `isize` in 8 bytes), `bool` is one byte, `char` its
//! number in 4. Text, bytes and lists begin with their length in 8 bytes; `Option` and `Result` with one byte, 0
//! for `None` and `Err`. Every other type is one MessagePack value with field names, its length before it.
//! Arguments follow each other, and so does nothing after the last.
//!
//! # Invariants
//!
//! - Reading trusts nothing: whatever the bytes are, the outcome is a value or [`Malformed`].
//! - `name` is a function of the format alone: equal names mean equal bytes.

use std::fmt;

/// Bytes that are not what the reader's signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(words: impl Into<String>) -> Malformed {
        Malformed(words.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// What has not been read yet.
#[derive(Debug, Clone, Copy)]
pub struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    /// All of `bytes`.
    pub fn new(bytes: &'b [u8]) -> Input<'b> {
        Input(bytes)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| Malformed(format!("it ends {} bytes early", count - self.0.len())))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn length(&mut self) -> Result<usize, Malformed> {
        usize::take(self)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if there is.
    pub fn end(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Malformed(format!("{left} bytes follow its end"))),
        }
    }
}

/// What can be written in the format's own form.
pub trait Wire {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Appends values, one after the other.
    fn put_all(values: &[Self], out: &mut Vec<u8>)
    where
        Self: Sized,
    {
        values.iter().for_each(|value| value.put(out));
    }

    /// What it is called in an interface.
    fn name() -> String;
}

/// What can be read in the format's own form.
pub trait Take<'b>: Sized {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    fn take(from: &mut Input<'b>) -> Result<Self, Malformed>;

    /// Reads values, one after the other.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    fn take_all(from: &mut Input<'b>, count: usize) -> Result<Vec<Self>, Malformed> {
        // A wrong length must not reserve memory: what is not there cannot be read.
        let mut values = Vec::with_capacity(count.min(from.0.len()));
        for _ in 0..count {
            values.push(Self::take(from)?);
        }
        Ok(values)
    }
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

macro_rules! numbers {
    ($($of:ident)*) => {$(
        impl Wire for $of {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn name() -> String {
                stringify!($of).to_owned()
            }
        }

        impl Take<'_> for $of {
            fn take(from: &mut Input<'_>) -> Result<Self, Malformed> {
                let mut bytes = [0; size_of::<$of>()];
                bytes.copy_from_slice(from.bytes(size_of::<$of>())?);
                Ok($of::from_le_bytes(bytes))
            }
        }
    )*};
}

numbers!(i8 u16 i16 u32 i32 u64 i64 u128 i128 f32 f64);

impl Wire for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn put_all(values: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(values);
    }

    fn name() -> String {
        "u8".to_owned()
    }
}

impl<'b> Take<'b> for u8 {
    fn take(from: &mut Input<'b>) -> Result<u8, Malformed> {
        Ok(from.bytes(1)?[0])
    }

    fn take_all(from: &mut Input<'b>, count: usize) -> Result<Vec<u8>, Malformed> {
        Ok(from.bytes(count)?.to_vec())
    }
}

/// Types that are written as another one.
macro_rules! through {
    ($($of:ty as $wire:ty: $put:expr, $take:expr;)*) => {$(
        impl Wire for $of {
            fn put(&self, out: &mut Vec<u8>) {
                let put: fn(&$of) -> $wire = $put;
                put(self).put(out);
            }

            fn name() -> String {
                stringify!($of).to_owned()
            }
        }

        impl Take<'_> for $of {
            fn take(from: &mut Input<'_>) -> Result<Self, Malformed> {
                let take: fn($wire) -> Option<$of> = $take;
                let found = <$wire>::take(from)?;
                take(found).ok_or_else(|| Malformed(format!(concat!("{} is no ", stringify!($of)), found)))
            }
        }
    )*};
}

through! {
    usize as u64: |value| *value as u64, |found| usize::try_from(found).ok();
    isize as i64: |value| *value as i64, |found| isize::try_from(found).ok();
    bool as u8: |value| u8::from(*value), |found| (found < 2).then_some(found == 1);
    char as u32: |value| u32::from(*value), char::from_u32;
}

impl Wire for () {
    fn put(&self, _: &mut Vec<u8>) {}

    fn name() -> String {
        "()".to_owned()
    }
}

impl Take<'_> for () {
    fn take(_: &mut Input<'_>) -> Result<(), Malformed> {
        Ok(())
    }

    fn take_all(_: &mut Input<'_>, _: usize) -> Result<Vec<()>, Malformed> {
        Err(Malformed::new("a list of nothings has no end"))
    }
}

impl Wire for str {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().put(out);
    }

    fn name() -> String {
        "String".to_owned()
    }
}

impl<'b> Take<'b> for &'b str {
    fn take(from: &mut Input<'b>) -> Result<&'b str, Malformed> {
        std::str::from_utf8(<&[u8]>::take(from)?).map_err(|_| Malformed::new("a text is not UTF-8"))
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_str().put(out);
    }

    fn name() -> String {
        str::name()
    }
}

impl Take<'_> for String {
    fn take(from: &mut Input<'_>) -> Result<String, Malformed> {
        <&str>::take(from).map(str::to_owned)
    }
}

impl<T: Wire> Wire for [T] {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        T::put_all(self, out);
    }

    fn name() -> String {
        format!("Vec<{}>", T::name())
    }
}

impl<'b> Take<'b> for &'b [u8] {
    fn take(from: &mut Input<'b>) -> Result<&'b [u8], Malformed> {
        let length = from.length()?;
        from.bytes(length)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_slice().put(out);
    }

    fn name() -> String {
        <[T]>::name()
    }
}

impl<'b, T: Take<'b>> Take<'b> for Vec<T> {
    fn take(from: &mut Input<'b>) -> Result<Vec<T>, Malformed> {
        let length = from.length()?;
        T::take_all(from, length)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn name() -> String {
        format!("Option<{}>", T::name())
    }
}

impl<'b, T: Take<'b>> Take<'b> for Option<T> {
    fn take(from: &mut Input<'b>) -> Result<Option<T>, Malformed> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }

    fn name() -> String {
        format!("Result<{}, {}>", T::name(), E::name())
    }
}

impl<'b, T: Take<'b>, E: Take<'b>> Take<'b> for Result<T, E> {
    fn take(from: &mut Input<'b>) -> Result<Result<T, E>, Malformed> {
        Ok(if bool::take(from)? { Ok(T::take(from)?) } else { Err(E::take(from)?) })
    }
}
