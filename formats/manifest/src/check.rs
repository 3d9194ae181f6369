//! What must hold within one package and its descriptors, before any graph uses them.

use crate::error::element;
use crate::json::DOCUMENT;
use crate::text::shown;
use crate::{
    AssetFiles, Category, Descriptor, Error, Implementation, ImplementationKind, Interface, Package, Requirement, Rule,
};
use std::collections::BTreeSet;

/// Checks a package by itself: unique names, file names that are safe, and for every interface an asset that can be it.
pub fn check_package(package: &Package) -> Result<(), Error> {
    let interfaces = || package.interfaces.iter().map(|interface| &*interface.name);
    unique(interfaces(), "nodePackage.interfaces", "interface")?;
    unique(package.assets.iter().map(|asset| &*asset.name), "nodePackage.assets", "asset")?;
    for (i, asset) in package.assets.iter().enumerate() {
        for (j, implementation) in asset.implementations.iter().enumerate() {
            let at = format!("{}.implementations[{j}]", element("nodePackage.assets", i, &asset.name));
            check_file_names(implementation, &at)?;
        }
    }
    for (i, interface) in package.interfaces.iter().enumerate() {
        let at = element("nodePackage.interfaces", i, &interface.name);
        unique(interface.inputs.iter().map(|port| &*port.name), &format!("{at}.inputs"), "port")?;
        unique(interface.outputs.iter().map(|port| &*port.name), &format!("{at}.outputs"), "port")?;
        if matches!(interface.category, Category::BusinessLogic | Category::MlModel) || interface.asset.is_some() {
            find_asset(package, interface, &at)?;
        }
    }
    Ok(())
}

/// Checks that a descriptor fits an asset of that kind: a container needs something to run, a model a model's
/// description. Texts that could not be handed to a program are refused.
pub fn check_descriptor(kind: ImplementationKind, descriptor: &Descriptor) -> Result<(), Error> {
    let fail = |place: &str, message: &str| Err(Error::new(place, Rule::Descriptor, message));
    let runtime = match (kind, descriptor) {
        (ImplementationKind::Container, Descriptor::Runtime(runtime)) => runtime,
        (ImplementationKind::Container, Descriptor::Model(_)) => {
            return fail("mlModelDescriptor", "the asset is a container, and needs a \"runtimeDescriptor\"");
        }
        (ImplementationKind::Model, Descriptor::Runtime(_)) => {
            return fail("runtimeDescriptor", "the asset is a model, and needs an \"mlModelDescriptor\"");
        }
        (ImplementationKind::Model | ImplementationKind::System, _) => return Ok(()),
    };
    let Some(name) = runtime.entry.as_ref().and_then(|entry| entry.name.as_ref()) else {
        return fail("runtimeDescriptor.entry", "names no file to run; give it a \"name\" such as \"/panorama/app.py\"");
    };
    let entry = runtime.entry.iter();
    let arguments =
        entry.clone().flat_map(|entry| entry.path.iter().chain(entry.arguments.iter().flatten())).map(String::as_str);
    if arguments.chain([&**name]).any(|text| text.contains('\0')) {
        return fail("runtimeDescriptor.entry", "holds a character NUL, which no program can be given");
    }
    for (i, variable) in entry.flat_map(|entry| entry.environment.iter().flatten()).enumerate() {
        let at = element("runtimeDescriptor.entry.environment", i, &variable.name);
        if variable.name.contains(['=', '\0']) || variable.value.contains('\0') {
            return fail(&at, "holds a character that an environment cannot: NUL, or \"=\" in a name");
        }
    }
    Ok(())
}

/// A file that a package names and that must be uploaded.
#[derive(Debug, Clone)]
pub struct NamedFile<'a> {
    /// Where the package names it, as errors show it.
    pub place: String,
    /// The file.
    pub name: &'a str,
    /// What asset it belongs to.
    pub kind: ImplementationKind,
    /// Whether it is the asset's descriptor and not the asset.
    pub descriptor: bool,
}

impl Package {
    /// Files of assets that are not part of the appliance, and their descriptors, with the places that name them.
    pub fn named_files(&self) -> impl Iterator<Item = NamedFile<'_>> {
        let implementations = self.assets.iter().enumerate().flat_map(|(i, asset)| {
            let at = element("nodePackage.assets", i, &asset.name);
            asset
                .implementations
                .iter()
                .enumerate()
                .map(move |(j, implementation)| (format!("{at}.implementations[{j}]"), implementation))
        });
        implementations.filter(|(_, implementation)| implementation.kind != ImplementationKind::System).flat_map(
            |(at, implementation)| {
                let file = |member: &str, name, descriptor| NamedFile {
                    place: format!("{at}.{member}"),
                    name,
                    kind: implementation.kind,
                    descriptor,
                };
                let asset = file("assetUri", &*implementation.asset_uri, false);
                [Some(asset), implementation.descriptor_uri.as_deref().map(|uri| file("descriptorUri", uri, true))]
                    .into_iter()
                    .flatten()
            },
        )
    }
}

