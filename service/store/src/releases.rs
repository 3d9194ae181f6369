//! Appliances whose device was deleted. The device is gone; what stays is its certificate's fingerprint, so that the
//! appliance, whenever it is next connected, can be told that it is free. Rows end with the certificate.

use crate::{Store, StoreError, now_ms};
use sqlx::Row;

/// A certificate of a deleted device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedCertificate {
    /// Its common name.
    pub thing_name: String,
    /// Whose it was.
    pub device_id: String,
    /// When the appliance first heard of it.
    pub told_ms: Option<i64>,
}

/// Which appliances a deletion releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Releases {
    /// Those whose certificate stands. One that was locked out before, because it was stolen, stays unusable.
    Standing,
    /// Also one that was locked out.
    EvenRevoked,
}

impl Store {
    /// Removes a device with its certificates and shadows, and remembers that its appliance is free; false if there was
    /// none. One transaction.
    pub async fn release_device(&self, device_id: &str, releases: Releases) -> Result<bool, StoreError> {
        let error = |e| StoreError::database("delete a device", e);
        let now = now_ms();
        let mut transaction = self.begin_exclusive("certificate").await.map_err(error)?;
        sqlx::query("DELETE FROM released_certificate WHERE expires_ms < $1")
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        let revoked = if releases == Releases::EvenRevoked { "revoked" } else { "active" };
        sqlx::query(
            "INSERT INTO released_certificate (fingerprint, thing_name, device_id, released_ms, expires_ms) \
             SELECT fingerprint, common_name, device_id, $1, expires_ms FROM certificate \
             WHERE device_id = $2 AND kind = 'device' AND status IN ('active', $3) AND expires_ms > $4",
        )
        .bind(now)
        .bind(device_id)
        .bind(revoked)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(error)?;
        let deleted =
            sqlx::query("DELETE FROM device WHERE device_id = $1").bind(device_id).execute(&mut *transaction).await;
        let deleted = deleted.map_err(error)?.rows_affected() == 1;
        transaction.commit().await.map_err(error)?;
        Ok(deleted)
    }

    /// Whether a certificate was a deleted device's whose appliance is free; notes when that was first asked.
    pub async fn released_certificate(&self, fingerprint: &str) -> Result<Option<ReleasedCertificate>, StoreError> {
        let error = |e| StoreError::database("look up a released certificate", e);
        let now = now_ms();
        let row = sqlx::query("SELECT * FROM released_certificate WHERE fingerprint = $1 AND expires_ms > $2")
            .bind(fingerprint)
            .bind(now)
            .fetch_optional(&self.pool)
            .await
            .map_err(error)?;
        let Some(row) = row else { return Ok(None) };
        let found = ReleasedCertificate {
            thing_name: row.try_get("thing_name").map_err(error)?,
            device_id: row.try_get("device_id").map_err(error)?,
            told_ms: row.try_get("told_ms").map_err(error)?,
        };
        if found.told_ms.is_none() {
            sqlx::query("UPDATE released_certificate SET told_ms = $1 WHERE fingerprint = $2")
                .bind(now)
                .bind(fingerprint)
                .execute(&self.pool)
                .await
                .map_err(error)?;
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::{Certificate, CertificateKind};
    use crate::devices::{NewDevice, Tags};
    use crate::testing::places;

    fn certificate(device: &str, fingerprint: &str, kind: CertificateKind) -> Certificate {
        let common_name = if kind == CertificateKind::Claim { format!("claim-{device}") } else { format!("thing-{device}") };
        Certificate {
            fingerprint: fingerprint.into(),
            common_name,
            device_id: device.into(),
            kind,
            expires_ms: now_ms() + 60_000,
        }
    }

    async fn provision(store: &Store, device: &str) {
        let thing_name = format!("thing-{device}");
        let tags = Tags::new();
        let new = NewDevice {
            device_id: device,
            name: device,
            thing_name: &thing_name,
            description: None,
            tags: &tags,
            networking: None,
        };
        let claim = format!("{device}-claim");
        store.create_device_with_claim(new, certificate(device, &claim, CertificateKind::Claim)).await.unwrap();
        let own = certificate(device, &format!("{device}-own"), CertificateKind::Device);
        store.add_pending_certificate(&own, &claim, "token", now_ms() + 60_000).await.unwrap();
        assert!(store.activate_certificate(&claim, "token", None, None).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn boot_d8_a_deleted_device_is_free_and_no_other() {
        for place in places().await {
            let store = place.create().await;
            provision(&store, "device-a").await;
            provision(&store, "device-b").await;
            assert_eq!(store.released_certificate("device-a-own").await.unwrap(), None);
            assert!(store.delete_device("device-a").await.unwrap());
            assert!(!store.delete_device("device-a").await.unwrap(), "once");
            let released = store.released_certificate("device-a-own").await.unwrap().unwrap();
            assert_eq!((released.thing_name.as_str(), released.told_ms), ("thing-device-a", None));
            let again = store.released_certificate("device-a-own").await.unwrap().unwrap();
            assert!(again.told_ms.is_some(), "noted when it first was asked");
            for other in ["device-a-claim", "device-b-own", "unknown"] {
                assert_eq!(store.released_certificate(other).await.unwrap(), None, "{other}");
            }
            assert!(store.usable_certificate("device-a-own").await.unwrap().is_none(), "good for nothing else");
        }
    }

    #[tokio::test]
    async fn boot_d8_a_stolen_appliance_is_freed_only_where_that_is_asked_for() {
        for place in places().await {
            let store = place.create().await;
            for device in ["device-a", "device-b"] {
                provision(&store, device).await;
                assert!(store.revoke_certificates(device).await.unwrap());
            }
            assert!(store.delete_device("device-a").await.unwrap());
            assert_eq!(store.released_certificate("device-a-own").await.unwrap(), None);
            assert!(store.release_device("device-b", Releases::EvenRevoked).await.unwrap());
            assert!(store.released_certificate("device-b-own").await.unwrap().is_some());
        }
    }
}
