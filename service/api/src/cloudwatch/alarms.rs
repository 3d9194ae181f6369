//! Alarms: put, describe, delete, set, history. What an alarm does by itself is in `belvedere_watch`.

use super::metrics::pairs;
use super::{
    COMBINATION, Context, INVALID, LIMIT, MISSING, NOT_FOUND, Refused, TOKEN, VALIDATION, checked, milliseconds, shapes,
};
use crate::Api;
use crate::wire::Output;
use belvedere_store::alarms::{Alarm, NewHistory};
use belvedere_store::metrics::MetricName;
use belvedere_watch::alarms::{self as watched, PutError};
use belvedere_watch::definition::{Definition, Dimension};
use belvedere_watch::evaluation::State;
use belvedere_watch::message::arn;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Alarms on a page when nobody says how many.
const PAGE: usize = 50;

impl From<PutError> for Refused {
    fn from(e: PutError) -> Self {
        match e {
            PutError::Invalid(message) => Refused::new(VALIDATION, message),
            PutError::TooMany => Refused::new(LIMIT, e.to_string()),
            PutError::Store(e) => e.into(),
        }
    }
}

/// `PutMetricAlarm`.
pub async fn put_metric_alarm(api: &Api, region: &str, input: Map<String, Value>) -> Result<(), Refused> {
    let definition = definition_of(input)?;
    Ok(watched::put(&api.fleet.store, &api.fleet.settings.account, region, &definition).await?)
}

/// What `PutMetricAlarm`'s input means; also for templates, whose `AWS::CloudWatch::Alarm` has the same properties.
pub fn definition_of(input: Map<String, Value>) -> Result<Definition, Refused> {
    let mut input = checked(shapes::PUT_METRIC_ALARM, input)?;
    for name in ["Metrics", "ExtendedStatistic", "ThresholdMetricId"] {
        if input.get(name).is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty())) {
            let message = format!(
                "{name} is not available: an alarm of this service watches one metric by one of its plain statistics."
            );
            return Err(Refused::new(COMBINATION, message));
        }
    }
    for name in ["MetricName", "Namespace", "Statistic", "Period", "Threshold"] {
        if !input.contains_key(name) {
            return Err(Refused::new(MISSING, format!("The parameter {name} is required.")));
        }
    }
    if input["ComparisonOperator"].as_str().is_some_and(|c| c.contains("Lower") || c.contains("Upper")) {
        return Err(Refused::new(COMBINATION, "Anomaly detection is not available: compare with a Threshold."));
    }
    if let Some(Value::Array(dimensions)) = input.get("Dimensions") {
        let dimensions = dimensions.iter().filter_map(|d| serde_json::from_value::<Dimension>(d.clone()).ok()).collect();
        pairs(dimensions)?;
    }
    input.retain(|name, _| !["Metrics", "Tags", "EvaluateLowSampleCountPercentile"].contains(&name.as_str()));
    super::typed(input)
}

fn shown(alarm: &Alarm, account: &str) -> Result<Output, Refused> {
    let d = watched::definition(alarm)?;
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let dimensions: Vec<Output> = d
        .dimensions
        .iter()
        .map(|d| Output::structure().with("Name", d.name.as_str()).with("Value", d.value.as_str()))
        .collect();
    Ok(Output::structure()
        .with("AlarmName", alarm.name.as_str())
        .with("AlarmArn", arn(&alarm.region, account, &alarm.name))
        .with_some("AlarmDescription", d.alarm_description)
        .with("AlarmConfigurationUpdatedTimestamp", Output::Time(alarm.configured_ms))
        .with("ActionsEnabled", d.actions_enabled)
        .with("OKActions", d.ok_actions)
        .with("AlarmActions", d.alarm_actions)
        .with("InsufficientDataActions", d.insufficient_data_actions)
        .with("StateValue", alarm.state.as_str())
        .with("StateReason", alarm.reason.as_str())
        .with_some("StateReasonData", alarm.reason_data.as_deref())
        .with("StateUpdatedTimestamp", Output::Time(alarm.state_updated_ms))
        .with("StateTransitionedTimestamp", Output::Time(alarm.state_updated_ms))
        .with("MetricName", d.metric_name)
        .with("Namespace", d.namespace)
        .with("Statistic", d.statistic.name())
        .with("Dimensions", dimensions)
        .with("Period", d.period)
        .with_some("Unit", d.unit)
        .with("EvaluationPeriods", d.evaluation_periods)
        .with_some("DatapointsToAlarm", d.datapoints_to_alarm)
        .with("Threshold", d.threshold)
        .with("ComparisonOperator", word(json!(d.comparison_operator)))
        .with("TreatMissingData", word(json!(d.treat_missing_data))))
}

