//! Values and a rule become a state. Pure: every line of the tables in CloudWatch's guide ("Configuring how CloudWatch
//! alarms treat missing data") is a test below.
//!
//! More periods are looked at than the rule names ([`EXTRA`]), so that one late datapoint is no missing datapoint.

use serde::{Deserialize, Serialize};

/// Periods that are looked at beyond those that the rule names; the guide's examples have two.
pub const EXTRA: i64 = 2;

/// What an alarm is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The threshold is not crossed.
    #[serde(rename = "OK")]
    Ok,
    /// It is.
    #[serde(rename = "ALARM")]
    Alarm,
    /// Nobody knows.
    #[serde(rename = "INSUFFICIENT_DATA")]
    InsufficientData,
}

impl State {
    /// The API's word.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Alarm => "ALARM",
            State::InsufficientData => "INSUFFICIENT_DATA",
        }
    }

    /// By the API's word.
    pub fn named(name: &str) -> Option<State> {
        [State::Ok, State::Alarm, State::InsufficientData].into_iter().find(|s| s.name() == name)
    }
}

/// When a value crosses the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// ≥
    GreaterThanOrEqualToThreshold,
    /// >
    GreaterThanThreshold,
    /// <
    LessThanThreshold,
    /// ≤
    LessThanOrEqualToThreshold,
}

impl Comparison {
    /// Whether a value crosses the threshold.
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Comparison::GreaterThanOrEqualToThreshold => value >= threshold,
            Comparison::GreaterThanThreshold => value > threshold,
            Comparison::LessThanThreshold => value < threshold,
            Comparison::LessThanOrEqualToThreshold => value <= threshold,
        }
    }

    /// In the words of CloudWatch's reasons.
    pub fn words(self) -> &'static str {
        match self {
            Comparison::GreaterThanOrEqualToThreshold => "greater than or equal to",
            Comparison::GreaterThanThreshold => "greater than",
            Comparison::LessThanThreshold => "less than",
            Comparison::LessThanOrEqualToThreshold => "less than or equal to",
        }
    }
}

/// What a period without a datapoint counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MissingData {
    /// Unknown.
    #[default]
    #[serde(rename = "missing")]
    Missing,
    /// Nothing: the state stays.
    #[serde(rename = "ignore")]
    Ignore,
    /// A crossed threshold.
    #[serde(rename = "breaching")]
    Breaching,
    /// A threshold that is not crossed.
    #[serde(rename = "notBreaching")]
    NotBreaching,
}

/// When an alarm is in alarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Periods that count.
    pub evaluation_periods: usize,
    /// So many of them must cross the threshold.
    pub datapoints_to_alarm: usize,
    /// How.
    pub comparison: Comparison,
    /// What.
    pub threshold: f64,
    /// What missing ones are.
    pub missing: MissingData,
}

/// What the values say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This state.
    State(State),
    /// Nothing: the state stays.
    Retain,
}

