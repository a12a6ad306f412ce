//! The text of values that have no kind of their own, as PostgreSQL prints them with
//! `DateStyle = ISO`, `IntervalStyle = postgres` and `TimeZone = UTC`.
//!
//! # Invariants
//!
//! - Bytes of a wrong length are `None`, never a panic.

use std::fmt::Write as _;

/// Days from 1970-01-01 to PostgreSQL's 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// What a value is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Print {
    Date,
    Interval,
    Jsonb,
    Numeric,
    Time,
    Timestamp,
    TimestampUtc,
    Uuid,
}

impl Print {
    /// Appends the text of a value in binary format.
    pub(super) fn write(self, bytes: &[u8], out: &mut String) -> Option<()> {
        match self {
            Print::Date => date(i32::from_be_bytes(bytes.try_into().ok()?), out),
            Print::Interval => interval(bytes, out)?,
            Print::Jsonb => match bytes.split_first()? {
                (1, text) => out.push_str(std::str::from_utf8(text).ok()?),
                _ => return None,
            },
            Print::Numeric => numeric(bytes, out)?,
            Print::Time => clock(i64::from_be_bytes(bytes.try_into().ok()?), out),
            Print::Timestamp => timestamp(i64::from_be_bytes(bytes.try_into().ok()?), "", out),
            Print::TimestampUtc => timestamp(i64::from_be_bytes(bytes.try_into().ok()?), "+00", out),
            Print::Uuid => uuid(bytes, out)?,
        }
        Some(())
    }
}

/// Appends formatted text. Writing to a `String` cannot fail.
macro_rules! push {
    ($out:expr, $($arg:tt)*) => { let _ = write!($out, $($arg)*); };
}

fn uuid(bytes: &[u8], out: &mut String) -> Option<()> {
    if bytes.len() != 16 {
        return None;
    }
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        push!(out, "{byte:02x}");
    }
    Some(())
}

fn date(days: i32, out: &mut String) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            let era = calendar(i64::from(days), out);
            out.push_str(era);
        }
    }
}

fn timestamp(micros: i64, zone: &str, out: &mut String) {
    match micros {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        micros => {
            let era = calendar(micros.div_euclid(MICROS_PER_DAY), out);
            out.push(' ');
            clock(micros.rem_euclid(MICROS_PER_DAY), out);
            out.push_str(zone);
            out.push_str(era);
        }
    }
}

/// Appends `year-month-day` of a day counted from 2000-01-01; returns what ends the whole text.
fn calendar(days: i64, out: &mut String) -> &'static str {
    // Counted in eras of 400 years that begin on a 1 March, so that a leap day ends its year.
    let shifted = days + EPOCH_DAYS + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // There is no year 0: before year 1 comes 1 BC.
    let (year, suffix) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    push!(out, "{year:04}-{month:02}-{day:02}");
    suffix
}

/// Appends `hours:minutes:seconds`, with a fraction where there is one.
fn clock(micros: i64, out: &mut String) {
    let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    push!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

fn interval(bytes: &[u8], out: &mut String) -> Option<()> {
    let micros = i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let days = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    let months = i32::from_be_bytes(bytes.get(12..)?.try_into().ok()?);
    let mut is_empty = true;
    let mut was_negative = false;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let space = if is_empty { "" } else { " " };
            let sign = if was_negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            push!(out, "{space}{sign}{count} {unit}{plural}");
            is_empty = false;
            was_negative = count < 0;
        }
    }
    if is_empty || micros != 0 {
        let space = if is_empty { "" } else { " " };
        let sign = match (micros < 0, was_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        push!(out, "{space}{sign}");
        clock(i64::try_from(micros.unsigned_abs()).ok()?, out);
    }
    Some(())
}

/// `numeric`: groups of four decimal digits, the first worth 10000 to the power of `weight`.
fn numeric(bytes: &[u8], out: &mut String) -> Option<()> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (count, weight) = (usize::from(word(0)?), i32::from(word(2)?.cast_signed()));
    let (sign, scale) = (word(4)?, usize::from(word(6)?));
    match sign {
        0x0000 => {}
        0x4000 => out.push('-'),
        0xC000 => return special("NaN", out),
        0xD000 => return special("Infinity", out),
        0xF000 => return special("-Infinity", out),
        _ => return None,
    }
    if bytes.len() != 8 + 2 * count {
        return None;
    }
    // Groups outside of those that were sent are zero.
    let group = |place: i32| {
        let sent = usize::try_from(place).ok().filter(|place| *place < count);
        sent.map_or(Some(0), |place| word(8 + 2 * place))
    };
    if weight < 0 {
        out.push('0');
    }
    for place in 0..=weight {
        let digits = group(place)?;
        if place == 0 {
            push!(out, "{digits}");
        } else {
            push!(out, "{digits:04}");
        }
    }
    if scale > 0 {
        out.push('.');
        let start = out.len();
        let mut place = weight + 1;
        // With a negative weight the groups between the point and the first one sent come first.
        if weight < -1 {
            out.extend(std::iter::repeat_n('0', 4 * usize::try_from(-1 - weight).ok()?));
            place = 0;
        }
        while out.len() - start < scale {
            push!(out, "{:04}", group(place)?);
            place += 1;
        }
        out.truncate(start + scale);
    }
    Some(())
}

fn special(name: &str, out: &mut String) -> Option<()> {
    out.push_str(name);
    Some(())
}
