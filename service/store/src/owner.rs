//! Which key file a database belongs to. A copy of the service that was given another one is refused at its start, and
//! not by the first camera whose password does not open.

use crate::{Store, StoreError, identifiers, now_ms};

pub(crate) const PURPOSE: &str = "owner";

impl Store {
    /// Whether the database belongs to this key; [`StoreError::Sealed`] if not. Changes nothing.
    pub async fn opens_with_this_key(&self) -> Result<(), StoreError> {
        let version = crate::schema::version(&self.pool, self.kind).await?;
        if !crate::schema::tables(version).iter().any(|t| t == "service_owner") {
            return Ok(());
        }
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM service_owner WHERE number = 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("see whose database this is", e))?;
        sealed.map_or(Ok(()), |sealed| self.secrets.unseal(PURPOSE, &sealed).map(drop))
    }

    /// Notes the key in a new database; looks at it in an old one.
    pub(crate) async fn belongs_to_this_key(&self, new: bool) -> Result<(), StoreError> {
        let error = |e| StoreError::database("see whose database this is", e);
        let mut transaction = self.begin_exclusive("service_owner").await.map_err(error)?;
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM service_owner WHERE number = 1")
            .fetch_optional(&mut *transaction)
            .await
            .map_err(error)?;
        match sealed {
            Some(_) if new => return Err(StoreError::Exists { what: "a service in this database".into() }),
            Some(sealed) => {
                self.secrets.unseal(PURPOSE, &sealed)?;
                // A service from before identities gets one that every copy of its database comes to by itself.
                sqlx::query("UPDATE service_owner SET identity = $1 WHERE number = 1 AND identity = ''")
                    .bind(crate::place::derived_identity(&sealed))
                    .execute(&mut *transaction)
                    .await
                    .map_err(error)?;
                return transaction.commit().await.map_err(error);
            }
            None => {}
        }
        sqlx::query("INSERT INTO service_owner (number, sealed, created_ms, identity) VALUES (1, $1, $2, $3)")
            .bind(self.secrets.seal(PURPOSE, b"this key"))
            .bind(now_ms())
            .bind(identifiers::uuid())
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        transaction.commit().await.map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::places;
    use crate::{Store, StoreError};

    #[tokio::test]
    async fn another_key_file_and_a_second_service_are_refused() {
        for place in places().await {
            place.create().await.close().await;
            let other = tempfile::tempdir().unwrap();
            if place.places.database.is_some() {
                let again = Store::create_in(other.path(), &place.places).await;
                assert!(matches!(again, Err(StoreError::Exists { .. })));
                assert!(!other.path().join("secrets.key").exists(), "a second attempt begins anew");
            }
            std::fs::remove_file(place.folder.path().join("secrets.key")).unwrap();
            crate::secrets::SecretBox::create(&place.folder.path().join("secrets.key")).unwrap();
            let opened = Store::open_in(place.folder.path(), &place.places).await;
            assert!(matches!(opened, Err(StoreError::Sealed)));
            let attached = Store::attach_in(place.folder.path(), &place.places).await.unwrap();
            assert!(matches!(attached.opens_with_this_key().await, Err(StoreError::Sealed)));
        }
    }
}