/// Decides. `values` are those of all periods looked at, oldest first.
pub fn evaluate(rule: &Rule, values: &[Option<f64>]) -> Verdict {
    let (periods, needed) = (rule.evaluation_periods, rule.datapoints_to_alarm);
    let breaches = |value: f64| rule.comparison.breaches(value, rule.threshold);
    let verdict = |breaching: usize| Verdict::State(if breaching >= needed { State::Alarm } else { State::Ok });
    let real: Vec<bool> = values.iter().flatten().map(|v| breaches(*v)).collect();
    // Enough real datapoints: the newest decide, and what missing ones are is of no interest.
    if real.len() >= periods {
        return verdict(real[real.len() - periods..].iter().filter(|b| **b).count());
    }
    let breaching = real.iter().filter(|b| **b).count();
    match rule.missing {
        MissingData::Breaching => return verdict(breaching + periods - real.len()),
        MissingData::NotBreaching => return verdict(breaching),
        MissingData::Missing | MissingData::Ignore => {}
    }
    if breaching >= needed {
        return Verdict::State(State::Alarm);
    }
    if breaching < real.len() {
        return Verdict::State(State::Ok);
    }
    if rule.missing == MissingData::Ignore {
        return Verdict::Retain;
    }
    if real.is_empty() {
        return Verdict::State(State::InsufficientData);
    }
    // Only crossed thresholds, and too few. The guide: in alarm if the oldest of them is at least as old as the number
    // that is needed. Otherwise it says nothing; we keep the state, so that a gap in the data does not end an alarm.
    let window = &values[values.len().saturating_sub(periods)..];
    let age = window.iter().position(Option::is_some).map_or(0, |oldest| window.len() - oldest);
    if age >= needed { Verdict::State(State::Alarm) } else { Verdict::Retain }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `0` keeps the threshold, `X` crosses it, `-` is missing.
    fn values(text: &str) -> Vec<Option<f64>> {
        text.chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| match c {
                '0' => Some(0.0),
                'X' => Some(9.0),
                _ => None,
            })
            .collect()
    }

    fn decided(text: &str, periods: usize, needed: usize, missing: MissingData) -> &'static str {
        let rule = Rule {
            evaluation_periods: periods,
            datapoints_to_alarm: needed,
            comparison: Comparison::GreaterThanThreshold,
            threshold: 1.0,
            missing,
        };
        match evaluate(&rule, &values(text)) {
            Verdict::State(state) => state.name(),
            Verdict::Retain => "RETAIN",
        }
    }

    const TREATMENTS: [MissingData; 4] =
        [MissingData::Missing, MissingData::Ignore, MissingData::Breaching, MissingData::NotBreaching];

    fn table(periods: usize, needed: usize, lines: &[(&str, [&str; 4])]) {
        for (text, expected) in lines {
            let found = TREATMENTS.map(|missing| decided(text, periods, needed, missing));
            assert_eq!(found, *expected, "{text}");
        }
    }

    #[test]
    fn three_of_three_as_in_the_guide() {
        table(
            3,
            3,
            &[
                ("0 - X - X", ["OK", "OK", "OK", "OK"]),
                ("- - - - 0", ["OK", "OK", "OK", "OK"]),
                ("- - - - -", ["INSUFFICIENT_DATA", "RETAIN", "ALARM", "OK"]),
                ("0 X X - X", ["ALARM", "ALARM", "ALARM", "ALARM"]),
                ("- - X - -", ["ALARM", "RETAIN", "ALARM", "OK"]),
            ],
        );
    }

    #[test]
    fn two_of_three_as_in_the_guide() {
        table(
            3,
            2,
            &[
                ("0 - X - X", ["ALARM", "ALARM", "ALARM", "ALARM"]),
                ("0 0 X 0 X", ["ALARM", "ALARM", "ALARM", "ALARM"]),
                ("0 - X - -", ["OK", "OK", "ALARM", "OK"]),
                ("- - - - 0", ["OK", "OK", "ALARM", "OK"]),
                ("- - - X -", ["ALARM", "RETAIN", "ALARM", "OK"]),
            ],
        );
    }

    #[test]
    fn one_crossed_threshold_beside_nothing_neither_raises_nor_ends_an_alarm_of_two() {
        assert_eq!(decided("- - - - X", 3, 2, MissingData::Missing), "RETAIN");
        assert_eq!(decided("- - - - X", 3, 2, MissingData::Breaching), "ALARM");
    }

    #[test]
    fn a_device_that_fell_silent_is_in_alarm_when_all_periods_are_empty() {
        for (text, expected) in [("X 0 0", "OK"), ("0 0 -", "OK"), ("0 - -", "OK"), ("- - -", "ALARM")] {
            assert_eq!(decided(text, 1, 1, MissingData::Breaching), expected, "{text}");
        }
    }

    #[test]
    fn each_comparison_at_its_threshold() {
        use Comparison::*;
        let found = |c: Comparison| [0.0, 1.0, 2.0].map(|v| c.breaches(v, 1.0));
        assert_eq!(found(GreaterThanOrEqualToThreshold), [false, true, true]);
        assert_eq!(found(GreaterThanThreshold), [false, false, true]);
        assert_eq!(found(LessThanThreshold), [true, false, false]);
        assert_eq!(found(LessThanOrEqualToThreshold), [true, true, false]);
    }
}
