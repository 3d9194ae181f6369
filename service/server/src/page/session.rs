//! Who sees the page. Links and cookies are sealed with the store's key: they cannot be made or changed by others, and
//! checking one tells nothing by the time it takes.

use belvedere_store::identifiers::random;
use belvedere_store::secrets::SecretBox;
use ring::hmac;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const LINK: &str = "page link";
const SESSION: &str = "page session";
const MINUTE_MS: i64 = 60 * 1000;
/// How long a link can be opened, and how long what it opened is shown.
const LINK_MS: i64 = 10 * MINUTE_MS;
const LINK_SESSION_MS: i64 = 60 * MINUTE_MS;
/// How long somebody with a key stays signed in.
const KEY_SESSION_MS: i64 = 12 * 60 * MINUTE_MS;
/// Wrong attempts to sign in at once, of one source, and how long one takes to come back.
const ATTEMPTS: u32 = 10;
const RECOVERY: Duration = Duration::from_secs(6);

/// How a browser is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Encrypted.
    Tls,
    /// In clear, on this machine.
    Loopback,
    /// In clear, over a network.
    Open,
}

/// Somebody who may see the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// With which key, unless by a link.
    pub access_key_id: Option<String>,
    /// Until when, milliseconds since 1970.
    pub until_ms: i64,
}

impl Session {
    /// Of somebody who signed in with a key.
    pub fn of_key(access_key_id: String, now: i64) -> Session {
        Session { access_key_id: Some(access_key_id), until_ms: now + KEY_SESSION_MS }
    }
}

fn seal(secrets: &SecretBox, purpose: &str, session: &Session) -> String {
    hex::encode(secrets.seal(purpose, &serde_json::to_vec(session).unwrap_or_default()))
}

fn open(secrets: &SecretBox, purpose: &str, text: &str, now: i64) -> Option<Session> {
    if text.len() > 1024 {
        return None;
    }
    let plain = secrets.unseal(purpose, &hex::decode(text).ok()?).ok()?;
    serde_json::from_slice::<Session>(&plain).ok().filter(|s| s.until_ms > now)
}

/// What goes into a link.
pub fn link(secrets: &SecretBox, now: i64) -> String {
    seal(secrets, LINK, &Session { access_key_id: None, until_ms: now + LINK_MS })
}

/// The session that a link begins.
pub fn of_link(secrets: &SecretBox, text: &str, now: i64) -> Option<Session> {
    open(secrets, LINK, text, now).map(|_| Session { access_key_id: None, until_ms: now + LINK_SESSION_MS })
}

/// What goes into a cookie.
pub fn cookie(secrets: &SecretBox, session: &Session) -> String {
    seal(secrets, SESSION, session)
}

/// The session of a cookie.
pub fn of_cookie(secrets: &SecretBox, text: &str, now: i64) -> Option<Session> {
    open(secrets, SESSION, text, now)
}

/// Whether a secret is the known one. It takes the same time whether there is such a key or not, and wherever they differ.
pub fn is_secret(known: Option<&str>, given: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
    let expected = hmac::sign(&key, known.unwrap_or("no such key").as_bytes());
    let same = hmac::verify(&key, given, expected.as_ref()).is_ok();
    same && known.is_some()
}

/// Most sources of wrong attempts that are remembered; those beyond share one account.
const SOURCES: usize = 1024;

/// Counts wrong attempts to sign in, by where they come from. The right secret always opens: it is forty random characters,
/// which nobody guesses at any rate, so nobody's wrong attempts may keep its owner out. What is bounded is what wrong ones
/// cost: beyond the bound they are neither told apart nor logged.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, (u32, Instant)>>);

impl Attempts {
    /// Whether a wrong attempt from there is still one of the first few.
    pub fn wrong(&self, source: &str) -> bool {
        self.wrong_at(source, Instant::now())
    }

    fn wrong_at(&self, source: &str, now: Instant) -> bool {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recovered = |at: Instant| (now.saturating_duration_since(at).as_secs() / RECOVERY.as_secs()) as u32;
        if sources.len() >= SOURCES && !sources.contains_key(source) {
            sources.retain(|_, (left, at)| left.saturating_add(recovered(*at)) < ATTEMPTS);
        }
        let known = sources.contains_key(source) || sources.len() < SOURCES;
        let (left, at) = sources.entry(if known { source } else { "" }.to_owned()).or_insert((ATTEMPTS, now));
        let back = recovered(*at);
        if back > 0 {
            (*left, *at) = (left.saturating_add(back).min(ATTEMPTS), now);
        }
        let first = *left > 0;
        *left = left.saturating_sub(1);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> SecretBox {
        SecretBox::of(hex::encode(random::<32>()).as_bytes()).unwrap()
    }

    #[test]
    fn a_link_opens_for_ten_minutes_and_is_no_cookie() {
        let secrets = secrets();
        let text = link(&secrets, 0);
        assert_eq!(of_link(&secrets, &text, LINK_MS - 1).unwrap().until_ms, LINK_MS - 1 + LINK_SESSION_MS);
        assert_eq!(of_link(&secrets, &text, LINK_MS), None);
        assert_eq!(of_cookie(&secrets, &text, 0), None);
        let session = Session::of_key("AKIA".into(), 0);
        let value = cookie(&secrets, &session);
        assert_eq!(of_cookie(&secrets, &value, KEY_SESSION_MS - 1), Some(session));
        assert_eq!(of_cookie(&secrets, &value, KEY_SESSION_MS), None);
        assert_eq!(of_link(&secrets, &value, 0), None);
    }

    #[test]
    fn what_somebody_made_up_opens_nothing() {
        let (ours, theirs) = (secrets(), secrets());
        let forged = cookie(&theirs, &Session { access_key_id: None, until_ms: i64::MAX });
        let long = "00".repeat(5000);
        for text in [forged.as_str(), "", "zz", "00", &long] {
            assert_eq!(of_cookie(&ours, text, 0), None);
        }
    }

    #[test]
    fn a_secret_is_the_known_one_whole_or_not() {
        assert!(is_secret(Some("secret"), b"secret"));
        for given in [&b"secre"[..], b"secret ", b"Secret", b""] {
            assert!(!is_secret(Some("secret"), given));
        }
        assert!(!is_secret(None, b"no such key"), "what stands in for a key is none");
    }

    #[test]
    fn service_x02_attempts_run_out_by_source_and_come_back_slowly() {
        let attempts = Attempts::default();
        let start = Instant::now();
        assert!((0..ATTEMPTS).all(|_| attempts.wrong_at("a", start)));
        assert!(!attempts.wrong_at("a", start + Duration::from_secs(5)));
        assert!(attempts.wrong_at("b", start), "another source has its own");
        assert!(attempts.wrong_at("a", start + RECOVERY));
        assert!(!attempts.wrong_at("a", start + RECOVERY));
        let later = start + Duration::from_secs(3600);
        assert!((0..ATTEMPTS).all(|_| attempts.wrong_at("a", later)));
        assert!(!attempts.wrong_at("a", later));
    }

    #[test]
    fn service_x02_what_is_remembered_of_sources_is_bounded() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let first = (0..SOURCES * 4).filter(|n| attempts.wrong_at(&n.to_string(), start)).count();
        assert_eq!(first, SOURCES + ATTEMPTS as usize, "those beyond share one account");
        assert!(attempts.0.lock().unwrap().len() <= SOURCES + 1);
        assert!(attempts.wrong_at("new", start + Duration::from_secs(3600)), "who stopped is forgotten");
    }
}
