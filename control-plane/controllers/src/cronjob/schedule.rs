//! Cron schedules in a time zone. Pure.

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use jiff::Timestamp;

/// A schedule that was read.
#[derive(Clone, Debug)]
pub enum Schedule {
    Fields(Fields),
    /// `@every`: this many seconds after the last time.
    Every(i64),
}

/// Allowed values as bits.
#[derive(Clone, Debug)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// `*` in days or weekdays: then both must match, else one suffices.
    any_day: bool,
    zone: Tz,
}

/// Why a schedule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("unknown time zone {0}")]
    Zone(String),
    #[error("unparseable schedule {0:?}")]
    Text(String),
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Bits of a field, and whether it is a plain star.
fn bits(field: &str, low: u32, high: u32, names: &[&str], first: u32) -> Option<(u64, bool)> {
    let number = |text: &str| -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        let named = names.iter().position(|n| *n == lower).map(|at| at as u32 + first);
        named.or_else(|| text.parse().ok())
    };
    let (mut result, mut star) = (0u64, false);
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|s| *s > 0)?)),
            None => (part, None),
        };
        let (from, to) = if range == "*" || range == "?" {
            star |= step.is_none_or(|s| s == 1);
            (low, high)
        } else if let Some((from, to)) = range.split_once('-') {
            (number(from)?, number(to)?)
        } else {
            let from = number(range)?;
            (from, if step.is_some() { high } else { from })
        };
        if from < low || to > high || from > to {
            return None;
        }
        (from..=to).step_by(step.unwrap_or(1) as usize).for_each(|n| result |= 1 << n);
    }
    Some((result, star))
}

/// Seconds of a Go duration such as `1h30m`.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units: [(&str, f64); 7] =
            [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
        let (unit, scale) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        nanos += value * scale;
        rest = &rest[unit.len()..];
    }
    Some(((nanos / 1e9) as i64).max(1))
}

impl Schedule {
    /// Reads a schedule; `zone` is `spec.timeZone`, else UTC (upstream: the controller's own zone).
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let bad = || ScheduleError::Text(text.to_owned());
        let prefixed = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let (own_zone, spec) = match prefixed {
            Some(rest) => {
                rest.split_once(' ').map(|(zone, spec)| (Some(zone), spec.trim())).ok_or_else(bad)?
            }
            None => (None, text.trim()),
        };
        let zone: Tz = match zone.or(own_zone) {
            Some(name) => name.parse().map_err(|_| ScheduleError::Zone(name.to_owned()))?,
            None => Tz::UTC,
        };
        if let Some(every) = spec.strip_prefix("@every ") {
            return duration(every.trim()).map(Schedule::Every).ok_or_else(bad);
        }
        let spec = match spec {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = spec.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else { return Err(bad()) };
        let (days, any_day) = bits(day, 1, 31, &[], 0).ok_or_else(bad)?;
        let (weekdays, any_weekday) = bits(weekday, 0, 6, &DAYS, 0).ok_or_else(bad)?;
        Ok(Schedule::Fields(Fields {
            minutes: bits(minute, 0, 59, &[], 0).ok_or_else(bad)?.0,
            hours: bits(hour, 0, 23, &[], 0).ok_or_else(bad)?.0,
            days,
            months: bits(month, 1, 12, &MONTHS, 1).ok_or_else(bad)?.0,
            weekdays,
            any_day: any_day || any_weekday,
            zone,
        }))
    }

    /// The first time after `after`; `None` when there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => Timestamp::from_second(after.as_second() + seconds).ok(),
            Schedule::Fields(fields) => fields.next(after),
        }
    }
}

impl Fields {
    fn day_matches(&self, at: &DateTime<Tz>) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().num_days_from_sunday() & 1 == 1;
        if self.any_day { day && weekday } else { day || weekday }
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = DateTime::<Utc>::from_timestamp(minute * 60, 0)?.with_timezone(&self.zone);
        let end = at + TimeDelta::days(5 * 366);
        while at < end {
            let to_midnight = || TimeDelta::minutes(i64::from((23 - at.hour()) * 60 + 60 - at.minute()));
            let step = if self.months >> at.month() & 1 == 0 || !self.day_matches(&at) {
                // To the next midnight on the wall; clock changes on the way are put right by the hour below.
                let next = at + to_midnight();
                if next.day() == at.day() {
                    TimeDelta::hours(1)
                } else {
                    next - at - TimeDelta::minutes(back_to_midnight(&next))
                }
            } else if self.hours >> at.hour() & 1 == 0 {
                TimeDelta::minutes(i64::from(60 - at.minute()))
            } else if self.minutes >> at.minute() & 1 == 0 {
                TimeDelta::minutes(1)
            } else {
                return Timestamp::from_second(at.timestamp()).ok();
            };
            at += step.max(TimeDelta::minutes(1));
        }
        None
    }
}

/// Minutes past midnight, when the step overshot because the clock was put forward.
fn back_to_midnight(at: &DateTime<Tz>) -> i64 {
    i64::from(at.hour() * 60 + at.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, zone: Option<&str>, after: &str, expected: &str) {
        let next = Schedule::parse(spec, zone).unwrap().next(after.parse().unwrap());
        assert_eq!(next.map(|t| t.to_string()).as_deref(), Some(expected), "{spec} after {after}");
    }

    #[test]
    fn next_times() {
        check("*/15 * * * *", None, "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z");
        check("0 0 * * *", None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        check("30 4 1 * *", None, "2026-01-15T00:00:00Z", "2026-02-01T04:30:00Z");
        check("0 0 29 2 *", None, "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("0 12 * * mon-fri", None, "2026-01-02T13:00:00Z", "2026-01-05T12:00:00Z");
        check("0 0 13 * 5", None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"); // either day suffices
        check("@hourly", None, "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z");
        check("@every 90s", None, "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z");
    }

    #[test]
    fn time_zones_and_clock_changes() {
        check("0 9 * * *", Some("America/New_York"), "2026-01-01T00:00:00Z", "2026-01-01T14:00:00Z");
        check("0 9 * * *", Some("America/New_York"), "2026-07-01T00:00:00Z", "2026-07-01T13:00:00Z");
        check("TZ=Asia/Tokyo 0 9 * * *", None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        // 02:30 does not exist on 29 March 2026 in Berlin: the next is a day later.
        check("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z");
        check("0 0 * * *", Some("Europe/Berlin"), "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check("0 0 * * *", Some("Europe/Berlin"), "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    }

    #[test]
    fn mistakes() {
        assert!(matches!(Schedule::parse("* * * *", None), Err(ScheduleError::Text(_))));
        assert!(matches!(Schedule::parse("61 * * * *", None), Err(ScheduleError::Text(_))));
        assert!(matches!(Schedule::parse("* * * * *", Some("Nowhere/City")), Err(ScheduleError::Zone(_))));
        assert_eq!(
            Schedule::parse("0 0 30 2 *", None).unwrap().next("2026-01-01T00:00:00Z".parse().unwrap()),
            None
        );
    }
}
