//! `broker-configuration`: the files of an external broker.

use crate::ServerError;
use crate::configuration::Configuration;
use belvedere_fleet::authority::Authority;
use belvedere_fleet::external::configuration::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is asked for.
pub struct Wanted<'a> {
    /// The service's directory.
    pub data: &'a Path,
    /// Further names of the broker.
    pub names: &'a [String],
    /// Where certificate and key will be.
    pub configuration: &'a Path,
    /// Where the broker may write.
    pub state: &'a Path,
    /// Where to.
    pub directory: &'a Path,
}

/// Writes them; their paths. Refuses to overwrite one.
pub async fn write(wanted: Wanted<'_>) -> Result<Vec<PathBuf>, ServerError> {
    for path in [wanted.configuration, wanted.state] {
        // It becomes a line of mosquitto's configuration.
        let shown = path.to_string_lossy();
        if !path.is_absolute() || shown.chars().any(char::is_control) {
            return Err(ServerError::Argument(format!("{}: not an absolute path", shown.escape_debug())));
        }
    }
    let configuration = Configuration::read(wanted.data)?;
    let Some(url) = configuration.backends.broker()? else {
        let text = "this service has no external broker: `init --broker mqtts://host:port`, \"backends\": {\"broker\": …} in \
                    service.json, or BELVEDERE_BROKER names one";
        return Err(ServerError::Argument(text.into()));
    };
    let (certificate, key) = configuration.authority();
    let authority = Authority::open(&certificate, &key)?;
    let store = configuration.attach_store(wanted.data).await?;
    let asked =
        configuration::Wanted { url: &url, names: wanted.names, configuration: wanted.configuration, state: wanted.state };
    let files = configuration::files(&asked, &authority, &store).await;
    store.close().await;
    let error = |path: &Path, source| ServerError::File { operation: "write", path: path.to_owned(), source };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(wanted.directory)
        .map_err(|e| error(wanted.directory, e))?;
    let mut written = Vec::new();
    for File { name, secret, content } in files? {
        let path = wanted.directory.join(name);
        let mode = if secret { 0o600 } else { 0o644 };
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut f| f.write_all(content.as_bytes()).and_then(|()| f.sync_all())).map_err(|e| error(&path, e))?;
        written.push(path);
    }
    Ok(written)
}
