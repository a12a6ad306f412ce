//! What a plugin of the host is written against.
//!
//! A plugin is a `cdylib` that declares its routes; the host loads it, serves them, and swaps the code
//! when the source changes. This is a whole one:
//!
//! ```
//! #![forbid(unsafe_code)]
//! use plugin_api::prelude::*;
//!
//! plugin! {
//!     routes: { GET "/" => index, GET "/{name}" => greet },
//! }
//!
//! fn index(_: &Request) -> &'static str {
//!     "hello, world\n"
//! }
//!
//! fn greet(req: &Request) -> Result<String> {
//!     let name: String = req.param("name")?;
//!     Ok(format!("hello, {name}\n"))
//! }
//! ```
//!
//! Code is disposable, state is not: what has to outlive a reload is kept by the host, and found again
//! through the [`registry`]; what has to outlive the process is put into the [`safe`].
//!
//! # What a generation keeps to itself
//!
//! A request that is running when new code goes live ends in the code it began in. Statics and thread-locals are that
//! code's own: the next generation begins with its own, as in this plugin, which counts in both ways. After an edit
//! `/` counts from one again, and what is under the key goes on.
//!
//! ```standalone_crate
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use plugin_api::prelude::*;
//!
//! plugin! {
//!     routes: { GET "/" => hit },
//!     state: [TOTAL],
//! }
//!
//! static HERE: AtomicU64 = AtomicU64::new(0);
//! static TOTAL: registry::Lazy<AtomicU64> = registry::Lazy::new("total", || Ok(AtomicU64::new(0)));
//!
//! fn hit(_: &Request) -> Result<String> {
//!     let here = HERE.fetch_add(1, Ordering::Relaxed) + 1;
//!     let total = TOTAL.get()?.fetch_add(1, Ordering::Relaxed) + 1;
//!     Ok(format!("{here} in this code, {total} in all"))
//! }
//!
//! fn main() {
//!     let app = plugin_api::testing::app!();
//!     assert_eq!(app.get("/").text(), "1 in this code, 1 in all");
//!     assert_eq!(app.get("/").text(), "2 in this code, 2 in all");
//! }
//! ```
//!
//! A thread that a plugin starts runs on in the old code, which stays mapped until the thread has ended. So end it in
//! `on_unload`, which runs after the last request has left:
//!
//! ```standalone_crate
//! use std::sync::mpsc::{Sender, channel};
//! use std::sync::{Mutex, PoisonError};
//! use std::thread;
//!
//! use plugin_api::prelude::*;
//!
//! plugin! {
//!     routes: { GET "/{word}" => say },
//!     on_load: start,
//!     on_unload: stop,
//! }
//!
//! /// The thread, and what ends it when it is dropped.
//! static WORKER: Mutex<Option<(Sender<String>, thread::JoinHandle<()>)>> = Mutex::new(None);
//!
//! fn start() -> Result<()> {
//!     let (sender, inbox) = channel::<String>();
//!     let worker = thread::Builder::new().spawn(move || {
//!         for word in inbox {
//!             tracing::info!(word, "told to the thread");
//!         }
//!     })?;
//!     *WORKER.lock().unwrap_or_else(PoisonError::into_inner) = Some((sender, worker));
//!     Ok(())
//! }
//!
//! fn say(req: &Request) -> Result<&'static str> {
//!     let word: String = req.param("word")?;
//!     if let Some((sender, _)) = &*WORKER.lock().unwrap_or_else(PoisonError::into_inner) {
//!         sender.send(word)?;
//!     }
//!     Ok("said")
//! }
//!
//! fn stop(_: UnloadReason) {
//!     if let Some((sender, worker)) = WORKER.lock().unwrap_or_else(PoisonError::into_inner).take() {
//!         drop(sender);
//!         // A panic of the thread has been logged.
//!         let _ = worker.join();
//!     }
//! }
//!
//! fn main() {
//!     let app = plugin_api::testing::app!();
//!     assert_eq!(app.get("/hello").text(), "said");
//! }
//! ```
//!
//! # Invariants
//!
//! - Nothing that belongs to a generation's code is handed to the host for keeps, except by the
//!   functions of [`abi`], whose contract says for how long.

pub mod abi;
mod alloc;
pub mod db;
mod entry;
mod env;
mod error;
mod host;
mod log;
#[cfg(feature = "serde")]
mod message;
mod plugin;
pub mod registry;
mod request;
pub mod resident;
mod response;
pub mod safe;
pub mod service;
pub mod sync;
pub mod testing;
mod view;

/// So that the derive's paths hold here as well.
extern crate self as plugin_api;

pub use bytes;
pub use http;
pub use tracing;

pub use plugin_api_macros::{Resident, resident};

pub use self::alloc::Alloc;
pub use self::entry::{Previous, UnloadReason};
pub use self::env::{EnvError, env_or};
pub use self::error::{Context, Error, HttpError, Result};
pub use self::request::Request;
pub use self::resident::Resident;
#[cfg(feature = "serde")]
pub use self::response::Json;
pub use self::response::{Html, IntoOutcome, IntoResponse, Redirect, Response, escape_html};

/// What most plugins need, for `use plugin_api::prelude::*;`.
pub mod prelude {
    #[cfg(feature = "serde")]
    pub use crate::Json;
    pub use crate::http::{Method, StatusCode};
    pub use crate::{
        Context, Error, Html, HttpError, IntoResponse, Previous, Redirect, Request, Resident, Response,
        Result, UnloadReason, db, env_or, escape_html, plugin, registry, safe, tracing,
    };
}

/// For `plugin!` and `#[resident]` alone.
#[doc(hidden)]
pub mod __private {
    pub use crate::alloc::MEMORY;
    pub use crate::entry::{check, entry, handle, on_load, on_unload, upgrade};
    pub use crate::host::Owned;
    pub use crate::plugin::{NO_MOUNT, descriptor, descriptor_len, package_id, records};
    pub use crate::registry::Init;
    pub use crate::registry::prepare;
    pub use crate::registry::sealed::Keep;
    pub use crate::registry::{find_service, lend_service, service_into_owned};
    pub use crate::service::way::{ByBytes, ByMessage, Way};
    pub use crate::service::wire::Input;
    pub use crate::service::{Interface, Refusal, Remote, line};
}
