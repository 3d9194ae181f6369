//! The tools that people use, unmodified: the AWS CLI and panorama-cli, pointed at our service.

use crate::Trouble;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory with `aws` and `panorama-cli`, the service's address and a key.
#[derive(Clone)]
pub struct Tools {
    /// Directory of the programs.
    pub programs: PathBuf,
    /// `http://127.0.0.1:<port>`.
    pub endpoint: String,
    /// Region.
    pub region: String,
    /// Access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tools").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Tools {
    /// What a person would type first.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", self.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_PAGER", String::new()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
        ]
    }

    fn run(&self, program: &str, arguments: &[&str], directory: Option<&Path>) -> Result<String, Trouble> {
        let shown = format!(
            "{program} {}",
            arguments.iter().take(8).map(|a| a.chars().take(60).collect::<String>()).collect::<Vec<_>>().join(" ")
        );
        let path = format!("{}:{}", self.programs.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).env("PATH", path).stdin(Stdio::null());
        // Nothing of the person's own configuration may reach another service.
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE"] {
            command.env_remove(name);
        }
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command.envs(self.environment());
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let output = command.output().map_err(|error| Trouble::new(&shown, error))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(Trouble::new(shown, format!("{}\n{}{}", output.status, text, String::from_utf8_lossy(&output.stderr))))
        }
    }

    /// `aws <arguments>`; the answer is JSON, or `null` when it is empty.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn aws(&self, arguments: &[&str]) -> Result<Value, Trouble> {
        let text = self.run("aws", &[arguments, &["--output", "json"]].concat(), None)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| Trouble::new(format!("reading the answer of aws {}", arguments.join(" ")), error))
    }

    /// `panorama-cli <arguments>` in `directory`; what it printed.
    ///
    /// # Errors
    /// When the command fails.
    pub fn panorama_cli(&self, arguments: &[&str], directory: &Path) -> Result<String, Trouble> {
        self.run("panorama-cli", arguments, Some(directory))
    }
}
