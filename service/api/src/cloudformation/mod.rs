//! CloudFormation, as far as the roles and alarms of Panorama's guide need it: templates of a few kinds of resources,
//! change sets, stacks that are made and changed whole or not at all. What is not understood is refused by name.
//!
//! | module | one idea |
//! |---|---|
//! | [`yaml`] | a template's text as a value (pure) |
//! | [`template`] | parameters, resources, outputs (pure) |
//! | [`resolve`] | `Ref`, `GetAtt`, `Sub`, … (pure) |
//! | [`plan`] | from a template and what is there to what will be |
//! | [`kinds`], [`watching`] | the kinds of resources: roles and policies; alarms, topics, subscriptions |
//! | [`asks`] | what whoever has a stack changed must be allowed to do |
//! | [`stacks`] | carrying a plan out |
//! | [`show`] | XML |

pub mod asks;
pub mod kinds;
pub mod plan;
pub mod resolve;
pub mod show;
pub mod stacks;
pub mod template;
pub mod watching;
pub mod yaml;

use crate::Api;
use crate::access::evaluate::Question;
use crate::access::{Forbidden, authorise, calls};
use crate::arn::{Arn, Home};
use crate::caller::Caller;
use crate::operation::{Ask, AskedForm, FormOperation, Subject, anything, one};
use crate::query::{self, Form, QueryError, members};
use crate::xml::element;
use axum::http::StatusCode;
use axum::response::Response;
use belvedere_store::stacks::{ChangeSet, Source, Stack, StackEvent, StackResource};
use belvedere_store::{StoreError, identifiers, now_ms};
use plan::{Place, Plan, needed_capability};
use stacks::Work;
use std::collections::BTreeMap;
use template::Template;

/// Of its XML.
pub const NAMESPACE: &str = "http://cloudformation.amazonaws.com/doc/2010-05-15/";
const MAX_STACKS: usize = 200;
const MAX_CHANGE_SETS: usize = 100;
const UNCHANGED: &str =
    "The submitted information didn't contain changes. Submit different information to create a change set.";

/// What a request works with.
struct Call<'a> {
    api: &'a Api,
    caller: &'a Caller,
    action: &'static str,
    form: Form,
}

/// What a stack's resources need is asked when it is known what they are.
fn about_stack(form: &Form, home: &Home<'_>) -> Option<Vec<Ask>> {
    let name = form.get("StackName")?;
    if name.starts_with("arn:") { one(home.named(name)) } else { Some(vec![Ask::about(Subject::Stack(name.to_owned()))]) }
}
fn about_stack_or_all(form: &Form, home: &Home<'_>) -> Option<Vec<Ask>> {
    if form.get("StackName").is_some() { about_stack(form, home) } else { anything(form, home) }
}

