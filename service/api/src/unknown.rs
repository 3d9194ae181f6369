//! Answers to requests that are for nobody here: in the protocol that was spoken, so that tools show the words.

use crate::panorama::errors::plain;
use crate::query::{self, QueryError};
use crate::s3;
use crate::wire::{Output, cbor};
use crate::xml::element;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belvedere_store::identifiers;
use serde_json::json;

const CODE: &str = "UnknownServiceException";

/// A request that is signed for a service that is not here.
pub fn service(name: &str, parts: &Parts) -> Response {
    let message = format!(
        "this service does not answer for \"{name}\": it is not AWS. It answers for panorama, sts, iam, s3, logs, monitoring \
         (CloudWatch), sns, secretsmanager, cloudformation and iotdata"
    );
    let said = |name: header::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (content, status) = (said(header::CONTENT_TYPE), StatusCode::NOT_FOUND);
    let form = content.starts_with("application/x-www-form-urlencoded")
        || parts.uri.query().is_some_and(|q| q.split('&').any(|pair| pair.starts_with("Action=")));
    match () {
        () if parts.headers.get("smithy-protocol").is_some_and(|v| v == "rpc-v2-cbor") => {
            let body = Output::structure().with("__type", CODE).with("message", message);
            let smithy = header::HeaderName::from_static("smithy-protocol");
            let headers = [(header::CONTENT_TYPE, "application/cbor"), (smithy, "rpc-v2-cbor")];
            (status, headers, cbor::write(&body)).into_response()
        }
        () if parts.headers.contains_key("x-amz-target") => {
            let body = json!({ "__type": CODE, "message": message }).to_string();
            (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response()
        }
        () if name == "ec2" => {
            let error = element("Code", CODE) + &element("Message", &message);
            let id = element("RequestID", &identifiers::token::<16>());
            let body = format!("<Response><Errors><Error>{error}</Error></Errors>{id}</Response>");
            (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
        }
        () if form => query::error("http://belvedere/", &QueryError { status, code: CODE, message }),
        // REST in XML.
        () if ["route53", "cloudfront", "s3-outposts", "s3express"].contains(&name) => s3::error(status, CODE, &message),
        () => plain(status, CODE, &message),
    }
}

/// A request without a signature.
pub fn unsigned(parts: &Parts) -> Response {
    let host = host(&parts.headers);
    let message = format!(
        "Missing Authentication Token. This is the API of a Belvedere service; its requests are signed as AWS's are. With the AWS \
         CLI or an SDK, set AWS_ENDPOINT_URL to this address{host} and use a key of `belvedere-service keys create`; a browser \
         finds the page at /, /healthz says how the service is"
    );
    plain(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", &message)
}

/// ` (name:port)`, if it looks like one.
fn host(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    match !host.is_empty() && host.len() <= 255 && host.bytes().all(plain) {
        true => format!(" ({host})"),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = axum::http::Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn a_service_that_is_not_here_says_so_in_the_protocol_that_was_spoken() {
        let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let of = |name: &'static str, parts: Parts| async move { body(service(name, &parts)).await };
        assert!(of("ec2", parts("/", &form)).await.starts_with("<Response><Errors><Error><Code>UnknownServiceException"));
        assert!(of("sqs", parts("/", &form)).await.starts_with("<ErrorResponse"));
        assert!(of("rds", parts("/?Action=DescribeDBInstances", &[])).await.starts_with("<ErrorResponse"));
        assert!(
            of("dynamodb", parts("/", &[("x-amz-target", "DynamoDB_20120810.ListTables")])).await.contains("\"__type\"")
        );
        assert!(of("route53", parts("/2013-04-01/hostedzone", &[])).await.contains("<Code>UnknownServiceException"));
        assert!(of("lambda", parts("/2015-03-31/functions", &[])).await.starts_with('{'));
    }

    #[tokio::test]
    async fn who_does_not_sign_is_told_what_this_is() {
        let answer = unsigned(&parts("/nope", &[("host", "127.0.0.1:8000")]));
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let text = body(answer).await;
        for word in ["127.0.0.1:8000", "AWS_ENDPOINT_URL", "/healthz"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!body(unsigned(&parts("/", &[("host", "<script>")]))).await.contains("script"));
    }
}
