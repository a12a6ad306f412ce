//! Writes the implementation.
//!
//! # Invariants
//!
//! - The author's expressions and paths are in functions of their own, which are safe: in an unchecked block, or in the body
//!   of an unchecked function, what is unchecked in them would need no word.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, Result, parse_quote};

use crate::input::{self, Body, Field, Fields, Variant};

/// The parts of an implementation.
struct Parts {
    may_settle: TokenStream,
    settle: TokenStream,
    shape: TokenStream,
    variant: TokenStream,
    children: TokenStream,
    fits: TokenStream,
    convert: TokenStream,
    rebuild: TokenStream,
}

/// The implementation of `Resident` for a definition.
pub(crate) fn resident(input: &DeriveInput) -> Result<TokenStream> {
    let body = input::body(input)?;
    let mut own = own_of(&body);
    let mut parts = match &body {
        Body::Struct(fields) => of_struct(fields),
        Body::Enum(variants) => of_enum(variants),
    };
    if let Some(hook) = input::upgrade(input)? {
        parts.fits = quote! { let _ = (old, work); ::core::result::Result::Ok(()) };
        own.extend(quote! {
            fn __resident_upgrade(old: &::plugin_api::resident::Old<'_>) -> ::plugin_api::Result<Self> {
                let hook = #hook;
                hook(old).map_err(::core::convert::Into::into)
            }
        });
        parts.convert = quote! {
            unsafe fn convert(
                old: ::plugin_api::resident::Old<'_>,
                into: *mut Self,
                work: &mut ::plugin_api::resident::Work,
            ) -> ::core::result::Result<::plugin_api::resident::Written, ::plugin_api::resident::Misfit> {
                unsafe { work.upgrade(old, into, Self::__resident_upgrade) }
            }
        };
    }
    let Parts { may_settle, settle, shape, variant, children, fits, convert, rebuild } = parts;
    let (repr, before) = (input::repr(input)?, input::before(input)?);

    let name = &input.ident;
    let mut generics = input.generics.clone();
    for param in generics.type_params_mut() {
        param.bounds.push(parse_quote!(::plugin_api::resident::Resident));
    }
    let (of, with, wheres) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #of #name #with #wheres {
            #own
        }

        #[automatically_derived]
        unsafe impl #of ::plugin_api::resident::Resident for #name #with #wheres {
            const REPR: &'static str = #repr;
            const BEFORE: &'static [&'static str] = &[#(#before),*];
            const MAY_SETTLE: bool = #may_settle;

            fn settle(&mut self, how: ::plugin_api::resident::Settling<'_>) {
                #settle
            }

            fn nature() -> ::plugin_api::resident::Nature {
                #[allow(unused_imports)]
                use ::plugin_api::resident::{WithDrop as _, WithoutDrop as _};
                (&&::plugin_api::resident::Probe::<Self>::NEW).nature()
            }

            fn shape(shapes: &mut ::plugin_api::resident::Shapes) -> ::plugin_api::resident::Kind {
                #shape
            }
            #variant
            #children
            fn fits(
                old: ::plugin_api::resident::OldType<'_>,
                work: &mut ::plugin_api::resident::Work,
            ) -> ::core::result::Result<(), ::plugin_api::resident::Misfit> {
                #fits
            }
            #convert
            unsafe fn rebuild(
                old: ::plugin_api::resident::Old<'_>,
                into: *mut Self,
                work: &mut ::plugin_api::resident::Work,
            ) -> ::core::result::Result<::plugin_api::resident::Written, ::plugin_api::resident::Misfit> {
                #rebuild
            }
        }
    })
}

/// The functions of the type that contain the author's words, one for each field.
fn own_of(body: &Body) -> TokenStream {
    let fields: Vec<&Field> = match body {
        Body::Struct(fields) => fields.list.iter().collect(),
        Body::Enum(variants) => variants.iter().flat_map(|variant| &variant.fields.list).collect(),
    };
    let functions = fields.into_iter().map(|field| {
        let (Field { ty, default_fn, .. }, default) = (field, default_of(field));
        quote! {
            fn #default_fn() -> ::core::option::Option<fn() -> #ty> {
                #default
            }
        }
    });
    quote! { #(#functions)* }
}

