//! Roles and policies: documents by name. What the documents mean is not decided here.

use crate::database::DatabaseRow;
use crate::error::{stored, text};
use crate::{Store, StoreError, identifiers, now_ms};
use sqlx::Row;
use std::collections::BTreeMap;

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// `AROA…`; another one when a role of the same name is made anew.
    pub role_id: String,
    /// Unique.
    pub name: String,
    /// `/` or `/…/`.
    pub path: String,
    /// For people.
    pub description: Option<String>,
    /// Who may assume it.
    pub trust_policy: String,
    /// Longest session, seconds.
    pub max_session_s: i64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// A role to be.
#[derive(Debug, Clone)]
pub struct NewRole<'a> {
    /// Unique.
    pub name: &'a str,
    /// `/` or `/…/`.
    pub path: &'a str,
    /// For people.
    pub description: Option<&'a str>,
    /// Who may assume it.
    pub trust_policy: &'a str,
    /// Longest session, seconds.
    pub max_session_s: i64,
    /// Tags.
    pub tags: &'a BTreeMap<String, String>,
}

/// A policy that can be attached to several roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedPolicy {
    /// `ANPA…`.
    pub policy_id: String,
    /// Unique.
    pub arn: String,
    /// Unique.
    pub name: String,
    /// `/` or `/…/`.
    pub path: String,
    /// For people.
    pub description: Option<String>,
    /// What it allows.
    pub document: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
}

fn role_of(row: &DatabaseRow) -> Result<Role, StoreError> {
    let error = |e| StoreError::database("read a role's row", e);
    let tags: String = row.try_get("tags").map_err(error)?;
    Ok(Role {
        role_id: row.try_get("role_id").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        path: row.try_get("path").map_err(error)?,
        description: row.try_get("description").map_err(error)?,
        trust_policy: row.try_get("trust_policy").map_err(error)?,
        max_session_s: row.try_get("max_session_s").map_err(error)?,
        tags: stored("a role's tags", &tags)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
    })
}

fn policy_of(row: &DatabaseRow) -> Result<ManagedPolicy, StoreError> {
    let error = |e| StoreError::database("read a policy's row", e);
    Ok(ManagedPolicy {
        policy_id: row.try_get("policy_id").map_err(error)?,
        arn: row.try_get("arn").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        path: row.try_get("path").map_err(error)?,
        description: row.try_get("description").map_err(error)?,
        document: row.try_get("document").map_err(error)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
        updated_ms: row.try_get("updated_ms").map_err(error)?,
    })
}

impl Store {
    /// Makes a role; [`StoreError::Exists`] if the name is taken.
    pub async fn create_role(&self, new: NewRole<'_>) -> Result<Role, StoreError> {
        let role = Role {
            role_id: identifiers::access_key("AROA"),
            name: new.name.to_owned(),
            path: new.path.to_owned(),
            description: new.description.map(str::to_owned),
            trust_policy: new.trust_policy.to_owned(),
            max_session_s: new.max_session_s,
            tags: new.tags.clone(),
            created_ms: now_ms(),
        };
        sqlx::query(
            "INSERT INTO role (role_id, name, path, description, trust_policy, max_session_s, tags, created_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&role.role_id)
        .bind(&role.name)
        .bind(&role.path)
        .bind(&role.description)
        .bind(&role.trust_policy)
        .bind(role.max_session_s)
        .bind(text(&role.tags))
        .bind(role.created_ms)
        .execute(&self.pool)
        .await
        .map_err(|e| StoreError::insert("store a role", &format!("Role with name {}", role.name), e))?;
        Ok(role)
    }

    /// Changes what may change in a role; false if there is none of this name.
    pub async fn update_role(
        &self,
        name: &str,
        description: Option<&str>,
        trust_policy: &str,
        max_session_s: i64,
    ) -> Result<bool, StoreError> {
        sqlx::query("UPDATE role SET description = $1, trust_policy = $2, max_session_s = $3 WHERE name = $4")
            .bind(description)
            .bind(trust_policy)
            .bind(max_session_s)
            .bind(name)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("change a role", e))
    }

    /// A role by its name.
    pub async fn role(&self, name: &str) -> Result<Option<Role>, StoreError> {
        let row = sqlx::query("SELECT * FROM role WHERE name = $1").bind(name).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a role", e))?.as_ref().map(role_of).transpose()
    }

    /// All roles, by name.
    pub async fn list_roles(&self) -> Result<Vec<Role>, StoreError> {
        let rows = sqlx::query("SELECT * FROM role ORDER BY name").fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list roles", e))?.iter().map(role_of).collect()
    }

