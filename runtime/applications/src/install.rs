//! Brings everything a deployment names onto the disk. Can be interrupted anywhere and called again: what is whole is
//! kept, what is missing is fetched. Without access to the service it succeeds when nothing is missing.
//!
//! What a power cut leaves: `objects/` holds whole objects and parts; `trees/<sha256>` and `models/<sha256>.onnx` are
//! there whole or not at all (staged, synchronised, renamed); archives are removed once unpacked.

use crate::claims::{Claim, Claims};
use crate::deployment::{self, Prepared, PreparedCode, PreparedModel};
use crate::discard::Discard;
use crate::disk::{self, Space};
use crate::download::{self, DownloadError, GoOn, STALL};
use crate::model_archive::{self, ModelArchiveError};
use crate::places::Places;
use crate::reserve;
use crate::unpack::{self, Limits, Owners};
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

/// What an installation needs of its surroundings.
pub struct Surroundings<'a> {
    /// Paths.
    pub places: &'a Places,
    /// The application instance.
    pub id: &'a str,
    /// So that no two installations bring one object at a time.
    pub claims: &'a Claims,
    /// Where remnants go.
    pub discard: &'a Discard,
    /// Access to the object store, if there is one now.
    pub access: &'a dyn Fn() -> Option<SetObjectAccess>,
    /// `false` when the deployment is not wanted any more.
    pub go_on: GoOn<'a>,
    /// Is told what is going on.
    pub progress: &'a dyn Fn(String),
    /// Who fills the disk, in words.
    pub shortage: &'a dyn Fn() -> String,
    /// See [`deployment::streams`].
    pub stream_key: &'a [u8; 32],
}

/// An object with what it is for, as people know it: its file's name is a hash.
struct Named<'a> {
    object: &'a Object,
    /// `package code 1.0, node code_node`.
    of: String,
}

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (hash, rest) = self.object.name.split_at_checked(12).unwrap_or((&self.object.name, ""));
        if rest.len() > 24 { write!(f, "{} ({hash}…)", self.of) } else { write!(f, "{} ({})", self.of, self.object.name) }
    }
}

/// Installs a deployment. What it writes is the application's: it must not take the disk's reserve.
pub fn install(deployment: &Deployment, around: &Surroundings) -> Result<Prepared, InstallError> {
    reserve::without(|| install_all(deployment, around)).map_err(|error| match error {
        // Whatever was said: it was asked to end.
        InstallError::Permanent(problem) if !(around.go_on)() => InstallError::Transient(problem),
        other => other,
    })
}

fn install_all(deployment: &Deployment, around: &Surroundings) -> Result<Prepared, InstallError> {
    let permanent = InstallError::Permanent;
    let mut packages = Vec::new();
    for package in &deployment.packages {
        let of = format!("the manifest of package {} {}", package.name, package.version);
        packages.push((package, document(&Named { object: &package.manifest, of }, around)?));
    }
    let application = deployment::application(deployment, &packages).map_err(permanent)?;
    let streams = deployment::streams(&application, &deployment.cameras, around.stream_key).map_err(permanent)?;
    let of = |node: &belvedere_manifest::Instance, what: &str| {
        let package = node.package.rsplit("::").next().unwrap_or(&node.package);
        format!("{what} of package {package} {}, node {}", node.version, node.name)
    };
    let describe = |descriptor: Option<&Object>, node: &belvedere_manifest::Instance| {
        descriptor.map(|object| document(&Named { object, of: of(node, "the descriptor") }, around)).transpose()
    };
    let mut code: Vec<PreparedCode> = Vec::new();
    let mut trees = Vec::new();
    for node in &application.code {
        let (archive, descriptor) = deployment::asset_objects(deployment, &node.node, &node.asset).map_err(permanent)?;
        let text = describe(descriptor, &node.node)?;
        code.push(deployment::prepare_code(&application, node, archive, text.as_deref()).map_err(permanent)?);
        trees.push(Named { object: archive, of: of(&node.node, "the container") });
    }
    let mut models: Vec<PreparedModel> = Vec::new();
    // Models before containers: they are smaller, and those that cannot run here are found in seconds.
    for node in &application.models {
        let (archive, descriptor) = deployment::asset_objects(deployment, &node.node, &node.asset).map_err(permanent)?;
        let text = describe(descriptor, &node.node)?;
        models.push(deployment::prepare_model(node, archive, text.as_deref()).map_err(permanent)?);
        model(&Named { object: archive, of: of(&node.node, "the model") }, around)?;
    }
    for archive in &trees {
        tree(archive, around)?;
    }
    Ok(Prepared { application, code, models, streams })
}

