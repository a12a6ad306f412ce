//! Configurations as they may be shown: without what opens a door.
//!
//! Errs on the side of hiding. It knows names, such as `password`, and the form of a URL; a secret under a
//! name that says nothing is shown, which the documentation of `config` says.

use serde_json::Value;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Parts of names whose values are secrets.
const SECRET: [&str; 9] =
    ["password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "apikey", "privatekey"];

/// A configuration without its secrets; one that is no JSON is hidden whole.
pub(super) fn shown(config: &str) -> Value {
    match serde_json::from_str(config) {
        Ok(value) => without_secrets(value),
        Err(_) => Value::String(HIDDEN.to_owned()),
    }
}

fn without_secrets(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_password(&text)),
        Value::Array(items) => items.into_iter().map(without_secrets).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let is_secret = is_secret(&name) && !matches!(value, Value::Null | Value::Bool(_));
                let value = if is_secret { Value::String(HIDDEN.to_owned()) } else { without_secrets(value) };
                (name, value)
            })
            .collect(),
        other => other,
    }
}

fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    SECRET.iter().any(|word| plain.contains(word))
}

/// A text without the passwords in it: in `scheme://user:password@host`, in `?password=...`, in `password=...`.
fn without_password(text: &str) -> String {
    let text = without_user_info(text);
    let mut shown = String::with_capacity(text.len());
    let is_end = |c: char| matches!(c, '&' | ';' | '?' | '#') || c.is_whitespace();
    for part in text.split_inclusive(is_end) {
        match part.split_once('=') {
            Some((name, value)) if is_secret(name) => {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(HIDDEN);
                shown.extend(value.chars().next_back().filter(|c| is_end(*c)));
            }
            _ => shown.push_str(part),
        }
    }
    shown
}

/// A password is taken to reach to the last `@`, for not everybody encodes what is special in it.
fn without_user_info(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((user_info, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    let Some((user, _)) = user_info.split_once(':') else { return text.to_owned() };
    format!("{scheme}://{user}:{HIDDEN}@{host}")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[track_caller]
    fn is_shown_as(config: &str, expected: &str) {
        assert_eq!(shown(config).to_string(), expected);
    }

    #[test]
    fn passwords_are_hidden_and_the_rest_is_not() {
        is_shown_as(
            r#"{"max":4,"url":"postgres://bob:pw@db/shop"}"#,
            r#"{"max":4,"url":"postgres://bob:***@db/shop"}"#,
        );
        is_shown_as(r#"{"url":"postgres://bob:p@w:d@db/shop"}"#, r#"{"url":"postgres://bob:***@db/shop"}"#);
        is_shown_as(
            r#""postgres://bob@db/shop?sslmode=require&password=x#y""#,
            r#""postgres://bob@db/shop?sslmode=require&password=***#y""#,
        );
        is_shown_as(r#""host=db password=pw user=bob""#, r#""host=db password=*** user=bob""#);
        is_shown_as(
            r#"{"api-key":"k","Db_Password":7,"token":null,"use_token":true}"#,
            r#"{"Db_Password":"***","api-key":"***","token":null,"use_token":true}"#,
        );
        is_shown_as(r#"[{"secrets":["a","b"]},"sqlite:shop.db"]"#, r#"[{"secrets":"***"},"sqlite:shop.db"]"#);
        is_shown_as("postgres://bob:pw@db", r#""***""#);
    }
}
