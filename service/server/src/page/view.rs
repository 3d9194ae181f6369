//! HTML. `maud` escapes every value that is put in; there is no other way in.

use super::overview::{DeviceRow, Overview};
use super::session::Transport;
use crate::time::{date, distance};
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::application_instances::ApplicationInstance;
use belvedere_store::packages::PackageVersion;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::sync::LazyLock;

const STYLE: &str = include_str!("style.css");

/// For the page's content security policy.
pub fn style_hash() -> &'static str {
    static HASH: LazyLock<String> =
        LazyLock::new(|| BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes())));
    &HASH
}

fn document(title: &str, refresh: bool, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if refresh { meta http-equiv="refresh" content="30"; }
                link rel="icon" href="data:,";
                title { (title) }
                // Ours, without a character that HTML would change.
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

/// Before somebody has signed in. Says nothing of the service.
pub fn sign_in(transport: Transport, message: Option<&str>) -> Markup {
    let body = html! {
        main.narrow {
            h1 { "Belvedere" }
            @if let Some(message) = message { p.message role="alert" { (message) } }
            @if transport == Transport::Open {
                p { "This connection is not encrypted. Open this page over https." }
            } @else {
                form method="post" action="/sign-in" autocomplete="off" {
                    label { "Access key ID" input name="access_key_id" required maxlength="128" autocapitalize="none" spellcheck="false"; }
                    label { "Secret access key" input name="secret_access_key" type="password" required maxlength="256"; }
                    button { "Sign in" }
                }
            }
            p.hint { "Or run " code { "belvedere-service page --data DATA" } " on the service's machine, and open the link that it prints." }
        }
    };
    document("Belvedere", false, body)
}

/// When the database does not answer.
pub fn trouble() -> Markup {
    let body = html! {
        main.narrow { h1 { "Belvedere" } p.message role="alert" { "The service is in trouble. Its log says more." } }
    };
    document("Belvedere", true, body)
}

/// Everything.
pub fn overview(all: &Overview) -> Markup {
    let online = all.devices.iter().filter(|d| d.status == "ONLINE").count();
    let running = all.applications.iter().filter(|a| a.health == "RUNNING").count();
    let good = all.packages.iter().filter(|p| p.status == "REGISTER_COMPLETED").count();
    let body = html! {
        header {
            h1 { "Belvedere" }
            p { (all.account) " · " (all.region) " · " (date(all.now)) }
            form method="post" action="/sign-out" { button { "Sign out" } }
        }
        main {
            ul.tiles {
                (tile("devices online", online, all.devices.len()))
                (tile("applications running", running, all.applications.len()))
                (tile("package versions registered", good, all.packages.len()))
            }
            section id="devices" {
                h2 { "Devices" }
                @if all.devices.is_empty() { p.empty { "None yet. " code { "aws panorama provision-device" } " makes one." } }
                @else { table {
                    thead { tr { th { "Name" } th { "Status" } th { "Network" } th { "Software" } th { "Lease" } th { "Last seen" } } }
                    tbody { @for row in &all.devices { (device(row, all.now)) } }
                } }
                @if !all.software.is_empty() {
                    p.hint { "Software: " @for (index, (version, count)) in all.software.iter().enumerate() {
                        @if index > 0 { ", " } (version) " on " (count) @if *count == 1 { " device" } @else { " devices" }
                    } }
                }
            }
            section id="applications" {
                h2 { "Applications" }
                @if all.applications.is_empty() { p.empty { "None yet. " code { "aws panorama create-application-instance" } " deploys one." } }
                @else { table {
                    thead { tr { th { "Name" } th { "Device" } th { "Status" } th { "Health" } th { "Nodes" } th { "Changed" } } }
                    tbody { @for instance in &all.applications { (application(instance, all.now)) } }
                } }
            }
            section id="packages" {
                h2 { "Packages" }
                @if all.packages.is_empty() { p.empty { "None yet. " code { "panorama-cli package-application" } " registers some." } }
                @else { table {
                    thead { tr { th { "Name" } th { "Version" } th { "Patch" } th { "Status" } th { "Registered" } } }
                    tbody { @for version in &all.packages { (package(version, all.now)) } }
                } }
            }
        }
    };
    document("Belvedere", true, body)
}

fn tile(what: &str, count: usize, of: usize) -> Markup {
    html! { li { strong { (count) } span.of { " of " (of) } span.what { (what) } } }
}

/// A status with a colour of its own.
fn state(word: &str) -> Markup {
    let class = match word {
        "ONLINE" | "RUNNING" | "SUCCEEDED" | "DEPLOYMENT_SUCCEEDED" | "REGISTER_COMPLETED" => "good",
        "ERROR" | "FAILED" | "DEPLOYMENT_ERROR" | "DEPLOYMENT_FAILED" | "REMOVAL_FAILED" | "REGISTER_FAILED"
        | "LEASE_EXPIRED" => "bad",
        "OFFLINE" | "NOT_AVAILABLE" | "PAUSED" | "STOPPED" | "DELETING" => "idle",
        _ => "busy",
    };
    html! { span class={ "state " (class) } { (word.replace('_', " ").to_lowercase()) } }
}

fn when(at: Option<i64>, now: i64) -> Markup {
    html! { @match at { Some(at) => { time title=(date(at)) { (distance(at, now)) } }, None => { "–" } } }
}

fn device(row: &DeviceRow, now: i64) -> Markup {
    let device = &row.device;
    html! {
        tr {
            td data-label="Name" { div { strong { (device.name) } small { (device.device_id) } } }
            td data-label="Status" { div {
                (state(&row.status))
                @if row.status == "FAILED" { small { "its archive expired unused: delete it and provision it again" } }
            } }
            td data-label="Network" { div { @for line in &row.network { span.line { (line) } } @if row.network.is_empty() { "–" } } }
            td data-label="Software" { (device.software_version.as_deref().unwrap_or("–")) }
            td data-label="Lease" { (when(device.lease_expires_ms, now)) }
            td data-label="Last seen" { (when(device.network_status_ms, now)) }
        }
    }
}

fn application(instance: &ApplicationInstance, now: i64) -> Markup {
    html! {
        tr {
            td data-label="Name" { div { strong { (instance.name.as_deref().unwrap_or("(no name)")) } small { (instance.id) } } }
            td data-label="Device" { (instance.device_name) }
            td data-label="Status" { div { (state(&instance.status)) @if !instance.status_description.is_empty() { small { (instance.status_description) } } } }
            td data-label="Health" { (state(&instance.health)) }
            td data-label="Nodes" { div { @for node in &instance.nodes { span.line.node { span { (node.instance) } " " (state(&node.status)) } } } }
            td data-label="Changed" { (when(Some(instance.updated_ms), now)) }
        }
    }
}

fn package(version: &PackageVersion, now: i64) -> Markup {
    html! {
        tr {
            td data-label="Name" { strong { (version.package_name) } }
            td data-label="Version" { (version.version) @if version.latest { " " span.state.idle { "latest" } } }
            td data-label="Patch" { code { (version.patch.get(..12).unwrap_or(&version.patch)) } }
            td data-label="Status" { div { (state(&version.status)) @if let Some(text) = &version.status_description { small { (text) } } } }
            td data-label="Registered" { (when(Some(version.registered_ms), now)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_store::application_instances::NodeRecord;
    use std::collections::BTreeMap;

    /// Every text that somebody may have put in.
    fn hostile() -> Overview {
        let evil = "<script>alert(1)</script>\"'&";
        let device = belvedere_store::devices::Device {
            sequence: 1,
            device_id: evil.into(),
            name: evil.into(),
            thing_name: evil.into(),
            description: Some(evil.into()),
            tags: Default::default(),
            networking: None,
            provisioning_status: evil.into(),
            created_ms: 0,
            updated_ms: 0,
            serial_number: Some(evil.into()),
            software_version: Some(evil.into()),
            network_status: None,
            network_status_ms: Some(0),
            lease_expires_ms: Some(i64::MAX),
            connected: true,
        };
        let node = NodeRecord {
            instance: evil.into(),
            node_id: evil.into(),
            node_name: evil.into(),
            package_name: evil.into(),
            package_version: evil.into(),
            patch: evil.into(),
            status: evil.into(),
            camera: None,
        };
        Overview {
            account: evil.into(),
            region: evil.into(),
            now: 1,
            devices: vec![DeviceRow { device, status: evil.into(), network: vec![evil.into()] }],
            applications: vec![ApplicationInstance {
                id: evil.into(),
                device_id: evil.into(),
                device_name: evil.into(),
                name: Some(evil.into()),
                description: Some(evil.into()),
                manifest: evil.into(),
                overrides: None,
                role_arn: None,
                tags: Default::default(),
                replaces: None,
                created_ms: 0,
                updated_ms: 0,
                removed: false,
                status: evil.into(),
                status_description: evil.into(),
                health: evil.into(),
                device_reported_status: None,
                device_reported_ms: None,
                document_sha256: evil.into(),
                nodes: vec![node],
            }],
            packages: vec![PackageVersion {
                package_id: evil.into(),
                package_name: evil.into(),
                version: evil.into(),
                patch: evil.into(),
                status: evil.into(),
                status_description: Some(evil.into()),
                latest: true,
                registered_ms: 0,
                manifest: evil.into(),
            }],
            software: BTreeMap::from([(evil.to_owned(), 1)]),
        }
    }

    #[test]
    fn whatever_somebody_wrote_is_text_on_the_page() {
        let text = overview(&hostile()).into_string();
        assert!(!text.contains("<script"), "{text}");
        assert!(!text.contains("\"'&\""), "{text}");
        assert!(text.matches("&lt;script&gt;").count() > 15);
    }

    #[test]
    fn the_style_is_what_the_policy_allows_and_no_more() {
        let text = sign_in(Transport::Tls, None).into_string();
        let style = text.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        assert_eq!(style, STYLE);
        assert!(!text.contains("style=") && !text.contains("<script"), "{text}");
        assert!(!sign_in(Transport::Open, None).into_string().contains("<form"));
    }
}
