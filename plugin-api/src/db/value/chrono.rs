//! Dates and times of `chrono`: PostgreSQL's `date`, `time`, `timestamp` and `timestamptz`; in SQLite, text of
//! the same form.
//!
//! Moments are stored in UTC. PostgreSQL rounds to microseconds. `infinity`, years outside of 1 to 9999 on their way to
//! a database, years before Christ on their way back, leap seconds and the hour 24:00 are errors.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc};

use super::moment::{self, Clock, Day, conversions, moments, no_such};
use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value};
use crate::db::array::Element;
use crate::db::array::elements;

elements! { NaiveDate NaiveTime NaiveDateTime DateTime<Utc> DateTime<FixedOffset> }

fn date(day: Day) -> Result<NaiveDate, Mismatch> {
    no_such(NaiveDate::from_ymd_opt(day.year, day.month.into(), day.day.into()))
}

fn time(clock: Clock) -> Result<NaiveTime, Mismatch> {
    let Clock { hour, minute, second, nanosecond } = clock;
    no_such(NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond))
}

fn both((day, clock): (Day, Clock)) -> Result<NaiveDateTime, Mismatch> {
    Ok(date(day)?.and_time(time(clock)?))
}

fn with_offset((day, clock, offset): (Day, Clock, i32)) -> Result<DateTime<FixedOffset>, Mismatch> {
    let offset = no_such(FixedOffset::east_opt(offset))?;
    no_such(offset.from_local_datetime(&both((day, clock))?).single())
}

fn in_utc(parts: (Day, Clock, i32)) -> Result<DateTime<Utc>, Mismatch> {
    with_offset(parts).map(|moment| moment.to_utc())
}

/// Parts of a value; chrono counts them in wider types than they need.
fn day_of(date: &impl Datelike) -> Day {
    let narrow = |number: u32| u8::try_from(number).unwrap_or_default();
    Day { year: date.year(), month: narrow(date.month()), day: narrow(date.day()) }
}

fn clock_of(time: &impl Timelike) -> Clock {
    let narrow = |number: u32| u8::try_from(number).unwrap_or_default();
    Clock {
        hour: narrow(time.hour()),
        minute: narrow(time.minute()),
        second: narrow(time.second()),
        nanosecond: time.nanosecond(),
    }
}

conversions! {
    NaiveDate, "NaiveDate", moment::day, date, |date| moment::day_text(day_of(date));
    NaiveTime, "NaiveTime", moment::clock, time, |time| moment::clock_text(clock_of(time));
    NaiveDateTime, "NaiveDateTime", moment::civil, both, |both| moment::civil_text(day_of(both), clock_of(both));
}

moments! {
    DateTime<Utc>, "DateTime<Utc>", in_utc, |utc| moment::moment_text(day_of(utc), clock_of(utc));
    DateTime<FixedOffset>, "DateTime<FixedOffset>", with_offset, |there: &DateTime<FixedOffset>| {
        let utc = there.to_utc();
        moment::moment_text(day_of(&utc), clock_of(&utc))
    };
}
