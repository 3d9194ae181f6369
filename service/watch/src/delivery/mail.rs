//! Mail, through the SMTP server that the service's configuration names.

use super::{ATTEMPT, Undelivered};
use crate::text::zulu;
use belvedere_store::notifications::Delivery;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How a connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// TLS from the first byte (port 465).
    Tls,
    /// TLS after a greeting in clear (port 587); without it nothing is sent.
    #[default]
    StartTls,
    /// None: for a mail server on the same machine.
    None,
}

/// The mail server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailServer {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    #[serde(default)]
    pub protection: Protection,
    /// Sender of all mail: `Belvedere <belvedere@example.org>`.
    pub from: String,
    /// Who logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with that one's password, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// Sends mail.
pub struct Mail {
    transport: SmtpTransport,
    from: Mailbox,
}

/// Whether mail can be sent to an address.
pub fn acceptable(address: &str) -> bool {
    address.len() <= 254 && address.parse::<lettre::Address>().is_ok()
}

impl Mail {
    /// A way to a server; trusts these authorities (DER) beside the machine's own. The error is for people.
    pub fn new(server: &MailServer, authorities: &[Vec<u8>]) -> Result<Mail, String> {
        let from = server.from.parse().map_err(|e| format!("\"from\": {}: {e}", server.from))?;
        let tls = || {
            let mut parameters = TlsParameters::builder(server.host.clone());
            for der in authorities {
                let certificate = Certificate::from_der(der.clone()).map_err(|e| format!("an authority: {e}"))?;
                parameters = parameters.add_root_certificate(certificate);
            }
            parameters.build().map_err(|e| format!("TLS: {e}"))
        };
        let tls = match server.protection {
            Protection::Tls => Tls::Wrapper(tls()?),
            Protection::StartTls => Tls::Required(tls()?),
            Protection::None => Tls::None,
        };
        let mut builder =
            SmtpTransport::builder_dangerous(&server.host).port(server.port).tls(tls).timeout(Some(ATTEMPT / 3));
        if let Some(user) = &server.user {
            let Some(path) = &server.password_file else { return Err("\"user\" needs \"password_file\"".into()) };
            let password = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Mail { transport: builder.build(), from })
    }

    /// Sends a message.
    pub async fn send(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        let message = mail(&self.from, delivery).map_err(Undelivered::Never)?;
        let transport = self.transport.clone();
        let sent = tokio::task::spawn_blocking(move || transport.send(&message));
        match tokio::time::timeout(ATTEMPT + Duration::from_secs(2), sent).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(e))) if e.is_permanent() => Err(Undelivered::Never(format!("the mail server refused: {e}"))),
            Ok(Ok(Err(e))) => Err(Undelivered::Later(format!("the mail server: {e}"))),
            Ok(Err(e)) => Err(Undelivered::Later(format!("the attempt ended badly: {e}"))),
            Err(_) => Err(Undelivered::Later("the mail server took too long".into())),
        }
    }
}

/// A message as mail.
fn mail(from: &Mailbox, delivery: &Delivery) -> Result<Message, String> {
    let to: lettre::Address = delivery.subscription.endpoint.parse().map_err(|e| format!("the address: {e}"))?;
    let subject: String = delivery.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(subject)
        .message_id(Some(format!("<{}@belvedere>", delivery.message_id)))
        .header(ContentType::TEXT_PLAIN)
        .body(readable(delivery))
        .map_err(|e| e.to_string())
}

/// A message for people: what an alarm says, in lines; the message itself if it is not an alarm's.
fn readable(delivery: &Delivery) -> String {
    let sent = format!("Topic {}, sent {}.\n", delivery.topic_arn, zulu(delivery.created_ms));
    let alarm: Value = serde_json::from_str(&delivery.message).unwrap_or_default();
    let word = |name: &str| alarm[name].as_str().unwrap_or("").to_owned();
    if alarm["NewStateValue"].is_null() || alarm["Trigger"].is_null() {
        return format!("{}\n\n-- \n{sent}", delivery.message);
    }
    let trigger = &alarm["Trigger"];
    let dimensions: Vec<String> = trigger["Dimensions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|d| format!("{} = {}", d["name"].as_str().unwrap_or(""), d["value"].as_str().unwrap_or("")))
        .collect();
    let mut text = format!(
        "The alarm \"{}\" is in state {} (it was {}).\n\n",
        word("AlarmName"),
        word("NewStateValue"),
        word("OldStateValue")
    );
    for (name, value) in [
        ("Description", word("AlarmDescription")),
        ("Reason", word("NewStateReason")),
        ("Time", word("StateChangeTime")),
        (
            "Metric",
            format!("{} {}", trigger["Namespace"].as_str().unwrap_or(""), trigger["MetricName"].as_str().unwrap_or("")),
        ),
        ("Dimensions", dimensions.join(", ")),
        ("Alarm", word("AlarmArn")),
    ] {
        if !value.is_empty() {
            text += &format!("{name}: {value}\n");
        }
    }
    text + "\n-- \n" + &sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_store::notifications::Subscription;

    fn delivery(message: &str) -> Delivery {
        Delivery {
            sequence: 1,
            subscription: Subscription {
                id: "id".into(),
                topic: "people".into(),
                protocol: "email".into(),
                endpoint: "ops@example.org".into(),
                raw: false,
            },
            message_id: "m".into(),
            topic_arn: "arn:t".into(),
            subject: "ALARM: \"a\r\nBcc: x@example.org\"".into(),
            message: message.into(),
            created_ms: 0,
            attempts: 1,
        }
    }

    #[test]
    fn a_subject_cannot_become_a_header() {
        let from = "Belvedere <b@example.org>".parse().unwrap();
        let text = String::from_utf8(mail(&from, &delivery("hello")).unwrap().formatted()).unwrap();
        assert!(!text.contains("\nBcc:"), "{text}");
        assert!(text.contains("To: ops@example.org") && text.contains("hello"), "{text}");
    }

    #[test]
    fn an_alarm_is_told_in_lines() {
        let alarm = r#"{"AlarmName":"silent","NewStateValue":"ALARM","OldStateValue":"OK","NewStateReason":"r",
            "Trigger":{"MetricName":"DeviceActive","Namespace":"N","Dimensions":[{"name":"DeviceId","value":"d"}]}}"#;
        let text = readable(&delivery(alarm));
        assert!(text.starts_with("The alarm \"silent\" is in state ALARM (it was OK).\n"), "{text}");
        assert!(text.contains("Metric: N DeviceActive\nDimensions: DeviceId = d\n"), "{text}");
        assert!(!text.contains("Description:"), "{text}");
    }

    #[test]
    fn addresses_are_checked() {
        assert!(acceptable("ops@example.org"));
        for bad in ["", "ops", "ops@", "a b@example.org", "ops@example.org\r\nRCPT TO:<x@y>"] {
            assert!(!acceptable(bad), "{bad}");
        }
    }
}
