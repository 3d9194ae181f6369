//! What an alarm watches: the input of `PutMetricAlarm`, and what it may be beyond the shapes of its members. Pure.

use crate::evaluation::{Comparison, MissingData, Rule};
use crate::statistics::Statistic;
use belvedere_store::metrics::MetricName;
use serde::{Deserialize, Serialize};

/// Longest time that an alarm may look at, in seconds: a day, a week with periods of an hour or more.
const LONGEST_S: i64 = 86_400;
const LONGEST_OF_HOURS_S: i64 = 604_800;

/// A dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Dimension {
    /// `DeviceId`.
    pub name: String,
    /// `device-…`.
    pub value: String,
}

/// What an alarm watches and whom it tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Definition {
    /// Unique.
    pub alarm_name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_description: Option<String>,
    /// Whether anybody is told.
    #[serde(default = "yes")]
    pub actions_enabled: bool,
    /// Whom to tell that it is over.
    #[serde(default, rename = "OKActions")]
    pub ok_actions: Vec<String>,
    /// Whom to tell that it began.
    #[serde(default)]
    pub alarm_actions: Vec<String>,
    /// Whom to tell that nobody knows.
    #[serde(default)]
    pub insufficient_data_actions: Vec<String>,
    /// Which metric.
    pub metric_name: String,
    /// Its namespace.
    pub namespace: String,
    /// What is compared.
    pub statistic: Statistic,
    /// The metric's dimensions.
    #[serde(default)]
    pub dimensions: Vec<Dimension>,
    /// Seconds.
    pub period: i64,
    /// Samples of this unit only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Periods that count.
    pub evaluation_periods: i64,
    /// So many of them; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapoints_to_alarm: Option<i64>,
    /// What it is compared with.
    pub threshold: f64,
    /// How.
    pub comparison_operator: Comparison,
    /// What missing datapoints are.
    #[serde(default)]
    pub treat_missing_data: MissingData,
}

fn yes() -> bool {
    true
}

/// Name of a topic in this account, of its ARN: `arn:aws:sns:<region>:<account>:<name>`.
pub fn topic_of<'a>(arn: &'a str, account: &str) -> Option<&'a str> {
    let mut parts = arn.split(':');
    let head = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (name, rest) = (parts.next()?, parts.next());
    let ours = head.0 == "arn" && head.1 == "aws" && head.2 == "sns" && !head.3.is_empty() && head.4 == account;
    (ours && rest.is_none() && !name.is_empty()).then_some(name)
}

impl Definition {
    /// What is wrong with it, if anything.
    pub fn fault(&self, account: &str) -> Option<String> {
        if self.period < 60 || self.period % 60 != 0 {
            return Some("Period must be a multiple of 60: samples are kept in minutes".into());
        }
        let longest = if self.period >= 3600 { LONGEST_OF_HOURS_S } else { LONGEST_S };
        if self.evaluation_periods.checked_mul(self.period).is_none_or(|s| s > longest) {
            return Some(format!(
                "Metrics cannot be checked across more than {longest} seconds (EvaluationPeriods * Period)"
            ));
        }
        if self.datapoints_to_alarm.is_some_and(|n| n > self.evaluation_periods) {
            return Some("DatapointsToAlarm must be less than or equal to EvaluationPeriods".into());
        }
        let actions = self.ok_actions.iter().chain(&self.alarm_actions).chain(&self.insufficient_data_actions);
        for action in actions {
            if topic_of(action, account).is_none() {
                let form = format!("arn:aws:sns:<region>:{account}:<topic>");
                return Some(format!("Invalid arn syntax: {action}: an action is a topic of this account, {form}"));
            }
        }
        None
    }

    /// The metric.
    pub fn metric(&self) -> MetricName {
        let dimensions = self.dimensions.iter().map(|d| (d.name.clone(), d.value.clone())).collect();
        MetricName::new(&self.namespace, &self.metric_name, dimensions)
    }

    /// When it is in alarm.
    pub fn rule(&self) -> Rule {
        let periods = self.evaluation_periods.max(1) as usize;
        Rule {
            evaluation_periods: periods,
            datapoints_to_alarm: self.datapoints_to_alarm.map_or(periods, |n| n.max(1) as usize),
            comparison: self.comparison_operator,
            threshold: self.threshold,
            missing: self.treat_missing_data,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ACCOUNT: &str = "123456789012";

    pub(crate) fn definition(change: Value) -> Definition {
        let mut whole = json!({
            "AlarmName": "silent", "MetricName": "DeviceActive", "Namespace": "PanoramaDeviceMetrics",
            "Statistic": "Average", "Dimensions": [{"Name": "DeviceId", "Value": "device-a"}], "Period": 60,
            "EvaluationPeriods": 5, "Threshold": 1, "ComparisonOperator": "LessThanThreshold",
            "TreatMissingData": "breaching", "AlarmActions": ["arn:aws:sns:us-east-1:123456789012:people"],
        });
        whole.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn limits_are_kept_at_and_past_each() {
        for good in [
            json!({}),
            json!({"Period": 60, "EvaluationPeriods": 1440}),
            json!({"Period": 3600, "EvaluationPeriods": 168}),
            json!({"DatapointsToAlarm": 5}),
        ] {
            assert_eq!(definition(good.clone()).fault(ACCOUNT), None, "{good}");
        }
        for (bad, word) in [
            (json!({"Period": 30}), "Period"),
            (json!({"Period": 61}), "Period"),
            (json!({"Period": 60, "EvaluationPeriods": 1441}), "86400"),
            (json!({"Period": 3600, "EvaluationPeriods": 169}), "604800"),
            (json!({"Period": 60, "EvaluationPeriods": i64::MAX}), "86400"),
            (json!({"DatapointsToAlarm": 6}), "DatapointsToAlarm"),
            (json!({"OKActions": ["arn:aws:sns:us-east-1:999999999999:people"]}), "arn"),
            (json!({"AlarmActions": ["arn:aws:lambda:us-east-1:123456789012:function:f"]}), "arn"),
            (json!({"InsufficientDataActions": ["people"]}), "arn"),
        ] {
            let fault = definition(bad.clone()).fault(ACCOUNT);
            assert!(fault.as_deref().is_some_and(|f| f.contains(word)), "{bad}: {fault:?}");
        }
    }

    #[test]
    fn a_topic_is_the_last_part_of_its_arn() {
        assert_eq!(topic_of("arn:aws:sns:eu-west-1:123456789012:people", ACCOUNT), Some("people"));
        for bad in ["arn:aws:sns:eu-west-1:123456789012:", "arn:aws:sns:eu-west-1:123456789012:a:b", "people", ""] {
            assert_eq!(topic_of(bad, ACCOUNT), None, "{bad}");
        }
    }
}
