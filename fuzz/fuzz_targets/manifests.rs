//! Application documents: graph, overrides, package, asset descriptor, and what they mean together.
//!
//! The first byte chooses; documents are told apart by NUL. Whatever is refused is refused in few words.
#![no_main]

use belvedere_manifest::{
    Error, ImplementationKind, PackageSet, check_descriptor, check_package, host_ports, parse_descriptor, parse_graph,
    parse_overrides, parse_package, resolve,
};
use libfuzzer_sys::fuzz_target;

/// People read it: it names a place, fits a line or two, and into the API's 255 characters.
fn readable<T>(result: Result<T, Error>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    assert!(!error.element.is_empty() && !error.message.is_empty(), "an error without a place or without words");
    assert!(error.to_string().chars().count() < 2000, "an error that is longer than anybody reads");
    assert!(error.brief(255).chars().count() <= 255, "an error that does not fit");
    None
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match mode % 6 {
        0 => {
            if let Some(graph) = readable(parse_graph(text)) {
                readable(resolve(&graph, None, &PackageSet::default()));
            }
        }
        1 => {
            readable(parse_overrides(text));
        }
        2 => {
            if let Some(package) = readable(parse_package(text)) {
                readable(check_package(&package));
                assert!(package.named_files().all(|file| !file.place.is_empty()));
                // What it is written as is read as the same.
                let again = parse_package(&package.to_document());
                assert!(
                    again.is_ok_and(|again| again == package),
                    "a package that was read cannot be written and read again"
                );
            }
        }
        3 => {
            if let Some(descriptor) = readable(parse_descriptor(text)) {
                for kind in [ImplementationKind::Container, ImplementationKind::Model] {
                    readable(check_descriptor(kind, &descriptor));
                }
            }
        }
        // A graph and its overrides.
        4 => {
            let Some((graph, overrides)) = text.split_once('\0') else { return };
            if let (Some(graph), Some(overrides)) = (readable(parse_graph(graph)), readable(parse_overrides(overrides))) {
                readable(resolve(&graph, Some(&overrides), &PackageSet::default()));
            }
        }
        // A graph, its overrides, and a package that stands for every package it lists.
        _ => {
            let mut documents = text.splitn(3, '\0');
            let (Some(graph), Some(overrides), Some(package)) = (documents.next(), documents.next(), documents.next())
            else {
                return;
            };
            let (Ok(graph), Ok(package)) = (parse_graph(graph), parse_package(package)) else { return };
            let overrides = parse_overrides(overrides).ok();
            let mut set = PackageSet::default();
            for include in graph.packages.iter().chain(overrides.iter().flat_map(|o| &o.packages)) {
                set.insert(include.name.to_string(), include.version.to_string(), package.clone());
            }
            if let Some(application) = readable(resolve(&graph, overrides.as_ref(), &set)) {
                let open = application.open_ports.iter().map(|port| port.host_port).collect();
                assert_eq!(host_ports(&graph, overrides.as_ref()), open, "what is opened and what is said to be opened");
                assert!(application.cameras.len() <= 80 && application.sinks.len() <= 1);
            }
        }
    }
});
