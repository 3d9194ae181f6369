//! User name and password: Digest (RFC 7616, and RFC 2069 and 2617 before it) and Basic (RFC 7617).
//!
//! The strongest way that the camera offers is taken. From Digest to Basic we never go: Basic says the password itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512_256};

/// How often one request is sent again because of its nonce: the next one is refused for good.
pub const MAXIMUM_ATTEMPTS: u32 = 4;

/// User name and password. Has no `Debug`: they are in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// Digest's algorithms, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Md5,
    Sha256,
    Sha512Truncated,
}

impl Hash {
    fn hex(self, bytes: &[u8]) -> String {
        match self {
            Hash::Md5 => hex::encode(Md5::digest(bytes)),
            Hash::Sha256 => hex::encode(Sha256::digest(bytes)),
            Hash::Sha512Truncated => hex::encode(Sha512_256::digest(bytes)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// The camera did not ask for any: as in RFC 2069.
    None,
    Authentication,
    /// Of the body too; our bodies are empty.
    Integrity,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct DigestChallenge {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    opaque: Option<Vec<u8>>,
    hash: Hash,
    /// The password's hash counts for the session (`-sess`).
    session: bool,
    /// As the camera wrote it, when it did.
    algorithm: Option<Vec<u8>>,
    protection: Protection,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Digest(DigestChallenge),
}

impl Challenge {
    fn strength(&self) -> u8 {
        match self {
            Challenge::Basic => 0,
            Challenge::Digest(digest) => 1 + digest.hash as u8,
        }
    }
}

/// What the headers `WWW-Authenticate` of one answer offer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    challenges: Vec<Challenge>,
    stale: bool,
    /// Of ways that are not known here.
    unknown: Vec<String>,
}

/// A scheme and its parameters, names in lower case.
type Scheme = (String, Vec<(String, Vec<u8>)>);

/// Splits headers into schemes. Several may be in one header; commas may be missing; values may be quoted or not.
fn schemes(values: &[&[u8]]) -> Vec<Scheme> {
    let mut schemes: Vec<Scheme> = Vec::new();
    for value in values {
        let mut rest = *value;
        // Each value begins with a scheme.
        let mut named = false;
        loop {
            let skipped = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
            rest = &rest[skipped..];
            let length = rest.iter().take_while(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b',' | b'=')).count();
            if length == 0 {
                if rest.is_empty() {
                    break;
                }
                rest = &rest[1..];
                continue;
            }
            let word = String::from_utf8_lossy(&rest[..length]).to_ascii_lowercase();
            let after = rest[length..].trim_ascii_start();
            if after.first() == Some(&b'=') && named {
                let (value, behind) = parameter(after[1..].trim_ascii_start());
                rest = behind;
                if let Some((_, parameters)) = schemes.last_mut() {
                    parameters.push((word, value));
                }
            } else {
                // A word that stands alone is the rest of a value that should have been quoted, unless it is a scheme.
                let alone = after.first().is_none_or(|byte| *byte == b',');
                if !named || !alone || matches!(word.as_str(), "basic" | "digest") {
                    schemes.push((word, Vec::new()));
                    named = true;
                }
                rest = after;
            }
        }
    }
    schemes
}

/// A parameter's value, and what is behind it.
fn parameter(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    if bytes.first() != Some(&b'"') {
        let length = bytes.iter().take_while(|byte| !byte.is_ascii_whitespace() && **byte != b',').count();
        return (bytes[..length].to_vec(), &bytes[length..]);
    }
    let mut value = Vec::new();
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return (value, &bytes[at + 1..]),
            b'\\' if at + 1 < bytes.len() => {
                value.push(bytes[at + 1]);
                at += 2;
            }
            _ => {
                value.push(*byte);
                at += 1;
            }
        }
    }
    (value, &[])
}

