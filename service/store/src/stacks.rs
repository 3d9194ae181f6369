//! Stacks, their resources and events, and change sets. What the documents mean is not decided here.

use crate::database::DatabaseRow;
use crate::error::{stored, text};
use crate::secrets::SecretBox;
use crate::{Store, StoreError, identifiers, now_ms};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;
use std::collections::BTreeMap;

/// What a stack is made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The template as given.
    pub template: String,
    /// Values of all parameters.
    pub parameters: BTreeMap<String, String>,
    /// `CAPABILITY_IAM`, ….
    pub capabilities: Vec<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its ARN.
    pub stack_id: String,
    /// Unique among those that are not deleted.
    pub name: String,
    /// `CREATE_COMPLETE`, ….
    pub status: String,
    /// For people.
    pub status_reason: Option<String>,
    /// What it was made from; empty until a change set was executed.
    pub source: Source,
    /// Its outputs.
    pub outputs: Vec<StackOutput>,
    /// The template's.
    pub description: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackOutput {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// For people.
    pub description: Option<String>,
}

/// A resource of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct StackResource {
    /// Name in the template.
    pub logical_id: String,
    /// `AWS::IAM::Role`.
    pub kind: String,
    /// What `Ref` gives.
    pub physical_id: String,
    /// Resolved.
    pub properties: Value,
    /// What `GetAtt` gives.
    pub attributes: BTreeMap<String, String>,
    /// `CREATE_COMPLETE`, ….
    pub status: String,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEvent {
    /// Opaque.
    pub event_id: String,
    /// The resource, or the stack's name.
    pub logical_id: String,
    /// Of the resource or the stack.
    pub physical_id: String,
    /// Of the resource, or `AWS::CloudFormation::Stack`.
    pub kind: String,
    /// `CREATE_IN_PROGRESS`, ….
    pub status: String,
    /// For people.
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub time_ms: i64,
}

/// A change set.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeSet {
    /// Its ARN.
    pub change_set_id: String,
    /// Unique in its stack.
    pub name: String,
    /// Of which stack.
    pub stack_id: String,
    /// `CREATE`, `UPDATE`.
    pub kind: String,
    /// `CREATE_COMPLETE`, `FAILED`.
    pub status: String,
    /// For people.
    pub status_reason: Option<String>,
    /// `AVAILABLE`, `UNAVAILABLE`, `EXECUTE_COMPLETE`.
    pub execution_status: String,
    /// For people.
    pub description: Option<String>,
    /// What the stack will be made from.
    pub source: Source,
    /// What will change.
    pub changes: Vec<Change>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// What a change set does to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `Add`, `Modify`, `Remove`.
    pub action: String,
    /// Name in the template.
    pub logical_id: String,
    /// `AWS::IAM::Role`.
    pub kind: String,
    /// If it is there.
    pub physical_id: Option<String>,
}

/// Templates, parameters and properties hold what people keep secret: passwords, addresses of webhooks.
const PURPOSE: &str = "stack";
/// What a sealed text begins with. Stacks of earlier versions are there as they were given.
const SEALED: &str = "sealed:";

fn sealed(secrets: &SecretBox, plain: &str) -> String {
    format!("{SEALED}{}", BASE64_STANDARD.encode(secrets.seal(PURPOSE, plain.as_bytes())))
}

fn unsealed(secrets: &SecretBox, text: String) -> Result<String, StoreError> {
    let Some(encoded) = text.strip_prefix(SEALED) else { return Ok(text) };
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| StoreError::Sealed)?;
    String::from_utf8(secrets.unseal(PURPOSE, &bytes)?).map_err(|_| StoreError::Sealed)
}

fn source(secrets: &SecretBox, row: &DatabaseRow) -> Result<Source, StoreError> {
    let get = |name: &str| row.try_get::<String, _>(name).map_err(|e| StoreError::database("read a stack", e));
    Ok(Source {
        template: unsealed(secrets, get("template")?)?,
        parameters: stored("a stack's parameters", &unsealed(secrets, get("parameters")?)?)?,
        capabilities: stored("a stack's capabilities", &get("capabilities")?)?,
        tags: stored("a stack's tags", &get("tags")?)?,
    })
}

