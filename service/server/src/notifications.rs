//! How alarms reach people, from the configuration: read once, at the start, so that a wrong line is told at once.

use crate::ServerError;
use crate::configuration::Configuration;
use belvedere_watch::Settings;
use belvedere_watch::delivery::mail::Mail;
use belvedere_watch::delivery::targets::Targets;
use belvedere_watch::delivery::webhook::Webhooks;
use belvedere_watch::delivery::{Ways, authorities};
use std::sync::Arc;

/// What the loops need to know. `own_ports` are those on which the service itself listens.
pub fn settings(configuration: &Configuration, own_ports: Vec<u16>) -> Result<Settings, ServerError> {
    let wrong = |what: &str, e: String| ServerError::Argument(format!("service.json: \"notifications\": {what}: {e}"));
    let notifications = &configuration.notifications;
    let own = match &notifications.authorities {
        Some(path) => authorities::read(path).map_err(|e| wrong("\"authorities\"", e))?,
        None => Vec::new(),
    };
    let mail = match &notifications.mail {
        Some(server) => Some(Arc::new(Mail::new(server, &own).map_err(|e| wrong("\"mail\"", e))?)),
        None => None,
    };
    let all = [authorities::machine(), own].concat();
    let targets = Targets::new(notifications.private_addresses, own_ports);
    let webhooks = Webhooks::new(&all, targets);
    Ok(Settings { retention: configuration.metrics.retention(), ways: Ways { webhooks, mail } })
}
