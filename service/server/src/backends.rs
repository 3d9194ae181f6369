//! Which database and which object store: what `init` was told, unless the environment says otherwise.
//!
//! | what | `init` | `service.json` | environment, at every start |
//! |---|---|---|---|
//! | rows | `--database URL`, `--database-file FILE` | the URL, or the file's path | `BELVEDERE_DATABASE` (a URL) |
//! | objects | `--objects URL` | the URL | `BELVEDERE_OBJECTS` |
//! | devices' MQTT | `--broker URL` | the URL | `BELVEDERE_BROKER` |
//! | keys of the object store | `--objects-credentials FILE` | the file's path | `BELVEDERE_OBJECTS_ACCESS_KEY_ID`, `…_SECRET_ACCESS_KEY` |
//!
//! Everybody on a machine can read command lines, so no password is taken from one.

use crate::ServerError;
use belvedere_fleet::external::BrokerUrl;
use belvedere_store::places::{DatabaseUrl, ObjectsCredentials, ObjectsPlace, ObjectsUrl, Places};
use belvedere_store::{Store, StoreError};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a service keeps its rows and objects; nothing said: SQLite and files in its data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Backends {
    /// PostgreSQL instead of SQLite: postgres://user@host/database. With a password, use --database-file or the
    /// environment's BELVEDERE_DATABASE
    #[arg(long, value_name = "URL", conflicts_with = "database_file")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// File that holds this URL; read at every start
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_file: Option<PathBuf>,
    /// A bucket instead of files: s3://bucket/prefix?endpoint=https://host&region=us-east-1&style=path|host&ca=FILE
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<String>,
    /// File with the bucket's keys, in the form of AWS's own credentials file; read at every start. Or the
    /// environment's BELVEDERE_OBJECTS_ACCESS_KEY_ID and BELVEDERE_OBJECTS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects_credentials: Option<PathBuf>,
    /// mosquitto instead of the service's own MQTT broker: mqtts://host:port, or mqtts://host:port?devices=host:port if
    /// devices reach it elsewhere. `belvedere-service broker-configuration` makes its files
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
}

/// The environment's words, where there are any. Split off for tests.
#[derive(Debug, Default)]
struct Environment {
    database: Option<String>,
    objects: Option<String>,
    broker: Option<String>,
    key: Option<String>,
    secret: Option<String>,
    token: Option<String>,
}

impl Environment {
    fn read() -> Environment {
        let word = |name: &str| std::env::var(format!("BELVEDERE_{name}")).ok().filter(|v| !v.is_empty());
        Environment {
            database: word("DATABASE"),
            objects: word("OBJECTS"),
            broker: word("BROKER"),
            key: word("OBJECTS_ACCESS_KEY_ID"),
            secret: word("OBJECTS_SECRET_ACCESS_KEY"),
            token: word("OBJECTS_SESSION_TOKEN"),
        }
    }
}

fn argument(name: &str, problem: &str) -> ServerError {
    ServerError::Argument(format!("{name}: {problem}"))
}

fn content(path: &Path) -> Result<String, ServerError> {
    let error = |source| ServerError::File { operation: "read", path: path.to_owned(), source };
    std::fs::read_to_string(path).map_err(error)
}

/// A path that means the same wherever the service is started later.
fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, ServerError> {
    let whole = |path: PathBuf| {
        let error = |source| ServerError::File { operation: "find", path: path.clone(), source };
        std::fs::canonicalize(&path).map_err(error)
    };
    path.map(whole).transpose()
}

impl Backends {
    /// What the command line said, checked, as it is kept. What only the environment says is kept as well, so that
    /// other commands find it; `service.json` is readable to the service alone.
    pub fn given(self) -> Result<Backends, ServerError> {
        self.given_in(Environment::read())
    }