const SOURCE: [&str; 13] = [
    "StackName", "TemplateBody", "TemplateURL", "UsePreviousTemplate", "Parameters", "Capabilities", "Tags", "RoleARN",
    "NotificationARNs", "RollbackConfiguration", "ResourcesToImport", "StackPolicyBody", "StackPolicyURL",
];
const CHANGE_SET_SOURCE: [&str; 16] = [
    "StackName", "TemplateBody", "TemplateURL", "UsePreviousTemplate", "Parameters", "Capabilities", "Tags", "RoleARN",
    "NotificationARNs", "RollbackConfiguration", "ResourcesToImport", "StackPolicyBody", "StackPolicyURL", "ChangeSetName",
    "ChangeSetType", "Description",
];
const CHANGE_SET: &[&str] = &["StackName", "ChangeSetName"];
const TEMPLATE: &[&str] = &["TemplateBody", "TemplateURL"];

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[FormOperation] = &[
    FormOperation { name: "CreateChangeSet", takes: &CHANGE_SET_SOURCE, asks: about_stack },
    FormOperation { name: "DescribeChangeSet", takes: CHANGE_SET, asks: about_stack_or_all },
    FormOperation { name: "ExecuteChangeSet", takes: CHANGE_SET, asks: about_stack_or_all },
    FormOperation { name: "DeleteChangeSet", takes: CHANGE_SET, asks: about_stack_or_all },
    FormOperation { name: "ListChangeSets", takes: &["StackName"], asks: about_stack },
    FormOperation { name: "CreateStack", takes: &SOURCE, asks: about_stack },
    FormOperation { name: "UpdateStack", takes: &SOURCE, asks: about_stack },
    FormOperation { name: "DeleteStack", takes: &["StackName"], asks: about_stack },
    FormOperation { name: "DescribeStacks", takes: &["StackName"], asks: about_stack_or_all },
    FormOperation { name: "ListStacks", takes: &["StackStatusFilter"], asks: anything },
    FormOperation { name: "DescribeStackEvents", takes: &["StackName"], asks: about_stack },
    FormOperation { name: "ListStackResources", takes: &["StackName"], asks: about_stack },
    FormOperation { name: "DescribeStackResources", takes: &["StackName", "LogicalResourceId"], asks: about_stack },
    FormOperation { name: "GetTemplate", takes: CHANGE_SET, asks: about_stack_or_all },
    FormOperation { name: "GetTemplateSummary", takes: &["StackName", "TemplateBody", "TemplateURL"], asks: about_stack_or_all },
    FormOperation { name: "ValidateTemplate", takes: TEMPLATE, asks: anything },
];

/// Answers a request.
pub async fn answer(api: &Api, caller: &Caller, asked: Result<AskedForm, QueryError>) -> Response {
    query::respond(NAMESPACE, run(api, caller, asked).await)
}

