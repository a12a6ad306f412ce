//! `#[resident]` on a trait: reads its methods and writes both ends of a call.
//!
//! # Invariants
//!
//! - The expansion contains nothing that the compiler does not check: what crosses by address is plugin-api's.
//! - Methods are numbered in the order of the trait, those with a body left out, on both ends alike.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemTrait, Pat, PathArguments, ReceiverKind, Result, ReturnType,
    Safety, TraitItem, TraitItemFn, Type, TypeParamBound,
};

/// A method of the interface.
struct Method<'t> {
    item: &'t TraitItemFn,
    number: u32,
    arguments: Vec<Argument<'t>>,
    /// What `Ok` holds.
    answer: &'t Type,
}

/// An argument of a method.
struct Argument<'t> {
    name: &'t Ident,
    /// Its type without an outer reference: what is written.
    value: &'t Type,
    how: How,
}

/// How an argument is passed.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// By value.
    Owned,
    /// By reference to a value that the other side reads anew.
    Borrowed,
    /// As `&str` or `&[u8]`, which the other side borrows from the message.
    InPlace,
    /// As `&[T]`, which the other side reads as a list.
    Slice,
}

/// The trait, with both ends of a call.
pub(crate) fn resident(input: &ItemTrait) -> Result<TokenStream> {
    check_trait(input)?;
    let methods = methods(input)?;
    let name = &input.ident;
    let text = name.to_string();
    let caller = format_ident!("{name}Caller");
    let calls = methods.iter().map(call);
    let arms = methods.iter().map(arm);
    let lines = methods.iter().map(line);
    Ok(quote! {
        #input

        const _: () = {
            use ::plugin_api::__private as private;

            /// The caller's side.
            #[derive(Clone, Debug)]
            pub struct #caller(private::Remote);

            #[automatically_derived]
            impl #name for #caller {
                #(#calls)*
            }

            #[automatically_derived]
            impl private::Interface for dyn #name {
                type Caller = #caller;
                const NAME: &'static str = #text;

                fn methods() -> &'static str {
                    static TEXT: ::std::sync::OnceLock<::std::string::String> = ::std::sync::OnceLock::new();
                    TEXT.get_or_init(|| {
                        #[allow(unused_imports)]
                        use private::{ByBytes as _, ByMessage as _};
                        let lines: &[::std::string::String] = &[#(#lines),*];
                        lines.concat()
                    })
                }

                fn caller(remote: private::Remote) -> #caller {
                    #caller(remote)
                }

                fn of(caller: &#caller) -> &(dyn #name + 'static) {
                    caller
                }

                fn serve(
                    &self,
                    method: u32,
                    arguments: &[u8],
                    answer: &mut ::std::vec::Vec<u8>,
                ) -> ::core::result::Result<(), private::Refusal> {
                    #[allow(unused_imports)]
                    use private::{ByBytes as _, ByMessage as _};
                    #[allow(unused_mut)]
                    let mut input = private::Input::new(arguments);
                    match method {
                        #(#arms)*
                        _ => ::core::result::Result::Err(private::Refusal::NoMethod),
                    }
                }
            }

            ::plugin_api::__keep_service!(dyn #name);
        };
    })
}

fn check_trait(input: &ItemTrait) -> Result<()> {
    if let Some(token) = &input.unsafety {
        return Err(Error::new(token.span(), "a service's trait is one that anybody may implement"));
    }
    if let Some(param) = input.generics.params.first() {
        let words = "a service is one object, so its trait has no parameters; name the types";
        return Err(Error::new(param.span(), words));
    }
    let mut missing = vec!["Send", "Sync"];
    for bound in &input.supertraits {
        let last = match bound {
            TypeParamBound::Trait(bound) => bound.path.segments.last().map(|last| last.ident.to_string()),
            TypeParamBound::Lifetime(of) if of.ident == "static" => continue,
            _ => None,
        };
        let Some(at) = last.and_then(|last| missing.iter().position(|name| last == **name)) else {
            let words = "the caller's side implements this trait and nothing else: leave `Send + Sync` only";
            return Err(Error::new(bound.span(), words));
        };
        missing.remove(at);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let words = format!(
        "a service is called from many threads at a time: write `trait {}: Send + Sync`",
        input.ident
    );
    Err(Error::new(input.ident.span(), words))
}

fn methods(input: &ItemTrait) -> Result<Vec<Method<'_>>> {
    let mut found = Vec::new();
    for item in &input.items {
        let TraitItem::Fn(item) = item else {
            return Err(Error::new(item.span(), "a service has methods only"));
        };
        // With a body it is the caller's own.
        if item.default.is_some() {
            continue;
        }
        found.push(method(item, u32::try_from(found.len()).unwrap_or(u32::MAX))?);
    }
    if found.is_empty() {
        return Err(Error::new(input.ident.span(), "a service without methods cannot be called"));
    }
    Ok(found)
}