/// `DescribeAlarms`' input.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Describe {
    alarm_names: Option<Vec<String>>,
    alarm_name_prefix: Option<String>,
    alarm_types: Vec<String>,
    children_of_alarm_name: Option<String>,
    parents_of_alarm_name: Option<String>,
    state_value: Option<String>,
    action_prefix: Option<String>,
    max_records: Option<usize>,
    next_token: Option<String>,
}

/// `DescribeAlarms`, by name.
pub async fn describe(api: &Api, context: &Context, input: Describe) -> Result<Output, Refused> {
    if input.alarm_names.as_ref().is_some_and(|n| !n.is_empty()) && input.alarm_name_prefix.is_some() {
        return Err(Refused::new(COMBINATION, "AlarmNames and AlarmNamePrefix cannot be used together."));
    }
    let none = input.alarm_types.iter().any(|t| t == "CompositeAlarm")
        && !input.alarm_types.iter().any(|t| t == "MetricAlarm")
        || input.children_of_alarm_name.is_some()
        || input.parents_of_alarm_name.is_some();
    let after = input.next_token.filter(|t| !t.is_empty());
    if after.as_ref().is_some_and(|t| t.chars().count() > 255) {
        return Err(Refused::new(TOKEN, "The token is not one of this service's."));
    }
    let mut found = Vec::new();
    let size = input.max_records.unwrap_or(PAGE);
    let (mut next, mut last_name) = (None, None);
    let alarms = if none { Vec::new() } else { api.fleet.store.list_alarms().await? };
    for alarm in alarms {
        let definition = watched::definition(&alarm)?;
        let mut actions =
            definition.ok_actions.iter().chain(&definition.alarm_actions).chain(&definition.insufficient_data_actions);
        let fits = after.as_ref().is_none_or(|last| alarm.name > *last)
            && input.alarm_names.as_ref().is_none_or(|names| names.is_empty() || names.contains(&alarm.name))
            && input.alarm_name_prefix.as_ref().is_none_or(|prefix| alarm.name.starts_with(prefix))
            && input.state_value.as_ref().is_none_or(|state| alarm.state == *state)
            && input.action_prefix.as_ref().is_none_or(|prefix| actions.any(|a| a.starts_with(prefix)));
        if !fits {
            continue;
        }
        if found.len() == size {
            next = last_name;
            break;
        }
        found.push(shown(&alarm, &context.account)?);
        last_name = Some(alarm.name);
    }
    let composite = Vec::<Output>::new();
    Ok(Output::structure().with("CompositeAlarms", composite).with("MetricAlarms", found).with_some("NextToken", next))
}

/// `DescribeAlarmsForMetric`'s input.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForMetric {
    metric_name: String,
    namespace: String,
    statistic: Option<String>,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    period: Option<i64>,
    unit: Option<String>,
}

/// `DescribeAlarmsForMetric`.
pub async fn describe_for_metric(api: &Api, context: &Context, input: ForMetric) -> Result<Output, Refused> {
    let metric = MetricName::new(input.namespace, input.metric_name, pairs(input.dimensions)?);
    let mut found = Vec::new();
    for alarm in api.fleet.store.list_alarms().await? {
        let definition = watched::definition(&alarm)?;
        if definition.metric() == metric
            && input.statistic.as_deref().is_none_or(|s| definition.statistic.name() == s)
            && input.period.is_none_or(|p| definition.period == p)
            && input.unit.as_ref().is_none_or(|u| definition.unit.as_ref() == Some(u))
        {
            found.push(shown(&alarm, &context.account)?);
        }
    }
    Ok(Output::structure().with("MetricAlarms", found))
}

/// Names of alarms.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Names {
    alarm_names: Vec<String>,
}

