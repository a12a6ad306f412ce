//! Which form a type is written in: its own, or MessagePack. Chosen by the compiler, method by method.
//!
//! `#[resident]` asks `(&&Way::<T>::NEW).way()`: [`ByBytes`] is found first, being one reference nearer, and only
//! for types with a form of their own; [`ByMessage`] is found for all others, which have to be serde's then.

use std::marker::PhantomData;

use super::wire::{Input, Malformed, Take, Wire};

/// Asks for the form of `T`.
#[derive(Debug)]
pub struct Way<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> Way<T> {
    /// The question.
    pub const NEW: Way<T> = Way(PhantomData);
}

/// The first answer.
pub trait ByBytes {
    /// In its own form.
    fn way(&self) -> AsBytes;
}

/// The last answer.
pub trait ByMessage {
    /// In MessagePack.
    fn way(&self) -> AsMessage;
}

impl<T: ?Sized + Wire> ByBytes for &Way<T> {
    fn way(&self) -> AsBytes {
        AsBytes
    }
}

impl<T: ?Sized> ByMessage for Way<T> {
    fn way(&self) -> AsMessage {
        AsMessage
    }
}

/// The form of [`Wire`].
#[derive(Debug, Clone, Copy)]
pub struct AsBytes;

impl AsBytes {
    /// Appends a value.
    ///
    /// # Errors
    ///
    /// None; it is there for what [`AsMessage`] returns.
    pub fn put<T: ?Sized + Wire>(self, value: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        value.put(out);
        Ok(())
    }

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn take<'b, T: Take<'b>>(self, from: &mut Input<'b>) -> Result<T, Malformed> {
        T::take(from)
    }

    /// What the type is called in an interface, however the author wrote it.
    pub fn name<T: ?Sized + Wire>(self, _written: &str) -> String {
        T::name()
    }
}

/// One MessagePack value, with its length before it.
#[derive(Debug, Clone, Copy)]
pub struct AsMessage;

/// What can be written as MessagePack.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed to a service or returned by one",
    label = "neither bytes nor serde's",
    note = "the other side is another copy of the code: numbers, `bool`, `char`, text, bytes, and `Option`, `Vec` and `Result` of them cross as they are",
    note = "for a type of your own, `#[derive(serde::Serialize, serde::Deserialize)]`: it crosses as MessagePack"
)]
pub trait Packs {
    /// Appends the value.
    #[doc(hidden)]
    fn pack(&self, out: &mut Vec<u8>) -> Result<(), Malformed>;
}

/// What can be read from MessagePack.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed to a service or returned by one",
    label = "cannot be read on the other side",
    note = "for a type of your own, `#[derive(serde::Serialize, serde::Deserialize)]`: it crosses as MessagePack"
)]
pub trait Unpacks: Sized {
    /// Reads the value.
    #[doc(hidden)]
    fn unpack(bytes: &[u8]) -> Result<Self, Malformed>;
}

#[cfg(feature = "serde")]
#[diagnostic::do_not_recommend]
impl<T: ?Sized + serde::Serialize> Packs for T {
    fn pack(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        crate::message::pack(self, out).map_err(Malformed::new)
    }
}

#[cfg(feature = "serde")]
#[diagnostic::do_not_recommend]
impl<T: serde::de::DeserializeOwned> Unpacks for T {
    fn unpack(bytes: &[u8]) -> Result<T, Malformed> {
        crate::message::unpack(bytes).map_err(Malformed::new)
    }
}

impl AsMessage {
    /// Appends a value.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the type's own code does not write it.
    pub fn put<T: ?Sized + Packs>(self, value: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let at = out.len();
        out.extend_from_slice(&[0; 8]);
        value.pack(out)?;
        let length = (out.len() - at - 8) as u64;
        out[at..at + 8].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn take<T: Unpacks>(self, from: &mut Input<'_>) -> Result<T, Malformed> {
        let length = from.length()?;
        T::unpack(from.bytes(length)?)
    }

    /// What the type is called in an interface: as the author wrote it. Its fields are its own affair, as in a
    /// file: one that is missing on the reader's side is an error there, if it has no default.
    pub fn name<T: ?Sized>(self, written: &str) -> String {
        format!("{written} as MessagePack")
    }
}