fn method(item: &TraitItemFn, number: u32) -> Result<Method<'_>> {
    let signature = &item.sig;
    let is_unchecked = !matches!(signature.safety, Safety::Default);
    let plain = [
        (signature.asyncness.map(|token| token.span()), "a call of a service blocks: leave `async` away"),
        (is_unchecked.then(|| signature.ident.span()), "a call of a service is sound for every caller"),
        (
            signature.generics.params.first().map(Spanned::span),
            "the other side has one method, not one per type or lifetime",
        ),
        (signature.variadic.as_ref().map(Spanned::span), "a method has the arguments that it names"),
    ];
    if let Some((span, words)) = plain.into_iter().find_map(|(span, words)| Some((span?, words))) {
        return Err(Error::new(span, words));
    }
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(own)) if matches!(own.kind, ReceiverKind::Reference(_, None, None)) => {}
        other => {
            let span = other.map_or_else(|| signature.ident.span(), Spanned::span);
            let words = "a method of a service takes `&self`: many threads call it at a time";
            return Err(Error::new(span, words));
        }
    }
    let arguments = inputs.map(argument).collect::<Result<_>>()?;
    Ok(Method { item, number, arguments, answer: answer(&signature.output, signature.ident.span())? })
}

fn argument(input: &FnArg) -> Result<Argument<'_>> {
    let FnArg::Typed(input) = input else {
        return Err(Error::new(input.span(), "`&self` comes first"));
    };
    let Pat::Ident(pattern) = &*input.pat else {
        return Err(Error::new(input.pat.span(), "an argument needs a name: it is part of the interface"));
    };
    let (value, how) = match &*input.ty {
        Type::Reference(reference) if reference.mutability.is_some() => {
            let words = "the other side gets a copy, so nothing can be changed in place: return it instead";
            return Err(Error::new(reference.span(), words));
        }
        Type::Reference(reference) => match &*reference.elem {
            ty @ Type::Slice(slice) if is_named(&slice.elem, "u8") => (ty, How::InPlace),
            ty @ Type::Slice(_) => (ty, How::Slice),
            ty if is_named(ty, "str") => (ty, How::InPlace),
            ty => (ty, How::Borrowed),
        },
        ty => (ty, How::Owned),
    };
    let owned = match value {
        Type::Slice(slice) => &slice.elem,
        ty => ty,
    };
    check_type(owned)?;
    Ok(Argument { name: &pattern.ident, value, how })
}

/// What `Ok` holds in a method's return type.
fn answer(output: &ReturnType, name: Span) -> Result<&Type> {
    let words = "a call can fail when the method does not (the other side may panic): return a `Result`";
    let ReturnType::Type(_, ty) = output else { return Err(Error::new(name, words)) };
    let Type::Path(path) = &**ty else { return Err(Error::new(ty.span(), words)) };
    let last = path.path.segments.last().filter(|last| last.ident == "Result");
    let Some(PathArguments::AngleBracketed(generics)) = last.map(|last| &last.arguments) else {
        return Err(Error::new(ty.span(), words));
    };
    let Some(GenericArgument::Type(answer)) = generics.args.first() else {
        return Err(Error::new(ty.span(), words));
    };
    check_type(answer)?;
    Ok(answer)
}

