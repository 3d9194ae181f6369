//! `keys`: access keys of administrators.

use crate::ServerError;
use belvedere_store::access_keys::AccessKey;
use belvedere_store::{Store, now_ms};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Makes a key and prints it, this once.
pub async fn create(store: &Store, description: &str, expires_in_days: Option<u32>) -> Result<(), ServerError> {
    let expires_ms = expires_in_days.map(|days| now_ms() + i64::from(days) * DAY_MS);
    let (id, secret) = store.create_access_key_until(description, expires_ms).await?;
    // Lines that a shell can read as they are.
    println!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}");
    Ok(())
}

/// Prints all keys, without secrets.
pub async fn list(store: &Store) -> Result<(), ServerError> {
    let now = now_ms();
    for key in store.list_access_keys().await? {
        println!("{}", line(&key, now));
    }
    Ok(())
}

/// Ends a key at once.
pub async fn revoke(store: &Store, access_key_id: &str) -> Result<(), ServerError> {
    if store.revoke_access_key(access_key_id).await? {
        return Ok(());
    }
    let known = store.list_access_keys().await?.into_iter().any(|k| k.access_key_id == access_key_id);
    Err(ServerError::Argument(match known {
        true => format!("{access_key_id} was revoked before"),
        false => format!("there is no key {access_key_id}; `belvedere-service keys list` shows those there are"),
    }))
}

fn line(key: &AccessKey, now: i64) -> String {
    let state = match (key.revoked_ms, key.expires_ms) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "active",
    };
    let end = key.expires_ms.filter(|_| state == "active").map(|end| format!("  (until {})", crate::time::date(end)));
    format!("{}  {state}  {}{}", key.access_key_id, key.description, end.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_key_is_good_for() {
        let key = |revoked_ms, expires_ms| AccessKey {
            access_key_id: "AKIA".into(),
            description: "mine".into(),
            created_ms: 0,
            revoked_ms,
            expires_ms,
        };
        assert_eq!(line(&key(None, None), 5), "AKIA  active  mine");
        assert_eq!(line(&key(None, Some(5)), 5), "AKIA  expired  mine");
        assert_eq!(line(&key(None, Some(6)), 5), "AKIA  active  mine  (until 1970-01-01 00:00 UTC)");
        assert_eq!(line(&key(Some(1), Some(6)), 5), "AKIA  revoked  mine");
    }
}
