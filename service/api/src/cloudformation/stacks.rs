//! Carrying a plan out: all or nothing.
//!
//! Order of writes, and what an end in the middle leaves:
//!
//! 1. the stack is claimed (`…_IN_PROGRESS`) — nothing is made yet;
//! 2. new resources are entered as `CREATE_IN_PROGRESS`, the others stay as they were — likewise;
//! 3. everything is made, then what is not wanted any more is removed — some of it is there;
//! 4. one transaction enters the new state, the outputs and the events — the new stack.
//!
//! [`roll_back`] undoes 3 from what 2 entered, whether a step failed or the service was killed ([`settled`]).

use super::kinds::{self, Planned};
use super::plan::Plan;
use crate::Api;
use crate::query::QueryError;
use belvedere_store::now_ms;
use belvedere_store::stacks::{Source, Stack, StackEvent, StackResource};

/// The kind of a stack in its own events.
pub const STACK: &str = "AWS::CloudFormation::Stack";
/// A stack that has been at work for so long was left by somebody who is not there any more.
const STALE_MS: i64 = 60_000;
const MAKING: &str = "CREATE_IN_PROGRESS";

/// What is being done to a stack: the first word of its states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// `CREATE_…`.
    Create,
    /// `UPDATE_…`.
    Update,
}

impl Work {
    fn word(self) -> &'static str {
        match self {
            Work::Create => "CREATE",
            Work::Update => "UPDATE",
        }
    }
    fn undone(self) -> &'static str {
        match self {
            Work::Create => "ROLLBACK_COMPLETE",
            Work::Update => "UPDATE_ROLLBACK_COMPLETE",
        }
    }
}

fn of_stack(stack: &Stack, status: &str, reason: Option<&str>) -> StackEvent {
    StackEvent::now(&stack.name, &stack.stack_id, STACK, status, reason)
}
fn of_resource(resource: &StackResource, status: &str, reason: Option<&str>) -> StackEvent {
    StackEvent::now(&resource.logical_id, &resource.physical_id, &resource.kind, status, reason)
}

/// Carries a plan out on a stack that the caller has claimed. What goes wrong is told in the stack's state.
pub async fn execute(api: &Api, mut stack: Stack, work: Work, source: Source, plan: Plan) -> Result<(), QueryError> {
    let store = &api.fleet.store;
    let there = store.stack_resources(&stack.stack_id).await?;
    let old = |name: &str| there.iter().find(|r| r.logical_id == name);
    stack.status = format!("{}_IN_PROGRESS", work.word());
    stack.status_reason = None;
    let mut rows = there.clone();
    let mut events = vec![of_stack(&stack, &stack.status, Some("User Initiated"))];
    let mut taken = None;
    for (resource, _) in plan.resources.iter().filter(|(r, _)| old(&r.logical_id).is_none()) {
        if kinds::is_taken(api, &resource.kind, &resource.physical_id).await? {
            taken = Some((resource.clone(), format!("{} already exists", resource.physical_id)));
            break;
        }
        events.push(of_resource(resource, MAKING, None));
        rows.push(StackResource { status: MAKING.into(), updated_ms: now_ms(), ..resource.clone() });
    }
    if let Some((resource, reason)) = taken {
        // Nothing was entered and nothing is made.
        let events = [
            of_resource(&resource, &format!("{}_FAILED", work.word()), Some(&reason)),
            of_stack(&stack, work.undone(), Some(&reason)),
        ];
        stack.status = work.undone().into();
        stack.status_reason = Some(reason);
        return Ok(store.write_stack(&stack, &there, &events).await?);
    }
    store.write_stack(&stack, &rows, &events).await?;
    if let Err((resource, reason)) = make(api, &plan, &there).await {
        let failed = of_resource(&resource, &format!("{}_FAILED", work.word()), Some(&reason));
        return roll_back(api, stack, work, Some(failed), &reason, &plan.resources).await;
    }
    let mut events: Vec<StackEvent> = Vec::new();
    for (resource, _) in &plan.resources {
        if old(&resource.logical_id).is_none_or(|o| o.properties != resource.properties) {
            events.push(of_resource(resource, &resource.status, None));
        }
    }
    events.extend(plan.removed.iter().map(|r| of_resource(r, "DELETE_COMPLETE", None)));
    stack.status = format!("{}_COMPLETE", work.word());
    stack.source = source;
    stack.outputs = plan.outputs;
    stack.description = plan.description;
    if work == Work::Update {
        stack.updated_ms = Some(now_ms());
    }
    events.push(of_stack(&stack, &stack.status, None));
    let rows: Vec<StackResource> = plan.resources.into_iter().map(|(resource, _)| resource).collect();
    Ok(store.write_stack(&stack, &rows, &events).await?)
}