fn offer(values: &[&[u8]]) -> Offer {
    let mut offer = Offer::default();
    for (scheme, parameters) in schemes(values) {
        let get = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let lower = |name: &str| get(name).map(|value| String::from_utf8_lossy(&value).trim().to_ascii_lowercase());
        match scheme.as_str() {
            "basic" => offer.challenges.push(Challenge::Basic),
            "digest" => {
                offer.stale |= lower("stale").as_deref() == Some("true");
                let algorithm = lower("algorithm").filter(|name| !name.is_empty());
                let name = algorithm.as_deref().unwrap_or("md5");
                let (name, session) = name.strip_suffix("-sess").map_or((name, false), |name| (name, true));
                let hash = match name {
                    "md5" => Hash::Md5,
                    "sha-256" | "sha256" => Hash::Sha256,
                    "sha-512-256" => Hash::Sha512Truncated,
                    other => {
                        offer.unknown.push(format!("Digest with {other}"));
                        continue;
                    }
                };
                let protections = lower("qop").unwrap_or_default();
                let mut offered = protections.split([',', ' ']).map(str::trim);
                let protection = if offered.clone().any(|name| name == "auth") {
                    Protection::Authentication
                } else if offered.any(|name| name == "auth-int") {
                    Protection::Integrity
                } else {
                    Protection::None
                };
                offer.challenges.push(Challenge::Digest(DigestChallenge {
                    realm: get("realm").unwrap_or_default(),
                    nonce: get("nonce").unwrap_or_default(),
                    opaque: get("opaque"),
                    hash,
                    session,
                    algorithm: algorithm.and(get("algorithm")),
                    protection,
                }));
            }
            other => offer.unknown.push(other.chars().filter(|letter| !letter.is_control()).take(32).collect()),
        }
    }
    offer
}

/// What to do about an answer 401.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send the request again, with a new [`Authenticator::header`].
    Again,
    /// User name and password are refused, or there are none.
    Refused,
    /// They were accepted before, and now the camera takes no nonce any more.
    Lost,
    /// It wants something that is not known here.
    Unknown(String),
}

/// Answers a camera's challenges.
pub struct Authenticator {
    credentials: Option<Credentials>,
    chosen: Option<Challenge>,
    /// Uses of the nonce.
    uses: u32,
    accepted: bool,
    /// Digests at least so strong were refused although others were on offer.
    refused_from: u8,
}

impl Authenticator {
    /// Nothing is sent before the camera asks.
    pub fn new(credentials: Option<Credentials>) -> Self {
        Authenticator { credentials, chosen: None, uses: 0, accepted: false, refused_from: u8::MAX }
    }

    /// Whether the camera accepted user name and password in this session.
    pub fn accepted(&self) -> bool {
        self.accepted
    }

    /// A request with a header of ours was not refused. `next` is the header `Authentication-Info`, which may bring the
    /// next nonce.
    pub fn accept(&mut self, next: Option<&[u8]>) {
        self.accepted = true;
        let information = next.map(|value| [b"x ".as_slice(), value].concat()).unwrap_or_default();
        let fresh = schemes(&[&information]).into_iter().flat_map(|(_, parameters)| parameters);
        if let Some((_, nonce)) = fresh.into_iter().find(|(name, value)| name == "nextnonce" && !value.is_empty())
            && let Some(Challenge::Digest(digest)) = &mut self.chosen
        {
            digest.nonce = nonce;
            self.uses = 0;
        }
    }

    /// The camera answered 401 with these headers `WWW-Authenticate` to a request that was sent `sent` times with a
    /// header of ours.
    pub fn challenged(&mut self, values: &[&[u8]], sent: u32) -> Verdict {
        let mut offer = offer(values);
        if self.credentials.is_none() {
            return Verdict::Refused;
        }
        let digests = offer.challenges.iter().any(|challenge| *challenge != Challenge::Basic);
        let before = match &self.chosen {
            Some(Challenge::Digest(digest)) => Some(digest.nonce.clone()),
            _ => None,
        };
        let renewed = |challenge: &Challenge| match challenge {
            Challenge::Digest(digest) => Some(&digest.nonce) != before.as_ref(),
            Challenge::Basic => false,
        };
        if sent > 0 {
            let fresh = offer.stale || (self.accepted && offer.challenges.iter().any(renewed));
            if !fresh && !self.accepted {
                // Some offer SHA-256 and know MD5 alone. Once down, and never to Basic.
                self.refused_from = self.chosen.as_ref().map_or(0, Challenge::strength);
            } else if !fresh || sent >= MAXIMUM_ATTEMPTS {
                return Verdict::Lost;
            }
        }
        let names_none = offer.challenges.is_empty() && offer.unknown.is_empty();
        let may =
            |challenge: &Challenge| challenge.strength() < self.refused_from && !(digests && *challenge == Challenge::Basic);
        offer.challenges.retain(may);
        // The first of the strongest.
        let best = offer.challenges.into_iter().rev().max_by_key(Challenge::strength);
        match best {
            Some(challenge) => {
                self.chosen = Some(challenge);
                self.uses = 0;
                Verdict::Again
            }
            None if sent == 0 && !offer.unknown.is_empty() => Verdict::Unknown(offer.unknown.join(", ")),
            // No password was sent: it is not the one to correct.
            None if sent == 0 && names_none => Verdict::Unknown("it names none".into()),
            None => Verdict::Refused,
        }
    }

