//! The registry's functions in the host's table.
#![expect(unsafe_code, reason = "reads the arguments of host calls")]

use std::mem::offset_of;
use std::time::Duration;

use plugin_api::abi::{
    ErrorSink, ErrorView, HandleId, HostCtx, INIT_CONFIGURED, INIT_RESTARTS, InitView, KIND_HOST_HANDLE,
    KeyView, RegistryTable, Status, StrView, TypeView,
};

use super::{Caller, Failure, Held, give, guard, view};
use crate::db::blocking;
use crate::registry::{
    Author, DEFAULT_INIT_TIMEOUT, Expected, InitFailure, Key, Policy, RegistryError, Value,
};

/// The functions, for [`super::HostApi`].
pub(super) static TABLE: RegistryTable =
    RegistryTable { size: size_of::<RegistryTable>(), get_or_init, get, remove };

unsafe extern "C" fn get_or_init(
    ctx: HostCtx,
    key: *const KeyView,
    expected: *const TypeView,
    init: *const InitView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes views that are valid for this call (contract of `RegistryTable`).
        let (key, expected, init) = unsafe { (read_key(key)?, read_type(expected)?, read_init(init)?) };
        // SAFETY: as above.
        let policy = unsafe { read_policy(&init)? };
        let expected = Expected::from(&expected).with(policy);
        let timeout = timeout_of(Some(&init));
        if blocking::is_forbidden() {
            let value = ready(caller, &key, expected)?;
            // SAFETY: `out` is null or writable during this call, by the table's contract.
            return unsafe { give(caller, held(value), out) };
        }
        let value = caller.registry.get_or_init(
            &author(caller),
            &caller.overlay,
            &key,
            expected,
            timeout,
            // SAFETY: `init` belongs to the caller, who is inside this call and keeps it alive.
            || unsafe { run_init(caller, &init) },
        )?;
        // SAFETY: `out` is null or writable during this call, by the table's contract.
        unsafe { give(caller, held(value), out) }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn get(
    ctx: HostCtx,
    key: *const KeyView,
    expected: *const TypeView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes views that are valid for this call.
        let (key, expected) = unsafe { (read_key(key)?, read_type(expected)?) };
        let value = caller.registry.get(&author(caller), &caller.overlay, &key, &expected)?;
        // SAFETY: `out` is null or writable during this call, by the table's contract.
        unsafe { give(caller, held(value), out) }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn remove(ctx: HostCtx, key: *const KeyView, error: *const ErrorSink) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes a view that is valid for this call.
        let key = unsafe { read_key(key)? };
        // Dropped here, on the caller's time.
        drop(caller.registry.remove(&caller.overlay, &key)?);
        Ok(())
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// The value of a key on a thread that must not block: there, or an error.
pub(super) fn ready<'a>(
    caller: &Caller,
    key: &Key,
    expected: impl Into<Expected<'a>>,
) -> Result<Value, Failure> {
    caller.registry.get(&author(caller), &caller.overlay, key, expected).map_err(|error| match error {
        RegistryError::NotFound { key } => Failure::invalid(format!(
            "making `{key}` may block; declare the route without `inline`, or make it in `on_load`"
        )),
        other => other.into(),
    })
}

pub(super) fn author(caller: &Caller) -> Author {
    Author { plugin: caller.plugin.clone(), generation: caller.generation }
}

fn held(value: Value) -> Held {
    match value {
        Value::Host(resource) => Held::Resource(resource),
        // Found by `data::find` only, which expects it.
        Value::Data(tenure) => Held::Data(tenure),
        // Found by `service::find` only, likewise.
        Value::Service(service) => Held::Service(service),
    }
}

/// How long an init may take.
pub(super) fn timeout_of(init: Option<&InitView>) -> Duration {
    match init.map_or(0, |init| init.timeout_ns) {
        0 => DEFAULT_INIT_TIMEOUT,
        ns => Duration::from_nanos(ns),
    }
}

/// # Safety
///
/// `key` is null or points to a key that is valid for this call.
pub(super) unsafe fn read_key(key: *const KeyView) -> Result<Key, Failure> {
    // SAFETY: this function's contract.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return Err(Failure::invalid("the key is null"));
    };
    // SAFETY: the texts of a valid key are valid for this call.
    let (module, name) = unsafe { (view::text(key.module, "the module")?, view::text(key.key, "the key")?) };
    if name.is_empty() {
        return Err(Failure::invalid("a key needs a name: the text is empty"));
    }
    Ok(Key::new(module, name))
}

/// # Safety
///
/// `expected` is null or points to a type that is valid for this call.
unsafe fn read_type(expected: *const TypeView) -> Result<String, Failure> {
    // SAFETY: this function's contract.
    let Some(expected) = (unsafe { expected.as_ref() }) else {
        return Err(Failure::invalid("the type is null"));
    };
    if expected.kind != KIND_HOST_HANDLE {
        return Err(Failure::invalid(format!(
            "a host handle is found by this call, and not a value of kind {}",
            expected.kind
        )));
    }
    // SAFETY: the text of a valid type is valid for this call.
    Ok(unsafe { view::text(expected.name, "the type's name")? }.to_owned())
}

