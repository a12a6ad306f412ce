//! The functions for data in the host's table.
#![expect(unsafe_code, reason = "reads the arguments of host calls")]

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plugin_api::abi::{
    DataCell, DataTable, DataTypeView, ErrorSink, FIND_JOIN, FIND_KEEP, HandleId, HostCtx, InitView, KeyView,
    ON_CHANGE_RESTART, Status,
};

use super::registry::{author, read_init, read_key, read_policy, ready, run_init, timeout_of};
use super::{Caller, Failure, Held, give, guard, view};
use crate::db::blocking;
use crate::pins::Pin;
use crate::registry::data::{self, Begun, DataType, Keep, Tenure};
use crate::registry::{Expected, Value};

/// The functions, for [`super::HostApi`].
pub(super) static TABLE: DataTable =
    DataTable { size: size_of::<DataTable>(), create, find, prepare, release };

unsafe extern "C" fn create(
    ctx: HostCtx,
    of: *const DataTypeView,
    value: *mut c_void,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes a type that is valid for this call.
        let ty = unsafe { read_type(caller, of)? };
        if value.is_null() {
            return Err(Failure::invalid("the value is null"));
        }
        // SAFETY: the plugin passes a value of that type in a block of the C library's, and gives it up.
        let tenure = unsafe { Tenure::new(ty, author(caller), value) };
        // SAFETY: `out` is null or writable during this call, by the table's contract.
        unsafe { give(caller, Held::Data(tenure), out) }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn find(
    ctx: HostCtx,
    key: *const KeyView,
    expected: *const DataTypeView,
    init: *const InitView,
    flags: u32,
    out: *mut *const DataCell,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes views that are valid for this call.
        let (key, ty) = unsafe { (read_key(key)?, read_type(caller, expected)?) };
        // SAFETY: as above.
        let init = if init.is_null() { None } else { Some(unsafe { read_init(init)? }) };
        let init = init.as_ref();
        // SAFETY: as above.
        let policy = init.map(|init| unsafe { read_policy(init) }).transpose()?.unwrap_or_default();
        // On a thread that must not block: what is there and free, or an error.
        let is_hasty = blocking::is_forbidden();
        let timeout = if is_hasty { Duration::ZERO } else { timeout_of(init) };
        let deadline = Instant::now() + timeout;
        loop {
            let author = author(caller);
            let tenure = match init {
                _ if is_hasty => match ready(caller, &key, Expected::from(&ty).with(policy))? {
                    Value::Data(tenure) => tenure,
                    Value::Host(_) | Value::Service(_) => {
                        return Err(Failure::invalid("the key holds something that is not data"));
                    }
                },
                Some(init) => {
                    // SAFETY: `init` belongs to the caller, who is inside this call and keeps it alive.
                    let mut run = || unsafe { run_init(caller, init) };
                    caller.registry.data(
                        &author,
                        &caller.overlay,
                        &key,
                        (&ty, policy),
                        timeout,
                        Some(&mut run),
                    )?
                }
                None => caller.registry.data(&author, &caller.overlay, &key, (&ty, policy), timeout, None)?,
            };
            // Waiting for the end of an upgrade must not keep the old value in its slot's place.
            let data = Arc::clone(tenure.data());
            drop(tenure);
            data.touch(&author, ty.keeper());
            match data.begin(flags & FIND_JOIN != 0, deadline) {
                Begun::Using(cell) => {
                    if flags & FIND_KEEP != 0 {
                        caller.handles.keep_cell(&data);
                    }
                    // SAFETY: `out` is writable during this call.
                    unsafe { out.write(cell.as_ptr()) };
                    return Ok(());
                }
                // Upgraded or removed meanwhile: what is there now?
                Begun::Gone => {}
                Begun::TimedOut => {
                    let words = format!("waited {timeout:?} for an upgrade of `{key}` that does not end");
                    return Err(Failure::new(Status::TIMED_OUT, words));
                }
            }
        }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn prepare(
    ctx: HostCtx,
    key: *const KeyView,
    expected: *const DataTypeView,
    init: *const InitView,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes views that are valid for this call.
        let (key, ty, init) = unsafe { (read_key(key)?, read_type(caller, expected)?, read_init(init)?) };
        // SAFETY: as above.
        let policy = unsafe { read_policy(&init)? };
        let init = &init;
        // SAFETY: `init` belongs to the caller, who is inside this call and keeps it alive.
        let mut run = || unsafe { run_init(caller, init) };
        let author = author(caller);
        Ok(caller.registry.prepare(
            &author,
            &caller.overlay,
            &key,
            (&ty, policy),
            timeout_of(Some(init)),
            &mut run,
        )?)
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn release(ctx: HostCtx, cell: *const DataCell) {
    let body = |_: &Caller| {
        data::release(cell as usize);
        Ok(())
    };
    // SAFETY: `ctx` comes from the plugin under the table's contract; there is no sink.
    unsafe { guard(ctx, std::ptr::null(), body) };
}

/// Keeps the code of a type mapped, with the reason of the day.
struct CodePin(Mutex<Pin>);

impl Keep for CodePin {
    fn is_held_by(&self, reason: String) {
        self.0.lock().rename(reason);
    }
}

/// # Safety
///
/// `ty` is null or points to a type that is valid for this call.
unsafe fn read_type(caller: &Caller, ty: *const DataTypeView) -> Result<DataType, Failure> {
    if ty.is_null() {
        return Err(Failure::invalid("the type is null"));
    }
    // SAFETY: this function's contract: every type begins with its size.
    let size = unsafe { (&raw const (*ty).size).read() };
    // Plugins from before `copy` pass a shorter struct.
    if size < offset_of!(DataTypeView, copy) {
        return Err(Failure::invalid("the type is smaller than version 1 of it"));
    }
    // SAFETY: this function's contract: the first fields are there.
    let (name, layout, glue, count) = unsafe { ((*ty).name, (*ty).layout, (*ty).glue, (*ty).glue_count) };
    // SAFETY: likewise.
    let (on_change, upgrade) = unsafe { ((*ty).on_change, (*ty).upgrade) };
    // SAFETY: this function's contract: a type of this size has it.
    let copy = (size >= size_of::<DataTypeView>()).then(|| unsafe { (*ty).copy });
    // SAFETY: the texts and the array of a valid type are valid for this call.
    let (name, text, glue) = unsafe {
        let text = view::text(layout, "the layout")?;
        (view::text(name, "the type's name")?, text, view::slice(glue, count))
    };
    let keeper = Arc::new(CodePin(Mutex::new(caller.pin(data::held_for(name))?)));
    // SAFETY: the glue is that of the caller's own type, and the keeper a pin of the caller's code.
    unsafe { DataType::new(name, text, glue, (upgrade, copy), on_change == ON_CHANGE_RESTART, keeper) }
        .ok_or_else(|| Failure::invalid("the layout is not written in a form that this host reads"))
}
