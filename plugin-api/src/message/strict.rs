//! The serializer around another: looks at what passes, and refuses what could not be read back.

use std::collections::HashSet;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// How deep lists, maps and structs may be nested: the reader goes so far.
const DEEPEST: u16 = 1022;

const NOTHING: &str = "a `Some` that holds nothing, as `Some(None)` or `Some(())`, would be read as `None`; use an enum of your \
                       own, or a struct with a field, in its place";
const TWICE: &str = "it has the same key twice, which `#[serde(flatten)]` does not read back; rename the field, or remove the \
                     entry from the flattened map";
const WIDE: &str = "a number of 128 bits in a struct with `#[serde(flatten)]` is not read back; make it one of 64 bits, or a text";

/// A value, and where it is.
pub(super) struct Strictly<'v, T: ?Sized> {
    value: &'v T,
    at: Place,
}

/// Where in a value something is.
#[derive(Clone, Copy, Default)]
struct Place {
    depth: u16,
    /// Directly in a `Some`, or in a struct around one value there.
    is_in_some: bool,
    /// In a map whose entries serde collects before it looks at them.
    is_flat: bool,
}

impl Place {
    /// Of the parts of what is here.
    fn within<E: Error>(self) -> Result<Place, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format!(
                "it is nested more than {DEEPEST} deep; keep what is long in a list, not in a chain"
            )));
        }
        Ok(Place { depth: self.depth + 1, is_in_some: false, ..self })
    }
}

impl<'v, T: ?Sized> Strictly<'v, T> {
    pub(super) fn new(value: &'v T) -> Strictly<'v, T> {
        Strictly { value, at: Place::default() }
    }
}

impl<T: Serialize + ?Sized> Serialize for Strictly<'_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Strict { inner, at: self.at, keys: None })
    }
}

/// A serializer, or a part of one that takes the parts of a value.
struct Strict<S> {
    inner: S,
    at: Place,
    /// Of a map that might have one twice.
    keys: Option<HashSet<Vec<u8>>>,
}

impl<S> Strict<S> {
    fn part<'v, T: ?Sized>(&self, value: &'v T) -> Strictly<'v, T> {
        Strictly { value, at: self.at }
    }

    fn of(inner: S, at: Place) -> Strict<S> {
        Strict { inner, at, keys: None }
    }
}

/// Values without parts.
macro_rules! plain {
    ($($name:ident($of:ty);)*) => {$(
        fn $name(self, value: $of) -> Result<S::Ok, S::Error> {
            self.inner.$name(value)
        }
    )*};
}

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Strict<S::SerializeSeq>;
    type SerializeTuple = Strict<S::SerializeTuple>;
    type SerializeTupleStruct = Strict<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Strict<S::SerializeTupleVariant>;
    type SerializeMap = Strict<S::SerializeMap>;
    type SerializeStruct = Strict<S::SerializeStruct>;
    type SerializeStructVariant = Strict<S::SerializeStructVariant>;

    plain! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        match (i64::try_from(value), u64::try_from(value)) {
            _ if self.at.is_flat => Err(S::Error::custom(WIDE)),
            (Ok(short), _) => self.inner.serialize_i64(short),
            (_, Ok(short)) => self.inner.serialize_u64(short),
            _ => self.inner.serialize_i128(value),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        match u64::try_from(value) {
            _ if self.at.is_flat => Err(S::Error::custom(WIDE)),
            Ok(short) => self.inner.serialize_u64(short),
            Err(_) => self.inner.serialize_u128(value),
        }
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        if self.at.is_in_some { Err(S::Error::custom(NOTHING)) } else { self.inner.serialize_none() }
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        if self.at.is_in_some { Err(S::Error::custom(NOTHING)) } else { self.inner.serialize_unit() }
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        if self.at.is_in_some {
            Err(S::Error::custom(NOTHING))
        } else {
            self.inner.serialize_unit_struct(name)
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Strictly { value, at: Place { is_in_some: true, ..self.at } })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Strictly { value, at: self.at })
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, number, variant)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let at = self.at.within()?;
        self.inner.serialize_newtype_variant(name, number, variant, &Strictly { value, at })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Ok(Strict::of(self.inner.serialize_seq(len)?, self.at.within()?))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Strict::of(self.inner.serialize_tuple(len)?, self.at.within()?))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Strict::of(self.inner.serialize_tuple_struct(name, len)?, self.at.within()?))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let at = self.at.within()?.within()?;
        Ok(Strict::of(self.inner.serialize_tuple_variant(name, number, variant, len)?, at))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let at = self.at.within()?;
        // A map that does not say how many entries it has is what `#[serde(flatten)]` makes of a struct.
        let keys = len.is_none().then(HashSet::new);
        Ok(Strict {
            inner: self.inner.serialize_map(len)?,
            at: Place { is_flat: at.is_flat || len.is_none(), ..at },
            keys,
        })
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        Ok(Strict::of(self.inner.serialize_struct(name, len)?, self.at.within()?))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let at = self.at.within()?.within()?;
        Ok(Strict::of(self.inner.serialize_struct_variant(name, number, variant, len)?, at))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// What takes one part after the other.
macro_rules! parts {
    ($($of:ident $name:ident;)*) => {$(
        impl<S: $of> $of for Strict<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let part = self.part(value);
                self.inner.$name(&part)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

parts! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

/// What takes parts with names.
macro_rules! fields {
    ($($of:ident;)*) => {$(
        impl<S: $of> $of for Strict<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                let part = self.part(value);
                self.inner.serialize_field(name, &part)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<S: SerializeMap> SerializeMap for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        if let Some(keys) = &mut self.keys
            && let Ok(key) = rmp_serde::to_vec_named(key)
            && !keys.insert(key)
        {
            return Err(S::Error::custom(TWICE));
        }
        let key = self.part(key);
        self.inner.serialize_key(&key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let value = self.part(value);
        self.inner.serialize_value(&value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
