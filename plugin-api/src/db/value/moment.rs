//! Dates and times as text, in the one form that both databases order: `2024-02-29 23:59:58.010203+00:00`.
//!
//! Owns the form, for all crates of dates and times: none of their own parsers, which differ in what they pass over.
//!
//! # Invariants
//!
//! - Nothing is passed over: an offset, a time or a digit that the wanted type has no place for is a mismatch.
//! - A moment is written in UTC, so that texts of moments are in the order of the moments.

use crate::db::Value;
use crate::db::value::{Mismatch, ParameterError, other_kind};

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) year: i32,
    pub(super) month: u8,
    pub(super) day: u8,
}

/// A time of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) nanosecond: u32,
}

/// What a text holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    day: Option<Day>,
    clock: Option<Clock>,
    /// Seconds east of UTC.
    offset: Option<i32>,
}

/// A text that no date or time is written as, or one that the wanted type cannot hold.
fn unreadable(reason: impl Into<String>) -> Mismatch {
    Mismatch::Unreadable { reason: reason.into() }
}

/// What a value of no such kind is to the crate's type: `out of range`.
pub(super) fn no_such<T>(value: Option<T>) -> Result<T, Mismatch> {
    value.ok_or_else(|| unreadable("there is no such day or time, or not in this type"))
}

/// A date and nothing else.
pub(super) fn day(value: Value<'_>) -> Result<Day, Mismatch> {
    match held(value)? {
        Held { day: Some(day), clock: None, .. } => Ok(day),
        Held { clock: Some(_), .. } => Err(unreadable("it has a time of day, which a date would lose")),
        Held { .. } => Err(unreadable("it is no date")),
    }
}

/// A time of day and nothing else.
pub(super) fn clock(value: Value<'_>) -> Result<Clock, Mismatch> {
    match held(value)? {
        Held { day: None, clock: Some(clock), offset: None } => Ok(clock),
        Held { offset: Some(_), .. } => Err(unreadable("it has an offset from UTC, which a time would lose")),
        Held { .. } => Err(unreadable("it is no time of day")),
    }
}

/// A date with its time, of no zone.
pub(super) fn civil(value: Value<'_>) -> Result<(Day, Clock), Mismatch> {
    match held(value)? {
        Held { day: Some(day), clock: Some(clock), offset: None } => Ok((day, clock)),
        Held { offset: Some(_), .. } => {
            Err(unreadable("it has an offset from UTC, which a date and time without zone would lose"))
        }
        Held { .. } => Err(unreadable("it is no date with its time")),
    }
}

/// A moment: a date, its time, and the seconds from UTC. Without an offset it is UTC, which is what SQLite's
/// functions and `CURRENT_TIMESTAMP` mean; unless `type_name` says that the column has a type, which then has no zone.
pub(super) fn moment(value: Value<'_>, type_name: &str) -> Result<(Day, Clock, i32), Mismatch> {
    match held(value)? {
        Held { day: Some(_), clock: Some(_), offset: None } if !type_name.is_empty() => Err(unreadable(
            "it has no offset from UTC, so it is no moment: read it as a date and time without zone",
        )),
        Held { day: Some(day), clock: Some(clock), offset } => Ok((day, clock, offset.unwrap_or(0))),
        Held { .. } => Err(unreadable("it is no date with its time")),
    }
}

fn held(value: Value<'_>) -> Result<Held, Mismatch> {
    let Value::Text(text) = value else { return Err(other_kind(value)) };
    if let Some(strange) = ["infinity", "BC"].into_iter().find(|strange| text.ends_with(strange)) {
        return Err(unreadable(format!("`{strange}` has no form in this type")));
    }
    read(text).ok_or_else(|| {
        unreadable("it is not written as `2024-02-29 23:59:58.123456+00:00` or a part of that")
    })
}

