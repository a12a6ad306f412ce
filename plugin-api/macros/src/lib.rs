//! `#[derive(Resident)]`: describes a type, and rebuilds its values after an edit.
//!
//! What the expansion promises is in `plugin_api::resident`; here is only how it is written down.
//!
//! # Invariants
//!
//! - The expansion names everything by its full path, and asks nothing of the author's scope.
//! - What cannot be described completely is a compile error that says what to do.

mod expand;
mod input;

use proc_macro::TokenStream;

/// Lets values of a struct or enum be shared with later generations of the code.
///
/// On the type: `#[resident(upgrade = function)]`. On a field: `#[resident(default)]`,
/// `#[resident(default = expression)]`, `#[resident(rename = "old")]`. On a variant:
/// `#[resident(rename = "Old")]`.
#[proc_macro_derive(Resident, attributes(resident))]
pub fn resident(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::resident(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
