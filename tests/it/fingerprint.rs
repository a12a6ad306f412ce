//! Facts about fingerprints, by chance: two definitions have the same one exactly if they are the same.
//!
//! Random definitions are compiled twice, the second time mutated: half of them in ways that mean nothing to memory
//! (visibility, order of derives, comments, methods, defaults), half in ways that do. What the hosts say of each is
//! compared with what the mutation was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tests::host::Launch;
use tests::workshop::Workshop;

/// How many pairs of definitions.
const PAIRS: usize = 24;

/// Numbers that look random, the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Types with a value of each.
const LEAVES: [(&str, &str); 9] = [
    ("u8", "1"),
    ("i16", "-2"),
    ("u32", "3"),
    ("u64", "4"),
    ("f64", "5.0"),
    ("bool", "true"),
    ("char", "'x'"),
    ("String", "String::from(\"text\")"),
    ("AtomicU64", "AtomicU64::new(6)"),
];
/// Types around another, with how one is made of a value.
const WRAPS: [(&str, &str); 6] = [
    ("Option", "Some"),
    ("Vec", "vec!"),
    ("Box", "Box::new"),
    ("Mutex", "Mutex::new"),
    ("RwLock", "RwLock::new"),
    ("Arc", "Arc::new"),
];

#[derive(Clone, Debug, PartialEq)]
enum Ty {
    Leaf(usize),
    Wrap(usize, Box<Ty>),
    Pair(Box<Ty>, Box<Ty>),
    Array(Box<Ty>, usize),
    /// The definition of that number in the same module.
    Inner(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Struct(Vec<(String, Ty)>),
    Enum(Vec<(String, Vec<Ty>)>),
}

/// A definition, what its fingerprint is of.
#[derive(Clone, Debug, PartialEq)]
struct Definition {
    name: String,
    body: Body,
}

/// How it is written, which its fingerprint must not depend on.
#[derive(Clone, Debug, Default)]
struct Style {
    is_public: bool,
    resident_first: bool,
    has_comment: bool,
    has_method: bool,
    has_defaults: bool,
}

fn ty(chance: &mut Chance, depth: usize) -> Ty {
    match chance.below(if depth == 0 { 1 } else { 6 }) {
        0..=2 => Ty::Leaf(chance.below(LEAVES.len())),
        3 => Ty::Wrap(chance.below(WRAPS.len()), Box::new(ty(chance, depth - 1))),
        4 => Ty::Pair(Box::new(ty(chance, depth - 1)), Box::new(ty(chance, depth - 1))),
        _ => Ty::Array(Box::new(ty(chance, depth - 1)), 1 + chance.below(4)),
    }
}

/// Definitions of which each leads to the next, so that all of them belong to the first one's fingerprint.
fn module(chance: &mut Chance) -> Vec<Definition> {
    let count = 1 + chance.below(3);
    let mut definitions = Vec::new();
    for number in 0..count {
        let fields = 1 + chance.below(4);
        let mut types: Vec<Ty> = (0..fields).map(|_| ty(chance, 2)).collect();
        if number + 1 < count {
            let inner = Ty::Inner(number + 1);
            types.push(if chance.below(2) == 0 {
                inner
            } else {
                Ty::Wrap(chance.below(WRAPS.len()), Box::new(inner))
            });
        }
        let body = if number > 0 && chance.below(2) == 0 {
            Body::Enum(vec![
                ("First".to_owned(), types),
                ("Second".to_owned(), vec![ty(chance, 1)]),
                ("Third".to_owned(), vec![]),
            ])
        } else {
            let named = types.into_iter().enumerate().map(|(at, ty)| (format!("field_{at}"), ty));
            Body::Struct(named.collect())
        };
        definitions.push(Definition { name: format!("Type{number}"), body });
    }
    definitions
}

/// Every leaf of a type, which is never empty of them but for a bare `Inner`.
fn leaves<'t>(ty: &'t mut Ty, found: &mut Vec<&'t mut Ty>) {
    match ty {
        Ty::Leaf(_) => found.push(ty),
        Ty::Wrap(_, inner) | Ty::Array(inner, _) => leaves(inner, found),
        Ty::Pair(one, other) => {
            leaves(one, found);
            leaves(other, found);
        }
        Ty::Inner(_) => {}
    }
}

