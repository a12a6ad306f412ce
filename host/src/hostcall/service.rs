//! The functions for services in the host's table, and what a call means for the code that is called.
//!
//! # Invariants
//!
//! - A call runs as its maker's: threads, thread-locals and log lines that come of it are the maker's generation's,
//!   whoever called. The request is the caller's still.
//! - The making generation is pinned, and keeps what it holds of the host, until its service's value is dropped.
#![expect(unsafe_code, reason = "reads the arguments of host calls")]

use std::sync::Arc;

use parking_lot::Mutex;
use plugin_api::abi::{
    BytesSink, BytesView, ErrorSink, ErrorView, HandleId, HostCtx, InitView, KeyView, ON_CHANGE_RESTART,
    ServiceTable, ServiceTypeView, ServiceView, Status, StrView,
};

use super::call::{self, Call};
use super::handles::{Handles, Held};
use super::registry::{author, read_init, read_key, read_policy, ready, run_init, timeout_of};
use super::{Caller, Failure, give, guard, view};
use crate::db::blocking;
use crate::pins::{Code, Pin};
use crate::registry::service::{Home, Interface, Service};
use crate::registry::{Expected, Value, Wanted};

/// The functions, for [`super::HostApi`].
pub(super) static TABLE: ServiceTable =
    ServiceTable { size: size_of::<ServiceTable>(), create, find, replace, call: call_method };

/// The generation that made a service.
struct Maker {
    plugin: Arc<str>,
    generation: u64,
    /// What its calls are in logs: `service Mailer`.
    route: Arc<str>,
    code: Arc<Code>,
    handles: Arc<Handles>,
    /// Keeps the code mapped, with the reason of the day.
    pin: Mutex<Pin>,
}

impl Home for Maker {
    fn run(&self, body: &mut dyn FnMut()) {
        let outer = call::current();
        let current = Call {
            plugin: Arc::clone(&self.plugin),
            generation: self.generation,
            route: Arc::clone(&self.route),
            deadline: outer.as_ref().and_then(|outer| outer.deadline),
            request_id: outer.map_or_else(|| Arc::from(""), |outer| outer.request_id),
        };
        call::enter(current, || self.code.inside(body));
    }

    fn is_held_by(&self, reason: String) {
        self.pin.lock().rename(reason);
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // The value is dropped, and the pin goes after this.
        self.handles.remove_service();
    }
}

