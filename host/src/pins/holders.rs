//! What holds code, in words.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use super::code::{Code, lock};
use super::thread::{What, records};

impl Code {
    /// What holds this code, each a fragment that completes "held by ...". Empty: nothing does.
    pub fn held_by(self: &Arc<Self>) -> Vec<String> {
        let mut holders: Vec<String> = self
            .named()
            .into_iter()
            .map(|(reason, count)| if count == 1 { reason } else { format!("{reason} ({count} times)") })
            .collect();
        let mut started: Vec<String> = Vec::new();
        let mut kept: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for record in records() {
            let whats: Vec<What> = lock(&record.kept)
                .iter()
                .filter(|kept| Arc::ptr_eq(&kept.code, self))
                .map(|kept| kept.what)
                .collect();
            if whats.is_empty() {
                continue;
            }
            let name = name_of(record.id);
            for what in whats {
                match what {
                    What::Started => started.push(name.clone()),
                    What::Local(..) => {
                        *kept.entry((name.clone(), "thread-local destructor")).or_default() += 1
                    }
                    What::Key(_) => *kept.entry((name.clone(), "key destructor")).or_default() += 1,
                }
            }
        }
        if !started.is_empty() {
            started.sort();
            let plural = if started.len() == 1 { "" } else { "s" };
            holders.push(format!("{} thread{plural} started by it ({})", started.len(), started.join(", ")));
        }
        for ((thread, what), count) in kept {
            // What threads keep goes by itself when the code is no longer used, and is no reason before. A thread that
            // the code started is named above; what that one keeps goes with it.
            if !self.is_used() && !started.contains(&thread) {
                let plural = if count == 1 { "" } else { "s" };
                holders.push(format!("{count} {what}{plural} on thread {thread}"));
            }
        }
        if holders.is_empty() && self.pins() > 0 {
            holders.push("a destructor that is running".to_owned());
        }
        holders
    }
}

/// The name of a thread of this process.
fn name_of(id: libc::pid_t) -> String {
    match fs::read_to_string(format!("/proc/self/task/{id}/comm")) {
        Ok(name) => format!("`{}`", name.trim_end()),
        // It has just ended.
        Err(_) => format!("number {id}"),
    }
}