/// Changes something that is part of the fingerprint.
fn mutate(definition: &mut Definition, chance: &mut Chance) -> &'static str {
    let fresh = ty(chance, 1);
    match (&mut definition.body, chance.below(7)) {
        (Body::Struct(fields), 0) => {
            fields[0].0 = "renamed".to_owned();
            "field renamed"
        }
        (Body::Struct(fields), 1) => {
            fields.push(("added".to_owned(), fresh));
            "field added"
        }
        (Body::Struct(fields), 2) if fields.len() > 1 && !matches!(fields[0].1, Ty::Inner(_)) => {
            fields.remove(0);
            "field removed"
        }
        (Body::Struct(fields), 3) if fields.len() > 1 => {
            fields.swap(0, 1);
            "fields reordered"
        }
        (Body::Enum(variants), 0) => {
            variants[1].0 = "Renamed".to_owned();
            "variant renamed"
        }
        (Body::Enum(variants), 1) => {
            variants.push(("Added".to_owned(), vec![fresh]));
            "variant added"
        }
        (Body::Enum(variants), 2) => {
            variants.pop();
            "variant removed"
        }
        (Body::Enum(variants), 3) => {
            variants.swap(1, 2);
            "variants reordered"
        }
        (Body::Enum(variants), 4) => {
            variants[2].1.push(fresh);
            "variant's field added"
        }
        (body, 5) => {
            let last = match body {
                Body::Struct(fields) => fields.last_mut().map(|(_, ty)| ty),
                Body::Enum(variants) => variants[0].1.last_mut(),
            };
            let last = last.expect("a definition has fields");
            *last = Ty::Wrap(chance.below(WRAPS.len()), Box::new(last.clone()));
            "type wrapped"
        }
        (body, _) => {
            let mut found = Vec::new();
            match body {
                Body::Struct(fields) => fields.iter_mut().for_each(|(_, ty)| leaves(ty, &mut found)),
                Body::Enum(variants) => {
                    variants.iter_mut().flat_map(|(_, types)| types).for_each(|ty| leaves(ty, &mut found));
                }
            }
            if let Some(Ty::Leaf(number)) = found.into_iter().next() {
                *number = (*number + 1 + chance.below(LEAVES.len() - 1)) % LEAVES.len();
                return "leaf retyped";
            }
            definition.name.push_str("Renamed");
            "type renamed"
        }
    }
}

fn ty_text(ty: &Ty, all: &[Definition]) -> String {
    match ty {
        Ty::Leaf(number) => LEAVES[*number].0.to_owned(),
        Ty::Wrap(number, inner) => format!("{}<{}>", WRAPS[*number].0, ty_text(inner, all)),
        Ty::Pair(one, other) => format!("({}, {})", ty_text(one, all), ty_text(other, all)),
        Ty::Array(inner, length) => format!("[{}; {length}]", ty_text(inner, all)),
        Ty::Inner(number) => all[*number].name.clone(),
    }
}

fn value_text(ty: &Ty) -> String {
    match ty {
        Ty::Leaf(number) => LEAVES[*number].1.to_owned(),
        Ty::Wrap(number, inner) => {
            let (make, value) = (WRAPS[*number].1, value_text(inner));
            if make == "vec!" { format!("vec![{value}]") } else { format!("{make}({value})") }
        }
        Ty::Pair(one, other) => format!("({}, {})", value_text(one), value_text(other)),
        Ty::Array(inner, _) => format!("std::array::from_fn(|_| {})", value_text(inner)),
        Ty::Inner(number) => format!("make_{number}()"),
    }
}

