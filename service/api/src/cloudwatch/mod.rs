//! CloudWatch metrics and alarms, `2010-08-01`, in the three forms that tools speak: the query protocol (awscli and
//! boto3 up to 1.41), JSON 1.0 (those of today) and CBOR (other SDKs). One input, one handler, one [`Output`] for all.

pub mod alarms;
pub mod metrics;
pub mod reading;
pub mod shapes;

use crate::Api;
use crate::arn::{Arn, Home};
use crate::caller::Caller;
use crate::model::{Member, check};
use crate::operation::{Ask, AskedDocument, DocumentOperation, anything, text};
use crate::wire::query;
use crate::wire::{Output, cbor, gunzip, json, xml_answer, xml_error};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::{StoreError, identifiers};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

const NAMESPACE: &str = "http://monitoring.amazonaws.com/doc/2010-08-01/";
const TARGET: &str = "GraniteServiceVersion20100801";
/// Largest body after unpacking, bytes.
pub const MAX_BODY: u64 = 8 * 1024 * 1024;

/// How a request is written, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `Action=…`, XML.
    Query,
    /// `X-Amz-Target`, JSON 1.0.
    Json,
    /// A path per operation, CBOR.
    Cbor,
}

impl Form {
    /// Of a request.
    pub fn of(parts: &Parts) -> Form {
        if parts.headers.get("smithy-protocol").is_some_and(|v| v == "rpc-v2-cbor") {
            Form::Cbor
        } else if parts.headers.contains_key("x-amz-target") {
            Form::Json
        } else {
            Form::Query
        }
    }
}

/// A request that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refused {
    /// The caller's fault.
    pub fn new(code: &'static str, message: impl Into<String>) -> Refused {
        let status = if code == NOT_FOUND { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        Refused { status, code, message: message.into() }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Codes as the query protocol has them.
pub(crate) const INVALID: &str = "InvalidParameterValue";
pub(crate) const MISSING: &str = "MissingParameter";
pub(crate) const COMBINATION: &str = "InvalidParameterCombination";
pub(crate) const VALIDATION: &str = "ValidationError";
pub(crate) const NOT_FOUND: &str = "ResourceNotFound";
pub(crate) const LIMIT: &str = "LimitExceeded";
pub(crate) const TOKEN: &str = "InvalidNextToken";

/// The same codes as the other protocols have them.
fn exception(code: &str) -> &str {
    match code {
        "InvalidParameterValue" => "InvalidParameterValueException",
        "MissingParameter" => "MissingRequiredParameterException",
        "InvalidParameterCombination" => "InvalidParameterCombinationException",
        "LimitExceeded" => "LimitExceededFault",
        "InternalServiceError" => "InternalServiceFault",
        other => other,
    }
}

impl From<StoreError> for Refused {
    fn from(e: StoreError) -> Self {
        let id = identifiers::token::<8>();
        tracing::error!(error_id = id, "{e}");
        let message = format!("internal error {id}; the service's log says more");
        Refused { status: StatusCode::INTERNAL_SERVER_ERROR, code: "InternalServiceError", message }
    }
}

/// An error in this service's forms.
pub fn error(form: Form, status: StatusCode, code: &str, message: &str) -> Response {
    let id = identifiers::token::<16>();
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    let body = Output::structure().with("__type", exception(code)).with("message", message);
    let mut response = match form {
        Form::Query => {
            let body = xml_error(NAMESPACE, status.is_server_error(), code, message, &id);
            return (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response();
        }
        Form::Json => {
            (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body.json().to_string()).into_response()
        }
        Form::Cbor => cbor_response(status, &body),
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{code};{kind}")) {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

fn cbor_response(status: StatusCode, body: &Output) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/cbor"), (header::HeaderName::from_static("smithy-protocol"), "rpc-v2-cbor")];
    (status, headers, cbor::write(body)).into_response()
}

/// Answers a request.
pub async fn answer(api: &Api, form: Form, caller: &Caller, asked: Result<AskedDocument, Refused>) -> Response {
    match run(api, caller, asked).await {
        Ok((operation, output)) => match form {
            Form::Query => {
                let body = xml_answer(NAMESPACE, operation, &output, &identifiers::token::<16>());
                ([(header::CONTENT_TYPE, "text/xml")], body).into_response()
            }
            Form::Json => {
                ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], output.json().to_string()).into_response()
            }
            Form::Cbor => cbor_response(StatusCode::OK, &output),
        },
        Err(Refused { status, code, message }) => error(form, status, code, &message),
    }
}

/// The namespace that a call is about, for conditions.
fn namespace(input: &Map<String, Value>) -> Vec<(&'static str, String)> {
    text(input, "Namespace").map(|n| ("cloudwatch:namespace", n.to_owned())).into_iter().collect()
}
fn about_namespace(input: &Map<String, Value>, _: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask { context: namespace(input), ..Ask::of(Arn::any()) }])
}
fn about_alarm(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask { context: namespace(input), ..Ask::of(home.alarm(text(input, "AlarmName")?)?) }])
}
/// The alarms of a list; all, if it is empty or not there.
fn about_alarms(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    match input.get("AlarmNames") {
        None => anything(input, home),
        Some(Value::Array(names)) if names.is_empty() => anything(input, home),
        Some(names) => names.as_array()?.iter().map(|name| Some(Ask::of(home.alarm(name.as_str()?)?))).collect(),
    }
}
fn about_alarm_or_all(input: &Map<String, Value>, home: &Home<'_>) -> Option<Vec<Ask>> {
    match input.contains_key("AlarmName") {
        true => about_alarm(input, home),
        false => anything(input, home),
    }
}

