//! Writes the implementation.
//!
//! # Invariants
//!
//! - The author's expressions and paths are in functions of their own, which are safe: in an unchecked block, or in the body
//!   of an unchecked function, what is unchecked in them would need no word.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, Result, parse_quote};

use crate::input::{self, Body, Field, Variant};

/// The parts of an implementation.
struct Parts {
    may_settle: TokenStream,
    settle: TokenStream,
    shape: TokenStream,
    variant: TokenStream,
    children: TokenStream,
    fits: TokenStream,
    rebuild: TokenStream,
}

/// The implementation of `Resident` for a definition.
pub(crate) fn resident(input: &DeriveInput) -> Result<TokenStream> {
    let body = input::body(input)?;
    let mut own = own_of(&body);
    let mut parts = match &body {
        Body::Struct(fields) => of_struct(fields),
        Body::Enum { variants, is_numbered } => of_enum(variants, *is_numbered),
    };
    if let Some(hook) = input::upgrade(input)? {
        parts.fits = quote! { let _ = (old, work); ::core::result::Result::Ok(()) };
        parts.rebuild = quote! { unsafe { work.upgrade(old, into, Self::__resident_upgrade) } };
        own = quote! {
            fn __resident_upgrade(old: &::plugin_api::resident::Old<'_>) -> ::plugin_api::Result<Self> {
                let hook = #hook;
                hook(old).map_err(::core::convert::Into::into)
            }
        };
    }
    let Parts { may_settle, settle, shape, variant, children, fits, rebuild } = parts;
    let repr = input::repr(input)?;

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
            const MAY_SETTLE: bool = #may_settle;

            fn settle(&mut self, how: ::plugin_api::resident::Settling<'_>) {
                #settle
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
            unsafe fn rebuild(
                old: ::plugin_api::resident::Old<'_>,
                into: *mut Self,
                work: &mut ::plugin_api::resident::Work,
            ) -> ::core::result::Result<(), ::plugin_api::resident::Misfit> {
                #rebuild
            }
        }
    })
}

