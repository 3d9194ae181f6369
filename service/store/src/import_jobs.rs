//! Jobs that imported package versions. The work is done when the job is stored; the job only tells of it.

use crate::error::{stored, text};
use crate::{Store, StoreError};
use serde_json::Value;

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportJob {
    /// Opaque.
    pub job_id: String,
    /// What makes a repeated request the same request.
    pub client_token: String,
    /// The request.
    pub input: Value,
    /// `SUCCEEDED`, `FAILED`.
    pub status: String,
    /// Why it failed.
    pub status_message: String,
    /// `PackageImportJobOutput`.
    pub output: Value,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
}

type Columns = (String, String, String, String, String, String, i64, i64);

const SELECT: &str =
    "SELECT job_id, client_token, input, status, status_message, output, created_ms, updated_ms FROM import_job";

fn job(row: Columns) -> Result<ImportJob, StoreError> {
    let (job_id, client_token, input, status, status_message, output, created_ms, updated_ms) = row;
    Ok(ImportJob {
        job_id,
        client_token,
        input: stored("an import job's request", &input)?,
        status,
        status_message,
        output: stored("an import job's output", &output)?,
        created_ms,
        updated_ms,
    })
}

impl Store {
    /// Stores a job that has ended; [`StoreError::Exists`] if its token is taken.
    pub async fn add_import_job(&self, job: &ImportJob) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO import_job (job_id, client_token, input, status, status_message, output, created_ms, updated_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&job.job_id)
        .bind(&job.client_token)
        .bind(text(&job.input))
        .bind(&job.status)
        .bind(&job.status_message)
        .bind(text(&job.output))
        .bind(job.created_ms)
        .bind(job.updated_ms)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| StoreError::insert("store an import job", &job.job_id, e))
    }

    /// By identifier.
    pub async fn import_job(&self, job_id: &str) -> Result<Option<ImportJob>, StoreError> {
        self.one_import_job("job_id", job_id).await
    }

    /// By its client token.
    pub async fn import_job_of_token(&self, client_token: &str) -> Result<Option<ImportJob>, StoreError> {
        self.one_import_job("client_token", client_token).await
    }

    async fn one_import_job(&self, column: &'static str, value: &str) -> Result<Option<ImportJob>, StoreError> {
        let query = format!("{SELECT} WHERE {column} = $1");
        let row: Option<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(value)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up an import job", e))?;
        row.map(job).transpose()
    }

    /// Newest first.
    pub async fn list_import_jobs(&self) -> Result<Vec<ImportJob>, StoreError> {
        let query = format!("{SELECT} ORDER BY created_ms DESC, job_id LIMIT 5000");
        let rows: Vec<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list import jobs", e))?;
        rows.into_iter().map(job).collect()
    }
}
