//! A layout as text: what a type is in memory, in words that outlive the library it was compiled in.
//!
//! The text is the identity of a type across generations: two types whose texts are equal, byte by byte,
//! are the same in memory. The host keeps a copy beside each value; a later generation reads it to find
//! the fields of a value that an earlier one made. One line per fact, the type itself first:
//!
//! ```text
//! resident 1
//! compiler rustc 1.95.0 (...) x86_64-unknown-linux-gnu plugin-api 0.1.0 89ab...
//! type struct 16 8 shop::Stats
//! field 0 1 hits
//! field 8 2 last
//! type leaf 8 8 core::sync::atomic::Atomic<u64>
//! type container 16 4 plugin_api::sync::Mutex<u32>
//! param 3
//! type leaf 4 4 u32
//! ```
//!
//! `type KIND SIZE ALIGN NAME`; `before NAME` where it was called otherwise; `repr WORDS` where the definition has any (`settled` for a hash map, see [`Layout::keeps_code`]); `field OFFSET TYPE NAME`; `variant DISCRIMINANT NAME`; `part TYPE NAME` for a
//! variant's field; `param TYPE` for what a container holds. Types are numbered from 0 in order.
//!
//! # Invariants
//!
//! - No addresses, and nothing else that differs between two builds of the same definitions.
//! - The compiler is part of the text: what `std`'s own types look like inside is its secret. So is this crate, whose locks have
//!   private fields: its version, and a number for the source of its types. A text that names no compiler is none.

use std::collections::HashSet;
use std::fmt::Write;

/// What is below one of these has empty maps of one library only: see [`crate::sync`].
const LOCKS: [&str; 2] = ["plugin_api::sync::Mutex", "plugin_api::sync::RwLock"];
/// In the room of the maps, and without keys.
const RING: &str = "alloc::collections::vec_deque::VecDeque";

/// The first line.
const HEADER: &str = "resident 1";

/// All types that a value consists of; number 0 is the value's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Compiler, target, and plugin-api's own version.
    pub compiler: String,
    /// The types.
    pub types: Vec<Type>,
}

/// One type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// Full name, with modules and generic parameters.
    pub name: String,
    /// In bytes.
    pub size: usize,
    /// In bytes.
    pub align: usize,
    /// What its `#[repr(...)]` says; mostly nothing.
    pub repr: String,
    /// What it was called before; mostly nothing. No part of what it is: see [`was_called`].
    pub before: Vec<String>,
    /// What it is made of.
    pub kind: Kind,
}

/// What a type is made of. Types within it are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that could change by itself: numbers, texts, times.
    Leaf,
    /// Fields at fixed places.
    Struct(Vec<Field>),
    /// One of several variants.
    Enum(Vec<Variant>),
    /// A type of `std` or of this crate around others.
    Container(Vec<usize>),
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, or its number in a tuple.
    pub name: String,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Its type.
    pub ty: usize,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its number, where the definition fixes it.
    pub discriminant: i128,
    /// Names and types of its fields.
    pub parts: Vec<(String, usize)>,
}

