//! A change of state in CloudWatch's words: reasons for people and programs, history, and the message that subscribers
//! get. Pure.

use crate::definition::Definition;
use crate::evaluation::{MissingData, State};
use crate::text::{long, short};
use belvedere_store::alarms::{Alarm, NewHistory};
use serde_json::{Value, json};

/// What an evaluation looked at: starts of periods and their values, oldest first.
pub type Window = [(i64, Option<f64>)];

/// Longest reason, in characters, as the API bounds it.
const MAX_REASON: usize = 1023;
/// Values that a reason quotes.
const QUOTED: usize = 5;

fn number(value: f64) -> String {
    format!("{value:?}")
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Why a state, for people.
pub fn reason(definition: &Definition, window: &Window, state: State) -> String {
    let rule = definition.rule();
    let real: Vec<(i64, f64)> = window.iter().filter_map(|(start, value)| Some((*start, (*value)?))).collect();
    let counted = &real[real.len().saturating_sub(rule.evaluation_periods)..];
    let missing = rule.evaluation_periods - counted.len();
    if state == State::InsufficientData {
        let was = if missing == 1 { "was" } else { "were" };
        return format!("Insufficient Data: {} {was} unknown.", count(missing, "datapoint"));
    }
    let treated = match definition.treat_missing_data {
        MissingData::Breaching => "Breaching",
        MissingData::NotBreaching => "NonBreaching",
        MissingData::Missing => "Missing",
        MissingData::Ignore => "Ignored",
    };
    if counted.is_empty() {
        let (periods, was) = (count(missing, "period"), if missing == 1 { "was" } else { "were" });
        let datapoints = count(missing, "missing datapoint");
        return format!(
            "Threshold Crossed: no datapoints were received for {periods} and {datapoints} {was} treated as [{treated}]."
        );
    }
    let crosses = |value: f64| rule.comparison.breaches(value, rule.threshold);
    let told: Vec<&(i64, f64)> = counted.iter().filter(|(_, v)| crosses(*v) == (state == State::Alarm)).collect();
    let quoted: Vec<String> =
        told.iter().rev().take(QUOTED).map(|(s, v)| format!("{} ({})", number(*v), short(*s))).collect();
    let (was, not) = (if told.len() == 1 { "was" } else { "were" }, if state == State::Alarm { "" } else { "not " });
    let mut text = format!(
        "Threshold Crossed: {} out of the last {} [{}] {was} {not}{} the threshold ({})",
        told.len(),
        count(rule.evaluation_periods, "datapoint"),
        quoted.join(", "),
        rule.comparison.words(),
        number(rule.threshold),
    );
    if missing > 0 && matches!(definition.treat_missing_data, MissingData::Breaching | MissingData::NotBreaching) {
        text += &format!(" and {} treated as [{treated}]", count(missing, "missing datapoint"));
    }
    text += ".";
    text.chars().take(MAX_REASON).collect()
}

/// Why, for programs.
pub fn reason_data(definition: &Definition, window: &Window, at_ms: i64) -> String {
    let recent: Vec<Value> = window.iter().filter_map(|(_, v)| *v).rev().take(100).map(Into::into).collect();
    let mut data = json!({
        "version": "1.0",
        "queryDate": long(at_ms),
        "statistic": definition.statistic.name(),
        "period": definition.period,
        "recentDatapoints": recent.into_iter().rev().collect::<Vec<_>>(),
        "threshold": definition.threshold,
    });
    if let Some((start, _)) = window.first() {
        data["startDate"] = long(*start).into();
    }
    if let Some(unit) = &definition.unit {
        data["unit"] = unit.as_str().into();
    }
    data.to_string()
}

/// An alarm changes its state.
#[derive(Debug, Clone, Copy)]
pub struct Transition<'a> {
    /// As it was.
    pub alarm: &'a Alarm,
    /// What it watches.
    pub definition: &'a Definition,
    /// The new state.
    pub state: State,
    /// Why.
    pub reason: &'a str,
    /// Why, for programs.
    pub reason_data: Option<&'a str>,
    /// When.
    pub at_ms: i64,
}

/// ARN of an alarm.
pub fn arn(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:cloudwatch:{region}:{account}:alarm:{name}")
}