/// The functions of the type that contain the author's words, one for each field.
fn own_of(body: &Body) -> TokenStream {
    let fields: Vec<&Field> = match body {
        Body::Struct(fields) => fields.iter().collect(),
        Body::Enum { variants, .. } => variants.iter().flat_map(|variant| &variant.fields).collect(),
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

fn of_struct(fields: &[Field]) -> Parts {
    let describe = fields.iter().map(|Field { member, name, ty, .. }| {
        quote! { shapes.field::<#ty>(#name, ::core::mem::offset_of!(Self, #member)) }
    });
    let fit = fields.iter().map(|field| {
        let Field { name, ty, before, default_fn, .. } = field;
        quote! { work.fit_field::<#ty>(&fields, #name, &[#(#before),*], Self::#default_fn().is_some())?; }
    });
    let place = fields.iter().map(|field| {
        let Field { member, name, ty, before, default_fn, .. } = field;
        quote! {
            let default = Self::#default_fn();
            unsafe {
                let at = ::core::ptr::addr_of_mut!((*into).#member);
                work.place_field::<#ty>(&mut fields, #name, &[#(#before),*], default, at)?;
            }
        }
    });
    let members = fields.iter().map(|field| &field.member);
    let types = fields.iter().map(|field| &field.ty);
    let names: Vec<_> = (0..fields.len()).map(|i| format_ident!("part_{i}")).collect();
    Parts {
        may_settle: may_settle(fields),
        settle: {
            let members = fields.iter().map(|field| &field.member);
            quote! {
                let _ = how;
                #(::plugin_api::resident::Resident::settle(&mut self.#members, how);)*
            }
        },
        // The pattern does not compile where the definition has another field than was seen here, or one of
        // another type: an attribute below the derive may have changed it.
        shape: quote! {
            let _ = |whole: &Self| {
                let Self { #(#members: #names),* } = whole;
                let _: (#(&#types,)*) = (#(#names,)*);
            };
            ::plugin_api::resident::Kind::Struct(::std::vec![#(#describe),*])
        },
        variant: TokenStream::new(),
        children: TokenStream::new(),
        fits: quote! {
            let fields = work.struct_fields::<Self>(old)?;
            #(#fit)*
            let _ = fields;
            ::core::result::Result::Ok(())
        },
        rebuild: quote! {
            #[allow(unused_mut)]
            let mut fields = work.open_struct::<Self>(old)?;
            let _ = into;
            #(#place)*
            work.drop_rest(fields);
            ::core::result::Result::Ok(())
        },
    }
}

fn of_enum(variants: &[Variant], is_numbered: bool) -> Parts {
    let describe = variants.iter().map(|Variant { ident, fields, .. }| {
        let name = ident.to_string();
        let parts = fields.iter().map(|Field { name, ty, .. }| {
            quote! { (::std::string::String::from(#name), shapes.of::<#ty>()) }
        });
        let number = if is_numbered {
            quote! { Self::#ident as i128 }
        } else {
            quote! { 0 }
        };
        quote! {{
            let parts = ::std::vec![#(#parts),*];
            shapes.variant(#name, #number, parts)
        }}
    });
    let at = variants.iter().zip(0u32..).map(|(Variant { ident, .. }, number)| {
        quote! { Self::#ident { .. } => #number }
    });
    let see = variants.iter().map(|Variant { ident, fields, .. }| {
        let members = fields.iter().map(|field| &field.member);
        let names: Vec<_> = (0..fields.len()).map(|i| format_ident!("part_{i}")).collect();
        quote! {
            Self::#ident { #(#members: #names),* } => { #(visit((&raw mut *#names).cast::<u8>());)* }
        }
    });
    let fit = variants.iter().map(|Variant { ident, before, fields }| {
        let name = ident.to_string();
        let fields = fields.iter().map(|field| {
            let Field { name, ty, before, default_fn, .. } = field;
            quote! { work.fit_field::<#ty>(parts, #name, &[#(#before),*], Self::#default_fn().is_some())?; }
        });
        quote! {
            if let ::core::option::Option::Some((_, parts)) =
                variants.iter().find(|(old, _)| [#name, #(#before),*].contains(old))
            {
                let _ = parts;
                #(#fields)*
            }
        }
    });
    let rebuild = variants.iter().map(rebuild_variant);
    let settle = variants.iter().map(|Variant { ident, fields, .. }| {
        let members = fields.iter().map(|field| &field.member);
        let names: Vec<_> = (0..fields.len()).map(|i| format_ident!("part_{i}")).collect();
        quote! {
            Self::#ident { #(#members: #names),* } => {
                #(::plugin_api::resident::Resident::settle(#names, how);)*
            }
        }
    });
    Parts {
        may_settle: may_settle(variants.iter().flat_map(|variant| &variant.fields)),
        settle: quote! {
            let _ = how;
            match self { #(#settle)* }
        },
        shape: quote! { ::plugin_api::resident::Kind::Enum(::std::vec![#(#describe),*]) },
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
            let variants = work.enum_variants::<Self>(old)?;
            #(#fit)*
            ::core::result::Result::Ok(())
        },
        rebuild: quote! {
            #[allow(unused_mut)]
            let (variant, mut fields) = work.open_enum::<Self>(old)?;
            match variant {
                #(#rebuild)*
                gone => return ::core::result::Result::Err(
                    ::plugin_api::resident::Misfit::variant_is_gone::<Self>(gone),
                ),
            }
            work.drop_rest(fields);
            ::core::result::Result::Ok(())
        },
    }
}

/// The arm that builds a variant, its fields first.
fn rebuild_variant(Variant { ident, before, fields }: &Variant) -> TokenStream {
    let name = ident.to_string();
    let names: Vec<_> = (0..fields.len()).map(|i| format_ident!("part_{i}")).collect();
    let place = fields.iter().zip(&names).map(|(field, part)| {
        let Field { name, ty, before, default_fn, .. } = field;
        quote! {
            let default = Self::#default_fn();
            let #part = work.staging::<#ty>();
            unsafe { work.place_field::<#ty>(&mut fields, #name, &[#(#before),*], default, #part)?; }
        }
    });
    let members = fields.iter().map(|field| &field.member);
    quote! {
        #name #(| #before)* => {
            #(#place)*
            unsafe { into.write(Self::#ident { #(#members: #names.read()),* }); }
        }
    }
}
