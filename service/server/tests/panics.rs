//! Service D4: a panic in a request's handler is that request's 500, and the service goes on. What panics here is the body
//! of a request, read by a handler: there is no hook for it in the program. Meant for the profile that the service is
//! built with; in one whose panics abort, this ends with the first of them:
//!
//!     scripts/cargo test --profile service -p belvedere-service --test panics

use axum::body::Body;
use axum::http::{Request, StatusCode};
use belvedere_api::Api;
use belvedere_api::limits::Limits;
use belvedere_api::sigv4::Scope;
use belvedere_api::sigv4::canonical::{self, canonical_request, encode, signature, signing_key, string_to_sign};
use belvedere_fleet::authority::Authority;
use belvedere_fleet::{Fleet, Settings, endpoint, endpoints};
use belvedere_service::health::Health;
use belvedere_service::http::router;
use belvedere_service::metrics::Metrics;
use belvedere_service::page::session::Transport;
use belvedere_store::Store;
use hyper::body::{Bytes, Frame, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// More often than there are connections to the database, places for bodies of one address, or anything of the kind.
const ROUNDS: usize = 100;

/// A body in which a fault of ours shows when it is read.
struct Broken;

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        panic!("as a fault of ours would")
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(9)
    }
}

/// A presigned request for an object.
fn signed(key: &(String, String), method: &'static str, body: Body) -> Request<Body> {
    let date = belvedere_api::sigv4::clock::iso8601(belvedere_store::now_ms());
    let date: String = date.split('.').next().unwrap().chars().filter(|c| !"-:Z".contains(*c)).chain(['Z']).collect();
    let scope = Scope { date: date[..8].into(), region: "us-east-1".into(), service: "s3".into() };
    let credential = encode(format!("{}/{scope}", key.0).as_bytes(), b"");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires=60&X-Amz-SignedHeaders=host"
    );
    let path = "/bucket/object";
    let headers = [("host", vec!["localhost"])];
    let request = canonical::Request { method, path, query: &query, headers: &headers, payload: "UNSIGNED-PAYLOAD" };
    let text = string_to_sign(&canonical_request(&request, "s3"), &date, &scope);
    let sign = signature(&signing_key(&key.1, &scope), &text);
    let uri = format!("{path}?{query}&X-Amz-Signature={sign}");
    Request::builder().method(method).uri(uri).header("host", "localhost").body(body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_one_request_s_500() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).await.unwrap();
    store.join_copies(&Default::default()).await.unwrap();
    let key = store.create_access_key("test").await.unwrap();
    let settings = Settings {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        bucket: "bucket".into(),
        endpoints: endpoints(endpoint("localhost", 8883), endpoint("localhost", 443), "us-east-1"),
    };
    let fleet = Fleet::new(store.clone(), settings, Arc::new(Authority::for_tests()));
    let api = Api::new(fleet, Limits::unlimited());
    let health = Health::new(store.clone(), folder.path());
    let service = TowerToHyperService::new(router(api.clone(), health, Metrics::default()));
    let ask = |request| {
        let service = service.clone();
        async move {
            let answer = tokio::time::timeout(Duration::from_secs(30), service.call(request)).await;
            answer.expect("an answer within 30 s").unwrap()
        }
    };
    for round in 0..ROUNDS {
        // In the API, while an object is taken in.
        let answer = ask(signed(&key, "PUT", Body::new(Broken))).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "round {round}");
        assert!(answer.headers().contains_key("x-amz-request-id"));
        // On the page, outside of it.
        let sign_in = Request::post("/sign-in").extension(Transport::Tls).body(Body::new(Broken)).unwrap();
        assert_eq!(ask(sign_in).await.status(), StatusCode::INTERNAL_SERVER_ERROR, "round {round}");
    }
    // Nothing was lost and nothing is held: the same is done as it should be.
    assert_eq!(ask(Request::get("/healthz").body(Body::empty()).unwrap()).await.status(), StatusCode::OK);
    assert_eq!(ask(signed(&key, "PUT", Body::from("something"))).await.status(), StatusCode::OK);
    let answer = ask(signed(&key, "GET", Body::empty())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(axum::body::to_bytes(answer.into_body(), 99).await.unwrap(), "something");
    let sign_in = Request::post("/sign-in").extension(Transport::Tls).body(Body::from("access_key_id=x")).unwrap();
    assert_eq!(ask(sign_in).await.status(), StatusCode::FORBIDDEN);
    // Each has its entry in the audit log.
    api.audit.flush().await;
    let entries = store.audit_entries(0, 10 * ROUNDS as i64).await.unwrap();
    assert_eq!(entries.iter().filter(|e| e.action == "s3:PutObject" && e.status == 500).count(), ROUNDS);
    tokio::time::timeout(Duration::from_secs(30), store.close()).await.expect("the store closes");
}