impl Transition<'_> {
    /// Whom to tell.
    pub fn actions(&self) -> &[String] {
        match self.state {
            _ if !self.definition.actions_enabled => &[],
            State::Ok => &self.definition.ok_actions,
            State::Alarm => &self.definition.alarm_actions,
            State::InsufficientData => &self.definition.insufficient_data_actions,
        }
    }

    /// The line above the message.
    pub fn subject(&self) -> String {
        // A topic's subject has at most 100 characters.
        format!("{}: \"{}\" in {}", self.state.name(), self.alarm.name, self.alarm.region).chars().take(100).collect()
    }

    /// The message, as CloudWatch writes it.
    pub fn message(&self, account: &str) -> String {
        let d = self.definition;
        let dimensions: Vec<Value> = d.dimensions.iter().map(|d| json!({ "value": d.value, "name": d.name })).collect();
        json!({
            "AlarmName": self.alarm.name,
            "AlarmDescription": d.alarm_description,
            "AWSAccountId": account,
            "AlarmConfigurationUpdatedTimestamp": long(self.alarm.configured_ms),
            "NewStateValue": self.state.name(),
            "NewStateReason": self.reason,
            "StateChangeTime": long(self.at_ms),
            "Region": self.alarm.region,
            "AlarmArn": arn(&self.alarm.region, account, &self.alarm.name),
            "OldStateValue": self.alarm.state,
            "OKActions": d.ok_actions,
            "AlarmActions": d.alarm_actions,
            "InsufficientDataActions": d.insufficient_data_actions,
            "Trigger": {
                "MetricName": d.metric_name,
                "Namespace": d.namespace,
                "StatisticType": "Statistic",
                "Statistic": d.statistic.name().to_uppercase(),
                "Unit": d.unit,
                "Dimensions": dimensions,
                "Period": d.period,
                "EvaluationPeriods": d.evaluation_periods,
                "DatapointsToAlarm": d.rule().datapoints_to_alarm,
                "ComparisonOperator": d.comparison_operator,
                "Threshold": d.threshold,
                "TreatMissingData": d.treat_missing_data,
                "EvaluateLowSampleCountPercentile": "",
            },
        })
        .to_string()
    }

    /// What is remembered of it.
    pub fn history(&self) -> NewHistory {
        let state = |value: &str, reason: &str, data: Option<&str>| {
            let data: Option<Value> = data.and_then(|d| serde_json::from_str(d).ok());
            json!({ "stateValue": value, "stateReason": reason, "stateReasonData": data })
        };
        NewHistory {
            kind: "StateUpdate",
            summary: format!("Alarm updated from {} to {}", self.alarm.state, self.state.name()),
            data: json!({
                "version": "1.0",
                "oldState": state(&self.alarm.state, &self.alarm.reason, self.alarm.reason_data.as_deref()),
                "newState": state(self.state.name(), self.reason, self.reason_data),
            })
            .to_string(),
        }
    }

    /// What is remembered of telling a topic, or of not being able to.
    pub fn action_history(&self, arn: &str, told: bool) -> NewHistory {
        let (state, error) = match told {
            true => ("Succeeded", None),
            false => ("Failed", Some("the topic does not exist")),
        };
        let summary = match told {
            true => format!("Successfully executed action {arn}"),
            false => format!("Failed to execute action {arn}"),
        };
        let data = json!({
            "actionState": state, "stateUpdateTimestamp": self.at_ms, "notificationResource": arn,
            "publishedMessage": told.then(|| self.subject()), "error": error,
        });
        NewHistory { kind: "Action", summary: summary.chars().take(255).collect(), data: data.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::definition;

    const MINUTE: i64 = 1_795_326_600_000;

    fn window(values: &[Option<f64>]) -> Vec<(i64, Option<f64>)> {
        values.iter().enumerate().map(|(n, v)| (MINUTE + n as i64 * 60_000, *v)).collect()
    }

    #[test]
    fn reasons_name_what_was_seen() {
        let d = definition(json!({ "EvaluationPeriods": 2 }));
        assert_eq!(
            reason(&d, &window(&[Some(1.0), None, Some(0.0), Some(0.5)]), State::Alarm),
            "Threshold Crossed: 2 out of the last 2 datapoints [0.5 (22/11/26 05:53:00), 0.0 (22/11/26 05:52:00)] \
             were less than the threshold (1.0)."
        );
        assert_eq!(
            reason(&d, &window(&[None, None, None, Some(0.0)]), State::Alarm),
            "Threshold Crossed: 1 out of the last 2 datapoints [0.0 (22/11/26 05:53:00)] was less than the threshold (1.0) \
             and 1 missing datapoint treated as [Breaching]."
        );
        assert_eq!(
            reason(&d, &window(&[None; 4]), State::Alarm),
            "Threshold Crossed: no datapoints were received for 2 periods and 2 missing datapoints were treated as [Breaching]."
        );
        assert_eq!(
            reason(&d, &window(&[None; 4]), State::InsufficientData),
            "Insufficient Data: 2 datapoints were unknown."
        );
        let ok = reason(&d, &window(&[Some(1.0), Some(1.0)]), State::Ok);
        assert!(ok.contains("were not less than the threshold (1.0)"), "{ok}");
    }

    #[test]
    fn the_message_has_the_members_that_receivers_of_cloudwatch_read() {
        let d = definition(json!({ "AlarmDescription": "silent" }));
        let alarm = Alarm {
            name: "silent".into(),
            region: "us-east-1".into(),
            definition: String::new(),
            state: "OK".into(),
            reason: "before".into(),
            reason_data: None,
            state_updated_ms: 0,
            configured_ms: MINUTE,
            version: 1,
        };
        let t = Transition {
            alarm: &alarm,
            definition: &d,
            state: State::Alarm,
            reason: "r",
            reason_data: Some("{}"),
            at_ms: MINUTE,
        };
        let message: Value = serde_json::from_str(&t.message("123456789012")).unwrap();
        assert_eq!(message["NewStateValue"], "ALARM");
        assert_eq!(message["OldStateValue"], "OK");
        assert_eq!(message["StateChangeTime"], "2026-11-22T05:50:00.000+0000");
        assert_eq!(message["AlarmArn"], "arn:aws:cloudwatch:us-east-1:123456789012:alarm:silent");
        assert_eq!(message["Trigger"]["Dimensions"][0], json!({ "name": "DeviceId", "value": "device-a" }));
        assert_eq!(message["Trigger"]["DatapointsToAlarm"], 5);
        assert_eq!(message["Trigger"]["TreatMissingData"], "breaching");
        assert_eq!(t.subject(), "ALARM: \"silent\" in us-east-1");
        assert_eq!(t.actions(), ["arn:aws:sns:us-east-1:123456789012:people"]);
        let mute = definition(json!({ "ActionsEnabled": false }));
        assert!(Transition { definition: &mute, ..t }.actions().is_empty());
    }
}