    fn given_in(self, environment: Environment) -> Result<Backends, ServerError> {
        if let Some(text) = &self.database {
            let url = DatabaseUrl::parse(text).map_err(|e| argument("--database", &e))?;
            if url.has_password() {
                let advice = "everybody on this machine can read a command line: \
                              put the URL with its password into a file (--database-file) or into BELVEDERE_DATABASE";
                return Err(argument("--database", advice));
            }
        }
        let mut kept = Backends {
            database_file: absolute(self.database_file)?,
            objects_credentials: absolute(self.objects_credentials)?,
            ..self
        };
        if kept.database.is_none() && kept.database_file.is_none() {
            kept.database = environment.database.clone();
        }
        if kept.objects.is_none() {
            kept.objects = environment.objects.clone();
        }
        if kept.broker.is_none() {
            kept.broker = environment.broker.clone();
        }
        kept.broker_in(&environment)?;
        kept.places_in(environment)?;
        Ok(kept)
    }

    /// The external broker, if devices connect to one.
    pub fn broker(&self) -> Result<Option<BrokerUrl>, ServerError> {
        self.broker_in(&Environment::read())
    }

    fn broker_in(&self, environment: &Environment) -> Result<Option<BrokerUrl>, ServerError> {
        let url = environment.broker.as_ref().or(self.broker.as_ref());
        url.map(|text| BrokerUrl::parse(text).map_err(|e| argument("--broker", &e))).transpose()
    }

    /// Where rows and objects are now.
    pub fn places(&self) -> Result<Places, ServerError> {
        self.places_in(Environment::read())
    }

    /// Where they are, for people; no password is in it.
    pub fn words(&self) -> Result<String, ServerError> {
        let Places { database, objects } = self.places()?;
        let rows = database.map_or("SQLite".to_owned(), |url| url.to_string());
        let objects = objects.map_or("files".to_owned(), |place| format!("s3://{}/{}", place.url.bucket, place.url.prefix));
        Ok(format!("rows in {rows}, objects in {objects}"))
    }

    fn places_in(&self, environment: Environment) -> Result<Places, ServerError> {
        let database = match (&environment.database, &self.database_file, &self.database) {
            (Some(url), _, _) => Some(("BELVEDERE_DATABASE".to_owned(), url.clone())),
            (None, Some(path), _) => Some((path.display().to_string(), content(path)?)),
            (None, None, Some(url)) => Some(("the database".to_owned(), url.clone())),
            (None, None, None) => None,
        };
        let database = match database {
            Some((name, text)) => Some(DatabaseUrl::parse(&text).map_err(|e| argument(&name, &e))?),
            None => None,
        };
        let objects = match environment.objects.as_ref().or(self.objects.as_ref()) {
            Some(text) => {
                let url = ObjectsUrl::parse(text).map_err(|e| argument("the object store", &e))?;
                Some(ObjectsPlace { url, credentials: self.credentials(&environment)? })
            }
            None => None,
        };
        Ok(Places { database, objects })
    }

    fn credentials(&self, environment: &Environment) -> Result<ObjectsCredentials, ServerError> {
        if let (Some(key), Some(secret)) = (&environment.key, &environment.secret) {
            return Ok(ObjectsCredentials { key: key.clone(), secret: secret.clone(), token: environment.token.clone() });
        }
        let Some(path) = &self.objects_credentials else {
            let advice = "its keys are missing: --objects-credentials FILE, or BELVEDERE_OBJECTS_ACCESS_KEY_ID and \
                          BELVEDERE_OBJECTS_SECRET_ACCESS_KEY";
            return Err(argument("the object store", advice));
        };
        ObjectsCredentials::parse(&content(path)?).map_err(|e| argument(&path.display().to_string(), &e))
    }

    /// Makes the store of a new service.
    pub async fn create_store(&self, data: &Path) -> Result<Store, ServerError> {
        Store::create_in(data, &self.places()?).await.map_err(taken)
    }

    /// Makes the store of a service that comes from a backup, with an earlier version's schema and no rows.
    pub async fn create_store_at(&self, data: &Path, version: usize) -> Result<Store, ServerError> {
        Store::create_at(data, &self.places()?, version).await.map_err(taken)
    }

    /// Opens the store of a service.
    pub async fn open_store(&self, data: &Path) -> Result<Store, ServerError> {
        match Store::open_in(data, &self.places()?).await {
            Err(StoreError::Sealed) => Err(of_another_service(data)),
            other => Ok(other?),
        }
    }
}

