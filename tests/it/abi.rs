//! Facts about the contract: what C is told is what Rust means.
//!
//! `plugin_abi.h` is kept by hand. Here it is compared with `abi.rs`: every struct's size and offsets,
//! every number, every documentation tag, in order.

use std::fs;
use std::mem::{offset_of, size_of};
use std::process::Command;

use plugin_api::abi;
use tests::fixture::{compile_c, repository};

/// Name, size and the fields with their offsets of one struct.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

macro_rules! layouts {
    ($($name:ident { $($field:ident),* })*) => {
        vec![$((
            stringify!($name),
            size_of::<abi::$name>(),
            vec![$((stringify!($field), offset_of!(abi::$name, $field))),*],
        )),*]
    };
}

/// As Rust lays them out, in the order of `abi.rs`.
fn layouts() -> Vec<Layout> {
    layouts! {
        StrView { ptr, len }
        BytesView { ptr, len }
        PairView { name, value }
        ErrorView { size, status, message, sqlstate }
        ErrorSink { data, report }
        BytesSink { data, write }
        HostTable { size, abi_version, generation, ctx, log, panicked, handle_clone, handle_drop, registry, db,
                    data, safe, services, tx, pool, stream, listen, registry_epoch, instance }
        PluginTable { size, abi_version, descriptor, mount, routes, route_count, route_size, on_load, on_unload,
                      upgrade, check, memory, memory_stripes }
        PreviousView { size, generation, version }
        MemoryStripe { bytes }
        RouteView { size, method, path, kind, handler, flags }
        RequestView { size, id, method, path, mount, query, params, param_count, headers, header_count, body,
                      remote, deadline_ns, cancelled }
        ReplyView { size, data, respond, fail }
        ResponseView { size, status, headers, header_count, body }
        LogView { size, level, target, message, fields, field_count, file, line }
        PanicView { size, message, file, line, column, thread }
        KeyView { size, module, key }
        TypeView { size, kind, name }
        InitView { size, data, call, timeout_ns, flags, config }
        RegistryTable { size, get_or_init, get, remove }
        PoolConfigView { size, url, max_size, checkout_timeout_ns }
        StatementView { size, sql, params, param_count, flags }
        ValueView { tag, bits, bytes }
        DbTable { size, pool_open, checkout, query, execute, batch_execute, begin, commit, rollback,
                  error_details, begin_with }
        DataCell { size, users, value }
        GlueView { size, drop_value, variant, children, dissolve }
        DataTypeView { size, name, layout, glue, glue_count, on_change, upgrade, copy }
        OldDataView { size, layout, glue, glue_count, value, progress }
        UpgradeView { size, value, data, finish, lost, hooked }
        DataTable { size, create, find, prepare, release }
        SafeRangeView { size, start, end, flags, limit }
        SafeCheckView { key, version }
        SafeChangeView { kind, encoding, key, value, delta, initial, expires_in_ms }
        SafeWriteView { size, checks, check_count, changes, change_count, timeout_ns }
        SafeTable { size, get, list, len, commit, submit, settle, watch, watch_next, open_shared }
        ServiceTypeView { size, name, methods, on_change }
        ServiceView { size, value, call, drop_value }
        ServiceTable { size, create, find, replace, call }
        TxOptionsView { size, isolation, access, flags }
        TxTable { size, join, doom, join_with }
        PartSink { data, take }
        PartSource { data, give }
        StreamTable { size, query_each, copy_in, copy_out, rows_open, rows_next }
        ListenView { size, url, channels, channel_count, capacity }
        NoticeView { size, kind, backend, channel, payload }
        NoticeSink { data, take }
        ListenTable { size, open, next }
        OpenView { size, url, kind, flags, max_size, min_idle, max_idle, max_shared, ping, checkout_timeout_ns,
                   idle_timeout_ns, max_lifetime_ns, ping_idle_ns, leak_after_ns, ping_after_ns,
                   ping_timeout_ns, max_uses, ping_sql, session, session_count, is_fatal, fatal_count }
        PoolTable { size, open, checkout_shared, close }
    }
}

fn rust_side() -> String {
    fs::read_to_string(repository().join("plugin-api/src/abi.rs")).unwrap()
}

fn c_side() -> String {
    fs::read_to_string(repository().join("plugin-api/include/plugin_abi.h")).unwrap()
}

/// Structs with their fields, as the text of `abi.rs` lists them.
fn structs_of(source: &str) -> Vec<(String, Vec<String>)> {
    let mut structs: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            structs.push((name.to_owned(), Vec::new()));
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if let Some((field, _)) = line.strip_prefix("    pub ").and_then(|rest| rest.split_once(':'))
            && inside
        {
            structs.last_mut().unwrap().1.push(field.to_owned());
        }
    }
    structs
}

