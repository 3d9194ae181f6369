//! What survives a power cut: the desired applications, the region, and the key that streams are named with.

use belvedere_interfaces::applications::{DesiredDeployment, SetDesired};
use std::path::{Path, PathBuf};

const DESIRED: &str = "desired.json";
const RUNNING: &str = "running.json";
const REGION: &str = "region";
const STREAM_KEY: &str = "stream-key";
/// A little more than a Varlink message.
const LIMIT: usize = 2 << 20;

/// The durable state.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// State in `directory`, which is made if it is not there.
    pub fn open(directory: &Path) -> Result<Store, String> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(directory)
            // Containers reach their own directories through this one, and cannot list it.
            .and_then(|()| std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)))
            .map_err(|error| format!("make {}: {error}", directory.display()))?;
        Ok(Store { directory: directory.to_owned() })
    }

    /// What was desired last; nothing at first. A document that cannot be read is an error: it is better to wait for
    /// the service than to remove applications because of it.
    pub fn desired(&self) -> Result<SetDesired, String> {
        let bytes = belvedere_durable::read_file(&self.directory, DESIRED, LIMIT).map_err(|error| error.to_string())?;
        match bytes {
            None => Ok(SetDesired { deployments: Vec::new() }),
            // The document holds cameras' passwords: its text stays out of the error.
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| format!("{DESIRED} cannot be read (line {})", error.line()))
            }
        }
    }

    /// Keeps what is desired.
    pub fn set_desired(&self, desired: &SetDesired) -> Result<(), String> {
        let bytes = serde_json::to_vec(desired).map_err(|_| "what is desired cannot be written".to_owned())?;
        belvedere_durable::write_file(&self.directory, DESIRED, &bytes, 0o600).map_err(|error| error.to_string())
    }

    /// The deployment that ran last of an instance, if it is known.
    pub fn running(&self, instance: &Path) -> Option<DesiredDeployment> {
        let bytes = belvedere_durable::read_file(instance, RUNNING, LIMIT).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps the deployment that runs of an instance: until another one is ready it is what the appliance goes back to,
    /// also after a power cut. In the instance's own directory, so that it ends with it.
    pub fn set_running(&self, instance: &Path, deployment: &DesiredDeployment) -> Result<(), String> {
        let bytes = serde_json::to_vec(deployment).map_err(|_| "what runs cannot be written".to_owned())?;
        belvedere_durable::write_file(instance, RUNNING, &bytes, 0o600).map_err(|error| error.to_string())
    }

    /// The region that the service last named.
    pub fn region(&self) -> Option<String> {
        let bytes = belvedere_durable::read_file(&self.directory, REGION, 64).ok()??;
        String::from_utf8(bytes).ok()
    }

    /// Keeps the region.
    pub fn set_region(&self, region: &str) {
        if let Err(error) = belvedere_durable::write_file(&self.directory, REGION, region.as_bytes(), 0o600) {
            log::warn!("keep the region: {error}");
        }
    }

    /// The key that streams are named with; made once.
    pub fn stream_key(&self) -> Result<[u8; 32], String> {
        let there = belvedere_durable::read_file(&self.directory, STREAM_KEY, 32).map_err(|error| error.to_string())?;
        if let Some(key) = there.and_then(|bytes| bytes.try_into().ok()) {
            return Ok(key);
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| format!("make the stream key: {error}"))?;
        belvedere_durable::write_file(&self.directory, STREAM_KEY, &key, 0o600).map_err(|error| error.to_string())?;
        Ok(key)
    }
}
