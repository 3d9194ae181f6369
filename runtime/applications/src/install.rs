//! Brings everything a deployment names onto the disk. Can be interrupted anywhere and called again: what is whole is
//! kept, what is missing is fetched. Without access to the service it succeeds when nothing is missing.
//!
//! What a power cut leaves: `objects/` holds whole objects and parts; `trees/<sha256>` and `models/<sha256>.onnx` are
//! there whole or not at all (staged, synchronised, renamed); archives are removed once unpacked.

use crate::deployment::{self, Prepared, PreparedCode, PreparedModel};
use crate::download::{self, DownloadError, GoOn};
use crate::model_archive::{self, ModelArchiveError};
use crate::places::Places;
use crate::unpack::{self, Limits, Owners, UnpackError};
use belvedere_device_protocol::{Deployment, Object};
use belvedere_interfaces::applications::SetObjectAccess;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Bytes of a manifest or descriptor.
const DOCUMENT: u64 = 1 << 20;

/// Why a deployment is not installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// It never will be, as it is.
    #[error("{0}")]
    Permanent(String),
    /// It may be later.
    #[error("{0}")]
    Transient(String),
}

impl From<DownloadError> for InstallError {
    fn from(error: DownloadError) -> InstallError {
        match error {
            // A wrong object is removed and fetched anew: the next one may be right.
            DownloadError::Wrong { .. } => InstallError::Transient(error.to_string()),
            _ => InstallError::Transient(error.to_string()),
        }
    }
}

/// What an installation needs of its surroundings.
pub struct Surroundings<'a> {
    /// Paths.
    pub places: &'a Places,
    /// Access to the object store, if there is one now.
    pub access: &'a dyn Fn() -> Option<SetObjectAccess>,
    /// `false` when the deployment is not wanted any more.
    pub go_on: GoOn<'a>,
    /// Is told what is going on.
    pub progress: &'a dyn Fn(String),
    /// See [`deployment::streams`].
    pub stream_key: &'a [u8; 32],
}

/// Installs a deployment.
pub fn install(deployment: &Deployment, around: &Surroundings) -> Result<Prepared, InstallError> {
    let permanent = InstallError::Permanent;
    let mut packages = Vec::new();
    for package in &deployment.packages {
        packages.push((package, document(&package.manifest, around)?));
    }
    let application = deployment::application(deployment, &packages).map_err(permanent)?;
    let streams = deployment::streams(&application, &deployment.cameras, around.stream_key).map_err(permanent)?;
    let mut code: Vec<PreparedCode> = Vec::new();
    for node in &application.code {
        let (archive, descriptor) = deployment::asset_objects(deployment, &node.node, &node.asset).map_err(permanent)?;
        let text = descriptor.map(|descriptor| document(descriptor, around)).transpose()?;
        code.push(deployment::prepare_code(&application, node, archive, text.as_deref()).map_err(permanent)?);
        tree(archive, around)?;
    }
    let mut models: Vec<PreparedModel> = Vec::new();
    for node in &application.models {
        let (archive, descriptor) = deployment::asset_objects(deployment, &node.node, &node.asset).map_err(permanent)?;
        let text = descriptor.map(|descriptor| document(descriptor, around)).transpose()?;
        models.push(deployment::prepare_model(node, archive, text.as_deref()).map_err(permanent)?);
        model(archive, around)?;
    }
    Ok(Prepared { application, code, models, streams })
}

fn fetch(object: &Object, around: &Surroundings) -> Result<PathBuf, InstallError> {
    let directory = around.places.objects();
    if !download::place(&directory, object).exists() {
        (around.progress)(format!("downloading {} ({} bytes)", object.name, object.size));
    }
    Ok(download::fetch(&directory, object, (around.access)().as_ref(), around.go_on)?)
}

fn document(object: &Object, around: &Surroundings) -> Result<String, InstallError> {
    if object.size > DOCUMENT {
        return Err(InstallError::Permanent(format!(
            "{} has {} bytes; a document has at most {DOCUMENT}",
            object.name, object.size
        )));
    }
    let path = fetch(object, around)?;
    let mut text = String::new();
    File::open(&path)
        .and_then(|file| file.take(DOCUMENT).read_to_string(&mut text))
        .map_err(|error| InstallError::Permanent(format!("read {}: {error}", object.name)))?;
    Ok(text)
}

fn transient(operation: &str) -> impl Fn(std::io::Error) -> InstallError {
    move |error| InstallError::Transient(format!("{operation}: {error}"))
}

