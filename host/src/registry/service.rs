//! Services: values that keep running the code which made them, called by whoever found them.
//!
//! A service is opaque here: an address, two functions of the library that made it, and the text of its methods,
//! which is its identity. What calls mean for the library ([`Home`]) is the business of those who know libraries.
//!
//! # Invariants
//!
//! - The value is dropped once, by its own code, when nobody holds the service or when it was closed, and never
//!   while a call runs.
//! - Its [`Home`] is dropped after the value: until then its library stays mapped.
//!
//! Two threads: one calls, the other closes. The caller counts itself in, and looks for the flag; the closer sets
//! the flag, and looks for callers. One atomic word holds both, so either the caller sees the flag and leaves, or
//! the closer sees the caller and leaves the value to it: whoever counts out last under the flag drops it.
#![expect(unsafe_code, reason = "a service and its functions are addresses to the host")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use plugin_api::abi::{BytesSink, BytesView, ErrorSink, ServiceView, Status};

use super::Author;

/// In the word of a service: it is closed. Below it the running calls are counted.
const CLOSED: u64 = 1 << 63;

/// What callers agree on: a trait's name, and its methods as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The trait's name.
    pub name: Arc<str>,
    /// The methods, one a line.
    pub methods: Arc<str>,
}

impl Interface {
    /// An interface; copies both texts.
    pub fn new(name: &str, methods: &str) -> Interface {
        Interface { name: name.into(), methods: methods.into() }
    }

    /// The name of the type that authors write.
    pub fn type_name(&self) -> String {
        format!("dyn {}", self.name)
    }
}

/// The code behind a service, kept mapped until this is dropped.
pub trait Home: Send + Sync {
    /// Runs `body`, which calls into the code, so that what happens meanwhile is booked on it.
    fn run(&self, body: &mut dyn FnMut());

    /// Completes "held by ..." for the code, from now on.
    fn is_held_by(&self, reason: String);
}

/// A service and what is known of it.
pub struct Service {
    interface: Interface,
    maker: Author,
    view: ServiceView,
    home: Box<dyn Home>,
    /// Running calls, and [`CLOSED`].
    word: AtomicU64,
    /// Set by whoever drops the value.
    is_over: AtomicBool,
    /// Calls so far. Written by `call`, read by faces.
    calls: AtomicU64,
    /// Calls that panicked, likewise.
    panics: AtomicU64,
}

// SAFETY: `view.value` is a shared `Send + Sync` object of the library's, by the contract of `Service::new`, and its
// functions may be called on any thread. Two threads: see the top of this file; everything else is atomic.
unsafe impl Send for Service {}
// SAFETY: as for `Send`.
unsafe impl Sync for Service {}

impl Service {
    /// Takes a service over.
    ///
    /// # Safety
    ///
    /// `view` is a service as the ABI wants it, nobody else's, and its functions are in code that stays mapped as
    /// long as `home` is about.
    pub unsafe fn new(
        interface: Interface,
        maker: Author,
        view: ServiceView,
        home: Box<dyn Home>,
    ) -> Arc<Service> {
        Arc::new(Service {
            interface,
            maker,
            view,
            home,
            word: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        })
    }

    /// What it can be asked.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whose code it runs.
    pub fn maker(&self) -> &Author {
        &self.maker
    }

    /// Says under what name it keeps its code, from now on.
    pub fn is_held_as(&self, reason: String) {
        self.home.is_held_by(reason);
    }

    /// Runs a method in the service's own code; `None` if it is closed.
    ///
    /// # Safety
    ///
    /// `arguments`, `answer` and `error` are valid for this call, as the ABI wants them.
    pub unsafe fn call(
        &self,
        method: u32,
        arguments: BytesView,
        answer: *const BytesSink,
        error: *const ErrorSink,
    ) -> Option<Status> {
        /// Counts out, also when the host's own code unwinds.
        struct Running<'s>(&'s Service);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                if self.0.word.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
                    self.0.drop_value();
                }
            }
        }
        let before = self.word.fetch_add(1, Ordering::AcqRel);
        let _running = Running(self);
        if before & CLOSED != 0 {
            return None;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut status = Status::FAILED;
        self.home.run(&mut || {
            // SAFETY: the value is there until the count goes back, and its code is mapped with it; the rest is this
            // function's contract.
            status = unsafe { (self.view.call)(self.view.value, method, arguments, answer, error) };
        });
        if status == Status::PANICKED {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        Some(status)
    }

    /// Ends it, whoever holds it: no call begins any more, and the value is dropped, by the last running call if
    /// there is one.
    pub fn close(&self) {
        if self.word.fetch_or(CLOSED, Ordering::AcqRel) == 0 {
            self.drop_value();
        }
    }

    fn drop_value(&self) {
        if self.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        self.home.is_held_by(format!("the drop of a `{}`", self.interface.type_name()));
        self.home.run(&mut || {
            // SAFETY: nobody calls any more, and the flag above lets this happen once.
            unsafe { (self.view.drop_value)(self.view.value) };
        });
    }

    /// What an operator wants to know.
    pub(super) fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "methods": self.interface.methods.lines().collect::<Vec<_>>(),
            "runs_in": self.maker.to_string(),
            "calls": self.calls.load(Ordering::Relaxed),
            "running": self.word.load(Ordering::Relaxed) & !CLOSED,
            "panics": self.panics.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.drop_value();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("interface", &self.interface.name).finish_non_exhaustive()
    }
}