/// The files that an interface's nodes are made of, and whether they ask for the accelerator.
pub(crate) fn find_asset(package: &Package, interface: &Interface, at: &str) -> Result<(AssetFiles, bool), Error> {
    let fail = |message: String| Error::new(format!("{at}.asset"), Rule::AssetExists, message);
    let list = || names(package.assets.iter().map(|asset| &*asset.name));
    let name = interface.asset.as_deref().ok_or_else(|| {
        fail(format!(
            "is missing: an interface of category {} needs one of the assets: {}",
            interface.category.word(),
            list()
        ))
    })?;
    let (i, asset) = package
        .assets
        .iter()
        .enumerate()
        .find(|(_, asset)| &*asset.name == name)
        .ok_or_else(|| fail(format!("{} is not an asset of the package; it has: {}", shown(name), list())))?;
    let kind = match interface.category {
        Category::BusinessLogic => ImplementationKind::Container,
        Category::MlModel => ImplementationKind::Model,
        Category::MediaSource | Category::MediaSink => ImplementationKind::System,
    };
    let (j, implementation) =
        asset.implementations.iter().enumerate().find(|(_, implementation)| implementation.kind == kind).ok_or_else(
            || {
                let word = kind.word();
                fail(format!(
                    "asset {} has no implementation of type {word}; build it and package the application again",
                    shown(name)
                ))
            },
        )?;
    let descriptor = implementation.descriptor_uri.clone();
    if kind == ImplementationKind::Container && descriptor.is_none() {
        return Err(Error::new(
            format!("{}.implementations[{j}]", element("nodePackage.assets", i, &asset.name)),
            Rule::Descriptor,
            "has no \"descriptorUri\", which says what runs in the container; build it and package the application again",
        ));
    }
    let accelerator = implementation.requirements.iter().any(|requirement| {
        matches!(requirement, Requirement::HardwareAccess { inference_accelerators } if !inference_accelerators.is_empty())
    });
    let unchecked = implementation.requirements.iter().filter_map(unchecked).collect();
    Ok((AssetFiles { asset: implementation.asset_uri.to_string(), descriptor, unchecked }, accelerator))
}

/// A requirement that nobody looks at, in words.
fn unchecked(requirement: &Requirement) -> Option<String> {
    match requirement {
        Requirement::Ota { min_version, max_version } => {
            let from = min_version.iter().map(|version| format!("from {}", shown(version)));
            let to = max_version.iter().map(|version| format!("up to {}", shown(version)));
            Some(format!("appliance software {}", from.chain(to).collect::<Vec<_>>().join(" ")))
        }
        Requirement::Device { .. } => Some("the device panorama_devkit".into()),
        Requirement::HardwareAccess { .. } => None,
    }
}

fn check_file_names(implementation: &Implementation, at: &str) -> Result<(), Error> {
    if implementation.kind == ImplementationKind::System {
        return Ok(());
    }
    let uris = [("assetUri", Some(&*implementation.asset_uri)), ("descriptorUri", implementation.descriptor_uri.as_deref())];
    for (member, uri) in uris {
        if let Some(uri) = uri.filter(|uri| !file_name(uri)) {
            let message = format!("{} is not a plain file name: 1 to 255 letters, digits, `.`, `_` and `-`", shown(uri));
            return Err(Error::new(format!("{at}.{member}"), Rule::AssetExists, message));
        }
    }
    Ok(())
}

/// A name that is safe as a file name and as the end of an object key.
fn file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Names for a message: the first few, about a line.
pub(crate) fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let (mut line, mut more) = (String::new(), 0);
    for name in all {
        if more > 0 || !line.is_empty() && line.len() + name.len() > 80 {
            more += 1;
            continue;
        }
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(name);
    }
    match (line.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => line,
        (false, more) => format!("{line} and {more} more"),
    }
}

pub(crate) fn unique<'a>(names: impl Iterator<Item = &'a str>, list: &str, what: &str) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            let list = if list.is_empty() { DOCUMENT } else { list };
            let message = format!("another {what} has this name; give each its own");
            return Err(Error::new(element(list, i, name), Rule::UniqueNames, message));
        }
    }
    Ok(())
}
