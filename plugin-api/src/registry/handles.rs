//! Host handles in the registry: found by name, released on drop.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

use std::mem::offset_of;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::sync::OnceCell;

use super::memory::{KeyMemory, Lent};
use super::sealed::HostHandle;
use super::{Init, Key, RegistryError};
use crate::abi::{HandleId, HostTable, KIND_HOST_HANDLE, StrView, TypeView};
use crate::host::{self, Owned};

/// A host handle: of one's own, or lent by what the generation remembers.
#[derive(Debug)]
pub enum Held<T: 'static> {
    /// Released by its drop.
    Own(T),
    /// Counted as in use by its drop.
    Lent(Lent<T>),
}

impl<T> Deref for Held<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Held::Own(handle) => handle,
            Held::Lent(handle) => handle,
        }
    }
}

impl<T: Clone> Clone for Held<T> {
    fn clone(&self) -> Held<T> {
        Held::Own(T::clone(self))
    }
}

/// The number that changes when a value leaves its key; `None` for a host that has none.
#[inline]
fn epoch() -> Option<&'static AtomicU64> {
    let host = host::table().ok()?;
    if host.size < offset_of!(HostTable, registry_epoch) + size_of::<*const AtomicU64>() {
        return None;
    }
    // SAFETY: a host whose table reaches this far has filled it in, for as long as the table lives.
    unsafe { host.registry_epoch.as_ref() }
}

/// What the generation remembers, if it is still the key's.
#[inline]
pub(crate) fn recall_host_handle<T: HostHandle>(memory: KeyMemory<T>) -> Option<Held<T>> {
    // SAFETY: the place is taken for `T`, and `find_host_handle_to_recall` fills in nothing else.
    unsafe { memory.lend(epoch()?) }.map(Held::Lent)
}

/// As [`find_host_handle`]; remembers a clone.
pub(crate) fn find_host_handle_to_recall<T: HostHandle + Clone + Send + Sync>(
    memory: KeyMemory<T>,
    key: Key<'_>,
    init: &Init<'_>,
) -> Result<Held<T>, RegistryError> {
    let before = epoch().map(|epoch| epoch.load(Ordering::Acquire));
    let found: T = find_host_handle(key, Some(init))?;
    if let Some(before) = before
        && memory.may_fill()
    {
        // SAFETY: the place is taken for `T`. One that is still in use keeps what it has.
        drop(unsafe { memory.fill(found.clone(), before) });
    }
    Ok(Held::Own(found))
}

/// Remembers it no more.
pub(crate) fn forget_host_handle<T: HostHandle>(memory: KeyMemory<T>) {
    // SAFETY: the place is taken for `T`.
    unsafe { memory.forget::<T>() };
}

/// Finds a host handle, or makes it if there is an `init`, which lives until this returns.
pub(crate) fn find_host_handle<T: HostHandle>(
    key: Key<'_>,
    init: Option<&Init<'_>>,
) -> Result<T, RegistryError> {
    let host = host::table()?;
    let name = key.view();
    let expected =
        TypeView { size: size_of::<TypeView>(), kind: KIND_HOST_HANDLE, name: StrView::new(T::TYPE_NAME) };
    let mut id = HandleId::NONE;
    host::call(|error| match init {
        // SAFETY: the table's own `ctx`; every view, `init` and `id` live until the call returns.
        Some(init) => unsafe {
            ((*host.registry).get_or_init)(host.ctx, &name, &expected, init.view(), &mut id, error)
        },
        // SAFETY: likewise.
        None => unsafe { ((*host.registry).get)(host.ctx, &name, &expected, &mut id, error) },
    })?;
    Ok(T::from_owned(Owned::new(id)))
}

/// What the cache remembers, found at the first use.
pub(crate) fn lend_host_handle<'a, T: HostHandle>(
    cache: &'a OnceCell<T>,
    key: Key<'_>,
    init: &Init<'_>,
) -> Result<&'a T, RegistryError> {
    if let Some(handle) = cache.get() {
        return Ok(handle);
    }
    // Not `get_or_try_init`: an init that uses its own `Lazy` has to reach the registry, which says
    // so, instead of waiting for itself in the cell.
    let found = find_host_handle(key, Some(init))?;
    Ok(cache.get_or_init(|| found))
}
