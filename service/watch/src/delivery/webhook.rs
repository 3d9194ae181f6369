//! Webhooks: a POST with SNS's envelope (or the message alone), a bounded time, no redirects, and nothing read of the
//! answer but its status.

use super::targets::{self, Guarded, Kind, Targets};
use super::{ATTEMPT, Undelivered};
use crate::text::zulu;
use belvedere_store::notifications::Delivery;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use url::{Host, Url};

/// Longest address.
const MAX_ADDRESS: usize = 2048;

/// Whether an address may be a webhook's: `http` or `https`, a host, nothing else, and not a number that never is a
/// receiver's. Where names lead is looked at when a message goes there.
pub fn acceptable(protocol: &str, address: &str) -> bool {
    let Ok(url) = Url::parse(address) else { return false };
    let host = match url.host() {
        Some(Host::Domain(name)) => !name.is_empty(),
        Some(Host::Ipv4(address)) => targets::kind(address.into()) != Kind::Forbidden,
        Some(Host::Ipv6(address)) => targets::kind(address.into()) != Kind::Forbidden,
        None => false,
    };
    // Who sends reads addresses more strictly: what it does not understand would be tried for hours, in vain.
    let sendable = address.parse::<Uri>().is_ok_and(|uri| uri.host().is_some());
    address.len() <= MAX_ADDRESS && url.scheme() == protocol && host && sendable
}

/// Address of a subscription.
pub fn subscription_arn(delivery: &Delivery) -> String {
    format!("{}:{}", delivery.topic_arn, delivery.subscription.id)
}

/// What is posted: content type and body.
pub fn body(delivery: &Delivery) -> (&'static str, String) {
    if delivery.subscription.raw {
        return ("text/plain; charset=UTF-8", delivery.message.clone());
    }
    let envelope = json!({
        "Type": "Notification",
        "MessageId": delivery.message_id,
        "TopicArn": delivery.topic_arn,
        "Subject": delivery.subject,
        "Message": delivery.message,
        "Timestamp": zulu(delivery.created_ms),
    });
    ("text/plain; charset=UTF-8", envelope.to_string())
}

/// A client for webhooks. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    agent: Agent,
}

impl Webhooks {
    /// A client that trusts these authorities (DER) and connects to nothing but `targets`.
    pub fn new(authorities: &[Vec<u8>], targets: Targets) -> Webhooks {
        let roots: Vec<Certificate<'static>> = authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(ATTEMPT - Duration::from_secs(1)))
            .proxy(None)
            .user_agent("Belvedere notifications")
            .build();
        Webhooks { agent: Agent::with_parts(agent, DefaultConnector::default(), Guarded::new(targets)) }
    }

    /// Posts a message; a status from 200 to 299 means that it arrived.
    pub async fn post(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        let subscription = &delivery.subscription;
        if !acceptable(&subscription.protocol, &subscription.endpoint) {
            return Err(Undelivered::Never("the address is not one of a webhook".into()));
        }
        let (agent, delivery) = (self.agent.clone(), delivery.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let (content_type, body) = body(&delivery);
            agent
                .post(&delivery.subscription.endpoint)
                .header("content-type", content_type)
                .header("x-amz-sns-message-type", "Notification")
                .header("x-amz-sns-message-id", &delivery.message_id)
                .header("x-amz-sns-topic-arn", &delivery.topic_arn)
                .header("x-amz-sns-subscription-arn", subscription_arn(&delivery))
                .header("x-amz-sns-rawdelivery", if delivery.subscription.raw { "true" } else { "false" })
                .send(body)
        });
        match answer.await {
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(Undelivered::Later(format!("the webhook answered {}", response.status().as_u16()))),
            Ok(Err(ureq::Error::Io(e))) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Undelivered::Never("the webhook leads to an address that this service does not connect to".into()))
            }
            // Errors of the client may quote the address.
            Ok(Err(e)) => Err(Undelivered::Later(kind(&e).to_owned())),
            Err(e) => Err(Undelivered::Later(format!("the attempt ended badly: {e}"))),
        }
    }
}