/// What to say of a database that another key belongs to.
pub fn of_another_service(data: &Path) -> ServerError {
    ServerError::Argument(format!(
        "the database belongs to another service: its secrets do not open with {}. A copy of that service has its secrets.key, too; \
         another service needs a database of its own",
        data.join(belvedere_store::secrets::FILE).display()
    ))
}

/// What to say when a new service finds one where it is to be.
fn taken(e: StoreError) -> ServerError {
    match e {
        StoreError::Exists { what } => ServerError::Argument(format!(
            "there is {what}: a new service needs an empty database, and an empty bucket or a prefix of its own. (To run a \
             copy of a service beside it, copy its data directory: docs/service.md)"
        )),
        e => e.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(database: &str) -> Environment {
        Environment { database: Some(database.into()), ..Environment::default() }
    }

    #[test]
    fn nothing_said_is_the_data_directory() {
        let kept = Backends::default().given_in(Environment::default()).unwrap();
        assert_eq!(kept, Backends::default());
        assert_eq!(kept.places_in(Environment::default()).unwrap(), Places::default());
    }

    #[test]
    fn a_password_comes_from_a_file_or_the_environment() {
        let on_the_command_line = Backends { database: Some("postgres://u:geheim@h/d".into()), ..Backends::default() };
        let refused = on_the_command_line.given_in(Environment::default()).unwrap_err().to_string();
        assert!(refused.contains("--database-file") && !refused.contains("geheim"), "{refused}");

        let folder = std::env::temp_dir().join(format!("belvedere-backends-{}", std::process::id()));
        std::fs::write(&folder, "postgres://u:geheim@h/d\n").unwrap();
        let file = Backends { database_file: Some(folder.clone()), ..Backends::default() };
        let kept = file.given_in(Environment::default()).unwrap();
        assert!(!serde_json::to_string(&kept).unwrap().contains("geheim"), "the password stays in its file");
        assert!(kept.places_in(Environment::default()).unwrap().database.unwrap().has_password());
        assert_eq!(kept.words().unwrap(), "rows in postgres://u@h/d, objects in files");
        let elsewhere = kept.places_in(environment("postgres://x@other/d")).unwrap();
        assert_eq!(elsewhere.database.unwrap().to_string(), "postgres://x@other/d");
        std::fs::remove_file(folder).unwrap();

        let kept = Backends::default().given_in(environment("postgres://u:geheim@h/d")).unwrap();
        assert!(kept.places_in(Environment::default()).unwrap().database.unwrap().has_password());
        assert!(Backends::default().given_in(environment("mysql://u@h/d")).is_err());
    }

    #[test]
    fn a_bucket_needs_its_keys() {
        let objects = Backends { objects: Some("s3://b?endpoint=http://h".into()), ..Backends::default() };
        let refused = objects.clone().given_in(Environment::default()).unwrap_err().to_string();
        assert!(refused.contains("--objects-credentials"), "{refused}");
        let keys = || Environment { key: Some("k".into()), secret: Some("geheim".into()), ..Environment::default() };
        let kept = objects.given_in(keys()).unwrap();
        assert!(!serde_json::to_string(&kept).unwrap().contains("geheim"), "keys are not kept");
        assert_eq!(kept.places_in(keys()).unwrap().objects.unwrap().credentials.secret, "geheim");
    }

    #[test]
    fn a_broker_has_no_password_in_its_url_and_the_environment_stands_above_it() {
        let given = |url: &str| Backends { broker: Some(url.into()), ..Backends::default() };
        let kept = given("mqtts://a:1").given_in(Environment::default()).unwrap();
        assert_eq!(kept.broker_in(&Environment::default()).unwrap().unwrap().service.port, 1);
        let elsewhere = Environment { broker: Some("mqtts://b".into()), ..Environment::default() };
        assert_eq!(kept.broker_in(&elsewhere).unwrap().unwrap().devices.host, "b");
        let refused = given("mqtts://u:geheim@a").given_in(Environment::default()).unwrap_err().to_string();
        assert!(refused.contains("--broker") && !refused.contains("geheim"), "{refused}");
    }
}
