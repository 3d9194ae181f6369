//! A verified session becomes a caller: of a role, with the policies that the role has now.

use super::policy::Policy;
use crate::Api;
use crate::caller::Caller;
use crate::iam::role_arn;
use belvedere_fleet::FleetError;
use belvedere_fleet::credentials::{Session, Subject};
use std::sync::Arc;

/// Who a session is; `None` if its role is not there any more.
pub async fn caller(api: &Api, session: &Session) -> Result<Option<Caller>, FleetError> {
    let access_key_id = session.access_key_id.clone();
    let (role, role_id, session_name, origin) = match &session.subject {
        Subject::Device { device_id, .. } => {
            return Ok(Some(Caller::Device { device_id: device_id.clone(), access_key_id }));
        }
        Subject::Role { role, role_id, session_name, origin } => (role, role_id, session_name, origin),
    };
    let store = &api.fleet.store;
    let Some(found) = store.role(role).await?.filter(|r| r.role_id == *role_id) else { return Ok(None) };
    let own = store.role_policies(role_id).await?.into_iter().map(|(_, document)| document);
    let attached = store.attached_policies(role_id).await?.into_iter().map(|p| p.document);
    let policies = own
        .chain(attached)
        .map(|document| {
            // Documents are checked when they come in. One that is not understood now denies everything.
            Policy::parse(&document).unwrap_or_else(|e| {
                tracing::error!(role, "a stored policy is not understood: {e}");
                Policy::nothing()
            })
        })
        .collect();
    Ok(Some(Caller::Role {
        role: role.clone(),
        role_id: role_id.clone(),
        session_name: session_name.clone(),
        role_arn: role_arn(&api.home(), &found),
        origin: origin.clone(),
        access_key_id,
        policies: Arc::new(policies),
    }))
}
