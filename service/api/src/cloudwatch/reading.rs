//! `GetMetricStatistics`, `GetMetricData`.

use super::metrics::pairs;
use super::{COMBINATION, INVALID, MISSING, Refused, TOKEN, VALIDATION, milliseconds};
use crate::Api;
use crate::wire::Output;
use belvedere_store::metrics::{MetricName, Sum};
use belvedere_store::now_ms;
use belvedere_watch::definition::Dimension;
use belvedere_watch::statistics::{Statistic, merged, origin, periods};
use serde::Deserialize;
use std::collections::HashSet;

/// Datapoints of one `GetMetricStatistics`, as CloudWatch bounds them.
const MAX_STATISTICS: i64 = 1440;
/// Values of one page of `GetMetricData`.
const MAX_VALUES: usize = 100_800;

/// `GetMetricStatistics`' input.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetStatistics {
    namespace: String,
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    start_time: f64,
    end_time: f64,
    period: i64,
    #[serde(default)]
    statistics: Vec<Statistic>,
    #[serde(default)]
    extended_statistics: Vec<String>,
    unit: Option<String>,
}

fn no_percentiles(name: &str) -> Refused {
    let message = format!(
        "The statistic {name} is not available: this service keeps sums, not samples. Use one of {}.",
        Statistic::NAMES.join(", ")
    );
    Refused::new(VALIDATION, message)
}

fn whole_minutes(period: i64) -> Result<(), Refused> {
    match period % 60 {
        0 => Ok(()),
        _ => Err(Refused::new(INVALID, "The parameter Period must be a multiple of 60: samples are kept in minutes.")),
    }
}

/// `GetMetricStatistics`, oldest first.
pub async fn get_statistics(api: &Api, input: GetStatistics) -> Result<Output, Refused> {
    if let Some(name) = input.extended_statistics.first() {
        return Err(no_percentiles(name));
    }
    if input.statistics.is_empty() {
        return Err(Refused::new(MISSING, "Must specify either Statistics or ExtendedStatistics"));
    }
    whole_minutes(input.period)?;
    let (start, end) = (origin(milliseconds(input.start_time), now_ms()), milliseconds(input.end_time));
    if start >= end {
        return Err(Refused::new(INVALID, "The parameter StartTime must be less than the parameter EndTime."));
    }
    let asked = (end - start + input.period * 1000 - 1) / (input.period * 1000);
    if asked > MAX_STATISTICS {
        let message = format!(
            "You have requested up to {asked} datapoints, which exceeds the limit of 1,440. You may reduce the datapoints \
             requested by increasing Period, or decreasing the time range."
        );
        return Err(Refused::new(COMBINATION, message));
    }
    let metric = MetricName::new(input.namespace, input.metric_name.clone(), pairs(input.dimensions)?);
    let points = api.fleet.store.datapoints(&metric, start, end).await?;
    let found = periods(&points, start, input.period);
    let datapoints: Vec<Output> = found
        .iter()
        .filter(|((_, unit), _)| input.unit.as_deref().is_none_or(|wanted| wanted == *unit))
        .map(|((start, unit), sum)| {
            let point = Output::structure().with("Timestamp", Output::Time(*start)).with("Unit", *unit);
            input.statistics.iter().fold(point, |point, statistic| point.with(statistic.name(), statistic.of(sum)))
        })
        .collect();
    Ok(Output::structure().with("Label", input.metric_name).with("Datapoints", datapoints))
}

/// `GetMetricData`'s input.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetData {
    metric_data_queries: Vec<Query>,
    start_time: f64,
    end_time: f64,
    next_token: Option<String>,
    scan_by: Option<String>,
    max_datapoints: Option<usize>,
}

/// A question about a metric.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Query {
    id: String,
    metric_stat: Option<MetricStat>,
    label: Option<String>,
    return_data: Option<bool>,
    expression: Option<String>,
}

/// A metric, a period and a statistic.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetricStat {
    metric: Metric,
    period: i64,
    stat: String,
    unit: Option<String>,
}