/// All operations.
#[rustfmt::skip]
pub static OPERATIONS: &[DocumentOperation] = &[
    DocumentOperation { name: "PutMetricData", takes: shapes::PUT_METRIC_DATA, asks: about_namespace },
    DocumentOperation { name: "GetMetricData", takes: shapes::GET_METRIC_DATA, asks: anything },
    DocumentOperation { name: "GetMetricStatistics", takes: shapes::GET_METRIC_STATISTICS, asks: about_namespace },
    DocumentOperation { name: "ListMetrics", takes: shapes::LIST_METRICS, asks: about_namespace },
    DocumentOperation { name: "PutMetricAlarm", takes: shapes::PUT_METRIC_ALARM, asks: about_alarm },
    DocumentOperation { name: "DescribeAlarms", takes: shapes::DESCRIBE_ALARMS, asks: about_alarms },
    DocumentOperation { name: "DescribeAlarmsForMetric", takes: shapes::DESCRIBE_ALARMS_FOR_METRIC, asks: about_namespace },
    DocumentOperation { name: "DescribeAlarmHistory", takes: shapes::DESCRIBE_ALARM_HISTORY, asks: about_alarm_or_all },
    DocumentOperation { name: "DeleteAlarms", takes: shapes::ALARM_NAMES, asks: about_alarms },
    DocumentOperation { name: "EnableAlarmActions", takes: shapes::ALARM_NAMES, asks: about_alarms },
    DocumentOperation { name: "DisableAlarmActions", takes: shapes::ALARM_NAMES, asks: about_alarms },
    DocumentOperation { name: "SetAlarmState", takes: shapes::SET_ALARM_STATE, asks: about_alarm },
];

/// What a handler knows beside its input.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who calls.
    pub caller: Caller,
    /// The service's region.
    pub region: String,
    /// The account.
    pub account: String,
}

