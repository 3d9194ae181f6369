//! `PutMetricData`, `ListMetrics`.

use super::{COMBINATION, Context, INVALID, LIMIT, MISSING, Refused, TOKEN, milliseconds};
use crate::Api;
use crate::wire::Output;
use axum::http::StatusCode;
use belvedere_store::metrics::{Meeting, MetricName, Sample, Sum, Taken};
use belvedere_store::now_ms;
use belvedere_watch::definition::Dimension;
use serde::Deserialize;

const HOUR: i64 = 3600 * 1000;
const OLDEST: i64 = 14 * 24 * HOUR;
const NEWEST: i64 = 2 * HOUR;
/// Metrics on a page of `ListMetrics`.
const PAGE: usize = 500;
/// 2^360, as CloudWatch bounds values: sums of them stay finite.
const LARGEST: f64 = 2.348_542_582_773_833_2e108;

/// `PutMetricData`'s input.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Put {
    namespace: String,
    #[serde(default)]
    metric_data: Vec<Datum>,
}

/// Samples of a metric.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Datum {
    metric_name: String,
    dimensions: Vec<Dimension>,
    timestamp: Option<f64>,
    value: Option<f64>,
    statistic_values: Option<StatisticSet>,
    values: Vec<f64>,
    counts: Vec<f64>,
    unit: Option<String>,
}

/// Samples, added up by the caller.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "PascalCase")]
pub struct StatisticSet {
    sample_count: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
}

/// Dimensions as a metric has them.
pub(super) fn pairs(dimensions: Vec<Dimension>) -> Result<Vec<(String, String)>, Refused> {
    let mut pairs: Vec<(String, String)> = dimensions.into_iter().map(|d| (d.name, d.value)).collect();
    pairs.sort();
    match pairs.windows(2).find(|two| two[0].0 == two[1].0) {
        Some(two) => Err(Refused::new(INVALID, format!("The dimension {} is there twice.", two[0].0))),
        None => Ok(pairs),
    }
}

fn sum_of(datum: &Datum, at: &str) -> Result<Sum, Refused> {
    let within = |value: f64| (-LARGEST..=LARGEST).contains(&value);
    let invalid = |what: &str| Err(Refused::new(INVALID, format!("The value {what} for parameter {at} is invalid.")));
    let ways = usize::from(datum.value.is_some())
        + usize::from(datum.statistic_values.is_some())
        + usize::from(!datum.values.is_empty());
    match ways {
        0 => {
            return Err(Refused::new(
                MISSING,
                format!("At least one of the parameters {at}.Value, {at}.Values or {at}.StatisticValues must be specified."),
            ));
        }
        1 => {}
        _ => return Err(Refused::new(COMBINATION, format!("{at} must have one of Value, Values and StatisticValues."))),
    }
    if let Some(value) = datum.value {
        return if within(value) { Ok(Sum::one(value)) } else { invalid("Value") };
    }
    if let Some(set) = datum.statistic_values {
        let sound = [set.sum, set.minimum, set.maximum].into_iter().all(within)
            && set.sample_count > 0.0
            && within(set.sample_count)
            && set.minimum <= set.maximum;
        let sum = Sum { samples: set.sample_count, total: set.sum, smallest: set.minimum, greatest: set.maximum };
        return if sound { Ok(sum) } else { invalid("StatisticValues") };
    }
    if !datum.counts.is_empty() && datum.counts.len() != datum.values.len() {
        return Err(Refused::new(COMBINATION, format!("{at}.Values and {at}.Counts must have the same length.")));
    }
    let mut sum: Option<Sum> = None;
    for (index, value) in datum.values.iter().enumerate() {
        let count = datum.counts.get(index).copied().unwrap_or(1.0);
        if !within(*value) || !within(count) || count <= 0.0 {
            return invalid("Values");
        }
        let samples = Sum { samples: count, total: value * count, smallest: *value, greatest: *value };
        sum = Some(sum.map_or(samples, |known| known.with(samples)));
    }
    match sum.filter(|s| within(s.total)) {
        Some(sum) => Ok(sum),
        None => invalid("Values"),
    }
}

/// `PutMetricData`.
pub async fn put(api: &Api, context: &Context, input: Put) -> Result<Output, Refused> {
    if input.metric_data.is_empty() {
        return Err(Refused::new(MISSING, "The parameter MetricData is required."));
    }
    if input.namespace.starts_with("AWS/") {
        return Err(Refused::new(INVALID, "The value AWS/ for parameter Namespace is invalid."));
    }
    let now = now_ms();
    let mut samples = Vec::with_capacity(input.metric_data.len());
    for (index, datum) in input.metric_data.into_iter().enumerate() {
        let at = format!("MetricData.member.{}", index + 1);
        let sum = sum_of(&datum, &at)?;
        let time_ms = datum.timestamp.map_or(now, milliseconds);
        if time_ms < now - OLDEST || time_ms > now + NEWEST {
            let message =
                format!("The parameter {at}.Timestamp must specify a time within the past two weeks or the next two hours.");
            return Err(Refused::new(INVALID, message));
        }
        let metric = MetricName::new(&input.namespace, datum.metric_name, pairs(datum.dimensions)?);
        if !context.caller.may_put_metric(&metric) {
            let message = format!("an appliance may not put samples into {} but about itself", metric.namespace);
            return Err(Refused { status: StatusCode::FORBIDDEN, code: "AccessDenied", message });
        }
        samples.push(Sample { metric, unit: datum.unit.unwrap_or_else(|| "None".into()), time_ms, sum });
    }
    match api.fleet.store.put_samples(&samples, Meeting::Add).await? {
        Taken::Stored => Ok(Output::structure()),
        Taken::TooManyMetrics => Err(Refused::new(LIMIT, "This service knows as many metrics as it can.")),
    }
}

