//! Types of the standard library that databases print as text: addresses, durations, characters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value};
use crate::db::array::Element;

impl Element for IpAddr {}
impl Element for Ipv4Addr {}
impl Element for Ipv6Addr {}
impl Element for Duration {}
impl Element for char {}

/// PostgreSQL's `inet`, of one host; in SQLite, text.
impl FromValue<'_> for IpAddr {
    const NAME: &'static str = "IpAddr";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        let text = <&str>::from_value(value)?;
        let (host, mask) = text.split_once('/').map_or((text, None), |(host, mask)| (host, Some(mask)));
        let address: IpAddr = host.parse().map_err(Mismatch::unreadable)?;
        match mask {
            None => Ok(address),
            Some("32") if address.is_ipv4() => Ok(address),
            Some("128") if address.is_ipv6() => Ok(address),
            Some(_) => Err(Mismatch::Unreadable { reason: "it is a network and no single host".to_owned() }),
        }
    }
}

/// Addresses of one version.
macro_rules! addresses {
    ($($type:ident, $name:literal, $version:ident;)*) => {$(
        impl FromValue<'_> for $type {
            const NAME: &'static str = $name;

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                match IpAddr::from_value(value)? {
                    IpAddr::$version(address) => Ok(address),
                    _ => Err(Mismatch::Unreadable { reason: "it is of the other version".to_owned() }),
                }
            }
        }
    )*};
}

addresses! {
    Ipv4Addr, "Ipv4Addr", V4;
    Ipv6Addr, "Ipv6Addr", V6;
}

/// Types whose text is their own.
macro_rules! printed {
    ($($type:ty)*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                Ok(Parameter::Text(self.to_string()))
            }
        }
    )*};
}

printed! { IpAddr Ipv4Addr Ipv6Addr char }

/// A text of one character.
impl FromValue<'_> for char {
    const NAME: &'static str = "char";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        let mut characters = <&str>::from_value(value)?.chars();
        match (characters.next(), characters.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(Mismatch::Unreadable { reason: "it is not one character".to_owned() }),
        }
    }
}

/// PostgreSQL's `interval`, which rounds to microseconds; in SQLite, text: `26:00:00.5`. A day is 24 hours; months and
/// years, which have no length, are errors, and what is less than nothing.
impl FromValue<'_> for Duration {
    const NAME: &'static str = "Duration";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        duration(<&str>::from_value(value)?)
            .map_err(|reason| Mismatch::Unreadable { reason: reason.to_owned() })
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const STRANGE: &str = "it is not written as `1 day 02:03:04.5`";
    let mut whole = Duration::ZERO;
    let mut words = text.split_ascii_whitespace().peekable();
    if words.peek().is_none() {
        return Err(STRANGE);
    }
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            return Err("it is less than nothing");
        }
        let part = if word.contains(':') {
            clock(word).ok_or(STRANGE)?
        } else {
            let days: u64 = word.parse().map_err(|_| STRANGE)?;
            match words.next() {
                Some("day" | "days") => days.checked_mul(86_400).map(Duration::from_secs).ok_or(STRANGE)?,
                Some("mon" | "mons" | "year" | "years") => return Err("months and years have no length"),
                _ => return Err(STRANGE),
            }
        };
        whole = whole.checked_add(part).ok_or(STRANGE)?;
    }
    Ok(whole)
}

/// `02:03:04.5`, with as many hours as there are.
fn clock(text: &str) -> Option<Duration> {
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if ![hours, minutes, seconds, fraction].iter().all(is_number) || fraction.len() > 9 {
        return None;
    }
    let (hours, minutes, seconds): (u64, u64, u64) =
        (hours.parse().ok()?, minutes.parse().ok()?, seconds.parse().ok()?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = hours.checked_mul(3_600)?.checked_add(minutes * 60 + seconds)?;
    Some(Duration::new(seconds, nanoseconds))
}

impl ToValue for Duration {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        let (seconds, fraction) = (self.as_secs(), self.subsec_nanos());
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        Ok(Parameter::Text(match fraction {
            0 => clock,
            _ => format!("{clock}.{}", format!("{fraction:09}").trim_end_matches('0')),
        }))
    }
}