fn stack(secrets: &SecretBox, row: &DatabaseRow) -> Result<Stack, StoreError> {
    let error = |e| StoreError::database("read a stack", e);
    let outputs: String = row.try_get("outputs").map_err(error)?;
    Ok(Stack {
        stack_id: row.try_get("stack_id").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        status: row.try_get("status").map_err(error)?,
        status_reason: row.try_get("status_reason").map_err(error)?,
        source: source(secrets, row)?,
        outputs: stored("a stack's outputs", &outputs)?,
        description: row.try_get("description").map_err(error)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
        updated_ms: row.try_get("updated_ms").map_err(error)?,
        deleted_ms: row.try_get("deleted_ms").map_err(error)?,
    })
}

fn resource(secrets: &SecretBox, row: &DatabaseRow) -> Result<StackResource, StoreError> {
    let error = |e| StoreError::database("read a stack's resource", e);
    let (properties, attributes): (String, String) =
        (row.try_get("properties").map_err(error)?, row.try_get("attributes").map_err(error)?);
    Ok(StackResource {
        logical_id: row.try_get("logical_id").map_err(error)?,
        kind: row.try_get("kind").map_err(error)?,
        physical_id: row.try_get("physical_id").map_err(error)?,
        properties: stored("a resource's properties", &unsealed(secrets, properties)?)?,
        attributes: stored("a resource's attributes", &attributes)?,
        status: row.try_get("status").map_err(error)?,
        updated_ms: row.try_get("updated_ms").map_err(error)?,
    })
}

fn change_set(secrets: &SecretBox, row: &DatabaseRow) -> Result<ChangeSet, StoreError> {
    let error = |e| StoreError::database("read a change set", e);
    let changes: String = row.try_get("changes").map_err(error)?;
    Ok(ChangeSet {
        change_set_id: row.try_get("change_set_id").map_err(error)?,
        name: row.try_get("name").map_err(error)?,
        stack_id: row.try_get("stack_id").map_err(error)?,
        kind: row.try_get("kind").map_err(error)?,
        status: row.try_get("status").map_err(error)?,
        status_reason: row.try_get("status_reason").map_err(error)?,
        execution_status: row.try_get("execution_status").map_err(error)?,
        description: row.try_get("description").map_err(error)?,
        source: source(secrets, row)?,
        changes: stored("a change set's changes", &changes)?,
        created_ms: row.try_get("created_ms").map_err(error)?,
    })
}

impl StackEvent {
    /// Something that happens now.
    pub fn now(logical_id: &str, physical_id: &str, kind: &str, status: &str, reason: Option<&str>) -> StackEvent {
        StackEvent {
            event_id: identifiers::token::<16>(),
            logical_id: logical_id.into(),
            physical_id: physical_id.into(),
            kind: kind.into(),
            status: status.into(),
            reason: reason.map(str::to_owned),
            time_ms: now_ms(),
        }
    }
}