/// What is known not to cross, said better than by the bounds that it would miss.
fn check_type(ty: &Type) -> Result<()> {
    let words = match ty {
        Type::Reference(_) => "what a reference leads to does not cross: pass the value, or return it owned",
        Type::FnPtr(_) | Type::Ptr(_) => "addresses do not cross: the other side is another copy of the code",
        Type::ImplTrait(_) => "the other side has one method, not one per type: name the type",
        Type::TraitObject(_) => {
            "trait objects do not cross: make it a service of its own, and look it up there"
        }
        Type::Infer(_) => "the other side has to know the type: name it",
        _ => return Ok(()),
    };
    Err(Error::new(ty.span(), words))
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident(name))
}

/// The form that values of the type are written in.
fn way(ty: &Type) -> TokenStream {
    quote! { (&&private::Way::<#ty>::NEW).way() }
}

/// The method as the caller has it.
fn call(method: &Method<'_>) -> TokenStream {
    let Method { item, number, arguments, answer } = method;
    let signature = &item.sig;
    let put = arguments.iter().map(|Argument { name, value, how }| {
        let way = way(value);
        let by = (*how == How::Owned).then(|| quote! { & });
        quote! { #way.put::<#value>(#by #name, &mut ask.arguments)?; }
    });
    let way = way(answer);
    quote! {
        #signature {
            #[allow(unused_imports)]
            use private::{ByBytes as _, ByMessage as _};
            let call = || -> ::core::result::Result<#answer, ::plugin_api::service::ServiceError> {
                #[allow(unused_mut)]
                let mut ask = self.0.ask(#number);
                #(#put)*
                ask.answer(|input| #way.take::<#answer>(input))
            };
            call().map_err(::core::convert::From::from)
        }
    }
}

/// The method as the host reaches it.
fn arm(method: &Method<'_>) -> TokenStream {
    let Method { item, number, arguments, answer } = method;
    let name = &item.sig.ident;
    let names: Vec<_> = (0..arguments.len()).map(|i| format_ident!("argument_{i}")).collect();
    let take = arguments.iter().zip(&names).map(|(Argument { value, how, .. }, name)| {
        let way = way(value);
        let taken = match (how, value) {
            (How::InPlace, _) => quote! { &#value },
            (How::Slice, Type::Slice(slice)) => {
                let element = &slice.elem;
                quote! { ::std::vec::Vec<#element> }
            }
            _ => value.to_token_stream(),
        };
        quote! { let #name = #way.take::<#taken>(&mut input)?; }
    });
    let pass = arguments.iter().zip(&names).map(|(argument, name)| match argument.how {
        How::Owned | How::InPlace => quote! { #name },
        How::Borrowed | How::Slice => quote! { &#name },
    });
    let way = way(answer);
    quote! {
        #number => {
            #(#take)*
            input.end()?;
            let value = self
                .#name(#(#pass),*)
                .map_err(|error| private::Refusal::Failed(::core::convert::Into::into(error)))?;
            #way.put::<#answer>(&value, answer)?;
            ::core::result::Result::Ok(())
        }
    }
}

/// The method as a line of the interface.
fn line(method: &Method<'_>) -> TokenStream {
    let Method { item, arguments, answer, .. } = method;
    let name = item.sig.ident.to_string();
    let named = arguments.iter().map(|Argument { name, value, .. }| {
        let (name, way, written) = (name.to_string(), way(value), written(value));
        quote! { (#name, #way.name::<#value>(#written)) }
    });
    let (way, written) = (way(answer), written(answer));
    quote! { private::line(#name, &[#(#named),*], &#way.name::<#answer>(#written)) }
}

/// A type as its author writes it.
fn written(ty: &Type) -> String {
    let text = ty.to_token_stream().to_string();
    let tight = [" < ", " <", "< ", " > ", " >", " :: ", " ,", "& "];
    tight
        .iter()
        .fold(text, |text, wide| text.replace(wide, wide.trim()))
        .replace(',', ", ")
        .replace(",  ", ", ")
}