/// `ListMetrics`' input.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct List {
    namespace: Option<String>,
    metric_name: Option<String>,
    dimensions: Vec<Filter>,
    next_token: Option<String>,
    recently_active: Option<String>,
}

/// A dimension that listed metrics have, perhaps with this value.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Filter {
    name: String,
    value: Option<String>,
}

/// A metric's members.
pub(super) fn shown(metric: &MetricName) -> Output {
    let dimensions: Vec<Output> = metric
        .dimensions
        .iter()
        .map(|(n, v)| Output::structure().with("Name", n.as_str()).with("Value", v.as_str()))
        .collect();
    Output::structure()
        .with("Namespace", metric.namespace.as_str())
        .with("MetricName", metric.name.as_str())
        .with("Dimensions", dimensions)
}

/// `ListMetrics`: those that had a sample within two weeks, or three hours.
pub async fn list(api: &Api, input: List) -> Result<Output, Refused> {
    let since = now_ms() - if input.recently_active.is_some() { 3 * HOUR } else { OLDEST };
    let mut after = match input.next_token.as_deref() {
        None | Some("") => 0,
        Some(token) => token.parse::<i64>().map_err(|_| Refused::new(TOKEN, "The token is not one of this service's."))?,
    };
    let fits = |metric: &MetricName| {
        input.dimensions.iter().all(|filter| {
            metric.dimensions.iter().any(|(n, v)| *n == filter.name && filter.value.as_ref().is_none_or(|value| value == v))
        })
    };
    let mut found = Vec::new();
    let (namespace, name) = (input.namespace.as_deref(), input.metric_name.as_deref());
    let more = loop {
        let page = api.fleet.store.list_metrics(namespace, name, since, after, PAGE).await?;
        let last = page.len() < PAGE;
        for known in page {
            if found.len() == PAGE {
                break;
            }
            after = known.sequence;
            if fits(&known.metric) {
                found.push(shown(&known.metric));
            }
        }
        if found.len() == PAGE || last {
            break found.len() == PAGE;
        }
    };
    Ok(Output::structure().with("Metrics", found).with_some("NextToken", more.then(|| after.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sum(datum: serde_json::Value) -> Result<Sum, &'static str> {
        sum_of(&serde_json::from_value(datum).unwrap(), "MetricData.member.1").map_err(|r| r.code)
    }

    #[test]
    fn values_in_each_form_are_added_up() {
        assert_eq!(sum(json!({ "Value": 2.0 })), Ok(Sum::one(2.0)));
        let set = json!({ "StatisticValues": { "SampleCount": 4.0, "Sum": 10.0, "Minimum": 1.0, "Maximum": 5.0 } });
        assert_eq!(sum(set), Ok(Sum { samples: 4.0, total: 10.0, smallest: 1.0, greatest: 5.0 }));
        let values = json!({ "Values": [1.0, 5.0], "Counts": [3.0, 1.0] });
        assert_eq!(sum(values), Ok(Sum { samples: 4.0, total: 8.0, smallest: 1.0, greatest: 5.0 }));
        assert_eq!(sum(json!({ "Values": [1.0, 5.0] })).unwrap().samples, 2.0);
    }

    #[test]
    fn values_that_would_spoil_a_sum_are_refused() {
        for (bad, code) in [
            (json!({}), MISSING),
            (json!({ "Value": 1.0, "Values": [1.0] }), COMBINATION),
            (json!({ "Values": [1.0], "Counts": [1.0, 2.0] }), COMBINATION),
            (json!({ "Values": [1.0], "Counts": [0.0] }), INVALID),
            (json!({ "Values": [1.0], "Counts": [-1.0] }), INVALID),
            (json!({ "Value": 1e109 }), INVALID),
            (json!({ "Values": [1e100], "Counts": [1e100] }), INVALID),
            (json!({ "StatisticValues": { "SampleCount": 0.0, "Sum": 0.0, "Minimum": 0.0, "Maximum": 0.0 } }), INVALID),
            (json!({ "StatisticValues": { "SampleCount": 1.0, "Sum": 0.0, "Minimum": 2.0, "Maximum": 1.0 } }), INVALID),
        ] {
            assert_eq!(sum(bad.clone()), Err(code), "{bad}");
        }
        assert!(sum(json!({ "Value": LARGEST })).is_ok());
    }
}