/// A metric.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metric {
    namespace: String,
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

/// Which part of all values is on this page: skips those before, takes so many. Values of one question after another.
struct Page {
    skip: usize,
    left: usize,
}

impl Page {
    fn take<T>(&mut self, values: Vec<T>) -> (Vec<T>, bool) {
        let skipped = self.skip.min(values.len());
        self.skip -= skipped;
        let taken = self.left.min(values.len() - skipped);
        self.left -= taken;
        let whole = skipped + taken == values.len();
        (values.into_iter().skip(skipped).take(taken).collect(), whole)
    }
}

/// `GetMetricData`: questions about metrics; no expressions.
pub async fn get_data(api: &Api, input: GetData) -> Result<Output, Refused> {
    let (start, end) = (origin(milliseconds(input.start_time), now_ms()), milliseconds(input.end_time));
    if start >= end {
        return Err(Refused::new(VALIDATION, "The parameter StartTime must be less than the parameter EndTime."));
    }
    let skip = match input.next_token.as_deref() {
        None | Some("") => 0,
        Some(token) => token.parse().map_err(|_| Refused::new(TOKEN, "The token is not one of this service's."))?,
    };
    let mut ids = HashSet::new();
    for query in &input.metric_data_queries {
        if !ids.insert(query.id.as_str()) {
            return Err(Refused::new(
                VALIDATION,
                format!("The values for parameter id in MetricDataQueries are not unique: {}", query.id),
            ));
        }
        if query.expression.is_some() {
            let message = format!("The query {} has an Expression: this service answers MetricStat queries only.", query.id);
            return Err(Refused::new(VALIDATION, message));
        }
    }
    let size = input.max_datapoints.unwrap_or(MAX_VALUES).min(MAX_VALUES);
    let mut page = Page { skip, left: size };
    let (mut results, mut complete) = (Vec::new(), true);
    for query in input.metric_data_queries {
        let Some(stat) = query.metric_stat else {
            return Err(Refused::new(VALIDATION, format!("The query {} has no MetricStat.", query.id)));
        };
        let statistic = Statistic::named(&stat.stat).ok_or_else(|| no_percentiles(&stat.stat))?;
        whole_minutes(stat.period)?;
        if query.return_data == Some(false) {
            continue;
        }
        let label = query.label.unwrap_or_else(|| stat.metric.metric_name.clone());
        let metric = MetricName::new(stat.metric.namespace, stat.metric.metric_name, pairs(stat.metric.dimensions)?);
        let points = api.fleet.store.datapoints(&metric, start, end).await?;
        let mut values: Vec<(i64, Sum)> = merged(&points, stat.unit.as_deref(), start, stat.period).into_iter().collect();
        if input.scan_by.as_deref() != Some("TimestampAscending") {
            values.reverse();
        }
        let (values, whole) = page.take(values);
        complete &= whole;
        let times: Vec<Output> = values.iter().map(|(time, _)| Output::Time(*time)).collect();
        let values: Vec<f64> = values.iter().map(|(_, sum)| statistic.of(sum)).collect();
        results.push(
            Output::structure()
                .with("Id", query.id)
                .with("Label", label)
                .with("Timestamps", times)
                .with("Values", values)
                .with("StatusCode", if whole { "Complete" } else { "PartialData" }),
        );
    }
    let next = (!complete).then(|| (skip + size).to_string());
    Ok(Output::structure()
        .with("MetricDataResults", results)
        .with_some("NextToken", next)
        .with("Messages", Vec::<Output>::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_the_values_of_all_questions_once() {
        let questions = [vec![1, 2, 3], vec![], vec![4, 5, 6, 7]];
        let mut seen = Vec::new();
        for skip in [0, 2, 4, 6] {
            let mut page = Page { skip, left: 2 };
            let mut complete = true;
            for values in &questions {
                let (values, whole) = page.take(values.clone());
                seen.extend(values);
                complete &= whole;
            }
            assert_eq!(complete, skip == 6, "{skip}");
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    }
}