/// The right to look whether an object is there, and to bring it.
fn claim<'a>(named: &Named, around: &'a Surroundings) -> Result<Claim<'a>, InstallError> {
    let waiting = |other: &str| (around.progress)(format!("waiting for {other}, which is bringing {named} too"));
    around
        .claims
        .claim(&named.object.sha256, around.id, around.go_on, &waiting)
        .ok_or_else(|| InstallError::Transient("interrupted".into()))
}

fn fetch(named: &Named, around: &Surroundings) -> Result<PathBuf, InstallError> {
    let (directory, object) = (around.places.objects(), named.object);
    if !download::place(&directory, object).exists() {
        let there = std::fs::metadata(download::part(&directory, object)).map_or(0, |part| part.len());
        // The kernel says the same, but hours later.
        if let Ok(space) = Space::of(&around.places.state)
            && space.free < object.size.saturating_sub(there)
        {
            let needed = disk::size(object.size.saturating_sub(there));
            let free = disk::size(space.free);
            let text = format!("no room to download {named}: it needs {needed}, {free} are free; {}", (around.shortage)());
            return Err(InstallError::Transient(text));
        }
        (around.progress)(format!("downloading {named}, {}", disk::size(object.size)));
    }
    download::fetch(&directory, object, (around.access)().as_ref(), STALL, around.go_on).map_err(|error| {
        InstallError::Transient(match &error {
            DownloadError::Store { source, .. } if disk::is_full(source) => {
                format!("no room to download {named}: {}", (around.shortage)())
            }
            // A wrong object was removed and is fetched anew: the next one may be right.
            _ => format!("{}: {error}", named.of),
        })
    })
}

fn document(named: &Named, around: &Surroundings) -> Result<String, InstallError> {
    let object = named.object;
    if object.size > DOCUMENT {
        return Err(InstallError::Permanent(format!(
            "{named} has {} bytes; a document has at most {DOCUMENT}",
            object.size
        )));
    }
    let _claim = claim(named, around)?;
    let path = fetch(named, around)?;
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(DOCUMENT).read_to_end(&mut bytes))
        .map_err(|error| InstallError::Transient(format!("read {named}: {error}")))?;
    belvedere_manifest::document_text(&bytes)
        .map(str::to_owned)
        .map_err(|problem| InstallError::Permanent(format!("{named}: {problem}")))
}

fn transient(operation: &str) -> impl Fn(std::io::Error) -> InstallError {
    move |error| InstallError::Transient(format!("{operation}: {error}"))
}

/// Reads an archive for as long as its deployment is wanted.
struct WhileWanted<'a> {
    file: File,
    go_on: GoOn<'a>,
}

impl Read for WhileWanted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if (self.go_on)() { self.file.read(buffer) } else { Err(std::io::Error::other("interrupted")) }
    }
}

