//! Dates and times of the crate `time`: PostgreSQL's `date`, `time`, `timestamp` and `timestamptz`; in SQLite, text of
//! the same form.
//!
//! Moments are stored in UTC. PostgreSQL rounds to microseconds. `infinity`, years outside of 1 to 9999 and the hour
//! 24:00 are errors.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::moment::{self, Clock, Day, conversions, moments, no_such};
use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value};
use crate::db::array::Element;
use crate::db::array::elements;

elements! { Date Time PrimitiveDateTime OffsetDateTime }

fn date(day: Day) -> Result<Date, Mismatch> {
    let month = no_such(Month::try_from(day.month).ok())?;
    no_such(Date::from_calendar_date(day.year, month, day.day).ok())
}

fn time(clock: Clock) -> Result<Time, Mismatch> {
    let Clock { hour, minute, second, nanosecond } = clock;
    no_such(Time::from_hms_nano(hour, minute, second, nanosecond).ok())
}

fn both((day, clock): (Day, Clock)) -> Result<PrimitiveDateTime, Mismatch> {
    Ok(PrimitiveDateTime::new(date(day)?, time(clock)?))
}

fn with_offset((day, clock, offset): (Day, Clock, i32)) -> Result<OffsetDateTime, Mismatch> {
    let offset = no_such(UtcOffset::from_whole_seconds(offset).ok())?;
    Ok(both((day, clock))?.assume_offset(offset))
}

fn day_of(date: Date) -> Day {
    Day { year: date.year(), month: date.month().into(), day: date.day() }
}

fn clock_of(time: Time) -> Clock {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    Clock { hour, minute, second, nanosecond }
}

/// In UTC, which may lie beyond the years that the type has.
fn in_utc(moment: &OffsetDateTime) -> Result<String, ParameterError> {
    let utc = moment.checked_to_offset(UtcOffset::UTC).ok_or_else(|| ParameterError::Unwritable {
        reason: "it is outside of the years 1 to 9999, which both databases order".to_owned(),
    })?;
    moment::moment_text(day_of(utc.date()), clock_of(utc.time()))
}

conversions! {
    Date, "time::Date", moment::day, date, |date: &Date| moment::day_text(day_of(*date));
    Time, "time::Time", moment::clock, time, |time: &Time| moment::clock_text(clock_of(*time));
    PrimitiveDateTime, "PrimitiveDateTime", moment::civil, both,
        |both: &PrimitiveDateTime| moment::civil_text(day_of(both.date()), clock_of(both.time()));
}

moments! {
    OffsetDateTime, "OffsetDateTime", with_offset, in_utc;
}