/// Copies as much of an init as the plugin and this host both know; the rest is nought.
///
/// # Safety
///
/// `init` is null or points to an init of as many bytes as it says, which is valid for this call.
pub(super) unsafe fn read_init(init: *const InitView) -> Result<InitView, Failure> {
    if init.is_null() {
        return Err(Failure::invalid("there is no init"));
    }
    // SAFETY: this function's contract: every init begins with its size.
    let size = unsafe { (&raw const (*init).size).read() };
    if size < INIT_V1 {
        return Err(Failure::invalid(format!("the init has {size} bytes, version 1 has {INIT_V1}")));
    }
    // SAFETY: this function's contract: the first fields are there.
    let first = unsafe { ((*init).data, (*init).call, (*init).timeout_ns) };
    let (data, call, timeout_ns) = first;
    let mut copy = InitView { size, data, call, timeout_ns, flags: 0, config: StrView::EMPTY };
    if size >= size_of::<InitView>() {
        // SAFETY: this function's contract: an init of this size has them.
        (copy.flags, copy.config) = unsafe { ((*init).flags, (*init).config) };
    }
    Ok(copy)
}

/// Where the first form of an init ended.
const INIT_V1: usize = offset_of!(InitView, timeout_ns) + size_of::<u64>();

/// What an init says of when its value makes room for another.
///
/// # Safety
///
/// The text in `init` is valid as long as the result is used.
pub(super) unsafe fn read_policy<'a>(init: &InitView) -> Result<Policy<'a>, Failure> {
    let config = if init.flags & INIT_CONFIGURED == 0 {
        None
    } else {
        // SAFETY: this function's contract.
        Some(unsafe { view::text(init.config, "the configuration")? })
    };
    Ok(Policy { restarts: init.flags & INIT_RESTARTS != 0, config })
}

/// Lets the plugin make a value.
///
/// # Safety
///
/// `init.call` and `init.data` belong together and are valid for this call.
pub(super) unsafe fn run_init(caller: &Caller, init: &InitView) -> Result<Value, InitFailure> {
    unsafe extern "C" fn report(data: *mut std::ffi::c_void, error: *const ErrorView) {
        // SAFETY: `data` is the `String` below, alive during the init's call.
        let text = unsafe { &mut *data.cast::<String>() };
        // SAFETY: the plugin passes an error that is valid for this call.
        let bytes = unsafe { (*error).message.as_bytes() };
        *text = String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::new();
    let sink = ErrorSink { data: (&raw mut text).cast(), report: Some(report) };
    let mut made = HandleId::NONE;
    // SAFETY: this function's contract; `made` and `sink` live until the call returns.
    let status = unsafe { (init.call)(init.data, &mut made, &sink) };
    match status {
        Status::OK => match caller.handles.remove(made) {
            Some(Held::Resource(resource)) => Ok(Value::Host(resource)),
            Some(Held::Data(tenure)) => Ok(Value::Data(tenure)),
            Some(Held::Service(service)) => Ok(Value::Service(service)),
            Some(Held::Connection(_) | Held::Transaction(_) | Held::Rows(_)) => {
                Err(InitFailure::Err("made a connection; keep its pool instead".to_owned()))
            }
            Some(Held::Safe(_) | Held::Watch(_)) => {
                Err(InitFailure::Err("made a safe, which the host keeps anyway".to_owned()))
            }
            None => Err(InitFailure::Err("returned a handle that it does not hold".to_owned())),
        },
        Status::PANICKED => Err(InitFailure::Panicked(super::call::take_last_panic().unwrap_or(text))),
        _ => Err(InitFailure::Err(text)),
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        let status = match &error {
            RegistryError::Init { failure: InitFailure::Panicked(_), .. } => Status::INIT_PANICKED,
            RegistryError::Init { .. } => Status::INIT_FAILED,
            RegistryError::BackingOff { .. } => Status::BACKING_OFF,
            RegistryError::TimedOut { .. } => Status::TIMED_OUT,
            RegistryError::Recursive { .. } => Status::RECURSIVE,
            RegistryError::WrongType { .. } | RegistryError::OtherData { .. } => Status::WRONG_TYPE,
            RegistryError::Outdated { .. } => Status::OUTDATED,
            RegistryError::Misconfigured { .. } => Status::MISCONFIGURED,
            RegistryError::Interface { .. } => Status::INTERFACE,
            RegistryError::Abandoned { .. } => Status::CLOSED,
            RegistryError::NotFound { .. } => Status::NOT_FOUND,
        };
        Failure::new(status, error.to_string())
    }
}
