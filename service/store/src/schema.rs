//! The tables. `MIGRATIONS[n]` brings version n to n + 1; entries are never edited once released, only added.

use crate::StoreError;

const MIGRATIONS: &[&str] = &[include_str!("schema/0001.sql"), include_str!("schema/0002.sql")];

/// Brings the database to the newest version, one transaction per step.
pub(crate) async fn migrate(pool: &sqlx::SqlitePool) -> Result<(), StoreError> {
    let error = |e| StoreError::database("bring the schema up to date", e);
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(pool).await.map_err(error)?;
    if version as usize > MIGRATIONS.len() {
        return Err(StoreError::Damaged {
            what: "the schema",
            detail: format!("version {version} is newer than this program (knows {})", MIGRATIONS.len()),
        });
    }
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        let mut transaction = pool.begin().await.map_err(error)?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(error)?;
        let set = format!("PRAGMA user_version = {}", index + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *transaction).await.map_err(error)?;
        transaction.commit().await.map_err(error)?;
    }
    Ok(())
}
