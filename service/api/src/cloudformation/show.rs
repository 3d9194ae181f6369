//! Stacks and what belongs to them, as XML.

use super::template::Template;
use crate::query::members;
use crate::sigv4::clock::iso8601;
use crate::xml::element;
use belvedere_store::stacks::{ChangeSet, Source, Stack, StackEvent, StackResource};

fn optional(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |v| element(name, v))
}

fn tags(source: &Source) -> String {
    members("Tags", source.tags.iter().map(|(k, v)| element("Key", k) + &element("Value", v)))
}

/// Parameters; those that are not to be echoed are not.
fn parameters(source: &Source) -> String {
    let template = Template::parse(&source.template).ok();
    let hidden = |name: &str| template.as_ref().is_some_and(|t| t.parameters.get(name).is_some_and(|p| p.no_echo));
    members(
        "Parameters",
        source.parameters.iter().map(|(name, value)| {
            element("ParameterKey", name) + &element("ParameterValue", if hidden(name) { "****" } else { value })
        }),
    )
}

fn capabilities(source: &Source) -> String {
    members("Capabilities", source.capabilities.iter().map(|c| crate::xml::escape(c)))
}

/// A member of DescribeStacks.
pub fn stack(stack: &Stack) -> String {
    let mut text = element("StackId", &stack.stack_id)
        + &element("StackName", &stack.name)
        + &optional("Description", stack.description.as_deref())
        + &parameters(&stack.source)
        + &element("CreationTime", &iso8601(stack.created_ms))
        + &optional("LastUpdatedTime", stack.updated_ms.map(iso8601).as_deref())
        + &optional("DeletionTime", stack.deleted_ms.map(iso8601).as_deref())
        + &element("StackStatus", &stack.status)
        + &optional("StackStatusReason", stack.status_reason.as_deref())
        + &element("DisableRollback", "false")
        + &element("EnableTerminationProtection", "false")
        + &capabilities(&stack.source);
    // Tools tell "no outputs" from "no such output".
    if !stack.outputs.is_empty() {
        text += &members(
            "Outputs",
            stack.outputs.iter().map(|o| {
                element("OutputKey", &o.key)
                    + &element("OutputValue", &o.value)
                    + &optional("Description", o.description.as_deref())
            }),
        );
    }
    text + &tags(&stack.source)
}

/// A member of ListStacks.
pub fn summary(stack: &Stack) -> String {
    element("StackId", &stack.stack_id)
        + &element("StackName", &stack.name)
        + &optional("TemplateDescription", stack.description.as_deref())
        + &element("CreationTime", &iso8601(stack.created_ms))
        + &optional("LastUpdatedTime", stack.updated_ms.map(iso8601).as_deref())
        + &optional("DeletionTime", stack.deleted_ms.map(iso8601).as_deref())
        + &element("StackStatus", &stack.status)
}

/// A member of DescribeStackEvents.
pub fn event(stack: &Stack, event: &StackEvent) -> String {
    element("StackId", &stack.stack_id)
        + &element("EventId", &event.event_id)
        + &element("StackName", &stack.name)
        + &element("LogicalResourceId", &event.logical_id)
        + &element("PhysicalResourceId", &event.physical_id)
        + &element("ResourceType", &event.kind)
        + &element("Timestamp", &iso8601(event.time_ms))
        + &element("ResourceStatus", &event.status)
        + &optional("ResourceStatusReason", event.reason.as_deref())
}

/// A member of ListStackResources and DescribeStackResources.
pub fn resource(stack: &Stack, resource: &StackResource) -> String {
    element("StackName", &stack.name)
        + &element("StackId", &stack.stack_id)
        + &element("LogicalResourceId", &resource.logical_id)
        + &element("PhysicalResourceId", &resource.physical_id)
        + &element("ResourceType", &resource.kind)
        + &element("Timestamp", &iso8601(resource.updated_ms))
        + &element("LastUpdatedTimestamp", &iso8601(resource.updated_ms))
        + &element("ResourceStatus", &resource.status)
}

/// DescribeChangeSet.
pub fn change_set(stack_name: &str, set: &ChangeSet) -> String {
    let changes = set.changes.iter().map(|change| {
        let details = element("Action", &change.action)
            + &element("LogicalResourceId", &change.logical_id)
            + &optional("PhysicalResourceId", change.physical_id.as_deref())
            + &element("ResourceType", &change.kind)
            + &(if change.action == "Modify" { element("Replacement", "False") } else { String::new() });
        element("Type", "Resource") + &format!("<ResourceChange>{details}</ResourceChange>")
    });
    change_set_summary(stack_name, set)
        + &parameters(&set.source)
        + &capabilities(&set.source)
        + &tags(&set.source)
        + &members("Changes", changes)
}

/// A member of ListChangeSets.
pub fn change_set_summary(stack_name: &str, set: &ChangeSet) -> String {
    element("ChangeSetName", &set.name)
        + &element("ChangeSetId", &set.change_set_id)
        + &element("StackId", &set.stack_id)
        + &element("StackName", stack_name)
        + &optional("Description", set.description.as_deref())
        + &element("CreationTime", &iso8601(set.created_ms))
        + &element("ExecutionStatus", &set.execution_status)
        + &element("Status", &set.status)
        + &optional("StatusReason", set.status_reason.as_deref())
}
