//! Metrics. What comes is added up per minute: number of samples, sum, smallest, greatest. With age minutes become five
//! minutes, then hours, then nothing ([`Store::age_metrics`]).

use crate::error::{stored, text};
use crate::{Store, StoreError};
use std::collections::HashMap;

/// Finest resolution, in seconds.
pub const MINUTE_S: i64 = 60;
const FIVE_MINUTES_S: i64 = 300;
const HOUR_S: i64 = 3600;
/// Metrics that are known at once; a client that makes up a new dimension value for each sample ends here.
pub const MAX_METRICS: i64 = 50_000;
/// Datapoints that one question reads.
pub const MAX_READ: usize = 200_000;

/// What a metric is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricName {
    /// `PanoramaDeviceMetrics`.
    pub namespace: String,
    /// `DeviceActive`.
    pub name: String,
    /// Names and values, by name; the same names and values in another order are the same metric.
    pub dimensions: Vec<(String, String)>,
}

impl MetricName {
    /// Puts the dimensions in order.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, mut dimensions: Vec<(String, String)>) -> MetricName {
        dimensions.sort();
        MetricName { namespace: namespace.into(), name: name.into(), dimensions }
    }
}

/// Samples, added up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sum {
    /// How many.
    pub samples: f64,
    /// Their sum.
    pub total: f64,
    /// The smallest.
    pub smallest: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Sum {
    /// One sample.
    pub fn one(value: f64) -> Sum {
        Sum { samples: 1.0, total: value, smallest: value, greatest: value }
    }

    /// Both.
    pub fn with(self, other: Sum) -> Sum {
        Sum {
            samples: self.samples + other.samples,
            total: self.total + other.total,
            smallest: self.smallest.min(other.smallest),
            greatest: self.greatest.max(other.greatest),
        }
    }
}

/// Samples of a metric at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which metric.
    pub metric: MetricName,
    /// `Count`, `Milliseconds`, …, `None`.
    pub unit: String,
    /// Milliseconds since 1970; the minute it is in counts.
    pub time_ms: i64,
    /// The samples.
    pub sum: Sum,
}

/// What happened in a period.
#[derive(Debug, Clone, PartialEq)]
pub struct Datapoint {
    /// Seconds.
    pub period_s: i64,
    /// Milliseconds since 1970.
    pub start_ms: i64,
    /// `Count`, ….
    pub unit: String,
    /// The samples.
    pub sum: Sum,
}

/// A known metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMetric {
    /// Order in lists.
    pub sequence: i64,
    /// What it is called.
    pub metric: MetricName,
}

/// How samples meet those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// They are added: every sample counts.
    Add,
    /// One sample a minute remains, the greatest: several copies of the service say the same thing, and it counts once.
    Greatest,
}

/// How long each resolution is kept, in milliseconds of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Minutes.
    pub minutes_ms: i64,
    /// Five minutes.
    pub five_minutes_ms: i64,
    /// Hours.
    pub hours_ms: i64,
}

impl Default for Retention {
    /// CloudWatch's: 15, 63 and 455 days.
    fn default() -> Retention {
        const DAY: i64 = 24 * 3600 * 1000;
        Retention { minutes_ms: 15 * DAY, five_minutes_ms: 63 * DAY, hours_ms: 455 * DAY }
    }
}

/// What came of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// They are stored.
    Stored,
    /// There would be more than [`MAX_METRICS`] metrics; nothing is stored.
    TooManyMetrics,
}

type PointRow = (i64, i64, String, f64, f64, f64, f64);

fn floor(time_ms: i64, period_s: i64) -> i64 {
    time_ms - time_ms.rem_euclid(period_s * 1000)
}

