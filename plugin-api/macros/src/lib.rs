//! `#[derive(Resident)]`: describes a type, and rebuilds its values after an edit. `#[resident]`: makes a trait one
//! that is called across generations.
//!
//! What the expansions promise is in `plugin_api::resident` and `plugin_api::service`; here is only how it is written
//! down.
//!
//! # Invariants
//!
//! - The expansion names everything by its full path, and asks nothing of the author's scope.
//! - What cannot be described completely is a compile error that says what to do.

mod expand;
mod input;
mod service;

use proc_macro::TokenStream;

/// Lets values of a struct or enum be shared with later generations of the code.
///
/// On the type: `#[resident(upgrade = function)]`, `#[resident(rename = "old::Path")]`. On a field: `#[resident(default)]`,
/// `#[resident(default = expression)]`, `#[resident(rename = "old")]`. On a variant:
/// `#[resident(rename = "Old")]`.
#[proc_macro_derive(Resident, attributes(resident))]
pub fn derive_resident(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::resident(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a trait the interface of a service: `registry::Handle<dyn Mailer>` is called from any generation and any
/// plugin, and runs the code that made it. See `plugin_api::service`.
///
/// Written `#[plugin_api::resident]`: under its bare name it would be taken for the derive's `#[resident(...)]`.
#[proc_macro_attribute]
pub fn resident(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        return quote::quote! { ::core::compile_error!("`#[resident]` takes no arguments here"); }.into();
    }
    let input = syn::parse_macro_input!(item as syn::ItemTrait);
    service::resident(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
