//! Certificates that this service issued to devices, and the one place where provisioning changes their state.
//!
//! A claim is `active` until it is `consumed`; a device certificate is `pending` until its thing is registered, then
//! `active`, and `revoked` when the device gets a newer one. What is not in the table does not connect.

use crate::database::{self, DatabaseRow};
use crate::{Store, StoreError, now_ms};
use sqlx::{AnyConnection, Row};
use std::collections::HashSet;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    /// Five minutes, to get a device certificate.
    Claim,
    /// The device's own.
    Device,
}

/// A certificate that may connect.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    /// Subject.
    pub common_name: String,
    /// Whose.
    pub device_id: String,
    /// What for.
    pub kind: CertificateKind,
    /// End of validity.
    pub expires_ms: i64,
}

fn certificate(row: &DatabaseRow) -> Result<Certificate, StoreError> {
    let error = |e| StoreError::database("read a certificate", e);
    let kind: String = row.try_get("kind").map_err(error)?;
    Ok(Certificate {
        fingerprint: row.try_get("fingerprint").map_err(error)?,
        common_name: row.try_get("common_name").map_err(error)?,
        device_id: row.try_get("device_id").map_err(error)?,
        kind: if kind == "claim" { CertificateKind::Claim } else { CertificateKind::Device },
        expires_ms: row.try_get("expires_ms").map_err(error)?,
    })
}

/// Remembers a new claim.
pub(crate) async fn add_claim(connection: &mut AnyConnection, claim: &Certificate, now: i64) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO certificate (fingerprint, common_name, device_id, kind, status, created_ms, expires_ms) \
         VALUES ($1, $2, $3, 'claim', 'active', $4, $5)",
    )
    .bind(&claim.fingerprint)
    .bind(&claim.common_name)
    .bind(&claim.device_id)
    .bind(now)
    .bind(claim.expires_ms)
    .execute(connection)
    .await
    .map(drop)
}

impl Store {
    /// A certificate that may be used now: known, active, not expired.
    pub async fn usable_certificate(&self, fingerprint: &str) -> Result<Option<Certificate>, StoreError> {
        sqlx::query("SELECT * FROM certificate WHERE fingerprint = $1 AND status = 'active' AND expires_ms > $2")
            .bind(fingerprint)
            .bind(now_ms())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("look up a certificate", e))?
            .as_ref()
            .map(certificate)
            .transpose()
    }

    /// Fingerprints of all certificates that may be used now.
    pub async fn standing_certificates(&self) -> Result<HashSet<String>, StoreError> {
        let all = database::standing_certificates(&self.pool, self.kind, now_ms()).await;
        let all = all.map_err(|e| StoreError::database("list certificates", e))?;
        Ok(all.split_ascii_whitespace().map(str::to_owned).collect())
    }

    /// Locks a device out: none of its certificates may be used from now on. False if none stood.
    pub async fn revoke_certificates(&self, device_id: &str) -> Result<bool, StoreError> {
        sqlx::query("UPDATE certificate SET status = 'revoked' WHERE device_id = $1 AND status IN ('active', 'pending')")
            .bind(device_id)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(|e| StoreError::database("revoke certificates", e))
    }

    /// Remembers a device certificate that is not yet active, the claim that asked for it, and the hash of the token
    /// that proves it. A later request under the same claim replaces the earlier one.
    pub async fn add_pending_certificate(
        &self,
        new: &Certificate,
        claim: &str,
        token_hash: &str,
        token_expires_ms: i64,
    ) -> Result<(), StoreError> {
        let error = |e| StoreError::database("store a device certificate", e);
        let mut transaction = self.begin_exclusive("certificate").await.map_err(error)?;
        sqlx::query("DELETE FROM certificate WHERE claim = $1 AND status = 'pending'")
            .bind(claim)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        sqlx::query(
            "INSERT INTO certificate (fingerprint, common_name, device_id, kind, status, created_ms, expires_ms, claim, \
             token_hash, token_expires_ms) VALUES ($1, $2, $3, 'device', 'pending', $4, $5, $6, $7, $8)",
        )
        .bind(&new.fingerprint)
        .bind(&new.common_name)
        .bind(&new.device_id)
        .bind(now_ms())
        .bind(new.expires_ms)
        .bind(claim)
        .bind(token_hash)
        .bind(token_expires_ms)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)
    }

    /// RegisterThing, in one transaction: the pending certificate becomes the device's only active one, the claim is
    /// consumed, the device has succeeded. `None`, and nothing changed, if the token does not belong to this claim,
    /// is too old, or the claim was consumed before.
    pub async fn activate_certificate(
        &self,
        claim: &str,
        token_hash: &str,
        serial_number: Option<&str>,
        software_version: Option<&str>,
    ) -> Result<Option<Certificate>, StoreError> {
        let error = |e| StoreError::database("activate a device certificate", e);
        let now = now_ms();
        let mut transaction = self.begin_exclusive("certificate").await.map_err(error)?;
        let row = sqlx::query(
            "SELECT fresh.* FROM certificate fresh JOIN certificate asking ON asking.fingerprint = fresh.claim \
             WHERE fresh.claim = $1 AND fresh.token_hash = $2 AND fresh.status = 'pending' AND fresh.token_expires_ms > $3 \
             AND asking.status = 'active'",
        )
        .bind(claim)
        .bind(token_hash)
        .bind(now)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error)?;
        let Some(row) = row else { return Ok(None) };
        let new = certificate(&row)?;
        sqlx::query(
            "UPDATE certificate SET status = 'revoked' WHERE device_id = $1 AND kind = 'device' AND status = 'active'",
        )
        .bind(&new.device_id)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        sqlx::query("UPDATE certificate SET status = 'consumed' WHERE device_id = $1 AND kind = 'claim'")
            .bind(&new.device_id)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        sqlx::query("UPDATE certificate SET status = 'active', token_hash = NULL WHERE fingerprint = $1")
            .bind(&new.fingerprint)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        sqlx::query(
            "UPDATE device SET provisioning_status = 'SUCCEEDED', serial_number = coalesce($1, serial_number), \
             software_version = coalesce($2, software_version), updated_ms = $3 WHERE device_id = $4",
        )
        .bind(serial_number)
        .bind(software_version)
        .bind(now)
        .bind(&new.device_id)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        transaction.commit().await.map_err(error)?;
        Ok(Some(new))
    }
}