impl Store {
    /// Adds samples, all or none.
    pub async fn put_samples(&self, samples: &[Sample], meeting: Meeting) -> Result<Taken, StoreError> {
        let error = |e| StoreError::database("store samples", e);
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM metric").fetch_one(&self.pool).await.map_err(error)?;
        // Samples of the same metric, minute and unit are one row: added up here already.
        let mut rows: HashMap<(&MetricName, i64, &str), Sum> = HashMap::new();
        let mut newest: HashMap<&MetricName, i64> = HashMap::new();
        for sample in samples {
            let key = (&sample.metric, floor(sample.time_ms, MINUTE_S), sample.unit.as_str());
            rows.entry(key).and_modify(|sum| *sum = sum.with(sample.sum)).or_insert(sample.sum);
            let last = newest.entry(&sample.metric).or_insert(sample.time_ms);
            *last = (*last).max(sample.time_ms);
        }
        // Rows are touched in one order, so that two writers never wait for each other.
        let mut names: Vec<(&MetricName, i64)> = newest.into_iter().collect();
        names.sort();
        let mut transaction = self.pool.begin().await.map_err(error)?;
        let (mut sequences, mut newcomers) = (HashMap::new(), 0);
        for (metric, last_ms) in names {
            let sequence: i64 = sqlx::query_scalar(
                "INSERT INTO metric (namespace, name, dimensions, last_ms) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (namespace, name, dimensions) DO UPDATE SET last_ms = \
                 CASE WHEN excluded.last_ms > metric.last_ms THEN excluded.last_ms ELSE metric.last_ms END \
                 RETURNING sequence",
            )
            .bind(&metric.namespace)
            .bind(&metric.name)
            .bind(text(&metric.dimensions))
            .bind(last_ms)
            .fetch_one(&mut *transaction)
            .await
            .map_err(error)?;
            sequences.insert(metric, sequence);
            newcomers += 1;
        }
        if known + newcomers > MAX_METRICS {
            let after: i64 =
                sqlx::query_scalar("SELECT count(*) FROM metric").fetch_one(&mut *transaction).await.map_err(error)?;
            if after > MAX_METRICS && after > known {
                return Ok(Taken::TooManyMetrics); // the transaction is rolled back
            }
        }
        let mut rows: Vec<_> = rows.into_iter().map(|((m, start, unit), sum)| (sequences[m], start, unit, sum)).collect();
        rows.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let sql = match meeting {
            Meeting::Add => {
                "INSERT INTO datapoint (metric, period_s, start_ms, unit, samples, total, smallest, greatest) \
                 VALUES ($1, 60, $2, $3, $4, $5, $6, $7) ON CONFLICT (metric, period_s, start_ms, unit) DO UPDATE SET \
                 samples = datapoint.samples + excluded.samples, total = datapoint.total + excluded.total, \
                 smallest = CASE WHEN excluded.smallest < datapoint.smallest THEN excluded.smallest ELSE datapoint.smallest END, \
                 greatest = CASE WHEN excluded.greatest > datapoint.greatest THEN excluded.greatest ELSE datapoint.greatest END"
            }
            Meeting::Greatest => {
                "INSERT INTO datapoint (metric, period_s, start_ms, unit, samples, total, smallest, greatest) \
                 VALUES ($1, 60, $2, $3, $4, $5, $6, $7) ON CONFLICT (metric, period_s, start_ms, unit) DO UPDATE SET \
                 samples = excluded.samples, total = excluded.total, smallest = excluded.smallest, \
                 greatest = excluded.greatest WHERE excluded.greatest > datapoint.greatest"
            }
        };
        for (metric, start_ms, unit, sum) in rows {
            sqlx::query(sql)
                .bind(metric)
                .bind(start_ms)
                .bind(unit)
                .bind(sum.samples)
                .bind(sum.total)
                .bind(sum.smallest)
                .bind(sum.greatest)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
        }
        transaction.commit().await.map_err(error)?;
        Ok(Taken::Stored)
    }

    /// Datapoints that begin in `[start_ms, end_ms)`, oldest first, at most [`MAX_READ`].
    pub async fn datapoints(&self, metric: &MetricName, start_ms: i64, end_ms: i64) -> Result<Vec<Datapoint>, StoreError> {
        let rows: Vec<PointRow> = sqlx::query_as(
            "SELECT d.period_s, d.start_ms, d.unit, d.samples, d.total, d.smallest, d.greatest FROM datapoint d \
             JOIN metric m ON m.sequence = d.metric WHERE m.namespace = $1 AND m.name = $2 AND m.dimensions = $3 \
             AND d.start_ms >= $4 AND d.start_ms < $5 ORDER BY d.start_ms, d.period_s, d.unit LIMIT $6",
        )
        .bind(&metric.namespace)
        .bind(&metric.name)
        .bind(text(&metric.dimensions))
        .bind(start_ms)
        .bind(end_ms)
        .bind(MAX_READ as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("read datapoints", e))?;
        let point = |(period_s, start_ms, unit, samples, total, smallest, greatest)| Datapoint {
            period_s,
            start_ms,
            unit,
            sum: Sum { samples, total, smallest, greatest },
        };
        Ok(rows.into_iter().map(point).collect())
    }

