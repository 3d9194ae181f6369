//! Datapoints of any resolution become values of a period. Pure.

use belvedere_store::metrics::{Datapoint, Sum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is said about the samples of a period. Percentiles need the samples themselves, which are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statistic {
    /// How many.
    SampleCount,
    /// Their mean.
    Average,
    /// Their sum.
    Sum,
    /// The smallest.
    Minimum,
    /// The greatest.
    Maximum,
}

impl Statistic {
    /// All of them, under the API's names.
    pub const NAMES: [&str; 5] = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"];

    /// By its name; `None` for percentiles and the like.
    pub fn named(name: &str) -> Option<Statistic> {
        match name {
            "SampleCount" => Some(Statistic::SampleCount),
            "Average" => Some(Statistic::Average),
            "Sum" => Some(Statistic::Sum),
            "Minimum" => Some(Statistic::Minimum),
            "Maximum" => Some(Statistic::Maximum),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Statistic::SampleCount => "SampleCount",
            Statistic::Average => "Average",
            Statistic::Sum => "Sum",
            Statistic::Minimum => "Minimum",
            Statistic::Maximum => "Maximum",
        }
    }

    /// Its value.
    pub fn of(self, sum: &Sum) -> f64 {
        match self {
            Statistic::SampleCount => sum.samples,
            Statistic::Average if sum.samples > 0.0 => sum.total / sum.samples,
            Statistic::Average => 0.0,
            Statistic::Sum => sum.total,
            Statistic::Minimum => sum.smallest,
            Statistic::Maximum => sum.greatest,
        }
    }
}

/// Periods of `period_s` seconds from `origin_ms` on, by unit and start. Datapoints that are coarser than the period
/// are left out: nobody knows how they lay in it.
pub fn periods<'a>(points: &'a [Datapoint], origin_ms: i64, period_s: i64) -> BTreeMap<(i64, &'a str), Sum> {
    let length = period_s.max(1) * 1000;
    let mut found: BTreeMap<(i64, &'a str), Sum> = BTreeMap::new();
    for point in points.iter().filter(|p| p.period_s <= period_s && p.start_ms >= origin_ms) {
        let start = point.start_ms - (point.start_ms - origin_ms).rem_euclid(length);
        found.entry((start, &point.unit)).and_modify(|sum| *sum = sum.with(point.sum)).or_insert(point.sum);
    }
    found
}

/// The same whatever the unit, or of one unit only.
pub fn merged(points: &[Datapoint], unit: Option<&str>, origin_ms: i64, period_s: i64) -> BTreeMap<i64, Sum> {
    let mut found: BTreeMap<i64, Sum> = BTreeMap::new();
    for ((start, of), sum) in periods(points, origin_ms, period_s) {
        if unit.is_none_or(|unit| unit == of) {
            found.entry(start).and_modify(|known| *known = known.with(sum)).or_insert(sum);
        }
    }
    found
}

/// Where the first period begins: whole minutes for what is kept in minutes, coarser for what is older, as CloudWatch
/// documents it.
pub fn origin(start_ms: i64, now_ms: i64) -> i64 {
    const DAY: i64 = 24 * 3600 * 1000;
    let unit_s = match now_ms - start_ms {
        age if age < 15 * DAY => 60,
        age if age < 63 * DAY => 300,
        _ => 3600,
    };
    start_ms - start_ms.rem_euclid(unit_s * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(period_s: i64, minute: i64, unit: &str, value: f64) -> Datapoint {
        Datapoint { period_s, start_ms: minute * 60_000, unit: unit.into(), sum: Sum::one(value) }
    }

    #[test]
    fn minutes_become_longer_periods_from_where_the_question_begins() {
        let points = [point(60, 3, "Count", 1.0), point(60, 4, "Count", 2.0), point(60, 8, "Count", 4.0)];
        let found = merged(&points, None, 3 * 60_000, 300);
        assert_eq!(found.keys().map(|k| k / 60_000).collect::<Vec<_>>(), [3, 8]);
        let sum = found[&(3 * 60_000)];
        let values: Vec<f64> = Statistic::NAMES.iter().map(|n| Statistic::named(n).unwrap().of(&sum)).collect();
        assert_eq!(values, [2.0, 1.5, 3.0, 1.0, 2.0]);
        assert_eq!(Statistic::named("p99"), None);
    }

    #[test]
    fn units_stay_apart_unless_they_do_not_matter() {
        let points = [point(60, 1, "Count", 1.0), point(60, 1, "Bytes", 8.0)];
        assert_eq!(periods(&points, 0, 60).len(), 2);
        assert_eq!(merged(&points, None, 0, 60)[&60_000].samples, 2.0);
        assert_eq!(merged(&points, Some("Bytes"), 0, 60)[&60_000].total, 8.0);
    }

    #[test]
    fn what_is_kept_in_hours_does_not_answer_for_minutes() {
        let points = [point(3600, 60, "Count", 1.0)];
        assert!(merged(&points, None, 0, 60).is_empty());
        assert_eq!(merged(&points, None, 0, 3600).len(), 1);
    }

    #[test]
    fn the_first_period_begins_at_a_whole_unit_of_what_is_kept() {
        const DAY: i64 = 24 * 3600 * 1000;
        let now = 500 * DAY;
        let inside = 59 * 60_000 + 59_000;
        assert_eq!(origin(now - DAY + inside, now), now - DAY + 59 * 60_000);
        assert_eq!(origin(now - 20 * DAY + inside, now), now - 20 * DAY + 55 * 60_000);
        assert_eq!(origin(now - 70 * DAY + inside, now), now - 70 * DAY);
    }
}
