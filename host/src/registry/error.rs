//! Why a key has no value for a caller.

use std::time::Duration;

use super::service::Interface;
use super::{Author, Key};

/// Why an init made no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitFailure {
    /// It returned an error; the text is its own.
    #[error("{0}")]
    Err(String),
    /// It panicked; the text is the panic's message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It made a value of a type other than the one it was asked for.
    #[error("made a `{made}` where a `{expected}` was expected")]
    WrongType {
        /// What the caller asked for.
        expected: String,
        /// What the init returned.
        made: String,
    },
    /// It ran past its deadline and was given up.
    #[error("did not finish within {0:?} and was given up")]
    TimedOut(Duration),
    /// It ended after it had been given up, and what has become of the key since then is no answer to its caller.
    #[error("ended after it was given up, and what it made was dropped; ask for the key again")]
    Late,
}

/// Why a caller of the registry got no value. The slot is as it was, or empty.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The init failed, in this call or in the one that this caller waited for.
    #[error("failed to make `{key}` (attempt {attempt}, by {author}): {failure}")]
    Init {
        /// The slot.
        key: Key,
        /// Who ran the init.
        author: Author,
        /// How many attempts in a row have failed.
        attempt: u32,
        /// What happened.
        failure: InitFailure,
    },
    /// Too soon after failed attempts.
    #[error(
        "`{key}` failed {attempts} times in a row, next try in {retry_in:?}; the last failure: {failure}"
    )]
    BackingOff {
        /// The slot.
        key: Key,
        /// How many attempts in a row have failed.
        attempts: u32,
        /// When the next caller may try.
        retry_in: Duration,
        /// What happened last.
        failure: InitFailure,
    },
    /// Another caller is still making the value.
    #[error("waited {waited:?} for `{key}`, which {author} is still making")]
    TimedOut {
        /// The slot.
        key: Key,
        /// Who runs the init.
        author: Author,
        /// How long this caller waited.
        waited: Duration,
    },
    /// Making the value needs the value.
    #[error("making `{key}` needs `{key}` itself: {path}; make one of them without the other")]
    Recursive {
        /// The slot.
        key: Key,
        /// The cycle, `a -> b -> a`.
        path: String,
    },
    /// The slot holds another type.
    #[error(
        "`{key}` holds a `{found}` (made by {author}) and not a `{expected}`; use another key, or a module: `registry::module(\"...\")`"
    )]
    WrongType {
        /// The slot.
        key: Key,
        /// What it holds.
        found: String,
        /// What the caller asked for.
        expected: String,
        /// Who made the value.
        author: Author,
    },
    /// The slot holds data of a type with another name.
    #[error(
        "`{key}` holds a `{found}` (made by {author}) and not a `{expected}`; if that is the same type under another name, say \
         `#[resident(rename = \"{path}\")]` on it, else use another key, or a module: `registry::module(\"...\")`"
    )]
    OtherData {
        /// The slot.
        key: Key,
        /// What it holds.
        found: Box<str>,
        /// Its path, as an author writes it.
        path: Box<str>,
        /// What the caller asked for.
        expected: Box<str>,
        /// Who made the value.
        author: Author,
    },
    /// Another plugin has made the value, from another configuration; it is as it was.
    #[error(
        "`{key}` was made by {author} from another configuration than this caller's; give both the same one, or each \
         its own key or module: `registry::module(\"...\")`"
    )]
    Misconfigured {
        /// The slot.
        key: Key,
        /// Who made the value.
        author: Author,
    },
    /// The slot holds the caller's type with another layout, and the value was not upgraded; it is as it was.
    #[error(
        "`{key}` holds a `{type_name}` as {author} lays it out, which cannot become this code's: {reason}"
    )]
    Outdated {
        /// The slot.
        key: Key,
        /// The type's name, the same on both sides.
        type_name: String,
        /// Whose layout the value has.
        author: Author,
        /// What differs, or what was in the way, and what to do.
        reason: String,
    },
    /// The slot holds a service of the caller's name with other methods.
    #[error(
        "`{key}` holds a `{}` with other methods; {author} made it with\n{}this code expects\n{}put a new one in its place with `registry::replace`, make it afresh with `or_restart()`, or use another key",
        .found.type_name(), indented(&.found.methods), indented(&.expected.methods)
    )]
    Interface {
        /// The slot.
        key: Key,
        /// Who made the service.
        author: Author,
        /// What it can be asked.
        found: Interface,
        /// What the caller would ask.
        expected: Interface,
    },
    /// The caller's generation was refused; what it registers now would serve nobody.
    #[error("`{key}` is out of reach: this generation was refused while it was loading")]
    Abandoned {
        /// The slot.
        key: Key,
    },
    /// There is no value.
    #[error("`{key}` is empty")]
    NotFound {
        /// The slot.
        key: Key,
    },
}

/// A list of methods, one a line, each set in from the margin.
fn indented(methods: &str) -> String {
    methods.lines().map(|line| format!("    {line}\n")).collect()
}
