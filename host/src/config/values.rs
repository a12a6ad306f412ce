//! Values that are written as text: sizes, levels, and the nearest known word.

use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(pub LevelFilter);

impl LogLevel {
    /// The words for the levels, the quietest first.
    pub const WORDS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        let level = match text.to_ascii_lowercase().as_str() {
            "off" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            other => {
                let nearest = nearest(other, &LogLevel::WORDS);
                let meant = nearest.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
                return Err(format!("must be one of {}{meant}", LogLevel::WORDS.join(", ")));
            }
        };
        Ok(LogLevel(level))
    }
}

/// A time, or `off`: `10s`, `500ms`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffOr(pub Option<Duration>);

impl FromStr for OffOr {
    type Err = String;

    fn from_str(text: &str) -> Result<OffOr, String> {
        let wanted = || "must be a time such as 10s, 500ms or 2m, or `off`".to_owned();
        let text = text.trim();
        if text.eq_ignore_ascii_case("off") {
            return Ok(OffOr(None));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wanted())?;
        let time = match unit.trim_start() {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" | "min" => Duration::from_secs(number.checked_mul(60).ok_or_else(wanted)?),
            _ => return Err(wanted()),
        };
        if time.is_zero() { Err(wanted()) } else { Ok(OffOr(Some(time))) }
    }
}

/// The number of bytes that `text` means: `65536`, `64 KiB`, `2MiB`, `1 MB`.
///
/// # Errors
///
/// What it has to be, when it is not.
pub fn size(text: &str) -> Result<usize, String> {
    let wanted =
        || "must be a size: a number of bytes, or with a unit as in \"64 KiB\" or \"2 MiB\"".to_owned();
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| wanted())?;
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "kb" => 1000,
        "m" | "mib" => 1 << 20,
        "mb" => 1_000_000,
        "g" | "gib" => 1 << 30,
        "gb" => 1_000_000_000,
        _ => return Err(wanted()),
    };
    number.checked_mul(factor).ok_or_else(|| "is more than this machine can count".to_owned())
}

/// The word that `typed` was probably meant to be.
pub fn nearest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    let distance = |word: &str| strsim::damerau_levenshtein(typed, word);
    let found = words.iter().copied().min_by_key(|word| distance(word))?;
    let is_near = distance(found) <= 1 + found.len() / 4;
    // `timeout_ms` for `idle_timeout_ms`: a part of the word is no typing error, but as clear.
    let is_part = typed.len() >= 4 && found.contains(typed);
    let partial = words.iter().copied().find(|word| typed.len() >= 4 && word.contains(typed));
    if is_near || is_part { Some(found) } else { partial }
}