unsafe extern "C" fn create(
    ctx: HostCtx,
    of: *const ServiceTypeView,
    service: *const ServiceView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes a type that is valid for this call.
        let wanted = unsafe { read_type(of)? };
        // SAFETY: the plugin passes a service that is valid for this call.
        let Some(service) = (unsafe { service.as_ref() }) else {
            return Err(Failure::invalid("the service is null"));
        };
        if service.size < size_of::<ServiceView>() || service.value.is_null() {
            return Err(Failure::invalid("the service is smaller than version 1 of it, or has no value"));
        }
        let name = wanted.interface.type_name();
        let pin = Mutex::new(caller.pin(format!("a `{name}` that is under no key"))?);
        caller.handles.add_service();
        let maker = Maker {
            plugin: Arc::clone(&caller.plugin),
            generation: caller.generation,
            route: format!("service {}", wanted.interface.name).into(),
            code: Arc::clone(&caller.code),
            handles: Arc::clone(&caller.handles),
            pin,
        };
        // SAFETY: the plugin passes a service of its own and gives it up; the maker pins its code.
        let service = unsafe { Service::new(wanted.interface, author(caller), *service, Box::new(maker)) };
        // SAFETY: `out` is null or writable during this call, by the table's contract.
        unsafe { give(caller, Held::Service(service), out) }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn find(
    ctx: HostCtx,
    key: *const KeyView,
    expected: *const ServiceTypeView,
    init: *const InitView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes views that are valid for this call.
        let (key, wanted) = unsafe { (read_key(key)?, read_type(expected)?) };
        // SAFETY: as above.
        let init = if init.is_null() { None } else { Some(unsafe { read_init(init)? }) };
        let init = init.as_ref();
        // SAFETY: as above.
        let policy = init.map(|init| unsafe { read_policy(init) }).transpose()?.unwrap_or_default();
        let service = if blocking::is_forbidden() {
            match ready(caller, &key, Expected::from(&wanted.interface).with(policy))? {
                Value::Service(service) => service,
                Value::Host(_) | Value::Data(_) => {
                    return Err(Failure::invalid("the key holds something that is not a service"));
                }
            }
        } else {
            let timeout = timeout_of(init);
            let mut run;
            let init: Option<&mut dyn FnMut() -> _> = match init {
                None => None,
                Some(init) => {
                    run = || {
                        // SAFETY: `init` belongs to the caller, who is inside this call and keeps it alive.
                        let made = unsafe { run_init(caller, init) }?;
                        if let Value::Service(service) = &made {
                            service.is_held_as(format!("service `{key}`"));
                        }
                        Ok(made)
                    };
                    Some(&mut run)
                }
            };
            caller.registry.service(
                &author(caller),
                &caller.overlay,
                &key,
                (&wanted, policy),
                timeout,
                init,
            )?
        };
        // SAFETY: `out` is null or writable during this call, by the table's contract.
        unsafe { give(caller, Held::Service(service), out) }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn replace(
    ctx: HostCtx,
    key: *const KeyView,
    service: HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes a view that is valid for this call.
        let key = unsafe { read_key(key)? };
        let Some(found) = caller.handles.service(service) else {
            return Err(Failure::invalid("this handle names no service"));
        };
        caller.registry.replace(&author(caller), &caller.overlay, &key, found)?;
        // It is the registry's now.
        drop(caller.handles.remove(service));
        Ok(())
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn call_method(
    ctx: HostCtx,
    service: HandleId,
    method: u32,
    arguments: BytesView,
    answer: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let Some(service) = caller.handles.service(service) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no service"));
        };
        let mut words = String::new();
        let sink = ErrorSink { data: (&raw mut words).cast(), report: Some(keep_words) };
        // SAFETY: the plugin passes arguments and a sink that are valid for this call; `sink` lives until it returns.
        let status = unsafe { service.call(method, arguments, answer, &sink) };
        let (name, maker) = (service.interface().type_name(), service.maker());
        match status {
            Some(Status::OK) => Ok(()),
            Some(Status::PANICKED) => {
                let panic = call::take_last_panic().unwrap_or(words);
                Err(Failure::new(Status::PANICKED, format!("`{name}` of {maker} panicked: {panic}")))
            }
            Some(status) => Err(Failure::new(status, format!("`{name}` of {maker}: {words}"))),
            None => Err(Failure::new(Status::CLOSED, format!("`{name}` of {maker} is closed"))),
        }
    };
    // SAFETY: `ctx` and `error` come from the plugin under the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// # Safety
///
/// `data` is the `String` of [`call_method`]; `error` is valid for this call.
unsafe extern "C" fn keep_words(data: *mut std::ffi::c_void, error: *const ErrorView) {
    // SAFETY: this function's contract.
    let words = unsafe { &mut *data.cast::<String>() };
    // SAFETY: this function's contract.
    *words = String::from_utf8_lossy(unsafe { (*error).message.as_bytes() }).into_owned();
}

/// # Safety
///
/// `ty` is null or points to a type that is valid for this call.
unsafe fn read_type(ty: *const ServiceTypeView) -> Result<Wanted, Failure> {
    // SAFETY: this function's contract.
    let Some(ty) = (unsafe { ty.as_ref() }) else {
        return Err(Failure::invalid("the type is null"));
    };
    if ty.size < size_of::<ServiceTypeView>() {
        return Err(Failure::invalid("the type is smaller than version 1 of it"));
    }
    let text = |of: StrView, what: &str| {
        // SAFETY: the texts of a valid type are valid for this call.
        unsafe { view::text(of, what) }
    };
    let interface =
        Interface::new(text(ty.name, "the service's name")?, text(ty.methods, "the list of methods")?);
    Ok(Wanted { interface, restarts: ty.on_change == ON_CHANGE_RESTART })
}
