//! Where a store keeps its rows and its objects: beside each other in the data directory, or on servers that several
//! copies of the service share.

use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Where rows and objects are. The default is the data directory for both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// A PostgreSQL server; `None`: SQLite in the data directory.
    pub database: Option<DatabaseUrl>,
    /// A bucket on an S3 server; `None`: files in the data directory.
    pub objects: Option<ObjectsPlace>,
}

/// `postgres://user:password@host/database`. It is never shown whole.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Url);

impl DatabaseUrl {
    /// Reads a URL. The error names what is wrong without repeating it.
    pub fn parse(text: &str) -> Result<DatabaseUrl, String> {
        let url = Url::parse(text.trim()).map_err(|e| format!("not a URL: {e}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("{}: not a database; postgres://user@host/name is one", url.scheme()));
        }
        if url.path().len() < 2 {
            return Err("the database has no name: postgres://user@host/name".into());
        }
        Ok(DatabaseUrl(url))
    }

    /// Whether it holds a password.
    pub fn has_password(&self) -> bool {
        self.0.password().is_some() || self.0.query_pairs().any(|(name, _)| name == "password")
    }

    /// All of it, with its password.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        let _ = shown.set_password(None);
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// A bucket on an S3 server, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsPlace {
    /// Which bucket.
    pub url: ObjectsUrl,
    /// What opens it.
    pub credentials: ObjectsCredentials,
}

/// `s3://bucket/prefix?endpoint=https://host:port&region=…&style=path|host&ca=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsUrl {
    /// Bucket.
    pub bucket: String,
    /// What names begin with, with a `/` at its end; or nothing.
    pub prefix: String,
    /// The server.
    pub endpoint: Url,
    /// In which it signs; `us-east-1` unless said otherwise.
    pub region: String,
    /// Whether the bucket is in the path (the default) or in the host's name.
    pub path_style: bool,
    /// Authorities of the server's certificate (PEM) instead of the system's.
    pub authorities: Option<PathBuf>,
}

impl ObjectsUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<ObjectsUrl, String> {
        let url = Url::parse(text.trim()).map_err(|e| format!("not a URL: {e}"))?;
        if url.scheme() != "s3" {
            return Err(format!("{}: not an object store; s3://bucket?endpoint=https://host is one", url.scheme()));
        }
        let bucket = url.host_str().filter(|b| !b.is_empty()).ok_or("no bucket: s3://bucket?endpoint=…")?.to_owned();
        if !url.username().is_empty() || url.password().is_some() {
            return Err("keys do not belong into the URL".into());
        }
        let prefix = match url.path().trim_matches('/') {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let (mut endpoint, mut region, mut path_style, mut authorities) = (None, "us-east-1".to_owned(), true, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => endpoint = Some(Url::parse(&value).map_err(|e| format!("endpoint {value}: {e}"))?),
                "region" => region = value.into_owned(),
                "style" if value == "path" || value == "host" => path_style = value == "path",
                "ca" => authorities = Some(PathBuf::from(value.as_ref())),
                _ => return Err(format!("{name}={value} is not known: endpoint, region, style=path, style=host, ca")),
            }
        }
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => {
                Url::parse(&format!("https://s3.{region}.amazonaws.com")).map_err(|e| format!("region {region}: {e}"))?
            }
        };
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(format!("endpoint {endpoint}: neither http:// nor https://"));
        }
        Ok(ObjectsUrl { bucket, prefix, endpoint, region, path_style, authorities })
    }
}

/// Keys of an S3 server. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectsCredentials {
    /// Access key.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// For temporary keys.
    pub token: Option<String>,
}

impl ObjectsCredentials {
    /// From a file in the form of AWS's own tools: `aws_access_key_id = …` and so on, of the profile `default` or
    /// before any profile.
    pub fn parse(text: &str) -> Result<ObjectsCredentials, String> {
        let (mut key, mut secret, mut token) = (None, None, None);
        let mut profile = "default";
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                profile = name.trim();
            } else if let Some((name, value)) = line.split_once('=').filter(|_| profile == "default") {
                let value = Some(value.trim().to_owned());
                match name.trim().to_ascii_lowercase().as_str() {
                    "aws_access_key_id" => key = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        match (key, secret) {
            (Some(key), Some(secret)) => Ok(ObjectsCredentials { key, secret, token }),
            _ => Err("needs aws_access_key_id and aws_secret_access_key".into()),
        }
    }
}

impl fmt::Debug for ObjectsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectsCredentials({})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for text in ["postgres://u:geheim@h:5433/fleet?sslmode=require", "postgresql://u@h/fleet?password=geheim"] {
            let url = DatabaseUrl::parse(text).unwrap();
            assert!(url.has_password());
            assert!(url.expose().contains("geheim"));
            assert!(!format!("{url} {url:?}").contains("geheim"), "{url}");
        }
        assert!(!DatabaseUrl::parse("postgres://u@h/fleet").unwrap().has_password());
        for wrong in ["mysql://u:geheim@h/x", "postgres://u:geheim@h/", "postgres://u:geheim@h", "geheim"] {
            let problem = DatabaseUrl::parse(wrong).unwrap_err();
            assert!(!problem.contains("geheim"), "{problem}");
        }
        let keys = ObjectsCredentials::parse("aws_access_key_id = a\naws_secret_access_key = geheim").unwrap();
        assert!(!format!("{keys:?}").contains("geheim"));
    }

    #[test]
    fn an_object_store_is_a_bucket_on_a_server() {
        let url = ObjectsUrl::parse("s3://fleet/a/b/?endpoint=http://10.0.0.1:9000&region=eu-1&ca=/etc/ca.pem").unwrap();
        assert_eq!((url.bucket.as_str(), url.prefix.as_str(), url.region.as_str()), ("fleet", "a/b/", "eu-1"));
        assert_eq!((url.endpoint.as_str(), url.path_style), ("http://10.0.0.1:9000/", true));
        let amazon = ObjectsUrl::parse("s3://fleet?region=eu-central-1&style=host").unwrap();
        assert_eq!(amazon.endpoint.as_str(), "https://s3.eu-central-1.amazonaws.com/");
        assert!(!amazon.path_style && amazon.prefix.is_empty());
        for wrong in [
            "file:///x", "s3://?endpoint=http://h", "s3://k:s@b", "s3://b?endpoint=ftp://h", "s3://b?stile=path",
            "s3://b?style=x",
        ] {
            assert!(ObjectsUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_come_from_the_default_profile() {
        let text = "# mine\n[other]\naws_access_key_id=no\n[default]\naws_access_key_id = A\naws_secret_access_key=s=1\naws_session_token = t\n";
        let keys = ObjectsCredentials::parse(text).unwrap();
        assert_eq!((keys.key.as_str(), keys.secret.as_str(), keys.token.as_deref()), ("A", "s=1", Some("t")));
        assert!(ObjectsCredentials::parse("[other]\naws_access_key_id=a\naws_secret_access_key=b").is_err());
    }
}
