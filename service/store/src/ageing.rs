//! History that nobody needs any more.

use crate::{Store, StoreError};

/// What is forgotten, by how long ago it ended; milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Removed application instances.
    pub instances_ms: i64,
    /// Ended jobs: of devices, from templates, imports.
    pub jobs_ms: i64,
}

/// How much was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Removed application instances.
    pub instances: u64,
    /// Ended jobs.
    pub jobs: u64,
}

impl Store {
    /// Forgets what ended before the horizon. A device's newest job stays: it is shown with the device, and its number
    /// is never given again.
    pub async fn forget_history(&self, horizon: Horizon) -> Result<Forgotten, StoreError> {
        self.purge_managed_secrets().await?;
        let instances = self
            .forget(
                "DELETE FROM application_instance WHERE status = 'REMOVAL_SUCCEEDED' AND updated_ms < $1",
                horizon.instances_ms,
            )
            .await?;
        let mut jobs = self
            .forget(
                "DELETE FROM device_job WHERE status NOT IN ('QUEUED', 'IN_PROGRESS') AND updated_ms < $1 \
                 AND number < (SELECT max(number) FROM device_job newest WHERE newest.device_id = device_job.device_id)",
                horizon.jobs_ms,
            )
            .await?;
        jobs += self.forget("DELETE FROM template_job WHERE created_ms < $1", horizon.jobs_ms).await?;
        jobs += self.forget("DELETE FROM import_job WHERE updated_ms < $1", horizon.jobs_ms).await?;
        Ok(Forgotten { instances, jobs })
    }

    async fn forget(&self, statement: &'static str, before_ms: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(statement).bind(before_ms).execute(&self.pool).await;
        done.map(|done| done.rows_affected()).map_err(|e| StoreError::database("forget history", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_jobs::JobTimes;
    use crate::devices::{NewDevice, Tags};
    use belvedere_device_protocol::jobs::{Operation, Status};
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn what_has_not_ended_and_a_device_s_newest_job_stay() {
        for place in crate::testing::places().await {
            check(&place.create().await).await;
        }
    }

    async fn check(store: &Store) {
        for id in ["device-a", "device-b"] {
            let new = NewDevice {
                device_id: id,
                name: id,
                thing_name: id,
                description: None,
                tags: &Tags::new(),
                networking: None,
            };
            store.create_device(new).await.unwrap();
        }
        for (device, ends) in [("device-a", 3), ("device-b", 1)] {
            for _ in 0..ends {
                let job = store.create_device_job(device, &Operation::Reboot {}).await.unwrap().unwrap();
                assert!(
                    store.update_device_job(&job, Status::Succeeded, &BTreeMap::new(), JobTimes::default()).await.unwrap()
                );
            }
        }
        store.create_device_job("device-b", &Operation::Reboot {}).await.unwrap().unwrap();
        store.add_template_job("t", &serde_json::json!({})).await.unwrap();
        let before = Horizon { instances_ms: 0, jobs_ms: 1 };
        assert_eq!(store.forget_history(before).await.unwrap(), Forgotten::default());
        let after = Horizon { instances_ms: i64::MAX, jobs_ms: i64::MAX };
        assert_eq!(store.forget_history(after).await.unwrap(), Forgotten { instances: 0, jobs: 4 });
        let left: Vec<String> = store.list_device_jobs(None).await.unwrap().iter().map(|j| j.job_id()).collect();
        assert_eq!(left, ["device-b-1", "device-a-2"]);
        let next = store.create_device_job("device-a", &Operation::Reboot {}).await.unwrap().unwrap();
        assert_eq!(next.number, 3);
    }
}
