//! Host handles in the registry: found by name, released on drop.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

use once_cell::sync::OnceCell;

use super::sealed::HostHandle;
use super::{Handle, Keep, Key, RegistryError, sealed};
use crate::abi::{HandleId, InitView, KIND_HOST_HANDLE, StrView, TypeView};
use crate::host::{self, Owned};

/// Finds a host handle, or makes it if there is an `init`, which lives until this returns.
pub(crate) fn find_host_handle<T: HostHandle>(
    key: Key<'_>,
    init: Option<&InitView>,
) -> Result<T, RegistryError> {
    let host = host::table()?;
    let name = key.view();
    let expected =
        TypeView { size: size_of::<TypeView>(), kind: KIND_HOST_HANDLE, name: StrView::new(T::TYPE_NAME) };
    let mut id = HandleId::NONE;
    host::call(|error| match init {
        // SAFETY: the table's own `ctx`; every view, `init` and `id` live until the call returns.
        Some(init) => unsafe {
            ((*host.registry).get_or_init)(host.ctx, &name, &expected, init, &mut id, error)
        },
        // SAFETY: likewise.
        None => unsafe { ((*host.registry).get)(host.ctx, &name, &expected, &mut id, error) },
    })?;
    Ok(T::from_owned(Owned::new(id)))
}

/// What the cache remembers, found at the first use.
pub(crate) fn lend_host_handle<'a, T: Keep + sealed::Keep<Held = T> + HostHandle>(
    cache: &'a OnceCell<Handle<T>>,
    key: Key<'_>,
    init: &InitView,
) -> Result<&'a Handle<T>, RegistryError> {
    if let Some(handle) = cache.get() {
        return Ok(handle);
    }
    // Not `get_or_try_init`: an init that uses its own `Lazy` has to reach the registry, which says
    // so, instead of waiting for itself in the cell.
    let found = find_host_handle(key, Some(init))?;
    Ok(cache.get_or_init(|| Handle(found)))
}
