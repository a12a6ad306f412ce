//! libpq's settings in an address: which the driver knows, which are made its own, and which are refused by name.

use super::tls::refused;
use crate::db::ConfigError;

/// What an address says, for the driver and for this one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The address with the settings that the driver and the encryption know.
    pub(super) url: String,
    /// A pooler gives each transaction another session.
    pub(super) is_pooled: bool,
}

/// Settings that are refused, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    (
        "passfile",
        "write the password into the address, or into the environment that the address is made from",
    ),
    ("service", "write host, port, user and database into the address"),
    ("servicefile", "write host, port, user and database into the address"),
    ("sslpassword", "give the key in a file without a password, readable for this process alone"),
    ("sslcrl", "take the certificate's root out of the file of `sslrootcert`"),
    ("sslcrldir", "take the certificate's root out of the file of `sslrootcert`"),
    ("requiressl", "write `sslmode=require`"),
    ("require_auth", "decide in the server's pg_hba.conf how this user proves who it is"),
    ("requirepeer", "connect by TCP with `sslmode=verify-full`"),
    ("krbsrvname", "GSSAPI is not offered: use a password or a certificate"),
    ("gsslib", "GSSAPI is not offered: use a password or a certificate"),
    ("gssdelegation", "GSSAPI is not offered: use a password or a certificate"),
    ("replication", "a replication connection runs no statements"),
];

/// Settings for which only the default is supported.
const FIXED: &[(&str, &[&str], &str)] = &[
    (
        "gssencmode",
        &["disable", "prefer"],
        "GSSAPI is not offered: write `gssencmode=disable`, and `sslmode` for TLS",
    ),
    ("sslcompression", &["0"], "compression below TLS is not offered: leave it out"),
    ("sslsni", &["1"], "the server's name is always sent: leave it out"),
    ("client_encoding", &["utf8", "UTF8", "utf-8", "UTF-8", "auto"], "texts are UTF-8: leave it out"),
    (
        "ssl_min_protocol_version",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS 1.2 and 1.3 are offered: write `TLSv1.2`",
    ),
    ("ssl_max_protocol_version", &["TLSv1.3", ""], "TLS 1.2 and 1.3 are offered: leave it out"),
];

/// Reads libpq's settings out of an address.
///
/// # Errors
///
/// When one is not offered here, or has a value that means nothing.
pub(super) fn settings(url: &str) -> Result<Settings, ConfigError> {
    no_raw_at(url)?;
    let Some((base, query)) = url.split_once('?') else {
        return Ok(Settings { url: url.to_owned(), is_pooled: false });
    };
    let mut is_pooled = false;
    let mut kept = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if let Some((_, advice)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(refused(format!("`{name}` is not offered: {advice}")));
        }
        if let Some((_, values, advice)) = FIXED.iter().find(|(fixed, ..)| *fixed == name) {
            if !values.contains(&value) {
                return Err(refused(format!("`{name}={value}`: {advice}")));
            }
            continue;
        }
        match name {
            "pgbouncer" => is_pooled = boolean(name, value)?,
            "keepalives" => kept.push(format!("keepalives={}", u8::from(boolean(name, value)?))),
            "keepalives_count" => kept.push(format!("keepalives_retries={value}")),
            // Milliseconds in libpq, seconds in the driver.
            "tcp_user_timeout" => kept.push(format!("tcp_user_timeout={}", seconds(name, value)?)),
            "fallback_application_name" if !has(query, "application_name") => {
                kept.push(format!("application_name={value}"));
            }
            "fallback_application_name" => {}
            "target_session_attrs" => kept.extend(target(value)?.map(|value| format!("{name}={value}"))),
            "sslrootcert" if value == "system" => {
                if !query.split('&').any(|part| part == "sslmode=verify-full") {
                    return Err(refused("`sslrootcert=system` needs `sslmode=verify-full`".to_owned()));
                }
            }
            _ => kept.push(part.to_owned()),
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok(Settings { url: format!("{base}{query}"), is_pooled })
}

fn has(query: &str, name: &str) -> bool {
    query.split('&').any(|part| part.split_once('=').is_some_and(|(found, _)| found == name))
}

/// A password with an `@` in it hides where the host begins.
fn no_raw_at(url: &str) -> Result<(), ConfigError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err(refused(
            "more than one `@` before the host: in a password, write `%40` for it".to_owned(),
        ));
    }
    Ok(())
}

