//! Secrets Manager (JSON 1.1): secrets by name, sealed at rest, the current value and the one before it.

use crate::Api;
use crate::arn::Home;
use crate::model::{Member, Shape, Text, check};
use crate::operation::{Ask, AskedDocument, DocumentOperation, Subject, anything, one, text};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::managed_secrets::{ManagedSecret, NewSecret, SecretValue, SecretVersion};
use belvedere_store::{StoreError, identifiers, now_ms};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Largest value, bytes.
const MAX_VALUE: usize = 65_536;
/// Most secrets.
const MAX_SECRETS: i64 = 10_000;
const MAX_PAGE: usize = 100;
const DAY_MS: i64 = 24 * 3600 * 1000;
const DEFAULT_WINDOW_DAYS: i64 = 30;

static NAME: Text = Text { min: 1, max: 512, pattern: Some(r"^[A-Za-z0-9/_+=.@\-]+$") };
static ID: Text = Text { min: 1, max: 2048, pattern: None };
static DESCRIPTION: Text = Text { min: 0, max: 2048, pattern: None };
static TOKEN: Text = Text { min: 32, max: 64, pattern: Some(r"^[A-Za-z0-9\-]+$") };
static STAGE: Text = Text { min: 1, max: 256, pattern: None };
static VALUE: Text = Text { min: 1, max: MAX_VALUE, pattern: None };
static ENCODED: Text = Text { min: 1, max: MAX_VALUE / 3 * 4 + 4, pattern: None };
static TAG_KEY: Text = Text { min: 1, max: 128, pattern: None };
static TAG_VALUE: Text = Text { min: 0, max: 256, pattern: None };
static PAGE_TOKEN: Text = Text { min: 1, max: 4096, pattern: None };

const SECRET_ID: Member = Member::required("SecretId", Shape::Text(&ID));
const REQUEST_TOKEN: Member = Member::optional("ClientRequestToken", Shape::Text(&TOKEN));
const STRING: Member = Member::optional("SecretString", Shape::Text(&VALUE));
const BINARY: Member = Member::optional("SecretBinary", Shape::Text(&ENCODED));
static CREATE: &[Member] = &[
    Member::required("Name", Shape::Text(&NAME)),
    REQUEST_TOKEN,
    Member::optional("Description", Shape::Text(&DESCRIPTION)),
    STRING,
    BINARY,
    Member::optional(
        "Tags",
        Shape::List(
            &Shape::Structure(&[
                Member::required("Key", Shape::Text(&TAG_KEY)),
                Member::optional("Value", Shape::Text(&TAG_VALUE)),
            ]),
            0,
            50,
        ),
    ),
];
static PUT: &[Member] = &[SECRET_ID, REQUEST_TOKEN, STRING, BINARY];
static UPDATE: &[Member] =
    &[SECRET_ID, REQUEST_TOKEN, STRING, BINARY, Member::optional("Description", Shape::Text(&DESCRIPTION))];
static GET: &[Member] =
    &[SECRET_ID, Member::optional("VersionId", Shape::Text(&TOKEN)), Member::optional("VersionStage", Shape::Text(&STAGE))];
static DELETE: &[Member] = &[
    SECRET_ID,
    Member::optional("RecoveryWindowInDays", Shape::Integer(7, 30)),
    Member::optional("ForceDeleteWithoutRecovery", Shape::Boolean),
];
static LIST: &[Member] = &[
    Member::optional("MaxResults", Shape::Integer(1, MAX_PAGE as i64)),
    Member::optional("NextToken", Shape::Text(&PAGE_TOKEN)),
];

/// An error in this service's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "__type": code, "Message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response()
}

