//! Services: values that keep running the code which made them.
//!
//! What cannot be [data](mod@crate::resident), because code and threads belong to it (a client of another crate, with
//! a runtime of its own, say), can be a service: a trait object, called from any generation and any plugin.
//!
//! ```
//! use plugin_api::prelude::*;
//!
//! /// Sends mail.
//! #[plugin_api::resident]
//! trait Mailer: Send + Sync {
//!     /// Sends one mail, and returns its number.
//!     fn send(&self, to: &str, body: &str) -> Result<u64>;
//! }
//!
//! struct Smtp;
//!
//! impl Mailer for Smtp {
//!     fn send(&self, to: &str, body: &str) -> Result<u64> {
//!         Ok((to.len() + body.len()) as u64)
//!     }
//! }
//!
//! static MAILER: registry::Lazy<dyn Mailer> = registry::Lazy::new("mailer", connect);
//!
//! fn connect() -> Result<Box<dyn Mailer>> {
//!     Ok(Box::new(Smtp))
//! }
//!
//! fn order(_: &Request) -> Result<String> {
//!     let number = MAILER.get()?.send("ann@example.org", "thank you")?;
//!     Ok(format!("mail {number} is under way\n"))
//! }
//! ```
//!
//! # Which code runs
//!
//! Always that of the generation that made the service, until it is [replaced](crate::registry::replace) or
//! [removed](crate::registry::remove); its library stays mapped so long, and `host status` names the service. An
//! edit of `Smtp` above does not change a service that exists: the new code says when, by
//! `registry::replace::<dyn Mailer>("mailer", connect()?)`, say in `on_load`, where it takes effect when the generation
//! is published. Whoever holds the old service finishes with it, then its own code drops it.
//!
//! What the making generation holds of the host (a pool, another service) stays its own while its service lives.
//! Its `on_unload` runs when it is replaced, as ever: stop there what serves requests, not what the service needs.
//!
//! # What crosses
//!
//! A method takes `&self` and returns a [`Result`](crate::Result), because the call can fail when the method does
//! not: the other side may panic, or be gone. Its error type is [`Error`](crate::Error), or any `E: From<ServiceError>`
//! that becomes an `Error`. Arguments and answers cross as bytes (format: `wire.rs`): numbers, `bool`, `char`, `&str`, `&[u8]`,
//! `String`, and `Option`, `Result`, `Vec` of them as they are, whatever serde can write and read as MessagePack.
//! References are to whole arguments only. An error crosses as its text and its kind. Other types do not compile, and
//! the compiler says what to do:
//!
//! ```compile_fail,E0277
//! # use plugin_api::prelude::*;
//! struct Mail;
//!
//! #[plugin_api::resident]
//! trait Mailer: Send + Sync {
//!     fn send(&self, mail: Mail) -> Result<()>;
//! }
//! ```
//!
//! ```compile_fail
//! # use plugin_api::prelude::*;
//! #[plugin_api::resident]
//! trait Mailer: Send + Sync {
//!     fn send(&mut self, to: &str) -> Result<()>; // many threads call it at a time
//! }
//! ```
//!
//! ```compile_fail
//! # use plugin_api::prelude::*;
//! #[plugin_api::resident]
//! trait Mailer: Send + Sync {
//!     fn sent(&self) -> u64; // a call can fail when the method does not
//! }
//! ```
//!
//!
//! The list of methods is the service's interface. Who asks for a service with another list under the same name is
//! refused, and shown both. A method with a body is not part of it: it runs in the caller's code.

mod error;
mod remote;
mod serve;
pub mod way;
pub mod wire;

#[cfg(test)]
mod tests;

pub use self::error::{ServiceError, ServiceFailure};
pub use self::remote::{Ask, Remote};
pub(crate) use self::remote::{tables, type_view};
pub use self::serve::Refusal;
pub(crate) use self::serve::hand_over;

use std::fmt::Debug;

/// A trait object that can be a service. Written by `#[resident]`.
#[doc(hidden)]
pub trait Interface: Send + Sync + 'static {
    /// The caller's side: calls across.
    type Caller: Clone + Debug + Send + Sync + 'static;
    /// The trait's name.
    const NAME: &'static str;
    /// The methods, one a line.
    fn methods() -> &'static str;
    /// The caller's side of a service that was found.
    fn caller(remote: Remote) -> Self::Caller;
    /// The caller's side, as what it stands for.
    fn of(caller: &Self::Caller) -> &Self;
    /// Runs a method.
    fn serve(&self, method: u32, arguments: &[u8], answer: &mut Vec<u8>) -> Result<(), Refusal>;
}

/// The lines of methods, each once its types have told their names.
#[doc(hidden)]
pub fn line(name: &str, arguments: &[(&str, String)], answer: &str) -> String {
    let mut text = format!("fn {name}(&self");
    for (argument, of) in arguments {
        text.push_str(&format!(", {argument}: {of}"));
    }
    text + &format!(") -> {answer}\n")
}