/// The module's source: the definitions, a function that makes each, and a key for the first.
fn source(number: usize, all: &[Definition], style: &Style) -> String {
    let mut text = format!("mod m{number} {{\n    use super::*;\n");
    for (at, definition) in all.iter().enumerate() {
        let Definition { name, body } = definition;
        let visible = if style.is_public { "pub" } else { "pub(crate)" };
        let derives = if style.resident_first { "Resident, Debug" } else { "Debug, Resident" };
        if style.has_comment {
            text.push_str("    /// What is said of a type is not the type.\n");
        }
        let _ = writeln!(text, "    #[derive({derives})]");
        let made = match body {
            Body::Struct(fields) => {
                let _ = writeln!(text, "    {visible} struct {name} {{");
                for (field, ty) in fields {
                    if style.has_defaults {
                        let _ = writeln!(text, "        #[resident(default = {})]", value_text(ty));
                    }
                    let _ = writeln!(text, "        {visible} {field}: {},", ty_text(ty, all));
                }
                let values: Vec<String> =
                    fields.iter().map(|(field, ty)| format!("{field}: {}", value_text(ty))).collect();
                format!("{name} {{ {} }}", values.join(", "))
            }
            Body::Enum(variants) => {
                let _ = writeln!(text, "    {visible} enum {name} {{");
                for (variant, types) in variants {
                    let types: Vec<String> = types.iter().map(|ty| ty_text(ty, all)).collect();
                    let fields =
                        if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
                    let _ = writeln!(text, "        {variant}{fields},");
                }
                let values: Vec<String> = variants[0].1.iter().map(value_text).collect();
                format!("{name}::{}({})", variants[0].0, values.join(", "))
            }
        };
        text.push_str("    }\n");
        if style.has_method {
            let _ = writeln!(text, "    impl {name} {{\n        pub fn method(&self) {{}}\n    }}");
        }
        let _ = writeln!(text, "    fn make_{at}() -> {name} {{\n        {made}\n    }}");
    }
    let root = &all[0].name;
    let _ = writeln!(
        text,
        "    pub(crate) static KEY: registry::Lazy<{root}> = registry::Lazy::new(\"key_{number}\", || Ok(make_0()));\n}}"
    );
    text
}

/// The fingerprint of each key's type, as a host with the library shows it.
fn fingerprints(library: &[u8]) -> BTreeMap<String, String> {
    let launch = Launch::new();
    launch.plugins().put_library("probe", library);
    let host = launch.start();
    assert_eq!(host.get("/probe/make").text(), "made", "{}", host.log());
    let registry = host.api("/api/registry");
    let slots = registry["slots"].as_array().expect("a list of slots");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    slots.iter().map(|slot| (text(&slot["key"]), text(&slot["value"]["layout"]))).collect()
}

fn library(workshop: &Workshop, modules: &[String]) -> Vec<u8> {
    let mut text = String::from(
        "#![allow(dead_code, private_interfaces)]\nuse std::sync::Arc;\nuse std::sync::atomic::AtomicU64;\n\
         use plugin_api::prelude::*;\nuse plugin_api::sync::{Mutex, RwLock};\n\
         plugin! { routes: { GET \"/make\" => make } }\nfn make(_: &Request) -> Result<&'static str> {\n",
    );
    for number in 0..modules.len() {
        let _ = writeln!(text, "    m{number}::KEY.get()?;");
    }
    text.push_str("    Ok(\"made\")\n}\n");
    workshop.build(&(text + &modules.concat()), &[])
}

/// Equal exactly if the definitions are, for every pair.
#[test]
fn fingerprints_are_equal_exactly_if_definitions_are() {
    let mut chance = Chance(2_026);
    let (mut before, mut after, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..PAIRS {
        let old = module(&mut chance);
        let mut new = old.clone();
        let what = if number % 2 == 0 {
            "nothing but its looks"
        } else {
            let at = chance.below(new.len());
            mutate(&mut new[at], &mut chance)
        };
        let style = |chance: &mut Chance| {
            let mut coin = || chance.pick(&[true, false]);
            Style {
                is_public: coin(),
                resident_first: coin(),
                has_comment: coin(),
                has_method: coin(),
                has_defaults: coin(),
            }
        };
        before.push(source(number, &old, &style(&mut chance)));
        after.push(source(number, &new, &style(&mut chance)));
        pairs.push((old, new, what));
    }
    let workshop = Workshop::open("fingerprints");
    let found = [&before, &after].map(|modules| fingerprints(&library(&workshop, modules)));
    assert_eq!(found.each_ref().map(BTreeMap::len), [PAIRS, PAIRS]);
    for (number, (old, new, what)) in pairs.iter().enumerate() {
        let key = format!("key_{number}");
        let is_same = found[0][&key] == found[1][&key];
        assert_eq!(is_same, old == new, "{what}:\n{}\n{}", before[number], after[number]);
        assert_eq!(old == new, number % 2 == 0, "a mutation that changes nothing: {what}\n{old:?}");
    }
}