impl Layout {
    /// The text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\ncompiler {}\n", self.compiler);
        for ty in &self.types {
            let kind = match &ty.kind {
                Kind::Leaf => "leaf",
                Kind::Struct(_) => "struct",
                Kind::Enum(_) => "enum",
                Kind::Container(_) => "container",
            };
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "type {kind} {} {} {}", ty.size, ty.align, ty.name);
            if !ty.repr.is_empty() {
                let _ = writeln!(text, "repr {}", ty.repr);
            }
            for before in &ty.before {
                let _ = writeln!(text, "before {before}");
            }
            match &ty.kind {
                Kind::Leaf => {}
                Kind::Struct(fields) => {
                    for field in fields {
                        let _ = writeln!(text, "field {} {} {}", field.offset, field.ty, field.name);
                    }
                }
                Kind::Enum(variants) => {
                    for variant in variants {
                        let _ = writeln!(text, "variant {} {}", variant.discriminant, variant.name);
                        for (name, ty) in &variant.parts {
                            let _ = writeln!(text, "part {ty} {name}");
                        }
                    }
                }
                Kind::Container(params) => {
                    for ty in params {
                        let _ = writeln!(text, "param {ty}");
                    }
                }
            }
        }
        text
    }

    /// Reads a text. `None` if it is not one of these, or of a later form.
    pub fn parse(text: &str) -> Option<Layout> {
        let mut lines = text.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let compiler = lines.next()?.strip_prefix("compiler ")?.to_owned();
        // One without a name would be the same as another one without.
        compiler.chars().next().filter(|first| !first.is_whitespace())?;
        let mut types: Vec<Type> = Vec::new();
        for line in lines {
            let (word, rest) = line.split_once(' ')?;
            if word == "type" {
                types.push(parse_type(rest)?);
                continue;
            }
            if word == "repr" {
                rest.clone_into(&mut types.last_mut()?.repr);
                continue;
            }
            if word == "before" {
                types.last_mut()?.before.push(rest.to_owned());
                continue;
            }
            match (word, &mut types.last_mut()?.kind) {
                ("field", Kind::Struct(fields)) => {
                    let mut words = rest.splitn(3, ' ');
                    let offset = words.next()?.parse().ok()?;
                    let ty = words.next()?.parse().ok()?;
                    fields.push(Field { name: words.next()?.to_owned(), offset, ty });
                }
                ("variant", Kind::Enum(variants)) => {
                    let (discriminant, name) = rest.split_once(' ')?;
                    let discriminant = discriminant.parse().ok()?;
                    variants.push(Variant { name: name.to_owned(), discriminant, parts: Vec::new() });
                }
                ("part", Kind::Enum(variants)) => {
                    let (ty, name) = rest.split_once(' ')?;
                    variants.last_mut()?.parts.push((name.to_owned(), ty.parse().ok()?));
                }
                ("param", Kind::Container(params)) => params.push(rest.parse().ok()?),
                _ => return None,
            }
        }
        let layout = Layout { compiler, types };
        layout.is_closed().then_some(layout)
    }

    /// Whether every number names a type, and every field lies within its struct.
    fn is_closed(&self) -> bool {
        let fits = |ty: usize, offset: usize, size: usize| {
            self.types.get(ty).is_some_and(|of| offset.checked_add(of.size).is_some_and(|end| end <= size))
        };
        !self.types.is_empty()
            && self.types.iter().all(|ty| match &ty.kind {
                Kind::Leaf => true,
                Kind::Struct(fields) => fields.iter().all(|field| fits(field.ty, field.offset, ty.size)),
                Kind::Enum(variants) => {
                    variants.iter().flat_map(|v| &v.parts).all(|(_, part)| fits(*part, 0, ty.size))
                }
                Kind::Container(params) => params.iter().all(|param| *param < self.types.len()),
            })
    }

    /// Whether a value of this layout may keep pointers into libraries that have used it, so that these have to stay mapped.
    ///
    /// A hash map without room for an entry points into the library that made or emptied it. Where code of today can
    /// reach all of a value's maps it sees to it that this is never followed once the library is gone; what such code says of
    /// its maps is `settled`. It cannot reach a map that several owners share without a lock between, nor one in a key.
    pub fn keeps_code(&self) -> bool {
        let is_map = |number: usize| base(&self.types[number].name).starts_with("std::collections::hash::");
        self.types.iter().enumerate().any(|(number, ty)| {
            let is_foreign = is_map(number) && ty.repr != "settled";
            let closed = match (&ty.kind, base(&ty.name)) {
                (Kind::Container(params), "alloc::sync::Arc") => &params[..],
                // All that has keys: two parameters or, for sets, one.
                (Kind::Container(params), name) if name.contains("::collections::") && name != RING => {
                    params.get(..1).unwrap_or_default()
                }
                _ => &[],
            };
            is_foreign || closed.iter().any(|part| self.leads_to(*part, &mut HashSet::new(), &is_map))
        })
    }

    /// Whether a type is or contains one of those, locks not entered.
    fn leads_to(&self, number: usize, seen: &mut HashSet<usize>, is_it: &impl Fn(usize) -> bool) -> bool {
        if !seen.insert(number) {
            return false;
        }
        let mut within = |part: &usize| self.leads_to(*part, seen, is_it);
        let ty = &self.types[number];
        match &ty.kind {
            _ if is_it(number) => true,
            _ if LOCKS.contains(&base(&ty.name)) => false,
            Kind::Leaf => false,
            Kind::Struct(fields) => fields.iter().any(|field| within(&field.ty)),
            Kind::Enum(variants) => variants.iter().flat_map(|v| &v.parts).any(|(_, part)| within(part)),
            Kind::Container(params) => params.iter().any(within),
        }
    }

    /// What differs between this layout and `new`, in a sentence that names the first difference.
    pub fn difference(&self, new: &Layout) -> String {
        if self.compiler != new.compiler {
            return format!("it was made by `{}`, this code by `{}`", self.compiler, new.compiler);
        }
        differ(self, 0, new, 0, &mut HashSet::new())
            .unwrap_or_else(|| "the order of definitions differs".to_owned())
    }
}

