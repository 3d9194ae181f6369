//! `doctor`: is everything as it must be? Looks, changes nothing, and says what to do next. Every check answers for itself:
//! one that cannot be made is a finding like any other.

mod broker;
mod certificates;
mod files;
mod rows;
pub mod running;

use crate::ServerError;
use crate::configuration::Configuration;
use serde::Serialize;
use std::path::Path;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it must be.
    Good,
    /// Will become an error, or is unusual.
    Warning,
    /// Something does not work, or is lost.
    Error,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was looked at.
    pub about: &'static str,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

fn good(about: &'static str, found: impl Into<String>) -> Finding {
    Finding { level: Level::Good, about, found: found.into(), next: None }
}
fn warning(about: &'static str, found: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, about, found: found.into(), next: Some(next.into()) }
}
fn error(about: &'static str, found: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { level: Level::Error, about, found: found.into(), next: Some(next.into()) }
}

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The sizes of objects.
    Sizes,
    /// Every byte of every object.
    Bytes,
}

/// Makes all checks.
pub async fn examine(data: &Path, depth: Depth) -> Vec<Finding> {
    let read = Configuration::read(data);
    if let Err(ServerError::NoService { detail, .. }) = &read {
        let found = format!("{} is no service's directory: {detail}", data.display());
        let next = "give the directory that `belvedere-service init` made with --data; if this is it, restore a backup with \
                    `belvedere-service restore`";
        return vec![error("directory", found, next)];
    }
    if let Err(ServerError::NotYours { .. }) = &read {
        let next =
            "run doctor as the user that the service runs as (sudo -u belvedere belvedere-service doctor …), or as root";
        return vec![error("directory", format!("{} is not yours to read", data.display()), next)];
    }
    let mut findings = files::directory(data);
    let configuration = match read {
        Ok(configuration) => configuration,
        Err(e) => {
            findings.push(error("configuration", e.to_string(), "mend service.json, or put it back from a backup"));
            return findings;
        }
    };
    findings.push(good(
        "configuration",
        format!("account {}, region {}, bucket {}", configuration.account, configuration.region, configuration.bucket),
    ));
    findings.extend(files::keys(&configuration));
    findings.extend(certificates::authority(data, &configuration));
    let running = running::running(data);
    match configuration.attach_store(data).await {
        Ok(store) => {
            findings.extend(rows::examine(&store, depth, running.is_some()).await);
            findings.extend(broker::examine(&configuration, &store, running.is_some()).await);
            store.close().await;
        }
        Err(e) => findings.push(error(
            "database",
            e.to_string(),
            "name the right database; else restore a backup with `belvedere-service restore`, or use a newer program",
        )),
    }
    let external_broker = matches!(configuration.backends.broker(), Ok(Some(_)));
    findings.extend(running::examine(data, running, external_broker).await);
    findings
}

/// For people: one line a finding, and below it what to do.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        text += &format!("{word:8} {:13} {}\n", finding.about, finding.found);
        if let Some(next) = &finding.next {
            text += &format!("{:22} next: {next}\n", "");
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    text += &format!("{} errors, {} warnings\n", count(Level::Error), count(Level::Warning));
    text
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|f| f.level).max().unwrap_or(Level::Good)
}

#[cfg(test)]
mod tests;