fn tree(named: &Named, around: &Surroundings) -> Result<(), InstallError> {
    let archive = named.object;
    let trees = around.places.trees();
    let _claim = claim(named, around)?;
    if trees.join(&archive.sha256).is_dir() {
        return Ok(());
    }
    let path = fetch(named, around)?;
    (around.progress)(format!("unpacking {named}"));
    std::fs::create_dir_all(&trees).map_err(transient("make the directory of root file systems"))?;
    let durable = |error: belvedere_durable::DurableError| InstallError::Transient(error.to_string());
    // What an interrupted attempt left may be a million files: nobody waits for their end.
    around
        .discard
        .take(&trees.join(format!(".{}.new", archive.sha256)))
        .map_err(transient("clear the remnant of an earlier attempt away"))?;
    let staged = belvedere_durable::stage_directory(&trees, &archive.sha256, 0o755).map_err(durable)?;
    let file = File::open(&path).map_err(transient("open the archive"))?;
    let owners = if rustix::process::geteuid().is_root() {
        Owners::Moved { first: around.places.first_id, count: around.places.ids }
    } else {
        Owners::Mine
    };
    let file = std::io::BufReader::with_capacity(256 << 10, WhileWanted { file, go_on: around.go_on });
    let done = unpack::unpack(file, &staged.path(), owners, Limits::default()).map_err(|error| {
        // At once, so that what did not fit does not keep others out.
        if let Err(error) = around.discard.take(&staged.path()) {
            log::warn!("clear {} away: {error}", staged.path().display());
        }
        if error.is_full() {
            InstallError::Transient(format!("no room to unpack {named}: {}", (around.shortage)()))
        } else if error.may_pass() {
            InstallError::Transient(format!("{named}: {error}"))
        } else {
            // Everything else is what the archive is, and it is what its SHA-256 says.
            InstallError::Permanent(format!("{named}: {error}"))
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

fn model(named: &Named, around: &Surroundings) -> Result<(), InstallError> {
    let archive = named.object;
    let models = around.places.models();
    let _claim = claim(named, around)?;
    let whole = models.join(format!("{}.onnx", archive.sha256));
    if whole.is_file() {
        return Ok(());
    }
    let path = fetch(named, around)?;
    (around.progress)(format!("unpacking {named}"));
    std::fs::create_dir_all(&models).map_err(transient("make the directory of models"))?;
    let new = models.join(format!(".{}.new", archive.sha256));
    let mut input = File::open(&path).map_err(transient("open the archive"))?;
    #[expect(clippy::disallowed_methods, reason = "gets its name when it is on the medium")]
    let mut output = File::create(&new).map_err(transient("make the model's file"))?;
    let no_room = |error: &std::io::Error| {
        disk::is_full(error).then(|| InstallError::Transient(format!("no room to unpack {named}: {}", (around.shortage)())))
    };
    model_archive::extract(&mut input, &mut output).map_err(|error| {
        let _ = std::fs::remove_file(&new);
        let text = format!("{named}: {error}");
        match &error {
            ModelArchiveError::Read(source) if disk::of_the_kernel(source).is_some() => {
                no_room(source).unwrap_or(InstallError::Transient(text))
            }
            _ => InstallError::Permanent(text),
        }
    })?;
    output
        .sync_all()
        .map_err(|error| no_room(&error).unwrap_or_else(|| transient("synchronise the model's file")(error)))?;
    #[expect(clippy::disallowed_methods, reason = "too large for memory; file and directory are synchronised")]
    std::fs::rename(&new, &whole).map_err(transient("name the model's file"))?;
    File::open(&models)
        .and_then(|directory| directory.sync_all())
        .map_err(transient("synchronise the directory of models"))?;
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// Everything of a deployment that is on the disk, by SHA-256.
pub fn hashes(deployment: &Deployment) -> impl Iterator<Item = &str> {
    deployment
        .packages
        .iter()
        .flat_map(|package| std::iter::once(&package.manifest).chain(&package.assets))
        .map(|object| object.sha256.as_str())
}

/// Removes what nobody needs: objects, parts, root file systems, models, directories of instances. Only renames: what
/// goes is emptied by and by.
pub fn collect(places: &Places, discard: &Discard, hashes: &BTreeSet<String>, instances: &BTreeSet<String>) {
    let keep_hash = |name: &str| {
        let name = name.trim_start_matches('.');
        hashes.contains(name.split('.').next().unwrap_or(name))
    };
    for directory in [places.objects(), places.trees(), places.models()] {
        sweep(&directory, discard, &keep_hash);
    }
    sweep(&places.state.join("instances"), discard, &|name| instances.contains(name));
}

fn sweep(directory: &std::path::Path, discard: &Discard, keep: &dyn Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(keep) {
            continue;
        }
        let path = entry.path();
        match discard.take(&path) {
            Ok(()) => log::info!("removed {}", path.display()),
            Err(error) => log::warn!("remove {}: {error}", path.display()),
        }
    }
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
