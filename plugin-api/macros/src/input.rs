//! Reads the definition: fields, variants and what `#[resident(...)]` says of them.

use quote::format_ident;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Expr, Ident, LitStr, Member, Path, Result, Type};

/// A field.
pub(crate) struct Field {
    /// Its name or number.
    pub(crate) member: Member,
    /// Its name as text.
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// What it was called before.
    pub(crate) before: Vec<String>,
    /// What it takes when it is new.
    pub(crate) default: Option<Expr>,
    /// The function of the type that says so.
    pub(crate) default_fn: Ident,
}

/// The fields of a struct or of a variant.
pub(crate) struct Fields {
    pub(crate) list: Vec<Field>,
    /// Fields of earlier definitions whose values none of these takes.
    pub(crate) dropped: Vec<String>,
}

/// A variant.
pub(crate) struct Variant {
    pub(crate) ident: Ident,
    pub(crate) before: Vec<String>,
    pub(crate) fields: Fields,
}

/// A definition.
pub(crate) enum Body {
    Struct(Fields),
    Enum(Vec<Variant>),
}

/// What `#[resident(...)]` may say.
#[derive(Default)]
struct Words {
    before: Vec<String>,
    dropped: Vec<String>,
    default: Option<Expr>,
    upgrade: Option<Path>,
}

/// What a type may say of itself.
const OF_TYPE: &[&str] = &["upgrade", "rename", "dropped"];

/// The hook of a type, if it has one.
pub(crate) fn upgrade(input: &DeriveInput) -> Result<Option<Path>> {
    Ok(words(&input.attrs, OF_TYPE)?.upgrade)
}

/// What the type was called before.
pub(crate) fn before(input: &DeriveInput) -> Result<Vec<String>> {
    Ok(words(&input.attrs, OF_TYPE)?.before)
}

/// What `#[repr(...)]` says, in the order it is said.
pub(crate) fn repr(input: &DeriveInput) -> Result<String> {
    let mut said = Vec::new();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        said.push(attribute.meta.require_list()?.tokens.to_string());
    }
    Ok(said.join(", "))
}

/// The definition.
pub(crate) fn body(input: &DeriveInput) -> Result<Body> {
    for attribute in &input.attrs {
        if attribute.path().is_ident("repr") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("packed") {
                    return Err(
                        meta.error("a packed type cannot be `Resident`: its fields have no addresses")
                    );
                }
                // `align(N)`: the number is in the layout.
                if meta.input.peek(syn::token::Paren) {
                    let content;
                    syn::parenthesized!(content in meta.input);
                    content.parse::<syn::LitInt>()?;
                }
                Ok(())
            })?;
        }
    }
    if let Some(lifetime) = input.generics.lifetimes().next() {
        let words = "a `Resident` type holds no references: they would lead into code that a reload replaces";
        return Err(Error::new(lifetime.span(), words));
    }
    let dropped = words(&input.attrs, OF_TYPE)?.dropped;
    match &input.data {
        Data::Struct(data) => Ok(Body::Struct(fields(&data.fields, 0, dropped)?)),
        Data::Enum(data) => {
            let is_numbered = data.variants.iter().any(|variant| variant.discriminant.is_some());
            let mut variants = Vec::new();
            for (number, variant) in data.variants.iter().enumerate() {
                if is_numbered && !variant.fields.is_empty() {
                    let words =
                        "an enum with numbered variants and fields cannot be `Resident`: drop the numbers";
                    return Err(Error::new(variant.span(), words));
                }
                let said = words(&variant.attrs, &["rename", "dropped"])?;
                let dropped = dropped.iter().cloned().chain(said.dropped).collect();
                variants.push(Variant {
                    ident: variant.ident.clone(),
                    before: said.before,
                    fields: fields(&variant.fields, number, dropped)?,
                });
            }
            told_apart(variants.iter().map(|variant| (variant.ident.span(), &variant.before[..])))?;
            if variants.is_empty() {
                return Err(Error::new(input.ident.span(), "an enum without variants has no values to keep"));
            }
            Ok(Body::Enum(variants))
        }
        Data::Union(data) => {
            let words = "a union cannot be `Resident`: nothing says which of its fields is valid";
            Err(Error::new(data.union_token.span(), words))
        }
    }
}

/// The fields of a struct or of an enum's variant, which is number `of` of its type.
fn fields(fields: &syn::Fields, of: usize, mut dropped: Vec<String>) -> Result<Fields> {
    let mut found = Vec::new();
    for (number, (member, field)) in fields.members().zip(fields).enumerate() {
        let said = words(&field.attrs, &["rename", "default", "dropped"])?;
        dropped.extend(said.dropped);
        let name = match &member {
            Member::Named(ident) => ident.to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        };
        found.push(Field {
            member,
            name,
            ty: field.ty.clone(),
            before: said.before,
            default: said.default,
            default_fn: format_ident!("__resident_default_{of}_{number}"),
        });
    }
    told_apart(fields.iter().zip(&found).map(|(field, read)| (field.span(), &read.before[..])))?;
    Ok(Fields { list: found, dropped })
}

/// No two can have had the same name.
fn told_apart<'n>(named: impl Iterator<Item = (proc_macro2::Span, &'n [String])>) -> Result<()> {
    let mut known: Vec<&String> = Vec::new();
    for (span, before) in named {
        for name in before {
            if known.contains(&name) {
                return Err(Error::new(
                    span,
                    format!("two of these say that they were called `{name}` before"),
                ));
            }
        }
        known.extend(before);
    }
    Ok(())
}

fn words(attributes: &[Attribute], allowed: &[&str]) -> Result<Words> {
    let mut words = Words::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("resident")) {
        attribute.parse_nested_meta(|meta| {
            let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match name.as_str() {
                word if !allowed.contains(&word) => {
                    Err(meta.error(format!("expected one of these here: {}", allowed.join(", "))))
                }
                "rename" => {
                    words.before.push(meta.value()?.parse::<LitStr>()?.value());
                    Ok(())
                }
                "dropped" => {
                    words.dropped.push(meta.value()?.parse::<LitStr>()?.value());
                    Ok(())
                }
                "upgrade" => {
                    words.upgrade = Some(meta.value()?.parse()?);
                    Ok(())
                }
                _ => {
                    words.default = Some(if meta.input.peek(syn::Token![=]) {
                        meta.value()?.parse()?
                    } else {
                        syn::parse_quote!(::core::default::Default::default())
                    });
                    Ok(())
                }
            }
        })?;
    }
    Ok(words)
}
