//! Jobs that made nodes from templates. The work is done when the job is stored; the job only tells of it.

use crate::error::{stored, text};
use crate::{Store, StoreError, now_ms};
use serde_json::Value;

/// A job.
#[derive(Debug, Clone)]
pub struct TemplateJob {
    /// Opaque.
    pub job_id: String,
    /// The request, its secrets replaced.
    pub input: Value,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

impl Store {
    /// Stores a job. `input` must hold no secret.
    pub async fn add_template_job(&self, job_id: &str, input: &Value) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO template_job (job_id, input, created_ms) VALUES ($1, $2, $3)")
            .bind(job_id)
            .bind(text(input))
            .bind(now_ms())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::insert("store a job", job_id, e))
    }

    /// By identifier.
    pub async fn template_job(&self, job_id: &str) -> Result<Option<TemplateJob>, StoreError> {
        let row: Option<(String, i64)> = sqlx::query_as("SELECT input, created_ms FROM template_job WHERE job_id = $1")
            .bind(job_id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up a job", e))?;
        row.map(|(input, created_ms)| Ok(TemplateJob { job_id: job_id.into(), input: stored("a job", &input)?, created_ms }))
            .transpose()
    }

    /// Newest first.
    pub async fn list_template_jobs(&self) -> Result<Vec<TemplateJob>, StoreError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT job_id, input, created_ms FROM template_job ORDER BY created_ms DESC, job_id LIMIT 5000")
                .fetch_all(&self.pool)
                .await
                .map_err(|e| StoreError::database("list jobs", e))?;
        rows.into_iter()
            .map(|(job_id, input, created_ms)| Ok(TemplateJob { job_id, input: stored("a job", &input)?, created_ms }))
            .collect()
    }
}