/// A request that is not followed: status, code, message.
pub struct SecretsError(StatusCode, &'static str, String);

fn wrong(code: &'static str, message: impl Into<String>) -> SecretsError {
    SecretsError(StatusCode::BAD_REQUEST, code, message.into())
}
fn missing() -> SecretsError {
    wrong("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}
impl From<StoreError> for SecretsError {
    fn from(e: StoreError) -> Self {
        let id = identifiers::token::<8>();
        tracing::error!(error_id = id, "{e}");
        let message = format!("internal error {id}; the service's log says more");
        SecretsError(StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceError", message)
    }
}

/// Policies name secrets by ARNs whose last characters are random.
fn about_name(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    one(home.secret(text(input, "Name")?, "??????"))
}
fn about_secret(input: &Map<String, Value>, _: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::about(Subject::Secret(text(input, "SecretId")?.to_owned()))])
}

static ONE: &[Member] = &[SECRET_ID];

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[DocumentOperation] = &[
    DocumentOperation { name: "CreateSecret", takes: CREATE, asks: about_name },
    DocumentOperation { name: "PutSecretValue", takes: PUT, asks: about_secret },
    DocumentOperation { name: "UpdateSecret", takes: UPDATE, asks: about_secret },
    DocumentOperation { name: "GetSecretValue", takes: GET, asks: about_secret },
    DocumentOperation { name: "DescribeSecret", takes: ONE, asks: about_secret },
    DocumentOperation { name: "ListSecrets", takes: LIST, asks: anything },
    DocumentOperation { name: "DeleteSecret", takes: DELETE, asks: about_secret },
    DocumentOperation { name: "RestoreSecret", takes: ONE, asks: about_secret },
];

/// Reads a request, once. A member that the operation does not take is refused: nobody may believe that it has an effect.
pub fn read(parts: &Parts, body: &[u8]) -> Result<AskedDocument, SecretsError> {
    let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or("");
    let name = target.strip_prefix("secretsmanager.").unwrap_or("");
    let operation = DocumentOperation::of(OPERATIONS, name)
        .ok_or_else(|| wrong("UnknownOperationException", format!("no operation {name}")))?;
    // What went wrong in the body is not repeated: it may be the secret.
    let input =
        crate::wire::json::read(body).map_err(|_| wrong("SerializationException", "the body is not a JSON object"))?;
    let known = |name: &String| {
        operation.takes.iter().any(|m| m.name == name) || name == "KmsKeyId" || name == "ForceOverwriteReplicaSecret"
    };
    if let Some(other) = input.keys().find(|k| !known(k)) {
        return Err(wrong("InvalidParameterException", format!("{other} is not supported by this service")));
    }
    Ok(operation.asked(input))
}

/// Answers a request.
pub async fn answer(api: &Api, asked: Result<AskedDocument, SecretsError>) -> Response {
    match run(api, asked).await {
        Ok(body) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
        }
        Err(SecretsError(status, code, message)) => error(status, code, &message),
    }
}

async fn run(api: &Api, asked: Result<AskedDocument, SecretsError>) -> Result<Value, SecretsError> {
    let AskedDocument { operation, input } = asked?;
    match operation.name {
        "CreateSecret" => create(api, checked(CREATE, input)?).await,
        "PutSecretValue" => put(api, checked(PUT, input)?).await,
        "UpdateSecret" => update(api, checked(UPDATE, input)?).await,
        "GetSecretValue" => get(api, checked(GET, input)?).await,
        "DescribeSecret" => describe(api, checked(ONE, input)?).await,
        "ListSecrets" => list(api, checked(LIST, input)?).await,
        "DeleteSecret" => delete(api, checked(DELETE, input)?).await,
        "RestoreSecret" => restore(api, checked(ONE, input)?).await,
        other => Err(wrong("UnknownOperationException", format!("no operation {other}"))),
    }
}

fn checked<T: serde::de::DeserializeOwned>(members: &[Member], input: Map<String, Value>) -> Result<T, SecretsError> {
    if let Some(first) = check(members, &input).first() {
        let message = format!("Value at '{}' failed to satisfy constraint: {}", first.name, first.message);
        return Err(wrong("InvalidParameterException", message));
    }
    serde_json::from_value(Value::Object(input))
        .map_err(|_| wrong("InvalidParameterException", "the members are not of their types"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    client_request_token: Option<String>,
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

impl Given {
    fn value(&self) -> Result<Option<SecretValue>, SecretsError> {
        match (&self.secret_string, &self.secret_binary) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(wrong("InvalidParameterException", "You can't specify both SecretString and SecretBinary."))
            }
            (Some(text), None) if text.len() <= MAX_VALUE => Ok(Some(SecretValue::Text(text.clone()))),
            (Some(_), None) => {
                Err(wrong("InvalidParameterException", format!("SecretString has more than {MAX_VALUE} bytes")))
            }
            (None, Some(encoded)) => match BASE64_STANDARD.decode(encoded) {
                Ok(bytes) if bytes.len() <= MAX_VALUE => Ok(Some(SecretValue::Binary(bytes))),
                _ => Err(wrong(
                    "InvalidParameterException",
                    format!("SecretBinary is not base64, or has more than {MAX_VALUE} bytes"),
                )),
            },
        }
    }

    fn version(&self) -> String {
        self.client_request_token.clone().unwrap_or_else(version_id)
    }
}

/// A version in the form of a UUID.
fn version_id() -> String {
    let t = identifiers::token::<16>();
    format!("{}-{}-4{}-a{}-{}", &t[..8], &t[8..12], &t[13..16], &t[17..20], &t[20..])
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    name: String,
    description: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(flatten)]
    given: Given,
}

async fn create(api: &Api, input: Create) -> Result<Value, SecretsError> {
    let store = &api.fleet.store;
    let (value, version) = (input.given.value()?, input.given.version());
    if let Some(known) = store.managed_secret(&input.name).await?.filter(|s| s.name == input.name) {
        if known.deletion_ms.is_some() {
            let message = "You can't create this secret because a secret with this name is already scheduled for deletion.";
            return Err(wrong("InvalidRequestException", message));
        }
        // The same request again is answered again.
        if let Some(value) = &value
            && input.given.client_request_token.is_some()
            && let Some((_, stored)) = store.secret_value(&known.arn, Some(&version), None).await?
            && stored == *value
        {
            return Ok(json!({ "ARN": known.arn, "Name": known.name, "VersionId": version }));
        }
        return Err(wrong(
            "ResourceExistsException",
            format!("The operation failed because the secret {} already exists.", input.name),
        ));
    }
    if store.count_managed_secrets().await? >= MAX_SECRETS {
        return Err(wrong("LimitExceededException", format!("there are {MAX_SECRETS} secrets already")));
    }
    let suffix = &identifiers::base32(&identifiers::random::<8>())[..6];
    let arn = api.home().secret(&input.name, suffix);
    let arn = arn.ok_or_else(|| wrong("InvalidParameterException", "Name makes no ARN"))?;
    let tags: BTreeMap<String, String> = input.tags.into_iter().map(|t| (t.key, t.value)).collect();
    let new = NewSecret {
        arn: arn.as_str(),
        name: &input.name,
        description: input.description.as_deref(),
        tags: &tags,
        first: value.as_ref().map(|value| (version.as_str(), value)),
    };
    store.create_managed_secret(new).await.map_err(|e| match e {
        StoreError::Exists { .. } => wrong(
            "ResourceExistsException",
            format!("The operation failed because the secret {} already exists.", input.name),
        ),
        other => other.into(),
    })?;
    let mut answer = json!({ "ARN": arn.as_str(), "Name": input.name });
    if value.is_some() {
        answer["VersionId"] = version.into();
    }
    Ok(answer)
}

/// A secret that is not to be deleted.
async fn usable(api: &Api, id: &str) -> Result<ManagedSecret, SecretsError> {
    let secret = api.fleet.store.managed_secret(id).await?.ok_or_else(missing)?;
    match secret.deletion_ms {
        None => Ok(secret),
        Some(_) => Err(wrong(
            "InvalidRequestException",
            "You can't perform this operation on the secret because it was marked for deletion.",
        )),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put {
    secret_id: String,
    #[serde(flatten)]
    given: Given,
}

async fn put_version(api: &Api, secret: &ManagedSecret, version: &str, value: &SecretValue) -> Result<(), SecretsError> {
    match api.fleet.store.put_secret_value(&secret.arn, version, value).await? {
        true => Ok(()),
        false => {
            Err(wrong("ResourceExistsException", "A version with this ClientRequestToken and another value exists already."))
        }
    }
}

async fn put(api: &Api, input: Put) -> Result<Value, SecretsError> {
    let value = input
        .given
        .value()?
        .ok_or_else(|| wrong("InvalidRequestException", "You must provide either SecretString or SecretBinary."))?;
    let (secret, version) = (usable(api, &input.secret_id).await?, input.given.version());
    put_version(api, &secret, &version, &value).await?;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name, "VersionId": version, "VersionStages": ["AWSCURRENT"] }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Update {
    secret_id: String,
    description: Option<String>,
    #[serde(flatten)]
    given: Given,
}

async fn update(api: &Api, input: Update) -> Result<Value, SecretsError> {
    let (value, version) = (input.given.value()?, input.given.version());
    let secret = usable(api, &input.secret_id).await?;
    let mut answer = json!({ "ARN": secret.arn, "Name": secret.name });
    if let Some(description) = &input.description {
        api.fleet.store.describe_managed_secret(&secret.arn, description).await?;
    }
    if let Some(value) = value {
        put_version(api, &secret, &version, &value).await?;
        answer["VersionId"] = version.into();
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Get {
    secret_id: String,
    version_id: Option<String>,
    version_stage: Option<String>,
}

async fn get(api: &Api, input: Get) -> Result<Value, SecretsError> {
    let secret = usable(api, &input.secret_id).await?;
    let store = &api.fleet.store;
    let found = store.secret_value(&secret.arn, input.version_id.as_deref(), input.version_stage.as_deref()).await?;
    let (version, value) = found.ok_or_else(|| {
        wrong(
            "ResourceNotFoundException",
            "Secrets Manager can't find the specified secret value for this version or staging label.",
        )
    })?;
    store.note_secret_access(&secret).await?;
    let mut answer = json!({
        "ARN": secret.arn, "Name": secret.name, "VersionId": version.version_id,
        "VersionStages": [version.stage], "CreatedDate": seconds(version.created_ms),
    });
    match value {
        SecretValue::Text(text) => answer["SecretString"] = text.into(),
        SecretValue::Binary(bytes) => answer["SecretBinary"] = BASE64_STANDARD.encode(bytes).into(),
    }
    Ok(answer)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn show(secret: &ManagedSecret, versions: &[SecretVersion], stages: &str) -> Value {
    let tags: Vec<Value> = secret.tags.iter().map(|(k, v)| json!({ "Key": k, "Value": v })).collect();
    let versions: Map<String, Value> = versions.iter().map(|v| (v.version_id.clone(), json!([v.stage]))).collect();
    let mut shown = json!({
        "ARN": secret.arn, "Name": secret.name, "Tags": tags, stages: versions,
        "CreatedDate": seconds(secret.created_ms), "LastChangedDate": seconds(secret.changed_ms),
    });
    if let Some(description) = &secret.description {
        shown["Description"] = description.as_str().into();
    }
    if let Some(accessed) = secret.accessed_ms {
        shown["LastAccessedDate"] = seconds(accessed).into();
    }
    if let Some(deletion) = secret.deletion_ms {
        shown["DeletedDate"] = seconds(deletion).into();
    }
    shown
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    secret_id: String,
}

async fn describe(api: &Api, input: Named) -> Result<Value, SecretsError> {
    let secret = api.fleet.store.managed_secret(&input.secret_id).await?.ok_or_else(missing)?;
    let versions = api.fleet.store.secret_versions(&secret.arn).await?;
    Ok(show(&secret, &versions, "VersionIdsToStages"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    max_results: Option<usize>,
    next_token: Option<String>,
}

async fn list(api: &Api, input: List) -> Result<Value, SecretsError> {
    let after = match &input.next_token {
        None => String::new(),
        Some(token) => hex::decode(token)
            .ok()
            .and_then(|t| String::from_utf8(t).ok())
            .ok_or_else(|| wrong("InvalidNextTokenException", "The NextToken value is invalid."))?,
    };
    let secrets = api.fleet.store.list_managed_secrets().await?;
    let mut rest = secrets.into_iter().filter(|s| s.name > after && s.deletion_ms.is_none());
    let size = input.max_results.unwrap_or(MAX_PAGE);
    let secrets: Vec<ManagedSecret> = rest.by_ref().take(size).collect();
    let (first, last) = (secrets.first().map_or("", |s| &s.name), secrets.last().map_or("", |s| &s.name));
    let versions = api.fleet.store.secret_versions_between(first, last).await?;
    let shown = |secret| show(secret, versions.get(&secret.arn).map_or(&[], Vec::as_slice), "SecretVersionsToStages");
    let page: Vec<Value> = secrets.iter().map(shown).collect();
    let mut answer = json!({ "SecretList": page });
    if rest.next().is_some() {
        answer["NextToken"] = hex::encode(last).into();
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Delete {
    secret_id: String,
    recovery_window_in_days: Option<i64>,
    #[serde(default)]
    force_delete_without_recovery: bool,
}

async fn delete(api: &Api, input: Delete) -> Result<Value, SecretsError> {
    if input.force_delete_without_recovery && input.recovery_window_in_days.is_some() {
        let message = "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.";
        return Err(wrong("InvalidParameterException", message));
    }
    let secret = usable(api, &input.secret_id).await?;
    let window =
        if input.force_delete_without_recovery { 0 } else { input.recovery_window_in_days.unwrap_or(DEFAULT_WINDOW_DAYS) };
    let deletion_ms = now_ms() + window * DAY_MS;
    api.fleet.store.schedule_secret_deletion(&secret.arn, Some(deletion_ms)).await?;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name, "DeletionDate": seconds(deletion_ms) }))
}

async fn restore(api: &Api, input: Named) -> Result<Value, SecretsError> {
    let secret = api.fleet.store.managed_secret(&input.secret_id).await?.ok_or_else(missing)?;
    api.fleet.store.schedule_secret_deletion(&secret.arn, None).await?;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
}
