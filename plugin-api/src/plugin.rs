//! The `plugin!` declaration, and what it expands to.
//!
//! # Invariants
//!
//! - The expansion is data and one-line trampolines; what they do is in [`crate::entry`].
//! - The author's paths are outside of the unchecked blocks, and the trampolines around them are safe functions: what is
//!   unchecked in a path needs the author's own word. (Nobody but the host has a trampoline's address.)
//! - A crate under `#![forbid(unsafe_code)]` can use it: the lint does not look into macros of other crates.

use crate::abi::{DESCRIPTOR_MAGIC, StrView};

/// The compiler that built this copy of plugin-api.
pub(crate) const RUSTC: &str = env!("PLUGIN_API_RUSTC");
/// This copy of plugin-api, as far as values that libraries share are concerned: its version, and a number for its own
/// types in them.
pub(crate) const API: &str =
    concat!("plugin-api ", env!("CARGO_PKG_VERSION"), " ", env!("PLUGIN_API_SHARED_TYPES"));
/// The target it was built for.
pub(crate) const TARGET: &str = env!("PLUGIN_API_TARGET");

/// The records of a descriptor that every plugin has, in order.
pub const fn records<'a>(
    name: &'a str,
    version: &'a str,
    package: &'a [u8; 16],
    panic_unwinds: bool,
) -> [&'a str; 9] {
    let panic = if panic_unwinds { "unwind" } else { "abort" };
    let Ok(package) = core::str::from_utf8(package) else { panic!("it is made of digits") };
    [DESCRIPTOR_MAGIC, "1", name, version, env!("CARGO_PKG_VERSION"), RUSTC, TARGET, panic, package]
}

