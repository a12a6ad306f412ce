//! A prebuilt library renamed over the one that serves: until its code answers, and what each step takes.
//!
//! With the release build of the host and of the fixture: `cargo build --release -p host --bins && cargo build
//! --release -p tests --example version_a && cargo bench -p tests --bench reload`. Prints figures and judges
//! nothing. What is asked of it: 15 ms at the median, of which the probe and all checks 5; the checks that need
//! no process of their own are `vet`, and `stage` is the copy to the staging directory. The rename is counted
//! apart: a file system may write a new file's content to the disk when the file takes the place of another, and
//! nobody is told before it has.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use tests::fixture;
use tests::host::Launch;
use tests::http::Client;

const RELOADS: usize = 60;
/// How often the client asks: a closed loop would take one of the processors from the host.
const PACE: Duration = Duration::from_micros(250);

fn main() {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    let library = fs::read(fixture::library("version_a")).expect("the fixture is built");
    let mut client = Client::new(host.listen());
    let mut generation = || -> u64 {
        let answer = client.get("/shop/ping").expect("an answer");
        answer.header("x-plugin-generation").and_then(|text| text.parse().ok()).expect("a number")
    };
    let (mut renamed, mut answered) = (Vec::new(), Vec::new());
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for reload in 0..RELOADS {
        let before = generation();
        let mut bytes = library.clone();
        // Behind the end of what the headers describe, where nobody looks.
        bytes.extend_from_slice(format!("build {reload}").as_bytes());
        let hidden = host.plugins.path().join(".reload.partial");
        fs::write(&hidden, &bytes).expect("the directory is writable");
        let asked = Instant::now();
        fs::rename(&hidden, host.plugins.library("shop")).expect("a rename within one directory");
        let begun = Instant::now();
        renamed.push((begun - asked).as_secs_f64() * 1e3);
        let now = loop {
            match generation() {
                now if now > before => break now,
                _ => thread::park_timeout(PACE),
            }
        };
        answered.push(begun.elapsed().as_secs_f64() * 1e3);
        let unloaded = now - 1;
        let status = host.wait_for("shop", "to have let go of the old code", |s| s.unloaded() == unloaded);
        for (step, ms) in status.steps() {
            steps.entry(step).or_default().push(ms);
        }
    }
    let mib = library.len() as f64 / f64::from(1 << 20);
    println!("a library of {mib:.1} MiB, {RELOADS} reloads, ms:            median     min     max");
    let row = |name: &str, values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let (median, last) = (values[values.len() / 2], values[values.len() - 1]);
        println!("  {name:<46} {median:>8.2} {:>7.2} {last:>7.2}", values[0]);
        median
    };
    row("the rename itself", &mut renamed);
    row("renamed -> first answer of the new code", &mut answered);
    let mut checks = 0.0;
    for name in ["stage", "vet", "probe", "open", "init", "publish"] {
        let Some(values) = steps.get_mut(name) else { continue };
        let median = row(name, values);
        checks += if matches!(name, "vet" | "probe") { median } else { 0.0 };
    }
    println!("  vet and probe together                         {checks:>8.2}");
}