    /// The value of `Authorization` for a request, once the camera asked for it. `chance` has 64 random bits.
    pub fn header(&mut self, method: &str, uri: &str, chance: u64) -> Option<Vec<u8>> {
        let credentials = self.credentials.as_ref()?;
        let Credentials { username, password } = credentials;
        match self.chosen.as_ref()? {
            Challenge::Basic => Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))).into_bytes()),
            Challenge::Digest(digest) => {
                self.uses = self.uses.saturating_add(1);
                Some(digest_header(digest, credentials, method, uri, self.uses, &format!("{chance:016x}")))
            }
        }
    }
}

fn quoted(value: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(value.len() + 2);
    quoted.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        // What would end the header is in no value that came in one.
        quoted.push(if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
    }
    quoted.push(b'"');
    quoted
}

fn digest_header(
    challenge: &DigestChallenge,
    credentials: &Credentials,
    method: &str,
    uri: &str,
    uses: u32,
    client_nonce: &str,
) -> Vec<u8> {
    let hash = challenge.hash;
    let joined = |parts: &[&[u8]]| parts.join(&b':');
    // RFC 7616, 3.4.2: A1.
    let mut first = hash.hex(&joined(&[credentials.username.as_bytes(), &challenge.realm, credentials.password.as_bytes()]));
    if challenge.session {
        first = hash.hex(&joined(&[first.as_bytes(), &challenge.nonce, client_nonce.as_bytes()]));
    }
    // 3.4.3: A2.
    let second = match challenge.protection {
        Protection::Integrity => hash.hex(format!("{method}:{uri}:{}", hash.hex(b"")).as_bytes()),
        _ => hash.hex(format!("{method}:{uri}").as_bytes()),
    };
    let count = format!("{uses:08x}");
    let protection = match challenge.protection {
        Protection::None => None,
        Protection::Authentication => Some("auth"),
        Protection::Integrity => Some("auth-int"),
    };
    // 3.4.1: the response.
    let response = match protection {
        Some(name) => hash.hex(&joined(&[
            first.as_bytes(),
            &challenge.nonce,
            count.as_bytes(),
            client_nonce.as_bytes(),
            name.as_bytes(),
            second.as_bytes(),
        ])),
        None => hash.hex(&joined(&[first.as_bytes(), &challenge.nonce, second.as_bytes()])),
    };
    let mut header = b"Digest username=".to_vec();
    header.extend(quoted(credentials.username.as_bytes()));
    for (name, value) in [
        (", realm=", challenge.realm.as_slice()),
        (", nonce=", &challenge.nonce),
        (", uri=", uri.as_bytes()),
        (", response=", response.as_bytes()),
    ] {
        header.extend_from_slice(name.as_bytes());
        header.extend(quoted(value));
    }
    if let Some(opaque) = &challenge.opaque {
        header.extend_from_slice(b", opaque=");
        header.extend(quoted(opaque));
    }
    if let Some(algorithm) = &challenge.algorithm {
        header.extend_from_slice(b", algorithm=");
        header.extend(algorithm.iter().filter(|byte| byte.is_ascii_graphic()));
    }
    if let Some(name) = protection {
        header.extend_from_slice(format!(", qop={name}, nc={count}").as_bytes());
    }
    if protection.is_some() || challenge.session {
        header.extend_from_slice(format!(", cnonce=\"{client_nonce}\"").as_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(username: &str, password: &str) -> Authenticator {
        Authenticator::new(Some(Credentials { username: username.into(), password: password.into() }))
    }

    fn parameters(header: Vec<u8>) -> (String, std::collections::BTreeMap<String, String>) {
        let (scheme, parameters) = schemes(&[&header]).remove(0);
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        (scheme, parameters.into_iter().map(|(name, value)| (name, text(value))).collect())
    }

    /// The examples of RFC 2617 and RFC 7616, whose client nonce is theirs.
    #[test]
    fn the_examples_of_the_standards() {
        let credentials = |password: &str| Credentials { username: "Mufasa".into(), password: password.into() };
        let challenge = |text: &str| match offer(&[text.as_bytes()]).challenges.remove(0) {
            Challenge::Digest(digest) => digest,
            Challenge::Basic => panic!("{text}"),
        };
        for (text, password, client_nonce, response) in [
            (
                r#"Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#,
                "Circle Of Life",
                "0a4f113b",
                "6629fae49393a05397450978507c4ef1",
            ),
            (
                r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#,
                "Circle of Life",
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
            (
                r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#,
                "Circle of Life",
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                "8ca523f5e9506fed4657c9700eebdbec",
            ),
        ] {
            let header = digest_header(&challenge(text), &credentials(password), "GET", "/dir/index.html", 1, client_nonce);
            assert_eq!(parameters(header).1["response"], response);
        }
    }

    #[test]
    fn challenges_are_read_in_every_shape() {
        let digest = |text: &str| {
            let mut offer = offer(&[text.as_bytes()]);
            assert_eq!(offer.challenges.len(), 1, "{text}");
            match offer.challenges.remove(0) {
                Challenge::Digest(digest) => (digest, offer.stale),
                Challenge::Basic => panic!("{text}"),
            }
        };
        for text in [
            r#"Digest realm="r", nonce="n", stale=TRUE, qop="auth""#,
            r#"digest REALM="r",NONCE="n",stale="true",qop=auth,opaque="#,
            r#"Digest realm = "r" , nonce = n , Stale = "True" , qop = "auth-int,auth""#,
            r#"Digest realm="r" nonce="n" stale=true qop="auth","#,
            r#"DIGEST  qop=auth,auth-int, algorithm="MD5", realm=r, nonce="n", stale=true"#,
            r#"Digest realm="r", nonce="n", stale=true, qop="auth, unterminated"#,
        ] {
            let (digest, stale) = digest(text);
            assert_eq!((digest.realm.as_slice(), digest.nonce.as_slice()), (&b"r"[..], &b"n"[..]), "{text}");
            assert!(stale && digest.hash == Hash::Md5 && digest.protection == Protection::Authentication, "{text}");
        }
        let (escaped, _) = digest(r#"Digest realm="a \"b\" \\", nonce="""#);
        assert_eq!(escaped.realm, br#"a "b" \"#);
        assert_eq!(quoted(&escaped.realm), br#""a \"b\" \\""#);
        let (bytes, _) = {
            let mut offer = offer(&[b"Digest realm=\"K\xfcche\", nonce=\"1\""]);
            (offer.challenges.remove(0), offer.stale)
        };
        assert!(matches!(bytes, Challenge::Digest(digest) if digest.realm == b"K\xfcche"));
        assert_eq!(offer(&[b"", b",,,", b"=", b"\"", b"Digest", b"a=b"]).challenges.len(), 1);
    }

    #[test]
    fn the_strongest_on_offer_is_taken_and_basic_never_after_digest() {
        let mut authenticator = authenticator("u", "p");
        let offers: [&[u8]; 3] = [
            b"Basic realm=\"x\"",
            b"Digest realm=\"r\", nonce=\"1\"",
            b"Digest realm=\"r\", nonce=\"2\", algorithm=SHA-256",
        ];
        assert!(authenticator.header("PLAY", "u", 1).is_none(), "nothing before the camera asks");
        assert_eq!(authenticator.challenged(&offers, 0), Verdict::Again);
        let (scheme, sent) = parameters(authenticator.header("DESCRIBE", "rtsp://h/", 1).unwrap());
        assert_eq!((scheme.as_str(), sent["algorithm"].as_str(), sent["nonce"].as_str()), ("digest", "SHA-256", "2"));
        // It knows MD5 alone, whatever it offers.
        assert_eq!(authenticator.challenged(&offers, 1), Verdict::Again);
        let (_, sent) = parameters(authenticator.header("DESCRIBE", "rtsp://h/", 1).unwrap());
        assert_eq!((sent.get("algorithm"), sent["nonce"].as_str()), (None, "1"));
        // And if that is refused too, the password is wrong: Basic would tell it to whoever listens.
        assert_eq!(authenticator.challenged(&offers, 2), Verdict::Refused);

        let mut together = super::tests::authenticator("u", "p");
        assert_eq!(together.challenged(&[b"Basic realm=\"x\", Digest realm=\"r\", nonce=\"1\", Basic"], 0), Verdict::Again);
        assert!(together.header("PLAY", "u", 1).unwrap().starts_with(b"Digest "));
    }

    #[test]
    fn basic_says_both_and_is_refused_once() {
        let mut authenticator = authenticator("Aladdin", "open sesame");
        assert_eq!(authenticator.challenged(&[b"Basic realm=\"x\""], 0), Verdict::Again);
        assert_eq!(authenticator.header("PLAY", "u", 1).unwrap(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(authenticator.challenged(&[b"Basic realm=\"x\""], 1), Verdict::Refused);
    }

    /// Field case stale-nonce.
    #[test]
    fn a_nonce_that_is_used_up_is_not_a_wrong_password() {
        let mut authenticator = authenticator("u", "p");
        assert_eq!(authenticator.challenged(&[b"Digest realm=\"r\", nonce=\"1\""], 0), Verdict::Again);
        authenticator.header("DESCRIBE", "u", 1);
        authenticator.accept(None);
        authenticator.header("SETUP", "u", 1);
        assert_eq!(authenticator.challenged(&[b"Digest realm=\"r\", nonce=\"2\", stale=\"TRUE\""], 1), Verdict::Again);
        // Not every camera says stale.
        assert_eq!(authenticator.challenged(&[b"Digest realm=\"r\", nonce=\"3\""], 2), Verdict::Again);
        let (_, sent) = parameters(authenticator.header("SETUP", "u", 1).unwrap());
        assert_eq!(sent["nonce"], "3");
        assert_eq!(authenticator.challenged(&[b"Digest realm=\"r\", nonce=\"3\""], 3), Verdict::Lost);
        // It may also refuse for ever.
        assert_eq!(
            authenticator.challenged(&[b"Digest realm=\"r\", nonce=\"9\", stale=true"], MAXIMUM_ATTEMPTS),
            Verdict::Lost
        );
    }

    #[test]
    fn the_next_nonce_may_come_with_an_answer() {
        let mut authenticator = authenticator("u", "p");
        authenticator.challenged(&[b"Digest realm=\"r\", nonce=\"1\", qop=\"auth\""], 0);
        assert!(String::from_utf8(authenticator.header("A", "u", 1).unwrap()).unwrap().contains("nc=00000001"));
        assert!(String::from_utf8(authenticator.header("A", "u", 1).unwrap()).unwrap().contains("nc=00000002"));
        authenticator.accept(Some(b"nextnonce=\"2\", rspauth=\"x\""));
        let (_, sent) = parameters(authenticator.header("A", "u", 1).unwrap());
        assert_eq!((sent["nonce"].as_str(), sent["nc"].as_str()), ("2", "00000001"));
    }

    #[test]
    fn what_cannot_be_answered_is_told_apart() {
        let mut unknown = authenticator("u", "p");
        assert_eq!(unknown.challenged(&[b"NTLM"], 0), Verdict::Unknown("ntlm".into()));
        let text = b"Digest realm=\"r\", nonce=\"1\", algorithm=SHA-3".as_slice();
        assert_eq!(unknown.challenged(&[text], 0), Verdict::Unknown("Digest with sha-3".into()));
        assert_eq!(Authenticator::new(None).challenged(&[b"Basic"], 0), Verdict::Refused);
        // Without words of how, nothing was sent, and so no password was wrong.
        assert_eq!(authenticator("u", "p").challenged(&[], 0), Verdict::Unknown("it names none".into()));
        assert_eq!(authenticator("u", "p").challenged(&[b""], 0), Verdict::Unknown("it names none".into()));
    }
}