    /// At most `limit` metrics after a sequence number that had a datapoint since `since_ms`.
    pub async fn list_metrics(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        since_ms: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<KnownMetric>, StoreError> {
        let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
            "SELECT sequence, namespace, name, dimensions FROM metric WHERE ($1 = '' OR namespace = $1) \
             AND ($2 = '' OR name = $2) AND last_ms >= $3 AND sequence > $4 ORDER BY sequence LIMIT $5",
        )
        .bind(namespace.unwrap_or(""))
        .bind(name.unwrap_or(""))
        .bind(since_ms)
        .bind(after)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list metrics", e))?;
        rows.into_iter()
            .map(|(sequence, namespace, name, dimensions)| {
                let dimensions = stored("a metric's dimensions", &dimensions)?;
                Ok(KnownMetric { sequence, metric: MetricName { namespace, name, dimensions } })
            })
            .collect()
    }

    /// Identifiers and names of the devices that are connected now.
    pub async fn connected_devices(&self) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT device_id, name FROM device WHERE connected = 1 ORDER BY device_id")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list connected devices", e))
    }

    /// Identifier, name and health of the application instances whose health a connected device reported.
    pub async fn known_healths(&self) -> Result<Vec<(String, Option<String>, String)>, StoreError> {
        sqlx::query_as(
            "SELECT i.application_instance_id, i.name, i.health FROM application_instance i JOIN device d \
             ON d.device_id = i.device_id WHERE d.connected = 1 AND i.removed = 0 AND i.health IN ('RUNNING', 'ERROR') \
             ORDER BY i.sequence",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| StoreError::database("list applications' healths", e))
    }

    /// Makes old datapoints coarser, deletes the oldest, and metrics that have none left. Says how many rows went.
    pub async fn age_metrics(&self, now_ms: i64, retention: Retention) -> Result<u64, StoreError> {
        let mut gone = self.coarsen(MINUTE_S, FIVE_MINUTES_S, now_ms - retention.minutes_ms).await?;
        gone += self.coarsen(FIVE_MINUTES_S, HOUR_S, now_ms - retention.five_minutes_ms).await?;
        let error = |e| StoreError::database("delete old datapoints", e);
        let old = now_ms - retention.hours_ms;
        let done = sqlx::query("DELETE FROM datapoint WHERE period_s = $1 AND start_ms < $2")
            .bind(HOUR_S)
            .bind(old)
            .execute(&self.pool)
            .await
            .map_err(error)?;
        gone += done.rows_affected();
        sqlx::query(
            "DELETE FROM metric WHERE last_ms < $1 AND NOT EXISTS (SELECT 1 FROM datapoint d WHERE d.metric = metric.sequence)",
        )
        .bind(old)
        .execute(&self.pool)
        .await
        .map_err(error)?;
        Ok(gone)
    }

    /// Adds datapoints of one resolution that ended before `before_ms` to those of a coarser one, a day at a time.
    async fn coarsen(&self, from_s: i64, to_s: i64, before_ms: i64) -> Result<u64, StoreError> {
        const STEP_MS: i64 = 24 * 3600 * 1000;
        let error = |e| StoreError::database("make old datapoints coarser", e);
        // Whole coarse periods only: half of one would be read beside the fine rest.
        let end = floor(before_ms, to_s);
        let mut gone = 0;
        loop {
            let oldest: Option<i64> =
                sqlx::query_scalar("SELECT min(start_ms) FROM datapoint WHERE period_s = $1 AND start_ms < $2")
                    .bind(from_s)
                    .bind(end)
                    .fetch_one(&self.pool)
                    .await
                    .map_err(error)?;
            let Some(oldest) = oldest else { return Ok(gone) };
            let until = end.min(floor(oldest, to_s) + STEP_MS);
            let mut transaction = self.pool.begin().await.map_err(error)?;
            sqlx::query(
                "INSERT INTO datapoint (metric, period_s, start_ms, unit, samples, total, smallest, greatest) \
                 SELECT metric, $1, start_ms - start_ms % $2, unit, sum(samples), sum(total), min(smallest), max(greatest) \
                 FROM datapoint WHERE period_s = $3 AND start_ms < $4 GROUP BY metric, start_ms - start_ms % $2, unit \
                 ON CONFLICT (metric, period_s, start_ms, unit) DO UPDATE SET \
                 samples = datapoint.samples + excluded.samples, total = datapoint.total + excluded.total, \
                 smallest = CASE WHEN excluded.smallest < datapoint.smallest THEN excluded.smallest ELSE datapoint.smallest END, \
                 greatest = CASE WHEN excluded.greatest > datapoint.greatest THEN excluded.greatest ELSE datapoint.greatest END",
            )
            .bind(to_s)
            .bind(to_s * 1000)
            .bind(from_s)
            .bind(until)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
            let done = sqlx::query("DELETE FROM datapoint WHERE period_s = $1 AND start_ms < $2")
                .bind(from_s)
                .bind(until)
                .execute(&mut *transaction)
                .await
                .map_err(error)?;
            transaction.commit().await.map_err(error)?;
            gone += done.rows_affected();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    const DAY: i64 = 24 * 3600 * 1000;

    fn metric() -> MetricName {
        MetricName::new("N", "m", vec![("b".into(), "2".into()), ("a".into(), "1".into())])
    }

    fn sample(time_ms: i64, value: f64) -> Sample {
        Sample { metric: metric(), unit: "Count".into(), time_ms, sum: Sum::one(value) }
    }

    #[tokio::test]
    async fn samples_of_a_minute_are_one_row_whatever_the_order_of_their_dimensions() {
        for place in places().await {
            let store = place.create().await;
            store
                .put_samples(&[sample(60_000, 1.0), sample(119_999, 3.0), sample(120_000, 5.0)], Meeting::Add)
                .await
                .unwrap();
            store.put_samples(&[sample(60_001, -2.0)], Meeting::Add).await.unwrap();
            let other = MetricName::new("N", "m", vec![("a".into(), "1".into()), ("b".into(), "2".into())]);
            let points = store.datapoints(&other, 0, i64::MAX).await.unwrap();
            assert_eq!(points.len(), 2);
            assert_eq!(points[0].sum, Sum { samples: 3.0, total: 2.0, smallest: -2.0, greatest: 3.0 });
            assert_eq!((points[0].start_ms, points[1].start_ms), (60_000, 120_000));
            assert_eq!(store.datapoints(&other, 60_001, 120_000).await.unwrap().len(), 0);
            let listed = store.list_metrics(Some("N"), None, 120_000, 0, 9).await.unwrap();
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].metric, metric());
            assert!(store.list_metrics(Some("M"), None, 0, 0, 9).await.unwrap().is_empty());
            assert!(store.list_metrics(None, None, 120_001, 0, 9).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn of_what_several_say_about_a_minute_the_greatest_remains_once() {
        for place in places().await {
            let store = place.create().await;
            for value in [0.0, 1.0, 0.0, 1.0] {
                store.put_samples(&[sample(60_000, value)], Meeting::Greatest).await.unwrap();
            }
            let points = store.datapoints(&metric(), 0, i64::MAX).await.unwrap();
            assert_eq!(points[0].sum, Sum::one(1.0));
        }
    }

    #[tokio::test]
    async fn old_datapoints_become_coarser_and_end_without_losing_a_sample() {
        for place in places().await {
            let store = place.create().await;
            let samples: Vec<Sample> = (0..180).map(|minute| sample(DAY + minute * 60_000, minute as f64)).collect();
            store.put_samples(&samples, Meeting::Add).await.unwrap();
            let retention = Retention { minutes_ms: DAY, five_minutes_ms: 2 * DAY, hours_ms: 3 * DAY };
            // An hour and two minutes are older than a day: only whole five minutes move.
            store.age_metrics(2 * DAY + 62 * 60_000, retention).await.unwrap();
            let points = store.datapoints(&metric(), 0, i64::MAX).await.unwrap();
            let count = |s| points.iter().filter(|p| p.period_s == s).count();
            assert_eq!((count(60), count(300)), (120, 12));
            let sum = points.iter().map(|p| p.sum).reduce(Sum::with).unwrap();
            assert_eq!(sum, Sum { samples: 180.0, total: 180.0 * 179.0 / 2.0, smallest: 0.0, greatest: 179.0 });
            // A latecomer of an aged minute joins its five minutes.
            store.put_samples(&[sample(DAY, 500.0)], Meeting::Add).await.unwrap();
            store.age_metrics(3 * DAY + 120 * 60_000, retention).await.unwrap();
            let points = store.datapoints(&metric(), 0, i64::MAX).await.unwrap();
            assert_eq!(points.iter().map(|p| p.period_s).filter(|s| *s == 3600).count(), 2);
            assert_eq!(points.iter().map(|p| p.sum).reduce(Sum::with).unwrap().samples, 181.0);
            store.age_metrics(9 * DAY, retention).await.unwrap();
            store.age_metrics(9 * DAY, retention).await.unwrap();
            assert!(store.datapoints(&metric(), 0, i64::MAX).await.unwrap().is_empty());
            assert!(store.list_metrics(None, None, 0, 0, 9).await.unwrap().is_empty(), "the metric is forgotten too");
        }
    }
}