/// The numbers of `abi.rs`: the name in C and the value.
fn numbers_of(source: &str) -> Vec<(String, String)> {
    let mut numbers = Vec::new();
    for line in source.lines().map(str::trim) {
        let Some((name, rest)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": "))
        else {
            continue;
        };
        let (kind, value) = rest.trim_end_matches(';').split_once(" = ").unwrap();
        let value = if value == "u64::MAX" { u64::MAX.to_string() } else { value.to_owned() };
        let inner = |value: &str| value.split(['(', ')']).nth(1).unwrap_or_default().to_owned();
        match kind {
            "Status" => numbers.push((format!("STATUS_{name}"), inner(&value))),
            "HandleId" => numbers.push((format!("HANDLE_{name}"), inner(&value))),
            "u32" | "u64" => numbers.push((format!("PLUGIN_{name}"), value)),
            _ => assert_eq!(kind, "&str", "a constant of a kind that C was not taught: {line}"),
        }
    }
    numbers
}

/// Compiles a program that prints `expressions`, one per line, and returns what it prints.
fn ask_c(name: &str, expressions: impl Iterator<Item = String>) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("ask.c");
    let lines: String = expressions
        .map(|expression| format!("    printf(\"%llu\\n\", (unsigned long long)({expression}));\n"))
        .collect();
    let text = format!(
        "#include \"plugin_abi.h\"\n#include <stdio.h>\n\nint main(void) {{\n{lines}    return 0;\n}}\n"
    );
    fs::write(&source, text).unwrap();
    let output = Command::new(compile_c(&source, name, &[])).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A struct or field added to `abi.rs` and not to the list above would be compared by nobody.
#[test]
fn every_struct_and_field_is_compared() {
    let listed: Vec<(String, Vec<String>)> = layouts()
        .into_iter()
        .map(|(name, _, fields)| {
            (name.to_owned(), fields.iter().map(|(field, _)| (*field).to_owned()).collect())
        })
        .collect();
    assert_eq!(listed, structs_of(&rust_side()));
}

/// Size and offsets are what a C compiler makes of the header.
#[test]
fn c_header_has_the_layout_of_rust() {
    let mut questions = Vec::new();
    let mut expected = Vec::new();
    for (name, size, fields) in layouts() {
        questions.push(format!("sizeof({name})"));
        expected.push(size);
        for (field, offset) in fields {
            questions.push(format!("offsetof({name}, {field})"));
            expected.push(offset);
        }
    }
    let answers = ask_c("abi_layout", questions.iter().cloned());
    let answers: Vec<usize> = answers.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), expected.len());
    for ((question, c), rust) in questions.iter().zip(answers).zip(expected) {
        assert_eq!(c, rust, "{question} in C and in Rust");
    }
}

/// Statuses, kinds, tags and versions have one value.
#[test]
fn c_header_has_the_numbers_of_rust() {
    let numbers = numbers_of(&rust_side());
    assert!(numbers.len() > 30, "abi.rs was not understood: {numbers:?}");
    let answers = ask_c("abi_numbers", numbers.iter().map(|(name, _)| name.clone()));
    for ((name, rust), c) in numbers.iter().zip(answers.lines()) {
        assert_eq!(c, rust, "{name} in C and in Rust");
    }
}

/// The names that are text are the same text.
#[test]
fn c_header_has_the_names_of_rust() {
    let header = c_side();
    for (name, text) in [
        ("ENTRY_SYMBOL", abi::ENTRY_SYMBOL),
        ("DESCRIPTOR_SECTION", abi::DESCRIPTOR_SECTION),
        ("DESCRIPTOR_MAGIC", abi::DESCRIPTOR_MAGIC),
    ] {
        assert!(
            header.contains(&format!("#define PLUGIN_{name} \"{text}\"\n")),
            "PLUGIN_{name} is not {text:?}"
        );
    }
    assert!(header.contains(&format!("*{}(const HostTable *host);", abi::ENTRY_SYMBOL)));
    assert!(header.contains(&format!("section(\"{}\")", abi::DESCRIPTOR_SECTION)));
}

/// Who calls, who blocks, who frees: both sides promise the same, in the same order.
#[test]
fn c_header_has_the_tags_of_rust() {
    let tags = |text: &str| -> Vec<String> {
        let found = text.split([' ', '\n']).filter(|word| {
            ["OWNERSHIP:", "LIFETIME:", "THREAD:", "BLOCKS:", "UNWINDS:", "RETURNS:"].contains(word)
        });
        found.map(str::to_owned).collect()
    };
    let (rust, c) = (tags(&rust_side()), tags(&handler_last(&c_side())));
    assert!(rust.len() > 40, "abi.rs was not understood");
    assert_eq!(c, rust);
}

/// The header with its only item out of order back in its place: behind the routes' kinds.
fn handler_last(header: &str) -> String {
    let (before, rest) = header.split_once("/* Answers a request by calling").expect("the handler's type");
    let (handler, rest) = rest.split_once("/* A route and its handler.").expect("the route after it");
    let (route, after) = rest.split_once("/* A request. OWNERSHIP").expect("the request after the route");
    format!("{before}{route}{handler}/* A request. OWNERSHIP{after}")
}

/// The descriptor macro writes what the section is defined to hold.
#[test]
fn c_plugin_carries_a_descriptor() {
    let library = fs::read(tests::fixture::library("c_plugin")).unwrap();
    let expected = b"magic=host-plugin\0abi=1\0name=c_plugin\0version=1.0.0\0";
    assert!(library.windows(expected.len()).any(|window| window == expected));
}
