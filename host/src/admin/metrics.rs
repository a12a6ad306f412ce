//! `GET /metrics`: the same numbers as the JSON, in the text format that Prometheus reads.
//!
//! A family is made of every number a face shows of the server, of each plugin, of each host handle and of
//! each safe, under the very names of the JSON: `host_plugin_requests{plugin="hello"}`. So a number that a
//! room adds is a metric without a line here. Booleans are 0 and 1; text and lists are left out.
//!
//! Families carry no type: which of the numbers only grow is said where the JSON's fields are documented.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// What the answer is, to a client.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Lines collected by family, since the format wants the lines of one family together.
#[derive(Default)]
pub(super) struct Metrics {
    families: BTreeMap<String, String>,
}

impl Metrics {
    /// Adds every number in `value`, those of nested objects under joined names.
    pub(super) fn add(&mut self, prefix: &str, labels: &[(&str, &str)], value: &Value) {
        let number = match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.add(&format!("{prefix}_{name}"), labels, value);
                }
                return;
            }
            Value::Number(number) => number.to_string(),
            Value::Bool(is_so) => u8::from(*is_so).to_string(),
            _ => return,
        };
        let lines = self.families.entry(prefix.to_owned()).or_default();
        lines.push_str(prefix);
        for (position, (name, value)) in labels.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _ = write!(lines, "{}{name}=\"{}\"", if position == 0 { '{' } else { ',' }, escape(value));
        }
        let _ = writeln!(lines, "{} {number}", if labels.is_empty() { "" } else { "}" });
    }

    /// The whole answer.
    pub(super) fn text(self) -> String {
        self.families.into_values().collect()
    }
}

/// A label's value as the format wants it: backslash, quote and line feed escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Metrics;

    #[test]
    fn numbers_become_lines_grouped_by_family() {
        let mut metrics = Metrics::default();
        metrics.add("host", &[], &json!({ "requests": 3, "workers": { "busy": 1 }, "listen": "here" }));
        metrics.add("pool", &[("key", "a\"b")], &json!({ "idle": 2, "is_closed": false, "backends": [1] }));
        metrics.add("pool", &[("key", "c"), ("module", "m")], &json!({ "idle": 0.5, "last": null }));
        let expected = "host_requests 3\n\
                        host_workers_busy 1\n\
                        pool_idle{key=\"a\\\"b\"} 2\n\
                        pool_idle{key=\"c\",module=\"m\"} 0.5\n\
                        pool_is_closed{key=\"a\\\"b\"} 0\n";
        assert_eq!(metrics.text(), expected);
    }
}