/// `DeleteAlarms`: all or none.
pub async fn delete(api: &Api, input: Names) -> Result<Output, Refused> {
    let mut names = input.alarm_names;
    names.sort();
    names.dedup();
    match remove(api, &names).await? {
        true => Ok(Output::structure()),
        false => Err(Refused::new(NOT_FOUND, "One of the alarms does not exist; none was deleted.")),
    }
}

/// Deletes alarms, all or, if one is not there, none (`false`). Also for stacks.
pub async fn remove(api: &Api, names: &[String]) -> Result<bool, Refused> {
    let history = NewHistory {
        kind: "ConfigurationUpdate",
        summary: "Alarm deleted".into(),
        data: json!({ "version": "1.0", "type": "Delete" }).to_string(),
    };
    Ok(api.fleet.store.delete_alarms(names, &history).await?)
}

/// `EnableAlarmActions`, `DisableAlarmActions`. Names that do not exist are passed over, as CloudWatch does.
pub async fn enable_actions(api: &Api, input: Names, enabled: bool) -> Result<Output, Refused> {
    for name in input.alarm_names {
        let Some(alarm) = api.fleet.store.alarm(&name).await? else { continue };
        let definition = Definition { actions_enabled: enabled, ..watched::definition(&alarm)? };
        watched::put(&api.fleet.store, &api.fleet.settings.account, &alarm.region, &definition).await?;
    }
    Ok(Output::structure())
}

/// `SetAlarmState`'s input.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SetState {
    alarm_name: String,
    state_value: State,
    state_reason: String,
    state_reason_data: Option<String>,
}

/// `SetAlarmState`: until the alarm is looked at next.
pub async fn set_state(api: &Api, context: &Context, input: SetState) -> Result<Output, Refused> {
    if input.state_reason_data.as_ref().is_some_and(|data| serde_json::from_str::<Value>(data).is_err()) {
        return Err(Refused::new("InvalidFormat", "StateReasonData is not JSON."));
    }
    // Whoever else changes the alarm at this moment goes first.
    for _ in 0..5 {
        let alarm = api.fleet.store.alarm(&input.alarm_name).await?;
        let alarm =
            alarm.ok_or_else(|| Refused::new(NOT_FOUND, format!("The alarm {} does not exist.", input.alarm_name)))?;
        let data = input.state_reason_data.as_deref();
        let store = &api.fleet.store;
        if watched::set_state(store, &context.account, &alarm, input.state_value, &input.state_reason, data).await? {
            return Ok(Output::structure());
        }
    }
    Err(Refused::new(INVALID, "The alarm changes too fast."))
}

/// `DescribeAlarmHistory`'s input.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct DescribeHistory {
    alarm_name: Option<String>,
    history_item_type: Option<String>,
    start_date: Option<f64>,
    end_date: Option<f64>,
    max_records: Option<usize>,
    next_token: Option<String>,
    scan_by: Option<String>,
}

/// `DescribeAlarmHistory`, newest first; oldest first only within what fits on a page.
pub async fn history(api: &Api, input: DescribeHistory) -> Result<Output, Refused> {
    let before = match input.next_token.as_deref() {
        None | Some("") => i64::MAX,
        Some(token) => token.parse().map_err(|_| Refused::new(TOKEN, "The token is not one of this service's."))?,
    };
    let size = input.max_records.unwrap_or(100);
    let (from, to) = (input.start_date.map_or(0, milliseconds), input.end_date.map_or(i64::MAX, milliseconds));
    let (alarm, kind) = (input.alarm_name.as_deref(), input.history_item_type.as_deref());
    let mut items = api.fleet.store.alarm_history(alarm, kind, from, to, before, size + 1).await?;
    let more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| more).map(|i| i.sequence.to_string());
    if input.scan_by.as_deref() == Some("TimestampAscending") {
        items.reverse();
    }
    let items: Vec<Output> = items
        .into_iter()
        .map(|item| {
            Output::structure()
                .with("AlarmName", item.alarm)
                .with("AlarmType", "MetricAlarm")
                .with("Timestamp", Output::Time(item.created_ms))
                .with("HistoryItemType", item.kind)
                .with("HistorySummary", item.summary)
                .with("HistoryData", item.data)
        })
        .collect();
    Ok(Output::structure().with("AlarmHistoryItems", items).with_some("NextToken", next))
}
