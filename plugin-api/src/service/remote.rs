//! The caller's side: a service that was found, and a call on its way.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

use std::mem::offset_of;
use std::sync::Arc;

use super::wire::{Input, Malformed};
use super::{Interface, ServiceError};
use crate::abi::{BytesView, HostTable, ServiceTable, ServiceTypeView, Status, StrView};
use crate::host::{self, CallError, Owned};

/// A service that was found. Counted on this side: the host sees one holder.
#[derive(Debug, Clone)]
pub struct Remote(Arc<Owned>);

impl Remote {
    pub(crate) fn new(owned: Owned) -> Remote {
        Remote(Arc::new(owned))
    }

    /// Begins a call of the method of that number.
    pub fn ask(&self, method: u32) -> Ask<'_> {
        Ask { remote: self, method, arguments: Vec::new() }
    }
}

/// A call whose arguments are being written.
#[derive(Debug)]
pub struct Ask<'r> {
    remote: &'r Remote,
    method: u32,
    /// What has been written so far.
    pub arguments: Vec<u8>,
}

impl Ask<'_> {
    /// Makes the call, and lets `read` read its answer.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn answer<T>(
        self,
        read: impl FnOnce(&mut Input<'_>) -> Result<T, Malformed>,
    ) -> Result<T, ServiceError> {
        let mut answer = Vec::new();
        self.send(&mut answer)?;
        let mut input = Input::new(&answer);
        let value = read(&mut input)?;
        input.end()?;
        Ok(value)
    }

    fn send(self, answer: &mut Vec<u8>) -> Result<(), CallError> {
        let (host, table) = tables()?;
        host::collect(answer, |answer, error| {
            // SAFETY: the table's own `ctx`; the host copies or reads arguments and sinks within this call.
            unsafe {
                (table.call)(
                    host.ctx,
                    self.remote.0.id(),
                    self.method,
                    BytesView::new(&self.arguments),
                    answer,
                    error,
                )
            }
        })
    }
}

/// The host's table, and the part of it that is for services.
pub(crate) fn tables() -> Result<(&'static HostTable, &'static ServiceTable), CallError> {
    let host = host::table()?;
    if host.size < offset_of!(HostTable, services) + size_of::<*const ServiceTable>() {
        return Err(CallError::new(Status::INVALID, "this host is too old for services; update the host"));
    }
    // SAFETY: a host whose table reaches this far has filled it in, for as long as the table lives.
    Ok((host, unsafe { &*host.services }))
}

/// For the host.
pub(crate) fn type_view<I: ?Sized + Interface>(on_change: u32) -> ServiceTypeView {
    ServiceTypeView {
        size: size_of::<ServiceTypeView>(),
        name: StrView::new(I::NAME),
        methods: StrView::new(I::methods()),
        on_change,
    }
}