async fn run(api: &Api, caller: &Caller, asked: Result<AskedForm, QueryError>) -> Result<(String, String), QueryError> {
    let AskedForm { operation, input: form } = asked?;
    let call = Call { api, caller, action: operation.name, form };
    let result = match operation.name {
        "CreateChangeSet" => call.create_change_set().await,
        "DescribeChangeSet" => call.describe_change_set().await,
        "ExecuteChangeSet" => call.execute_change_set().await,
        "DeleteChangeSet" => call.delete_change_set().await,
        "ListChangeSets" => call.list_change_sets().await,
        "CreateStack" => call.create_stack().await,
        "UpdateStack" => call.update_stack().await,
        "DeleteStack" => call.delete_stack().await,
        "DescribeStacks" => call.describe_stacks().await,
        "ListStacks" => call.list_stacks().await,
        "DescribeStackEvents" => call.describe_events().await,
        "ListStackResources" => call.resources("StackResourceSummaries").await,
        "DescribeStackResources" => call.resources("StackResources").await,
        "GetTemplate" => call.get_template().await,
        "GetTemplateSummary" | "ValidateTemplate" => call.summary().await,
        other => Err(query::unknown(other)),
    };
    Ok((operation.name.to_owned(), result?))
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Sixteen random bytes in the form of a UUID.
fn uuid() -> String {
    let t = identifiers::token::<16>();
    format!("{}-{}-{}-{}-{}", &t[..8], &t[8..12], &t[12..16], &t[16..20], &t[20..])
}

fn no_such_stack(name: &str) -> QueryError {
    QueryError::validation(format!("Stack with id {name} does not exist"))
}

impl Call<'_> {
    fn need(&self, name: &str) -> Result<&str, QueryError> {
        self.form
            .get(name)
            .filter(|v| !v.is_empty())
            .ok_or_else(|| QueryError::validation(format!("{name} must not be null")))
    }

    /// A new one; names are checked before.
    fn arn(&self, kind: &str, name: &str) -> String {
        self.api.home().stack(kind, name, &uuid()).unwrap_or_else(Arn::any).into()
    }

    async fn find(&self, name: &str) -> Result<Option<Stack>, QueryError> {
        match self.api.fleet.store.stack(name).await? {
            Some(stack) => Ok(Some(stacks::settled(self.api, stack).await?)),
            None => Ok(None),
        }
    }

    async fn stack(&self) -> Result<Stack, QueryError> {
        let name = self.need("StackName")?;
        self.find(name).await?.ok_or_else(|| no_such_stack(name))
    }

    /// The template's text: in the request, in the bucket, or the stack's own.
    async fn template(&self, stack: Option<&Stack>) -> Result<String, QueryError> {
        let form = &self.form;
        match (form.get("TemplateBody"), form.get("TemplateURL"), form.get("UsePreviousTemplate") == Some("true")) {
            (Some(body), None, false) => Ok(body.to_owned()),
            (None, Some(url), false) => self.object(url).await,
            (None, None, true) => stack
                .map(|s| s.source.template.clone())
                .filter(|t| !t.is_empty())
                .ok_or_else(|| QueryError::validation("there is no previous template")),
            (None, None, false) => match stack.filter(|_| self.action == "GetTemplateSummary") {
                Some(stack) => Ok(stack.source.template.clone()),
                None => Err(QueryError::validation("Either Template URL or Template Body must be specified.")),
            },
            _ => Err(QueryError::validation(
                "Only one of TemplateBody, TemplateURL and UsePreviousTemplate can be specified.",
            )),
        }
    }

    /// A template in this service's bucket, wherever the URL says that the service is.
    async fn object(&self, url: &str) -> Result<String, QueryError> {
        let bad = || QueryError::validation("TemplateURL must name an object in this service's bucket");
        let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path).ok_or_else(bad)?;
        let (bucket, key) = crate::access::calls::copy_source(path).ok_or_else(bad)?;
        if bucket != self.api.fleet.settings.bucket {
            return Err(bad());
        }
        self.allowed(&[Question::new("s3:GetObject", Arn::object(&bucket, &key).ok_or_else(bad)?)]).await?;
        let bytes = self.api.fleet.store.read_object(&bucket, &key, yaml::MAX_TEMPLATE as u64).await?.ok_or_else(bad)?;
        String::from_utf8(bytes).map_err(|_| bad())
    }

    /// Whether the caller may do what the service would do for it.
    async fn allowed(&self, questions: &[Question]) -> Result<(), QueryError> {
        if questions.is_empty() {
            return Ok(());
        }
        self.decided(authorise(self.api, self.caller, questions).await?)
    }

    fn decided(&self, decided: Result<(), Forbidden>) -> Result<(), QueryError> {
        decided.map_err(|f| QueryError { status: StatusCode::FORBIDDEN, code: "AccessDenied", message: f.message })
    }

    /// Whoever has a stack changed must be allowed to do all that is done: `made` with whether each is there and changes,
    /// `there` as it is now, since what it holds is undone or removed.
    async fn may_touch(&self, made: &[(&StackResource, bool)], there: &[StackResource]) -> Result<(), QueryError> {
        let home = self.api.home();
        let all: Vec<&StackResource> = made.iter().map(|(r, _)| *r).chain(there).collect();
        let resources = made.iter().copied().chain(there.iter().map(|r| (r, false)));
        let mut questions = Vec::new();
        for (resource, changes) in resources {
            let asks = asks::asks(resource, changes, &all, &home);
            match calls::questions(self.api, "cloudformation", asks).await? {
                Some(more) => questions.extend(more),
                // What cannot be asked about is an administrator's alone.
                None => return self.decided(authorise(self.api, self.caller, &[]).await?),
            }
        }
        self.allowed(&questions).await
    }

    /// What a stack would be made from, checked as far as it can be without the stack.
    async fn source(&self, stack: Option<&Stack>) -> Result<(Template, Source), QueryError> {
        for unsupported in [
            "RoleARN", "NotificationARNs", "RollbackConfiguration", "ResourcesToImport", "StackPolicyBody", "StackPolicyURL",
        ] {
            if self.form.has(unsupported) {
                return Err(QueryError::validation(format!("{unsupported} is not supported by this service")));
            }
        }
        let text = self.template(stack).await?;
        let template = Template::parse(&text).map_err(QueryError::validation)?;
        let mut given = BTreeMap::new();
        for [key, value, previous] in
            self.form.structures("Parameters", ["ParameterKey", "ParameterValue", "UsePreviousValue"])
        {
            let key = key.unwrap_or("").to_owned();
            let value = match (value, previous) {
                (_, Some("true")) => stack.and_then(|s| s.source.parameters.get(&key)).cloned().ok_or_else(|| {
                    QueryError::validation(format!("Invalid input for parameter key {key}. Cannot specify usePreviousValue as true for a parameter key not in the previous template"))
                })?,
                (Some(value), _) => value.to_owned(),
                (None, _) => return Err(QueryError::validation(format!("ParameterValue of {key} must not be null"))),
            };
            given.insert(key, value);
        }
        let parameters = template.values(&given).map_err(QueryError::validation)?;
        let capabilities: Vec<String> = self.form.list("Capabilities").into_iter().map(str::to_owned).collect();
        if let Some(needed) = needed_capability(&template)
            && !capabilities.iter().any(|c| c == needed || c == "CAPABILITY_NAMED_IAM")
        {
            return Err(QueryError::new("InsufficientCapabilitiesException", format!("Requires capabilities : [{needed}]")));
        }
        let tags = self.form.structures("Tags", ["Key", "Value"]);
        let tags = tags.into_iter().map(|[k, v]| (k.unwrap_or("").to_owned(), v.unwrap_or("").to_owned())).collect();
        Ok((template, Source { template: text, parameters, capabilities, tags }))
    }

    async fn plan(&self, template: &Template, source: &Source, stack: &Stack) -> Result<Plan, QueryError> {
        let there = self.api.fleet.store.stack_resources(&stack.stack_id).await?;
        let place = Place {
            region: &self.api.fleet.settings.region,
            account: &self.api.fleet.settings.account,
            stack: &stack.name,
            stack_id: &stack.stack_id,
        };
        plan::plan(template, source, &place, &there).map_err(QueryError::validation)
    }

    /// A stack that is not there yet.
    async fn new_stack(&self, name: &str) -> Result<Stack, QueryError> {
        if !is_name(name) {
            let message = format!(
                "Value '{name}' at 'stackName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
            );
            return Err(QueryError::validation(message));
        }
        if self.api.fleet.store.list_stacks().await?.iter().filter(|s| s.deleted_ms.is_none()).count() >= MAX_STACKS {
            return Err(QueryError::new("LimitExceededException", format!("there are {MAX_STACKS} stacks already")));
        }
        Ok(Stack {
            stack_id: self.arn("stack", name),
            name: name.to_owned(),
            status: "REVIEW_IN_PROGRESS".into(),
            status_reason: None,
            source: Source::default(),
            outputs: Vec::new(),
            description: None,
            created_ms: now_ms(),
            updated_ms: None,
            deleted_ms: None,
        })
    }

    async fn enter(&self, stack: &Stack) -> Result<(), QueryError> {
        let event = StackEvent::now(&stack.name, &stack.stack_id, stacks::STACK, &stack.status, Some("User Initiated"));
        self.api.fleet.store.write_stack(stack, &[], &[event]).await.map_err(|e| match e {
            StoreError::Exists { what } => QueryError::new("AlreadyExistsException", format!("{what} already exists")),
            other => QueryError::internal(other),
        })
    }

    async fn create_change_set(&self) -> Result<String, QueryError> {
        let (stack_name, name) = (self.need("StackName")?, self.need("ChangeSetName")?);
        if !is_name(name) {
            return Err(QueryError::validation("ChangeSetName must match [a-zA-Z][-a-zA-Z0-9]*"));
        }
        let found = self.find(stack_name).await?.filter(|s| s.deleted_ms.is_none());
        let kind = self.form.get("ChangeSetType").unwrap_or("UPDATE");
        let fresh = found.as_ref().is_none_or(|s| s.status == "REVIEW_IN_PROGRESS");
        match (kind, fresh) {
            ("CREATE", true) => {}
            ("UPDATE", false) => updatable(found.as_ref())?,
            ("CREATE", false) => {
                return Err(QueryError::validation(format!(
                    "Stack [{stack_name}] already exists and cannot be created again with the changeSet [{name}]."
                )));
            }
            ("UPDATE", true) => return Err(QueryError::validation(format!("Stack [{stack_name}] does not exist"))),
            _ => return Err(QueryError::validation(format!("ChangeSetType {kind} is not supported by this service"))),
        }
        // Everything is checked before anything is entered.
        let (template, source) = self.source(found.as_ref()).await?;
        let (stack, entered) = match found {
            Some(stack) => (stack, true),
            None => (self.new_stack(stack_name).await?, false),
        };
        let plan = self.plan(&template, &source, &stack).await?;
        if !entered {
            self.enter(&stack).await?;
        }
        let store = &self.api.fleet.store;
        if store.list_change_sets(&stack.stack_id).await?.len() >= MAX_CHANGE_SETS {
            let message = format!("the stack has {MAX_CHANGE_SETS} change sets already; delete some");
            return Err(QueryError::new("LimitExceededException", message));
        }
        let same =
            kind == "UPDATE" && plan.changes.is_empty() && plan.outputs == stack.outputs && source.tags == stack.source.tags;
        let (status, reason, execution) = match same {
            true => ("FAILED", Some(UNCHANGED.to_owned()), "UNAVAILABLE"),
            false => ("CREATE_COMPLETE", None, "AVAILABLE"),
        };
        let set = ChangeSet {
            change_set_id: self.arn("changeSet", name),
            name: name.to_owned(),
            stack_id: stack.stack_id.clone(),
            kind: kind.to_owned(),
            status: status.into(),
            status_reason: reason,
            execution_status: execution.into(),
            description: self.form.get("Description").map(str::to_owned),
            source,
            changes: plan.changes,
            created_ms: now_ms(),
        };
        store.create_change_set(&set).await.map_err(|e| match e {
            StoreError::Exists { what } => QueryError::new("AlreadyExistsException", format!("{what} already exists")),
            other => QueryError::internal(other),
        })?;
        Ok(element("Id", &set.change_set_id) + &element("StackId", &stack.stack_id))
    }

    async fn change_set(&self) -> Result<(Stack, ChangeSet), QueryError> {
        let id = self.need("ChangeSetName")?;
        let missing = || QueryError {
            status: StatusCode::NOT_FOUND,
            code: "ChangeSetNotFound",
            message: format!("ChangeSet [{id}] does not exist"),
        };
        let named = match self.form.get("StackName") {
            Some(name) => Some(self.find(name).await?.ok_or_else(|| no_such_stack(name))?),
            None => None,
        };
        let set =
            self.api.fleet.store.change_set(named.as_ref().map(|s| s.stack_id.as_str()), id).await?.ok_or_else(missing)?;
        match self.find(&set.stack_id).await? {
            Some(stack) if named.is_none_or(|n| n.stack_id == stack.stack_id) => Ok((stack, set)),
            _ => Err(missing()),
        }
    }

    async fn describe_change_set(&self) -> Result<String, QueryError> {
        let (stack, set) = self.change_set().await?;
        Ok(show::change_set(&stack.name, &set))
    }

    async fn delete_change_set(&self) -> Result<String, QueryError> {
        let (_, set) = self.change_set().await?;
        self.api.fleet.store.delete_change_set(&set.change_set_id).await?;
        Ok(String::new())
    }

    async fn list_change_sets(&self) -> Result<String, QueryError> {
        let stack = self.stack().await?;
        let sets = self.api.fleet.store.list_change_sets(&stack.stack_id).await?;
        Ok(members("Summaries", sets.iter().map(|s| show::change_set_summary(&stack.name, s))))
    }

    async fn execute_change_set(&self) -> Result<String, QueryError> {
        let (stack, set) = self.change_set().await?;
        if set.execution_status != "AVAILABLE" {
            let message =
                format!("ChangeSet [{}] cannot be executed in its current status of [{}]", set.change_set_id, set.status);
            return Err(QueryError::new("InvalidChangeSetStatus", message));
        }
        let work = match set.kind.as_str() {
            "CREATE" => Work::Create,
            _ => Work::Update,
        };
        // The stack may have changed since: what was checked then is checked again.
        let template = Template::parse(&set.source.template).map_err(QueryError::validation)?;
        self.carry_out(stack, work, template, set.source).await?;
        self.api.fleet.store.delete_change_set(&set.change_set_id).await?;
        Ok(String::new())
    }

    async fn carry_out(&self, stack: Stack, work: Work, template: Template, source: Source) -> Result<(), QueryError> {
        let plan = self.plan(&template, &source, &stack).await?;
        let there = self.api.fleet.store.stack_resources(&stack.stack_id).await?;
        let changes = |new: &StackResource| {
            there.iter().any(|old| old.logical_id == new.logical_id && old.properties != new.properties)
        };
        let made: Vec<(&StackResource, bool)> = plan.resources.iter().map(|(r, _)| (r, changes(r))).collect();
        self.may_touch(&made, &there).await?;
        let busy = || {
            QueryError::validation(format!("Stack:{} is in {} state and can not be updated.", stack.stack_id, stack.status))
        };
        match work {
            Work::Create if stack.status != "REVIEW_IN_PROGRESS" => return Err(busy()),
            Work::Create => {}
            Work::Update => updatable(Some(&stack))?,
        }
        let next = if work == Work::Create { "CREATE_IN_PROGRESS" } else { "UPDATE_IN_PROGRESS" };
        if !self.api.fleet.store.claim_stack(&stack.stack_id, &stack.status, next).await? {
            return Err(busy());
        }
        stacks::execute(self.api, stack, work, source, plan).await
    }

    async fn create_stack(&self) -> Result<String, QueryError> {
        let name = self.need("StackName")?;
        if self.find(name).await?.is_some_and(|s| s.deleted_ms.is_none()) {
            return Err(QueryError::new("AlreadyExistsException", format!("Stack [{name}] already exists")));
        }
        let (template, source) = self.source(None).await?;
        let stack = self.new_stack(name).await?;
        self.plan(&template, &source, &stack).await?;
        self.enter(&stack).await?;
        let id = stack.stack_id.clone();
        if let Err(e) = self.carry_out(stack, Work::Create, template, source).await {
            // Refused before anything began.
            if self.api.fleet.store.stack(&id).await?.is_some_and(|s| s.status == "REVIEW_IN_PROGRESS") {
                self.api.fleet.store.forget_stack(&id).await?;
            }
            return Err(e);
        }
        Ok(element("StackId", &id))
    }

    async fn update_stack(&self) -> Result<String, QueryError> {
        let stack = self.stack().await?;
        let (template, source) = self.source(Some(&stack)).await?;
        let plan = self.plan(&template, &source, &stack).await?;
        if plan.changes.is_empty() && plan.outputs == stack.outputs && source.tags == stack.source.tags {
            return Err(QueryError::validation("No updates are to be performed."));
        }
        let id = stack.stack_id.clone();
        self.carry_out(stack, Work::Update, template, source).await?;
        Ok(element("StackId", &id))
    }

    /// Deleting what is not there is success.
    async fn delete_stack(&self) -> Result<String, QueryError> {
        let Some(stack) = self.find(self.need("StackName")?).await?.filter(|s| s.deleted_ms.is_none()) else {
            return Ok(String::new());
        };
        let store = &self.api.fleet.store;
        self.may_touch(&[], &store.stack_resources(&stack.stack_id).await?).await?;
        if stack.status.ends_with("_IN_PROGRESS") && stack.status != "REVIEW_IN_PROGRESS"
            || !store.claim_stack(&stack.stack_id, &stack.status, "DELETE_IN_PROGRESS").await?
        {
            let message = format!("Stack [{}] cannot be deleted while in status {}", stack.name, stack.status);
            return Err(QueryError::validation(message));
        }
        stacks::delete(self.api, stack).await?;
        Ok(String::new())
    }

    async fn describe_stacks(&self) -> Result<String, QueryError> {
        let stacks = match self.form.get("StackName") {
            Some(_) => vec![self.stack().await?],
            None => self.api.fleet.store.list_stacks().await?.into_iter().filter(|s| s.deleted_ms.is_none()).collect(),
        };
        Ok(members("Stacks", stacks.iter().map(show::stack)))
    }

    async fn list_stacks(&self) -> Result<String, QueryError> {
        let wanted = self.form.list("StackStatusFilter");
        let stacks = self.api.fleet.store.list_stacks().await?;
        let shown = stacks.iter().filter(|s| wanted.is_empty() || wanted.contains(&s.status.as_str()));
        Ok(members("StackSummaries", shown.map(show::summary)))
    }

    async fn describe_events(&self) -> Result<String, QueryError> {
        let stack = self.stack().await?;
        let events = self.api.fleet.store.stack_events(&stack.stack_id).await?;
        Ok(members("StackEvents", events.iter().map(|e| show::event(&stack, e))))
    }

    async fn resources(&self, name: &str) -> Result<String, QueryError> {
        let stack = self.stack().await?;
        let wanted = self.form.get("LogicalResourceId");
        let resources = self.api.fleet.store.stack_resources(&stack.stack_id).await?;
        let shown = resources.iter().filter(|r| wanted.is_none_or(|w| w == r.logical_id));
        Ok(members(name, shown.map(|r| show::resource(&stack, r))))
    }

    async fn get_template(&self) -> Result<String, QueryError> {
        let text = match self.form.get("ChangeSetName") {
            Some(_) => self.change_set().await?.1.source.template,
            None => self.stack().await?.source.template,
        };
        Ok(element("TemplateBody", &text) + &members("StagesAvailable", ["Original".to_owned()]))
    }

    async fn summary(&self) -> Result<String, QueryError> {
        let stack = match self.form.get("StackName") {
            Some(_) => Some(self.stack().await?),
            None => None,
        };
        let template = Template::parse(&self.template(stack.as_ref()).await?).map_err(QueryError::validation)?;
        let mut text = members(
            "Parameters",
            template.parameters.iter().map(|(name, p)| {
                let optional =
                    |name: &str, value: &Option<String>| value.as_ref().map_or_else(String::new, |v| element(name, v));
                element("ParameterKey", name)
                    + &element("ParameterType", &p.kind)
                    + &element("NoEcho", if p.no_echo { "true" } else { "false" })
                    + &optional("DefaultValue", &p.default)
                    + &optional("Description", &p.description)
            }),
        );
        if let Some(description) = &template.description {
            text += &element("Description", description);
        }
        if let Some(needed) = needed_capability(&template) {
            text += &members("Capabilities", [needed.to_owned()]);
        }
        if self.action == "GetTemplateSummary" {
            let kinds: std::collections::BTreeSet<&str> = template.resources.values().map(|r| r.kind.as_str()).collect();
            text += &members("ResourceTypes", kinds.into_iter().map(crate::xml::escape));
        }
        Ok(text)
    }
}

/// Whether a stack may be changed.
fn updatable(stack: Option<&Stack>) -> Result<(), QueryError> {
    match stack {
        Some(s) if ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"].contains(&s.status.as_str()) => Ok(()),
        Some(s) => {
            Err(QueryError::validation(format!("Stack:{} is in {} state and can not be updated.", s.stack_id, s.status)))
        }
        None => Ok(()),
    }
}
