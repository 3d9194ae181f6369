//! Jobs of devices: what they are to do, and how far they are. Which change is allowed is the fleet's business.

use crate::database::DatabaseRow;
use crate::error::{stored, text};
use crate::{Store, StoreError, now_ms};
use belvedere_device_protocol::jobs::{Operation, Status};
use serde_json::Value;
use sqlx::Row;
use std::collections::BTreeMap;

/// A job of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceJob {
    /// Whose.
    pub device_id: String,
    /// The device's name.
    pub device_name: String,
    /// Counts from 0, per device.
    pub number: i64,
    /// What to do.
    pub operation: Operation,
    /// Where it stands.
    pub status: Status,
    /// What the device noted when it last updated it.
    pub details: BTreeMap<String, String>,
    /// Grows with each change, from 1.
    pub version: u64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// When it began and when it must be done.
    pub times: JobTimes,
}

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTimes {
    /// When the device began it.
    pub started_ms: Option<i64>,
    /// When it counts as timed out.
    pub deadline_ms: Option<i64>,
    /// When its present step does.
    pub step_deadline_ms: Option<i64>,
}

impl DeviceJob {
    /// `<DeviceId>-<n>`.
    pub fn job_id(&self) -> String {
        format!("{}-{}", self.device_id, self.number)
    }
}

/// Device and number of a job's identifier; `None` if it cannot be one.
fn parts(job_id: &str) -> Option<(&str, i64)> {
    let (device_id, digits) = job_id.rsplit_once('-')?;
    let number: u32 = digits.parse().ok()?;
    // `+1` and `01` name no job.
    (number.to_string() == digits).then_some((device_id, number.into()))
}

const SELECT: &str = "SELECT job.*, device.name AS device_name FROM device_job job JOIN device USING (device_id)";

fn job(row: &DatabaseRow) -> Result<DeviceJob, StoreError> {
    let error = |e| StoreError::database("read a job", e);
    let status: String = row.try_get("status").map_err(error)?;
    Ok(DeviceJob {
        device_id: row.try_get("device_id").map_err(error)?,
        device_name: row.try_get("device_name").map_err(error)?,
        number: row.try_get("number").map_err(error)?,
        operation: stored("a job's document", row.try_get("document").map_err(error)?)?,
        status: stored("a job's status", &text(&status))?,
        details: stored("a job's details", row.try_get("details").map_err(error)?)?,
        version: row.try_get::<i64, _>("version").map_err(error)? as u64,
        created_ms: row.try_get("created_ms").map_err(error)?,
        updated_ms: row.try_get("updated_ms").map_err(error)?,
        times: JobTimes {
            started_ms: row.try_get("started_ms").map_err(error)?,
            deadline_ms: row.try_get("deadline_ms").map_err(error)?,
            step_deadline_ms: row.try_get("step_deadline_ms").map_err(error)?,
        },
    })
}

