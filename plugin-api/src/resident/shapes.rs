//! From a type to its layout and the functions that go with it.
//!
//! # Invariants
//!
//! - Layout, glue and natures have the same order: number n is the same type in each.
//! - What is said of a type is worked out once a generation, and kept to its end.
#![expect(unsafe_code, reason = "glue takes values by address")]

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{PoisonError, RwLock};

use super::layout::{Field, Kind, Layout, Type, Variant};
use super::{Nature, Resident, upgrade};
use crate::abi::{DataTypeView, GlueView, StrView};
use crate::alloc::for_life;
use crate::entry::guard;
use crate::plugin::{API, RUSTC, TARGET};

/// Collects the types that a value consists of.
#[derive(Debug, Default)]
pub struct Shapes {
    known: HashMap<TypeId, usize>,
    types: Vec<Type>,
    glue: Vec<GlueView>,
    natures: Vec<Nature>,
}

impl Shapes {
    /// The number of a type, which is described if it is new.
    pub fn of<T: Resident>(&mut self) -> usize {
        if let Some(known) = self.known.get(&TypeId::of::<T>()) {
            return *known;
        }
        // Known before it is described: a type may contain itself, in a box or a list.
        let number = self.types.len();
        self.known.insert(TypeId::of::<T>(), number);
        let name = type_name::<T>().to_owned();
        self.types.push(Type {
            name,
            size: size_of::<T>(),
            align: align_of::<T>(),
            repr: T::REPR.to_owned(),
            before: T::BEFORE.iter().map(|name| (*name).to_owned()).collect(),
            kind: Kind::Leaf,
        });
        self.glue.push(glue::<T>());
        self.natures.push(T::nature());
        self.types[number].kind = T::shape(self);
        number
    }

    /// A field of a struct.
    pub fn field<T: Resident>(&mut self, name: &str, offset: usize) -> Field {
        Field { name: name.to_owned(), offset, ty: self.of::<T>() }
    }

    /// A variant of an enum.
    pub fn variant(&mut self, name: &str, discriminant: i128, parts: Vec<(String, usize)>) -> Variant {
        Variant { name: name.to_owned(), discriminant, parts }
    }
}

/// What this generation knows of a type.
#[derive(Debug)]
pub(crate) struct TypeInfo {
    name: String,
    text: String,
    pub(crate) layout: Layout,
    pub(super) glue: Vec<GlueView>,
    pub(super) natures: Vec<Nature>,
    numbers: HashMap<TypeId, usize>,
    upgrade: UpgradeFn,
    copy: UpgradeFn,
}

type UpgradeFn = unsafe extern "C" fn(
    *const crate::abi::OldDataView,
    *mut crate::abi::UpgradeView,
    *const crate::abi::ErrorSink,
) -> crate::abi::Status;

impl TypeInfo {
    /// Of `T`, worked out at the first call.
    pub(crate) fn of<T: Resident>() -> &'static TypeInfo {
        static KNOWN: RwLock<Option<HashMap<TypeId, &'static TypeInfo>>> = RwLock::new(None);
        let id = TypeId::of::<T>();
        let read = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(info) = read.as_ref().and_then(|known| known.get(&id)) {
            return info;
        }
        drop(read);
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        // Kept to the end of the library, and inside it: who reads it later is code of this library, and the host
        // has copied what it was shown.
        for_life(|| {
            let known = known.get_or_insert_default();
            known.entry(id).or_insert_with(|| Box::leak(Box::new(TypeInfo::work_out::<T>())))
        })
    }

    fn work_out<T: Resident>() -> TypeInfo {
        let mut shapes = Shapes::default();
        shapes.of::<T>();
        let layout = Layout { compiler: format!("{RUSTC} {TARGET} {API}"), types: shapes.types };
        TypeInfo {
            name: super::layout::short(type_name::<T>()),
            text: layout.to_text(),
            layout,
            glue: shapes.glue,
            natures: shapes.natures,
            numbers: shapes.known,
            upgrade: upgrade::run::<T>,
            copy: upgrade::copy_whole::<T>,
        }
    }

    /// The number of `T` in the layout, if the type contains it.
    pub(crate) fn number<T: Resident>(&self) -> Option<usize> {
        self.numbers.get(&TypeId::of::<T>()).copied()
    }

    /// For the host.
    pub(crate) fn view(&self, on_change: u32) -> DataTypeView {
        DataTypeView {
            size: size_of::<DataTypeView>(),
            name: StrView::new(&self.name),
            layout: StrView::new(&self.text),
            glue: self.glue.as_ptr(),
            glue_count: self.glue.len(),
            on_change,
            upgrade: self.upgrade,
            copy: self.copy,
        }
    }
}

fn glue<T: Resident>() -> GlueView {
    GlueView {
        size: size_of::<GlueView>(),
        drop_value: drop_value::<T>,
        variant: variant::<T>,
        children: children::<T>,
        dissolve: dissolve::<T>,
    }
}

/// # Safety
///
/// `value` is a valid `T` that nobody uses any more.
unsafe extern "C" fn drop_value<T: Resident>(value: *mut c_void) {
    // A panic has been reported by the hook; what the rest of the value holds is lost with it.
    // SAFETY: this function's contract.
    let _ = guard(|| unsafe { value.cast::<T>().drop_in_place() });
}

/// # Safety
///
/// `value` is a valid `T`.
unsafe extern "C" fn variant<T: Resident>(value: *const c_void) -> u32 {
    // SAFETY: this function's contract.
    unsafe { (*value.cast::<T>()).variant() }
}

/// # Safety
///
/// `value` is a valid `T` that nobody else uses; `data` and `visit` belong together.
unsafe extern "C" fn children<T: Resident>(
    value: *mut c_void,
    data: *mut c_void,
    visit: unsafe extern "C" fn(*mut c_void, *mut c_void),
) {
    // SAFETY: this function's contract; the child is part of the value.
    unsafe { T::children(value.cast::<T>(), &mut |child| visit(data, child.cast())) }
}

/// # Safety
///
/// As [`Resident::dissolve`].
unsafe extern "C" fn dissolve<T: Resident>(value: *mut c_void) {
    // SAFETY: this function's contract.
    let _ = guard(|| unsafe { T::dissolve(value.cast::<T>()) });
}
