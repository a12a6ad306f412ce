//! The `plugin!` declaration, and what it expands to.
//!
//! # Invariants
//!
//! - The expansion is data and one-line trampolines; what they do is in [`crate::entry`].
//! - A crate under `#![forbid(unsafe_code)]` can use it: the lint does not look into macros of other crates.

use crate::abi::{DESCRIPTOR_MAGIC, StrView};

/// The compiler that built this copy of plugin-api.
pub(crate) const RUSTC: &str = env!("PLUGIN_API_RUSTC");
/// The target it was built for.
pub(crate) const TARGET: &str = env!("PLUGIN_API_TARGET");

/// The records of a descriptor that every plugin has, in order.
pub const fn records<'a>(name: &'a str, version: &'a str, panic_unwinds: bool) -> [&'a str; 8] {
    let panic = if panic_unwinds { "unwind" } else { "abort" };
    [DESCRIPTOR_MAGIC, "1", name, version, env!("CARGO_PKG_VERSION"), RUSTC, TARGET, panic]
}

/// The names that go before [`records`].
const NAMES: [&str; 8] = ["", "abi=", "name=", "version=", "api=", "rustc=", "target=", "panic="];

/// How long the descriptor of `records` is, in bytes.
pub const fn descriptor_len(records: &[&str; 8]) -> usize {
    let mut len = 0;
    let mut i = 0;
    while i < records.len() {
        len += NAMES[i].len() + records[i].len() + 1;
        i += 1;
    }
    len
}

/// The descriptor of `records`: `name=value` records, each ended by a NUL byte.
pub const fn descriptor<const N: usize>(records: &[&str; 8]) -> [u8; N] {
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
/// - `on_load: prepare`: a `fn() -> Result<()>` that runs before the generation is published. An error or
///   a panic refuses the generation; what it put into the registry is undone.
/// - `on_unload: finish`: a `fn(UnloadReason)` that runs once, after the last request has left a retired
///   generation.
#[macro_export]
macro_rules! plugin {
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt) => {
        $crate::plugin!(@emit $mount $routes $state $load $unload);
    };
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt mount: $value:literal $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse ($value) $routes $state $load $unload $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt routes: { $($value:tt)* } $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount ($($value)*) $state $load $unload $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt state: [$($value:tt)*] $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes ($($value)*) $load $unload $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt on_load: $value:path $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes $state ($value) $unload $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt on_unload: $value:path $(, $($rest:tt)*)?) => {
        $crate::plugin!(@parse $mount $routes $state $load ($value) $($($rest)*)?);
    };
    (@parse $mount:tt $routes:tt $state:tt $load:tt $unload:tt $part:ident $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($part), "` is no part of a plugin, or not written as one: expected ",
            "`mount: \"/path\"`, `routes: { GET \"/\" => handler }`, `state: [LAZY]`, `on_load: function` or `on_unload: function`"
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

    (@emit ($($mount:literal)?) ($($($word:ident)+ $path:literal => $handler:path),* $(,)?) ($($lazy:path),* $(,)?) ($($load:path)?) ($($unload:path)?)) => {
        const _: () = {
            use $crate::abi;

            // What one generation allocates another frees: see `Alloc`.
            #[global_allocator]
            static ALLOC: $crate::Alloc = $crate::Alloc;

            const RECORDS: [&str; 8] = $crate::__private::records(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
                ::core::cfg!(panic = "unwind"),
            );
            #[used]
            #[unsafe(link_section = ".plugin_descriptor")]
            static DESCRIPTOR: [u8; $crate::__private::descriptor_len(&RECORDS)] =
                $crate::__private::descriptor(&RECORDS);

            static ROUTES: &[abi::RouteView] = &[$(
                abi::RouteView {
                    size: ::core::mem::size_of::<abi::RouteView>(),
                    method: abi::StrView::new($crate::plugin!(@method $($word)+)),
                    path: abi::StrView::new($path),
                    kind: $crate::plugin!(@kind $($word)+),
                    handler: {
                        unsafe extern "C" fn handler(
                            request: *const abi::RequestView,
                            reply: *const abi::ReplyView,
                        ) -> abi::Status {
                            // SAFETY: the host passes a request and a reply that are valid for this call.
                            unsafe { $crate::__private::handle(request, reply, $handler) }
                        }
                        handler
                    },
                    flags: $crate::plugin!(@flags $($word)+),
                }
            ),*];

            unsafe extern "C" fn on_load(error: *const abi::ErrorSink) -> abi::Status {
                // SAFETY: the host passes a sink that is valid for this call.
                unsafe {
                    $crate::__private::on_load(error, || {
                        let hook: fn() -> $crate::Result<()> = $crate::plugin!(@load $($load)?);
                        hook()?;
                        $($crate::__private::prepare(&$lazy)?;)*
                        $crate::Result::Ok(())
                    })
                }
            }

            unsafe extern "C" fn on_unload(reason: u32) -> abi::Status {
                $crate::__private::on_unload(reason, $crate::plugin!(@unload $($unload)?))
            }

            static TABLE: abi::PluginTable = abi::PluginTable {
                size: ::core::mem::size_of::<abi::PluginTable>(),
                abi_version: abi::ABI_VERSION,
                descriptor: abi::BytesView::new(&DESCRIPTOR),
                mount: $crate::plugin!(@mount $($mount)?),
                routes: ROUTES.as_ptr(),
                route_count: ROUTES.len(),
                route_size: ::core::mem::size_of::<abi::RouteView>(),
                on_load: ::core::option::Option::Some(on_load),
                on_unload: ::core::option::Option::Some(on_unload),
            };

            #[unsafe(no_mangle)]
            unsafe extern "C" fn plugin_entry_v1(host: *const abi::HostTable) -> *const abi::PluginTable {
                // SAFETY: the host passes its table, valid as long as this library is mapped.
                unsafe { $crate::__private::entry(host, &TABLE) }
            }
        };
    };

    ($($rest:tt)*) => { $crate::plugin!(@parse () () () () () $($rest)*); };
}