/// Whether the body says that it is packed with gzip.
pub fn is_packed(parts: &Parts) -> bool {
    parts.headers.get(header::CONTENT_ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// A packed body as it was.
pub fn unpacked(body: &[u8]) -> Result<Vec<u8>, Refused> {
    let refused = || Refused::new("SerializationException", "the body is not gzip, or larger than 8 MiB");
    gunzip(body, MAX_BODY).ok_or_else(refused)
}

/// Reads a request, once: the operation that it names, and what this one takes.
pub fn read(form: Form, parts: &Parts, body: &[u8]) -> Result<AskedDocument, Refused> {
    let unreadable = |e: String| Refused::new("SerializationException", e);
    let operation = |name: &str| {
        DocumentOperation::of(OPERATIONS, name)
            .ok_or_else(|| Refused::new("InvalidAction", format!("Could not find operation {name}")))
    };
    let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or("");
    let (operation, input) = match form {
        Form::Query => {
            let form =
                crate::query::Form::of(parts, body).ok_or_else(|| unreadable("the form is not well formed".into()))?;
            let operation = operation(form.action())?;
            (operation, query::input(&form, operation.takes).map_err(unreadable)?)
        }
        Form::Json => {
            let name = target.strip_prefix(TARGET).and_then(|t| t.strip_prefix('.'));
            (operation(name.unwrap_or(""))?, json::read(body).map_err(unreadable)?)
        }
        Form::Cbor => {
            let path = parts.uri.path().strip_prefix("/service/").and_then(|p| p.strip_prefix(TARGET));
            let operation = operation(path.and_then(|p| p.strip_prefix("/operation/")).unwrap_or(""))?;
            let Value::Object(input) = cbor::read(body).map_err(unreadable)? else {
                return Err(unreadable("the body is not a structure".into()));
            };
            (operation, input)
        }
    };
    Ok(operation.asked(input))
}

async fn run(api: &Api, caller: &Caller, asked: Result<AskedDocument, Refused>) -> Result<(&'static str, Output), Refused> {
    let AskedDocument { operation, input } = asked?;
    if caller.is_device() && operation.name != "PutMetricData" {
        let message = format!("an appliance may not call cloudwatch:{}", operation.name);
        return Err(Refused { status: StatusCode::FORBIDDEN, code: "AccessDenied", message });
    }
    let settings = &api.fleet.settings;
    let context = Context { caller: caller.clone(), region: settings.region.clone(), account: settings.account.clone() };
    let input = checked(operation.takes, input)?;
    let output = match operation.name {
        "PutMetricData" => metrics::put(api, &context, typed(input)?).await,
        "GetMetricData" => reading::get_data(api, typed(input)?).await,
        "GetMetricStatistics" => reading::get_statistics(api, typed(input)?).await,
        "ListMetrics" => metrics::list(api, typed(input)?).await,
        "PutMetricAlarm" => alarms::put_metric_alarm(api, &context.region, input).await.map(|()| Output::structure()),
        "DescribeAlarms" => alarms::describe(api, &context, typed(input)?).await,
        "DescribeAlarmsForMetric" => alarms::describe_for_metric(api, &context, typed(input)?).await,
        "DescribeAlarmHistory" => alarms::history(api, typed(input)?).await,
        "DeleteAlarms" => alarms::delete(api, typed(input)?).await,
        "EnableAlarmActions" => alarms::enable_actions(api, typed(input)?, true).await,
        "DisableAlarmActions" => alarms::enable_actions(api, typed(input)?, false).await,
        "SetAlarmState" => alarms::set_state(api, &context, typed(input)?).await,
        other => Err(Refused::new("InvalidAction", format!("Could not find operation {other}"))),
    }?;
    Ok((operation.name, output))
}

/// An input that its shape allows.
pub(crate) fn checked(shape: &[Member], mut input: Map<String, Value>) -> Result<Map<String, Value>, Refused> {
    input.retain(|_, value| !value.is_null());
    let faults = check(shape, &input);
    let Some(first) = faults.first() else { return Ok(input) };
    if first.message == "Member must not be null" {
        return Err(Refused::new(MISSING, format!("The parameter {} is required.", first.name)));
    }
    let message = format!("The parameter {} is not valid: {}", first.name, first.message);
    Err(Refused::new(INVALID, message))
}

pub(crate) fn typed<T: DeserializeOwned>(input: Map<String, Value>) -> Result<T, Refused> {
    serde_json::from_value(Value::Object(input)).map_err(|e| Refused::new(INVALID, e.to_string()))
}

/// Milliseconds of a time as inputs have it.
pub(crate) fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}