/// The word of a status, as it is on the wire.
fn word(status: Status) -> String {
    serde_json::to_value(status).ok().as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Store {
    /// Queues a job under the device's next number; `None` if one of the device's jobs has not ended yet.
    pub async fn create_device_job(&self, device_id: &str, operation: &Operation) -> Result<Option<DeviceJob>, StoreError> {
        let error = |e| StoreError::database("store a job", e);
        let mut transaction = self.begin_exclusive(&format!("device_job {device_id}")).await.map_err(error)?;
        let number: Option<i64> = sqlx::query_scalar(
            "INSERT INTO device_job (device_id, number, document, status, details, version, created_ms, updated_ms) \
             SELECT $1, coalesce((SELECT max(number) + 1 FROM device_job WHERE device_id = $1), 0), $2, 'QUEUED', '{}', 1, $3, $3 \
             WHERE NOT EXISTS (SELECT 1 FROM device_job WHERE device_id = $1 AND status IN ('QUEUED', 'IN_PROGRESS')) \
             RETURNING number",
        )
        .bind(device_id)
        .bind(text(operation))
        .bind(now_ms())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        match number {
            None => Ok(None),
            Some(number) => self.device_job(&format!("{device_id}-{number}")).await,
        }
    }

    /// By identifier.
    pub async fn device_job(&self, job_id: &str) -> Result<Option<DeviceJob>, StoreError> {
        let Some((device_id, number)) = parts(job_id) else { return Ok(None) };
        let query = format!("{SELECT} WHERE device_id = $1 AND number = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(device_id).bind(number).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a job", e))?.as_ref().map(job).transpose()
    }

    /// The job that a device should do next: the one in progress, else the oldest in the queue.
    pub async fn next_device_job(&self, device_id: &str) -> Result<Option<DeviceJob>, StoreError> {
        let query = format!(
            "{SELECT} WHERE device_id = $1 AND status IN ('QUEUED', 'IN_PROGRESS') \
             ORDER BY status = 'IN_PROGRESS' DESC, number LIMIT 1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(device_id).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up the next job", e))?.as_ref().map(job).transpose()
    }

    /// What a device has to do: the one in progress first, then the queue in its order. At most `limit`.
    pub async fn pending_device_jobs(&self, device_id: &str, limit: usize) -> Result<Vec<DeviceJob>, StoreError> {
        let query = format!(
            "{SELECT} WHERE device_id = $1 AND status IN ('QUEUED', 'IN_PROGRESS') \
             ORDER BY CASE WHEN status = 'IN_PROGRESS' THEN 0 ELSE 1 END, number LIMIT $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(device_id).bind(limit as i64).fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list pending jobs", e))?.iter().map(job).collect()
    }

    /// Jobs that should have been done by `now`.
    pub async fn overdue_device_jobs(&self, now: i64) -> Result<Vec<DeviceJob>, StoreError> {
        let query =
            format!("{SELECT} WHERE status = 'IN_PROGRESS' AND (deadline_ms <= $1 OR step_deadline_ms <= $1) LIMIT 100");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(now).fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list overdue jobs", e))?.iter().map(job).collect()
    }

    /// Jobs of one device or of all, newest first.
    pub async fn list_device_jobs(&self, device_id: Option<&str>) -> Result<Vec<DeviceJob>, StoreError> {
        let query = format!("{SELECT} WHERE $1 IS NULL OR device_id = $1 ORDER BY job.sequence DESC");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(device_id).fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list jobs", e))?.iter().map(job).collect()
    }

    /// The newest job of one device or of each, by device.
    pub async fn latest_device_jobs(&self, device_id: Option<&str>) -> Result<BTreeMap<String, DeviceJob>, StoreError> {
        // Of one device by the key; the newest of each would look at every job that there ever was.
        let which = match device_id {
            Some(_) => "WHERE device_id = $1 ORDER BY number DESC LIMIT 1",
            None => "WHERE number = (SELECT max(number) FROM device_job newest WHERE newest.device_id = job.device_id)",
        };
        let mut query = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} {which}")));
        if let Some(device_id) = device_id {
            query = query.bind(device_id);
        }
        let rows = query.fetch_all(&self.pool).await;
        let rows = rows.map_err(|e| StoreError::database("look up the latest jobs", e))?;
        rows.iter().map(|row| job(row).map(|j| (j.device_id.clone(), j))).collect()
    }

    /// Writes the version after `before`'s; false if another writer was faster.
    pub async fn update_device_job(
        &self,
        before: &DeviceJob,
        status: Status,
        details: &BTreeMap<String, String>,
        times: JobTimes,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "UPDATE device_job SET status = $1, details = $2, version = version + 1, updated_ms = $3, \
             started_ms = $7, deadline_ms = $8, step_deadline_ms = $9 WHERE device_id = $4 AND number = $5 AND version = $6",
        )
        .bind(word(status))
        .bind(text(details))
        .bind(now_ms())
        .bind(&before.device_id)
        .bind(before.number)
        .bind(before.version as i64)
        .bind(times.started_ms)
        .bind(times.deadline_ms)
        .bind(times.step_deadline_ms)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(|e| StoreError::database("update a job", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{NewDevice, Tags};
    use crate::testing::{Place, places};

    async fn store_with_devices(place: &Place) -> Store {
        let store = place.create().await;
        for id in ["device-a", "device-b"] {
            let tags = Tags::new();
            let new =
                NewDevice { device_id: id, name: id, thing_name: id, description: None, tags: &tags, networking: None };
            store.create_device(new).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn numbers_count_per_device_and_one_job_runs_at_a_time() {
        for place in places().await {
            let store = store_with_devices(&place).await;
            let first = store.create_device_job("device-a", &Operation::Reboot {}).await.unwrap().unwrap();
            assert_eq!((first.job_id().as_str(), first.version, first.status), ("device-a-0", 1, Status::Queued));
            assert_eq!(store.create_device_job("device-a", &Operation::Reboot {}).await.unwrap(), None);
            assert_eq!(store.create_device_job("device-b", &Operation::Reboot {}).await.unwrap().unwrap().number, 0);

            let details = BTreeMap::from([("progress".to_owned(), "REBOOTING".to_owned())]);
            assert!(store.update_device_job(&first, Status::InProgress, &details, JobTimes::default()).await.unwrap());
            assert!(
                !store.update_device_job(&first, Status::Failed, &details, JobTimes::default()).await.unwrap(),
                "an old version was accepted"
            );
            assert_eq!(store.create_device_job("device-a", &Operation::Reboot {}).await.unwrap(), None);

            // A restart of the service in between.
            store.close().await;
            let store = place.open().await;
            let running = store.next_device_job("device-a").await.unwrap().unwrap();
            assert_eq!((running.version, running.status, &running.details), (2, Status::InProgress, &details));
            assert!(
                store.update_device_job(&running, Status::Succeeded, &BTreeMap::new(), JobTimes::default()).await.unwrap()
            );
            assert_eq!(store.next_device_job("device-a").await.unwrap(), None);

            let ota = Operation::Ota { image_version: "1.2.3".into(), allow_major_version_update: false };
            let second = store.create_device_job("device-a", &ota).await.unwrap().unwrap();
            assert_eq!((second.number, &second.operation), (1, &ota));
            let listed: Vec<String> = store.list_device_jobs(None).await.unwrap().iter().map(DeviceJob::job_id).collect();
            assert_eq!(listed, ["device-a-1", "device-b-0", "device-a-0"]);
            assert_eq!(store.list_device_jobs(Some("device-b")).await.unwrap().len(), 1);
            let latest = store.latest_device_jobs(None).await.unwrap();
            assert_eq!(latest.values().map(DeviceJob::job_id).collect::<Vec<_>>(), ["device-a-1", "device-b-0"]);
            assert!(store.delete_device("device-a").await.unwrap());
            assert_eq!(store.device_job("device-a-1").await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn the_job_in_progress_comes_before_an_older_one_in_the_queue() {
        for place in places().await {
            let store = store_with_devices(&place).await;
            for (number, status) in [(0, "FAILED"), (1, "QUEUED"), (2, "QUEUED"), (3, "IN_PROGRESS")] {
                sqlx::query(
                    "INSERT INTO device_job (device_id, number, document, status, details, version, created_ms, updated_ms) \
                 VALUES ('device-a', $1, '{\"operation\":\"REBOOT\"}', $2, '{}', 1, 0, 0)",
                )
                .bind(number)
                .bind(status)
                .execute(&store.pool)
                .await
                .unwrap();
            }
            let running = store.next_device_job("device-a").await.unwrap().unwrap();
            assert_eq!(running.number, 3);
            assert!(
                store.update_device_job(&running, Status::Rejected, &BTreeMap::new(), JobTimes::default()).await.unwrap()
            );
            assert_eq!(store.next_device_job("device-a").await.unwrap().unwrap().number, 1);
        }
    }

    #[test]
    fn only_identifiers_as_they_are_given_out_name_jobs() {
        assert_eq!(parts("device-a-10"), Some(("device-a", 10)));
        for wrong in ["device-a-01", "device-a-+1", "device-a-", "device-a", "7", "device-a-99999999999", ""] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
