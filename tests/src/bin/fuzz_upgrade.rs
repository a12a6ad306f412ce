//! `./tests/fuzz-upgrade`: writes a program of definitions by chance, before and after edits by chance, whose code does what
//! it must not be relied on not to do. The program upgrades values of them many times and looks at what becomes of them.
//!
//! The number is the seed: the same program each time. Exits with 2 when it is none.

use std::fmt::Write;
use std::process::ExitCode;

/// What the written program consists of beside the definitions.
const RUNTIME: &str = include_str!("../fuzz/runtime.rs.in");

/// Pairs of definitions in a program.
const PAIRS: u32 = 6;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|seed| seed.parse().ok()) else {
        eprintln!("usage: fuzz-upgrade SEED");
        return ExitCode::from(2);
    };
    print!("{}", program(seed));
    ExitCode::SUCCESS
}

fn program(seed: u64) -> String {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text = RUNTIME.to_owned();
    let mut runs = String::new();
    for pair in 0..PAIRS {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{}", module(&mut chance, pair));
        let _ = writeln!(runs, "    seen.add(rounds, pair_{pair}::round);");
    }
    let _ = write!(text, "\nfn run(seen: &mut Seen, rounds: u64) {{\n{runs}}}\n");
    text
}

/// Two generations of the same names.
fn module(chance: &mut Chance, pair: u32) -> String {
    let leaves = ["u32", "String", "Token", "AtomicU64", "()", "Inside"];
    let mut kinds = vec![
        Edited::new(chance, "Key", &["Box<u8>", "Vec<String>", "Option<Box<u8>>", "u16"], 1),
        Edited::new(chance, "Row", &leaves, 2),
        Edited::new(chance, "Deep", &["u32", "Row", "Token", "Option<Box<Deep>>"], 1),
    ];
    let known = ["Row", "Mode", "Hooked", "Token", "Deep", "String"];
    kinds.push(Edited::new(chance, "All", &known, 3));
    let mode = [any_type(chance, &["Row", "Token", "u32"], 1), any_type(chance, &["Row", "String"], 1)];
    let (mut old, mut new) = (String::new(), String::new());
    for kind in &kinds {
        old += &kind.old;
        new += &kind.new;
    }
    let is_wider = chance.one_of(2);
    let _ = write!(
        old,
        "key!(Key);\n#[derive(Resident, Debug)]\npub enum Mode {{ Idle, Busy({0}, {1}) }}\nmake_enum!({0}, {1});\n{HOOKED_OLD}",
        mode[0], mode[1]
    );
    let (added, attribute) =
        if is_wider { (", Token", "#[resident(rename = \"Busy\")] Working") } else { ("", "Busy") };
    let _ = write!(
        new,
        "key!(Key);\n#[derive(Resident, Debug)]\npub enum Mode {{ {attribute}({}, {}{added}), Idle }}\n{HOOKED_NEW}",
        mode[0], mode[1]
    );
    format!(
        "\npub mod pair_{pair} {{\n    pub mod old {{\nuse super::super::*;\n{old}}}\n    pub mod new {{\nuse super::super::*;\n{new}}}\n\
         \n    pub fn round(seed: u64) -> &'static str {{\n        super::round::<old::All, new::All>(seed)\n    }}\n}}\n"
    )
}

const HOOKED_OLD: &str = "#[derive(Resident, Debug)]\npub struct Hooked { names: Mutex<Vec<String>>, inside: Inside, n: u32 }\n\
                          make_struct!(Hooked { names, inside, n });\n";
const HOOKED_NEW: &str = "#[derive(Resident, Debug)]\n#[resident(upgrade = hook)]\n\
                          pub struct Hooked { names: Vec<String>, shared: Arc<String>, token: Token }\n\
                          fn hook(old: &Old<'_>) -> Result<Hooked> {\n    let (names, shared) = hooked(old)?;\n    \
                          Ok(Hooked { names, shared, token: Token::default() })\n}\n";

/// A struct before and after an edit.
struct Edited {
    old: String,
    new: String,
}

