//! Records which compiler and target this copy of plugin-api is built for; the descriptor carries both.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    println!("cargo:rustc-env=PLUGIN_API_RUSTC={}", version.trim());
    println!("cargo:rustc-env=PLUGIN_API_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}
