//! `belvedere-service audit`: the audit log, for people and for programs.

use crate::ServerError;
use crate::configuration::Configuration;
use belvedere_store::audit::AuditEntry;
use belvedere_store::now_ms;
use serde_json::json;
use std::path::Path;

/// Prints the entries of the last `minutes`, at most `limit`, oldest first. The service may run meanwhile.
pub async fn print(data: &Path, minutes: u32, limit: u32, json: bool) -> Result<(), ServerError> {
    let store = Configuration::read(data)?.attach_own_store(data).await?;
    let entries = store.audit_entries(now_ms() - i64::from(minutes) * 60_000, i64::from(limit)).await?;
    for entry in &entries {
        println!("{}", if json { object(entry) } else { line(entry) });
    }
    store.close().await;
    Ok(())
}

fn line(entry: &AuditEntry) -> String {
    let AuditEntry { request_id, caller, access_key_id, source, action, resource, status, .. } = entry;
    format!(
        "{}  {status}  {action}  {resource}  by {caller} ({access_key_id}) from {source}  {request_id}",
        time(entry.time_ms)
    )
}

fn object(entry: &AuditEntry) -> String {
    let AuditEntry { request_id, caller, access_key_id, source, action, resource, status, .. } = entry;
    json!({
        "time": time(entry.time_ms), "requestId": request_id, "caller": caller, "accessKeyId": access_key_id,
        "source": source, "action": action, "resource": resource, "status": status,
    })
    .to_string()
}

fn time(milliseconds: i64) -> String {
    belvedere_api::sigv4::clock::iso8601(milliseconds)
}