    /// Deletes a role, its own policies and its attachments: its sessions end at once. False if there was none.
    pub async fn delete_role(&self, name: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM role WHERE name = $1")
            .bind(name)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("delete a role", e))
    }

    /// Adds or replaces one of a role's own policies.
    pub async fn put_role_policy(&self, role_id: &str, name: &str, document: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO role_policy (role_id, name, document) VALUES ($1, $2, $3) \
             ON CONFLICT (role_id, name) DO UPDATE SET document = excluded.document",
        )
        .bind(role_id)
        .bind(name)
        .bind(document)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| StoreError::database("store a role's policy", e))
    }

    /// A role's own policies: names and documents, by name.
    pub async fn role_policies(&self, role_id: &str) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT name, document FROM role_policy WHERE role_id = $1 ORDER BY name")
            .bind(role_id)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| StoreError::database("list a role's policies", e))
    }

    /// Deletes one of a role's own policies; false if there was none.
    pub async fn delete_role_policy(&self, role_id: &str, name: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM role_policy WHERE role_id = $1 AND name = $2")
            .bind(role_id)
            .bind(name)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("delete a role's policy", e))
    }

    /// Makes a policy; [`StoreError::Exists`] if its name is taken.
    pub async fn create_managed_policy(
        &self,
        arn: &str,
        name: &str,
        path: &str,
        description: Option<&str>,
        document: &str,
    ) -> Result<ManagedPolicy, StoreError> {
        let now = now_ms();
        let policy = ManagedPolicy {
            policy_id: identifiers::access_key("ANPA"),
            arn: arn.to_owned(),
            name: name.to_owned(),
            path: path.to_owned(),
            description: description.map(str::to_owned),
            document: document.to_owned(),
            created_ms: now,
            updated_ms: now,
        };
        sqlx::query(
            "INSERT INTO managed_policy (policy_id, arn, name, path, description, document, created_ms, updated_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&policy.policy_id)
        .bind(&policy.arn)
        .bind(&policy.name)
        .bind(&policy.path)
        .bind(&policy.description)
        .bind(&policy.document)
        .bind(now)
        .bind(now)
        .execute(&self.pool)
        .await
        .map_err(|e| StoreError::insert("store a policy", &format!("A policy called {name}"), e))?;
        Ok(policy)
    }

    /// Gives a policy another document; false if there is none.
    pub async fn update_managed_policy(&self, arn: &str, document: &str) -> Result<bool, StoreError> {
        sqlx::query("UPDATE managed_policy SET document = $1, updated_ms = $2 WHERE arn = $3")
            .bind(document)
            .bind(now_ms())
            .bind(arn)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("change a policy", e))
    }

    /// A policy by its ARN.
    pub async fn managed_policy(&self, arn: &str) -> Result<Option<ManagedPolicy>, StoreError> {
        let row = sqlx::query("SELECT * FROM managed_policy WHERE arn = $1").bind(arn).fetch_optional(&self.pool).await;
        row.map_err(|e| StoreError::database("look up a policy", e))?.as_ref().map(policy_of).transpose()
    }

    /// All policies, by name.
    pub async fn list_managed_policies(&self) -> Result<Vec<ManagedPolicy>, StoreError> {
        let rows = sqlx::query("SELECT * FROM managed_policy ORDER BY name").fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list policies", e))?.iter().map(policy_of).collect()
    }

    /// Deletes a policy that is attached nowhere; `None` if it is attached, false if there is none.
    pub async fn delete_managed_policy(&self, arn: &str) -> Result<Option<bool>, StoreError> {
        let error = |e| StoreError::database("delete a policy", e);
        let deleted = sqlx::query(
            "DELETE FROM managed_policy WHERE arn = $1 \
             AND NOT EXISTS (SELECT 1 FROM role_attachment a WHERE a.policy_id = managed_policy.policy_id)",
        )
        .bind(arn)
        .execute(&self.pool)
        .await
        .map_err(error)?;
        if deleted.rows_affected() == 1 {
            return Ok(Some(true));
        }
        Ok(self.managed_policy(arn).await?.map_or(Some(false), |_| None))
    }

    /// Attaches a policy to a role; attaching it twice is attaching it once.
    pub async fn attach_policy(&self, role_id: &str, policy_id: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO role_attachment (role_id, policy_id) VALUES ($1, $2) ON CONFLICT (role_id, policy_id) DO NOTHING",
        )
        .bind(role_id)
        .bind(policy_id)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| StoreError::database("attach a policy", e))
    }

    /// Ends an attachment; false if there was none.
    pub async fn detach_policy(&self, role_id: &str, policy_id: &str) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM role_attachment WHERE role_id = $1 AND policy_id = $2")
            .bind(role_id)
            .bind(policy_id)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("detach a policy", e))
    }

    /// The policies attached to a role, by name.
    pub async fn attached_policies(&self, role_id: &str) -> Result<Vec<ManagedPolicy>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.* FROM managed_policy p JOIN role_attachment a ON a.policy_id = p.policy_id \
             WHERE a.role_id = $1 ORDER BY p.name",
        )
        .bind(role_id)
        .fetch_all(&self.pool)
        .await;
        rows.map_err(|e| StoreError::database("list attached policies", e))?.iter().map(policy_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn a_role_has_its_own_policies_and_attached_ones_and_takes_both_with_it() {
        for place in places().await {
            let store = place.create().await;
            let tags = BTreeMap::new();
            let new =
                NewRole { name: "r", path: "/", description: None, trust_policy: "{}", max_session_s: 3600, tags: &tags };
            let role = store.create_role(new.clone()).await.unwrap();
            assert!(matches!(store.create_role(new).await, Err(StoreError::Exists { .. })));
            store.put_role_policy(&role.role_id, "p", "1").await.unwrap();
            store.put_role_policy(&role.role_id, "p", "2").await.unwrap();
            assert_eq!(store.role_policies(&role.role_id).await.unwrap(), [("p".to_owned(), "2".to_owned())]);
            let policy = store.create_managed_policy("arn:p", "m", "/", None, "3").await.unwrap();
            store.attach_policy(&role.role_id, &policy.policy_id).await.unwrap();
            store.attach_policy(&role.role_id, &policy.policy_id).await.unwrap();
            assert_eq!(store.attached_policies(&role.role_id).await.unwrap().len(), 1);
            assert_eq!(store.delete_managed_policy("arn:p").await.unwrap(), None, "it is attached");
            assert!(store.delete_role("r").await.unwrap());
            assert!(store.role_policies(&role.role_id).await.unwrap().is_empty());
            assert_eq!(store.delete_managed_policy("arn:p").await.unwrap(), Some(true));
            assert_eq!(store.delete_managed_policy("arn:p").await.unwrap(), Some(false));
        }
    }
}