/// `Some(fn)` or `None`: how a new field gets its value.
fn default_of(field: &Field) -> TokenStream {
    let ty = &field.ty;
    match &field.default {
        Some(value) => quote! {{
            let value: fn() -> #ty = || #value;
            ::core::option::Option::Some(value)
        }},
        None => quote! {{
            #[allow(unused_imports)]
            use ::plugin_api::resident::{WithDefault as _, WithoutDefault as _};
            (&&::plugin_api::resident::Probe::<#ty>::NEW).default_fn()
        }},
    }
}

/// Whether any of these may have something to settle.
fn may_settle<'f>(fields: impl IntoIterator<Item = &'f Field>) -> TokenStream {
    let types = fields.into_iter().map(|field| &field.ty);
    quote! { false #(|| <#types as ::plugin_api::resident::Resident>::MAY_SETTLE)* }
}

/// What the fields are and were called.
fn definition(Fields { list, dropped }: &Fields) -> TokenStream {
    let fields = list.iter().map(|Field { name, before, .. }| {
        quote! { ::plugin_api::resident::FieldNames { name: #name, before: &[#(#before),*] } }
    });
    quote! {
        ::plugin_api::resident::Definition { fields: &[#(#fields),*], dropped: &[#(#dropped),*] }
    }
}

/// Names to bind fields to.
fn parts_of(fields: &Fields) -> Vec<syn::Ident> {
    (0..fields.list.len()).map(|i| format_ident!("part_{i}")).collect()
}

/// A check that the definition has the fields that were seen here, each of the type that was seen: an attribute below the
/// derive may have changed it. Else it does not compile. The references are bound before they are compared: bound at once,
/// a reference to a `Box<u64>` would become one to the `u64` in it.
fn guard(variant: &TokenStream, fields: &Fields) -> TokenStream {
    let (members, names) = (fields.list.iter().map(|field| &field.member), parts_of(fields));
    let types = fields.list.iter().map(|field| &field.ty);
    quote! {
        #variant { #(#members: #names),* } => {
            let seen = (#(#names,)*);
            let _: (#(&#types,)*) = seen;
        }
    }
}

/// Checks that what a field takes can become its value.
fn fit_fields(fields: &Fields) -> Vec<TokenStream> {
    let fit = |(number, field): (usize, &Field)| {
        let Field { ty, default_fn, .. } = field;
        quote! { work.fit_field::<#ty>(&fields, #number, Self::#default_fn().is_some())?; }
    };
    fields.list.iter().enumerate().map(fit).collect()
}

fn of_struct(fields: &Fields) -> Parts {
    let list = &fields.list;
    let describe = list.iter().map(|Field { member, name, ty, .. }| {
        quote! { shapes.field::<#ty>(#name, ::core::mem::offset_of!(Self, #member)) }
    });
    let (definition, guard, fit) = (definition(fields), guard(&quote! { Self }, fields), fit_fields(fields));
    let place = list.iter().enumerate().map(|(number, Field { member, ty, default_fn, .. })| {
        quote! {{
            let default = Self::#default_fn();
            unsafe {
                let at = ::core::ptr::addr_of_mut!((*into).#member);
                work.place_field::<#ty>(&fields, #number, default, at)?
            }
        }}
    });
    let members = list.iter().map(|field| &field.member);
    Parts {
        may_settle: may_settle(list),
        settle: quote! {
            let _ = how;
            #(::plugin_api::resident::Resident::settle(&mut self.#members, how);)*
        },
        shape: quote! {
            let _ = |whole: &Self| match whole { #guard };
            ::plugin_api::resident::Kind::Struct(::std::vec![#(#describe),*])
        },
        variant: TokenStream::new(),
        children: TokenStream::new(),
        fits: quote! {
            let fields = work.struct_fields::<Self>(old, &#definition)?;
            #(#fit)*
            let _ = fields;
            ::core::result::Result::Ok(())
        },
        convert: TokenStream::new(),
        rebuild: quote! {
            let fields = work.open_struct::<Self>(old, &#definition)?;
            let _ = into;
            let written = [#(#place),*];
            work.drop_rest(fields);
            ::core::result::Result::Ok(::plugin_api::resident::Written::all(written))
        },
    }
}

/// What the variants are and were called, and their fields.
fn variant_names(variants: &[Variant]) -> TokenStream {
    let variants = variants.iter().map(|Variant { ident, before, fields }| {
        let (name, fields) = (ident.to_string(), definition(fields));
        quote! {
            ::plugin_api::resident::VariantNames { name: #name, before: &[#(#before),*], fields: #fields }
        }
    });
    quote! { [#(#variants),*] }
}

/// The description of an enum.
fn enum_shape(variants: &[Variant]) -> TokenStream {
    // Without fields each has a number, and where the definition does not say it, an attribute may.
    let is_numbered = variants.iter().all(|variant| variant.fields.list.is_empty());
    let describe = variants.iter().map(|Variant { ident, fields, .. }| {
        let name = ident.to_string();
        let parts = fields.list.iter().map(|Field { name, ty, .. }| {
            quote! { (::std::string::String::from(#name), shapes.of::<#ty>()) }
        });
        let number = if is_numbered {
            quote! { Self::#ident {} as i128 }
        } else {
            quote! { 0 }
        };
        quote! {{
            let parts = ::std::vec![#(#parts),*];
            shapes.variant(#name, #number, parts)
        }}
    });
    let guards = variants.iter().map(|Variant { ident, fields, .. }| guard(&quote! { Self::#ident }, fields));
    quote! {
        let _ = |whole: &Self| match whole { #(#guards)* };
        ::plugin_api::resident::Kind::Enum(::std::vec![#(#describe),*])
    }
}

fn of_enum(variants: &[Variant]) -> Parts {
    let names = variant_names(variants);
    let at = variants.iter().zip(0u32..).map(|(Variant { ident, .. }, number)| {
        quote! { Self::#ident { .. } => #number }
    });
    let see = variants.iter().map(|Variant { ident, fields, .. }| {
        let (members, names) = (fields.list.iter().map(|field| &field.member), parts_of(fields));
        quote! {
            Self::#ident { #(#members: #names),* } => { #(visit((&raw mut *#names).cast::<u8>());)* }
        }
    });
    let fit = variants.iter().enumerate().map(|(number, Variant { fields, .. })| {
        let fit = fit_fields(fields);
        quote! { #number => { #(#fit)* } }
    });
    let rebuild = variants.iter().enumerate().map(rebuild_variant);
    let settle = variants.iter().map(|Variant { ident, fields, .. }| {
        let (members, names) = (fields.list.iter().map(|field| &field.member), parts_of(fields));
        quote! {
            Self::#ident { #(#members: #names),* } => {
                #(::plugin_api::resident::Resident::settle(#names, how);)*
            }
        }
    });
    Parts {
        may_settle: may_settle(variants.iter().flat_map(|variant| &variant.fields.list)),
        settle: quote! {
            let _ = how;
            match self { #(#settle)* }
        },
        shape: enum_shape(variants),
        variant: quote! {
            fn variant(&self) -> u32 {
                match self { #(#at),* }
            }
        },
        children: quote! {
            unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
                let _ = &visit;
                match unsafe { &mut *this } { #(#see)* }
            }
        },
        fits: quote! {
            for (variant, fields) in work.enum_variants::<Self>(old, &#names)? {
                let _ = &fields;
                match variant {
                    #(#fit)*
                    _ => {}
                }
            }
            ::core::result::Result::Ok(())
        },
        convert: TokenStream::new(),
        rebuild: quote! {
            let (variant, fields) = work.open_enum::<Self>(old, &#names)?;
            let written = match variant {
                #(#rebuild)*
                _ => return ::core::result::Result::Err(
                    ::plugin_api::resident::Misfit::variant_is_gone::<Self>(""),
                ),
            };
            work.drop_rest(fields);
            ::core::result::Result::Ok(written)
        },
    }
}

/// The arm that builds a variant, its fields first.
fn rebuild_variant((number, Variant { ident, fields, .. }): (usize, &Variant)) -> TokenStream {
    let names = parts_of(fields);
    let place = fields.list.iter().enumerate().zip(&names).map(|((number, field), part)| {
        let Field { ty, default_fn, .. } = field;
        quote! {
            let default = Self::#default_fn();
            let #part = work.staging::<#ty>();
            let _: ::plugin_api::resident::Written =
                unsafe { work.place_field::<#ty>(&fields, #number, default, #part)? };
        }
    });
    let members = fields.list.iter().map(|field| &field.member);
    quote! {
        #number => {
            #(#place)*
            unsafe {
                ::plugin_api::resident::Written::by(into, Self::#ident { #(#members: #names.read()),* })
            }
        }
    }
}
