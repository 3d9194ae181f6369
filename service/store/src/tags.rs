//! Tags of whatever has tags, and what else an administrator changes afterwards.

use crate::devices::Tags;
use crate::error::{stored, text};
use crate::{Store, StoreError, now_ms};

/// What has tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagged {
    /// A device.
    Device,
    /// A package.
    Package,
    /// An application instance.
    ApplicationInstance,
}

impl Tagged {
    const fn statements(self) -> (&'static str, &'static str) {
        match self {
            Tagged::Device => (
                "SELECT tags FROM device WHERE device_id = $1",
                "UPDATE device SET tags = $1 WHERE device_id = $2 AND tags = $3",
            ),
            Tagged::Package => (
                "SELECT tags FROM package WHERE package_id = $1",
                "UPDATE package SET tags = $1 WHERE package_id = $2 AND tags = $3",
            ),
            Tagged::ApplicationInstance => (
                "SELECT tags FROM application_instance WHERE application_instance_id = $1",
                "UPDATE application_instance SET tags = $1 WHERE application_instance_id = $2 AND tags = $3",
            ),
        }
    }
}

impl Store {
    /// Tags, with their text as it is stored; `None` if there is no such thing.
    async fn stored_tags(&self, what: Tagged, id: &str) -> Result<Option<(Tags, String)>, StoreError> {
        let found: Option<String> = sqlx::query_scalar(what.statements().0)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| StoreError::database("read tags", e))?;
        found.map(|text| Ok((stored("tags", &text)?, text))).transpose()
    }

    /// Tags; `None` if there is no such thing.
    pub async fn tags(&self, what: Tagged, id: &str) -> Result<Option<Tags>, StoreError> {
        Ok(self.stored_tags(what, id).await?.map(|(tags, _)| tags))
    }

    /// Writes `after` in place of `before`; false if they are not (or no longer) `before`.
    pub async fn replace_tags(&self, what: Tagged, id: &str, before: &Tags, after: &Tags) -> Result<bool, StoreError> {
        let Some((now, old)) = self.stored_tags(what, id).await? else { return Ok(false) };
        if now != *before {
            return Ok(false);
        }
        sqlx::query(what.statements().1)
            .bind(text(after))
            .bind(id)
            .bind(old)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("store tags", e))
    }

    /// Describes a device anew; false if there is none.
    pub async fn describe_device_anew(&self, device_id: &str, description: &str) -> Result<bool, StoreError> {
        sqlx::query("UPDATE device SET description = $1, updated_ms = $2 WHERE device_id = $3")
            .bind(description)
            .bind(now_ms())
            .bind(device_id)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("describe a device", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn tags_are_replaced_only_as_they_were_read() {
        for place in crate::testing::places().await {
            check(&place.create().await).await;
        }
    }

    async fn check(store: &Store) {
        let (none, one, two) = (tags(&[]), tags(&[("a", "1")]), tags(&[("a", "2"), ("b", "")]));
        let id = store.create_package("P", &none).await.unwrap().package_id;
        assert!(store.replace_tags(Tagged::Package, &id, &none, &one).await.unwrap());
        assert!(!store.replace_tags(Tagged::Package, &id, &none, &two).await.unwrap());
        assert!(store.replace_tags(Tagged::Package, &id, &one, &two).await.unwrap());
        assert_eq!(store.tags(Tagged::Package, &id).await.unwrap(), Some(two));
        assert_eq!(store.tags(Tagged::Device, &id).await.unwrap(), None);
        assert!(!store.replace_tags(Tagged::ApplicationInstance, &id, &none, &one).await.unwrap());
    }
}