async fn make(api: &Api, plan: &Plan, there: &[StackResource]) -> Result<(), (StackResource, String)> {
    for (resource, planned) in &plan.resources {
        let old = there.iter().find(|r| r.logical_id == resource.logical_id);
        if old.is_some_and(|o| o.properties == resource.properties) {
            continue;
        }
        let earlier = old.and_then(|o| kinds::plan(&o.kind, &o.properties).ok());
        kinds::apply(api, resource, earlier.as_ref(), planned).await.map_err(|e| (resource.clone(), e))?;
    }
    for (resource, planned) in in_order_of_removal(&plan.removed) {
        kinds::remove(api, &resource.physical_id, &planned).await.map_err(|e| (resource.clone(), e))?;
    }
    Ok(())
}

/// What is attached goes before what it is attached to.
fn in_order_of_removal(resources: &[StackResource]) -> Vec<(&StackResource, Planned)> {
    let rank = |planned: &Planned| match planned {
        Planned::Policy(_) | Planned::Subscription(_) | Planned::Alarm(_) => 0,
        Planned::Role(_) | Planned::Topic(_) => 1,
        Planned::ManagedPolicy(_) => 2,
    };
    // What was made was understood when it was made.
    let mut all: Vec<(&StackResource, Planned)> =
        resources.iter().filter_map(|r| kinds::plan(&r.kind, &r.properties).ok().map(|p| (r, p))).collect();
    all.sort_by_key(|(_, planned)| rank(planned));
    all
}

/// Brings a stack back to what its rows say: what was being made goes, everything else is made again.
async fn roll_back(
    api: &Api,
    mut stack: Stack,
    work: Work,
    failed: Option<StackEvent>,
    reason: &str,
    attempted: &[(StackResource, Planned)],
) -> Result<(), QueryError> {
    let store = &api.fleet.store;
    let (new, mut kept): (Vec<StackResource>, Vec<StackResource>) =
        store.stack_resources(&stack.stack_id).await?.into_iter().partition(|r| r.status == MAKING);
    let mut events: Vec<StackEvent> = failed.into_iter().collect();
    for (resource, planned) in in_order_of_removal(&new) {
        if let Err(e) = kinds::remove(api, &resource.physical_id, &planned).await {
            tracing::error!(stack = stack.name, resource = resource.logical_id, "cannot undo: {e}");
        }
        events.push(of_resource(resource, "DELETE_COMPLETE", None));
    }
    for (resource, planned) in in_order_of_removal(&kept).into_iter().rev() {
        // What the failed plan may have made of it goes, too.
        let attempted = attempted.iter().find(|(r, _)| r.logical_id == resource.logical_id).map(|(_, p)| p);
        if let Err(e) = kinds::apply(api, resource, attempted, &planned).await {
            tracing::error!(stack = stack.name, resource = resource.logical_id, "cannot undo: {e}");
        }
    }
    if work == Work::Create {
        kept.clear();
    }
    events.push(of_stack(&stack, work.undone(), Some(reason)));
    stack.status = work.undone().into();
    stack.status_reason = Some(reason.to_owned());
    Ok(store.write_stack(&stack, &kept, &events).await?)
}

/// Deletes a stack that the caller has claimed, and everything in it.
pub async fn delete(api: &Api, mut stack: Stack) -> Result<(), QueryError> {
    let store = &api.fleet.store;
    let resources = store.stack_resources(&stack.stack_id).await?;
    let mut events = vec![of_stack(&stack, "DELETE_IN_PROGRESS", Some("User Initiated"))];
    let mut left = resources.clone();
    for (resource, planned) in in_order_of_removal(&resources) {
        match kinds::remove(api, &resource.physical_id, &planned).await {
            Ok(()) => {
                left.retain(|r| r.logical_id != resource.logical_id);
                events.push(of_resource(resource, "DELETE_COMPLETE", None));
            }
            Err(reason) => {
                events.push(of_resource(resource, "DELETE_FAILED", Some(&reason)));
                stack.status_reason =
                    Some(format!("The following resource(s) failed to delete: [{}]. {reason}", resource.logical_id));
            }
        }
    }
    stack.status = if left.is_empty() { "DELETE_COMPLETE" } else { "DELETE_FAILED" }.into();
    stack.deleted_ms = left.is_empty().then(now_ms);
    events.push(of_stack(&stack, &stack.status, stack.status_reason.as_deref()));
    Ok(store.write_stack(&stack, &left, &events).await?)
}

/// A stack at rest: one that was left at work is finished first.
pub async fn settled(api: &Api, stack: Stack) -> Result<Stack, QueryError> {
    let store = &api.fleet.store;
    let working = ["CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"].contains(&stack.status.as_str());
    if !working {
        return Ok(stack);
    }
    let newest = store.stack_events(&stack.stack_id).await?.first().map_or(stack.created_ms, |e| e.time_ms);
    if now_ms() - newest < STALE_MS {
        return Ok(stack);
    }
    let (id, reason) = (stack.stack_id.clone(), "The service ended while it was at work on this stack");
    match stack.status.as_str() {
        "DELETE_IN_PROGRESS" => delete(api, stack.clone()).await?,
        "CREATE_IN_PROGRESS" => roll_back(api, stack.clone(), Work::Create, None, reason, &[]).await?,
        _ => roll_back(api, stack.clone(), Work::Update, None, reason, &[]).await?,
    }
    Ok(store.stack(&id).await?.unwrap_or(stack))
}