/// `None`: it is written otherwise.
fn read(text: &str) -> Option<Held> {
    let mut rest = Rest(text.as_bytes());
    let has_day = text.as_bytes().iter().skip(1).take_while(|byte| **byte != b':').any(|byte| *byte == b'-');
    let day = if has_day { Some(rest.day()?) } else { None };
    if rest.0.is_empty() {
        return Some(Held { day, clock: None, offset: None });
    }
    if has_day {
        rest.one_of(b" Tt")?;
    }
    let clock = rest.clock()?;
    let offset = if rest.0.is_empty() { None } else { Some(rest.offset()?) };
    rest.0.is_empty().then_some(Held { day, clock: Some(clock), offset })
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        bytes.contains(&first).then(|| {
            self.0 = rest;
            first
        })
    }

    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn two(&mut self) -> Option<u8> {
        self.number(2, 2).and_then(|number| u8::try_from(number).ok())
    }

    fn day(&mut self) -> Option<Day> {
        let is_negative = self.one_of(b"+-") == Some(b'-');
        let year = i32::try_from(self.number(4, 6)?).ok()?;
        self.one_of(b"-")?;
        let month = self.two()?;
        self.one_of(b"-")?;
        Some(Day { year: if is_negative { -year } else { year }, month, day: self.two()? })
    }

    fn clock(&mut self) -> Option<Clock> {
        let hour = self.two()?;
        self.one_of(b":")?;
        let minute = self.two()?;
        let (mut second, mut nanosecond) = (0, 0);
        if self.one_of(b":").is_some() {
            second = self.two()?;
            if self.one_of(b".").is_some() {
                let before = self.0.len();
                let digits = self.number(1, 9)?;
                nanosecond = digits * 10_u32.pow(9 - u32::try_from(before - self.0.len()).ok()?);
            }
        }
        // Some crates take the 60th second for the 59th.
        (hour < 24 && minute < 60 && second < 60).then_some(Clock { hour, minute, second, nanosecond })
    }

    fn offset(&mut self) -> Option<i32> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let mut seconds = i32::from(self.two()?) * 3_600;
        for unit in [60, 1] {
            if self.0.is_empty() {
                break;
            }
            self.one_of(b":");
            seconds += i32::from(self.two().filter(|part| *part < 60)?) * unit;
        }
        Some(sign * seconds)
    }
}

/// A date, if both databases order it.
pub(super) fn day_text(day: Day) -> Result<String, ParameterError> {
    let Day { year, month, day } = day;
    if !(1..=9999).contains(&year) {
        let reason = format!("the year {year} is outside of 1 to 9999, which both databases order");
        return Err(ParameterError::Unwritable { reason });
    }
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

/// A time of day, with as many digits of its second as it needs: three, six or nine.
pub(super) fn clock_text(clock: Clock) -> Result<String, ParameterError> {
    let Clock { hour, minute, second, nanosecond } = clock;
    let whole = format!("{hour:02}:{minute:02}:{second:02}");
    match nanosecond {
        0 => Ok(whole),
        1_000_000_000.. => Err(ParameterError::Unwritable {
            reason: "it is in a leap second, which no database stores".to_owned(),
        }),
        _ if nanosecond % 1_000_000 == 0 => Ok(format!("{whole}.{:03}", nanosecond / 1_000_000)),
        _ if nanosecond % 1_000 == 0 => Ok(format!("{whole}.{:06}", nanosecond / 1_000)),
        _ => Ok(format!("{whole}.{nanosecond:09}")),
    }
}

/// A date with its time, of no zone.
pub(super) fn civil_text(day: Day, clock: Clock) -> Result<String, ParameterError> {
    Ok(format!("{} {}", day_text(day)?, clock_text(clock)?))
}

/// A moment, given in UTC.
pub(super) fn moment_text(day: Day, clock: Clock) -> Result<String, ParameterError> {
    Ok(civil_text(day, clock)? + "+00:00")
}

/// The conversions of one crate's types.
macro_rules! conversions {
    ($($type:ty, $name:literal, $read:path, $make:expr, $write:expr;)*) => {$(
        impl FromValue<'_> for $type {
            const NAME: &'static str = $name;

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                $make($read(value)?)
            }
        }

        impl ToValue for $type {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                $write(self).map(Parameter::Text)
            }
        }
    )*};
}

/// The conversions of one crate's moments.
macro_rules! moments {
    ($($type:ty, $name:literal, $make:expr, $write:expr;)*) => {$(
        impl FromValue<'_> for $type {
            const NAME: &'static str = $name;
            const NEEDS_TYPE: bool = true;

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                Self::from_typed(value, "")
            }

            fn from_typed(value: Value<'_>, type_name: &str) -> Result<Self, Mismatch> {
                $make(moment::moment(value, type_name)?)
            }
        }

        impl ToValue for $type {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                $write(self).map(Parameter::Text)
            }
        }
    )*};
}

pub(super) use {conversions, moments};
