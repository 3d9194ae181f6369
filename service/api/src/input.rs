//! What a request asks for, read once: the same value is asked about ([`crate::access::calls`]) and carried out
//! ([`Input::carry_out`]).

use crate::bodies::{Full, Held};
use crate::caller::Caller;
use crate::cloudwatch_logs::LogsError;
use crate::entry::{Request, Service};
use crate::operation::{AskedDocument, AskedForm};
use crate::panorama::errors::ApiError;
use crate::query::{self, QueryError};
use crate::secrets_manager::SecretsError;
use crate::wire::{cbor, json};
use crate::{Api, cloudformation, cloudwatch, cloudwatch_logs, iam, iot_data, panorama, s3, secrets_manager, sns, sts};
use axum::body::Bytes;
use axum::http::request::Parts;
use axum::response::Response;

/// What a value of a document, and a field of a form, takes in memory at most beside its text, bytes.
const VALUE: usize = 72;
const FIELD: usize = 128;

/// By service. What cannot be read is nobody's but an administrator's, who is told why.
#[allow(missing_docs)] // the names are AWS's
pub enum Input {
    /// Method and path say it all; the body is read while it comes.
    S3,
    Panorama(Result<panorama::Asked, ApiError>),
    Sts(Result<AskedForm, QueryError>),
    Iam(Result<AskedForm, QueryError>),
    CloudFormation(Result<AskedForm, QueryError>),
    Logs(Result<AskedDocument, LogsError>),
    Monitoring(cloudwatch::Form, Result<AskedDocument, cloudwatch::Refused>),
    Sns(Result<AskedDocument, sns::Refused>),
    SecretsManager(Result<AskedDocument, SecretsError>),
    IotData(Option<String>, Bytes),
}

impl Input {
    /// Of a request to a service. What is made of a body is larger than the body: it is held, too, before it is made.
    pub fn read(api: &Api, service: Service, parts: &Parts, body: Vec<u8>, held: &Held) -> Result<Input, Full> {
        let packed = matches!(service, Service::Monitoring(_)) && cloudwatch::is_packed(parts);
        let cbor = service == Service::Monitoring(cloudwatch::Form::Cbor);
        let body = match packed {
            false => body,
            true => {
                held.grow(cloudwatch::MAX_BODY as usize)?;
                match cloudwatch::unpacked(&body) {
                    Ok(body) => body,
                    Err(refused) => return Ok(Input::Monitoring(cloudwatch::Form::of(parts), Err(refused))),
                }
            }
        };
        held.grow(if cbor { cbor::weight(&body) } else { json::values(&body) * VALUE + query::fields(&body) * FIELD })?;
        Ok(match service {
            Service::S3 => Input::S3,
            Service::Panorama => Input::Panorama(panorama::read(parts, &body)),
            Service::Sts => Input::Sts(query::read(sts::OPERATIONS, parts, &body)),
            Service::Iam => Input::Iam(query::read(iam::OPERATIONS, parts, &body)),
            Service::CloudFormation => Input::CloudFormation(query::read(cloudformation::OPERATIONS, parts, &body)),
            Service::Logs => Input::Logs(cloudwatch_logs::read(parts, &body, &api.home())),
            Service::Monitoring(form) => Input::Monitoring(form, cloudwatch::read(form, parts, &body)),
            Service::Sns => Input::Sns(sns::read(parts, &body)),
            Service::SecretsManager => Input::SecretsManager(secrets_manager::read(parts, &body)),
            Service::IotData => Input::IotData(iot_data::topic(parts), body.into()),
        })
    }

    /// Carries it out. Only what was allowed comes here.
    pub async fn carry_out(self, api: &Api, request: Request) -> Response {
        let caller: &Caller = &request.caller;
        match self {
            Input::S3 => s3::answer(api, request).await,
            Input::Panorama(asked) => panorama::answer(api, caller, asked).await,
            Input::Sts(asked) => sts::answer(api, caller, asked).await,
            Input::Iam(asked) => iam::answer(api, asked).await,
            Input::CloudFormation(asked) => cloudformation::answer(api, caller, asked).await,
            Input::Logs(asked) => cloudwatch_logs::answer(api, caller, asked).await,
            Input::Monitoring(form, asked) => cloudwatch::answer(api, form, caller, asked).await,
            Input::Sns(asked) => sns::answer(api, asked).await,
            Input::SecretsManager(asked) => secrets_manager::answer(api, asked).await,
            Input::IotData(topic, payload) => iot_data::answer(api, &request.parts, topic, payload).await,
        }
    }
}