fn tree(archive: &Object, around: &Surroundings) -> Result<(), InstallError> {
    let trees = around.places.trees();
    if trees.join(&archive.sha256).is_dir() {
        return Ok(());
    }
    let path = fetch(archive, around)?;
    (around.progress)(format!("unpacking {}", archive.name));
    std::fs::create_dir_all(&trees).map_err(transient("make the directory of root file systems"))?;
    let durable = |error: belvedere_durable::DurableError| InstallError::Transient(error.to_string());
    let staged = belvedere_durable::stage_directory(&trees, &archive.sha256, 0o755).map_err(durable)?;
    let file = File::open(&path).map_err(transient("open the archive"))?;
    let owners = if rustix::process::geteuid().is_root() {
        Owners::Moved { first: around.places.first_id, count: around.places.ids }
    } else {
        Owners::Mine
    };
    let done = unpack::unpack(std::io::BufReader::with_capacity(256 << 10, file), &staged.path(), owners, Limits::default());
    let done = done.map_err(|error| {
        let _ = std::fs::remove_dir_all(staged.path());
        let text = format!("{}: {error}", archive.name);
        // Everything else is what the archive is, and it is what its SHA-256 says.
        if matches!(error, UnpackError::Write { source: rustix::io::Errno::NOSPC | rustix::io::Errno::IO, .. }) {
            InstallError::Transient(text)
        } else {
            InstallError::Permanent(text)
        }
    })?;
    staged.commit().map_err(durable)?;
    let _ = std::fs::remove_file(&path);
    log::info!(
        "{}: {} entries, {} bytes unpacked, {} devices left out",
        archive.name,
        done.entries,
        done.bytes,
        done.left_out
    );
    Ok(())
}

fn model(archive: &Object, around: &Surroundings) -> Result<(), InstallError> {
    let models = around.places.models();
    let whole = models.join(format!("{}.onnx", archive.sha256));
    if whole.is_file() {
        return Ok(());
    }
    let path = fetch(archive, around)?;
    (around.progress)(format!("unpacking {}", archive.name));
    std::fs::create_dir_all(&models).map_err(transient("make the directory of models"))?;
    let new = models.join(format!(".{}.new", archive.sha256));
    let mut input = File::open(&path).map_err(transient("open the archive"))?;
    #[expect(clippy::disallowed_methods, reason = "gets its name when it is on the medium")]
    let mut output = File::create(&new).map_err(transient("make the model's file"))?;
    model_archive::extract(&mut input, &mut output).map_err(|error| {
        let _ = std::fs::remove_file(&new);
        let text = format!("{}: {error}", archive.name);
        match &error {
            ModelArchiveError::Read(source) if source.raw_os_error().is_some() => InstallError::Transient(text),
            _ => InstallError::Permanent(text),
        }
    })?;
    output.sync_all().map_err(transient("synchronise the model's file"))?;
    #[expect(clippy::disallowed_methods, reason = "too large for memory; file and directory are synchronised")]
    std::fs::rename(&new, &whole).map_err(transient("name the model's file"))?;
    File::open(&models)
        .and_then(|directory| directory.sync_all())
        .map_err(transient("synchronise the directory of models"))?;
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// Removes what no deployment names: objects, parts, root file systems, models, directories of instances.
pub fn collect<'a>(places: &Places, deployments: impl Iterator<Item = &'a Deployment>) {
    let mut hashes = BTreeSet::new();
    let mut instances = BTreeSet::new();
    for deployment in deployments {
        instances.insert(deployment.application_instance_id.as_str());
        for package in &deployment.packages {
            hashes.insert(package.manifest.sha256.as_str());
            hashes.extend(package.assets.iter().map(|asset| asset.sha256.as_str()));
        }
    }
    let keep_hash = |name: &str| {
        let name = name.trim_start_matches('.');
        hashes.contains(name.split('.').next().unwrap_or(name))
    };
    for directory in [places.objects(), places.trees(), places.models()] {
        sweep(&directory, &keep_hash);
    }
    sweep(&places.state.join("instances"), &|name| instances.contains(name));
}

fn sweep(directory: &std::path::Path, keep: &dyn Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(keep) {
            continue;
        }
        let path = entry.path();
        let gone = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match gone {
            Ok(()) => log::info!("removed {}", path.display()),
            Err(error) => log::warn!("remove {}: {error}", path.display()),
        }
    }
}