fn kind(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "the webhook took too long",
        ureq::Error::HostNotFound => "the webhook's host is not known",
        ureq::Error::ConnectionFailed => "the webhook's host does not take the connection",
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            "the webhook's host refuses the connection"
        }
        ureq::Error::Io(_) => "the connection to the webhook broke",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "the webhook's certificate is not trusted",
        _ => "the webhook cannot be reached",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_store::notifications::Subscription;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn delivery(endpoint: &str) -> Delivery {
        Delivery {
            sequence: 1,
            subscription: Subscription {
                id: "id".into(),
                topic: "people".into(),
                protocol: "http".into(),
                endpoint: endpoint.into(),
                raw: false,
            },
            message_id: "message".into(),
            topic_arn: "arn:aws:sns:us-east-1:123456789012:people".into(),
            subject: "S".into(),
            message: "{\"a\":1}".into(),
            created_ms: 0,
            attempts: 1,
        }
    }

    /// Answers one request; gives its address and what it was sent.
    fn server(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&got).ends_with('}') {
                let n = stream.read(&mut buffer).unwrap();
                got.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(got).unwrap()
        });
        (address, thread)
    }

    #[test]
    fn only_addresses_of_the_subscribed_protocol() {
        for (protocol, good) in [("http", "http://127.0.0.1:9/x?y=z"), ("https", "https://u:p@example.org/")] {
            assert!(acceptable(protocol, good), "{good}");
        }
        let long = format!("http://h/{}", "a".repeat(MAX_ADDRESS));
        for (protocol, bad) in [
            ("https", "http://h/"),
            ("http", "file:///etc/passwd"),
            ("http", "ftp://h/"),
            ("http", "h"),
            ("http", long.as_str()),
            ("http", "http://169.254.169.254/latest/meta-data/"),
            ("http", "http://0xa9fea9fe/"),
            ("http", "http://[::ffff:169.254.169.254]/"),
            ("http", "http://0/"),
            // What cannot be sent to is refused at once.
            ("http", "http:127.0.0.1/"),
            ("http", "http:\\\\127.0.0.1\\"),
            ("http", "http://h/a b"),
            ("http", "http://h/\r\nX-Evil: 1"),
            ("http", "http://①②⑦.0.0.1/"),
        ] {
            assert!(!acceptable(protocol, bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_message_goes_in_its_envelope() {
        let (address, thread) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        Webhooks::new(&[], Targets::default()).post(&delivery(&address)).await.unwrap();
        let got = thread.join().unwrap();
        let envelope: serde_json::Value = serde_json::from_str(got.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(envelope["Message"], "{\"a\":1}");
        assert_eq!(envelope["Timestamp"], "1970-01-01T00:00:00.000Z");
        assert!(got.to_lowercase().contains("x-amz-sns-message-type: notification"), "{got}");
    }

    #[tokio::test]
    async fn service_d18_a_name_that_leads_to_the_services_own_port_is_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let webhooks = Webhooks::new(&[], Targets::new(Default::default(), vec![port]));
        for host in ["localhost", "127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.1]", "2130706433"] {
            let refused = webhooks.post(&delivery(&format!("http://{host}:{port}/"))).await.unwrap_err();
            assert!(matches!(refused, Undelivered::Never(_)), "{host}: {refused}");
        }
        assert!(listener.accept().is_err(), "nobody connected");
    }

    #[tokio::test]
    async fn redirects_are_not_followed_and_failures_do_not_name_the_address() {
        let (address, thread) = server(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/inside\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
        let refused = Webhooks::new(&[], Targets::default()).post(&delivery(&address)).await.unwrap_err();
        assert_eq!(refused, Undelivered::Later("the webhook answered 302".into()));
        thread.join().unwrap();
        let gone =
            Webhooks::new(&[], Targets::default()).post(&delivery("http://user:hunter2@127.0.0.1:1/x")).await.unwrap_err();
        assert!(matches!(&gone, Undelivered::Later(text) if !text.contains("hunter2")), "{gone}");
    }
}