impl Store {
    /// Writes a stack, its resources (those and no others) and what happened, in one transaction. A new stack whose
    /// name is taken is [`StoreError::Exists`].
    pub async fn write_stack(
        &self,
        stack: &Stack,
        resources: &[StackResource],
        events: &[StackEvent],
    ) -> Result<(), StoreError> {
        let error = |e| StoreError::database("store a stack", e);
        let mut transaction = self.begin_exclusive("stack").await.map_err(error)?;
        sqlx::query(
            "INSERT INTO stack (stack_id, name, status, status_reason, template, parameters, outputs, description, \
             capabilities, tags, created_ms, updated_ms, deleted_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             ON CONFLICT (stack_id) DO UPDATE SET status = excluded.status, status_reason = excluded.status_reason, \
             template = excluded.template, parameters = excluded.parameters, outputs = excluded.outputs, \
             description = excluded.description, capabilities = excluded.capabilities, tags = excluded.tags, \
             updated_ms = excluded.updated_ms, deleted_ms = excluded.deleted_ms",
        )
        .bind(&stack.stack_id)
        .bind(&stack.name)
        .bind(&stack.status)
        .bind(&stack.status_reason)
        .bind(sealed(self.secrets(), &stack.source.template))
        .bind(sealed(self.secrets(), &text(&stack.source.parameters)))
        .bind(text(&stack.outputs))
        .bind(&stack.description)
        .bind(text(&stack.source.capabilities))
        .bind(text(&stack.source.tags))
        .bind(stack.created_ms)
        .bind(stack.updated_ms)
        .bind(stack.deleted_ms)
        .execute(&mut *transaction)
        .await
        .map_err(|e| StoreError::insert("store a stack", &format!("Stack [{}]", stack.name), e))?;
        sqlx::query("DELETE FROM stack_resource WHERE stack_id = $1")
            .bind(&stack.stack_id)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        for resource in resources {
            sqlx::query(
                "INSERT INTO stack_resource (stack_id, logical_id, kind, physical_id, properties, attributes, status, updated_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&stack.stack_id)
            .bind(&resource.logical_id)
            .bind(&resource.kind)
            .bind(&resource.physical_id)
            .bind(sealed(self.secrets(), &text(&resource.properties)))
            .bind(text(&resource.attributes))
            .bind(&resource.status)
            .bind(resource.updated_ms)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        for event in events {
            sqlx::query(
                "INSERT INTO stack_event (event_id, stack_id, logical_id, physical_id, kind, status, reason, time_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&event.event_id)
            .bind(&stack.stack_id)
            .bind(&event.logical_id)
            .bind(&event.physical_id)
            .bind(&event.kind)
            .bind(&event.status)
            .bind(&event.reason)
            .bind(event.time_ms)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        }
        transaction.commit().await.map_err(error)
    }

    /// Takes a stack from one status into another; false if it is not in the first (any more): somebody else works on it.
    pub async fn claim_stack(&self, stack_id: &str, from: &str, to: &str) -> Result<bool, StoreError> {
        sqlx::query("UPDATE stack SET status = $1 WHERE stack_id = $2 AND status = $3")
            .bind(to)
            .bind(stack_id)
            .bind(from)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|e| StoreError::database("claim a stack", e))
    }

    /// A stack by its ARN (deleted or not) or by its name (not deleted).
    pub async fn stack(&self, id: &str) -> Result<Option<Stack>, StoreError> {
        let row = sqlx::query("SELECT * FROM stack WHERE stack_id = $1 OR (name = $1 AND deleted_ms IS NULL)")
            .bind(id)
            .fetch_optional(&self.pool)
            .await;
        row.map_err(|e| StoreError::database("look up a stack", e))?
            .as_ref()
            .map(|row| stack(self.secrets(), row))
            .transpose()
    }

    /// All stacks, newest first; at most 1000.
    pub async fn list_stacks(&self) -> Result<Vec<Stack>, StoreError> {
        let rows = sqlx::query("SELECT * FROM stack ORDER BY created_ms DESC LIMIT 1000").fetch_all(&self.pool).await;
        rows.map_err(|e| StoreError::database("list stacks", e))?.iter().map(|row| stack(self.secrets(), row)).collect()
    }

    /// The resources of a stack, by name.
    pub async fn stack_resources(&self, stack_id: &str) -> Result<Vec<StackResource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM stack_resource WHERE stack_id = $1 ORDER BY logical_id")
            .bind(stack_id)
            .fetch_all(&self.pool)
            .await;
        rows.map_err(|e| StoreError::database("list a stack's resources", e))?
            .iter()
            .map(|row| resource(self.secrets(), row))
            .collect()
    }

    /// What happened to a stack, newest first; at most 1000.
    pub async fn stack_events(&self, stack_id: &str) -> Result<Vec<StackEvent>, StoreError> {
        let error = |e| StoreError::database("list a stack's events", e);
        let rows = sqlx::query("SELECT * FROM stack_event WHERE stack_id = $1 ORDER BY sequence DESC LIMIT 1000")
            .bind(stack_id)
            .fetch_all(&self.pool)
            .await
            .map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(StackEvent {
                    event_id: row.try_get("event_id").map_err(error)?,
                    logical_id: row.try_get("logical_id").map_err(error)?,
                    physical_id: row.try_get("physical_id").map_err(error)?,
                    kind: row.try_get("kind").map_err(error)?,
                    status: row.try_get("status").map_err(error)?,
                    reason: row.try_get("reason").map_err(error)?,
                    time_ms: row.try_get("time_ms").map_err(error)?,
                })
            })
            .collect()
    }

    /// Forgets a stack that never had resources.
    pub async fn forget_stack(&self, stack_id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM stack WHERE stack_id = $1")
            .bind(stack_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("forget a stack", e))
    }

    /// Adds a change set; [`StoreError::Exists`] if the stack has one of this name.
    pub async fn create_change_set(&self, set: &ChangeSet) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO change_set (change_set_id, name, stack_id, kind, status, status_reason, execution_status, description, \
             template, parameters, capabilities, tags, changes, created_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(&set.change_set_id)
        .bind(&set.name)
        .bind(&set.stack_id)
        .bind(&set.kind)
        .bind(&set.status)
        .bind(&set.status_reason)
        .bind(&set.execution_status)
        .bind(&set.description)
        .bind(sealed(self.secrets(), &set.source.template))
        .bind(sealed(self.secrets(), &text(&set.source.parameters)))
        .bind(text(&set.source.capabilities))
        .bind(text(&set.source.tags))
        .bind(text(&set.changes))
        .bind(set.created_ms)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| StoreError::insert("store a change set", &format!("ChangeSet {}", set.name), e))
    }

    /// A change set by its ARN, or by its name in a stack.
    pub async fn change_set(&self, stack_id: Option<&str>, id: &str) -> Result<Option<ChangeSet>, StoreError> {
        let row = sqlx::query("SELECT * FROM change_set WHERE change_set_id = $1 OR (name = $1 AND stack_id = $2)")
            .bind(id)
            .bind(stack_id.unwrap_or(""))
            .fetch_optional(&self.pool)
            .await;
        row.map_err(|e| StoreError::database("look up a change set", e))?
            .as_ref()
            .map(|row| change_set(self.secrets(), row))
            .transpose()
    }

    /// The change sets of a stack, newest first.
    pub async fn list_change_sets(&self, stack_id: &str) -> Result<Vec<ChangeSet>, StoreError> {
        let rows = sqlx::query("SELECT * FROM change_set WHERE stack_id = $1 ORDER BY created_ms DESC LIMIT 1000")
            .bind(stack_id)
            .fetch_all(&self.pool)
            .await;
        rows.map_err(|e| StoreError::database("list change sets", e))?
            .iter()
            .map(|row| change_set(self.secrets(), row))
            .collect()
    }

    /// Deletes a change set.
    pub async fn delete_change_set(&self, change_set_id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM change_set WHERE change_set_id = $1")
            .bind(change_set_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| StoreError::database("delete a change set", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::places;

    #[tokio::test]
    async fn what_a_stack_was_made_from_is_not_readable_in_the_database() {
        for place in places().await {
            let store = place.create().await;
            let source = Source {
                template: "swordfish".into(),
                parameters: BTreeMap::from([("p".into(), "swordfish".into())]),
                ..Source::default()
            };
            let stack = Stack {
                stack_id: "arn:s".into(),
                name: "s".into(),
                status: "CREATE_COMPLETE".into(),
                status_reason: None,
                source,
                outputs: Vec::new(),
                description: None,
                created_ms: 1,
                updated_ms: None,
                deleted_ms: None,
            };
            let resource = StackResource {
                logical_id: "r".into(),
                kind: "K".into(),
                physical_id: "i".into(),
                properties: Value::from("swordfish"),
                attributes: BTreeMap::new(),
                status: "CREATE_COMPLETE".into(),
                updated_ms: 1,
            };
            store.write_stack(&stack, std::slice::from_ref(&resource), &[]).await.unwrap();
            assert_eq!(store.stack("s").await.unwrap(), Some(stack));
            assert_eq!(store.stack_resources("arn:s").await.unwrap(), [resource]);
            for column in
                ["SELECT template FROM stack", "SELECT parameters FROM stack", "SELECT properties FROM stack_resource"]
            {
                let text: String = sqlx::query_scalar(column).fetch_one(&store.pool).await.unwrap();
                assert!(text.starts_with(SEALED), "{column}: {text}");
            }
            // As an earlier version wrote it.
            sqlx::query("UPDATE stack SET template = 'plain'").execute(&store.pool).await.unwrap();
            assert_eq!(store.stack("s").await.unwrap().unwrap().source.template, "plain");
        }
    }
}