/// Identity of the package in `directory`, in hexadecimal digits: FNV-1a of 64 bits. Two packages may have one name, and a
/// library should not tell where it was built.
pub const fn package_id(directory: &str) -> [u8; 16] {
    let directory = directory.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < directory.len() {
        hash = (hash ^ directory[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    let mut digits = [0; 16];
    let mut i = 0;
    while i < digits.len() {
        digits[i] = b"0123456789abcdef"[(hash >> (60 - 4 * i) & 15) as usize];
        i += 1;
    }
    digits
}

/// The names that go before [`records`].
const NAMES: [&str; 9] = ["", "abi=", "name=", "version=", "api=", "rustc=", "target=", "panic=", "package="];

/// How long the descriptor of `records` is, in bytes.
pub const fn descriptor_len(records: &[&str; 9]) -> usize {
    let mut len = 0;
    let mut i = 0;
    while i < records.len() {
        len += NAMES[i].len() + records[i].len() + 1;
        i += 1;
    }
    len
}

/// The descriptor of `records`: `name=value` records, each ended by a NUL byte.
pub const fn descriptor<const N: usize>(records: &[&str; 9]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    let mut i = 0;
    while i < records.len() {
        at = put(&mut bytes, at, NAMES[i]);
        at = put(&mut bytes, at, records[i]) + 1;
        i += 1;
    }
    bytes
}

const fn put<const N: usize>(bytes: &mut [u8; N], mut at: usize, text: &str) -> usize {
    let text = text.as_bytes();
    let mut i = 0;
    while i < text.len() {
        bytes[at] = text[i];
        at += 1;
        i += 1;
    }
    at
}

/// The mount of a plugin that names none.
pub const NO_MOUNT: StrView = StrView::EMPTY;

/// Declares a plugin: what the host finds in the library. Once a crate, at its root.
///
/// ```
/// use plugin_api::prelude::*;
///
/// plugin! {
///     routes: {
///         GET "/" => index,
///         GET "/{name}" => greet,
///         inline GET "/ping" => ping,
///     },
///     on_load: prepare,
/// }
///
/// fn index(_: &Request) -> &'static str {
///     "who is there?\n"
/// }
///
/// fn greet(req: &Request) -> Result<String> {
///     let name: String = req.param("name")?;
///     Ok(format!("hello, {name}\n"))
/// }
///
/// fn ping(_: &Request) -> &'static str {
///     "pong\n"
/// }
///
/// fn prepare() -> Result<()> {
///     tracing::info!("ready");
///     Ok(())
/// }
/// ```
///
/// It sets the global allocator, which all plugins have to share; a crate cannot have another one:
///
/// ```compile_fail
/// use plugin_api::prelude::*;
///
/// plugin! { routes: {} }
///
/// #[global_allocator]
/// static ALLOCATOR: std::alloc::System = std::alloc::System;
/// # fn main() {}
/// ```
///
/// All parts are optional, in any order:
///
/// - `mount: "/shop"`: where the plugin answers; without it, under its name. The operator's
///   configuration wins over both.
/// - `routes: { METHOD "pattern" => handler, ... }`: a handler is a `fn(&Request)` that returns anything
///   that [becomes a response](crate::IntoResponse), or a [`Result`](crate::Result) of it. `{id}` in a
///   pattern is a path parameter, `{*path}` the rest of the path. A handler runs on a worker thread and
///   may block. One marked `inline` runs on the I/O thread itself: it is faster to reach, must not
///   block, and cannot use the database. One marked `idempotent` may be run again, a few times, when its
///   [transaction](crate::Request::transaction) collided with another one and was rolled back: whatever
///   else it does must bear to be done twice.
/// - `state: [LAZY, ...]`: keys that are to be ready when the generation is published. Missing values are
///   made, and data whose layout has changed is upgraded; where that fails, the generation is refused and
///   the value is as it was. A key that is not listed is made or upgraded at its first use instead. (In
///   `on_load` data of a changed layout cannot be used yet: the old code still works with it.)
/// - `on_load: prepare`: a `fn() -> Result<()>` that runs before the generation is published.
/// - `upgrade: migrate`: a `fn(Previous<'_>) -> Result<()>` that runs after `on_load` when another generation of
///   the plugin serves, and is told its number and version. Not at the first load. After a roll-back the
///   version it is told may be the higher one. The other generation goes on serving meanwhile, and if the new
///   one is refused after this, for good: so what is done here has to suit both.
/// - `check: smoke_test`: a `fn() -> Result<()>` that runs last. It sees what `on_load` has registered, but
///   not yet data of `state:` whose layout has changed.
/// - `on_unload: finish`: a `fn(UnloadReason)` that runs once, after the last request has left a retired
///   generation. It delays nobody, and is given up after 10 s.
///
/// The first three run on one thread of their own, within one deadline (`load_timeout_ms` of
/// `host.toml`). An error, a panic or the deadline refuses the generation: what it put into the registry is
/// undone, and the one before it serves on.
///
/// ```
/// use plugin_api::prelude::*;
///
/// plugin! {
///     routes: { GET "/" => index },
///     upgrade: migrate,
///     check: smoke_test,
///     on_unload: finish,
/// }
///
/// fn index(_: &Request) -> Result<String> {
///     Ok(format!("{:.2}\n", rate("EUR")?))
/// }
///
/// fn rate(currency: &str) -> Result<f64> {
///     if currency == "EUR" { Ok(1.96) } else { Err(Error::msg("no such currency")) }
/// }
///
/// fn migrate(from: Previous<'_>) -> Result<()> {
///     tracing::info!("takes over from generation {}, version {}", from.generation(), from.version());
///     Ok(())
/// }
///
/// fn smoke_test() -> Result<()> {
///     rate("EUR").map(drop)
/// }
///
/// fn finish(reason: UnloadReason) {
///     tracing::info!(?reason, "over");
/// }
/// ```
#[macro_export]
macro_rules! plugin {
    (@parse $mount:tt $routes:tt $state:tt $hooks:tt) => {
        $crate::plugin!(@emit $mount $routes $state $hooks);
    };
    (@parse $mount:tt $routes:tt $state:tt $hooks:tt mount: $value:literal $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse ($value) $routes $state $hooks $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $hooks:tt routes: { $($value:tt)* } $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount ($($value)*) $state $hooks $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $hooks:tt state: [$($value:tt)*] $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes ($($value)*) $hooks $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt ($load:tt $upgrade:tt $check:tt $unload:tt) on_load: $value:path $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes $state (($value) $upgrade $check $unload) $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt ($load:tt $upgrade:tt $check:tt $unload:tt) upgrade: $value:path $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes $state ($load ($value) $check $unload) $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt ($load:tt $upgrade:tt $check:tt $unload:tt) check: $value:path $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes $state ($load $upgrade ($value) $unload) $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt ($load:tt $upgrade:tt $check:tt $unload:tt) on_unload: $value:path $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes $state ($load $upgrade $check ($value)) $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $hooks:tt $part:ident $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($part), "` is no part of a plugin, or not written as one: expected ",
            "`mount: \"/path\"`, `routes: { GET \"/\" => handler }`, `state: [LAZY]`, or one of the hooks ",
            "`on_load: function`, `upgrade: function`, `check: function`, `on_unload: function`"
        ));
    };

    (@mount) => { $crate::__private::NO_MOUNT };
    (@mount $mount:literal) => { $crate::abi::StrView::new($mount) };

    (@kind inline $method:ident) => { $crate::abi::ROUTE_INLINE };
    (@kind idempotent $method:ident) => { $crate::abi::ROUTE_BLOCKING };
    (@kind $method:ident) => { $crate::abi::ROUTE_BLOCKING };
    (@flags idempotent $method:ident) => { $crate::abi::ROUTE_IDEMPOTENT };
    (@flags $($word:ident)+) => { 0 };
    (@method inline $method:ident) => { ::core::stringify!($method) };
    (@method idempotent $method:ident) => { ::core::stringify!($method) };
    (@method $method:ident) => { ::core::stringify!($method) };

    (@load) => { || $crate::Result::Ok(()) };
    (@load $hook:path) => { $hook };
    (@unload) => { |_| () };
    (@unload $hook:path) => { $hook };

    (@upgrade) => { ::core::option::Option::None };
    (@upgrade $hook:path) => {{
        extern "C" fn __plugin_upgrade(
            from: *const $crate::abi::PreviousView,
            error: *const $crate::abi::ErrorSink,
        ) -> $crate::abi::Status {
            let hook: fn($crate::Previous<'_>) -> $crate::Result<()> = $hook;
            // SAFETY: the host passes a view and a sink that are valid for this call.
            unsafe { $crate::__private::upgrade(from, error, hook) }
        }
        ::core::option::Option::Some(__plugin_upgrade)
    }};
    (@check) => { ::core::option::Option::None };
    (@check $hook:path) => {{
        extern "C" fn __plugin_check(error: *const $crate::abi::ErrorSink) -> $crate::abi::Status {
            let hook: fn() -> $crate::Result<()> = $hook;
            // SAFETY: the host passes a sink that is valid for this call.
            unsafe { $crate::__private::check(error, hook) }
        }
        ::core::option::Option::Some(__plugin_check)
    }};

    (@emit ($($mount:literal)?) ($($($word:ident)+ $path:literal => $handler:path),* $(,)?) ($($lazy:path),* $(,)?)
        (($($load:path)?) ($($upgrade:path)?) ($($check:path)?) ($($unload:path)?))) => {
        const _: () = {
            // Names that no author gives: items of this block would hide the author's.
            use $crate::abi as __plugin_abi;

            // What one generation allocates another frees: see `Alloc`.
            #[global_allocator]
            static __PLUGIN_ALLOC: $crate::Alloc = $crate::Alloc;

            const __PLUGIN_RECORDS: [&str; 9] = $crate::__private::records(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
                &$crate::__private::package_id(::core::env!("CARGO_MANIFEST_DIR")),
                ::core::cfg!(panic = "unwind"),
            );
            #[used]
            #[unsafe(link_section = ".plugin_descriptor")]
            static __PLUGIN_DESCRIPTOR: [u8; $crate::__private::descriptor_len(&__PLUGIN_RECORDS)] =
                $crate::__private::descriptor(&__PLUGIN_RECORDS);

            static __PLUGIN_ROUTES: &[__plugin_abi::RouteView] = &[$(
                __plugin_abi::RouteView {
                    size: ::core::mem::size_of::<__plugin_abi::RouteView>(),
                    method: __plugin_abi::StrView::new($crate::plugin!(@method $($word)+)),
                    path: __plugin_abi::StrView::new($path),
                    kind: $crate::plugin!(@kind $($word)+),
                    handler: {
                        extern "C" fn __plugin_handler(
                            request: *const __plugin_abi::RequestView,
                            reply: *const __plugin_abi::ReplyView,
                        ) -> __plugin_abi::Status {
                            let handler = $handler;
                            // SAFETY: the host passes a request and a reply that are valid for this call.
                            unsafe { $crate::__private::handle(request, reply, handler) }
                        }
                        __plugin_handler
                    },
                    flags: $crate::plugin!(@flags $($word)+),
                }
            ),*];

            extern "C" fn __plugin_on_load(error: *const __plugin_abi::ErrorSink) -> __plugin_abi::Status {
                let load = || {
                    let hook: fn() -> $crate::Result<()> = $crate::plugin!(@load $($load)?);
                    hook()?;
                    $($crate::__private::prepare(&$lazy)?;)*
                    $crate::Result::Ok(())
                };
                // SAFETY: the host passes a sink that is valid for this call.
                unsafe { $crate::__private::on_load(error, load) }
            }

            extern "C" fn __plugin_on_unload(reason: u32) -> __plugin_abi::Status {
                $crate::__private::on_unload(reason, $crate::plugin!(@unload $($unload)?))
            }

            static __PLUGIN_TABLE: __plugin_abi::PluginTable = __plugin_abi::PluginTable {
                size: ::core::mem::size_of::<__plugin_abi::PluginTable>(),
                abi_version: __plugin_abi::ABI_VERSION,
                descriptor: __plugin_abi::BytesView::new(&__PLUGIN_DESCRIPTOR),
                mount: $crate::plugin!(@mount $($mount)?),
                routes: __PLUGIN_ROUTES.as_ptr(),
                route_count: __PLUGIN_ROUTES.len(),
                route_size: ::core::mem::size_of::<__plugin_abi::RouteView>(),
                on_load: ::core::option::Option::Some(__plugin_on_load),
                on_unload: ::core::option::Option::Some(__plugin_on_unload),
                upgrade: $crate::plugin!(@upgrade $($upgrade)?),
                check: $crate::plugin!(@check $($check)?),
                memory: $crate::__private::MEMORY.as_ptr(),
                memory_stripes: $crate::__private::MEMORY.len(),
            };

            #[unsafe(no_mangle)]
            unsafe extern "C" fn plugin_entry_v1(host: *const __plugin_abi::HostTable) -> *const __plugin_abi::PluginTable {
                // SAFETY: the host passes its table, valid as long as this library is mapped.
                unsafe { $crate::__private::entry(host, &__PLUGIN_TABLE) }
            }
        };
    };

    ($($rest:tt)*) => { $crate::plugin!(@parse () () () (() () () ()) $($rest)*); };
}