fn boolean(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(refused(format!("`{name}={value}`: write `true` or `false`"))),
    }
}

/// Whole seconds of some milliseconds, and no less than one; 0 stays 0.
fn seconds(name: &str, milliseconds: &str) -> Result<u64, ConfigError> {
    let number: u64 = milliseconds
        .parse()
        .map_err(|_| refused(format!("`{name}={milliseconds}`: write a number of milliseconds")))?;
    Ok(number.div_ceil(1000))
}

/// The driver's word for what is asked of a server; none: nothing is.
fn target(value: &str) -> Result<Option<&'static str>, ConfigError> {
    match value {
        "any" => Ok(None),
        // A primary that refuses writes does not serve as one.
        "read-write" | "primary" => Ok(Some("read-write")),
        "read-only" | "standby" => Ok(Some("read-only")),
        "prefer-standby" => Err(refused(
            "`target_session_attrs=prefer-standby` is not offered: name the standby first and leave it out"
                .to_owned(),
        )),
        other => Err(refused(format!(
            "`target_session_attrs={other}`: write `any`, `read-write`, `read-only`, `primary` or `standby`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Settings, settings};

    #[test]
    fn settings_of_libpq_are_taken_over() {
        for (query, kept, is_pooled) in [
            ("", "", false),
            ("?pgbouncer=true", "", true),
            ("?pgbouncer=1&sslmode=require", "?sslmode=require", true),
            ("?pgbouncer=ON", "", true),
            ("?pgbouncer=no", "", false),
            (
                "?keepalives=off&keepalives_count=3&keepalives_idle=9",
                "?keepalives=0&keepalives_retries=3&keepalives_idle=9",
                false,
            ),
            ("?tcp_user_timeout=1500&connect_timeout=2", "?tcp_user_timeout=2&connect_timeout=2", false),
            ("?fallback_application_name=a", "?application_name=a", false),
            ("?fallback_application_name=a&application_name=b", "?application_name=b", false),
            ("?target_session_attrs=any&gssencmode=disable&client_encoding=UTF8&sslsni=1", "", false),
            ("?target_session_attrs=primary", "?target_session_attrs=read-write", false),
            ("?target_session_attrs=standby", "?target_session_attrs=read-only", false),
            ("?host=a,b&port=1,2", "?host=a,b&port=1,2", false),
            ("?sslmode=verify-full&sslrootcert=system", "?sslmode=verify-full", false),
        ] {
            let url = format!("postgres://u@h/d{query}");
            assert_eq!(
                settings(&url).unwrap(),
                Settings { url: format!("postgres://u@h/d{kept}"), is_pooled },
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name_with_advice() {
        for (query, words) in [
            ("passfile=x", "`passfile` is not offered: write the password"),
            ("service=x", "`service` is not offered"),
            ("gssencmode=require", "`gssencmode=require`: GSSAPI"),
            ("pgbouncer=maybe", "write `true` or `false`"),
            ("target_session_attrs=prefer-standby", "name the standby first"),
            ("target_session_attrs=rw", "write `any`, `read-write`"),
            ("ssl_min_protocol_version=TLSv1.3", "TLS 1.2 and 1.3"),
            ("client_encoding=latin1", "texts are UTF-8"),
            ("sslrootcert=system", "needs `sslmode=verify-full`"),
            ("replication=database", "runs no statements"),
            ("tcp_user_timeout=soon", "number of milliseconds"),
        ] {
            let error = settings(&format!("postgres://u@h/d?{query}")).unwrap_err().to_string();
            assert!(error.contains(words), "{query}: {error}");
        }
        let error = settings("postgres://ada:p@ss@h/d").unwrap_err().to_string();
        assert!(error.contains("write `%40`") && !error.contains("p@ss"), "{error}");
        settings("postgres://ada:p%40ss@h/d?application_name=a@b").unwrap();
    }
}