impl Edited {
    fn new(chance: &mut Chance, name: &str, leaves: &[&str], depth: u32) -> Edited {
        let is_key = name == "Key";
        let count = 1 + chance.below(5);
        let mut fields: Vec<(String, String)> =
            (0..count).map(|i| (format!("f{i}"), any_type(chance, leaves, depth))).collect();
        if is_key {
            fields.push(("id".into(), "u8".into()));
            fields.push(("inside".into(), "Inside".into()));
        }
        let (mut after, mut dropped) = (Vec::new(), String::new());
        for (i, (field, ty)) in fields.iter().enumerate() {
            let stays = is_key && i >= fields.len() - 2;
            match chance.below(10) {
                0 if !stays => {
                    // Now and then it is not said: then it may be refused.
                    if !chance.one_of(6) {
                        let _ = writeln!(dropped, "#[resident(dropped = \"{field}\")]");
                    }
                }
                1 if !stays => after.push(format!("#[resident(rename = \"{field}\")] renamed_{field}: {ty}")),
                2 if !stays && chance.one_of(4) => after.push(format!("{field}: u128")),
                3 => after.push(format!("#[resident(rename = \"f0\")] {field}: {ty}")),
                _ => after.push(format!("{field}: {ty}")),
            }
        }
        // Two may not have had the same name.
        let mut had = false;
        for field in &mut after {
            if field.contains("rename = \"f0\"") && std::mem::replace(&mut had, true) {
                *field = field.replacen("#[resident(rename = \"f0\")] ", "", 1);
            }
        }
        let news: &[&str] = if is_key {
            &["u32", "Box<u8>", "Vec<String>"]
        } else {
            &["u32", "Token", "Vec<Token>", "Chain"]
        };
        for i in 0..chance.below(3) {
            let at = chance.below(after.len() + 1);
            after.insert(at, format!("added{i}: {}", news[chance.below(news.len())]));
        }
        let turned = chance.below(after.len().max(1));
        if !after.is_empty() {
            after.rotate_left(turned);
        }
        let list = |fields: &[(String, String)]| {
            fields.iter().map(|(field, ty)| format!("pub {field}: {ty}")).collect::<Vec<_>>().join(", ")
        };
        let names: Vec<&str> = fields.iter().map(|(field, _)| field.as_str()).collect();
        let public: Vec<String> = after
            .iter()
            .map(|field| match field.split_once("] ") {
                Some((said, field)) => format!("{said}] pub {field}"),
                None => format!("pub {field}"),
            })
            .collect();
        Edited {
            old: format!(
                "#[derive(Resident, Debug)]\npub struct {name} {{ {} }}\nmake_struct!({name} {{ {} }});\n",
                list(&fields),
                names.join(", ")
            ),
            new: format!(
                "#[derive(Resident, Debug)]\n{dropped}pub struct {name} {{ {} }}\n",
                public.join(", ")
            ),
        }
    }
}

/// A type around some of these.
fn any_type(chance: &mut Chance, leaves: &[&str], depth: u32) -> String {
    if depth == 0 || chance.one_of(4) {
        return leaves[chance.below(leaves.len())].to_owned();
    }
    let within = any_type(chance, leaves, depth - 1);
    let has_keys = leaves.contains(&"Row");
    match chance.below(if has_keys { 16 } else { 11 }) {
        0 => format!("Vec<{within}>"),
        1 => format!("VecDeque<{within}>"),
        2 => format!("Box<{within}>"),
        3 => format!("Arc<{within}>"),
        4 => format!("[{within}; 2]"),
        5 => format!("Option<{within}>"),
        6 => format!("std::result::Result<{within}, u8>"),
        7 => format!("({within}, u8)"),
        8 => format!("Mutex<{within}>"),
        9 => format!("RwLock<{within}>"),
        10 => format!("OnceCell<{within}>"),
        11 => format!("HashMap<Key, {within}>"),
        12 => format!("BTreeMap<Key, {within}>"),
        13 => "HashSet<Key>".to_owned(),
        14 => "BTreeSet<Key>".to_owned(),
        _ => format!("HashMap<String, {within}>"),
    }
}

/// A small generator: the same numbers every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }

    fn one_of(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}
