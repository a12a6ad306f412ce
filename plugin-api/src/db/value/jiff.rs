//! Dates and times of `jiff`: PostgreSQL's `date`, `time`, `timestamp` and `timestamptz`; in SQLite, text of the
//! same form.
//!
//! Moments are stored in UTC. PostgreSQL rounds to microseconds. `infinity`, years outside of 1 to 9999 and the hour
//! 24:00 are errors.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

use super::moment::{self, Clock, Day, conversions, moments, no_such};
use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value};
use crate::db::array::Element;
use crate::db::array::elements;

elements! { Date Time DateTime Timestamp }

/// Smaller numbers than the parts have: those that do not fit are no days either.
fn narrow<T, N: TryFrom<T>>(number: T) -> Result<N, Mismatch> {
    no_such(N::try_from(number).ok())
}

fn date(day: Day) -> Result<Date, Mismatch> {
    no_such(Date::new(narrow(day.year)?, narrow(day.month)?, narrow(day.day)?).ok())
}

fn time(clock: Clock) -> Result<Time, Mismatch> {
    let Clock { hour, minute, second, nanosecond } = clock;
    no_such(Time::new(narrow(hour)?, narrow(minute)?, narrow(second)?, narrow(nanosecond)?).ok())
}

fn both((day, clock): (Day, Clock)) -> Result<DateTime, Mismatch> {
    Ok(date(day)?.to_datetime(time(clock)?))
}

fn timestamp((day, clock, offset): (Day, Clock, i32)) -> Result<Timestamp, Mismatch> {
    let offset = no_such(Offset::from_seconds(offset).ok())?;
    no_such(offset.to_timestamp(both((day, clock))?).ok())
}

/// The parts of a value, which are never negative but for the year.
fn part<T, N: TryFrom<T> + Default>(number: T) -> N {
    N::try_from(number).unwrap_or_default()
}

fn day_of(date: Date) -> Day {
    Day { year: date.year().into(), month: part(date.month()), day: part(date.day()) }
}

fn clock_of(time: Time) -> Clock {
    Clock {
        hour: part(time.hour()),
        minute: part(time.minute()),
        second: part(time.second()),
        nanosecond: part(time.subsec_nanosecond()),
    }
}

conversions! {
    Date, "civil::Date", moment::day, date, |date: &Date| moment::day_text(day_of(*date));
    Time, "civil::Time", moment::clock, time, |time: &Time| moment::clock_text(clock_of(*time));
    DateTime, "civil::DateTime", moment::civil, both,
        |both: &DateTime| moment::civil_text(day_of(both.date()), clock_of(both.time()));
}

moments! {
    Timestamp, "Timestamp", timestamp, |timestamp: &Timestamp| {
        let utc = Offset::UTC.to_datetime(*timestamp);
        moment::moment_text(day_of(utc.date()), clock_of(utc.time()))
    };
}