/// Whether type `a` of one layout and type `b` of another are the same in memory, all the way down.
pub(crate) fn same(one: &Layout, a: usize, other: &Layout, b: usize) -> bool {
    one.compiler == other.compiler && differ(one, a, other, b, &mut HashSet::new()).is_none()
}

/// The first difference between two types. A pair that is being compared already counts as equal: a type
/// that contains itself is what the rest of it is.
fn differ(
    one: &Layout,
    a: usize,
    other: &Layout,
    b: usize,
    seen: &mut HashSet<(usize, usize)>,
) -> Option<String> {
    if !seen.insert((a, b)) {
        return None;
    }
    let (old, new) = (&one.types[a], &other.types[b]);
    let mut within = |x: usize, y: usize| differ(one, x, other, y, seen);
    let name = short(&new.name);
    let found = match (&old.kind, &new.kind) {
        (Kind::Struct(was), Kind::Struct(is)) if base(&old.name) == base(&new.name) => {
            fields_differ(&name, &name_types(one, was), &name_types(other, is), &mut within)
        }
        (Kind::Enum(was), Kind::Enum(is)) if base(&old.name) == base(&new.name) => {
            variants_differ(&name, (one, was), (other, is), &mut within)
        }
        (Kind::Container(was), Kind::Container(is))
            if base(&old.name) == base(&new.name) && was.len() == is.len() =>
        {
            was.iter().zip(is).find_map(|(x, y)| within(*x, *y))
        }
        _ => None,
    };
    found
        .or_else(|| {
            (old != &Type { kind: old.kind.clone(), before: old.before.clone(), ..new.clone() }).then(|| {
                if old.repr != new.repr {
                    format!("`{name}` was `repr({})` and is `repr({})`", old.repr, new.repr)
                } else if old.name == new.name {
                    format!("`{name}` is laid out differently: {} bytes, now {}", old.size, new.size)
                } else {
                    let (was, is) = names(&old.name, &new.name);
                    format!("what was `{was}` is `{is}`")
                }
            })
        })
        .or_else(|| match (&old.kind, &new.kind) {
            (Kind::Struct(was), Kind::Struct(is)) => {
                let places = |fields: &[Field]| fields.iter().map(|f| f.offset).collect::<Vec<_>>();
                (places(was) != places(is)).then(|| format!("the fields of `{name}` lie elsewhere"))
            }
            (Kind::Leaf, Kind::Leaf) | (Kind::Enum(_), Kind::Enum(_)) => None,
            (Kind::Container(was), Kind::Container(is)) if was.len() == is.len() => None,
            _ => Some(format!("`{name}` is of another kind")),
        })
}

/// Name, type and the type's full name of each field.
fn name_types<'l>(layout: &'l Layout, fields: &'l [Field]) -> Vec<(&'l str, usize, &'l str)> {
    fields.iter().map(|f| (f.name.as_str(), f.ty, layout.types[f.ty].name.as_str())).collect()
}

fn fields_differ(
    owner: &str,
    was: &[(&str, usize, &str)],
    is: &[(&str, usize, &str)],
    within: &mut impl FnMut(usize, usize) -> Option<String>,
) -> Option<String> {
    for (name, ty, full) in is {
        match was.iter().find(|(old, ..)| old == name) {
            None => return Some(format!("field `{name}: {}` of `{owner}` is new", short(full))),
            Some((_, old, before)) if base(before) != base(full) => {
                let (before, now) = names(before, full);
                return Some(format!("field `{name}` of `{owner}` was `{before}` and is `{now}`"));
            }
            Some((_, old, _)) => {
                if let Some(found) = within(*old, *ty) {
                    return Some(format!("field `{name}` of `{owner}`: {found}"));
                }
            }
        }
    }
    let gone = was.iter().find(|(name, ..)| !is.iter().any(|(new, ..)| new == name));
    gone.map(|(name, _, full)| format!("field `{name}: {}` of `{owner}` is gone", short(full))).or_else(
        || {
            let order = was.iter().zip(is).any(|(a, b)| a.0 != b.0);
            order.then(|| format!("the fields of `{owner}` are in another order"))
        },
    )
}

