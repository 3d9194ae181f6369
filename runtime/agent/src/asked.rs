//! A process of the appliance that is asked again and again.

use belvedere_varlink::{CallError, Client};
use std::path::{Path, PathBuf};

/// A process that is asked again and again; notices when it was restarted.
pub(crate) struct Asked {
    path: PathBuf,
    client: Option<Client>,
    pid: Option<i32>,
}

impl Asked {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), client: None, pid: None }
    }

    /// The answer, and whether another process gave it than the last time.
    pub(crate) fn ask<M: belvedere_interfaces::Method>(&mut self, method: &M) -> Result<(M::Reply, bool), CallError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.path)?,
        };
        let reply = client.call(method)?;
        let pid = client.server().map(|peer| peer.pid);
        let restarted = self.pid.is_some() && pid.is_some() && self.pid != pid;
        self.pid = pid.or(self.pid);
        self.client = Some(client);
        Ok((reply, restarted))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.unwrap_or(0)
    }
}
