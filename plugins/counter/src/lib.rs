//! Counters in memory that survive edits of this file: of the code, and of `Stats` itself.
//!
//! ```sh
//! curl localhost:8080/counter/apples
//! ```
//!
//! Then add a field to `Stats`, say `best: Mutex<String>`, save, and go on counting.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::prelude::*;
use plugin_api::sync::Mutex;

plugin! {
    routes: { GET "/" => list, GET "/{name}" => hit },
    state: [STATS],
}

#[derive(Resident, Default)]
struct Stats {
    total: AtomicU64,
    by_name: Mutex<BTreeMap<String, u64>>,
}

static STATS: registry::Lazy<Stats> = registry::Lazy::in_module("counter", "stats", || Ok(Stats::default()));

fn hit(req: &Request) -> Result<String> {
    let name: String = req.param("name")?;
    let stats = STATS.get()?;
    stats.total.fetch_add(1, Ordering::Relaxed);
    let mut by_name = stats.by_name.lock();
    let count = by_name.entry(name).or_default();
    *count += 1;
    Ok(format!("{count}\n"))
}

fn list(_: &Request) -> Result<String> {
    let stats = STATS.get()?;
    let mut text = format!("{} in all\n", stats.total.load(Ordering::Relaxed));
    for (name, count) in stats.by_name.lock().iter() {
        text.push_str(&format!("{name}: {count}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_by_name() {
        let app = plugin_api::testing::app!();
        assert_eq!(app.get("/apples").text(), "1\n");
        assert_eq!(app.get("/pears").text(), "1\n");
        assert_eq!(app.get("/apples").text(), "2\n");
        assert_eq!(app.get("/").text(), "3 in all\napples: 2\npears: 1\n");
    }
}