fn variants_differ(
    owner: &str,
    (one, was): (&Layout, &[Variant]),
    (other, is): (&Layout, &[Variant]),
    within: &mut impl FnMut(usize, usize) -> Option<String>,
) -> Option<String> {
    for variant in is {
        let Some(before) = was.iter().find(|old| old.name == variant.name) else {
            return Some(format!("variant `{}` of `{owner}` is new", variant.name));
        };
        let list = |layout: &Layout, v: &Variant| -> Vec<(String, usize, String)> {
            v.parts.iter().map(|(n, t)| (n.clone(), *t, layout.types[*t].name.clone())).collect()
        };
        let (x, y) = (list(one, before), list(other, variant));
        let x: Vec<_> = x.iter().map(|(n, t, f)| (n.as_str(), *t, f.as_str())).collect();
        let y: Vec<_> = y.iter().map(|(n, t, f)| (n.as_str(), *t, f.as_str())).collect();
        let found = fields_differ(&format!("{owner}::{}", variant.name), &x, &y, within);
        if found.is_some() || before.discriminant != variant.discriminant {
            let number = || format!("variant `{}` of `{owner}` has another number", variant.name);
            return Some(found.unwrap_or_else(number));
        }
    }
    let gone = was.iter().find(|old| !is.iter().any(|new| new.name == old.name));
    gone.map(|old| format!("variant `{}` of `{owner}` is gone", old.name)).or_else(|| {
        let order = was.iter().zip(is).any(|(a, b)| a.name != b.name);
        order.then(|| format!("the variants of `{owner}` are in another order"))
    })
}

fn parse_type(rest: &str) -> Option<Type> {
    let mut words = rest.splitn(4, ' ');
    let kind = match words.next()? {
        "leaf" => Kind::Leaf,
        "struct" => Kind::Struct(Vec::new()),
        "enum" => Kind::Enum(Vec::new()),
        "container" => Kind::Container(Vec::new()),
        _ => return None,
    };
    let size = words.next()?.parse().ok()?;
    let align: usize = words.next()?.parse().ok()?;
    align.is_power_of_two().then_some(())?;
    Some(Type { name: words.next()?.to_owned(), size, align, repr: String::new(), before: Vec::new(), kind })
}

/// A type's name without its generic parameters: what stays when a parameter changes.
pub(crate) fn base(name: &str) -> &str {
    name.split('<').next().unwrap_or(name)
}

/// Whether a type that is called `now` was called `old`, by what its definition says: a path with or without its crate, or
/// the name alone if the module is the same. Generic parameters do not matter.
pub fn was_called<N: AsRef<str>>(old: &str, now: &str, before: &[N]) -> bool {
    let (old, now) = (base(old), base(now));
    let in_crate = old.split_once("::").map(|(_, rest)| rest);
    before.iter().map(|said| base(said.as_ref()).trim()).any(|said| {
        let in_module = || now.rsplit_once("::").map(|(module, _)| format!("{module}::{said}"));
        let of_crate = said.strip_prefix("crate::").unwrap_or(said);
        old == said || in_crate == Some(of_crate) || in_module().is_some_and(|path| path == old)
    })
}

impl Type {
    /// Whether `other` is this type, by its name, before or after it was given another.
    pub fn is_called_like(&self, other: &Type) -> bool {
        base(&self.name) == base(&other.name)
            || was_called(&self.name, &other.name, &other.before)
            || was_called(&other.name, &self.name, &self.before)
    }
}

/// Two names for one sentence: short where that tells them apart, else in full.
pub(crate) fn names(old: &str, new: &str) -> (String, String) {
    let (a, b) = (short(old), short(new));
    if a == b { (old.to_owned(), new.to_owned()) } else { (a, b) }
}

/// A type's name as its author writes it: without the modules.
pub fn short(name: &str) -> String {
    let mut text = String::new();
    let mut word = String::new();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ':' && chars.peek() == Some(&':') {
            chars.next();
            word.clear();
        } else if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            text.push_str(&word);
            word.clear();
            text.push(c);
        }
    }
    text + &word
}
