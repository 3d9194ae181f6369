//! Application documents: graph, overrides, package, asset descriptor, and what they mean together.
#![no_main]

use belvedere_manifest::{PackageSet, check_package, parse_descriptor, parse_graph, parse_overrides, parse_package, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match mode % 5 {
        0 => {
            if let Ok(graph) = parse_graph(text) {
                let _ = resolve(&graph, None, &PackageSet::default());
            }
        }
        1 => {
            let _ = parse_overrides(text);
        }
        2 => {
            if let Ok(package) = parse_package(text) {
                let _ = check_package(&package);
                // What it is written as is read as the same.
                assert!(parse_package(&package.to_document()).is_ok(), "a package that was read cannot be written and read again");
            }
        }
        3 => {
            let _ = parse_descriptor(text);
        }
        // A graph and its overrides.
        _ => {
            let Some((graph, overrides)) = text.split_once('\0') else { return };
            if let (Ok(graph), Ok(overrides)) = (parse_graph(graph), parse_overrides(overrides)) {
                let _ = resolve(&graph, Some(&overrides), &PackageSet::default());
            }
        }
    }
});
